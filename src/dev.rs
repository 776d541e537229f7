//! `docket dev`: everything in one process on embedded storage. Leads all partitions, keeps the read models current, serves
//! HTTP on loopback, `/dev/*` included, and drains when asked to stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use chassis::body::BodyLimits;
use chassis::gate::GateLimits;
use chassis::metrics::Metrics;
use chassis::server::{Exposure, Limits, Server};
use chassis::telemetry::{self, LogFormat};
use clap::{Args, ValueEnum};
use engine_embedded::CACHE_BYTES;
use engine_runtime::node::NodeOptions;
use engine_runtime::store::StoreOptions;

use crate::demo;
use crate::descriptors::room_for;
use crate::failure::Failure;
use crate::house::data::Data;
use crate::house::log::LogPlan;
use crate::house::rows::RowsPlan;
use crate::house::{self, Plan, Roles};

/// Partitions of a new log.
pub(crate) const PARTITIONS: u16 = 12;
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
        Limits {
            drain_max: DRAIN_REQUESTS_WITHIN,
            connections_max: room_for(Limits::DEFAULT.connections_max),
            ..Limits::DEFAULT
        },
    )
    .await
    .map_err(|fault| Failure::of("cannot listen", &fault).next("choose another with --listen 127.0.0.1:0"))?;
    let address = server.local_addr();

    let data = if arguments.memory { Data::forget() } else { Data::keep(&arguments.data, None) }?;
    let plan = Plan {
        name: "dev".to_owned(),
        address: address.to_string(),
        roles: Roles::ALL,
        log: if arguments.memory { LogPlan::Memory } else { LogPlan::Embedded(data.log(), CACHE_BYTES) },
        others: None,
        partitions: PARTITIONS,
        data,
        gates: GateLimits::DEFAULT,
        node: NodeOptions::default(),
        bodies: BodyLimits::DEFAULT,
        states: StoreOptions::default(),
        rows: RowsPlan::default(),
        dev_routes: true,
        drain_within: DRAIN_WITHIN,
    };
    let demo = arguments.demo.is_some();
    let trading = stop.clone();
    house::run(plan, server, &metrics, stop, |plan| {
        greet(&plan.data, address, began.elapsed(), demo);
        if demo {
            tokio::spawn(demo::run(address, trading));
        }
    })
    .await
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
