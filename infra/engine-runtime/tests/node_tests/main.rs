//! A node and a projection, run with a toy business over a log that outlives them.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test that fails may panic, and tests are told by their names"
)]

mod business;
mod caching;
mod commands;
mod embedded;
mod house;
mod projecting;
mod several;
mod street;
mod trips;
mod troubles;
