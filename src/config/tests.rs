//! The table of keys and the types agree, and what only makes sense together is checked.

use std::path::Path;

use serde_json::Value;

use super::*;

fn read(file: Option<&Path>, environment: &[(&str, &str)], set: &[&str]) -> Result<(Config, Settings), Vec<String>> {
    let arguments =
        ConfigArguments { config: file.map(Path::to_owned), set: set.iter().map(|&pair| pair.to_owned()).collect() };
    let environment = environment.iter().map(|&(name, text)| (name.to_owned(), text.to_owned()));
    Config::read(&arguments, environment).map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

#[test]
fn what_nobody_set_is_one_node_on_an_embedded_log() {
    let (config, settings) = read(None, &[], &[]).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(settings.all().len(), KEYS.len());
    assert!(settings.all().iter().all(|setting| setting.source == "default"));
}

/// A key that the types do not have could be set and would do nothing; one that the table does not have could not be set.
#[test]
fn every_key_of_the_table_is_one_of_the_types_and_the_other_way() {
    fn leaves(prefix: &str, value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                let named = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
                fields.iter().for_each(|(name, value)| leaves(&named(name), value, found));
            }
            _ => found.push(prefix.to_owned()),
        }
    }
    let full = Config {
        node: NodeConfig { name: Some("n".to_owned()), advertise: Some("a:1".to_owned()) },
        ownership: OwnershipConfig { partitions: Some("0".to_owned()), ..OwnershipConfig::default() },
        read_store: ReadStoreConfig { url: Some("sqlite:x".to_owned()), ..ReadStoreConfig::default() },
        log: LogConfig {
            kafka: KafkaConfig {
                bootstrap: Some("b:1".to_owned()),
                min_insync_replicas: Some(2),
                tls_ca_file: Some("a".into()),
                tls_certificate_file: Some("a".into()),
                tls_key_file: Some("a".into()),
                sasl_mechanism: Some("plain".to_owned()),
                sasl_user: Some("a".to_owned()),
                sasl_password: Some("a".to_owned()),
                sasl_password_file: Some("a".into()),
                ..KafkaConfig::default()
            },
            ..LogConfig::default()
        },
        ..Config::default()
    };
    let mut of_types = Vec::new();
    leaves("", &serde_json::to_value(full).unwrap(), &mut of_types);
    of_types.sort();
    let mut of_table: Vec<&str> = KEYS.iter().map(|key| key.path).collect();
    of_table.sort_unstable();
    assert_eq!(of_types, of_table);
    for key in KEYS {
        assert!(key.doc.ends_with('.') && key.doc.len() < 140, "{}", key.path);
    }
}

#[test]
fn the_keys_of_the_contract_are_read() {
    let file = std::env::temp_dir().join(format!("docket-{}.toml", uuid::Uuid::now_v7()));
    std::fs::write(
        &file,
        r#"
        node = { name = "node-1", advertise = "127.0.0.1:7101" }
        roles = ["command", "projection", "query"]
        listen = { http = "127.0.0.1:8101", grpc = "127.0.0.1:7101" }
        data = "var/node-1"
        gateway = "simulator"
        [log]
        kind = "kafka"
        name = "shop"
        partitions = 12
        kafka = { bootstrap = "127.0.0.1:19192,127.0.0.1:19292", replication_factor = 3 }
        [read_store]
        url = "postgres://docket@127.0.0.1:5432/docket"
        "#,
    )
    .unwrap();
    let environment = [("DOCKET_LOG__KAFKA__BOOTSTRAP", "10.0.0.1:9092"), ("DOCKET_SERVER", "http://x")];
    let read = read(Some(&file), &environment, &["node.name=7"]);
    std::fs::remove_file(&file).unwrap();
    let (config, settings) = read.unwrap();
    assert_eq!(config.log.kafka.bootstrap.as_deref(), Some("10.0.0.1:9092"));
    assert_eq!(config.node_name(), "7");
    assert_eq!(config.node.advertise.as_deref(), Some("127.0.0.1:7101"));
    assert_eq!(settings.source("log.kafka.bootstrap"), "DOCKET_LOG__KAFKA__BOOTSTRAP");
    assert_eq!(settings.source("node.name"), "--set node.name");
    assert_eq!(settings.source("log.name"), format!("file {}", file.display()));
}

/// Commented-out lines too: an example that somebody uncomments must work as well.
#[test]
fn every_example_can_be_used() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut files = 0;
    for file in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_some_and(|extension| extension == "toml") {
            read(Some(&file), &[], &[]).unwrap_or_else(|faults| panic!("{}: {faults:?}", file.display()));
            let text = std::fs::read_to_string(&file).unwrap();
            let uncommented =
                text.lines().filter_map(|line| line.strip_prefix("# ")).filter(|line| line.contains(" = "));
            for key in uncommented.filter_map(|line| line.split(" = ").next()) {
                let known = KEYS.iter().any(|known| known.path.ends_with(&format!(".{key}")));
                assert!(known, "{}: {key}", file.display());
            }
            files += 1;
        }
    }
    assert!(files >= 4, "{files}");
}

#[test]
fn what_makes_no_sense_together_is_told_all_at_once() {
    let faults = |set: &[&str]| read(None, &[], set).unwrap_err();
    assert_eq!(
        faults(&["log.kind=kafka", "listen.grpc=0.0.0.0:7101", "ownership.partitions=0-3", "log.name=My Log"]),
        [
            "log.name: must be at most 100 of a-z, 0-9, - and _ (set by --set log.name)",
            "log.kafka.bootstrap: must be set: the brokers to begin with, such as 10.0.0.1:9092,10.0.0.2:9092 (set by default)",
            "node.advertise: must be set: listen.grpc is no address that other nodes could dial (set by default)",
            "ownership.partitions: is of use with ownership.kind = static only (set by --set ownership.partitions)",
        ]
    );
    assert!(faults(&["roles=query"])[0].starts_with("roles: an embedded log has one node"));
    assert!(faults(&["roles=command,query"])[0].starts_with("roles: a read store in a file of this node"));
    assert!(faults(&["timeouts.drain_ms=9000"])[0].starts_with("timeouts.drain_ms: with drain_requests_ms"));
    assert!(faults(&["read_store.url=mysql://x"])[0].starts_with("read_store.url: must begin with postgres://"));
    let kafka = ["log.kind=kafka", "log.kafka.bootstrap=10.0.0.1:9093", "log.kafka.sasl_mechanism=plain"];
    let told: Vec<String> = faults(&kafka)
        .into_iter()
        .filter(|fault| !fault.contains("this build has no TLS and SASL for Kafka"))
        .collect();
    assert_eq!(
        told,
        [
            "log.kafka.tls: must be true with sasl_mechanism = plain, which shows the password to whoever listens (set by default)",
            "log.kafka.sasl_user: must be set with sasl_mechanism (set by default)",
            "log.kafka.sasl_password: either this or sasl_password_file must be set with sasl_mechanism (set by default)",
        ]
    );
    let told = refused(
        &Config::read(&ConfigArguments { set: vec!["log.knd=x".to_owned()], ..Default::default() }, std::iter::empty())
            .unwrap_err(),
    );
    assert!(
        told.report(crate::output::Paint::never())
            .contains("log.knd: no such key; did you mean log.kind? (set by --set log.knd)")
    );
}

/// A node that was told to encrypt never goes on without.
#[test]
fn what_secures_kafka_needs_a_build_that_can() {
    let kafka = ["log.kind=kafka", "log.kafka.bootstrap=10.0.0.1:9093", "node.advertise=10.0.0.2:7101"];
    let user = ["log.kafka.sasl_mechanism=scram-sha-512", "log.kafka.sasl_user=docket", "log.kafka.sasl_password=x"];
    for secured in [&["log.kafka.tls=true"][..], &user] {
        let told = read(None, &[], &[&kafka[..], secured].concat());
        if cfg!(feature = "kafka-tls") {
            assert!(told.is_ok(), "{told:?}");
        } else {
            let told = told.unwrap_err();
            assert!(told.len() == 1 && told[0].contains("build it with the feature kafka-tls"), "{told:?}");
        }
    }
}

#[test]
fn partitions_are_listed_as_people_list_them() {
    assert_eq!(together::partitions("0-3,7, 2"), Ok(vec![0, 1, 2, 3, 7]));
    for wrong in ["", "3-1", "x", "1-", "-1"] {
        assert!(together::partitions(wrong).is_err(), "{wrong}");
    }
}
