//! What a projection tells of itself, put together from what its workers say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use engine::position::{Offset, Partition};
use engine::read_store::Batch;
use engine::stream::StreamId;
use metrics::{Counter, Gauge, counter, gauge};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tracing::{error, info};

use super::cache::ReadCache;
use super::{Parked, ProjectionStatus};
use crate::waiting::Waiters;

/// What is told. Watermarks are told after what is parked, so that who waited for a record also sees that it is parked.
pub(super) struct Published {
    pub(super) name: &'static str,
    /// Each partition's next offset.
    pub(super) watermark: watch::Sender<Vec<Offset>>,
    pub(super) status: watch::Sender<ProjectionStatus>,
    pub(super) parked: RwLock<BTreeMap<StreamId, Parked>>,
    /// Told whenever somebody says what is parked.
    pub(super) parked_news: watch::Sender<()>,
    /// The generation of the store's tables that each worker told from what is parked, by its number.
    told_of: watch::Sender<BTreeMap<usize, i64>>,
    /// Whether the store was told that little is left to fold, and has done what it keeps for then.
    pub(super) caught_up: watch::Sender<bool>,
    /// Events folded since the start.
    pub(super) events: AtomicU64,
    /// How many wait for records, and what tells workers of the first of them.
    waiting: AtomicUsize,
    pub(super) hurry: Notify,
    /// Rows at hand. Changed before watermarks are told, so that who waited for a record sees it there too.
    pub(super) cache: Arc<ReadCache>,
    /// Who waits for watermarks.
    pub(super) waiters: Waiters,
    /// Who waited in vain.
    pub(super) behind: Counter,
    workers: Mutex<BTreeMap<usize, Said>>,
    lag_events: Gauge,
    lag_seconds: Gauge,
    parked_count: Gauge,
}

/// What one worker said last.
#[derive(Default)]
struct Said {
    waiting: Option<String>,
    lag_events: u64,
    lag_seconds: f64,
}

/// Somebody waits.
pub(super) struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Published {
    pub(super) fn new(partitions: u16, name: &'static str, cache: ReadCache) -> Arc<Self> {
        Arc::new(Self {
            name,
            watermark: watch::channel(vec![Offset(0); usize::from(partitions)]).0,
            status: watch::channel(ProjectionStatus::Running).0,
            parked: RwLock::new(BTreeMap::new()),
            parked_news: watch::channel(()).0,
            told_of: watch::channel(BTreeMap::new()).0,
            caught_up: watch::channel(false).0,
            events: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            hurry: Notify::new(),
            cache: Arc::new(cache),
            waiters: Waiters::default(),
            behind: counter!("docket_projection_waits_in_vain_total", "projection" => name),
            workers: Mutex::new(BTreeMap::new()),
            lag_events: gauge!("docket_projection_lag_events", "projection" => name),
            lag_seconds: gauge!("docket_projection_lag_seconds", "projection" => name),
            parked_count: gauge!("docket_projection_parked", "projection" => name),
        })
    }

    /// Somebody waits for records from now on until what is returned is dropped: no worker lets gather more meanwhile.
    pub(super) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        self.hurry.notify_waiters();
        Waiting(&self.waiting)
    }

    /// Whether somebody waits for records.
    pub(super) fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// These partitions are so far.
    pub(super) fn reached(&self, at: impl Iterator<Item = (Partition, Offset)>) {
        let at = at.collect::<Vec<_>>();
        self.cache.reached(&at);
        let news = self.watermark.send_if_modified(|watermark| {
            let mut moved = false;
            for (partition, next) in at {
                if let Some(slot) = watermark.get_mut(usize::from(partition.0)) {
                    moved |= *slot != next;
                    *slot = next;
                }
            }
            moved
        });
        if news {
            let watermark = self.watermark.borrow();
            self.waiters.wake(|at| watermark.get(usize::from(at.0)).copied().unwrap_or_default());
        }
    }

    /// A batch is in the store.
    pub(super) fn committed(&self, batch: &Batch) {
        self.cache.committed(batch);
    }

    /// These streams are parked in the partitions that are meant, and no others.
    pub(super) fn park(&self, meant: impl Fn(Partition) -> bool, now: BTreeMap<StreamId, Parked>) {
        let mut parked = self.parked.write();
        let before = parked.keys().cloned().collect::<Vec<_>>();
        parked.retain(|_, parked| !meant(parked.partition));
        parked.extend(now.into_iter().filter(|(_, parked)| meant(parked.partition)));
        if !parked.keys().eq(&before) {
            // What is parked no more was folded on without its checkpoint's moving: rows at hand may be from before. Still
            // under the lock: nobody sees the one without the other.
            self.cache.clear();
        }
        self.parked_count.set(parked.len() as f64);
        if !parked.is_empty() {
            info!(projection.parked = parked.len(), "streams are set aside");
        }
        drop(parked);
        self.parked_news.send_replace(());
    }

    /// What a worker told to be parked is from the tables of this generation.
    pub(super) fn told_of(&self, worker: usize, generation: i64) {
        self.told_of.send_modify(|told| {
            told.insert(worker, generation);
        });
    }

    /// A worker has nothing to tell of any more.
    pub(super) fn tells_nothing(&self, worker: usize) {
        self.told_of.send_if_modified(|told| told.remove(&worker).is_some());
    }

    /// Waits until what is told to be parked is from the tables of this generation, or of a later one.
    pub(super) async fn tells_of(&self, generation: i64) {
        let all = |told: &BTreeMap<usize, i64>| told.values().all(|of| *of >= generation);
        // The sender is here: it does not go meanwhile.
        let _ = self.told_of.subscribe().wait_for(all).await;
    }

    /// Why a worker waits for the store; `None` if it does not.
    pub(super) fn waiting(&self, worker: usize, why: Option<String>) {
        let mut workers = self.workers.lock();
        workers.entry(worker).or_default().waiting = why;
        self.tell(&workers);
    }

    /// How far a worker is behind the log.
    pub(super) fn lag(&self, worker: usize, events: u64, seconds: f64) {
        let mut workers = self.workers.lock();
        let said = workers.entry(worker).or_default();
        (said.lag_events, said.lag_seconds) = (events, seconds);
        self.tell_lag(&workers);
    }

    /// A worker has ended.
    pub(super) fn forget(&self, worker: usize) {
        let mut workers = self.workers.lock();
        workers.remove(&worker);
        self.tell(&workers);
        self.tell_lag(&workers);
    }

    /// All have, for good.
    pub(super) fn over(&self, status: ProjectionStatus) {
        if let ProjectionStatus::Failed(fault) = &status {
            error!(fault.code = "projection-stopped", error = %crate::chain(fault), "a projection has stopped");
        } else {
            // Of one that ended as it was asked to, nothing stays to be alarmed about.
            self.lag_events.set(0.0);
            self.lag_seconds.set(0.0);
            self.parked_count.set(0.0);
        }
        self.status.send_replace(status);
    }

    fn tell(&self, workers: &BTreeMap<usize, Said>) {
        let why = workers.values().find_map(|said| said.waiting.clone());
        self.status.send_if_modified(|status| match (&status, why) {
            (ProjectionStatus::Running, Some(why)) => {
                *status = ProjectionStatus::Waiting(why);
                true
            }
            (ProjectionStatus::Waiting(before), Some(why)) if *before != why => {
                *status = ProjectionStatus::Waiting(why);
                true
            }
            (ProjectionStatus::Waiting(_), None) => {
                *status = ProjectionStatus::Running;
                true
            }
            _ => false,
        });
    }

    fn tell_lag(&self, workers: &BTreeMap<usize, Said>) {
        self.lag_events.set(workers.values().map(|said| said.lag_events).sum::<u64>() as f64);
        self.lag_seconds.set(workers.values().map(|said| said.lag_seconds).fold(0.0, f64::max));
    }
}
