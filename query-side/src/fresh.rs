//! How fresh an answer must be, and waiting for it: no older than `Docket-Min-Position`, and for single resources no older
//! than what this node acknowledged in their partition when the question came.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chassis::body::ReadRequest;
use chassis::problem::Problem;
use engine::position::{Checkpoint, Offset, Partition, Position, Positions};
use engine::saga::Reactor;
use engine::stream::{StreamName, Tenant};
use engine::view::RowKey;
use engine_runtime::projection::cache::Found;
use schemas::event::ShopEvent;

use crate::QuerySide;
use crate::resources::{reflected, unavailable};

impl<R: Reactor<Event = ShopEvent>> QuerySide<R> {
    /// The row of `stream`, reflecting what this node acknowledged and what the reader asks for: at hand, or loaded once
    /// the store is so far. A stream that is set aside is told so instead of being shown as it was.
    pub(crate) async fn row(&self, read: &ReadRequest, stream: &StreamName, key: &RowKey) -> Result<Found, Problem> {
        let partition = self.node.partition_of(&Tenant::default(), stream);
        let mut least = read.min_position.clone().unwrap_or_default();
        if let Some(offset) = self.node.acknowledged(partition) {
            least.reach(Position { partition, offset });
        }
        self.known(&least)?;
        let next = least.0.remove(&partition).map_or(Offset(0), Offset::next);
        let elsewhere = least;
        let cache = self.projection.cache();
        let dropped = self.not_parked(read, stream)?;
        let at_hand = if dropped || !self.projection.has_all(&elsewhere) { None } else { cache.at_hand(key, next) };
        let is_ahead = match at_hand {
            Some(found) if self.is_stored(partition, &found) => return Ok(found),
            found => found.is_some(),
        };
        let mut all = elsewhere.clone();
        let here = next.0.checked_sub(1).map(|offset| Position { partition, offset: Offset(offset) });
        all.reach_all(&here.map(Positions::from).unwrap_or_default());
        self.reached(&all, read.wait).await?;
        if self.not_parked(read, stream)? || is_ahead {
            return self.stored(partition, key, &all).await;
        }
        let loaded = cache.find(key, partition, next, || {
            let (store, key) = (Arc::clone(&self.store), key.clone());
            async move {
                let mut read = store.load_with_checkpoints(vec![key.clone()]).await?;
                Ok((read.found.remove(&key), read.checkpoints))
            }
        });
        let found = loaded.await.map_err(|fault| unavailable(&fault))?;
        match &found.checkpoints {
            Some(checkpoints) => {
                // What the tail of the log vouches for is there, wherever the store is.
                let missing = if found.as_of < next { &all } else { &elsewhere };
                self.reflects(checkpoints, missing)?;
            }
            None if !self.is_stored(partition, &found) => return self.stored(partition, key, &all).await,
            None => {}
        }
        Ok(Found::clone(&found))
    }

    /// Whether the store is as far as a row at hand. One that follows the log may be ahead of a store that nodes share: who
    /// saw it would find another row, which the same record changed, as it was before.
    fn is_stored(&self, partition: Partition, found: &Found) -> bool {
        let last = found.as_of.0.checked_sub(1).map(|offset| Position { partition, offset: Offset(offset) });
        self.projection.has_all(&last.map(Positions::from).unwrap_or_default())
    }

    /// The row as the store has it.
    async fn stored(&self, partition: Partition, key: &RowKey, least: &Positions) -> Result<Found, Problem> {
        let found = self.store.load_with_checkpoints(vec![key.clone()]).await;
        let mut found = found.map_err(|fault| unavailable(&fault))?;
        self.reflects(&found.checkpoints, least)?;
        let as_of = found.checkpoints.get(&partition).map_or(Offset(0), |checkpoint| checkpoint.next_offset);
        Ok(Found { row: found.found.remove(key), as_of, checkpoints: Some(found.checkpoints) })
    }

    /// Whether the stream is shown as it was before what an operator gave up: to all but those who ask for what came after.
    fn not_parked(&self, read: &ReadRequest, stream: &StreamName) -> Result<bool, Problem> {
        let Some(parked) = self.projection.parked_as(&Tenant::default(), stream) else { return Ok(false) };
        let after = |least: Position| least.partition == parked.partition && least.offset >= parked.offset;
        if parked.dropped.is_none() || read.min_position.iter().flat_map(Positions::iter).any(after) {
            return Err(Problem::read_model_parked(format!("{stream} is set aside: one of its events cannot be read")));
        }
        Ok(true)
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
        self.known(least)?;
        self.projection.wait_for(least, wait).await.map_err(|behind| Problem::read_model_behind(&behind.at))
    }

    /// Whether the log has these partitions.
    fn known(&self, positions: &Positions) -> Result<(), Problem> {
        let known = positions.iter().all(|position| position.partition.0 < self.node.genesis().partitions);
        if known { Ok(()) } else { Err(Problem::bad_position()) }
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
        self.known(least)?;
        self.node.wait_saved(least, wait).await.map_err(|behind| Problem::read_model_behind(&behind.at))
    }
}
