//! `docket serve`: one node as its configuration says, alone on an embedded log or one of several on Kafka. The same house
//! as `docket dev`, with the doors that an operator asked for.

use std::time::{Duration, Instant};

use chassis::metrics::Metrics;
use chassis::server::{Exposure, Limits, Server};
use chassis::telemetry;
use clap::Args;
use engine_runtime::node::NodeOptions;

use crate::config::{Config, ConfigArguments, LogKind, Role};
use crate::failure::Failure;
use crate::house::data::{Data, Rows};
use crate::house::log::LogPlan;
use crate::house::{House, Plan, Roles};

/// What the help shows.
pub(crate) const EXAMPLES: &str = "\
Examples:
  docket serve --config docket.toml
  docket serve --config docket.toml --set listen.http=127.0.0.1:8101 --set node.name=node-2
  docket serve --set data=/var/lib/docket         an embedded log, all else by default";

/// What `docket serve` takes.
#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    #[command(flatten)]
    config: ConfigArguments,
}

/// Runs until SIGINT or SIGTERM.
pub(crate) async fn run(arguments: ServeArguments) -> Result<(), Failure> {
    let began = Instant::now();
    let (config, _) = Config::load(&arguments.config)?;
    let format = config.telemetry.format.parse().map_err(|fault| Failure::of("telemetry.format", &fault))?;
    telemetry::init(format, &config.telemetry.filter).map_err(|fault| Failure::of("cannot set up logging", &fault))?;
    let metrics = Metrics::install().map_err(|fault| Failure::of("cannot set up metrics", &fault))?;
    let stop = chassis::shutdown::on_signals().map_err(|fault| Failure::of("cannot listen for signals", &fault))?;
    tokio::spawn(metrics.clone().upkeep(stop.clone()));
    let server = Server::bind(config.listen.http, Exposure::Anyone, limits(&config)).await.map_err(|fault| {
        Failure::of("cannot listen", &fault).next("choose another with --set listen.http=HOST:PORT")
    })?;
    let address = server.local_addr();
    if !address.ip().to_canonical().is_loopback() {
        tracing::warn!(%address, "whoever reaches {address} may do everything: there is no TLS and no login yet");
    }
    if config.dev_routes {
        tracing::warn!("/dev/* is served: for tests only");
    }
    let house = House::open(plan(&config)?).await?;
    house
        .serve(server, &metrics, stop, |plan| {
            println!("docket {} · {} · {}", env!("CARGO_PKG_VERSION"), plan.name, plan.log);
            println!(
                "  API      http://{address}/v1/orders     metrics /metrics     ready in {:.1} s",
                began.elapsed().as_secs_f64()
            );
        })
        .await;
    Ok(())
}

fn limits(config: &Config) -> Limits {
    Limits {
        header_time_max: ms(config.timeouts.head_ms),
        idle_max: ms(config.timeouts.idle_ms),
        connections_max: config.limits.connections,
        connections_per_address_max: config.limits.connections_per_address,
        drain_max: ms(config.timeouts.drain_requests_ms),
        ..Limits::DEFAULT
    }
}

fn plan(config: &Config) -> Result<Plan, Failure> {
    let rows = config.read_store.url.as_deref().map(|url| match url.strip_prefix("sqlite:") {
        Some(file) => Rows::File(file.into()),
        None => Rows::Shared(url.to_owned()),
    });
    let data = Data::keep(&config.data.0, rows)?;
    let log = match config.log.kind {
        LogKind::Embedded => LogPlan::Embedded(data.log()),
        LogKind::Kafka => return Err(Failure::plain("this build has no Kafka")),
    };
    Ok(Plan {
        name: config.node_name(),
        address: config.advertised(),
        roles: Roles {
            command: config.does(Role::Command),
            projection: config.does(Role::Projection),
            query: config.does(Role::Query),
        },
        log,
        partitions: config.log.partitions,
        data,
        node: NodeOptions {
            queue_max: config.limits.commands_waiting,
            answer_wait: ms(config.timeouts.answer_ms),
            cache_bytes: config.limits.state_cache_mib << 20,
            errands_max: config.limits.errands,
            call_wait: ms(config.timeouts.gateway_ms),
            ..NodeOptions::default()
        },
        dev_routes: config.dev_routes,
        drain_within: ms(config.timeouts.drain_ms),
    })
}

fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}
