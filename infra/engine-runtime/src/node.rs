//! A node: all of a log's partitions led by one process. Commands go in through one door, are decided by the shard of
//! their partition and answered when their effect is certain; what streams owe is carried out behind it. The work lives
//! in the node's own tasks: a sender that goes away cancels nothing.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use engine::log::{Log, LogFault};
use engine::message::{Answer, CommandId, Envelope, NoAnswer};
use engine::ports::{Chance, Clock};
use engine::position::{Epoch, Offset, Partition, Position, Positions};
use engine::record::{Commit, Genesis};
use engine::saga::Reactor;
use engine::shard::Limits;
use engine::stream::{StreamId, StreamName, Tenant};

use crate::history::History;
use crate::outside::Outside;
use crate::store::StateStore;
use crate::watch::Watch;

/// What a node is made of.
pub struct Parts<R: Reactor> {
    /// The log it leads.
    pub log: Arc<dyn Log>,
    /// What the log's record 0 says.
    pub genesis: Genesis,
    /// Where folded states are kept.
    pub store: Arc<StateStore<R>>,
    /// The business.
    pub decider: Arc<R>,
    /// Where its calls go.
    pub outside: Arc<dyn Outside<R::Call, R::Returned>>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where nonces and jitter come from.
    pub chance: Arc<dyn Chance>,
    /// What claims call this node.
    pub node_name: String,
    /// Where others would send commands for it.
    pub address: String,
    /// What it bounds.
    pub options: NodeOptions,
}

/// What a node bounds. The defaults suit two cores.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// What each shard bounds.
    pub limits: Limits,
    /// Commands waiting in front of one shard. 1,024: a few groups; more would only hide that the shard is too slow.
    pub queue_max: usize,
    /// Longest wait of one submission for its answer.
    pub answer_wait: Duration,
    /// Bytes of saved states kept in memory, all partitions together. 16 MiB.
    pub cache_bytes: u64,
    /// Threads that look things up in the state store and read records back.
    pub loader_threads: usize,
    /// Errands under way at once; the rest wait in order.
    pub errands_max: usize,
    /// Longest wait for an outside call, after which it counts as unreachable.
    pub call_wait: Duration,
    /// Partitions folded at once at the start.
    pub catch_ups_max: usize,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            queue_max: 1_024,
            answer_wait: Duration::from_secs(30),
            cache_bytes: 16 << 20,
            loader_threads: 2,
            errands_max: 1_024,
            call_wait: Duration::from_secs(30),
            catch_ups_max: 4,
        }
    }
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartFault {
    /// The log cannot be read.
    #[error("partition {partition} cannot be read")]
    Log {
        /// Which.
        partition: Partition,
        /// What is wrong.
        #[source]
        source: LogFault,
    },
    /// The log has no room for the claims.
    #[error("the log is full: no room to claim partition {0}")]
    Full(Partition),
    /// The log's writer has stopped.
    #[error("the log has stopped")]
    Stopped,
    /// The state store cannot be brought up to the log.
    #[error("the state store cannot follow partition {partition}: {why}")]
    Store {
        /// Which.
        partition: Partition,
        /// What is wrong.
        why: String,
    },
    /// Somebody else keeps claiming it.
    #[error("partition {0} is claimed by another node")]
    Contested(Partition),
}

/// What is known of a command id on one resource.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownCommand {
    /// The resource it addressed.
    pub resource: StreamName,
    /// Its record and where it is; `None` while it runs.
    pub commit: Option<(Position, Arc<Commit>)>,
}

/// How one partition stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionStatus {
    /// Being folded and claimed: commands wait.
    Claiming,
    /// Commands are decided.
    Leading(Epoch),
    /// The log has no room; tried again every second.
    Full,
    /// The log's writer has stopped for good.
    Stopped,
    /// Log, state or shard are wrong; why. Stays so until a person looks.
    Damaged(String),
    /// Given back: this node is shutting down.
    Released,
}

/// How a node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Whether it is shutting down.
    pub draining: bool,
    /// Each partition, by number.
    pub partitions: Vec<PartitionStatus>,
}

impl NodeStatus {
    /// Why commands are not all taken; `None` if they are.
    pub fn unready(&self) -> Option<String> {
        if self.draining {
            return Some("shutting down".to_owned());
        }
        let (partition, status) =
            self.partitions.iter().enumerate().find(|(_, status)| !matches!(status, PartitionStatus::Leading(_)))?;
        Some(match status {
            PartitionStatus::Leading(_) => return None,
            PartitionStatus::Claiming => format!("partition {partition} is being claimed"),
            PartitionStatus::Full => "the log is full".to_owned(),
            PartitionStatus::Stopped => "the log has stopped".to_owned(),
            PartitionStatus::Damaged(why) => format!("partition {partition} is damaged: {why}"),
            PartitionStatus::Released => format!("partition {partition} is given back"),
        })
    }
}

/// A running node. Clones are the same node; when the last is dropped all its tasks stop as if the process had died:
/// use [`Node::drain`] to end in order.
pub struct Node<R: Reactor> {
    genesis: std::marker::PhantomData<R>,
}

impl<R: Reactor> Clone for Node<R> {
    fn clone(&self) -> Self {
        Self { genesis: self.genesis }
    }
}

impl<R: Reactor> Node<R> {
    /// Folds, claims and leads every partition. Returns when all are led, so what it answers from then on is certain.
    pub async fn start(parts: Parts<R>) -> Result<Self, StartFault> {
        let _ = parts;
        unimplemented!("being laid")
    }

    /// Hands a command to the shard that owns its resource; the future waits for the answer, and dropping it (even
    /// before it is first polled) cancels nothing. A full queue is `Overloaded` at once.
    pub fn submit(
        &self,
        envelope: Envelope<R::Command>,
    ) -> impl Future<Output = Result<Answer<R::State>, NoAnswer>> + Send + use<R> {
        let _ = envelope;
        async { unimplemented!("being laid") }
    }

    /// All that is known of a command id, on whatever resources it was used. An empty answer rests on a barrier in
    /// every partition: the id was not heard of when the question came.
    pub async fn inquire(&self, tenant: Tenant, id: CommandId) -> Result<Vec<KnownCommand>, NoAnswer> {
        let _ = (tenant, id);
        unimplemented!("being laid")
    }

    /// Follows one stream: [`Watch::current`] is how it stands now, and no later change is missed.
    pub async fn watch(&self, stream: StreamId) -> Result<Watch<R::State>, NoAnswer> {
        let _ = stream;
        unimplemented!("being laid")
    }

    /// The furthest record of `partition` that this node knows to be effective; nothing it answered rests on a later
    /// one.
    pub fn acknowledged(&self, partition: Partition) -> Option<Offset> {
        let _ = partition;
        unimplemented!("being laid")
    }

    /// [`Self::acknowledged`] of all partitions.
    pub fn acknowledged_all(&self) -> Positions {
        unimplemented!("being laid")
    }

    /// Reads what happened.
    pub fn history(&self) -> &History<R> {
        unimplemented!("being laid")
    }

    /// What the log is.
    pub fn genesis(&self) -> &Genesis {
        unimplemented!("being laid")
    }

    /// The clock it runs by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        unimplemented!("being laid")
    }

    /// Where a stream lives.
    pub fn partition_of(&self, tenant: &Tenant, stream: &StreamName) -> Partition {
        let _ = (tenant, stream);
        unimplemented!("being laid")
    }

    /// Whether it takes commands for all partitions.
    pub fn is_ready(&self) -> bool {
        self.status().unready().is_none()
    }

    /// How it stands.
    pub fn status(&self) -> NodeStatus {
        unimplemented!("being laid")
    }

    /// Takes no more, settles what is under way, gives the partitions back and saves. `false` if that was not done by
    /// `within`: then the rest is left as if the process had died, which loses nothing.
    pub async fn drain(&self, within: Duration) -> bool {
        let _ = within;
        unimplemented!("being laid")
    }
}
