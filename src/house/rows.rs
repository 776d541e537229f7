//! Opens the read models and starts to follow the log into them. Rows in a file of this node that cannot be used are a fold
//! of the log like any other: they are set aside and folded afresh. Only rows that know more than the log are not: then it
//! is the log that has lost something.

use std::sync::Arc;

use engine::log::Log;
use engine::ports::Clock;
use engine::read_store::StoreFault;
use engine::record::Genesis;
use engine_runtime::projection::{Projection, ProjectionFault};
use engine_sql::SqlReadStore;

use super::data::{Data, Rows};
use crate::failure::Failure;

/// Opens the rows and starts following.
pub(super) async fn open(
    data: &Data,
    log: &Arc<dyn Log>,
    genesis: &Genesis,
    clock: &Arc<dyn Clock>,
) -> Result<(Arc<SqlReadStore>, Projection), Failure> {
    match follow(data.rows(), log, genesis, clock).await {
        Ok(following) => Ok(following),
        Err(RowsFault::Unusable(why)) if matches!(data.rows(), Rows::File(_)) => {
            let kept = data.set_rows_aside()?;
            tracing::warn!(%why, kept = %kept.display(), "the read models are folded afresh from the log");
            follow(data.rows(), log, genesis, clock).await.map_err(Failure::from)
        }
        Err(fault) => Err(fault.into()),
    }
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
    rows: &Rows,
    log: &Arc<dyn Log>,
    genesis: &Genesis,
    clock: &Arc<dyn Clock>,
) -> Result<(Arc<SqlReadStore>, Projection), RowsFault> {
    let rows = projections::open(&rows.url()).await.map_err(|fault| {
        let failure = Failure::of("cannot open the read models", &fault);
        match fault {
            StoreFault::Unavailable(_) => RowsFault::Other(failure),
            _ => RowsFault::Unusable(failure),
        }
    })?;
    let rows = Arc::new(rows);
    match projections::start(Arc::clone(log), genesis, rows.clone(), Arc::clone(clock)).await {
        Ok(projection) => Ok((rows, projection)),
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
