//! The shard's door: terms begin here, inputs come in here and bounds are looked at here. What happens to a command
//! once its streams are loaded is in `judge`, what happens to a record once it is handed to the log in `pipeline`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::judge::{Pending, made_at};
use super::memory::{Ids, Slot, Standing, Streams};
use super::pipeline::{Deferred, End, InFlight, Later};
use super::{Effect, Input, Limits, Load, Ticket};
use crate::decider::Decider;
use crate::message::{Answer, Envelope, NoAnswer};
use crate::position::{Checkpoint, Epoch, Nonce, Offset, Partition, Seq};
use crate::record::{Body, Claim, Header, Kind, Record};
use crate::stream::partition_of;
use crate::time::Timestamp;

/// Tags and load tickets carry the epoch above this many bits of count, so that those of an earlier term are told apart.
const COUNT_BITS: u32 = 40;
/// How far from now the time in an id may be for it to count as drawn a moment ago: 10 s, for clocks differ.
const FRESH_MICROS: u64 = 10_000_000;

/// The owner of one partition. One value serves any number of terms: `claim`, `lead`, `handle` until
/// [`Effect::SteppedDown`] or [`Effect::Released`], then `claim` again.
pub struct Shard<D: Decider> {
    fixed: Fixed<D>,
    /// The claim that is out, if one is.
    claimed: Option<(Epoch, Nonce)>,
    term: Option<Term<D>>,
    /// Ids from before this are not remembered by the state store.
    forgotten: Timestamp,
    /// Whether nothing is begun that goes on by itself.
    crowded: bool,
}

/// What never changes.
pub(super) struct Fixed<D: Decider> {
    pub(super) decider: Arc<D>,
    pub(super) partition: Partition,
    partitions: u16,
    limits: Limits,
}

/// Everything a shard knows, of one term only: it is dropped as a whole when the term ends.
pub(super) struct Term<D: Decider> {
    /// The fold after the last confirmed record.
    pub(super) checkpoint: Checkpoint,
    /// What the next record gets.
    pub(super) next_seq: Seq,
    /// The latest time recorded.
    pub(super) last_recorded_at: Timestamp,
    pub(super) streams: Streams<D::State>,
    pub(super) ids: Ids,
    pub(super) loading: BTreeMap<u64, Box<Pending<D>>>,
    loads: u64,
    /// Records handed to the log, by seq; the first has `checkpoint.next_seq`.
    pub(super) in_flight: VecDeque<InFlight<D>>,
    /// Answers that the next record handed to the log must confirm.
    pub(super) waiting: Vec<Deferred<D>>,
    /// Whether a barrier is in flight: one is enough, what comes later waits for the next.
    pub(super) barrier_in_flight: bool,
    /// Reading the log back until this record is met.
    pub(super) reading_back_to: Option<Seq>,
    draining: bool,
    releasing: bool,
    /// Submissions without an answer: every one gets exactly one.
    open: BTreeSet<Ticket>,
    /// Effective commands that the state store does not have.
    pub(super) unsaved: VecDeque<Unsaved>,
    /// Streams and ids in `unsaved`.
    pub(super) unsaved_count: usize,
}

/// An effective command that the state store does not have.
pub(super) struct Unsaved {
    pub(super) offset: Offset,
    pub(super) id_slot: Slot,
    /// The streams that it changed.
    pub(super) slots: Vec<Slot>,
}

/// One input being handled.
pub(super) struct Turn<'a, D: Decider> {
    pub(super) fixed: &'a Fixed<D>,
    pub(super) term: &'a mut Term<D>,
    pub(super) forgotten: Timestamp,
    pub(super) crowded: bool,
    pub(super) now: Timestamp,
    pub(super) effects: &'a mut Vec<Effect<D>>,
}

impl<D: Decider> Shard<D> {
    /// A shard that leads nothing yet, of `partition` in a log of `partitions`.
    pub fn new(decider: Arc<D>, partition: Partition, partitions: u16, limits: Limits) -> Self {
        let fixed = Fixed { decider, partition, partitions, limits };
        Self { fixed, claimed: None, term: None, forgotten: Timestamp(i64::MIN), crowded: false }
    }

    /// The claim of the term after `checkpoint`: hand it to the log under this tag (its delivery may be fed to `handle`
    /// or not, it is ignored there), then fold the log up to that record and call `lead`. An earlier claim of this
    /// shard is forgotten. `nonce` must be freshly drawn for each call.
    ///
    /// # Panics
    /// If a term of this shard still runs.
    pub fn claim(&mut self, checkpoint: &Checkpoint, nonce: Nonce, claim: Claim) -> (u64, Bytes) {
        assert!(self.term.is_none(), "a term must end before the next is claimed");
        let epoch = Epoch(checkpoint.epoch.0 + 1);
        self.claimed = Some((epoch, nonce));
        let header = Header { kind: Kind::Claim, epoch, nonce, seq: Seq(0) };
        (tag(epoch, 0), Record::new(header, Body::Claim(claim)).encode())
    }

    /// Starts the term if the fold, up to the shard's own claim or further, says that it is this shard's: then true.
    /// Else somebody else holds the partition, and false. `last_recorded_at` is the latest time recorded in it.
    pub fn lead(&mut self, checkpoint: Checkpoint, last_recorded_at: Timestamp) -> bool {
        let Some((epoch, nonce)) = self.claimed.take() else { return false };
        if !checkpoint.open || checkpoint.epoch != epoch || checkpoint.nonce != nonce {
            return false;
        }
        assert_eq!(checkpoint.next_seq, Seq(1), "nobody but this shard writes in its term");
        self.term = Some(Term {
            checkpoint,
            next_seq: Seq(1),
            last_recorded_at,
            streams: Streams::new(),
            ids: Ids::new(),
            loading: BTreeMap::new(),
            loads: 0,
            in_flight: VecDeque::new(),
            waiting: Vec::new(),
            barrier_in_flight: false,
            reading_back_to: None,
            draining: false,
            releasing: false,
            open: BTreeSet::new(),
            unsaved: VecDeque::new(),
            unsaved_count: 0,
        });
        true
    }

    /// Takes one input and adds what it wants done to `effects`, to be carried out in that order.
    ///
    /// # Panics
    /// If an assertion behind a promise of the log fails, or a command names a stream of another partition: to go on
    /// would be worse.
    pub fn handle(&mut self, now: Timestamp, input: Input<D>, effects: &mut Vec<Effect<D>>) {
        match input {
            Input::Forgotten(before) => {
                self.forgotten = self.forgotten.max(before);
                return;
            }
            Input::Crowded(crowded) => {
                self.crowded = crowded;
                return;
            }
            _ => {}
        }
        let Some(term) = &mut self.term else {
            if let Input::Submit(ticket, _) | Input::Inquire(ticket, ..) = input {
                effects.push(Effect::Answer(ticket, Err(NoAnswer::NotOwner)));
            }
            return;
        };
        let (forgotten, crowded) = (self.forgotten, self.crowded);
        let mut turn = Turn { fixed: &self.fixed, term, forgotten, crowded, now, effects };
        let ended = turn.take(input).and_then(|()| turn.follow_up());
        if let Err(end) = ended {
            let term = self.term.take().expect("the term that just ran");
            term.end(end, effects);
        }
    }

    /// Whether the runner should feed `Submit` and `Inquire`: false while a bound of [`Limits`] is reached, while
    /// draining and while not leading. All other inputs flow all the same. What is submitted none the less is taken
    /// (or, while not leading, answered `NotOwner`; while draining, `Draining`).
    pub fn can_take(&self) -> bool {
        let limits = &self.fixed.limits;
        self.term.as_ref().is_some_and(|term| {
            !term.draining
                && term.in_flight.len() < limits.in_flight_max
                && term.loading.len() < limits.loading_max
                && term.unsaved_count < limits.unsaved_max
                // Joined repeats and questions are submissions too.
                && term.open.len() < limits.in_flight_max + limits.loading_max
        })
    }

    /// Whether a term of this shard runs.
    pub fn is_leading(&self) -> bool {
        self.term.is_some()
    }

    /// Records handed to the log and not confirmed.
    pub fn in_flight(&self) -> usize {
        self.term.as_ref().map_or(0, |term| term.in_flight.len())
    }

    /// Commands waiting for a load.
    pub fn loading(&self) -> usize {
        self.term.as_ref().map_or(0, |term| term.loading.len())
    }

    /// Streams and ids acknowledged and not saved.
    pub fn unsaved(&self) -> usize {
        self.term.as_ref().map_or(0, |term| term.unsaved_count)
    }
}

/// Whether the id is a UUIDv7 of the last few seconds, or one of the node's own, which follow from what they answer and
/// are used once but for retries. An id that only pretends to be new costs a look at a disk in the wrong place.
fn is_fresh<C>(envelope: &Envelope<C>, now: Timestamp) -> bool {
    let is_own = envelope.fingerprint.0 == *envelope.id.0.as_bytes();
    is_own || made_at(envelope.id).is_some_and(|made_at| now.0.abs_diff(made_at.0) <= FRESH_MICROS)
}

/// A number that no other term gives.
pub(super) fn tag(epoch: Epoch, count: u64) -> u64 {
    assert!(count < 1 << COUNT_BITS, "a term ends before it has written this many records");
    (epoch.0 << COUNT_BITS) | count
}

/// The seq that a tag names in this term; `None` for tags of other terms and for claims.
pub(super) fn seq_of(tag: u64, epoch: Epoch) -> Option<Seq> {
    let count = tag & ((1 << COUNT_BITS) - 1);
    (tag >> COUNT_BITS == epoch.0 & (u64::MAX >> COUNT_BITS) && count > 0).then_some(Seq(count))
}

impl<D: Decider> Turn<'_, D> {
    fn take(&mut self, input: Input<D>) -> Result<(), End> {
        match input {
            Input::Submit(ticket, _) | Input::Inquire(ticket, ..) if self.term.draining => {
                self.effects.push(Effect::Answer(ticket, Err(NoAnswer::Draining)));
                Ok(())
            }
            Input::Submit(ticket, envelope) => {
                self.open(ticket);
                self.admit(ticket, envelope);
                Ok(())
            }
            Input::Inquire(ticket, tenant, id) => {
                self.open(ticket);
                let later = Later::Inquired(tenant, id);
                self.term.waiting.push(Deferred { ticket, envelope: None, later });
                Ok(())
            }
            Input::Loaded(load, loaded) => {
                self.loaded(load.0, loaded);
                Ok(())
            }
            Input::Delivered(deliveries) => self.delivered(deliveries),
            Input::ReadBack(records) => self.read_back(records),
            Input::Saved(below) => {
                self.saved(below);
                Ok(())
            }
            Input::Probe => {
                if self.term.in_flight.is_empty() {
                    self.append_barrier();
                }
                Ok(())
            }
            Input::Drain => {
                self.term.draining = true;
                Ok(())
            }
            Input::Forgotten(_) | Input::Crowded(_) => Ok(()),
        }
    }

    /// What every input may have made possible.
    fn follow_up(&mut self) -> Result<(), End> {
        if !self.term.waiting.is_empty() && !self.term.barrier_in_flight {
            self.append_barrier();
        }
        let term = &self.term;
        if term.draining && !term.releasing && term.loading.is_empty() && term.in_flight.is_empty() {
            assert!(term.open.is_empty(), "a drained shard has answered everybody");
            self.term.releasing = true;
            self.append_release();
        }
        Ok(())
    }

    fn open(&mut self, ticket: Ticket) {
        assert!(self.term.open.insert(ticket), "{ticket:?} is under way already");
    }

    fn close(&mut self, ticket: Ticket) {
        self.term.close(ticket);
    }

    /// Answers a sender, now.
    pub(super) fn answer(&mut self, ticket: Ticket, answer: Result<Answer<D::State>, NoAnswer>) {
        self.close(ticket);
        self.effects.push(Effect::Answer(ticket, answer));
    }

    /// Lets a sender be answered by the runner, now.
    pub(super) fn answer_by(&mut self, ticket: Ticket, effect: Effect<D>) {
        self.close(ticket);
        self.effects.push(effect);
    }

    /// A submission whose ticket is open: joins what runs under its id, is told what ran, or is loaded for.
    pub(super) fn admit(&mut self, ticket: Ticket, envelope: Envelope<D::Command>) {
        let key = (envelope.id, envelope.tenant.clone(), envelope.resource.clone());
        match self.term.ids.standing_of(&key) {
            Some(standing) => self.join(standing, ticket, envelope),
            None => self.load(ticket, envelope),
        }
    }

    /// A submission under an id that the shard knows.
    pub(super) fn join(&mut self, standing: Standing, ticket: Ticket, envelope: Envelope<D::Command>) {
        match standing {
            Standing::Loading(load) => {
                let pending = self.term.loading.get_mut(&load).expect("a loading id has its load");
                pending.joined.push((ticket, envelope));
            }
            Standing::InFlight(seq) => self.term.in_flight_mut(seq).join(ticket, envelope),
            Standing::Effective(offset, fingerprint) if fingerprint == envelope.fingerprint => {
                self.answer_by(ticket, Effect::Replay(ticket, offset, fingerprint));
            }
            Standing::Effective(..) => self.answer(ticket, Ok(Answer::Reused)),
        }
    }

    fn load(&mut self, ticket: Ticket, envelope: Envelope<D::Command>) {
        let streams = match &envelope.command {
            Some(command) => self.fixed.decider.streams(command),
            None => vec![envelope.resource.clone()],
        };
        assert_eq!(streams.first(), Some(&envelope.resource), "a command names the stream it addresses first");
        for stream in &streams {
            let home = partition_of(&envelope.tenant, stream, self.fixed.partitions);
            assert_eq!(
                home, self.fixed.partition,
                "{stream} must live in the partition of the shard that decides on it"
            );
        }
        self.term.loads += 1;
        let load = tag(self.term.checkpoint.epoch, self.term.loads);
        let slots = streams.iter().map(|stream| self.term.streams.pin(&envelope.tenant, stream)).collect::<Vec<_>>();
        let mut asked = Vec::with_capacity(streams.len());
        for (index, slot) in slots.iter().enumerate() {
            if self.term.streams.is_unknown(*slot) && !slots[..index].contains(slot) {
                asked.push(index);
            }
        }
        let key = (envelope.id, envelope.tenant.clone(), envelope.resource.clone());
        let id_slot = self.term.ids.pin(key, envelope.command.is_some().then_some(load));
        let is_made =
            |index: &usize| envelope.command.as_ref().is_some_and(|command| self.fixed.decider.makes(command, *index));
        let wanted = Load {
            tenant: envelope.tenant.clone(),
            streams: asked.iter().map(|index| streams[*index].clone()).collect(),
            made: asked.iter().map(is_made).collect(),
            id: envelope.id,
            resource: envelope.resource.clone(),
            id_is_fresh: is_fresh(&envelope, self.now),
        };
        self.effects.push(Effect::Load(Ticket(load), wanted));
        let pending = Pending { ticket, envelope, streams, slots, id_slot, asked, joined: Vec::new() };
        self.term.loading.insert(load, Box::new(pending));
    }

    /// The state store has everything below this offset.
    fn saved(&mut self, below: Offset) {
        while self.term.unsaved.front().is_some_and(|unsaved| unsaved.offset < below) {
            let Unsaved { id_slot, slots, .. } = self.term.unsaved.pop_front().expect("there is a front");
            self.term.unsaved_count -= 1 + slots.len();
            for slot in slots {
                self.term.streams.saved(slot);
            }
            self.term.ids.saved(id_slot);
        }
    }
}

impl<D: Decider> Term<D> {
    /// The record in flight with this seq.
    pub(super) fn in_flight_mut(&mut self, seq: Seq) -> &mut InFlight<D> {
        let index = usize::try_from(seq.0 - self.checkpoint.next_seq.0).expect("in flight is bounded");
        &mut self.in_flight[index]
    }

    /// Notes that a sender has its answer.
    pub(super) fn close(&mut self, ticket: Ticket) {
        assert!(self.open.remove(&ticket), "{ticket:?} must be answered exactly once");
    }

    /// Nobody waits any more.
    pub(super) fn assert_all_answered(&self) {
        assert!(self.open.is_empty(), "a term that ends leaves nobody without an answer");
    }
}
