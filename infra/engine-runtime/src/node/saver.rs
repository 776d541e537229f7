//! The saver: one thread that takes what all shards made effective and writes it to the state store in batches. Nothing on
//! the command path waits for it; a shard that runs too far ahead of it stops taking by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engine::position::Offset;
use engine::saga::Reactor;
use engine::shard::Effective;
use engine::time::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, warn};

use super::inbox::Inbox;
use crate::queue::Queue;
use crate::store::{StateStore, StoreFault};
use crate::waiting::Waiters;

/// Records written in one batch. 4,096: what one shard may have under way.
const BATCH_MAX: usize = 4_096;

/// How long records gather before they are written, unless somebody waits for them: a stream that changes often is then
/// written once for many changes, and a batch costs the same whatever is in it. 100 ms: about what a checkout takes, and
/// shards hold far more than comes in that time.
const GATHER: Duration = Duration::from_millis(100);

/// The same while somebody follows what is saved, and would rather have it soon.
const GATHER_FOLLOWED: Duration = Duration::from_millis(5);

/// How long to wait for room on the disk before trying again.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What the saver is told.
pub(crate) enum Save<R: Reactor> {
    /// Keep this, of this term.
    Effective(u64, Arc<Effective<R>>),
    /// Say so when everything told before is kept.
    Flush(oneshot::Sender<()>),
}

/// The way to the saver.
pub(crate) struct Saver<R: Reactor> {
    queue: Queue<Save<R>>,
    /// Moves with every batch that is in the store.
    saved: watch::Sender<u64>,
    /// Who waits for records to be in the store.
    waiters: Waiters,
    /// What it waits for if the disk has no room.
    full: watch::Sender<Option<StoreFault>>,
    closing: AtomicBool,
}

impl<R: Reactor> Saver<R> {
    pub(crate) fn new() -> Self {
        let (saved, full) = (watch::channel(0).0, watch::channel(None).0);
        Self { queue: Queue::new(), saved, waiters: Waiters::default(), full, closing: AtomicBool::new(false) }
    }

    pub(crate) fn push_all(&self, saves: impl IntoIterator<Item = Save<R>>) {
        self.queue.push_all(saves);
    }

    /// Waits until everything pushed before is in the store, but not for room on the disk.
    ///
    /// # Errors
    /// [`StoreFault::Full`] while the disk has no room for it; any other if it never will be in the store.
    pub(crate) async fn flush(&self) -> Result<(), StoreFault> {
        let mut full = self.full();
        let (done, wait) = oneshot::channel();
        self.queue.push_urgent(Save::Flush(done));
        tokio::select! {
            biased;
            saved = wait => saved.map_err(|_| StoreFault::Damaged("nothing more can be saved".to_owned())),
            Ok(full) = full.wait_for(Option::is_some) => Err(full.clone().expect("waited for")),
        }
    }

    /// Has what was pushed be saved without letting more gather: somebody waits for it.
    pub(crate) fn hurry(&self) {
        self.queue.hurry();
    }

    /// Why nothing can be saved for now, if so: the disk has no room.
    pub(crate) fn full(&self) -> watch::Receiver<Option<StoreFault>> {
        self.full.subscribe()
    }

    /// Moves whenever the store has taken more.
    pub(crate) fn saved(&self) -> watch::Receiver<u64> {
        let saved = self.saved.subscribe();
        // What gathers by now gathered for nobody.
        self.hurry();
        saved
    }

    /// Those who wait for records to be in the store.
    pub(crate) fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    /// How much waits to be written.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Says that the store has taken more, also if by somebody else's hand.
    pub(crate) fn moved(&self, store: &StateStore<R>) {
        self.saved.send_modify(|batches| *batches += 1);
        self.waiters.wake(|partition| store.checkpoint(partition).0.next_offset);
    }

    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.queue.close();
    }

    /// Writes a batch, and again while the disk has no room for it: shards turn commands away meanwhile, so that what room
    /// there is stays for what follows them, and what is acknowledged is in the log.
    fn keep(&self, store: &StateStore<R>, effective: &[Arc<Effective<R>>]) -> Result<(), StoreFault> {
        loop {
            match store.save(effective) {
                Err(fault) if fault.may_pass() && !self.closing.load(Ordering::Acquire) => {
                    if self.full.send_replace(Some(fault.clone())).is_none() {
                        warn!(fault.code = "state-store-full", error = %crate::chain(&fault), "waiting for room to save states");
                    }
                    std::thread::sleep(TRY_AGAIN_AFTER);
                }
                done => {
                    self.full.send_if_modified(|full| full.take().is_some());
                    return done;
                }
            }
        }
    }

    /// The thread: until closed, or the store fails.
    pub(crate) fn run(&self, store: &StateStore<R>, shards: &[mpsc::UnboundedSender<Inbox<R>>]) {
        let mut batch = Vec::new();
        let mut told_forgotten: Option<Timestamp> = None;
        let gather = || if self.saved.receiver_count() > 0 { GATHER_FOLLOWED } else { GATHER };
        while self.queue.take_gathered(BATCH_MAX, gather, &mut batch) {
            let mut effective = Vec::with_capacity(batch.len());
            let mut saved = BTreeMap::<u16, (u64, Offset)>::new();
            let mut flushes = Vec::new();
            for save in batch.drain(..) {
                match save {
                    Save::Effective(term, record) => {
                        let partition = record.position.partition.0;
                        saved.insert(partition, (term, record.checkpoint.next_offset));
                        effective.push(record);
                    }
                    Save::Flush(done) => flushes.push(done),
                }
            }
            if !effective.is_empty()
                && let Err(fault) = self.keep(store, &effective)
            {
                let why = crate::chain(&fault);
                error!(fault.code = "state-store-failed", error = %why, "the state store failed: no more is decided");
                for shard in shards {
                    let _ = shard.send(Inbox::Fault(why.clone()));
                }
                // Shards are told; whoever waits for a flush learns it from the dropped sender.
                self.queue.close();
                return;
            }
            for (partition, (term, below)) in saved {
                let _ = shards[usize::from(partition)].send(Inbox::Saved(term, below));
            }
            self.moved(store);
            for done in flushes {
                let _ = done.send(());
            }
            let forgotten = store.forgotten_before();
            if forgotten > told_forgotten
                && let Some(before) = forgotten
            {
                told_forgotten = forgotten;
                for shard in shards {
                    let _ = shard.send(Inbox::Forgotten(before));
                }
            }
        }
    }
}
