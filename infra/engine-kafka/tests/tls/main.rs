//! The log on a real Apache Kafka that speaks TLS and asks who comes: `cargo test --features tls --test tls`.

use std::path::{Path, PathBuf};

use engine::log::Log;
use engine::position::{Offset, Partition};
use engine_kafka::{KafkaFault, KafkaGroup, KafkaLog, KafkaOptions, Sasl, SaslMechanism, Secret, Security, check};
use xtask::kafka::Secured;

#[allow(dead_code, reason = "tests without TLS need more of it")]
#[path = "../kafka/support.rs"]
mod support;

use support::{PATIENCE, Writer, all, fresh_name, genesis, needs_kafka, open};

/// Options for a log that no other test has, at one of the broker's doors.
fn options_at(address: String, kafka: &Secured, directory: &Path) -> KafkaOptions {
    let mut options = KafkaOptions::new(address, fresh_name(), directory);
    options.replication = 1;
    options.segment_bytes_first = 256 << 10;
    options.segment_bytes = 1 << 20;
    options.patience = PATIENCE;
    options.security = Security { tls: true, ca_file: Some(kafka.authority()), ..Security::default() };
    options
}

/// Options for a user of the broker.
fn options(kafka: &Secured, mechanism: SaslMechanism, directory: &Path) -> KafkaOptions {
    let mut options = options_at(kafka.address(), kafka, directory);
    let password = Secret::new(Secured::PASSWORD);
    options.security.sasl = Some(Sasl { mechanism, user: Secured::USER.to_owned(), password });
    options
}

/// Options for who shows a certificate.
fn options_with(certificate: (PathBuf, PathBuf), kafka: &Secured, directory: &Path) -> KafkaOptions {
    let mut options = options_at(kafka.guarded_address(), kafka, directory);
    (options.security.certificate_file, options.security.key_file) = (Some(certificate.0), Some(certificate.1));
    options
}

/// Whether what is appended comes back, also after a restart, and a group can be joined.
fn serves(options: &KafkaOptions) {
    let log = open(options, Some(&genesis(2)));
    let record = |number: usize| format!("record {number}").into_bytes();
    assert_eq!(Writer::new(&log, 1).append_many(500, record), (1..=500).map(Offset).collect::<Vec<_>>());
    assert_eq!(log.catch_up_end(Partition(1)), Ok(Offset(501)));
    drop(log);
    let log = open(options, None);
    let found = all(&log, 1);
    assert_eq!(found.len(), 501);
    assert!(found[1..].iter().enumerate().all(|(number, bytes)| bytes == &record(number)));
    let group = KafkaGroup::join(options, 2).expect("it joins");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut hint = group.hint();
    let assigned =
        runtime.block_on(async { tokio::time::timeout(PATIENCE, hint.wait_for(|all| all.len() == 2)).await.is_ok() });
    assert!(assigned, "the group names no partitions");
    assert!(check(options).iter().all(|finding| !finding.fatal));
}

/// Why a log cannot be opened; who looks for trouble is told the same.
fn refused(options: &KafkaOptions) -> KafkaFault {
    let fault = KafkaLog::open(options, Some(&genesis(1))).expect_err("it is refused");
    let findings = check(options);
    assert!(findings.len() == 1 && findings[0].fatal && findings[0].name == "brokers", "{findings:?}");
    assert!(!format!("{fault:?} {findings:?}").contains("not the password"), "a password is told");
    fault
}

/// At the guarded door: who shows the certificate comes in, who shows another or none does not, and is told why.
fn a_certificate_is_asked_for(kafka: &Secured) {
    let directory = tempfile::tempdir().expect("a directory");
    serves(&options_with(kafka.client(), kafka, directory.path()));

    let directory = tempfile::tempdir().expect("a directory");
    let none = options_at(kafka.guarded_address(), kafka, directory.path());
    for options in [options_with(kafka.stranger_pair(), kafka, directory.path()), none] {
        let fault = refused(&options);
        assert!(matches!(fault, KafkaFault::Certificate { .. }), "{fault:?}");
        assert!(fault.to_string().contains("tls_certificate_file"), "{fault}");
    }
}

#[test]
fn a_log_is_kept_over_tls_for_a_user_who_proves_it_and_for_nobody_else() {
    needs_kafka!();
    let kafka = Secured::start();
    for mechanism in [SaslMechanism::ScramSha256, SaslMechanism::ScramSha512, SaslMechanism::Plain] {
        let directory = tempfile::tempdir().expect("a directory");
        serves(&options(&kafka, mechanism, directory.path()));
    }
    a_certificate_is_asked_for(&kafka);

    let directory = tempfile::tempdir().expect("a directory");
    for mechanism in [SaslMechanism::ScramSha512, SaslMechanism::Plain] {
        let mut options = options(&kafka, mechanism, directory.path());
        options.security.sasl.as_mut().expect("a user").password = Secret::new("not the password");
        let fault = refused(&options);
        assert!(matches!(fault, KafkaFault::Login { .. }), "{fault}");
        assert!(fault.to_string().contains("Check sasl_user, its password and sasl_mechanism"), "{fault}");
    }

    let options = options(&kafka, SaslMechanism::ScramSha512, directory.path());
    let mut other = options.clone();
    other.security.ca_file = Some(kafka.stranger());
    let fault = refused(&other);
    assert!(matches!(fault, KafkaFault::Certificate { .. }), "{fault}");
    assert!(fault.to_string().contains("Check that tls_ca_file holds the authority"), "{fault}");

    // The certificate is for 127.0.0.1, and nobody else may show it.
    let mut named = options.clone();
    named.brokers = named.brokers.replace("127.0.0.1", "localhost");
    let fault = refused(&named);
    assert!(matches!(fault, KafkaFault::Certificate { .. }), "{fault}");

    let mut absent = options;
    absent.security.ca_file = Some(directory.path().join("absent.pem"));
    let fault = KafkaLog::open(&absent, Some(&genesis(1))).expect_err("there is no such file");
    assert!(matches!(fault, KafkaFault::Options(_)) && fault.to_string().contains("absent.pem"), "{fault}");
}
