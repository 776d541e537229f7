//! Reads what a projection folds: effective events out of the log, all its partitions in turn, at most a batch at once. It
//! knows nothing of what becomes of them, so the next batch can be read while one is folded.

use std::collections::BTreeMap;
use std::ops::Range;

use engine::event::{Event, Recorded};
use engine::fold::Verdict;
use engine::log::Log;
use engine::position::{Checkpoint, Offset, Partition, Position, Version};
use engine::record::{Body, Commit, Header, Kind, Record};
use engine::stream::StreamId;
use engine::time::Timestamp;

use super::ProjectionOptions;

/// An event out of the log, read or not.
pub(crate) struct Item<E> {
    pub(crate) stream: StreamId,
    pub(crate) partition: Partition,
    pub(crate) version: Version,
    pub(crate) offset: Offset,
    /// The fold before its record.
    pub(crate) before: Checkpoint,
    pub(crate) event: Result<Recorded<E>, String>,
    /// Which of the rows on the desk it touches; none are until somebody folds it.
    pub(crate) touches: Range<usize>,
}

/// What was read and how far.
pub(crate) struct Gathered<E> {
    pub(crate) items: Vec<Item<E>>,
    pub(crate) at: Vec<Checkpoint>,
    pub(crate) records: u64,
    pub(crate) recorded_at: Option<Timestamp>,
}

impl<E> Gathered<E> {
    /// Nothing yet.
    pub(crate) fn from(at: Vec<Checkpoint>) -> Self {
        Self { items: Vec::new(), at, records: 0, recorded_at: None }
    }
}

/// Which streams are wanted, each from which version on; all if `None`.
pub(crate) type Only = Option<BTreeMap<StreamId, Version>>;

/// The way through the log.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    partitions: Vec<Partition>,
    batch_events_max: usize,
    read_bytes_max: usize,
    /// Which partition is read first; moves on, so that a busy one does not starve the others.
    first: usize,
}

impl Reader {
    /// Of these partitions.
    pub(crate) fn new(partitions: Vec<Partition>, options: &ProjectionOptions) -> Self {
        let ProjectionOptions { batch_events_max, read_bytes_max, .. } = *options;
        Self { partitions, batch_events_max, read_bytes_max, first: 0 }
    }

    /// Reads all partitions on from `at`, at most a batch, each a little at a time: where a log keeps the records of all
    /// partitions side by side, all are then read from the same place.
    pub(crate) fn read<E: Event>(&mut self, log: &dyn Log, at: Vec<Checkpoint>) -> Result<Gathered<E>, String> {
        let (count, mut gathered) = (self.partitions.len(), Gathered::from(at));
        loop {
            let records = gathered.records;
            for _ in 0..count {
                if self.is_full(&gathered) {
                    return Ok(gathered);
                }
                self.read_one(log, self.partitions[self.first % count], None, &None, &mut gathered)?;
                self.first = (self.first + 1) % count;
            }
            if gathered.records == records {
                return Ok(gathered);
            }
        }
    }

    /// Whether this is as much as a batch may be: there may be more.
    pub(crate) fn is_full<E>(&self, gathered: &Gathered<E>) -> bool {
        gathered.items.len() >= self.batch_events_max
    }

    /// Reads one partition on from where `gathered` is, up to `end`.
    pub(crate) fn read_one<E: Event>(
        &self,
        log: &dyn Log,
        partition: Partition,
        end: Option<Offset>,
        only: &Only,
        gathered: &mut Gathered<E>,
    ) -> Result<(), String> {
        let slot = usize::from(partition.0);
        let limit = end.unwrap_or_else(|| log.end(partition));
        let mut checkpoint = gathered.at[slot];
        if checkpoint.next_offset >= limit || self.is_full(gathered) {
            return Ok(());
        }
        let read = log.read(partition, checkpoint.next_offset, self.read_bytes_max);
        for stored in read.map_err(|fault| crate::chain(&fault))? {
            if stored.offset >= limit || self.is_full(gathered) {
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
                    take(&commit, only, position, before, &mut gathered.items);
                }
            }
            gathered.at[slot] = checkpoint;
        }
        Ok(())
    }
}

fn take<E: Event>(commit: &Commit, only: &Only, position: Position, before: Checkpoint, items: &mut Vec<Item<E>>) {
    for told in commit.events() {
        let (stream, version) = (told.stream(), told.version);
        let is_wanted = |only: &BTreeMap<StreamId, Version>| only.get(&stream).is_some_and(|from| version >= *from);
        if !only.as_ref().is_none_or(is_wanted) {
            continue;
        }
        let event = told.read(position).map_err(|fault| fault.to_string());
        let Position { partition, offset } = position;
        items.push(Item { stream, partition, version, offset, before, event, touches: 0..0 });
    }
}
