//! Entries in moka: as many as fit into the bytes, those that are read often first, none older than it may be. Ages are
//! drawn a fifth shorter or longer, so that what came together does not go together.

use std::time::{Duration, Instant};

use engine::cache::{Entry, Shelf};
use engine::view::{Row, RowKey};
use metrics::{Counter, counter};
use moka::notification::RemovalCause;
use moka::sync::Cache;
use serde_json::Value;

use super::CacheOptions;
use crate::hash::QuickHash;

/// What an entry costs beside key, document and columns: the row, two `Arc`s and the cache's own bookkeeping.
const ENTRY_BYTES: usize = 400;

/// Entries in moka.
pub(super) struct MokaShelf {
    entries: Cache<RowKey, Entry, QuickHash>,
}

impl MokaShelf {
    pub(super) fn new(options: &CacheOptions) -> Self {
        let evicted = |cause: &'static str| -> Counter {
            counter!("docket_cache_evictions_total", "cache" => options.name, "cause" => cause)
        };
        let (for_room, for_age) = (evicted("room"), evicted("age"));
        let entries = Cache::builder()
            .max_capacity(options.bytes_max)
            .weigher(|key: &RowKey, entry: &Entry| weigh(key, entry.row.as_ref()))
            .expire_after(Ages { present: options.age_max, absent: options.age_of_absent_max })
            .eviction_listener(move |_, _, cause| match cause {
                RemovalCause::Size => for_room.increment(1),
                RemovalCause::Expired => for_age.increment(1),
                RemovalCause::Explicit | RemovalCause::Replaced => {}
            })
            .build_with_hasher(QuickHash::default());
        Self { entries }
    }

    /// How many entries there are, and what they weigh.
    pub(super) fn measured(&self) -> (u64, u64) {
        self.entries.run_pending_tasks();
        (self.entries.entry_count(), self.entries.weighted_size())
    }
}

impl Shelf for MokaShelf {
    fn get(&self, key: &RowKey) -> Option<Entry> {
        self.entries.get(key)
    }

    fn put(&mut self, key: &RowKey, entry: Entry) {
        self.entries.insert(key.clone(), entry);
    }

    fn remove(&mut self, key: &RowKey) {
        self.entries.invalidate(key);
    }

    fn clear(&mut self) {
        self.entries.invalidate_all();
    }
}

/// What an entry costs in memory, in bytes.
fn weigh(key: &RowKey, row: Option<&Row>) -> u32 {
    let column = |column: &Value| size_of::<Value>() + column.as_str().map_or(0, str::len);
    let row = row.map_or(0, |row| row.doc.text().len() + row.columns.iter().map(column).sum::<usize>());
    u32::try_from(ENTRY_BYTES + key.key.len() + row).unwrap_or(u32::MAX)
}

/// How old entries become. A change makes none younger: what is read and written for ever is loaded again all the same.
struct Ages {
    present: Duration,
    absent: Duration,
}

impl moka::Expiry<RowKey, Entry> for Ages {
    fn expire_after_create(&self, _: &RowKey, entry: &Entry, _: Instant) -> Option<Duration> {
        let age = if entry.row.is_some() { self.present } else { self.absent };
        Some(age.mul_f64(0.8 + 0.4 * rand::random::<f64>()))
    }
}
