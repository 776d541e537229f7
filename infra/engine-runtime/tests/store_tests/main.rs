//! The state store and history on a real fjall in a temporary directory, over a log in memory, with a toy business.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod catching_up;
mod crashing;
mod finding;
mod forgetting;
mod history;
mod opening;
mod toy;
mod world;
