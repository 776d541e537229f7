//! A node: one process of those that share a log. It leads the partitions that its hint names and follows the others, so
//! that it can take any of them over at once. Commands go in through one door, are decided by the shard of their
//! partition, here or at the node that leads it, and answered when their effect is certain; what streams owe is carried
//! out where they are led. The work lives in the node's own tasks: a sender that goes away cancels nothing.

mod cache;
mod errands;
mod growth;
mod inbox;
mod inquiry;
mod loader;
mod measure;
mod parts;
mod reading;
mod replay;
mod routing;
mod saver;
mod shard_task;
mod shared;
mod status;
mod timers;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use engine::message::{Answer, Envelope, NoAnswer};
use engine::ports::Clock;
use engine::position::Partition;
use engine::record::Genesis;
use engine::saga::Reactor;
use engine::stream::{StreamName, Tenant};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info};

use self::cache::StateCache;
use self::errands::Errands;
use self::inbox::Way;
pub use self::inquiry::KnownCommand;
use self::loader::Loader;
pub use self::parts::{NodeOptions, Parts, StartFault};
use self::routing::Route;
use self::saver::Saver;
use self::shard_task::ShardTask;
use self::shared::{Door, Shared, blocking};
pub use self::status::{NodeStatus, PartitionStatus};
use self::timers::Timers;
use crate::history::History;
use crate::store::StateStore;
use crate::wanted;
use crate::watch::Watches;

/// Longest wait of a draining node for what it had forwarded.
const FORWARDS_WAIT: Duration = Duration::from_secs(2);

/// A running node. Clones are the same node; when the last is dropped all its tasks stop as if the process had died:
/// use [`Node::drain`] to end in order.
pub struct Node<R: Reactor> {
    running: Arc<Running<R>>,
}

impl<R: Reactor> Clone for Node<R> {
    fn clone(&self) -> Self {
        Self { running: self.running.clone() }
    }
}

/// Held by nodes only, not by their tasks: dropped with the last node.
struct Running<R: Reactor> {
    shared: Arc<Shared<R>>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

impl<R: Reactor> Running<R> {
    fn stop(&self) {
        self.shared.draining.store(true, Ordering::Release);
        self.shared.errands_end.cancel();
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.aside.close();
        self.shared.saver.close();
        self.shared.loader.close();
        for door in &self.shared.doors {
            door.watches.close();
        }
    }
}

impl<R: Reactor> Drop for Running<R> {
    fn drop(&mut self) {
        self.stop();
    }
}

impl<R: Reactor> Node<R> {
    /// Folds every partition, and claims and leads those that are wanted. Returns when all of those are led, or led by
    /// another node that took them meanwhile, and the others are folded: what it answers from then on is certain.
    ///
    /// # Errors
    /// If any partition cannot be folded or led for a reason that does not pass by itself; then nothing is left running.
    pub async fn start(parts: Parts<R>) -> Result<Self, StartFault> {
        let partitions = parts.genesis.partitions;
        let alone = wanted::is_all_for_ever(&parts.wanted, partitions);
        let (grown, grown_seen) = watch::channel(0_u64);
        let waker = parts.log.on_append(Arc::new(move || grown.send_modify(|times| *times += 1)));
        let (mut doors, mut inboxes, mut ends, mut growths) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for partition in (0..partitions).map(Partition) {
            let (knocks, knocking) = mpsc::channel(parts.options.queue_max);
            // Unbounded in type only: what can come back is bounded by the shard's limits.
            let (inbox, told) = mpsc::unbounded_channel();
            let (acknowledged, term) = (AtomicU64::new(0), AtomicU64::new(0));
            let is_wanted = parts.wanted.borrow().contains(&partition);
            let route = watch::channel(if is_wanted { Route::Here } else { Route::Nobody }).0;
            // Where others write too, everybody follows, and is woken for its own partition only.
            let grown = if alone { grown_seen.clone() } else { growth::of_one(&mut growths) };
            doors.push(Door { knocks, route, grown, acknowledged, term, watches: Watches::new() });
            inboxes.push(inbox);
            ends.push((knocking, told));
        }
        let shared = Arc::new(Shared {
            history: History::new(parts.log.clone(), parts.store.clone(), parts.options.history_reads_max),
            log: parts.log,
            genesis: parts.genesis,
            store: parts.store,
            decider: parts.decider,
            outside: parts.outside,
            clock: parts.clock,
            chance: parts.chance,
            node_name: parts.node_name,
            address: parts.address,
            wanted: parts.wanted,
            peers: parts.peers,
            doors,
            inboxes,
            cache: StateCache::new(parts.options.cache_bytes),
            loader: Loader::new(),
            saver: Saver::new(),
            errands: Errands::new(partitions, &parts.options),
            timers: Timers::new(partitions),
            status: watch::channel(vec![PartitionStatus::Claiming; usize::from(partitions)]).0,
            _waker: waker,
            alone,
            forwards: Arc::new(Semaphore::new(parts.options.forwards_max)),
            aside: TaskTracker::new(),
            catch_ups: Semaphore::new(parts.options.catch_ups_max),
            terms: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            errands_end: CancellationToken::new(),
            drain: CancellationToken::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            turned_away: shared::turned_away(),
            forwarded: shared::forwarded(),
            shard_in_flight: shared::in_flight_gauges(partitions),
            options: parts.options,
        });
        let node = Self { running: Arc::new(Running { shared: shared.clone(), threads: Mutex::new(Vec::new()) }) };
        node.start_threads().map_err(|fault| StartFault::Threads(fault.to_string()))?;
        if !alone {
            shared.aside.spawn(growth::tell(shared.clone(), grown_seen, growths));
        }
        let mut leading = Vec::new();
        for (number, (knocking, told)) in (0..partitions).zip(ends) {
            let (started, starting) = oneshot::channel();
            shared.tasks.spawn(ShardTask::new(shared.clone(), Partition(number), knocking, told, started).run());
            leading.push((Partition(number), starting));
        }
        for (partition, starting) in leading {
            let died = StartFault::Damaged { partition, why: "its task ended".to_owned() };
            if let Err(fault) = starting.await.unwrap_or(Err(died)) {
                node.abandon().await;
                return Err(fault);
            }
        }
        shared.tasks.spawn(errands::dispatch(shared.clone()));
        shared.tasks.spawn(timers::run(shared.clone()));
        let led = (0..partitions).filter(|number| shared.is_leading(Partition(*number))).count();
        info!(partitions, led, log.id = %shared.genesis.log, "leading {led} of {partitions} partitions");
        Ok(node)
    }

    fn start_threads(&self) -> std::io::Result<()> {
        let mut threads = self.running.threads.lock();
        let shared = self.running.shared.clone();
        threads.push(thread::Builder::new().name("state-saver".to_owned()).spawn(move || {
            shared.saver.run(&shared.store, &shared.inboxes);
        })?);
        for number in 0..self.running.shared.options.loader_threads.max(1) {
            let shared = self.running.shared.clone();
            threads.push(thread::Builder::new().name(format!("state-load-{number}")).spawn(move || {
                shared.loader.run(&shared.store, &shared.inboxes);
            })?);
        }
        Ok(())
    }

    /// Hands a command to whoever leads the partition of its resource, here or at another node; the future waits for the
    /// answer, and dropping it (even before it is first polled) cancels nothing. A full queue is `Overloaded` at once.
    /// Where nobody leads, or the leader is gone, it waits for the next one.
    pub fn submit(
        &self,
        envelope: Envelope<R::Command>,
    ) -> impl Future<Output = Result<Answer<R::State>, NoAnswer>> + Send + use<R> {
        self.submit_within(envelope, self.running.shared.options.answer_wait)
    }

    /// The same, waiting at most `within` for the answer.
    pub fn submit_within(
        &self,
        envelope: Envelope<R::Command>,
        within: Duration,
    ) -> impl Future<Output = Result<Answer<R::State>, NoAnswer>> + Send + use<R> {
        self.running.shared.submit(envelope, within, Way::Anywhere)
    }

    /// The door for other nodes: as [`Self::submit_within`], but never forwards. `NotOwner` if the partition is not led
    /// here (this try did nothing); while it is being claimed the command waits.
    pub fn submit_here(
        &self,
        envelope: Envelope<R::Command>,
        within: Duration,
    ) -> impl Future<Output = Result<Answer<R::State>, NoAnswer>> + Send + use<R> {
        self.running.shared.submit(envelope, within, Way::Here)
    }

    /// Reads what happened.
    pub fn history(&self) -> &History<R> {
        &self.running.shared.history
    }

    /// The state store behind it: streams by name, states, the index. Its calls block.
    pub fn store(&self) -> &Arc<StateStore<R>> {
        &self.running.shared.store
    }

    /// What the log is.
    pub fn genesis(&self) -> &Genesis {
        &self.running.shared.genesis
    }

    /// The clock it runs by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.running.shared.clock
    }

    /// Where a stream lives.
    pub fn partition_of(&self, tenant: &Tenant, stream: &StreamName) -> Partition {
        self.running.shared.partition_of(tenant, stream)
    }

    /// Whether it takes commands for all partitions.
    pub fn is_ready(&self) -> bool {
        self.status().unready().is_none()
    }

    /// How it stands.
    pub fn status(&self) -> NodeStatus {
        let draining = self.running.shared.draining.load(Ordering::Acquire);
        NodeStatus { draining, partitions: self.running.shared.status.borrow().clone() }
    }

    /// Waits until `reached` says so of how the partitions stand, which may be at once.
    pub async fn until_status(&self, mut reached: impl FnMut(&[PartitionStatus]) -> bool) {
        let mut status = self.running.shared.status.subscribe();
        // The sender lives as long as this node.
        let _ = status.wait_for(|all| reached(all)).await;
    }

    /// Takes no more, settles what is under way, gives the partitions back and saves. `false` if that was not done by
    /// `within`: then the rest is left as if the process had died, which loses nothing. Also `false` if a partition
    /// could not be given back.
    pub async fn drain(&self, within: Duration) -> bool {
        let shared = &self.running.shared;
        shared.draining.store(true, Ordering::Release);
        shared.errands_end.cancel();
        shared.drain.cancel();
        shared.tasks.close();
        let until = tokio::time::Instant::now() + within;
        let in_time = tokio::time::timeout_at(until, shared.tasks.wait()).await.is_ok();
        let saved = in_time && shared.saver.flush().await.is_ok();
        if saved {
            let saving = shared.clone();
            if let Err(fault) = blocking(move || saving.store.persist()).await {
                error!(fault.code = "state-store-failed", error = %crate::chain(&fault), "the state store was not synced");
            }
        }
        // Answers that are on their way from other nodes are let in, but not for long.
        let forwards = u32::try_from(shared.options.forwards_max).unwrap_or(u32::MAX);
        let let_in = until.min(tokio::time::Instant::now() + FORWARDS_WAIT);
        let _ = tokio::time::timeout_at(let_in, shared.forwards.acquire_many(forwards)).await;
        let released = self.status().partitions.iter().all(|status| *status == PartitionStatus::Released);
        self.abandon().await;
        in_time && saved && released
    }

    /// Stops all at once, as if the process had died, and waits until nothing runs any more. Loses nothing that was
    /// answered; what was under way stays unknown to its senders.
    pub async fn abandon(&self) {
        self.running.stop();
        self.running.shared.tasks.wait().await;
        self.running.shared.aside.wait().await;
        let threads = std::mem::take(&mut *self.running.threads.lock());
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
        let _ = joined.await;
    }
}
