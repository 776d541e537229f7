//! `docket dev`: everything in one process on embedded storage. Opens the log and what is folded from it, leads all
//! partitions, keeps the read models current, serves HTTP on loopback, and drains when asked to stop.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use chassis::app::App;
use chassis::cursor::CursorKey;
use chassis::health::Health;
use chassis::metrics::Metrics;
use chassis::problem::{Code, Pages};
use chassis::respond::Reply;
use chassis::server::{Exposure, Limits, Server};
use chassis::telemetry::{self, LogFormat};
use clap::{Args, ValueEnum};
use command_side::CommandSide;
use command_side::gateway::Simulator;
use domain::Shop;
use engine::log::Log;
use engine::memory::MemoryLog;
use engine::ports::Clock;
use engine::position::{LogId, Partition};
use engine::read_store::StoreFault;
use engine::record::{FORMAT, Genesis, PLACEMENT_RULE};
use engine_embedded::{EmbeddedLog, KnownDurable, OpenFault, Options};
use engine_runtime::node::{Node, NodeOptions, Parts};
use engine_runtime::projection::{Projection, ProjectionFault, ProjectionStatus};
use engine_runtime::store::{self, StateStore, StoreOptions};
use engine_runtime::system::{SystemChance, SystemClock};
use engine_sql::SqlReadStore;
use http::StatusCode;
use query_side::QuerySide;
use rand::RngExt;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::demo;
use crate::failure::Failure;

mod data;

use data::{Data, Files};

/// Partitions of a new log.
const PARTITIONS: u16 = 12;
/// How long requests under way may take once it drains.
const DRAIN_REQUESTS_WITHIN: Duration = Duration::from_secs(4);
/// How long a drain of the shards may take before the rest is left as if the process had died, which loses nothing.
const DRAIN_WITHIN: Duration = Duration::from_secs(4);

/// What `docket dev` takes.
#[derive(Debug, Args)]
pub(crate) struct DevArguments {
    /// Where to listen; port 0 picks a free one and prints it
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Where to keep everything; delete it to start over
    #[arg(long, default_value = "docket-data", value_name = "DIR")]
    data: PathBuf,
    /// Keep everything in memory: gone when it stops
    #[arg(long, conflicts_with = "data")]
    memory: bool,
    /// Seed a catalogue and let a trickle of orders run, some of which fail on purpose
    #[arg(long, value_name = "NAME")]
    demo: Option<Demo>,
    /// How to log to stderr: text on a terminal, JSON lines elsewhere, unless said otherwise
    #[arg(long, default_value = "auto", value_name = "auto|json|text")]
    log: LogFormat,
}

/// The demos there are.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Demo {
    /// Customers, products, orders
    Shop,
}

/// Runs until SIGINT or SIGTERM.
pub(crate) async fn run(arguments: DevArguments) -> Result<(), Failure> {
    let began = Instant::now();
    telemetry::init(arguments.log, "warn,docket=info").map_err(|fault| Failure::of("cannot set up logging", &fault))?;
    let metrics = Metrics::install().map_err(|fault| Failure::of("cannot set up metrics", &fault))?;
    let stop = chassis::shutdown::on_signals().map_err(|fault| Failure::of("cannot listen for signals", &fault))?;
    tokio::spawn(metrics.clone().upkeep(stop.clone()));
    // Before anything is opened: an address that is taken is learnt of first.
    let server = Server::bind(
        arguments.listen,
        Exposure::LoopbackOnly,
        Limits { drain_max: DRAIN_REQUESTS_WITHIN, ..Limits::DEFAULT },
    )
    .await
    .map_err(|fault| Failure::of("cannot listen", &fault).next("choose another with --listen 127.0.0.1:0"))?;
    let address = server.local_addr();

    let data = Data::choose(&arguments.data, arguments.memory)?;
    let house = House::open(&data, address).await?;
    let app = App::new(house.routes(&metrics, &stop));
    let serving = tokio::spawn(server.run(app, stop.clone()));
    greet(&data, address, began.elapsed(), arguments.demo.is_some());
    let demo = arguments.demo.map(|Demo::Shop| tokio::spawn(demo::run(address, stop.clone())));

    stop.cancelled().await;
    if let Some(demo) = demo {
        demo.abort();
    }
    if serving.await.is_err() {
        tracing::error!("the server's task ended badly");
    }
    house.close().await;
    Ok(())
}

/// Everything that runs behind the server.
struct House {
    embedded: Option<Arc<EmbeddedLog>>,
    node: Node<Shop>,
    states: Arc<StateStore<Shop>>,
    projection: Projection,
    rows: Arc<SqlReadStore>,
    gateway: Simulator,
    cursors: CursorKey,
}

impl House {
    async fn open(data: &Data, address: SocketAddr) -> Result<Self, Failure> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let Opened { log, embedded, genesis, states } = open_log(data, clock.as_ref()).await?;
        let gateway = match data.files() {
            Some(Files { gateway, .. }) => Simulator::open(gateway, Arc::clone(&clock))
                .map_err(|fault| Failure::of("cannot open the payment gateway simulator", &fault))?,
            None => Simulator::in_memory(Arc::clone(&clock)),
        };
        let node = Node::start(Parts {
            log: Arc::clone(&log),
            genesis,
            store: Arc::clone(&states),
            decider: Arc::clone(states.decider()),
            outside: Arc::new(gateway.clone()),
            clock: Arc::clone(&clock),
            chance: Arc::new(SystemChance),
            node_name: "dev".to_owned(),
            address: address.to_string(),
            options: NodeOptions::default(),
        })
        .await
        .map_err(|fault| Failure::of("cannot lead the log", &fault))?;
        let (rows, projection) = open_rows(data, &log, &genesis, &clock).await?;
        // Cursors outlive a restart: their key follows from the log's own.
        let cursors = CursorKey::new(&[&genesis.fingerprint_key[..], b"cursors"].concat());
        Ok(Self { embedded, node, states, projection, rows, gateway, cursors })
    }

    /// Every route there is.
    fn routes(&self, metrics: &Metrics, stop: &CancellationToken) -> Router {
        let reads = QuerySide {
            node: self.node.clone(),
            streams: Arc::clone(&self.states),
            projection: self.projection.clone(),
            store: Arc::clone(&self.rows),
            cursors: self.cursors.clone(),
            draining: stop.clone(),
        };
        let commands = CommandSide::new(self.node.clone(), self.gateway.clone(), stop.clone());
        let node = self.node.clone();
        let projection = self.projection.clone();
        let health = Health::builder(stop.clone())
            .check("commands", move || node.status().unready().map_or(Ok(()), Err))
            .check("read models", move || following(&projection))
            .build();
        Router::new()
            .merge(commands.routes())
            .merge(commands.dev_routes())
            .merge(reads.routes())
            .merge(pages().routes())
            .merge(health.routes())
            .merge(metrics.routes().layer(from_fn_with_state(Arc::clone(&self.rows), counting_sagas)))
            .route("/version", get(version))
    }

    /// Settles what is under way, then closes everything in the order in which it rests on one another.
    async fn close(self) {
        if !self.node.drain(DRAIN_WITHIN).await {
            tracing::warn!("not everything settled in {} s; it will after the next start", DRAIN_WITHIN.as_secs());
        }
        self.projection.stop().await;
        self.rows.close().await;
        let embedded = self.embedded;
        let states = self.states;
        let closing = tokio::task::spawn_blocking(move || {
            if let Err(fault) = states.persist() {
                tracing::warn!(error = &fault as &dyn std::error::Error, "the state store will be folded afresh");
            }
            if let Some(log) = embedded {
                log.close();
            }
        });
        if closing.await.is_err() {
            tracing::error!("closing the log failed; it is recovered at the next start");
        }
    }
}

/// Looks how many sagas stand where before the metrics are told: nobody needs to know between two scrapes.
async fn counting_sagas(State(rows): State<Arc<SqlReadStore>>, request: Request, next: Next) -> Response {
    projections::count_sagas(&rows).await;
    next.run(request).await
}

/// Whether the read models are kept current.
fn following(projection: &Projection) -> Result<(), String> {
    match projection.status() {
        ProjectionStatus::Running => Ok(()),
        ProjectionStatus::Waiting(why) => Err(why),
        ProjectionStatus::Stopped => Err("stopped".to_owned()),
        ProjectionStatus::Failed(fault) => Err(fault.to_string()),
    }
}

/// The pages of all problems, generic and the shop's.
pub(crate) fn pages() -> Pages {
    Pages::with(schemas::problem::ALL.iter().map(|code| Code::new(code.name, code.status, code.title, code.page)))
}

async fn version() -> Reply {
    Reply::json(StatusCode::OK, &json!({"name": "docket", "version": env!("CARGO_PKG_VERSION")}))
}

/// The log, and what the node has folded of it.
struct Opened {
    log: Arc<dyn Log>,
    embedded: Option<Arc<EmbeddedLog>>,
    genesis: Genesis,
    states: Arc<StateStore<Shop>>,
}

async fn open_log(data: &Data, clock: &dyn Clock) -> Result<Opened, Failure> {
    let mut fingerprint_key = [0; 32];
    rand::rng().fill(&mut fingerprint_key);
    let founding = Genesis {
        log: LogId(Uuid::now_v7()),
        partitions: PARTITIONS,
        placement_rule: PLACEMENT_RULE,
        format: FORMAT,
        fingerprint_key,
        created_at: clock.now(),
    };
    let folder = data.states().to_owned();
    let Some(Files { log: log_folder, .. }) = data.files() else {
        let log = Arc::new(MemoryLog::new(founding));
        let states = blocking(move || open_states(&folder, founding.log, founding.partitions)).await?;
        return Ok(Opened { log, embedded: None, genesis: founding, states });
    };
    let log_folder = log_folder.clone();
    blocking(move || {
        // What the state store has folded was durable once. The log asks for it before it takes its own end for torn.
        let early: Arc<OnceLock<Arc<StateStore<Shop>>>> = Arc::default();
        let asked = Arc::clone(&early);
        let states_folder = folder.clone();
        let known_durable: KnownDurable = Arc::new(move |log, partitions| {
            // One that cannot be opened knows nothing; whether that matters is told when it is opened in earnest.
            let Ok(states) = open_states(&states_folder, log, partitions) else { return BTreeMap::new() };
            let known = (0..partitions).map(Partition).map(|it| (it, states.checkpoint(it).0.next_offset)).collect();
            let _ = asked.set(states);
            known
        });
        let options = Options { known_durable, ..Options::or_found(founding) };
        let (log, report) = EmbeddedLog::open(&log_folder, options).map_err(|fault| cannot_open(&fault))?;
        if let Some(torn) = &report.torn {
            tracing::warn!(
                log.file = %torn.file.display(), log.offset = torn.offset, log.bytes = torn.bytes,
                "cut a group that was being written when the process died; nothing in it was acknowledged"
            );
        }
        let genesis = *log.genesis();
        let states = match early.get() {
            Some(states) => Arc::clone(states),
            None => open_states(&folder, genesis.log, genesis.partitions)?,
        };
        let log = Arc::new(log);
        Ok(Opened { log: Arc::<EmbeddedLog>::clone(&log), embedded: Some(log), genesis, states })
    })
    .await
}

/// Runs what waits for a disk where waiting harms nobody.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Failure::plain("opening the data directory failed"))?
}

fn cannot_open(fault: &OpenFault) -> Failure {
    let failure = Failure::of("cannot open the log", fault);
    match fault {
        OpenFault::InUse { .. } => failure.next("stop that process, or use another directory with --data DIR"),
        OpenFault::Damaged { .. } | OpenFault::Behind { .. } => {
            failure.next("restore the directory from a copy; nothing in it was changed")
        }
        _ => failure,
    }
}

fn open_states(folder: &Path, log: LogId, partitions: u16) -> Result<Arc<StateStore<Shop>>, Failure> {
    let (store, opened) = StateStore::open(folder, log, partitions, Arc::new(Shop), StoreOptions::default())
        .map_err(|fault| Failure::of("cannot open the state store", &fault))?;
    if let store::Opened::Wiped(why) = opened {
        tracing::warn!(why, "the state store is folded afresh from the log");
    }
    Ok(Arc::new(store))
}

/// Opens the rows and starts following. Rows that cannot be used are a fold of the log like any other: they are set aside
/// and folded afresh. Only rows that know more than the log are not: then it is the log that has lost something.
async fn open_rows(
    data: &Data,
    log: &Arc<dyn Log>,
    genesis: &Genesis,
    clock: &Arc<dyn Clock>,
) -> Result<(Arc<SqlReadStore>, Projection), Failure> {
    match follow(data, log, genesis, clock).await {
        Ok(following) => Ok(following),
        Err(RowsFault::Unusable(why)) if data.files().is_some() => {
            let kept = data.set_rows_aside()?;
            tracing::warn!(%why, kept = %kept.display(), "the read models are folded afresh from the log");
            follow(data, log, genesis, clock).await.map_err(Failure::from)
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
    data: &Data,
    log: &Arc<dyn Log>,
    genesis: &Genesis,
    clock: &Arc<dyn Clock>,
) -> Result<(Arc<SqlReadStore>, Projection), RowsFault> {
    let rows = projections::open(data.rows()).await.map_err(|fault| {
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

/// What it is, where its data is, and what to type next.
fn greet(data: &Data, address: SocketAddr, took: Duration, demo: bool) {
    println!(
        "docket {} · embedded · {data} · not for production: loopback, no TLS, no login",
        env!("CARGO_PKG_VERSION")
    );
    println!("  API      http://{address}/v1/orders     metrics /metrics     ready in {:.1} s", took.as_secs_f64());
    if demo {
        println!("  demo     12 products, 3 customers, an order a second; one payment in ten fails on purpose");
    }
    println!("  stop     Ctrl-C; what was acknowledged is safe, also after kill -9");
    println!("Next, in another terminal:");
    // As it was called here, so that the line can be typed as it stands.
    let me = std::env::args().next().unwrap_or_else(|| "docket".to_owned());
    let server = if address.port() == 8080 { String::new() } else { format!(" --server http://{address}") };
    if demo {
        println!("  {me}{server} order list");
    } else {
        println!("  {me}{server} stock set shop-1 beans-1kg 100");
    }
}
