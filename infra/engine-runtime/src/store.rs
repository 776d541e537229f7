//! The state store: what the log amounts to at this node, kept so that nobody has to fold from the start. States by
//! stream, the index from versions to records, remembered command ids, timers, streams with errands, and how far the fold
//! has come, in one fjall database. One batch across all of it per save: after a crash the store is as it was after some
//! save, checkpoint included. Nothing waits for it to reach the disk, and all of it can be lost: [`StateStore::catch_up`]
//! folds what is missing, or everything, from the log.
//!
//! All calls block (a disk may be read): make them off the async tasks.

mod calendar;
mod catching_up;
mod facts;
mod fault;
mod keys;
mod persisting;
mod reading;
mod rebuilding;
mod reopening;
mod saving;
mod sheet;
mod tables;
mod writes;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engine::position::{Checkpoint, Epoch, LogId, Nonce, Offset, Partition, Version};
use engine::saga::{Reactor, Timer};
use engine::shard::Remembered;
use engine::stream::{StreamId, StreamName, Tenant};
use engine::time::Timestamp;
use fjall::PersistMode;
use parking_lot::{Mutex, RwLock};

use calendar::Calendar;
use reopening::Open;
use tables::Identity;

use crate::peers::Owner;

pub(crate) use catching_up::{Folded, accept};
pub use facts::{StoreFacts, store_facts};
pub use fault::StoreFault;
pub use rebuilding::Rebuild;

/// Write buffers for whose files saves leave room on the disk: three busy keyspaces with two full ones each, flushed and
/// then merged.
const RESERVED_BUFFERS: u64 = 12;

/// What a state store bounds.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// Bytes of blocks cached in memory. 32 MiB: the node's whole footprint is to stay near 60 MB.
    pub cache_bytes: u64,
    /// Bytes written to one keyspace before they are sorted into a file, 16 MiB at most: the journal is kept until all are,
    /// and is bounded too. The database keeps what a keyspace was made with: of a store that is there, only what is made
    /// from now on has another. 2 MiB: three busy keyspaces, up to three times each.
    pub write_buffer_bytes: u64,
    /// Bytes of remembered command ids; past it the oldest are forgotten early, with a warning.
    pub ids_bytes_max: u64,
    /// Bytes that saves leave free on the disk: they answer [`StoreFault::Full`] rather than let the database run into a
    /// full disk, which would break it for the rest of the process. 24 MiB: its memory tables flushed twice over.
    pub reserve_bytes: u64,
    /// How often what was written is synced to the disk, in the background.
    pub persist_every: Duration,
    /// Records of a log from which on [`StateStore::rebuild`] is worth it, 1 or more. 20,000: fewer are no burden for a
    /// journal.
    pub rebuild_records_min: u64,
    /// Bytes of records that each thread of a rebuild folds before it writes tables. 12 MiB: with their states some 30 MB.
    pub rebuild_run_bytes: usize,
}

impl StoreOptions {
    /// The same with write buffers of this many bytes, and the room that their files need left on the disk; never less room
    /// than before.
    #[must_use]
    pub fn with_write_buffer(self, bytes: u64) -> Self {
        let reserve_bytes = self.reserve_bytes.max(RESERVED_BUFFERS * bytes);
        Self { write_buffer_bytes: bytes, reserve_bytes, ..self }
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 32 << 20,
            write_buffer_bytes: 2 << 20,
            ids_bytes_max: 1 << 30,
            reserve_bytes: RESERVED_BUFFERS * (2 << 20),
            persist_every: Duration::from_secs(1),
            rebuild_records_min: 20_000,
            rebuild_run_bytes: 12 << 20,
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

/// Who holds a partition, as the last claim that counts says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The term. 0 before the first claim.
    pub epoch: Epoch,
    /// What the claimant drew for it.
    pub nonce: Nonce,
    /// Who claimed it; `None` before the first claim, and where an earlier version of this program had folded it.
    pub claimant: Option<Owner>,
    /// Whether it was given back since, or never claimed.
    pub released: bool,
}

/// How far a partition is folded: where, the time of its last commit, and who claimed it last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Progress {
    checkpoint: Checkpoint,
    recorded_at: Timestamp,
    claimant: Option<Owner>,
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
    log: LogId,
    directory: PathBuf,
    options: StoreOptions,
    identity: Identity,
    is_dirty: Arc<AtomicBool>,
    /// Whether the database met a full disk and is to be opened again before anything is written.
    is_broken: AtomicBool,
    /// Whether there was too little room at some time since the last batch was written.
    was_short: AtomicBool,
    reopening: Mutex<()>,
    calendar: Mutex<Calendar>,
    progress: RwLock<Vec<Progress>>,
    forgotten_before: RwLock<Option<Timestamp>>,
    /// `None` while a database that met a full disk cannot be opened again.
    opened: RwLock<Option<Open>>,
}

impl<R: Reactor> StateStore<R> {
    /// Opens the store of `log` in `directory`, which is its alone, or makes it. What was written for another log, by
    /// another version of the decider, in another format, or is damaged, is wiped and to be folded afresh.
    ///
    /// # Errors
    /// If another process holds it, or the disk refuses.
    pub fn open(
        directory: &Path,
        log: LogId,
        partitions: u16,
        decider: Arc<R>,
        options: StoreOptions,
    ) -> Result<(Self, Opened), StoreFault> {
        let identity = Identity { format: keys::FORMAT, log, partitions, decider: decider.version() };
        let (tables, remains, opened) = tables::open(directory, &identity, &options)?;
        tables.show_buckets(&remains.calendar, &options)?;
        let is_dirty = Arc::new(AtomicBool::new(false));
        let open = Open::start(directory, tables, &is_dirty, &options)
            .map_err(|source| StoreFault::Directory { directory: directory.to_owned(), source: Arc::new(source) })?;
        let store = Self {
            decider,
            log,
            directory: directory.to_owned(),
            options,
            identity,
            is_dirty,
            is_broken: AtomicBool::new(false),
            was_short: AtomicBool::new(false),
            reopening: Mutex::new(()),
            forgotten_before: RwLock::new(remains.calendar.forgotten_before()),
            calendar: Mutex::new(remains.calendar),
            progress: RwLock::new(remains.progress),
            opened: RwLock::new(Some(open)),
        };
        Ok((store, opened))
    }

    /// The business whose states these are.
    pub fn decider(&self) -> &Arc<R> {
        &self.decider
    }

    /// How many partitions the log has.
    pub fn partitions(&self) -> u16 {
        u16::try_from(self.progress.read().len()).expect("made from a u16")
    }

    /// How far `partition` is folded, and the time of its last commit (1970 before the first).
    ///
    /// # Panics
    /// If the log has no such partition.
    pub fn checkpoint(&self, partition: Partition) -> (Checkpoint, Timestamp) {
        let Progress { checkpoint, recorded_at, .. } = self.progress_of(partition);
        (checkpoint, recorded_at)
    }

    /// Who holds `partition`, as far as it is folded here.
    ///
    /// # Panics
    /// If the log has no such partition.
    pub fn holder(&self, partition: Partition) -> Holder {
        let Progress { checkpoint, claimant, .. } = self.progress_of(partition);
        Holder { epoch: checkpoint.epoch, nonce: checkpoint.nonce, claimant, released: !checkpoint.open }
    }

    fn progress_of(&self, partition: Partition) -> Progress {
        self.progress.read()[usize::from(partition.0)].clone()
    }

    /// A UUIDv7 from before this time may have been used and forgotten; `None` as long as none was forgotten. Never moves
    /// back. Feed it to the shards as `Input::Forgotten` when it has moved.
    pub fn forgotten_before(&self) -> Option<Timestamp> {
        *self.forgotten_before.read()
    }

    /// Syncs to the disk what was written so far. Happens by itself every [`StoreOptions::persist_every`], and on drop.
    pub fn persist(&self) -> Result<(), StoreFault> {
        self.is_dirty.store(false, Ordering::Release);
        let tables = self.tables()?;
        self.written(tables.database.persist(PersistMode::SyncAll).map_err(StoreFault::from))
    }

    /// Whether it was found to be of no use: then the next opening folds it afresh.
    pub fn is_condemned(&self) -> bool {
        tables::is_condemned(&self.directory)
    }

    /// Condemns the store if the database says that it is damaged, or the disk failed.
    fn checked<T>(&self, result: fjall::Result<T>) -> Result<T, StoreFault> {
        result.map_err(|error| {
            if reopening::is_doubtful(&error) {
                tables::condemn(&self.directory);
            }
            StoreFault::from(error)
        })
    }

    /// Condemns the store if what was read from it is damaged, or contradicts the log: what it lost, the log has.
    fn checked_fault<T>(&self, result: Result<T, StoreFault>) -> Result<T, StoreFault> {
        if let Err(StoreFault::Damaged(_) | StoreFault::Gap { .. }) = &result {
            tables::condemn(&self.directory);
        }
        result
    }
}
