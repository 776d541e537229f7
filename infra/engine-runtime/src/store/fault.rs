//! What can go wrong with the state store. All of these are faults: the world broke, and an operator is told. A store
//! that is merely lost, foreign or outdated is no fault: it is folded afresh.

use std::path::PathBuf;
use std::sync::Arc;

use engine::event::UnreadableEvent;
use engine::log::LogFault;
use engine::position::{LogId, Offset, Partition, Position, Version};
use engine::record::UnreadableRecord;
use engine::stream::StreamId;

/// Why the state store cannot go on.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreFault {
    /// Another process holds the directory.
    #[error("the state store {0:?} is in use by another process")]
    Locked(PathBuf),
    /// The disk or the file system refused.
    #[error("the state store {directory:?} cannot be used")]
    Directory {
        /// Where it is.
        directory: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// The disk has too little room left, or had none for a moment. Nothing is lost: try again when there is room.
    #[error("the state store {directory:?} found the disk full; {free_bytes} bytes are free")]
    Full {
        /// Where it is.
        directory: PathBuf,
        /// What the file system has left.
        free_bytes: u64,
    },
    /// The database below failed. It is condemned: the next opening folds it afresh.
    #[error("the state store's database failed")]
    Database(#[source] Arc<fjall::Error>),
    /// What lies in the store is not what was put there. It is condemned: the next opening folds it afresh.
    #[error("the state store is damaged: {0}")]
    Damaged(String),
    /// It was asked to fold another log than it was opened for.
    #[error("the state store is of log {store}, not of log {log}")]
    OtherLog {
        /// The log it was opened for.
        store: LogId,
        /// The log it was given.
        log: LogId,
    },
    /// A state that cannot be written as JSON.
    #[error("the state of {stream:?} cannot be written: {why}")]
    Unwritable {
        /// Whose state it is.
        stream: Box<StreamId>,
        /// What is wrong with it.
        why: String,
    },
    /// The store has folded further than the log reaches: the log lost its end, or is another one.
    #[error("the state store has folded partition {partition} up to {folded}, but its log ends at {end}")]
    AheadOfLog {
        /// Which partition.
        partition: Partition,
        /// The offset the store would read next.
        folded: Offset,
        /// The offset after the log's last record.
        end: Offset,
    },
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Log(#[from] LogFault),
    /// An effective record that this program cannot read.
    #[error("cannot read the record at {position}")]
    Record {
        /// Where it is.
        position: Position,
        /// What is wrong with it.
        #[source]
        source: UnreadableRecord,
    },
    /// An event that this program cannot read: without it the stream's state would be wrong.
    #[error("cannot read the event of {stream:?} at {position}")]
    Event {
        /// Where its record is.
        position: Position,
        /// Whose event it is.
        stream: Box<StreamId>,
        /// What is wrong with it.
        #[source]
        source: UnreadableEvent,
    },
    /// A stream's versions are not contiguous (LOG-1): the log and the store contradict each other.
    #[error("{stream:?} has version {found} at {position}, where {expected} should follow")]
    Gap {
        /// Where the record is.
        position: Position,
        /// Which stream.
        stream: Box<StreamId>,
        /// The version that should come.
        expected: Version,
        /// The version that came.
        found: Version,
    },
}

impl StoreFault {
    /// Whether the same call may succeed later, on the same open store.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Log(LogFault::Unreadable(_)))
    }
}

impl From<fjall::Error> for StoreFault {
    fn from(error: fjall::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}
