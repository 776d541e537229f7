//! Bytes that were durable and have changed since: found, with file and byte, when the log is opened or when they are
//! read; or harmless, because nobody reads them.

use std::path::Path;

use engine::log::LogFault;
use engine_embedded::{EmbeddedLog, OpenFault, Options};

use crate::support::{
    append_all, contents, copy_directory, groups, last_segment, must_append, open, record, refuse, segment, small,
    try_contents,
};

/// Several segments, closed.
fn log_of_segments(directory: &Path) {
    let (log, _) = open(directory, small(3));
    for number in 0..60 {
        must_append(&log, (number % 3) as u16, record(number, 1_000));
    }
    drop(log);
    assert!(segment(directory, 3).exists(), "several segments");
}

fn flip(path: &Path, bit: usize) {
    let mut bytes = std::fs::read(path).expect("a file");
    bytes[bit / 8] ^= 1 << (bit % 8);
    std::fs::write(path, bytes).expect("written");
}

#[test]
fn every_flipped_bit_of_the_last_segment_is_found_or_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let (log, _) = open(directory.path(), small(2));
    must_append(&log, 0, record(1, 20));
    must_append(&log, 1, record(2, 20));
    let expected = contents(&log);
    drop(log);
    let path = last_segment(directory.path());
    let whole = std::fs::read(&path).expect("a segment");
    let groups = groups(&whole);
    let seal = groups.last().expect("a seal").clone();
    let (mut found, mut harmless) = (0, 0);
    // Beyond the end by a little: zeros there are like all others.
    for bit in 0..(seal.end + 16) * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, &bytes).expect("written");
        match EmbeddedLog::open(directory.path(), small(2)) {
            Err(OpenFault::Damaged { file, offset, .. }) => {
                assert_eq!(file, path);
                let part = groups.iter().map(|group| group.start).rfind(|start| *start <= bit / 8).unwrap_or(0);
                assert_eq!(offset as usize, part, "the fault names the group that is bad");
                found += 1;
            }
            Err(OpenFault::TooNew { .. }) => found += 1,
            Err(other) => panic!("bit {bit}: {other}"),
            Ok((log, report)) => {
                assert_eq!(contents(&log), expected, "bit {bit}");
                assert!(bit / 8 >= seal.start, "bit {bit} was not noticed");
                assert!(report.torn.is_some(), "bit {bit} was cut without a word");
                harmless += 1;
            }
        }
    }
    assert_eq!((found, harmless), (seal.start * 8, (seal.len() + 16) * 8));
}

#[test]
fn damage_before_whole_groups_is_refused_and_nothing_is_touched() {
    let directory = tempfile::tempdir().expect("a directory");
    let (log, _) = open(directory.path(), small(2));
    for number in 0..5 {
        must_append(&log, 0, record(number, 100));
    }
    drop(log);
    let path = last_segment(directory.path());
    let whole = std::fs::read(&path).expect("a segment");
    let groups = groups(&whole);
    for bad in &groups[..groups.len() - 1] {
        for fill in [0, 0xff] {
            let mut bytes = whole.clone();
            bytes[bad.clone()].fill(fill);
            std::fs::write(&path, &bytes).expect("written");
            match refuse(directory.path(), small(2)) {
                OpenFault::Damaged { file, offset, .. } => assert_eq!((file, offset), (path.clone(), bad.start as u64)),
                other => panic!("{other}"),
            }
            assert_eq!(std::fs::read(&path).expect("a segment"), bytes);
        }
    }
}

#[test]
fn a_whole_group_at_the_wrong_place_is_damage() {
    let directory = tempfile::tempdir().expect("a directory");
    let (log, _) = open(directory.path(), small(2));
    for number in 0..4 {
        must_append(&log, 0, record(number, 100));
    }
    drop(log);
    let path = last_segment(directory.path());
    let mut bytes = std::fs::read(&path).expect("a segment");
    let groups = groups(&bytes);
    let (from, to) = (&groups[2], &groups[3]);
    assert_eq!(from.len(), to.len());
    bytes.copy_within(from.clone(), to.start);
    std::fs::write(&path, &bytes).expect("written");
    assert!(
        matches!(refuse(directory.path(), small(2)), OpenFault::Damaged { offset, .. } if offset == to.start as u64)
    );
}

#[test]
fn a_segment_of_another_log_or_place_is_damage() {
    let (one, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    log_of_segments(one.path());
    let mut foreign = small(3);
    foreign.genesis.as_mut().expect("one to found").log = engine::position::LogId(uuid::Uuid::from_u128(2));
    let (log, _) = open(other.path(), foreign);
    for number in 0..60 {
        must_append(&log, (number % 3) as u16, record(number, 1_000));
    }
    drop(log);
    for from in [segment(other.path(), 1), segment(one.path(), 2)] {
        let copy = tempfile::tempdir().expect("a directory");
        copy_directory(one.path(), copy.path());
        std::fs::copy(from, segment(copy.path(), 1)).expect("a copy");
        // The segment before it is read for the genesis, and must lead to it.
        match refuse(copy.path(), small(3)) {
            OpenFault::Damaged { file, .. } => assert_eq!(file, segment(copy.path(), 1)),
            other => panic!("{other}"),
        }
        let copy = tempfile::tempdir().expect("a directory");
        copy_directory(one.path(), copy.path());
        std::fs::copy(segment(other.path(), 2), segment(copy.path(), 2)).expect("a copy");
        let (log, _) = open(copy.path(), small(3));
        match try_contents(&log, 1 << 20) {
            Err(LogFault::Damaged { place, .. }) => assert!(place.contains("0000000002.segment at byte"), "{place}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn missing_segments_are_refused() {
    let original = tempfile::tempdir().expect("a directory");
    log_of_segments(original.path());
    let last = last_segment(original.path());
    let count = (0..).take_while(|number| segment(original.path(), *number).exists()).count() as u64;
    for gone in 0..count {
        let directory = tempfile::tempdir().expect("a directory");
        copy_directory(original.path(), directory.path());
        std::fs::remove_file(segment(directory.path(), gone)).expect("removed");
        match refuse(directory.path(), small(3)) {
            OpenFault::Damaged { file, .. } => assert_eq!(file, segment(directory.path(), gone)),
            other => panic!("{other}"),
        }
    }
    let directory = tempfile::tempdir().expect("a directory");
    copy_directory(original.path(), directory.path());
    for number in 0..count {
        std::fs::remove_file(segment(directory.path(), number)).expect("removed");
    }
    assert!(
        matches!(refuse(directory.path(), small(3)), OpenFault::Damaged { .. }),
        "indexes tell that there was a log"
    );
    assert!(last.exists());
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let directory = tempfile::tempdir().expect("a directory");
    drop(open(directory.path(), small(2)));
    let path = last_segment(directory.path());
    let mut bytes = std::fs::read(&path).expect("a segment");
    bytes[8] = 2;
    std::fs::write(&path, bytes).expect("written");
    let fault = refuse(directory.path(), small(2));
    assert!(matches!(fault, OpenFault::TooNew { .. }));
    assert!(fault.to_string().contains("newer version of this program: its format is 2"), "{fault}");
}

#[test]
fn indexes_that_are_lost_or_damaged_are_made_again() {
    let original = tempfile::tempdir().expect("a directory");
    log_of_segments(original.path());
    let expected = contents(&open(original.path(), small(3)).0);
    let index = |directory: &Path| directory.join("0000000001.index");
    let whole = std::fs::read(index(original.path())).expect("an index is kept");
    for damage in ["lost", "flipped", "cut", "of another segment"] {
        let directory = tempfile::tempdir().expect("a directory");
        copy_directory(original.path(), directory.path());
        let path = index(directory.path());
        match damage {
            "lost" => std::fs::remove_file(&path).expect("removed"),
            "flipped" => flip(&path, 1_000),
            "cut" => std::fs::write(&path, &whole[..whole.len() / 2]).expect("written"),
            _ => drop(std::fs::copy(directory.path().join("0000000002.index"), &path).expect("a copy")),
        }
        assert_eq!(contents(&open(directory.path(), small(3)).0), expected, "{damage}");
        assert_eq!(std::fs::read(&path).expect("an index"), whole, "{damage}: it was made again");
    }
}

#[test]
fn an_absent_log_is_not_founded_unless_told_to() {
    let directory = tempfile::tempdir().expect("a directory");
    let nowhere = directory.path().join("nowhere");
    assert!(matches!(refuse(&nowhere, Options::existing()), OpenFault::Absent { .. }));
    assert!(!nowhere.exists());
    let (log, report) = open(&nowhere, small(2));
    assert!(report.founded);
    drop(log);
    let (log, report) = open(&nowhere, Options::existing());
    assert!(!report.founded && report.sealed && report.torn.is_none());
    append_all(&log, 0, [record(1, 10)]);
}
