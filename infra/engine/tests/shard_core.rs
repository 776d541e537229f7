//! The shard fed by hand: dedup, pipelining, answers, reading back, stepping down. Faults by seed are in `sim_*`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use engine::decider::StreamState;
use engine::log::{AppendError, Delivery, Stored};
use engine::message::{Answer, CommandId, Decided, Envelope, Fingerprint, NoAnswer, Precondition, Provenance};
use engine::position::{Checkpoint, Epoch, Nonce, Offset, Position, Seq, Version};
use engine::record::{Body, Claim, Header, Kind, Record};
use engine::shard::{
    Effect, Effective, Input, Inquired, Limits, Load, Loaded, Remembered, Shard, StepDown, SteppedDown, Ticket,
};
use engine::simulated::bank::{Account, Bank, BankCommand, account, bank};
use engine::stream::{StreamName, Tenant, partition_of};
use engine::time::Timestamp;
use uuid::Uuid;

const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

/// A shard with a hand-driven log and a store that is empty unless told otherwise.
struct Bench {
    shard: Shard<Bank>,
    effects: VecDeque<Effect<Bank>>,
    /// What was handed to the log and not reported.
    handed: VecDeque<(u64, Bytes)>,
    log: Vec<Bytes>,
    now: Timestamp,
}

fn name(number: u64) -> StreamName {
    account("b", number)
}

fn id(number: u128) -> CommandId {
    CommandId(Uuid::from_u128(number))
}

fn envelope(number: u128, command: BankCommand) -> Envelope<BankCommand> {
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

fn question(number: u128, command: &BankCommand) -> Envelope<BankCommand> {
    Envelope { command: None, ..envelope(number, command.clone()) }
}

fn a_claim() -> Claim {
    Claim { node: "n".into(), address: "a".into(), claimed_at: NOW }
}

impl Bench {
    fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    fn with_limits(limits: Limits) -> Self {
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

    fn feed(&mut self, input: Input<Bank>) {
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
    fn submit(&mut self, ticket: u64, envelope: Envelope<BankCommand>) {
        self.feed(Input::Submit(Ticket(ticket), envelope));
        if matches!(self.effects.back(), Some(Effect::Load(..))) {
            let (load, asked) = self.load();
            self.find_nothing(load, &asked);
        }
    }

    fn load(&mut self) -> (Ticket, Load) {
        match self.effects.pop_back() {
            Some(Effect::Load(ticket, load)) => (ticket, load),
            other => panic!("expected a load, got {other:?}"),
        }
    }

    fn find_nothing(&mut self, ticket: Ticket, load: &Load) {
        self.find(ticket, load, &BTreeMap::new(), None);
    }

    fn find(
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
    fn land(&mut self) -> Offset {
        let (tag, bytes) = self.handed.pop_front().expect("a record handed to the log");
        let offset = Offset(self.log.len() as u64);
        self.log.push(bytes);
        self.feed(Input::Delivered(vec![Delivery { tag, result: Ok(Some(offset)) }]));
        offset
    }

    fn fail(&mut self, error: AppendError) {
        let (tag, _) = self.handed.pop_front().expect("a record handed to the log");
        self.feed(Input::Delivered(vec![Delivery { tag, result: Err(error) }]));
    }

    /// Gives the records from `from` on back to the shard.
    fn give_back(&mut self, from: Offset) {
        let records = (from.0..self.log.len() as u64)
            .map(|offset| Stored { offset: Offset(offset), bytes: self.log[offset as usize].clone() })
            .collect();
        self.feed(Input::ReadBack(records));
    }

    /// A record that another writer put there.
    fn foreign(&mut self, kind: Kind, epoch: u64, nonce: u64, seq: u64) {
        let header = Header { kind, epoch: Epoch(epoch), nonce: Nonce(nonce), seq: Seq(seq) };
        let body = if kind == Kind::Claim { Body::Claim(a_claim()) } else { Body::Barrier };
        self.log.push(Record::new(header, body).encode());
    }

    fn next(&mut self) -> Effect<Bank> {
        self.effects.pop_front().expect("an effect")
    }

    fn effective(&mut self) -> Arc<Effective<Bank>> {
        match self.next() {
            Effect::Effective(effective) => effective,
            other => panic!("expected an effective record, got {other:?}"),
        }
    }

    fn answer(&mut self) -> (u64, Result<Answer<Account>, NoAnswer>) {
        match self.next() {
            Effect::Answer(ticket, answer) => (ticket.0, answer),
            other => panic!("expected an answer, got {other:?}"),
        }
    }

    fn decided(&mut self) -> (u64, Decided<Account>) {
        match self.answer() {
            (ticket, Ok(Answer::Decided(decided))) => (ticket, decided),
            other => panic!("expected a decision, got {other:?}"),
        }
    }

    fn stepped_down(&mut self) -> SteppedDown<Bank> {
        match self.next() {
            Effect::SteppedDown(stepped_down) => stepped_down,
            other => panic!("expected the end of the term, got {other:?}"),
        }
    }

    fn nothing_more(&mut self) {
        assert!(self.effects.is_empty(), "{:?}", self.effects);
    }
}

fn tickets(unresolved: &[(Ticket, Envelope<BankCommand>)]) -> Vec<u64> {
    unresolved.iter().map(|(ticket, _)| ticket.0).collect()
}

#[test]
fn a_command_is_answered_once_its_record_is_certain() {
    let mut bench = Bench::new();
    bench.submit(1, envelope(1, BankCommand::Open(name(0))));
    bench.nothing_more();
    let offset = bench.land();
    let effective = bench.effective();
    assert_eq!(effective.position.offset, offset);
    assert_eq!(effective.checkpoint.next_seq, Seq(2));
    assert_eq!(effective.changed.len(), 1);
    let (ticket, decided) = bench.decided();
    assert_eq!(ticket, 1);
    assert_eq!((decided.outcome.status, decided.version, decided.replayed), (201, Version(1), false));
    assert_eq!(decided.state.expect("a state").opened_by, id(1));
    let commit = effective.commit.clone().expect("a commit");
    assert_eq!((commit.recorded_at, commit.resource_version), (NOW, Version(1)));
}

#[test]
fn later_commands_are_decided_on_states_that_are_not_yet_certain() {
    let mut bench = Bench::new();
    bench.submit(1, envelope(1, BankCommand::Open(name(0))));
    bench.submit(2, envelope(2, BankCommand::Deposit(name(0), 5)));
    bench.submit(3, envelope(3, BankCommand::Withdraw(name(0), 6)));
    bench.submit(4, envelope(4, BankCommand::Withdraw(name(0), 5)));
    bench.nothing_more();
    for _ in 0..4 {
        bench.land();
    }
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let version = bench.effective().commit.as_ref().expect("a commit").resource_version;
        let (ticket, decided) = bench.decided();
        statuses.push((ticket, decided.outcome.status, version));
    }
    assert_eq!(statuses, [(1, 201, Version(1)), (2, 200, Version(2)), (3, 409, Version(2)), (4, 200, Version(3))]);
}

#[test]
fn both_sides_of_a_transfer_are_in_one_record() {
    let mut bench = Bench::new();
    for (number, command) in [
        BankCommand::Open(name(0)),
        BankCommand::Open(name(1)),
        BankCommand::Deposit(name(0), 9),
        BankCommand::Transfer(name(0), name(1), 4),
        BankCommand::Transfer(name(0), name(0), 4),
    ]
    .into_iter()
    .enumerate()
    {
        bench.submit(number as u64, envelope(number as u128 + 1, command));
        bench.land();
    }
    let transfers = bench
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Effective(effective) => effective.commit.as_ref(),
            _ => None,
        })
        .skip(3)
        .map(|commit| commit.streams.iter().map(|s| (s.name.clone(), s.first_version, s.events.len())).collect())
        .collect::<Vec<Vec<_>>>();
    assert_eq!(transfers[0], [(name(0), Version(3), 1), (name(1), Version(2), 1)]);
    assert_eq!(transfers[1], [(name(0), Version(4), 2)]);
}

#[test]
fn a_repeat_joins_what_is_loading_or_in_flight() {
    let mut bench = Bench::new();
    let open = || envelope(1, BankCommand::Open(name(0)));
    bench.feed(Input::Submit(Ticket(1), open()));
    bench.feed(Input::Submit(Ticket(2), open()));
    let (load, asked) = bench.load();
    bench.find_nothing(load, &asked);
    bench.submit(3, open());
    bench.submit(4, envelope(1, BankCommand::Deposit(name(0), 1)));
    bench.submit(5, question(1, &BankCommand::Open(name(0))));
    assert_eq!(bench.handed.len(), 1);
    bench.land();
    bench.effective();
    for ticket in [2, 3] {
        let (answered, decided) = bench.decided();
        assert_eq!((answered, decided.replayed), (ticket, true));
    }
    assert!(matches!(bench.answer(), (4, Ok(Answer::Reused))));
    assert_eq!(bench.decided().0, 5);
    assert!(!bench.decided().1.replayed);
    bench.nothing_more();
}

#[test]
fn a_repeat_of_an_effective_command_is_replayed_from_its_record() {
    let mut bench = Bench::new();
    let open = BankCommand::Open(name(0));
    bench.submit(1, envelope(1, open.clone()));
    let offset = bench.land();
    bench.effects.clear();
    bench.submit(2, envelope(1, open.clone()));
    match bench.next() {
        Effect::Replay(Ticket(2), at, fingerprint) => assert_eq!((at, fingerprint), (offset, open.fingerprint())),
        other => panic!("{other:?}"),
    }
    bench.submit(3, envelope(1, BankCommand::Deposit(name(0), 1)));
    assert!(matches!(bench.answer(), (3, Ok(Answer::Reused))));

    // The state store takes over. What it remembers is replayed in the same way.
    bench.feed(Input::Saved(offset.next()));
    assert_eq!(bench.shard.unsaved(), 0);
    bench.feed(Input::Submit(Ticket(4), envelope(1, open.clone())));
    let (load, asked) = bench.load();
    let remembered = Remembered { offset, fingerprint: open.fingerprint() };
    bench.find(load, &asked, &BTreeMap::new(), Some(remembered));
    assert!(matches!(bench.next(), Effect::Replay(Ticket(4), at, _) if at == offset));
    bench.nothing_more();
}

#[test]
fn what_an_aggregate_remembers_is_never_run_again() {
    let mut bench = Bench::new();
    let stored = BTreeMap::from([(name(0), (Version(3), Account { balance: 2, opened_by: id(1) }))]);
    bench.feed(Input::Submit(Ticket(1), envelope(1, BankCommand::Open(name(0)))));
    let (load, asked) = bench.load();
    bench.find(load, &asked, &stored, None);
    match bench.next() {
        Effect::ReplayVersion(Ticket(1), _, stream, version, _) => assert_eq!((stream, version), (name(0), Version(1))),
        other => panic!("{other:?}"),
    }
    bench.nothing_more();
}

#[test]
fn a_refused_precondition_is_recorded_with_the_current_version() {
    let mut bench = Bench::new();
    bench.submit(1, envelope(1, BankCommand::Open(name(0))));
    for (ticket, number, precondition, current) in [
        (2, 0, Precondition::AnyOf(vec![Version(3), Version(4)]), 1),
        (3, 0, Precondition::Absent, 1),
        (4, 1, Precondition::Exists, 0),
    ] {
        let command = BankCommand::Deposit(name(number), 1);
        bench.submit(ticket, Envelope { precondition, ..envelope(u128::from(ticket), command) });
        assert_eq!(bench.handed.len(), 1 + usize::from(ticket == 2));
        while !bench.handed.is_empty() {
            bench.effects.clear();
            bench.land();
        }
        let effective = bench.effective();
        assert!(effective.changed.is_empty());
        let (_, decided) = bench.decided();
        assert_eq!(decided.outcome.code.as_deref(), Some("version-mismatch"));
        assert_eq!(decided.outcome.status, 412);
        assert_eq!(decided.outcome.answer, Some(serde_json::json!({ "current_version": current })));
    }
}

#[test]
fn what_is_answered_without_a_record_waits_for_a_barrier() {
    let mut bench = Bench::new();
    bench.submit(1, envelope(1, BankCommand::Deposit(name(0), 5_000)));
    bench.submit(2, question(2, &BankCommand::Open(name(0))));
    bench.nothing_more();
    assert_eq!(bench.handed.len(), 1, "one barrier at a time");
    bench.land();
    assert!(bench.effective().commit.is_none());
    assert!(matches!(bench.answer(), (1, Ok(Answer::Invalid(errors))) if errors[0].code == "too-much"));
    bench.nothing_more();
    assert_eq!(bench.handed.len(), 1, "a second for what came after the first");
    bench.land();
    bench.effective();
    assert!(matches!(bench.answer(), (2, Ok(Answer::Unheard))));
    // Nothing was recorded under id 1: another command may use it.
    bench.submit(3, envelope(1, BankCommand::Open(name(0))));
    bench.land();
    bench.effective();
    assert_eq!(bench.decided().1.outcome.status, 201);
}

#[test]
fn while_it_is_crowded_nothing_more_is_begun_and_all_else_goes_on() {
    let mut bench = Bench::new();
    bench.submit(1, envelope(1, BankCommand::Open(name(0))));
    bench.land();
    bench.effects.clear();
    bench.feed(Input::Crowded(true));
    bench.feed(Input::Submit(Ticket(2), envelope(2, BankCommand::Open(name(1)))));
    bench.feed(Input::Submit(Ticket(3), envelope(2, BankCommand::Open(name(1)))));
    let (load, asked) = bench.load();
    bench.find_nothing(load, &asked);
    for ticket in [2, 3] {
        assert!(matches!(bench.answer(), (answered, Err(NoAnswer::Overloaded)) if answered == ticket));
    }
    assert!(bench.handed.is_empty(), "nothing of it is durable");
    // What is known is told, what belongs to something begun is done, and what the business refuses is refused for good.
    bench.submit(4, envelope(1, BankCommand::Open(name(0))));
    assert!(matches!(bench.next(), Effect::Replay(Ticket(4), ..)));
    for (ticket, command, status) in [(5, BankCommand::Deposit(name(0), 1), 200), (6, BankCommand::Open(name(0)), 409)]
    {
        bench.submit(ticket, envelope(u128::from(ticket), command));
        bench.land();
        bench.effective();
        assert_eq!(bench.decided().1.outcome.status, status);
    }
    // The same again once there is room.
    bench.feed(Input::Crowded(false));
    bench.submit(7, envelope(2, BankCommand::Open(name(1))));
    bench.land();
    bench.effective();
    let (ticket, decided) = bench.decided();
    assert_eq!((ticket, decided.outcome.status, decided.replayed), (7, 201, false));
    bench.nothing_more();
}

#[test]
fn a_uuid_v7_from_before_what_is_remembered_expires() {
    let mut bench = Bench::new();
    bench.feed(Input::Forgotten(NOW));
    let made_at = |micros: i64| {
        let ms = u64::try_from(micros / 1_000).expect("after 1970");
        Uuid::new_v7(uuid::Timestamp::from_unix_time(ms / 1_000, (ms % 1_000) as u32 * 1_000_000, 0, 0))
    };
    let mut old = envelope(0, BankCommand::Open(name(0)));
    old.id = CommandId(made_at(NOW.0 - 1_000));
    bench.submit(1, old);
    bench.land();
    bench.effective();
    assert!(matches!(bench.answer(), (1, Ok(Answer::Expired))));
    let mut young = envelope(0, BankCommand::Open(name(0)));
    young.id = CommandId(made_at(NOW.0));
    bench.submit(2, young);
    bench.land();
    bench.effective();
    assert_eq!(bench.decided().0, 2);
}

#[test]
fn a_uuid_v7_of_more_than_seven_days_expires_even_if_nothing_was_forgotten() {
    let mut bench = Bench::new();
    let ms = u64::try_from(NOW.0 / 1_000).expect("after 1970") - 7 * 24 * 60 * 60 * 1_000;
    for (ticket, made_at_ms, expires) in [(1, ms - 1, true), (2, ms + 60_000, false)] {
        let mut asked = envelope(0, BankCommand::Open(name(0)));
        let (seconds, nanos) = (made_at_ms / 1_000, (made_at_ms % 1_000) as u32 * 1_000_000);
        asked.id = CommandId(Uuid::new_v7(uuid::Timestamp::from_unix_time(seconds, nanos, 0, 0)));
        bench.submit(ticket, asked);
        bench.land();
        bench.effective();
        let (answered, answer) = bench.answer();
        assert_eq!((answered, matches!(answer, Ok(Answer::Expired))), (ticket, expires));
    }
}

#[test]
fn a_load_says_what_is_to_be_made_and_whether_its_id_was_just_drawn() {
    const SECOND: i64 = 1_000_000;
    for (from_now, is_fresh) in [(-60 * SECOND, false), (-5 * SECOND, true), (5 * SECOND, true), (60 * SECOND, false)] {
        let mut bench = Bench::new();
        let mut asked = envelope(0, BankCommand::Open(name(0)));
        let seconds = u64::try_from((NOW.0 + from_now) / SECOND).expect("after 1970");
        asked.id = CommandId(Uuid::new_v7(uuid::Timestamp::from_unix_time(seconds, 0, 0, 0)));
        bench.feed(Input::Submit(Ticket(1), asked));
        let (_, load) = bench.load();
        assert_eq!((load.made, load.id_is_fresh), (vec![true], is_fresh), "{from_now}");
    }
    let mut bench = Bench::new();
    bench.feed(Input::Submit(Ticket(1), envelope(0, BankCommand::Deposit(name(0), 5))));
    let (_, load) = bench.load();
    assert_eq!((load.made, load.id_is_fresh), (vec![false], false), "what is not made, under an id that tells no time");
    let mut own = envelope(7, BankCommand::Deposit(name(0), 5));
    own.fingerprint = Fingerprint(*own.id.0.as_bytes());
    let mut bench = Bench::new();
    bench.feed(Input::Submit(Ticket(1), own));
    assert!(bench.load().1.id_is_fresh, "what a node asks itself it asks once");
}

#[test]
fn too_large_a_record_is_never_handed_to_the_log() {
    let mut bench = Bench::new();
    bench.submit(1, envelope(1, BankCommand::Open(name(0))));
    bench.land();
    bench.effects.clear();
    bench.submit(2, envelope(2, BankCommand::Note(name(0), 2, 1 << 19)));
    bench.land();
    bench.effective();
    match bench.answer() {
        (2, Ok(Answer::Invalid(errors))) => {
            assert_eq!(errors[0].code, "too-large");
            assert_eq!(errors[0].at, engine::message::At::Pointer(String::new()));
        }
        other => panic!("{other:?}"),
    }
    // Version and seq were not used up.
    bench.submit(3, envelope(3, BankCommand::Deposit(name(0), 1)));
    bench.land();
    bench.effective();
    assert_eq!(bench.decided().1.version, Version(2));
}

#[test]
fn a_gap_is_read_back_before_anybody_is_answered() {
    let mut bench = Bench::new();
    bench.submit(1, envelope(1, BankCommand::Open(name(0))));
    bench.submit(2, envelope(2, BankCommand::Deposit(name(0), 1)));
    // A late record of a writer that is not the one any more.
    bench.foreign(Kind::Barrier, 1, 6, 1);
    bench.land();
    assert!(matches!(bench.next(), Effect::ReadBack(Offset(2))));
    bench.land();
    bench.nothing_more();
    bench.feed(Input::ReadBack(Vec::new()));
    assert!(matches!(bench.next(), Effect::ReadBack(Offset(2))));
    bench.give_back(Offset(2));
    for (offset, ticket) in [(3, 1), (4, 2)] {
        assert_eq!(bench.effective().position.offset, Offset(offset));
        assert_eq!(bench.decided().0, ticket);
    }
    bench.nothing_more();
}

#[test]
fn a_record_without_an_offset_is_read_back() {
    let mut bench = Bench::new();
    bench.submit(1, envelope(1, BankCommand::Open(name(0))));
    let (tag, bytes) = bench.handed.pop_front().expect("a record");
    bench.log.push(bytes.clone());
    // The log wrote it twice and knows neither place.
    bench.log.push(bytes);
    bench.feed(Input::Delivered(vec![Delivery { tag, result: Ok(None) }]));
    assert!(matches!(bench.next(), Effect::ReadBack(Offset(2))));
    bench.give_back(Offset(2));
    assert_eq!(bench.effective().position.offset, Offset(2));
    assert_eq!(bench.decided().0, 1);
    bench.submit(2, envelope(2, BankCommand::Deposit(name(0), 1)));
    bench.land();
    assert_eq!(bench.effective().position.offset, Offset(4));
}

#[test]
fn a_higher_claim_ends_the_term_and_gives_back_what_is_open() {
    let mut bench = Bench::new();
    bench.submit(1, envelope(1, BankCommand::Open(name(0))));
    bench.feed(Input::Inquire(Ticket(3), Tenant::default(), id(1)));
    bench.feed(Input::Submit(Ticket(2), envelope(2, BankCommand::Open(name(1)))));
    let (late, asked) = bench.load();
    bench.foreign(Kind::Claim, 2, 9, 0);
    bench.land();
    bench.effects.clear();
    bench.give_back(Offset(2));
    assert!(matches!(bench.answer(), (3, Err(NoAnswer::NotOwner))));
    let stepped_down = bench.stepped_down();
    assert_eq!(stepped_down.why, StepDown::Fenced);
    assert_eq!(tickets(&stepped_down.unresolved), [1, 2]);
    assert!(!bench.shard.is_leading() && !bench.shard.can_take());
    bench.submit(4, envelope(4, BankCommand::Open(name(0))));
    assert!(matches!(bench.answer(), (4, Err(NoAnswer::NotOwner))));

    // The same shard leads again. What comes back late from the earlier term says nothing.
    let checkpoint =
        Checkpoint { next_offset: Offset(4), epoch: Epoch(2), nonce: Nonce(9), next_seq: Seq(1), open: true };
    let (_, claim) = bench.shard.claim(&checkpoint, Nonce(8), a_claim());
    let mut led = checkpoint;
    led.accept(&Header::decode(&claim).expect("a claim"));
    assert!(bench.shard.lead(led, NOW));
    bench.log.push(claim);
    for (ticket, envelope) in stepped_down.unresolved {
        bench.feed(Input::Submit(ticket, envelope));
    }
    bench.effects.clear();
    bench.handed.clear();
    bench.find_nothing(late, &asked);
    bench.feed(Input::Delivered(vec![Delivery { tag: (1 << 40) | 2, result: Ok(Some(Offset(5))) }]));
    bench.nothing_more();
    assert_eq!(bench.shard.loading(), 2);
}

#[test]
fn a_claim_that_lost_does_not_lead() {
    let mut shard = Shard::new(bank(), partition_of(&Tenant::default(), &name(0), 12), 12, Limits::default());
    let mut checkpoint = Checkpoint { next_offset: Offset(1), ..Checkpoint::default() };
    shard.claim(&checkpoint, Nonce(1), a_claim());
    let other = Header { kind: Kind::Claim, epoch: Epoch(1), nonce: Nonce(2), seq: Seq(0) };
    checkpoint.accept(&other);
    assert!(!shard.lead(checkpoint, NOW));
    assert!(!shard.is_leading());
}

#[test]
fn an_unknown_append_ends_the_term() {
    let mut bench = Bench::new();
    for number in 1..=3_u64 {
        bench.submit(number, envelope(u128::from(number), BankCommand::Open(name(number))));
    }
    bench.land();
    bench.effective();
    bench.decided();
    bench.fail(AppendError::Unknown);
    let stepped_down = bench.stepped_down();
    assert_eq!(stepped_down.why, StepDown::Unknown);
    assert_eq!(tickets(&stepped_down.unresolved), [2, 3]);
}

#[test]
fn a_full_log_answers_those_that_were_certainly_not_written() {
    let mut bench = Bench::new();
    for number in 1..=3_u64 {
        bench.submit(number, envelope(u128::from(number), BankCommand::Open(name(number))));
    }
    // The first is durable, but where is not known yet.
    let (tag, _) = bench.handed.pop_front().expect("a record");
    bench.feed(Input::Delivered(vec![Delivery { tag, result: Ok(None) }]));
    bench.effects.clear();
    bench.fail(AppendError::Full);
    assert!(matches!(bench.answer(), (2, Err(NoAnswer::LogFull))));
    assert!(matches!(bench.answer(), (3, Err(NoAnswer::LogFull))));
    let stepped_down = bench.stepped_down();
    assert_eq!(stepped_down.why, StepDown::Full);
    assert_eq!(tickets(&stepped_down.unresolved), [1]);
}

#[test]
fn a_stopped_log_answers_everybody_and_nothing_is_given_back() {
    let mut bench = Bench::new();
    bench.submit(1, envelope(1, BankCommand::Open(name(1))));
    bench.feed(Input::Submit(Ticket(2), envelope(2, BankCommand::Open(name(2)))));
    bench.effects.clear();
    bench.fail(AppendError::Stopped);
    assert!(matches!(bench.answer(), (1, Err(NoAnswer::LogStopped))));
    assert!(matches!(bench.answer(), (2, Err(NoAnswer::LogStopped))));
    let stepped_down = bench.stepped_down();
    assert_eq!(stepped_down.why, StepDown::Stopped);
    assert!(stepped_down.unresolved.is_empty());
}

#[test]
fn an_offset_that_goes_backwards_is_damage() {
    let mut bench = Bench::new();
    bench.submit(1, envelope(1, BankCommand::Open(name(1))));
    let (tag, _) = bench.handed.pop_front().expect("a record");
    bench.feed(Input::Delivered(vec![Delivery { tag, result: Ok(Some(Offset(1))) }]));
    assert!(matches!(bench.answer(), (1, Err(NoAnswer::LogDamaged))));
    assert!(matches!(bench.stepped_down().why, StepDown::Damaged(_)));
}

#[test]
fn an_entry_outlives_the_loads_that_may_return_older_news() {
    let mut bench = Bench::new();
    let deposit = |number| envelope(number, BankCommand::Deposit(name(0), 1));
    let stored = BTreeMap::from([(name(0), (Version(1), Account { balance: 0, opened_by: id(99) }))]);
    bench.feed(Input::Submit(Ticket(1), deposit(1)));
    let (first, asked) = bench.load();
    bench.feed(Input::Submit(Ticket(2), deposit(2)));
    let (second, asked_again) = bench.load();
    assert_eq!(asked_again.streams, [name(0)]);
    bench.find(first, &asked, &stored, None);
    let offset = bench.land();
    bench.feed(Input::Saved(offset.next()));
    // The second load read before the first record was saved: it still shows version 1.
    bench.effects.clear();
    bench.find(second, &asked_again, &stored, None);
    bench.land();
    bench.effective();
    let (_, decided) = bench.decided();
    assert_eq!((decided.version, decided.state.expect("a state").balance), (Version(3), 2));
}

#[test]
fn a_question_sees_what_ran_while_it_was_loading() {
    let mut bench = Bench::new();
    let open = BankCommand::Open(name(0));
    bench.feed(Input::Submit(Ticket(1), question(1, &open)));
    let (asked_for, asked) = bench.load();
    bench.submit(2, envelope(1, open));
    let offset = bench.land();
    bench.feed(Input::Saved(offset.next()));
    bench.effects.clear();
    bench.find_nothing(asked_for, &asked);
    assert!(matches!(bench.next(), Effect::Replay(Ticket(1), at, _) if at == offset));
}

#[test]
fn an_inquiry_tells_what_runs_and_what_is_not_saved() {
    let mut bench = Bench::new();
    bench.submit(1, envelope(1, BankCommand::Open(name(0))));
    bench.land();
    bench.effects.clear();
    bench.feed(Input::Inquire(Ticket(2), Tenant::default(), id(1)));
    bench.submit(3, envelope(1, BankCommand::Open(name(1))));
    bench.land();
    bench.effective();
    match bench.next() {
        Effect::Inquired(Ticket(2), known) => {
            let [done, running] = known.as_slice() else { panic!("{known:?}") };
            let Inquired { resource, commit: Some((Position { offset, .. }, _)) } = done else { panic!("{done:?}") };
            assert_eq!((resource, *offset), (&name(0), Offset(2)));
            assert_eq!((&running.resource, &running.commit), (&name(1), &None));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn draining_settles_what_is_open_and_releases() {
    let mut bench = Bench::new();
    bench.feed(Input::Submit(Ticket(1), envelope(1, BankCommand::Open(name(0)))));
    let (load, asked) = bench.load();
    bench.feed(Input::Drain);
    assert!(!bench.shard.can_take());
    bench.submit(2, envelope(2, BankCommand::Open(name(1))));
    assert!(matches!(bench.answer(), (2, Err(NoAnswer::Draining))));
    bench.find_nothing(load, &asked);
    bench.land();
    bench.effective();
    assert_eq!(bench.decided().0, 1);
    bench.land();
    assert!(!bench.effective().checkpoint.open);
    assert!(matches!(bench.next(), Effect::Released));
    assert!(!bench.shard.is_leading());
}

#[test]
fn the_shard_stops_taking_at_its_bounds() {
    let mut bench = Bench::with_limits(Limits { in_flight_max: 2, loading_max: 1, unsaved_max: 3 });
    assert!(bench.shard.can_take());
    bench.feed(Input::Submit(Ticket(1), envelope(1, BankCommand::Open(name(1)))));
    assert!(!bench.shard.can_take(), "one load");
    let (load, asked) = bench.load();
    bench.find_nothing(load, &asked);
    assert!(bench.shard.can_take());
    bench.submit(2, envelope(2, BankCommand::Open(name(2))));
    assert!(!bench.shard.can_take(), "two in flight");
    bench.land();
    let offset = bench.land();
    assert!(!bench.shard.can_take(), "two ids and two streams not saved");
    bench.feed(Input::Saved(offset));
    assert!(bench.shard.can_take());
    assert_eq!((bench.shard.unsaved(), bench.shard.in_flight(), bench.shard.loading()), (2, 0, 0));
}

#[test]
fn time_never_goes_back_within_a_partition() {
    let mut bench = Bench::new();
    bench.submit(1, envelope(1, BankCommand::Open(name(1))));
    bench.now = Timestamp(NOW.0 - 3_600_000_000);
    bench.submit(2, envelope(2, BankCommand::Open(name(2))));
    bench.land();
    bench.land();
    let times = bench.effects.iter().filter_map(|effect| match effect {
        Effect::Effective(effective) => effective.commit.as_ref().map(|commit| commit.recorded_at),
        _ => None,
    });
    assert_eq!(times.collect::<Vec<_>>(), [NOW, NOW]);
}

#[test]
#[should_panic(expected = "must live in the partition")]
fn a_command_for_another_partition_is_never_decided() {
    let elsewhere = (0..100)
        .map(|number| account(&format!("c{number}"), 0))
        .find(|other| partition_of(&Tenant::default(), other, 12) != partition_of(&Tenant::default(), &name(0), 12))
        .expect("another partition");
    Bench::new().submit(1, envelope(1, BankCommand::Open(elsewhere)));
}

#[test]
fn a_record_that_overtook_another_ends_the_term_without_alarm() {
    for reported in [Some(Offset(2)), None] {
        let mut bench = Bench::new();
        bench.submit(1, envelope(1, BankCommand::Open(name(1))));
        bench.submit(2, envelope(2, BankCommand::Open(name(2))));
        let (first, one) = bench.handed.pop_front().expect("a record");
        let (second, two) = bench.handed.pop_front().expect("a record");
        bench.log.extend([two, one]);
        bench.feed(Input::Delivered(vec![Delivery { tag: first, result: Ok(Some(Offset(3))) }]));
        assert!(matches!(bench.next(), Effect::ReadBack(Offset(2))));
        bench.feed(Input::Delivered(vec![Delivery { tag: second, result: Ok(reported) }]));
        bench.give_back(Offset(2));
        let stepped_down = bench.stepped_down();
        assert_eq!(stepped_down.why, StepDown::Unknown);
        assert_eq!(tickets(&stepped_down.unresolved), [1, 2]);
    }
}

#[test]
fn a_question_is_not_answered_by_what_was_handed_over_before_it_came() {
    let mut bench = Bench::new();
    bench.submit(1, envelope(1, BankCommand::Open(name(0))));
    bench.submit(2, question(2, &BankCommand::Open(name(1))));
    bench.land();
    bench.effective();
    assert_eq!(bench.decided().0, 1);
    bench.nothing_more();
    bench.land();
    bench.effective();
    assert!(matches!(bench.answer(), (2, Ok(Answer::Unheard))));
}

#[test]
fn what_an_aggregate_remembers_is_told_once_all_it_was_seen_with_is_certain() {
    let mut bench = Bench::new();
    let stored = BTreeMap::from([(name(0), (Version(3), Account { balance: 2, opened_by: id(1) }))]);
    bench.submit(1, envelope(9, BankCommand::Open(name(1))));
    bench.feed(Input::Submit(Ticket(2), envelope(1, BankCommand::Open(name(0)))));
    let (load, asked) = bench.load();
    bench.find(load, &asked, &stored, None);
    bench.nothing_more();
    bench.land();
    bench.effective();
    assert_eq!(bench.decided().0, 1);
    assert!(matches!(bench.next(), Effect::ReplayVersion(Ticket(2), ..)));
}
