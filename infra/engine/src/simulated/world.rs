//! The event loop: virtual time, what is on its way, and what goes wrong when.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use uuid::Uuid;

use super::bank::{Account, account};
use super::clients::{self, Ask, Request};
use super::dice::Dice;
use super::log::{SimulatedLog, Write, WriteFault, WriteFaults};
use super::node::{Node, Phase, ToNode};
use super::referee::Referee;
use crate::fold::Verdict;
use crate::log::{AppendError, Delivery};
use crate::message::{Answer, CommandId, Decided, NoAnswer};
use crate::position::{LogId, Nonce, Offset, Partition, Position, Version};
use crate::record::{Claim, Genesis, Header, Kind, Record};
use crate::shard::{Effect, Input, Limits, StepDown, Ticket};
use crate::stream::{StreamName, Tenant, partition_of};
use crate::time::Timestamp;

const PARTITIONS: u16 = 4;
const ACCOUNTS: u64 = 4;
/// Requests of a run, shared out among its clients: few clients ask long, many at once.
const REQUESTS: usize = 40;
const CLIENTS: [usize; 4] = [2, 4, 10, 20];
/// Everything goes wrong until then; then nothing does. Longer than the slowest client needs in a calm seed.
const CHAOS_US: u64 = 400_000;
/// By then everybody must have been answered.
const END_US: u64 = CHAOS_US + 3_000_000;
/// A claim that has not come back by then is made again.
const CLAIM_TIMEOUT_US: u64 = 30_000;

/// What to simulate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan {
    /// A mistake in the runner, to see whether it is found.
    pub mistake: Option<Mistake>,
    /// Keep a line for everything that happens.
    pub tell: bool,
}

/// A mistake that a runner may make. Each breaks a promise, and the referee must see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// Durable is taken for effective: every report is passed on as contiguous.
    AcknowledgesBeforeContiguity,
    /// Leads as soon as its claim is durable, on the state from before it.
    ServesBeforeItsClaim,
    /// The state store forgets ids: dedup sees only the shard's own term.
    ForgetsIds,
    /// Says that records are saved before the state store has them.
    SaysSavedTooEarly,
    /// What was on its way to the state store in an earlier term is still written after the next has begun.
    SavesAcrossTerms,
}

/// What happened in one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Of everything that happened: equal for equal seeds.
    pub trace_hash: u64,
    /// Requests, all answered.
    pub requests: u64,
    /// How often each thing happened, by name: faults, kinds of answers, ends of terms.
    pub counts: BTreeMap<&'static str, u64>,
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}, after {at_us} µs: {what}")]
pub struct Violation {
    /// In this run.
    pub seed: u64,
    /// At this virtual time.
    pub at_us: u64,
    /// This.
    pub what: String,
    /// What happened before, if the plan says to tell.
    pub trace: Vec<String>,
}

#[derive(Debug)]
enum Event {
    /// A copy of a write reaches the log.
    Land(usize),
    /// What has landed becomes durable.
    Sync,
    /// The outcome of a write is known otherwise.
    Resolve(usize, AppendError),
    /// Something reaches a node; of this incarnation, if it matters.
    AtNode(usize, Option<u64>, ToNode),
    /// A client asks the next thing.
    Next(usize),
    /// A request is tried, if it was last tried under this ticket.
    Try(usize, Ticket),
    /// An answer reaches its client.
    Told(Ticket, Told),
    Mischief,
    Resume(usize, u64),
    Restart(usize),
    HasRoom,
    Heal,
}

#[derive(Debug)]
enum Told {
    Answer(Result<Answer<Account>, NoAnswer>),
    /// Resources and positions under an id.
    Known(Vec<(StreamName, Option<Position>)>),
}

/// What goes wrong beside the log, in a thousand or in microseconds. Drawn for each seed.
#[derive(Clone, Debug)]
struct Faults {
    writes: WriteFaults,
    message_lost: u64,
    answer_lost: u64,
    load_fails: u64,
    /// Every so often something of this happens.
    mischief_us: u64,
    crash: bool,
    pause: bool,
    log_crash: bool,
    full: bool,
    stop: bool,
    duel: bool,
    move_hint: bool,
}

impl Faults {
    fn drawn(dice: &mut Dice) -> Self {
        let mut rate = |most| if dice.chance(500) { dice.below(most) } else { 0 };
        let (message_lost, answer_lost, load_fails) = (rate(60), rate(100), rate(20));
        let mischief_us = dice.between(4_000, 60_000);
        let mut armed = || dice.chance(500);
        let [crash, pause, log_crash, full, stop, duel, move_hint] = std::array::from_fn(|_| armed());
        let writes = WriteFaults::drawn(dice);
        Self {
            writes,
            message_lost,
            answer_lost,
            load_fails,
            mischief_us,
            crash,
            pause,
            log_crash,
            full,
            stop,
            duel,
            move_hint,
        }
    }

    fn none() -> Self {
        Self {
            writes: WriteFaults::none(),
            message_lost: 0,
            answer_lost: 0,
            load_fails: 0,
            mischief_us: u64::MAX,
            crash: false,
            pause: false,
            log_crash: false,
            full: false,
            stop: false,
            duel: false,
            move_hint: false,
        }
    }
}

struct World {
    now: u64,
    arrivals: u64,
    queue: BTreeMap<(u64, u64), Event>,
    dice: Dice,
    plan: Plan,
    faults: Faults,
    healed: bool,
    home: Partition,
    accounts: Vec<StreamName>,
    log: SimulatedLog,
    nodes: Vec<Node>,
    /// Which node should own the partition. A hint: nothing rests on it.
    hint: usize,
    referee: Referee,
    requests: Vec<Request>,
    /// Accounts that somebody was sent to open.
    opened: usize,
    /// What each client has still to ask.
    left: Vec<usize>,
    tickets: BTreeMap<Ticket, usize>,
    /// The furthest offset that any client was answered from, and the ids that were.
    answered_to: Option<Offset>,
    answered: BTreeSet<CommandId>,
    hash: u64,
    counts: BTreeMap<&'static str, u64>,
    trace: Vec<String>,
}

/// Runs one seed to its end.
///
/// # Errors
/// The first promise that was broken.
///
/// # Panics
/// If an assertion of the shard fails.
pub fn simulate(seed: u64, plan: Plan) -> Result<Report, Violation> {
    let mut world = World::new(seed, plan);
    world.run().map_err(|what| Violation { seed, at_us: world.now, what, trace: std::mem::take(&mut world.trace) })?;
    let requests = world.requests.len() as u64;
    Ok(Report { trace_hash: world.hash, requests, counts: world.counts })
}

impl World {
    fn new(seed: u64, plan: Plan) -> Self {
        let mut dice = Dice::new(seed);
        let accounts = (0..ACCOUNTS).map(|number| account("b", number)).collect::<Vec<_>>();
        let home = partition_of(&Tenant::default(), &accounts[0], PARTITIONS);
        let faults = Faults::drawn(&mut dice);
        let nodes = (0..dice.between(2, 3))
            .map(|_| {
                let limits = Limits {
                    in_flight_max: [1, 3, 64][dice.below(3) as usize],
                    loading_max: [1, 4, 64][dice.below(3) as usize],
                    unsaved_max: [6, 64][dice.below(2) as usize],
                };
                Node::new(home, PARTITIONS, limits)
            })
            .collect();
        let clients = CLIENTS[dice.below(4) as usize];
        let left = vec![REQUESTS / clients; clients];
        Self {
            now: 0,
            arrivals: 0,
            queue: BTreeMap::new(),
            dice,
            plan,
            faults,
            healed: false,
            home,
            accounts,
            log: SimulatedLog::default(),
            nodes,
            hint: 0,
            referee: Referee::default(),
            requests: Vec::new(),
            opened: 0,
            left,
            tickets: BTreeMap::new(),
            answered_to: None,
            answered: BTreeSet::new(),
            hash: seed,
            counts: BTreeMap::new(),
            trace: Vec::new(),
        }
    }

    fn run(&mut self) -> Result<(), String> {
        self.begin()?;
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now = at;
            if self.now > END_US {
                break;
            }
            self.happen(event)?;
            let all_asked = self.left.iter().all(|left| *left == 0);
            if self.healed && all_asked && self.requests.iter().all(|request| request.done) {
                return self.judge_end();
            }
        }
        let open = self.requests.iter().filter(|request| !request.done).collect::<Vec<_>>();
        Err(format!("all is healed, and {} requests have no answer: {open:?}", open.len()))
    }

    fn begin(&mut self) -> Result<(), String> {
        let genesis = Record::genesis(Genesis {
            log: LogId(Uuid::from_u64_pair(self.dice.any(), self.dice.any())),
            partitions: PARTITIONS,
            placement_rule: 1,
            format: 1,
            fingerprint_key: [0; 32],
            created_at: Timestamp(0),
        });
        self.become_durable(genesis.encode())?;
        for node in 0..self.nodes.len() {
            self.to_node(node, 0, ToNode::Tick);
        }
        for client in 0..self.left.len() {
            let delay = self.dice.below(5_000);
            self.after(delay, Event::Next(client));
        }
        self.after(0, Event::Mischief);
        self.after(CHAOS_US, Event::Heal);
        Ok(())
    }

    /// Microseconds of virtual time to the clock that shards see, which jumps.
    fn clock(&mut self) -> Timestamp {
        let jump = if self.dice.chance(20) { self.dice.below(10_000_000) } else { 0 };
        Timestamp(1_700_000_000_000_000 + (self.now + 10_000_000 - jump) as i64)
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn tell(&mut self, line: impl FnOnce() -> String) {
        if self.plan.tell {
            self.trace.push(format!("{:>7} {}", self.now, line()));
        }
    }

    fn note(&mut self, value: u64) {
        self.hash = (self.hash ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23);
    }

    fn after(&mut self, delay_us: u64, event: Event) {
        self.arrivals += 1;
        self.queue.insert((self.now + delay_us, self.arrivals), event);
    }

    /// For the node as it is now: if it starts anew this is dropped.
    fn to_node(&mut self, node: usize, delay_us: u64, input: ToNode) {
        let incarnation = self.nodes[node].incarnation;
        self.after(delay_us, Event::AtNode(node, Some(incarnation), input));
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        self.note(self.now ^ self.dice.clone().any());
        match event {
            Event::Land(write) => self.land(write),
            Event::Sync => return self.sync(),
            Event::Resolve(write, error) => self.resolve(write, Err(error)),
            Event::AtNode(node, incarnation, input) => {
                let there = &mut self.nodes[node];
                if !there.up || incarnation.is_some_and(|incarnation| incarnation != there.incarnation) {
                    return Ok(());
                }
                if there.paused {
                    there.inbox.push_back(input);
                    return Ok(());
                }
                return self.at_node(node, input);
            }
            Event::Next(client) => self.next_request(client),
            Event::Try(request, ticket) => {
                if !self.requests[request].done && self.requests[request].ticket == ticket {
                    self.count("tried again");
                    self.send(request);
                }
            }
            Event::Told(ticket, told) => return self.told(ticket, told),
            Event::Mischief => self.mischief(),
            Event::Resume(node, incarnation) => {
                if self.nodes[node].incarnation == incarnation {
                    return self.resume(node);
                }
            }
            Event::Restart(node) => self.restart(node),
            Event::HasRoom => self.log.full = false,
            Event::Heal => return self.heal(),
        }
        Ok(())
    }

    // What goes wrong.

    fn mischief(&mut self) {
        if self.healed {
            return;
        }
        let node = self.dice.below(self.nodes.len() as u64) as usize;
        let others_up = (0..self.nodes.len()).any(|other| other != node && self.nodes[other].up);
        match self.dice.below(7) {
            0 if self.faults.crash && self.nodes[node].up && others_up => self.crash(node),
            1 | 2 if self.faults.pause && self.nodes[node].up && !self.nodes[node].paused => {
                self.count("pause");
                self.tell(|| format!("node {node} pauses"));
                self.nodes[node].paused = true;
                let (delay, incarnation) = (self.dice.between(2_000, 120_000), self.nodes[node].incarnation);
                self.after(delay, Event::Resume(node, incarnation));
            }
            3 if self.faults.log_crash => self.crash_log(),
            4 if self.faults.full && !self.log.full => {
                self.count("full");
                self.tell(|| "the log is full".to_owned());
                self.log.full = true;
                let delay = self.dice.between(1_000, 20_000);
                self.after(delay, Event::HasRoom);
            }
            5 if self.faults.stop && self.nodes[node].up => {
                self.count("stop");
                self.tell(|| format!("the log writer of node {node} stops"));
                self.nodes[node].stopped = true;
            }
            6 if self.faults.move_hint => {
                let before = std::mem::replace(&mut self.hint, node);
                self.count("hint moved");
                self.tell(|| format!("node {node} should own the partition"));
                if before != node && self.dice.chance(500) {
                    self.to_node(before, 100, ToNode::Drain);
                }
            }
            _ => {}
        }
        let delay = self.dice.between(1, self.faults.mischief_us);
        self.after(delay, Event::Mischief);
    }

    fn crash(&mut self, node: usize) {
        self.count("crash");
        self.tell(|| format!("node {node} crashes"));
        self.nodes[node].crash(self.home, PARTITIONS);
        if self.dice.chance(200) {
            self.count("state store lost");
            self.nodes[node].store = Default::default();
        }
        let delay = self.dice.between(500, 60_000);
        self.after(delay, Event::Restart(node));
    }

    fn crash_log(&mut self) {
        let lost = std::mem::take(&mut self.log.unsynced);
        self.tell(|| format!("the log crashes and loses {} records", lost.len()));
        for write in lost {
            self.count("record lost unsynced");
            self.resolve(write, Err(AppendError::Unknown));
        }
    }

    fn restart(&mut self, node: usize) {
        if !self.nodes[node].up {
            self.tell(|| format!("node {node} starts"));
            self.nodes[node].up = true;
            self.to_node(node, 0, ToNode::Tick);
        }
    }

    fn resume(&mut self, node: usize) -> Result<(), String> {
        self.tell(|| format!("node {node} resumes"));
        self.nodes[node].paused = false;
        for input in std::mem::take(&mut self.nodes[node].inbox) {
            // It may crash on the way: then the rest is lost with it.
            if self.nodes[node].up {
                self.at_node(node, input)?;
            }
        }
        Ok(())
    }

    fn heal(&mut self) -> Result<(), String> {
        self.tell(|| "all is healed".to_owned());
        self.healed = true;
        self.faults = Faults::none();
        self.log.full = false;
        for node in 0..self.nodes.len() {
            if self.nodes[node].paused {
                self.resume(node)?;
            }
            self.restart(node);
        }
        Ok(())
    }

    // The log.

    fn append(&mut self, node: usize, tag: u64, bytes: Bytes) {
        self.note(tag);
        let write = self.log.writes.len();
        let fault = self.faults.writes.draw(&mut self.dice);
        let incarnation = self.nodes[node].incarnation;
        self.nodes[node].awaiting.push_back(write);
        self.log.writes.push(Write { node, incarnation, tag, bytes, copies: 1, fault, report: None });
        self.tell(|| format!("node {node} appends {}:{} {fault:?}", tag >> 40, tag & 0xFF_FFFF));
        let delay = self.dice.between(20, self.faults.writes.delay_us_max);
        if self.nodes[node].stopped {
            if self.dice.chance(500) {
                self.after(delay, Event::Land(write));
            }
            self.after(delay, Event::Resolve(write, AppendError::Stopped));
            return;
        }
        if self.log.full {
            self.count("append to a full log");
            self.after(delay, Event::Resolve(write, AppendError::Full));
            return;
        }
        // One connection keeps its order; what is overtaken went another way.
        let landing = (self.now + delay).max(self.nodes[node].last_landing);
        let in_order = landing - self.now;
        if fault != Some(WriteFault::Overtaken) {
            self.nodes[node].last_landing = landing;
        }
        let late = self.dice.between(5_000, 20_000);
        match fault {
            None | Some(WriteFault::NoOffset) => self.after(in_order, Event::Land(write)),
            Some(WriteFault::Overtaken) => self.after(in_order + late / 4, Event::Land(write)),
            Some(WriteFault::AnswerLost) => {
                self.after(in_order, Event::Land(write));
                self.after(in_order + late, Event::Resolve(write, AppendError::Unknown));
            }
            Some(WriteFault::Lost) => self.after(in_order + late, Event::Resolve(write, AppendError::Unknown)),
            Some(WriteFault::LandsLate) => {
                self.after(in_order + late, Event::Resolve(write, AppendError::Unknown));
                let much_later = self.dice.between(0, 100_000);
                self.after(in_order + late + much_later, Event::Land(write));
            }
            Some(WriteFault::Duplicated | WriteFault::DuplicatedReportedLast) => {
                self.log.writes[write].copies = 2;
                self.after(in_order, Event::Land(write));
                self.after(in_order + late, Event::Land(write));
            }
        }
        match fault {
            Some(WriteFault::AnswerLost) => self.count("answer lost"),
            Some(WriteFault::Lost) => self.count("append lost"),
            Some(WriteFault::LandsLate) => self.count("append lands late"),
            Some(WriteFault::Duplicated | WriteFault::DuplicatedReportedLast) => self.count("append duplicated"),
            Some(WriteFault::NoOffset) => self.count("append without offset"),
            Some(WriteFault::Overtaken) => self.count("append overtaken"),
            None => {}
        }
    }

    fn land(&mut self, write: usize) {
        self.log.writes[write].copies = self.log.writes[write].copies.saturating_sub(1);
        self.log.unsynced.push(write);
        if !self.log.sync_due {
            self.log.sync_due = true;
            let delay = self.dice.between(20, 1_500);
            self.after(delay, Event::Sync);
        }
    }

    fn sync(&mut self) -> Result<(), String> {
        self.log.sync_due = false;
        for write in std::mem::take(&mut self.log.unsynced) {
            let offset = self.log.end();
            let bytes = self.log.writes[write].bytes.clone();
            let tag = self.log.writes[write].tag;
            self.tell(|| format!("{}:{} is durable at {offset}", tag >> 40, tag & 0xFF_FFFF));
            self.become_durable(bytes)?;
            if let Some(report) = self.log.writes[write].on_durable(offset) {
                self.resolve(write, report);
            }
        }
        for node in 0..self.nodes.len() {
            let there = &self.nodes[node];
            if there.up && (there.read_from.is_some() || matches!(there.phase, Phase::Claiming { .. })) {
                let delay = self.dice.between(10, 400);
                self.to_node(node, delay, ToNode::LogGrew);
            }
        }
        Ok(())
    }

    fn become_durable(&mut self, bytes: Bytes) -> Result<(), String> {
        self.note(xxhash_rust::xxh3::xxh3_64(&bytes));
        self.referee.observe(&bytes)?;
        self.log.durable.push(bytes);
        Ok(())
    }

    fn resolve(&mut self, write: usize, report: Result<Option<Offset>, AppendError>) {
        let Write { node, incarnation, report: slot, .. } = &mut self.log.writes[write];
        if slot.is_some() {
            return;
        }
        *slot = Some(report);
        let (node, incarnation) = (*node, *incarnation);
        let there = &mut self.nodes[node];
        if there.incarnation != incarnation {
            return;
        }
        let mut deliveries = Vec::new();
        while let Some(front) = there.awaiting.front() {
            let Write { tag, report: Some(result), .. } = &self.log.writes[*front] else { break };
            deliveries.push(Delivery { tag: *tag, result: *result });
            there.awaiting.pop_front();
        }
        if !deliveries.is_empty() {
            let at = (self.now + self.dice.between(5, 300)).max(there.last_report);
            there.last_report = at;
            self.to_node(node, at - self.now, ToNode::Delivered(deliveries));
        }
    }

    // Nodes.

    fn at_node(&mut self, node: usize, input: ToNode) -> Result<(), String> {
        match input {
            ToNode::Submit(..) | ToNode::Inquire(..) => {
                let shard = &self.nodes[node].shard;
                // Now and then it comes all the same, as with a runner that takes several at once.
                if shard.is_leading() && !shard.can_take() && self.dice.chance(900) {
                    self.count("held back");
                    self.nodes[node].held.push_back(input);
                    return Ok(());
                }
                self.take(node, input)?;
            }
            ToNode::Loaded(load, loaded) => self.feed(node, Input::Loaded(load, loaded))?,
            ToNode::LoadNow(ticket, load) => {
                let loaded = self.look(node, &load);
                self.feed(node, Input::Loaded(ticket, Ok(loaded)))?;
            }
            ToNode::Delivered(mut deliveries) => {
                if self.plan.mistake == Some(Mistake::AcknowledgesBeforeContiguity) {
                    self.assume_contiguous(node, &mut deliveries);
                }
                self.feed(node, Input::Delivered(deliveries))?;
            }
            ToNode::LogGrew => {
                self.await_claim(node)?;
                self.read_back(node)?;
            }
            ToNode::Save => self.save(node)?,
            ToNode::Tick => self.tick(node)?,
            ToNode::Drain => self.feed(node, Input::Drain)?,
        }
        while self.nodes[node].shard.can_take() || !self.nodes[node].shard.is_leading() {
            let Some(input) = self.nodes[node].held.pop_front() else { break };
            self.take(node, input)?;
        }
        Ok(())
    }

    fn take(&mut self, node: usize, input: ToNode) -> Result<(), String> {
        match input {
            ToNode::Submit(ticket, envelope) => self.feed(node, Input::Submit(ticket, envelope)),
            ToNode::Inquire(ticket, id) => self.feed(node, Input::Inquire(ticket, Tenant::default(), id)),
            _ => unreachable!("only submissions are taken"),
        }
    }

    fn feed(&mut self, node: usize, input: Input<super::bank::Bank>) -> Result<(), String> {
        let now = self.clock();
        let mut effects = Vec::new();
        self.nodes[node].shard.handle(now, input, &mut effects);
        for effect in effects {
            self.carry_out(node, effect)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, node: usize, effect: Effect<super::bank::Bank>) -> Result<(), String> {
        match effect {
            Effect::Load(ticket, load) => {
                let delay = if self.dice.chance(500) { 1 } else { self.dice.between(10, 4_000) };
                let input = if self.dice.chance(self.faults.load_fails) {
                    self.count("load failed");
                    ToNode::Loaded(ticket, Err(NoAnswer::LogDamaged))
                } else if self.dice.chance(500) {
                    // Read now, arriving later: news by then is not in it.
                    ToNode::Loaded(ticket, Ok(self.look(node, &load)))
                } else {
                    ToNode::LoadNow(ticket, load)
                };
                self.to_node(node, delay, input);
            }
            Effect::Append(tag, bytes) => self.append(node, tag, bytes),
            Effect::Answer(ticket, answer) => self.say(ticket, Told::Answer(answer)),
            Effect::Replay(ticket, offset, fingerprint) => {
                let answer = self.replay(offset, fingerprint)?;
                self.say(ticket, Told::Answer(Ok(answer)));
            }
            Effect::ReplayVersion(ticket, _, stream, version, fingerprint) => {
                self.count("remembered by the aggregate");
                let offset = self.referee.by_version.get(&(stream, version)).copied();
                let offset = offset.ok_or("an aggregate remembers a record that is not there")?;
                let id = self.requests[self.tickets[&ticket]].id;
                if self.referee.commits[&offset].command_id != id {
                    return Err(format!("an aggregate remembers {id} at {offset}, which is another's"));
                }
                let answer = self.replay(offset, fingerprint)?;
                self.say(ticket, Told::Answer(Ok(answer)));
            }
            Effect::Inquired(ticket, known) => {
                let id = self.requests[self.tickets[&ticket]].id;
                let partition = self.home;
                let stored = (self.nodes[node].store.ids.iter()).filter(|((_, stored), _)| *stored == id).map(
                    |((resource, _), found)| (resource.clone(), Some(Position { partition, offset: found.offset })),
                );
                let own = known.into_iter().map(|known| (known.resource, known.commit.map(|(position, _)| position)));
                let known = own.chain(stored).collect();
                self.say(ticket, Told::Known(known));
            }
            Effect::Effective(effective) => {
                self.referee.judge_effective(&effective)?;
                let there = &mut self.nodes[node];
                there.to_save.push_back(effective);
                if !there.save_due {
                    there.save_due = true;
                    let delay = self.dice.between(50, 6_000);
                    self.to_node(node, delay, ToNode::Save);
                }
                if self.plan.mistake == Some(Mistake::SaysSavedTooEarly) {
                    let next = self.log.end();
                    self.feed(node, Input::Saved(next))?;
                }
            }
            Effect::ReadBack(from) => {
                self.count("read back");
                self.nodes[node].read_from = Some(from);
                let delay = self.dice.between(10, 300);
                self.to_node(node, delay, ToNode::LogGrew);
            }
            Effect::SteppedDown(stepped_down) => {
                self.tell(|| format!("node {node} steps down: {:?}", stepped_down.why));
                self.stand_by(node);
                match stepped_down.why {
                    StepDown::Fenced => self.count("fenced"),
                    StepDown::Unknown => self.count("stepped down unknown"),
                    StepDown::Full => self.count("stepped down full"),
                    StepDown::Stopped => {
                        self.count("stepped down stopped");
                        // A process whose log has stopped is started anew.
                        self.crash(node);
                    }
                    StepDown::Damaged(what) => return Err(format!("node {node} calls the log damaged: {what}")),
                }
                for (ticket, envelope) in stepped_down.unresolved {
                    self.count("given back");
                    let (delay, to) = (self.dice.between(100, 8_000), self.hint);
                    self.after(delay, Event::AtNode(to, None, ToNode::Submit(ticket, envelope)));
                }
            }
            Effect::Released => {
                self.count("released");
                self.tell(|| format!("node {node} released the partition"));
                self.stand_by(node);
            }
        }
        Ok(())
    }

    fn stand_by(&mut self, node: usize) {
        let there = &mut self.nodes[node];
        there.phase = Phase::Standby;
        there.read_from = None;
        if self.plan.mistake != Some(Mistake::SavesAcrossTerms) {
            there.to_save.clear();
        }
    }

    fn look(&mut self, node: usize, load: &crate::shard::Load) -> crate::shard::Loaded<Account> {
        let there = &self.nodes[node];
        let mut loaded = if self.dice.chance(300) {
            self.nodes[node].store.look(load, there.to_save.iter())
        } else {
            there.store.look(load, [].iter())
        };
        if self.plan.mistake == Some(Mistake::ForgetsIds) {
            loaded.remembered = None;
        }
        // Ids that the aggregate remembers need not be remembered here.
        if let Some(remembered) = loaded.remembered
            && self.dice.chance(500)
            && let Some(opened) = self.referee.by_version.get(&(load.resource.clone(), Version(1)))
            && *opened == remembered.offset
        {
            loaded.remembered = None;
        }
        loaded
    }

    fn replay(&mut self, offset: Offset, fingerprint: crate::message::Fingerprint) -> Result<Answer<Account>, String> {
        let commit = self.referee.commits.get(&offset);
        let commit = commit.ok_or_else(|| format!("nothing effective is at {offset} to be replayed"))?;
        if commit.fingerprint != fingerprint {
            return Ok(Answer::Reused);
        }
        Ok(Answer::Decided(Decided {
            outcome: commit.outcome.clone(),
            position: Position { partition: self.home, offset },
            recorded_at: commit.recorded_at,
            version: commit.resource_version,
            state: None,
            replayed: true,
        }))
    }

    fn save(&mut self, node: usize) -> Result<(), String> {
        let count = self.dice.between(1, 4);
        let there = &mut self.nodes[node];
        there.save_due = false;
        for _ in 0..count {
            let Some(effective) = there.to_save.pop_front() else { break };
            there.store.save(&effective);
        }
        let saved = there.store.checkpoint.next_offset;
        if !there.to_save.is_empty() {
            there.save_due = true;
            let delay = self.dice.between(50, 6_000);
            self.to_node(node, delay, ToNode::Save);
        }
        self.feed(node, Input::Saved(saved))
    }

    fn tick(&mut self, node: usize) -> Result<(), String> {
        let delay = self.dice.between(500, 6_000);
        self.to_node(node, delay, ToNode::Tick);
        if let Phase::Claiming { until, .. } = self.nodes[node].phase
            && self.now > until
        {
            self.nodes[node].phase = Phase::Standby;
        }
        let duels = self.faults.duel && self.dice.chance(60);
        if self.nodes[node].phase == Phase::Standby && (self.hint == node || duels) {
            self.claim(node)?;
        }
        Ok(())
    }

    fn claim(&mut self, node: usize) -> Result<(), String> {
        self.count("claimed");
        self.fold_store(node, |_| false);
        let nonce = Nonce(self.dice.any());
        let claim = Claim { node: "node".into(), address: "here".into(), claimed_at: self.clock() };
        let there = &mut self.nodes[node];
        let (tag, bytes) = there.shard.claim(&there.store.checkpoint, nonce, claim);
        let epoch = Header::decode(&bytes).expect("a claim").epoch;
        self.tell(|| format!("node {node} claims epoch {epoch}"));
        self.nodes[node].phase = Phase::Claiming { epoch, nonce, until: self.now + CLAIM_TIMEOUT_US };
        self.append(node, tag, bytes);
        Ok(())
    }

    /// Folds the log into the node's state store until `enough`, or to the end.
    fn fold_store(&mut self, node: usize, enough: impl Fn(&super::store::Store) -> bool) {
        let store = &mut self.nodes[node].store;
        while !enough(store) && store.checkpoint.next_offset < self.log.end() {
            store.fold(self.log.at(store.checkpoint.next_offset));
        }
    }

    fn await_claim(&mut self, node: usize) -> Result<(), String> {
        let Phase::Claiming { epoch, nonce, .. } = self.nodes[node].phase else { return Ok(()) };
        if self.plan.mistake == Some(Mistake::ServesBeforeItsClaim) {
            return self.serve_at_once(node, epoch, nonce);
        }
        self.fold_store(node, |store| store.checkpoint.epoch >= epoch);
        let there = &mut self.nodes[node];
        let checkpoint = there.store.checkpoint;
        if checkpoint.epoch < epoch {
            return Ok(());
        }
        if checkpoint.nonce == nonce && checkpoint.open {
            let led = there.shard.lead(checkpoint, there.store.last_recorded_at);
            assert!(led, "the fold says so");
            there.phase = Phase::Leading;
            self.count("led");
            self.tell(|| format!("node {node} leads epoch {epoch}"));
            // What the state store had from before this term says nothing of it.
            let saved = checkpoint.next_offset;
            return self.feed(node, Input::Saved(saved));
        }
        there.phase = Phase::Standby;
        self.count("claim lost");
        Ok(())
    }

    fn serve_at_once(&mut self, node: usize, epoch: crate::position::Epoch, nonce: Nonce) -> Result<(), String> {
        let header = Header { kind: Kind::Claim, epoch, nonce, seq: crate::position::Seq(0) };
        let at = (0..self.log.durable.len()).find(|&at| Header::decode(&self.log.durable[at]) == Ok(header));
        let Some(at) = at else { return Ok(()) };
        let there = &mut self.nodes[node];
        let mut checkpoint = there.store.checkpoint;
        checkpoint.next_offset = Offset(at as u64);
        if checkpoint.accept(&header) == Verdict::Effective
            && there.shard.lead(checkpoint, there.store.last_recorded_at)
        {
            there.phase = Phase::Leading;
        } else {
            there.phase = Phase::Standby;
        }
        Ok(())
    }

    fn assume_contiguous(&mut self, node: usize, deliveries: &mut [Delivery]) {
        let there = &mut self.nodes[node];
        for delivery in deliveries {
            if let Ok(offset) = &mut delivery.result {
                // The first of a term says where it starts.
                if delivery.tag & 0xFF_FFFF == 0 {
                    there.assumed = offset.unwrap_or(there.assumed).next();
                } else {
                    *offset = Some(there.assumed);
                    there.assumed = there.assumed.next();
                }
            }
        }
    }

    fn read_back(&mut self, node: usize) -> Result<(), String> {
        let Some(from) = self.nodes[node].read_from else { return Ok(()) };
        if self.log.end() > from {
            self.nodes[node].read_from = None;
            let count = self.dice.between(1, 5) as usize;
            let records = self.log.read(from, count);
            return self.feed(node, Input::ReadBack(records));
        }
        if self.dice.chance(200) {
            self.nodes[node].read_from = None;
            return self.feed(node, Input::ReadBack(Vec::new()));
        }
        Ok(())
    }

    fn say(&mut self, ticket: Ticket, told: Told) {
        if self.dice.chance(self.faults.answer_lost) {
            self.count("answer to client lost");
            return;
        }
        let delay = self.dice.between(20, 1_000);
        self.after(delay, Event::Told(ticket, told));
    }

    // Clients.

    fn next_request(&mut self, client: usize) {
        if self.left[client] == 0 {
            return;
        }
        self.left[client] -= 1;
        let mut request = clients::draw(&mut self.dice, client, &self.accounts, &self.requests);
        if let Some(account) = self.accounts.get(self.opened) {
            // The accounts first, so that most of what is asked can happen.
            request = clients::opening(&mut self.dice, client, account);
            self.opened += 1;
        }
        if request.ask == Ask::Command {
            let asked = (request.command.clone(), request.precondition.clone());
            self.referee.ask(request.id, request.fingerprint, asked);
        }
        self.requests.push(request);
        let index = self.requests.len() - 1;
        self.send(index);
        if self.dice.chance(80) {
            // Impatient: at once again, perhaps to another node.
            self.send(index);
        }
    }

    fn send(&mut self, index: usize) {
        let ticket = Ticket(self.tickets.len() as u64);
        self.tickets.insert(ticket, index);
        let (answered_to, known) = (self.answered_to, self.answered.contains(&self.requests[index].id));
        let request = &mut self.requests[index];
        if !request.sent {
            request.sent = true;
            request.floor = answered_to;
            request.known = known;
        }
        request.ticket = ticket;
        let (envelope, ask) = (request.envelope(), request.ask.clone());
        let node = if self.dice.chance(700) { self.hint } else { self.dice.below(self.nodes.len() as u64) as usize };
        self.tell(|| format!("client sends {ticket:?} to node {node}: {ask:?} {} {:?}", envelope.id, envelope.command));
        let lost = self.dice.chance(self.faults.message_lost);
        if lost {
            self.count("message lost");
        } else {
            let delay = self.dice.between(20, 800);
            let input = match ask {
                Ask::Inquiry => ToNode::Inquire(ticket, envelope.id),
                Ask::Command | Ask::Question => ToNode::Submit(ticket, envelope),
            };
            self.after(delay, Event::AtNode(node, None, input));
        }
        let patience = self.dice.between(15_000, 40_000);
        self.after(patience, Event::Try(index, ticket));
    }

    fn told(&mut self, ticket: Ticket, told: Told) -> Result<(), String> {
        self.note(ticket.0);
        self.tell(|| format!("{ticket:?} is told {told:?}"));
        let index = self.tickets[&ticket];
        let request = &self.requests[index];
        let (key, fingerprint, floor, known) = (request.key(), request.fingerprint, request.floor, request.known);
        let told_before = request.done;
        match told {
            Told::Answer(Ok(answer)) => {
                self.referee.judge_answer(&key, fingerprint, &answer, known)?;
                if let Answer::Decided(decided) = &answer {
                    let offset = decided.position.offset;
                    if !known && floor.is_some_and(|floor| offset <= floor) && !decided.replayed {
                        return Err(format!("{} was asked after {floor:?} was answered, and lies at {offset}", key.1));
                    }
                    self.answered_to = self.answered_to.max(Some(offset));
                    self.answered.insert(key.1);
                }
                if !told_before {
                    self.count_answer(&answer);
                    self.done(index);
                }
            }
            Told::Answer(Err(no_answer)) => {
                self.count(match no_answer {
                    NoAnswer::NotOwner => "not owner",
                    NoAnswer::Draining => "draining",
                    NoAnswer::LogFull => "log full",
                    NoAnswer::LogStopped => "log stopped",
                    _ => "other without answer",
                });
                if !told_before {
                    let delay = self.dice.between(500, 4_000);
                    self.after(delay, Event::Try(index, ticket));
                }
            }
            Told::Known(found) => {
                let position = self.referee.store.ids.get(&key).map(|remembered| remembered.offset);
                let told = found.iter().filter(|(resource, _)| *resource == key.0).collect::<Vec<_>>();
                let told_position = told.iter().find_map(|(_, position)| *position).map(|position| position.offset);
                if known && told_position.is_none() || told_position.is_some() && told_position != position {
                    return Err(format!("{} is at {position:?} and was said to be at {told_position:?}", key.1));
                }
                if !told_before {
                    self.count("inquiry answered");
                    self.done(index);
                }
            }
        }
        Ok(())
    }

    fn count_answer(&mut self, answer: &Answer<Account>) {
        match answer {
            Answer::Decided(decided) => {
                self.count(if decided.outcome.is_accepted() { "accepted" } else { "refused" });
                if decided.replayed {
                    self.count("replayed");
                }
            }
            Answer::Invalid(_) => self.count("invalid"),
            Answer::Reused => self.count("reused"),
            Answer::Unheard => self.count("unheard"),
            Answer::Expired => self.count("expired"),
        }
    }

    fn done(&mut self, index: usize) {
        self.requests[index].done = true;
        let delay = self.dice.between(10, 3_000);
        let client = self.requests[index].client;
        self.after(delay, Event::Next(client));
    }

    fn judge_end(&mut self) -> Result<(), String> {
        self.referee.judge_end()?;
        let (ignored, records) = (self.referee.ignored, self.log.durable.len() as u64);
        *self.counts.entry("record ignored").or_default() += ignored;
        *self.counts.entry("record").or_default() += records;
        // Every state store ends as the fold of the log, whatever it has been through.
        for node in 0..self.nodes.len() {
            for effective in std::mem::take(&mut self.nodes[node].to_save) {
                self.nodes[node].store.save(&effective);
            }
            self.fold_store(node, |_| false);
            let store = &self.nodes[node].store;
            if store.streams != self.referee.store.streams || store.ids != self.referee.store.ids {
                return Err(format!("the state store of node {node} is not the fold of the log"));
            }
        }
        Ok(())
    }
}
