//! The projection runner: one task that follows all partitions of a log, folds events into rows and commits rows and
//! checkpoints together. Woken by the log, never polling. What it cannot fold it parks by stream, visibly, and goes on
//! with the others. It has no way to issue a command.

use std::sync::Arc;
use std::time::Duration;

use engine::log::Log;
use engine::ports::Clock;
use engine::position::{Offset, Partition, Positions, Version};
use engine::read_store::{ReadStore, StoreFault};
use engine::record::Genesis;
use engine::stream::{StreamName, Tenant};
use engine::view::{Column, ColumnKind, Table, View};
use serde::{Deserialize, Serialize};

/// Where parked streams are kept. The read store of a projection must have this table beside those of its view.
pub const PARKED_TABLE: Table =
    Table { name: "parked", columns: &[Column { name: "partition", kind: ColumnKind::Integer }] };

/// What a projection bounds.
#[derive(Clone, Debug)]
pub struct ProjectionOptions {
    /// Its name, in metrics and logs.
    pub name: &'static str,
    /// Events folded in one transaction. 5,000: more no longer helps throughput and hurts freshness.
    pub batch_events_max: usize,
    /// Bytes read from one partition for one batch.
    pub read_bytes_max: usize,
    /// Rows kept in memory so that the next event needs no load; up to twice as many for moments.
    pub rows_cached_max: usize,
}

impl Default for ProjectionOptions {
    fn default() -> Self {
        Self { name: "main", batch_events_max: 5_000, read_bytes_max: 1 << 20, rows_cached_max: 16_384 }
    }
}

/// A stream set aside because one of its events cannot be folded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// Whose.
    pub tenant: Tenant,
    /// Which.
    pub stream: StreamName,
    /// Its partition.
    pub partition: Partition,
    /// The record with the first event that is not folded.
    pub offset: Offset,
    /// That event's version; all later ones of the stream wait behind it.
    pub version: Version,
    /// How many events wait, that one included.
    pub waiting: u64,
    /// What is wrong with it.
    pub why: String,
}

/// Why a projection did not start or has stopped.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProjectionFault {
    /// The read store refused or failed for good.
    #[error("the read store cannot be used")]
    Store(#[source] Arc<StoreFault>),
    /// The read store reflects records that the log does not have: the log was restored from an older copy, or is
    /// another.
    #[error("the read store is ahead of the log: partition {partition} at {store}, the log ends at {log}")]
    AheadOfLog {
        /// Which partition.
        partition: Partition,
        /// The store's next offset.
        store: Offset,
        /// The log's end.
        log: Offset,
    },
    /// The log cannot be read.
    #[error("the log cannot be read: {0}")]
    Log(String),
}

/// How a projection stands.
#[derive(Clone, Debug)]
pub enum ProjectionStatus {
    /// Following.
    Running,
    /// The read store does not answer; tried again with back-off. Why.
    Waiting(String),
    /// Ended by [`Projection::stop`].
    Stopped,
    /// Ended by a fault.
    Failed(ProjectionFault),
}

/// How far a projection is behind what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the read model is at {at}")]
pub struct Behind {
    /// The furthest folded record of each partition.
    pub at: Positions,
}

/// A running projection. Clones are the same projection.
#[derive(Clone)]
pub struct Projection {}

impl Projection {
    /// Opens the store, refuses one of another log or ahead of its log, tries parked streams again, and follows.
    pub async fn start<V: View>(
        log: Arc<dyn Log>,
        genesis: &Genesis,
        view: Arc<V>,
        store: Arc<dyn ReadStore>,
        clock: Arc<dyn Clock>,
        options: ProjectionOptions,
    ) -> Result<Self, ProjectionFault> {
        let _ = (log, genesis, view, store, clock, options);
        unimplemented!("being laid")
    }

    /// Each partition's next offset: all records before are in the rows.
    pub fn watermark(&self) -> Vec<Offset> {
        unimplemented!("being laid")
    }

    /// Waits until all these records are in the rows.
    pub async fn wait_for(&self, positions: &Positions, within: Duration) -> Result<(), Behind> {
        let _ = (positions, within);
        unimplemented!("being laid")
    }

    /// The streams set aside.
    pub fn parked(&self) -> Vec<Parked> {
        unimplemented!("being laid")
    }

    /// Whether this stream is set aside: its rows are stale.
    pub fn is_parked(&self, tenant: &Tenant, stream: &StreamName) -> bool {
        let _ = (tenant, stream);
        unimplemented!("being laid")
    }

    /// How it stands.
    pub fn status(&self) -> ProjectionStatus {
        unimplemented!("being laid")
    }

    /// Ends after the running commit.
    pub async fn stop(&self) {
        unimplemented!("being laid")
    }
}
