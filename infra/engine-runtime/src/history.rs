//! Reads of what happened: single records, a stream's events, a partition's events, and states as of any version, folded
//! with the real code. The state store's index says where, the log says what. Every method waits for a disk off the async
//! tasks, and at most [`READS_MAX`] do so at once.

use std::sync::Arc;

use engine::decider::Decider;
use engine::event::Recorded;
use engine::log::Log;
use engine::position::{Checkpoint, Partition, Position, Version};
use engine::record::Commit;
use engine::saga::Reactor;
use engine::stream::{StreamName, Tenant};

use crate::store::{Direction, StateStore, StoreFault};

/// Reads that may wait for a disk at once. 16: a laptop's disk gains nothing beyond, and they share the blocking threads
/// with the shards' cold loads.
pub const READS_MAX: usize = 16;

/// Reads of what happened. Cheap to clone.
pub struct History<R: Reactor> {
    log: Arc<dyn Log>,
    store: Arc<StateStore<R>>,
}

impl<R: Reactor> Clone for History<R> {
    fn clone(&self) -> Self {
        Self { log: Arc::clone(&self.log), store: Arc::clone(&self.store) }
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
    /// The reading task was cut off (the process is shutting down).
    #[error("the read was cut off")]
    CutOff,
}

/// The events of one stream, out of its partition.
pub type Events<R> = Vec<Recorded<<R as Decider>::Event>>;

impl<R: Reactor> History<R> {
    /// Over this log and this store.
    pub fn new(log: Arc<dyn Log>, store: Arc<StateStore<R>>) -> Self {
        Self { log, store }
    }

    /// The commit at `position`, which must be effective (the index and remembered ids only name such).
    pub async fn record_at(&self, _position: Position) -> Result<Commit, HistoryFault> {
        unimplemented!("being written")
    }

    /// Events `from..=to` of a stream in this direction: at most `limit`. Only effective ones, as far as the store has
    /// folded.
    pub async fn read_stream(
        &self,
        _tenant: &Tenant,
        _stream: &StreamName,
        _from: Version,
        _to: Version,
        _direction: Direction,
        _limit: usize,
    ) -> Result<Events<R>, HistoryFault> {
        unimplemented!("being written")
    }

    /// Effective events of a partition from `cursor` on, in about `bytes_max` bytes of records, and where to go on. Both
    /// are unchanged only at the end of the log.
    pub async fn read_partition(
        &self,
        _partition: Partition,
        _cursor: Checkpoint,
        _bytes_max: usize,
    ) -> Result<(Events<R>, Checkpoint), HistoryFault> {
        unimplemented!("being written")
    }

    /// What a stream amounted to at `version`; `None` if it never had that many events.
    pub async fn state_at(
        &self,
        _tenant: &Tenant,
        _stream: &StreamName,
        _version: Version,
    ) -> Result<Option<Arc<R::State>>, HistoryFault> {
        unimplemented!("being written")
    }
}
