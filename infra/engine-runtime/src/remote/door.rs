//! A node as other nodes reach it.

use std::time::Duration;

use engine::message::{Answer, CommandId, Envelope, NoAnswer};
use engine::position::{LogId, Partition};
use engine::saga::Reactor;
use engine::stream::{StreamName, Tenant};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::LocalDoor;
use crate::node::{KnownCommand, Node};

impl<R: Reactor> LocalDoor<R> for Node<R> {
    fn log_id(&self) -> LogId {
        self.genesis().log
    }

    fn decider_version(&self) -> u32 {
        self.store().decider().version()
    }

    fn partition_of(&self, tenant: &Tenant, stream: &StreamName) -> Partition {
        Node::partition_of(self, tenant, stream)
    }

    fn submit_here(
        &self,
        envelope: Envelope<R::Command>,
        within: Duration,
    ) -> BoxFuture<'static, Result<Answer<R::State>, NoAnswer>> {
        Node::submit_here(self, envelope, within).boxed()
    }

    fn inquire_here(
        &self,
        partition: Partition,
        tenant: Tenant,
        id: CommandId,
        within: Duration,
    ) -> BoxFuture<'static, Result<Vec<KnownCommand>, NoAnswer>> {
        let node = self.clone();
        async move { Node::inquire_here(&node, partition, tenant, id, within).await }.boxed()
    }
}
