//! The loader: a few threads that look states and ids up in the state store for all shards, many at a time, so that a
//! cold stream never holds up a shard. What most likely is not there at all (a new order under a new id) the shard's task
//! looks for itself: that is a question to memory, and spares two wake-ups.

use std::collections::BTreeMap;

use engine::decider::StreamState;
use engine::message::NoAnswer;
use engine::position::Partition;
use engine::saga::Reactor;
use engine::shard::{Load, Loaded, Ticket};
use tokio::sync::mpsc;
use tracing::error;

use super::inbox::Inbox;
use crate::queue::Queue;
use crate::store::StateStore;

/// Look-ups taken by one thread at once. 128: enough to save wake-ups, few enough to share among threads.
const BATCH_MAX: usize = 128;

/// A look-up for a shard.
pub(crate) struct Job<R: Reactor> {
    pub(crate) partition: Partition,
    pub(crate) term: u64,
    pub(crate) ticket: Ticket,
    /// What is to be looked up: the streams that were not in the cache.
    pub(crate) load: Load,
    /// What was in the cache, by place among the asked streams.
    pub(crate) cached: Vec<(usize, StreamState<R::State>)>,
}

impl<R: Reactor> Job<R> {
    /// Whether the shard's task may as well look itself, which spares two threads a wake-up: nothing is expected to be
    /// found, and the filters that say so are in memory. At worst a block is read from the disk.
    pub(crate) fn is_quick(&self) -> bool {
        self.load.id_is_fresh && self.load.made.iter().all(|made| *made)
    }

    /// Looks it up.
    pub(crate) fn run(self, store: &StateStore<R>) -> Result<Loaded<R::State>, NoAnswer> {
        let mut loaded = store.load(&self.load).map_err(|fault| {
            let why = crate::chain(&fault);
            error!(fault.code = "state-store-unreadable", partition = self.partition.0, error = %why, "cannot load a state");
            NoAnswer::LogDamaged
        })?;
        // Ascending places: each insertion puts the later ones where they belong.
        for (place, state) in self.cached {
            loaded.streams.insert(place, state);
        }
        Ok(loaded)
    }
}

/// The way to the loader.
pub(crate) struct Loader<R: Reactor> {
    queue: Queue<Job<R>>,
}

impl<R: Reactor> Loader<R> {
    pub(crate) fn new() -> Self {
        Self { queue: Queue::new() }
    }

    pub(crate) fn push_all(&self, jobs: impl IntoIterator<Item = Job<R>>) {
        self.queue.push_all(jobs);
    }

    pub(crate) fn close(&self) {
        self.queue.close();
    }

    /// How many wait to be looked up.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// One of the threads: until closed.
    pub(crate) fn run(&self, store: &StateStore<R>, shards: &[mpsc::UnboundedSender<Inbox<R>>]) {
        let mut batch = Vec::new();
        while self.queue.take(BATCH_MAX, &mut batch) {
            let mut answers = BTreeMap::<(Partition, u64), Vec<_>>::new();
            for job in batch.drain(..) {
                let (partition, term, ticket) = (job.partition, job.term, job.ticket);
                answers.entry((partition, term)).or_default().push((ticket, job.run(store)));
            }
            for ((partition, term), answers) in answers {
                let _ = shards[usize::from(partition.0)].send(Inbox::Loaded(term, answers));
            }
        }
    }
}
