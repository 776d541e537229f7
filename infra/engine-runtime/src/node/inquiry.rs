//! Asking what became of a command id: the leaders of all partitions are asked, each behind a barrier, so that *never heard
//! of it* is certain; the state store here adds what has left their memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::message::{CommandId, NoAnswer};
use engine::position::{Partition, Position};
use engine::record::Commit;
use engine::saga::Reactor;
use engine::stream::{StreamName, Tenant};
use tracing::error;

use super::Node;
use super::inbox::Way;
use super::shared::{Shared, blocking};

/// What is known of a command id on one resource.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownCommand {
    /// The resource it addressed.
    pub resource: StreamName,
    /// Its record and where it is; `None` while it runs.
    pub commit: Option<(Position, Arc<Commit>)>,
}

impl<R: Reactor> Node<R> {
    /// The door for other nodes' questions: all that is known of a command id in `partition`, behind a barrier. Never
    /// forwards: `NotOwner` if the partition is not led here; while it is being claimed the question waits.
    pub async fn inquire_here(
        &self,
        partition: Partition,
        tenant: Tenant,
        id: CommandId,
        within: Duration,
    ) -> Result<Vec<KnownCommand>, NoAnswer> {
        self.inquire_apart(vec![partition], tenant, id, within, Way::Here).await
    }

    /// All that is known of a command id, on whatever resources it was used. An empty answer rests on a barrier in
    /// every partition: the id was not heard of when the question came.
    pub async fn inquire(&self, tenant: Tenant, id: CommandId) -> Result<Vec<KnownCommand>, NoAnswer> {
        let all = (0..self.genesis().partitions).map(Partition).collect();
        self.inquire_apart(all, tenant, id, self.running.shared.options.answer_wait, Way::Anywhere).await
    }

    /// Asks in a task of its own: a sender that goes away cancels nothing.
    async fn inquire_apart(
        &self,
        partitions: Vec<Partition>,
        tenant: Tenant,
        id: CommandId,
        within: Duration,
        way: Way,
    ) -> Result<Vec<KnownCommand>, NoAnswer> {
        let shared = self.running.shared.clone();
        let deadline = tokio::time::Instant::now() + within;
        let asked =
            tokio::spawn(async move { inquire_partitions(&shared, &partitions, tenant, id, deadline, way).await });
        match tokio::time::timeout_at(deadline, asked).await {
            Ok(Ok(known)) => known,
            Ok(Err(_)) => Err(NoAnswer::Unconfirmed),
            Err(_) => Err(NoAnswer::TimedOut),
        }
    }
}

async fn inquire_partitions<R: Reactor>(
    shared: &Arc<Shared<R>>,
    partitions: &[Partition],
    tenant: Tenant,
    id: CommandId,
    deadline: tokio::time::Instant,
    way: Way,
) -> Result<Vec<KnownCommand>, NoAnswer> {
    let asked = partitions.iter().map(|partition| shared.inquire(*partition, &tenant, id, deadline, way));
    // By resource: what a shard still runs may meanwhile be in the store.
    let mut known = BTreeMap::<StreamName, Option<(Position, Arc<Commit>)>>::new();
    for found in futures::future::try_join_all(asked).await?.into_iter().flatten() {
        let commit = known.entry(found.resource).or_default();
        *commit = commit.take().or(found.commit);
    }
    // The store after the shards: what leaves a shard's memory is in the store by then.
    let looking = shared.clone();
    let stored = blocking(move || looking.store.known(id)).await.map_err(|fault| {
        error!(fault.code = "state-store-unreadable", error = %crate::chain(&fault), "cannot look an id up");
        NoAnswer::LogDamaged
    })?;
    for found in stored.into_iter().filter(|found| found.tenant == tenant && partitions.contains(&found.partition)) {
        let commit = known.entry(found.resource).or_default();
        if commit.is_none() {
            let position = Position { partition: found.partition, offset: found.remembered.offset };
            let record = shared.history.record_at(position).await.map_err(|fault| {
                error!(fault.code = "log-damaged", position = %position, error = %crate::chain(&fault), "cannot read a record");
                NoAnswer::LogDamaged
            })?;
            *commit = Some((position, Arc::new(record)));
        }
    }
    Ok(known.into_iter().map(|(resource, commit)| KnownCommand { resource, commit }).collect())
}
