//! The shard as a state machine.

use std::sync::Arc;

use bytes::Bytes;

use super::{Effect, Input, Limits};
use crate::decider::Decider;
use crate::position::{Checkpoint, Nonce, Partition};
use crate::record::Claim;
use crate::time::Timestamp;

/// The owner of one partition. One value serves any number of terms: `claim`, `lead`, `handle` until
/// [`Effect::SteppedDown`] or [`Effect::Released`], then `claim` again.
pub struct Shard<D: Decider> {
    decider: Arc<D>,
    partition: Partition,
    partitions: u16,
    limits: Limits,
}

impl<D: Decider> Shard<D> {
    /// A shard that leads nothing yet, of `partition` in a log of `partitions`.
    pub fn new(decider: Arc<D>, partition: Partition, partitions: u16, limits: Limits) -> Self {
        Self { decider, partition, partitions, limits }
    }

    /// The claim of the term after `checkpoint`: hand it to the log under this tag (its delivery may be fed to `handle`
    /// or not, it is ignored there), then fold the log up to that record and call `lead`. An earlier claim of this
    /// shard is forgotten. `nonce` must be freshly drawn for each call.
    pub fn claim(&mut self, checkpoint: &Checkpoint, nonce: Nonce, claim: Claim) -> (u64, Bytes) {
        let _ = (checkpoint, nonce, claim);
        unimplemented!("in the next commit")
    }

    /// Starts the term if the fold, up to the shard's own claim or further, says that it is this shard's: then true.
    /// Else somebody else holds the partition, and false. `last_recorded_at` is the latest time recorded in it.
    pub fn lead(&mut self, checkpoint: Checkpoint, last_recorded_at: Timestamp) -> bool {
        let _ = (checkpoint, last_recorded_at);
        unimplemented!("in the next commit")
    }

    /// Takes one input and adds what it wants done to `effects`, to be carried out in that order.
    pub fn handle(&mut self, now: Timestamp, input: Input<D>, effects: &mut Vec<Effect<D>>) {
        let _ = (now, input, effects, &self.decider, self.partition, self.partitions);
        unimplemented!("in the next commit")
    }

    /// Whether the runner should feed `Submit` and `Inquire`: false while a bound of [`Limits`] is reached, while
    /// draining and while not leading. All other inputs flow all the same. What is submitted none the less is taken
    /// (or, while not leading, answered `NotOwner`; while draining, `Draining`).
    pub fn can_take(&self) -> bool {
        self.limits.in_flight_max > 0
    }

    /// Whether a term of this shard runs.
    pub fn is_leading(&self) -> bool {
        false
    }

    /// Records handed to the log and not confirmed.
    pub fn in_flight(&self) -> usize {
        0
    }

    /// Commands waiting for a load.
    pub fn loading(&self) -> usize {
        0
    }

    /// Streams and ids acknowledged and not saved.
    pub fn unsaved(&self) -> usize {
        0
    }
}
