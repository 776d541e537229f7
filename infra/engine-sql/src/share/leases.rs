//! The task that keeps a node's leases: it says that the node lives, renews what it holds, takes what is free and gives
//! back what is too much, all in one transaction under one lock, by the database's clock. If it hears nothing from the
//! database for as long as a lease holds, the node feeds nothing until it does.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use engine::position::Partition;
use engine::read_store::{Batch, StoreFault};
use engine::view::ColumnKind;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use super::ShareOptions;
use super::plan::{Plan, plan};
use crate::connection::postgres::{PostgresDatabase, PostgresSession};
use crate::connection::{Bind, Database, Session, Statement};
use crate::store::{Inner, jittered};

const INTEGER: ColumnKind = ColumnKind::Integer;
const TEXT: ColumnKind = ColumnKind::Text;
/// 300 ms between saying that a partition will be given back and doing so: its worker ends the batch it is at.
const GIVING: Duration = Duration::from_millis(300);
/// 2 s: longest wait for the database when leaving. After that leases run out by themselves.
const LEAVE_MAX: Duration = Duration::from_secs(2);
/// 1 h: who claims to live longer than that wrote it by a clock that was wrong.
const SANE: &str = "expires_at BETWEEN clock_timestamp() AND clock_timestamp() + interval '1 hour'";
const UNTIL: &str = "clock_timestamp() + $1 * interval '1 millisecond'";

pub(super) struct Keeper {
    inner: Arc<Inner>,
    options: ShareOptions,
    /// This process.
    holder: String,
    feeding: watch::Sender<Arc<BTreeSet<Partition>>>,
    /// Not fed any more, to be given back.
    giving: BTreeSet<Partition>,
}

impl Keeper {
    pub(super) fn new(
        inner: Arc<Inner>,
        options: ShareOptions,
        feeding: watch::Sender<Arc<BTreeSet<Partition>>>,
        holder: String,
    ) -> Self {
        Self { inner, options, holder, feeding, giving: BTreeSet::new() }
    }

    /// Until it is stopped. Then it gives everything back.
    pub(super) async fn keep(mut self, mut nudged: watch::Receiver<()>, mut stopped: watch::Receiver<bool>) {
        let renew = self.options.lease / 3;
        let mut holds_until = Instant::now();
        while !*stopped.borrow_and_update() {
            let began = Instant::now();
            // What is dropped here closes its connection.
            let turn = tokio::time::timeout(renew, self.turn()).await;
            let turn = turn.unwrap_or_else(|_| Err(StoreFault::Unavailable("it does not answer".into())));
            match turn {
                Ok(mine) => {
                    holds_until = began + self.options.lease;
                    self.feed(mine);
                }
                Err(fault) => {
                    tracing::debug!(error = %fault, "leases could not be renewed");
                    if Instant::now() >= holds_until {
                        self.feed(BTreeSet::new());
                    }
                }
            }
            let wait = if self.giving.is_empty() { jittered(renew.as_millis() as u64) } else { GIVING };
            let mut next = Instant::now() + wait.min(renew);
            if holds_until > Instant::now() {
                next = next.min(holds_until);
            }
            tokio::select! {
                _ = stopped.changed() => {}
                // Somebody came or went. Soon, but not all at the same moment.
                Ok(()) = nudged.changed() => tokio::time::sleep(jittered(20)).await,
                () = tokio::time::sleep_until(next) => {}
            }
        }
        self.feed(BTreeSet::new());
        let _ = tokio::time::timeout(LEAVE_MAX, self.leave()).await;
    }

    fn feed(&self, mine: BTreeSet<Partition>) {
        self.feeding.send_if_modified(|feeds| {
            let changed = **feeds != mine;
            if changed {
                tracing::info!(projection.feeds = ?mine.iter().map(|at| at.0).collect::<Vec<_>>(), "partitions to feed");
                *feeds = Arc::new(mine);
            }
            changed
        });
    }

    /// Renews, takes and gives back. What this node is to feed from now on.
    async fn turn(&mut self) -> Result<BTreeSet<Partition>, StoreFault> {
        self.inner.in_use()?;
        let Database::Postgres(postgres) = &self.inner.database else { return Ok(BTreeSet::new()) };
        let mut session = begin(postgres).await?;
        let ms = Bind::Integer(self.options.lease.as_millis() as i64);
        let me = Bind::Text(self.holder.clone());
        let name = Bind::Text(self.options.name.clone());
        let live = format!(
            "INSERT INTO members (expires_at, holder, name) VALUES ({UNTIL}, $2, $3) \
             ON CONFLICT (holder) DO UPDATE SET expires_at = excluded.expires_at"
        );
        session.execute(Statement::new(live, vec![ms.clone(), me.clone(), name.clone()])).await?;
        session.execute(Statement::plain(format!("DELETE FROM members WHERE NOT ({SANE})"))).await?;
        let members = session.fetch(Statement::plain("SELECT holder FROM members"), &[TEXT]).await?;
        let members = members.iter().filter_map(|cells| cells[0].as_str().map(str::to_owned)).collect();
        let held = format!("SELECT \"partition\", holder FROM docket_leases WHERE {SANE}");
        let held = session.fetch(Statement::plain(held), &[INTEGER, TEXT]).await?;
        let held = held.iter().filter_map(|cells| lease(cells)).collect();
        let Plan { keep, take, mut give } = plan(self.options.partitions, &self.holder, &members, &held);
        let renew = format!("UPDATE docket_leases SET expires_at = {UNTIL} WHERE holder = $2");
        session.execute(Statement::new(renew, vec![ms.clone(), me.clone()])).await?;
        if !take.is_empty() {
            let take_them = format!(
                "INSERT INTO docket_leases (expires_at, holder, name, \"partition\", token) \
                 SELECT {UNTIL}, $2, $3, taken, 1 FROM UNNEST($4::bigint[]) AS taken ON CONFLICT (\"partition\") DO UPDATE \
                 SET holder = excluded.holder, name = excluded.name, token = docket_leases.token + 1, \
                 expires_at = excluded.expires_at"
            );
            let binds = vec![ms, me.clone(), name, partitions(&take)];
            session.execute(Statement::new(take_them, binds)).await?;
        }
        // First fed no more, and a moment later given back: so that the next holder is not in the way of our last batch.
        let leaving = give.intersection(&self.giving).copied().collect::<BTreeSet<_>>();
        if !leaving.is_empty() {
            let leave = "UPDATE docket_leases SET holder = '', expires_at = '-infinity' \
                WHERE holder = $1 AND \"partition\" = ANY ($2::bigint[])";
            session.execute(Statement::new(leave, vec![me, partitions(&leaving)])).await?;
            nudge(&mut session, postgres).await?;
        }
        session.commit().await?;
        give.retain(|at| !leaving.contains(at));
        self.giving = give;
        Ok(keep.union(&take).copied().collect())
    }

    async fn leave(&self) -> Result<(), StoreFault> {
        let Database::Postgres(postgres) = &self.inner.database else { return Ok(()) };
        let mut session = begin(postgres).await?;
        let me = Bind::Text(self.holder.clone());
        let leave = "UPDATE docket_leases SET holder = '', expires_at = '-infinity' WHERE holder = $1";
        session.execute(Statement::new(leave, vec![me.clone()])).await?;
        session.execute(Statement::new("DELETE FROM members WHERE holder = $1", vec![me])).await?;
        nudge(&mut session, postgres).await?;
        session.commit().await
    }
}

/// Whether all partitions that a batch feeds are this holder's; to be asked after the batch has moved their checkpoints.
/// Whoever takes a partition later finds those rows locked until this transaction ends, and then elsewhere: so of a feeder
/// from before and the one after it only one commits, also where the checkpoint goes nowhere.
///
/// # Errors
/// `Fenced`, of one that is somebody else's.
pub(crate) async fn holds(session: &mut impl Session, holder: &str, batch: &Batch) -> Result<(), StoreFault> {
    let fed = batch.checkpoints.iter().map(|(at, ..)| *at).collect::<BTreeSet<_>>();
    let mine = "SELECT \"partition\" FROM docket_leases WHERE holder = $1 AND \"partition\" = ANY ($2::bigint[])";
    let binds = vec![Bind::Text(holder.to_owned()), partitions(&fed)];
    let mine = session.fetch(Statement::new(mine, binds), &[INTEGER]).await?;
    let mine = mine.iter().filter_map(|cells| u16::try_from(cells.first()?.as_u64()?).ok()).map(Partition);
    let mine = mine.collect::<BTreeSet<_>>();
    match fed.difference(&mine).next() {
        None => Ok(()),
        Some(lost) => Err(StoreFault::Fenced(*lost)),
    }
}

async fn begin(postgres: &PostgresDatabase) -> Result<PostgresSession<'_>, StoreFault> {
    let begin = format!("BEGIN; SELECT pg_advisory_xact_lock({})", postgres.place().lock_key("leases"));
    postgres.begin_in(postgres.writer(), Some(&begin)).await
}

/// Tells other nodes to look at the leases now.
async fn nudge(session: &mut PostgresSession<'_>, postgres: &PostgresDatabase) -> Result<(), StoreFault> {
    let binds = vec![Bind::Text(postgres.place().channel()), Bind::Text(super::progress::LEASES.to_owned())];
    session.execute(Statement::new("SELECT pg_notify($1, $2)", binds)).await.map(|_| ())
}

fn partitions(them: &BTreeSet<Partition>) -> Bind {
    Bind::Integers(them.iter().map(|at| Some(i64::from(at.0))).collect())
}

fn lease(cells: &[Value]) -> Option<(Partition, String)> {
    let [at, holder] = cells else { return None };
    Some((Partition(u16::try_from(at.as_u64()?).ok()?), holder.as_str()?.to_owned()))
}
