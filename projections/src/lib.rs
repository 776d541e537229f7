//! The workers that keep the shop's read models current. What a row becomes is the `views`' affair, how rows and
//! checkpoints are committed the read store's, and how the log is followed the engine's: this crate brings them together
//! and says by what rows are found.

mod scratch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use engine::log::Log;
use engine::ports::Clock;
use engine::position::{Offset, Partition};
use engine::read_store::{ReadStore, StoreFault};
use engine::record::Genesis;
use engine::view::{Table, View};
use engine_runtime::projection::cache::CacheOptions;
use engine_runtime::projection::{
    OperationsParts, PARKED_TABLE, Projection, ProjectionFault, ProjectionOptions, Sharing,
};
pub use engine_sql::Shared;
use engine_sql::{Index, Options, ShareOptions, SqlReadStore};
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

/// Opens the shop's read store: `postgres://user:password@host:port/database` (`?schema=name`, else `docket`),
/// `sqlite:PATH`, a plain path, or `sqlite::memory:`. A PostgreSQL that does not answer is waited for in the background;
/// until then everything asked of the store is `Unavailable`.
///
/// # Errors
/// Where waiting is in vain: another program's database, a newer version's, a URL that cannot be.
pub async fn open(url_or_path: &str) -> Result<SqlReadStore, StoreFault> {
    open_with(url_or_path, Options { wait_for_database: true, ..Options::default() }).await
}

/// The same with connections and waits as they are wanted; tables, indexes and versions are the shop's.
///
/// # Errors
/// As for [`open`]; also `Unavailable`, unless the options say to wait.
pub async fn open_with(url_or_path: &str, options: Options) -> Result<SqlReadStore, StoreFault> {
    let tables: Vec<Table> = ShopView.tables().iter().copied().chain([PARKED_TABLE]).collect();
    let options = Options { view_version: VIEW_VERSION, indexes: INDEXES, watched: &[PARKED_TABLE.name], ..options };
    SqlReadStore::open(url_or_path, &tables, options).await
}

/// A node's part in keeping read models current.
#[derive(Clone)]
pub struct Part {
    /// What the node calls itself, for people.
    pub node: String,
    /// Whether it feeds the store; else it only hears how far the store is.
    pub feed: bool,
    /// How long the partitions of a node that was killed wait for another one.
    pub lease: Duration,
    /// Workers at once; each takes one of the store's writing connections.
    pub workers: usize,
    /// Where the log really ends, if the log given is a copy that may be behind: see [`Sharing::log_end`].
    pub log_end: Option<Arc<dyn Fn(Partition) -> Option<Offset> + Send + Sync>>,
    /// Rows kept at hand for readers.
    pub cache: CacheOptions,
    /// Events folded in one transaction; twice as many where nodes share the store. 1 or more.
    pub batch_events_max: usize,
}

/// Events folded in one transaction unless said otherwise. While one batch is committed the next is folded: smaller ones
/// than the engine's own keep the process within its memory.
pub const BATCH_EVENTS_MAX: usize = 1_000;

impl Part {
    /// A node that feeds, over a log that is no copy. 5 s for leases, 2 workers, [`BATCH_EVENTS_MAX`].
    pub fn new(node: impl Into<String>) -> Self {
        let (lease, cache) = (Duration::from_secs(5), CacheOptions::default());
        let batch_events_max = BATCH_EVENTS_MAX;
        Self { node: node.into(), feed: true, lease, workers: 2, log_end: None, cache, batch_events_max }
    }
}

/// Follows the log into the store, beside other nodes where the store can be shared (PostgreSQL), alone where it cannot.
/// To leave: first [`Projection::stop`], then [`Shared::release`].
///
/// # Errors
/// Only where the store is this node's alone: if the store or the log cannot be used. A shared store's faults show in
/// [`Projection::status`].
pub async fn follow(
    log: Arc<dyn Log>,
    genesis: &Genesis,
    store: Arc<SqlReadStore>,
    clock: Arc<dyn Clock>,
    part: Part,
) -> Result<(Projection, Option<Shared>), ProjectionFault> {
    let share = ShareOptions { feed: part.feed, lease: part.lease, ..ShareOptions::new(part.node, genesis.partitions) };
    let Some(shared) = store.share(share) else {
        let options = ProjectionOptions { cache: part.cache, ..options(part.batch_events_max) };
        let alone = Projection::start(log, genesis, Arc::new(ShopView), store, clock, options);
        return Ok((alone.await?, None));
    };
    let sharing = Sharing { feeds: shared.feeds(), progress: shared.progress(), log_end: part.log_end };
    // A transaction over the network costs more than one in a file, however little is in it.
    let batches = options(2 * part.batch_events_max);
    let options = ProjectionOptions { workers: part.workers, cache: part.cache, ..batches };
    let projection = Projection::start_shared(log, genesis, Arc::new(ShopView), store, clock, sharing, options);
    Ok((projection, Some(shared)))
}

/// Starts the worker that follows the log into a store that is this node's alone.
pub async fn start(
    log: Arc<dyn Log>,
    genesis: &Genesis,
    store: Arc<dyn ReadStore>,
    clock: Arc<dyn Clock>,
) -> Result<Projection, ProjectionFault> {
    Projection::start(log, genesis, Arc::new(ShopView), store, clock, options(BATCH_EVENTS_MAX)).await
}

/// What an operator may do to the shop's projection.
pub type Operations = engine_runtime::projection::Operations<ShopView>;

/// Its name, for operators.
pub const NAME: &str = "shop";

/// What an operator may do to the projection that [`follow`] started. A check of everything folds into a file at
/// `scratch`, which is gone afterwards. Rows beside are
/// folded in transactions of [`Part::batch_events_max`].
pub fn operations(
    log: Arc<dyn Log>,
    genesis: &Genesis,
    store: Arc<SqlReadStore>,
    clock: Arc<dyn Clock>,
    live: Projection,
    scratch: PathBuf,
    batch_events_max: usize,
) -> Operations {
    Operations::new(OperationsParts {
        log,
        genesis: *genesis,
        view: Arc::new(ShopView),
        store,
        clock,
        live,
        options: ProjectionOptions { name: "shop-rebuild", ..options(batch_events_max) },
        scratch: scratch::at(scratch),
    })
}

fn options(batch_events_max: usize) -> ProjectionOptions {
    ProjectionOptions { name: NAME, batch_events_max, rows_cached_max: 512, ..ProjectionOptions::default() }
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
