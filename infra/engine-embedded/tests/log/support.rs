//! A log in a directory of its own, a sink that can be waited for, and disks that misbehave.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::log::{AppendError, Delivery, DeliverySink, Log, LogFault};
use engine::position::{LogId, Offset, Partition};
use engine::record::Genesis;
use engine::time::Timestamp;
use engine_embedded::{Disk, EmbeddedLog, OpenFault, OpenReport, Options};
use parking_lot::{Condvar, Mutex};
use uuid::Uuid;

/// Long enough for any disk; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn genesis(partitions: u16) -> Genesis {
    Genesis {
        log: LogId(Uuid::from_u128(0xd0c)),
        partitions,
        placement_rule: 1,
        format: 1,
        fingerprint_key: [7; 32],
        created_at: Timestamp(1_700_000_000_000_000),
    }
}

/// Small segments, and a disk that does not flush: most tests are about what is in the files, not in the disk's cache.
pub(crate) fn small(partitions: u16) -> Options {
    Options {
        segment_bytes_first: 16 << 10,
        segment_bytes: 16 << 10,
        block_bytes: 1 << 10,
        disk: Arc::new(NeverFlushes),
        ..Options::or_found(genesis(partitions))
    }
}

pub(crate) fn open(directory: &Path, options: Options) -> (EmbeddedLog, OpenReport) {
    EmbeddedLog::open(directory, options).expect("the log opens")
}

pub(crate) fn refuse(directory: &Path, options: Options) -> OpenFault {
    EmbeddedLog::open(directory, options).expect_err("the log is refused")
}

/// A record that says which it is and is `len` bytes long at least.
pub(crate) fn record(number: u64, len: usize) -> Bytes {
    let mut bytes = format!("record {number} ").into_bytes();
    while bytes.len() < len {
        bytes.push(b'a' + (number % 26) as u8);
    }
    bytes.into()
}

#[derive(Default)]
pub(crate) struct Collector {
    deliveries: Mutex<Vec<Delivery>>,
    changed: Condvar,
}

impl DeliverySink for Collector {
    fn delivered(&self, deliveries: Vec<Delivery>) {
        self.deliveries.lock().extend(deliveries);
        self.changed.notify_all();
    }
}

impl Collector {
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Delivery> {
        let until = Instant::now() + PATIENCE;
        let mut deliveries = self.deliveries.lock();
        while deliveries.len() < count {
            assert!(!self.changed.wait_until(&mut deliveries, until).timed_out(), "no delivery came");
        }
        deliveries.clone()
    }

    pub(crate) fn so_far(&self) -> Vec<Delivery> {
        self.deliveries.lock().clone()
    }
}

/// Appends all at once and waits for all.
pub(crate) fn append_all(
    log: &EmbeddedLog,
    partition: u16,
    records: impl IntoIterator<Item = Bytes>,
) -> Vec<Result<Option<Offset>, AppendError>> {
    let sink = Arc::new(Collector::default());
    let mut appender = log.appender(Partition(partition), Arc::clone(&sink) as Arc<dyn DeliverySink>);
    let mut count = 0;
    for record in records {
        appender.append(count, record);
        count += 1;
    }
    let deliveries = sink.wait_for(count as usize);
    assert!(deliveries.iter().map(|delivery| delivery.tag).eq(0..count), "each once, in order");
    deliveries.into_iter().map(|delivery| delivery.result).collect()
}

/// Appends one and waits for it: it is a group of its own.
pub(crate) fn append(log: &EmbeddedLog, partition: u16, record: Bytes) -> Result<Option<Offset>, AppendError> {
    append_all(log, partition, [record]).remove(0)
}

pub(crate) fn must_append(log: &EmbeddedLog, partition: u16, record: Bytes) -> Offset {
    append(log, partition, record).expect("there is room").expect("the log says where")
}

pub(crate) type Contents = BTreeMap<u16, Vec<Bytes>>;

/// Everything readable, in pieces of `bytes_max`.
pub(crate) fn try_contents(log: &EmbeddedLog, bytes_max: usize) -> Result<Contents, LogFault> {
    let mut contents = Contents::new();
    for partition in 0..log.partitions() {
        let mut records = Vec::new();
        loop {
            let read = log.read(Partition(partition), Offset(records.len() as u64), bytes_max)?;
            if read.is_empty() {
                break;
            }
            for stored in read {
                assert_eq!(stored.offset.0, records.len() as u64, "offsets have no gaps");
                records.push(stored.bytes);
            }
        }
        assert_eq!(log.end(Partition(partition)).0, records.len() as u64);
        contents.insert(partition, records);
    }
    Ok(contents)
}

pub(crate) fn contents(log: &EmbeddedLog) -> Contents {
    try_contents(log, 64 << 10).expect("the log is whole")
}

pub(crate) fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
    }
}

pub(crate) fn segment(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:010}.segment"))
}

pub(crate) fn last_segment(directory: &Path) -> PathBuf {
    (0..).map(|number| segment(directory, number)).take_while(|path| path.exists()).last().expect("a segment")
}

/// Where the groups of a segment are, as docs/segment-format.md says: written a second time here on purpose.
pub(crate) fn groups(segment: &[u8]) -> Vec<std::ops::Range<usize>> {
    let partitions = usize::from(u16::from_le_bytes([segment[10], segment[11]]));
    let mut at = 64 + 8 * partitions + 8;
    let mut groups = Vec::new();
    while segment.len() >= at + 32 && &segment[at..at + 4] == b"DKgp" {
        let body = u32::from_le_bytes(segment[at + 4..at + 8].try_into().expect("4 bytes")) as usize;
        groups.push(at..at + 32 + body);
        at += 32 + body;
    }
    groups
}

/// Flushes nothing, so that thousands of logs can be opened in a test.
pub(crate) struct NeverFlushes;

impl Disk for NeverFlushes {
    fn sync_data(&self, _file: &File) -> io::Result<()> {
        Ok(())
    }

    fn sync_directory(&self, _directory: &Path) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn os_error(errno: rustix::io::Errno) -> io::Error {
    errno.into()
}
