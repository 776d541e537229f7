//! Which version each stream has reached, in few bytes a stream: 96 bits of a hash of tenant and name, and the version.
//! Two streams among a hundred million share those 96 bits with a probability below 1 in 10^12. If there are more streams
//! than fit, only a slice of them is kept, by hash, and the log is read again for each of the others.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use xxhash_rust::xxh3::xxh3_128;

/// What a table's slot takes: key, version, and a byte of the table's own.
const SLOT_BYTES: usize = 17;

/// A stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key([u32; 3]);

impl Key {
    pub(super) fn of(tenant: &str, name: &str, scratch: &mut Vec<u8>) -> Self {
        scratch.clear();
        scratch.extend_from_slice(tenant.as_bytes());
        scratch.push(0);
        scratch.extend_from_slice(name.as_bytes());
        let hash = xxh3_128(scratch);
        Self([(hash >> 96) as u32, (hash >> 64) as u32, hash as u32])
    }
}

impl std::hash::Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.0[1]) << 32 | u64::from(self.0[2]));
    }
}

/// The key is a hash already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are written as one number")
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// Versions by stream, of all streams or of a slice of them.
pub(super) struct Versions {
    /// One table a partition: they do not all grow at the same moment.
    tables: Vec<HashMap<Key, u32, BuildHasherDefault<AsIs>>>,
    /// Those above 2^32, of which there are hardly ever any.
    large: HashMap<Key, u64, BuildHasherDefault<AsIs>>,
    streams: usize,
    streams_max: usize,
    /// A power of two.
    slices: u32,
    slice: u32,
}

impl Versions {
    /// Of slice `slice` of `slices`, in about `bytes_max` bytes.
    pub(super) fn new(partitions: usize, bytes_max: usize, slices: u32, slice: u32) -> Self {
        Self {
            tables: (0..partitions).map(|_| HashMap::default()).collect(),
            large: HashMap::default(),
            streams: 0,
            // A table is between seven sixteenths and seven eighths full, and one of them is twice there while it grows.
            streams_max: (bytes_max / SLOT_BYTES * 7 / 16).max(1),
            slices,
            slice,
        }
    }

    /// How many slices there are by now, and so how often the log is to be read.
    pub(super) fn slices(&self) -> u32 {
        self.slices
    }

    /// Streams kept: those of this slice.
    pub(super) fn streams(&self) -> u64 {
        self.streams as u64
    }

    /// Whether this stream is one of those that are looked at now.
    pub(super) fn looks_at(&self, key: Key) -> bool {
        key.0[0] & (self.slices - 1) == self.slice
    }

    /// The version it has reached; 0 if nobody wrote it.
    pub(super) fn get(&self, partition: u16, key: Key) -> u64 {
        match self.tables[usize::from(partition)].get(&key) {
            Some(&u32::MAX) => self.large.get(&key).copied().unwrap_or(u64::from(u32::MAX)),
            Some(version) => u64::from(*version),
            None => 0,
        }
    }

    pub(super) fn set(&mut self, partition: u16, key: Key, version: u64) {
        let kept = u32::try_from(version).unwrap_or(u32::MAX);
        if kept == u32::MAX {
            self.large.insert(key, version);
        }
        if self.tables[usize::from(partition)].insert(key, kept).is_none() {
            self.streams += 1;
            // The later slices are as large as the first, but for chance: they are never cut again.
            if self.streams > self.streams_max && self.slice == 0 && self.slices < 1 << 20 {
                self.halve();
            }
        }
    }

    fn halve(&mut self) {
        self.slices *= 2;
        let (slices, slice) = (self.slices, self.slice);
        let stays = |key: &Key| key.0[0] & (slices - 1) == slice;
        for table in &mut self.tables {
            table.retain(|key, _| stays(key));
            table.shrink_to_fit();
        }
        self.large.retain(|key, _| stays(key));
        self.streams = self.tables.iter().map(HashMap::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_kept_also_beyond_four_thousand_million() {
        let mut versions = Versions::new(2, 1 << 20, 1, 0);
        let key = Key::of("main", "order-1", &mut Vec::new());
        assert_eq!(versions.get(1, key), 0);
        for version in [1, u64::from(u32::MAX) - 1, u64::from(u32::MAX), u64::from(u32::MAX) + 7] {
            versions.set(1, key, version);
            assert_eq!((versions.get(1, key), versions.streams()), (version, 1));
        }
    }

    #[test]
    fn too_many_streams_leave_a_slice_and_the_slices_hold_each_once() {
        let keys = (0..1_000).map(|number| Key::of("main", &format!("order-{number}"), &mut Vec::new()));
        let keys = keys.collect::<Vec<_>>();
        let mut first = Versions::new(1, 200 * SLOT_BYTES * 16 / 7, 1, 0);
        for key in &keys {
            if first.looks_at(*key) {
                first.set(0, *key, 1);
            }
        }
        let slices = first.slices();
        assert!(slices >= 8, "{slices} slices of at most 200");
        let mut seen = first.streams();
        for slice in 1..slices {
            let mut versions = Versions::new(1, 200 * SLOT_BYTES * 16 / 7, slices, slice);
            keys.iter().filter(|key| versions.looks_at(**key)).count();
            for key in &keys {
                if versions.looks_at(*key) {
                    versions.set(0, *key, 1);
                }
            }
            assert_eq!(versions.slices(), slices, "later slices are not cut again");
            seen += versions.streams();
        }
        assert_eq!(seen, 1_000);
    }
}
