//! The harness itself: its words hold a business to what it should do, and its world finds a saga that takes silence
//! for a no.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use bytes::Bytes;
use engine::decider::{Context, Decider, Decision, States};
use engine::event::{ContentType, EncodedEvent, Event, EventMeta, Recorded, UnreadableEvent};
use engine::harness::{Fault, NotRecorded, World, breaks_every_step, given, history, repeats_every_step, rows};
use engine::message::CommandId;
use engine::position::Version;
use engine::saga::{Agenda, Ask, Heard, Pending, Reactor, Timer};
use engine::simulated::bank::{Bank, BankCommand, BankEvent, account};
use engine::stream::StreamName;
use engine::time::Timestamp;
use engine::view::{Column, ColumnKind, Row, RowKey, Table, View};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

fn ann() -> StreamName {
    account("shop", 1)
}

#[test]
fn the_words_tell_what_happened_and_what_did_not() {
    given(Bank, [(ann(), BankEvent::Opened)])
        .when(BankCommand::Deposit(ann(), 4))
        .then([(ann(), BankEvent::Deposited(4))])
        .when(BankCommand::Deposit(ann(), 4_000))
        .then_invalid(&["/amount"])
        .when(BankCommand::Note(ann(), 0, 0))
        .then_nothing()
        .when(BankCommand::Withdraw(ann(), 3))
        .then_answered(&serde_json::json!({ "balance": 1 }))
        .when(BankCommand::Withdraw(ann(), 3))
        .then_refused("balance-too-low")
        .when(BankCommand::Open(account("shop", 2)))
        .then_accepted();
}

#[test]
#[should_panic(expected = "other events happened")]
fn other_events_than_should_are_told() {
    let _ = given(Bank, [(ann(), BankEvent::Opened)])
        .when(BankCommand::Deposit(ann(), 4))
        .then([(ann(), BankEvent::Deposited(5))]);
}

#[test]
fn versions_count_by_stream_and_creators_are_remembered() {
    let id = CommandId(Uuid::from_u128(5));
    let then = given(Bank, []).when_asked_as(id, BankCommand::Open(ann())).then([(ann(), BankEvent::Opened)]);
    assert_eq!(then.remembers(&ann(), id), Some(Version(1)));
    let then = then.and([(account("shop", 2), BankEvent::Opened), (ann(), BankEvent::Deposited(1))]);
    assert_eq!(then.version(&ann()), Version(2));
    assert_eq!(then.state(&ann()).expect("an account").balance, 1);
}

struct Balances;

impl View for Balances {
    type Event = BankEvent;

    fn tables(&self) -> &'static [Table] {
        &[Table { name: "balances", columns: &[Column { name: "balance", kind: ColumnKind::Integer }] }]
    }

    fn rows(&self, event: &Recorded<BankEvent>) -> Vec<RowKey> {
        vec![RowKey { table: "balances", key: event.meta.stream.rest().to_owned() }]
    }

    fn evolve(&self, _key: &RowKey, row: Option<Row>, event: &Recorded<BankEvent>) -> Option<Row> {
        let before = row.and_then(|row| row.columns[0].as_i64()).unwrap_or(0);
        let balance = match event.event {
            BankEvent::Deposited(amount) => before + amount as i64,
            BankEvent::Withdrawn(amount) => before - amount as i64,
            BankEvent::Opened | BankEvent::Noted(_) => before,
        };
        let doc = serde_json::json!({ "balance": balance });
        Some(Row { version: event.meta.version.0, columns: vec![balance.into()], doc: doc.into() })
    }
}

#[test]
fn rows_are_the_fold_of_events() {
    let events =
        history([(ann(), BankEvent::Opened), (ann(), BankEvent::Deposited(5)), (ann(), BankEvent::Withdrawn(2))]);
    let rows = rows(&Balances, events.recorded());
    let row = rows.row("balances", "shop~1").expect("a row");
    assert_eq!((row.version, &row.doc.value()["balance"]), (3, &serde_json::json!(3)));
    assert_eq!(rows.row("balances", "shop~2"), None);
    assert_eq!(rows.iter().count(), 1);
}

// A saga: take from a till, print a ticket, give back if the printer says no. A late ticket is torn up by a timer.

#[derive(Clone, Debug, Serialize, Deserialize)]
enum LunchEvent {
    Filled(u64),
    Taken(CommandId),
    Given(CommandId),
    Begun(StreamName),
    TillAnswered(bool),
    PrinterAnswered(bool),
    GivenBack,
    TornUp,
}

impl Event for LunchEvent {
    fn encode(&self) -> EncodedEvent {
        EncodedEvent {
            event_type: "Lunch".into(),
            schema_version: 1,
            content_type: ContentType::Json,
            payload: Bytes::from(serde_json::to_vec(self).expect("JSON")),
        }
    }

    fn decode(stored: &EncodedEvent) -> Result<Self, UnreadableEvent> {
        Ok(serde_json::from_slice(&stored.payload).expect("JSON"))
    }
}

#[derive(Clone, Debug)]
enum LunchCommand {
    Fill(StreamName, u64),
    Take(StreamName, CommandId),
    Give(StreamName, CommandId),
    Begin(StreamName, StreamName),
    Note(StreamName, LunchEvent),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Step {
    Taking,
    Printing,
    Giving,
    Failed,
    Done { at: Timestamp },
    TornUp,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum LunchState {
    Till { left: u64, taken: BTreeSet<CommandId>, given: BTreeSet<CommandId> },
    Lunch { till: StreamName, step: Step, version: Version },
}

/// `silence_is_no`: the mistake of taking an unreachable printer for one that will not print.
#[derive(Clone, Copy)]
struct Lunches {
    silence_is_no: bool,
}

fn errand(lunch: &StreamName, step: &str) -> CommandId {
    CommandId(Uuid::new_v5(&Uuid::NAMESPACE_OID, lunch.as_str().as_bytes())).derive(step)
}

impl Decider for Lunches {
    type Command = LunchCommand;
    type Event = LunchEvent;
    type State = LunchState;

    fn version(&self) -> u32 {
        1
    }

    fn streams(&self, command: &LunchCommand) -> Vec<StreamName> {
        match command {
            LunchCommand::Fill(name, _)
            | LunchCommand::Take(name, _)
            | LunchCommand::Give(name, _)
            | LunchCommand::Begin(name, _)
            | LunchCommand::Note(name, _) => vec![name.clone()],
        }
    }

    fn decide(
        &self,
        states: &States<'_, LunchState>,
        command: &LunchCommand,
        _context: &Context,
    ) -> Decision<LunchEvent> {
        match (command, states.at(0)) {
            (LunchCommand::Fill(_, count), _) => Decision::accept(vec![(0, LunchEvent::Filled(*count))]),
            (LunchCommand::Begin(_, till), None) => Decision::create(vec![(0, LunchEvent::Begun(till.clone()))]),
            (LunchCommand::Take(_, id), Some(LunchState::Till { left, taken, given })) => {
                if taken.contains(id) || given.contains(id) {
                    Decision::nothing()
                } else if *left == 0 {
                    Decision::refuse("till-empty", "Nothing is left.")
                } else {
                    Decision::accept(vec![(0, LunchEvent::Taken(*id))])
                }
            }
            (LunchCommand::Give(_, id), Some(LunchState::Till { given, .. })) => {
                if given.contains(id) {
                    Decision::nothing()
                } else {
                    Decision::accept(vec![(0, LunchEvent::Given(*id))])
                }
            }
            (LunchCommand::Note(_, event), Some(LunchState::Lunch { step, .. })) => {
                let expected = matches!(
                    (step, event),
                    (Step::Taking, LunchEvent::TillAnswered(_))
                        | (Step::Printing, LunchEvent::PrinterAnswered(_))
                        | (Step::Giving, LunchEvent::GivenBack)
                        | (Step::Done { .. }, LunchEvent::TornUp)
                );
                Decision::accept(if expected { vec![(0, event.clone())] } else { Vec::new() })
            }
            (command, state) => Decision::refuse("out-of-place", format!("{command:?} on {state:?}")),
        }
    }

    fn evolve(&self, state: Option<LunchState>, event: &LunchEvent, meta: &EventMeta) -> LunchState {
        match (state, event) {
            (None, LunchEvent::Begun(till)) => {
                LunchState::Lunch { till: till.clone(), step: Step::Taking, version: meta.version }
            }
            (None, LunchEvent::Filled(left)) => {
                LunchState::Till { left: *left, taken: BTreeSet::new(), given: BTreeSet::new() }
            }
            (Some(LunchState::Till { mut left, mut taken, mut given }), event) => {
                match event {
                    LunchEvent::Filled(more) => left += more,
                    LunchEvent::Taken(id) => {
                        left -= 1;
                        taken.insert(*id);
                    }
                    LunchEvent::Given(id) => {
                        left += u64::from(taken.contains(id));
                        given.insert(*id);
                    }
                    other => panic!("{other:?} is not a till's"),
                }
                LunchState::Till { left, taken, given }
            }
            (Some(LunchState::Lunch { till, .. }), event) => {
                let step = match event {
                    LunchEvent::TillAnswered(true) => Step::Printing,
                    LunchEvent::PrinterAnswered(true) => Step::Done { at: meta.recorded_at },
                    LunchEvent::PrinterAnswered(false) => Step::Giving,
                    LunchEvent::TillAnswered(false) | LunchEvent::GivenBack => Step::Failed,
                    LunchEvent::TornUp => Step::TornUp,
                    other => panic!("{other:?} is not a lunch's"),
                };
                LunchState::Lunch { till, step, version: meta.version }
            }
            (None, other) => panic!("{other:?} on nothing"),
        }
    }

    fn remembers(&self, _state: &LunchState, _id: CommandId) -> Option<Version> {
        None
    }
}

impl Reactor for Lunches {
    type Call = &'static str;
    type Returned = bool;

    fn react(&self, stream: &StreamName, _version: Version, state: &LunchState) -> Agenda<LunchCommand, &'static str> {
        let LunchState::Lunch { till, step, version } = state else { return Agenda::default() };
        let (name, ask) = match step {
            Step::Taking => ("take", Ask::Command(LunchCommand::Take(till.clone(), errand(stream, "take")))),
            Step::Printing => ("print", Ask::Call("print")),
            Step::Giving => ("give", Ask::Command(LunchCommand::Give(till.clone(), errand(stream, "take")))),
            Step::Done { at } => {
                let timer = Some(Timer { due: at.plus_ms(60_000), armed_at: *version });
                return Agenda { pending: Vec::new(), timer };
            }
            Step::Failed | Step::TornUp => return Agenda::default(),
        };
        Agenda { pending: vec![Pending { id: errand(stream, name), not_before: None, ask }], timer: None }
    }

    fn heard(
        &self,
        stream: &StreamName,
        _state: &LunchState,
        pending: &Pending<LunchCommand, &'static str>,
        heard: &Heard<bool>,
        _now: Timestamp,
    ) -> Option<(CommandId, LunchCommand)> {
        let event = match (&pending.ask, heard) {
            (Ask::Command(LunchCommand::Take(..)), Heard::Outcome(outcome, _)) => {
                LunchEvent::TillAnswered(outcome.is_accepted())
            }
            (Ask::Command(_), Heard::Outcome(..)) => LunchEvent::GivenBack,
            (Ask::Call(_), Heard::Returned(printed)) => LunchEvent::PrinterAnswered(*printed),
            (Ask::Call(_), Heard::Unreachable(_)) if self.silence_is_no => LunchEvent::PrinterAnswered(false),
            _ => return None,
        };
        Some((pending.id.derive("outcome"), LunchCommand::Note(stream.clone(), event)))
    }

    fn fire(&self, stream: &StreamName, _state: &LunchState, _timer: &Timer) -> LunchCommand {
        LunchCommand::Note(stream.clone(), LunchEvent::TornUp)
    }
}

/// Tickets that were printed, by key.
type Printed = Rc<RefCell<BTreeSet<CommandId>>>;

struct Printer {
    prints: bool,
    printed: Printed,
}

impl engine::harness::Outside<Lunches> for Printer {
    fn call(&mut self, key: CommandId, _call: &&'static str, _now: Timestamp) -> Result<bool, String> {
        if self.prints {
            self.printed.borrow_mut().insert(key);
        }
        Ok(self.prints)
    }
}

fn till() -> StreamName {
    StreamName::new("till-one").expect("a name")
}

fn lunch(number: u64) -> StreamName {
    StreamName::new(&format!("lunch-{number}")).expect("a name")
}

fn lunches(silence_is_no: bool, prints: bool) -> World<Lunches, Printer> {
    let mut world = World::new(Lunches { silence_is_no }, Printer { prints, printed: Printed::default() });
    let id = |number| CommandId(Uuid::from_u128(number));
    world.submit(id(1), LunchCommand::Fill(till(), 2)).expect("a till");
    for number in 1..=3 {
        world.submit(id(10 + u128::from(number)), LunchCommand::Begin(lunch(number), till())).expect("a lunch");
    }
    world
}

fn done(world: &World<Lunches, Printer>) -> usize {
    let lunch = |state: &LunchState| matches!(state, LunchState::Lunch { step: Step::Done { .. }, .. });
    world.folded().streams().filter(|(_, _, state)| lunch(state)).count()
}

/// Every ticket belongs to a lunch that was paid for; every coin is accounted for.
fn books_agree(world: &mut World<Lunches, Printer>) {
    assert!(world.owing().iter().all(|(_, agenda)| agenda.pending.is_empty()));
    let done = done(world);
    assert_eq!(world.outside().printed.borrow().len(), done, "a ticket for every lunch, a lunch for every ticket");
    let Some(LunchState::Till { left, .. }) = world.state(&till()) else { panic!("a till") };
    assert_eq!(*left as usize + done, 2);
}

#[test]
fn a_saga_holds_when_broken_at_every_step() {
    for prints in [true, false] {
        let runs = breaks_every_step(|| lunches(false, prints), World::run_until_quiet, books_agree);
        assert!(runs > 35, "{runs}");
        assert!(repeats_every_step(|| lunches(false, prints), World::run_until_quiet) >= 5);
    }
    let mut undisturbed = lunches(false, true);
    undisturbed.run_until_quiet();
    assert_eq!(done(&undisturbed), 2);
}

#[test]
#[should_panic(expected = "a ticket for every lunch")]
fn a_saga_that_takes_silence_for_a_no_is_found() {
    breaks_every_step(|| lunches(true, true), World::run_until_quiet, books_agree);
}

#[test]
fn timers_fire_when_time_passes_and_only_then() {
    let mut world = lunches(false, true);
    world.run_until_quiet();
    assert_eq!((done(&world), world.owing().len()), (2, 2));
    world.advance(30_000);
    assert_eq!(done(&world), 2);
    world.advance(60_000);
    assert_eq!((done(&world), world.owing().len()), (0, 0));
}

#[test]
fn a_known_id_is_answered_as_before_and_guards_against_another_command() {
    let mut world = lunches(false, true);
    let id = CommandId(Uuid::from_u128(1));
    assert_eq!(world.submit(id, LunchCommand::Fill(till(), 2)).expect("as before").status, 200);
    assert_eq!(world.submit(id, LunchCommand::Fill(till(), 3)), Err(NotRecorded::Reused));
    world.fault_at(1, Fault::Repeated);
    world.run_until_quiet();
    assert_eq!(world.folded().version(&till()), Version(3));
    world.forget();
    assert_eq!(world.submit(id, LunchCommand::Fill(till(), 3)).expect("anew").status, 200);
}
