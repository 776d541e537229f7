//! Records between being handed to the log and being certain. A record is effective when the log reports it directly
//! after the last folded one (then no foreign record lies between), or when the fold meets it on reading back. Answers
//! follow; when the term ends everything that is open is given back.

use std::sync::Arc;

use super::machine::{Term, Turn, Unsaved, seq_of, tag};
use super::memory::Slot;
use super::{Changed, Effect, Effective, Inquired, StepDown, SteppedDown, Ticket};
use crate::decider::Decider;
use crate::fold::Verdict;
use crate::log::{AppendError, Delivery, Stored};
use crate::message::{Answer, CommandId, Decided, Envelope, NoAnswer};
use crate::position::{Checkpoint, Offset, Position, Seq, Version};
use crate::record::{Body, Commit, Header, Kind, Record};
use crate::stream::Tenant;

/// A record handed to the log.
pub(super) struct InFlight<D: Decider> {
    header: Header,
    /// The fold's end when it was handed over: it can only lie from there on.
    lies_from: Offset,
    /// Where the log says it is, once it says that it is durable.
    delivered: Option<Option<Offset>>,
    what: What<D>,
    /// Answers that may be given once it is effective.
    pub(super) after: Vec<Deferred<D>>,
}

enum What<D: Decider> {
    Commit(Box<Running<D>>),
    Barrier,
    Release,
}

/// A decided command.
pub(super) struct Running<D: Decider> {
    pub(super) ticket: Ticket,
    /// Kept to be submitted again if the record's fate stays open.
    pub(super) envelope: Envelope<D::Command>,
    /// Where its id is.
    pub(super) id_slot: Slot,
    pub(super) commit: Arc<Commit>,
    /// Where the streams are that it changes.
    pub(super) slots: Vec<Slot>,
    pub(super) changed: Vec<Changed<D>>,
    /// What the answer shows.
    pub(super) state: Option<Arc<D::State>>,
    /// Submissions under the same id.
    pub(super) joined: Vec<(Ticket, Envelope<D::Command>)>,
}

/// An answer that waits.
pub(super) struct Deferred<D: Decider> {
    pub(super) ticket: Ticket,
    /// Kept to be submitted again; inquiries have none.
    pub(super) envelope: Option<Envelope<D::Command>>,
    pub(super) later: Later<D::State>,
}

/// What is answered then.
pub(super) enum Later<S> {
    Answer(Answer<S>),
    ReplayVersion(Version),
    Inquired(Tenant, CommandId),
}

/// Why a term ends.
pub(super) enum End {
    /// What is open has an open fate.
    Open(StepDown),
    /// This record and all after it never were effective and never will be.
    FullFrom(Seq),
    /// Nobody will lead this partition here again.
    ForGood(StepDown, NoAnswer),
    /// The release is effective.
    Released,
}

fn damaged(what: String) -> End {
    End::ForGood(StepDown::Damaged(what), NoAnswer::LogDamaged)
}

impl<D: Decider> InFlight<D> {
    /// Adds a submission under the same id.
    pub(super) fn join(&mut self, ticket: Ticket, envelope: Envelope<D::Command>) {
        let What::Commit(running) = &mut self.what else { unreachable!("ids belong to commits") };
        running.joined.push((ticket, envelope));
    }
}

impl<D: Decider> Turn<'_, D> {
    /// The header of the record that is handed to the log next.
    pub(super) fn next_header(&self, kind: Kind) -> Header {
        let checkpoint = &self.term.checkpoint;
        Header { kind, epoch: checkpoint.epoch, nonce: checkpoint.nonce, seq: self.term.next_seq }
    }

    pub(super) fn append_commit(&mut self, header: Header, bytes: bytes::Bytes, running: Running<D>) {
        self.append(header, bytes, What::Commit(Box::new(running)));
    }

    pub(super) fn append_barrier(&mut self) {
        let header = self.next_header(Kind::Barrier);
        self.term.barrier_in_flight = true;
        self.append(header, Record::new(header, Body::Barrier).encode(), What::Barrier);
    }

    pub(super) fn append_release(&mut self) {
        let header = self.next_header(Kind::Release);
        self.append(header, Record::new(header, Body::Release).encode(), What::Release);
    }

    fn append(&mut self, header: Header, bytes: bytes::Bytes, what: What<D>) {
        assert_eq!(header.seq, self.term.next_seq, "seq counts without gaps");
        self.term.next_seq = Seq(header.seq.0 + 1);
        // Handed to the log after these were asked and judged, so its effect proves that they were judged in the term.
        let after = std::mem::take(&mut self.term.waiting);
        let lies_from = self.term.checkpoint.next_offset;
        self.term.in_flight.push_back(InFlight { header, lies_from, delivered: None, what, after });
        self.effects.push(Effect::Append(tag(header.epoch, header.seq.0), bytes));
    }

    /// What became of records.
    pub(super) fn delivered(&mut self, deliveries: Vec<Delivery>) -> Result<(), End> {
        for Delivery { tag, result } in deliveries {
            // Those of claims and of earlier terms say nothing here.
            let Some(seq) = seq_of(tag, self.term.checkpoint.epoch) else { continue };
            assert!(seq < self.term.next_seq, "the log reports what it was given");
            let resolved = seq < self.term.checkpoint.next_seq;
            match result {
                // Met while reading back.
                Ok(_) if resolved => {}
                Ok(offset) => {
                    let before = self.term.in_flight_mut(seq).delivered.replace(offset);
                    assert!(before.is_none(), "the log reports a record once");
                    self.settle()?;
                }
                Err(AppendError::Full) if resolved => {
                    return Err(damaged(format!("the log had no room for record {seq}, and has it")));
                }
                Err(AppendError::Full) => return Err(End::FullFrom(seq)),
                Err(AppendError::Stopped) => return Err(End::ForGood(StepDown::Stopped, NoAnswer::LogStopped)),
                Err(AppendError::Unknown) => return Err(End::Open(StepDown::Unknown)),
                Err(AppendError::TooLarge) => {
                    return Err(damaged(format!("the log refuses record {seq} as too large, which it is not")));
                }
            }
        }
        Ok(())
    }

    /// Confirms from the front on for as long as the log's reports are contiguous.
    fn settle(&mut self) -> Result<(), End> {
        while self.term.reading_back_to.is_none() {
            let Some(front) = self.term.in_flight.front() else { break };
            let (Some(reported), header, lies_from) = (front.delivered, front.header, front.lies_from) else { break };
            let expected = self.term.checkpoint.next_offset;
            match reported {
                Some(offset) if offset == expected => {
                    let verdict = self.term.checkpoint.accept(&header);
                    assert_eq!(verdict, Verdict::Effective, "a contiguous record of the open term counts");
                    self.confirm(offset)?;
                }
                // Durable where there was something else already: what was acknowledged may be gone as well.
                Some(offset) if offset < lies_from => {
                    return Err(damaged(format!("the log reports offset {offset} after {lies_from} was reached")));
                }
                // Met and ignored while reading back: it overtook the one before it.
                Some(offset) if offset < expected => return Err(End::Open(StepDown::Unknown)),
                Some(_) | None => {
                    self.term.reading_back_to = Some(header.seq);
                    self.effects.push(Effect::ReadBack(expected));
                }
            }
        }
        Ok(())
    }

    /// Records of the log, from the first not folded on.
    pub(super) fn read_back(&mut self, records: Vec<Stored>) -> Result<(), End> {
        // Asked for in an earlier term, or answered twice.
        if self.term.reading_back_to.is_none() {
            return Ok(());
        }
        for Stored { offset, bytes } in records {
            let expected = self.term.checkpoint.next_offset;
            if offset < expected {
                continue;
            }
            if offset > expected {
                return Err(damaged(format!("offset {expected} is missing: {offset} came instead")));
            }
            let header = Header::decode(&bytes).map_err(|error| damaged(format!("at offset {offset}: {error}")))?;
            if self.term.checkpoint.accept(&header) == Verdict::Ignored {
                let Checkpoint { epoch, nonce, next_seq, .. } = self.term.checkpoint;
                if (header.epoch, header.nonce) == (epoch, nonce) && header.seq > next_seq {
                    // It overtook one that is not there: it will never count, and the log calls it durable.
                    return Err(End::Open(StepDown::Unknown));
                }
                continue;
            }
            if header.kind == Kind::Claim {
                return Err(End::Open(StepDown::Fenced));
            }
            if self.term.in_flight.front().map(|front| front.header) != Some(header) {
                return Err(damaged(format!(
                    "the record at offset {offset} bears this term and was not written in it"
                )));
            }
            if self.term.reading_back_to == Some(header.seq) {
                self.term.reading_back_to = None;
            }
            self.confirm(offset)?;
        }
        if self.term.reading_back_to.is_some() {
            self.effects.push(Effect::ReadBack(self.term.checkpoint.next_offset));
        }
        self.settle()
    }

    /// The front record is effective and durable at this offset, and folded.
    fn confirm(&mut self, offset: Offset) -> Result<(), End> {
        assert_eq!(self.term.checkpoint.next_offset, offset.next(), "offsets are folded without gaps");
        let InFlight { what, after, .. } = self.term.in_flight.pop_front().expect("a record in flight");
        let position = Position { partition: self.fixed.partition, offset };
        let checkpoint = self.term.checkpoint;
        match what {
            What::Commit(running) => self.confirm_commit(position, *running),
            What::Barrier | What::Release => {
                let effective = Effective { position, checkpoint, commit: None, changed: Vec::new() };
                self.effects.push(Effect::Effective(Arc::new(effective)));
                if matches!(what, What::Release) {
                    return Err(End::Released);
                }
                self.term.barrier_in_flight = false;
            }
        }
        for Deferred { ticket, envelope, later } in after {
            match (later, envelope) {
                (Later::Answer(answer), _) => self.answer(ticket, Ok(answer)),
                (Later::Inquired(tenant, id), _) => {
                    let known = self.inquired(&tenant, id);
                    self.answer_by(ticket, Effect::Inquired(ticket, known));
                }
                (Later::ReplayVersion(version), Some(Envelope { tenant, resource, fingerprint, .. })) => {
                    self.answer_by(ticket, Effect::ReplayVersion(ticket, tenant, resource, version, fingerprint));
                }
                (Later::ReplayVersion(_), None) => unreachable!("only submissions are replayed"),
            }
        }
        Ok(())
    }

    fn confirm_commit(&mut self, position: Position, running: Running<D>) {
        let Running { ticket, envelope, id_slot, commit, slots, changed, state, joined } = running;
        for (slot, stream) in slots.iter().zip(&commit.streams) {
            self.term.streams.confirm(*slot, stream.first_version, stream.last_version());
        }
        self.term.ids.confirm(id_slot, position.offset, commit.clone());
        self.term.unsaved_count += 1 + slots.len();
        self.term.unsaved.push_back(Unsaved { offset: position.offset, id_slot, slots });

        let checkpoint = self.term.checkpoint;
        let effective = Effective { position, checkpoint, commit: Some(commit.clone()), changed };
        self.effects.push(Effect::Effective(Arc::new(effective)));
        let decided = Decided {
            outcome: commit.outcome.clone(),
            position,
            recorded_at: commit.recorded_at,
            version: commit.resource_version,
            state,
            replayed: false,
        };
        for (ticket, repeat) in joined {
            let answer = if repeat.fingerprint == envelope.fingerprint {
                Answer::Decided(Decided { replayed: true, ..decided.clone() })
            } else {
                Answer::Reused
            };
            self.answer(ticket, Ok(answer));
        }
        self.answer(ticket, Ok(Answer::Decided(decided)));
    }

    fn inquired(&self, tenant: &Tenant, id: CommandId) -> Vec<Inquired> {
        let position = |offset| Position { partition: self.fixed.partition, offset };
        (self.term.ids.under(tenant, id))
            .map(|(resource, effective)| Inquired {
                resource: resource.clone(),
                commit: effective.map(|(offset, commit)| (position(offset), commit.clone())),
            })
            .collect()
    }
}

impl<D: Decider> Term<D> {
    /// Ends the term: everybody who waits is answered, or given back to be submitted again.
    pub(super) fn end(mut self, end: End, effects: &mut Vec<Effect<D>>) {
        let (why, hopeless_from, hopeless) = match end {
            End::Released => {
                assert!(self.in_flight.is_empty() && self.loading.is_empty(), "a release is the last record");
                self.assert_all_answered();
                effects.push(Effect::Released);
                return;
            }
            End::Open(why) => (why, None, NoAnswer::Unconfirmed),
            End::FullFrom(seq) => (StepDown::Full, Some(seq), NoAnswer::LogFull),
            End::ForGood(why, no_answer) => (why, Some(Seq(0)), no_answer),
        };
        let mut closing = Closing { unresolved: Vec::new(), answers: Vec::new(), hopeless };
        for InFlight { header, what, after, .. } in std::mem::take(&mut self.in_flight) {
            let given_back = hopeless_from.is_none_or(|from| header.seq < from);
            if let What::Commit(running) = what {
                let Running { ticket, envelope, joined, .. } = *running;
                closing.add(ticket, Some(envelope), given_back);
                closing.add_all(joined, given_back);
            }
            for deferred in after {
                closing.add(deferred.ticket, deferred.envelope, given_back);
            }
        }
        let given_back = hopeless_from.is_none();
        for deferred in std::mem::take(&mut self.waiting) {
            closing.add(deferred.ticket, deferred.envelope, given_back);
        }
        for pending in std::mem::take(&mut self.loading).into_values() {
            closing.add(pending.ticket, Some(pending.envelope), given_back);
            closing.add_all(pending.joined, given_back);
        }
        for (ticket, no_answer) in closing.answers {
            self.close(ticket);
            effects.push(Effect::Answer(ticket, Err(no_answer)));
        }
        for (ticket, _) in &closing.unresolved {
            self.close(*ticket);
        }
        self.assert_all_answered();
        effects.push(Effect::SteppedDown(SteppedDown { why, unresolved: closing.unresolved }));
    }
}

/// Sorts those who wait into given back and answered.
struct Closing<C> {
    unresolved: Vec<(Ticket, Envelope<C>)>,
    answers: Vec<(Ticket, NoAnswer)>,
    /// What those get who are not given back.
    hopeless: NoAnswer,
}

impl<C> Closing<C> {
    fn add(&mut self, ticket: Ticket, envelope: Option<Envelope<C>>, given_back: bool) {
        match envelope {
            Some(envelope) if given_back => self.unresolved.push((ticket, envelope)),
            // An inquiry cannot be given back as a command; it is asked again.
            None if given_back => self.answers.push((ticket, NoAnswer::NotOwner)),
            _ => self.answers.push((ticket, self.hopeless)),
        }
    }

    fn add_all(&mut self, joined: Vec<(Ticket, Envelope<C>)>, given_back: bool) {
        for (ticket, envelope) in joined {
            self.add(ticket, Some(envelope), given_back);
        }
    }
}
