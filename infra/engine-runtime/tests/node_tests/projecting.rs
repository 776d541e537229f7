//! Projections: rows are the fold of the log, whatever happens in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engine::event::Recorded;
use engine::memory::{MemoryLog, MemoryReadStore};
use engine::position::{Offset, Partition, Positions};
use engine::read_store::{Batch, Query, ReadStore, StoreFault, StoreFuture};
use engine::stream::Tenant;
use engine::view::{Row, RowKey, Table, View};
use engine_runtime::projection::{PARKED_TABLE, Projection, ProjectionFault, ProjectionOptions, ProjectionStatus};
use serde_json::json;

use crate::business::{Happened, Wish};
use crate::house::{House, LONG, add, asked, decided, genesis, id, jar, trip};

pub static TABLES: [Table; 2] = [Table { name: "jars", columns: &[] }, PARKED_TABLE];

/// Jars and what is in them. Cannot bear amounts of 13, until it is cured.
pub struct Jars {
    cured: AtomicBool,
}

impl Jars {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { cured: AtomicBool::new(false) })
    }
}

impl View for Jars {
    type Event = Happened;

    fn tables(&self) -> &'static [Table] {
        &TABLES[..1]
    }

    fn rows(&self, event: &Recorded<Happened>) -> Vec<RowKey> {
        match event.event {
            Happened::Added { .. } => vec![RowKey { table: "jars", key: event.meta.stream.to_string() }],
            _ => Vec::new(),
        }
    }

    fn evolve(&self, _key: &RowKey, row: Option<Row>, event: &Recorded<Happened>) -> Option<Row> {
        let Happened::Added { amount } = event.event else { return row };
        assert!(amount != 13 || self.cured.load(Ordering::SeqCst), "thirteen");
        let before = row.map_or(0, |row| row.doc.value()["filled"].as_u64().unwrap());
        let doc = json!({ "filled": before + amount });
        Some(Row { version: event.meta.version.0, doc: doc.into(), columns: Vec::new() })
    }
}

async fn follow(house: &House, view: &Arc<Jars>, store: &Arc<dyn ReadStore>) -> Projection {
    try_follow(house, view, store).await.unwrap()
}

async fn try_follow(
    house: &House,
    view: &Arc<Jars>,
    store: &Arc<dyn ReadStore>,
) -> Result<Projection, ProjectionFault> {
    let options = ProjectionOptions { batch_events_max: 7, ..ProjectionOptions::default() };
    follow_with(house, view, store, options).await
}

async fn follow_with(
    house: &House,
    view: &Arc<Jars>,
    store: &Arc<dyn ReadStore>,
    options: ProjectionOptions,
) -> Result<Projection, ProjectionFault> {
    let (log, clock) = (house.log.clone(), house.clock.clone());
    Projection::start(log, &house.genesis, view.clone(), store.clone(), clock, options).await
}

pub fn new_store() -> Arc<dyn ReadStore> {
    Arc::new(MemoryReadStore::new(&TABLES))
}

async fn filled(store: &Arc<dyn ReadStore>, name: &str) -> Option<u64> {
    let key = RowKey { table: "jars", key: jar(name).to_string() };
    let found = store.load(vec![key.clone()]).await.unwrap();
    found.get(&key).map(|row| row.doc.value()["filled"].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_the_fold_of_the_log_live_and_afresh() {
    let house = House::new();
    let node = house.node().await;
    let (view, live) = (Jars::new(), new_store());
    let projection = follow(&house, &view, &live).await;
    for number in 0..200_u64 {
        decided(node.submit(asked(id(), add(&(number % 11).to_string(), number % 3))).await);
    }
    let all = node.acknowledged_all();
    projection.wait_for(&all, LONG).await.unwrap();
    let afresh = new_store();
    follow(&house, &view, &afresh).await.wait_for(&all, LONG).await.unwrap();
    for number in 0..11_u64 {
        let expected = (0..200).filter(|n| n % 11 == number).map(|n| n % 3).sum::<u64>();
        assert_eq!(filled(&live, &number.to_string()).await, Some(expected));
        assert_eq!(filled(&afresh, &number.to_string()).await, Some(expected));
    }
    projection.stop().await;
    assert!(matches!(projection.status(), ProjectionStatus::Stopped));
}

#[tokio::test]
async fn a_restarted_projection_goes_on_where_it_was() {
    let house = House::new();
    let node = house.node().await;
    let (view, store) = (Jars::new(), new_store());
    let projection = follow(&house, &view, &store).await;
    decided(node.submit(asked(id(), add("a", 2))).await);
    projection.stop().await;
    decided(node.submit(asked(id(), add("a", 3))).await);
    let projection = follow(&house, &view, &store).await;
    projection.wait_for(&node.acknowledged_all(), LONG).await.unwrap();
    assert_eq!(filled(&store, "a").await, Some(5));
}

#[tokio::test]
async fn who_asks_for_more_than_there_is_is_told_how_far_it_is() {
    let house = House::new();
    let node = house.node().await;
    let projection = follow(&house, &Jars::new(), &new_store()).await;
    let answer = decided(node.submit(asked(id(), add("a", 2))).await);
    projection.wait_for(&answer.position.into(), LONG).await.unwrap();
    let mut beyond = answer.position;
    beyond.offset = Offset(beyond.offset.0 + 1_000);
    let behind = projection.wait_for(&Positions::from(beyond), Duration::from_millis(20)).await.unwrap_err();
    assert!(behind.at.0[&beyond.partition] >= answer.position.offset);
    let unknown = engine::position::Position { partition: Partition(99), offset: Offset(0) };
    projection.wait_for(&unknown.into(), Duration::from_millis(1)).await.unwrap_err();
}

#[tokio::test]
async fn an_event_that_breaks_the_view_parks_its_stream_only_until_it_is_cured() {
    let house = House::new();
    let node = house.node().await;
    let (view, store) = (Jars::new(), new_store());
    let projection = follow(&house, &view, &store).await;
    for (name, amount) in [("a", 1), ("b", 2), ("a", 13), ("a", 4), ("b", 5), ("a", 6)] {
        decided(node.submit(asked(id(), add(name, amount))).await);
    }
    projection.wait_for(&node.acknowledged_all(), LONG).await.unwrap();
    assert_eq!((filled(&store, "a").await, filled(&store, "b").await), (Some(1), Some(7)));
    let parked = projection.parked();
    assert_eq!(parked.len(), 1);
    assert_eq!((&parked[0].stream, parked[0].version.0, parked[0].waiting), (&jar("a"), 2, 3));
    assert!(parked[0].why.contains("thirteen"));
    assert!(projection.is_parked(&Tenant::default(), &jar("a")));
    projection.stop().await;
    // Still broken: as before, also for what comes later.
    let projection = follow(&house, &view, &store).await;
    decided(node.submit(asked(id(), add("a", 7))).await);
    projection.wait_for(&node.acknowledged_all(), LONG).await.unwrap();
    assert_eq!(filled(&store, "a").await, Some(1));
    assert_eq!(projection.parked()[0].waiting, 4);
    projection.stop().await;
    view.cured.store(true, Ordering::SeqCst);
    let projection = follow(&house, &view, &store).await;
    decided(node.submit(asked(id(), add("a", 8))).await);
    projection.wait_for(&node.acknowledged_all(), LONG).await.unwrap();
    assert_eq!(filled(&store, "a").await, Some(1 + 13 + 4 + 6 + 7 + 8));
    assert_eq!(projection.parked(), []);
    let query =
        Query { table: PARKED_TABLE.name, filters: Vec::new(), sort: None, descending: false, after: None, limit: 10 };
    assert_eq!(store.list(query).await.unwrap(), []);
}

#[tokio::test]
async fn a_store_ahead_of_the_log_is_refused() {
    let house = House::new();
    let node = house.node().await;
    let (view, store) = (Jars::new(), new_store());
    let projection = follow(&house, &view, &store).await;
    let answer = decided(node.submit(asked(id(), add("a", 1))).await);
    projection.wait_for(&answer.position.into(), LONG).await.unwrap();
    projection.stop().await;
    let restored = House::over(Arc::new(MemoryLog::new(house.genesis)), house.genesis);
    assert!(matches!(try_follow(&restored, &view, &store).await.err(), Some(ProjectionFault::AheadOfLog { .. })));
    let other = genesis();
    let foreign = House::over(Arc::new(MemoryLog::new(other)), other);
    assert!(matches!(try_follow(&foreign, &view, &store).await.err(), Some(ProjectionFault::Store(_))));
}

/// A store that does not answer now and then, sometimes after it has done what was asked.
struct Flaky {
    store: MemoryReadStore,
    commits: std::sync::atomic::AtomicU64,
}

impl ReadStore for Flaky {
    fn open(
        &self,
        log: engine::position::LogId,
    ) -> StoreFuture<'_, std::collections::BTreeMap<Partition, engine::position::Checkpoint>> {
        self.store.open(log)
    }
    fn load(&self, keys: Vec<RowKey>) -> StoreFuture<'_, std::collections::BTreeMap<RowKey, Row>> {
        self.store.load(keys)
    }
    fn commit(&self, batch: Batch) -> StoreFuture<'_, ()> {
        let number = self.commits.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            if number.is_multiple_of(3) {
                return Err(StoreFault::Unavailable("before".into()));
            }
            self.store.commit(batch).await?;
            if number % 3 == 1 {
                return Err(StoreFault::Unavailable("after".into()));
            }
            Ok(())
        })
    }
    fn list(&self, query: Query) -> StoreFuture<'_, Vec<(String, Row)>> {
        self.store.list(query)
    }
}

#[tokio::test]
async fn a_store_that_loses_answers_gets_every_event_once() {
    let house = House::new();
    let node = house.node().await;
    let store: Arc<dyn ReadStore> = Arc::new(Flaky { store: MemoryReadStore::new(&TABLES), commits: 0.into() });
    let projection = follow(&house, &Jars::new(), &store).await;
    for _ in 0..3 {
        let answer = decided(node.submit(asked(id(), add("a", 1))).await);
        projection.wait_for(&answer.position.into(), LONG).await.unwrap();
    }
    assert_eq!(filled(&store, "a").await, Some(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_folded_during_a_commit_is_right_whatever_becomes_of_the_commit() {
    let house = House::new();
    let node = house.node().await;
    for number in 0..200_u64 {
        // Jar 4 gets something that it cannot bear in the middle.
        let amount = if number == 154 { 13 } else { 1 + number % 2 };
        decided(node.submit(asked(id(), add(&(number % 5).to_string(), amount))).await);
    }
    let store: Arc<dyn ReadStore> = Arc::new(Flaky { store: MemoryReadStore::new(&TABLES), commits: 0.into() });
    // Hardly a row is kept, so that most have to be looked up in a store that is just being written to.
    let options = ProjectionOptions { batch_events_max: 7, rows_cached_max: 1, ..ProjectionOptions::default() };
    let projection = follow_with(&house, &Jars::new(), &store, options).await.unwrap();
    projection.wait_for(&node.acknowledged_all(), LONG).await.unwrap();
    for number in 0..5_u64 {
        let folded = (0..200).filter(|n| n % 5 == number && (number != 4 || *n < 154));
        assert_eq!(filled(&store, &number.to_string()).await, Some(folded.map(|n| 1 + n % 2).sum()), "jar {number}");
    }
    let parked = projection.parked();
    assert_eq!(parked.iter().map(|parked| parked.waiting).collect::<Vec<_>>(), [10]);
}

#[tokio::test]
async fn a_second_worker_stops_the_first() {
    let house = House::new();
    let node = house.node().await;
    let (view, store) = (Jars::new(), new_store());
    let projection = follow(&house, &view, &store).await;
    // Somebody else moves a checkpoint.
    let answer = decided(node.submit(asked(id(), add("a", 1))).await);
    projection.wait_for(&answer.position.into(), LONG).await.unwrap();
    let now = store.open(house.genesis.log).await.unwrap()[&answer.position.partition];
    let mut moved = now;
    moved.next_offset = now.next_offset.next();
    let checkpoints = vec![(answer.position.partition, Some(now), moved)];
    store.commit(Batch { checkpoints, ..Batch::default() }).await.unwrap();
    let answer = decided(node.submit(asked(id(), add("a", 1))).await);
    projection.wait_for(&answer.position.into(), LONG).await.unwrap_err();
    let ProjectionStatus::Failed(ProjectionFault::Store(fault)) = projection.status() else { panic!() };
    assert!(matches!(*fault, StoreFault::Fenced(_)));
}

#[tokio::test]
async fn records_without_rows_move_the_watermark_all_the_same() {
    let house = House::new();
    let node = house.node().await;
    let (view, store) = (Jars::new(), new_store());
    let projection = follow(&house, &view, &store).await;
    let due = engine::time::Timestamp(i64::MAX);
    let answer = decided(node.submit(asked(id(), Wish::SetAlarm { trip: trip("a"), due })).await);
    projection.wait_for(&answer.position.into(), LONG).await.unwrap();
    let refused = decided(node.submit(asked(id(), add("a", 1_000))).await);
    projection.wait_for(&refused.position.into(), LONG).await.unwrap();
    projection.stop().await;
    let kept = store.open(house.genesis.log).await.unwrap();
    assert_eq!(kept[&answer.position.partition].next_offset, house.log.end(answer.position.partition));
}
