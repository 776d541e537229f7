//! What a node is told: every key with what it is for, what it may be and what it is without being set. Keys come from a
//! file, the environment (`DOCKET_LOG__KAFKA__BOOTSTRAP`) and `--set`; what is wrong is told all at once, with the place
//! that set it. What only makes sense together is checked here too, so that a node that starts can work.

use std::net::SocketAddr;
use std::path::PathBuf;

use chassis::config::{ConfigFault, Places, Settings};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

pub(crate) mod command;
#[cfg(feature = "kafka")]
mod kafka;
mod keys;
mod together;

pub(crate) use keys::KEYS;

/// What our environment variables begin with.
const PREFIX: &str = "DOCKET_";
/// Variables of ours that are no settings of a node: they are the command line's, and the tests'.
const NOT_KEYS: &[&str] = &["SERVER", "ACTOR", "CONFIG", "BIN", "TEST_"];

/// Where settings come from.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ConfigArguments {
    /// A TOML file with settings
    #[arg(long, env = "DOCKET_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting, over file and environment; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// A node's settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) node: NodeConfig,
    pub(crate) roles: RolesConfig,
    pub(crate) listen: ListenConfig,
    pub(crate) data: DataFolder,
    pub(crate) gateway: Gateway,
    pub(crate) dev_routes: bool,
    pub(crate) log: LogConfig,
    pub(crate) ownership: OwnershipConfig,
    pub(crate) read_store: ReadStoreConfig,
    pub(crate) state_store: StateStoreConfig,
    pub(crate) timeouts: TimeoutsConfig,
    pub(crate) limits: LimitsConfig,
    pub(crate) telemetry: TelemetryConfig,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NodeConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) advertise: Option<String>,
}

/// Words of `roles`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct RolesConfig(pub(crate) Vec<Role>);

impl Default for RolesConfig {
    fn default() -> Self {
        Self(vec![Role::Command, Role::Projection, Role::Query])
    }
}

/// What a node can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Command,
    Projection,
    Query,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ListenConfig {
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self { http: SocketAddr::from(([127, 0, 0, 1], 8080)), grpc: SocketAddr::from(([127, 0, 0, 1], 7101)) }
    }
}

/// Where a node keeps its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct DataFolder(pub(crate) PathBuf);

impl Default for DataFolder {
    fn default() -> Self {
        Self("docket-data".into())
    }
}

/// Which payment gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Gateway {
    #[default]
    Simulator,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LogConfig {
    pub(crate) kind: LogKind,
    pub(crate) name: String,
    pub(crate) partitions: u16,
    pub(crate) cache_mib: usize,
    pub(crate) kafka: KafkaConfig,
}

impl Default for LogConfig {
    fn default() -> Self {
        let kafka = KafkaConfig::default();
        Self { kind: LogKind::Embedded, name: "main".to_owned(), partitions: 12, cache_mib: 32, kafka }
    }
}

/// Where the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogKind {
    Embedded,
    Kafka,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct KafkaConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bootstrap: Option<String>,
    pub(crate) replication_factor: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) min_insync_replicas: Option<u16>,
    pub(crate) start_timeout_ms: u64,
    pub(crate) request_timeout_ms: u64,
    pub(crate) delivery_timeout_ms: u64,
    pub(crate) session_timeout_ms: u64,
    pub(crate) tls: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_ca_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_certificate_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_key_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sasl_mechanism: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sasl_user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sasl_password: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sasl_password_file: Option<PathBuf>,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            bootstrap: None,
            replication_factor: 3,
            min_insync_replicas: None,
            start_timeout_ms: 30_000,
            request_timeout_ms: 5_000,
            delivery_timeout_ms: 15_000,
            session_timeout_ms: 3_000,
            tls: false,
            tls_ca_file: None,
            tls_certificate_file: None,
            tls_key_file: None,
            sasl_mechanism: None,
            sasl_user: None,
            sasl_password: None,
            sasl_password_file: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct OwnershipConfig {
    pub(crate) kind: OwnershipKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) partitions: Option<String>,
}

impl Default for OwnershipConfig {
    fn default() -> Self {
        Self { kind: OwnershipKind::Group, partitions: None }
    }
}

/// Who says which node should lead what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OwnershipKind {
    Group,
    Static,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ReadStoreConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    pub(crate) readers: u32,
    pub(crate) writers: u32,
    pub(crate) read_timeout_ms: u64,
    pub(crate) write_timeout_ms: u64,
    pub(crate) lease_ms: u64,
    pub(crate) page_cache_mib: u32,
    pub(crate) cache_mib: u64,
    pub(crate) cache_age_ms: u64,
}

impl Default for ReadStoreConfig {
    fn default() -> Self {
        Self {
            url: None,
            readers: 4,
            writers: 2,
            read_timeout_ms: 3_000,
            write_timeout_ms: 15_000,
            lease_ms: 5_000,
            page_cache_mib: 4,
            cache_mib: 16,
            cache_age_ms: 300_000,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StateStoreConfig {
    pub(crate) cache_mib: u64,
    pub(crate) write_buffer_mib: u64,
}

impl Default for StateStoreConfig {
    fn default() -> Self {
        Self { cache_mib: 32, write_buffer_mib: 2 }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TimeoutsConfig {
    pub(crate) answer_ms: u64,
    pub(crate) gateway_ms: u64,
    pub(crate) drain_requests_ms: u64,
    pub(crate) drain_ms: u64,
    pub(crate) head_ms: u64,
    pub(crate) idle_ms: u64,
    pub(crate) turn_ms: u64,
    pub(crate) queue_ms: u64,
    pub(crate) steps_late_ms: u64,
}

impl Default for TimeoutsConfig {
    fn default() -> Self {
        Self {
            answer_ms: 30_000,
            gateway_ms: 30_000,
            drain_requests_ms: 4_000,
            drain_ms: 4_000,
            head_ms: 5_000,
            idle_ms: 60_000,
            turn_ms: 500,
            queue_ms: 1_000,
            steps_late_ms: 500,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitsConfig {
    pub(crate) connections: usize,
    pub(crate) connections_per_address: usize,
    pub(crate) commands_at_once: usize,
    pub(crate) reads_at_once: usize,
    pub(crate) commands_waiting: usize,
    pub(crate) errands: usize,
    pub(crate) sagas_open: usize,
    pub(crate) history_reads: usize,
    pub(crate) forwards: usize,
    pub(crate) body_kib: usize,
    pub(crate) batch_events: usize,
    pub(crate) state_cache_mib: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections: 4_096,
            connections_per_address: 1_024,
            commands_at_once: 512,
            reads_at_once: 512,
            commands_waiting: 1_024,
            errands: 1_024,
            sagas_open: 2_048,
            history_reads: 16,
            forwards: 1_024,
            body_kib: 256,
            batch_events: 1_000,
            state_cache_mib: 8,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TelemetryConfig {
    pub(crate) format: String,
    pub(crate) filter: String,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { format: "auto".to_owned(), filter: "warn,docket=info".to_owned() }
    }
}

impl Config {
    /// The settings of this command line and this process's environment, and where each came from.
    pub(crate) fn load(arguments: &ConfigArguments) -> Result<(Self, Settings), Failure> {
        Self::read(
            arguments,
            std::env::vars_os().filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?))),
        )
        .map_err(|faults| refused(&faults))
    }

    /// The same, with these settings above all others: for who needs only a part of them.
    #[cfg(feature = "kafka")]
    pub(crate) fn load_beside(arguments: &ConfigArguments, set: &[&str]) -> Result<Self, Failure> {
        let set = arguments.set.iter().map(String::as_str).chain(set.iter().copied()).map(str::to_owned).collect();
        Ok(Self::load(&ConfigArguments { config: arguments.config.clone(), set })?.0)
    }

    /// The settings of this command line and this environment.
    fn read(
        arguments: &ConfigArguments,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<(Self, Settings), Vec<ConfigFault>> {
        let places = Places {
            file: arguments.config.as_deref(),
            prefix: PREFIX,
            environment: environment.filter(|(name, _)| name.starts_with(PREFIX)).collect(),
            not_ours: NOT_KEYS,
            set: &arguments.set,
        };
        let settings = Settings::load(KEYS, &Self::default(), &places)?;
        let config: Self = settings.extract()?;
        let faults = together::check(&config, &settings);
        if faults.is_empty() { Ok((config, settings)) } else { Err(faults) }
    }

    /// Whether this node does that.
    pub(crate) fn does(&self, role: Role) -> bool {
        self.roles.0.contains(&role)
    }

    /// What this node is called: as set, else as the machine is.
    pub(crate) fn node_name(&self) -> String {
        let of_machine = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        self.node.name.clone().unwrap_or_else(of_machine)
    }

    /// What this node leads, where the configuration says so.
    pub(crate) fn led_by_word(&self) -> Vec<u16> {
        // What is not set or no list was refused when the settings were read.
        self.ownership.partitions.as_deref().and_then(|text| together::partitions(text).ok()).unwrap_or_default()
    }
}

/// All that is wrong, for a person.
fn refused(faults: &[ConfigFault]) -> Failure {
    let told = match faults.len() {
        1 => "the configuration cannot be used".to_owned(),
        many => format!("the configuration cannot be used: {many} faults"),
    };
    let failure = faults.iter().fold(Failure::plain(told), |failure, fault| failure.detail(fault.to_string()));
    failure.next("docket config reference    lists every key").next("docket explain config-refused")
}

#[cfg(test)]
mod tests;
