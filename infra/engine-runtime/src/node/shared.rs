//! What all tasks of a node share: its parts, the doors of its shards, and what they publish.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use engine::log::{Log, WakerGuard};
use engine::message::{Answer, CommandId, Envelope, Fingerprint, NoAnswer, Precondition, Provenance};
use engine::ports::{Chance, Clock};
use engine::position::{Offset, Partition, Position};
use engine::record::Genesis;
use engine::saga::Reactor;
use engine::stream::{StreamId, StreamName, Tenant, partition_of};
use metrics::{Counter, Gauge, counter, gauge};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cache::StateCache;
use super::errands::Errands;
use super::inbox::{Inbox, Knock};
use super::loader::Loader;
use super::routing::Route;
use super::saver::Saver;
use super::timers::Timers;
use super::{NodeOptions, PartitionStatus};
use crate::history::History;
use crate::outside::Outside;
use crate::peers::Peers;
use crate::store::{StateStore, StoreFault};
use crate::wanted::Wanted;
use crate::watch::{Current, Watches};

/// The way to one shard, and what it publishes.
pub(crate) struct Door<R: Reactor> {
    pub(crate) knocks: mpsc::Sender<Knock<R>>,
    /// Where its commands go.
    pub(crate) route: watch::Sender<Route>,
    /// Moves whenever the log's partition has grown, or may have.
    pub(crate) grown: watch::Receiver<u64>,
    /// The offset after the furthest effective record known here; 0 for none.
    pub(crate) acknowledged: AtomicU64,
    /// The present term, as counted by this process; what cache entries are kept under.
    pub(crate) term: AtomicU64,
    pub(crate) watches: Arc<Watches<R::State>>,
}

pub(crate) struct Shared<R: Reactor> {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) genesis: Genesis,
    pub(crate) store: Arc<StateStore<R>>,
    pub(crate) history: History<R>,
    pub(crate) decider: Arc<R>,
    pub(crate) outside: Arc<dyn Outside<R::Call, R::Returned>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) chance: Arc<dyn Chance>,
    pub(crate) node_name: String,
    pub(crate) address: String,
    pub(crate) wanted: Wanted,
    pub(crate) peers: Arc<dyn Peers<R>>,
    pub(crate) options: NodeOptions,
    pub(crate) doors: Vec<Door<R>>,
    /// Ways back to the shards, for what is looked up and read for them.
    pub(crate) inboxes: Vec<mpsc::UnboundedSender<Inbox<R>>>,
    pub(crate) cache: StateCache<R::State>,
    pub(crate) loader: Loader<R>,
    pub(crate) saver: Saver<R>,
    pub(crate) errands: Errands<R>,
    pub(crate) timers: Timers,
    pub(crate) status: watch::Sender<Vec<PartitionStatus>>,
    pub(crate) _waker: WakerGuard,
    /// Whether there is no other node, so that nobody else is to write to the log.
    pub(crate) alone: bool,
    /// What may still be on its way to other nodes.
    pub(crate) forwards: Arc<Semaphore>,
    /// Commands on their way to other nodes, and what tells of growth: ended by `stop` only.
    pub(crate) aside: TaskTracker,
    pub(crate) catch_ups: Semaphore,
    pub(crate) terms: AtomicU64,
    pub(crate) draining: AtomicBool,
    /// Errands and timers end.
    pub(crate) errands_end: CancellationToken,
    /// Shards drain.
    pub(crate) drain: CancellationToken,
    /// Everything ends at once.
    pub(crate) stop: CancellationToken,
    /// Shard tasks, dispatcher, timers.
    pub(crate) tasks: TaskTracker,
    pub(crate) turned_away: Counter,
    /// Commands that other nodes answered.
    pub(crate) forwarded: Counter,
    pub(crate) shard_in_flight: Vec<Gauge>,
}

impl<R: Reactor> Shared<R> {
    pub(crate) fn partition_of(&self, tenant: &Tenant, stream: &StreamName) -> Partition {
        partition_of(tenant, stream, self.genesis.partitions)
    }

    pub(crate) fn door(&self, partition: Partition) -> &Door<R> {
        &self.doors[usize::from(partition.0)]
    }

    /// Why a shard's door is closed.
    pub(crate) fn closed(&self) -> NoAnswer {
        if self.draining.load(Ordering::Acquire) { NoAnswer::Draining } else { NoAnswer::NotOwner }
    }

    /// A command of the node's own: the fingerprint follows from the id, because such an id always asks the same,
    /// whatever the program's version makes of the command's text.
    pub(crate) fn own_envelope(
        &self,
        id: CommandId,
        tenant: &Tenant,
        command: R::Command,
        provenance: Provenance,
    ) -> Option<Envelope<R::Command>> {
        let resource = self.decider.streams(&command).into_iter().next()?;
        Some(Envelope {
            id,
            tenant: tenant.clone(),
            resource,
            fingerprint: Fingerprint(*id.0.as_bytes()),
            precondition: Precondition::None,
            provenance,
            command: Some(command),
        })
    }

    /// How a stream stands, effective records not yet saved included.
    pub(crate) async fn current(self: &Arc<Self>, stream: &StreamId) -> Result<Option<Current<R::State>>, StoreFault> {
        let partition = self.partition_of(&stream.tenant, &stream.name);
        let term = self.door(partition).term.load(Ordering::Acquire);
        if let Some(current) = self.cache.get(term, stream) {
            return Ok(Some(current));
        }
        self.saver.flush().await?;
        let (shared, stream) = (self.clone(), stream.clone());
        blocking(move || {
            let Some(found) = shared.store.state(&stream.tenant, &stream.name)? else { return Ok(None) };
            let offset = shared.store.offset_of(&stream.tenant, &stream.name, found.version)?;
            let offset = offset.ok_or_else(|| {
                StoreFault::Damaged(format!("no record is known for version {} of {}", found.version, stream.name))
            })?;
            let position = Position { partition, offset };
            Ok(Some(Current { version: found.version, state: found.state, position }))
        })
        .await
    }

    pub(crate) fn set_status(&self, partition: Partition, status: PartitionStatus) {
        self.status.send_modify(|all| all[usize::from(partition.0)] = status);
    }

    pub(crate) fn is_leading(&self, partition: Partition) -> bool {
        matches!(self.status.borrow()[usize::from(partition.0)], PartitionStatus::Leading(_))
    }

    pub(crate) fn acknowledged(&self, partition: Partition) -> Option<Offset> {
        self.door(partition).acknowledged.load(Ordering::Acquire).checked_sub(1).map(Offset)
    }
}

pub(crate) type Answering<R> = oneshot::Receiver<Result<Answer<<R as engine::decider::Decider>::State>, NoAnswer>>;

pub(crate) async fn answer<S>(
    receiver: oneshot::Receiver<Result<Answer<S>, NoAnswer>>,
    deadline: Instant,
) -> Result<Answer<S>, NoAnswer> {
    match tokio::time::timeout_at(deadline, receiver).await {
        Ok(Ok(answer)) => answer,
        // The task ended with the command in it (the node was stopped at once): nobody knows.
        Ok(Err(_)) => Err(NoAnswer::Unconfirmed),
        Err(_) => Err(NoAnswer::TimedOut),
    }
}

/// Runs what may wait for a disk off the async tasks, to its end whatever becomes of the caller.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreFault> + Send + 'static,
) -> Result<T, StoreFault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(cut) if cut.is_panic() => Err(StoreFault::Damaged("reading it panicked".to_owned())),
        Err(_) => Err(StoreFault::Damaged("shutting down".to_owned())),
    }
}

/// What the state store's failing means to whoever asked.
pub(crate) fn no_answer(fault: &StoreFault) -> NoAnswer {
    if matches!(fault, StoreFault::Full { .. }) { NoAnswer::LogFull } else { NoAnswer::LogDamaged }
}

pub(crate) fn turned_away() -> Counter {
    counter!("docket_commands_total", "outcome" => "unknown")
}

pub(crate) fn forwarded() -> Counter {
    counter!("docket_commands_forwarded_total")
}

pub(crate) fn in_flight_gauges(partitions: u16) -> Vec<Gauge> {
    (0..partitions).map(|partition| gauge!("docket_shard_in_flight", "partition" => partition.to_string())).collect()
}
