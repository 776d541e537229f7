//! A node: one process of those that share a log. It leads the partitions that its hint names and follows the others, so
//! that it can take any of them over at once. Commands go in through one door, are decided by the shard of their
//! partition, here or at the node that leads it, and answered when their effect is certain; what streams owe is carried
//! out where they are led. The work lives in the node's own tasks: a sender that goes away cancels nothing.

mod cache;
mod errands;
mod growth;
mod inbox;
mod loader;
mod replay;
mod routing;
mod saver;
mod shard_task;
mod shared;
mod timers;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use engine::log::Log;
use engine::message::{Answer, CommandId, Envelope, NoAnswer};
use engine::ports::{Chance, Clock};
use engine::position::{Epoch, Offset, Partition, Position, Positions};
use engine::record::{Commit, Genesis};
use engine::saga::Reactor;
use engine::shard::Limits;
use engine::stream::{StreamId, StreamName, Tenant};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info};

use self::cache::StateCache;
use self::errands::Errands;
use self::inbox::Way;
use self::loader::Loader;
use self::routing::Route;
use self::saver::Saver;
use self::shard_task::ShardTask;
use self::shared::{Door, Shared, blocking, no_answer};
use self::timers::Timers;
use crate::history::History;
use crate::outside::Outside;
use crate::peers::{Owner, Peers};
use crate::projection::Behind;
use crate::store::StateStore;
use crate::wanted::{self, Wanted};
use crate::watch::{Watch, Watches};

/// Longest wait of a draining node for what it had forwarded.
const FORWARDS_WAIT: Duration = Duration::from_secs(2);

/// What a node is made of.
pub struct Parts<R: Reactor> {
    /// The log it leads.
    pub log: Arc<dyn Log>,
    /// What the log's record 0 says.
    pub genesis: Genesis,
    /// Where folded states are kept.
    pub store: Arc<StateStore<R>>,
    /// The business.
    pub decider: Arc<R>,
    /// Where its calls go.
    pub outside: Arc<dyn Outside<R::Call, R::Returned>>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where nonces and jitter come from.
    pub chance: Arc<dyn Chance>,
    /// What claims call this node.
    pub node_name: String,
    /// Where others would send commands for it.
    pub address: String,
    /// Which partitions it should lead ([`crate::wanted::all`] where there is no other node).
    pub wanted: Wanted,
    /// The way to other nodes ([`crate::peers::Alone`] where there is none).
    pub peers: Arc<dyn Peers<R>>,
    /// What it bounds.
    pub options: NodeOptions,
}

/// What a node bounds. The defaults suit two cores.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// What each shard bounds.
    pub limits: Limits,
    /// Commands waiting in front of one shard. 1,024: a few groups; more would only hide that the shard is too slow.
    pub queue_max: usize,
    /// Longest wait of one submission for its answer.
    pub answer_wait: Duration,
    /// Bytes of saved states kept in memory, all partitions together. 16 MiB.
    pub cache_bytes: u64,
    /// Threads that look things up in the state store and read records back.
    pub loader_threads: usize,
    /// Errands under way at once; the rest wait in order.
    pub errands_max: usize,
    /// Longest wait for an outside call, after which it counts as unreachable.
    pub call_wait: Duration,
    /// Partitions folded at once at the start.
    pub catch_ups_max: usize,
    /// Commands and questions on their way to other nodes at once. 4,096: what one shard may have under way.
    pub forwards_max: usize,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            queue_max: 1_024,
            answer_wait: Duration::from_secs(30),
            cache_bytes: 16 << 20,
            loader_threads: 2,
            errands_max: 1_024,
            call_wait: Duration::from_secs(30),
            catch_ups_max: 4,
            forwards_max: 4_096,
        }
    }
}

/// Why a node did not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartFault {
    /// The log has no room for the claims.
    #[error("the log is full: no room to claim partition {0}")]
    Full(Partition),
    /// The log's writer has stopped.
    #[error("the log has stopped")]
    Stopped,
    /// Log or state store cannot be read, or contradict each other.
    #[error("partition {partition} cannot be led: {why}")]
    Damaged {
        /// Which.
        partition: Partition,
        /// What is wrong.
        why: String,
    },
    /// The system refused a thread.
    #[error("cannot start a thread: {0}")]
    Threads(String),
}

/// What is known of a command id on one resource.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownCommand {
    /// The resource it addressed.
    pub resource: StreamName,
    /// Its record and where it is; `None` while it runs.
    pub commit: Option<(Position, Arc<Commit>)>,
}

/// How one partition stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionStatus {
    /// Being folded and claimed: commands wait.
    Claiming,
    /// Commands are decided.
    Leading(Epoch),
    /// Not to be led here: led by this node, to which commands are forwarded, or by nobody that the log knows of.
    Following(Option<Owner>),
    /// To be led here, but this node took it: commands are forwarded to it, and it is claimed again soon.
    Contested(Owner),
    /// The log has no room; tried again every second.
    Full,
    /// The log's writer has stopped for good.
    Stopped,
    /// Log, state or shard are wrong; why. Stays so until a person looks.
    Damaged(String),
    /// Given back: this node is shutting down.
    Released,
}

/// How a node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Whether it is shutting down.
    pub draining: bool,
    /// Each partition, by number.
    pub partitions: Vec<PartitionStatus>,
}

impl NodeStatus {
    /// Why commands are not all taken; `None` if they are: every partition is led by somebody known, and those that this
    /// node should lead by this node.
    pub fn unready(&self) -> Option<String> {
        if self.draining {
            return Some("shutting down".to_owned());
        }
        let is_led = |status: &PartitionStatus| {
            matches!(status, PartitionStatus::Leading(_) | PartitionStatus::Following(Some(_)))
        };
        let (partition, status) = self.partitions.iter().enumerate().find(|(_, status)| !is_led(status))?;
        Some(match status {
            PartitionStatus::Leading(_) | PartitionStatus::Following(Some(_)) => return None,
            PartitionStatus::Following(None) => format!("partition {partition} is led by nobody"),
            PartitionStatus::Contested(owner) => format!("partition {partition} was taken by {}", owner.node),
            PartitionStatus::Claiming => format!("partition {partition} is being claimed"),
            PartitionStatus::Full => "the log is full".to_owned(),
            PartitionStatus::Stopped => "the log has stopped".to_owned(),
            PartitionStatus::Damaged(why) => format!("partition {partition} is damaged: {why}"),
            PartitionStatus::Released => format!("partition {partition} is given back"),
        })
    }
}

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
            history: History::new(parts.log.clone(), parts.store.clone()),
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
            errands: Errands::new(partitions, parts.options.errands_max),
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

    /// The door for other nodes' questions: all that is known of a command id in `partition`, behind a barrier. Never
    /// forwards: `NotOwner` if the partition is not led here; while it is being claimed the question waits.
    pub async fn inquire_here(
        &self,
        partition: Partition,
        tenant: Tenant,
        id: CommandId,
        within: Duration,
    ) -> Result<Vec<KnownCommand>, NoAnswer> {
        self.inquire_apart(vec![partition], tenant, id, within, Way::Here).await
    }

    /// All that is known of a command id, on whatever resources it was used. An empty answer rests on a barrier in
    /// every partition: the id was not heard of when the question came.
    pub async fn inquire(&self, tenant: Tenant, id: CommandId) -> Result<Vec<KnownCommand>, NoAnswer> {
        let all = (0..self.genesis().partitions).map(Partition).collect();
        self.inquire_apart(all, tenant, id, self.running.shared.options.answer_wait, Way::Anywhere).await
    }

    /// Asks in a task of its own: a sender that goes away cancels nothing.
    async fn inquire_apart(
        &self,
        partitions: Vec<Partition>,
        tenant: Tenant,
        id: CommandId,
        within: Duration,
        way: Way,
    ) -> Result<Vec<KnownCommand>, NoAnswer> {
        let shared = self.running.shared.clone();
        let deadline = tokio::time::Instant::now() + within;
        let asked =
            tokio::spawn(async move { inquire_partitions(&shared, &partitions, tenant, id, deadline, way).await });
        match tokio::time::timeout_at(deadline, asked).await {
            Ok(Ok(known)) => known,
            Ok(Err(_)) => Err(NoAnswer::Unconfirmed),
            Err(_) => Err(NoAnswer::TimedOut),
        }
    }

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
        let deadline = tokio::time::Instant::now() + within;
        let mut saved = self.saved();
        loop {
            saved.borrow_and_update();
            let next = |partition| self.store().checkpoint(partition).0.next_offset;
            if positions.iter().all(|position| next(position.partition) > position.offset) {
                return Ok(());
            }
            if !matches!(tokio::time::timeout_at(deadline, saved.changed()).await, Ok(Ok(()))) {
                let mut at = Positions::default();
                for partition in (0..self.genesis().partitions).map(Partition) {
                    if let Some(offset) = next(partition).0.checked_sub(1) {
                        at.reach(Position { partition, offset: Offset(offset) });
                    }
                }
                return Err(Behind { at });
            }
        }
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

async fn inquire_partitions<R: Reactor>(
    shared: &Arc<Shared<R>>,
    partitions: &[Partition],
    tenant: Tenant,
    id: CommandId,
    deadline: tokio::time::Instant,
    way: Way,
) -> Result<Vec<KnownCommand>, NoAnswer> {
    let asked = partitions.iter().map(|partition| shared.inquire(*partition, &tenant, id, deadline, way));
    // By resource: what a shard still runs may meanwhile be in the store.
    let mut known = BTreeMap::<StreamName, Option<(Position, Arc<Commit>)>>::new();
    for found in futures::future::try_join_all(asked).await?.into_iter().flatten() {
        let commit = known.entry(found.resource).or_default();
        *commit = commit.take().or(found.commit);
    }
    // The store after the shards: what leaves a shard's memory is in the store by then.
    let looking = shared.clone();
    let stored = blocking(move || looking.store.known(id)).await.map_err(|fault| {
        error!(fault.code = "state-store-unreadable", error = %crate::chain(&fault), "cannot look an id up");
        NoAnswer::LogDamaged
    })?;
    for found in stored.into_iter().filter(|found| found.tenant == tenant && partitions.contains(&found.partition)) {
        let commit = known.entry(found.resource).or_default();
        if commit.is_none() {
            let position = Position { partition: found.partition, offset: found.remembered.offset };
            let record = shared.history.record_at(position).await.map_err(|fault| {
                error!(fault.code = "log-damaged", position = %position, error = %crate::chain(&fault), "cannot read a record");
                NoAnswer::LogDamaged
            })?;
            *commit = Some((position, Arc::new(record)));
        }
    }
    Ok(known.into_iter().map(|(resource, commit)| KnownCommand { resource, commit }).collect())
}
