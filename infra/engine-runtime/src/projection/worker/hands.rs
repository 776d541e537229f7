//! What a worker does without its folder, which is lent out meanwhile: it loads and commits, again and again while the store
//! does not answer, and tells everybody how far the rows are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::position::{Checkpoint, Partition};
use engine::read_store::{Batch, StoreFault};
use engine::time::Timestamp;
use engine::view::{Row, RowKey, View};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{End, Source, jittered, spawned, store_end, store_fault};
use crate::projection::folder::{Folder, Made};

/// First wait after the store did not answer; doubles.
pub(super) const BACK_OFF_FIRST: Duration = Duration::from_millis(50);
/// Longest such wait.
pub(super) const BACK_OFF_MAX: Duration = Duration::from_secs(5);

/// The worker without its folder, which is lent out while it commits.
pub(super) struct Hands<V: View> {
    pub(super) source: Source<V>,
    /// Names it among the workers of this projection.
    pub(super) number: usize,
    pub(super) partitions: Vec<Partition>,
    pub(super) stop: CancellationToken,
    /// How far the rows are that everybody can read.
    pub(super) shown: Vec<Checkpoint>,
    /// When the newest event in them was recorded.
    pub(super) recorded_at: Option<Timestamp>,
}

impl<V: View> Hands<V> {
    /// Commits what was made, if there is anything to be committed.
    pub(super) async fn commit_made(&self, made: &Made) -> Result<(), End> {
        match &made.batch {
            Some(batch) => self.commit(batch).await,
            None => Ok(()),
        }
    }

    pub(super) async fn load(&self, keys: Vec<RowKey>) -> Result<BTreeMap<RowKey, Row>, End> {
        let mut wait = BACK_OFF_FIRST;
        loop {
            let (store, asked) = (self.source.store.clone(), keys.clone());
            match spawned(async move { store.load(asked).await }).await {
                Ok(found) => {
                    self.running();
                    return Ok(found);
                }
                Err(StoreFault::Unavailable(why)) => self.back_off(&mut wait, why.to_string()).await?,
                Err(fault) => return Err(store_end(fault)),
            }
        }
    }

    /// Commits, again and again while the store does not answer. A commit whose answer was lost may have been done: then
    /// the next try is fenced by our own, which the checkpoints tell.
    pub(super) async fn commit(&self, batch: &Arc<Batch>) -> Result<(), End> {
        let mut wait = BACK_OFF_FIRST;
        let mut in_doubt = false;
        loop {
            let (store, trying) = (self.source.store.clone(), batch.clone());
            match spawned(async move { store.commit_shared(trying).await }).await {
                Ok(()) => {
                    self.source.published.committed(batch);
                    self.running();
                    return Ok(());
                }
                Err(StoreFault::Unavailable(why)) => {
                    in_doubt = true;
                    self.back_off(&mut wait, why.to_string()).await?;
                }
                Err(StoreFault::Fenced(partition)) => {
                    let moved = batch.checkpoints.iter().any(|(_, from, to)| from.as_ref() != Some(to));
                    if in_doubt && moved && self.is_committed(batch).await? {
                        self.source.published.committed(batch);
                        self.running();
                        return Ok(());
                    }
                    return Err(End::Fenced(partition));
                }
                Err(fault) => return Err(End::Fault(store_fault(fault))),
            }
        }
    }

    pub(super) async fn is_committed(&self, batch: &Batch) -> Result<bool, End> {
        let mut wait = BACK_OFF_FIRST;
        loop {
            let (store, log_id) = (self.source.store.clone(), self.source.genesis.log);
            match spawned(async move { store.open(log_id).await }).await {
                Ok(found) => return Ok(batch.checkpoints.iter().all(|(at, _, to)| found.get(at) == Some(to))),
                Err(StoreFault::Unavailable(why)) => self.back_off(&mut wait, why.to_string()).await?,
                Err(fault) => return Err(store_end(fault)),
            }
        }
    }

    pub(super) async fn back_off(&self, wait: &mut Duration, why: String) -> Result<(), End> {
        warn!(projection.wait_ms = wait.as_millis() as u64, error = %why, "the read store does not answer");
        self.source.published.waiting(self.number, Some(why));
        self.report_lag();
        let stop = self.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => return Err(End::Asked),
            () = tokio::time::sleep(jittered(*wait)) => {}
        }
        *wait = (*wait * 2).min(BACK_OFF_MAX);
        Ok(())
    }

    pub(super) fn running(&self) {
        self.source.published.waiting(self.number, None);
    }

    pub(super) fn publish(&self) {
        let at = self.partitions.iter().map(|at| (*at, self.shown[usize::from(at.0)].next_offset));
        self.source.published.reached(at);
    }

    pub(super) fn publish_parked(&self, folder: &Folder<V>) {
        let parked = folder.parked.iter().map(|(stream, doc)| (stream.clone(), doc.parked.clone()));
        self.source.published.park(|at| self.partitions.contains(&at), parked.collect());
    }

    /// How many records are not in the rows.
    pub(super) fn behind(&self) -> u64 {
        let behind = |partition: &Partition| {
            let at = self.shown[usize::from(partition.0)].next_offset;
            self.source.log.end(*partition).0.saturating_sub(at.0)
        };
        self.partitions.iter().map(behind).sum()
    }

    pub(super) fn report_lag(&self) {
        let lag = self.behind();
        let seconds = match self.recorded_at {
            Some(recorded_at) if lag > 0 => self.source.clock.now().micros_since(recorded_at) as f64 / 1e6,
            _ => 0.0,
        };
        self.source.published.lag(self.number, lag, seconds);
    }
}
