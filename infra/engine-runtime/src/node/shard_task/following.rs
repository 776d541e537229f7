//! Following a partition: the log is folded into the state store as it grows, so that this node can lead at once and
//! meanwhile shows what happens there. When to claim is decided here; so is where commands go while another node leads.

use std::sync::Arc;
use std::time::Duration;

use engine::log::LogFault;
use engine::message::{Envelope, NoAnswer};
use engine::position::{Checkpoint, Epoch, Offset, Partition};
use engine::saga::Reactor;
use engine::shard::Ticket;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::super::PartitionStatus;
use super::super::inbox::{Knock, Reply, Way};
use super::super::routing::Route;
use super::super::shared::{Shared, blocking, no_answer};
use super::{Down, ShardTask, Waiter, not_saved};
use crate::peers::Owner;
use crate::store::{Folded, StoreFault};
use crate::wanted;
use crate::watch::Current;

/// What comes within is folded in one go: a batch costs more than a record. 5 ms, as long as what is led gathers before it
/// is saved; a record that comes alone is folded at once.
const GATHER: Duration = Duration::from_millis(5);
/// Until what may pass is tried again: a log that cannot be asked, a full disk.
const PASSING: Duration = Duration::from_secs(1);
/// Least wait of a node that lost a partition to another one before it claims it again.
const BACK_OFF_MS: u64 = 1_000;
/// The same, added by chance, so that two do not go on in step.
const BACK_OFF_JITTER_MS: u64 = 1_000;

/// When to claim.
pub(super) struct Campaign {
    /// Whether the hint named this node when it was last looked at.
    wanted: bool,
    /// Claims lost in a row.
    lost: u32,
    /// The last loss, until it is known to whom.
    lost_at: Option<Instant>,
    /// Whether that was another node: then it is claimed at once when that node gives it back.
    to_another: bool,
    /// Not before.
    claim_at: Instant,
    /// Whether the log's real end has been reached once.
    reached_end: bool,
    /// When folding again is worth it.
    fold_at: Instant,
}

impl Campaign {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            wanted: false,
            lost: 0,
            lost_at: None,
            to_another: false,
            claim_at: now,
            reached_end: false,
            fold_at: now,
        }
    }

    pub(super) fn was_steady(&mut self) {
        self.lost = 0;
    }

    pub(super) fn lost(&mut self) {
        self.lost += 1;
        self.lost_at = Some(Instant::now());
    }
}

impl<R: Reactor> ShardTask<R> {
    pub(super) fn is_wanted(&mut self) -> bool {
        self.wanted.borrow_and_update().contains(&self.partition)
    }

    /// Folds what the log has, and goes on as it grows, until the partition is to be claimed.
    pub(super) async fn follow(&mut self) -> Result<(), Down> {
        // What the last term made effective goes first: two must not save to one partition.
        self.shared.saver.flush().await.map_err(|fault| not_saved(&fault))?;
        if !self.campaign.reached_end {
            self.reach_end(true).await?;
            self.campaign.reached_end = true;
        }
        let drain = self.shared.drain.clone();
        loop {
            if drain.is_cancelled() {
                return Err(Down::Ended(true));
            }
            self.grown.borrow_and_update();
            let next_offset = self.shared.store.checkpoint(self.partition).0.next_offset;
            if self.shared.log.end(self.partition) > next_offset {
                self.fold().await?;
                self.campaign.fold_at = Instant::now() + GATHER;
            }
            let leader = self.leader();
            let wanted = self.is_wanted();
            if wanted && self.is_time(leader.is_some()) {
                return Ok(());
            }
            self.campaign.wanted = wanted;
            let is_here = self.show(leader, wanted);
            if let Some(started) = self.started.take() {
                let _ = started.send(Ok(()));
            }
            tokio::select! {
                biased;
                () = drain.cancelled() => {}
                () = wanted::changed(&mut self.wanted) => {}
                changed = self.grown.changed() => {
                    if changed.is_err() {
                        return Err(Down::Ended(false));
                    }
                    sleep_until(self.campaign.fold_at).await;
                }
                () = sleep_until(self.campaign.claim_at), if wanted => {}
                Some(knock) = self.knocks.recv(), if !is_here => self.hand_on(knock),
                Some(inbox) = self.inbox.recv() => self.overhear(inbox),
            }
        }
    }

    /// Whether a wanted partition is to be claimed now: at once if the hint is new, or whoever took it gave it back; later
    /// if another node took it, which had read our claim and so meant to; and once at once, then later, if nobody knows
    /// what became of a claim of our own.
    fn is_time(&mut self, led_by_another: bool) -> bool {
        let chance = &self.shared.chance;
        let campaign = &mut self.campaign;
        let now = Instant::now();
        if !campaign.wanted {
            *campaign =
                Campaign { wanted: true, lost: 0, lost_at: None, to_another: false, claim_at: now, ..*campaign };
        }
        if let Some(lost_at) = campaign.lost_at.take() {
            campaign.to_another = led_by_another;
            campaign.claim_at = if led_by_another || campaign.lost > 1 {
                lost_at + Duration::from_millis(BACK_OFF_MS + chance.below(BACK_OFF_JITTER_MS))
            } else {
                now
            };
        }
        now >= campaign.claim_at || (campaign.to_another && !led_by_another)
    }

    /// The other node that leads, as far as the log is folded.
    fn leader(&self) -> Option<(Owner, Epoch)> {
        let holder = self.shared.store.holder(self.partition);
        let claimant = holder.claimant.filter(|_| !holder.released)?;
        // A claim of ours that leads to nothing: of an earlier process, or abandoned.
        let is_ours = *claimant.node == *self.shared.node_name && *claimant.address == *self.shared.address;
        (!is_ours).then_some((claimant, holder.epoch))
    }

    /// Says how the partition stands and where its commands go, and hands on what is here and goes elsewhere. True if it
    /// stays here.
    fn show(&mut self, leader: Option<(Owner, Epoch)>, wanted: bool) -> bool {
        let (status, mut route) = match leader {
            Some((owner, epoch)) => {
                let route = Route::There(owner.clone(), epoch);
                (
                    if wanted { PartitionStatus::Contested(owner) } else { PartitionStatus::Following(Some(owner)) },
                    route,
                )
            }
            None if wanted => (PartitionStatus::Claiming, Route::Here),
            None => (PartitionStatus::Following(None), Route::Nobody),
        };
        if self.shared.alone {
            // There is nobody to send it to: it waits for the next claim.
            route = Route::Here;
        }
        let is_here = route == Route::Here;
        self.shared.set_status(self.partition, status);
        self.shared.door(self.partition).route.send_if_modified(|shown| {
            let news = *shown != route;
            *shown = route;
            news
        });
        if !is_here {
            for (ticket, envelope) in std::mem::take(&mut self.unresolved) {
                self.hand_on_unresolved(ticket, envelope);
            }
            while let Ok(knock) = self.knocks.try_recv() {
                self.hand_on(knock);
            }
        }
        is_here
    }

    /// A command whose fate is open: whoever leads now knows it. Another node that forwarded it here asks there itself.
    fn hand_on_unresolved(&mut self, ticket: Ticket, envelope: Envelope<R::Command>) {
        let Some(Waiter::Command { mut reply, since, .. }) = self.waiters.remove(&ticket) else { return };
        reply.doubt = true;
        match reply.way {
            Way::Anywhere => self.shared.forward(self.partition, envelope, reply, None),
            Way::Here => self.tell(reply, Err(NoAnswer::Unconfirmed), since),
        }
    }

    /// What nobody here has looked at.
    fn hand_on(&self, knock: Knock<R>) {
        match knock {
            Knock::Command(envelope, reply @ Reply { way: Way::Anywhere, .. }) => {
                self.shared.forward(self.partition, *envelope, reply, None);
            }
            knock => self.turn_away(knock, NoAnswer::NotOwner),
        }
    }

    /// Folds up to the log's real end, as it is when this is called. With `may_end`, a draining node does not wait for it.
    pub(super) async fn reach_end(&mut self, may_end: bool) -> Result<Checkpoint, Down> {
        let mut told = false;
        loop {
            let (log, partition) = (self.shared.log.clone(), self.partition);
            let asked = tokio::task::spawn_blocking(move || log.catch_up_end(partition)).await;
            match asked {
                Ok(Ok(end)) => return self.fold_to(end, may_end).await,
                Ok(Err(LogFault::Unreadable(why))) => {
                    if !told {
                        warn!(partition = self.partition.0, error = %why, "the log cannot be asked for its end");
                        told = true;
                    }
                    if self.pause(PASSING, None).await {
                        if may_end {
                            return Err(Down::Ended(true));
                        }
                        // A claim that is out is not left alone: whoever drains this node does not wait for ever.
                        sleep(PASSING).await;
                    }
                }
                Ok(Err(fault)) => return Err(Down::Damaged(crate::chain(&fault))),
                Err(_) => return Err(Down::Damaged("asking the log for its end panicked".to_owned())),
            }
        }
    }

    /// Folds what is there, as it comes, until everything before `end` is folded.
    pub(super) async fn fold_to(&mut self, end: Offset, may_end: bool) -> Result<Checkpoint, Down> {
        let drain = self.shared.drain.clone();
        loop {
            self.grown.borrow_and_update();
            let reached = self.shared.log.end(self.partition);
            let next_offset = self.shared.store.checkpoint(self.partition).0.next_offset;
            if reached >= end {
                return self.fold().await;
            }
            // A copy that is being fetched again may be behind the store for a while.
            if reached > next_offset {
                self.fold().await?;
            }
            tokio::select! {
                biased;
                () = drain.cancelled(), if may_end => return Err(Down::Ended(true)),
                changed = self.grown.changed() => if changed.is_err() { return Err(Down::Ended(false)) },
                Some(inbox) = self.inbox.recv() => self.overhear(inbox),
            }
        }
    }

    /// Folds what the log has here, and tells who watches.
    pub(super) async fn fold(&mut self) -> Result<Checkpoint, Down> {
        loop {
            let partition = self.partition;
            let turn = self.shared.clone();
            let _turn = turn.catch_ups.acquire().await.map_err(|_| Down::Ended(false))?;
            let shared = self.shared.clone();
            let folded = blocking(move || catch_up(&shared, partition)).await;
            match folded {
                Ok(checkpoint) => return Ok(checkpoint),
                // At the start a person is there to be told.
                Err(fault) if fault.may_pass() && self.started.is_none() => {
                    warn!(partition = partition.0, error = %crate::chain(&fault), "cannot fold now");
                    if no_answer(&fault) == NoAnswer::LogFull {
                        // Said until there is room; whoever folds next says how the partition stands then.
                        self.shared.set_status(partition, PartitionStatus::Full);
                    }
                }
                Err(fault) => return Err(not_saved(&fault)),
            }
            drop(_turn);
            if self.pause(PASSING, None).await {
                return Err(Down::Ended(true));
            }
        }
    }
}

fn catch_up<R: Reactor>(shared: &Shared<R>, partition: Partition) -> Result<Checkpoint, StoreFault> {
    let before = shared.store.checkpoint(partition).0.next_offset;
    let mut told = std::time::Instant::now();
    let watches = &shared.door(partition).watches;
    let checkpoint = shared.store.catch_up_telling(
        shared.log.as_ref(),
        partition,
        None,
        &mut |progress| {
            if told.elapsed() >= Duration::from_secs(1) {
                told = std::time::Instant::now();
                info!(
                    partition = partition.0,
                    catch_up.records = progress.records,
                    catch_up.next_offset = progress.next_offset.0,
                    catch_up.end = progress.end.0,
                    "folding partition {partition}: {} of {}",
                    progress.next_offset,
                    progress.end,
                );
            }
        },
        &mut |folded| {
            let Folded { stream, version, position, state } = folded;
            if watches.is_watched(stream) {
                // First: whoever watches may rest on it.
                shared.reach(position);
                watches.report(stream, &Current { version, state: Arc::new(state.clone()), position });
            }
        },
    )?;
    if checkpoint.next_offset > before {
        shared.saver.moved(&shared.store);
    }
    Ok(checkpoint)
}
