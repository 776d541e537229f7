//! A group that was half written when the power went is cut off and reported; what was acknowledged stays.

use std::path::Path;
use std::sync::Arc;

use engine::log::Log;
use engine::position::{Offset, Partition};
use engine_embedded::{KnownDurable, OpenFault, Options};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::support::{
    Contents, append_all, contents, copy_directory, groups, last_segment, must_append, open, record, refuse, small,
};

/// A log of two partitions with groups of one record each, and what it held after each group: the last three of them
/// are what the tests cut. Without a seal at its end, as a kill leaves it.
fn log_of_single_records(directory: &Path) -> Vec<Contents> {
    let (log, _) = open(directory, small(2));
    let mut after = Vec::new();
    for number in 0..6 {
        must_append(&log, number as u16 % 2, record(number, 30 + 7 * number as usize));
        after.push(contents(&log));
    }
    drop(log);
    let path = last_segment(directory);
    let mut bytes = std::fs::read(&path).expect("a segment");
    let seal = groups(&bytes).pop().expect("a seal");
    assert_eq!(seal.len(), 32, "a closed log ends with an empty group");
    bytes[seal].fill(0);
    std::fs::write(&path, bytes).expect("written");
    after
}

#[test]
fn a_log_cut_at_any_byte_of_its_last_three_groups_keeps_what_is_before() {
    let original = tempfile::tempdir().expect("a directory");
    let after = log_of_single_records(original.path());
    let whole = std::fs::read(last_segment(original.path())).expect("a segment");
    let groups = groups(&whole);
    let data = &groups[groups.len() - 3..];
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut tried = 0;
    for cut in data[0].start..=data[2].end {
        for damage in ["truncated", "zeros", "garbage"] {
            let mut bytes = whole.clone();
            match damage {
                "truncated" => bytes.truncate(cut),
                "zeros" => bytes[cut..].fill(0),
                _ => random.fill_bytes(&mut bytes[cut..data[2].end + 100]),
            }
            // A group may end in zeros that a cut does not change.
            let first_torn = data.iter().position(|group| bytes.get(group.clone()) != whole.get(group.clone()));
            let torn_from = first_torn.map_or(data[2].end, |first| data[first].start);
            let expected = &after[after.len() - 1 - first_torn.map_or(0, |first| 3 - first)];
            let remains = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1).max(torn_from);
            let directory = tempfile::tempdir().expect("a directory");
            copy_directory(original.path(), directory.path());
            let path = last_segment(directory.path());
            std::fs::write(&path, &bytes).expect("written");

            let (log, report) = open(directory.path(), small(2));
            let case = format!("{damage} at byte {cut}");
            assert_eq!(&contents(&log), expected, "{case}");
            match report.torn {
                None => assert_eq!(remains, torn_from, "{case}: something was cut without a word"),
                Some(torn) => {
                    assert_eq!((torn.offset, torn.bytes), (torn_from as u64, (remains - torn_from) as u64), "{case}");
                    assert_eq!(torn.file, path, "{case}");
                }
            }
            // What was cut is gone from the file, so it cannot come back; and the log goes on.
            drop(log);
            let settled = std::fs::read(&path).expect("a segment");
            assert_eq!(settled.len(), whole.len(), "{case}: the file has its length again");
            let end = crate::support::groups(&settled).last().expect("a group").end;
            assert!(settled[end..].iter().all(|byte| *byte == 0), "{case}: bytes were left behind");
            let (log, report) = open(directory.path(), small(2));
            assert!(report.sealed && report.torn.is_none(), "{case}: opening twice is as good as once");
            let mut expected = expected.clone();
            let next = record(99, 10);
            must_append(&log, 1, next.clone());
            expected.get_mut(&1).expect("a partition").push(next);
            drop(log);
            assert_eq!(contents(&open(directory.path(), small(2)).0), expected, "{case}");
            tried += 1;
        }
    }
    assert!(tried > 3 * 200, "only {tried} cuts were tried");
}

#[test]
fn what_a_store_has_folded_is_never_cut_as_torn() {
    let directory = tempfile::tempdir().expect("a directory");
    log_of_single_records(directory.path());
    let path = last_segment(directory.path());
    let mut bytes = std::fs::read(&path).expect("a segment");
    let last = groups(&bytes).pop().expect("a group");
    bytes[last.start + 50] ^= 1;
    std::fs::write(&path, &bytes).expect("written");
    // Partition 1 has its genesis and three records, the last of them in the bad group.
    let knowing = |next| {
        let known_durable: KnownDurable = Arc::new(move |_, _| [(Partition(1), Offset(next))].into());
        Options { known_durable, ..small(2) }
    };
    match refuse(directory.path(), knowing(4)) {
        OpenFault::Damaged { file, offset, .. } => assert_eq!((file, offset), (path.clone(), last.start as u64)),
        other => panic!("{other}"),
    }
    assert_eq!(std::fs::read(&path).expect("a segment"), bytes, "nothing was touched");
    let (log, report) = open(directory.path(), knowing(3));
    assert!(report.torn.is_some());
    assert_eq!(log.end(Partition(1)), Offset(3));
    drop(log);
    assert!(matches!(
        refuse(directory.path(), knowing(4)),
        OpenFault::Behind { partition: Partition(1), end: Offset(3), required: Offset(4) }
    ));
}

#[test]
fn a_group_whose_first_page_never_arrived_is_cut_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let (log, _) = open(directory.path(), small(2));
    must_append(&log, 0, record(1, 50));
    let before = contents(&log);
    drop(log);
    let path = last_segment(directory.path());
    let mut bytes = std::fs::read(&path).expect("a segment");
    bytes[9_000..9_100].fill(0xaa);
    std::fs::write(&path, bytes).expect("written");
    let (log, report) = open(directory.path(), small(2));
    assert_eq!(report.torn.map(|torn| torn.offset + torn.bytes), Some(9_100));
    assert_eq!(contents(&log), before);
    append_all(&log, 0, (0..400).map(|number| record(number, 40)));
    assert_eq!(contents(&log)[&0].len(), before[&0].len() + 400);
}
