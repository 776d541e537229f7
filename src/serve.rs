//! `docket serve`: one node as its configuration says, alone on an embedded log or one of several on Kafka. The same house
//! as `docket dev`, with the doors that an operator asked for.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use chassis::body::BodyLimits;
use chassis::gate::GateLimits;
use chassis::metrics::Metrics;
use chassis::server::{Exposure, Limits, Server};
use chassis::telemetry;
use clap::Args;
use engine_runtime::node::NodeOptions;
use engine_runtime::projection::cache::CacheOptions;
use engine_runtime::store::StoreOptions;
use tokio::net::TcpListener;

use crate::config::{Config, ConfigArguments, LogKind, OwnershipKind, Role};
use crate::descriptors::room_for;
use crate::failure::Failure;
use crate::house::data::{Data, Rows};
use crate::house::log::LogPlan;
use crate::house::rows::RowsPlan;
use crate::house::{self, Hint, OthersPlan, Plan, Roles};

/// Times as many commands may be under way to all other nodes as to one.
const FORWARDS_IN_ALL: usize = 4;

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
    let (others, grpc) = meet_others(&config).await?;
    house::run(plan(&config, others, grpc)?, server, &metrics, stop, |plan| {
        println!("docket {} · {} · {}", env!("CARGO_PKG_VERSION"), plan.name, plan.log);
        if grpc.is_some() {
            println!("  nodes    {}", plan.address);
        }
        println!(
            "  API      http://{address}/v1/orders     metrics /metrics     ready in {:.1} s",
            began.elapsed().as_secs_f64()
        );
    })
    .await
}

/// Where other nodes hand commands over, if there can be any.
async fn meet_others(config: &Config) -> Result<(Option<OthersPlan>, Option<SocketAddr>), Failure> {
    if config.log.kind == LogKind::Embedded {
        return Ok((None, None));
    }
    let cannot = |fault: std::io::Error| {
        Failure::of(format!("cannot listen on {}", config.listen.grpc), &fault)
            .next("choose another with --set listen.grpc=HOST:PORT")
    };
    let listener = TcpListener::bind(config.listen.grpc).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    let hint = match (config.does(Role::Command), config.ownership.kind) {
        (false, _) => Hint::Nothing,
        (true, OwnershipKind::Group) => Hint::Group,
        (true, OwnershipKind::Static) => Hint::Only(config.led_by_word()),
    };
    Ok((Some(OthersPlan { listener, hint, in_flight_max: config.limits.forwards }), Some(address)))
}

fn limits(config: &Config) -> Limits {
    Limits {
        header_time_max: ms(config.timeouts.head_ms),
        idle_max: ms(config.timeouts.idle_ms),
        connections_max: room_for(config.limits.connections),
        connections_per_address_max: config.limits.connections_per_address,
        drain_max: ms(config.timeouts.drain_requests_ms),
        ..Limits::DEFAULT
    }
}

fn plan(config: &Config, others: Option<OthersPlan>, grpc: Option<SocketAddr>) -> Result<Plan, Failure> {
    let rows = config.read_store.url.as_deref().map(|url| match url.strip_prefix("sqlite:") {
        Some(file) => Rows::File(file.into()),
        None => Rows::Shared(url.to_owned()),
    });
    let data = Data::keep(&config.data.0, rows)?;
    let log = match config.log.kind {
        LogKind::Embedded => LogPlan::Embedded(data.log(), config.log.cache_mib << 20),
        LogKind::Kafka => on_kafka(config, &data)?,
    };
    Ok(Plan {
        name: config.node_name(),
        address: config.node.advertise.clone().or(grpc.map(|grpc| grpc.to_string())).unwrap_or_default(),
        roles: Roles {
            command: config.does(Role::Command),
            projection: config.does(Role::Projection),
            query: config.does(Role::Query),
        },
        log,
        others,
        partitions: config.log.partitions,
        data,
        gates: GateLimits {
            commands_max: config.limits.commands_at_once,
            reads_max: config.limits.reads_at_once,
            wait_max: ms(config.timeouts.turn_ms),
        },
        node: NodeOptions {
            queue_max: config.limits.commands_waiting,
            queue_wait_max: ms(config.timeouts.queue_ms),
            answer_wait: ms(config.timeouts.answer_ms),
            cache_bytes: config.limits.state_cache_mib << 20,
            errands_max: config.limits.errands,
            open_max: config.limits.sagas_open,
            late_max: ms(config.timeouts.steps_late_ms),
            history_reads_max: config.limits.history_reads,
            forwards_max: FORWARDS_IN_ALL * config.limits.forwards,
            call_wait: ms(config.timeouts.gateway_ms),
            ..NodeOptions::default()
        },
        bodies: BodyLimits { bytes_max: config.limits.body_kib << 10, ..BodyLimits::DEFAULT },
        states: StoreOptions {
            cache_bytes: config.state_store.cache_mib << 20,
            ..StoreOptions::default().with_write_buffer(config.state_store.write_buffer_mib << 20)
        },
        rows: RowsPlan {
            readers: config.read_store.readers,
            page_cache_kib: config.read_store.page_cache_mib << 10,
            writers: config.read_store.writers,
            read_wait: ms(config.read_store.read_timeout_ms),
            write_wait: ms(config.read_store.write_timeout_ms),
            lease: ms(config.read_store.lease_ms),
            cache: CacheOptions {
                bytes_max: config.read_store.cache_mib << 20,
                age_max: ms(config.read_store.cache_age_ms),
                ..CacheOptions::default()
            },
            batch_events_max: config.limits.batch_events,
        },
        dev_routes: config.dev_routes,
        drain_within: ms(config.timeouts.drain_ms),
    })
}

#[cfg(feature = "kafka")]
fn on_kafka(config: &Config, data: &Data) -> Result<LogPlan, Failure> {
    Ok(LogPlan::Kafka(Box::new(config.kafka_options(&data.copy())?)))
}

#[cfg(not(feature = "kafka"))]
fn on_kafka(_config: &Config, _data: &Data) -> Result<LogPlan, Failure> {
    Err(Failure::plain("this build has no Kafka").next("build it with the feature kafka"))
}

fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a test turns is told to who bounds it; that it is held there is for its own tests.
    #[test]
    fn bounds_reach_those_who_keep_them() {
        let folder = std::env::temp_dir().join(format!("docket-serve-test-{}", uuid::Uuid::now_v7()));
        let mut config = Config::default();
        config.data.0 = folder.clone();
        config.log.cache_mib = 64;
        config.state_store.cache_mib = 5;
        config.state_store.write_buffer_mib = 3;
        config.read_store.readers = 7;
        config.read_store.page_cache_mib = 9;
        config.limits.body_kib = 32;
        config.limits.batch_events = 11;
        let plan = plan(&config, None, None).unwrap_or_else(|_| panic!("a plan"));
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(matches!(plan.log, LogPlan::Embedded(_, bytes) if bytes == 64 << 20));
        assert_eq!((plan.states.cache_bytes, plan.states.write_buffer_bytes), (5 << 20, 3 << 20));
        assert_eq!(plan.states.reserve_bytes, 36 << 20, "room for twelve of them");
        assert_eq!((plan.rows.readers, plan.rows.page_cache_kib, plan.rows.batch_events_max), (7, 9 << 10, 11));
        assert_eq!(plan.bodies.bytes_max, 32 << 10);
        #[cfg(feature = "kafka")]
        assert_eq!(config.kafka_options(&folder).map(|options| options.cache_bytes).ok(), Some(64 << 20));
    }

    #[test]
    fn what_nobody_set_is_as_in_dev() {
        let folder = std::env::temp_dir().join(format!("docket-serve-test-{}", uuid::Uuid::now_v7()));
        let mut config = Config::default();
        config.data.0 = folder.clone();
        let plan = plan(&config, None, None).unwrap_or_else(|_| panic!("a plan"));
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(matches!(plan.log, LogPlan::Embedded(_, bytes) if bytes == engine_embedded::CACHE_BYTES));
        assert_eq!(format!("{:?}", plan.states), format!("{:?}", StoreOptions::default()));
        assert_eq!(format!("{:?}", plan.rows), format!("{:?}", RowsPlan::default()));
        assert_eq!(format!("{:?}", plan.bodies), format!("{:?}", BodyLimits::DEFAULT));
    }
}
