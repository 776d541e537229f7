//! The store itself. Every operation runs in a task of its own, which nobody can drop half-way; who asked waits for it,
//! or goes away and it ends all the same. Before a task starts, it waits for a place (as many as connections): there a
//! caller may leave without a trace, so the tasks that nobody waits for are few.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use engine::position::{Checkpoint, LogId, Partition};
use engine::read_store::{Batch, Query, ReadStore, StoreFault, StoreFuture};
use engine::view::{Row, RowKey, Table};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::connection::sqlite::{SqliteDatabase, SqliteSession};
use crate::connection::{Access, Session};
use crate::dialect::sqlite::SqliteDialect;
use crate::tables::{Index, Tables, misused};
use crate::work;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// The version of the views' folds. To be raised when a view makes other rows of the same events: older rows and
    /// checkpoints are then dropped, and a store of a higher version is refused.
    pub view_version: u32,
    /// Indexes of tables whose lists filter by one column and sort by another.
    pub indexes: &'static [Index],
    /// Connections that read at once, 1 or more.
    pub readers: u32,
    /// Pages the writing connection caches, in KiB; a reading one caches half as many.
    pub cache_kib: u32,
    /// How long an operation waits for its turn before it is `Unavailable`.
    pub wait_max: Duration,
}

impl Default for Options {
    /// 4 readers: more than the cores of a small machine, so that a slow list does not hold up reads by key. 16 MiB: the
    /// inner pages of some millions of rows. 10 s: longer than any batch takes, shorter than a client waits.
    fn default() -> Self {
        Self { view_version: 1, indexes: &[], readers: 4, cache_kib: 16 * 1024, wait_max: Duration::from_secs(10) }
    }
}

/// What one state of the store holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot<T> {
    /// What was asked for.
    pub found: T,
    /// How far every partition had been folded when it was so.
    pub checkpoints: BTreeMap<Partition, Checkpoint>,
}

/// A read store on SQL.
#[derive(Debug)]
pub struct SqlReadStore {
    inner: Arc<Inner>,
    writes: Arc<Semaphore>,
    /// The same as `writes` where there is but one connection.
    reads: Arc<Semaphore>,
    wait_max: Duration,
}

#[derive(Debug)]
struct Inner {
    database: SqliteDatabase,
    dialect: SqliteDialect,
    tables: Tables,
    generation: i64,
}

impl SqlReadStore {
    /// Opens the store at `sqlite:PATH` or a plain path, made if it is missing, or `sqlite::memory:`, and makes its
    /// tables. If they were made from another specification or for lower views, they are dropped with all rows and
    /// checkpoints, to be folded anew.
    ///
    /// # Errors
    /// `TooNew` if a newer program, or one with newer views, wrote it; `Damaged` if it is no read store; `Misused` if the
    /// specification cannot be.
    pub async fn open(url_or_path: &str, tables: &[Table], options: Options) -> Result<Self, StoreFault> {
        let path = location(url_or_path)?;
        if options.readers == 0 {
            return Err(misused("a store needs a reader".to_owned()));
        }
        let dialect = SqliteDialect;
        let tables = Tables::new(tables, options.indexes, options.view_version, &dialect)?;
        let wait_max = options.wait_max;
        let opening = tokio::spawn(async move {
            let database = SqliteDatabase::open(path, &options).await?;
            let writes = Arc::new(Semaphore::new(1));
            let reads =
                database.readers(&options).map_or_else(|| writes.clone(), |n| Arc::new(Semaphore::new(n as usize)));
            let existing = database.tables().await?;
            let mut session = database.begin(Access::Write).await?;
            let made = work::make_tables(&mut session, &tables, &existing, &dialect).await;
            let generation = settle(session, made).await?;
            Ok(Self { inner: Arc::new(Inner { database, dialect, tables, generation }), writes, reads, wait_max })
        });
        ended(opening).await
    }

    /// The rows that exist among these, and the checkpoints of the same state: what a read needs that must not be older
    /// than some position.
    ///
    /// # Errors
    /// As for `load`.
    pub async fn load_with_checkpoints(
        &self,
        keys: Vec<RowKey>,
    ) -> Result<Snapshot<BTreeMap<RowKey, Row>>, StoreFault> {
        self.run(&self.reads, |inner| async move {
            let mut session = inner.database.begin(Access::Snapshot).await?;
            let done = async {
                let checkpoints = work::checkpoints(&mut session).await?;
                let found = work::load(&mut session, keys, &inner.tables, &inner.dialect).await?;
                Ok(Snapshot { found, checkpoints })
            };
            let done = done.await;
            settle(session, done).await
        })
        .await
    }

    /// Finds rows, with the checkpoints of the same state.
    ///
    /// # Errors
    /// As for `list`.
    pub async fn list_with_checkpoints(&self, query: Query) -> Result<Snapshot<Vec<(String, Row)>>, StoreFault> {
        self.run(&self.reads, |inner| async move {
            let mut session = inner.database.begin(Access::Snapshot).await?;
            let done = async {
                let checkpoints = work::checkpoints(&mut session).await?;
                let found = work::list(&mut session, &query, &inner.tables, &inner.dialect).await?;
                Ok(Snapshot { found, checkpoints })
            };
            let done = done.await;
            settle(session, done).await
        })
        .await
    }

    /// How many rows of a table have each value of a column: for metrics, not for pages. Reads the column's whole index.
    ///
    /// # Errors
    /// As for `list`.
    pub async fn count_by(&self, table: &'static str, column: &'static str) -> Result<Vec<(Value, u64)>, StoreFault> {
        self.run(&self.reads, move |inner| async move {
            let mut session = inner.database.begin(Access::Read).await?;
            let done = work::count_by(&mut session, table, column, &inner.tables).await;
            settle(session, done).await
        })
        .await
    }

    /// Waits for what is under way and closes the store; afterwards everything is `Unavailable`.
    pub async fn close(&self) {
        self.inner.database.close().await;
    }

    /// Runs an operation where nobody can drop it.
    async fn run<T, F, Operation>(&self, places: &Arc<Semaphore>, operation: F) -> Result<T, StoreFault>
    where
        T: Send + 'static,
        F: FnOnce(Arc<Inner>) -> Operation,
        Operation: Future<Output = Result<T, StoreFault>> + Send + 'static,
    {
        let place = tokio::time::timeout(self.wait_max, places.clone().acquire_owned()).await;
        let place = place.map_err(unavailable)?.map_err(unavailable)?;
        let operation = operation(self.inner.clone());
        ended(tokio::spawn(async move {
            let done = operation.await;
            drop(place);
            done
        }))
        .await
    }
}

impl ReadStore for SqlReadStore {
    fn open(&self, log: LogId) -> StoreFuture<'_, BTreeMap<Partition, Checkpoint>> {
        Box::pin(self.run(&self.writes, move |inner| async move {
            let mut session = inner.database.begin(Access::Write).await?;
            let done = work::open(&mut session, log).await;
            settle(session, done).await
        }))
    }

    fn load(&self, keys: Vec<RowKey>) -> StoreFuture<'_, BTreeMap<RowKey, Row>> {
        Box::pin(self.run(&self.reads, move |inner| async move {
            // One key is one statement, and sees one state without a transaction.
            let access = if keys.len() == 1 { Access::Read } else { Access::Snapshot };
            let mut session = inner.database.begin(access).await?;
            let done = work::load(&mut session, keys, &inner.tables, &inner.dialect).await;
            settle(session, done).await
        }))
    }

    fn commit(&self, batch: Batch) -> StoreFuture<'_, ()> {
        Box::pin(self.run(&self.writes, move |inner| async move {
            let mut session = inner.database.begin(Access::Write).await?;
            let done = work::commit(&mut session, batch, &inner.tables, inner.generation, &inner.dialect).await;
            settle(session, done).await
        }))
    }

    fn list(&self, query: Query) -> StoreFuture<'_, Vec<(String, Row)>> {
        Box::pin(self.run(&self.reads, move |inner| async move {
            // A page that continues may take two statements.
            let access = if query.after.is_none() { Access::Read } else { Access::Snapshot };
            let mut session = inner.database.begin(access).await?;
            let done = work::list(&mut session, &query, &inner.tables, &inner.dialect).await;
            settle(session, done).await
        }))
    }
}

/// Ends a transaction as its work ended. A rollback that fails is no news: the connection rolls back when it is given
/// back, or is closed.
async fn settle<T>(session: SqliteSession<'_>, done: Result<T, StoreFault>) -> Result<T, StoreFault> {
    match done {
        Ok(done) => session.commit().await.map(|()| done),
        Err(fault) => {
            let _ = session.rollback().await;
            Err(fault)
        }
    }
}

/// Waits for a task. One that panicked panics here; one that died with its runtime did not answer.
async fn ended<T>(task: tokio::task::JoinHandle<Result<T, StoreFault>>) -> Result<T, StoreFault> {
    match task.await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(unavailable(error)),
    }
}

fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> StoreFault {
    StoreFault::Unavailable(Box::new(error))
}

/// The file that is meant, or `None` for memory.
fn location(url_or_path: &str) -> Result<Option<PathBuf>, StoreFault> {
    // The part after the scheme is a path as it stands: nothing in it is escaped.
    let path = match url_or_path.split_once(':') {
        Some(("sqlite", rest)) => rest.strip_prefix("//").unwrap_or(rest),
        Some(("postgres" | "postgresql", _)) => {
            return Err(misused("this program keeps read stores in SQLite only".to_owned()));
        }
        _ => url_or_path,
    };
    match path {
        "" => Err(misused("a read store needs a path".to_owned())),
        ":memory:" => Ok(None),
        path => Ok(Some(PathBuf::from(path))),
    }
}
