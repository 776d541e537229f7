//! The way of a command to whoever leads its partition: into the queue of the shard here, or to another node, following
//! the claims as the log is folded. A command is sent again, under its own id, for as long as its sender waits: that
//! converges, because the owner knows the id. What may have taken effect somewhere is never called undone.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use engine::message::{Answer, CommandId, Envelope, NoAnswer};
use engine::position::{Epoch, Partition, Position};
use engine::saga::Reactor;
use engine::stream::{StreamName, Tenant};
use futures::FutureExt;
use metrics::counter;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, error};

use super::inbox::{Knock, Reply, Way};
use super::shared::{Answering, Shared, answer};
use super::{KnownCommand, PartitionStatus, replay};
use crate::peers::Owner;

/// Longest wait of the node's own commands for room in a shard's queue.
const ROOM_WAIT: Duration = Duration::from_secs(5);
/// First wait before the same owner is tried again; doubles from try to try.
const BACK_OFF_FIRST: Duration = Duration::from_millis(5);
/// Longest such wait, for the first tries.
const BACK_OFF_MAX: Duration = Duration::from_millis(50);
/// After so many tries of one owner that is not there, the next claim will tell before a try does.
const QUICK_TRIES_MAX: u32 = 8;
/// Between tries from then on.
const SLOW_TRY: Duration = Duration::from_millis(500);
/// Tries of an owner that is too busy. 3: more would keep it so.
const BUSY_TRIES_MAX: u32 = 3;
/// How long the last owner's answer is waited for once there is another: after a hand-over it is on its way.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Where commands of a partition go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// To the shard here: it leads, or is about to, or says why not.
    Here,
    /// To this node, in this term.
    There(Owner, Epoch),
    /// Nobody is known to lead it.
    Nobody,
}

type Routed = watch::Receiver<Route>;

impl<R: Reactor> Shared<R> {
    /// Hands a command over, now or not at all, and gives what to wait for.
    pub(crate) fn submit(
        self: &Arc<Self>,
        envelope: Envelope<R::Command>,
        wait: Duration,
        way: Way,
    ) -> impl Future<Output = Result<Answer<R::State>, NoAnswer>> + Send + use<R> {
        let deadline = Instant::now() + wait;
        let handed = self.hand_over(envelope, deadline, way);
        if let Err(why) = &handed {
            turn_away(self, *why);
        }
        async move { answer(handed?, deadline).await }
    }

    fn hand_over(
        self: &Arc<Self>,
        envelope: Envelope<R::Command>,
        deadline: Instant,
        way: Way,
    ) -> Result<Answering<R>, NoAnswer> {
        if self.draining.load(Ordering::Acquire) {
            return Err(NoAnswer::Draining);
        }
        let partition = self.home_of(&envelope)?;
        let door = self.door(partition);
        let is_here = *door.route.borrow() == Route::Here;
        let (to, receiver) = oneshot::channel();
        let begin_by = Some(Instant::now() + self.options.queue_wait_max);
        let reply = Reply { to, deadline, begin_by, way, doubt: false };
        if is_here {
            match door.knocks.try_send(Knock::Command(Box::new(envelope), reply)) {
                Ok(()) => Ok(receiver),
                Err(mpsc::error::TrySendError::Full(_)) => Err(NoAnswer::Overloaded),
                Err(mpsc::error::TrySendError::Closed(_)) => Err(self.closed()),
            }
        } else if way == Way::Here {
            Err(NoAnswer::NotOwner)
        } else {
            let permit = self.forwards.clone().try_acquire_owned().map_err(|_| NoAnswer::Overloaded)?;
            self.forward(partition, envelope, reply, Some(permit));
            Ok(receiver)
        }
    }

    /// The same door for the node's own commands, which wait for room: what is owed must not lose to what is new.
    pub(crate) async fn submit_own(
        self: &Arc<Self>,
        envelope: Envelope<R::Command>,
    ) -> Result<Answer<R::State>, NoAnswer> {
        if self.draining.load(Ordering::Acquire) {
            return Err(NoAnswer::Draining);
        }
        let partition = self.home_of(&envelope)?;
        let door = self.door(partition);
        let room_until = Instant::now() + ROOM_WAIT;
        let is_here = *door.route.borrow() == Route::Here;
        let (to, receiver) = oneshot::channel();
        let deadline = Instant::now() + self.options.answer_wait;
        let reply = Reply { to, deadline, begin_by: None, way: Way::Anywhere, doubt: false };
        if is_here {
            let room = timeout_at(room_until, door.knocks.reserve()).await.map_err(|_| NoAnswer::Overloaded)?;
            room.map_err(|_| self.closed())?.send(Knock::Command(Box::new(envelope), reply));
        } else {
            let permit = timeout_at(room_until, self.forwards.clone().acquire_owned()).await;
            let permit = permit.map_err(|_| NoAnswer::Overloaded)?.map_err(|_| NoAnswer::Draining)?;
            self.forward(partition, envelope, reply, Some(permit));
        }
        answer(receiver, deadline).await
    }

    /// Where an envelope goes: the partition of all streams of its command. One that addresses another stream than its
    /// command's first, or names streams of several partitions, is a mistake of whoever made it; the shard would stop
    /// rather than decide on it, so it is turned away here.
    fn home_of(&self, envelope: &Envelope<R::Command>) -> Result<Partition, NoAnswer> {
        let partition = self.partition_of(&envelope.tenant, &envelope.resource);
        if let Some(command) = &envelope.command {
            let streams = self.decider.streams(command);
            let at_home = |stream: &StreamName| self.partition_of(&envelope.tenant, stream) == partition;
            if streams.first() != Some(&envelope.resource) || !streams[1..].iter().all(at_home) {
                error!(fault.code = "command-misplaced", stream = %envelope.resource, "a command is not where its streams are");
                return Err(NoAnswer::NotOwner);
            }
        }
        Ok(partition)
    }

    /// Takes a command to whoever leads its partition, in a task of its own.
    pub(crate) fn forward(
        self: &Arc<Self>,
        partition: Partition,
        envelope: Envelope<R::Command>,
        reply: Reply<R>,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        let shared = self.clone();
        self.aside.spawn(async move {
            let stop = shared.stop.clone();
            tokio::select! {
                biased;
                // The reply goes with it: unknown to whoever waits.
                () = stop.cancelled() => {}
                () = carry(&shared, partition, envelope, reply, permit) => {}
            }
        });
    }

    /// Remembers that somebody was told of this record.
    pub(crate) fn reach(&self, position: Position) {
        if let Some(door) = self.doors.get(usize::from(position.partition.0)) {
            door.acknowledged.fetch_max(position.offset.0 + 1, Ordering::AcqRel);
        }
    }

    /// What the leader of `partition` knows of a command id, behind a barrier; the state store here may know more.
    pub(crate) async fn inquire(
        self: &Arc<Self>,
        partition: Partition,
        tenant: &Tenant,
        id: CommandId,
        deadline: Instant,
        way: Way,
    ) -> Result<Vec<KnownCommand>, NoAnswer> {
        // What comes from another node may name any number.
        let door = self.doors.get(usize::from(partition.0)).ok_or(NoAnswer::NotOwner)?;
        let mut route = door.route.subscribe();
        let mut tries = Tries::new();
        loop {
            let at = route.borrow_and_update().clone();
            let asked = match &at {
                Route::Here => self.inquire_shard(partition, tenant, id, deadline).await,
                _ if way == Way::Here => return Err(NoAnswer::NotOwner),
                Route::There(owner, _) => {
                    let _permit =
                        timeout_at(deadline, self.forwards.acquire()).await.map_err(|_| NoAnswer::Overloaded)?;
                    let within = deadline.saturating_duration_since(Instant::now());
                    let call = self.peers.inquire(owner, partition, tenant.clone(), id, within);
                    tokio::select! {
                        asked = timeout_at(deadline, call) => asked.unwrap_or(Err(NoAnswer::TimedOut)),
                        () = moved_on(&mut route, &at) => Err(NoAnswer::NotOwner),
                    }
                }
                Route::Nobody => Err(NoAnswer::NotOwner),
            };
            match asked {
                Ok(known) => {
                    for (position, _) in known.iter().filter_map(|known| known.commit.as_ref()) {
                        self.reach(*position);
                    }
                    return Ok(known);
                }
                Err(no) if way == Way::Here || !tries.may_try_again(no) => return Err(no),
                Err(no) => {
                    if !self.wait(&mut tries, &mut route, &at, deadline).await {
                        return Err(no);
                    }
                }
            }
        }
    }

    async fn inquire_shard(
        &self,
        partition: Partition,
        tenant: &Tenant,
        id: CommandId,
        deadline: Instant,
    ) -> Result<Vec<KnownCommand>, NoAnswer> {
        let (sender, receiver) = oneshot::channel();
        let asking = async {
            let knock = Knock::Inquiry(tenant.clone(), id, sender);
            self.door(partition).knocks.send(knock).await.map_err(|_| self.closed())?;
            receiver.await.map_err(|_| NoAnswer::Unconfirmed)?
        };
        let known = timeout_at(deadline, asking).await.map_err(|_| NoAnswer::TimedOut)??;
        Ok(known.into_iter().map(|known| KnownCommand { resource: known.resource, commit: known.commit }).collect())
    }

    /// What an owner of another version left out is folded here, from this node's own copy of the log. If that cannot be
    /// had, the command is done all the same and its sender does not know it: a repeat, here or elsewhere, tells.
    async fn with_state(
        self: &Arc<Self>,
        partition: Partition,
        envelope: &Envelope<R::Command>,
        answer: Answer<R::State>,
        deadline: Instant,
    ) -> Result<Answer<R::State>, NoAnswer> {
        let Answer::Decided(mut decided) = answer else { return Ok(answer) };
        if decided.lacks_state() {
            let position = Position { partition, offset: decided.position.offset };
            let folded = async {
                self.until_folded(position).await?;
                replay::state_at(self, position, &envelope.tenant, &envelope.resource, decided.version).await
            };
            let folded = timeout_at(deadline, folded).await.map_err(|_| NoAnswer::TimedOut)?;
            // Whatever the reason, it must not sound as if nothing had been done.
            decided.state = Some(folded.map_err(|_| NoAnswer::Unconfirmed)?);
        }
        Ok(Answer::Decided(decided))
    }

    /// Waits until the state store reflects this record.
    async fn until_folded(&self, position: Position) -> Result<(), NoAnswer> {
        let (mut saved, mut status) = (self.saver.saved(), self.status.subscribe());
        loop {
            saved.borrow_and_update();
            if self.store.checkpoint(position.partition).0.next_offset > position.offset {
                return Ok(());
            }
            // Nobody here folds it any further.
            if let PartitionStatus::Stopped | PartitionStatus::Damaged(_) | PartitionStatus::Released =
                status.borrow_and_update()[usize::from(position.partition.0)]
            {
                return Err(NoAnswer::Unconfirmed);
            }
            tokio::select! {
                moved = saved.changed() => moved.map_err(|_| NoAnswer::Unconfirmed)?,
                moved = status.changed() => moved.map_err(|_| NoAnswer::Unconfirmed)?,
            }
        }
    }

    /// Waits until there is another route, or it is time to try the same again. False once the deadline has passed, or
    /// the node drains.
    async fn wait(&self, tries: &mut Tries, route: &mut Routed, at: &Route, deadline: Instant) -> bool {
        let again = if *at == Route::Nobody { deadline } else { (Instant::now() + tries.back_off()).min(deadline) };
        tokio::select! {
            biased;
            () = self.drain.cancelled() => return false,
            () = moved_on(route, at) => *tries = Tries::new(),
            () = sleep_until(again) => {}
        }
        Instant::now() < deadline
    }
}

/// Until somebody answers it, or nobody waits any more.
async fn carry<R: Reactor>(
    shared: &Arc<Shared<R>>,
    partition: Partition,
    envelope: Envelope<R::Command>,
    mut reply: Reply<R>,
    permit: Option<OwnedSemaphorePermit>,
) {
    let deadline = reply.deadline;
    let _permit = match permit {
        Some(permit) => permit,
        None => match timeout_at(deadline, shared.forwards.clone().acquire_owned()).await {
            Ok(Ok(permit)) => permit,
            _ => return give_up(shared, reply, NoAnswer::Overloaded),
        },
    };
    let mut route = shared.door(partition).route.subscribe();
    let mut tries = Tries::new();
    loop {
        let at = route.borrow_and_update().clone();
        let tried = match &at {
            Route::Here => {
                // It has waited for a leader, which is no fault of the queue that it comes to now.
                reply.begin_by = None;
                // The shard answers, or hands it back here.
                return match timeout_at(deadline, shared.door(partition).knocks.reserve()).await {
                    Ok(Ok(room)) => room.send(Knock::Command(Box::new(envelope), reply)),
                    Ok(Err(_)) => give_up(shared, reply, shared.closed()),
                    Err(_) => give_up(shared, reply, NoAnswer::Overloaded),
                };
            }
            Route::There(owner, _) => {
                let within = deadline.saturating_duration_since(Instant::now());
                let call = shared.peers.submit(owner, partition, envelope.clone(), within).fuse();
                tokio::pin!(call);
                tokio::select! {
                    biased;
                    tried = timeout_at(deadline, &mut call) => tried.unwrap_or(Err(NoAnswer::TimedOut)),
                    () = moved_on(&mut route, &at) => {
                        let last_words = (Instant::now() + LAST_WORDS).min(deadline);
                        timeout_at(last_words, &mut call).await.unwrap_or(Err(NoAnswer::Unconfirmed))
                    }
                }
            }
            Route::Nobody => Err(NoAnswer::NotOwner),
        };
        match tried {
            Ok(answer) => {
                if let Answer::Decided(decided) = &answer {
                    shared.reach(decided.position);
                }
                shared.forwarded.increment(1);
                let told = shared.with_state(partition, &envelope, answer, deadline).await;
                if told.is_err() {
                    shared.turned_away.increment(1);
                }
                // Whoever asked may have gone away; it is done all the same.
                let _ = reply.to.send(told);
                return;
            }
            Err(no) => {
                reply.doubt |= matches!(no, NoAnswer::Unconfirmed | NoAnswer::TimedOut);
                debug!(partition = partition.0, command.id = %envelope.id, "not answered yet: {no}");
                if !tries.may_try_again(no) || !shared.wait(&mut tries, &mut route, &at, deadline).await {
                    return give_up(shared, reply, no);
                }
            }
        }
    }
}

fn give_up<R: Reactor>(shared: &Shared<R>, reply: Reply<R>, no: NoAnswer) {
    // Another node's draining is not ours.
    let no = if let NoAnswer::Draining | NoAnswer::NotOwner = no { shared.closed() } else { no };
    let no = reply.no(no);
    turn_away(shared, no);
    let _ = reply.to.send(Err(no));
}

/// Counts a command that was not answered, and why it was not where a bound was reached.
fn turn_away<R: Reactor>(shared: &Shared<R>, why: NoAnswer) {
    shared.turned_away.increment(1);
    if why == NoAnswer::Overloaded {
        counter!("docket_commands_turned_away_total").increment(1);
    }
}

/// Waits until commands go elsewhere than `at`.
async fn moved_on(route: &mut Routed, at: &Route) {
    if route.wait_for(|route| route != at).await.is_err() {
        // The node is gone, and this task soon.
        std::future::pending::<()>().await;
    }
}

/// Tries along one route.
struct Tries {
    count: u32,
    busy: u32,
}

impl Tries {
    fn new() -> Self {
        Self { count: 0, busy: 0 }
    }

    /// Whether another try may end otherwise.
    fn may_try_again(&mut self, no: NoAnswer) -> bool {
        match no {
            NoAnswer::NotOwner
            | NoAnswer::Unreachable
            | NoAnswer::Draining
            | NoAnswer::Unconfirmed
            | NoAnswer::TimedOut => true,
            NoAnswer::Overloaded => {
                self.busy += 1;
                self.busy < BUSY_TRIES_MAX
            }
            NoAnswer::LogFull | NoAnswer::LogStopped | NoAnswer::LogDamaged => false,
        }
    }

    fn back_off(&mut self) -> Duration {
        self.count += 1;
        if self.count > QUICK_TRIES_MAX {
            return SLOW_TRY;
        }
        BACK_OFF_FIRST.saturating_mul(1 << (self.count - 1).min(8)).min(BACK_OFF_MAX)
    }
}
