//! The simulator's books for several processes, in PostgreSQL: a row per payment. One task of each process writes what
//! there is in one transaction, under one lock of the database, so that calls from all processes are entered one after the
//! other. A call is answered when its transaction is committed; where that is not known the call failed, and its key makes
//! the next try safe.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::message::CommandId;
use engine::ports::Clock;
use schemas::command::GatewayCall;
use schemas::id::PaymentId;
use schemas::ledger::LedgerRow;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::books::{Account, Books, BooksFault, parts};
use super::simulator::{Entered, enter, land};

/// Calls waiting for the task. 4,096: more than the errands a node has under way.
const WAITING_MAX: usize = 4_096;
/// Calls in one transaction: enough that one flush of the database serves many, few enough to be quick.
const BATCH_MAX: usize = 256;
/// Longest wait for a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(2);
/// Longest that a transaction may take, the wait for other processes included.
const BATCH_WAIT: Duration = Duration::from_secs(10);
/// The schema, behind the read store's own name.
const SCHEMA_SUFFIX: &str = "gateway";

/// The books. Clones are the same books.
#[derive(Clone)]
pub(super) struct SharedBooks {
    waiting: mpsc::Sender<Asked>,
}

enum Asked {
    Enter { key: CommandId, call: GatewayCall, waited: bool, tell: oneshot::Sender<Result<Entered, String>> },
    Heal(oneshot::Sender<Result<(), String>>),
    Rows(oneshot::Sender<Result<Vec<LedgerRow>, String>>),
}

impl SharedBooks {
    /// The books in this database, which is asked when the first call comes.
    pub(super) fn at(url: &str, clock: Arc<dyn Clock>) -> Result<Self, BooksFault> {
        let place = Place::of(url)?;
        let (waiting, asked) = mpsc::channel(WAITING_MAX);
        tokio::spawn(keep(place, asked, clock));
        Ok(Self { waiting })
    }

    pub(super) async fn enter(&self, key: CommandId, call: GatewayCall, waited: bool) -> Result<Entered, String> {
        self.ask(|tell| Asked::Enter { key, call, waited, tell }).await
    }

    pub(super) async fn heal(&self) -> Result<(), String> {
        self.ask(Asked::Heal).await
    }

    pub(super) async fn rows(&self) -> Result<Vec<LedgerRow>, String> {
        self.ask(Asked::Rows).await
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<Result<T, String>>) -> Asked) -> Result<T, String> {
        let (tell, told) = oneshot::channel();
        let closed = || "the gateway's books are closed".to_owned();
        self.waiting.send(ask(tell)).await.map_err(|_| closed())?;
        told.await.map_err(|_| closed())?
    }
}

/// Where the books are.
struct Place {
    options: PgConnectOptions,
    schema: String,
}

impl Place {
    /// Beside a read store of this URL. What is wrong is told without the URL, which may hold a password.
    fn of(url: &str) -> Result<Self, BooksFault> {
        let (server, parameters) = url.split_once('?').unwrap_or((url, ""));
        let (ours, others): (Vec<_>, Vec<_>) =
            parameters.split('&').filter(|pair| !pair.is_empty()).partition(|pair| pair.starts_with("schema="));
        let schema = ours.last().map_or("docket", |pair| &pair["schema=".len()..]);
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if schema.is_empty() || !schema.chars().all(plain) {
            return Err(BooksFault::Url("the schema's name may have a-z, 0-9 and _ only".to_owned()));
        }
        let url = if others.is_empty() { server.to_owned() } else { format!("{server}?{}", others.join("&")) };
        let options = url.parse::<PgConnectOptions>().map_err(|_| {
            BooksFault::Url("it is not of the form postgres://user:password@host:port/database".to_owned())
        })?;
        let options = options.application_name("docket-gateway").disable_statement_logging();
        Ok(Self { options, schema: format!("{schema}_{SCHEMA_SUFFIX}") })
    }

    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let connecting = async {
            let mut connection = self.options.connect().await?;
            let schema = &self.schema;
            // A plain name: it may stand in a statement's text. One process makes the tables at a time.
            let make = format!(
                "BEGIN; SELECT pg_advisory_xact_lock(hashtext('{schema}'));
                 CREATE SCHEMA IF NOT EXISTS {schema};
                 CREATE TABLE IF NOT EXISTS {schema}.accounts (payment text PRIMARY KEY, account text NOT NULL);
                 CREATE TABLE IF NOT EXISTS {schema}.healed (healed boolean PRIMARY KEY);
                 COMMIT;
                 SET search_path TO {schema}; SET synchronous_commit TO on; SET statement_timeout TO '8s';"
            );
            sqlx::raw_sql(AssertSqlSafe(make)).execute(&mut connection).await?;
            Ok(connection)
        };
        timeout(CONNECT_WAIT, connecting).await.unwrap_or_else(|_| Err(sqlx::Error::PoolTimedOut))
    }
}

/// Answers until nobody asks any more. Every batch is seen to its end before the next begins: no transaction is left open.
async fn keep(place: Place, mut asked: mpsc::Receiver<Asked>, clock: Arc<dyn Clock>) {
    let mut connection: Option<PgConnection> = None;
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while asked.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let worked = timeout(BATCH_WAIT, async {
            let open = match connection.take() {
                Some(open) => open,
                None => place.connect().await?,
            };
            work(open, &place.schema, &batch, clock.as_ref()).await
        });
        match worked.await.unwrap_or_else(|_| Err(sqlx::Error::PoolTimedOut)) {
            Ok((open, answers)) => {
                connection = Some(open);
                batch.drain(..).zip(answers).for_each(|(asked, answer)| asked.told(answer));
            }
            Err(error) => {
                // The connection is gone with what was not committed. Whether it was is told by the keys.
                tracing::debug!(%error, "the gateway's books cannot be reached");
                batch.drain(..).for_each(|asked| asked.failed());
            }
        }
    }
}

enum Told {
    Entered(Entered),
    Healed,
    Rows(Vec<LedgerRow>),
}

impl Asked {
    fn told(self, told: Told) {
        // Who asked may be gone; the books have it all the same.
        match (self, told) {
            (Self::Enter { tell, .. }, Told::Entered(entered)) => drop(tell.send(Ok(entered))),
            (Self::Heal(tell), Told::Healed) => drop(tell.send(Ok(()))),
            (Self::Rows(tell), Told::Rows(rows)) => drop(tell.send(Ok(rows))),
            (asked, _) => asked.failed(),
        }
    }

    fn failed(self) {
        let why = || "the gateway's books cannot be reached".to_owned();
        match self {
            Self::Enter { tell, .. } => drop(tell.send(Err(why()))),
            Self::Heal(tell) => drop(tell.send(Err(why()))),
            Self::Rows(tell) => drop(tell.send(Err(why()))),
        }
    }
}

/// Does a batch in one transaction.
async fn work(
    mut connection: PgConnection,
    schema: &str,
    batch: &[Asked],
    clock: &dyn Clock,
) -> Result<(PgConnection, Vec<Told>), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock(hashtext($1))").bind(schema).execute(&mut *transaction).await?;
    // Healing may concern every payment there is.
    let all = batch.iter().any(|asked| matches!(asked, Asked::Heal(_)));
    let payments: Vec<String> = batch.iter().filter_map(payment).map(|payment| payment.0.to_string()).collect();
    let found = sqlx::query("SELECT payment, account FROM accounts WHERE $2 OR payment = ANY($1)")
        .bind(&payments)
        .bind(all)
        .fetch_all(&mut *transaction)
        .await?;
    let before = accounts(&found)?;
    let mut healed = sqlx::query("SELECT healed FROM healed").fetch_optional(&mut *transaction).await?.is_some();
    let mut books = Books::of(before.clone());
    let mut answers = Vec::with_capacity(batch.len());
    for asked in batch {
        answers.push(match asked {
            Asked::Enter { key, call, waited, .. } => {
                Told::Entered(enter(&mut books, healed, clock.now(), *key, call, *waited))
            }
            Asked::Heal(_) => {
                sqlx::query("INSERT INTO healed VALUES (true) ON CONFLICT DO NOTHING")
                    .execute(&mut *transaction)
                    .await?;
                healed = true;
                land(&mut books, clock.now());
                Told::Healed
            }
            // As they are committed: what this batch enters is another's to come.
            Asked::Rows(_) => {
                let all = sqlx::query("SELECT payment, account FROM accounts").fetch_all(&mut *transaction).await?;
                Told::Rows(Books::of(accounts(&all)?).rows())
            }
        });
    }
    let changed = books.into_accounts().into_iter().filter(|(payment, account)| before.get(payment) != Some(account));
    let (mut names, mut texts) = (Vec::new(), Vec::new());
    for (payment, account) in changed {
        names.push(payment.0.to_string());
        texts.push(serde_json::to_string(&account).map_err(|error| sqlx::Error::Encode(error.into()))?);
    }
    if !names.is_empty() {
        let upsert = "INSERT INTO accounts SELECT * FROM UNNEST($1::text[], $2::text[])
                      ON CONFLICT (payment) DO UPDATE SET account = EXCLUDED.account";
        sqlx::query(upsert).bind(&names).bind(&texts).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok((connection, answers))
}

fn payment(asked: &Asked) -> Option<PaymentId> {
    match asked {
        Asked::Enter { call, .. } => Some(parts(call).0),
        _ => None,
    }
}

fn accounts(rows: &[sqlx::postgres::PgRow]) -> Result<BTreeMap<PaymentId, Account>, sqlx::Error> {
    let read = rows.iter().map(|row| {
        let (payment, account): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let payment = payment.parse().map(PaymentId).map_err(|error: uuid::Error| sqlx::Error::Decode(error.into()))?;
        let account = serde_json::from_str(&account).map_err(|error| sqlx::Error::Decode(error.into()))?;
        Ok((payment, account))
    });
    read.collect()
}
