//! Committed rows kept in memory, so that an event that follows soon needs no load. Two generations: when the young one is
//! full it becomes the old one and what was old goes; what is used comes back young.

use std::collections::BTreeMap;

use engine::view::{Row, RowKey};

pub(crate) struct RowCache {
    young: BTreeMap<RowKey, Option<Row>>,
    old: BTreeMap<RowKey, Option<Row>>,
    generation_max: usize,
}

impl RowCache {
    /// Of up to twice this many rows.
    pub(crate) fn new(generation_max: usize) -> Self {
        Self { young: BTreeMap::new(), old: BTreeMap::new(), generation_max }
    }

    /// The row as committed, `Some(None)` where it is known to be absent; it is to be put back once committed again.
    pub(crate) fn take(&mut self, key: &RowKey) -> Option<Option<Row>> {
        self.young.remove(key).or_else(|| self.old.remove(key))
    }

    pub(crate) fn put(&mut self, key: RowKey, row: Option<Row>) {
        self.young.insert(key, row);
        if self.young.len() >= self.generation_max {
            self.old = std::mem::take(&mut self.young);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}
