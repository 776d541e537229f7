//! Carrying out what a shard wants done: records to the log, look-ups to the loader, answers to their senders, and what
//! became effective to everybody who follows it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use engine::decider::StreamState;
use engine::message::{Fingerprint, NoAnswer};
use engine::position::Offset;
use engine::saga::Reactor;
use engine::shard::{Effect, Effective, Input, Load, StepDown, SteppedDown, Ticket};
use engine::stream::StreamId;
use tracing::warn;

use super::super::PartitionStatus;
use super::super::inbox::Inbox;
use super::super::loader::Job;
use super::super::replay::{self, Which};
use super::super::saver::Save;
use super::{Down, ShardTask, Waiter};
use crate::watch::Current;

/// Bytes read back at once.
const READ_BACK_BYTES: usize = 1 << 20;

impl<R: Reactor> ShardTask<R> {
    /// Carries out what the shard wants, and what it wants then, until it wants nothing.
    pub(super) fn carry_out(&mut self) -> Option<Down> {
        while !self.effects.is_empty() {
            if let Some(down) = self.carry_out_once() {
                return Some(down);
            }
        }
        None
    }

    /// Carries out what the shard wants, in order. What became effective goes to the saver first: whoever is told of it
    /// afterwards finds it there.
    fn carry_out_once(&mut self) -> Option<Down> {
        let mut effects = std::mem::take(&mut self.effects);
        let term = self.term;
        if effects.iter().any(|effect| matches!(effect, Effect::Effective(_))) {
            self.shared.saver.push_all(effects.iter().filter_map(|effect| match effect {
                Effect::Effective(effective) => Some(Save::Effective(term, effective.clone())),
                _ => None,
            }));
        }
        let (mut jobs, mut found, mut records) = (VecDeque::new(), Vec::new(), Vec::new());
        let mut down = None;
        for effect in effects.drain(..) {
            match effect {
                Effect::Load(ticket, load) => {
                    let job = self.job(ticket, load);
                    if job.is_quick() { found.push((ticket, job.run(&self.shared.store))) } else { jobs.push_back(job) }
                }
                Effect::Append(tag, record) => records.push((tag, record)),
                Effect::Answer(ticket, answer) => {
                    // By itself a shard says so of what would begin a saga only.
                    if matches!(answer, Err(NoAnswer::Overloaded)) {
                        self.told.held_back.increment(1);
                    }
                    self.answer(ticket, answer);
                }
                Effect::Replay(ticket, offset, fingerprint) => {
                    self.replay(ticket, Which::At(offset), fingerprint);
                }
                Effect::ReplayVersion(ticket, tenant, name, version, fingerprint) => {
                    self.replay(ticket, Which::Version(StreamId { tenant, name }, version), fingerprint);
                }
                Effect::Inquired(ticket, known) => match self.waiters.remove(&ticket) {
                    Some(Waiter::Inquiry(to)) => drop(to.send(Ok(known))),
                    Some(waiter) => drop(self.waiters.insert(ticket, waiter)),
                    None => {}
                },
                Effect::Effective(effective) => self.publish(&effective),
                Effect::ReadBack(from) => self.read_back(from),
                Effect::SteppedDown(stepped_down) => down = Some(self.stepped_down(stepped_down)),
                Effect::Released => {
                    let ends = self.shared.drain.is_cancelled();
                    down = Some(if ends { Down::Ended(true) } else { Down::Released });
                }
            }
        }
        if !records.is_empty() {
            self.appender.append_all(&mut records);
        }
        // Keeps its room for the next time.
        self.effects = effects;
        if !jobs.is_empty() {
            self.shared.loader.push_all(jobs);
        }
        if down.is_none() {
            for (ticket, loaded) in found {
                self.feed(Input::Loaded(ticket, loaded));
            }
        }
        down
    }

    fn job(&self, ticket: Ticket, mut load: Load) -> Job<R> {
        let mut cached = Vec::new();
        let mut place = 0;
        let mut made = std::mem::take(&mut load.made).into_iter();
        load.streams.retain(|name| {
            let stream = StreamId { tenant: load.tenant.clone(), name: name.clone() };
            let found = self.shared.cache.get(self.term, &stream);
            let (missing, is_made) = (found.is_none(), made.next().unwrap_or(false));
            if let Some(current) = found {
                let state = StreamState { name: name.clone(), version: current.version, state: Some(current.state) };
                cached.push((place, state));
            } else {
                load.made.push(is_made);
            }
            place += 1;
            missing
        });
        Job { partition: self.partition, term: self.term, ticket, load, cached }
    }

    fn replay(&mut self, ticket: Ticket, which: Which, fingerprint: Fingerprint) {
        let Some(Waiter::Command { id, .. }) = self.waiters.get(&ticket) else { return };
        self.replays += 1;
        let (shared, partition, id) = (self.shared.clone(), self.partition, *id);
        self.shared.tasks.spawn(async move {
            let answer = replay::replay(&shared, partition, id, which, fingerprint).await;
            let _ = shared.inboxes[usize::from(partition.0)].send(Inbox::Replayed(ticket, answer));
        });
    }

    /// Tells everybody of an effective record: cache, watchers, errands, timers.
    fn publish(&mut self, effective: &Arc<Effective<R>>) {
        let door = self.shared.door(self.partition);
        door.acknowledged.fetch_max(effective.position.offset.0 + 1, Ordering::AcqRel);
        let Some(commit) = &effective.commit else { return };
        for changed in &effective.changed {
            let stream = StreamId { tenant: commit.tenant.clone(), name: changed.name.clone() };
            let current =
                Current { version: changed.version, state: changed.state.clone(), position: effective.position };
            self.shared.cache.put(self.term, stream.clone(), current.clone());
            if door.watches.anybody() {
                door.watches.report(&stream, &current);
            }
            let agenda = self.shared.decider.react(&changed.name, changed.version, &changed.state);
            if let Some(timer) = agenda.timer {
                self.shared.timers.armed(self.partition, timer.due);
            }
            let provenance =
                if agenda.pending.is_empty() { None } else { Some(commit.provenance.caused_by(commit.command_id)) };
            let (version, state) = (changed.version, changed.state.clone());
            self.shared.errands.owes(self.partition, stream, version, state, provenance, agenda.pending);
        }
    }

    fn read_back(&self, from: Offset) {
        let (shared, partition, term) = (self.shared.clone(), self.partition, self.term);
        let mut grown = self.grown.clone();
        self.shared.tasks.spawn(async move {
            let inbox = &shared.inboxes[usize::from(partition.0)];
            loop {
                grown.borrow_and_update();
                if shared.log.end(partition) > from {
                    break;
                }
                tokio::select! {
                    () = shared.stop.cancelled() => return,
                    changed = grown.changed() => if changed.is_err() { return },
                }
            }
            let log = shared.log.clone();
            let read = tokio::task::spawn_blocking(move || log.read(partition, from, READ_BACK_BYTES)).await;
            let told = match read {
                Ok(Ok(records)) => Inbox::ReadBack(term, records),
                Ok(Err(fault)) => Inbox::Fault(crate::chain(&fault)),
                Err(_) => return,
            };
            let _ = inbox.send(told);
        });
    }

    fn stepped_down(&mut self, stepped_down: SteppedDown<R>) -> Down {
        let SteppedDown { why, unresolved } = stepped_down;
        warn!(partition = self.partition.0, commands = unresolved.len(), "a term has ended: {why:?}");
        self.unresolved = unresolved;
        // Inquiries are not carried over; whoever asked asks again.
        let inquiries: Vec<Ticket> = self
            .waiters
            .iter()
            .filter(|(_, waiter)| matches!(waiter, Waiter::Inquiry(_)))
            .map(|(&ticket, _)| ticket)
            .collect();
        for ticket in inquiries {
            self.answer(ticket, Err(NoAnswer::Unconfirmed));
        }
        match why {
            StepDown::Fenced | StepDown::Unknown => {
                self.shared.set_status(self.partition, PartitionStatus::Claiming);
                Down::Lost
            }
            StepDown::Full => Down::Full,
            StepDown::Stopped => Down::Stopped,
            StepDown::Damaged(why) => Down::Damaged(why),
        }
    }
}
