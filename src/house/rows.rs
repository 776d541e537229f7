//! Opens the read models and starts to follow the log into them. Rows in a file of this node that cannot be used are a fold
//! of the log like any other: they are set aside and folded afresh. Only rows that know more than the log are not: then it
//! is the log that has lost something. Rows that nodes share are nobody's to set aside; while their database does not
//! answer the node goes on without.

use std::sync::Arc;
use std::time::Duration;

use engine::log::Log;
use engine::ports::Clock;
use engine::read_store::StoreFault;
use engine::record::Genesis;
use engine_runtime::projection::cache::CacheOptions;
use engine_runtime::projection::{Projection, ProjectionFault};
use engine_sql::{Options, SqlReadStore};
use projections::{BATCH_EVENTS_MAX, Part, Shared};

use super::Plan;
use super::data::{Data, Rows};
use super::log::Kept;
use crate::failure::Failure;

/// What a node bounds in its read models.
#[derive(Clone, Debug)]
pub(crate) struct RowsPlan {
    /// Connections that read at once.
    pub(crate) readers: u32,
    /// SQLite: pages the writing connection caches, in KiB; a reading one caches half as many.
    pub(crate) page_cache_kib: u32,
    /// A read store that nodes share: transactions that write at once, and tasks that make them.
    pub(crate) writers: u32,
    /// The same: longest statement of a read.
    pub(crate) read_wait: Duration,
    /// The same: longest statement of a write.
    pub(crate) write_wait: Duration,
    /// The same: how long the partitions of a node that was killed wait for another one to feed them.
    pub(crate) lease: Duration,
    /// Rows kept at hand for readers.
    pub(crate) cache: CacheOptions,
    /// Events folded in one transaction; twice as many where nodes share the store.
    pub(crate) batch_events_max: usize,
}

impl Default for RowsPlan {
    fn default() -> Self {
        let defaults = Options::default();
        Self {
            readers: defaults.readers,
            page_cache_kib: defaults.cache_kib,
            writers: 2,
            read_wait: defaults.read_max,
            write_wait: defaults.write_max,
            lease: Duration::from_secs(5),
            cache: CacheOptions::default(),
            batch_events_max: BATCH_EVENTS_MAX,
        }
    }
}

/// The read models, followed into.
pub(super) struct Followed {
    pub(super) rows: Arc<SqlReadStore>,
    pub(super) projection: Projection,
    shared: Option<Shared>,
}

impl Followed {
    /// Ends after the running commits, and lets other nodes go on.
    pub(super) async fn close(self) {
        self.projection.stop().await;
        if let Some(shared) = self.shared {
            shared.release().await;
        }
        self.rows.close().await;
    }
}

/// Opens the rows and starts following.
pub(super) async fn open(
    plan: &Plan,
    log: &Arc<dyn Log>,
    kept: &Arc<Kept>,
    genesis: &Genesis,
    clock: &Arc<dyn Clock>,
) -> Result<Followed, Failure> {
    match follow(plan, log, kept, genesis, clock).await {
        Ok(followed) => Ok(followed),
        Err(RowsFault::Unusable(why)) if matches!(plan.data.rows(), Rows::File(_)) => {
            set_aside(&plan.data, &why)?;
            follow(plan, log, kept, genesis, clock).await.map_err(Failure::from)
        }
        Err(fault) => Err(fault.into()),
    }
}

fn set_aside(data: &Data, why: &Failure) -> Result<(), Failure> {
    let kept = data.set_rows_aside()?;
    tracing::warn!(%why, kept = %kept.display(), "the read models are folded afresh from the log");
    Ok(())
}

/// Why rows cannot be followed into.
enum RowsFault {
    /// They cannot be read, or are another log's.
    Unusable(Failure),
    /// The log or the disk is at fault, not they.
    Other(Failure),
}

impl From<RowsFault> for Failure {
    fn from(fault: RowsFault) -> Self {
        match fault {
            RowsFault::Unusable(failure) | RowsFault::Other(failure) => failure,
        }
    }
}

async fn follow(
    plan: &Plan,
    log: &Arc<dyn Log>,
    kept: &Arc<Kept>,
    genesis: &Genesis,
    clock: &Arc<dyn Clock>,
) -> Result<Followed, RowsFault> {
    let rows = open_store(plan).await.map_err(|fault| {
        let failure = Failure::of("cannot open the read models", &fault);
        match fault {
            StoreFault::Unavailable(_) => RowsFault::Other(failure),
            _ => RowsFault::Unusable(failure),
        }
    })?;
    let rows = Arc::new(rows);
    let part = Part {
        feed: plan.roles.projection,
        lease: plan.rows.lease,
        workers: plan.rows.writers as usize,
        log_end: Kept::real_end(kept),
        cache: plan.rows.cache.clone(),
        batch_events_max: plan.rows.batch_events_max,
        ..Part::new(plan.name.clone())
    };
    match projections::follow(Arc::clone(log), genesis, rows.clone(), Arc::clone(clock), part).await {
        Ok((projection, shared)) => Ok(Followed { rows, projection, shared }),
        Err(fault) => {
            rows.close().await;
            let failure = Failure::of("cannot keep the read models current", &fault);
            Err(match &fault {
                ProjectionFault::Store(store) if !matches!(**store, StoreFault::Unavailable(_)) => {
                    RowsFault::Unusable(failure)
                }
                ProjectionFault::AheadOfLog { .. } => RowsFault::Other(
                    failure.next("restore the log from a newer copy: records that were durable are missing"),
                ),
                _ => RowsFault::Other(failure),
            })
        }
    }
}

async fn open_store(plan: &Plan) -> Result<SqlReadStore, StoreFault> {
    let url = plan.data.rows().url();
    match plan.data.rows() {
        Rows::Memory | Rows::File(_) => {
            // Who does not feed the file is not alone with it, should somebody else feed it.
            let options = Options {
                alone: plan.roles.projection,
                readers: plan.rows.readers,
                cache_kib: plan.rows.page_cache_kib,
                ..Options::default()
            };
            projections::open_with(&url, options).await
        }
        Rows::Shared(_) => {
            let options = Options {
                readers: plan.rows.readers,
                writers: plan.rows.writers,
                read_max: plan.rows.read_wait,
                write_max: plan.rows.write_wait,
                wait_for_database: true,
                ..Options::default()
            };
            projections::open_with(&url, options).await
        }
    }
}
