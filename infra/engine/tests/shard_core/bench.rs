//! A shard to be fed by hand: its log and its store are whatever a test says.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use engine::decider::StreamState;
use engine::log::{AppendError, Delivery, Stored};
use engine::message::{Answer, CommandId, Decided, Envelope, NoAnswer, Precondition, Provenance};
use engine::position::{Checkpoint, Epoch, Nonce, Offset, Seq, Version};
use engine::record::{Body, Claim, Header, Kind, Record};
use engine::shard::{Effect, Effective, Input, Limits, Load, Loaded, Remembered, Shard, SteppedDown, Ticket};
use engine::simulated::bank::{Account, Bank, BankCommand, account, bank};
use engine::stream::{StreamName, Tenant, partition_of};
use engine::time::Timestamp;
use uuid::Uuid;

pub(crate) const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

/// A shard with a hand-driven log and a store that is empty unless told otherwise.
pub(crate) struct Bench {
    pub(crate) shard: Shard<Bank>,
    pub(crate) effects: VecDeque<Effect<Bank>>,
    /// What was handed to the log and not reported.
    pub(crate) handed: VecDeque<(u64, Bytes)>,
    pub(crate) log: Vec<Bytes>,
    pub(crate) now: Timestamp,
}

pub(crate) fn name(number: u64) -> StreamName {
    account("b", number)
}

pub(crate) fn id(number: u128) -> CommandId {
    CommandId(Uuid::from_u128(number))
}

pub(crate) fn envelope(number: u128, command: BankCommand) -> Envelope<BankCommand> {
    Envelope {
        id: id(number),
        tenant: Tenant::default(),
        resource: command.resource().clone(),
        fingerprint: command.fingerprint(),
        precondition: Precondition::None,
        provenance: Provenance::default(),
        command: Some(command),
    }
}

pub(crate) fn question(number: u128, command: &BankCommand) -> Envelope<BankCommand> {
    Envelope { command: None, ..envelope(number, command.clone()) }
}

pub(crate) fn a_claim() -> Claim {
    Claim { node: "n".into(), address: "a".into(), claimed_at: NOW }
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    pub(crate) fn with_limits(limits: Limits) -> Self {
        let home = partition_of(&Tenant::default(), &name(0), 12);
        let mut shard = Shard::new(bank(), home, 12, limits);
        let after_genesis = Checkpoint { next_offset: Offset(1), ..Checkpoint::default() };
        let (_, claim) = shard.claim(&after_genesis, Nonce(7), a_claim());
        let genesis = Bytes::from_static(b"not looked at");
        let mut checkpoint = after_genesis;
        checkpoint.accept(&Header::decode(&claim).expect("a claim"));
        assert!(shard.lead(checkpoint, Timestamp(0)));
        Self { shard, effects: VecDeque::new(), handed: VecDeque::new(), log: vec![genesis, claim], now: NOW }
    }

    pub(crate) fn feed(&mut self, input: Input<Bank>) {
        let mut effects = Vec::new();
        self.shard.handle(self.now, input, &mut effects);
        for effect in effects {
            match effect {
                Effect::Append(tag, bytes) => self.handed.push_back((tag, bytes)),
                other => self.effects.push_back(other),
            }
        }
    }

    /// Submits and answers the load from an empty store.
    pub(crate) fn submit(&mut self, ticket: u64, envelope: Envelope<BankCommand>) {
        self.feed(Input::Submit(Ticket(ticket), envelope));
        if matches!(self.effects.back(), Some(Effect::Load(..))) {
            let (load, asked) = self.load();
            self.find_nothing(load, &asked);
        }
    }

    pub(crate) fn load(&mut self) -> (Ticket, Load) {
        match self.effects.pop_back() {
            Some(Effect::Load(ticket, load)) => (ticket, load),
            other => panic!("expected a load, got {other:?}"),
        }
    }

    pub(crate) fn find_nothing(&mut self, ticket: Ticket, load: &Load) {
        self.find(ticket, load, &BTreeMap::new(), None);
    }

    pub(crate) fn find(
        &mut self,
        ticket: Ticket,
        load: &Load,
        store: &BTreeMap<StreamName, (Version, Account)>,
        remembered: Option<Remembered>,
    ) {
        let streams = load
            .streams
            .iter()
            .map(|name| match store.get(name) {
                Some((version, state)) => {
                    StreamState { name: name.clone(), version: *version, state: Some(Arc::new(state.clone())) }
                }
                None => StreamState { name: name.clone(), version: Version(0), state: None },
            })
            .collect();
        self.feed(Input::Loaded(ticket, Ok(Loaded { streams, remembered })));
    }

    /// The log takes the next record handed to it and reports it at once.
    pub(crate) fn land(&mut self) -> Offset {
        let (tag, bytes) = self.handed.pop_front().expect("a record handed to the log");
        let offset = Offset(self.log.len() as u64);
        self.log.push(bytes);
        self.feed(Input::Delivered(vec![Delivery { tag, result: Ok(Some(offset)) }]));
        offset
    }

    pub(crate) fn fail(&mut self, error: AppendError) {
        let (tag, _) = self.handed.pop_front().expect("a record handed to the log");
        self.feed(Input::Delivered(vec![Delivery { tag, result: Err(error) }]));
    }

    /// Gives the records from `from` on back to the shard.
    pub(crate) fn give_back(&mut self, from: Offset) {
        let records = (from.0..self.log.len() as u64)
            .map(|offset| Stored { offset: Offset(offset), bytes: self.log[offset as usize].clone() })
            .collect();
        self.feed(Input::ReadBack(records));
    }

    /// A record that another writer put there.
    pub(crate) fn foreign(&mut self, kind: Kind, epoch: u64, nonce: u64, seq: u64) {
        let header = Header { kind, epoch: Epoch(epoch), nonce: Nonce(nonce), seq: Seq(seq) };
        let body = if kind == Kind::Claim { Body::Claim(a_claim()) } else { Body::Barrier };
        self.log.push(Record::new(header, body).encode());
    }

    pub(crate) fn next(&mut self) -> Effect<Bank> {
        self.effects.pop_front().expect("an effect")
    }

    pub(crate) fn effective(&mut self) -> Arc<Effective<Bank>> {
        match self.next() {
            Effect::Effective(effective) => effective,
            other => panic!("expected an effective record, got {other:?}"),
        }
    }

    pub(crate) fn answer(&mut self) -> (u64, Result<Answer<Account>, NoAnswer>) {
        match self.next() {
            Effect::Answer(ticket, answer) => (ticket.0, answer),
            other => panic!("expected an answer, got {other:?}"),
        }
    }

    pub(crate) fn decided(&mut self) -> (u64, Decided<Account>) {
        match self.answer() {
            (ticket, Ok(Answer::Decided(decided))) => (ticket, decided),
            other => panic!("expected a decision, got {other:?}"),
        }
    }

    pub(crate) fn stepped_down(&mut self) -> SteppedDown<Bank> {
        match self.next() {
            Effect::SteppedDown(stepped_down) => stepped_down,
            other => panic!("expected the end of the term, got {other:?}"),
        }
    }

    pub(crate) fn nothing_more(&mut self) {
        assert!(self.effects.is_empty(), "{:?}", self.effects);
    }
}

pub(crate) fn tickets(unresolved: &[(Ticket, Envelope<BankCommand>)]) -> Vec<u64> {
    unresolved.iter().map(|(ticket, _)| ticket.0).collect()
}
