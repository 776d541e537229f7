//! A projection of a store that nodes share. A supervisor starts a few workers for the partitions that are this node's to
//! feed, ends and starts them as that changes, and tells of all other partitions what the store tells. A worker whose
//! checkpoint somebody moved ends, and is started again from where the store is by then: a zombie learns where it stands,
//! a store restored from a backup is caught up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use engine::position::{Offset, Partition};
use engine::read_store::{Progress, StoreFault};
use engine::view::View;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::worker::{End, Source, Worker, jittered, read_parked, spawned, store_fault};
use super::{ProjectionFault, ProjectionStatus, Sharing};

/// First wait before a worker that was fenced, or did not reach the store, is started again; doubles.
const AGAIN_FIRST: Duration = Duration::from_millis(50);
/// Longest such wait: as long as a server that is down should be left alone.
const AGAIN_MAX: Duration = Duration::from_secs(5);
/// Wait before it is asked again what is parked.
const HEAR_AGAIN: Duration = Duration::from_millis(500);
/// A worker that fed for so long before it ended begins with the first wait again.
const FED_WELL: Duration = Duration::from_secs(10);

/// One worker's place: partitions whose number leaves this remainder.
struct Slot {
    /// What it feeds now, while it runs.
    feeds: BTreeSet<Partition>,
    running: Option<Run>,
    again_at: Instant,
    wait: Duration,
}

struct Run {
    stop: CancellationToken,
    since: Instant,
}

pub(super) struct Supervisor<V: View> {
    source: Source<V>,
    sharing: Sharing,
    stop: CancellationToken,
    slots: Vec<Slot>,
    running: JoinSet<(usize, End)>,
    /// Which change of watched tables the parked streams told of are from, and which generation of tables.
    parked_of: Option<(u64, i64)>,
}

impl<V: View> Supervisor<V> {
    pub(super) fn new(source: Source<V>, sharing: Sharing, stop: CancellationToken) -> Self {
        let slot = || Slot { feeds: BTreeSet::new(), running: None, again_at: Instant::now(), wait: AGAIN_FIRST };
        let slots = (0..source.options.workers.max(1)).map(|_| slot()).collect();
        Self { source, sharing, stop, slots, running: JoinSet::new(), parked_of: None }
    }

    pub(super) async fn run(mut self) {
        let published = self.source.published.clone();
        let status = match self.supervise().await {
            Ok(()) => ProjectionStatus::Stopped,
            Err(fault) => ProjectionStatus::Failed(fault),
        };
        for slot in &self.slots {
            if let Some(run) = &slot.running {
                run.stop.cancel();
            }
        }
        // Each ends after its running commit.
        while self.running.join_next().await.is_some() {}
        published.over(status);
    }

    async fn supervise(&mut self) -> Result<(), ProjectionFault> {
        let mut feeds_end = false;
        let mut progress_ends = false;
        // A switch by this node is no news to the store that it would tell of.
        let switched = Arc::new(Notify::new());
        let waking = switched.clone();
        let _waker = self.source.store.on_switched(Arc::new(move || waking.notify_one()));
        if !self.bind().await? {
            return Ok(());
        }
        loop {
            if self.stop.is_cancelled() {
                return Ok(());
            }
            let feeds = self.sharing.feeds.borrow_and_update().clone();
            let mut next = self.arrange(&feeds);
            let progress = self.sharing.progress.borrow_and_update().clone();
            if !self.hear(&progress).await? {
                let again = Instant::now() + jittered(HEAR_AGAIN);
                next = Some(next.map_or(again, |next| next.min(again)));
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {}
                Some(ended) = self.running.join_next() => self.ended(ended)?,
                changed = self.sharing.feeds.changed(), if !feeds_end => feeds_end = changed.is_err(),
                changed = self.sharing.progress.changed(), if !progress_ends => progress_ends = changed.is_err(),
                () = switched.notified() => {}
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
        }
    }

    /// Makes sure that the store is this log's, however long it takes to reach it. False if that was ended.
    async fn bind(&mut self) -> Result<bool, ProjectionFault> {
        let mut wait = AGAIN_FIRST;
        let me = self.slots.len();
        loop {
            let (store, log_id) = (self.source.store.clone(), self.source.genesis.log);
            match spawned(async move { store.open(log_id).await }).await {
                Ok(_) => return Ok(true),
                Err(StoreFault::Unavailable(why)) => self.source.published.waiting(me, Some(why.to_string())),
                Err(fault) => return Err(store_fault(fault)),
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(false),
                () = tokio::time::sleep(jittered(wait)) => {}
            }
            wait = (wait * 2).min(AGAIN_MAX);
        }
    }

    /// Starts and ends workers, so that what is fed becomes what is to be fed. When to look again, if not before.
    fn arrange(&mut self, feeds: &BTreeSet<Partition>) -> Option<Instant> {
        let count = self.slots.len();
        let mut look_again: Option<Instant> = None;
        for (number, slot) in self.slots.iter_mut().enumerate() {
            let wanted = feeds.iter().copied().filter(|at| usize::from(at.0) % count == number);
            let wanted = wanted.filter(|at| at.0 < self.source.genesis.partitions).collect::<BTreeSet<_>>();
            match &slot.running {
                // Ends after its running commit, and is then started for what is wanted by then.
                Some(run) if slot.feeds != wanted => run.stop.cancel(),
                Some(_) => {}
                None if wanted.is_empty() => {
                    slot.feeds.clear();
                    self.source.published.tells_nothing(number);
                }
                None if Instant::now() < slot.again_at => {
                    look_again = Some(look_again.map_or(slot.again_at, |at| at.min(slot.again_at)));
                }
                None => {
                    let stop = CancellationToken::new();
                    slot.feeds.clone_from(&wanted);
                    slot.running = Some(Run { stop: stop.clone(), since: Instant::now() });
                    let source = self.source.clone();
                    self.running.spawn(async move {
                        let opened = Worker::open(source.clone(), number, wanted, stop).await;
                        let end = match opened {
                            Ok(worker) => worker.run().await,
                            Err(fault) => End::Fault(fault),
                        };
                        (number, end)
                    });
                }
            }
        }
        look_again
    }

    /// A worker has ended: for good, or to be started again.
    fn ended(&mut self, ended: Result<(usize, End), tokio::task::JoinError>) -> Result<(), ProjectionFault> {
        let (number, end) = ended.map_err(|cut| ProjectionFault::Wrong(format!("a worker was cut off: {cut}")))?;
        let slot = &mut self.slots[number];
        let fed_well = slot.running.take().is_some_and(|run| run.since.elapsed() >= FED_WELL);
        if fed_well {
            slot.wait = AGAIN_FIRST;
        }
        match end {
            End::Asked => {
                slot.again_at = Instant::now();
                slot.wait = AGAIN_FIRST;
                return Ok(());
            }
            End::Fenced(partition) => {
                info!(partition = partition.0, "another worker moved the checkpoint: asking the store where it is");
            }
            End::Fault(ProjectionFault::Store(fault))
                if matches!(*fault, StoreFault::Unavailable(_) | StoreFault::Fenced(_)) =>
            {
                let why = crate::chain(&*fault);
                warn!(error = %why, projection.wait_ms = slot.wait.as_millis() as u64, "the read store does not answer");
                self.source.published.waiting(number, Some(why));
            }
            End::Fault(fault) => return Err(fault),
        }
        slot.again_at = Instant::now() + jittered(slot.wait);
        slot.wait = (slot.wait * 2).min(AGAIN_MAX);
        Ok(())
    }

    /// Tells how far partitions are that others feed: first what is parked in them, then how far they are.
    /// False if the store did not answer.
    async fn hear(&mut self, progress: &Arc<Progress>) -> Result<bool, ProjectionFault> {
        // Beside the workers' numbers.
        let me = self.slots.len();
        let published = &self.source.published;
        published.waiting(me, progress.trouble.clone());
        if progress.trouble.is_some() {
            return Ok(true);
        }
        let fed = self.slots.iter().filter(|slot| slot.running.is_some()).flat_map(|slot| slot.feeds.iter().copied());
        let fed = fed.collect::<BTreeSet<_>>();
        // What was parked when it was looked at is at least as new as the progress that made us look.
        let parked_of = (progress.watched, self.source.store.generation());
        if self.parked_of != Some(parked_of) {
            // A store that was set back while nothing is written to the log: no batch would find that out.
            let told = published.watermark.borrow().clone();
            let told = |at: Partition| told.get(usize::from(at.0)).copied().unwrap_or(Offset(0));
            let next = |at: Partition| progress.next.get(&at).copied().unwrap_or(Offset(0));
            if fed.iter().any(|at| next(*at) < told(*at)) {
                // News may be older than what a worker committed since; what is asked now is not.
                let (store, log_id) = (self.source.store.clone(), self.source.genesis.log);
                match spawned(async move { store.open(log_id).await }).await {
                    Ok(found) => {
                        let at = |at: Partition| found.get(&at).map_or(Offset(0), |checkpoint| checkpoint.next_offset);
                        for slot in self.slots.iter().filter(|slot| slot.feeds.iter().any(|of| at(*of) < told(*of))) {
                            if let Some(run) = &slot.running {
                                warn!("the read store was set back: folding on from where it is");
                                run.stop.cancel();
                            }
                        }
                    }
                    Err(StoreFault::Unavailable(why)) => {
                        published.waiting(me, Some(why.to_string()));
                        return Ok(false);
                    }
                    Err(fault) => return Err(store_fault(fault)),
                }
            }
            match read_parked(&self.source.store).await {
                Ok(parked) => {
                    let parked = parked.into_iter().map(|(stream, doc)| (stream, doc.parked)).collect();
                    published.park(|at| !fed.contains(&at), parked);
                    self.parked_of = Some(parked_of);
                    published.told_of(me, parked_of.1);
                }
                Err(StoreFault::Unavailable(why)) => {
                    // Not yet: who waits for these positions waits until it is known what is parked.
                    published.waiting(me, Some(why.to_string()));
                    return Ok(false);
                }
                Err(fault) => return Err(store_fault(fault)),
            }
        }
        let all = (0..self.source.genesis.partitions).map(Partition).filter(|at| !fed.contains(at));
        published.reached(all.map(|at| (at, progress.next.get(&at).copied().unwrap_or(Offset(0)))));
        Ok(true)
    }
}
