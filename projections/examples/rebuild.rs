//! W4, the rebuild: how fast is a history of orders folded into an empty read store? From a log in memory, so that only
//! the projection and the store are seen: into a store that forgets, into SQLite in a file, and into PostgreSQL (a server
//! of its own; skipped where there is none).
//!
//! `cargo run --release -p projections --example rebuild [events]`

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on says why and ends")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::event::Event;
use engine::log::{Appender, Delivery, DeliverySink, Log};
use engine::memory::MemoryLog;
use engine::message::{CommandId, Fingerprint, Outcome, Provenance};
use engine::position::{Checkpoint, Epoch, LogId, Nonce, Offset, Partition, Position, Positions, Seq, Version};
use engine::read_store::{Batch, Query, ReadStore, StoreFuture};
use engine::record::{Body, Claim, Commit, FORMAT, Genesis, Header, Kind, PLACEMENT_RULE, Record, StreamEvents};
use engine::stream::{Tenant, partition_of};
use engine::time::Timestamp;
use engine::view::{Row, RowKey};
use engine_runtime::projection::Projection;
use engine_runtime::system::SystemClock;
use projections::Part;
use schemas::event::ShopEvent;
use schemas::event::order::{Line, OrderPlaced, total_of};
use schemas::id::{CustomerId, LocationId, OrderId, Sku};
use schemas::money::Money;
use uuid::Uuid;

const PARTITIONS: u16 = 12;
/// Longer than any rebuild that is worth measuring.
const LONG: Duration = Duration::from_secs(600);

#[tokio::main]
async fn main() {
    let events = std::env::args().nth(1).map_or(200_000, |events| events.parse().unwrap());
    let only = std::env::args().nth(2);
    let history = History::new(events);
    let tell = |what: &str, took: Duration| {
        println!("{what:<28} {:>9.0} events/s", events as f64 / took.as_secs_f64());
    };
    let wanted = |what: &str| only.as_deref().is_none_or(|only| only == what);
    if wanted("forgets") {
        tell("into a store that forgets", history.alone(Arc::new(Forgets)).await);
    }
    if wanted("sqlite") {
        let directory = tempfile::tempdir().unwrap();
        let store = projections::open(&directory.path().join("views.db").display().to_string()).await.unwrap();
        tell("into SQLite", history.alone(Arc::new(store)).await);
    }
    if wanted("postgres") {
        if let Some(missing) = xtask::postgres::missing() {
            println!("SKIPPED: {missing}");
            return;
        }
        let postgres = xtask::postgres::Postgres::start();
        let store = Arc::new(projections::open(&postgres.new_database()).await.unwrap());
        let (log, clock) = (history.log.clone(), Arc::new(SystemClock));
        let began = Instant::now();
        let part = Part::new("one");
        let (projection, shared) = projections::follow(log, &history.genesis, store, clock, part).await.unwrap();
        projection.wait_for(&history.end, LONG).await.unwrap();
        tell("into PostgreSQL, one node", began.elapsed());
        projection.stop().await;
        shared.unwrap().release().await;
    }
}

struct History {
    log: Arc<MemoryLog>,
    genesis: Genesis,
    end: Positions,
}

impl History {
    /// So many orders of three lines.
    fn new(events: u64) -> Self {
        let genesis = Genesis {
            log: LogId(Uuid::from_u128(1)),
            partitions: PARTITIONS,
            placement_rule: PLACEMENT_RULE,
            format: FORMAT,
            fingerprint_key: [0; 32],
            created_at: Timestamp(1),
        };
        let log = Arc::new(MemoryLog::new(genesis));
        let writers = (0..PARTITIONS).map(|at| Writer::new(log.appender(Partition(at), Arc::new(Nobody))));
        let mut writers = writers.collect::<Vec<_>>();
        let skus = (0..100).map(|number| Sku::new(&format!("sku-{number:04}")).unwrap()).collect::<Vec<_>>();
        let (customer_id, location_id) = (CustomerId::new("benches").unwrap(), LocationId::new("benches-0").unwrap());
        for number in 0..events {
            let order_id = OrderId(Uuid::now_v7());
            let lines = (0..3).map(|line| Line {
                sku: skus[(number as usize * 7 + line * 31) % skus.len()].clone(),
                quantity: 1 + line as u32,
                unit_price: Money::new(1_999, "EUR".parse().unwrap()),
                location_id: location_id.clone(),
            });
            let lines = lines.collect::<Vec<_>>();
            let total = total_of(lines.iter().map(|line| (line.quantity, line.unit_price))).unwrap();
            let (customer_id, location_id) = (customer_id.clone(), location_id.clone());
            let event = ShopEvent::from(OrderPlaced { order_id, customer_id, location_id, lines, total });
            let stream = order_id.stream();
            let at = partition_of(&Tenant::default(), &stream, PARTITIONS);
            let commit = Commit {
                command_id: CommandId(order_id.0),
                tenant: Tenant::default(),
                resource: stream.clone(),
                resource_version: Version(1),
                fingerprint: Fingerprint::default(),
                outcome: Outcome::default(),
                provenance: Provenance::default(),
                recorded_at: Timestamp(1_700_000_000_000_000 + number as i64),
                streams: vec![StreamEvents { name: stream, first_version: Version(1), events: vec![event.encode()] }],
            };
            writers[usize::from(at.0)].write(Kind::Commit, Body::Commit(Box::new(commit)));
        }
        let mut end = Positions::default();
        for partition in (0..PARTITIONS).map(Partition) {
            end.reach(Position { partition, offset: Offset(log.end(partition).0 - 1) });
        }
        Self { log, genesis, end }
    }

    /// Into a store that is this node's alone.
    async fn alone(&self, store: Arc<dyn ReadStore>) -> Duration {
        let began = Instant::now();
        let (log, clock) = (self.log.clone(), Arc::new(SystemClock));
        let projection: Projection = projections::start(log, &self.genesis, store, clock).await.unwrap();
        projection.wait_for(&self.end, LONG).await.unwrap();
        let took = began.elapsed();
        projection.stop().await;
        took
    }
}

struct Writer {
    appender: Box<dyn Appender>,
    seq: u64,
}

impl Writer {
    fn new(appender: Box<dyn Appender>) -> Self {
        let mut writer = Self { appender, seq: 0 };
        let claim = Claim { node: "n".into(), address: "a".into(), claimed_at: Timestamp(1) };
        writer.write(Kind::Claim, Body::Claim(claim));
        writer
    }

    fn write(&mut self, kind: Kind, body: Body) {
        let header = Header { kind, epoch: Epoch(1), nonce: Nonce(7), seq: Seq(self.seq) };
        self.seq += 1;
        self.appender.append(0, Record::new(header, body).encode());
    }
}

struct Nobody;

impl DeliverySink for Nobody {
    fn delivered(&self, _: Vec<Delivery>) {}
}

/// Takes everything and keeps nothing.
struct Forgets;

impl ReadStore for Forgets {
    fn open(&self, _: LogId) -> StoreFuture<'_, BTreeMap<Partition, Checkpoint>> {
        Box::pin(async { Ok(BTreeMap::new()) })
    }

    fn load(&self, _: Vec<RowKey>) -> StoreFuture<'_, BTreeMap<RowKey, Row>> {
        Box::pin(async { Ok(BTreeMap::new()) })
    }

    fn commit(&self, _: Batch) -> StoreFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn list(&self, _: Query) -> StoreFuture<'_, Vec<(String, Row)>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}
