//! A log as the first version wrote it. Every later version must open it, so the files in `golden/` are never edited; a
//! new format gets a directory of its own beside them.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use engine::log::Log;
use engine::position::{LogId, Offset, Partition};
use engine::record::{Genesis, Record};
use engine::time::Timestamp;
use engine_embedded::Options;
use uuid::Uuid;

use crate::support::{Contents, NeverFlushes, contents, copy_directory, must_append, open};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/format-1")
}

fn genesis() -> Genesis {
    Genesis {
        log: LogId(Uuid::from_u128(0x0192_0d0c_ce70_7000_8000_0000_6011_de00)),
        partitions: 4,
        placement_rule: 1,
        format: 1,
        fingerprint_key: *b"the golden log keeps no secrets.",
        created_at: Timestamp(1_735_689_600_000_000),
    }
}

/// What is in it: partition 3 has nothing but its genesis.
fn records() -> impl Iterator<Item = (u16, Bytes)> {
    (0..48_u64).map(|number| {
        let text = format!("golden record {number}. ").repeat(1 + (number as usize * 5) % 50);
        ((number % 3) as u16, if number == 7 { Bytes::new() } else { text.into() })
    })
}

fn expected() -> Contents {
    let genesis = Record::genesis(genesis()).encode();
    let mut contents = (0..4).map(|partition| (partition, vec![genesis.clone()])).collect::<Contents>();
    for (partition, record) in records() {
        contents.get_mut(&partition).expect("a partition").push(record);
    }
    contents
}

/// Each record in a group of its own. A seal between two of them, should the machine be slow, changes the bytes and not
/// what they say.
fn write(directory: &Path) {
    let options = Options {
        segment_bytes_first: 16 << 10,
        segment_bytes: 16 << 10,
        block_bytes: 4 << 10,
        disk: std::sync::Arc::new(NeverFlushes),
        ..Options::or_found(genesis())
    };
    let (log, _) = open(directory, options);
    for (partition, record) in records() {
        must_append(&log, partition, record);
    }
}

#[test]
fn the_golden_log_opens_and_says_what_it_always_said() {
    // How a directory for a new format is made, once; see golden/README.md.
    if let Some(directory) = std::env::var_os("DOCKET_WRITE_GOLDEN") {
        write(directory.as_ref());
    }
    let directory = tempfile::tempdir().expect("a directory");
    copy_directory(&golden(), directory.path());
    let (log, report) = open(directory.path(), Options::existing());
    assert!(report.sealed && report.torn.is_none() && !report.founded);
    assert!(report.segments >= 2, "several segments");
    assert_eq!(log.genesis(), &genesis());
    assert_eq!(contents(&log), expected());
    let offset = must_append(&log, 3, Bytes::from_static(b"and goes on"));
    assert_eq!((offset, log.end(Partition(3))), (Offset(1), Offset(2)));
}

#[test]
fn the_golden_log_opens_without_its_indexes() {
    let directory = tempfile::tempdir().expect("a directory");
    copy_directory(&golden(), directory.path());
    std::fs::remove_file(directory.path().join("0000000000.index")).expect("an index");
    assert_eq!(contents(&open(directory.path(), Options::existing()).0), expected());
}

#[test]
fn what_is_written_today_is_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path());
    assert_eq!(contents(&open(directory.path(), Options::existing()).0), expected());
    let header = |directory: &Path| std::fs::read(directory.join("0000000000.segment")).expect("a segment");
    let (then, now) = (header(&golden()), header(directory.path()));
    // The founding group and its seal, to the byte; what comes after depends on when seals were due.
    let founded = crate::support::groups(&then)[1].end;
    assert_eq!(then[..founded], now[..founded]);
}
