//! A small log and a small view, to see a projection at work on a real database: jars, and what was put in them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use engine::event::{ContentType, EncodedEvent, Event, Recorded, UnreadableEvent};
use engine::log::{Appender, Delivery, DeliverySink, Log};
use engine::memory::MemoryLog;
use engine::message::{CommandId, Fingerprint, Outcome, Provenance};
use engine::position::{Epoch, Nonce, Offset, Partition, Position, Positions, Seq, Version};
use engine::read_store::ReadStore;
use engine::record::{Body, Claim, Commit, FORMAT, Genesis, Header, Kind, PLACEMENT_RULE, Record, StreamEvents};
use engine::stream::{StreamName, Tenant, partition_of};
use engine::time::Timestamp;
use engine::view::{Row, RowKey, Table, View};
use engine_runtime::projection::{PARKED_TABLE, Projection, ProjectionOptions, Sharing};
use engine_runtime::system::SystemClock;
use engine_sql::{Options, ShareOptions, Shared, SqlReadStore};
use serde_json::json;
use uuid::Uuid;

use crate::kit::{LOG, ORDERS, Place};

pub(crate) const PARTITIONS: u16 = 4;
/// Longer than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// So much was put in. 13 cannot be borne.
#[derive(Clone, Debug)]
pub(crate) struct Put(pub(crate) u64);

impl Event for Put {
    fn encode(&self) -> EncodedEvent {
        let payload = Bytes::from(self.0.to_string());
        EncodedEvent { event_type: "Put".into(), schema_version: 1, content_type: ContentType::Json, payload }
    }
    fn decode(stored: &EncodedEvent) -> Result<Self, UnreadableEvent> {
        Ok(Self(std::str::from_utf8(&stored.payload).unwrap().parse().unwrap()))
    }
}

pub(crate) struct Jars;

impl View for Jars {
    type Event = Put;
    fn tables(&self) -> &'static [Table] {
        ORDERS
    }
    fn rows(&self, event: &Recorded<Put>) -> Vec<RowKey> {
        vec![RowKey { table: "orders", key: event.meta.stream.to_string() }]
    }
    fn begins(&self, _: &RowKey, event: &Recorded<Put>) -> bool {
        event.meta.version == Version(1)
    }
    fn evolve(&self, key: &RowKey, row: Option<Row>, event: &Recorded<Put>) -> Option<Row> {
        assert!(event.event.0 != 13, "thirteen");
        let before = row.map_or(0, |row| row.doc.value()["total"].as_u64().unwrap());
        let total = before + event.event.0;
        let columns = vec![json!("open"), json!(key.key), json!(total)];
        Some(Row { version: event.meta.version.0, doc: json!({ "total": total }).into(), columns })
    }
}

struct Nobody;

impl DeliverySink for Nobody {
    fn delivered(&self, _: Vec<Delivery>) {}
}

/// A log, its one writer, and what the rows must come to.
pub(crate) struct Shop {
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) genesis: Genesis,
    writers: Vec<Mutex<(Box<dyn Appender>, Seq)>>,
    jars: Mutex<BTreeMap<String, (u64, u64)>>,
}

impl Shop {
    pub(crate) fn new() -> Self {
        let genesis = Genesis {
            log: LOG,
            partitions: PARTITIONS,
            placement_rule: PLACEMENT_RULE,
            format: FORMAT,
            fingerprint_key: [0; 32],
            created_at: Timestamp(1),
        };
        let log = Arc::new(MemoryLog::new(genesis));
        let writers = (0..PARTITIONS).map(|at| {
            let mut appender = log.appender(Partition(at), Arc::new(Nobody));
            let header = Header { kind: Kind::Claim, epoch: Epoch(1), nonce: Nonce(7), seq: Seq(0) };
            let claim = Claim { node: "n".into(), address: "a".into(), claimed_at: Timestamp(1) };
            appender.append(0, Record::new(header, Body::Claim(claim)).encode());
            Mutex::new((appender, Seq(1)))
        });
        Self { writers: writers.collect(), log, genesis, jars: Mutex::default() }
    }

    /// Puts something into a jar; where that is in the log.
    pub(crate) fn put(&self, jar: &str, amount: u64) -> Position {
        let name = StreamName::new(&format!("jar-{jar}")).unwrap();
        let partition = partition_of(&Tenant::default(), &name, PARTITIONS);
        let mut jars = self.jars.lock().unwrap();
        let (version, total) = jars.entry(name.to_string()).or_default();
        *version += 1;
        *total += amount;
        let streams = vec![StreamEvents {
            name: name.clone(),
            first_version: Version(*version),
            events: vec![Put(amount).encode()],
        }];
        let commit = Commit {
            command_id: CommandId(Uuid::new_v4()),
            tenant: Tenant::default(),
            resource: name,
            resource_version: Version(*version),
            fingerprint: Fingerprint::default(),
            outcome: Outcome::default(),
            provenance: Provenance::default(),
            recorded_at: Timestamp(2),
            streams,
        };
        let mut writer = self.writers[usize::from(partition.0)].lock().unwrap();
        let header = Header { kind: Kind::Commit, epoch: Epoch(1), nonce: Nonce(7), seq: writer.1 };
        writer.1.0 += 1;
        writer.0.append(0, Record::new(header, Body::Commit(Box::new(commit))).encode());
        Position { partition, offset: Offset(self.log.end(partition).0 - 1) }
    }

    /// Puts 1 into each of so many jars, so many times.
    pub(crate) fn fill(&self, jars: u64, times: u64) {
        for time in 0..jars * times {
            self.put(&(time % jars).to_string(), 1);
        }
    }

    /// The ends of all partitions.
    pub(crate) fn all(&self) -> Positions {
        let mut positions = Positions::default();
        for partition in (0..PARTITIONS).map(Partition) {
            positions.reach(Position { partition, offset: Offset(self.log.end(partition).0 - 1) });
        }
        positions
    }

    /// A node with this store. Small batches: many commits for few events.
    pub(crate) fn node(&self, store: &Arc<SqlReadStore>, name: &str, lease: Duration) -> ShopNode {
        let share = ShareOptions { lease, ..ShareOptions::new(name, PARTITIONS) };
        self.node_with(store, share)
    }

    pub(crate) fn node_with(&self, store: &Arc<SqlReadStore>, share: ShareOptions) -> ShopNode {
        let shared = store.share(share).unwrap();
        let sharing = Sharing { feeds: shared.feeds(), progress: shared.progress(), log_end: None };
        ShopNode { projection: self.projection(store, sharing), shared }
    }

    /// A node that folds large batches.
    pub(crate) fn node_of_batches(&self, store: &Arc<SqlReadStore>, name: &str, events_max: usize) -> ShopNode {
        let shared = store.share(ShareOptions::new(name, PARTITIONS)).unwrap();
        let sharing = Sharing { feeds: shared.feeds(), progress: shared.progress(), log_end: None };
        ShopNode { projection: self.projection_of(store, sharing, events_max), shared }
    }

    pub(crate) fn projection(&self, store: &Arc<SqlReadStore>, sharing: Sharing) -> Projection {
        self.projection_of(store, sharing, 20)
    }

    fn projection_of(&self, store: &Arc<SqlReadStore>, sharing: Sharing, events_max: usize) -> Projection {
        let options = ProjectionOptions { batch_events_max: events_max, ..ProjectionOptions::default() };
        let store: Arc<dyn ReadStore> = store.clone();
        let clock = Arc::new(SystemClock);
        Projection::start_shared(self.log.clone(), &self.genesis, Arc::new(Jars), store, clock, sharing, options)
    }

    /// Rows are the fold of the log.
    pub(crate) async fn check(&self, store: &SqlReadStore) {
        let rows = store.list(crate::kit::all()).await.unwrap();
        let found = rows.iter().map(|(key, row)| (key.clone(), (row.version, total(row)))).collect::<BTreeMap<_, _>>();
        assert_eq!(found, *self.jars.lock().unwrap());
    }
}

fn total(row: &Row) -> u64 {
    row.doc.value()["total"].as_u64().unwrap()
}

pub(crate) struct ShopNode {
    pub(crate) projection: Projection,
    pub(crate) shared: Shared,
}

impl ShopNode {
    pub(crate) async fn wait(&self, positions: &Positions) {
        let waited = self.projection.wait_for(positions, LONG).await;
        waited.unwrap_or_else(|behind| panic!("{behind}, {:?}", self.projection.status()));
    }
}

/// A store with the tables of the shop.
pub(crate) async fn store(place: &Place) -> Arc<SqlReadStore> {
    store_with(place, Options::default()).await
}

pub(crate) async fn store_with(place: &Place, options: Options) -> Arc<SqlReadStore> {
    let tables = [ORDERS[0], PARKED_TABLE];
    Arc::new(place.store(&tables, Options { watched: &["parked"], ..options }).await.unwrap())
}
