//! States of streams that were lately written, bounded by bytes. An entry is what the stream's shard last made effective
//! in its present term, put there by that shard alone and before anybody is told; so an entry is never stale, and one
//! that was evicted is found in the state store.
//!
//! Every command writes here, so writing must cost next to nothing: entries lie in two generations, a young one that is
//! written to and an old one that is only read. When the young one has half of the bytes it becomes the old one, and what
//! was old and not asked for since is gone.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use engine::stream::StreamId;
use metrics::{Counter, counter, gauge};
use parking_lot::Mutex;
use serde::Serialize;

use crate::hash::QuickHash;
use crate::watch::Current;

/// Every how many insertions one state is measured. 64: states of one business are alike enough.
const MEASURED_EVERY: u32 = 64;
/// What an entry costs beside its state: key, two `Arc`s and its place in the table.
const ENTRY_BYTES: u32 = 320;
/// Parts with a lock each. 16: a term, and so a partition's task, keeps to one of them.
const PARTS: usize = 16;

/// Saved-or-better states, by stream: a new term of a partition never sees what an earlier one left.
pub(crate) struct StateCache<S> {
    parts: Vec<Mutex<Part<S>>>,
    /// Bytes of all young entries, about: two tasks that count at once may be off by an entry, below 0 too.
    young_bytes: AtomicI64,
    young_bytes_max: i64,
    insertions: AtomicU32,
    bytes_usual: AtomicU32,
    hits: Counter,
    misses: Counter,
    evictions: Counter,
}

/// The streams of some terms.
struct Part<S> {
    young: Generation<S>,
    old: Generation<S>,
}

type Generation<S> = HashMap<StreamId, Entry<S>, QuickHash>;

struct Entry<S> {
    term: u64,
    current: Current<S>,
    bytes: u32,
}

impl<S: Serialize + Send + Sync + 'static> StateCache<S> {
    /// One that holds at most `bytes`.
    pub(crate) fn new(bytes: u64) -> Self {
        let part = || Mutex::new(Part { young: HashMap::default(), old: HashMap::default() });
        Self {
            parts: (0..PARTS).map(|_| part()).collect(),
            young_bytes: AtomicI64::new(0),
            young_bytes_max: i64::try_from(bytes / 2).unwrap_or(i64::MAX),
            insertions: AtomicU32::new(0),
            bytes_usual: AtomicU32::new(1_024),
            hits: counter!("docket_cache_lookups_total", "cache" => "states", "result" => "hit"),
            misses: counter!("docket_cache_lookups_total", "cache" => "states", "result" => "miss"),
            evictions: counter!("docket_cache_evictions_total", "cache" => "states", "cause" => "room"),
        }
    }

    /// Sets the gauges of what is kept.
    pub(crate) fn measure(&self) {
        let held =
            self.parts.iter().map(|part| part.lock()).map(|part| part.young.len() + part.old.len()).sum::<usize>();
        gauge!("docket_cache_entries", "cache" => "states").set(held as f64);
        let bytes_usual = f64::from(self.bytes_usual.load(Ordering::Relaxed));
        gauge!("docket_cache_bytes", "cache" => "states").set(held as f64 * bytes_usual);
        gauge!("docket_cache_bytes_max", "cache" => "states").set(self.young_bytes_max as f64 * 2.0);
    }

    fn part(&self, term: u64) -> &Mutex<Part<S>> {
        &self.parts[(term % PARTS as u64) as usize]
    }

    /// The stream as this term last left it, if it is here.
    pub(crate) fn get(&self, term: u64, stream: &StreamId) -> Option<Current<S>> {
        let mut part = self.part(term).lock();
        let found = match part.young.get(stream) {
            Some(entry) => (entry.term == term).then(|| entry.current.clone()),
            // Asked for, so it stays for another generation.
            None => part.old.remove_entry(stream).filter(|(_, entry)| entry.term == term).map(|(stream, entry)| {
                let current = entry.current.clone();
                self.young_bytes.fetch_add(entry.bytes.into(), Ordering::Relaxed);
                part.young.insert(stream, entry);
                current
            }),
        };
        drop(part);
        if found.is_some() { &self.hits } else { &self.misses }.increment(1);
        found
    }

    /// What this term has just made of the stream.
    pub(crate) fn put(&self, term: u64, stream: StreamId, current: Current<S>) {
        let bytes = if self.insertions.fetch_add(1, Ordering::Relaxed).is_multiple_of(MEASURED_EVERY) {
            let bytes = measure(&current.state);
            self.bytes_usual.store(bytes, Ordering::Relaxed);
            bytes
        } else {
            self.bytes_usual.load(Ordering::Relaxed)
        };
        let before = self.part(term).lock().young.insert(stream, Entry { term, current, bytes });
        let before = before.map_or(0, |before| before.bytes);
        let added = i64::from(bytes) - i64::from(before);
        let young_bytes = self.young_bytes.fetch_add(added, Ordering::Relaxed) + added;
        if young_bytes > self.young_bytes_max {
            self.age();
        }
    }

    /// The young become the old, and the old are dropped; their table is kept for the next young ones.
    fn age(&self) {
        let young_bytes = self.young_bytes.swap(0, Ordering::Relaxed);
        if young_bytes <= self.young_bytes_max {
            // Somebody else was here meanwhile.
            self.young_bytes.fetch_add(young_bytes, Ordering::Relaxed);
            return;
        }
        for part in &self.parts {
            let Part { young, old } = &mut *part.lock();
            std::mem::swap(young, old);
            self.evictions.increment(young.len() as u64);
            young.clear();
            // Of a part that was busy once, and is no more, not for ever.
            young.shrink_to(2 * old.len());
        }
    }
}

/// About what a state costs in memory: twice its JSON, for what strings and maps add.
fn measure<S: Serialize>(state: &Arc<S>) -> u32 {
    let json = serde_json::to_vec(state.as_ref()).map_or(1_024, |json| json.len());
    u32::try_from(json.saturating_mul(2)).unwrap_or(u32::MAX / 2).saturating_add(ENTRY_BYTES)
}

#[cfg(test)]
mod tests {
    use engine::position::{Offset, Partition, Position, Version};
    use engine::stream::{StreamName, Tenant};

    use super::*;

    fn stream(number: u64) -> StreamId {
        StreamId { tenant: Tenant::default(), name: StreamName::new(&format!("jar-{number}")).expect("a name") }
    }

    fn at(version: u64) -> Current<u64> {
        let position = Position { partition: Partition(0), offset: Offset(version) };
        Current { version: Version(version), state: Arc::new(version), position }
    }

    fn held(cache: &StateCache<u64>) -> usize {
        cache.parts.iter().map(|part| part.lock()).map(|part| part.young.len() + part.old.len()).sum()
    }

    #[test]
    fn a_term_sees_only_what_it_wrote_itself() {
        let cache = StateCache::new(1 << 20);
        cache.put(3, stream(1), at(7));
        assert_eq!(cache.get(3, &stream(1)).map(|found| found.version), Some(Version(7)));
        // 19 keeps to the same part as 3.
        assert!(cache.get(4, &stream(1)).is_none());
        assert!(cache.get(19, &stream(1)).is_none());
        cache.put(3, stream(1), at(8));
        assert_eq!(cache.get(3, &stream(1)).map(|found| found.version), Some(Version(8)));
    }

    #[test]
    fn it_stays_within_its_bytes_and_keeps_what_is_asked_for() {
        // The state `1` counts as its one digit, twice.
        let entries_max = 100;
        let cache = StateCache::new(entries_max * u64::from(ENTRY_BYTES + 2));
        cache.put(1, stream(0), at(1));
        for number in 1..10_000 {
            cache.put(number % 12, stream(number), at(1));
            assert!(cache.get(1, &stream(0)).is_some(), "asked for after {number}, it must stay");
            assert!(held(&cache) as u64 <= entries_max + 2, "{} entries are held", held(&cache));
        }
    }

    #[test]
    fn what_is_written_again_does_not_count_twice() {
        let cache = StateCache::new(100 * u64::from(ENTRY_BYTES + 16));
        cache.put(1, stream(0), at(1));
        for version in 0..10_000 {
            cache.put(1, stream(1), at(version));
        }
        assert!(cache.get(1, &stream(0)).is_some(), "one stream that changes often must not push others out");
    }
}
