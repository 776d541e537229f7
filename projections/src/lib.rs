//! The workers that keep the shop's read models current. What a row becomes is the `views`' affair, how rows and
//! checkpoints are committed the read store's, and how the log is followed the engine's: this crate brings them together
//! and says by what rows are found.

use std::sync::Arc;

use engine::log::Log;
use engine::ports::Clock;
use engine::read_store::{ReadStore, StoreFault};
use engine::record::Genesis;
use engine::view::{Table, View};
use engine_runtime::projection::{PARKED_TABLE, Projection, ProjectionFault, ProjectionOptions};
use engine_sql::{Index, Options, SqlReadStore};
use schemas::resource::saga::SagaState;
use views::{ORDERS, SAGAS, STOCK, ShopView};

/// Raised whenever a view's fold or columns change: rows of another version are dropped and folded afresh.
pub const VIEW_VERSION: u32 = 1;

/// What lists are found and sorted by: each filter with the sort behind it, so that no page sorts more than itself.
const INDEXES: &[Index] = &[
    Index { table: ORDERS.name, columns: &["placed_at"] },
    Index { table: ORDERS.name, columns: &["customer_id", "placed_at"] },
    Index { table: ORDERS.name, columns: &["status", "placed_at"] },
    Index { table: STOCK.name, columns: &["location_id", "sku"] },
    Index { table: SAGAS.name, columns: &["started_at"] },
    Index { table: SAGAS.name, columns: &["state", "started_at"] },
    Index { table: SAGAS.name, columns: &["order_id"] },
];

/// Opens the shop's read store: `sqlite:PATH`, a plain path, or `sqlite::memory:`.
pub async fn open(url_or_path: &str) -> Result<SqlReadStore, StoreFault> {
    let tables: Vec<Table> = ShopView.tables().iter().copied().chain([PARKED_TABLE]).collect();
    let options = Options { view_version: VIEW_VERSION, indexes: INDEXES, ..Options::default() };
    SqlReadStore::open(url_or_path, &tables, options).await
}

/// Starts the worker that follows the log into the store.
pub async fn start(
    log: Arc<dyn Log>,
    genesis: &Genesis,
    store: Arc<dyn ReadStore>,
    clock: Arc<dyn Clock>,
) -> Result<Projection, ProjectionFault> {
    // A row is held as a JSON value, which takes some ten kilobytes for an order of three lines, and a batch is held
    // three times while it is committed: smaller ones than the engine's own keep the process within its memory.
    let options = ProjectionOptions {
        name: "shop",
        batch_events_max: 1_000,
        rows_cached_max: 512,
        ..ProjectionOptions::default()
    };
    Projection::start(log, genesis, Arc::new(ShopView), store, clock, options).await
}

/// Counts the sagas by state into the gauge `docket_sagas`. For whoever renders metrics, right before.
pub async fn count_sagas(store: &SqlReadStore) {
    let counted = match store.count_by(SAGAS.name, "state").await {
        Ok(counted) => counted,
        // The gauge stays as it was; that the store does not answer shows in readiness.
        Err(_) => return,
    };
    for (state, _) in SagaState::ALL {
        let here = |(value, _): &&(serde_json::Value, u64)| value == state;
        let count = counted.iter().find(here).map_or(0, |(_, count)| *count);
        metrics::gauge!("docket_sagas", "state" => state).set(count as f64);
    }
}
