//! PostgreSQL through sqlx: a pool that writes and a pool that reads, both bounded. Transactions are begun and ended by
//! hand, and **a connection goes back to its pool only after its transaction was ended and the server said so**; dropped
//! half-way, for whatever reason, it is closed, and the server rolls back. So nobody ever inherits somebody else's
//! transaction (a pool of sqlx 0.9.0 that begins them itself can let that happen when a caller is dropped).
//!
//! Whatever waits for the server waits for a bounded time: to connect, for each statement (the server ends it), and, should
//! the server itself be gone or stopped, for the whole operation.

mod fault;
mod place;
mod prepare;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use engine::read_store::StoreFault;
use engine::view::ColumnKind;
use serde_json::Value;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgPool, PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, Postgres, Row as _};

use self::fault::{copy_fault, fault};
pub(crate) use self::fault::{is_absent, is_retryable, was_there};
pub(crate) use self::place::PostgresPlace;
use super::{Access, Bind, Session, Statement};
use crate::store::Options;

/// 2 s: to get a connection, made anew if need be. Longer, and a query waits where it should say that it cannot.
const ACQUIRE_MAX: Duration = Duration::from_secs(2);
/// 500 ms: broken connections show at once, and each is met only once; who waited longer waits no second time.
pub(crate) const STALE_WITHIN: Duration = Duration::from_millis(500);
/// 256 statements kept prepared by each connection; a list's shape is one.
const STATEMENTS_MAX: usize = 256;
/// 10 min: an idle connection costs the server some megabytes.
const IDLE_MAX: Duration = Duration::from_secs(600);
/// 1 h: so that nodes find a server that came back, and its memory for a connection does not grow for ever.
const LIFETIME_MAX: Duration = Duration::from_secs(3_600);
/// How long a start waits for other nodes that start: each holds the lock for as long as it takes to make tables.
const PREPARE_WAIT_MAX_MS: u64 = 60_000;

/// A database in PostgreSQL.
pub(crate) struct PostgresDatabase {
    writer: PgPool,
    reader: PgPool,
    /// Of one connection, that listens.
    listener: PgPool,
    place: Arc<PostgresPlace>,
    /// `BEGIN` of a transaction that writes.
    begin_write: String,
}

impl std::fmt::Debug for PostgresDatabase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the pools: their options hold the password.
        f.debug_struct("PostgresDatabase").field("place", &self.place.shown).finish_non_exhaustive()
    }
}

impl PostgresDatabase {
    /// Gets ready to connect; whether the server answers shows when it is first asked.
    pub(crate) fn new(place: PostgresPlace, options: &Options) -> Self {
        let place = Arc::new(place);
        let statement_ms = |max: Duration| max.as_millis().max(1);
        let settings = |statement_max: Duration| {
            // SET, not start-up options: poolers in between refuse those. The keep-alives are the server's: a node that
            // vanished without a word must not hold its locks for hours.
            format!(
                "SET search_path TO \"{schema}\"; SET statement_timeout = {statement}; SET lock_timeout = {lock}; \
                 SET idle_in_transaction_session_timeout = {idle}; SET client_min_messages = warning; \
                 SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; \
                 SET jit = off; SET TimeZone = 'UTC'",
                schema = place.schema,
                statement = statement_ms(statement_max),
                lock = statement_ms(options.lock_max),
                idle = statement_ms(options.write_max),
            )
        };
        let connect = place.connect.clone().statement_cache_capacity(STATEMENTS_MAX);
        // One more than writers: who renews leases does not wait behind batches.
        let writer = pool(options.writers + 1, settings(options.write_max)).connect_lazy_with(connect.clone());
        let reader = pool(options.readers, settings(options.read_max)).connect_lazy_with(connect.clone());
        let listener = pool(1, settings(options.read_max)).connect_lazy_with(connect);
        let begin_write = format!("BEGIN; SELECT pg_advisory_xact_lock_shared({})", place.lock_key("tables"));
        Self { writer, reader, listener, place, begin_write }
    }

    /// What is meant, for people and for other modules of this crate.
    pub(crate) fn place(&self) -> &Arc<PostgresPlace> {
        &self.place
    }

    /// The pool that writes; for what is not a batch.
    pub(crate) fn writer(&self) -> &PgPool {
        &self.writer
    }

    /// The pool of one that listens.
    pub(crate) fn listener(&self) -> &PgPool {
        &self.listener
    }

    /// What an error means.
    pub(crate) fn fault(&self, error: sqlx::Error) -> StoreFault {
        fault(error, &self.place.shown)
    }

    /// Begins.
    pub(crate) async fn begin(&self, access: Access) -> Result<PostgresSession<'_>, StoreFault> {
        let (pool, begin) = match access {
            Access::Read => (&self.reader, None),
            Access::Snapshot => (&self.reader, Some("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")),
            Access::Write => (&self.writer, Some(self.begin_write.as_str())),
        };
        self.begin_in(pool, begin).await
    }

    /// Begins as is said, from one of the pools. A connection that turns out to be broken when it begins (the server was
    /// started again, and the pool does not know) is passed over: nothing was done on it yet.
    pub(crate) async fn begin_in(&self, pool: &PgPool, begin: Option<&str>) -> Result<PostgresSession<'_>, StoreFault> {
        let began = tokio::time::Instant::now();
        loop {
            let connection = pool.acquire().await.map_err(|error| self.fault(error))?;
            let in_transaction = begin.is_some();
            let mut session = PostgresSession {
                connection: Some(connection),
                shown: &self.place.shown,
                in_transaction,
                broken: false,
            };
            let Some(begin) = begin else { return Ok(session) };
            match session.say(begin).await {
                Ok(()) => return Ok(session),
                Err(fault) if is_absent(&fault) && began.elapsed() < STALE_WITHIN => {}
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Begins a transaction that writes alone: no batch is under way, and none begins before it ends. Its statements may
    /// take as long as they do.
    pub(crate) async fn begin_alone(&self) -> Result<PostgresSession<'_>, StoreFault> {
        let begin = format!(
            "BEGIN; SET LOCAL lock_timeout = {PREPARE_WAIT_MAX_MS}; SET LOCAL statement_timeout = 0; \
             SELECT pg_advisory_xact_lock({})",
            self.place.lock_key("tables")
        );
        self.begin_in(&self.writer, Some(&begin)).await
    }

    /// Ends all connections, once they are given back.
    pub(crate) async fn close(&self) {
        self.listener.close().await;
        self.reader.close().await;
        self.writer.close().await;
    }
}

/// A transaction, or the connection alone. Not ended by `commit` or `rollback`: the connection is closed.
pub(crate) struct PostgresSession<'a> {
    connection: Option<PoolConnection<Postgres>>,
    shown: &'a str,
    in_transaction: bool,
    /// Not to be spoken to any more, only to be closed.
    broken: bool,
}

impl Drop for PostgresSession<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            // Out of the pool and closed: nobody knows what the server is still doing for it.
            drop(connection.detach());
        }
    }
}

impl PostgresSession<'_> {
    fn connection(&mut self) -> &mut PoolConnection<Postgres> {
        self.connection.as_mut().expect("a session has its connection until it is ended, and then it is gone itself")
    }

    /// Says something that takes no values.
    async fn say(&mut self, text: &str) -> Result<(), StoreFault> {
        // Safe: made in this module of constants, checked names and numbers.
        let said = sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(&mut **self.connection()).await;
        said.map(|_| ()).map_err(|error| fault(error, self.shown))
    }

    async fn end(mut self, how: &str) -> Result<(), StoreFault> {
        if self.broken {
            // Dropped: closed.
            return Ok(());
        }
        if self.in_transaction {
            self.say(how).await?;
        }
        // Clean: back into the pool.
        drop(self.connection.take());
        Ok(())
    }
}

impl Session for PostgresSession<'_> {
    async fn execute(&mut self, statement: Statement) -> Result<u64, StoreFault> {
        let done = query(statement).execute(&mut **self.connection()).await;
        Ok(done.map_err(|error| fault(error, self.shown))?.rows_affected())
    }

    async fn copy(&mut self, text: Arc<str>, pieces: impl Iterator<Item = Vec<u8>> + Send) -> Result<(), StoreFault> {
        let shown = self.shown;
        let copied = async {
            let mut copy = self.connection().copy_in_raw(&text).await?;
            for piece in pieces {
                copy.send(piece).await?;
            }
            copy.finish().await
        };
        let copied = copied.await;
        // In the middle of a copy the connection says nothing that could be understood as the end of a transaction.
        self.broken = copied.is_err();
        copied.map(|_| ()).map_err(|error| copy_fault(error, shown))
    }

    async fn fetch(&mut self, statement: Statement, kinds: &[ColumnKind]) -> Result<Vec<Vec<Value>>, StoreFault> {
        let rows = query(statement).fetch_all(&mut **self.connection()).await;
        let rows = rows.map_err(|error| fault(error, self.shown))?;
        rows.iter().map(|row| cells(row, kinds)).collect::<Result<_, _>>().map_err(|error| fault(error, self.shown))
    }

    async fn commit(self) -> Result<(), StoreFault> {
        self.end("COMMIT").await
    }

    async fn rollback(self) -> Result<(), StoreFault> {
        self.end("ROLLBACK").await
    }
}

fn query(statement: Statement) -> sqlx::query::Query<'static, Postgres, PgArguments> {
    // Safe: see `Statement::text`.
    let query = sqlx::query(AssertSqlSafe(statement.text));
    let plain = |text: String| {
        let escaped = match escape(&text) {
            Cow::Borrowed(_) => None,
            Cow::Owned(escaped) => Some(escaped),
        };
        escaped.unwrap_or(text)
    };
    let escaped = |texts: Vec<Option<String>>| texts.into_iter().map(|text| text.map(plain)).collect::<Vec<_>>();
    statement.binds.into_iter().fold(query, |query, bind| match bind {
        Bind::Integer(integer) => query.bind(integer),
        Bind::Text(text) => query.bind(plain(text)),
        Bind::Shared(text) => query.bind(plain(text.as_ref().to_owned())),
        Bind::Null => query.bind(None::<i64>),
        Bind::Integers(integers) => query.bind(integers),
        Bind::Texts(texts) => query.bind(escaped(texts)),
    })
}

fn cells(row: &PgRow, kinds: &[ColumnKind]) -> Result<Vec<Value>, sqlx::Error> {
    let cell = |(index, kind): (usize, &ColumnKind)| {
        Ok(match kind {
            // Unchecked: a document's `json` is sent as the text that it is.
            ColumnKind::Text => row
                .try_get_unchecked::<Option<String>, _>(index)?
                .map_or(Value::Null, |text| Value::from(unescape(text))),
            ColumnKind::Integer => row.try_get::<Option<i64>, _>(index)?.map_or(Value::Null, Value::from),
        })
    };
    kinds.iter().enumerate().map(cell).collect()
}

/// PostgreSQL keeps no NUL in text. U+0000 becomes U+0001 U+0001, and U+0001 becomes U+0001 U+0002: then texts sort, and
/// start with each other, as they did before. JSON has neither as it stands.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| byte <= 1) {
        return Cow::Borrowed(text);
    }
    text.replace('\u{1}', "\u{1}\u{2}").replace('\0', "\u{1}\u{1}").into()
}

fn unescape(text: String) -> String {
    if !text.as_bytes().contains(&1) {
        return text;
    }
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\u{1}' if characters.next() == Some('\u{1}') => '\0',
            other => other,
        });
    }
    plain
}

fn pool(connections_max: u32, settings: String) -> PgPoolOptions {
    let settings: Arc<str> = settings.into();
    PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_MAX)
        .idle_timeout(IDLE_MAX)
        .max_lifetime(LIFETIME_MAX)
        // A question more before each operation would tell little: the server may go right after. What fails is closed.
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            let settings = settings.clone();
            Box::pin(async move {
                // Safe: made of a checked name and numbers.
                sqlx::raw_sql(AssertSqlSafe(settings.to_string())).execute(connection).await.map(|_| ())
            })
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{escape, unescape};

    proptest! {
        #[test]
        fn escaped_texts_keep_their_order_and_come_back(
            one in "[\u{0}-\u{3}a]{0,5}",
            other in "[\u{0}-\u{3}a]{0,5}",
        ) {
            let (escaped, other_escaped) = (escape(&one).into_owned(), escape(&other).into_owned());
            prop_assert!(!escaped.contains('\0'));
            prop_assert_eq!(one.cmp(&other), escaped.cmp(&other_escaped));
            prop_assert_eq!(one.starts_with(&other), escaped.starts_with(&other_escaped));
            prop_assert_eq!(unescape(escaped), one);
        }
    }
}
