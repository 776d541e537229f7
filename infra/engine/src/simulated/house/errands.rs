//! What the saga runner and the timers do, as the real ones go about it: an errand has one try under way at most, ends when
//! its stream no longer owes it, and backs off in memory; a timer is fired under a fixed id until it is no longer armed.

use std::collections::btree_map::Entry;
use std::sync::Arc;

use bytes::Bytes;

use super::business::{Heard, Thing, Wish};
use super::node::{Errand, Open, ToNode, Waiting};
use super::saga::{Call, timer_of};
use super::world::{Asker, Event, Found, Mistake, World};
use crate::decider::Decider;
use crate::event::Event as _;
use crate::message::{Answer, CommandId, Envelope, NoAnswer, Precondition, Provenance};
use crate::position::Version;
use crate::record::{Body, Record};
use crate::saga::{Ask, Heard as Came, Reactor, Timer};
use crate::stream::{StreamName, Tenant};
use crate::time::Timestamp;

/// First wait between tries; doubles up to the longest.
const BACK_OFF_US: (u64, u64) = (1_000, 30_000);
/// Longest wait for a recorded time without looking at the clock, which may jump.
const CLOCK_LOOK_US: u64 = 10_000;
/// Tries to record what came back before the errand itself is tried again.
const RECORD_TRIES_MAX: u32 = 5;
/// How long an own submission waits for its answer, and a call for the gateway's.
const PATIENCE_US: (u64, u64) = (10_000, 25_000);
/// Until the store is asked again whether what was fired is gone from it.
const LOOK_AGAIN_US: i64 = 4_000;

impl World {
    fn back_off(&mut self, tries: u32) -> u64 {
        let wait = (BACK_OFF_US.0 << tries.saturating_sub(1).min(10)).min(BACK_OFF_US.1);
        wait + self.dice.below(wait / 2 + 1)
    }

    /// What a stream owes from now on.
    pub(super) fn owes(&mut self, node: usize, partition: usize, stream: &StreamName, at: Version, state: &Arc<Thing>) {
        let agenda = self.clearing.react(stream, at, state);
        let desk = &mut self.nodes[node].desks[partition];
        if let Some(timer) = agenda.timer {
            desk.next_due = desk.next_due.min(timer.due.0);
        }
        if agenda.pending.is_empty() {
            desk.open.remove(stream);
            return;
        }
        let mut new = Vec::new();
        for errand in &agenda.pending {
            if let Entry::Vacant(entry) = desk.tries.entry(errand.id) {
                entry.insert(0);
                new.push(Errand { partition, stream: stream.clone(), id: errand.id });
            }
        }
        desk.open.insert(stream.clone(), Open { state: state.clone(), pending: agenda.pending });
        for errand in new {
            let delay = self.dice.between(1, 300);
            self.reach(node, delay, ToNode::Errand(errand));
        }
    }

    /// A partition is led from now on: what its streams owe is looked for, and when the next timer is due.
    pub(super) fn take_over(&mut self, node: usize, partition: usize) {
        let streams = self.nodes[node].desks[partition].store.streams.clone();
        for (stream, (version, state)) in &streams {
            if self.plan.mistake != Some(Mistake::LosesErrandsAtRestart) {
                self.owes(node, partition, stream, *version, state);
            }
        }
        let next = streams.values().filter_map(|(_, state)| timer_of(state)).map(|timer| timer.due.0).min();
        let desk = &mut self.nodes[node].desks[partition];
        desk.next_due = match self.plan.mistake {
            Some(Mistake::LosesTimersAtRestart) => i64::MAX,
            _ => next.unwrap_or(i64::MAX),
        };
    }

    /// The errand and its stream's state, if it is still owed. If not it is forgotten, in the same breath.
    fn owed(&mut self, node: usize, errand: &Errand) -> Option<(Arc<Thing>, crate::saga::Pending<Wish, Call>)> {
        let desk = &mut self.nodes[node].desks[errand.partition];
        let found = desk.open.get(&errand.stream).and_then(|open| {
            let pending = open.pending.iter().find(|pending| pending.id == errand.id)?;
            Some((open.state.clone(), pending.clone()))
        });
        if found.is_none() {
            desk.tries.remove(&errand.id);
        }
        found
    }

    fn again(&mut self, node: usize, errand: Errand) {
        let tries = self.nodes[node].desks[errand.partition].tries.entry(errand.id).or_insert(0);
        *tries += 1;
        let tries = *tries;
        let wait = self.back_off(tries);
        self.count("errand tried again");
        self.reach(node, wait, ToNode::Errand(errand));
    }

    /// How long until it may be sent; nothing if it may be now.
    fn not_yet(&mut self, node: usize, not_before: Option<Timestamp>) -> Option<u64> {
        let wait = not_before?.micros_since(self.clock(node));
        (wait > 0).then_some(wait.min(CLOCK_LOOK_US))
    }

    /// One try: ask. What is heard comes back by itself.
    pub(super) fn try_errand(&mut self, node: usize, errand: Errand) -> Result<(), Found> {
        let Some((_, pending)) = self.owed(node, &errand) else { return Ok(()) };
        if let Some(wait) = self.not_yet(node, pending.not_before) {
            self.count("errand put off");
            self.reach(node, wait, ToNode::Errand(errand));
            return Ok(());
        }
        match pending.ask {
            Ask::Command(wish) => self.submit_own(node, pending.id, wish, Waiting::Ask(errand)),
            Ask::Call(call) => self.call(node, errand, call),
        }
        Ok(())
    }

    fn call(&mut self, node: usize, errand: Errand, mut call: Call) {
        if self.plan.mistake == Some(Mistake::KeyPerTry) {
            let tries = self.nodes[node].desks[errand.partition].tries.get(&errand.id).copied().unwrap_or(0);
            if tries > 0 {
                call.key = call.key.derive(&format!("try {tries}"));
                self.referee.allow_call(call.key);
            }
        }
        let incarnation = self.nodes[node].incarnation;
        let there = self.dice.between(20, 600);
        let patience = self.dice.between(PATIENCE_US.0, PATIENCE_US.1);
        let lost = self.dice.chance(self.faults.call_lost);
        let late = self.dice.chance(self.faults.call_late);
        let answered = !late && !self.dice.chance(self.faults.call_answer_lost);
        if lost {
            self.count("call lost");
        } else {
            // What comes late may come when the stream has long given it up.
            let late = if late { self.dice.between(10_000, 120_000) } else { 0 };
            if late > 0 {
                self.count("call late");
            }
            if self.dice.chance(self.faults.call_twice) {
                self.count("call made twice");
                let again = there + self.dice.between(100, 40_000);
                self.after(again, Event::Call(node, incarnation, Box::new((errand.clone(), call.clone())), false));
            }
            self.after(there + late, Event::Call(node, incarnation, Box::new((errand.clone(), call)), answered));
        }
        if lost || !answered {
            self.count("call without answer");
            let came = match self.plan.mistake {
                Some(Mistake::TakesSilenceForNo) => Came::Returned(Heard::No),
                _ => Came::Unreachable("no answer in time".to_owned()),
            };
            self.reach(node, patience, ToNode::Returned(errand, came));
        }
    }

    /// What an errand heard is recorded.
    pub(super) fn errand_heard(
        &mut self,
        node: usize,
        errand: Errand,
        heard: Came<Heard>,
        tries: u32,
    ) -> Result<(), Found> {
        // As it stands now: the answer may have come by another way.
        let Some((state, pending)) = self.owed(node, &errand) else { return Ok(()) };
        let now = self.clock(node);
        match self.clearing.heard(&errand.stream, &state, &pending, &heard, now) {
            Some((id, wish)) => self.submit_own(node, id, wish, Waiting::Record(errand, heard, tries + 1)),
            None => self.again(node, errand),
        }
        Ok(())
    }

    /// Something that a node asks for itself, of whoever leads the partition.
    fn submit_own(&mut self, node: usize, id: CommandId, wish: Wish, waiting: Waiting) {
        let incarnation = self.nodes[node].incarnation;
        let ticket = self.ticket(Asker::Node(node, incarnation), id);
        self.asked(id, &wish);
        self.nodes[node].own.insert(ticket, waiting);
        let resource = wish.resource().clone();
        let partition = self.partition_of(&resource);
        let to = if self.dice.chance(900) { self.hints[partition] } else { self.any_node() };
        self.tell(|| format!("node {node} sends {ticket:?} to node {to}: {id} {wish:?}"));
        let envelope = Envelope {
            id,
            tenant: Tenant::default(),
            resource,
            fingerprint: wish.fingerprint(),
            precondition: Precondition::None,
            provenance: Provenance::default(),
            command: Some(wish),
        };
        if self.dice.chance(self.faults.message_lost) {
            self.count("message lost");
        } else {
            let delay = self.dice.between(10, 400);
            self.after(delay, Event::at_node(to, None, ToNode::Submit(partition, ticket, envelope)));
        }
        let patience = self.dice.between(PATIENCE_US.0, PATIENCE_US.1);
        self.reach(node, patience, ToNode::GiveUp(ticket));
    }

    pub(super) fn any_node(&mut self) -> usize {
        self.dice.below(self.nodes.len() as u64) as usize
    }

    /// The answer to what a node asked for itself, or that there was none for long.
    pub(super) fn own_answer(
        &mut self,
        node: usize,
        ticket: crate::shard::Ticket,
        answer: Result<Answer<Thing>, NoAnswer>,
    ) -> Result<(), Found> {
        let Some(waiting) = self.nodes[node].own.remove(&ticket) else { return Ok(()) };
        self.tell(|| format!("node {node} is told of {ticket:?}: {answer:?}"));
        match waiting {
            Waiting::Ask(errand) => {
                let heard = match answer {
                    Ok(Answer::Decided(decided)) => Came::Outcome(decided.outcome, decided.position),
                    Ok(Answer::Unheard) | Err(_) => {
                        self.again(node, errand);
                        return Ok(());
                    }
                    Ok(other) => Came::Invalid(format!("{other:?}")),
                };
                self.errand_heard(node, errand, heard, 0)?;
            }
            Waiting::Record(errand, heard, tries) => {
                if self.owed(node, &errand).is_none() {
                    return Ok(());
                }
                match answer {
                    Err(_) if tries < RECORD_TRIES_MAX => {
                        let wait = self.back_off(tries);
                        self.reach(node, wait, ToNode::Record(errand, heard, tries));
                    }
                    _ => self.again(node, errand),
                }
            }
            Waiting::Fire(partition, stream, timer, tries, seen) => {
                let now = self.nodes[node].desks[partition].current(&stream).map(|(version, _)| version);
                let wait = if answer.is_ok() && now != Some(seen) { 1 } else { self.back_off(tries + 1) };
                self.reach(node, wait, ToNode::Fire(partition, stream, timer, tries + 1));
            }
        }
        Ok(())
    }

    /// Fires what is due in a partition that is led here and sets when to look next.
    pub(super) fn look_for_timers(&mut self, node: usize, partition: usize) -> Result<(), Found> {
        let now = self.clock(node);
        if self.nodes[node].desks[partition].next_due > now.0 {
            return Ok(());
        }
        // Taken away before looking: what is armed meanwhile puts it back.
        self.nodes[node].desks[partition].next_due = i64::MAX;
        // What was armed for at once may not be saved yet.
        self.save_some(node, partition, u64::MAX)?;
        let desk = &mut self.nodes[node].desks[partition];
        let timers = (desk.store.streams.iter())
            .filter_map(|(stream, (_, state))| Some((stream.clone(), timer_of(state)?)))
            .collect::<Vec<_>>();
        let due = timers.iter().filter(|(_, timer)| timer.due <= now).cloned().collect::<Vec<_>>();
        let next = if due.is_empty() {
            timers.iter().map(|(_, timer)| timer.due.0).min().unwrap_or(i64::MAX)
        } else {
            now.0 + LOOK_AGAIN_US
        };
        desk.next_due = desk.next_due.min(next);
        for (stream, timer) in due {
            if self.nodes[node].desks[partition].firing.insert(stream.clone()) {
                self.count("timer due");
                self.fire(node, partition, stream, timer, 0);
            }
        }
        Ok(())
    }

    /// Fires one timer, unless it is no longer armed.
    pub(super) fn fire(&mut self, node: usize, partition: usize, stream: StreamName, timer: Timer, tries: u32) {
        let desk = &mut self.nodes[node].desks[partition];
        let current = if desk.shard.is_leading() { desk.current(&stream) } else { None };
        let Some((version, state)) = current.filter(|(_, state)| timer_of(state) == Some(timer)) else {
            desk.firing.remove(&stream);
            return;
        };
        let mut id = timer.command_id(&stream);
        if self.plan.mistake == Some(Mistake::FiresTwice) {
            id = id.derive(&format!("try {tries}"));
        }
        let wish = self.clearing.fire(&stream, &state, &timer);
        self.submit_own(node, id, wish, Waiting::Fire(partition, stream, timer, tries, version));
    }

    /// Calls the gateway for what a record that is only handed to the log asks for (planted).
    pub(super) fn call_at_once(&mut self, node: usize, partition: usize, bytes: &Bytes) {
        let Ok(Record { body: Body::Commit(commit), .. }) = Record::decode(bytes) else { return };
        for written in &commit.streams {
            let mut state = self.nodes[node].desks[partition].current(&written.name).map(|(_, state)| (*state).clone());
            for told in commit.events().filter(|told| told.written.name == written.name) {
                let event = super::business::Happened::decode(told.stored).expect("the business reads what it wrote");
                state = Some(self.clearing.evolve(state, &event, &told.meta()));
            }
            let Some(state) = state else { continue };
            for pending in self.clearing.react(&written.name, written.last_version(), &state).pending {
                let errand = Errand { partition, stream: written.name.clone(), id: pending.id };
                if let Ask::Call(call) = pending.ask {
                    self.call(node, errand, call);
                }
            }
        }
    }
}
