//! A copy keeps what it was given, and of what was damaged since, everything before.

use std::os::unix::fs::FileExt;

use uuid::Uuid;

use super::*;
use crate::EmbeddedLog;

fn log(number: u128) -> LogId {
    LogId(Uuid::from_u128(number))
}

fn small() -> Options {
    Options { segment_bytes_first: 8 << 10, segment_bytes: 8 << 10, block_bytes: 1 << 10, ..Options::existing() }
}

fn open(directory: &Path) -> (LogCopy, CopyReport) {
    LogCopy::open(directory, log(1), 2, small()).expect("the copy opens")
}

fn record(number: u64) -> Vec<u8> {
    format!("record {number}").repeat(20).into_bytes()
}

fn fill(copy: &mut LogCopy, to: u64) {
    for number in copy.end(Partition(0)).0..to {
        copy.append(&[(Partition(0), &record(number)), (Partition(1), &record(number))]).expect("there is room");
    }
}

fn read_all(copy: &LogCopy, partition: u16) -> Result<u64, CopyReadFault> {
    let (reader, mut next) = (copy.reader(), 0);
    loop {
        let read = reader.read(Partition(partition), Offset(next), 1)?;
        let Some(stored) = read.first() else { return Ok(next) };
        assert_eq!((stored.offset, &stored.bytes[..]), (Offset(next), &record(next)[..]));
        next += 1;
    }
}

#[test]
fn what_was_copied_is_there_after_reopening() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut copy, report) = open(directory.path());
    assert!(report.founded);
    fill(&mut copy, 300);
    drop(copy);
    let (copy, report) = open(directory.path());
    assert_eq!(report, CopyReport { founded: false, cut: Vec::new() });
    assert_eq!((read_all(&copy, 0), read_all(&copy, 1)), (Ok(300), Ok(300)));
}

#[test]
fn a_torn_end_is_cut_and_filled_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut copy, _) = open(directory.path());
    fill(&mut copy, 10);
    let writer = copy.writer.as_ref().expect("it is open");
    writer.file.write_all_at(&[0xab; 50], writer.position - 100).expect("the file can be written");
    drop(copy);
    let (mut copy, report) = open(directory.path());
    assert_eq!(report.cut.len(), 1, "{report:?}");
    assert_eq!(copy.end(Partition(0)), Offset(9));
    fill(&mut copy, 20);
    assert_eq!(read_all(&copy, 1), Ok(20));
}

#[test]
fn damage_in_the_middle_is_cut_back_and_filled_again() {
    for segment in [0, 3] {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut copy, _) = open(directory.path());
        fill(&mut copy, 300);
        drop(copy);
        let file = OpenOptions::new().write(true).open(segment_path(directory.path(), segment)).expect("it is there");
        file.write_all_at(&[0xab; 3], 2_000).expect("the file can be written");
        let (mut copy, _) = open(directory.path());
        let fault = read_all(&copy, 0).expect_err("the damage is met");
        assert!(matches!(fault, CopyReadFault::Damaged { segment: found, .. } if found == segment), "{fault}");
        assert_eq!(copy.cut_back(segment).expect("it can be cut").len(), 1);
        assert!(copy.end(Partition(0)) < Offset(300));
        fill(&mut copy, 300);
        assert_eq!((read_all(&copy, 0), read_all(&copy, 1)), (Ok(300), Ok(300)));
    }
}

#[test]
fn missing_and_headless_segments_are_cut_off() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut copy, _) = open(directory.path());
    fill(&mut copy, 300);
    drop(copy);
    std::fs::remove_file(segment_path(directory.path(), 4)).expect("it is there");
    let file = OpenOptions::new().write(true).open(segment_path(directory.path(), 3)).expect("it is there");
    file.write_all_at(&[0; 64], 0).expect("the file can be written");
    let (mut copy, report) = open(directory.path());
    assert_eq!(report.cut.len(), 2, "{report:?}");
    fill(&mut copy, 300);
    assert_eq!(read_all(&copy, 0), Ok(300));
}

#[test]
fn everything_can_be_forgotten() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut copy, _) = open(directory.path());
    fill(&mut copy, 100);
    copy.wipe().expect("it can be wiped");
    assert_eq!(copy.end(Partition(1)), Offset(0));
    fill(&mut copy, 5);
    assert_eq!(read_all(&copy, 0), Ok(5));
}

#[test]
fn a_copy_of_another_log_and_a_log_of_its_own_are_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    drop(open(directory.path()));
    assert!(matches!(EmbeddedLog::open(directory.path(), small()), Err(OpenFault::Copy { .. })));
    let fault = LogCopy::open(directory.path(), log(2), 2, small()).err();
    assert!(matches!(fault, Some(CopyFault::OtherLog { found, .. }) if found == log(1)));

    let directory = tempfile::tempdir().expect("a directory");
    let genesis = engine::record::Genesis {
        log: log(1),
        partitions: 2,
        placement_rule: 1,
        format: 1,
        fingerprint_key: [0; 32],
        created_at: engine::time::Timestamp(1),
    };
    drop(EmbeddedLog::open(directory.path(), Options::or_found(genesis)).expect("a log"));
    assert!(matches!(LogCopy::open(directory.path(), log(1), 2, small()), Err(CopyFault::NotACopy { .. })));
}
