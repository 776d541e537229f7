//! A process: for each partition a desk with the real shard, a state store, what its streams owe, its timers and the feeder
//! of the read store; and one cache of rows with its tail.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::business::{Clearing, Heard, Thing, Wish};
use super::projecting::{Batch, Worker};
use super::read_store::Snapshot;
use super::saga::Call;
use crate::cache::{Entry, Gate, Shelf, Tail, Ticket as CacheTicket};
use crate::log::Delivery;
use crate::message::{Answer, CommandId, Envelope, NoAnswer};
use crate::position::{Checkpoint, Epoch, Nonce, Offset, Partition, Version};
use crate::saga::{Heard as Came, Pending, Timer};
use crate::shard::{Effective, Limits, Load, Loaded, Shard, Ticket};
use crate::simulated::store::Store;
use crate::stream::StreamName;
use crate::view::RowKey;

/// Where a desk stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Standby,
    /// Waits for its claim until then.
    Claiming {
        epoch: Epoch,
        nonce: Nonce,
        until: u64,
    },
    Leading,
}

/// What reaches a node. The number is the partition's.
#[derive(Debug)]
pub(super) enum ToNode {
    Submit(usize, Ticket, Envelope<Wish>),
    /// A load that was read when it was asked for.
    Loaded(usize, Ticket, Result<Loaded<Thing>, NoAnswer>),
    /// A load that is read now.
    LoadNow(usize, Ticket, Load),
    Delivered(usize, Vec<Delivery>),
    /// The log has more than it had.
    LogGrew(usize),
    /// The state store takes over what is effective.
    Save(usize),
    /// Time to look at what nobody tells of: hints, leases, timers.
    Tick,
    Drain(usize),
    /// Whether too much goes on there to begin more.
    Crowded(usize, bool),
    /// An errand is to be tried.
    Errand(Errand),
    /// The gateway has answered, or not in time.
    Returned(Errand, Came<Heard>),
    /// An answer to something that this node submitted itself.
    Own(Ticket, Result<Answer<Thing>, NoAnswer>),
    /// What was submitted had no answer for long.
    GiveUp(Ticket),
    /// What was heard is to be recorded again.
    Record(Errand, Came<Heard>, u32),
    /// A timer is to be fired again.
    Fire(usize, StreamName, Timer, u32),
    /// The feeder goes on.
    Work(usize),
    /// The read store has answered the feeder, which asked for the n-th time.
    Read(usize, u64, Snapshot),
    /// What became of a commit; nothing if nobody knows.
    Committed(usize, u64, Option<bool>),
    /// The tail of the log goes on.
    Tail(usize),
    /// A client wants to see a row that is not older than this.
    Look(Ticket, StreamName, Option<Offset>),
    /// The read store has answered for a client's read.
    Found(Looking, Snapshot),
}

/// Names an errand.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Errand {
    pub(super) partition: usize,
    pub(super) stream: StreamName,
    pub(super) id: CommandId,
}

/// A client's read that waits for the read store.
#[derive(Debug)]
pub(super) struct Looking {
    pub(super) ticket: Ticket,
    pub(super) stream: StreamName,
    pub(super) floor: Option<Offset>,
    pub(super) load: CacheTicket,
}

/// Why a node submitted something.
#[derive(Clone, Debug)]
pub(super) enum Waiting {
    Ask(Errand),
    Record(Errand, Came<Heard>, u32),
    Fire(usize, StreamName, Timer, u32, Version),
}

/// A stream that owes something.
pub(super) struct Open {
    pub(super) state: Arc<Thing>,
    pub(super) pending: Vec<Pending<Wish, Call>>,
}

/// What a node has of one partition.
pub(super) struct Desk {
    pub(super) shard: Shard<Clearing>,
    pub(super) store: Store<Clearing>,
    pub(super) phase: Phase,
    /// Commands that wait until the shard can take them.
    pub(super) held: VecDeque<ToNode>,
    pub(super) to_save: VecDeque<Arc<Effective<Clearing>>>,
    pub(super) save_due: bool,
    pub(super) crowded: bool,
    /// Reading the log back from here.
    pub(super) read_from: Option<Offset>,
    /// Appends without a report, in order.
    pub(super) awaiting: VecDeque<usize>,
    pub(super) last_landing: u64,
    pub(super) last_report: u64,
    /// What it would expect next if every report were contiguous (planted).
    pub(super) assumed: Offset,
    /// The furthest that this process has acknowledged.
    pub(super) acknowledged: Option<Offset>,
    pub(super) open: BTreeMap<StreamName, Open>,
    /// Errands in line or under way, with their tries so far.
    pub(super) tries: BTreeMap<CommandId, u32>,
    pub(super) firing: BTreeSet<StreamName>,
    /// No timer is due before.
    pub(super) next_due: i64,
    pub(super) worker: Worker,
    pub(super) tail: Checkpoint,
}

pub(super) struct Node {
    pub(super) up: bool,
    pub(super) paused: bool,
    /// Its log writer has stopped for good, until it starts anew.
    pub(super) stopped: bool,
    /// Counts starts: what was on its way to an earlier one is dropped.
    pub(super) incarnation: u64,
    pub(super) limits: Limits,
    /// Its clock is wrong by so much.
    pub(super) skew_us: i64,
    pub(super) desks: Vec<Desk>,
    /// What came while it was paused.
    pub(super) inbox: VecDeque<ToNode>,
    pub(super) own: BTreeMap<Ticket, Waiting>,
    pub(super) gate: Gate,
    pub(super) shelf: SmallShelf,
}

/// A shelf that loses things.
#[derive(Debug, Default)]
pub(super) struct SmallShelf(pub(super) BTreeMap<RowKey, Entry>);

impl Shelf for SmallShelf {
    fn get(&self, key: &RowKey) -> Option<Entry> {
        self.0.get(key).cloned()
    }

    fn put(&mut self, key: &RowKey, entry: Entry) {
        self.0.insert(key.clone(), entry);
    }

    fn remove(&mut self, key: &RowKey) {
        self.0.remove(key);
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// Rows that a node's cache remembers as touched: few, so that it forgets some.
const TOUCHED_MAX: usize = 12;

impl Desk {
    fn new(clearing: Clearing, partition: usize, partitions: usize, limits: Limits, store: Store<Clearing>) -> Self {
        let shard = Shard::new(Arc::new(clearing), Partition(partition as u16), partitions as u16, limits);
        Self {
            shard,
            store,
            phase: Phase::Standby,
            held: VecDeque::new(),
            to_save: VecDeque::new(),
            save_due: false,
            crowded: false,
            read_from: None,
            awaiting: VecDeque::new(),
            last_landing: 0,
            last_report: 0,
            assumed: Offset(0),
            acknowledged: None,
            open: BTreeMap::new(),
            tries: BTreeMap::new(),
            firing: BTreeSet::new(),
            next_due: i64::MAX,
            worker: Worker::default(),
            tail: Checkpoint::default(),
        }
    }

    /// A stream as this desk knows it now.
    pub(super) fn current(&self, stream: &StreamName) -> Option<(Version, Arc<Thing>)> {
        let newer = self.to_save.iter().rev().flat_map(|effective| effective.changed.iter());
        let newest = newer.filter(|changed| changed.name == *stream).map(|c| (c.version, c.state.clone())).next();
        newest.or_else(|| self.store.streams.get(stream).cloned())
    }
}

impl Node {
    pub(super) fn new(clearing: Clearing, partitions: usize, limits: Limits) -> Self {
        let desk = |partition| Desk::new(clearing, partition, partitions, limits, Store::new(clearing));
        let (mut gate, mut shelf) = (Gate::new(partitions as u16, Tail::Ahead(TOUCHED_MAX)), SmallShelf::default());
        for partition in (0..partitions as u16).map(Partition) {
            gate.begins(partition, Offset(0), &mut shelf);
        }
        Self {
            up: true,
            paused: false,
            stopped: false,
            incarnation: 0,
            limits,
            skew_us: 0,
            desks: (0..partitions).map(desk).collect(),
            inbox: VecDeque::new(),
            own: BTreeMap::new(),
            gate,
            shelf,
        }
    }

    /// Everything but the state store goes.
    pub(super) fn crash(&mut self, clearing: Clearing) {
        let partitions = self.desks.len();
        let stores = self.desks.iter_mut().map(|desk| std::mem::replace(&mut desk.store, Store::new(clearing)));
        let stores = stores.collect::<Vec<_>>();
        let (incarnation, limits, skew_us) = (self.incarnation + 1, self.limits, self.skew_us);
        *self = Self { up: false, incarnation, skew_us, ..Self::new(clearing, partitions, limits) };
        for (partition, (desk, store)) in (0..).map(Partition).zip(self.desks.iter_mut().zip(stores)) {
            // The tail begins where the state store is; nobody tells of what was before.
            desk.tail = store.checkpoint;
            self.gate.begins(partition, store.checkpoint.next_offset, &mut self.shelf);
            desk.store = store;
        }
    }
}

/// A batch on its way to the read store.
pub(super) struct Commit {
    pub(super) node: usize,
    pub(super) incarnation: u64,
    pub(super) attempt: u64,
    pub(super) batch: Batch,
}
