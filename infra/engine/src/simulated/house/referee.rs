//! The referee reads the log as it becomes durable, as every reader does, and judges from that alone what nodes do, what
//! clients are told and shown, what the gateway is asked and what the read store takes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::business::{Clearing, Happened, Thing, Wish};
use super::projecting::{Batch, events_of};
use super::saga::{Call, timer_of};
use super::view::{Ledger, THINGS};
use super::world::{Check, Found};
use crate::decider::{Context, Decider, Decision, States, StreamState};
use crate::event::Event;
use crate::fold::Verdict;
use crate::message::{Answer, CommandId, Decided, Envelope, Fingerprint, Outcome};
use crate::position::{Checkpoint, Offset, Version};
use crate::record::{Commit, Record};
use crate::saga::{Ask, Reactor};
use crate::shard::{Effective, Ticket};
use crate::simulated::store::Store;
use crate::stream::StreamName;
use crate::view::Row;

/// A command id where it counts.
pub(super) type Key = (StreamName, CommandId);

/// What is known of one partition.
pub(super) struct Side {
    pub(super) store: Store<Clearing>,
    /// The fold after each offset.
    checkpoints: Vec<Checkpoint>,
    pub(super) commits: BTreeMap<Offset, Arc<Commit>>,
    by_id: BTreeMap<Key, Offset>,
    by_version: BTreeMap<(StreamName, Version), Offset>,
    states: BTreeMap<(StreamName, Version), Arc<Thing>>,
    /// What rows become, and by which record.
    pub(super) rows: BTreeMap<StreamName, Vec<(Offset, Row)>>,
    pub(super) events: u64,
    pub(super) ignored: u64,
}

/// A command that came to shards.
struct Came {
    wish: Wish,
    times: u32,
    turned_away: u32,
}

pub(super) struct Referee {
    pub(super) clearing: Clearing,
    pub(super) sides: Vec<Side>,
    /// Everything that was ever asked, by id and fingerprint.
    asked: BTreeMap<(CommandId, [u8; 16]), Wish>,
    /// What was told to be invalid: it must never take effect.
    pub(super) invalid: Vec<(usize, Key, Fingerprint)>,
    /// What came to shards, by ticket, and whether it was a command, not a question.
    submitted: BTreeMap<Ticket, (Key, bool)>,
    /// The commands among it.
    came: BTreeMap<Key, Came>,
    /// Keys under which the log asks for calls.
    intents: BTreeSet<CommandId>,
    marked: BTreeSet<StreamName>,
    /// The latest that any clock has shown, in microseconds.
    pub(super) clock_max: i64,
}

fn log(what: String) -> Found {
    Found::new(Check::Log, what)
}

impl Referee {
    pub(super) fn new(clearing: Clearing, partitions: usize) -> Self {
        let side = |_| Side {
            store: Store::new(clearing),
            checkpoints: Vec::new(),
            commits: BTreeMap::new(),
            by_id: BTreeMap::new(),
            by_version: BTreeMap::new(),
            states: BTreeMap::new(),
            rows: BTreeMap::new(),
            events: 0,
            ignored: 0,
        };
        Self {
            clearing,
            sides: (0..partitions).map(side).collect(),
            asked: BTreeMap::new(),
            invalid: Vec::new(),
            submitted: BTreeMap::new(),
            came: BTreeMap::new(),
            intents: BTreeSet::new(),
            marked: BTreeSet::new(),
            clock_max: 0,
        }
    }

    pub(super) fn ask(&mut self, id: CommandId, fingerprint: Fingerprint, wish: Wish) {
        self.asked.insert((id, fingerprint.0), wish);
    }

    /// What was asked for in a record.
    pub(super) fn wish_of(&self, commit: &Commit) -> Option<Wish> {
        self.asked.get(&(commit.command_id, commit.fingerprint.0)).cloned()
    }

    /// A submission comes to a shard.
    pub(super) fn comes(&mut self, ticket: Ticket, envelope: &Envelope<Wish>) {
        let key = (envelope.resource.clone(), envelope.id);
        self.submitted.insert(ticket, (key.clone(), envelope.command.is_some()));
        if let Some(wish) = envelope.command.clone() {
            self.came.entry(key).or_insert(Came { wish, times: 0, turned_away: 0 }).times += 1;
        }
    }

    /// The command that came under a ticket; of a question, the one that it asks for.
    pub(super) fn submitted(&self, ticket: Ticket) -> Option<&Wish> {
        let (key, _) = self.submitted.get(&ticket)?;
        self.came.get(key).map(|came| &came.wish)
    }

    /// Something is turned away: a command must have had no effect, unless it came another time.
    pub(super) fn turn_away(&mut self, partition: usize, ticket: Ticket) -> Result<(), Found> {
        let Some((key, true)) = self.submitted.get(&ticket) else { return Ok(()) };
        if let Some(came) = self.came.get_mut(key) {
            came.turned_away += 1;
        }
        if self.sides[partition].by_id.contains_key(key) { self.judge_effect(key) } else { Ok(()) }
    }

    /// A command has taken effect: it must have come at least once and not been turned away.
    fn judge_effect(&self, key: &Key) -> Result<(), Found> {
        match self.came.get(key) {
            Some(came) if came.times == came.turned_away => {
                let what = format!("{} was turned away each time it came, and is effective", key.1);
                Err(Found::new(Check::Bounds, what))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn partition_of(&self, stream: &StreamName) -> usize {
        super::clients::partition_of(stream, self.sides.len())
    }

    /// One more durable record.
    pub(super) fn observe(&mut self, partition: usize, bytes: &Bytes) -> Result<(), Found> {
        let side = &mut self.sides[partition];
        let offset = side.store.checkpoint.next_offset;
        let time_before = side.store.last_recorded_at;
        let record = Record::decode(bytes).map_err(|fault| log(format!("{offset}: {fault}")))?;
        let named = match &record.body {
            crate::record::Body::Commit(commit) => Some(commit.resource.clone()),
            _ => None,
        };
        let before = named.and_then(|name| side.store.streams.get(&name).cloned());
        let (verdict, commit) = side.store.fold(bytes);
        side.checkpoints.push(side.store.checkpoint);
        if verdict == Verdict::Ignored {
            side.ignored += 1;
        }
        let Some(commit) = commit else { return Ok(()) };
        let key = (commit.resource.clone(), commit.command_id);
        if let Some(first) = side.by_id.insert(key.clone(), offset) {
            return Err(log(format!("{} is effective twice, at {first} and {offset}", commit.command_id)));
        }
        if commit.recorded_at < time_before {
            return Err(log(format!("time went back at {offset}")));
        }
        let version_before = before.as_ref().map_or(Version(0), |(version, _)| *version);
        for written in &commit.streams {
            if written.name != commit.resource || written.first_version != version_before.next() {
                let (name, first) = (&written.name, written.first_version);
                return Err(log(format!("{name} goes from {version_before} to {first} at {offset}")));
            }
            side.by_version.insert((written.name.clone(), written.first_version), offset);
            let (version, state) = side.store.streams[&written.name].clone();
            for pending in self.clearing.react(&written.name, version, &state).pending {
                if let Ask::Call(call) = pending.ask {
                    self.intents.insert(call.key);
                }
            }
            side.states.insert((written.name.clone(), version), state);
        }
        for event in events_of(partition, offset, record) {
            side.events += 1;
            if event.event == Happened::Marked {
                self.marked.insert(event.meta.stream.clone());
            }
            let rows = side.rows.entry(event.meta.stream.clone()).or_default();
            let row = Ledger.evolve_thing(rows.last().map(|(_, row)| row), &event);
            rows.push((offset, row));
        }
        let commit = Arc::new(commit);
        side.commits.insert(offset, commit.clone());
        self.judge_effect(&key)?;
        self.decide_again(before, &commit, offset)
    }

    /// What was recorded is what the accepted prefix leads to.
    fn decide_again(
        &self,
        before: Option<(Version, Arc<Thing>)>,
        commit: &Commit,
        offset: Offset,
    ) -> Result<(), Found> {
        let asked = self.asked.get(&(commit.command_id, commit.fingerprint.0));
        let wish = asked.ok_or_else(|| log(format!("nobody asked for what is at {offset}: {commit:?}")))?;
        if let (Wish::Fire(_), Some((_, state)), false) = (wish, &before, commit.streams.is_empty())
            && timer_of(state).is_none_or(|timer| timer.due.0 > self.clock_max)
        {
            let what = format!("{} was woken at {offset}, before it is time: {state:?}", commit.resource);
            return Err(Found::new(Check::Timers, what));
        }
        let (version, state) = before.map_or((Version(0), None), |(version, state)| (version, Some(state)));
        let states = [StreamState { name: commit.resource.clone(), version, state }];
        let context = Context { now: commit.recorded_at, command_id: commit.command_id };
        let decision = self.clearing.decide(&States::new(&states), wish, &context);
        let (outcome, events) = match decision {
            Decision::Invalid(errors) => return Err(log(format!("{wish:?} is invalid: {errors:?}"))),
            Decision::Refuse(rejection) => (Outcome::from(rejection), Vec::new()),
            Decision::Accept(accepted) => {
                let outcome = Outcome { status: accepted.status, answer: accepted.answer, ..Outcome::default() };
                (outcome, accepted.events.iter().map(|(_, event)| event.encode()).collect())
            }
        };
        let written = commit.streams.first().map_or(&[][..], |written| &written.events[..]);
        let after = Version(version.0 + events.len() as u64);
        if outcome != commit.outcome || events != written || after != commit.resource_version {
            return Err(log(format!(
                "{wish:?} at {offset} on the accepted prefix comes to {outcome:?}, not to {commit:?}"
            )));
        }
        Ok(())
    }

    /// What a node says is effective.
    pub(super) fn judge_effective(&self, partition: usize, effective: &Effective<Clearing>) -> Result<(), Found> {
        let wrong = |what: String| Err(Found::new(Check::States, what));
        let (side, offset) = (&self.sides[partition], effective.position.offset);
        let Some(checkpoint) = side.checkpoints.get(offset.0 as usize) else {
            return wrong(format!("{offset} is called effective and not durable"));
        };
        if *checkpoint != effective.checkpoint {
            return wrong(format!("the fold after {offset} is {checkpoint:?}, not {:?}", effective.checkpoint));
        }
        if side.commits.get(&offset).map(Arc::as_ref) != effective.commit.as_deref() {
            return wrong(format!("another record is effective at {offset} than {:?}", effective.commit));
        }
        for changed in &effective.changed {
            let state = side.states.get(&(changed.name.clone(), changed.version));
            if state != Some(&changed.state) {
                return wrong(format!("{} after {offset} is {state:?}, not {:?}", changed.name, changed.state));
            }
        }
        Ok(())
    }

    /// What a client is told of its command. `known`: whether somebody had an answer before it asked.
    pub(super) fn judge_answer(
        &mut self,
        partition: usize,
        key: &Key,
        fingerprint: Fingerprint,
        answer: &Answer<Thing>,
        known: bool,
    ) -> Result<(), Found> {
        let wrong = |what: String| Err(Found::new(Check::Answers, what));
        let side = &self.sides[partition];
        let recorded = side.by_id.get(key).map(|offset| (*offset, side.commits[offset].clone()));
        match (answer, recorded) {
            (Answer::Decided(decided), Some((offset, commit))) => {
                if commit.fingerprint != fingerprint {
                    return wrong(format!("{} was answered with another command's outcome", key.1));
                }
                self.judge_decided(partition, decided, offset, &commit)
            }
            (Answer::Decided(decided), None) => {
                wrong(format!("{} was answered from {}, where it is not effective", key.1, decided.position))
            }
            (Answer::Reused, Some((_, commit))) if commit.fingerprint != fingerprint => Ok(()),
            (Answer::Reused, _) => wrong(format!("{} was not used for anything else", key.1)),
            // Refused at one version and invalid at another: both say never.
            (Answer::Invalid(_), Some((_, commit)))
                if commit.fingerprint == fingerprint && commit.outcome.is_accepted() =>
            {
                wrong(format!("{} is effective and was called invalid", key.1))
            }
            (Answer::Invalid(_), _) => {
                self.invalid.push((partition, key.clone(), fingerprint));
                Ok(())
            }
            (Answer::Unheard, _) if known => wrong(format!("{} was answered before and is called unheard", key.1)),
            (Answer::Unheard, _) => Ok(()),
            (Answer::Expired, _) => wrong(format!("{} cannot have expired", key.1)),
        }
    }

    fn judge_decided(
        &self,
        partition: usize,
        decided: &Decided<Thing>,
        offset: Offset,
        commit: &Commit,
    ) -> Result<(), Found> {
        let wrong = |what: String| Err(Found::new(Check::Answers, what));
        if (decided.position.offset, decided.version, decided.recorded_at)
            != (offset, commit.resource_version, commit.recorded_at)
            || decided.outcome != commit.outcome
        {
            return wrong(format!("{decided:?} is answered, and {commit:?} is effective at {offset}"));
        }
        if let Some(state) = &decided.state {
            let real = self.sides[partition].states.get(&(commit.resource.clone(), commit.resource_version));
            if real != Some(state) {
                return wrong(format!("{state:?} is shown for {} at {offset}, which is {real:?}", commit.resource));
            }
        }
        Ok(())
    }

    /// The gateway is called: the log must ask for it.
    pub(super) fn judge_call(&self, call: &Call) -> Result<(), Found> {
        if self.intents.contains(&call.key) {
            return Ok(());
        }
        let what =
            format!("the gateway is asked to {:?} under {}, and nothing in the log asks for it", call.verb, call.key);
        Err(Found::new(Check::Calls, what))
    }

    /// A key that a planted mistake makes up, so that what comes of it is seen and not only its looks.
    pub(super) fn allow_call(&mut self, key: CommandId) {
        self.intents.insert(key);
    }

    /// The read store takes a batch.
    pub(super) fn judge_commit(&self, batch: &Batch, before: Option<Checkpoint>) -> Result<(), Found> {
        let wrong = |what: String| Err(Found::new(Check::Rows, what));
        let side = &self.sides[batch.partition];
        let before = before.unwrap_or_default().next_offset;
        if batch.to.next_offset < before {
            return wrong(format!("the checkpoint goes back from {before} to {}", batch.to.next_offset));
        }
        for (key, row) in batch.rows.iter().filter(|(key, _)| key.table == THINGS) {
            let stream = StreamName::new(&key.key).expect("rows are named after streams");
            let rows = side.rows.get(&stream).map_or(&[][..], |rows| &rows[..]);
            let version = row.as_ref().map_or(0, |row| row.version);
            let real = (version.checked_sub(1)).and_then(|at| rows.get(at as usize)).map(|(_, row)| row);
            if real != row.as_ref() {
                return wrong(format!("{stream} is committed as {row:?}, and its fold at {version} is {real:?}"));
            }
        }
        Ok(())
    }

    /// What a client is shown of a stream, having been told of the floor.
    pub(super) fn judge_row(&self, stream: &StreamName, row: Option<&Row>, floor: Option<Offset>) -> Result<(), Found> {
        let wrong = |what: String| Err(Found::new(Check::Reads, what));
        let rows = self.sides[self.partition_of(stream)].rows.get(stream).map_or(&[][..], |rows| &rows[..]);
        let least = rows.iter().filter(|(offset, _)| floor.is_some_and(|floor| *offset <= floor)).count() as u64;
        let version = row.map_or(0, |row| row.version);
        if version < least {
            return wrong(format!("{stream} is shown at version {version} to one who was told of {floor:?}: {least}"));
        }
        let real = (version.checked_sub(1)).and_then(|at| rows.get(at as usize)).map(|(_, row)| row);
        if real != row {
            return wrong(format!("{stream} is shown as {row:?}, and its fold at {version} is {real:?}"));
        }
        Ok(())
    }

    pub(super) fn was_marked(&self, stream: &StreamName) -> bool {
        self.marked.contains(stream)
    }

    pub(super) fn commit_at(&self, partition: usize, offset: Offset) -> Option<&Arc<Commit>> {
        self.sides[partition].commits.get(&offset)
    }

    pub(super) fn offset_of(&self, partition: usize, stream: &StreamName, version: Version) -> Option<Offset> {
        self.sides[partition].by_version.get(&(stream.clone(), version)).copied()
    }

    pub(super) fn last_commit(&self, partition: usize) -> Option<Offset> {
        self.sides[partition].commits.last_key_value().map(|(offset, _)| *offset)
    }

    /// What is still owed, if anything is.
    pub(super) fn owed(&self) -> Option<String> {
        for side in &self.sides {
            for (name, (version, state)) in &side.store.streams {
                let agenda = self.clearing.react(name, *version, state);
                if !agenda.is_empty() {
                    return Some(format!("{name} owes {agenda:?}: {state:?}"));
                }
            }
        }
        None
    }
}
