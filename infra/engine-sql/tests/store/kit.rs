//! Small words for the tests: a place for a file, an order, a batch, a checkpoint.

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;

use engine::position::{Checkpoint, Epoch, LogId, Nonce, Offset, Partition, Seq};
use engine::read_store::{Batch, Query, ReadStore, StoreFault};
use engine::view::{Column, ColumnKind, Row, RowKey, Table};
use engine_sql::{Options, SqlReadStore};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use uuid::Uuid;
use xtask::postgres::Postgres;

pub(crate) const P0: Partition = Partition(0);
pub(crate) const LOG: LogId = LogId(Uuid::from_u128(1));
pub(crate) const OTHER_LOG: LogId = LogId(Uuid::from_u128(2));

pub(crate) const ORDERS: &[Table] = &[Table {
    name: "orders",
    columns: &[
        Column { name: "status", kind: ColumnKind::Text },
        Column { name: "customer", kind: ColumnKind::Text },
        Column { name: "placed_at", kind: ColumnKind::Integer },
    ],
}];

/// A directory for a store's file, or a schema for its tables.
pub(crate) enum Place {
    File(tempfile::TempDir),
    Postgres { url: String, schema: String },
}

/// The server that all tests of this process share; it ends with the process. `None` where there is no PostgreSQL.
pub(crate) fn server() -> Option<&'static Postgres> {
    static SERVER: OnceLock<Option<Postgres>> = OnceLock::new();
    let server = SERVER.get_or_init(|| match xtask::postgres::missing() {
        Some(missing) => {
            println!("SKIPPED: {missing}");
            None
        }
        None => Some(Postgres::start()),
    });
    server.as_ref()
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::File(tempfile::tempdir().unwrap())
    }

    /// A schema of its own in the shared server.
    pub(crate) fn postgres() -> Option<Self> {
        server().map(|server| Self::postgres_at(&server.url()))
    }

    pub(crate) fn postgres_at(url: &str) -> Self {
        static SCHEMAS: AtomicU32 = AtomicU32::new(0);
        let schema = format!("docket_{}", SCHEMAS.fetch_add(1, Ordering::Relaxed));
        // Named after its schema, so that a test can tell its own connections.
        Self::Postgres { url: format!("{url}?schema={schema}&application_name={schema}"), schema }
    }

    /// One of each kind.
    pub(crate) fn each() -> Vec<Self> {
        [Some(Self::new()), Self::postgres()].into_iter().flatten().collect()
    }

    pub(crate) fn path(&self) -> PathBuf {
        let Self::File(directory) = self else { panic!("only a file has a path") };
        directory.path().join("read.sqlite")
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::File(_) => format!("sqlite:{}", self.path().display()),
            Self::Postgres { url, .. } => url.clone(),
        }
    }

    pub(crate) async fn store(&self, tables: &[Table], options: Options) -> Result<SqlReadStore, StoreFault> {
        SqlReadStore::open(&self.url(), tables, options).await
    }

    /// A store of orders, bound to `LOG`.
    pub(crate) async fn open(&self) -> SqlReadStore {
        let store = self.store(ORDERS, Options::default()).await.unwrap();
        store.open(LOG).await.unwrap();
        store
    }

    /// What makes a store unusable to this program.
    pub(crate) fn far_too_new(&self) -> &'static str {
        match self {
            Self::File(_) => "UPDATE meta SET format = 99",
            Self::Postgres { .. } => "UPDATE meta SET format = 99, usable_from = 99",
        }
    }

    /// Does to the database what the store would not.
    pub(crate) async fn alter(&self, statement: &str) {
        match self {
            Self::File(_) => {
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(self.path()).create_if_missing(true);
                let mut connection = options.connect().await.unwrap();
                sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
            Self::Postgres { schema, .. } => {
                let mut connection = self.connection().await;
                let statement =
                    format!("CREATE SCHEMA IF NOT EXISTS {schema}; SET search_path TO {schema}; {statement}");
                sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
        }
    }

    /// A connection to the server that is not the store's.
    pub(crate) async fn connection(&self) -> sqlx::PgConnection {
        let Self::Postgres { url, .. } = self else { panic!("a file has no server") };
        let (url, _) = url.split_once('?').unwrap();
        sqlx::PgConnection::connect(url).await.unwrap()
    }
}

/// A store in memory, bound to `LOG`.
pub(crate) async fn memory(tables: &[Table]) -> SqlReadStore {
    let store = SqlReadStore::open("sqlite::memory:", tables, Options::default()).await.unwrap();
    store.open(LOG).await.unwrap();
    store
}

pub(crate) fn order(status: &str, version: u64) -> Row {
    let columns = vec![json!(status), Value::Null, json!(version)];
    Row { version, doc: json!({ "status": status, "version": version }).into(), columns }
}

pub(crate) fn key(key: &str) -> RowKey {
    RowKey { table: "orders", key: key.to_owned() }
}

/// Its nonce does not fit a signed number.
pub(crate) fn checkpoint(offset: u64) -> Checkpoint {
    let nonce = Nonce(u64::MAX - 1);
    Checkpoint { next_offset: Offset(offset), epoch: Epoch(3), nonce, next_seq: Seq(offset), open: true }
}

/// A batch of partition 0.
pub(crate) fn batch<'a>(
    rows: impl IntoIterator<Item = (&'a str, Option<Row>)>,
    was: Option<Checkpoint>,
    next: Checkpoint,
) -> Batch {
    let rows = rows.into_iter().map(|(name, row)| (key(name), row)).collect();
    Batch { rows, checkpoints: vec![(P0, was, next)], new: 0 }
}

/// All orders, by key.
pub(crate) fn all() -> Query {
    Query { table: "orders", filters: vec![], sort: None, descending: false, after: None, limit: 100_000 }
}

pub(crate) fn keys(rows: &[(String, Row)]) -> Vec<&str> {
    rows.iter().map(|(key, _)| key.as_str()).collect()
}

pub(crate) async fn load<'a>(store: &SqlReadStore, names: impl IntoIterator<Item = &'a str>) -> Vec<(String, Row)> {
    let found = store.load(names.into_iter().map(key).collect()).await.unwrap();
    found.into_iter().map(|(key, row)| (key.key, row)).collect()
}

/// Polls so often at most, then drops; what was asked for may or may not have come to be.
pub(crate) async fn dropped_after<T>(polls: u64, future: impl Future<Output = T>) {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        let done = future.as_mut().poll(context).map(|_| ());
        if done.is_pending() {
            // Look again without being woken: a caller leaves when it likes.
            context.waker().wake_by_ref();
        }
        done
    })
    .await;
}
