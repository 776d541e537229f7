//! The local copy: what is lost or damaged of it is fetched again, and nobody who reads notices.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use engine::log::Log;
use engine::position::{Offset, Partition};
use engine_kafka::KafkaOptions;

use crate::support::{Writer, all, fresh_name, genesis, needs_kafka, open, options};

fn record(number: usize) -> Vec<u8> {
    format!("record {number} ").repeat(50).into_bytes()
}

/// A closed log with 3,000 records of about 600 bytes in partition 1, and its options.
fn filled(directory: &Path) -> KafkaOptions {
    let options = options(&fresh_name(), directory);
    let log = open(&options, Some(&genesis(3)));
    let offsets = Writer::new(&log, 1).append_many(3_000, record);
    assert_eq!(offsets, (1..=3_000).map(Offset).collect::<Vec<_>>());
    assert_eq!(all(&log, 1).len(), 3_001);
    options
}

fn holds_all(log: &dyn Log) {
    let found = all(log, 1);
    assert_eq!(found.len(), 3_001);
    assert!(
        found[1..].iter().enumerate().all(|(number, bytes)| bytes == &record(number)),
        "records came back otherwise"
    );
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("the directory is there");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut found: Vec<_> = paths.filter(|path| path.extension().is_some_and(|kind| kind == "segment")).collect();
    found.sort();
    found
}

#[test]
fn a_lost_copy_is_fetched_again() {
    needs_kafka!();
    let directory = tempfile::tempdir().expect("a directory");
    let options = filled(directory.path());
    std::fs::remove_dir_all(directory.path()).expect("it can be removed");
    let log = open(&options, None);
    assert!(log.report().copy.founded);
    holds_all(&log);
}

#[test]
fn a_copy_that_is_whole_is_not_fetched_again() {
    needs_kafka!();
    let directory = tempfile::tempdir().expect("a directory");
    let options = filled(directory.path());
    let log = open(&options, None);
    assert!(!log.report().copy.founded && log.report().copy.cut.is_empty(), "{:?}", log.report());
    holds_all(&log);
}

#[test]
fn a_torn_end_is_fetched_again() {
    needs_kafka!();
    let directory = tempfile::tempdir().expect("a directory");
    let options = filled(directory.path());
    let last = segments(directory.path()).pop().expect("there is one");
    let bytes = std::fs::read(&last).expect("it can be read");
    let written = bytes.iter().rposition(|byte| *byte != 0).expect("something is written");
    let file = OpenOptions::new().write(true).open(&last).expect("it is there");
    file.write_all_at(&[0; 1_000], written as u64 - 1_000).expect("it can be written");
    let log = open(&options, None);
    assert!(!log.report().copy.cut.is_empty());
    holds_all(&log);
}

#[test]
fn a_flipped_bit_is_found_by_the_reader_and_fetched_again() {
    needs_kafka!();
    let directory = tempfile::tempdir().expect("a directory");
    let options = filled(directory.path());
    let first = segments(directory.path()).swap_remove(0);
    let file = OpenOptions::new().read(true).write(true).open(&first).expect("it is there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, 100_000).expect("it can be read");
    file.write_all_at(&[byte[0] ^ 4], 100_000).expect("it can be written");
    let log = open(&options, None);
    let end = log.end(Partition(1));
    holds_all(&log);
    assert_eq!(log.end(Partition(1)), end, "the end does not go back");
    assert_eq!(Writer::new(&log, 1).append_many(1, record), [Offset(3_001)]);
}

#[test]
fn a_node_that_starts_later_gets_everything() {
    needs_kafka!();
    let (here, there) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let near = filled(here.path());
    let far = KafkaOptions { directory: there.path().to_owned(), ..near.clone() };
    let (near, far) = (open(&near, None), open(&far, None));
    assert_eq!((near.id(), near.genesis()), (far.id(), far.genesis()));
    holds_all(&far);
    // What one appends the other gets, byte for byte at the same offsets.
    Writer::new(&near, 2).append_many(500, record);
    far.caught_up(crate::support::PATIENCE).expect("it follows");
    assert_eq!(all(&near, 2), all(&far, 2));
    assert_eq!(far.end_at_broker(Partition(2)).expect("the broker says"), Offset(501));
    assert_eq!(far.catch_up_end(Partition(2)), Ok(Offset(501)), "what a claim has to know");
}
