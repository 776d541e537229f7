//! The feeder of the read store, as the real one goes about it: read effective events, load the rows they touch, fold,
//! commit rows and checkpoint in one transaction. A stream whose event cannot be folded is parked by name; its later
//! events queue behind it, the others go on, and what is parked is tried again when the feeder starts.

use std::collections::BTreeMap;

use super::business::Happened;
use super::node::ToNode;
use super::read_store::Snapshot;
use super::view::Ledger;
use super::world::{Event, Mistake, World};
use crate::event::Recorded;
use crate::fold::Verdict;
use crate::position::{Checkpoint, Offset, Partition, Position, Version};
use crate::record::{Body, Record};
use crate::stream::StreamName;
use crate::view::{Row, RowKey, View};

/// Records of one batch.
const BATCH_RECORDS: u64 = 6;

/// A stream that is set aside.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Parked {
    pub(super) partition: usize,
    /// The fold before the record of the first event that is not folded.
    pub(super) before: Checkpoint,
    /// That event's.
    pub(super) version: Version,
}

/// What one commit changes.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) partition: usize,
    /// Which feeder it is of.
    pub(super) token: u64,
    pub(super) from: Option<Checkpoint>,
    pub(super) to: Checkpoint,
    pub(super) rows: Vec<(RowKey, Option<Row>)>,
    pub(super) parked: Vec<(StreamName, Option<Parked>)>,
}

/// An event out of the log.
#[derive(Clone, Debug)]
pub(super) struct Item {
    before: Checkpoint,
    pub(super) event: Recorded<Happened>,
}

/// What was read and waits for its rows.
#[derive(Clone, Debug)]
pub(super) struct Gathered {
    items: Vec<Item>,
    to: Checkpoint,
    /// A second try at what was parked: these only, from these versions on.
    retried: Option<BTreeMap<StreamName, Parked>>,
}

/// Where a feeder stands.
#[derive(Clone, Debug, Default)]
pub(super) enum Standing {
    #[default]
    Closed,
    Opening,
    Idle,
    Loading(Gathered),
    Committing(Batch),
    /// A commit whose fate is open was fenced: whether by itself, the checkpoint tells.
    Doubting(Batch),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Worker {
    pub(super) standing: Standing,
    pub(super) token: u64,
    pub(super) committed: Option<Checkpoint>,
    pub(super) parked: BTreeMap<StreamName, Parked>,
    /// What it has read or written since it opened.
    pub(super) rows: BTreeMap<RowKey, Option<Row>>,
    /// Whether a commit under way was tried before without an answer.
    pub(super) in_doubt: bool,
    pub(super) retry_due: bool,
    /// Numbers its questions: answers to earlier ones are dropped.
    pub(super) attempt: u64,
}

/// The events of an effective record.
pub(super) fn events_of(partition: usize, offset: Offset, record: Record) -> Vec<Recorded<Happened>> {
    let Body::Commit(commit) = record.body else { return Vec::new() };
    let position = Position { partition: Partition(partition as u16), offset };
    commit.events().map(|told| told.read(position).expect("the business reads what it wrote")).collect()
}

impl World {
    /// Whether the view of now cannot read it.
    pub(super) fn chokes(&self, event: &Recorded<Happened>) -> bool {
        self.faults.poison && event.event == Happened::Marked
    }

    pub(super) fn worker(&mut self, node: usize, partition: usize) -> &mut Worker {
        &mut self.nodes[node].desks[partition].worker
    }

    /// Opens or closes the feeder as the lease says.
    pub(super) fn look_at_lease(&mut self, node: usize, partition: usize) {
        let leased = self.leases[partition] == node;
        let closed = matches!(self.worker(node, partition).standing, Standing::Closed);
        if leased && closed {
            self.open_worker(node, partition, 0);
        } else if !leased && !closed && self.dice.chance(300) {
            let attempt = self.worker(node, partition).attempt + 1;
            *self.worker(node, partition) = Worker { attempt, ..Worker::default() };
        }
    }

    pub(super) fn open_worker(&mut self, node: usize, partition: usize, delay_us: u64) {
        let attempt = self.worker(node, partition).attempt;
        *self.worker(node, partition) = Worker { attempt, standing: Standing::Opening, ..Worker::default() };
        self.ask_store(node, partition, None, delay_us);
    }

    /// Asks for rows, or, without, to feed the partition from now on.
    pub(super) fn ask_store(&mut self, node: usize, partition: usize, keys: Option<Vec<RowKey>>, delay_us: u64) {
        self.worker(node, partition).attempt += 1;
        let (attempt, incarnation) = (self.worker(node, partition).attempt, self.nodes[node].incarnation);
        let there = delay_us + self.dice.between(10, 400);
        self.after(there, Event::StoreRead(node, incarnation, partition, attempt, keys));
    }

    /// The read store answers a feeder.
    pub(super) fn store_read(
        &mut self,
        node: usize,
        incarnation: u64,
        partition: usize,
        attempt: u64,
        keys: Option<Vec<RowKey>>,
    ) {
        if keys.is_none() {
            self.read_store.tokens[partition] += 1;
        }
        let snapshot = self.read_store.look(partition, &keys.unwrap_or_default());
        let back = self.dice.between(10, 400);
        self.after(back, Event::at_node(node, Some(incarnation), ToNode::Read(partition, attempt, snapshot)));
    }

    pub(super) fn read_came(&mut self, node: usize, partition: usize, attempt: u64, snapshot: Snapshot) {
        if self.worker(node, partition).attempt != attempt {
            return;
        }
        let standing = std::mem::take(&mut self.worker(node, partition).standing);
        match standing {
            Standing::Opening => {
                let worker = self.worker(node, partition);
                worker.retry_due = !snapshot.parked.is_empty();
                worker.token = snapshot.token;
                worker.committed = snapshot.checkpoint;
                worker.parked = snapshot.parked;
                worker.standing = Standing::Idle;
                self.work(node, partition);
            }
            Standing::Loading(gathered) => {
                self.worker(node, partition).rows.extend(snapshot.rows);
                self.fold(node, partition, gathered);
            }
            Standing::Doubting(batch) => {
                if snapshot.checkpoint == Some(batch.to) && batch.from != Some(batch.to) {
                    self.count("commit in doubt was done");
                    self.committed(node, partition, &batch);
                } else {
                    self.open_worker(node, partition, 0);
                }
            }
            other => self.worker(node, partition).standing = other,
        }
    }

    /// Reads on, if there is anything and nothing is under way.
    pub(super) fn work(&mut self, node: usize, partition: usize) {
        if !matches!(self.worker(node, partition).standing, Standing::Idle) {
            return;
        }
        let retry = std::mem::take(&mut self.worker(node, partition).retry_due);
        let gathered = if retry { self.gather_parked(node, partition) } else { self.gather(node, partition) };
        if gathered.to.next_offset == self.worker(node, partition).committed.unwrap_or_default().next_offset && !retry {
            return;
        }
        let worker = self.worker(node, partition);
        let mut missing = Vec::new();
        for item in &gathered.items {
            for key in Ledger.rows(&item.event) {
                if !worker.rows.contains_key(&key) && !missing.contains(&key) {
                    missing.push(key);
                }
            }
        }
        if missing.is_empty() {
            self.fold(node, partition, gathered);
        } else {
            self.worker(node, partition).standing = Standing::Loading(gathered);
            self.ask_store(node, partition, Some(missing), 0);
        }
    }

    fn gather(&mut self, node: usize, partition: usize) -> Gathered {
        let from = self.worker(node, partition).committed.unwrap_or_default();
        let count = self.dice.between(1, BATCH_RECORDS);
        let end = Offset((from.next_offset.0 + count).min(self.logs[partition].end().0));
        let (items, to) = self.read_items(partition, from, end);
        Gathered { items, to, retried: None }
    }

    fn gather_parked(&mut self, node: usize, partition: usize) -> Gathered {
        self.count("parked tried again");
        let worker = self.worker(node, partition);
        let retried = std::mem::take(&mut worker.parked);
        let to = worker.committed.unwrap_or_default();
        let from = retried.values().map(|parked| parked.before).min_by_key(|before| before.next_offset);
        let (mut items, _) = self.read_items(partition, from.unwrap_or(to), to.next_offset);
        items.retain(|item| {
            retried.get(&item.event.meta.stream).is_some_and(|parked| item.event.meta.version >= parked.version)
        });
        Gathered { items, to, retried: Some(retried) }
    }

    fn read_items(&self, partition: usize, from: Checkpoint, end: Offset) -> (Vec<Item>, Checkpoint) {
        let mut to = from;
        let mut items = Vec::new();
        while to.next_offset < end {
            let (before, offset) = (to, to.next_offset);
            let record = Record::decode(self.logs[partition].at(offset)).expect("the log keeps what it is given");
            let verdict = to.accept(&record.header);
            if verdict == Verdict::Effective || self.plan.mistake == Some(Mistake::FoldsIneffective) {
                items.extend(events_of(partition, offset, record).into_iter().map(|event| Item { before, event }));
            }
        }
        (items, to)
    }

    fn fold(&mut self, node: usize, partition: usize, gathered: Gathered) {
        let mut parked = self.worker(node, partition).parked.clone();
        let mut changed = BTreeMap::<StreamName, Option<Parked>>::new();
        let mut rows = BTreeMap::<RowKey, Option<Row>>::new();
        for retried in gathered.retried.iter().flat_map(BTreeMap::keys) {
            changed.insert(retried.clone(), None);
        }
        for Item { before, event } in &gathered.items {
            let stream = &event.meta.stream;
            if parked.contains_key(stream) {
                continue;
            }
            if self.chokes(event) {
                self.count("event parked");
                self.tell(|| format!("node {node} parks {stream} at version {}", event.meta.version));
                if self.plan.mistake == Some(Mistake::DropsWhatItCannotFold) {
                    continue;
                }
                let aside = Parked { partition, before: *before, version: event.meta.version };
                if self.plan.mistake != Some(Mistake::ParksOnlyTheEvent) {
                    parked.insert(stream.clone(), aside.clone());
                }
                changed.insert(stream.clone(), Some(aside));
                continue;
            }
            for key in Ledger.rows(event) {
                let known = || self.nodes[node].desks[partition].worker.rows.get(&key).cloned().flatten();
                let row = rows.remove(&key).unwrap_or_else(known);
                let row = Ledger.evolve(&key, row, event);
                rows.insert(key, row);
            }
        }
        let Worker { committed: from, token, .. } = *self.worker(node, partition);
        let rows = rows.into_iter().collect();
        let batch = Batch { partition, token, from, to: gathered.to, rows, parked: changed.into_iter().collect() };
        self.worker(node, partition).in_doubt = false;
        self.commit(node, batch, 0);
    }
}
