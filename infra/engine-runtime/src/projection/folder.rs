//! What a projection does between log and store: it gathers effective events, asks for the rows they touch, folds, and
//! says what to commit. Pure but for reading the log. A view that panics costs the stream of that event its place: the
//! batch is folded again without it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use engine::event::Recorded;
use engine::fold::Verdict;
use engine::log::Log;
use engine::position::{Checkpoint, Offset, Partition, Position, Version};
use engine::read_store::Batch;
use engine::record::{Body, Header, Kind, Record};
use engine::stream::StreamId;
use engine::time::Timestamp;
use engine::view::{Doc, Row, RowKey, View};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::error;

use super::rows::{Desk, RowCache, Slot};
use super::{PARKED_TABLE, Parked, ProjectionOptions};

/// A parked stream as the store keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ParkedDoc {
    #[serde(flatten)]
    pub(crate) parked: Parked,
    /// The fold before the record of the first event that is not folded: where a retry starts to read.
    pub(crate) before: Checkpoint,
    /// The generation of the store's tables when it was last tried; 0: not since it is counted.
    #[serde(default)]
    pub(crate) tried: i64,
}

/// An event out of the log, read or not.
struct Item<E> {
    stream: StreamId,
    partition: Partition,
    version: Version,
    offset: Offset,
    /// The fold before its record.
    before: Checkpoint,
    event: Result<Recorded<E>, String>,
    /// Which of the rows on the desk it touches.
    touches: Range<usize>,
}

/// What was read and how far.
struct Gathered<E> {
    items: Vec<Item<E>>,
    at: Vec<Checkpoint>,
    records: u64,
    recorded_at: Option<Timestamp>,
}

impl<E> Gathered<E> {
    /// Nothing yet.
    fn from(at: Vec<Checkpoint>) -> Self {
        Self { items: Vec::new(), at, records: 0, recorded_at: None }
    }
}

/// What comes next.
pub(crate) enum Step {
    /// There is nothing to fold.
    Idle,
    /// Load these rows and supply them.
    Load(Vec<RowKey>),
    /// Folded: commit, then say so.
    Folded,
}

/// A folded batch, for whoever commits it: the fold goes on as if that had been done.
pub(crate) struct Made {
    /// What is to be committed; `None` if only the checkpoints would move, which can wait.
    pub(crate) batch: Option<Arc<Batch>>,
    /// How far the fold is with it.
    pub(crate) at: Vec<Checkpoint>,
    /// How many events it has.
    pub(crate) events: usize,
    /// Whether it was as large as one may be: there is more.
    pub(crate) is_full: bool,
    /// When the newest of them was recorded.
    pub(crate) recorded_at: Option<Timestamp>,
    /// Whether what is parked changed.
    pub(crate) parked_changed: bool,
}

/// One projection's fold in the making.
pub(crate) struct Folder<V: View> {
    view: Arc<V>,
    options: ProjectionOptions,
    /// The partitions it reads.
    partitions: Vec<Partition>,
    /// Whether checkpoints move with every record, for others to see, and not only with rows.
    eager: bool,
    /// How far is folded.
    pub(crate) at: Vec<Checkpoint>,
    /// What the store has once all that was made is committed.
    pub(crate) committed: Vec<Option<Checkpoint>>,
    pub(crate) parked: BTreeMap<StreamId, ParkedDoc>,
    cache: RowCache,
    gathered: Option<Gathered<V::Event>>,
    /// Events whose view panicked in the batch under way, by partition, offset and index.
    poisoned: BTreeMap<(Partition, Offset, u32), String>,
    /// The rows of the batch under way.
    desk: Desk,
    /// Those that it changed.
    folded: Vec<Slot>,
    /// The parked streams after the batch, and which of them changed or went.
    parked_next: BTreeMap<StreamId, ParkedDoc>,
    parked_dirty: BTreeSet<StreamId>,
    /// While parked streams are tried again: which, from which version on.
    only: Option<BTreeMap<StreamId, Version>>,
    /// Which partition is read first; moves on, so that a busy one does not starve the others.
    first: usize,
    /// Of the tables that it folds into.
    pub(crate) generation: i64,
}

impl<V: View> Folder<V> {
    pub(crate) fn new(
        view: Arc<V>,
        options: ProjectionOptions,
        partitions: Vec<Partition>,
        eager: bool,
        committed: Vec<Option<Checkpoint>>,
        parked: BTreeMap<StreamId, ParkedDoc>,
    ) -> Self {
        let at = committed.iter().map(|checkpoint| checkpoint.unwrap_or_default()).collect();
        let cache = RowCache::new(options.rows_cached_max);
        Self {
            view,
            options,
            partitions,
            eager,
            at,
            committed,
            parked,
            cache,
            gathered: None,
            poisoned: BTreeMap::new(),
            desk: Desk::default(),
            folded: Vec::new(),
            parked_next: BTreeMap::new(),
            parked_dirty: BTreeSet::new(),
            only: None,
            first: 0,
            generation: 0,
        }
    }

    /// Reads what is new, at most a batch of it, and says what comes next.
    pub(crate) fn gather(&mut self, log: &dyn Log) -> Result<Step, String> {
        let gathered = self.read_all(log, Gathered::from(self.at.clone()))?;
        if gathered.records == 0 {
            return Ok(Step::Idle);
        }
        self.gathered = Some(gathered);
        Ok(self.plan())
    }

    /// Reads all partitions on from where `gathered` is, at most a batch, each a little at a time: where a log keeps the
    /// records of all partitions side by side, all are then read from the same place.
    fn read_all(&mut self, log: &dyn Log, mut gathered: Gathered<V::Event>) -> Result<Gathered<V::Event>, String> {
        let count = self.partitions.len();
        loop {
            let records = gathered.records;
            for _ in 0..count {
                if gathered.items.len() >= self.options.batch_events_max {
                    return Ok(gathered);
                }
                self.read(log, self.partitions[self.first % count], None, &mut gathered)?;
                self.first = (self.first + 1) % count;
            }
            if gathered.records == records {
                return Ok(gathered);
            }
        }
    }

    /// Reads one partition on from where `gathered` is, up to `end`.
    fn read(
        &self,
        log: &dyn Log,
        partition: Partition,
        end: Option<Offset>,
        gathered: &mut Gathered<V::Event>,
    ) -> Result<(), String> {
        let slot = usize::from(partition.0);
        let limit = end.unwrap_or_else(|| log.end(partition));
        let mut checkpoint = gathered.at[slot];
        if checkpoint.next_offset >= limit || gathered.items.len() >= self.options.batch_events_max {
            return Ok(());
        }
        let read = log.read(partition, checkpoint.next_offset, self.options.read_bytes_max);
        for stored in read.map_err(|fault| crate::chain(&fault))? {
            if stored.offset >= limit || gathered.items.len() >= self.options.batch_events_max {
                break;
            }
            let position = Position { partition, offset: stored.offset };
            if stored.offset != checkpoint.next_offset {
                return Err(format!("{position} came where {} was asked for", checkpoint.next_offset));
            }
            let before = checkpoint;
            let header = Header::decode(&stored.bytes).map_err(|fault| format!("{position}: {fault}"))?;
            let verdict = checkpoint.accept(&header);
            gathered.records += 1;
            if verdict == Verdict::Effective && header.kind == Kind::Commit {
                let record = Record::decode(&stored.bytes).map_err(|fault| format!("{position}: {fault}"))?;
                if let Body::Commit(commit) = record.body {
                    gathered.recorded_at = Some(commit.recorded_at);
                    self.take(*commit, position, before, &mut gathered.items);
                }
            }
            gathered.at[slot] = checkpoint;
        }
        Ok(())
    }

    fn take(
        &self,
        commit: engine::record::Commit,
        position: Position,
        before: Checkpoint,
        items: &mut Vec<Item<V::Event>>,
    ) {
        for told in commit.events() {
            let (stream, version) = (told.stream(), told.version);
            let is_wanted = |only: &BTreeMap<StreamId, Version>| only.get(&stream).is_some_and(|from| version >= *from);
            if !self.only.as_ref().is_none_or(is_wanted) {
                continue;
            }
            let event = told.read(position).map_err(|fault| fault.to_string());
            let Position { partition, offset } = position;
            items.push(Item { stream, partition, version, offset, before, event, touches: 0..0 });
        }
    }

    /// Which rows have to be loaded; folds at once if none.
    fn plan(&mut self) -> Step {
        let Some(gathered) = &mut self.gathered else { return Step::Idle };
        self.desk.clear();
        for item in &mut gathered.items {
            let begin = self.desk.mark();
            item.touches = begin..begin;
            let Ok(recorded) = &item.event else { continue };
            if self.parked.contains_key(&item.stream) || self.poisoned.contains_key(&place(recorded)) {
                continue;
            }
            match catch_unwind(AssertUnwindSafe(|| self.view.rows(recorded))) {
                Ok(keys) => {
                    for key in keys {
                        self.desk.touch(key, |key| match self.cache.take(key) {
                            None if self.view.begins(key, recorded) => Some(None),
                            known => known,
                        });
                    }
                    item.touches = begin..self.desk.mark();
                }
                Err(panic) => drop(self.poisoned.insert(place(recorded), crate::panic_text(panic.as_ref()))),
            }
        }
        let missing = self.desk.missing();
        if missing.is_empty() { self.fold() } else { Step::Load(missing) }
    }

    /// Takes the rows that were asked for and folds.
    pub(crate) fn supply(&mut self, asked: Vec<RowKey>, mut found: BTreeMap<RowKey, Row>) -> Step {
        for key in asked {
            let row = found.remove(&key);
            self.desk.supply(&key, row);
        }
        self.fold()
    }

    fn fold(&mut self) -> Step {
        let Some(gathered) = self.gathered.take() else { return Step::Idle };
        let (mut parked, mut dirty) = (self.parked.clone(), BTreeSet::new());
        for item in &gathered.items {
            if let Some(doc) = parked.get_mut(&item.stream) {
                doc.parked.waiting += 1;
                dirty.insert(item.stream.clone());
                continue;
            }
            let why = match &item.event {
                Err(why) => why.clone(),
                Ok(recorded) => match self.poisoned.get(&place(recorded)) {
                    Some(why) => why.clone(),
                    None => {
                        let evolved = catch_unwind(AssertUnwindSafe(|| {
                            self.desk.each(item.touches.clone(), |slot| {
                                slot.row = self.view.evolve(&slot.key, slot.row.take(), recorded);
                                slot.is_touched = true;
                            });
                        }));
                        let Err(panic) = evolved else { continue };
                        // Rows are half-way now: begin again from what is in the store, without this event.
                        self.poisoned.insert(place(recorded), crate::panic_text(panic.as_ref()));
                        self.cache.clear();
                        self.gathered = Some(gathered);
                        return self.plan();
                    }
                },
            };
            error!(
                fault.code = "event-parked",
                stream = %item.stream.name,
                position = %Position { partition: item.partition, offset: item.offset },
                error = %why,
                "an event cannot be folded: its stream is set aside",
            );
            let parked_here = Parked {
                tenant: item.stream.tenant.clone(),
                stream: item.stream.name.clone(),
                partition: item.partition,
                offset: item.offset,
                version: item.version,
                waiting: 1,
                why,
                dropped: None,
            };
            let doc = ParkedDoc { parked: parked_here, before: item.before, tried: self.generation };
            parked.insert(item.stream.clone(), doc);
            dirty.insert(item.stream.clone());
        }
        for slot in self.desk.clear() {
            if slot.is_touched {
                self.folded.push(slot);
            } else {
                // What was only looked at is as it was before.
                self.cache.put(slot.key, slot.row);
            }
        }
        // New rows first, each kind in the order of its keys: a tree is written in its own order.
        self.folded
            .sort_unstable_by(|one, other| is_new(other).cmp(&is_new(one)).then_with(|| one.key.cmp(&other.key)));
        self.parked_next = parked;
        self.parked_dirty = dirty;
        self.gathered = Some(gathered);
        self.poisoned.clear();
        Step::Folded
    }

    /// Hands the folded batch out and goes on as if it were committed.
    pub(crate) fn make(&mut self) -> Made {
        let gathered = self.gathered.take().unwrap_or_else(|| Gathered::from(self.at.clone()));
        let parked_changed = !self.parked_dirty.is_empty();
        self.at = gathered.at;
        let batch = (!self.folded.is_empty() || parked_changed || self.eager).then(|| {
            let mut batch = self.checkpoints(&self.at);
            batch.rows.reserve_exact(self.folded.len() + self.parked_dirty.len());
            for slot in std::mem::take(&mut self.folded) {
                batch.new += usize::from(is_new(&slot));
                batch.rows.push((slot.key.clone(), slot.row.clone()));
                self.cache.put(slot.key, slot.row);
            }
            for stream in &self.parked_dirty {
                batch.rows.push((parked_key(stream), self.parked_next.get(stream).map(parked_row)));
            }
            Arc::new(batch)
        });
        if batch.is_some() {
            self.all_committed();
        }
        if parked_changed {
            self.parked = std::mem::take(&mut self.parked_next);
        }
        self.parked_dirty.clear();
        Made {
            batch,
            at: self.at.clone(),
            events: gathered.items.len(),
            is_full: gathered.items.len() >= self.options.batch_events_max,
            recorded_at: gathered.recorded_at,
            parked_changed,
        }
    }

    /// A batch that only moves checkpoints.
    pub(crate) fn checkpoints(&self, to: &[Checkpoint]) -> Batch {
        let mut batch = Batch::default();
        for ((partition, from), to) in (0..).map(Partition).zip(&self.committed).zip(to) {
            if from.as_ref() != Some(to) && (from.is_some() || to.next_offset > Offset(0)) {
                batch.checkpoints.push((partition, *from, *to));
            }
        }
        batch
    }

    /// The store's checkpoints are where the fold is.
    pub(crate) fn all_committed(&mut self) {
        for (committed, at) in self.committed.iter_mut().zip(&self.at) {
            if committed.is_some() || at.next_offset > Offset(0) {
                *committed = Some(*at);
            }
        }
    }

    /// Starts to try the parked streams of a partition again: from where to read.
    pub(crate) fn begin_retry(&mut self, partition: Partition) -> Option<Retry> {
        let mut docs = BTreeMap::new();
        for (stream, doc) in &self.parked {
            if doc.parked.partition == partition && doc.parked.dropped.is_none() {
                docs.insert(stream.clone(), doc.clone());
            }
        }
        let cursor = docs.values().map(|doc| doc.before).min_by_key(|before| before.next_offset)?;
        self.only = Some(docs.iter().map(|(stream, doc)| (stream.clone(), doc.parked.version)).collect());
        self.parked.retain(|stream, _| !docs.contains_key(stream));
        Some(Retry { partition, cursor, docs, end: self.at[usize::from(partition.0)].next_offset })
    }

    /// Reads on for a retry.
    pub(crate) fn gather_retry(&mut self, log: &dyn Log, retry: &Retry) -> Result<Step, String> {
        let mut gathered = Gathered::from(self.at.clone());
        gathered.at[usize::from(retry.partition.0)] = retry.cursor;
        self.read(log, retry.partition, Some(retry.end), &mut gathered)?;
        if gathered.records == 0 {
            return Ok(Step::Idle);
        }
        self.gathered = Some(gathered);
        Ok(self.plan())
    }

    /// After a stretch of a retry was folded: what to commit. Streams that went well so far are parked at its end, or,
    /// at the end of the retry, no more.
    pub(crate) fn batch_retry(&mut self, retry: &mut Retry) -> Batch {
        let gathered = self.gathered.take();
        let slot = usize::from(retry.partition.0);
        if let Some(gathered) = &gathered {
            retry.cursor = gathered.at[slot];
        }
        let over = gathered.is_none() || retry.cursor.next_offset >= retry.end;
        let mut batch = Batch::default();
        if let Some(committed) = self.committed[slot] {
            batch.checkpoints.push((retry.partition, Some(committed), committed));
        }
        batch.rows = self.folded.iter().map(|slot| (slot.key.clone(), slot.row.clone())).collect();
        let items = gathered.map_or_else(Vec::new, |gathered| gathered.items);
        if self.parked_dirty.is_empty() && self.folded.is_empty() {
            self.parked_next = self.parked.clone();
        }
        for (stream, doc) in &mut retry.docs {
            let row = match self.parked_next.get(stream) {
                Some(again) => Some(parked_row(again)),
                None if over => None,
                None => {
                    let folded = items.iter().filter(|item| item.stream == *stream);
                    doc.parked.waiting = doc.parked.waiting.saturating_sub(folded.clone().count() as u64);
                    doc.parked.version = folded.last().map_or(doc.parked.version, |item| item.version.next());
                    doc.parked.offset = doc.parked.offset.max(retry.cursor.next_offset);
                    if doc.before.next_offset < retry.cursor.next_offset {
                        doc.before = retry.cursor;
                    }
                    Some(parked_row(doc))
                }
            };
            batch.rows.push((parked_key(stream), row));
        }
        batch
    }

    /// A stretch of a retry is in the store. True if there is more to read.
    pub(crate) fn done_retry(&mut self, retry: &Retry) -> bool {
        for slot in std::mem::take(&mut self.folded) {
            self.cache.put(slot.key, slot.row);
        }
        self.parked = std::mem::take(&mut self.parked_next);
        self.parked_dirty.clear();
        let more = retry.cursor.next_offset < retry.end;
        if !more {
            self.only = None;
        }
        more
    }
}

/// Parked streams of one partition, tried again.
pub(crate) struct Retry {
    partition: Partition,
    cursor: Checkpoint,
    docs: BTreeMap<StreamId, ParkedDoc>,
    end: Offset,
}

/// Whether a row comes to be with this batch.
fn is_new(slot: &Slot) -> bool {
    slot.was_absent && slot.row.is_some()
}

fn place<E>(recorded: &Recorded<E>) -> (Partition, Offset, u32) {
    (recorded.position.partition, recorded.position.offset, recorded.index)
}

pub(crate) fn parked_key(stream: &StreamId) -> RowKey {
    RowKey { table: PARKED_TABLE.name, key: format!("{}/{}", stream.tenant, stream.name) }
}

pub(crate) fn parked_row(doc: &ParkedDoc) -> Row {
    let columns = vec![Value::from(doc.parked.partition.0)];
    let version = doc.parked.version.0;
    Row { version, doc: Doc::of(doc), columns }
}
