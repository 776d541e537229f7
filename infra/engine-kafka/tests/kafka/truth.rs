//! A topic that is not what it was, or was never ours, stops the log, and the fault says what to do.

use std::path::Path;
use std::time::Duration;

use engine::log::{AppendError, Log};
use engine::position::{Offset, Partition};
use engine_kafka::{KafkaFault, KafkaGroup, KafkaLog, KafkaOptions, check, clocks};

use crate::support::{Meddler, PATIENCE, Writer, fresh_name, genesis, needs_kafka, open, options, write_foreign};

fn record(number: usize) -> Vec<u8> {
    format!("record {number}").into_bytes()
}

fn other(_: usize) -> Vec<u8> {
    b"something else".to_vec()
}

fn refused(options: &KafkaOptions) -> KafkaFault {
    let fault = KafkaLog::open(options, None).expect_err("the log is refused");
    assert!(!fault.may_pass(), "{fault}");
    fault
}

/// A closed log with 20 records in partition 1.
fn filled(directory: &Path) -> (KafkaOptions, engine::record::Genesis) {
    let (options, genesis) = (options(&fresh_name(), directory), genesis(2));
    Writer::new(&open(&options, Some(&genesis)), 1).append_many(20, record);
    (options, genesis)
}

#[test]
fn there_must_be_a_log_or_leave_to_found_one() {
    needs_kafka!();
    let directory = tempfile::tempdir().expect("a directory");
    let options = options(&fresh_name(), directory.path());
    assert!(matches!(refused(&options), KafkaFault::Absent { .. }));
}

#[test]
fn brokers_that_do_not_answer_are_said_to() {
    needs_kafka!();
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = options(&fresh_name(), directory.path());
    options.brokers = "127.0.0.1:1".to_owned();
    options.patience = Duration::from_secs(1);
    let fault = KafkaLog::open(&options, None).expect_err("nobody is there");
    assert!(fault.may_pass() && fault.to_string().contains("127.0.0.1:1"), "{fault}");
    assert!(check(&options).iter().any(|finding| finding.name == "brokers" && finding.fatal));
}

#[test]
fn a_log_that_lost_its_beginning_is_refused() {
    needs_kafka!();
    let directory = tempfile::tempdir().expect("a directory");
    let (options, _) = filled(directory.path());
    Meddler::new().throw_away(&options.topic(), 1, 5);
    assert!(matches!(refused(&options), KafkaFault::Truncated { partition: Partition(1), .. }));
}

#[test]
fn a_log_that_lost_its_end_is_refused() {
    needs_kafka!();
    let directory = tempfile::tempdir().expect("a directory");
    let (options, genesis) = filled(directory.path());
    Meddler::new().delete(&options.topic());
    let elsewhere = tempfile::tempdir().expect("a directory");
    let again = KafkaOptions { directory: elsewhere.path().to_owned(), ..options.clone() };
    Writer::new(&open(&again, Some(&genesis)), 1).append_many(19, record);
    let fault = refused(&options);
    assert!(matches!(fault, KafkaFault::Truncated { partition: Partition(1), .. }), "{fault}");
}

#[test]
fn a_log_whose_end_is_another_is_refused() {
    needs_kafka!();
    let directory = tempfile::tempdir().expect("a directory");
    let (options, genesis) = filled(directory.path());
    Meddler::new().delete(&options.topic());
    let elsewhere = tempfile::tempdir().expect("a directory");
    let again = KafkaOptions { directory: elsewhere.path().to_owned(), ..options.clone() };
    Writer::new(&open(&again, Some(&genesis)), 1).append_many(30, other);
    let fault = refused(&options);
    assert!(matches!(fault, KafkaFault::Truncated { partition: Partition(1), .. }), "{fault}");
}

#[test]
fn another_log_under_the_same_name_is_refused() {
    needs_kafka!();
    let directory = tempfile::tempdir().expect("a directory");
    let (options, genesis_before) = filled(directory.path());
    Meddler::new().delete(&options.topic());
    let elsewhere = tempfile::tempdir().expect("a directory");
    let again = KafkaOptions { directory: elsewhere.path().to_owned(), ..options.clone() };
    let made_anew = open(&again, Some(&genesis(2)));
    let fault = refused(&options);
    let (found, local) = match &fault {
        KafkaFault::OtherLog { found, local, .. } => (*found, *local),
        _ => panic!("{fault}"),
    };
    assert_eq!((found, local), (made_anew.id(), genesis_before.log));
}

#[test]
fn who_has_a_copy_does_not_found_its_log_again() {
    needs_kafka!();
    let directory = tempfile::tempdir().expect("a directory");
    let (options, genesis) = filled(directory.path());
    Meddler::new().delete(&options.topic());
    let fault = KafkaLog::open(&options, Some(&genesis)).expect_err("its topic is gone");
    assert!(!fault.may_pass() && fault.to_string().contains("holds a copy"), "{fault}");
    assert!(matches!(refused(&options), KafkaFault::Absent { .. }));
}

#[test]
fn a_topic_deleted_under_a_running_node_stops_it() {
    needs_kafka!();
    let directory = tempfile::tempdir().expect("a directory");
    let options = options(&fresh_name(), directory.path());
    let log = open(&options, Some(&genesis(2)));
    Writer::new(&log, 1).append_many(20, record);
    Meddler::new().delete(&options.topic());
    let fault = fault_of(&log);
    assert!(matches!(fault, KafkaFault::Truncated { .. }), "{fault}");
    assert!(log.reachable().is_err());
    let mut writer = Writer::new(&log, 1);
    writer.hand("too late");
    assert_eq!(writer.settle()[0].result, Err(AppendError::Stopped));
    assert_eq!(log.read(Partition(1), Offset(20), 1).expect("the copy is still here").len(), 1);
}

#[test]
fn records_thrown_away_under_a_running_node_are_found_and_nothing_more_is_written() {
    needs_kafka!();
    let directory = tempfile::tempdir().expect("a directory");
    let options = options(&fresh_name(), directory.path());
    let log = open(&options, Some(&genesis(2)));
    Writer::new(&log, 1).append_many(20, record);
    log.look_for_loss().expect("all is there");
    Meddler::new().throw_away(&options.topic(), 1, 5);
    let fault = log.look_for_loss().expect_err("five are gone");
    assert!(matches!(fault, KafkaFault::Truncated { partition: Partition(1), .. }), "{fault}");
    let mut writer = Writer::new(&log, 1);
    writer.hand("too late");
    assert_eq!(writer.settle()[0].result, Err(AppendError::Stopped));
}

#[test]
fn the_brokers_are_asked_for_the_time() {
    needs_kafka!();
    let directory = tempfile::tempdir().expect("a directory");
    let options = options(&fresh_name(), directory.path());
    assert_eq!(clocks(&options).expect("brokers answer"), []);
    let log = open(&options, Some(&genesis(2)));
    let group = KafkaGroup::join(&options, log.partitions()).expect("a group");
    let told = clocks(&options).expect("brokers answer");
    assert!(!told.is_empty());
    // They run on this very machine.
    assert!(told.iter().all(|clock| clock.ahead_s == Some(0.0)), "{told:?}");
    group.leave();
}

#[test]
fn a_topic_made_anew_under_a_running_node_stops_it() {
    needs_kafka!();
    let directory = tempfile::tempdir().expect("a directory");
    let (options, founding) = (options(&fresh_name(), directory.path()), genesis(2));
    let log = open(&options, Some(&founding));
    Writer::new(&log, 1).append_many(20, record);
    Meddler::new().delete(&options.topic());
    let elsewhere = tempfile::tempdir().expect("a directory");
    let again = KafkaOptions { directory: elsewhere.path().to_owned(), ..options };
    Writer::new(&open(&again, Some(&founding)), 1).append_many(30, other);
    let fault = fault_of(&log);
    assert!(matches!(fault, KafkaFault::Truncated { .. }), "{fault}");
}

/// Waits for the log to stop.
fn fault_of(log: &KafkaLog) -> KafkaFault {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut faults = log.faults();
    let fault = runtime.block_on(async {
        let waiting = tokio::time::timeout(PATIENCE, faults.wait_for(Option::is_some));
        waiting.await.expect("the log stops in time").expect("the log is open").clone()
    });
    KafkaFault::clone(&fault.expect("there is a fault"))
}

#[test]
fn a_topic_of_somebody_else_is_refused() {
    needs_kafka!();
    let directory = tempfile::tempdir().expect("a directory");
    let options = options(&fresh_name(), directory.path());
    let safe = [("retention.ms", "-1"), ("max.message.bytes", "2097152")];
    Meddler::new().make(&options.topic(), 2, &safe);
    write_foreign(&options.topic(), 0, b"hello");
    let fault = KafkaLog::open(&options, Some(&genesis(2))).expect_err("it is not ours");
    assert!(matches!(fault, KafkaFault::Foreign { .. }), "{fault}");
}

#[test]
fn a_topic_with_other_partitions_is_refused() {
    needs_kafka!();
    let directory = tempfile::tempdir().expect("a directory");
    let (options, _) = filled(directory.path());
    Meddler::new().grow(&options.topic(), 3);
    let fault = refused(&options);
    assert!(matches!(fault, KafkaFault::Partitions { found: 3, founded: 2, .. }), "{fault}");
}

#[test]
fn an_unsafe_topic_is_refused_with_the_mend() {
    needs_kafka!();
    let directory = tempfile::tempdir().expect("a directory");
    let options = options(&fresh_name(), directory.path());
    Meddler::new().make(&options.topic(), 2, &[("cleanup.policy", "compact")]);
    let fault = KafkaLog::open(&options, Some(&genesis(2))).expect_err("it is not safe");
    let names: Vec<_> = match &fault {
        KafkaFault::Unsafe { findings, .. } => findings.iter().map(|finding| finding.name).collect(),
        _ => panic!("{fault}"),
    };
    assert_eq!(names, ["cleanup.policy", "retention.ms", "max.message.bytes"]);
    assert!(fault.to_string().contains("--add-config cleanup.policy=delete"), "{fault}");
    let found: Vec<_> =
        check(&options).into_iter().filter(|finding| finding.fatal).map(|finding| finding.name).collect();
    assert_eq!(found, names);
}

#[test]
fn a_topic_made_here_is_safe() {
    needs_kafka!();
    let directory = tempfile::tempdir().expect("a directory");
    let (options, _) = filled(directory.path());
    let findings = check(&options);
    assert!(findings.iter().all(|finding| !finding.fatal), "{findings:?}");
    // One broker, one copy: that is told.
    assert!(findings.iter().any(|finding| finding.name == "replication"), "{findings:?}");
}

#[test]
fn founders_who_race_get_one_log() {
    needs_kafka!();
    let name = fresh_name();
    let directories = [(); 3].map(|()| tempfile::tempdir().expect("a directory"));
    let logs: Vec<KafkaLog> = std::thread::scope(|scope| {
        let founders: Vec<_> = directories
            .iter()
            .map(|directory| {
                let options = options(&name, directory.path());
                scope.spawn(move || KafkaLog::open(&options, Some(&genesis(3))).expect("the log opens"))
            })
            .collect();
        founders.into_iter().map(|founder| founder.join().expect("no panic")).collect()
    });
    assert!(logs.iter().all(|log| log.genesis() == logs[0].genesis()));
    for partition in (0..3).map(Partition) {
        let first = logs.iter().map(|log| log.read(partition, Offset(0), 1).expect("it can be read")[0].bytes.clone());
        let first: Vec<_> = first.collect();
        assert!(first.iter().all(|bytes| bytes == &first[0]));
    }
}

#[test]
fn a_store_ahead_of_kafka_is_refused() {
    needs_kafka!();
    let directory = tempfile::tempdir().expect("a directory");
    let (options, _) = filled(directory.path());
    let log = open(&options, None);
    log.refuse_store_ahead(Partition(1), Offset(21)).expect("so far Kafka goes");
    let fault = log.refuse_store_ahead(Partition(1), Offset(22)).expect_err("it does not go further");
    assert!(matches!(fault, KafkaFault::StoreAhead { end: Offset(21), folded: Offset(22), .. }), "{fault}");
    log.catch_up(Partition(1), PATIENCE).expect("it is caught up");
}
