//! Brokers that die or fall silent, one and three of them.

use std::time::{Duration, Instant};

use engine::log::{AppendError, Log};
use engine::position::{Offset, Partition};
use engine_kafka::{KafkaLog, check};
use xtask::kafka::Kafka;

use crate::support::{PATIENCE, Writer, all, fresh_name, genesis, needs_kafka, open, options, until};

fn record(number: usize) -> Vec<u8> {
    format!("record {number} ").repeat(30).into_bytes()
}

#[test]
fn a_silent_broker_leaves_records_unknown_and_the_log_goes_on_when_it_speaks() {
    needs_kafka!();
    let kafka = Kafka::start(1);
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = options(&fresh_name(), directory.path());
    options.brokers = kafka.bootstrap();
    options.delivery_timeout = Duration::from_secs(5);
    options.request_timeout = Duration::from_secs(2);
    let log = open(&options, Some(&genesis(1)));
    let mut writer = Writer::new(&log, 0);
    assert_eq!(writer.append_many(10, record).last(), Some(&Offset(10)));
    log.reachable().expect("all is well");
    log.caught_up(PATIENCE).expect("it follows");
    kafka.pause(1);
    for number in 10..20 {
        writer.hand(record(number));
    }
    let deliveries = writer.settle();
    assert_eq!(deliveries.iter().map(|delivery| delivery.tag).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    assert!(deliveries[10..].iter().all(|delivery| delivery.result == Err(AppendError::Unknown)));
    until("the silence to be noticed", || log.reachable().is_err());
    assert_eq!(log.read(Partition(0), Offset(1), 1).expect("the copy is here").len(), 1);
    kafka.resume(1);
    until("the broker to be back", || log.reachable().is_ok());
    // What was unknown may be there, once or not at all, and what comes now comes after it.
    let mut writer = Writer::new(&log, 0);
    until("a record to be taken", || {
        let mut writer = Writer::new(&log, 0);
        writer.hand("probe");
        writer.settle()[0].result.is_ok()
    });
    let offset = writer.append_many(1, |_| b"last".to_vec())[0];
    log.caught_up(PATIENCE).expect("it follows");
    let found = all(&log, 0);
    assert_eq!((offset.0 as usize, &found[found.len() - 1][..]), (found.len() - 1, &b"last"[..]));
    assert!((0..10).all(|number| found[number + 1] == record(number)));
}

#[test]
fn three_brokers_lose_one_and_no_record() {
    needs_kafka!();
    let mut kafka = Kafka::start(3);
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = options(&fresh_name(), directory.path());
    options.brokers = kafka.bootstrap();
    options.replication = 3;
    options.delivery_timeout = Duration::from_secs(40);
    options.request_timeout = Duration::from_secs(2);
    let log = open(&options, Some(&genesis(2)));
    let findings = check(&options);
    assert!(findings.iter().all(|finding| !finding.fatal), "{findings:?}");
    let mut writer = Writer::new(&log, 0);
    assert_eq!(writer.append_many(2_000, record).last(), Some(&Offset(2_000)));
    kafka.kill(kafka.leader_of(&options.topic(), 0).expect("it has a leader"));
    let started = Instant::now();
    assert_eq!(writer.append_many(2_000, |number| record(2_000 + number)).last(), Some(&Offset(4_000)));
    eprintln!("went on after {:?}", started.elapsed());
    let found = all(&log, 0);
    assert_eq!(found.len(), 4_001);
    assert!(found[1..].iter().enumerate().all(|(number, bytes)| bytes == &record(number)));
    kafka.restart_dead();
    until("all leaders to be there", || log.reachable().is_ok());
    drop(log);
    drop(KafkaLog::open(&options, None).expect("it opens again"));
}
