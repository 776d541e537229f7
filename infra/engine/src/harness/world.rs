//! A world in which streams owe things: it carries errands out until nothing is owed, and lets any of them fail, be
//! carried out twice, lose its answer or land late. Its time is its own and moves only when there is nothing else to do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::history::{Folded, START};
use crate::decider::{Context, Decider, Decision, States, StreamState};
use crate::message::{CommandId, FieldError, Fingerprint, Outcome};
use crate::position::Position;
use crate::saga::{Agenda, Ask, Heard, Pending, Reactor, Timer};
use crate::stream::StreamName;
use crate::time::Timestamp;

/// An errand without an answer is tried again after this long.
const RETRY_MS: u64 = 1_000;
/// A business that owes more than this in one run goes round in circles.
const STEPS_MAX: u64 = 10_000;

/// What is outside: a payment gateway with books of its own, say. The key is the errand's id, the same at every try.
pub trait Outside<R: Reactor> {
    /// One call. `Err` tells why nobody could be reached.
    fn call(&mut self, key: CommandId, call: &R::Call, now: Timestamp) -> Result<R::Returned, String>;
}

impl<R: Reactor, F> Outside<R> for F
where
    F: FnMut(CommandId, &R::Call, Timestamp) -> Result<R::Returned, String>,
{
    fn call(&mut self, key: CommandId, call: &R::Call, now: Timestamp) -> Result<R::Returned, String> {
        self(key, call, now)
    }
}

/// What goes wrong with one try at an errand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not carried out.
    Fails,
    /// It is carried out twice, and both answers come.
    Repeated,
    /// It is carried out and the answer never comes.
    AnswerLost,
    /// It seems to fail, and is carried out after this many further tries, or when nothing is owed any more.
    LandsLate(u64),
}

/// Why nothing was recorded of a command.
#[derive(Clone, Debug, PartialEq)]
pub enum NotRecorded {
    /// It can never be valid.
    Invalid(Vec<FieldError>),
    /// Its id was used for something else.
    Reused,
}

/// A command's record, as far as its repeats need it.
#[derive(Clone, Debug)]
struct Answered {
    id: CommandId,
    fingerprint: Fingerprint,
    outcome: Outcome,
}

/// A stream and what it owes.
pub type Owed<R> = (StreamName, Agenda<<R as Decider>::Command, <R as Reactor>::Call>);

/// An errand that lands once this many steps have been made.
struct Late<R: Reactor> {
    step: u64,
    stream: StreamName,
    errand: Pending<R::Command, R::Call>,
}

/// One process with an endless memory, and what is outside.
pub struct World<R: Reactor, O: Outside<R>> {
    folded: Folded<R>,
    outside: O,
    now: Timestamp,
    answered: BTreeMap<Position, Answered>,
    /// By resource and id; what `forget` clears.
    remembered: BTreeMap<(StreamName, CommandId), Position>,
    /// Tries at errands, from 1.
    steps: u64,
    faults: BTreeMap<u64, Fault>,
    /// Not to be tried before.
    retry_at: BTreeMap<CommandId, Timestamp>,
    /// What seemed to fail and will land.
    late: Vec<Late<R>>,
    /// Timers by id: each fires once.
    fired: BTreeSet<CommandId>,
    trace: Vec<String>,
}

impl<R: Reactor, O: Outside<R>> World<R, O> {
    /// Nothing has happened yet.
    pub fn new(reactor: R, outside: O) -> Self {
        Self {
            folded: Folded::new(Arc::new(reactor)),
            outside,
            now: START,
            answered: BTreeMap::new(),
            remembered: BTreeMap::new(),
            steps: 0,
            faults: BTreeMap::new(),
            retry_at: BTreeMap::new(),
            late: Vec::new(),
            fired: BTreeSet::new(),
            trace: Vec::new(),
        }
    }

    /// Lets the `step`-th try at an errand (from 1) go wrong.
    pub fn fault_at(&mut self, step: u64, fault: Fault) {
        self.faults.insert(step, fault);
    }

    /// Lets the shard's memory of ids go: only what aggregates remember is left, as after a week.
    pub fn forget(&mut self) {
        self.remembered.clear();
    }

    /// What happened and what it amounts to.
    pub fn folded(&self) -> &Folded<R> {
        &self.folded
    }

    /// What a stream amounts to.
    pub fn state(&self, stream: &StreamName) -> Option<&R::State> {
        self.folded.state(stream).map(Arc::as_ref)
    }

    /// What is outside.
    pub fn outside(&mut self) -> &mut O {
        &mut self.outside
    }

    /// The time here.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Tries at errands so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// What was done, line by line.
    pub fn trace(&self) -> &[String] {
        &self.trace
    }

    /// Streams that owe something, with what they owe. Timers count.
    pub fn owing(&self) -> Vec<Owed<R>> {
        let reactor = self.folded.decider();
        (self.folded.streams())
            .map(|(name, version, state)| (name.clone(), reactor.react(name, version, state)))
            .filter(|(_, agenda)| !agenda.is_empty())
            .collect()
    }

    /// A command at the door: answered as before if its id is known, else decided and recorded.
    pub fn submit(&mut self, id: CommandId, command: R::Command) -> Result<Outcome, NotRecorded> {
        self.submit_at(id, command).map(|(outcome, _)| outcome)
    }

    fn submit_at(&mut self, id: CommandId, command: R::Command) -> Result<(Outcome, Position), NotRecorded> {
        let reactor = self.folded.decider().clone();
        let names = reactor.streams(&command);
        let resource = names.first().unwrap_or_else(|| panic!("{command:?} names no stream")).clone();
        let print = xxhash_rust::xxh3::xxh3_128(format!("{command:?}").as_bytes());
        let fingerprint = Fingerprint(print.to_le_bytes());
        if let Some(position) = self.position_of(&resource, id) {
            let before = &self.answered[&position];
            assert_eq!(before.id, id, "{resource} remembers {id} at a record of another command");
            self.trace.push(format!("   {id} was answered before: {:?}", before.outcome));
            let same = before.fingerprint == fingerprint;
            return if same { Ok((before.outcome.clone(), position)) } else { Err(NotRecorded::Reused) };
        }
        let states = (names.iter())
            .map(|name| StreamState {
                name: name.clone(),
                version: self.folded.version(name),
                state: self.folded.state(name).cloned(),
            })
            .collect::<Vec<_>>();
        let context = Context { now: self.now, command_id: id };
        let (outcome, events) = match reactor.decide(&States::new(&states), &command, &context) {
            Decision::Invalid(errors) => {
                self.trace.push(format!("   {command:?} is invalid: {errors:?}"));
                return Err(NotRecorded::Invalid(errors));
            }
            Decision::Refuse(rejection) => (Outcome::from(rejection), Vec::new()),
            Decision::Accept(accepted) => {
                let outcome = Outcome { status: accepted.status, answer: accepted.answer, ..Outcome::default() };
                (outcome, accepted.events)
            }
        };
        let code = outcome.code.as_deref().unwrap_or("accepted");
        self.trace.push(format!("   {command:?}: {} {code} {events:?}", outcome.status));
        let events = events.into_iter().map(|(index, event)| (names[index].clone(), event));
        let position = self.folded.record(id, fingerprint, self.now, events);
        self.answered.insert(position, Answered { id, fingerprint, outcome: outcome.clone() });
        self.remembered.insert((resource, id), position);
        Ok((outcome, position))
    }

    fn position_of(&self, resource: &StreamName, id: CommandId) -> Option<Position> {
        if let Some(position) = self.remembered.get(&(resource.clone(), id)) {
            return Some(*position);
        }
        let version = self.folded.decider().remembers(self.folded.state(resource)?, id)?;
        let event = self.folded.history().of(resource).find(|event| event.meta.version == version);
        Some(event.unwrap_or_else(|| panic!("{resource} remembers {id} at version {version}, which it lacks")).position)
    }

    /// Carries errands out until nothing is pending, waiting for what is to be tried later. Timers that are due by then
    /// fire; others do not.
    ///
    /// # Panics
    /// If it never comes to rest.
    pub fn run_until_quiet(&mut self) {
        let first = self.steps;
        loop {
            assert!(self.steps - first < STEPS_MAX, "never comes to rest; it owes {:?}", self.owing());
            if let Some(index) = self.late.iter().position(|late| late.step <= self.steps) {
                self.land(index);
                continue;
            }
            let owing = self.owing();
            if let Some((stream, timer)) = due_timer(&owing, self.now) {
                self.fire(&stream, timer);
                continue;
            }
            let ready = |pending: &Pending<_, _>| {
                let retry_at = self.retry_at.get(&pending.id).copied().unwrap_or(START);
                retry_at.max(pending.not_before.unwrap_or(START))
            };
            let next = (owing.iter())
                .flat_map(|(stream, agenda)| agenda.pending.iter().map(move |pending| (stream, pending)))
                .map(|(stream, pending)| (ready(pending), stream, pending))
                .min_by_key(|(ready_at, ..)| *ready_at);
            match next {
                Some((ready_at, stream, pending)) if ready_at <= self.now => {
                    let (stream, pending) = (stream.clone(), pending.clone());
                    self.attempt(&stream, pending);
                }
                Some((ready_at, ..)) => {
                    let timers = owing.iter().filter_map(|(_, agenda)| agenda.timer.map(|timer| timer.due));
                    self.now = timers.chain([ready_at]).min().expect("there is a pending errand").max(self.now);
                }
                None if !self.late.is_empty() => self.land(0),
                None => break,
            }
        }
    }

    /// Lets time pass: timers that fall due fire, and what they bring about is carried out.
    pub fn advance(&mut self, ms: u64) {
        let until = self.now.plus_ms(ms);
        loop {
            self.run_until_quiet();
            let next = self.owing().iter().filter_map(|(_, agenda)| agenda.timer).map(|timer| timer.due).min();
            match next {
                Some(due) if due <= until => self.now = self.now.max(due),
                _ => break,
            }
        }
        self.now = self.now.max(until);
    }

    fn fire(&mut self, stream: &StreamName, timer: Timer) {
        let state = self.folded.state(stream).expect("a stream that owes was written").clone();
        let command = self.folded.decider().fire(stream, &state, &timer);
        self.trace.push(format!("at {} the timer of {stream} fires: {command:?}", self.now));
        let id = timer.command_id(stream);
        assert!(self.fired.insert(id), "a timer that fired must be disarmed, or armed by what its firing recorded");
        if let Err(NotRecorded::Invalid(errors)) = self.submit_at(id, command) {
            panic!("the timer of {stream} fires a command that can never be valid: {errors:?}");
        }
    }

    fn attempt(&mut self, stream: &StreamName, pending: Pending<R::Command, R::Call>) {
        self.steps += 1;
        // So that no two steps bear the same time.
        self.now = self.now.plus_ms(1);
        let fault = self.faults.get(&self.steps).copied();
        let told = fault.map(|fault| format!(" ({fault:?})")).unwrap_or_default();
        self.trace.push(format!("{}{told}: {stream} asks {:?} as {}", self.steps, pending.ask, pending.id));
        self.retry_at.insert(pending.id, self.now.plus_ms(RETRY_MS));
        match fault {
            None => {
                let heard = self.carry_out(stream, &pending);
                self.hear(stream, &pending, &heard);
            }
            Some(Fault::Fails) => self.hear_nothing(stream, &pending),
            Some(Fault::Repeated) => {
                let heard = [self.carry_out(stream, &pending), self.carry_out(stream, &pending)];
                for heard in &heard {
                    self.hear(stream, &pending, heard);
                }
            }
            Some(Fault::AnswerLost) => {
                self.carry_out(stream, &pending);
                self.hear_nothing(stream, &pending);
            }
            Some(Fault::LandsLate(tries)) => {
                self.hear_nothing(stream, &pending);
                let step = self.steps.saturating_add(tries);
                self.late.push(Late { step, stream: stream.clone(), errand: pending });
            }
        }
    }

    fn land(&mut self, index: usize) {
        let Late { stream, errand, .. } = self.late.remove(index);
        self.trace.push(format!("late: {stream} had asked {:?} as {}", errand.ask, errand.id));
        self.carry_out(&stream, &errand);
    }

    fn carry_out(&mut self, stream: &StreamName, pending: &Pending<R::Command, R::Call>) -> Heard<R::Returned> {
        match &pending.ask {
            Ask::Command(command) => match self.submit_at(pending.id, command.clone()) {
                Ok((outcome, position)) => Heard::Outcome(outcome, position),
                Err(NotRecorded::Invalid(errors)) => Heard::Invalid(format!("{errors:?}")),
                Err(NotRecorded::Reused) => {
                    panic!("{stream} asks something else under {} than it did before: {command:?}", pending.id)
                }
            },
            Ask::Call(call) => match self.outside.call(pending.id, call, self.now) {
                Ok(returned) => Heard::Returned(returned),
                Err(why) => Heard::Unreachable(why),
            },
        }
    }

    /// A call that nobody answers is heard as unreachable; a command without an answer is only sent again.
    fn hear_nothing(&mut self, stream: &StreamName, pending: &Pending<R::Command, R::Call>) {
        if matches!(pending.ask, Ask::Call(_)) {
            self.hear(stream, pending, &Heard::Unreachable("nobody answered".to_owned()));
        }
    }

    fn hear(&mut self, stream: &StreamName, pending: &Pending<R::Command, R::Call>, heard: &Heard<R::Returned>) {
        let state = self.folded.state(stream).expect("a stream that owes was written").clone();
        self.trace.push(format!("   {stream} hears {heard:?}"));
        let Some((id, command)) = self.folded.decider().heard(stream, &state, pending, heard, self.now) else { return };
        match self.submit_at(id, command) {
            Ok(_) => {}
            // The first answer under this id is the one that counts.
            Err(NotRecorded::Reused) => self.trace.push(format!("   {id} was heard otherwise before")),
            Err(NotRecorded::Invalid(errors)) => panic!("{stream} cannot record what it heard: {errors:?}"),
        }
    }
}

fn due_timer<C, Q>(owing: &[(StreamName, Agenda<C, Q>)], now: Timestamp) -> Option<(StreamName, Timer)> {
    (owing.iter())
        .filter_map(|(stream, agenda)| agenda.timer.map(|timer| (stream.clone(), timer)))
        .filter(|(_, timer)| timer.due <= now)
        .min_by_key(|(_, timer)| timer.due)
}

/// What was done is told when a test fails.
impl<R: Reactor, O: Outside<R>> Drop for World<R, O> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("faults {:?}; what was done:\n{}", self.faults, self.trace.join("\n"));
        }
    }
}

/// Runs a world once for every step and every way in which it can go wrong, and checks how it ends. `make` starts it,
/// `run` brings it to its end (`run_until_quiet`, and `advance` where timers matter). Returns how many runs there were.
///
/// # Panics
/// If `check` does, or if a run never comes to rest; what was done is printed then.
pub fn breaks_every_step<R: Reactor, O: Outside<R>>(
    make: impl Fn() -> World<R, O>,
    run: impl Fn(&mut World<R, O>),
    check: impl Fn(&mut World<R, O>),
) -> u64 {
    let faults = [Fault::Fails, Fault::AnswerLost]
        .into_iter()
        // Late by one to four tries: between any two steps of a saga. And last of all.
        .chain([1, 2, 3, 4, u64::MAX].map(Fault::LandsLate));
    let mut runs = 0;
    for fault in faults {
        for step in 1.. {
            let mut world = make();
            world.fault_at(step, fault);
            run(&mut world);
            check(&mut world);
            runs += 1;
            if world.steps() < step {
                break;
            }
        }
    }
    runs
}

/// Runs a world once for every step, carried out twice, and checks that it ends as if nothing had been. Returns how many
/// runs there were.
///
/// # Panics
/// If one ends in other states or at other versions; what was done is printed then.
pub fn repeats_every_step<R: Reactor, O: Outside<R>>(
    make: impl Fn() -> World<R, O>,
    run: impl Fn(&mut World<R, O>),
) -> u64 {
    let end = |world: &World<R, O>| {
        (world.folded().streams())
            .map(|(name, version, state)| {
                (name.clone(), version, serde_json::to_value(state).expect("states are JSON"))
            })
            .collect::<Vec<_>>()
    };
    let mut undisturbed = make();
    run(&mut undisturbed);
    let expected = end(&undisturbed);
    for step in 1..=undisturbed.steps() {
        let mut world = make();
        world.fault_at(step, Fault::Repeated);
        run(&mut world);
        assert_eq!(end(&world), expected, "step {step}, repeated, left a trace");
    }
    undisturbed.steps()
}
