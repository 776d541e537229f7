//! The judge. It hears three witnesses that share nothing: the clients (what was promised), the log (what happened) and the
//! gateway's books (where the money is), and it looks at the rows that anyone can read. From these alone it finds every
//! broken promise. It knows the rules of http.md and none of the product's code.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use crate::history::Command;
use crate::log::Told;

mod commands;
mod money;
mod rows;
mod stock;

/// Everything there is to judge by.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    /// What the clients sent and heard.
    pub(crate) history: Vec<Command>,
    /// All events of `GET /v1/events`, as told.
    pub(crate) events: Vec<Value>,
    /// The gateway's books.
    pub(crate) ledger: Vec<Value>,
    /// What GET shows of each stream that is a resource: its `ETag` and body.
    pub(crate) rows: BTreeMap<String, Row>,
    /// What the lists show: by stream as well, but read from the read models alone.
    pub(crate) listed: BTreeMap<String, Value>,
    /// `/dev/invariants`, if it was asked.
    pub(crate) invariants: Option<Value>,
}

/// A resource as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) etag: Option<String>,
    pub(crate) body: Value,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// The invariant's id (reliability.md §2.3).
    pub(crate) rule: &'static str,
    pub(crate) what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// What was found so far.
#[derive(Debug, Default)]
pub(crate) struct Findings(BTreeSet<Finding>);

impl Findings {
    pub(crate) fn add(&mut self, rule: &'static str, what: impl Into<String>) {
        self.0.insert(Finding { rule, what: what.into() });
    }

    /// Adds it unless `holds`.
    pub(crate) fn unless(&mut self, holds: bool, rule: &'static str, what: impl FnOnce() -> String) {
        if !holds {
            self.add(rule, what());
        }
    }
}

/// Judges what holds at any moment, whatever is still under way: the clients' history against the log, and the log against
/// itself.
pub(crate) fn judge_at_any_time(history: &[Command], told: &Told) -> Vec<Finding> {
    let mut findings = Findings::default();
    commands::judge(history, told, &mut findings);
    stock::judge_prefixes(told, &mut findings);
    findings.0.into_iter().collect()
}

/// Judges a house at rest: everything healed, settled and answered.
pub(crate) fn judge(evidence: &Evidence) -> Vec<Finding> {
    let mut findings = Findings::default();
    let told = match Told::of(&evidence.events) {
        Ok(told) => told,
        Err(fault) => {
            findings.add("LOG-1", fault);
            return findings.0.into_iter().collect();
        }
    };
    commands::judge(&evidence.history, &told, &mut findings);
    stock::judge_prefixes(&told, &mut findings);
    stock::judge_at_rest(&told, &mut findings);
    money::judge(&told, &evidence.ledger, &mut findings);
    rows::judge(&told, evidence, &mut findings);
    if let Some(report) = &evidence.invariants {
        let violations = report["violations"].as_array();
        findings.unless(violations.is_some_and(Vec::is_empty), "INVARIANTS", || {
            format!("the product's own check says {}", report["violations"])
        });
    }
    findings.0.into_iter().collect()
}

/// LOG-2: what was read from the log in an earlier life is told the same in the last.
pub(crate) fn never_rewritten(seen: &[Value], now: &[Value]) -> Vec<Finding> {
    let place = |event: &Value| format!("{} {}", event["position"], event["index"]);
    let now: BTreeMap<String, &Value> = now.iter().map(|event| (place(event), event)).collect();
    let changed = seen.iter().filter(|event| now.get(&place(event)) != Some(event));
    changed.map(|event| Finding { rule: "LOG-2", what: format!("once told, now different or gone: {event}") }).collect()
}

/// Fails the test with all that was found.
pub(crate) fn assert_clean(findings: &[Finding], context: impl FnOnce() -> String) {
    // 40: a broken run breaks a thousand promises alike.
    const SHOWN_MAX: usize = 40;
    if findings.is_empty() {
        return;
    }
    let shown: Vec<String> = findings.iter().take(SHOWN_MAX).map(ToString::to_string).collect();
    panic!("{} promises are broken\n{}\n{}", findings.len(), shown.join("\n"), context());
}
