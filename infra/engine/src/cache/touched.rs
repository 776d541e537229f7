//! The rows that the tail of a log touched last, by their hashes: two rows that share one only make each other's loads be
//! kept less often. Bounded: what is forgotten raises the floor of its partition, below which nothing is known.

use std::collections::{BTreeMap, VecDeque};

use xxhash_rust::xxh3::Xxh3;

use crate::position::{Offset, Partition};
use crate::view::RowKey;

/// No state of a store is as new as this.
const NEVER: Offset = Offset(u64::MAX);

/// Rows touched last.
pub(super) struct Touched {
    /// From each partition's offset on all touches are known; nothing before it has begun.
    floor: Vec<Offset>,
    last: BTreeMap<(Partition, u64), Offset>,
    order: VecDeque<(Partition, u64, Offset)>,
    rows_max: usize,
}

impl Touched {
    pub(super) fn new(partitions: u16, rows_max: usize) -> Self {
        let floor = vec![NEVER; usize::from(partitions)];
        Self { floor, last: BTreeMap::new(), order: VecDeque::new(), rows_max }
    }

    /// Nothing is known of what was before this offset.
    pub(super) fn begin(&mut self, partition: Partition, offset: Offset) {
        if let Some(floor) = self.floor.get_mut(usize::from(partition.0)) {
            *floor = offset;
        }
        self.order.retain(|(of, _, _)| *of != partition);
        self.last.retain(|(of, _), _| *of != partition);
    }

    /// Nothing is known any more, until it begins again.
    pub(super) fn end(&mut self) {
        self.floor.fill(NEVER);
        self.order.clear();
        self.last.clear();
    }

    /// The record at this offset touched the row.
    pub(super) fn touch(&mut self, partition: Partition, key: &RowKey, offset: Offset) {
        let hash = hash(key);
        self.last.insert((partition, hash), offset);
        self.order.push_back((partition, hash, offset));
        while self.order.len() > self.rows_max {
            let Some((partition, hash, offset)) = self.order.pop_front() else { return };
            if self.last.get(&(partition, hash)) == Some(&offset) {
                self.last.remove(&(partition, hash));
            }
            if let Some(floor) = self.floor.get_mut(usize::from(partition.0)) {
                *floor = (*floor).max(offset.next());
            }
        }
    }

    /// Whether it is known that no record from this offset on touched the row.
    pub(super) fn is_untouched_since(&self, partition: Partition, key: &RowKey, offset: Offset) -> bool {
        let floor = self.floor.get(usize::from(partition.0));
        floor.is_some_and(|floor| *floor <= offset)
            && self.last.get(&(partition, hash(key))).is_none_or(|last| *last < offset)
    }
}

fn hash(key: &RowKey) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(key.table.as_bytes());
    hasher.update(&[0]);
    hasher.update(key.key.as_bytes());
    hasher.digest()
}
