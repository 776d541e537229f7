//! SQLite through sqlx: one connection that writes and a few that read, each seeing the state of when it began. In
//! memory there is one connection for both, since a second one would see another database.
//!
//! Write-ahead log and `synchronous = NORMAL`: a commit is not synced, so a power cut may take the last ones back, rows
//! and checkpoint together; the log still has what they were folded from. A file that is folded from nothing does without
//! even that, see `filling`.

mod filling;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engine::read_store::StoreFault;
use engine::view::ColumnKind;
use serde_json::Value;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteRow, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, Connection, Row as _, SqlSafeStr as _, Sqlite, Transaction};
use tokio::sync::Mutex;

use self::filling::Mark;
use super::{Access, Bind, Session, Statement};
use crate::store::Options;

/// Each with its number, in order. Read at build time without sqlx's macro: that would build sqlx, SQLite and TLS twice.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "bookkeeping", include_str!("../../migrations/sqlite/0001_bookkeeping.sql")),
    (2, "two sets", include_str!("../../migrations/sqlite/0002_two_sets.sql")),
];
/// The number of the last of them.
const FORMAT: i64 = 2;

/// 0: pages that a connection maps count as its process's memory, in full for each connection, and stay. What a mapping
/// saves in copies is less than can be measured.
const MMAP_BYTES: &str = "0";
/// 4,000 pages, 16 MiB: a page that is written again and again is moved from the write-ahead log into the file once for
/// all of them.
const CHECKPOINT_PAGES: &str = "4000";
/// 64 MiB: what the write-ahead log is cut back to after a long read made it grow.
const WAL_BYTES_MAX: &str = "67108864";
/// 128 statements kept prepared by each connection; a list's shape is one.
const STATEMENTS_MAX: usize = 128;

/// A database in SQLite.
#[derive(Debug)]
pub(crate) struct SqliteDatabase {
    writer: SqlitePool,
    reader: SqlitePool,
    /// Its path, for people.
    shown: String,
    /// `None` in memory.
    path: Option<PathBuf>,
    /// How the writer connects to a file.
    connect: Box<SqliteConnectOptions>,
    /// While it is filled from nothing: then the writer's connection is the only one, as in memory.
    filling: Mutex<Option<Mark>>,
    is_filling: AtomicBool,
    /// Something failed while it was filled, and what a rollback left is to be looked at.
    is_doubtful: AtomicBool,
}

impl SqliteDatabase {
    /// Opens the file (`None`: memory), makes it if it is missing, and brings its bookkeeping tables up to date.
    pub(crate) async fn open(path: Option<PathBuf>, options: &Options) -> Result<Self, StoreFault> {
        let shown = path.as_deref().map_or_else(|| "memory".to_owned(), |path| path.display().to_string());
        if let Some(path) = path.clone()
            && blocking(move || filling::clear(&path)).await?
        {
            tracing::warn!(path = %shown, "the read store was left unfinished: it is folded from the log again");
        }
        let connect = |cache_kib: u32| {
            let connect = SqliteConnectOptions::new()
                .create_if_missing(true)
                .foreign_keys(true)
                .synchronous(SqliteSynchronous::Normal)
                .busy_timeout(options.wait_max)
                .statement_cache_capacity(STATEMENTS_MAX)
                .pragma("cache_size", format!("-{cache_kib}"))
                .pragma("mmap_size", MMAP_BYTES)
                .pragma("journal_size_limit", WAL_BYTES_MAX)
                .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
                .pragma("temp_store", "MEMORY");
            match &path {
                Some(path) => connect.filename(plain(path)).journal_mode(SqliteJournalMode::Wal),
                None => connect.filename(":memory:"),
            }
        };
        let writing = connect(options.cache_kib);
        // One that stays: in memory it is the database.
        let writer = pool(1, options.wait_max).min_connections(1).connect_with(writing.clone()).await;
        let writer = writer.map_err(|error| fault(error, &shown))?;
        prepare(&writer, &shown).await?;
        let reader = match path {
            None => writer.clone(),
            Some(_) => pool(options.readers, options.wait_max)
                .connect_lazy_with(connect(options.cache_kib / 2).pragma("query_only", "ON")),
        };
        let (filling, is_filling, is_doubtful) = (Mutex::new(None), AtomicBool::new(false), AtomicBool::new(false));
        Ok(Self { writer, reader, shown, path, connect: Box::new(writing), filling, is_filling, is_doubtful })
    }

    /// From here to [`SqliteDatabase::filled`] what is committed is safe from nothing but a rollback, and a process that
    /// ends in between begins again. To be called before anybody reads, of a file that nobody else has open.
    pub(crate) async fn begin_filling(&self) -> Result<(), StoreFault> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        let mut filling = self.filling.lock().await;
        let mark = blocking(move || Mark::set(&path)).await?;
        let unsafe_yet = SqliteConnectOptions::clone(&self.connect).journal_mode(SqliteJournalMode::Memory);
        self.writer.set_connect_options(unsafe_yet.synchronous(SqliteSynchronous::Off));
        *filling = Some(mark);
        self.is_filling.store(true, Ordering::Release);
        match self.journal("memory", "OFF").await {
            Ok(()) => Ok(()),
            Err(fault) => {
                tracing::info!(error = %fault, "somebody else has the read store open: it is filled as it is always written");
                self.write_as_always(&mut filling).await
            }
        }
    }

    /// Makes what it was filled with durable; from here on it is written as always. Nothing to do if it is so already.
    pub(crate) async fn filled(&self) -> Result<(), StoreFault> {
        let mut filling = self.filling.lock().await;
        if filling.is_none() {
            return Ok(());
        }
        if self.is_doubtful.load(Ordering::Acquire) {
            let found = sqlx::query_scalar::<_, String>("PRAGMA quick_check(1)").fetch_one(&self.writer).await;
            let found = found.map_err(|error| fault(error, &self.shown))?;
            if found != "ok" {
                return Err(damaged(&self.shown, &found));
            }
        }
        self.write_as_always(&mut filling).await
    }

    async fn write_as_always(&self, filling: &mut Option<Mark>) -> Result<(), StoreFault> {
        // FULL: the change of mode is a transaction of the old kind, and with it all before is synced.
        self.journal("wal", "FULL").await?;
        self.writer.set_connect_options(SqliteConnectOptions::clone(&self.connect));
        let normal = sqlx::query("PRAGMA synchronous = NORMAL").execute(&self.writer).await;
        normal.map_err(|error| fault(error, &self.shown))?;
        if let Some(mark) = filling.take() {
            // Should the mark stay, the file is folded once more.
            blocking(move || mark.lift()).await?;
        }
        self.is_filling.store(false, Ordering::Release);
        Ok(())
    }

    /// Changes how the writing connection keeps its transactions and how it syncs.
    async fn journal(&self, mode: &str, synchronous: &str) -> Result<(), StoreFault> {
        let failed = |error| fault(error, &self.shown);
        let mut connection = self.writer.acquire().await.map_err(failed)?;
        let text = AssertSqlSafe(format!("PRAGMA synchronous = {synchronous}"));
        sqlx::query(text).execute(&mut *connection).await.map_err(failed)?;
        let text = AssertSqlSafe(format!("PRAGMA journal_mode = {mode}"));
        let is = sqlx::query_scalar::<_, String>(text).fetch_one(&mut *connection).await.map_err(failed)?;
        if is == mode {
            return Ok(());
        }
        let why = format!("{}: its journal is to be {mode} and stays {is}: is it open elsewhere?", self.shown);
        Err(StoreFault::Unavailable(why.into()))
    }

    /// How many read at once; none in memory, where readers wait for the writer's connection.
    pub(crate) fn readers(&self, options: &Options) -> Option<u32> {
        self.path.is_some().then_some(options.readers)
    }

    /// The tables that exist.
    pub(crate) async fn tables(&self) -> Result<Vec<String>, StoreFault> {
        tables(&self.writer).await.map_err(|error| fault(error, &self.shown))
    }

    /// Begins.
    pub(crate) async fn begin(&self, access: Access) -> Result<SqliteSession<'_>, StoreFault> {
        let reader = if self.is_filling.load(Ordering::Acquire) { &self.writer } else { &self.reader };
        let connection = match access {
            Access::Read => reader.acquire().await.map(Open::Connection),
            Access::Snapshot => reader.begin().await.map(Open::Transaction),
            // IMMEDIATE: a transaction that reads first and writes later is refused if another wrote in between.
            Access::Write => self.writer.begin_with("BEGIN IMMEDIATE").await.map(Open::Transaction),
        };
        let connection = connection.map_err(|error| fault(error, &self.shown))?;
        Ok(SqliteSession { connection, database: self })
    }

    /// Whether what the writing connection sorts may lie in files: the rows of a whole table do not fit in memory. Not
    /// while it is in a transaction.
    pub(crate) async fn sort_in_files(&self, files: bool) -> Result<(), StoreFault> {
        let pragma = if files { "PRAGMA temp_store = FILE" } else { "PRAGMA temp_store = MEMORY" };
        let done = sqlx::query(pragma).execute(&self.writer).await;
        done.map(|_| ()).map_err(|error| fault(error, &self.shown))
    }

    /// What it means for whoever asked that a transaction failed.
    fn failed(&self, error: sqlx::Error) -> StoreFault {
        self.is_doubtful.store(true, Ordering::Release);
        fault(error, &self.shown)
    }

    /// Waits for what is under way, then moves the write-ahead log into the file and lets go of it.
    pub(crate) async fn close(&self) {
        if let Err(error) = self.filled().await {
            tracing::warn!(%error, "the read store is left unfinished, and will be folded from the log again");
        }
        self.reader.close().await;
        self.writer.close().await;
    }
}

/// A transaction, or the connection alone.
pub(crate) struct SqliteSession<'a> {
    connection: Open,
    database: &'a SqliteDatabase,
}

enum Open {
    Connection(PoolConnection<Sqlite>),
    Transaction(Transaction<'static, Sqlite>),
}

impl Open {
    fn get(&mut self) -> &mut SqliteConnection {
        match self {
            Self::Connection(connection) => connection,
            Self::Transaction(transaction) => transaction,
        }
    }
}

impl Session for SqliteSession<'_> {
    async fn execute(&mut self, statement: Statement) -> Result<u64, StoreFault> {
        let done = query(statement).execute(self.connection.get()).await;
        Ok(done.map_err(|error| self.database.failed(error))?.rows_affected())
    }

    async fn copy(&mut self, _: Arc<str>, _: impl Iterator<Item = Vec<u8>> + Send) -> Result<(), StoreFault> {
        unreachable!("only the dialect of PostgreSQL copies")
    }

    async fn fetch(&mut self, statement: Statement, kinds: &[ColumnKind]) -> Result<Vec<Vec<Value>>, StoreFault> {
        let rows =
            query(statement).fetch_all(self.connection.get()).await.map_err(|error| self.database.failed(error))?;
        rows.iter().map(|row| cells(row, kinds)).collect::<Result<_, _>>().map_err(|error| self.database.failed(error))
    }

    async fn commit(self) -> Result<(), StoreFault> {
        let Self { connection, database } = self;
        let Open::Transaction(transaction) = connection else { return Ok(()) };
        transaction.commit().await.map_err(|error| database.failed(error))
    }

    async fn rollback(self) -> Result<(), StoreFault> {
        let Self { connection, database } = self;
        let Open::Transaction(transaction) = connection else { return Ok(()) };
        transaction.rollback().await.map_err(|error| database.failed(error))
    }
}

fn query(statement: Statement) -> sqlx::query::Query<'static, Sqlite, SqliteArguments> {
    // Safe: see `Statement::text`.
    let query = sqlx::query(AssertSqlSafe(statement.text));
    statement.binds.into_iter().fold(query, |query, bind| match bind {
        Bind::Integer(integer) => query.bind(integer),
        Bind::Text(text) => query.bind(text),
        Bind::Shared(text) => query.bind(text),
        Bind::Null => query.bind(None::<i64>),
        Bind::Texts(_) | Bind::Integers(_) => unreachable!("only the dialect of PostgreSQL makes lists"),
    })
}

fn cells(row: &SqliteRow, kinds: &[ColumnKind]) -> Result<Vec<Value>, sqlx::Error> {
    let cell = |(index, kind): (usize, &ColumnKind)| {
        Ok(match kind {
            ColumnKind::Text => row.try_get::<Option<String>, _>(index)?.map_or(Value::Null, Value::from),
            ColumnKind::Integer => row.try_get::<Option<i64>, _>(index)?.map_or(Value::Null, Value::from),
        })
    };
    kinds.iter().enumerate().map(cell).collect()
}

fn pool(connections_max: u32, wait_max: Duration) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(wait_max)
        // A file does not hang up, and a connection in memory is the database.
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        // Nobody may get a connection with a transaction of the one before in it. The ping waits for a rollback that is
        // queued already. SQLite ends a transaction by itself when a disk is full, and sqlx does not hear of it: then the
        // rollback fails, and the connection goes.
        .after_release(|connection, _| {
            Box::pin(async move {
                connection.ping().await?;
                Ok(!connection.is_in_transaction())
            })
        })
}

/// SQLite takes a name that begins so for a URI, and the rest of it for options.
fn plain(path: &Path) -> PathBuf {
    if path.starts_with("file:") || path.to_string_lossy().starts_with("file:") {
        return Path::new(".").join(path);
    }
    path.to_owned()
}

async fn tables(pool: &SqlitePool) -> Result<Vec<String>, sqlx::Error> {
    let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
    sqlx::query_scalar(tables).fetch_all(pool).await
}

fn migrations() -> Migrator {
    let each = MIGRATIONS.iter().map(|&(number, name, text)| {
        Migration::new(number, name.into(), MigrationType::Simple, text.into_sql_str(), false)
    });
    Migrator::with_migrations(each.collect())
}

/// Refuses what is not ours or newer than us, and brings the rest up to date.
async fn prepare(pool: &SqlitePool, shown: &str) -> Result<(), StoreFault> {
    let tables = tables(pool).await.map_err(|error| fault(error, shown))?;
    let has = |name: &str| tables.iter().any(|table| table == name);
    if has("meta") {
        let format = sqlx::query_scalar::<_, i64>("SELECT format FROM meta").fetch_optional(pool).await;
        match format.map_err(|error| fault(error, shown))? {
            Some(found) if found > FORMAT => return Err(StoreFault::TooNew { found, known: FORMAT }),
            Some(_) => {}
            None => return Err(StoreFault::Damaged(format!("{shown}: it does not say which format it has"))),
        }
    } else if tables.iter().any(|table| table != "_sqlx_migrations") {
        return Err(StoreFault::Damaged(format!("{shown} is a database of another program")));
    }
    migrations().run(pool).await.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => fault(error, shown),
        MigrateError::VersionMissing(found) => StoreFault::TooNew { found, known: FORMAT },
        error => StoreFault::Damaged(format!("{shown}: {error}")),
    })
}

/// What an error means for whoever asked. The message of a damaged store says what to do about it, since nothing in it
/// is lost that the log does not have.
fn fault(error: sqlx::Error, shown: &str) -> StoreFault {
    let damaged = |why: &str| damaged(shown, why);
    match &error {
        sqlx::Error::Database(database) => {
            let code = database.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or_default();
            // The low byte is the kind of error, the rest says more.
            match (code & 0xff, code) {
                // SQLITE_CORRUPT, SQLITE_NOTADB, SQLITE_FORMAT
                (11 | 26 | 24, _) => damaged(database.message()),
                // SQLITE_IOERR of short read, bad data, corrupt file system
                (_, 522 | 8202 | 8458) => damaged(database.message()),
                // SQLITE_ERROR, SQLITE_MISMATCH, SQLITE_CONSTRAINT: a table is not as it was made
                (1 | 19 | 20, _) => damaged(database.message()),
                _ => StoreFault::Unavailable(Box::new(error)),
            }
        }
        sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnIndexOutOfBounds { .. } => damaged(&error.to_string()),
        _ => StoreFault::Unavailable(Box::new(error)),
    }
}

fn damaged(shown: &str, why: &str) -> StoreFault {
    StoreFault::Damaged(format!("{shown}: {why}; it can be deleted, and is then folded anew from the log"))
}

/// Waits for files where that holds up nobody.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, StoreFault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| StoreFault::Unavailable(Box::new(error))),
        Err(cut) => Err(StoreFault::Unavailable(Box::new(cut))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;
    use crate::connection::Session;

    async fn filled(session: &mut SqliteSession<'_>, bytes: i64) -> Result<u64, StoreFault> {
        session.execute(Statement::new("UPDATE meta SET tables = zeroblob($1) || ''", vec![Bind::Integer(bytes)])).await
    }

    async fn pages(database: &SqliteDatabase, max: i64) {
        // This pragma takes no placeholder.
        sqlx::query(AssertSqlSafe(format!("PRAGMA max_page_count = {max}"))).execute(&database.writer).await.unwrap();
    }

    #[tokio::test]
    async fn a_full_disk_is_answered_and_recovered_from() {
        let directory = tempfile::tempdir().unwrap();
        let options = Options::default();
        let database = SqliteDatabase::open(Some(directory.path().join("a")), &options).await.unwrap();
        for round in 0..3 {
            pages(&database, 40).await;
            let mut session = database.begin(Access::Write).await.unwrap();
            let full = filled(&mut session, 10_000_000).await;
            assert!(matches!(full, Err(StoreFault::Unavailable(_))), "{full:?}");
            // Rolled back by hand, or by being dropped: SQLite has done so by itself already.
            if round > 0 {
                let _ = session.rollback().await;
            } else {
                drop(session);
            }
            pages(&database, 1_000_000).await;
            let mut session = database.begin(Access::Write).await.unwrap();
            assert_eq!(filled(&mut session, 0).await.unwrap(), 1);
            session.commit().await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_failed_while_a_file_was_filled_is_looked_at_before_it_is_trusted() {
        for is_torn in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("a");
            let options = Options { cache_kib: 64, ..Options::default() };
            let database = SqliteDatabase::open(Some(path.clone()), &options).await.unwrap();
            database.begin_filling().await.unwrap();
            let mut session = database.begin(Access::Write).await.unwrap();
            filled(&mut session, 3_000_000).await.unwrap();
            session.commit().await.unwrap();
            pages(&database, 800).await;
            let mut session = database.begin(Access::Write).await.unwrap();
            assert!(filled(&mut session, 10_000_000).await.is_err());
            let _ = session.rollback().await;
            if is_torn {
                let whole = std::fs::metadata(&path).unwrap().len();
                let file = std::fs::File::options().write(true).open(&path).unwrap();
                std::os::unix::fs::FileExt::write_all_at(&file, &vec![0xa5; 1_000_000], whole - 1_000_000).unwrap();
            }
            let done = database.filled().await;
            assert_eq!(matches!(done, Err(StoreFault::Damaged(_))), is_torn, "{done:?}");
            assert_eq!(directory.path().join("a-filling").exists(), is_torn);
        }
    }

    #[tokio::test]
    async fn an_abandoned_transaction_does_not_reach_the_next_user() {
        let database = SqliteDatabase::open(None, &Options::default()).await.unwrap();
        for _ in 0..100 {
            let mut session = database.begin(Access::Write).await.unwrap();
            session.execute(Statement::plain("UPDATE meta SET generation = generation + 1")).await.unwrap();
            drop(session);
        }
        let mut session = database.begin(Access::Read).await.unwrap();
        let found =
            session.fetch(Statement::plain("SELECT generation FROM meta"), &[ColumnKind::Integer]).await.unwrap();
        assert_eq!(found, [[Value::from(0)]]);
    }

    #[tokio::test]
    async fn as_many_read_as_was_told_and_connections_keep_as_many_pages() {
        let directory = tempfile::tempdir().unwrap();
        let options = Options { cache_kib: 300, readers: 2, ..Options::default() };
        let database = SqliteDatabase::open(Some(directory.path().join("a")), &options).await.unwrap();
        for (pool, kib) in [(&database.writer, 300), (&database.reader, 150)] {
            let cached = sqlx::query_scalar::<_, i64>("PRAGMA cache_size").fetch_one(pool).await.unwrap();
            assert_eq!(cached, -kib);
        }
        assert_eq!(database.reader.options().get_max_connections(), 2);
    }

    #[tokio::test]
    async fn who_reads_cannot_write() {
        let directory = tempfile::tempdir().unwrap();
        let database = SqliteDatabase::open(Some(directory.path().join("a")), &Options::default()).await.unwrap();
        let mut session = database.begin(Access::Snapshot).await.unwrap();
        assert!(session.execute(Statement::plain("DELETE FROM meta")).await.is_err());
    }
}
