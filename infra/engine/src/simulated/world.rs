//! The event loop: virtual time, what is on its way, and what goes wrong when.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::bank::{Account, account};
use super::clients::{self, Ask, Request};
use super::dice::Dice;
use super::log::SimulatedLog;
use super::mischief::Faults;
use super::node::{Node, ToNode};
use super::referee::Referee;
use crate::log::AppendError;
use crate::message::{Answer, CommandId, NoAnswer};
use crate::position::{LogId, Offset, Partition, Position};
use crate::record::{Genesis, Record};
use crate::shard::{Limits, Ticket};
use crate::stream::{StreamName, Tenant, partition_of};
use crate::time::Timestamp;

pub(super) const PARTITIONS: u16 = 4;
const ACCOUNTS: u64 = 4;
/// Requests of a run, shared out among its clients: few clients ask long, many at once.
const REQUESTS: usize = 40;
const CLIENTS: [usize; 4] = [2, 4, 10, 20];
/// Everything goes wrong until then; then nothing does. Longer than the slowest client needs in a calm seed.
const CHAOS_US: u64 = 400_000;
/// By then everybody must have been answered.
const END_US: u64 = CHAOS_US + 3_000_000;
/// A claim that has not come back by then is made again.
pub(super) const CLAIM_TIMEOUT_US: u64 = 30_000;

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
pub(super) enum Event {
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
pub(super) enum Told {
    Answer(Result<Answer<Account>, NoAnswer>),
    /// Resources and positions under an id.
    Known(Vec<(StreamName, Option<Position>)>),
}

pub(super) struct World {
    pub(super) now: u64,
    pub(super) arrivals: u64,
    pub(super) queue: BTreeMap<(u64, u64), Event>,
    pub(super) dice: Dice,
    pub(super) plan: Plan,
    pub(super) faults: Faults,
    pub(super) healed: bool,
    pub(super) home: Partition,
    pub(super) accounts: Vec<StreamName>,
    pub(super) log: SimulatedLog,
    pub(super) nodes: Vec<Node>,
    /// Which node should own the partition. A hint: nothing rests on it.
    pub(super) hint: usize,
    pub(super) referee: Referee,
    pub(super) requests: Vec<Request>,
    /// Accounts that somebody was sent to open.
    pub(super) opened: usize,
    /// What each client has still to ask.
    pub(super) left: Vec<usize>,
    pub(super) tickets: BTreeMap<Ticket, usize>,
    /// The furthest offset that any client was answered from, and the ids that were.
    pub(super) answered_to: Option<Offset>,
    pub(super) answered: BTreeSet<CommandId>,
    pub(super) hash: u64,
    pub(super) counts: BTreeMap<&'static str, u64>,
    pub(super) trace: Vec<String>,
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
            self.reach(node, 0, ToNode::Tick);
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
    pub(super) fn clock(&mut self) -> Timestamp {
        let jump = if self.dice.chance(20) { self.dice.below(10_000_000) } else { 0 };
        Timestamp(1_700_000_000_000_000 + (self.now + 10_000_000 - jump) as i64)
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(super) fn tell(&mut self, line: impl FnOnce() -> String) {
        if self.plan.tell {
            self.trace.push(format!("{:>7} {}", self.now, line()));
        }
    }

    pub(super) fn note(&mut self, value: u64) {
        self.hash = (self.hash ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23);
    }

    pub(super) fn after(&mut self, delay_us: u64, event: Event) {
        self.arrivals += 1;
        self.queue.insert((self.now + delay_us, self.arrivals), event);
    }

    /// For the node as it is now: if it starts anew this is dropped.
    pub(super) fn reach(&mut self, node: usize, delay_us: u64, input: ToNode) {
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

    pub(super) fn next_request(&mut self, client: usize) {
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

    pub(super) fn send(&mut self, index: usize) {
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

    pub(super) fn told(&mut self, ticket: Ticket, told: Told) -> Result<(), String> {
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
