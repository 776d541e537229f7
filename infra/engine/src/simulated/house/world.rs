//! The event loop: virtual time, what is on its way, and what goes wrong when.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use uuid::Uuid;

use super::business::{Clearing, Heard, Thing, Wish};
use super::clients::{self, Request, Street};
use super::gateway::{Charge, Gateway};
use super::mischief::Faults;
use super::node::{Commit, Errand, Node, ToNode};
use super::projecting::Batch;
use super::read_store::ReadStore;
use super::referee::Referee;
use super::saga::{Call, Verb};
use crate::log::AppendError;
use crate::message::{Answer, NoAnswer};
use crate::position::LogId;
use crate::record::{Genesis, Record};
use crate::saga::Heard as Came;
use crate::shard::{Limits, Ticket};
use crate::simulated::dice::Dice;
use crate::simulated::log::SimulatedLog;
use crate::stream::StreamName;
use crate::time::Timestamp;
use crate::view::{Row, RowKey};

/// Requests of a run, shared out among its clients.
const REQUESTS: usize = 48;
const CLIENTS: [usize; 3] = [3, 6, 12];
/// Everything goes wrong until then; then nothing does.
const CHAOS_US: u64 = 250_000;
/// By then everybody must have been answered and nothing may be owed any more.
const END_US: u64 = CHAOS_US + 4_000_000;
/// A claim that has not come back by then is made again.
pub(super) const CLAIM_TIMEOUT_US: u64 = 30_000;
/// When a run begins, by the clocks.
const BEGINNING_US: i64 = 1_700_000_000_000_000;

pub(super) use super::mistakes::Mistake;
pub(super) use super::report::{Check, Found, Plan, Report, Violation};

pub(super) enum Event {
    /// A copy of a write reaches the log of a partition.
    Land(usize, usize),
    /// What has landed there becomes durable.
    Sync(usize),
    /// The outcome of a write is known otherwise.
    Resolve(usize, usize, AppendError),
    /// Something reaches a node; of this incarnation, if it matters.
    AtNode(usize, Option<u64>, Box<ToNode>),
    /// A call reaches the gateway.
    Call(usize, u64, Box<(Errand, Call)>, bool),
    /// A feeder's question and its commit reach the read store.
    StoreRead(usize, u64, usize, u64, Option<Vec<RowKey>>),
    StoreCommit(Box<Commit>),
    /// Rows that are written apart from their checkpoint (planted).
    StoreRows(usize, u64, Box<Batch>),
    /// A client's read reaches the read store.
    StoreLook(usize, u64, Box<super::node::Looking>),
    /// A client asks the next thing.
    Next(usize),
    /// A request is tried, if it was last tried under this ticket.
    Try(usize, Ticket),
    /// An answer reaches its client.
    Told(Ticket, Box<Told>),
    Mischief,
    Resume(usize, u64),
    Restart(usize),
    HasRoom(usize),
    Heal,
}

impl Event {
    /// Something reaches a node; of this incarnation, if it matters. Boxed: the queue moves what lies in it.
    pub(super) fn at_node(node: usize, incarnation: Option<u64>, input: ToNode) -> Self {
        Self::AtNode(node, incarnation, Box::new(input))
    }
}

/// What a client is told.
#[derive(Debug)]
pub(super) enum Told {
    /// By a node, as it was then.
    Answer((usize, u64), Result<Answer<Thing>, NoAnswer>),
    /// The row, as it is shown.
    Row(Option<Row>),
    /// Its stream is set aside.
    Parked,
}

/// Who submitted what goes under a ticket.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asker {
    Client(usize),
    Node(usize, u64),
}

pub(super) struct World {
    pub(super) now: u64,
    arrivals: u64,
    queue: BTreeMap<(u64, u64), Event>,
    pub(super) dice: Dice,
    pub(super) plan: Plan,
    pub(super) clearing: Clearing,
    pub(super) faults: Faults,
    pub(super) healed: bool,
    pub(super) logs: Vec<SimulatedLog>,
    pub(super) nodes: Vec<Node>,
    /// Which node should own each partition. A hint: nothing rests on it.
    pub(super) hints: Vec<usize>,
    /// Which node should feed the read store from each partition. A hint too.
    pub(super) leases: Vec<usize>,
    /// The clocks are wrong by so much, all of them.
    pub(super) clock_jump_us: i64,
    pub(super) referee: Referee,
    pub(super) gateway: Gateway,
    pub(super) read_store: ReadStore,
    pub(super) street: Street,
    pub(super) requests: Vec<Request>,
    /// Requests that have no answer.
    pub(super) unanswered: usize,
    pub(super) left: Vec<usize>,
    pub(super) tickets: Vec<(Asker, crate::message::CommandId)>,
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
/// If an assertion of what is simulated fails.
pub fn simulate(seed: u64, plan: Plan) -> Result<Report, Violation> {
    let mut world = World::new(seed, plan);
    let done = world.run();
    let trace = std::mem::take(&mut world.trace);
    done.map_err(|Found { by, what }| Violation { seed, at_us: world.now, by, what, trace: trace.clone() })?;
    let requests = world.requests.len() as u64;
    Ok(Report { trace_hash: world.hash, requests, counts: world.counts, trace })
}

impl World {
    fn new(seed: u64, plan: Plan) -> Self {
        let mut dice = Dice::new(seed);
        let partitions = dice.between(2, 3) as usize;
        let clearing = Clearing {
            forgets_undo: plan.mistake == Some(Mistake::ForgetsUndo),
            skips_undo_on_timeout: plan.mistake == Some(Mistake::SkipsUndoOnTimeout),
            pays_under_one_id: plan.mistake == Some(Mistake::PaysUnderOneId),
            holds_back_what_was_begun: plan.mistake == Some(Mistake::HoldsBackWhatWasBegun),
        };
        let faults = Faults::drawn(&mut dice, partitions);
        let nodes = (0..dice.between(2, 3))
            .map(|_| {
                let limits = Limits {
                    in_flight_max: [1, 3, 64][dice.below(3) as usize],
                    loading_max: [1, 4, 64][dice.below(3) as usize],
                    unsaved_max: [6, 64][dice.below(2) as usize],
                };
                let mut node = Node::new(clearing, partitions, limits);
                node.skew_us = dice.below(4_000) as i64;
                node
            })
            .collect::<Vec<_>>();
        let mut any_node = || dice.below(nodes.len() as u64) as usize;
        let hints = (0..partitions).map(|_| any_node()).collect();
        let leases = (0..partitions).map(|_| any_node()).collect();
        let clients = CLIENTS[dice.below(3) as usize];
        let gateway = Gateway { forgets_bars: plan.mistake == Some(Mistake::GatewayForgetsBars), ..Gateway::default() };
        Self {
            now: 0,
            arrivals: 0,
            queue: BTreeMap::new(),
            plan,
            clearing,
            faults,
            healed: false,
            logs: (0..partitions).map(|_| SimulatedLog::default()).collect(),
            nodes,
            hints,
            leases,
            clock_jump_us: 0,
            referee: Referee::new(clearing, partitions),
            gateway,
            read_store: ReadStore::new(partitions),
            street: Street::new(partitions, clients),
            requests: Vec::new(),
            unanswered: 0,
            left: vec![REQUESTS / clients; clients],
            tickets: Vec::new(),
            hash: seed,
            counts: BTreeMap::new(),
            trace: Vec::new(),
            dice,
        }
    }

    fn run(&mut self) -> Result<(), Found> {
        self.begin()?;
        let mut looked_at = 0;
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now = at;
            if self.now > END_US {
                break;
            }
            self.happen(event)?;
            // Not after each thing that happens: it takes a while to look everywhere.
            if self.healed && self.unanswered == 0 && self.now >= looked_at + 2_000 {
                looked_at = self.now;
                if self.left.iter().all(|left| *left == 0) && self.unsettled().is_none() {
                    return self.judge_end();
                }
            }
        }
        let open = self.requests.iter().find(|request| !request.done).map(|request| format!("{request:?}"));
        let why = open.or_else(|| self.unsettled()).unwrap_or_default();
        Err(Found::new(Check::Settling, format!("nothing goes wrong any more, and still: {why}")))
    }

    fn begin(&mut self) -> Result<(), Found> {
        let log = LogId(Uuid::from_u64_pair(self.dice.any(), self.dice.any()));
        for partition in 0..self.logs.len() {
            let genesis = Record::genesis(Genesis {
                log,
                partitions: self.logs.len() as u16,
                placement_rule: 1,
                format: 1,
                fingerprint_key: [0; 32],
                created_at: Timestamp(0),
            });
            self.become_durable(partition, genesis.encode())?;
        }
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

    /// The clock that a node sees: skewed, and now and then it jumps.
    pub(super) fn clock(&mut self, node: usize) -> Timestamp {
        let seen = self.beginning_and_now() + self.clock_jump_us + self.nodes[node].skew_us;
        self.referee.clock_max = self.referee.clock_max.max(seen);
        Timestamp(seen)
    }

    /// The right time.
    pub(super) fn beginning_and_now(&self) -> i64 {
        BEGINNING_US + self.now as i64
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(super) fn tell(&mut self, line: impl FnOnce() -> String) {
        if self.plan.tell {
            let mut told = String::new();
            let _ = write!(told, "{:>7} {}", self.now, line());
            self.trace.push(told);
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
        self.after(delay_us, Event::at_node(node, Some(incarnation), input));
    }

    pub(super) fn is_there(&self, node: usize, incarnation: u64) -> bool {
        self.nodes[node].up && self.nodes[node].incarnation == incarnation
    }

    fn happen(&mut self, event: Event) -> Result<(), Found> {
        self.note(self.now ^ self.dice.clone().any());
        match event {
            Event::Land(partition, write) => self.land(partition, write),
            Event::Sync(partition) => return self.sync(partition),
            Event::Resolve(partition, write, error) => self.resolve(partition, write, Err(error)),
            Event::AtNode(node, incarnation, input) => {
                let there = &mut self.nodes[node];
                if !there.up || incarnation.is_some_and(|incarnation| incarnation != there.incarnation) {
                    return Ok(());
                }
                if there.paused {
                    there.inbox.push_back(*input);
                    return Ok(());
                }
                return self.at_node(node, *input);
            }
            Event::Call(node, incarnation, called, answered) => {
                let (errand, call) = *called;
                return self.at_gateway(node, incarnation, errand, &call, answered);
            }
            Event::StoreRead(node, incarnation, partition, attempt, keys) => {
                self.store_read(node, incarnation, partition, attempt, keys);
            }
            Event::StoreCommit(commit) => return self.store_commit(*commit),
            Event::StoreRows(node, incarnation, batch) => {
                if self.is_there(node, incarnation) {
                    self.read_store.write_rows(&batch);
                }
            }
            Event::StoreLook(node, incarnation, looking) => self.store_look(node, incarnation, *looking),
            Event::Next(client) => self.next_request(client),
            Event::Try(request, ticket) => {
                if !self.requests[request].done && self.requests[request].ticket == ticket {
                    self.count("tried again");
                    self.send(request);
                }
            }
            Event::Told(ticket, told) => return self.told(ticket, *told),
            Event::Mischief => return self.mischief(),
            Event::Resume(node, incarnation) => {
                if self.nodes[node].incarnation == incarnation {
                    return self.resume(node);
                }
            }
            Event::Restart(node) => self.restart(node),
            Event::HasRoom(partition) => self.logs[partition].full = false,
            Event::Heal => return self.heal(),
        }
        Ok(())
    }

    /// A call reaches the gateway, and its answer goes back, if it does.
    fn at_gateway(
        &mut self,
        node: usize,
        incarnation: u64,
        errand: Errand,
        call: &Call,
        answered: bool,
    ) -> Result<(), Found> {
        self.referee.judge_call(call)?;
        let heard: Heard = self.gateway.call(call);
        self.count("gateway called");
        let charge = self.gateway.books.get(&call.key).map(|entry| entry.charge);
        match (call.verb, heard, charge) {
            (_, Heard::Later, _) => self.count("call put off"),
            (Verb::Void, _, Some(Charge::PaidBack)) => self.count("paid back"),
            (Verb::Authorize, Heard::No, Some(Charge::Barred)) => self.count("barred before it came"),
            (_, Heard::No, _) => self.count("call declined"),
            _ => {}
        }
        self.note(u64::from(heard == Heard::Yes));
        self.tell(|| {
            format!("the gateway is asked to {:?} for {} under {}: {heard:?}", call.verb, call.transfer, call.key)
        });
        if answered {
            let back = self.dice.between(20, 600);
            let returned = ToNode::Returned(errand, Came::Returned(heard));
            self.after(back, Event::at_node(node, Some(incarnation), returned));
        }
        Ok(())
    }

    /// What is not as it must be in the end.
    fn unsettled(&self) -> Option<String> {
        self.referee.owed().or_else(|| self.store_lags())
    }

    pub(super) fn partition_of(&self, stream: &StreamName) -> usize {
        clients::partition_of(stream, self.logs.len())
    }

    /// A new ticket for who asks.
    pub(super) fn ticket(&mut self, asker: Asker, id: crate::message::CommandId) -> Ticket {
        self.tickets.push((asker, id));
        Ticket(self.tickets.len() as u64 - 1)
    }

    /// The command, so that the referee can tell what was asked from what nobody asked for.
    pub(super) fn asked(&mut self, id: crate::message::CommandId, wish: &Wish) {
        self.referee.ask(id, wish.fingerprint(), wish.clone());
    }
}
