//! Commands on their way between nodes: [`GrpcPeers`] hands them to the leader of their partition, [`serve`] takes them in
//! there. What travels is written down in `proto/shards.proto`.
//!
//! The rule on both sides: *did nothing* is said only where it is certain, all else is unknown. An owner that is asked
//! about another log, or in a form it does not know, refuses before it decides. Nodes whose states are of different
//! versions do serve each other: the owner leaves the state out and the caller folds it. A caller that goes away cancels
//! nothing.

mod convert;
mod door;
mod link;
mod peers;
mod server;

use std::time::Duration;

use engine::decider::Decider;
use engine::message::{Answer, CommandId, Envelope, NoAnswer};
use engine::position::{LogId, Partition};
use engine::stream::{StreamName, Tenant};
use futures::future::BoxFuture;

pub use self::peers::GrpcPeers;
pub use self::server::{Serving, serve};
use crate::node::KnownCommand;

/// Longest message to an owner, in bytes. 4 MiB: HTTP takes bodies of 256 KiB, and what sagas add stays far below.
pub const REQUEST_BYTES_MAX: usize = 4 << 20;
/// Longest message back, in bytes. 16 MiB: a few records of the largest size, where one id was used on many resources.
pub const REPLY_BYTES_MAX: usize = 16 << 20;
/// Longest wait for a connection.
pub const CONNECT_WAIT: Duration = Duration::from_secs(1);
/// How often a connection is tried out while nothing comes back on it.
pub const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(5);
/// How long the other side may take to show that it lives.
pub const KEEP_ALIVE_WAIT: Duration = Duration::from_secs(2);

/// What the traffic between nodes bounds. The defaults suit two cores.
#[derive(Clone, Debug)]
pub struct RemoteOptions {
    /// Requests under way to one peer; one more is `Overloaded` at once. 1,024: what one shard queues.
    pub in_flight_max: usize,
    /// Requests under way from all peers together; one more is `Overloaded` at once.
    pub taken_in_flight_max: usize,
    /// How long an unused connection is kept.
    pub idle_max: Duration,
    /// How long a server that ends waits for what it has taken.
    pub drain_wait: Duration,
    /// Longest wait a caller can ask for, and what one gets who names none.
    pub wait_max: Duration,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self {
            in_flight_max: 1_024,
            taken_in_flight_max: 4_096,
            idle_max: Duration::from_secs(60),
            drain_wait: Duration::from_secs(10),
            wait_max: Duration::from_secs(60),
        }
    }
}

/// The door of this process, behind which nothing is forwarded: what comes from another node is decided here or nowhere.
pub trait LocalDoor<D: Decider>: Send + Sync + 'static {
    /// Which log it is about.
    fn log_id(&self) -> LogId;

    /// The version of the business behind it ([`Decider::version`]).
    fn decider_version(&self) -> u32;

    /// Where it places a stream.
    fn partition_of(&self, tenant: &Tenant, stream: &StreamName) -> Partition;

    /// Decides a command if this process leads its partition, else `NotOwner`. Comes back within `within`; what is not
    /// decided by then is decided no more if that can be helped.
    fn submit_here(
        &self,
        envelope: Envelope<D::Command>,
        within: Duration,
    ) -> BoxFuture<'static, Result<Answer<D::State>, NoAnswer>>;

    /// All that `partition` knows of a command id, behind a barrier, if this process leads it, else `NotOwner`.
    fn inquire_here(
        &self,
        partition: Partition,
        tenant: Tenant,
        id: CommandId,
        within: Duration,
    ) -> BoxFuture<'static, Result<Vec<KnownCommand>, NoAnswer>>;
}

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::allow_attributes_without_reason, reason = "generated")]
mod proto {
    tonic::include_proto!("docket.shards.v1");
}

/// A name for metrics and logs.
fn name(no_answer: NoAnswer) -> &'static str {
    match no_answer {
        NoAnswer::Overloaded => "overloaded",
        NoAnswer::NotOwner => "not-owner",
        NoAnswer::Unreachable => "unreachable",
        NoAnswer::Draining => "draining",
        NoAnswer::Unconfirmed => "unconfirmed",
        NoAnswer::LogFull => "log-full",
        NoAnswer::LogStopped => "log-stopped",
        NoAnswer::LogDamaged => "log-damaged",
        NoAnswer::TimedOut => "timed-out",
    }
}
