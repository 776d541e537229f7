//! What a node knows now: single streams as they change, and how far it has acknowledged and saved, so that nobody reads
//! less than they were told here.

use std::time::Duration;

use engine::message::NoAnswer;
use engine::position::{Offset, Partition, Position, Positions};
use engine::saga::Reactor;
use engine::stream::StreamId;
use metrics::counter;
use tokio::sync::watch;
use tracing::error;

use super::Node;
use super::shared::no_answer;
use crate::projection::Behind;
use crate::watch::Watch;

impl<R: Reactor> Node<R> {
    /// Follows one stream: [`Watch::current`] is how it stands now, never older than what this node acknowledged, and no
    /// later change is missed. Where another node leads, it is how this one has folded it.
    pub async fn watch(&self, stream: StreamId) -> Result<Watch<R::State>, NoAnswer> {
        let shared = &self.running.shared;
        let partition = shared.partition_of(&stream.tenant, &stream.name);
        let watches = &shared.door(partition).watches;
        // First the seat, then the look: what changes in between is reported to the seat.
        let watch = watches.register(stream.clone());
        self.reflected(partition).await?;
        let current = shared.current(&stream).await.map_err(|fault| {
            let no = no_answer(&fault);
            if no == NoAnswer::LogDamaged {
                error!(fault.code = "state-store-unreadable", error = %crate::chain(&fault), "cannot look a stream up");
            }
            no
        })?;
        if let Some(current) = current {
            shared.reach(current.position);
            watches.report(&stream, &current);
        }
        Ok(watch)
    }

    /// What this node led it knows; what another node answered through it, it waits for.
    async fn reflected(&self, partition: Partition) -> Result<(), NoAnswer> {
        let shared = &self.running.shared;
        match self.acknowledged(partition) {
            Some(offset) if !shared.alone && !shared.is_leading(partition) => {
                let least = Position { partition, offset }.into();
                self.wait_saved(&least, shared.options.answer_wait).await.map_err(|_| NoAnswer::TimedOut)
            }
            _ => Ok(()),
        }
    }

    /// The furthest record of `partition` that this node knows to be effective, by its own shard or because somebody was
    /// told of it here; nothing it answered rests on a later one.
    pub fn acknowledged(&self, partition: Partition) -> Option<Offset> {
        self.running.shared.acknowledged(partition)
    }

    /// [`Self::acknowledged`] of all partitions.
    pub fn acknowledged_all(&self) -> Positions {
        let mut positions = Positions::default();
        for partition in (0..self.running.shared.genesis.partitions).map(Partition) {
            if let Some(offset) = self.acknowledged(partition) {
                positions.reach(Position { partition, offset });
            }
        }
        positions
    }

    /// Moves whenever the state store, and with it the index that history is read by, has taken more.
    pub fn saved(&self) -> watch::Receiver<u64> {
        self.running.shared.saver.saved()
    }

    /// Waits until the state store, and with it the index that history is read by, reflects these positions.
    ///
    /// # Errors
    /// If that takes longer than `within`; with how far it is.
    pub async fn wait_saved(&self, positions: &Positions, within: Duration) -> Result<(), Behind> {
        let next = |partition| self.store().checkpoint(partition).0.next_offset;
        let missing = || positions.iter().find(|position| next(position.partition) <= position.offset);
        let all = async {
            while let Some(position) = missing() {
                let mut waiter = self.running.shared.saver.waiters().wait_for(position);
                self.running.shared.saver.hurry();
                if next(position.partition) <= position.offset {
                    waiter.woken().await;
                }
            }
        };
        if missing().is_none() || tokio::time::timeout(within, all).await.is_ok() {
            return Ok(());
        }
        counter!("docket_index_waits_in_vain_total").increment(1);
        let mut at = Positions::default();
        for partition in (0..self.genesis().partitions).map(Partition) {
            if let Some(offset) = next(partition).0.checked_sub(1) {
                at.reach(Position { partition, offset: Offset(offset) });
            }
        }
        Err(Behind { at })
    }
}
