//! What a store in PostgreSQL promises beyond the suite: nobody inherits a transaction, many may start at once, meeting
//! another transaction is no fault, a server that is away is said so at once, and passwords are shown to nobody.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::read_store::{Batch, ReadStore, StoreFault};
use engine_sql::{Options, SqlReadStore};
use sqlx::{AssertSqlSafe, Connection, Row as _};
use xtask::postgres::Postgres;

use crate::kit::*;

async fn number(connection: &mut sqlx::PgConnection, question: &str) -> i64 {
    let row = sqlx::query(AssertSqlSafe(question.to_owned())).fetch_one(connection).await.unwrap();
    row.get::<i64, _>(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_callers_that_go_away_leaves_no_transaction_open() {
    let Some(place) = Place::postgres() else { return };
    let store = Arc::new(place.open().await);
    store.commit(batch([("a", Some(order("open", 0)))], None, checkpoint(1))).await.unwrap();
    let mut storm = tokio::task::JoinSet::new();
    let mut acknowledged = Vec::new();
    for n in 0..5_000_u64 {
        // 30 at once: more would only wait for their turn and never get it before they go.
        if storm.len() >= 30
            && let Some(done) = storm.join_next().await
        {
            let (n, done): (u64, bool) = done.unwrap();
            acknowledged.extend(done.then_some(n));
        }
        let store = store.clone();
        storm.spawn(async move {
            let patience = Duration::from_micros(n * 7_919 % 60_000);
            let work = async {
                match n % 4 {
                    0 => drop(store.load_with_checkpoints(vec![key("a"), key("b")]).await),
                    1 => drop(store.list(all()).await),
                    2 => drop(store.commit(batch([("b", Some(order("open", n)))], None, checkpoint(1))).await),
                    // Rows without a checkpoint: nothing fences them, so a lost or doubled effect would show.
                    _ => {
                        let rows = vec![(key(&format!("row-{n}")), Some(order("open", n)))];
                        return store.commit(Batch { rows, ..Batch::default() }).await.is_ok();
                    }
                }
                false
            };
            (n, tokio::time::timeout(patience, work).await.unwrap_or(false))
        });
    }
    while let Some(done) = storm.join_next().await {
        let (n, done) = done.unwrap();
        acknowledged.extend(done.then_some(n));
    }
    // What was acknowledged is there, for whoever looks from outside.
    let mut outside = place.connection().await;
    let Place::Postgres { schema, .. } = &place else { unreachable!() };
    for n in &acknowledged {
        let there = format!("SELECT count(*) FROM {schema}.orders WHERE key = 'row-{n}'");
        assert_eq!(number(&mut outside, &there).await, 1, "row-{n} was acknowledged and is lost");
    }
    // A commit goes on when its caller has gone: once it has its turn after them, none is under way.
    for _ in 0..4 {
        store.open(LOG).await.unwrap();
    }
    store.commit(batch([("b", Some(order("calm", 1)))], Some(checkpoint(1)), checkpoint(2))).await.unwrap();
    let seen = format!("SELECT count(*) FROM {schema}.orders WHERE key = 'b' AND status = 'calm'");
    assert_eq!(number(&mut outside, &seen).await, 1, "the next writer's work went into somebody else's transaction");
    let began = Instant::now();
    let idle = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{schema}' AND state LIKE 'idle in%' \
         AND state_change < now() - interval '1 second'"
    );
    while number(&mut outside, &idle).await != 0 {
        assert!(began.elapsed() < Duration::from_secs(10), "a transaction was left open");
        tokio::task::yield_now().await;
    }
    println!("{} commits of 5,000 callers were acknowledged", acknowledged.len());
    assert!(acknowledged.len() > 20, "{} commits were acknowledged: the storm was none", acknowledged.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_eight_that_start_at_once_all_find_one_store() {
    let Some(place) = Place::postgres() else { return };
    let starts = (0..8).map(|_| place.store(ORDERS, Options::default()));
    let stores = futures::future::try_join_all(starts).await.unwrap();
    for store in &stores {
        assert!(store.open(LOG).await.unwrap().is_empty());
    }
    stores[0].commit(batch([("a", Some(order("open", 1)))], None, checkpoint(1))).await.unwrap();
    stores[7].commit(batch([("b", Some(order("open", 1)))], Some(checkpoint(1)), checkpoint(2))).await.unwrap();
    assert_eq!(load(&stores[3], ["a", "b"]).await.len(), 2);
}

#[tokio::test]
async fn a_schema_with_additions_serves_the_program_of_yesterday() {
    let Some(place) = Place::postgres() else { return };
    place.open().await.close().await;
    place.alter("ALTER TABLE checkpoints ADD COLUMN tomorrow text; UPDATE meta SET format = 3").await;
    let store = place.open().await;
    store.commit(batch([("a", Some(order("open", 1)))], None, checkpoint(1))).await.unwrap();
    assert_eq!(store.open(LOG).await.unwrap(), [(P0, checkpoint(1))].into());
    place.alter("UPDATE meta SET format = 4, usable_from = 4").await;
    let refused = place.store(ORDERS, Options::default()).await;
    assert!(matches!(refused, Err(StoreFault::TooNew { found: 4, known: 2 })), "{refused:?}");
}

#[tokio::test]
async fn a_batch_that_meets_another_transaction_is_done_all_the_same() {
    let Some(place) = Place::postgres() else { return };
    let store = Arc::new(place.open().await);
    let both = |n| [("a", Some(order("open", n))), ("b", Some(order("open", n)))];
    store.commit(batch(both(1), None, checkpoint(1))).await.unwrap();
    // Somebody who takes the rows in the other order: then ours waits for theirs and theirs for ours.
    let Place::Postgres { schema, .. } = &place else { unreachable!() };
    let mut other = place.connection().await;
    let touch = |key: &str| format!("UPDATE {schema}.orders SET version = version WHERE key = '{key}'");
    sqlx::raw_sql("BEGIN").execute(&mut other).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(touch("b"))).execute(&mut other).await.unwrap();
    let writer = store.clone();
    let ours = tokio::spawn(async move { writer.commit(batch(both(2), Some(checkpoint(1)), checkpoint(2))).await });
    let mut watcher = place.connection().await;
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{schema}' \
         AND wait_event_type = 'Lock' AND query LIKE 'INSERT INTO \"orders\"%'"
    );
    while number(&mut watcher, &waiting).await == 0 {
        tokio::task::yield_now().await;
    }
    // One of the two is chosen to give way (40P01): if it is ours, it is tried again.
    let theirs = sqlx::raw_sql(AssertSqlSafe(touch("a"))).execute(&mut other).await;
    other.close().await.unwrap();
    assert!(theirs.is_ok(), "theirs gave way, so this shows nothing: {theirs:?}");
    ours.await.unwrap().unwrap();
    assert_eq!(load(&store, ["a", "b"]).await.iter().map(|(_, row)| row.version).collect::<Vec<_>>(), [2, 2]);
}

#[tokio::test]
async fn what_the_server_rolls_back_for_others_is_tried_again_a_few_times() {
    for code in ["40001", "40P01"] {
        let Some(place) = Place::postgres() else { return };
        let store = place.open().await;
        // A sequence counts on, whatever is rolled back.
        let meeting = |times: u32| {
            format!(
                "DROP SEQUENCE IF EXISTS meetings; CREATE SEQUENCE meetings; \
                 CREATE OR REPLACE FUNCTION meet() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS \
                 'BEGIN IF nextval(''meetings'') <= {times} THEN RAISE EXCEPTION USING ERRCODE = ''{code}''; END IF; \
                 RETURN NULL; END'; CREATE OR REPLACE TRIGGER meet AFTER INSERT ON orders FOR EACH STATEMENT \
                 EXECUTE FUNCTION meet()"
            )
        };
        place.alter(&meeting(3)).await;
        store.commit(batch([("a", Some(order("open", 1)))], None, checkpoint(1))).await.unwrap();
        assert_eq!(load(&store, ["a"]).await.len(), 1);
        place.alter(&meeting(1_000)).await;
        let next = batch([("b", Some(order("open", 1)))], Some(checkpoint(1)), checkpoint(2));
        let refused = store.commit(next).await;
        assert!(matches!(refused, Err(StoreFault::Unavailable(_))), "{refused:?}");
        let mut outside = place.connection().await;
        let Place::Postgres { schema, .. } = &place else { unreachable!() };
        let tries = number(&mut outside, &format!("SELECT last_value FROM {schema}.meetings")).await;
        assert_eq!(tries, 5, "it is tried a few times, and not for ever");
        assert_eq!(store.open(LOG).await.unwrap(), [(P0, checkpoint(1))].into());
    }
}

#[tokio::test]
async fn the_server_ends_what_takes_too_long_and_nothing_of_it_is_done() {
    let Some(place) = Place::postgres() else { return };
    let ms = Duration::from_millis;
    let patience = [
        (Options { lock_max: ms(200), ..Options::default() }, "55P03"),
        (Options { write_max: ms(2_000), lock_max: ms(60_000), ..Options::default() }, "57014"),
    ];
    place.open().await.commit(batch([("a", Some(order("open", 1)))], None, checkpoint(1))).await.unwrap();
    let Place::Postgres { schema, .. } = &place else { unreachable!() };
    for (options, code) in patience {
        let store = place.store(ORDERS, options).await.unwrap();
        store.open(LOG).await.unwrap();
        let mut other = place.connection().await;
        sqlx::raw_sql(AssertSqlSafe(format!("BEGIN; LOCK {schema}.orders"))).execute(&mut other).await.unwrap();
        let next = batch([("a", Some(order("late", 2)))], Some(checkpoint(1)), checkpoint(2));
        let refused = store.commit(next).await;
        let Err(StoreFault::Unavailable(why)) = &refused else { panic!("{code}: {refused:?}") };
        assert!(format!("{why:?}").contains(code), "{code}: {why:?}");
        sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
        assert_eq!(load(&store, ["a"]).await[0].1, order("open", 1));
        assert_eq!(store.open(LOG).await.unwrap(), [(P0, checkpoint(1))].into());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_said_so_soon_and_found_again() {
    if server().is_none() {
        return;
    }
    let mut postgres = Postgres::start();
    let place = Place::postgres_at(&postgres.url());
    let store = place.open().await;
    store.commit(batch([("a", Some(order("open", 1)))], None, checkpoint(1))).await.unwrap();
    for pause in [false, true] {
        if pause {
            postgres.pause();
        } else {
            postgres.kill();
        }
        let began = Instant::now();
        let away = store.load(vec![key("a")]).await;
        assert!(matches!(away, Err(StoreFault::Unavailable(_))), "{away:?}");
        assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
        // Twenty readers do not wait for it one after the other.
        let began = Instant::now();
        let reads = futures::future::join_all((0..20).map(|_| store.list_with_checkpoints(all()))).await;
        assert!(reads.iter().all(|read| matches!(read, Err(StoreFault::Unavailable(_)))));
        assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
        if pause {
            postgres.resume();
        } else {
            postgres.start_again();
        }
        let began = Instant::now();
        while let Err(fault) = store.load(vec![key("a")]).await {
            assert!(matches!(fault, StoreFault::Unavailable(_)), "{fault:?}");
            assert!(began.elapsed() < Duration::from_secs(10));
            tokio::task::yield_now().await;
        }
        assert_eq!(load(&store, ["a"]).await.len(), 1);
        let (was, next) = if pause { (2, 3) } else { (1, 2) };
        store.commit(batch([], Some(checkpoint(was)), checkpoint(next))).await.unwrap();
    }
}

#[tokio::test]
async fn a_store_opens_without_its_server_if_it_is_told_to() {
    if server().is_none() {
        return;
    }
    let mut postgres = Postgres::start();
    let place = Place::postgres_at(&postgres.url());
    postgres.stop();
    let refused = place.store(ORDERS, Options::default()).await;
    assert!(matches!(refused, Err(StoreFault::Unavailable(_))), "{refused:?}");
    let store = place.store(ORDERS, Options { wait_for_database: true, ..Options::default() }).await.unwrap();
    let began = Instant::now();
    assert!(matches!(store.load(vec![key("a")]).await, Err(StoreFault::Unavailable(_))));
    assert!(matches!(store.open(LOG).await, Err(StoreFault::Unavailable(_))));
    // Not the time that a server which is there may take.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    postgres.start_again();
    let began = Instant::now();
    while let Err(fault) = store.open(LOG).await {
        assert!(matches!(fault, StoreFault::Unavailable(_)), "{fault:?}");
        assert!(began.elapsed() < Duration::from_secs(20));
        tokio::task::yield_now().await;
    }
    store.commit(batch([("a", Some(order("open", 1)))], None, checkpoint(1))).await.unwrap();
}

#[tokio::test]
async fn nobody_is_shown_a_password() {
    let Some(server) = server() else { return };
    // This server trusts everyone, so any password is right.
    let url = format!("{}?schema=docket_secret", server.url().replace("docket@", "docket:hunter2@"));
    let store = SqlReadStore::open(&url, ORDERS, Options::default()).await.unwrap();
    assert!(!format!("{store:?}").contains("hunter2"));
    for wrong in [url.replace("/docket?", "/nowhere?"), url.replace("127.0.0.1", "127.0.0.2")] {
        let fault = SqlReadStore::open(&wrong, ORDERS, Options::default()).await.unwrap_err();
        let StoreFault::Unavailable(why) = &fault else { panic!("{fault:?}") };
        let said = format!("{fault} {fault:?} {why} {why:?}");
        assert!(!said.contains("hunter2"), "{said}");
        assert!(why.to_string().contains("postgres://docket@127."), "{why}");
    }
}
