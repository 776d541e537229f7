//! What may be kept in front of a read store, and what may be served of it: rows with the place in the log that they are
//! as of, kept true by the tail of the log. The [`Gate`] decides and never waits; where entries lie and when they are
//! evicted is a [`Shelf`]'s affair, and losing one is never wrong. Promised: what is served is exactly the fold of its
//! partition before some offset, and that offset is never below what the tail had told when the reader came.

mod touched;

use std::collections::BTreeMap;

use self::touched::Touched;
use crate::event::Recorded;
use crate::position::{Offset, Partition};
use crate::read_store::Batch;
use crate::view::{Row, RowKey, View};

/// A row as it is kept; an absent row is kept too.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The row; `None` where it is known that there is none.
    pub row: Option<Row>,
    /// The partition whose events make it.
    partition: Partition,
    /// All events before this offset are in it.
    as_of: Offset,
    /// Entries of an earlier epoch are void.
    epoch: u64,
}

impl Entry {
    fn version(&self) -> u64 {
        self.row.as_ref().map_or(0, |row| row.version)
    }
}

/// Where entries lie. It may lose any of them at any time, but never bring one back.
pub trait Shelf {
    /// The entry of a row.
    fn get(&self, key: &RowKey) -> Option<Entry>;
    /// Keeps an entry in place of what was there.
    fn put(&mut self, key: &RowKey, entry: Entry);
    /// Forgets a row.
    fn remove(&mut self, key: &RowKey);
    /// Forgets all.
    fn clear(&mut self);
}

/// Who tells of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Whoever feeds the store, after each commit: what is told is in the store already.
    Committed,
    /// A reader of the log: the store takes in later what is told, so a load may be older than what was told before it
    /// began. At most this many of the rows touched last are remembered for that; loads from before that are not kept.
    Ahead(usize),
}

/// A load under way.
#[derive(Debug)]
pub struct Ticket {
    key: RowKey,
    partition: Partition,
    number: u64,
    epoch: u64,
    /// What the tail had told when it began.
    began_at: Offset,
}

impl Ticket {
    /// Which row is loaded.
    pub fn key(&self) -> &RowKey {
        &self.key
    }
}

/// A row to be shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// The row, if there is one.
    pub row: Option<Row>,
    /// All events of its partition before this offset are in it.
    pub as_of: Offset,
}

/// A load that ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Landed {
    /// What it found.
    pub shown: Shown,
    /// Whether it was kept. Not if the tail told of the row meanwhile, or may have.
    pub kept: bool,
}

/// What is under way for one row.
struct Load {
    number: u64,
    partition: Partition,
    /// The tail told of the row since it began.
    overtaken: bool,
}

/// Decides what gets onto the shelf, what changes there and what goes.
pub struct Gate {
    /// Each partition's next offset: what the tail has told.
    seen: Vec<Offset>,
    epoch: u64,
    loads: BTreeMap<RowKey, Load>,
    number: u64,
    touched: Option<Touched>,
}

impl Gate {
    /// A gate before an empty shelf. One whose tail reads the log keeps nothing of a partition before [`Gate::begins`].
    pub fn new(partitions: u16, tail: Tail) -> Self {
        let touched = match tail {
            Tail::Committed => None,
            Tail::Ahead(rows_max) => Some(Touched::new(partitions, rows_max)),
        };
        let seen = vec![Offset(0); usize::from(partitions)];
        Self { seen, epoch: 0, loads: BTreeMap::new(), number: 0, touched }
    }

    /// What the tail has told of a partition: its next offset.
    pub fn seen(&self, partition: Partition) -> Offset {
        self.seen.get(usize::from(partition.0)).copied().unwrap_or_default()
    }

    /// Loads under way.
    pub fn loading(&self) -> usize {
        self.loads.len()
    }

    /// The row as it may be served now.
    pub fn serve(&self, key: &RowKey, shelf: &impl Shelf) -> Option<Shown> {
        let entry = shelf.get(key).filter(|entry| entry.epoch == self.epoch)?;
        let as_of = entry.as_of.max(self.seen(entry.partition));
        Some(Shown { row: entry.row, as_of })
    }

    /// A load begins: to be called before the store is asked. A later one of the same row takes its place.
    pub fn begin(&mut self, key: RowKey, partition: Partition) -> Ticket {
        self.number += 1;
        let number = self.number;
        self.loads.insert(key.clone(), Load { number, partition, overtaken: false });
        Ticket { key, partition, number, epoch: self.epoch, began_at: self.seen(partition) }
    }

    /// A load ends. `at`: the partition's next offset in the state of the store that was read.
    pub fn landed(&mut self, ticket: Ticket, row: Option<Row>, at: Offset, shelf: &mut impl Shelf) -> Landed {
        let load = self.taken_off(&ticket);
        let of_today = ticket.epoch == self.epoch;
        let current = of_today && load.is_some_and(|load| !load.overtaken);
        let (as_of, untouched) = match &self.touched {
            // Commits of records without rows may lag behind what the feeder told, so its word counts too, unless it was
            // taken back since.
            None if of_today => (at.max(ticket.began_at), true),
            None => (at, false),
            Some(touched) => (at, touched.is_untouched_since(ticket.partition, &ticket.key, at)),
        };
        let kept = current && untouched;
        // What was told since and did not touch the row is in it as well.
        let as_of = if kept { as_of.max(self.seen(ticket.partition)) } else { as_of };
        if kept {
            let entry = Entry { row: row.clone(), partition: ticket.partition, as_of, epoch: self.epoch };
            shelf.put(&ticket.key, entry);
        }
        Landed { shown: Shown { row, as_of }, kept }
    }

    /// A load failed, or nobody waits for it any more.
    pub fn abandoned(&mut self, ticket: &Ticket) {
        self.taken_off(ticket);
    }

    fn taken_off(&mut self, ticket: &Ticket) -> Option<Load> {
        let mine = self.loads.get(&ticket.key).is_some_and(|load| load.number == ticket.number);
        if mine { self.loads.remove(&ticket.key) } else { None }
    }

    /// The tail, as the feeder tells it after a commit: rows as they are now, and how far their partitions are.
    pub fn committed(&mut self, batch: &Batch, shelf: &mut impl Shelf) {
        let gap = |from: Offset, at: Partition| from > self.seen(at);
        let missed = batch.checkpoints.iter().any(|(at, from, _)| gap(from.unwrap_or_default().next_offset, *at));
        if missed {
            self.clear(shelf);
        }
        for (key, row) in &batch.rows {
            let awaited = self.overtake(key);
            let kept = shelf.get(key).filter(|entry| entry.epoch == self.epoch);
            // What nobody reads is not kept; what somebody waits for is at hand.
            let Some(partition) = kept.as_ref().map(|entry| entry.partition).or(awaited) else { continue };
            let moved = batch.checkpoints.iter().find(|(at, _, _)| *at == partition);
            match (moved.map(|(_, _, to)| to.next_offset), kept) {
                // It was loaded from this commit or from a later one.
                (Some(to), Some(entry)) if to <= entry.as_of => {}
                (Some(to), _) => shelf.put(key, Entry { row: row.clone(), partition, as_of: to, epoch: self.epoch }),
                (None, _) => shelf.remove(key),
            }
        }
        for (partition, _, to) in &batch.checkpoints {
            self.reached(*partition, to.next_offset.max(self.seen(*partition)), shelf);
        }
    }

    /// The tail, as a reader of the log tells it: one record's events, which may be none. Records come in order, each once;
    /// one that was left out makes everything void.
    ///
    /// # Panics
    /// If the view does. Then the row it panicked at is forgotten, and [`Gate::unreadable`] is to be told of the record.
    pub fn record<V: View>(
        &mut self,
        view: &V,
        partition: Partition,
        offset: Offset,
        events: &[Recorded<V::Event>],
        shelf: &mut impl Shelf,
    ) {
        if !self.is_next(partition, offset, shelf) {
            return;
        }
        for event in events {
            for key in view.rows(event) {
                self.overtake(&key);
                if let Some(touched) = &mut self.touched {
                    touched.touch(partition, &key, offset);
                }
                let Some(entry) = shelf.get(&key) else { continue };
                if entry.epoch == self.epoch && entry.partition == partition && offset < entry.as_of {
                    continue;
                }
                // Whatever comes now, the row as it was is not to be served any more.
                shelf.remove(&key);
                let is_next = event.meta.version.0 == entry.version() + 1;
                if entry.epoch == self.epoch && entry.partition == partition && is_next {
                    let row = view.evolve(&key, entry.row, event);
                    shelf.put(&key, Entry { row, as_of: offset, ..entry });
                }
            }
        }
        self.reached(partition, offset.next(), shelf);
    }

    /// The same for a record that cannot be read: it may have touched any row.
    pub fn unreadable(&mut self, partition: Partition, offset: Offset, shelf: &mut impl Shelf) {
        if self.is_next(partition, offset, shelf) {
            if let Some(touched) = &mut self.touched {
                touched.begin(partition, offset.next());
            }
            self.clear(shelf);
            self.reached(partition, offset.next(), shelf);
        }
    }

    /// Whether this is the record that the tail tells next; what it skipped makes everything void.
    fn is_next(&mut self, partition: Partition, offset: Offset, shelf: &mut impl Shelf) -> bool {
        let seen = self.seen(partition);
        if offset > seen {
            if let Some(touched) = &mut self.touched {
                touched.begin(partition, offset);
            }
            self.clear(shelf);
        }
        offset >= seen
    }

    /// The tail is so far, and what came until here touched no row that was not told of. A tail that is set back makes
    /// everything void: it tells again what comes then.
    pub fn reached(&mut self, partition: Partition, next: Offset, shelf: &mut impl Shelf) {
        if next < self.seen(partition) {
            self.begins(partition, next, shelf);
        }
        if let Some(seen) = self.seen.get_mut(usize::from(partition.0)) {
            *seen = next;
        }
    }

    /// The tail begins here, and nobody knows what was before.
    pub fn begins(&mut self, partition: Partition, next: Offset, shelf: &mut impl Shelf) {
        if let Some(touched) = &mut self.touched {
            touched.begin(partition, next);
        }
        self.clear(shelf);
        if let Some(seen) = self.seen.get_mut(usize::from(partition.0)) {
            *seen = next;
        }
    }

    /// The tail has ended: nothing is kept any more.
    pub fn ends(&mut self, shelf: &mut impl Shelf) {
        if let Some(touched) = &mut self.touched {
            touched.end();
        }
        self.clear(shelf);
    }

    /// Makes everything void that is kept or being loaded: rows may have changed without the log's saying so.
    pub fn clear(&mut self, shelf: &mut impl Shelf) {
        self.epoch += 1;
        shelf.clear();
    }

    /// A load of this row, if there is one, is not to be kept. Of which partition it is.
    fn overtake(&mut self, key: &RowKey) -> Option<Partition> {
        let load = self.loads.get_mut(key)?;
        load.overtaken = true;
        Some(load.partition)
    }
}
