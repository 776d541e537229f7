//! From a loaded command to its record: dedup, precondition, `decide`, speculative states. What is answered without a
//! record of its own waits for one that is handed to the log later, so that a paused owner never answers from the past.

use std::borrow::Cow;
use std::sync::Arc;

use super::machine::Turn;
use super::memory::Slot;
use super::pipeline::{Deferred, Later, Running};
use super::{Changed, Effect, Loaded, Ticket};
use crate::decider::{Context, Decider, Decision, States, StreamState};
use crate::event::{Event, EventMeta};
use crate::log::RECORD_BYTES_MAX;
use crate::message::{Answer, CommandId, Envelope, FieldError, NoAnswer, Outcome};
use crate::position::Version;
use crate::record::{Body, Commit, Kind, Record, StreamEvents};
use crate::stream::StreamName;
use crate::time::Timestamp;

/// A command waiting for its load.
pub(super) struct Pending<D: Decider> {
    pub(super) ticket: Ticket,
    pub(super) envelope: Envelope<D::Command>,
    /// What it names, as it names it.
    pub(super) streams: Vec<StreamName>,
    /// Where they are, in the same order.
    pub(super) slots: Vec<Slot>,
    /// Where its id is.
    pub(super) id_slot: Slot,
    /// The places in `streams` of those that the load was asked for.
    pub(super) asked: Vec<usize>,
    /// Submissions under the same id that came while it waited.
    pub(super) joined: Vec<(Ticket, Envelope<D::Command>)>,
}

/// What a decision comes to before it is a record.
struct Verdict<E> {
    outcome: Outcome,
    /// By stream: its index in the command's streams, and what happens to it.
    events: Vec<(usize, Vec<E>)>,
}

/// How long command ids are promised to be remembered: 7 days.
const REMEMBERED_MICROS: i64 = 7 * 24 * 60 * 60 * 1_000_000;

impl<D: Decider> Turn<'_, D> {
    /// The answer to a load.
    pub(super) fn loaded(&mut self, load: u64, loaded: Result<Loaded<D::State>, NoAnswer>) {
        // Loads of earlier terms come back too.
        let Some(pending) = self.term.loading.remove(&load) else { return };
        let pending = *pending;
        match loaded {
            Ok(loaded) => {
                let remembered = loaded.remembered;
                assert_eq!(loaded.streams.len(), pending.asked.len(), "a load answers what was asked");
                for (index, found) in pending.asked.iter().zip(loaded.streams) {
                    assert_eq!(pending.streams[*index], found.name, "a load answers in the order asked");
                    self.term.streams.merge(pending.slots[*index], found.version, found.state);
                }
                self.settle_or_decide(pending, remembered);
            }
            Err(no_answer) => {
                self.release(&pending);
                self.answer(pending.ticket, Err(no_answer));
                for (ticket, _) in pending.joined {
                    self.answer(ticket, Err(no_answer));
                }
            }
        }
    }

    fn settle_or_decide(&mut self, pending: Pending<D>, remembered: Option<super::Remembered>) {
        let envelope = &pending.envelope;
        if envelope.command.is_none() {
            // While it asked, the id may have come into use here: what the shard knows is newer than what it loaded.
            if let Some(standing) = self.term.ids.standing(pending.id_slot) {
                self.release(&pending);
                self.join(standing, pending.ticket, pending.envelope);
                return;
            }
        }
        if let Some(remembered) = remembered {
            self.release(&pending);
            for (ticket, envelope) in everybody(pending) {
                if envelope.fingerprint == remembered.fingerprint {
                    self.answer_by(ticket, Effect::Replay(ticket, remembered.offset, remembered.fingerprint));
                } else {
                    self.answer(ticket, Ok(Answer::Reused));
                }
            }
            return;
        }
        let (_, resource) = self.term.streams.get(pending.slots[0]);
        if let Some(version) = resource.and_then(|state| self.fixed.decider.remembers(state, envelope.id)) {
            self.release(&pending);
            for (ticket, envelope) in everybody(pending) {
                self.replay_version(ticket, envelope, version);
            }
            return;
        }
        if envelope.command.is_none() {
            self.release(&pending);
            assert!(pending.joined.is_empty(), "nobody joins a question");
            self.defer(pending.ticket, pending.envelope, Answer::Unheard);
            return;
        }
        if made_at(envelope.id).is_some_and(|made_at| made_at < self.remembered_since()) {
            self.release(&pending);
            for (ticket, envelope) in everybody(pending) {
                let answer = if envelope.command.is_some() { Answer::Expired } else { Answer::Unheard };
                self.defer(ticket, envelope, answer);
            }
            return;
        }
        self.decide(pending);
    }

    /// A UUIDv7 from before this is refused: it may have run and been forgotten, or is older than ids are promised to be
    /// remembered. What is still remembered has been found before this is asked.
    fn remembered_since(&self) -> Timestamp {
        self.forgotten.max(Timestamp(self.now.0.saturating_sub(REMEMBERED_MICROS)))
    }

    /// Ends the registration of a load.
    fn release(&mut self, pending: &Pending<D>) {
        for slot in &pending.slots {
            self.term.streams.unpin(*slot);
        }
        self.term.ids.unpin(pending.id_slot, pending.envelope.command.is_some());
    }

    /// Answers once a record that is handed to the log after this is effective.
    fn defer(&mut self, ticket: Ticket, envelope: Envelope<D::Command>, answer: Answer<D::State>) {
        self.term.waiting.push(Deferred { ticket, envelope: Some(envelope), later: Later::Answer(answer) });
    }

    /// Answers from the record that wrote this version, once it is effective.
    fn replay_version(&mut self, ticket: Ticket, envelope: Envelope<D::Command>, version: Version) {
        if let Some(last) = self.term.in_flight.back_mut() {
            last.after.push(Deferred { ticket, envelope: Some(envelope), later: Later::ReplayVersion(version) });
        } else {
            let Envelope { tenant, resource, fingerprint, .. } = envelope;
            self.answer_by(ticket, Effect::ReplayVersion(ticket, tenant, resource, version, fingerprint));
        }
    }

    fn decide(&mut self, pending: Pending<D>) {
        let recorded_at = self.now.max(self.term.last_recorded_at);
        let envelope = &pending.envelope;
        let states = (pending.streams.iter().zip(&pending.slots))
            .map(|(name, slot)| {
                let (version, state) = self.term.streams.get(*slot);
                StreamState { name: name.clone(), version, state: state.cloned() }
            })
            .collect::<Vec<_>>();
        let verdict = match self.judge(envelope, &states, recorded_at) {
            Ok(verdict) => verdict,
            Err(errors) => return self.invalid(pending, errors),
        };
        let begins = || envelope.command.as_ref().is_some_and(|command| self.fixed.decider.begins(command));
        if self.crowded && verdict.outcome.is_accepted() && begins() {
            drop(states);
            return self.not_now(pending);
        }
        // Only the versions from here on: a state that nobody else holds is evolved without a copy.
        let versions = states.iter().map(|state| state.version).collect::<Vec<_>>();
        drop(states);

        let streams = (verdict.events.iter())
            .map(|(index, events)| StreamEvents {
                name: pending.streams[*index].clone(),
                first_version: versions[*index].next(),
                events: events.iter().map(Event::encode).collect(),
            })
            .collect::<Vec<_>>();
        let resource_version = (streams.iter())
            .find(|stream| stream.name == envelope.resource)
            .map_or(versions[0], StreamEvents::last_version);
        let body = Body::Commit(Box::new(Commit {
            command_id: envelope.id,
            tenant: envelope.tenant.clone(),
            resource: envelope.resource.clone(),
            resource_version,
            fingerprint: envelope.fingerprint,
            outcome: verdict.outcome,
            provenance: envelope.provenance.clone(),
            recorded_at,
            streams,
        }));
        let record = Record::new(self.next_header(Kind::Commit), body);
        let bytes = record.encode();
        if bytes.len() > RECORD_BYTES_MAX {
            let detail = format!("This would be a record of {} bytes; {RECORD_BYTES_MAX} is the most.", bytes.len());
            return self.invalid(pending, vec![FieldError::at("", "too-large", detail)]);
        }
        let Body::Commit(commit) = record.body else { unreachable!("it was made above") };
        let commit = Arc::<Commit>::from(commit);

        let slots = verdict.events.iter().map(|(index, _)| pending.slots[*index]).collect::<Vec<_>>();
        let changed = (verdict.events.into_iter().zip(&slots).zip(&commit.streams))
            .map(|(((_, events), slot), written)| self.evolve(&commit, *slot, written, events))
            .collect::<Vec<_>>();
        let state = if commit.outcome.is_accepted() && commit.outcome.answer.is_none() {
            self.term.streams.get(pending.slots[0]).1.cloned()
        } else {
            None
        };
        self.term.last_recorded_at = recorded_at;
        self.term.ids.run(pending.id_slot, record.header.seq);
        self.release(&pending);
        let Pending { ticket, envelope, id_slot, joined, .. } = pending;
        let running = Running { ticket, envelope, id_slot, commit, slots, changed, state, joined };
        self.append_commit(record.header, bytes, running);
    }

    /// Precondition, then the business. Errors: faults of a command that can never be valid.
    fn judge(
        &self,
        envelope: &Envelope<D::Command>,
        states: &[StreamState<D::State>],
        now: Timestamp,
    ) -> Result<Verdict<D::Event>, Vec<FieldError>> {
        let command = envelope.command.as_ref().expect("questions are not decided");
        let current = states[0].version;
        if !envelope.precondition.holds_at(current) {
            return Ok(Verdict { outcome: version_mismatch(current), events: Vec::new() });
        }
        let context = Context { now, command_id: envelope.id };
        match self.fixed.decider.decide(&States::new(states), command, &context) {
            Decision::Invalid(errors) => Err(errors),
            Decision::Refuse(rejection) => Ok(Verdict { outcome: rejection.into(), events: Vec::new() }),
            Decision::Accept(accepted) => {
                let outcome = Outcome { status: accepted.status, answer: accepted.answer, ..Outcome::default() };
                let mut events = Vec::<(usize, Vec<D::Event>)>::with_capacity(1);
                for (index, event) in accepted.events {
                    let name = &states[index].name;
                    match events.iter_mut().find(|(other, _)| *other == index || states[*other].name == *name) {
                        Some((_, of_stream)) => of_stream.push(event),
                        None => events.push((index, vec![event])),
                    }
                }
                Ok(Verdict { outcome, events })
            }
        }
    }

    /// The speculative state after these events.
    fn evolve(&mut self, commit: &Commit, slot: Slot, written: &StreamEvents, events: Vec<D::Event>) -> Changed<D> {
        let mut meta = EventMeta {
            tenant: commit.tenant.clone(),
            stream: written.name.clone(),
            version: written.first_version,
            recorded_at: commit.recorded_at,
            command_id: commit.command_id,
            fingerprint: commit.fingerprint,
        };
        let mut state = self.term.streams.take(slot).map(Arc::unwrap_or_clone);
        for event in &events {
            state = Some(self.fixed.decider.evolve(state, event, &meta));
            meta.version = meta.version.next();
        }
        let state = Arc::new(state.expect("a stream is written with at least one event"));
        let version = written.last_version();
        self.term.streams.put(slot, version, state.clone());
        Changed { name: written.name.clone(), version, state, events }
    }

    /// Nothing is recorded, and nothing is said of the command: it may be sent again.
    fn not_now(&mut self, pending: Pending<D>) {
        self.release(&pending);
        for (ticket, _) in everybody(pending) {
            self.answer(ticket, Err(NoAnswer::Overloaded));
        }
    }

    /// Nothing is recorded, so other commands under the same id are judged for themselves.
    fn invalid(&mut self, pending: Pending<D>, errors: Vec<FieldError>) {
        self.release(&pending);
        let Pending { ticket, envelope, joined, .. } = pending;
        let fingerprint = envelope.fingerprint;
        self.defer(ticket, envelope, Answer::Invalid(errors.clone()));
        for (ticket, envelope) in joined {
            if envelope.command.is_some() && envelope.fingerprint == fingerprint {
                self.defer(ticket, envelope, Answer::Invalid(errors.clone()));
            } else {
                self.admit(ticket, envelope);
            }
        }
    }
}

/// The command and those that joined it.
fn everybody<D: Decider>(pending: Pending<D>) -> impl Iterator<Item = (Ticket, Envelope<D::Command>)> {
    std::iter::once((pending.ticket, pending.envelope)).chain(pending.joined)
}

/// The refusal of a command whose sender has seen another version, or none, or one where there is none.
fn version_mismatch(current: Version) -> Outcome {
    Outcome {
        status: 412,
        code: Some(Cow::Borrowed("version-mismatch")),
        detail: Some(match current {
            Version(0) => "The resource does not exist.".to_owned(),
            version => format!("The resource is at version {version}."),
        }),
        errors: Vec::new(),
        answer: Some(serde_json::json!({ "current_version": current })),
    }
}

/// When a UUIDv7 says that it was made; `None` for other ids.
pub(super) fn made_at(id: CommandId) -> Option<Timestamp> {
    let bytes = id.0.as_bytes();
    (id.0.get_version_num() == 7).then(|| {
        let ms = bytes[..6].iter().fold(0_i64, |ms, &byte| (ms << 8) | i64::from(byte));
        Timestamp(ms * 1_000)
    })
}
