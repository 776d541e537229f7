//! The state store: what the log amounts to at this node, kept so that nobody has to fold from the start. States by
//! stream, the index from versions to records, remembered command ids, timers, streams with errands, and how far the fold
//! has come, in one fjall database. One batch across all of it per save: after a crash the store is as it was after some
//! save, checkpoint included. Nothing waits for it to reach the disk, and all of it can be lost: [`StateStore::catch_up`]
//! folds what is missing, or everything, from the log.
//!
//! All calls block (a disk may be read): make them off the async tasks.

mod fault;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use engine::log::Log;
use engine::message::CommandId;
use engine::position::{Checkpoint, LogId, Offset, Partition, Version};
use engine::saga::{Reactor, Timer};
use engine::shard::{Effective, Load, Loaded, Remembered};
use engine::stream::{StreamId, StreamName, Tenant};
use engine::time::Timestamp;

pub use fault::StoreFault;

/// What a state store bounds.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// Bytes of blocks cached in memory. 32 MiB: the node's whole footprint is to stay near 60 MB.
    pub cache_bytes: u64,
    /// Bytes written to one keyspace before they are sorted into a file. 4 MiB: three busy keyspaces, twice each.
    pub write_buffer_bytes: u64,
    /// Bytes of remembered command ids; past it the oldest are forgotten early, with a warning.
    pub ids_bytes_max: u64,
    /// How often what was written is synced to the disk, in the background.
    pub persist_every: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 32 << 20,
            write_buffer_bytes: 4 << 20,
            ids_bytes_max: 1 << 30,
            persist_every: Duration::from_secs(1),
        }
    }
}

/// What opening found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The store as it was; the log's newest records may be missing.
    Resumed,
    /// Nothing was there.
    New,
    /// What was there cannot be used, for this reason; it was wiped. All is to be folded afresh.
    Wiped(String),
}

/// How far a catch-up has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatchUp {
    /// Which partition.
    pub partition: Partition,
    /// Records read so far in this run.
    pub records: u64,
    /// The offset to be read next.
    pub next_offset: Offset,
    /// Where the run ends.
    pub end: Offset,
}

/// A stream and what it amounts to.
#[derive(Clone, Debug)]
pub struct StoredState<S> {
    /// Which.
    pub stream: StreamId,
    /// How many events it has.
    pub version: Version,
    /// What they amount to.
    pub state: Arc<S>,
}

/// A timer that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueTimer {
    /// The stream that armed it.
    pub stream: StreamId,
    /// The timer.
    pub timer: Timer,
}

/// A command id that was used on a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Whose resource.
    pub tenant: Tenant,
    /// Which resource.
    pub resource: StreamName,
    /// The partition that the record is in.
    pub partition: Partition,
    /// Where in it, and what it asked.
    pub remembered: Remembered,
}

/// A stream as lists show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// Its name.
    pub name: StreamName,
    /// How many events it has.
    pub version: Version,
    /// When the last of them was recorded.
    pub updated_at: Timestamp,
}

/// A record of a stream, as the index knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Indexed {
    /// The version of the record's first event of this stream.
    pub first_version: Version,
    /// How many of the stream's events it holds.
    pub count: u32,
    /// Where it is in the stream's partition.
    pub offset: Offset,
}

/// Which way to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the first version on.
    Forward,
    /// From the last version back.
    Backward,
}

/// The state store of one node.
pub struct StateStore<R: Reactor> {
    decider: Arc<R>,
}

impl<R: Reactor> StateStore<R> {
    /// Opens the store of `log` in `directory`, which is its alone, or makes it. What was written for another log, by
    /// another version of the decider, in another format, or is damaged, is wiped and to be folded afresh.
    ///
    /// # Errors
    /// If another process holds it, or the disk refuses.
    pub fn open(
        _directory: &Path,
        _log: LogId,
        _partitions: u16,
        _decider: Arc<R>,
        _options: StoreOptions,
    ) -> Result<(Self, Opened), StoreFault> {
        unimplemented!("being written")
    }

    /// The business whose states these are.
    pub fn decider(&self) -> &Arc<R> {
        &self.decider
    }

    /// How far `partition` is folded, and the time of its last commit (1970 before the first).
    pub fn checkpoint(&self, _partition: Partition) -> (Checkpoint, Timestamp) {
        unimplemented!("being written")
    }

    /// Answers `Effect::Load`.
    pub fn load(&self, _load: &Load) -> Result<Loaded<R::State>, StoreFault> {
        unimplemented!("being written")
    }

    /// Answers several `Effect::Load` in one go.
    pub fn load_many(&self, loads: &[Load]) -> Vec<Result<Loaded<R::State>, StoreFault>> {
        loads.iter().map(|load| self.load(load)).collect()
    }

    /// Takes over what became effective, of any partitions, each partition's in offset order: one atomic batch.
    /// Records that the store already holds are passed over.
    pub fn save(&self, _effective: &[Arc<Effective<R>>]) -> Result<(), StoreFault> {
        unimplemented!("being written")
    }

    /// Folds `partition` from its checkpoint to the log's end (as it is when called), or up to `stop_before`. Must not
    /// run for a partition while something else saves to it. `progress` is told after every batch.
    ///
    /// # Errors
    /// [`StoreFault::Record`] and [`StoreFault::Event`] name what this program cannot read: the node must not go on.
    pub fn catch_up(
        &self,
        _log: &dyn Log,
        _partition: Partition,
        _stop_before: Option<Offset>,
        _progress: &mut dyn FnMut(CatchUp),
    ) -> Result<Checkpoint, StoreFault> {
        unimplemented!("being written")
    }

    /// Streams of `partition` that owe something, in the order of tenant and name, after `after`: at most `limit`.
    pub fn open_streams(
        &self,
        _partition: Partition,
        _after: Option<&StreamId>,
        _limit: usize,
    ) -> Result<Vec<StoredState<R::State>>, StoreFault> {
        unimplemented!("being written")
    }

    /// Timers of `partition` due at `now`, the longest due first: at most `limit`.
    pub fn due_timers(
        &self,
        _partition: Partition,
        _now: Timestamp,
        _limit: usize,
    ) -> Result<Vec<DueTimer>, StoreFault> {
        unimplemented!("being written")
    }

    /// When the next timer of `partition` is due.
    pub fn next_due(&self, _partition: Partition) -> Result<Option<Timestamp>, StoreFault> {
        unimplemented!("being written")
    }

    /// Everything known of a command id, whatever tenant and resource.
    pub fn known(&self, _id: CommandId) -> Result<Vec<Known>, StoreFault> {
        unimplemented!("being written")
    }

    /// The offset of the record that holds this version of this stream, in the stream's partition.
    pub fn offset_of(
        &self,
        _tenant: &Tenant,
        _stream: &StreamName,
        _version: Version,
    ) -> Result<Option<Offset>, StoreFault> {
        unimplemented!("being written")
    }

    /// The records that hold versions `from..=to` of a stream, in this direction: at most `limit`.
    pub fn records_of(
        &self,
        _tenant: &Tenant,
        _stream: &StreamName,
        _from: Version,
        _to: Version,
        _direction: Direction,
        _limit: usize,
    ) -> Result<Vec<Indexed>, StoreFault> {
        unimplemented!("being written")
    }

    /// Streams of `tenant` whose names begin with `prefix`, by name, after `after`: at most `limit`.
    pub fn streams(
        &self,
        _tenant: &Tenant,
        _prefix: &str,
        _after: Option<&StreamName>,
        _limit: usize,
    ) -> Result<Vec<StreamInfo>, StoreFault> {
        unimplemented!("being written")
    }

    /// What a stream amounts to; `None` where nobody wrote it.
    pub fn state(
        &self,
        _tenant: &Tenant,
        _stream: &StreamName,
    ) -> Result<Option<StoredState<R::State>>, StoreFault> {
        unimplemented!("being written")
    }

    /// A UUIDv7 from before this time may have been used and forgotten; `None` as long as nothing was forgotten. Feed it
    /// to the shards as `Input::Forgotten` when it has moved.
    pub fn forgotten_before(&self) -> Option<Timestamp> {
        unimplemented!("being written")
    }

    /// Syncs to the disk what was written so far. Happens by itself every `StoreOptions::persist_every` and on drop.
    pub fn persist(&self) -> Result<(), StoreFault> {
        unimplemented!("being written")
    }
}
