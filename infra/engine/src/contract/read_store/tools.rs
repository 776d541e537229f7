//! Short ways to write rows and to ask for them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use super::StoreFixture;
use crate::position::{Checkpoint, Epoch, LogId, Nonce, Offset, Partition, Seq};
use crate::read_store::{Batch, Filter, Query, StoreFault};
use crate::view::{Row, RowKey};

/// The log that stores of these cases belong to.
pub(super) const LOG: LogId = LogId(Uuid::from_u128(0x5eed));

pub(super) fn kettle_key(key: &str) -> RowKey {
    RowKey { table: "kettles", key: key.to_owned() }
}

/// A kettle of this colour and volume; the document names both.
pub(super) fn kettle(colour: impl Into<Value>, litres: impl Into<Value>, boiled_at: impl Into<Value>) -> Row {
    let (colour, litres, boiled_at) = (colour.into(), litres.into(), boiled_at.into());
    let doc = json!({ "colour": colour, "litres": litres, "boiled_at": boiled_at });
    Row { version: 1, doc: doc.into(), columns: vec![colour, litres, boiled_at] }
}

pub(super) fn checkpoint(next_offset: u64) -> Checkpoint {
    Checkpoint {
        next_offset: Offset(next_offset),
        epoch: Epoch(1),
        nonce: Nonce(u64::MAX),
        next_seq: Seq(9),
        open: true,
    }
}

/// Everything of a table, by key.
pub(super) fn everything(table: &'static str) -> Query {
    Query { table, filters: Vec::new(), sort: None, descending: false, after: None, limit: 10_000 }
}

pub(super) fn kettles_where(filters: Vec<Filter>) -> Query {
    Query { filters, ..everything("kettles") }
}

impl StoreFixture {
    /// Opens the store for [`LOG`].
    pub(super) async fn open(&self) -> BTreeMap<Partition, Checkpoint> {
        self.store.open(LOG).await.expect("the store opens")
    }

    /// An opened store that holds these kettles.
    pub(super) async fn holding(self, kettles: &[(&str, Row)]) -> Self {
        self.open().await;
        self.put(kettles).await;
        self
    }

    pub(super) async fn put(&self, kettles: &[(&str, Row)]) {
        let rows = kettles.iter().map(|(key, row)| (kettle_key(key), Some(row.clone()))).collect();
        self.write(rows).await;
    }

    pub(super) async fn write(&self, rows: Vec<(RowKey, Option<Row>)>) {
        self.store.commit(Batch { rows, ..Batch::default() }).await.expect("the rows are written");
    }

    /// Moves the checkpoint of a partition.
    pub(super) async fn advance(&self, partition: u16, from: Option<u64>, to: u64) -> Result<(), StoreFault> {
        let moved = (Partition(partition), from.map(checkpoint), checkpoint(to));
        self.store.commit(Batch { checkpoints: vec![moved], ..Batch::default() }).await
    }

    pub(super) async fn kettle(&self, key: &str) -> Option<Row> {
        self.store.load(vec![kettle_key(key)]).await.expect("rows load").remove(&kettle_key(key))
    }

    pub(super) async fn list(&self, query: Query) -> Vec<(String, Row)> {
        self.store.list(query).await.expect("rows are listed")
    }

    /// The keys that a question finds, in its order.
    pub(super) async fn keys(&self, query: Query) -> Vec<String> {
        self.list(query).await.into_iter().map(|(key, _)| key).collect()
    }

    /// Closed and made again; `None` if this store does not outlive being closed.
    pub(super) async fn reopened(mut self) -> Option<Self> {
        let reopen = self.reopen.as_ref()?;
        self.store = reopen(self.store).await;
        Some(self)
    }
}
