//! The projection runner: it follows a log, folds events into rows and commits rows and checkpoints together. Alone with
//! its store it is one task for all partitions; where nodes share a store, a few tasks for the partitions that are this
//! node's to feed ([`Sharing`]), and an ear for what the others fed. Woken by the log, never polling. What it cannot fold it parks by stream, visibly, and goes on
//! with the others. It has no way to issue a command.

pub mod cache;
mod check;
mod folder;
mod operations;
mod parking;
mod published;
mod rows;
mod scan;
mod shared;
mod tail;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use engine::cache::Tail;
use engine::log::{Log, WakerGuard};
use engine::ports::Clock;
use engine::position::{Checkpoint, Offset, Partition, Position, Positions, Version};
use engine::read_store::{Progress, ReadStore, StoreFault};
use engine::record::Genesis;
use engine::stream::{StreamId, StreamName, Tenant};
use engine::time::Timestamp;
use engine::view::{Column, ColumnKind, Table, View};
use metrics::gauge;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::cache::{CacheOptions, ReadCache};
pub use self::check::{CheckState, Difference, Scope, Side};
pub use self::operations::{BesideState, BesideWord, Denied, Operations, OperationsParts, Scratch, State};
use self::published::Published;
use self::worker::{Source, Worker};

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
    /// Bytes read from one partition before the others have their turn.
    pub read_bytes_max: usize,
    /// Rows kept in memory so that the next event needs no load; up to twice as many for moments.
    pub rows_cached_max: usize,
    /// Where nodes share a store: workers at once, each with its own partitions and transactions, 1 or more.
    pub workers: usize,
    /// Rows kept for readers.
    pub cache: CacheOptions,
}

impl Default for ProjectionOptions {
    fn default() -> Self {
        Self {
            name: "main",
            batch_events_max: 5_000,
            read_bytes_max: 64 << 10,
            rows_cached_max: 2_048,
            workers: 2,
            cache: CacheOptions::default(),
        }
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
    /// An operator's decision not to try it any more: its rows are shown as they were before that event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<Dropped>,
}

/// Who decided that a parked stream is dropped, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// When.
    pub at: Timestamp,
    /// Who, if it was said.
    pub by: Option<Arc<str>>,
    /// Why, if it was said.
    pub why: Option<Arc<str>>,
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
    /// The log cannot be read, or holds what this program does not understand.
    #[error("the log cannot be read: {0}")]
    Log(String),
    /// The runner itself went wrong.
    #[error("the projection went wrong: {0}")]
    Wrong(String),
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

/// How a projection shares its store with those of other nodes.
#[derive(Clone)]
pub struct Sharing {
    /// The partitions that this node is to feed now. A hint: two may feed one partition for a while, and the checkpoint
    /// lets one of them.
    pub feeds: watch::Receiver<Arc<BTreeSet<Partition>>>,
    /// How far the store is, whoever fed it.
    pub progress: watch::Receiver<Arc<Progress>>,
    /// Where the log really ends, if the log that is read is a copy that may be behind; `None` from it while nobody knows.
    /// A store that is ahead of this end is refused; one that is ahead of the copy only waits for it.
    pub log_end: Option<Arc<dyn Fn(Partition) -> Option<Offset> + Send + Sync>>,
}

/// A running projection. Clones are the same projection; it ends, after the running commit, when the last is dropped.
#[derive(Clone)]
pub struct Projection {
    following: Arc<Following>,
    shared: bool,
}

/// Held by projections only, not by the task.
struct Following {
    published: Arc<Published>,
    stop: CancellationToken,
    /// Empties what is kept of rows when other tables come into use.
    _switched: Option<WakerGuard>,
}

impl Following {
    fn new(published: Arc<Published>, stop: CancellationToken, store: &dyn ReadStore) -> Arc<Self> {
        let cache = Arc::clone(&published.cache);
        let _switched = store.on_switched(Arc::new(move || cache.clear()));
        Arc::new(Self { published, stop, _switched })
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Projection {
    /// Opens the store, refuses one of another log or ahead of its log, tries parked streams again, and follows.
    ///
    /// # Errors
    /// If the store or the log cannot be used; nothing is left running then.
    pub async fn start<V: View>(
        log: Arc<dyn Log>,
        genesis: &Genesis,
        view: Arc<V>,
        store: Arc<dyn ReadStore>,
        clock: Arc<dyn Clock>,
        options: ProjectionOptions,
    ) -> Result<Self, ProjectionFault> {
        let cache = ReadCache::new(genesis.partitions, Tail::Committed, &options.cache);
        let published = Published::new(genesis.partitions, options.name, cache);
        let stop = CancellationToken::new();
        let source = Source {
            log,
            genesis: *genesis,
            view,
            store,
            clock,
            options,
            published: published.clone(),
            end: None,
            shared: false,
        };
        let all = (0..genesis.partitions).map(Partition).collect();
        let following = Following::new(published, stop.clone(), source.store.as_ref());
        let worker = Worker::open(source, 0, all, stop).await?;
        tokio::spawn(worker.run_alone());
        Ok(Self { following, shared: false })
    }

    /// Feeds what is this node's to feed of a store that nodes share, and hears of the rest. Returns at once: a store that
    /// does not answer is waited for, and says so in [`Projection::status`].
    pub fn start_shared<V: View>(
        log: Arc<dyn Log>,
        genesis: &Genesis,
        view: Arc<V>,
        store: Arc<dyn ReadStore>,
        clock: Arc<dyn Clock>,
        sharing: Sharing,
        options: ProjectionOptions,
    ) -> Self {
        let cache = ReadCache::new(genesis.partitions, Tail::Ahead(options.cache.touched_max), &options.cache);
        let published = Published::new(genesis.partitions, options.name, cache);
        let stop = CancellationToken::new();
        let source = Source {
            log,
            genesis: *genesis,
            view,
            store,
            clock,
            options,
            published: published.clone(),
            end: sharing.log_end.clone(),
            shared: true,
        };
        let following = Following::new(published, stop.clone(), source.store.as_ref());
        tokio::spawn(tail::follow(source.clone(), stop.clone()));
        tokio::spawn(shared::Supervisor::new(source, sharing, stop).run());
        Self { following, shared: true }
    }

    /// Whether rows that were read together with these checkpoints reflect all these records. Alone with its store a
    /// projection knows without looking (what [`Projection::wait_for`] waited for is there). A shared store is a world of
    /// its own: it may have been set back, by a backup or a fail-over, since anybody told where it is.
    ///
    /// # Errors
    /// If they do not: how far they are.
    pub fn reflects(&self, checkpoints: &BTreeMap<Partition, Checkpoint>, positions: &Positions) -> Result<(), Behind> {
        let next = |partition| checkpoints.get(&partition).map_or(Offset(0), |checkpoint| checkpoint.next_offset);
        if !self.shared || positions.iter().all(|position| next(position.partition) > position.offset) {
            return Ok(());
        }
        let mut at = Positions::default();
        for (partition, checkpoint) in checkpoints {
            if let Some(offset) = checkpoint.next_offset.0.checked_sub(1).map(Offset) {
                at.reach(Position { partition: *partition, offset });
            }
        }
        Err(Behind { at })
    }

    /// Each partition's next offset: all records before are in the rows.
    pub fn watermark(&self) -> Vec<Offset> {
        self.following.published.watermark.borrow().clone()
    }

    /// Waits until all these records are in the rows.
    ///
    /// # Errors
    /// If they are not within this time, or the projection ended; how far it is.
    pub async fn wait_for(&self, positions: &Positions, within: Duration) -> Result<(), Behind> {
        let published = &self.following.published;
        let mut status = published.status.subscribe();
        let all = async {
            // One after the other, and from the first again should one be taken back meanwhile.
            while let Some(missing) = positions.iter().find(|position| !self.has(*position)) {
                let mut waiter = published.waiters.wait_for(missing);
                if !self.has(missing) {
                    waiter.woken().await;
                }
            }
        };
        if self.has_all(positions) {
            return Ok(());
        }
        let _waiting = published.wait();
        let in_time = tokio::time::timeout(within, async {
            tokio::select! {
                biased;
                () = all => true,
                _ = status.wait_for(is_over) => false,
            }
        });
        if in_time.await.unwrap_or(false) {
            return Ok(());
        }
        published.behind.increment(1);
        Err(Behind { at: self.at() })
    }

    /// Whether all these records are in the rows now.
    pub fn has_all(&self, positions: &Positions) -> bool {
        positions.iter().all(|position| self.has(position))
    }

    /// Whether this record is in the rows.
    fn has(&self, position: Position) -> bool {
        let watermark = self.following.published.watermark.borrow();
        watermark.get(usize::from(position.partition.0)).is_some_and(|next| *next > position.offset)
    }

    /// Rows at hand for those who read.
    pub fn cache(&self) -> &Arc<ReadCache> {
        &self.following.published.cache
    }

    /// Tells of itself what is only looked up when somebody scrapes: see [`ReadCache::measure`].
    pub fn measure(&self) {
        let published = &self.following.published;
        published.cache.measure();
        gauge!("docket_projection_waiters", "projection" => published.name).set(published.waiters.count() as f64);
    }

    /// The furthest folded record of each partition.
    fn at(&self) -> Positions {
        let mut positions = Positions::default();
        for (partition, next) in (0..).map(Partition).zip(self.watermark()) {
            if let Some(offset) = next.0.checked_sub(1).map(Offset) {
                positions.reach(Position { partition, offset });
            }
        }
        positions
    }

    /// The streams set aside.
    pub fn parked(&self) -> Vec<Parked> {
        self.following.published.parked.read().values().cloned().collect()
    }

    /// Whether this stream is set aside: its rows are stale.
    pub fn is_parked(&self, tenant: &Tenant, stream: &StreamName) -> bool {
        let parked = self.following.published.parked.read();
        !parked.is_empty() && parked.contains_key(&StreamId { tenant: tenant.clone(), name: stream.clone() })
    }

    /// How a stream is set aside, if it is.
    pub fn parked_as(&self, tenant: &Tenant, stream: &StreamName) -> Option<Parked> {
        let parked = self.following.published.parked.read();
        if parked.is_empty() {
            return None;
        }
        parked.get(&StreamId { tenant: tenant.clone(), name: stream.clone() }).cloned()
    }

    /// News of what is parked: changes whenever it is told.
    fn parked_news(&self) -> watch::Receiver<()> {
        self.following.published.parked_news.subscribe()
    }

    /// Waits until what is parked is told from this generation of the store's tables, or the projection has ended.
    async fn tells_of(&self, generation: i64) {
        let published = &self.following.published;
        let mut status = published.status.subscribe();
        tokio::select! {
            () = published.tells_of(generation) => {}
            _ = status.wait_for(is_over) => {}
        }
    }

    /// Events folded since the start.
    pub fn events(&self) -> u64 {
        self.following.published.events.load(Ordering::Relaxed)
    }

    /// Whether little was left to fold at some time since the start, and the store has done what it keeps for then.
    pub fn is_caught_up(&self) -> bool {
        *self.following.published.caught_up.borrow()
    }

    /// How it stands.
    pub fn status(&self) -> ProjectionStatus {
        self.following.published.status.borrow().clone()
    }

    /// Ends after the running commit, and waits for that.
    pub async fn stop(&self) {
        self.following.stop.cancel();
        let mut status = self.following.published.status.subscribe();
        // The sender lives as long as this projection.
        let _ = status.wait_for(is_over).await;
    }
}

/// Whether a projection has ended.
fn is_over(status: &ProjectionStatus) -> bool {
    matches!(status, ProjectionStatus::Stopped | ProjectionStatus::Failed(_))
}
