//! Disks that fail a flush, and disks that are full.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use engine::log::{AppendError, DeliverySink, Log};
use engine::position::Partition;
use engine_embedded::{Disk, Options};
use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;

use crate::support::{Collector, append, append_all, contents, must_append, open, os_error, record, small};

/// Fails what it is told to.
#[derive(Default)]
struct Faulty {
    flush_fails: AtomicBool,
    flushes_since: AtomicU64,
    reserve_full: Mutex<Option<Errno>>,
    zeros_full: AtomicBool,
    write_fails: Mutex<Option<Errno>>,
    /// Whether a write that fails has written some of it.
    writes_half: AtomicBool,
    cut_fails: AtomicBool,
    gate: Gate,
}

#[derive(Default)]
struct Gate {
    shut: Mutex<bool>,
    waits: AtomicBool,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut shut = self.shut.lock();
        while *shut {
            self.waits.store(true, Ordering::Release);
            self.changed.notify_all();
            self.changed.wait(&mut shut);
        }
    }

    fn set(&self, to: bool) {
        *self.shut.lock() = to;
        self.changed.notify_all();
    }

    fn wait_until_someone_waits(&self) {
        let mut shut = self.shut.lock();
        while !self.waits.load(Ordering::Acquire) {
            self.changed.wait(&mut shut);
        }
    }
}

impl Disk for Faulty {
    fn write_all_at(&self, file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        let zeros = bytes.iter().all(|byte| *byte == 0);
        if zeros && self.zeros_full.load(Ordering::Relaxed) {
            return Err(os_error(Errno::NOSPC));
        }
        if zeros && self.cut_fails.load(Ordering::Relaxed) {
            return Err(os_error(Errno::IO));
        }
        if !zeros && let Some(errno) = *self.write_fails.lock() {
            if self.writes_half.load(Ordering::Relaxed) {
                file.write_all_at(&bytes[..bytes.len() / 2], position)?;
            }
            return Err(os_error(errno));
        }
        file.write_all_at(bytes, position)
    }

    fn sync_data(&self, _file: &File) -> io::Result<()> {
        if self.flush_fails.load(Ordering::Relaxed) {
            self.flushes_since.fetch_add(1, Ordering::Relaxed);
            return Err(os_error(Errno::IO));
        }
        Ok(())
    }

    fn sync_directory(&self, _directory: &Path) -> io::Result<()> {
        Ok(())
    }

    fn reserve(&self, _file: &File, _bytes: u64) -> io::Result<()> {
        self.gate.pass();
        self.reserve_full.lock().map_or(Ok(()), |errno| Err(os_error(errno)))
    }
}

fn on(disk: &Arc<Faulty>) -> Options {
    Options { disk: Arc::clone(disk) as Arc<dyn Disk>, ..small(2) }
}

#[test]
fn a_failed_flush_stops_the_writer_for_good() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = Arc::new(Faulty::default());
    let (log, _) = open(directory.path(), on(&disk));
    must_append(&log, 0, record(1, 100));
    let before = contents(&log);
    assert_eq!(log.stopped(), None);

    disk.flush_fails.store(true, Ordering::Relaxed);
    assert_eq!(append(&log, 0, record(2, 100)), Err(AppendError::Stopped));
    disk.flush_fails.store(false, Ordering::Relaxed);
    // The disk says that it is well again. It is not believed.
    assert_eq!(append_all(&log, 1, (0..5).map(|number| record(number, 10))), [Err(AppendError::Stopped); 5]);
    assert!(log.stopped().expect("it says why").contains("cannot flush"));
    assert_eq!(contents(&log), before, "what is not certainly durable is not shown");
    drop(log);
    assert_eq!(disk.flushes_since.load(Ordering::Relaxed), 1, "a failed flush is never tried again");

    let (log, _) = open(directory.path(), on(&disk));
    assert_eq!(contents(&log)[&0][..2], before[&0][..]);
    must_append(&log, 0, record(3, 100));
}

#[test]
fn a_failed_write_stops_the_writer_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = Arc::new(Faulty::default());
    let (log, _) = open(directory.path(), on(&disk));
    let before = contents(&log);
    disk.writes_half.store(true, Ordering::Relaxed);
    *disk.write_fails.lock() = Some(Errno::IO);
    assert_eq!(append(&log, 0, record(2, 100)), Err(AppendError::Stopped));
    *disk.write_fails.lock() = None;
    assert_eq!(append(&log, 0, record(3, 100)), Err(AppendError::Stopped));
    drop(log);
    let (log, report) = open(directory.path(), on(&disk));
    assert!(report.torn.is_some(), "half of it was written");
    assert_eq!(contents(&log), before);
}

#[test]
fn a_full_disk_is_answered_and_recovered_from() {
    for errno in [Errno::NOSPC, Errno::DQUOT, Errno::FBIG] {
        let directory = tempfile::tempdir().expect("a directory");
        let disk = Arc::new(Faulty::default());
        let (log, _) = open(directory.path(), on(&disk));
        *disk.reserve_full.lock() = Some(errno);
        let mut expected = contents(&log);
        let mut refused = 0;
        for number in 0..100 {
            match append(&log, 1, record(number, 1_000)) {
                Ok(_) => expected.get_mut(&1).expect("a partition").push(record(number, 1_000)),
                Err(error) => {
                    assert_eq!(error, AppendError::Full);
                    refused += 1;
                }
            }
        }
        assert!(refused > 50 && refused < 95, "{refused} refused");
        assert_eq!(contents(&log), expected, "reads go on");
        assert_eq!(log.stopped(), None);
        assert!(!directory.path().join("spare.tmp").exists(), "what was half made is removed");
        *disk.reserve_full.lock() = None;
        for number in 0..50 {
            must_append(&log, 1, record(number, 1_000));
            expected.get_mut(&1).expect("a partition").push(record(number, 1_000));
        }
        assert_eq!(contents(&log), expected);
        drop(log);
        assert_eq!(contents(&open(directory.path(), on(&disk)).0), expected);
    }
}

#[test]
fn a_disk_that_cannot_reserve_is_full_when_zeros_do_not_fit() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = Arc::new(Faulty::default());
    let (log, _) = open(directory.path(), on(&disk));
    disk.zeros_full.store(true, Ordering::Relaxed);
    // One at a time: of many at once a large group may find no room where a smaller one after it does.
    let results: Vec<_> = (0..100).map(|number| append(&log, 0, record(number, 1_000))).collect();
    let written = results.iter().take_while(|result| result.is_ok()).count();
    assert!(written < 20, "{written} fit");
    assert!(results[written..].iter().all(|result| *result == Err(AppendError::Full)), "{results:?}");
    disk.zeros_full.store(false, Ordering::Relaxed);
    must_append(&log, 0, record(1, 1_000));
}

#[test]
fn nothing_overtakes_what_found_the_disk_full() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = Arc::new(Faulty::default());
    let (log, _) = open(directory.path(), on(&disk));
    let sink = Arc::new(Collector::default());
    let mut appender = log.appender(Partition(0), Arc::clone(&sink) as Arc<dyn DeliverySink>);
    *disk.reserve_full.lock() = Some(Errno::NOSPC);
    disk.gate.set(true);
    // Does not fit; while the log looks for room, a small one that would fit comes after it.
    appender.append(0, record(0, 20_000));
    disk.gate.wait_until_someone_waits();
    appender.append(1, record(1, 10));
    disk.gate.set(false);
    let deliveries = sink.wait_for(2);
    assert!(deliveries.iter().all(|delivery| delivery.result == Err(AppendError::Full)), "{deliveries:?}");
    must_append(&log, 0, record(2, 10));
}

#[test]
fn a_full_disk_met_while_writing_a_group_is_full_only_if_the_group_is_certainly_gone() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = Arc::new(Faulty::default());
    let (log, _) = open(directory.path(), on(&disk));
    disk.writes_half.store(true, Ordering::Relaxed);
    *disk.write_fails.lock() = Some(Errno::NOSPC);
    assert_eq!(append(&log, 0, record(1, 100)), Err(AppendError::Full));
    *disk.write_fails.lock() = None;
    must_append(&log, 0, record(2, 100));
    assert_eq!(contents(&log)[&0][1..], [record(2, 100)]);

    disk.cut_fails.store(true, Ordering::Relaxed);
    *disk.write_fails.lock() = Some(Errno::NOSPC);
    assert_eq!(append(&log, 0, record(3, 100)), Err(AppendError::Stopped));
    disk.cut_fails.store(false, Ordering::Relaxed);
    *disk.write_fails.lock() = None;
    drop(log);
    let (log, report) = open(directory.path(), on(&disk));
    assert!(report.torn.is_some());
    assert_eq!(contents(&log)[&0][1..], [record(2, 100)]);
}

#[test]
fn a_disk_that_fails_while_the_next_segment_is_made_stops_the_writer() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = Arc::new(Faulty::default());
    let (log, _) = open(directory.path(), on(&disk));
    *disk.reserve_full.lock() = Some(Errno::IO);
    assert_eq!(append(&log, 0, record(0, 20_000)), Err(AppendError::Stopped));
    *disk.reserve_full.lock() = None;
    assert_eq!(append(&log, 0, record(0, 10)), Err(AppendError::Stopped));
}
