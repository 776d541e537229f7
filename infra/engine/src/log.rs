//! The port to the log: totally ordered, append-only partitions of opaque records. Whether a record *counts* is not the
//! log's affair: the accept fold decides that, the same for every reader. Implementations never block the caller of
//! [`Appender::append`]; reads may wait for a disk and are made off the shards.

use std::sync::Arc;

use bytes::Bytes;

use crate::position::{LogId, Offset, Partition};

/// Most bytes one record may have.
pub const RECORD_BYTES_MAX: usize = 1 << 20;

/// A log.
pub trait Log: Send + Sync + 'static {
    /// Which log it is, as its `Genesis` says.
    fn id(&self) -> LogId;

    /// How many partitions it has.
    fn partitions(&self) -> u16;

    /// A handle to append to `partition`. Deliveries go to `sink`, in the order of the appends. Taking a second one for
    /// the same partition is allowed (two writers are fenced by the fold, not here).
    fn appender(&self, partition: Partition, sink: Arc<dyn DeliverySink>) -> Box<dyn Appender>;

    /// Durable records of `partition` from `from` on, in order without gaps, at least one if there is one, then as many
    /// as fit `bytes_max`. Empty at the end. May block on a disk.
    fn read(&self, partition: Partition, from: Offset, bytes_max: usize) -> Result<Vec<Stored>, LogFault>;

    /// The offset after the last durable record.
    fn end(&self, partition: Partition) -> Offset;

    /// The offset after the last record that anybody had durably appended when this was called. Where the log that `read`
    /// reads is a copy that follows another (Kafka), this asks the other one, may wait for the network, and may be
    /// further than `end`, which then gets there by itself. Before a partition is claimed, and after a claim whose offset
    /// is not known, the reader goes this far.
    ///
    /// # Errors
    /// [`LogFault::Unreadable`] if the other one cannot be asked now: whoever needs it asks again.
    fn catch_up_end(&self, partition: Partition) -> Result<Offset, LogFault> {
        Ok(self.end(partition))
    }

    /// Calls `waker` after `end` of any partition moved, from now on until the returned guard is dropped. Calls may be
    /// merged; one follows every move. The waker must be quick and must not call the log.
    fn on_append(&self, waker: Arc<dyn Fn() + Send + Sync>) -> WakerGuard;
}

/// Keeps a waker registered; dropping it takes it away.
pub struct WakerGuard(Option<Box<dyn FnOnce() + Send + Sync>>);

impl WakerGuard {
    /// A guard that runs `remove` when dropped.
    pub fn new(remove: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(remove)))
    }
}

impl Drop for WakerGuard {
    fn drop(&mut self) {
        if let Some(remove) = self.0.take() {
            remove();
        }
    }
}

/// A record as the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its offset.
    pub offset: Offset,
    /// Its bytes.
    pub bytes: Bytes,
}

/// A writer's handle to one partition.
pub trait Appender: Send {
    /// Hands a record over and returns at once. Exactly one delivery with this tag follows, unless the process dies.
    fn append(&mut self, tag: u64, record: Bytes);

    /// The same for several at once, in order: a log that can takes them as a whole, so that they share a flush.
    fn append_all(&mut self, records: &mut Vec<(u64, Bytes)>) {
        for (tag, record) in records.drain(..) {
            self.append(tag, record);
        }
    }
}

/// Where deliveries go.
pub trait DeliverySink: Send + Sync {
    /// What became of records handed over, in their order. Called from the log's own thread: be quick, do not call the
    /// log.
    fn delivered(&self, deliveries: Vec<Delivery>);
}

/// What became of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The tag it was handed over with.
    pub tag: u64,
    /// Its offset, once it is durable; `Ok(None)` if it is durable but the log cannot say where.
    pub result: Result<Option<Offset>, AppendError>,
}

/// Why an append was not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// No room. The record is certainly not in the log; later ones may succeed once there is room.
    #[error("the log is full")]
    Full,
    /// The writer has stopped for good (a flush failed). Whether the record is in the log is unknown until it is opened
    /// again.
    #[error("the log's writer has stopped")]
    Stopped,
    /// Nobody knows whether the record is, or will be, in the log.
    #[error("the append's outcome is unknown")]
    Unknown,
    /// Larger than [`RECORD_BYTES_MAX`]. Certainly not in the log.
    #[error("the record is too large")]
    TooLarge,
}

/// The log cannot be read or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogFault {
    /// Bytes that were durable are not what was written.
    #[error("log damaged at {place}: {what}")]
    Damaged {
        /// File and byte, or partition and offset.
        place: String,
        /// What is wrong there.
        what: String,
    },
    /// Reading failed for a reason that may pass.
    #[error("cannot read the log: {0}")]
    Unreadable(String),
}
