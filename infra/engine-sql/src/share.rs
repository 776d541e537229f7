//! One store, several nodes. Each node says here that it feeds (`members`), gets its share of the partitions
//! (`docket_leases`), and hears how far the store is, whoever fed it (`progress`).
//!
//! Leases are a hint that keeps nodes out of each other's way. A node that was paused and still believes in its lease does
//! no harm: the checkpoint moved, and its batch does not count. Where no checkpoint moved because what was parked was only
//! tried again, the lease itself tells: in the transaction, after the checkpoints, it must still be its own.

pub(crate) mod leases;
mod plan;
pub(crate) mod progress;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use engine::position::Partition;
use engine::read_store::Progress;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::connection::Database;
use crate::store::SqlReadStore;

/// How a node takes part in feeding a store.
#[derive(Clone, Debug)]
pub struct ShareOptions {
    /// What the node calls itself, for people. Two processes may bear one name.
    pub name: String,
    /// How many partitions the log has.
    pub partitions: u16,
    /// Whether this node feeds; else it only hears how far the store is.
    pub feed: bool,
    /// How long a lease holds without being renewed, and so how long the partitions of a node that was killed wait.
    pub lease: Duration,
    /// How often to look how far the store is, should a notification be lost. Ten times as often while none can come.
    pub poll: Duration,
}

impl ShareOptions {
    /// 5 s for leases: renewed three times in it, so that one slow answer costs nothing. 1 s to look.
    pub fn new(name: impl Into<String>, partitions: u16) -> Self {
        let (lease, poll) = (Duration::from_secs(5), Duration::from_secs(1));
        Self { name: name.into(), partitions, feed: true, lease, poll }
    }
}

/// A node's part in feeding a store. Dropped without [`Shared::release`], its leases run out.
#[derive(Debug)]
pub struct Shared {
    feeds: watch::Receiver<Arc<BTreeSet<Partition>>>,
    progress: watch::Receiver<Arc<Progress>>,
    stop: watch::Sender<bool>,
    leases: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Shared {
    /// The partitions that this node is to feed now.
    pub fn feeds(&self) -> watch::Receiver<Arc<BTreeSet<Partition>>> {
        self.feeds.clone()
    }

    /// How far the store is.
    pub fn progress(&self) -> watch::Receiver<Arc<Progress>> {
        self.progress.clone()
    }

    /// Gives all partitions back, so that others take them at once. To be called when nothing is fed any more. Takes as
    /// long as the database does, 2 s at most.
    pub async fn release(&self) {
        self.stop.send_replace(true);
        if let Some(leases) = self.leases.lock().await.take() {
            let _ = leases.await;
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl SqlReadStore {
    /// Takes part in feeding this store, beside other nodes. `None` where a store has one feeder only: SQLite.
    pub fn share(&self, options: ShareOptions) -> Option<Shared> {
        let inner = self.inner().clone();
        let Database::Postgres(_) = &inner.database else { return None };
        let (stop, stopped) = watch::channel(false);
        let (feeding, feeds) = watch::channel(Arc::new(BTreeSet::new()));
        let (telling, progress) = watch::channel(Arc::new(Progress::default()));
        // 64: what is told while the store is looked at; more is merged by looking again.
        let (hearing, heard) = mpsc::channel(64);
        let (nudge, nudged) = watch::channel(());
        tokio::spawn(progress::listen(inner.clone(), hearing, stopped.clone()));
        tokio::spawn(progress::follow(inner.clone(), heard, telling, nudge, options.poll, stopped.clone()));
        let leases = options.feed.then(|| {
            // One for each process, however often it takes part: two of them may bear one name.
            let holder = inner.holder.get_or_init(|| uuid::Uuid::new_v4().to_string()).clone();
            let keeper = leases::Keeper::new(inner, options, feeding, holder);
            tokio::spawn(keeper.keep(nudged, stopped))
        });
        Some(Shared { feeds, progress, stop, leases: tokio::sync::Mutex::new(leases) })
    }
}
