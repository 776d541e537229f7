//! One batch being filled: everything that a save or a piece of a catch-up writes, whatever keyspace it goes to, and the
//! calendar's part of it, which is decided last. A rebuild fills the same sheet and has it written as sorted tables.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use engine::message::CommandId;
use engine::position::{Partition, Position};
use engine::record::Commit;
use engine::saga::Reactor;
use engine::shard::Remembered;
use engine::stream::StreamId;
use engine::time::Timestamp;
use fjall::Keyspace;

use super::calendar::{Bucket, Calendar, Forgotten, Touched};
use super::keys::{self, StateHead};
use super::tables::{Tables, check_room, fill_value, forgotten_value, meta_bucket, slots_value};
use super::writes::Writes;
use super::{Progress, StateStore, StoreFault};

/// A batch being filled.
pub(super) struct Sheet<'a, R: Reactor> {
    store: &'a StateStore<R>,
    tables: Arc<Tables>,
    writes: Writes,
    ids: Vec<UsedId>,
    progress: BTreeMap<Partition, Progress>,
    /// Where values are put together: the batch makes its own of them.
    scratch: Vec<u8>,
}

struct UsedId {
    id: CommandId,
    recorded_at: Timestamp,
    key: Vec<u8>,
    value: [u8; 26],
}

impl<'a, R: Reactor> Sheet<'a, R> {
    /// Begins one.
    ///
    /// # Errors
    /// [`StoreFault::Full`] while a database that met a full disk cannot be opened again.
    pub(super) fn new(store: &'a StateStore<R>) -> Result<Self, StoreFault> {
        store.reopen_if_broken()?;
        let tables = store.tables()?;
        let writes = Writes::batch(&tables.database);
        Ok(Self::of(store, tables, writes))
    }

    /// One that is written by [`Self::ingest`].
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(super) fn of_runs(store: &'a StateStore<R>) -> Result<Self, StoreFault> {
        Ok(Self::of(store, store.tables()?, Writes::runs()))
    }

    fn of(store: &'a StateStore<R>, tables: Arc<Tables>, writes: Writes) -> Self {
        let scratch = Vec::with_capacity(1_024);
        Self { store, tables, writes, ids: Vec::new(), progress: BTreeMap::new(), scratch }
    }

    /// Writes down that a command was recorded, and which versions of which streams its record holds.
    pub(super) fn put_commit(&mut self, position: Position, commit: &Commit) {
        let remembered = Remembered { offset: position.offset, fingerprint: commit.fingerprint };
        self.ids.push(UsedId {
            id: commit.command_id,
            recorded_at: commit.recorded_at,
            key: keys::id(commit.command_id, &commit.tenant, &commit.resource),
            value: keys::id_value(position.partition, &remembered),
        });
        for stream in &commit.streams {
            let count = u32::try_from(stream.events.len()).expect("a record of at most 1 MiB holds fewer events");
            let key = keys::index(&commit.tenant, &stream.name, stream.first_version);
            self.writes.insert(&self.tables.index, key, keys::index_value(position.offset, count));
        }
    }

    /// Writes down what a stream amounts to, and what it owes instead of what it owed in `before`. Returns what was
    /// written in front of the state.
    pub(super) fn put_state(
        &mut self,
        stream: &StreamId,
        before: Option<&StateHead>,
        mut head: StateHead,
        state: &R::State,
    ) -> Result<(StateHead, usize), StoreFault> {
        let agenda = self.store.decider.react(&stream.name, head.version, state);
        head.open = !agenda.pending.is_empty();
        head.timer = agenda.timer;

        let key = keys::stream(&stream.tenant, stream.name.as_str());
        let value = &mut self.scratch;
        value.clear();
        head.write(value);
        serde_json::to_writer(&mut *value, state)
            .map_err(|error| StoreFault::Unwritable { stream: Box::new(stream.clone()), why: error.to_string() })?;

        let tables = &self.tables;
        let timer_before = before.and_then(|before| before.timer);
        if timer_before != head.timer {
            if let Some(timer) = timer_before {
                self.writes.remove(&tables.timers, keys::timer(head.partition, timer.due, &key));
            }
            if let Some(timer) = head.timer {
                let armed_at = timer.armed_at.0.to_be_bytes();
                self.writes.insert(&tables.timers, keys::timer(head.partition, timer.due, &key), armed_at);
            }
        }
        match (before.is_some_and(|before| before.open), head.open) {
            (false, true) => self.writes.insert(&tables.open, keys::open(head.partition, &key), []),
            (true, false) => self.writes.remove(&tables.open, keys::open(head.partition, &key)),
            (true, true) | (false, false) => {}
        }
        let bytes = value.len();
        self.writes.insert(&tables.states, key, self.scratch.as_slice());
        Ok((head, bytes))
    }

    /// Writes down how far a partition is folded, and who has it.
    pub(super) fn put_progress(&mut self, partition: Partition, progress: Progress) {
        self.progress.insert(partition, progress);
    }

    /// Writes down the calendar as it is.
    pub(super) fn put_whole_calendar(&mut self) {
        let calendar = self.store.calendar.lock().clone();
        let days = calendar.active.keys().copied().map(Touched::Active);
        let buckets = calendar.buckets.keys().copied().map(Touched::Bucket);
        let forgotten = (calendar.forgotten != Forgotten::default()).then_some(Touched::Forgotten);
        for touched in days.chain(buckets).chain(forgotten) {
            self.put_calendar(&calendar, touched);
        }
    }

    /// Makes it so: all at once, and for readers from now on.
    pub(super) fn commit(self) -> Result<(), StoreFault> {
        let store = self.store;
        store.written(self.write())
    }

    fn write(mut self) -> Result<(), StoreFault> {
        if self.progress.is_empty() {
            return Ok(());
        }
        let store = self.store;
        let options = &store.options;
        let tables = Arc::clone(&self.tables);
        check_room(&store.directory, options)?;
        tables.pace();
        // Held until the batch is in: the calendar's parts of two batches must not overtake one another.
        let mut calendar = store.calendar.lock();
        let dropped = self.put_ids(&mut calendar)?;
        for (&partition, reached) in &self.progress {
            self.writes.insert(&tables.meta, keys::meta_progress(partition), keys::progress_value(reached));
        }
        self.writes.commit()?;
        store.is_dirty.store(true, Ordering::Release);

        store.checked_fault(tables.show_buckets(&calendar, options))?;
        for (_, keyspace) in dropped {
            tables.database.delete_keyspace(keyspace)?;
        }
        let mut progress = store.progress.write();
        for (partition, reached) in self.progress {
            progress[usize::from(partition.0)] = reached;
        }
        *store.forgotten_before.write() = calendar.forgotten_before();
        Ok(())
    }

    /// Writes all of it as sorted tables, past the journal: keyspace by keyspace, so what was written is of no use unless
    /// all of it was, and progress and calendar with it. That is for the caller to see to.
    pub(super) fn ingest(mut self) -> Result<(), StoreFault> {
        let (store, tables) = (self.store, Arc::clone(&self.tables));
        check_room(&store.directory, &store.options)?;
        store.checked(std::mem::replace(&mut self.writes, Writes::runs()).commit())?;
        // Held until the ids are in, so that no bucket is dropped before.
        let mut calendar = store.calendar.lock();
        let dropped = self.put_ids(&mut calendar)?;
        store.checked(self.writes.commit())?;
        store.checked_fault(tables.show_buckets(&calendar, &store.options))?;
        for (_, keyspace) in dropped {
            store.checked(tables.database.delete_keyspace(keyspace))?;
        }
        Ok(())
    }

    /// Puts the ids into their buckets and forgets what is to be forgotten. Returns the buckets that are gone.
    fn put_ids(&mut self, calendar: &mut Calendar) -> Result<Vec<(Bucket, Keyspace)>, StoreFault> {
        let options = &self.store.options;
        let tables = Arc::clone(&self.tables);
        let mut touched = BTreeSet::new();
        let mut dropped = Vec::new();
        let mut current: Option<(Bucket, Keyspace)> = None;
        let forgotten_before = calendar.forgotten;
        for used in std::mem::take(&mut self.ids) {
            if let Some(slot) = calendar.tick(used.recorded_at) {
                touched.insert(slot);
                let (buckets, days) = calendar.forget_old();
                dropped.extend(buckets);
                touched.extend(days.into_iter().map(Touched::Active));
            }
            let bytes = (used.key.len() + used.value.len()) as u64;
            let Some(bucket) = calendar.place(used.id, used.recorded_at, bytes, options.ids_bytes_max) else {
                continue;
            };
            if current.as_ref().is_none_or(|(current, _)| *current != bucket) {
                current = Some((bucket, tables.bucket(bucket, options)?));
                touched.insert(Touched::Bucket(bucket));
            }
            if let Some((_, keyspace)) = &current {
                self.writes.insert(keyspace, used.key, used.value);
            }
        }
        let surplus = calendar.forget_surplus(options.ids_bytes_max);
        if !surplus.is_empty() {
            metrics::counter!("state_store_ids_forgotten_early_total").increment(surplus.len() as u64);
            tracing::warn!(
                ids.bytes_max = options.ids_bytes_max,
                ids.buckets = surplus.len(),
                "command ids are forgotten early: there are more of them than the state store may keep"
            );
        }
        dropped.extend(surplus);
        touched.extend(dropped.iter().copied().map(Touched::Bucket));
        if calendar.forgotten != forgotten_before {
            touched.insert(Touched::Forgotten);
        }
        metrics::gauge!("state_store_ids_bytes").set(calendar.bytes() as f64);
        for touched in touched {
            self.put_calendar(calendar, touched);
        }
        dropped.into_iter().map(|bucket| Ok((bucket, tables.bucket(bucket, options)?))).collect()
    }

    fn put_calendar(&mut self, calendar: &Calendar, touched: Touched) {
        if let Writes::Runs(_) = self.writes {
            // Written down once, when all is there: `put_whole_calendar`.
            return;
        }
        let (key, value) = match touched {
            Touched::Active(day) => (keys::meta_active(day), calendar.active.get(&day).map(slots_value)),
            Touched::Bucket(bucket) => (meta_bucket(bucket), calendar.buckets.get(&bucket).map(fill_value)),
            Touched::Forgotten => (keys::META_FORGOTTEN.to_vec(), Some(forgotten_value(&calendar.forgotten))),
        };
        let meta = &self.tables.meta;
        match value {
            Some(value) => self.writes.insert(meta, key, value),
            None => self.writes.remove(meta, key),
        }
    }
}
