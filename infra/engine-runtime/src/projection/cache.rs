//! Rows at hand, in front of a read store: bounded by bytes and by age, kept true by whoever feeds the store or by a reader
//! of the log ([`engine::cache`] decides what that means), and loaded once however many ask at once. Its waiting half: the
//! entries themselves in moka, loads under way, and what there is to measure.

mod shelf;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use engine::cache::{Gate, Shown, Tail, Ticket};
use engine::event::Recorded;
use engine::position::{Checkpoint, Offset, Partition};
use engine::read_store::{Batch, StoreFault};
use engine::view::{Row, RowKey, View};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use metrics::{Counter, counter, gauge};
use parking_lot::Mutex;

use self::shelf::MokaShelf;

/// 4,096 rows loaded at once: as many as there are connections by default; more only wait in line for the store.
const LOADS_MAX: usize = 4_096;

/// What a cache bounds.
#[derive(Clone, Debug)]
pub struct CacheOptions {
    /// Its name, in metrics.
    pub name: &'static str,
    /// Most bytes of all entries, their keys and what keeping them costs; 0 keeps nothing.
    pub bytes_max: u64,
    /// How long a row may be served without having been loaded again, a fifth more or less.
    pub age_max: Duration,
    /// The same for what is known to be absent.
    pub age_of_absent_max: Duration,
    /// Where nodes share the store: rows touched last that are remembered, some 100 bytes each.
    pub touched_max: usize,
}

impl Default for CacheOptions {
    /// 16 MiB: some ten thousand rows. 5 minutes: no row needs to be loaded again to be right, and should one be wrong all
    /// the same, then not for longer. 10 s for an absent one: whoever asks for what is not there rarely asks again. 16,384
    /// touched: more than the store is ever behind the log by, except when it is in trouble.
    fn default() -> Self {
        Self {
            name: "rows",
            bytes_max: 16 << 20,
            age_max: Duration::from_secs(300),
            age_of_absent_max: Duration::from_secs(10),
            touched_max: 16_384,
        }
    }
}

/// What a load found: the row, and how far each partition was in the state of the store that was read.
pub type Read = (Option<Row>, BTreeMap<Partition, Checkpoint>);

/// A row that was found, at hand or in the store.
#[derive(Clone, Debug)]
pub struct Found {
    /// The row, if there is one.
    pub row: Option<Row>,
    /// All events of its partition before this offset are in it.
    pub as_of: Offset,
    /// How far each partition was, if the store was asked.
    pub checkpoints: Option<BTreeMap<Partition, Checkpoint>>,
}

type Answer = Result<Arc<Found>, Arc<StoreFault>>;
type Flight = Shared<BoxFuture<'static, Answer>>;

/// Rows at hand. All of it may be dropped at any time but the loads under way.
pub struct ReadCache {
    name: &'static str,
    bytes_max: u64,
    tail: Tail,
    inside: Mutex<Inside>,
    hits: Counter,
    misses: Counter,
    joined: Counter,
    loads: Counter,
    loads_not_kept: Counter,
    turned_away: Counter,
}

struct Inside {
    gate: Gate,
    shelf: MokaShelf,
    flights: BTreeMap<RowKey, (u64, WeakShared<BoxFuture<'static, Answer>>)>,
    flight: u64,
}

impl ReadCache {
    pub(super) fn new(partitions: u16, tail: Tail, options: &CacheOptions) -> Self {
        let name = options.name;
        let lookups =
            |result: &'static str| counter!("docket_cache_lookups_total", "cache" => name, "result" => result);
        let (gate, shelf) = (Gate::new(partitions, tail), MokaShelf::new(options));
        Self {
            name,
            bytes_max: options.bytes_max,
            tail,
            inside: Mutex::new(Inside { gate, shelf, flights: BTreeMap::new(), flight: 0 }),
            hits: lookups("hit"),
            misses: lookups("miss"),
            joined: lookups("joined"),
            loads: counter!("docket_cache_loads_total", "cache" => name),
            loads_not_kept: counter!("docket_cache_loads_not_kept_total", "cache" => name),
            turned_away: counter!("docket_cache_loads_turned_away_total", "cache" => name),
        }
    }

    /// The row if it is at hand and all events before `least` are in it. Nothing waits.
    pub fn at_hand(&self, key: &RowKey, least: Offset) -> Option<Found> {
        let shown = {
            let inside = self.inside.lock();
            inside.gate.serve(key, &inside.shelf)
        };
        let Shown { row, as_of } = shown.filter(|shown| shown.as_of >= least)?;
        self.hits.increment(1);
        Some(Found { row, as_of, checkpoints: None })
    }

    /// The row, at hand or loaded. Whoever asks for a row that is being loaded already waits for that load; `load` is
    /// dropped half-way if all who wait for it leave. All events before `least` are in it if they were in the store when
    /// this was called; whether they were shows in [`Found::as_of`].
    ///
    /// # Errors
    /// As the load's; `Unavailable` too while too many other rows are being loaded.
    pub async fn find<Loading>(
        self: &Arc<Self>,
        key: &RowKey,
        partition: Partition,
        least: Offset,
        load: impl Fn() -> Loading,
    ) -> Answer
    where
        Loading: Future<Output = Result<Read, StoreFault>> + Send + 'static,
    {
        if let Some(found) = self.at_hand(key, least) {
            return Ok(Arc::new(found));
        }
        self.misses.increment(1);
        let (flight, began_before) = self.join_or_begin(key, partition, &load)?;
        let found = flight.await?;
        if !began_before || found.as_of >= least {
            return Ok(found);
        }
        // That load may have read the store before what is asked for was there. The next one has not: it begins now, or
        // began when that one had ended.
        let (flight, _) = self.join_or_begin(key, partition, &load)?;
        flight.await
    }

    /// A load of the row, and whether it was under way before.
    fn join_or_begin<Loading>(
        self: &Arc<Self>,
        key: &RowKey,
        partition: Partition,
        load: &impl Fn() -> Loading,
    ) -> Result<(Flight, bool), Arc<StoreFault>>
    where
        Loading: Future<Output = Result<Read, StoreFault>> + Send + 'static,
    {
        let inside = &mut *self.inside.lock();
        if let Some(flight) = inside.flights.get(key).and_then(|(_, flight)| flight.upgrade()) {
            self.joined.increment(1);
            return Ok((flight, true));
        }
        if inside.flights.len() >= LOADS_MAX {
            self.turned_away.increment(1);
            return Err(Arc::new(StoreFault::Unavailable("too many rows are being loaded".into())));
        }
        self.loads.increment(1);
        inside.flight += 1;
        let ticket = Some(inside.gate.begin(key.clone(), partition));
        let mut landing = Landing { cache: Arc::clone(self), number: inside.flight, key: key.clone(), ticket };
        let load = load();
        let flight = async move { landing.land(load.await, partition) }.boxed().shared();
        let weak = flight.downgrade().expect("it was not polled yet");
        inside.flights.insert(key.clone(), (inside.flight, weak));
        Ok((flight, false))
    }

    /// Makes everything void that is at hand or being loaded: rows may have changed without the log's saying so, as when
    /// another generation of them takes the place of this one. To be called once nothing reads the old ones any more.
    pub fn clear(&self) {
        let inside = &mut *self.inside.lock();
        inside.gate.clear(&mut inside.shelf);
        // Who comes from now on waits for no load that may have read what was before.
        inside.flights.clear();
    }

    /// A batch is in the store, if it is this node's alone.
    pub(super) fn committed(&self, batch: &Batch) {
        if self.tail == Tail::Committed {
            let inside = &mut *self.inside.lock();
            inside.gate.committed(batch, &mut inside.shelf);
        }
    }

    /// The fold is so far, if the store is this node's alone.
    pub(super) fn reached(&self, at: &[(Partition, Offset)]) {
        if self.tail == Tail::Committed {
            let inside = &mut *self.inside.lock();
            for (partition, next) in at {
                inside.gate.reached(*partition, *next, &mut inside.shelf);
            }
        }
    }

    /// The tail of a log that feeds a shared store begins here.
    pub(super) fn begins(&self, partition: Partition, next: Offset) {
        let inside = &mut *self.inside.lock();
        inside.gate.begins(partition, next, &mut inside.shelf);
    }

    /// The next record of that tail, if it can be read.
    pub(super) fn record<V: View>(
        &self,
        view: &V,
        partition: Partition,
        offset: Offset,
        events: Option<&[Recorded<V::Event>]>,
    ) {
        let inside = &mut *self.inside.lock();
        match events {
            Some(events) => inside.gate.record(view, partition, offset, events, &mut inside.shelf),
            None => inside.gate.unreadable(partition, offset, &mut inside.shelf),
        }
    }

    /// That tail has ended.
    pub(super) fn ends(&self) {
        let inside = &mut *self.inside.lock();
        inside.gate.ends(&mut inside.shelf);
    }

    /// Loads under way.
    pub fn loading(&self) -> usize {
        self.inside.lock().flights.len()
    }

    /// Sets the gauges of what is at hand: to be called by whoever renders metrics, right before.
    pub fn measure(&self) {
        let (entries, bytes) = self.inside.lock().shelf.measured();
        let cache = self.name;
        gauge!("docket_cache_entries", "cache" => cache).set(entries as f64);
        gauge!("docket_cache_bytes", "cache" => cache).set(bytes as f64);
        gauge!("docket_cache_bytes_max", "cache" => cache).set(self.bytes_max as f64);
        gauge!("docket_cache_loading", "cache" => cache).set(self.loading() as f64);
    }
}

/// Ends a load, also one that nobody waits for any more.
struct Landing {
    cache: Arc<ReadCache>,
    number: u64,
    key: RowKey,
    ticket: Option<Ticket>,
}

impl Landing {
    fn land(&mut self, read: Result<Read, StoreFault>, partition: Partition) -> Answer {
        // Not landed, the ticket is given back when this is dropped.
        let (row, checkpoints) = read.map_err(Arc::new)?;
        let at = checkpoints.get(&partition).map_or(Offset(0), |checkpoint| checkpoint.next_offset);
        let Some(ticket) = self.ticket.take() else {
            return Err(Arc::new(StoreFault::Misused("a load ended twice".to_owned())));
        };
        let inside = &mut *self.cache.inside.lock();
        let landed = inside.gate.landed(ticket, row, at, &mut inside.shelf);
        if !landed.kept {
            self.cache.loads_not_kept.increment(1);
        }
        inside.forget(&self.key, self.number);
        Ok(Arc::new(Found { row: landed.shown.row, as_of: landed.shown.as_of, checkpoints: Some(checkpoints) }))
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            let inside = &mut *self.cache.inside.lock();
            inside.gate.abandoned(&ticket);
            inside.forget(&self.key, self.number);
        }
    }
}

impl Inside {
    /// A flight has ended.
    fn forget(&mut self, key: &RowKey, number: u64) {
        if self.flights.get(key).is_some_and(|(of, _)| *of == number) {
            self.flights.remove(key);
        }
    }
}
