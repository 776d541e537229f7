//! What is wrong with settings that are each fine by themselves.

use chassis::config::{ConfigFault, Settings};

use super::{Config, LogKind, OwnershipKind, Role};

/// How long a whole stop may take: orchestrators kill what takes longer.
const STOP_MS_MAX: u64 = 9_500;

/// Every fault.
pub(super) fn check(config: &Config, settings: &Settings) -> Vec<ConfigFault> {
    let mut faults = Vec::new();
    let mut fault = |path: &str, what: &str| faults.push(settings.fault(path, what));
    let name_fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if config.log.name.len() > 100 || !config.log.name.chars().all(name_fits) {
        fault("log.name", "must be at most 100 of a-z, 0-9, - and _");
    }
    let stop_ms = config.timeouts.drain_requests_ms + config.timeouts.drain_ms;
    if stop_ms > STOP_MS_MAX {
        fault("timeouts.drain_ms", "with drain_requests_ms, must be at most 9,500: a stop takes at most 10 s");
    }
    match config.log.kind {
        LogKind::Embedded => {
            if !config.does(Role::Command) {
                fault("roles", "an embedded log has one node, so that node needs the command role");
            }
        }
        LogKind::Kafka => on_kafka(config, &mut fault),
    }
    match config.read_store.url.as_deref() {
        Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => {}
        Some(url) if !url.starts_with("sqlite:") => {
            fault("read_store.url", "must begin with postgres://, postgresql:// or sqlite:");
        }
        _ if config.does(Role::Query) && !config.does(Role::Projection) => {
            fault("roles", "a read store in a file of this node is fed by this node alone: add the projection role");
        }
        _ => {}
    }
    faults
}

fn on_kafka(config: &Config, fault: &mut impl FnMut(&str, &str)) {
    if config.log.kafka.bootstrap.is_none() {
        fault("log.kafka.bootstrap", "must be set: the brokers to begin with, such as 10.0.0.1:9092,10.0.0.2:9092");
    }
    if !cfg!(feature = "kafka") {
        fault("log.kind", "this build has no Kafka: build it with the feature kafka");
    }
    let kafka = &config.log.kafka;
    if kafka.request_timeout_ms > kafka.delivery_timeout_ms {
        fault("log.kafka.request_timeout_ms", "must be at most delivery_timeout_ms");
    }
    if kafka.min_insync_replicas.is_some_and(|least| least > kafka.replication_factor) {
        fault("log.kafka.min_insync_replicas", "must be at most replication_factor");
    }
    if !cfg!(feature = "kafka-tls") && (kafka.tls || kafka.sasl_mechanism.is_some()) {
        fault("log.kafka.tls", "this build has no TLS and SASL for Kafka: build it with the feature kafka-tls");
    }
    if !kafka.tls && kafka.sasl_mechanism.as_deref() == Some("plain") {
        fault("log.kafka.tls", "must be true with sasl_mechanism = plain, which shows the password to whoever listens");
    }
    if kafka.tls_certificate_file.is_some() != kafka.tls_key_file.is_some() {
        fault("log.kafka.tls_certificate_file", "must be set together with tls_key_file");
    }
    if kafka.sasl_mechanism.is_some() {
        if kafka.sasl_user.is_none() {
            fault("log.kafka.sasl_user", "must be set with sasl_mechanism");
        }
        if kafka.sasl_password.is_none() == kafka.sasl_password_file.is_none() {
            fault("log.kafka.sasl_password", "either this or sasl_password_file must be set with sasl_mechanism");
        }
    }
    if config.node.advertise.is_none() && config.listen.grpc.ip().is_unspecified() {
        fault("node.advertise", "must be set: listen.grpc is no address that other nodes could dial");
    }
    match (config.ownership.kind, config.ownership.partitions.as_deref()) {
        (OwnershipKind::Group, None) => {}
        (OwnershipKind::Group, Some(_)) => fault("ownership.partitions", "is of use with ownership.kind = static only"),
        (OwnershipKind::Static, None) => {
            fault("ownership.partitions", "must be set: what this node leads, such as 0-3,7")
        }
        (OwnershipKind::Static, Some(text)) => {
            if let Err(what) = partitions(text) {
                fault("ownership.partitions", &what);
            }
        }
    }
}

/// Reads `0-3,7`.
pub(crate) fn partitions(text: &str) -> Result<Vec<u16>, String> {
    let number = |text: &str| text.trim().parse::<u16>().map_err(|_| format!("{text:?} is no partition; write 0-3,7"));
    let mut all = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                if first > last {
                    return Err(format!("{part:?} is no range; write 0-3,7"));
                }
                all.extend(first..=last);
            }
            None => all.push(number(part)?),
        }
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}
