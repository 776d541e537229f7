//! The promises of a log. An adapter calls [`log`] with a way to make a fresh log; the cases know nothing of how it is
//! kept. Records here are arbitrary bytes, as the port says.

mod appending;
mod partitions;
mod reading;
mod reopening;
mod tools;
mod waking;

use std::any::Any;
use std::sync::Arc;

use super::{Case, run_all};
use crate::log::Log;
use crate::record::Genesis;

/// A fresh log to judge.
pub struct LogFixture {
    /// The log, holding nothing but its genesis; the only handle to it.
    pub log: Arc<dyn Log>,
    /// What it was made with: at least two partitions.
    pub genesis: Genesis,
    /// How to close it and open it again, if it outlives being closed.
    pub reopen: Option<Reopen>,
    /// Whatever must live as long as the log: its directory.
    pub keep: Box<dyn Any>,
}

/// Closes a log by dropping what it is given (the only handle to it) and opens it again.
pub type Reopen = Box<dyn Fn(Arc<dyn Log>) -> Arc<dyn Log>>;

/// A promise of a log.
pub type LogCase = Case<fn(LogFixture)>;

/// Every promise of a log.
pub fn log_cases() -> Vec<LogCase> {
    [appending::CASES, partitions::CASES, reading::CASES, waking::CASES, reopening::CASES].concat()
}

/// Holds a log to every promise; `make` makes a fresh one for each.
///
/// # Panics
/// If a promise is broken, with the names of all that are.
pub fn log(make: impl Fn() -> LogFixture) {
    run_all(&log_cases(), |run| run(make()));
}
