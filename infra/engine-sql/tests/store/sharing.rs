//! Nodes that share a store in PostgreSQL: each feeds its share, one takes over from another, zombies do no harm, and
//! those who do not feed hear how far it is. Whatever happens to the server, rows are the fold of the log in the end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::position::Partition;
use engine::read_store::{Batch, Progress, ReadStore, StoreFault};
use engine::stream::{StreamName, Tenant};
use engine_runtime::projection::{ProjectionFault, ProjectionStatus, Sharing};
use engine_sql::{ShareOptions, SqlReadStore};
use sqlx::AssertSqlSafe;
use tokio::sync::watch;
use xtask::postgres::Postgres;

use crate::kit::*;
use crate::shop::*;

/// Short: tests wait for it to run out.
const LEASE: Duration = Duration::from_millis(900);

fn everything() -> BTreeSet<Partition> {
    (0..PARTITIONS).map(Partition).collect()
}

async fn feeds(node: &ShopNode, what: impl Fn(&BTreeSet<Partition>) -> bool) -> BTreeSet<Partition> {
    let mut feeds = node.shared.feeds();
    let waited = tokio::time::timeout(LONG, feeds.wait_for(|feeds| what(feeds))).await;
    waited.expect("in time").unwrap().as_ref().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_share_and_the_one_that_stays_takes_over() {
    let Some(place) = Place::postgres() else { return };
    let shop = Shop::new();
    // Long: nothing here waits for it to run out.
    let lease = Duration::from_secs(6);
    let (one, other) = (store(&place).await, store(&place).await);
    let here = shop.node(&one, "here", lease);
    feeds(&here, |feeds| *feeds == everything()).await;
    shop.fill(20, 5);
    let there = shop.node(&other, "there", lease);
    // Who has too much gives back.
    let mine = feeds(&here, |feeds| feeds.len() == 2).await;
    let theirs = feeds(&there, |feeds| feeds.len() == 2).await;
    assert!(mine.is_disjoint(&theirs), "{mine:?} {theirs:?}");
    shop.fill(20, 5);
    here.wait(&shop.all()).await;
    there.wait(&shop.all()).await;
    shop.check(&one).await;
    // It leaves in good order: what it fed is fed at once.
    let began = Instant::now();
    there.projection.stop().await;
    there.shared.release().await;
    feeds(&here, |feeds| *feeds == everything()).await;
    assert!(began.elapsed() < lease, "{:?}", began.elapsed());
    shop.fill(20, 5);
    here.wait(&shop.all()).await;
    shop.check(&one).await;
}

#[test]
fn a_node_that_dies_is_taken_over_when_its_lease_has_run_out() {
    let Some(place) = Place::postgres() else { return };
    let (staying, dying) = (tokio::runtime::Runtime::new().unwrap(), tokio::runtime::Runtime::new().unwrap());
    let shop = Shop::new();
    let one = staying.block_on(store(&place));
    let other = dying.block_on(store(&place));
    let here = staying.block_on(async { shop.node(&one, "here", LEASE) });
    let there = dying.block_on(async { shop.node(&other, "there", LEASE) });
    staying.block_on(feeds(&here, |feeds| feeds.len() == 2));
    staying.block_on(feeds(&there, |feeds| feeds.len() == 2));
    shop.fill(20, 5);
    staying.block_on(here.wait(&shop.all()));
    // All its tasks end in the middle of whatever they do; nothing is given back.
    dying.shutdown_background();
    shop.fill(20, 5);
    let began = Instant::now();
    staying.block_on(here.wait(&shop.all()));
    let took = began.elapsed();
    assert!(took < LEASE * 3, "{took:?}");
    println!("taken over {took:?} after the death, leases of {LEASE:?}");
    staying.block_on(shop.check(&one));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_feed_the_same_partitions_do_no_harm() {
    let Some(place) = Place::postgres() else { return };
    let shop = Shop::new();
    let (one, other) = (store(&place).await, store(&place).await);
    // Leases that were both given: the hint is as wrong as can be.
    let feeding = || watch::channel(Arc::new(everything())).0;
    let progress = || watch::channel(Arc::new(Progress::default())).0;
    let (feeds, tells) = ([feeding(), feeding()], [progress(), progress()]);
    let sharing = |n: usize| Sharing { feeds: feeds[n].subscribe(), progress: tells[n].subscribe(), log_end: None };
    let zombies = [shop.projection(&one, sharing(0)), shop.projection(&other, sharing(1))];
    for _ in 0..30 {
        shop.fill(20, 1);
        // Both are fenced by the other all the time; one of them gets on.
        let there = async |n: usize| zombies[n].wait_for(&shop.all(), LONG).await;
        tokio::select! {
            reached = there(0) => reached.unwrap(),
            reached = there(1) => reached.unwrap(),
        }
    }
    shop.check(&one).await;
    // Once one of them learns the truth, the other goes on undisturbed.
    feeds[0].send_replace(Arc::new(BTreeSet::new()));
    shop.fill(20, 5);
    zombies[1].wait_for(&shop.all(), LONG).await.unwrap();
    shop.check(&one).await;
    for zombie in &zombies {
        assert!(!matches!(zombie.status(), ProjectionStatus::Failed(_)), "{:?}", zombie.status());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_feed_hears_at_once_how_far_it_is_and_what_is_parked() {
    let Some(place) = Place::postgres() else { return };
    let shop = Shop::new();
    let (one, other) = (store(&place).await, store(&place).await);
    let feeder = shop.node(&one, "feeder", LEASE);
    // It looks by itself once in a minute: whatever it knows sooner it was told.
    let share = ShareOptions { feed: false, poll: LONG, ..ShareOptions::new("reader", PARTITIONS) };
    let reader = shop.node_with(&other, share);
    let first = shop.put("a", 1);
    feeder.wait(&first.into()).await;
    reader.wait(&first.into()).await;
    let mut took = Vec::new();
    for _ in 0..50 {
        let position = shop.put("a", 1);
        feeder.wait(&position.into()).await;
        let began = Instant::now();
        reader.wait(&position.into()).await;
        took.push(began.elapsed());
        let read = other.load_with_checkpoints(vec![key("jar-a")]).await.unwrap();
        reader.projection.reflects(&read.checkpoints, &position.into()).unwrap();
    }
    took.sort();
    println!("told {:?} after the feeder knew (median), {:?} at most", took[25], took[49]);
    assert!(took[25] < Duration::from_millis(500), "{took:?}");

    let poison = shop.put("a", 13);
    reader.wait(&poison.into()).await;
    let jar = StreamName::new("jar-a").unwrap();
    assert!(reader.projection.is_parked(&Tenant::default(), &jar), "who waited for it must see that it is parked");
    // The reader may hear of it from the store before the feeder has its answer.
    feeder.wait(&poison.into()).await;
    assert!(feeder.projection.is_parked(&Tenant::default(), &jar));
}

/// A second try at what is parked moves no checkpoint, so the checkpoint cannot tell a feeder from the one before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lost_its_lease_commits_nothing_even_where_no_checkpoint_moved() {
    let Some(place) = Place::postgres() else { return };
    let shop = Shop::new();
    let one = store(&place).await;
    let node = shop.node(&one, "one", LEASE);
    feeds(&node, |feeds| *feeds == everything()).await;
    shop.fill(20, 5);
    node.wait(&shop.all()).await;
    until_stored(&node, &one, &shop).await;
    node.projection.stop().await;
    let at = one.open(LOG).await.unwrap();
    let (partition, checkpoint) = at.first_key_value().map(|(partition, at)| (*partition, *at)).unwrap();
    let again = || Batch { checkpoints: vec![(partition, Some(checkpoint), checkpoint)], ..Batch::default() };
    one.commit(again()).await.expect("it is its own");
    // Another has taken it since, and tried what is parked again: the checkpoint is where it was.
    place
        .alter("UPDATE docket_leases SET holder = 'another', expires_at = clock_timestamp() + interval '1 minute'")
        .await;
    let fenced = one.commit(again()).await.unwrap_err();
    assert!(matches!(fenced, StoreFault::Fenced(found) if found == partition), "{fenced}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_without_rows_is_told_as_well() {
    let Some(place) = Place::postgres() else { return };
    let shop = Shop::new();
    let one = store(&place).await;
    let node = shop.node(&one, "one", LEASE);
    // Claims only so far.
    node.wait(&shop.all()).await;
    let stored = one.open(LOG).await.unwrap();
    assert_eq!(stored.len(), usize::from(PARTITIONS), "another node must see in the store how far it is");
}

/// Waits until the store itself has all that was put.
async fn until_stored(node: &ShopNode, store: &SqlReadStore, shop: &Shop) {
    let began = Instant::now();
    while node.projection.reflects(&store.open(LOG).await.unwrap(), &shop.all()).is_err() {
        assert!(began.elapsed() < LONG, "{:?}", node.projection.status());
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_backup_is_caught_up_and_shown_to_nobody_as_new() {
    let Some(place) = Place::postgres() else { return };
    let shop = Shop::new();
    let one = store(&place).await;
    let node = shop.node(&one, "one", LEASE);
    shop.fill(20, 5);
    node.wait(&shop.all()).await;
    place.alter("CREATE TABLE o AS TABLE orders; CREATE TABLE c AS TABLE checkpoints").await;
    shop.fill(30, 5);
    node.wait(&shop.all()).await;
    // As a fail-over to a server that lags, or a backup: everything older, together, under running nodes.
    place
        .alter(
            "BEGIN; LOCK checkpoints; TRUNCATE orders, checkpoints; INSERT INTO orders TABLE o; \
             INSERT INTO checkpoints TABLE c; DROP TABLE o, c; COMMIT",
        )
        .await;
    let read = one.load_with_checkpoints(vec![key("jar-1")]).await.unwrap();
    if read.found[&key("jar-1")].version < 10 {
        node.projection.reflects(&read.checkpoints, &shop.all()).unwrap_err();
    }
    shop.fill(20, 1);
    // The next batch finds the checkpoint elsewhere; the worker asks again and goes on from there.
    until_stored(&node, &one, &shop).await;
    shop.check(&one).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_backup_is_caught_up_even_if_nothing_more_is_written() {
    let Some(place) = Place::postgres() else { return };
    let shop = Shop::new();
    let one = store(&place).await;
    let node = shop.node(&one, "one", LEASE);
    shop.fill(20, 5);
    node.wait(&shop.all()).await;
    place.alter("BEGIN; LOCK checkpoints; TRUNCATE orders, checkpoints; COMMIT").await;
    until_stored(&node, &one, &shop).await;
    shop.check(&one).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_ahead_of_its_log_is_refused() {
    let Some(place) = Place::postgres() else { return };
    let one = store(&place).await;
    let shop = Shop::new();
    let node = shop.node(&one, "one", LEASE);
    shop.fill(20, 5);
    node.wait(&shop.all()).await;
    node.projection.stop().await;
    node.shared.release().await;
    // The same log, restored from an older copy.
    let older = Shop::new();
    let node = older.node(&store(&place).await, "one", LEASE);
    let began = Instant::now();
    while !matches!(node.projection.status(), ProjectionStatus::Failed(ProjectionFault::AheadOfLog { .. })) {
        assert!(began.elapsed() < LONG, "{:?}", node.projection.status());
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_in_the_middle_of_commits_gets_every_event_once() {
    if server().is_none() {
        return;
    }
    let mut postgres = Postgres::start();
    let place = Place::postgres_at(&postgres.url());
    let shop = Arc::new(Shop::new());
    let one = store(&place).await;
    let node = shop.node(&one, "one", LEASE);
    for round in 0..5 {
        let writing = shop.clone();
        let filling = tokio::task::spawn_blocking(move || writing.fill(50, 20));
        // In the middle: some of it is in the store.
        let some = shop.put("first", 1);
        node.wait(&some.into()).await;
        postgres.kill();
        filling.await.unwrap();
        if round == 0 {
            let began = Instant::now();
            while !matches!(node.projection.status(), ProjectionStatus::Waiting(_)) {
                assert!(began.elapsed() < LONG, "{:?}", node.projection.status());
                tokio::task::yield_now().await;
            }
        }
        postgres.start_again();
        node.wait(&shop.all()).await;
        shop.check(&one).await;
        let began = Instant::now();
        while !matches!(node.projection.status(), ProjectionStatus::Running) {
            assert!(began.elapsed() < LONG, "{:?}", node.projection.status());
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_ended_at_random_lose_and_double_nothing() {
    let Some(place) = Place::postgres() else { return };
    let shop = Arc::new(Shop::new());
    let (one, other) = (store(&place).await, store(&place).await);
    let nodes = [shop.node(&one, "one", LEASE), shop.node(&other, "other", LEASE)];
    let mut outside = place.connection().await;
    let Place::Postgres { schema, .. } = &place else { unreachable!() };
    let end = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{schema}' AND random() < 0.5"
    );
    for _ in 0..20 {
        shop.fill(50, 4);
        sqlx::raw_sql(AssertSqlSafe(end.clone())).execute(&mut outside).await.unwrap();
        tokio::task::yield_now().await;
    }
    for node in &nodes {
        node.wait(&shop.all()).await;
    }
    shop.check(&one).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_store_catches_up_with_a_long_log() {
    let Some(place) = Place::postgres() else { return };
    let shop = Shop::new();
    shop.fill(4_000, 5);
    let one = store(&place).await;
    let began = Instant::now();
    let node = shop.node_of_batches(&one, "one", 5_000);
    node.wait(&shop.all()).await;
    let took = began.elapsed();
    println!("20,000 events into 4,000 rows in {took:?}: {:.0} events/s", 20_000.0 / took.as_secs_f64());
    shop.check(&one).await;
}
