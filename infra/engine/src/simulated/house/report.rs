//! What to simulate, what comes of it, and which check found what is wrong.

use std::collections::BTreeMap;

use super::mistakes::Mistake;

/// What to simulate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan {
    /// A mistake, to see whether it is found.
    pub mistake: Option<Mistake>,
    /// Keep a line for everything that happens.
    pub tell: bool,
}

/// What happened in one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Of everything that happened: equal for equal seeds.
    pub trace_hash: u64,
    /// Requests, all answered.
    pub requests: u64,
    /// How often each thing happened, by name: faults, kinds of answers, ends of terms and of sagas.
    pub counts: BTreeMap<&'static str, u64>,
    /// What happened, line by line, if the plan says to tell.
    pub trace: Vec<String>,
}

/// Who finds that a promise was broken, and by looking at what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// Each record as it becomes durable: effective once, versions, time, and what the accepted prefix leads to.
    Log,
    /// What clients are told of their commands, against the log.
    Answers,
    /// What nodes call effective, and what their state stores end as.
    States,
    /// Each commit of the read store, and its rows at the end, against the fold of the log.
    Rows,
    /// What clients are shown of rows, against the log.
    Reads,
    /// Each call to the gateway, against what the log asks for.
    Calls,
    /// Accounts and the gateway's books at the end.
    Money,
    /// When timers fire.
    Timers,
    /// What is turned away while a shard is crowded, and that nothing else is.
    Bounds,
    /// Whether all ends once nothing goes wrong any more.
    Settling,
    /// An assertion in the code that is simulated.
    Assertion,
}

/// A promise that was broken, as a check says it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) by: Check,
    pub(super) what: String,
}

impl Found {
    pub(super) fn new(by: Check, what: impl Into<String>) -> Self {
        Self { by, what: what.into() }
    }
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}, after {at_us} µs, found by {by:?}: {what}")]
pub struct Violation {
    /// In this run.
    pub seed: u64,
    /// At this virtual time.
    pub at_us: u64,
    /// By this check.
    pub by: Check,
    /// This.
    pub what: String,
    /// What happened before, if the plan says to tell.
    pub trace: Vec<String>,
}
