//! Reads of what happened: single records, a stream's events, a partition's events, and states as of any version, folded
//! with the real code. The state store's index says where, the log says what. Every method waits for a disk off the async
//! tasks, and only so many do so at once.

use std::sync::Arc;

use engine::decider::Decider;
use engine::event::Recorded;
use engine::log::{Log, LogFault, Stored};
use engine::position::{Checkpoint, Offset, Partition, Position, Version};
use engine::record::{Body, Commit, Record};
use engine::saga::Reactor;
use engine::stream::{StreamId, StreamName, Tenant, partition_of};
use tokio::sync::Semaphore;

use crate::store::{Direction, StateStore, StoreFault, accept};

/// Bytes read at once in search of the next record of a stream: one in the same neighbourhood needs no further read.
const NEIGHBOURHOOD_BYTES: usize = 16 << 10;
/// Records of a stream looked up at once.
const PAGE_RECORDS: usize = 256;

/// Reads of what happened. Cheap to clone.
pub struct History<R: Reactor> {
    reads: Arc<Semaphore>,
    reads_max: usize,
    inner: Arc<Inner<R>>,
}

impl<R: Reactor> Clone for History<R> {
    fn clone(&self) -> Self {
        Self { reads: Arc::clone(&self.reads), reads_max: self.reads_max, inner: Arc::clone(&self.inner) }
    }
}

/// Why history cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HistoryFault {
    /// The store, the log, a record or an event cannot be read.
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// There is no commit at this position.
    #[error("there is no commit at {0}")]
    NoCommit(Position),
    /// The reading task was cut off (the process is shutting down, or the read panicked).
    #[error("the read was cut off")]
    CutOff,
}

impl From<LogFault> for HistoryFault {
    fn from(fault: LogFault) -> Self {
        Self::Store(fault.into())
    }
}

/// Events with all that is known of them.
pub type Events<R> = Vec<Recorded<<R as Decider>::Event>>;

impl<R: Reactor> History<R> {
    /// Over this log and this store of the same log; `reads_max` reads at once, more wait for their turn.
    pub fn new(log: Arc<dyn Log>, store: Arc<StateStore<R>>, reads_max: usize) -> Self {
        Self { reads: Arc::new(Semaphore::new(reads_max)), reads_max, inner: Arc::new(Inner { log, store }) }
    }

    /// The store that says where things are.
    pub fn store(&self) -> &Arc<StateStore<R>> {
        &self.inner.store
    }

    /// Reads under way.
    pub fn reading(&self) -> usize {
        self.reads_max.saturating_sub(self.reads.available_permits())
    }

    /// The commit at `position`, which must be effective (the index and remembered ids only name such).
    pub async fn record_at(&self, position: Position) -> Result<Commit, HistoryFault> {
        self.read(move |inner| inner.record_at(position)).await
    }

    /// Events `from..=to` of a stream in this direction: at most `limit`. Only effective ones, as far as the store has
    /// folded.
    pub async fn read_stream(
        &self,
        tenant: &Tenant,
        stream: &StreamName,
        from: Version,
        to: Version,
        direction: Direction,
        limit: usize,
    ) -> Result<Events<R>, HistoryFault> {
        let stream = StreamId { tenant: tenant.clone(), name: stream.clone() };
        self.read(move |inner| inner.read_stream(&stream, from, to, direction, limit)).await
    }

    /// Effective events of a partition from `cursor` on, in about `bytes_max` bytes of records (at least one record), and
    /// where to go on. The cursor comes back as it was only at the end of the log; without events it may still have moved.
    pub async fn read_partition(
        &self,
        partition: Partition,
        cursor: Checkpoint,
        bytes_max: usize,
    ) -> Result<(Events<R>, Checkpoint), HistoryFault> {
        self.read(move |inner| inner.read_partition(partition, cursor, bytes_max)).await
    }

    /// What a stream amounted to at `version`; `None` if it never had that many events.
    pub async fn state_at(
        &self,
        tenant: &Tenant,
        stream: &StreamName,
        version: Version,
    ) -> Result<Option<Arc<R::State>>, HistoryFault> {
        let stream = StreamId { tenant: tenant.clone(), name: stream.clone() };
        self.read(move |inner| inner.state_at(&stream, version)).await
    }

    /// Off the async tasks, when it is our turn.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Inner<R>) -> Result<T, HistoryFault> + Send + 'static,
    ) -> Result<T, HistoryFault> {
        let turn = Arc::clone(&self.reads).acquire_owned().await.map_err(|_| HistoryFault::CutOff)?;
        let inner = Arc::clone(&self.inner);
        let reading = tokio::task::spawn_blocking(move || {
            // Goes with the read, not with the reader: one that no longer waits still occupies the disk.
            let _turn = turn;
            read(&inner)
        });
        reading.await.map_err(|_| HistoryFault::CutOff)?
    }
}

/// The same, blocking.
struct Inner<R: Reactor> {
    log: Arc<dyn Log>,
    store: Arc<StateStore<R>>,
}

impl<R: Reactor> Inner<R> {
    fn record_at(&self, position: Position) -> Result<Commit, HistoryFault> {
        Neighbourhood::new(&*self.log, position.partition, 1).commit_at(position.offset)
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        from: Version,
        to: Version,
        direction: Direction,
        limit: usize,
    ) -> Result<Events<R>, HistoryFault> {
        let mut events = Vec::new();
        self.walk(stream, from, to, direction, |event| {
            events.push(event);
            events.len() < limit
        })?;
        events.truncate(limit);
        Ok(events)
    }

    fn state_at(&self, stream: &StreamId, version: Version) -> Result<Option<Arc<R::State>>, HistoryFault> {
        let Some(newest) = self.store.state(&stream.tenant, &stream.name)? else { return Ok(None) };
        if version >= newest.version || version == Version(0) {
            return Ok((version == newest.version).then_some(newest.state));
        }
        let mut state = None;
        self.walk(stream, Version(1), version, Direction::Forward, |event| {
            state = Some(self.store.decider().evolve(state.take(), &event.event, &event.meta));
            true
        })?;
        Ok(state.map(Arc::new))
    }

    /// Shows `seen` the events `from..=to` of a stream, one by one, until it has seen enough.
    fn walk(
        &self,
        stream: &StreamId,
        mut from: Version,
        mut to: Version,
        direction: Direction,
        mut seen: impl FnMut(Recorded<R::Event>) -> bool,
    ) -> Result<(), HistoryFault> {
        let partition = partition_of(&stream.tenant, &stream.name, self.log.partitions());
        let mut neighbourhood = Neighbourhood::new(&*self.log, partition, NEIGHBOURHOOD_BYTES);
        loop {
            let page = self.store.records_of(&stream.tenant, &stream.name, from, to, direction, PAGE_RECORDS)?;
            for record in &page {
                let commit = neighbourhood.commit_at(record.offset)?;
                let position = Position { partition, offset: record.offset };
                let mut events = decode_of::<R>(position, &commit, Some(&stream.name))?;
                events.retain(|event| event.meta.version >= from && event.meta.version <= to);
                if direction == Direction::Backward {
                    events.reverse();
                }
                for event in events {
                    if !seen(event) {
                        return Ok(());
                    }
                }
            }
            let Some(last) = page.last().filter(|_| page.len() == PAGE_RECORDS) else { return Ok(()) };
            match direction {
                Direction::Forward => from = Version(last.first_version.0 + u64::from(last.count)),
                Direction::Backward => to = Version(last.first_version.0 - 1),
            }
            if from > to {
                return Ok(());
            }
        }
    }

    fn read_partition(
        &self,
        partition: Partition,
        mut cursor: Checkpoint,
        bytes_max: usize,
    ) -> Result<(Events<R>, Checkpoint), HistoryFault> {
        let mut events = Vec::new();
        for stored in self.log.read(partition, cursor.next_offset, bytes_max)? {
            let position = Position { partition, offset: stored.offset };
            if let Some(commit) = accept(&mut cursor, position, &stored.bytes)? {
                events.extend(decode::<R>(position, &commit)?);
            }
        }
        Ok((events, cursor))
    }
}

/// Reads single records by offset, keeping what lay next to the last one.
struct Neighbourhood<'a> {
    log: &'a dyn Log,
    partition: Partition,
    bytes: usize,
    records: Vec<Stored>,
}

impl<'a> Neighbourhood<'a> {
    fn new(log: &'a dyn Log, partition: Partition, bytes: usize) -> Self {
        Self { log, partition, bytes, records: Vec::new() }
    }

    fn commit_at(&mut self, offset: Offset) -> Result<Commit, HistoryFault> {
        let position = Position { partition: self.partition, offset };
        let find = |records: &[Stored]| {
            let found = records.binary_search_by_key(&offset, |stored| stored.offset);
            found.ok().map(|index| records[index].bytes.clone())
        };
        let bytes = match find(&self.records) {
            Some(bytes) => bytes,
            None => {
                self.records = self.log.read(self.partition, offset, self.bytes)?;
                find(&self.records).ok_or(HistoryFault::NoCommit(position))?
            }
        };
        let record = Record::decode(&bytes).map_err(|source| StoreFault::Record { position, source })?;
        match record.body {
            Body::Commit(commit) => Ok(*commit),
            _ => Err(HistoryFault::NoCommit(position)),
        }
    }
}

/// The events of a commit, in its order, with all that is known of them.
///
/// # Errors
/// [`StoreFault::Event`] names the first that this program cannot read.
pub fn decode<R: Reactor>(position: Position, commit: &Commit) -> Result<Events<R>, StoreFault> {
    decode_of::<R>(position, commit, None)
}

/// The same, of all streams or of one: what this program cannot read of others is then no hindrance.
fn decode_of<R: Reactor>(
    position: Position,
    commit: &Commit,
    only: Option<&StreamName>,
) -> Result<Events<R>, StoreFault> {
    let wanted = commit.events().filter(|told| only.is_none_or(|only| *only == told.written.name));
    let read = wanted.map(|told| {
        let stream = || Box::new(told.stream());
        told.read(position).map_err(|source| StoreFault::Event { position, stream: stream(), source })
    });
    read.collect()
}
