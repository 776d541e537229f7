//! The port to other nodes: how a command reaches the owner of its partition when that is not this process. Safety never
//! rests on it: whoever does not lead says so, and whatever did not come back is unknown.

use std::sync::Arc;
use std::time::Duration;

use engine::decider::Decider;
use engine::message::{Answer, CommandId, Envelope, NoAnswer};
use engine::position::Partition;
use engine::stream::Tenant;
use futures::future::BoxFuture;

use crate::node::KnownCommand;

/// Who leads a partition, as its claim in the log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// What it calls itself.
    pub node: Arc<str>,
    /// Where it takes commands.
    pub address: Arc<str>,
}

/// Other nodes.
pub trait Peers<D: Decider>: Send + Sync + 'static {
    /// Hands a command to its owner and waits at most `within` for the answer. Never sends the same command twice by
    /// itself. `NotOwner` if that node does not lead `partition`, and `Overloaded` if it, or the way to it, is too busy:
    /// in both cases this try did nothing. Whatever may have reached a log and was not answered is `Unconfirmed` or
    /// `TimedOut`; a node that certainly never got it is `Unreachable`. The answer of a node of another version may lack
    /// its state ([`engine::message::Decided::lacks_state`]).
    fn submit(
        &self,
        owner: &Owner,
        partition: Partition,
        envelope: Envelope<D::Command>,
        within: Duration,
    ) -> BoxFuture<'static, Result<Answer<D::State>, NoAnswer>>;

    /// Asks the owner of `partition` for everything known there of a command id, behind a barrier.
    fn inquire(
        &self,
        owner: &Owner,
        partition: Partition,
        tenant: Tenant,
        id: CommandId,
        within: Duration,
    ) -> BoxFuture<'static, Result<Vec<KnownCommand>, NoAnswer>>;
}

/// No other nodes: this one leads all there is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl<D: Decider> Peers<D> for Alone {
    fn submit(
        &self,
        _owner: &Owner,
        _partition: Partition,
        _envelope: Envelope<D::Command>,
        _within: Duration,
    ) -> BoxFuture<'static, Result<Answer<D::State>, NoAnswer>> {
        Box::pin(async { Err(NoAnswer::NotOwner) })
    }

    fn inquire(
        &self,
        _owner: &Owner,
        _partition: Partition,
        _tenant: Tenant,
        _id: CommandId,
        _within: Duration,
    ) -> BoxFuture<'static, Result<Vec<KnownCommand>, NoAnswer>> {
        Box::pin(async { Err(NoAnswer::NotOwner) })
    }
}
