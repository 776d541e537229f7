//! Commands between nodes: what arrives, what comes back, and what is said when something on the way breaks.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test that fails may panic, and tests are told by their names"
)]

mod door;
mod foreign;
mod forwarding;
mod troubles;
