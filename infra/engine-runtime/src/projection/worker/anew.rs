//! How a worker begins anew when other tables came into use: it is opened on them, as soon as the store answers.

use std::collections::BTreeSet;

use engine::position::Partition;
use engine::read_store::StoreFault;
use engine::view::View;
use tokio_util::sync::CancellationToken;

use super::hands::{BACK_OFF_FIRST, BACK_OFF_MAX};
use super::{Source, Worker, jittered};
use crate::projection::{ProjectionFault, ProjectionStatus};

/// What it takes to begin anew.
pub(super) struct Anew<V: View> {
    pub(super) source: Source<V>,
    pub(super) number: usize,
    pub(super) partitions: BTreeSet<Partition>,
    pub(super) stop: CancellationToken,
    /// Of what was fed before.
    pub(super) generation: i64,
}

impl<V: View> Anew<V> {
    /// Whether something else is in use now.
    pub(super) fn is_due(&self) -> bool {
        self.source.store.generation() != self.generation
    }

    /// Begins anew, as soon as the store answers. `Err`: how it ended instead.
    pub(super) async fn open(self) -> Result<Worker<V>, ProjectionStatus> {
        let mut wait = BACK_OFF_FIRST;
        loop {
            if self.stop.is_cancelled() {
                return Err(ProjectionStatus::Stopped);
            }
            let opened =
                Worker::open(self.source.clone(), self.number, self.partitions.clone(), self.stop.clone()).await;
            let fault = match opened {
                Ok(worker) => return Ok(worker),
                Err(ProjectionFault::Store(fault)) => fault,
                Err(fault) => return Err(ProjectionStatus::Failed(fault)),
            };
            match &*fault {
                // What it fed was beside, and is not there any more.
                StoreFault::Fenced(_) if self.source.store.feeder().is_none() => {
                    return Err(ProjectionStatus::Stopped);
                }
                StoreFault::Fenced(_) => {}
                StoreFault::Unavailable(why) => {
                    self.source.published.waiting(self.number, Some(why.to_string()));
                }
                _ => return Err(ProjectionStatus::Failed(ProjectionFault::Store(fault))),
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(jittered(wait)) => {}
            }
            wait = (wait * 2).min(BACK_OFF_MAX);
        }
    }
}
