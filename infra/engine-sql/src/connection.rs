//! What the store needs of a database: statements run one after the other, in a transaction that sees one state of
//! things. A statement is text and values; values are plain, so that the store's logic names no driver's types.

pub(crate) mod postgres;
pub(crate) mod sqlite;

use std::future::Future;
use std::sync::Arc;

use engine::read_store::StoreFault;
use engine::view::ColumnKind;
use serde_json::Value;

use self::postgres::{PostgresDatabase, PostgresSession};
use self::sqlite::{SqliteDatabase, SqliteSession};

/// A statement and its values. Placeholders are `$1`, `$2`, …
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    /// Made of checked identifiers and placeholders only; values never become text.
    pub(crate) text: Arc<str>,
    /// The values, by placeholder.
    pub(crate) binds: Vec<Bind>,
}

impl Statement {
    /// A statement without values.
    pub(crate) fn plain(text: impl Into<Arc<str>>) -> Self {
        Self { text: text.into(), binds: Vec::new() }
    }

    /// A statement with values.
    pub(crate) fn new(text: impl Into<Arc<str>>, binds: Vec<Bind>) -> Self {
        Self { text: text.into(), binds }
    }
}

/// A value for a placeholder.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Bind {
    /// A 64-bit integer.
    Integer(i64),
    /// Text; may hold NUL.
    Text(String),
    /// Text that its owner keeps.
    Shared(Arc<str>),
    /// Null.
    Null,
    /// Many of them, or null: a list, which only PostgreSQL takes.
    Integers(Vec<Option<i64>>),
    /// Many texts, or null: likewise.
    Texts(Vec<Option<String>>),
}

/// What a transaction may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// One statement that reads: no transaction is needed for it to see one state.
    Read,
    /// Several statements that read the same state.
    Snapshot,
    /// Reads and writes. SQLite: alone, the right to write is taken at the start, so that nothing read in it can be
    /// outdated. PostgreSQL: beside others, but not while tables are made; each statement sees what is committed by then.
    Write,
}

/// An open transaction. Dropped without `commit`, it is rolled back.
pub(crate) trait Session: Send + Sized {
    /// Runs a statement and counts the rows it changed.
    fn execute(&mut self, statement: Statement) -> impl Future<Output = Result<u64, StoreFault>> + Send;

    /// Writes rows that are not there yet, in the binary form of PostgreSQL's `COPY`, piece by piece. After any fault the
    /// session can only be rolled back.
    fn copy(
        &mut self,
        text: Arc<str>,
        pieces: impl Iterator<Item = Vec<u8>> + Send,
    ) -> impl Future<Output = Result<(), StoreFault>> + Send;

    /// Runs a statement and collects its rows, whose columns are of these kinds.
    fn fetch(
        &mut self,
        statement: Statement,
        kinds: &[ColumnKind],
    ) -> impl Future<Output = Result<Vec<Vec<Value>>, StoreFault>> + Send;

    /// Makes it so.
    fn commit(self) -> impl Future<Output = Result<(), StoreFault>> + Send;

    /// Makes it as if nothing had been.
    fn rollback(self) -> impl Future<Output = Result<(), StoreFault>> + Send;
}

/// A database of either kind.
#[derive(Debug)]
pub(crate) enum Database {
    /// SQLite.
    Sqlite(SqliteDatabase),
    /// PostgreSQL.
    Postgres(PostgresDatabase),
}

impl Database {
    /// Begins.
    pub(crate) async fn begin(&self, access: Access) -> Result<AnySession<'_>, StoreFault> {
        match self {
            Self::Sqlite(database) => database.begin(access).await.map(AnySession::Sqlite),
            Self::Postgres(database) => database.begin(access).await.map(AnySession::Postgres),
        }
    }

    /// Waits for what is under way and lets go of it.
    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(database) => database.close().await,
            Self::Postgres(database) => database.close().await,
        }
    }
}

/// A transaction of either kind.
pub(crate) enum AnySession<'a> {
    /// SQLite.
    Sqlite(SqliteSession<'a>),
    /// PostgreSQL.
    Postgres(PostgresSession<'a>),
}

impl Session for AnySession<'_> {
    async fn execute(&mut self, statement: Statement) -> Result<u64, StoreFault> {
        match self {
            Self::Sqlite(session) => session.execute(statement).await,
            Self::Postgres(session) => session.execute(statement).await,
        }
    }

    async fn copy(&mut self, text: Arc<str>, pieces: impl Iterator<Item = Vec<u8>> + Send) -> Result<(), StoreFault> {
        match self {
            Self::Sqlite(session) => session.copy(text, pieces).await,
            Self::Postgres(session) => session.copy(text, pieces).await,
        }
    }

    async fn fetch(&mut self, statement: Statement, kinds: &[ColumnKind]) -> Result<Vec<Vec<Value>>, StoreFault> {
        match self {
            Self::Sqlite(session) => session.fetch(statement, kinds).await,
            Self::Postgres(session) => session.fetch(statement, kinds).await,
        }
    }

    async fn commit(self) -> Result<(), StoreFault> {
        match self {
            Self::Sqlite(session) => session.commit().await,
            Self::Postgres(session) => session.commit().await,
        }
    }

    async fn rollback(self) -> Result<(), StoreFault> {
        match self {
            Self::Sqlite(session) => session.rollback().await,
            Self::Postgres(session) => session.rollback().await,
        }
    }
}
