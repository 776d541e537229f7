//! States of streams that were lately written, bounded by bytes. An entry is what the stream's shard last made effective
//! in its present term, put there by that shard alone and before anybody is told; so an entry is never stale, and one
//! that was evicted is found in the state store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use engine::stream::StreamId;
use metrics::{Counter, counter, gauge};
use moka::notification::RemovalCause;
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
        let evictions = counter!("docket_cache_evictions_total", "cache" => "states", "cause" => "room");
        let entries = moka::sync::Cache::builder()
            .max_capacity(bytes)
            .weigher(|_, entry: &Entry<S>| entry.bytes)
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    evictions.increment(1);
                }
            })
            .build_with_hasher(QuickHash::default());
        Self {
            entries,
            insertions: AtomicU32::new(0),
            bytes_usual: AtomicU32::new(1_024),
            hits: counter!("docket_cache_lookups_total", "cache" => "states", "result" => "hit"),
            misses: counter!("docket_cache_lookups_total", "cache" => "states", "result" => "miss"),
        }
    }

    /// Sets the gauges of what is kept.
    pub(crate) fn measure(&self) {
        self.entries.run_pending_tasks();
        gauge!("docket_cache_entries", "cache" => "states").set(self.entries.entry_count() as f64);
        gauge!("docket_cache_bytes", "cache" => "states").set(self.entries.weighted_size() as f64);
        let bytes_max = self.entries.policy().max_capacity().unwrap_or(0);
        gauge!("docket_cache_bytes_max", "cache" => "states").set(bytes_max as f64);
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
