//! Rows at hand: loaded once however many ask, true to the log whoever feeds the store, never older than what was waited
//! for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use engine::position::{Offset, Partition};
use engine::read_store::{Batch, Progress, ReadStore, StoreFault};
use engine::stream::Tenant;
use engine::view::{Row, RowKey};
use engine_runtime::node::Node;
use engine_runtime::projection::cache::{CacheOptions, Found, Read};
use engine_runtime::projection::{Projection, ProjectionOptions, Sharing};
use serde_json::json;
use tokio::sync::{Semaphore, watch};

use crate::business::Business;
use crate::house::{House, LONG, add, asked, decided, id, jar};
use crate::projecting::{Jars, new_store};

/// A store whose loads are counted, and can be held.
#[derive(Clone)]
struct Loads {
    store: Arc<dyn ReadStore>,
    house: engine::position::LogId,
    count: Arc<AtomicU64>,
    /// How many have read and are held, or were.
    read: Arc<AtomicU64>,
    let_go: Arc<Semaphore>,
}

impl Loads {
    fn of(store: &Arc<dyn ReadStore>, house: &House) -> Self {
        let (count, read, let_go) = (Arc::default(), Arc::default(), Arc::new(Semaphore::new(10_000)));
        Self { store: store.clone(), house: house.genesis.log, count, read, let_go }
    }

    /// Loads read the store at once, and end when let go.
    fn hold(&self) {
        self.let_go.forget_permits(10_000);
    }

    fn let_go(&self) {
        self.let_go.add_permits(10_000);
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    async fn load(self, key: RowKey) -> Result<Read, StoreFault> {
        self.count.fetch_add(1, Ordering::SeqCst);
        // First where it is, then what it says: as new as that or newer.
        let checkpoints = self.store.open(self.house).await?;
        let row = self.store.load(vec![key.clone()]).await?.remove(&key);
        let again = self.store.open(self.house).await?;
        self.read.fetch_add(1, Ordering::SeqCst);
        let _permit = self.let_go.acquire().await.expect("it is never closed");
        if checkpoints != again {
            return Err(StoreFault::Unavailable("it moved meanwhile".into()));
        }
        Ok((row, checkpoints))
    }
}

fn key(name: &str) -> RowKey {
    RowKey { table: "jars", key: jar(name).to_string() }
}

fn partition(node: &Node<Business>, name: &str) -> Partition {
    node.partition_of(&Tenant::default(), &jar(name))
}

/// What this node has acknowledged for a jar: the offset after it.
fn acknowledged(node: &Node<Business>, name: &str) -> Offset {
    node.acknowledged(partition(node, name)).map_or(Offset(0), Offset::next)
}

fn filled(found: &Found) -> Option<u64> {
    found.row.as_ref().map(|row| row.doc.value()["filled"].as_u64().unwrap())
}

async fn find(projection: &Projection, node: &Node<Business>, loads: &Loads, name: &str, least: Offset) -> Found {
    loop {
        let load = || loads.clone().load(key(name));
        match projection.cache().find(&key(name), partition(node, name), least, load).await {
            Ok(found) => return Found::clone(&found),
            Err(fault) => assert!(matches!(*fault, StoreFault::Unavailable(_)), "{fault}"),
        }
    }
}

async fn alone(house: &House, store: &Arc<dyn ReadStore>, cache: CacheOptions) -> Projection {
    let options = ProjectionOptions { batch_events_max: 7, cache, ..ProjectionOptions::default() };
    let (log, clock) = (house.log.clone(), house.clock.clone());
    Projection::start(log, &house.genesis, Jars::new(), store.clone(), clock, options).await.unwrap()
}

/// A node, and a projection alone with its store, which has jar `a` with 3 in it.
async fn filled_with_three(cache: CacheOptions) -> (House, Node<Business>, Arc<dyn ReadStore>, Projection) {
    let house = House::new();
    let node = house.node().await;
    let store = new_store();
    let projection = alone(&house, &store, cache).await;
    decided(node.submit(asked(id(), add("a", 3))).await);
    projection.wait_for(&node.acknowledged_all(), LONG).await.unwrap();
    (house, node, store, projection)
}

/// A node that does not feed the store, and hears nothing of who does: its rows at hand follow the log.
fn beside(house: &House, store: &Arc<dyn ReadStore>, cache: CacheOptions) -> Projection {
    let options = ProjectionOptions { cache, ..ProjectionOptions::default() };
    let feeds = watch::channel(Arc::new(BTreeSet::new())).1;
    let progress = watch::channel(Arc::new(Progress::default())).1;
    let sharing = Sharing { feeds, progress, log_end: None };
    let (log, clock) = (house.log.clone(), house.clock.clone());
    Projection::start_shared(log, &house.genesis, Jars::new(), store.clone(), clock, sharing, options)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_is_loaded_once_and_follows_what_is_committed() {
    let house = House::new();
    let node = house.node().await;
    let store = new_store();
    let projection = alone(&house, &store, CacheOptions::default()).await;
    let loads = Loads::of(&store, &house);
    assert_eq!(filled(&find(&projection, &node, &loads, "a", Offset(0)).await), None);
    for amount in 1..=12 {
        decided(node.submit(asked(id(), add("a", amount))).await);
        let least = acknowledged(&node, "a");
        projection.wait_for(&node.acknowledged_all(), LONG).await.unwrap();
        let found = find(&projection, &node, &loads, "a", least).await;
        assert!(found.as_of >= least);
        assert_eq!(filled(&found), Some((1..=amount).sum()));
    }
    assert_eq!(loads.count(), 1, "even that it was absent was known, and then that it is not any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nodes_share_a_store_a_row_follows_the_log() {
    let house = House::new();
    let node = house.node().await;
    let store = new_store();
    let feeding = alone(&house, &store, CacheOptions::default()).await;
    let reading = beside(&house, &store, CacheOptions::default());
    let loads = Loads::of(&store, &house);
    decided(node.submit(asked(id(), add("a", 1))).await);
    feeding.wait_for(&node.acknowledged_all(), LONG).await.unwrap();
    // It may take a moment until the tail has begun: nothing is kept before.
    while reading.cache().at_hand(&key("a"), Offset(0)).is_none() {
        find(&reading, &node, &loads, "a", Offset(0)).await;
        tokio::task::yield_now().await;
    }
    let before = loads.count();
    feeding.stop().await;
    for amount in 2..=9 {
        decided(node.submit(asked(id(), add("a", amount))).await);
    }
    let least = acknowledged(&node, "a");
    // The store has none of it any more.
    let found = tokio::time::timeout(LONG, async {
        loop {
            if let Some(found) = reading.cache().at_hand(&key("a"), least) {
                return found;
            }
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(filled(&found.await.unwrap()), Some((1..=9).sum()));
    assert_eq!(loads.count(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_equal_reads_are_one_load() {
    let (house, node, store, projection) = filled_with_three(CacheOptions::default()).await;
    let loads = Loads::of(&store, &house);
    loads.hold();
    let reads = (0..1_000).map(|_| {
        let (projection, node, loads) = (projection.clone(), node.clone(), loads.clone());
        tokio::spawn(async move { filled(&find(&projection, &node, &loads, "a", Offset(0)).await) })
    });
    let reads = reads.collect::<Vec<_>>();
    while projection.cache().loading() == 0 {
        tokio::task::yield_now().await;
    }
    loads.let_go();
    for read in reads {
        assert_eq!(read.await.unwrap(), Some(3));
    }
    assert_eq!(loads.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waited_for_a_position_is_not_given_a_load_from_before_it() {
    let (house, node, store, projection) =
        filled_with_three(CacheOptions { bytes_max: 0, ..CacheOptions::default() }).await;
    let loads = Loads::of(&store, &house);
    loads.hold();
    let early = {
        let (projection, node, loads) = (projection.clone(), node.clone(), loads.clone());
        tokio::spawn(async move {
            let load = || loads.clone().load(key("a"));
            projection.cache().find(&key("a"), partition(&node, "a"), Offset(0), load).await
        })
    };
    while loads.count() == 0 {
        tokio::task::yield_now().await;
    }
    decided(node.submit(asked(id(), add("a", 4))).await);
    projection.wait_for(&node.acknowledged_all(), LONG).await.unwrap();
    let least = acknowledged(&node, "a");
    let late = {
        let (projection, node, loads) = (projection.clone(), node.clone(), loads.clone());
        tokio::spawn(async move { find(&projection, &node, &loads, "a", least).await })
    };
    tokio::task::yield_now().await;
    loads.let_go();
    // The early one read before or after the second event; the late one certainly after.
    drop(early.await.unwrap());
    let late = late.await.unwrap();
    assert!(late.as_of >= least);
    assert_eq!(filled(&late), Some(7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_after_all_was_made_void_is_not_given_a_load_from_before_it() {
    let (house, node, store, projection) = filled_with_three(CacheOptions::default()).await;
    let (loads, least) = (Loads::of(&store, &house), acknowledged(&node, "a"));
    loads.hold();
    let read = || {
        let (projection, node, loads) = (projection.clone(), node.clone(), loads.clone());
        tokio::spawn(async move { filled(&find(&projection, &node, &loads, "a", least).await) })
    };
    let early = read();
    while loads.read.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    // As when a stream that was set aside is folded on: the row is another one, and the checkpoint where it was.
    let row = store.load(vec![key("a")]).await.unwrap().remove(&key("a")).unwrap();
    let at = store.open(house.genesis.log).await.unwrap()[&partition(&node, "a")];
    let cured = Row { doc: json!({ "filled": 99 }).into(), ..row };
    let checkpoints = vec![(partition(&node, "a"), Some(at), at)];
    store.commit(Batch { rows: vec![(key("a"), Some(cured))], checkpoints, new: 0 }).await.unwrap();
    projection.cache().clear();
    let late = read();
    let begins = async {
        while loads.count() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, begins).await.expect("it waits for a load from before");
    loads.let_go();
    assert_eq!((early.await.unwrap(), late.await.unwrap()), (Some(3), Some(99)));
    assert_eq!(filled(&find(&projection, &node, &loads, "a", least).await), Some(99));
    assert_eq!(loads.count(), 2);
}

#[tokio::test]
async fn a_load_that_nobody_waits_for_is_given_up() {
    let house = House::new();
    let node = house.node().await;
    let store = new_store();
    let projection = alone(&house, &store, CacheOptions::default()).await;
    let loads = Loads::of(&store, &house);
    loads.hold();
    let read = {
        let (projection, node, loads) = (projection.clone(), node.clone(), loads.clone());
        tokio::spawn(async move { find(&projection, &node, &loads, "a", Offset(0)).await })
    };
    while loads.count() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(projection.cache().loading(), 1);
    read.abort();
    assert!(read.await.is_err());
    assert_eq!(projection.cache().loading(), 0);
    loads.let_go();
    assert_eq!(filled(&find(&projection, &node, &loads, "a", Offset(0)).await), None);
    assert_eq!(loads.count(), 2);
}

/// Many read and some write, with room for a few rows only: nobody ever sees less than was acknowledged when they came.
async fn nobody_sees_less(shared: bool) {
    const JARS: usize = 12;
    let house = House::new();
    let node = house.node().await;
    let store = new_store();
    let few = CacheOptions { bytes_max: 3_000, touched_max: 8, ..CacheOptions::default() };
    let feeding = alone(&house, &store, few.clone()).await;
    let projection = if shared { beside(&house, &store, few) } else { feeding.clone() };
    let over = Arc::new(AtomicBool::new(false));
    let added: Arc<Vec<AtomicU64>> = Arc::new((0..JARS).map(|_| AtomicU64::new(0)).collect());
    let readers = (0..6_usize).map(|reader| {
        let (node, feeding, projection, added) = (node.clone(), feeding.clone(), projection.clone(), added.clone());
        let (loads, over) = (Loads::of(&store, &house), over.clone());
        tokio::spawn(async move {
            let mut reads = 0_u64;
            let mut at = reader;
            while !over.load(Ordering::SeqCst) {
                at = (at * 5 + 3 + reader) % JARS;
                let name = at.to_string();
                let least_filled = added[at].load(Ordering::SeqCst);
                let least = acknowledged(&node, &name);
                feeding.wait_for(&node.acknowledged_all(), LONG).await.unwrap();
                let found = find(&projection, &node, &loads, &name, least).await;
                assert!(found.as_of >= least, "{} before {least}", found.as_of);
                assert!(filled(&found).unwrap_or(0) >= least_filled, "jar {name} of {least_filled}: {found:?}");
                reads += 1;
                if reads.is_multiple_of(50) {
                    projection.cache().clear();
                }
                tokio::task::yield_now().await;
            }
            reads
        })
    });
    let readers = readers.collect::<Vec<_>>();
    for round in 0..600_usize {
        let at = (round * 7) % JARS;
        decided(node.submit(asked(id(), add(&at.to_string(), 1))).await);
        added[at].fetch_add(1, Ordering::SeqCst);
    }
    over.store(true, Ordering::SeqCst);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_sees_less_than_was_acknowledged() {
    nobody_sees_less(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_sees_less_than_was_acknowledged_where_nodes_share_a_store() {
    nobody_sees_less(true).await;
}
