//! What clients were told, against what the log says: CMD-1 to CMD-5, and the shape of the log itself.

use std::collections::{BTreeMap, BTreeSet};

use kit::Reply;

use super::Findings;
use crate::history::{Command, Verb, what_is_promised};
use crate::log::{Event, Told};

pub(super) fn judge(history: &[Command], told: &Told, findings: &mut Findings) {
    shape(told, findings);
    let mut keys = BTreeSet::new();
    for command in history {
        assert!(keys.insert(command.key), "the load used the key {} twice", command.key);
        same_key_same_answer(command, findings);
        let positions: BTreeSet<(u64, u64)> = told.of_command(command.key).map(|event| event.position).collect();
        findings.unless(positions.len() <= 1, "CMD-1", || format!("{} took effect at {positions:?}", name(command)));
        if command.is_accepted() {
            accepted(command, told, findings);
        } else if command.is_rejected() {
            findings.unless(positions.is_empty(), "CMD-3", || {
                format!("{} was rejected and took effect at {positions:?}", name(command))
            });
        }
        if !positions.is_empty() {
            effect(command, told, findings);
        }
    }
}

fn name(command: &Command) -> String {
    format!("{:?} {} under {}", command.verb, command.path, command.key)
}

/// LOG-1, LOG-2, LOG-3: versions without gaps, offsets in order, and what one command did all in one record.
fn shape(told: &Told, findings: &mut Findings) {
    let mut last = BTreeMap::<u64, (u64, u64)>::new();
    let mut records = BTreeMap::new();
    for event in &told.events {
        let (partition, offset) = event.position;
        let here = (offset, event.index);
        if let Some(before) = last.insert(partition, here) {
            findings.unless(before < here, "LOG-2", || {
                format!("{} at {partition}:{offset} is told after {before:?}", event.stream)
            });
        }
        let command = records.entry(event.position).or_insert(event.command);
        findings.unless(*command == event.command && event.command.is_some(), "LOG-3", || {
            format!("the record at {partition}:{offset} has events of two commands")
        });
    }
    for (stream, places) in &told.streams {
        let versions = places.iter().map(|&place| told.events[place].version);
        for (version, expected) in versions.zip(1..) {
            findings
                .unless(version == expected, "LOG-1", || format!("{stream} has {version} where {expected} belongs"));
        }
    }
    for (command, places) in &told.commands {
        let mut at = BTreeMap::<&str, BTreeSet<(u64, u64)>>::new();
        for &place in places {
            let event = &told.events[place];
            at.entry(&event.stream).or_default().insert(event.position);
        }
        for (stream, positions) in at {
            findings.unless(positions.len() == 1, "CMD-1", || {
                format!("command {command} took effect on {stream} at {positions:?}")
            });
        }
    }
}

/// CMD-2. With a wait, what is told is the resource as it then is; only the outcome must be the same.
fn same_key_same_answer(command: &Command, findings: &mut Findings) {
    let mut answers = command.all_definite();
    let Some(first) = answers.next() else { return };
    for again in answers {
        let moving = |reply: &Reply| !reply.body["in_flight"].is_null();
        let same = if first.status < 300 && (command.wait.is_some() || moving(first) || moving(again)) {
            first.status == again.status && first.header("location") == again.header("location")
        } else {
            what_is_promised(first) == what_is_promised(again)
        };
        findings.unless(same, "CMD-2", || {
            format!("{} was answered {} and {}", name(command), what_is_promised(first), what_is_promised(again))
        });
    }
}

/// CMD-1, CMD-4: an accepted command is in the log, where its answer says.
fn accepted(command: &Command, told: &Told, findings: &mut Findings) {
    let reply = command.definite().expect("an accepted command was answered");
    let effects: Vec<&Event> = told.of_command(command.key).collect();
    let answered_at = reply.positions();
    let Some(first) = effects.first() else {
        let harmless = command.verb.is_harmless_again() && done_before(command, told);
        findings.unless(harmless, "CMD-1", || {
            format!("{} was acknowledged with {} at {answered_at:?} and is not in the log", name(command), reply.status)
        });
        return;
    };
    let (partition, offset) = first.position;
    if command.wait.is_some() || command.verb.waits_for_gateway() {
        let covered = answered_at.iter().any(|&(p, o)| p == partition && o >= offset);
        findings.unless(covered, "CMD-1", || {
            format!("{} is at {partition}:{offset}, its answer said {answered_at:?}", name(command))
        });
        return;
    }
    findings.unless(answered_at == [first.position], "CMD-1", || {
        format!("{} is at {partition}:{offset}, its answer said {answered_at:?}", name(command))
    });
    let addressed = effects.iter().filter(|event| event.stream == first.stream);
    let version = addressed.map(|event| event.version).max().unwrap_or(0);
    findings.unless(reply.body["version"].as_u64() == Some(version), "CMD-1", || {
        format!("{} made version {version}, its answer said {}", name(command), reply.body["version"])
    });
    findings.unless(reply.header("etag") == Some(&format!("\"{version}\"")), "CMD-1", || {
        format!("{} made version {version}, its ETag was {:?}", name(command), reply.header("etag"))
    });
}

/// Whether somebody else had done it already.
fn done_before(command: &Command, told: &Told) -> bool {
    let Some(id) = command.path.split('/').rev().nth(1) else { return false };
    let mut streams = told.streams.keys().filter(|stream| stream.ends_with(id));
    streams.any(|stream| told.stream(stream).any(|event| event.kind == command.verb.event()))
}

/// That what happened is what was asked for.
fn effect(command: &Command, told: &Told, findings: &mut Findings) {
    let kind = command.verb.event();
    let Some(event) = told.of_command(command.key).find(|event| event.kind == kind) else {
        findings.add("CMD-1", format!("{} left no {kind} in the log", name(command)));
        return;
    };
    let (asked, done) = (&command.body, &event.data);
    let right = match command.verb {
        Verb::Place => {
            let lines = |value: &serde_json::Value| value["lines"].as_array().map_or(0, Vec::len);
            asked["customer_id"] == done["customer_id"]
                && lines(asked) == lines(done)
                && crate::log::by_sku(&asked["lines"]) == crate::log::by_sku(&done["lines"])
                && crate::log::total_of(&asked["lines"]) == crate::log::total_of(&done["lines"])
        }
        Verb::Count => asked["on_hand"] == done["on_hand"],
        Verb::Receive => asked["quantity"] == done["quantity"],
        Verb::Adjust => asked["delta"] == done["delta"],
        Verb::Reserve => asked["lines"] == done["lines"],
        Verb::Authorize => asked["amount"] == done["amount"] && asked["token"] == done["token"],
        Verb::RefundOrder | Verb::RefundPayment => asked["amount"] == done["amount"],
        Verb::Capture => asked["amount"].is_null() || asked["amount"] == done["amount"],
        Verb::Cancel => asked["reason"] == done["reason"],
        _ => true,
    };
    findings.unless(right, "CMD-1", || format!("{} asked for {asked} and did {done}", name(command)));
}
