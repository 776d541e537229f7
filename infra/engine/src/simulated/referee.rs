//! The referee reads the log as it becomes durable, as every reader does, and judges from that alone what nodes do and
//! what clients are told.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::bank::{Account, Bank, BankCommand, BankEvent};
use super::store::Store;
use crate::decider::{Context, Decider, Decision, States, StreamState};
use crate::event::Event;
use crate::fold::Verdict;
use crate::message::{Answer, CommandId, Decided, Fingerprint, Outcome, Precondition};
use crate::position::{Checkpoint, Offset, Version};
use crate::record::{Commit, StreamEvents};
use crate::shard::Effective;
use crate::stream::StreamName;

/// A command and what its sender demands.
pub(super) type Asked = (BankCommand, Precondition);
/// A command id where it counts.
pub(super) type Key = (StreamName, CommandId);

#[derive(Default)]
pub(super) struct Referee {
    pub(super) store: Store<Bank>,
    /// The fold after each offset.
    checkpoints: Vec<Checkpoint>,
    pub(super) commits: BTreeMap<Offset, Commit>,
    by_id: BTreeMap<Key, Offset>,
    pub(super) by_version: BTreeMap<(StreamName, Version), Offset>,
    states: BTreeMap<(StreamName, Version), Arc<Account>>,
    /// Everything that was ever asked, by id and fingerprint.
    asked: BTreeMap<(CommandId, [u8; 16]), Asked>,
    /// What was told to be invalid: it must never take effect.
    invalid: Vec<(Key, Fingerprint)>,
    pub(super) ignored: u64,
}

impl Referee {
    pub(super) fn ask(&mut self, id: CommandId, fingerprint: Fingerprint, asked: Asked) {
        self.asked.insert((id, fingerprint.0), asked);
    }

    /// One more durable record.
    pub(super) fn observe(&mut self, bytes: &Bytes) -> Result<(), String> {
        let offset = self.store.checkpoint.next_offset;
        // Of the prefix only what decisions rest on.
        let (streams, last_recorded_at) = (self.store.streams.clone(), self.store.last_recorded_at);
        let before = Store { streams, last_recorded_at, ..Store::default() };
        let (verdict, commit) = self.store.fold(bytes);
        self.checkpoints.push(self.store.checkpoint);
        if verdict == Verdict::Ignored {
            self.ignored += 1;
        }
        let Some(commit) = commit else { return Ok(()) };
        let key = (commit.resource.clone(), commit.command_id);
        if let Some(first) = self.by_id.insert(key, offset) {
            return Err(format!("{} is effective twice, at {first} and {offset}", commit.command_id));
        }
        if commit.recorded_at < before.last_recorded_at {
            return Err(format!("time went back at {offset}"));
        }
        for written in &commit.streams {
            let version = before.streams.get(&written.name).map_or(Version(0), |(version, _)| *version);
            if written.first_version != version.next() {
                return Err(format!("{} goes from {version} to {} at {offset}", written.name, written.first_version));
            }
            self.by_version.insert((written.name.clone(), written.first_version), offset);
            let (version, state) = self.store.streams[&written.name].clone();
            self.states.insert((written.name.clone(), version), state);
        }
        self.decide_again(&before, &commit).map_err(|what| format!("at {offset}: {what}"))?;
        self.commits.insert(offset, commit);
        Ok(())
    }

    /// What was recorded is what the accepted prefix leads to.
    fn decide_again(&self, before: &Store<Bank>, commit: &Commit) -> Result<(), String> {
        let asked = self.asked.get(&(commit.command_id, commit.fingerprint.0));
        let (command, precondition) = asked.ok_or("nobody asked for it")?;
        let states = (Bank.streams(command).into_iter())
            .map(|name| match before.streams.get(&name) {
                Some((version, state)) => StreamState { name, version: *version, state: Some(state.clone()) },
                None => StreamState { name, version: Version(0), state: None },
            })
            .collect::<Vec<_>>();
        let context = Context { now: commit.recorded_at, command_id: commit.command_id };
        let mut streams = Vec::<StreamEvents>::new();
        let outcome = if precondition.holds_at(states[0].version) {
            match Bank.decide(&States::new(&states), command, &context) {
                Decision::Invalid(errors) => return Err(format!("{command:?} is invalid: {errors:?}")),
                Decision::Refuse(rejection) => rejection.into(),
                Decision::Accept(accepted) => {
                    for (index, event) in &accepted.events {
                        let StreamState { name, version, .. } = &states[*index];
                        let event = BankEvent::encode(event);
                        match streams.iter_mut().find(|stream| stream.name == *name) {
                            Some(stream) => stream.events.push(event),
                            None => streams.push(StreamEvents {
                                name: name.clone(),
                                first_version: version.next(),
                                events: vec![event],
                            }),
                        }
                    }
                    Outcome { status: accepted.status, answer: accepted.answer, ..Outcome::default() }
                }
            }
        } else {
            if commit.outcome.code.as_deref() != Some("version-mismatch") {
                return Err(format!("{precondition:?} does not hold and was not refused"));
            }
            commit.outcome.clone()
        };
        if outcome != commit.outcome || streams != commit.streams {
            return Err(format!(
                "{command:?} on the accepted prefix comes to {outcome:?} {streams:?}, not to {commit:?}"
            ));
        }
        let after = self.store.streams.get(&commit.resource).map_or(Version(0), |(version, _)| *version);
        if after != commit.resource_version {
            return Err(format!("{} is at {after}, not at {}", commit.resource, commit.resource_version));
        }
        Ok(())
    }

    /// What a node says is effective.
    pub(super) fn judge_effective(&self, effective: &Effective<Bank>) -> Result<(), String> {
        let offset = effective.position.offset;
        let Some(checkpoint) = self.checkpoints.get(offset.0 as usize) else {
            return Err(format!("{offset} is called effective and not durable"));
        };
        if *checkpoint != effective.checkpoint {
            return Err(format!("the fold after {offset} is {checkpoint:?}, not {:?}", effective.checkpoint));
        }
        if self.commits.get(&offset) != effective.commit.as_deref() {
            return Err(format!("another record is effective at {offset} than {:?}", effective.commit));
        }
        for changed in &effective.changed {
            let state = self.states.get(&(changed.name.clone(), changed.version));
            if state.map(Arc::as_ref) != Some(&changed.state) {
                return Err(format!("{} after {offset} is {state:?}, not {:?}", changed.name, changed.state));
            }
        }
        Ok(())
    }

    /// What a client is told of its command. `known`: whether somebody had an answer before it asked.
    pub(super) fn judge_answer(
        &mut self,
        key: &Key,
        fingerprint: Fingerprint,
        answer: &Answer<Account>,
        known: bool,
    ) -> Result<(), String> {
        let recorded = self.by_id.get(key).map(|offset| (*offset, &self.commits[offset]));
        match (answer, recorded) {
            (Answer::Decided(decided), Some((offset, commit))) => {
                if commit.fingerprint != fingerprint {
                    return Err(format!("{} was answered with another command's outcome", key.1));
                }
                self.judge_decided(decided, offset, commit)
            }
            (Answer::Decided(decided), None) => {
                Err(format!("{} was answered from {}, where it is not effective", key.1, decided.position))
            }
            (Answer::Reused, Some((_, commit))) if commit.fingerprint != fingerprint => Ok(()),
            (Answer::Reused, _) => Err(format!("{} was not used for anything else", key.1)),
            // Refused at one version and invalid at another: both say never.
            (Answer::Invalid(_), Some((_, commit)))
                if commit.fingerprint == fingerprint && commit.outcome.is_accepted() =>
            {
                Err(format!("{} is effective and was called invalid", key.1))
            }
            (Answer::Invalid(_), _) => {
                self.invalid.push((key.clone(), fingerprint));
                Ok(())
            }
            (Answer::Unheard, _) if known => Err(format!("{} was answered before and is called unheard", key.1)),
            (Answer::Unheard, _) => Ok(()),
            (Answer::Expired, _) => Err(format!("{} cannot have expired", key.1)),
        }
    }

    fn judge_decided(&self, decided: &Decided<Account>, offset: Offset, commit: &Commit) -> Result<(), String> {
        if (decided.position.offset, decided.version, decided.recorded_at)
            != (offset, commit.resource_version, commit.recorded_at)
            || decided.outcome != commit.outcome
        {
            return Err(format!("{decided:?} is answered, and {commit:?} is effective at {offset}"));
        }
        if let Some(state) = &decided.state {
            let real = self.states.get(&(commit.resource.clone(), commit.resource_version));
            if real != Some(state) {
                return Err(format!("{state:?} is shown for {} at {offset}, which is {real:?}", commit.resource));
            }
        }
        Ok(())
    }

    /// What only the end shows.
    pub(super) fn judge_end(&self) -> Result<(), String> {
        for (key, fingerprint) in &self.invalid {
            if let Some(offset) = self.by_id.get(key)
                && self.commits[offset].fingerprint == *fingerprint
                && self.commits[offset].outcome.is_accepted()
            {
                return Err(format!("{} was called invalid and took effect at {offset}", key.1));
            }
        }
        Ok(())
    }
}
