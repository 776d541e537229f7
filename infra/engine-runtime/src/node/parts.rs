//! What a node is made of and what it bounds, and why one does not start.

use std::sync::Arc;
use std::time::Duration;

use engine::log::Log;
use engine::ports::{Chance, Clock};
use engine::position::Partition;
use engine::record::Genesis;
use engine::saga::Reactor;
use engine::shard::Limits;

use crate::outside::Outside;
use crate::peers::Peers;
use crate::store::StateStore;
use crate::wanted::Wanted;

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
    /// Which partitions it should lead ([`crate::wanted::all`] where there is no other node).
    pub wanted: Wanted,
    /// The way to other nodes ([`crate::peers::Alone`] where there is none).
    pub peers: Arc<dyn Peers<R>>,
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
    /// Longest wait of a command in that queue before it is told to come back. 1 s: later than that few still wait for it,
    /// and who does will hear of it sooner by asking again.
    pub queue_wait_max: Duration,
    /// Longest wait of one submission for its answer.
    pub answer_wait: Duration,
    /// Bytes of saved states kept in memory, all partitions together. 8 MiB: about
    /// five thousand orders, for what changes again changes soon.
    pub cache_bytes: u64,
    /// Threads that look things up in the state store and read records back.
    pub loader_threads: usize,
    /// Errands under way at once; the rest wait in order.
    pub errands_max: usize,
    /// Streams of one partition that may owe something before nothing more is begun there
    /// ([`engine::decider::Decider::begins`]); what is on its way to the log by then comes on top. 2,048: a hundred MB at
    /// most for twelve partitions, and more than a healthy node ever has.
    pub open_max: usize,
    /// How late errands may be before nothing more is begun on this node. 0.5 s: a saga of eight steps then ends within
    /// a few seconds, however much is asked for and however slow the machine.
    pub late_max: Duration,
    /// Longest wait for an outside call, after which it counts as unreachable.
    pub call_wait: Duration,
    /// Reads of history at once; more wait for their turn. 16: a laptop's disk gains nothing beyond, and they share the
    /// blocking threads with the rest of the process.
    pub history_reads_max: usize,
    /// Partitions folded at once at the start.
    pub catch_ups_max: usize,
    /// Commands and questions on their way to other nodes at once. 4,096: what one shard may have under way.
    pub forwards_max: usize,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            queue_max: 1_024,
            queue_wait_max: Duration::from_secs(1),
            answer_wait: Duration::from_secs(30),
            cache_bytes: 8 << 20,
            loader_threads: 2,
            errands_max: 1_024,
            open_max: 2_048,
            late_max: Duration::from_millis(500),
            call_wait: Duration::from_secs(30),
            history_reads_max: 16,
            catch_ups_max: 4,
            forwards_max: 4_096,
        }
    }
}

/// Why a node did not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartFault {
    /// The log has no room for the claims.
    #[error("the log is full: no room to claim partition {0}")]
    Full(Partition),
    /// The log's writer has stopped.
    #[error("the log has stopped")]
    Stopped,
    /// Log or state store cannot be read, or contradict each other.
    #[error("partition {partition} cannot be led: {why}")]
    Damaged {
        /// Which.
        partition: Partition,
        /// What is wrong.
        why: String,
    },
    /// The system refused a thread.
    #[error("cannot start a thread: {0}")]
    Threads(String),
}
