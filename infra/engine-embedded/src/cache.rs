//! A small map that forgets what was used longest ago once it is over its bound in bytes. A few hundred entries at most,
//! so finding the oldest by looking at all of them is cheaper than keeping them in order on every hit.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// A map bounded by what its values weigh.
pub(crate) struct Cache<K, V> {
    inner: Mutex<Inner<K, V>>,
    bytes_max: usize,
}

struct Inner<K, V> {
    entries: BTreeMap<K, Entry<V>>,
    bytes: usize,
    tick: u64,
}

struct Entry<V> {
    value: Arc<V>,
    bytes: usize,
    used: u64,
}

impl<K: Ord + Copy, V> Cache<K, V> {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { inner: Mutex::new(Inner { entries: BTreeMap::new(), bytes: 0, tick: 0 }), bytes_max }
    }

    pub(crate) fn get(&self, key: K) -> Option<Arc<V>> {
        let mut inner = self.inner.lock();
        inner.tick += 1;
        let tick = inner.tick;
        let entry = inner.entries.get_mut(&key)?;
        entry.used = tick;
        Some(Arc::clone(&entry.value))
    }

    /// The bytes that are kept, and the most that may be.
    pub(crate) fn bytes(&self) -> (usize, usize) {
        (self.inner.lock().bytes, self.bytes_max)
    }

    /// Keeps `value`, which weighs `bytes`, and forgets others until the bound holds again. The newest always stays.
    pub(crate) fn insert(&self, key: K, value: Arc<V>, bytes: usize) {
        let mut inner = self.inner.lock();
        inner.tick += 1;
        let used = inner.tick;
        if let Some(old) = inner.entries.insert(key, Entry { value, bytes, used }) {
            inner.bytes -= old.bytes;
        }
        inner.bytes += bytes;
        while inner.bytes > self.bytes_max && inner.entries.len() > 1 {
            let oldest = inner.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key);
            let Some(entry) = oldest.and_then(|key| inner.entries.remove(&key)) else { break };
            inner.bytes -= entry.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let cache = Cache::new(30);
        for key in 0..3 {
            cache.insert(key, Arc::new(key), 10);
        }
        assert!(cache.get(0).is_some());
        cache.insert(3, Arc::new(3), 10);
        assert!(cache.get(1).is_none(), "1 was used longest ago");
        assert!([0, 2, 3].into_iter().all(|key| cache.get(key).is_some()));
        assert_eq!(cache.bytes(), (30, 30));
    }

    #[test]
    fn one_that_is_too_large_is_kept_until_the_next() {
        let cache = Cache::new(30);
        cache.insert(0, Arc::new(()), 100);
        assert!(cache.get(0).is_some());
        cache.insert(1, Arc::new(()), 10);
        assert!(cache.get(0).is_none());
    }
}
