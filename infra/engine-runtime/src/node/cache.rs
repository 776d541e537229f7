//! States of streams that were lately written, bounded by bytes. An entry is what the stream's shard last made effective
//! in its present term, put there by that shard alone and before anybody is told; so an entry is never stale, and one
//! that was evicted is found in the state store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use engine::stream::StreamId;
use metrics::{Counter, counter};
use serde::Serialize;

use crate::hash::QuickHash;
use crate::watch::Current;

/// Every how many insertions one state is measured. 64: states of one business are alike enough.
const MEASURED_EVERY: u32 = 64;
/// What an entry costs beside its state: key, two `Arc`s and the cache's own bookkeeping.
const ENTRY_BYTES: u32 = 320;

/// Saved-or-better states, by term and stream: a new term of a partition never sees what an earlier one left.
pub(crate) struct StateCache<S> {
    entries: moka::sync::Cache<(u64, StreamId), Entry<S>, QuickHash>,
    insertions: AtomicU32,
    bytes_usual: AtomicU32,
    hits: Counter,
    misses: Counter,
}

struct Entry<S> {
    current: Current<S>,
    bytes: u32,
}

impl<S> Clone for Entry<S> {
    fn clone(&self) -> Self {
        Self { current: self.current.clone(), bytes: self.bytes }
    }
}

impl<S: Serialize + Send + Sync + 'static> StateCache<S> {
    pub(crate) fn new(bytes: u64) -> Self {
        let entries = moka::sync::Cache::builder()
            .max_capacity(bytes)
            .weigher(|_, entry: &Entry<S>| entry.bytes)
            .build_with_hasher(QuickHash::default());
        Self {
            entries,
            insertions: AtomicU32::new(0),
            bytes_usual: AtomicU32::new(1_024),
            hits: counter!("docket_cache_lookups_total", "cache" => "states", "result" => "hit"),
            misses: counter!("docket_cache_lookups_total", "cache" => "states", "result" => "miss"),
        }
    }

    pub(crate) fn get(&self, term: u64, stream: &StreamId) -> Option<Current<S>> {
        let found = self.entries.get(&(term, stream.clone()));
        if found.is_some() {
            self.hits.increment(1)
        } else {
            self.misses.increment(1)
        }
        found.map(|entry| entry.current)
    }

    pub(crate) fn put(&self, term: u64, stream: StreamId, current: Current<S>) {
        let bytes = if self.insertions.fetch_add(1, Ordering::Relaxed).is_multiple_of(MEASURED_EVERY) {
            let bytes = measure(&current.state);
            self.bytes_usual.store(bytes, Ordering::Relaxed);
            bytes
        } else {
            self.bytes_usual.load(Ordering::Relaxed)
        };
        self.entries.insert((term, stream), Entry { current, bytes });
    }
}

/// About what a state costs in memory: twice its JSON, for what strings and maps add.
fn measure<S: Serialize>(state: &Arc<S>) -> u32 {
    let json = serde_json::to_vec(state.as_ref()).map_or(1_024, |json| json.len());
    u32::try_from(json.saturating_mul(2)).unwrap_or(u32::MAX / 2).saturating_add(ENTRY_BYTES)
}
