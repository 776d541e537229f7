//! One partition's task: a small state machine. It *follows* the partition's log, folding it into the state store, for as
//! long as this node is not to lead it or another one does; it *claims* the partition when the hint says so, runs the shard
//! while it *leads*, carries its effects out, and when a term ends waits for what was effective to be saved, and follows
//! again. Nothing a shard does can take another down: a panic is caught here and costs its partition only.

mod effects;
mod following;
mod told;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use engine::log::{AppendError, Appender, Delivery};
use engine::message::{Answer, CommandId, Envelope, NoAnswer};
use engine::position::{Checkpoint, Epoch, Offset, Partition};
use engine::record::Claim;
use engine::saga::Reactor;
use engine::shard::{Effect, Input, Inquired, Shard, Ticket};
use engine::stream::StreamId;
use engine::time::Timestamp;
use futures::FutureExt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use self::told::Told;
use super::inbox::{Inbox, Knock, Reply, Sink, Way};
use super::routing::Route;
use super::shared::{Shared, blocking, no_answer};
use super::{PartitionStatus, StartFault};
use crate::hash::QuickHash;
use crate::store::StoreFault;
use crate::wanted::{self, Wanted};

/// Commands taken in one go. 256: what saves wake-ups, without letting deliveries wait.
const KNOCKS_MAX: usize = 256;
/// What is read from the inbox in one go.
const INBOX_MAX: usize = 512;
/// Repeats whose records are being read. 1,024: they wait for a disk; beyond it the shard stops taking.
const REPLAYS_MAX: usize = 1_024;
/// Streams that owe something, read at once on take-over.
const TAKE_OVER_PAGE: usize = 256;
/// Between claims while the log is full.
const FULL_RETRY: Duration = Duration::from_secs(1);
/// A term that lasted longer was no duel: the next claim may follow at once.
const STEADY: Duration = Duration::from_secs(2);

/// Somebody who waits for a shard's answer.
enum Waiter<R: Reactor> {
    Command { id: CommandId, since: Instant, reply: Reply<R> },
    Inquiry(oneshot::Sender<Result<Vec<Inquired>, NoAnswer>>),
}

/// Why a partition is not led.
enum Down {
    /// Somebody else holds it, for now, or nobody knows who.
    Lost,
    /// Given back, because it is not to be led here any more.
    Released,
    /// The log has no room.
    Full,
    /// The log's writer has stopped.
    Stopped,
    /// Something is wrong that a person must look at.
    Damaged(String),
    /// This node is ending; `true`: in order.
    Ended(bool),
}

pub(crate) struct ShardTask<R: Reactor> {
    shared: Arc<Shared<R>>,
    partition: Partition,
    shard: Shard<R>,
    appender: Box<dyn Appender>,
    knocks: mpsc::Receiver<Knock<R>>,
    inbox: mpsc::UnboundedReceiver<Inbox<R>>,
    wanted: Wanted,
    grown: watch::Receiver<u64>,
    waiters: HashMap<Ticket, Waiter<R>, QuickHash>,
    unresolved: Vec<(Ticket, Envelope<R::Command>)>,
    effects: Vec<Effect<R>>,
    term: u64,
    tickets: u64,
    replays: usize,
    started: Option<oneshot::Sender<Result<(), StartFault>>>,
    led_since: Option<Instant>,
    campaign: following::Campaign,
    /// As the shard has been told.
    crowded: bool,
    told: Told,
}

impl<R: Reactor> ShardTask<R> {
    pub(crate) fn new(
        shared: Arc<Shared<R>>,
        partition: Partition,
        knocks: mpsc::Receiver<Knock<R>>,
        inbox: mpsc::UnboundedReceiver<Inbox<R>>,
        started: oneshot::Sender<Result<(), StartFault>>,
    ) -> Self {
        let sink = Arc::new(Sink(shared.inboxes[usize::from(partition.0)].clone()));
        let appender = shared.log.appender(partition, sink);
        let shard = Shard::new(shared.decider.clone(), partition, shared.genesis.partitions, shared.options.limits);
        Self {
            partition,
            shard,
            appender,
            knocks,
            inbox,
            wanted: shared.wanted.clone(),
            grown: shared.door(partition).grown.clone(),
            waiters: HashMap::default(),
            unresolved: Vec::new(),
            effects: Vec::new(),
            term: 0,
            tickets: 0,
            replays: 0,
            started: Some(started),
            led_since: None,
            campaign: following::Campaign::new(),
            crowded: false,
            told: Told::new(),
            shared,
        }
    }

    /// The task, until the node ends.
    pub(crate) async fn run(mut self) {
        let stop = self.shared.stop.clone();
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => false,
            ended = self.live() => ended,
        };
        if ended {
            self.shared.set_status(self.partition, PartitionStatus::Released);
        }
        self.knocks.close();
        let no = if ended { NoAnswer::Draining } else { NoAnswer::Unconfirmed };
        self.refuse_all(no);
    }

    /// Term after term. True if it ended in order.
    async fn live(&mut self) -> bool {
        loop {
            let down = match AssertUnwindSafe(self.term()).catch_unwind().await {
                Ok(down) => down,
                Err(panic) => Down::Damaged(format!("the shard panicked: {}", crate::panic_text(panic.as_ref()))),
            };
            self.shared.errands.clear(self.partition);
            if self.led_since.take().is_some_and(|since| since.elapsed() > STEADY) {
                self.campaign.was_steady();
            }
            match down {
                Down::Ended(in_order) => return in_order,
                Down::Released => info!(partition = self.partition.0, "partition {} is given back", self.partition),
                Down::Lost => self.campaign.lost(),
                Down::Full => {
                    warn!(
                        partition = self.partition.0,
                        "the log is full: commands are turned away until there is room"
                    );
                    self.report_start(StartFault::Full);
                    self.shared.set_status(self.partition, PartitionStatus::Full);
                    if self.pause(FULL_RETRY, Some(NoAnswer::LogFull)).await {
                        return false;
                    }
                }
                Down::Stopped => {
                    error!(fault.code = "log-stopped", partition = self.partition.0, "the log has stopped");
                    self.report_start(|_| StartFault::Stopped);
                    self.shared.set_status(self.partition, PartitionStatus::Stopped);
                    self.out_of_service(NoAnswer::LogStopped).await;
                    return false;
                }
                Down::Damaged(why) => {
                    error!(fault.code = "log-damaged", partition = self.partition.0, error = %why, "a partition is out of service");
                    self.report_start(|partition| StartFault::Damaged { partition, why: why.clone() });
                    self.shared.set_status(self.partition, PartitionStatus::Damaged(why));
                    self.out_of_service(NoAnswer::LogDamaged).await;
                    return false;
                }
            }
        }
    }

    /// Says so to everybody, until the node ends.
    async fn out_of_service(&mut self, no: NoAnswer) {
        self.shared.door(self.partition).route.send_replace(Route::Here);
        self.refuse_all(no);
        self.pause(Duration::MAX, Some(no)).await;
    }

    fn report_start(&mut self, fault: impl FnOnce(Partition) -> StartFault) {
        if let Some(started) = self.started.take() {
            let _ = started.send(Err(fault(self.partition)));
        }
    }

    /// Lets time pass without leading. With `no`, whoever knocks is told so; else they wait. True if the node drains.
    async fn pause(&mut self, wait: Duration, no: Option<NoAnswer>) -> bool {
        let drain = self.shared.drain.clone();
        let until = sleep(wait.min(Duration::from_secs(86_400 * 365)));
        tokio::pin!(until);
        loop {
            tokio::select! {
                biased;
                () = drain.cancelled() => return true,
                () = &mut until => return false,
                Some(knock) = self.knocks.recv(), if no.is_some() => self.turn_away(knock, no.unwrap_or(NoAnswer::NotOwner)),
                Some(inbox) = self.inbox.recv() => self.overhear(inbox),
            }
        }
    }

    /// What comes in while nothing is led: of earlier terms, but for repeats that are being answered.
    fn overhear(&mut self, inbox: Inbox<R>) {
        if let Inbox::Replayed(ticket, answer) = inbox {
            self.replayed(ticket, answer);
        }
    }

    fn turn_away(&self, knock: Knock<R>, no: NoAnswer) {
        match knock {
            Knock::Command(_, reply) => self.tell(reply, Err(no), Instant::now()),
            Knock::Inquiry(_, _, to) => drop(to.send(Err(no))),
        }
    }

    fn tell(&self, reply: Reply<R>, answer: Result<Answer<R::State>, NoAnswer>, since: Instant) {
        let answer = answer.map_err(|no| reply.no(no));
        self.told.count(&answer, since);
        // The sender may have gone away; what it asked is done all the same.
        let _ = reply.to.send(answer);
    }

    fn answer(&mut self, ticket: Ticket, answer: Result<Answer<R::State>, NoAnswer>) {
        match self.waiters.remove(&ticket) {
            Some(Waiter::Command { reply, since, .. }) => self.tell(reply, answer, since),
            Some(Waiter::Inquiry(to)) => {
                let no = answer.err().unwrap_or(NoAnswer::Unconfirmed);
                let _ = to.send(Err(no));
            }
            None => {}
        }
    }

    fn replayed(&mut self, ticket: Ticket, answer: Result<Answer<R::State>, NoAnswer>) {
        self.replays = self.replays.saturating_sub(1);
        self.answer(ticket, answer);
    }

    /// Nobody who waits will be answered otherwise.
    fn refuse_all(&mut self, no: NoAnswer) {
        for (ticket, _) in std::mem::take(&mut self.unresolved) {
            if let Some(Waiter::Command { reply, .. }) = self.waiters.get_mut(&ticket) {
                reply.doubt = true;
            }
        }
        let tickets: Vec<Ticket> = self.waiters.keys().copied().collect();
        for ticket in tickets {
            self.answer(ticket, Err(no));
        }
        while let Ok(knock) = self.knocks.try_recv() {
            self.turn_away(knock, no);
        }
    }

    /// One term: follow until it is to be claimed, claim, take over, lead.
    async fn term(&mut self) -> Down {
        if self.shared.drain.is_cancelled() {
            return Down::Ended(true);
        }
        self.term = self.shared.terms.fetch_add(1, Ordering::AcqRel) + 1;
        self.shared.door(self.partition).term.store(self.term, Ordering::Release);
        let led = async {
            self.follow().await?;
            let checkpoint = self.claim().await?;
            self.take_over(checkpoint).await?;
            Ok(self.lead(checkpoint.epoch).await)
        };
        led.await.unwrap_or_else(|down| down)
    }

    /// Goes to the log's real end, claims, folds up to the claim.
    async fn claim(&mut self) -> Result<Checkpoint, Down> {
        let checkpoint = self.reach_end(true).await?;
        let claim = Claim {
            node: self.shared.node_name.as_str().into(),
            address: self.shared.address.as_str().into(),
            claimed_at: self.shared.clock.now(),
        };
        // From here on commands wait here: whoever led until now is told by the claim that it does not.
        self.shared.door(self.partition).route.send_replace(Route::Here);
        let (tag, record) = self.shard.claim(&checkpoint, self.shared.chance.nonce(), claim);
        self.appender.append(tag, record);
        let checkpoint = match self.delivery(tag).await {
            Ok(Some(offset)) => self.fold_to(offset.next(), false).await?,
            // The fold says whether it is there.
            Ok(None) | Err(AppendError::Unknown) => self.reach_end(false).await?,
            Err(AppendError::Full) => return Err(Down::Full),
            Err(AppendError::Stopped) => return Err(Down::Stopped),
            Err(AppendError::TooLarge) => return Err(Down::Damaged("a claim is too large for the log".to_owned())),
        };
        let (_, last_recorded_at) = self.shared.store.checkpoint(self.partition);
        if self.shard.lead(checkpoint, last_recorded_at) { Ok(checkpoint) } else { Err(Down::Lost) }
    }

    async fn delivery(&mut self, tag: u64) -> Result<Option<Offset>, AppendError> {
        loop {
            match self.inbox.recv().await {
                Some(Inbox::Delivered(deliveries)) => {
                    if let Some(Delivery { result, .. }) = deliveries.into_iter().find(|delivery| delivery.tag == tag) {
                        return result;
                    }
                }
                Some(inbox) => self.overhear(inbox),
                None => return Err(AppendError::Stopped),
            }
        }
    }

    /// Takes over what the partition owes, before anything new is decided, so that nothing newer can be there yet.
    async fn take_over(&mut self, checkpoint: Checkpoint) -> Result<(), Down> {
        let door = self.shared.door(self.partition);
        door.acknowledged.fetch_max(checkpoint.next_offset.0, Ordering::AcqRel);
        let mut after: Option<StreamId> = None;
        let mut owing = 0_usize;
        loop {
            let (shared, partition, from) = (self.shared.clone(), self.partition, after.clone());
            let page = blocking(move || shared.store.open_streams(partition, from.as_ref(), TAKE_OVER_PAGE)).await;
            let page = page.map_err(|fault| Down::Damaged(crate::chain(&fault)))?;
            let full = page.len() == TAKE_OVER_PAGE;
            after = page.last().map(|found| found.stream.clone());
            owing += page.len();
            for found in page {
                let agenda = self.shared.decider.react(&found.stream.name, found.version, &found.state);
                self.shared.errands.owes(
                    self.partition,
                    found.stream,
                    found.version,
                    found.state,
                    None,
                    agenda.pending,
                );
            }
            if !full {
                break;
            }
        }
        let (shared, partition) = (self.shared.clone(), self.partition);
        let due = blocking(move || shared.store.next_due(partition)).await;
        let due = due.map_err(|fault| Down::Damaged(crate::chain(&fault)))?;
        self.shared.timers.armed(self.partition, due.unwrap_or(Timestamp(i64::MAX)));
        for stream in door.watches.watched() {
            // A term of somebody else may have lain between.
            if let Ok(Some(current)) = self.shared.current(&stream).await {
                door.watches.report(&stream, &current);
            }
        }
        info!(
            partition = self.partition.0,
            epoch = checkpoint.epoch.0,
            saga.open = owing,
            "leading partition {}",
            self.partition
        );
        self.led_since = Some(Instant::now());
        self.shared.set_status(self.partition, PartitionStatus::Leading(checkpoint.epoch));
        self.shared.timers.led();
        if let Some(started) = self.started.take() {
            let _ = started.send(Ok(()));
        }
        Ok(())
    }

    /// Runs the shard until its term ends.
    async fn lead(&mut self, epoch: Epoch) -> Down {
        if let Some(before) = self.shared.store.forgotten_before() {
            self.feed(Input::Forgotten(before));
        }
        for (ticket, envelope) in std::mem::take(&mut self.unresolved) {
            self.feed(Input::Submit(ticket, envelope));
        }
        let drain = self.shared.drain.clone();
        let mut full = self.shared.saver.full();
        let (mut draining, mut was_full) = (false, false);
        // Given back while the node goes on, because another one is to lead it.
        let mut leaving = false;
        if !self.is_wanted() {
            leaving = true;
            self.leave();
        }
        let mut inbox = Vec::with_capacity(INBOX_MAX);
        let mut knocks = Vec::with_capacity(KNOCKS_MAX);
        loop {
            if let Some(down) = self.carry_out() {
                return down;
            }
            self.shared.shard_in_flight[usize::from(self.partition.0)].set(self.shard.in_flight() as f64);
            // What is decided now could not be kept, and would leave no room for what follows it.
            let is_full = full.borrow_and_update().is_some();
            if is_full != was_full {
                was_full = is_full;
                let status = if is_full { PartitionStatus::Full } else { PartitionStatus::Leading(epoch) };
                self.shared.set_status(self.partition, status);
                self.shared.timers.led();
            }
            let has_room = self.replays < REPLAYS_MAX && self.shard.can_take();
            let can_take = !draining && !leaving && (is_full || has_room);
            tokio::select! {
                biased;
                count = self.inbox.recv_many(&mut inbox, INBOX_MAX) => {
                    if count == 0 {
                        return Down::Ended(false);
                    }
                    for told in inbox.drain(..) {
                        if let Some(down) = self.hear(told) {
                            return down;
                        }
                    }
                }
                () = drain.cancelled(), if !draining => {
                    draining = true;
                    self.knocks.close();
                    while let Ok(knock) = self.knocks.try_recv() {
                        self.turn_away(knock, NoAnswer::Draining);
                    }
                    self.feed(Input::Drain);
                }
                () = wanted::changed(&mut self.wanted), if !draining && !leaving => {
                    if !self.is_wanted() {
                        leaving = true;
                        self.leave();
                    }
                }
                changed = self.grown.changed(), if !self.shared.alone => {
                    if changed.is_err() {
                        return Down::Ended(false);
                    }
                    self.look_for_others();
                }
                count = self.knocks.recv_many(&mut knocks, KNOCKS_MAX), if can_take => {
                    if count == 0 {
                        // The node itself is gone.
                        return Down::Ended(false);
                    }
                    // Whoever else is about to knock goes first, so that they share a turn and a flush: the one who
                    // knocks wakes this task at once, and it would find nobody but him.
                    tokio::task::yield_now().await;
                    while knocks.len() < KNOCKS_MAX && let Ok(knock) = self.knocks.try_recv() {
                        knocks.push(knock);
                    }
                    let crowded = self.shared.errands.is_crowded(self.partition);
                    if crowded != self.crowded {
                        self.crowded = crowded;
                        self.feed(Input::Crowded(crowded));
                    }
                    let since = Instant::now();
                    for knock in knocks.drain(..) {
                        if is_full { self.turn_away(knock, NoAnswer::LogFull) } else { self.take(knock, since) }
                    }
                }
                _ = full.changed() => {}
            }
        }
    }

    /// Drains and releases; what comes in the meantime waits for whoever leads next.
    fn leave(&mut self) {
        info!(partition = self.partition.0, "giving partition {} back", self.partition);
        self.shared.errands.clear(self.partition);
        self.feed(Input::Drain);
    }

    /// Whether the log holds what is not of this term: then somebody may have claimed the partition.
    fn look_for_others(&mut self) {
        let known = self.shared.door(self.partition).acknowledged.load(Ordering::Acquire);
        if self.shard.in_flight() == 0 && self.shared.log.end(self.partition).0 > known {
            self.feed(Input::Probe);
        }
    }

    fn feed(&mut self, input: Input<R>) {
        let now = self.shared.clock.now();
        self.shard.handle(now, input, &mut self.effects);
    }

    fn take(&mut self, knock: Knock<R>, since: Instant) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        match knock {
            // The node that forwarded it has given up, or asks the next owner: no need to do it here.
            Knock::Command(_, reply) if reply.way == Way::Here && reply.deadline <= since => {
                self.tell(reply, Err(NoAnswer::TimedOut), since);
            }
            Knock::Command(_, reply)
                if reply.begin_by.is_some_and(|begin_by| begin_by < since) && self.is_settled() =>
            {
                self.tell(reply, Err(NoAnswer::Overloaded), since);
            }
            Knock::Command(envelope, reply) => {
                self.waiters.insert(ticket, Waiter::Command { id: envelope.id, since, reply });
                self.feed(Input::Submit(ticket, *envelope));
            }
            Knock::Inquiry(tenant, id, to) => {
                self.waiters.insert(ticket, Waiter::Inquiry(to));
                self.feed(Input::Inquire(ticket, tenant, id));
            }
        }
    }

    /// Whether it has led for so long that what waited too long has waited for others in the queue, and not for a leader.
    fn is_settled(&self) -> bool {
        self.led_since.is_some_and(|since| since.elapsed() > self.shared.options.queue_wait_max)
    }

    fn hear(&mut self, told: Inbox<R>) -> Option<Down> {
        match told {
            Inbox::Delivered(deliveries) => self.feed(Input::Delivered(deliveries)),
            Inbox::Loaded(term, loads) if term == self.term => {
                for (ticket, loaded) in loads {
                    self.feed(Input::Loaded(ticket, loaded));
                }
            }
            Inbox::Saved(term, below) if term == self.term => self.feed(Input::Saved(below)),
            Inbox::ReadBack(term, records) if term == self.term => self.feed(Input::ReadBack(records)),
            // An earlier term had asked; this one knows nothing of it.
            Inbox::Loaded(..) | Inbox::Saved(..) | Inbox::ReadBack(..) => {}
            Inbox::Forgotten(before) => self.feed(Input::Forgotten(before)),
            Inbox::Replayed(ticket, answer) => self.replayed(ticket, answer),
            Inbox::Fault(why) => return Some(Down::Damaged(why)),
        }
        None
    }
}

/// What it means for a term that the state store cannot take what is in the log.
fn not_saved(fault: &StoreFault) -> Down {
    match no_answer(fault) {
        NoAnswer::LogFull => Down::Full,
        _ => Down::Damaged(crate::chain(fault)),
    }
}
