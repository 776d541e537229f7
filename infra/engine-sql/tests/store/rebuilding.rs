//! A second set of rows beside the one in use: folded anew, compared, brought into use and back while the world goes on;
//! rows that are not what the log makes of them are found; what is parked is listed, tried again and dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use engine::event::Recorded;
use engine::position::{Offset, Positions};
use engine::read_store::{Beside, Origin, ReadStore, SideBySide, StoreFault, Switch};
use engine::stream::{StreamId, StreamName, Tenant, partition_of};
use engine::view::{Row, RowKey, Table, View};
use engine_runtime::projection::{
    BesideWord, CheckState, Denied, Dropped, Operations, OperationsParts, PARKED_TABLE, Projection, ProjectionOptions,
    ProjectionStatus, Scope, Sharing, Side,
};
use engine_runtime::system::SystemClock;
use engine_sql::{Options, ShareOptions, Shared, SqlReadStore};
use serde_json::json;
use sqlx::{ConnectOptions, Connection};

use crate::kit::*;
use crate::shop::{Jars, LONG, PARTITIONS, Put, Shop, store};

/// Jars that cannot bear 13 until they are cured, and then keep it.
struct Curable(AtomicBool);

impl View for Curable {
    type Event = Put;
    fn tables(&self) -> &'static [Table] {
        Jars.tables()
    }
    fn rows(&self, event: &Recorded<Put>) -> Vec<RowKey> {
        Jars.rows(event)
    }
    fn evolve(&self, key: &RowKey, row: Option<Row>, event: &Recorded<Put>) -> Option<Row> {
        assert!(event.event.0 != 13 || self.0.load(Ordering::SeqCst), "thirteen");
        let before = row.map_or(0, |row| row.doc.value()["total"].as_u64().unwrap());
        let total = before + event.event.0;
        let columns = vec![json!("open"), json!(key.key), json!(total)];
        Some(Row { version: event.meta.version.0, doc: json!({ "total": total }).into(), columns })
    }
}

/// A shop whose rows are followed into one place.
struct Scene {
    shop: Arc<Shop>,
    view: Arc<Curable>,
    store: Arc<SqlReadStore>,
    live: Projection,
    operations: Operations<Curable>,
    _shared: Option<Shared>,
}

impl Scene {
    async fn at(place: &Place) -> Self {
        Self::of(place, Arc::new(Shop::new())).await
    }

    async fn of(place: &Place, shop: Arc<Shop>) -> Self {
        let store = store(place).await;
        let view = Arc::new(Curable(AtomicBool::new(false)));
        let options = ProjectionOptions { batch_events_max: 20, ..ProjectionOptions::default() };
        let (log, clock, genesis) = (shop.log.clone(), Arc::new(SystemClock), shop.genesis);
        let shared = store.share(ShareOptions::new("here", PARTITIONS));
        let live = match &shared {
            Some(shared) => {
                let sharing = Sharing { feeds: shared.feeds(), progress: shared.progress(), log_end: None };
                Projection::start_shared(log, &genesis, view.clone(), store.clone(), clock, sharing, options)
            }
            None => Projection::start(log, &genesis, view.clone(), store.clone(), clock, options).await.unwrap(),
        };
        let operations = Operations::new(OperationsParts {
            log: shop.log.clone(),
            genesis,
            view: view.clone(),
            store: store.clone(),
            clock: Arc::new(SystemClock),
            live: live.clone(),
            options: ProjectionOptions { name: "beside", batch_events_max: 50, ..ProjectionOptions::default() },
            scratch: Arc::new(|| {
                Box::pin(async {
                    let tables = [ORDERS[0], PARKED_TABLE];
                    let store = SqlReadStore::open("sqlite::memory:", &tables, Options::default()).await?;
                    Ok(Arc::new(store) as Arc<dyn ReadStore>)
                })
            }),
        });
        Self { shop, view, store, live, operations, _shared: shared }
    }

    async fn caught_up(&self, positions: &Positions) {
        let waited = self.live.wait_for(positions, LONG).await;
        waited.unwrap_or_else(|behind| panic!("{behind}, {:?}", self.live.status()));
    }

    async fn rebuilt(&self) {
        self.operations.rebuild().await.unwrap();
        let began = Instant::now();
        loop {
            let beside = self.operations.state("jars").await.unwrap().beside.unwrap();
            match beside.state {
                BesideWord::Ready => return,
                BesideWord::Folding => {}
                other => panic!("{other:?}: {beside:?}"),
            }
            assert!(began.elapsed() < LONG, "{beside:?}");
            tokio::task::yield_now().await;
        }
    }

    async fn check(&self, scope: Scope) -> CheckState {
        self.operations.begin_check(scope).await.unwrap();
        let began = Instant::now();
        loop {
            let state = self.operations.check_state().unwrap();
            if state.state != "running" {
                return state;
            }
            assert!(began.elapsed() < LONG, "{state:?}");
            tokio::task::yield_now().await;
        }
    }

    /// A jar's row as readers have it, at hand or loaded: how much is in it.
    async fn shown(&self, name: &str) -> i64 {
        let (key, store) = (RowKey { table: "orders", key: jar(name).name.to_string() }, self.store.clone());
        let partition = partition_of(&Tenant::default(), &jar(name).name, PARTITIONS);
        let load = || {
            let (store, key) = (store.clone(), key.clone());
            async move {
                let mut read = store.load_with_checkpoints(vec![key.clone()]).await?;
                Ok((read.found.remove(&key), read.checkpoints))
            }
        };
        let found = self.live.cache().find(&key, partition, Offset(0), load).await.unwrap();
        found.row.as_ref().unwrap().doc.value()["total"].as_i64().unwrap()
    }

    async fn standing(&self) -> (i64, Option<Origin>) {
        let standing = self.store.standing().await.unwrap();
        (standing.generation, standing.beside.map(|beside| beside.origin))
    }
}

fn jar(name: &str) -> StreamId {
    StreamId { tenant: Tenant::default(), name: StreamName::new(&format!("jar-{name}")).unwrap() }
}

/// Writes to a jar and reads it back, again and again: never older than what was written.
fn reader_and_writer(scene: &Scene, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<u64> {
    let (shop, store, live) = (scene.shop.clone(), scene.store.clone(), scene.live.clone());
    tokio::spawn(async move {
        let key = RowKey { table: "orders", key: "jar-hot".to_owned() };
        let mut rounds = 0;
        while !stop.load(Ordering::SeqCst) {
            let written = Positions::from(shop.put("hot", 1));
            shop.put(&format!("new-{rounds}"), 1);
            rounds += 1;
            live.wait_for(&written, LONG).await.unwrap();
            // Between the wait and the read a shared store may have been set back, or others be in use.
            let began = Instant::now();
            let found = loop {
                let found = store.load_with_checkpoints(vec![key.clone()]).await.unwrap();
                match live.reflects(&found.checkpoints, &written) {
                    Ok(()) => break found,
                    Err(behind) => assert!(began.elapsed() < LONG, "{behind}"),
                }
            };
            assert!(found.found[&key].version >= rounds, "{:?} of {rounds}", found.found[&key]);
        }
        rounds
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_rebuilt_compared_and_brought_into_use_and_back_while_the_world_goes_on() {
    for place in Place::each() {
        let scene = Scene::at(&place).await;
        scene.shop.fill(50, 20);
        scene.caught_up(&scene.shop.all()).await;
        let before = scene.standing().await;
        assert_eq!(before.1, None);
        let stop = Arc::new(AtomicBool::new(false));
        let going_on = reader_and_writer(&scene, stop.clone());

        assert!(matches!(scene.operations.switch(LONG).await, Err(Denied::Nothing("rebuilt"))));
        scene.rebuilt().await;
        let compared = scene.check(Scope::Beside).await;
        assert_eq!((compared.state, &compared.why), ("equal", &None), "{compared:?}");
        assert!(compared.rows >= 50, "{compared:?}");
        let generation = scene.operations.switch(LONG).await.unwrap();
        assert_eq!(scene.standing().await, (generation, Some(Origin::Kept)));
        assert!(generation > before.0);
        scene.caught_up(&Positions::from(scene.shop.put("later", 1))).await;

        // And back: what was kept has to catch up first.
        scene.shop.fill(50, 2);
        let back = scene.operations.roll_back(LONG).await.unwrap();
        assert_eq!(scene.standing().await, (back, Some(Origin::Kept)));
        scene.caught_up(&Positions::from(scene.shop.put("later", 1))).await;

        stop.store(true, Ordering::SeqCst);
        assert!(going_on.await.unwrap() > 0);
        scene.caught_up(&scene.shop.all()).await;
        scene.shop.check(&scene.store).await;
        assert!(scene.operations.discard().await.unwrap());
        assert!(!scene.operations.discard().await.unwrap());
        assert_eq!(scene.standing().await.1, None);
        let whole = scene.check(Scope::Whole).await;
        assert_eq!(whole.state, "equal", "{whole:?}");
        assert!(matches!(scene.live.status(), ProjectionStatus::Running), "{:?}", scene.live.status());
        scene.live.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_was_altered_is_named_and_a_rebuild_mends_it() {
    for place in Place::each() {
        let scene = Scene::at(&place).await;
        scene.shop.fill(30, 3);
        scene.caught_up(&scene.shop.all()).await;
        for scope in [Scope::Stream(jar("7")), Scope::Sample(20), Scope::Whole] {
            let state = scene.check(scope).await;
            assert_eq!((state.state, state.parked), ("equal", 0), "{state:?}");
        }
        place.alter("UPDATE orders SET doc = '{\"total\": 99}' WHERE \"key\" = 'jar-7'").await;
        // A sample as large as the table draws it.
        for scope in [Scope::Stream(jar("7")), Scope::Sample(120), Scope::Whole] {
            let state = scene.check(scope).await;
            let found = state.difference.clone().unwrap_or_else(|| panic!("{state:?}"));
            assert_eq!((state.state, found.rows, found.table), ("different", Side::InUse, "orders"), "{state:?}");
            assert_eq!((found.key.as_str(), found.detail.as_str()), ("jar-7", "/total is 99; the log makes it 3"));
            assert!(found.position.is_some());
        }
        assert_eq!(scene.check(Scope::Stream(jar("8"))).await.state, "equal");
        assert_eq!(scene.check(Scope::Stream(jar("nobody"))).await.state, "failed");

        scene.rebuilt().await;
        let compared = scene.check(Scope::Beside).await;
        let found = compared.difference.clone().unwrap_or_else(|| panic!("{compared:?}"));
        assert_eq!((found.rows, found.key.as_str()), (Side::InUse, "jar-7"), "the log says which of them is wrong");
        assert_eq!(scene.check(Scope::Rebuilt).await.state, "equal");
        scene.operations.switch(LONG).await.unwrap();
        assert_eq!(scene.check(Scope::Whole).await.state, "equal");

        // Rows that are gone, and rows that nothing made.
        place.alter("DELETE FROM orders__b WHERE \"key\" = 'jar-3'").await;
        let missing = scene.check(Scope::Whole).await.difference.unwrap();
        assert_eq!((missing.key.as_str(), missing.detail.as_str()), ("jar-3", "the row is missing"));
        scene.rebuilt().await;
        scene.operations.switch(LONG).await.unwrap();
        place.alter("INSERT INTO orders (\"key\", \"version\", doc) VALUES ('jar-ghost', 1, '{}')").await;
        let ghost = scene.check(Scope::Whole).await.difference.unwrap();
        assert_eq!((ghost.key.as_str(), ghost.detail.as_str()), ("jar-ghost", "no event makes this row"));
        scene.live.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_parked_is_listed_tried_again_and_dropped() {
    for place in Place::each() {
        let scene = Scene::at(&place).await;
        scene.shop.fill(5, 2);
        for name in ["3", "4"] {
            for amount in [13, 1] {
                scene.shop.put(name, amount);
            }
        }
        scene.caught_up(&scene.shop.all()).await;
        let parked = scene.operations.parked().await.unwrap();
        assert_eq!(parked.iter().map(|it| it.stream.as_str()).collect::<Vec<_>>(), ["jar-3", "jar-4"]);
        assert_eq!((parked[0].version.0, parked[0].waiting), (3, 2));
        // What a parked stream's later events would change is not expected of its row.
        let whole = scene.check(Scope::Whole).await;
        assert_eq!((whole.state, whole.parked), ("equal", 2), "{whole:?}");

        assert!(matches!(scene.operations.retry(&jar("0")).await, Err(Denied::NotParked)));
        let still = scene.operations.retry(&jar("3")).await.unwrap().unwrap();
        assert_eq!((still.version.0, still.waiting), (3, 2));
        // Its row is kept at hand as any other; that it is set aside is asked before it is shown.
        assert_eq!([scene.shown("3").await, scene.shown("4").await], [2, 2]);

        let dropped = Dropped { at: engine::time::Timestamp(5), by: Some("ada".into()), why: Some("why".into()) };
        let parked = scene.operations.drop_parked(&jar("4"), dropped.clone()).await.unwrap();
        assert_eq!(parked.dropped.as_ref(), Some(&dropped));
        // It goes on being listed, and is not tried with the others.
        scene.view.0.store(true, Ordering::SeqCst);
        // Or it was tried already: whoever feeds it may only now have begun anew for the other one's sake.
        let retried = scene.operations.retry(&jar("3")).await;
        assert!(matches!(retried, Ok(None) | Err(Denied::NotParked)), "{retried:?}");
        while scene.live.is_parked(&Tenant::default(), &jar("3").name) {
            tokio::task::yield_now().await;
        }
        assert_eq!([scene.shown("3").await, scene.shown("4").await], [16, 2], "what was at hand is gone");
        scene.shop.put("4", 1);
        scene.shop.put("3", 1);
        scene.caught_up(&scene.shop.all()).await;
        let left = scene.operations.parked().await.unwrap();
        assert_eq!((left.len(), left[0].stream.as_str(), left[0].waiting), (1, "jar-4", 3));
        assert_eq!(left[0].dropped.as_ref(), Some(&dropped));
        let state = scene.operations.state("jars").await.unwrap();
        assert_eq!((state.parked, state.dropped), (0, 1));
        let whole = scene.check(Scope::Whole).await;
        assert_eq!(whole.state, "equal", "{whole:?}");

        // A rebuild knows of no drop, and a retry takes one back.
        scene.rebuilt().await;
        assert_eq!(scene.check(Scope::Beside).await.state, "equal");
        assert_eq!(scene.operations.retry(&jar("4")).await.unwrap(), None);
        scene.caught_up(&scene.shop.all()).await;
        assert_eq!(scene.operations.parked().await.unwrap(), []);
        scene.shop.check(&scene.store).await;

        // Who is told that rebuilt rows are in use is not told any more what was set aside before.
        scene.view.0.store(false, Ordering::SeqCst);
        scene.caught_up(&Positions::from(scene.shop.put("2", 13))).await;
        assert!(scene.live.is_parked(&Tenant::default(), &jar("2").name));
        scene.view.0.store(true, Ordering::SeqCst);
        assert!(scene.operations.discard().await.unwrap());
        scene.rebuilt().await;
        scene.operations.switch(LONG).await.unwrap();
        assert_eq!(scene.live.parked(), []);
        assert_eq!(scene.shown("2").await, 15);
        scene.live.stop().await;
    }
}

#[tokio::test]
async fn who_fed_what_is_not_in_use_any_more_is_fenced_and_readers_see_what_is() {
    for place in Place::each() {
        let one = place.open().await;
        let other = place.open().await;
        let feeder = other.feeder().unwrap();
        feeder.open(LOG).await.unwrap();
        feeder.commit(batch([("a", Some(order("old", 1)))], None, checkpoint(1))).await.unwrap();

        let beside = one.begin_beside().await.unwrap();
        assert_eq!(one.switch(beside).await.unwrap(), Switch::Behind(P0), "it has nothing yet");
        let second = one.beside(beside);
        assert!(second.open(LOG).await.unwrap().is_empty());
        second.commit(batch([("a", Some(order("new", 1)))], None, checkpoint(1))).await.unwrap();
        assert_eq!(load(&one, ["a"]).await, [("a".to_owned(), order("old", 1))]);
        assert!(matches!(one.switch(beside).await.unwrap(), Switch::Behind(_)), "it has no indexes yet");
        second.caught_up().await.unwrap();
        feeder.commit(batch([], Some(checkpoint(1)), checkpoint(2))).await.unwrap();
        assert_eq!(one.switch(beside).await.unwrap(), Switch::Behind(P0), "the one in use is further");
        second.commit(batch([], Some(checkpoint(1)), checkpoint(2))).await.unwrap();
        assert_eq!(one.switch(Beside { token: beside.token + 1, ..beside }).await.unwrap(), Switch::Gone);
        assert!(matches!(one.switch(beside).await.unwrap(), Switch::Done(_)));

        // From the same place and to the same place: only the generation tells that it is another set.
        for fed in [&feeder, &second] {
            let late = fed.commit(batch([("a", Some(order("late", 2)))], Some(checkpoint(2)), checkpoint(3))).await;
            assert!(matches!(late, Err(StoreFault::Fenced(_))), "{late:?}");
            let late = fed.open(LOG).await;
            assert!(matches!(late, Err(StoreFault::Fenced(_))), "{late:?}");
        }
        // The other one has not been told; what it reads is right all the same.
        let found = other.load_with_checkpoints(vec![key("a")]).await.unwrap();
        assert_eq!(found.found[&key("a")], order("new", 1));
        assert_eq!(found.checkpoints, [(P0, checkpoint(2))].into());
        assert_eq!(other.generation(), one.generation());
        let feeder = other.feeder().unwrap();
        feeder.open(LOG).await.unwrap();
        feeder.commit(batch([("a", Some(order("next", 2)))], Some(checkpoint(2)), checkpoint(3))).await.unwrap();
        assert_eq!(load(&one, ["a"]).await, [("a".to_owned(), order("next", 2))]);
    }
}

#[tokio::test]
async fn rows_that_were_kept_outlive_a_restart_and_unfinished_ones_of_a_store_alone_do_not() {
    let place = Place::new();
    let store = place.open().await;
    let beside = store.begin_beside().await.unwrap();
    let second = store.beside(beside);
    second.commit(batch([("a", Some(order("new", 1)))], None, checkpoint(1))).await.unwrap();
    second.caught_up().await.unwrap();
    assert!(matches!(store.switch(beside).await.unwrap(), Switch::Done(_)));
    store.close().await;

    let store = place.open().await;
    assert_eq!(load(&store, ["a"]).await, [("a".to_owned(), order("new", 1))]);
    assert_eq!(store.standing().await.unwrap().beside.map(|beside| beside.origin), Some(Origin::Kept));
    store.begin_beside().await.unwrap();
    store.close().await;

    let store = place.open().await;
    assert_eq!(store.standing().await.unwrap().beside, None);
    assert_eq!(load(&store, ["a"]).await.len(), 1);
}

#[tokio::test]
async fn indexes_are_made_when_little_is_left_to_fold() {
    let place = Place::new();
    let indexes = async || {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(place.path());
        let mut connection = options.connect().await.unwrap();
        let count = "SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND name LIKE 'orders%'";
        let found = sqlx::query_scalar::<_, i64>(count).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        found
    };
    let store = place.open().await;
    assert_eq!(indexes().await, 0);
    for _ in 0..2 {
        store.caught_up().await.unwrap();
        assert_eq!(indexes().await, 3);
    }
    let beside = store.begin_beside().await.unwrap();
    assert_eq!(indexes().await, 3);
    store.beside(beside).caught_up().await.unwrap();
    assert_eq!(indexes().await, 6);
    store.discard_beside().await.unwrap();
    assert_eq!(indexes().await, 3);
}
