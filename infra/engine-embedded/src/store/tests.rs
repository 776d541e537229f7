//! Every bit of a sealed segment, flipped. Here rather than beside the other tests, because opening the whole log half a
//! million times would take longer than anybody waits: this reads through a fresh [`Store`] each time instead.

use std::os::unix::fs::FileExt;
use std::path::Path;

use super::*;
use crate::files::segment_path;
use crate::{EmbeddedLog, Options};
use engine::log::{Delivery, DeliverySink, Log};
use engine::record::Genesis;
use engine::time::Timestamp;

const PARTITIONS: u16 = 3;
const SEGMENT_BYTES: u64 = 64 << 10;

struct Done(std::sync::mpsc::Sender<usize>);

impl DeliverySink for Done {
    fn delivered(&self, deliveries: Vec<Delivery>) {
        assert!(deliveries.iter().all(|delivery| delivery.result.is_ok()));
        self.0.send(deliveries.len()).expect("the test waits");
    }
}

fn options() -> Options {
    let genesis = Genesis {
        log: LogId(uuid::Uuid::from_u128(11)),
        partitions: PARTITIONS,
        placement_rule: 1,
        format: 1,
        fingerprint_key: [1; 32],
        created_at: Timestamp(0),
    };
    Options {
        segment_bytes_first: SEGMENT_BYTES,
        segment_bytes: SEGMENT_BYTES,
        block_bytes: 8 << 10,
        ..Options::or_found(genesis)
    }
}

/// A log whose first segment is full and whose second is written.
fn log_of_two_segments(directory: &Path) {
    write_two_segments(directory, options());
}

fn write_two_segments(directory: &Path, options: Options) -> EmbeddedLog {
    let (log, _) = EmbeddedLog::open(directory, options).expect("a log");
    let (sender, done) = std::sync::mpsc::channel();
    let sink = Arc::new(Done(sender));
    let mut number = 0_u64;
    while !segment_path(directory, 1).exists() {
        let partition = Partition((number % u64::from(PARTITIONS)) as u16);
        let record = number.to_le_bytes().repeat(20 + (number as usize * 7) % 60);
        log.appender(partition, Arc::clone(&sink) as Arc<dyn DeliverySink>).append(number, record.into());
        done.recv().expect("a delivery");
        number += 1;
    }
    log
}

#[test]
fn what_is_kept_for_readers_is_as_much_as_was_told() {
    let kept = |cache_bytes| {
        let directory = tempfile::tempdir().expect("a directory");
        let log = write_two_segments(directory.path(), Options { cache_bytes, ..options() });
        for partition in (0..PARTITIONS).map(Partition) {
            let (mut next, end) = (Offset(0), log.end(partition));
            while next < end {
                next.0 += log.read(partition, next, 4 << 10).expect("whole").len() as u64;
            }
        }
        log.store.kept().map(|(_, bytes)| bytes)
    };
    let [blocks, indexes, headers, tail] = kept(32 << 10);
    assert_eq!([blocks, indexes, headers, tail].map(|(_, most)| most), [16 << 10, 8 << 10, 4 << 10, 4 << 10]);
    assert!(blocks.0 > 0 && blocks.0 <= blocks.1, "{blocks:?}");
    assert!(headers.0 > 0 && headers.0 <= headers.1, "{headers:?}");
    assert!(tail.0 > 0 && tail.0 <= tail.1, "{tail:?}");
    let [.., tail] = kept(1 << 20);
    assert!(tail.0 > 32 << 10 && tail.0 <= tail.1, "nearly all that was written: {tail:?}");
}

/// The active segment, read once: the flips are in the one before.
struct Second {
    header: Arc<SegmentHeader>,
    file: Arc<File>,
    index: SegmentIndex,
}

impl Second {
    fn of(directory: &Path) -> Self {
        let file = File::open(segment_path(directory, 1)).expect("a segment");
        let Ok(header) = read_header(&file) else { panic!("a header") };
        let index = walk(&file, &header, 8 << 10, None).expect("groups").index;
        Self { header: Arc::new(header), file: Arc::new(file), index }
    }

    /// A store that has read nothing yet.
    fn fresh(&self, directory: &Path) -> Store {
        let (header, file) = (Arc::clone(&self.header), Arc::clone(&self.file));
        let active = Active { header, file, index: self.index.clone() };
        Store::new(directory.to_owned(), 8 << 10, options().caches(), active)
    }

    /// All of the first segment, or the first fault.
    fn read_all(&self, directory: &Path) -> Result<Vec<Stored>, Fault> {
        let store = self.fresh(directory);
        let mut all = Vec::new();
        for (partition, end) in (0..).zip(&self.header.next_offsets) {
            let mut next = 0;
            while next < *end {
                let read = store.read(Partition(partition), Offset(next), 1 << 20)?;
                next += read.len() as u64;
                all.extend(read.into_iter().filter(|stored| stored.offset.0 < *end));
            }
        }
        Ok(all)
    }

    /// The blocks of the first segment: their bytes, and a record that is read from each.
    fn blocks(&self, directory: &Path) -> Vec<(std::ops::Range<u64>, Offset)> {
        let index = &self.fresh(directory).sealed(0).map_err(LogFault::from).expect("whole").index;
        let mut blocks: Vec<(std::ops::Range<u64>, Offset)> = Vec::new();
        for offset in 0..self.header.next_offsets[0] {
            let block = index.find(0, offset).expect("it is there");
            if blocks.last().is_none_or(|(bytes, _)| bytes.start != block.start) {
                blocks.push((block.start..block.end, Offset(offset)));
            }
        }
        blocks
    }
}

/// Flips bits `from`, `from + step`… of the first segment; gives back how many were found and how many were harmless.
fn flip(directory: &Path, from: usize, step: usize) -> (usize, usize) {
    let second = Second::of(directory);
    let expected = second.read_all(directory).map_err(LogFault::from).expect("whole");
    let blocks = second.blocks(directory);
    let path = segment_path(directory, 0);
    let whole = std::fs::read(&path).expect("a segment");
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("a segment");
    let (mut found, mut harmless) = (0, 0);
    for bit in (from..whole.len() * 8).step_by(step) {
        let (at, mask) = (bit / 8, 1 << (bit % 8));
        file.write_all_at(&[whole[at] ^ mask], at as u64).expect("written");
        // What is read of a block is judged with the whole block, so one record of it tells. Everything is read if the
        // bit is in none.
        let read = match blocks.iter().find(|(bytes, _)| bytes.contains(&(at as u64))) {
            Some((_, offset)) => second.fresh(directory).read(Partition(0), *offset, 1),
            None => second.read_all(directory),
        };
        match read {
            Err(Fault::Damaged { file, .. }) => {
                assert_eq!(file, path, "bit {bit}");
                found += 1;
            }
            Err(Fault::Unreadable(what)) => panic!("bit {bit}: {what}"),
            Ok(read) => {
                assert_eq!(read, expected, "bit {bit} was not noticed");
                harmless += 1;
            }
        }
        file.write_all_at(&[whole[at]], at as u64).expect("written");
    }
    (found, harmless)
}

/// Where the last group of the first segment ends.
fn used_bytes(directory: &Path) -> usize {
    let file = File::open(segment_path(directory, 0)).expect("a segment");
    let Ok(header) = read_header(&file) else { panic!("a header") };
    let next = Second::of(directory).header.first_group;
    walk(&file, &header, 8 << 10, Some(next)).expect("groups").index.end as usize
}

#[test]
fn every_flipped_bit_of_a_sealed_segment_is_found_or_harmless() {
    const THREADS: usize = 4;
    let judged: usize = std::thread::scope(|scope| {
        let threads = (0..THREADS).map(|thread| {
            scope.spawn(move || {
                let directory = tempfile::tempdir().expect("a directory");
                log_of_two_segments(directory.path());
                let (found, harmless) = flip(directory.path(), thread, THREADS);
                // Each thread's own: where a log was idle for a moment it has a seal more.
                let used = used_bytes(directory.path());
                assert_eq!(found, (thread..used * 8).step_by(THREADS).count(), "every bit that means something");
                assert!(used as u64 > SEGMENT_BYTES * 9 / 10, "the segment was full");
                found + harmless
            })
        });
        let threads = threads.collect::<Vec<_>>();
        threads.into_iter().map(|thread| thread.join().expect("no flip slips through")).sum()
    });
    assert_eq!(judged, SEGMENT_BYTES as usize * 8);
}

#[test]
fn flipped_bits_are_found_without_an_index_too() {
    let directory = tempfile::tempdir().expect("a directory");
    log_of_two_segments(directory.path());
    let path = index_path(directory.path(), 0);
    // A directory in its place cannot be read and cannot be replaced by a file.
    std::fs::remove_file(&path).expect("removed");
    std::fs::create_dir_all(path.join("in the way")).expect("a directory");
    let (found, harmless) = flip(directory.path(), 3, 257);
    let used = used_bytes(directory.path()) * 8;
    assert_eq!(found, (3..used).step_by(257).count());
    assert!(harmless > 0);
}
