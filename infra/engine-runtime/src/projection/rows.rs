//! Rows in memory: those that the batch under way touches, and committed ones kept so that an event that follows soon needs
//! no load. Of the kept there are two generations: when the young one is full it becomes the old one and what was old goes;
//! what is used comes back young.

use std::collections::HashMap;
use std::ops::Range;

use engine::view::{Row, RowKey};

/// Committed rows.
pub(crate) struct RowCache {
    young: HashMap<RowKey, Option<Row>>,
    old: HashMap<RowKey, Option<Row>>,
    generation_max: usize,
}

impl RowCache {
    /// Of up to twice this many rows.
    pub(crate) fn new(generation_max: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), generation_max }
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

/// A row that the batch under way looks at.
pub(crate) struct Slot {
    pub(crate) key: RowKey,
    pub(crate) row: Option<Row>,
    /// Not there before the batch.
    pub(crate) was_absent: bool,
    pub(crate) is_touched: bool,
    /// Still to be loaded.
    is_missing: bool,
}

/// The rows of a batch, each once, and which of them each event touches.
#[derive(Default)]
pub(crate) struct Desk {
    slots: Vec<Slot>,
    by_key: HashMap<RowKey, usize>,
    /// The slots of one event after the other.
    touches: Vec<usize>,
}

impl Desk {
    /// Where the next event's rows begin among those touched.
    pub(crate) fn mark(&self) -> usize {
        self.touches.len()
    }

    /// Notes that an event touches a row, which is found as `known` says where it is met first; `None` if it has to be
    /// loaded.
    pub(crate) fn touch(&mut self, key: RowKey, known: impl FnOnce(&RowKey) -> Option<Option<Row>>) {
        let at = match self.by_key.get(&key) {
            Some(at) => *at,
            None => {
                let known = known(&key);
                let (is_missing, row) = (known.is_none(), known.flatten());
                let was_absent = !is_missing && row.is_none();
                self.by_key.insert(key.clone(), self.slots.len());
                self.slots.push(Slot { key, row, was_absent, is_touched: false, is_missing });
                self.slots.len() - 1
            }
        };
        self.touches.push(at);
    }

    /// The rows to be loaded.
    pub(crate) fn missing(&self) -> Vec<RowKey> {
        self.slots.iter().filter(|slot| slot.is_missing).map(|slot| slot.key.clone()).collect()
    }

    /// A row was looked up.
    pub(crate) fn supply(&mut self, key: &RowKey, row: Option<Row>) {
        if let Some(slot) = self.by_key.get(key).and_then(|at| self.slots.get_mut(*at)) {
            slot.was_absent = row.is_none();
            slot.row = row;
            slot.is_missing = false;
        }
    }

    /// Goes through the rows that an event touches.
    pub(crate) fn each(&mut self, touched: Range<usize>, mut does: impl FnMut(&mut Slot)) {
        for at in &self.touches[touched] {
            does(&mut self.slots[*at]);
        }
    }

    /// Clears it; what it held.
    pub(crate) fn clear(&mut self) -> Vec<Slot> {
        self.by_key.clear();
        self.touches.clear();
        std::mem::take(&mut self.slots)
    }
}
