//! The store itself. Every operation runs in a task of its own, which nobody can drop half-way; who asked waits for it,
//! or goes away and it ends all the same. Before a task starts, it waits for a place (as many as connections): there a
//! caller may leave without a trace, so the tasks that nobody waits for are few.

mod aim;
mod beside;
mod breaker;
mod options;
mod used;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use engine::log::WakerGuard;
use engine::position::{Checkpoint, LogId, Partition};
use engine::read_store::{Batch, Query, ReadStore, RowsAt, StoreFault, StoreFuture};
use engine::view::{Row, RowKey, Table};
use metrics::{counter, gauge};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::connection::postgres::{PostgresDatabase, PostgresPlace, STALE_WITHIN, is_absent, is_retryable, was_there};
use crate::connection::sqlite::SqliteDatabase;
use crate::connection::{Access, AnySession, Database, Session};
use crate::dialect::postgres::PostgresDialect;
use crate::dialect::sqlite::SqliteDialect;
use crate::dialect::{AnyDialect, Dialect};
use crate::sets::{InUse, Meta, Pin, Set};
use crate::share::{leases, progress};
use crate::store::aim::Aim;
use crate::store::breaker::Breaker;
pub use crate::store::options::Options;
use crate::store::used::Used;
use crate::tables::{Tables, misused};
use crate::work;

/// 2 s: how long a read of a database over the network waits for its turn. Then it says so, and the caller may ask again.
const READ_WAIT_MAX: Duration = Duration::from_secs(2);
/// 5 tries of a transaction that met another one and was rolled back for it.
const TRIES_MAX: u32 = 5;
/// 3 looks at what is in use, for an operation that found something else than it meant.
const LOOKS_MAX: u32 = 3;
/// 20 ms and more: the wait before such a try, times its number, with jitter.
const TRY_WAIT_MS: u64 = 20;
/// Longest wait before the next try to reach a database that was not there when the store was opened.
const PREPARE_WAIT_MAX: Duration = Duration::from_secs(5);

/// What one state of the store holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot<T> {
    /// What was asked for.
    pub found: T,
    /// How far every partition had been folded when it was so.
    pub checkpoints: BTreeMap<Partition, Checkpoint>,
}

/// A read store on SQL.
#[derive(Clone, Debug)]
pub struct SqlReadStore {
    inner: Arc<Inner>,
    aim: Aim,
    writes: Arc<Semaphore>,
    /// The same as `writes` where there is but one connection.
    reads: Arc<Semaphore>,
    writes_max: usize,
    reads_max: usize,
    wait_max: Duration,
    read_wait_max: Duration,
    /// An operation that takes longer is given up and its connection closed: the server has gone without a word.
    read_end: Option<Duration>,
    write_end: Option<Duration>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) database: Database,
    dialect: AnyDialect,
    sets: [Tables; 2],
    used: Used,
    watched: &'static [&'static str],
    /// Who this process is among those who feed the store, once it takes part.
    pub(crate) holder: OnceLock<String>,
    /// Lets reads fail at once while the server does not answer.
    breaker: Breaker,
}

impl Inner {
    /// Which tables are in use, as far as this process knows.
    pub(crate) fn in_use(&self) -> Result<InUse, StoreFault> {
        self.used.get()
    }

    /// The tables as a set has them.
    pub(crate) fn tables(&self, set: Set) -> &Tables {
        &self.sets[set.index()]
    }

    /// Takes news from the database. True if they were any.
    pub(crate) fn adopt(&self, meta: &Meta) -> Result<bool, StoreFault> {
        self.used.adopt(meta, || self.tables(Set::A).text())
    }

    async fn prepare(&self, postgres: &PostgresDatabase) -> Result<(), StoreFault> {
        self.used.found(postgres.prepare(&self.sets).await)
    }
}

/// Goes on trying to reach the database, until it is reached or the store is gone.
async fn prepare_later(inner: Weak<Inner>) {
    let mut wait = Duration::from_millis(250);
    loop {
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(PREPARE_WAIT_MAX);
        let Some(inner) = inner.upgrade() else { return };
        let Database::Postgres(postgres) = &inner.database else { return };
        match inner.prepare(postgres).await {
            Err(StoreFault::Unavailable(_)) => {}
            Err(fault) => {
                tracing::error!(error = %fault, "the read store cannot be used");
                return;
            }
            Ok(()) => {
                tracing::info!("the read store's database was reached");
                return;
            }
        }
    }
}

impl SqlReadStore {
    /// Opens the store and makes its tables: `postgres://user:password@host:port/database`, with `?schema=name` if its
    /// schema shall not be `docket`; `sqlite:PATH` or a plain path, made if it is missing; or `sqlite::memory:`. If its
    /// tables were made from another specification or for lower views, they are dropped with all rows and checkpoints,
    /// to be folded anew.
    ///
    /// # Errors
    /// `TooNew` if a newer program, or one with newer views, wrote it; `Damaged` if it is no read store; `Misused` if the
    /// specification or the URL cannot be. None has the URL's password in it.
    pub async fn open(url_or_path: &str, tables: &[Table], options: Options) -> Result<Self, StoreFault> {
        if options.readers == 0 || options.writers == 0 {
            return Err(misused("a store needs a reader and a writer".to_owned()));
        }
        match location(url_or_path)? {
            Location::Sqlite(path) => Self::open_sqlite(path, tables, options).await,
            Location::Postgres(place) => Self::open_postgres(*place, tables, options).await,
        }
    }

    async fn open_sqlite(path: Option<PathBuf>, tables: &[Table], options: Options) -> Result<Self, StoreFault> {
        let dialect = SqliteDialect;
        let sets = sets(tables, &options, &dialect)?;
        let wait_max = options.wait_max;
        let opening = tokio::spawn(async move {
            let database = SqliteDatabase::open(path, &options).await?;
            let writes = Arc::new(Semaphore::new(1));
            let reads =
                database.readers(&options).map_or_else(|| writes.clone(), |n| Arc::new(Semaphore::new(n as usize)));
            let existing = database.tables().await?;
            let mut session = AnySession::Sqlite(database.begin(Access::Write).await?);
            let made = work::make_tables(&mut session, &sets, &existing, &dialect, true).await;
            let made = match made {
                Ok(in_use) => {
                    let folded = work::checkpoints(&mut session, &sets[in_use.set.index()]).await;
                    folded.map(|folded| (in_use, folded.is_empty()))
                }
                Err(fault) => Err(fault),
            };
            let made = settle(session, made).await;
            let is_new = made.as_ref().is_ok_and(|(_, is_new)| *is_new);
            let used = Used::default();
            used.found(made.map(|(in_use, _)| in_use))?;
            if options.alone && is_new {
                database.begin_filling().await?;
            }
            let inner = Inner {
                database: Database::Sqlite(database),
                dialect: AnyDialect::Sqlite(dialect),
                sets,
                used,
                watched: &[],
                holder: OnceLock::new(),
                breaker: Breaker::default(),
            };
            let (read_wait_max, read_end, write_end) = (wait_max, None, None);
            let (writes_max, reads_max) = (writes.available_permits(), reads.available_permits());
            let (inner, aim) = (Arc::new(inner), Aim::Readers);
            Ok(Self { inner, aim, writes, reads, writes_max, reads_max, wait_max, read_wait_max, read_end, write_end })
        });
        ended(opening).await
    }

    async fn open_postgres(place: PostgresPlace, tables: &[Table], options: Options) -> Result<Self, StoreFault> {
        let dialect = PostgresDialect;
        let sets = sets(tables, &options, &dialect)?;
        let opening = tokio::spawn(async move {
            let inner = Arc::new(Inner {
                database: Database::Postgres(PostgresDatabase::new(place, &options)),
                dialect: AnyDialect::Postgres(dialect),
                sets,
                used: Used::default(),
                watched: options.watched,
                holder: OnceLock::new(),
                breaker: Breaker::default(),
            });
            let Database::Postgres(postgres) = &inner.database else { unreachable!("it was made a line above") };
            match inner.prepare(postgres).await {
                Err(StoreFault::Unavailable(why)) if options.wait_for_database => {
                    tracing::warn!(error = %why, "the read store's database does not answer; this node goes on without");
                    tokio::spawn(prepare_later(Arc::downgrade(&inner)));
                }
                prepared => prepared?,
            }
            Ok(Self {
                inner,
                aim: Aim::Readers,
                writes: Arc::new(Semaphore::new(options.writers as usize)),
                reads: Arc::new(Semaphore::new(options.readers as usize)),
                writes_max: options.writers as usize,
                reads_max: options.readers as usize,
                wait_max: options.wait_max,
                read_wait_max: options.wait_max.min(READ_WAIT_MAX),
                read_end: Some(options.read_max + Duration::from_millis(1_500)),
                write_end: Some(options.write_max * 2),
            })
        });
        ended(opening).await
    }

    /// What modules beside this one need of it.
    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
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
        self.read(move |inner, pin| {
            let keys = keys.clone();
            async move {
                let mut session = inner.database.begin(Access::Snapshot).await?;
                let done = async {
                    let tables = inner.tables(pin.set());
                    let checkpoints = work::checkpoints_of(&mut session, pin, tables).await?;
                    let found = work::load(&mut session, keys, tables, &inner.dialect).await?;
                    Ok(Snapshot { found, checkpoints })
                };
                let done = done.await;
                settle(session, done).await
            }
        })
        .await
    }

    /// Finds rows, with the checkpoints of the same state.
    ///
    /// # Errors
    /// As for `list`.
    pub async fn list_with_checkpoints(&self, query: Query) -> Result<Snapshot<Vec<(String, Row)>>, StoreFault> {
        self.read(move |inner, pin| {
            let query = query.clone();
            async move {
                let mut session = inner.database.begin(Access::Snapshot).await?;
                let done = async {
                    let tables = inner.tables(pin.set());
                    let checkpoints = work::checkpoints_of(&mut session, pin, tables).await?;
                    let found = work::list(&mut session, &query, tables, &inner.dialect).await?;
                    Ok(Snapshot { found, checkpoints })
                };
                let done = done.await;
                settle(session, done).await
            }
        })
        .await
    }

    /// How many rows of a table have each value of a column: for metrics, not for pages. Reads the column's whole index.
    ///
    /// # Errors
    /// As for `list`.
    pub async fn count_by(&self, table: &'static str, column: &'static str) -> Result<Vec<(Value, u64)>, StoreFault> {
        self.read(move |inner, pin| async move {
            let mut session = inner.database.begin(Access::Read).await?;
            let done = work::count_by(&mut session, table, column, inner.tables(pin.set())).await;
            settle(session, done).await
        })
        .await
    }

    /// Sets the gauges of how many operations are under way, of how many at most: to be called by whoever renders metrics,
    /// right before.
    pub fn measure(&self) {
        // What has not happened yet is told as 0, so that it can be watched.
        counter!("docket_read_store_turned_away_total").increment(0);
        // In memory there is one connection for both.
        let one = Arc::ptr_eq(&self.reads, &self.writes);
        for (doing, places, places_max) in
            [("read", &self.reads, self.reads_max), ("write", &self.writes, self.writes_max)]
        {
            if one && doing == "read" {
                continue;
            }
            let busy = places_max.saturating_sub(places.available_permits());
            gauge!("docket_read_store_operations", "doing" => doing).set(busy as f64);
            gauge!("docket_read_store_operations_max", "doing" => doing).set(places_max as f64);
        }
    }

    /// Waits for what is under way and closes the store; afterwards everything is `Unavailable`.
    pub async fn close(&self) {
        self.inner.database.close().await;
    }

    /// Runs an operation that reads. If what it meant is not there any more, readers are given what is in use now, and
    /// who feeds is `Fenced`.
    async fn read<T, F, Operation>(&self, operation: F) -> Result<T, StoreFault>
    where
        T: Send + 'static,
        F: Fn(Arc<Inner>, Pin) -> Operation + Send + Sync + 'static,
        Operation: Future<Output = Result<T, StoreFault>> + Send + 'static,
    {
        let operation = Arc::new(operation);
        let mut looks = 0;
        loop {
            let pin = self.pin()?;
            let reading = operation.clone();
            let done = self.read_once(move |inner| reading(inner, pin)).await;
            match done {
                // Damaged: a table is gone, perhaps.
                Err(fault @ (StoreFault::Fenced(_) | StoreFault::Damaged(_))) if looks < LOOKS_MAX => {
                    looks += 1;
                    self.look_again().await?;
                    match &self.aim {
                        Aim::Readers if self.pin()? != pin => {}
                        Aim::Feeder(_) if Pin::InUse(self.inner.in_use()?) != pin => {
                            return Err(StoreFault::Fenced(Partition(0)));
                        }
                        _ => return Err(fault),
                    }
                }
                done => return done,
            }
        }
    }

    /// Runs an operation that reads. One whose connection turns out to be broken (the server was started again, and the
    /// pool did not know) is run again.
    async fn read_once<T, F, Operation>(&self, operation: F) -> Result<T, StoreFault>
    where
        T: Send + 'static,
        F: Fn(Arc<Inner>) -> Operation + Send + Sync + 'static,
        Operation: Future<Output = Result<T, StoreFault>> + Send + 'static,
    {
        if self.read_end.is_none() {
            return self.run(&self.reads, self.read_wait_max, None, operation).await;
        }
        self.inner.breaker.check()?;
        self.run(&self.reads, self.read_wait_max, self.read_end, move |inner| async move {
            let began = tokio::time::Instant::now();
            let mut done = operation(inner.clone()).await;
            while done.as_ref().is_err_and(is_absent) && inner.breaker.is_closed() && began.elapsed() < STALE_WITHIN {
                done = operation(inner.clone()).await;
            }
            match &done {
                Err(fault) if is_absent(fault) => inner.breaker.failed(),
                _ => inner.breaker.succeeded(),
            }
            done
        })
        .await
    }

    /// Runs an operation that writes.
    async fn write<T, F, Operation>(&self, operation: F) -> Result<T, StoreFault>
    where
        T: Send + 'static,
        F: FnOnce(Arc<Inner>) -> Operation,
        Operation: Future<Output = Result<T, StoreFault>> + Send + 'static,
    {
        self.run(&self.writes, self.wait_max, self.write_end, operation).await
    }

    /// Runs an operation where nobody can drop it.
    async fn run<T, F, Operation>(
        &self,
        places: &Arc<Semaphore>,
        wait_max: Duration,
        end: Option<Duration>,
        operation: F,
    ) -> Result<T, StoreFault>
    where
        T: Send + 'static,
        F: FnOnce(Arc<Inner>) -> Operation,
        Operation: Future<Output = Result<T, StoreFault>> + Send + 'static,
    {
        let place = tokio::time::timeout(wait_max, places.clone().acquire_owned()).await;
        if place.is_err() {
            counter!("docket_read_store_turned_away_total").increment(1);
        }
        let place = place.map_err(unavailable)?.map_err(unavailable)?;
        let inner = self.inner.clone();
        let operation = operation(inner.clone());
        ended(tokio::spawn(async move {
            let done = match end {
                None => operation.await,
                // What is dropped here closes its connection.
                Some(end) => match tokio::time::timeout(end, operation).await {
                    Ok(done) => done,
                    Err(_) => {
                        inner.breaker.failed();
                        Err(StoreFault::Unavailable("the server took the question and did not answer".into()))
                    }
                },
            };
            drop(place);
            done
        }))
        .await
    }
}

impl ReadStore for SqlReadStore {
    fn open(&self, log: LogId) -> StoreFuture<'_, BTreeMap<Partition, Checkpoint>> {
        Box::pin(self.open_now(log))
    }

    fn load(&self, keys: Vec<RowKey>) -> StoreFuture<'_, BTreeMap<RowKey, Row>> {
        if matches!(self.aim, Aim::Readers) {
            return Box::pin(async move { self.load_with_checkpoints(keys).await.map(|snapshot| snapshot.found) });
        }
        // Who feeds is told with the next batch if it was the wrong table.
        Box::pin(self.read(move |inner, pin| {
            let keys = keys.clone();
            async move {
                // One key is one statement, and sees one state without a transaction.
                let access = if keys.len() == 1 { Access::Read } else { Access::Snapshot };
                let mut session = inner.database.begin(access).await?;
                let done = work::load(&mut session, keys, inner.tables(pin.set()), &inner.dialect).await;
                settle(session, done).await
            }
        }))
    }

    fn load_at(&self, keys: Vec<RowKey>) -> StoreFuture<'_, RowsAt> {
        Box::pin(async move {
            let snapshot = self.load_with_checkpoints(keys).await?;
            Ok((snapshot.found, snapshot.checkpoints))
        })
    }

    fn commit(&self, batch: Batch) -> StoreFuture<'_, ()> {
        self.commit_shared(Arc::new(batch))
    }

    fn commit_shared(&self, batch: Arc<Batch>) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let pin = self.pin()?;
            self.write(move |inner| async move {
                let mut tries = 0;
                let mut may_copy = true;
                loop {
                    let mut session = inner.database.begin(Access::Write).await?;
                    let done = async {
                        let tables = inner.tables(pin.set());
                        work::commit(&mut session, &batch, may_copy, tables, pin, &inner.dialect).await?;
                        if let (Database::Postgres(postgres), Pin::InUse(_)) = (&inner.database, pin) {
                            if let Some(holder) = inner.holder.get() {
                                leases::holds(&mut session, holder, &batch).await?;
                            }
                            progress::tell(&mut session, postgres, &batch, inner.watched).await?;
                        }
                        Ok(())
                    };
                    let done = done.await;
                    let done = settle(session, done).await;
                    tries += 1;
                    match done {
                        // What seemed new was there: whoever folded it knew less than the store.
                        Err(fault) if may_copy && was_there(&fault) => may_copy = false,
                        // Rolled back for the sake of another transaction: nothing of it was done.
                        Err(fault) if tries < TRIES_MAX && is_retryable(&fault) => {
                            tracing::debug!(error = %fault, "a batch met another one and is tried again");
                            tokio::time::sleep(jittered(TRY_WAIT_MS * u64::from(tries))).await;
                        }
                        done => return done,
                    }
                }
            })
            .await
        })
    }

    fn list(&self, query: Query) -> StoreFuture<'_, Vec<(String, Row)>> {
        Box::pin(async move { self.list_with_checkpoints(query).await.map(|snapshot| snapshot.found) })
    }

    fn generation(&self) -> i64 {
        match &self.aim {
            Aim::Feeder(pinned) if let Some(in_use) = pinned.get() => in_use.generation,
            _ => self.inner.in_use().map_or(0, |in_use| in_use.generation),
        }
    }

    fn on_switched(&self, waker: Arc<dyn Fn() + Send + Sync>) -> Option<WakerGuard> {
        Some(self.inner.used.watch(waker))
    }

    fn feeder(&self) -> Option<Arc<dyn ReadStore>> {
        match &self.aim {
            Aim::Readers => Some(Arc::new(Self { aim: Aim::Feeder(Arc::default()), ..self.clone() })),
            Aim::Feeder(_) | Aim::Beside(_) => None,
        }
    }

    fn caught_up(&self) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let pin = self.pin()?;
            if let Pin::InUse(_) = pin {
                self.filled().await?;
            }
            self.index(pin).await
        })
    }
}

/// The tables as each set has them.
fn sets(tables: &[Table], options: &Options, dialect: &impl Dialect) -> Result<[Tables; 2], StoreFault> {
    let [a, b] = Set::BOTH.map(|set| Tables::new(tables, options.indexes, options.view_version, dialect, set));
    Ok([a?, b?])
}

/// Half to one and a half times as long, so that those who wait do not come back together.
pub(crate) fn jittered(ms: u64) -> Duration {
    // Random enough: 122 bits that a new id draws.
    let dice = uuid::Uuid::new_v4().as_u128() as u64 % (ms + 1);
    Duration::from_millis(ms / 2 + dice)
}

/// Ends a transaction as its work ended. A rollback that fails is no news: the connection rolls back when it is given
/// back, or is closed.
async fn settle<T>(session: AnySession<'_>, done: Result<T, StoreFault>) -> Result<T, StoreFault> {
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

/// Where a store is.
enum Location {
    /// In a file, or `None` for memory.
    Sqlite(Option<PathBuf>),
    Postgres(Box<PostgresPlace>),
}

fn location(url_or_path: &str) -> Result<Location, StoreFault> {
    // The part after the scheme is a path as it stands: nothing in it is escaped.
    let path = match url_or_path.split_once(':') {
        Some(("sqlite", rest)) => rest.strip_prefix("//").unwrap_or(rest),
        Some(("postgres" | "postgresql", _)) => {
            return PostgresPlace::parse(url_or_path).map(|place| Location::Postgres(Box::new(place)));
        }
        _ => url_or_path,
    };
    match path {
        "" => Err(misused("a read store needs a path".to_owned())),
        ":memory:" => Ok(Location::Sqlite(None)),
        path => Ok(Location::Sqlite(Some(PathBuf::from(path)))),
    }
}
