//! What to open and what opening found. Opening never guesses: a torn end is cut and reported, everything else that is
//! not as it was written is a fault with its file and byte, and nothing on disk is touched before that is decided.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use engine::log::RECORD_BYTES_MAX;
use engine::position::{LogId, Offset, Partition};
use engine::record::Genesis;

use crate::disk::{Disk, RealDisk};
use crate::layout::GROUP_BODY_BYTES_LIMIT;

/// How long the writer waits after a group before it seals it with an empty one.
pub(crate) const SEAL_AFTER: Duration = Duration::from_millis(50);
/// Most bytes that may wait for the writer. Shards bound what they have in flight far below; reaching this means that
/// somebody does not, and the record is delivered as unknown.
pub(crate) const QUEUE_BYTES_MAX: usize = 1 << 30;
/// Bytes of a log kept in memory for readers unless [`Options::cache_bytes`] says otherwise.
pub const CACHE_BYTES: usize = 32 << 20;
/// What a record at the end of the log is taken to weigh at least: so that small ones, whose places take room too, are
/// bounded as well.
const TAIL_RECORD_BYTES_MIN: usize = 64;

/// What stores have folded of the log of this id and so many partitions.
pub type KnownDurable = Arc<dyn Fn(LogId, u16) -> BTreeMap<Partition, Offset> + Send + Sync>;

/// How to open a log.
#[derive(Clone)]
pub struct Options {
    /// What to found if the directory is empty; without it an empty directory is refused. Of no meaning where there is
    /// a log already.
    pub genesis: Option<Genesis>,
    /// Bytes of the first segment: small, so that a new log is there at once.
    pub segment_bytes_first: u64,
    /// Bytes of every later segment, made in the background.
    pub segment_bytes: u64,
    /// Most bytes of records flushed together, 16 KiB to 8 MiB. A single record may be larger.
    pub group_bytes_max: usize,
    /// About how many bytes of a segment lie between two entries of its index: the unit of reading and verifying.
    pub block_bytes: u64,
    /// Most bytes kept in memory for readers: half of it verified blocks, a quarter indexes of sealed segments, an eighth
    /// their headers, an eighth the end of the log. Of each the newest block, index and header stay, however large.
    pub cache_bytes: usize,
    /// Says what stores elsewhere have folded of this log, as the offset each would read next. Asked once the directory is
    /// locked and before anything is cut: a log that ends before that is refused, for its missing end was durable once.
    pub known_durable: KnownDurable,
    /// The disk to write on.
    pub disk: Arc<dyn Disk>,
}

impl Options {
    /// For the log that is there.
    pub fn existing() -> Self {
        Self {
            genesis: None,
            segment_bytes_first: 8 << 20,
            segment_bytes: 64 << 20,
            group_bytes_max: 1 << 20,
            block_bytes: 64 << 10,
            cache_bytes: CACHE_BYTES,
            known_durable: Arc::new(|_, _| BTreeMap::new()),
            disk: Arc::new(RealDisk),
        }
    }

    /// For the log that is there, or a new one.
    pub fn or_found(genesis: Genesis) -> Self {
        Self { genesis: Some(genesis), ..Self::existing() }
    }

    pub(crate) fn caches(&self) -> CacheSizes {
        let whole = self.cache_bytes;
        let tail = whole / 8;
        CacheSizes {
            blocks: whole / 2,
            indexes: whole / 4,
            headers: whole / 8,
            tail,
            tail_records: tail / TAIL_RECORD_BYTES_MIN,
        }
    }

    pub(crate) fn group_bytes_max(&self) -> usize {
        const { assert!(RECORD_BYTES_MAX * 2 < GROUP_BODY_BYTES_LIMIT, "a group can hold any record") }
        self.group_bytes_max.clamp(16 << 10, 8 << 20)
    }
}

/// Most of each that is kept in memory for readers, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct CacheSizes {
    /// Verified blocks.
    pub(crate) blocks: usize,
    /// Indexes of sealed segments.
    pub(crate) indexes: usize,
    /// Headers of sealed segments.
    pub(crate) headers: usize,
    /// Groups at the end of the log.
    pub(crate) tail: usize,
    /// Records in them; a number.
    pub(crate) tail_records: usize,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the genesis: it holds the fingerprint key.
        f.debug_struct("Options")
            .field("founds", &self.genesis.is_some())
            .field("segment_bytes_first", &self.segment_bytes_first)
            .field("segment_bytes", &self.segment_bytes)
            .field("group_bytes_max", &self.group_bytes_max)
            .field("block_bytes", &self.block_bytes)
            .field("cache_bytes", &self.cache_bytes)
            .finish_non_exhaustive()
    }
}

/// What opening found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenReport {
    /// Whether the log was founded just now.
    pub founded: bool,
    /// How many segments there are.
    pub segments: u64,
    /// How many bytes were read to find the end; bounded by a segment, however large the log.
    pub bytes_scanned: u64,
    /// Whether the log was closed, or idle, before it was opened: nothing was in flight.
    pub sealed: bool,
    /// What was cut off the end.
    pub torn: Option<TornTail>,
    /// How long it took.
    pub took: Duration,
}

/// A group at the end of the log that was only partly written, and so was never acknowledged. It is overwritten with
/// zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment it was in.
    pub file: PathBuf,
    /// The byte it started at.
    pub offset: u64,
    /// How many bytes of it there were.
    pub bytes: u64,
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenFault {
    /// Another process has it.
    #[error("the log in {directory} is in use by process {pid}")]
    InUse {
        /// Where.
        directory: PathBuf,
        /// Which process, as it wrote it down.
        pid: String,
    },
    /// There is no log, and none was to be founded.
    #[error("there is no log in {directory}")]
    Absent {
        /// Where.
        directory: PathBuf,
    },
    /// What is there is the copy of a log that lives elsewhere: nothing may be appended to it.
    #[error("{directory} holds the copy of a log, not the log itself: open it where it lives")]
    Copy {
        /// Where.
        directory: PathBuf,
    },
    /// Written by a newer version of this program.
    #[error("{file} needs a newer version of this program: {what}")]
    TooNew {
        /// Which file.
        file: PathBuf,
        /// What in it is newer.
        what: String,
    },
    /// What was durable is not as it was written, or is gone.
    #[error("the log is damaged in {file} at byte {offset}: {what}")]
    Damaged {
        /// Which file.
        file: PathBuf,
        /// The first byte of what is damaged.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The log is whole but ends before what a store has folded already: it is an older copy, or another log.
    #[error("partition {partition} ends at offset {end}, but a store has folded it up to {required}")]
    Behind {
        /// Which partition.
        partition: Partition,
        /// Where it ends.
        end: Offset,
        /// Where it should at least.
        required: Offset,
    },
    /// The disk failed, or the operating system refused.
    #[error("cannot {doing} {file}")]
    Disk {
        /// What was tried.
        doing: &'static str,
        /// On what.
        file: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
}
