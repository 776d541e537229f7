//! How fresh an answer must be, and waiting for it: no older than `Docket-Min-Position`, and for single resources no older
//! than what this node acknowledged in their partition when the question came.

use std::collections::BTreeMap;
use std::time::Duration;

use chassis::body::ReadRequest;
use chassis::problem::Problem;
use engine::position::{Checkpoint, Partition, Position, Positions};
use engine::saga::Reactor;
use engine::stream::{StreamName, Tenant};
use schemas::event::ShopEvent;

use crate::QuerySide;
use crate::resources::reflected;

impl<R: Reactor<Event = ShopEvent>> QuerySide<R> {
    /// Waits until the rows of `stream` reflect what this node acknowledged and what the reader asks for. A stream that
    /// is set aside is told so instead of being shown as it was. What the rows must reflect.
    pub(crate) async fn fresh(&self, read: &ReadRequest, stream: &StreamName) -> Result<Positions, Problem> {
        let tenant = Tenant::default();
        let partition = self.node.partition_of(&tenant, stream);
        let mut least = read.min_position.clone().unwrap_or_default();
        if let Some(offset) = self.node.acknowledged(partition) {
            least.reach(Position { partition, offset });
        }
        self.reached(&least, read.wait).await?;
        if let Some(parked) = self.projection.parked_as(&tenant, stream)
            // A dropped stream is shown as it was, but to nobody who asks for what came after.
            && (parked.dropped.is_none()
                || read.min_position.iter().flat_map(Positions::iter).any(|least| {
                    least.partition == parked.partition && least.offset >= parked.offset
                }))
        {
            return Err(Problem::read_model_parked(format!("{stream} is set aside: one of its events cannot be read")));
        }
        Ok(least)
    }

    /// Whether rows read together with these checkpoints reflect what was waited for: a database that nodes share may have
    /// been set back since.
    pub(crate) fn reflects(
        &self,
        checkpoints: &BTreeMap<Partition, Checkpoint>,
        least: &Positions,
    ) -> Result<(), Problem> {
        self.projection.reflects(checkpoints, least).map_err(|behind| Problem::read_model_behind(&behind.at))
    }

    /// Waits until the rows reflect these positions.
    pub(crate) async fn reached(&self, least: &Positions, wait: Duration) -> Result<(), Problem> {
        if least.is_empty() {
            return Ok(());
        }
        let known = least.iter().all(|position| position.partition.0 < self.node.genesis().partitions);
        if !known {
            return Err(Problem::bad_position());
        }
        self.projection.wait_for(least, wait).await.map_err(|behind| Problem::read_model_behind(&behind.at))
    }

    /// Waits until the stream index reflects what this node acknowledged in a partition.
    pub(crate) async fn indexed(&self, partition: Partition, read: &ReadRequest) -> Result<(), Problem> {
        let mut least = read.min_position.clone().unwrap_or_default();
        if let Some(offset) = self.node.acknowledged(partition) {
            least.reach(Position { partition, offset });
        }
        self.index_reached(&least, read.wait).await
    }

    /// Waits until the stream index reflects all that this node acknowledged, and what the reader asks for.
    pub(crate) async fn all_indexed(&self, read: &ReadRequest) -> Result<(), Problem> {
        let mut least = read.min_position.clone().unwrap_or_default();
        for partition in (0..self.node.genesis().partitions).map(Partition) {
            if let Some(offset) = self.node.acknowledged(partition) {
                least.reach(Position { partition, offset });
            }
        }
        self.index_reached(&least, read.wait).await
    }

    /// What the stream index reflects of a partition.
    pub(crate) fn index_at(&self, partition: Partition) -> Positions {
        reflected(partition, self.streams.checkpoint(partition).0.next_offset)
    }

    /// Waits until the stream index reflects these positions.
    pub(crate) async fn index_reached(&self, least: &Positions, wait: Duration) -> Result<(), Problem> {
        if least.iter().any(|position| position.partition.0 >= self.node.genesis().partitions) {
            return Err(Problem::bad_position());
        }
        self.node.wait_saved(least, wait).await.map_err(|behind| Problem::read_model_behind(&behind.at))
    }
}
