//! Reading: from memory, from blocks, across many segments, and while the log is written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use engine::log::{DeliverySink, Log, RECORD_BYTES_MAX};
use engine::position::{Offset, Partition};
use engine_embedded::{EmbeddedLog, Options};

use crate::support::{
    Collector, append_all, contents, genesis, must_append, open, record, segment, small, try_contents,
};

#[test]
fn a_log_of_many_small_segments_reads_as_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let (log, _) = open(directory.path(), small(5));
    let mut expected = contents(&log);
    for round in 0..40_u64 {
        for partition in 0..5_u16 {
            // Partition 4 is written only at first, so that most segments know nothing of it.
            if partition == 4 && round > 2 {
                continue;
            }
            let records = (0..6).map(|number| record(round * 10 + number, (number as usize * 331) % 900));
            let records = records.collect::<Vec<_>>();
            append_all(&log, partition, records.clone());
            expected.get_mut(&partition).expect("a partition").extend(records);
        }
    }
    assert_eq!(contents(&log), expected);
    drop(log);
    assert!(segment(directory.path(), 20).exists(), "many segments");
    for bytes_max in [0, 100, 5_000, usize::MAX] {
        let (log, report) = open(directory.path(), small(5));
        assert_eq!(try_contents(&log, bytes_max).expect("whole"), expected, "in pieces of {bytes_max} bytes");
        assert!(report.bytes_scanned <= 16 << 10, "only the last segment is looked at");
    }
}

#[test]
fn a_record_larger_than_a_segment_gets_one_of_its_own_size() {
    let directory = tempfile::tempdir().expect("a directory");
    let (log, _) = open(directory.path(), small(2));
    let large = record(1, RECORD_BYTES_MAX);
    must_append(&log, 1, large.clone());
    must_append(&log, 1, record(2, 10));
    drop(log);
    let (log, _) = open(directory.path(), small(2));
    assert_eq!(contents(&log)[&1][1..], [large, record(2, 10)]);
}

#[test]
fn a_log_of_the_most_partitions_works() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = || Options { genesis: Some(genesis(1_024)), ..small(1) };
    let (log, _) = open(directory.path(), options());
    for number in 0..100 {
        must_append(&log, (number * 37 % 1_024) as u16, record(number, 500));
    }
    let expected = contents(&log);
    drop(log);
    assert_eq!(contents(&open(directory.path(), options()).0), expected);
}

#[test]
fn readers_see_a_growing_prefix_while_the_log_is_written() {
    const RECORDS: u64 = 4_000;
    let directory = tempfile::tempdir().expect("a directory");
    let (log, _) = open(directory.path(), small(3));
    let log = Arc::new(log);
    let written = Arc::new(AtomicBool::new(false));
    let readers = (0..3_u16).map(|partition| {
        let (log, written) = (Arc::clone(&log), Arc::clone(&written));
        std::thread::spawn(move || {
            let mut next = 1;
            while next <= RECORDS {
                let records = log.read(Partition(partition), Offset(next), 3_000).expect("whole");
                assert!(!records.is_empty() || !written.load(Ordering::Acquire) || next > RECORDS);
                for stored in records {
                    assert_eq!(stored.offset, Offset(next));
                    assert_eq!(stored.bytes, expected(partition, next));
                    next += 1;
                }
                // A reader from afar, at the same time.
                let middle = log.read(Partition(partition), Offset(next / 2), 1).expect("whole");
                if next > 1 && next / 2 > 0 {
                    assert_eq!(middle[0].bytes, expected(partition, next / 2));
                }
                std::thread::yield_now();
            }
        })
    });
    let readers = readers.collect::<Vec<_>>();
    let sink = Arc::new(Collector::default());
    let mut appenders = (0..3)
        .map(|partition| log.appender(Partition(partition), Arc::clone(&sink) as Arc<dyn DeliverySink>))
        .collect::<Vec<_>>();
    for number in 1..=RECORDS {
        for (partition, appender) in (0..).zip(&mut appenders) {
            appender.append(number, expected(partition, number));
        }
        if number % 50 == 0 {
            sink.wait_for(number as usize * 3);
        }
    }
    assert!(sink.wait_for(RECORDS as usize * 3).iter().all(|delivery| delivery.result.is_ok()));
    written.store(true, Ordering::Release);
    for reader in readers {
        reader.join().expect("what a reader sees is what was written");
    }
}

fn expected(partition: u16, number: u64) -> Bytes {
    record(number * 3 + u64::from(partition), 20 + (number as usize * 13) % 300)
}

#[test]
fn an_idle_log_is_sealed_without_being_asked() {
    let directory = tempfile::tempdir().expect("a directory");
    let (log, _) = open(directory.path(), small(2));
    must_append(&log, 0, record(1, 100));
    let path = segment(directory.path(), 0);
    let sealed = || {
        let bytes = std::fs::read(&path).expect("a segment");
        crate::support::groups(&bytes).last().is_some_and(|last| last.len() == 32)
    };
    let until = std::time::Instant::now() + Duration::from_secs(30);
    while !sealed() {
        assert!(std::time::Instant::now() < until, "the log was never sealed");
        std::thread::yield_now();
    }
    must_append(&log, 0, record(2, 100));
    drop(log);
    assert_eq!(contents(&open(directory.path(), small(2)).0)[&0][1..], [record(1, 100), record(2, 100)]);
}

#[test]
fn a_closed_log_answers_appends_and_can_still_be_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let (log, _) = open(directory.path(), small(2));
    let sink = Arc::new(Collector::default());
    let mut appender = log.appender(Partition(0), Arc::clone(&sink) as Arc<dyn DeliverySink>);
    appender.append(1, record(1, 10));
    log.close();
    log.close();
    assert_eq!(sink.so_far().len(), 1, "what was queued is written before");
    appender.append(2, record(2, 10));
    assert_eq!(sink.so_far()[1].result, Err(engine::log::AppendError::Stopped));
    assert_eq!(contents(&log)[&0][1], record(1, 10));
    // Another may have the directory now, in this process too.
    let (other, _) = open(directory.path(), small(2));
    assert_eq!(contents(&other)[&0].len(), 2);
}

#[test]
fn its_genesis_is_the_one_it_was_founded_with() {
    let directory = tempfile::tempdir().expect("a directory");
    drop(open(directory.path(), small(2)));
    let mut other = small(3);
    other.genesis.as_mut().expect("one to found").fingerprint_key = [9; 32];
    let (log, _): (EmbeddedLog, _) = open(directory.path(), other);
    assert_eq!(log.genesis(), &genesis(2));
    assert_eq!((log.id(), log.partitions()), (genesis(2).log, 2));
}
