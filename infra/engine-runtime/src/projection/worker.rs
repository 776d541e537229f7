//! The task of a projection: it waits for the log to grow, has the folder read and fold, and commits. While it is far
//! behind it folds the next batch during the commit of the last; else it lets gather what comes meanwhile. Whatever may
//! wait for a disk runs in tasks of its own that are never cut off.

mod anew;
mod hands;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use engine::log::{Log, WakerGuard};
use engine::ports::Clock;
use engine::position::{Offset, Partition};
use engine::read_store::{Query, ReadStore, StoreFault};
use engine::record::Genesis;
use engine::stream::StreamId;
use engine::view::View;
use futures::FutureExt;
use metrics::{Counter, counter};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::folder::{Folder, Made, ParkedDoc, Step};
use super::published::Published;
use super::{PARKED_TABLE, ProjectionFault, ProjectionOptions, ProjectionStatus};
use anew::Anew;
use hands::Hands;

/// Records without rows after which checkpoints are committed all the same, so that a restart reads little again.
const UNCOMMITTED_MAX: u64 = 10_000;
/// Least time from one commit to the next where nobody waits for records: a commit of one event costs nearly as much as one
/// of fifty. 4 ms: what is written shows within 10.
const PERIOD: Duration = Duration::from_millis(4);
/// Parked streams read at once.
const PARKED_PAGE: u32 = 1_000;

pub(super) struct Worker<V: View> {
    hands: Hands<V>,
    woken: Arc<Notify>,
    _wakers: (WakerGuard, Option<WakerGuard>),
    /// The store as readers have it, which follows what is in use; the source's own stays with what this worker feeds.
    readers: Arc<dyn ReadStore>,
    /// Of what it feeds.
    generation: i64,
    caught_up: bool,
    /// `None` only while it is lent to a blocking task.
    folder: Option<Folder<V>>,
    events: Counter,
    commits: Counter,
}

/// What all workers of a projection work from and on.
pub(super) struct Source<V: View> {
    pub(super) log: Arc<dyn Log>,
    pub(super) genesis: Genesis,
    pub(super) view: Arc<V>,
    pub(super) store: Arc<dyn ReadStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) options: ProjectionOptions,
    pub(super) published: Arc<Published>,
    /// Where the log really ends, where `log` is a copy that may be behind; nothing where nobody knows just now.
    pub(super) end: Option<LogEnd>,
    /// Whether others feed the same store.
    pub(super) shared: bool,
}

/// Where the log really ends.
pub(super) type LogEnd = Arc<dyn Fn(Partition) -> Option<Offset> + Send + Sync>;

impl<V: View> Clone for Source<V> {
    fn clone(&self) -> Self {
        Self {
            log: self.log.clone(),
            genesis: self.genesis,
            view: self.view.clone(),
            store: Arc::clone(&self.store),
            clock: self.clock.clone(),
            options: self.options.clone(),
            published: self.published.clone(),
            end: self.end.clone(),
            shared: self.shared,
        }
    }
}

/// Why the worker does not go on.
pub(super) enum End {
    /// It was asked to end.
    Asked,
    /// Somebody else feeds what it fed, or the store was set back: where it stands is to be asked again.
    Fenced(Partition),
    /// For good.
    Fault(ProjectionFault),
}

impl<V: View> Worker<V> {
    /// A worker for these partitions, from where the store says that they are.
    pub(super) async fn open(
        mut source: Source<V>,
        number: usize,
        partitions: BTreeSet<Partition>,
        stop: CancellationToken,
    ) -> Result<Self, ProjectionFault> {
        let readers = source.store.clone();
        source.store = readers.feeder().unwrap_or_else(|| readers.clone());
        let (opening, log_id) = (source.store.clone(), source.genesis.log);
        let checkpoints = spawned(async move { opening.open(log_id).await }).await.map_err(store_fault)?;
        let mut committed = vec![None; usize::from(source.genesis.partitions)];
        for (partition, checkpoint) in checkpoints {
            if source.shared && !partitions.contains(&partition) {
                continue;
            }
            let end = match &source.end {
                _ if partition.0 >= source.genesis.partitions => Some(Offset(0)),
                None => Some(source.log.end(partition)),
                Some(end) => end(partition),
            };
            match end {
                Some(log) if checkpoint.next_offset > log => {
                    return Err(ProjectionFault::AheadOfLog { partition, store: checkpoint.next_offset, log });
                }
                _ => {}
            }
            if let Some(slot) = committed.get_mut(usize::from(partition.0)) {
                *slot = Some(checkpoint);
            }
        }
        let mut parked = read_parked(&source.store).await.map_err(store_fault)?;
        parked.retain(|_, doc| partitions.contains(&doc.parked.partition));
        let woken = Arc::new(Notify::new());
        let waking = woken.clone();
        let name = source.options.name;
        let events = counter!("docket_projection_events_total", "projection" => name);
        let commits = counter!("docket_projection_commits_total", "projection" => name);
        let waker = source.log.on_append(Arc::new(move || waking.notify_one()));
        let partitions = partitions.into_iter().collect::<Vec<_>>();
        let (view, options) = (source.view.clone(), source.options.clone());
        let mut folder = Folder::new(view, options, partitions.clone(), source.shared, committed, parked);
        let generation = source.store.generation();
        folder.generation = generation;
        let waking = woken.clone();
        let switched = readers.on_switched(Arc::new(move || waking.notify_one()));
        let hands = Hands { source, number, partitions, stop, shown: folder.at.clone(), recorded_at: None };
        hands.publish_parked(&folder);
        hands.source.published.told_of(number, generation);
        hands.publish();
        hands.running();
        let (folder, _wakers, caught_up) = (Some(folder), (waker, switched), false);
        Ok(Self { hands, woken, _wakers, readers, generation, caught_up, folder, events, commits })
    }

    /// Alone in its projection: until it is stopped or cannot go on. If other tables come into use, it goes on with them.
    pub(super) async fn run_alone(mut self) {
        let published = self.hands.source.published.clone();
        let status = loop {
            let anew = self.anew();
            let status = match self.run().await {
                End::Asked => ProjectionStatus::Stopped,
                End::Fenced(_) if anew.is_due() => match anew.open().await {
                    Ok(worker) => {
                        self = worker;
                        continue;
                    }
                    Err(status) => status,
                },
                End::Fenced(partition) => ProjectionStatus::Failed(store_fault(StoreFault::Fenced(partition))),
                End::Fault(fault) => ProjectionStatus::Failed(fault),
            };
            break status;
        };
        published.over(status);
    }

    /// What it takes to begin anew, with whatever is in use then.
    fn anew(&self) -> Anew<V> {
        let Hands { source, number, partitions, stop, .. } = &self.hands;
        let source = Source { store: self.readers.clone(), ..source.clone() };
        let partitions = partitions.iter().copied().collect();
        Anew { source, number: *number, partitions, stop: stop.clone(), generation: self.generation }
    }

    /// Until it is stopped or cannot go on.
    pub(super) async fn run(mut self) -> End {
        let end = AssertUnwindSafe(self.follow()).catch_unwind().await;
        self.hands.source.published.forget(self.hands.number);
        end.unwrap_or_else(|panic| End::Fault(ProjectionFault::Wrong(crate::panic_text(panic.as_ref()))))
    }

    async fn follow(&mut self) -> End {
        if let Err(end) = self.retry_parked().await {
            return end;
        }
        let mut made = None;
        let mut began = Instant::now() - PERIOD;
        loop {
            let stopping = self.hands.stop.is_cancelled();
            if !stopping && self.readers.generation() != self.generation {
                return End::Fenced(self.hands.partitions.first().copied().unwrap_or_default());
            }
            let was_idle = made.is_none();
            let next = match made.take() {
                None if stopping => return self.leave().await,
                None => {
                    self.breathe(began).await;
                    let begin = Instant::now();
                    let made = self.make().await;
                    if let Ok(Some(_)) = made {
                        began = begin;
                    }
                    made
                }
                Some(now) => self.commit_making(now, stopping).await,
            };
            made = match next {
                Ok(next) => next,
                Err(end) => return end,
            };
            if !self.caught_up
                && let Err(end) = self.say_caught_up(was_idle && made.is_none()).await
            {
                return end;
            }
            if was_idle && made.is_none() {
                self.hands.report_lag();
                tokio::select! {
                    biased;
                    () = self.hands.stop.cancelled() => {}
                    () = self.woken.notified() => {}
                }
            }
        }
    }

    /// Tells the store once that little is left to fold.
    async fn say_caught_up(&mut self, idle: bool) -> Result<(), End> {
        if !idle && self.hands.behind() > self.hands.source.options.batch_events_max as u64 {
            return Ok(());
        }
        let store = self.hands.source.store.clone();
        match spawned(async move { store.caught_up().await }).await {
            Ok(()) => {
                self.caught_up = true;
                self.hands.source.published.caught_up.send_replace(true);
            }
            // Said again after the next batch.
            Err(StoreFault::Unavailable(why)) => warn!(error = %why, "the read store does not answer"),
            Err(fault) => return Err(store_end(fault)),
        }
        Ok(())
    }

    /// Lets gather what comes, unless somebody waits for it.
    async fn breathe(&self, began: Instant) {
        let published = &self.hands.source.published;
        let hurry = published.hurry.notified();
        tokio::pin!(hurry);
        // Registered before the look: who comes in between is not missed.
        hurry.as_mut().enable();
        if published.is_waited_for() {
            return;
        }
        tokio::select! {
            biased;
            () = self.hands.stop.cancelled() => {}
            () = &mut hurry => {}
            () = tokio::time::sleep_until(began + PERIOD) => {}
        }
    }

    /// Lends the folder to a thread that may wait.
    async fn fold<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Folder<V>, &dyn Log) -> T + Send + 'static,
    ) -> Result<T, End> {
        let wrong = || End::Fault(ProjectionFault::Wrong("its folder is gone".to_owned()));
        let mut folder = self.folder.take().ok_or_else(wrong)?;
        let log = self.hands.source.log.clone();
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&mut folder, log.as_ref());
            (folder, result)
        });
        let (folder, result) = done.await.map_err(|_| wrong())?;
        self.folder = Some(folder);
        Ok(result)
    }

    fn folder(&mut self) -> &mut Folder<V> {
        self.folder.as_mut().expect("lent only within `fold`, which puts it back or ends the worker")
    }

    /// Folds what is there, at most one batch of it; nothing if there is nothing.
    async fn make(&mut self) -> Result<Option<Made>, End> {
        let step = self.fold(|folder, log| folder.gather(log)).await?.map_err(log_fault)?;
        Ok(if self.load_and_fold(step).await? { Some(self.folder().make()) } else { None })
    }

    /// Commits a batch. If there was more than it took, the next one is folded meanwhile: that is given back. What has to
    /// be looked up in the store waits until the commit is done.
    async fn commit_making(&mut self, now: Made, last: bool) -> Result<Option<Made>, End> {
        if last || !now.is_full {
            self.hands.commit_made(&now).await?;
            self.is_done(&now).await?;
            return Ok(None);
        }
        let wrong = || End::Fault(ProjectionFault::Wrong("its folder is gone".to_owned()));
        let mut folder = self.folder.take().ok_or_else(wrong)?;
        let log = self.hands.source.log.clone();
        let folding = tokio::task::spawn_blocking(move || {
            let step = folder.gather(log.as_ref());
            (folder, step)
        });
        let (committed, folding) = tokio::join!(self.hands.commit_made(&now), folding);
        let (folder, step) = folding.map_err(|_| wrong())?;
        self.folder = Some(folder);
        committed?;
        self.is_done(&now).await?;
        Ok(if self.load_and_fold(step.map_err(log_fault)?).await? { Some(self.folder().make()) } else { None })
    }

    /// Tells everybody of a batch that is in the store, or that had nothing for it.
    async fn is_done(&mut self, made: &Made) -> Result<(), End> {
        self.commits.increment(u64::from(made.batch.is_some()));
        self.events.increment(made.events as u64);
        self.hands.source.published.events.fetch_add(made.events as u64, Ordering::Relaxed);
        self.hands.recorded_at = made.recorded_at.or(self.hands.recorded_at);
        self.hands.shown.clone_from(&made.at);
        if made.parked_changed
            && let Some(folder) = &self.folder
        {
            self.hands.publish_parked(folder);
        }
        if made.batch.is_none() {
            let committed = self.folder().committed.iter().map(|at| at.unwrap_or_default().next_offset.0);
            let uncommitted = made.at.iter().zip(committed).map(|(at, committed)| at.next_offset.0 - committed);
            if uncommitted.sum::<u64>() > UNCOMMITTED_MAX {
                self.commit_checkpoints().await?;
            }
        }
        self.hands.publish();
        self.hands.report_lag();
        Ok(())
    }

    /// Follows the folder's steps until it has folded. False if there was nothing.
    async fn load_and_fold(&mut self, mut step: Step) -> Result<bool, End> {
        loop {
            match step {
                Step::Idle => return Ok(false),
                Step::Folded => return Ok(true),
                Step::Load(keys) => {
                    let found = self.hands.load(keys.clone()).await?;
                    step = self.fold(move |folder, _| folder.supply(keys, found)).await?;
                }
            }
        }
    }

    async fn commit_checkpoints(&mut self) -> Result<(), End> {
        let batch = {
            let folder = self.folder();
            folder.checkpoints(&folder.at)
        };
        if !batch.checkpoints.is_empty() {
            self.hands.commit(&Arc::new(batch)).await?;
            self.folder().all_committed();
        }
        Ok(())
    }

    /// Tries what was parked again, once per start: a fixed view or a new upcaster may take it now.
    async fn retry_parked(&mut self) -> Result<(), End> {
        for partition in self.hands.partitions.clone() {
            let Some(mut retry) = self.folder().begin_retry(partition) else { continue };
            loop {
                if self.hands.stop.is_cancelled() {
                    return Err(End::Asked);
                }
                let (step, lent) = self
                    .fold(move |folder, log| {
                        let step = folder.gather_retry(log, &retry);
                        (step, retry)
                    })
                    .await?;
                retry = lent;
                self.load_and_fold(step.map_err(log_fault)?).await?;
                let batch = self.folder().batch_retry(&mut retry);
                self.hands.commit(&Arc::new(batch)).await?;
                if !self.folder().done_retry(&retry) {
                    break;
                }
            }
        }
        if let Some(folder) = &self.folder {
            self.hands.publish_parked(folder);
        }
        Ok(())
    }

    /// Leaves the store where the fold is.
    async fn leave(&mut self) -> End {
        match self.commit_checkpoints().await {
            Ok(()) => End::Asked,
            Err(end) => end,
        }
    }
}

/// Runs a store's future to its end, whatever becomes of the caller.
pub(super) async fn spawned<T: Send + 'static>(
    work: impl Future<Output = Result<T, StoreFault>> + Send + 'static,
) -> Result<T, StoreFault> {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(cut) => Err(StoreFault::Damaged(format!("its task ended: {cut}"))),
    }
}

/// All parked streams of the store.
pub(super) async fn read_parked(store: &Arc<dyn ReadStore>) -> Result<BTreeMap<StreamId, ParkedDoc>, StoreFault> {
    let mut parked = BTreeMap::new();
    let mut after = None;
    loop {
        let query = Query {
            table: PARKED_TABLE.name,
            filters: Vec::new(),
            sort: None,
            descending: false,
            after,
            limit: PARKED_PAGE,
        };
        let reading = store.clone();
        let page = spawned(async move { reading.list(query).await }).await?;
        let full = page.len() == PARKED_PAGE as usize;
        after = page.last().map(|(key, _)| (serde_json::Value::Null, key.clone()));
        for (key, row) in page {
            let doc = row.doc.read::<ParkedDoc>();
            let doc = doc.map_err(|why| StoreFault::Damaged(format!("parked {key}: {why}")))?;
            let stream = StreamId { tenant: doc.parked.tenant.clone(), name: doc.parked.stream.clone() };
            parked.insert(stream, doc);
        }
        if !full {
            return Ok(parked);
        }
    }
}

/// What a fault of the store means for the worker that met it.
fn store_end(fault: StoreFault) -> End {
    match fault {
        StoreFault::Fenced(partition) => End::Fenced(partition),
        fault => End::Fault(store_fault(fault)),
    }
}

pub(super) fn store_fault(fault: StoreFault) -> ProjectionFault {
    ProjectionFault::Store(Arc::new(fault))
}

fn log_fault(why: String) -> End {
    End::Fault(ProjectionFault::Log(why))
}

/// Half to one and a half times as long, so that those who wait do not come back together.
pub(super) fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(0.5 + rand::random::<f64>())
}
