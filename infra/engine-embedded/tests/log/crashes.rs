//! Power cuts, simulated: a disk that remembers what was flushed and, at the cut, keeps of everything else what chance
//! decides, sector by sector and name by name. Whatever was acknowledged must be there afterwards, at its offset, and
//! nothing that was never handed over.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use engine::log::{DeliverySink, Log};
use engine::position::Partition;
use engine_embedded::{Disk, EmbeddedLog, OpenFault, Options};
use parking_lot::Mutex;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::io::Errno;

use crate::support::{Collector, contents, open, os_error, record, small};

const SECTOR: usize = 512;

/// What such a disk holds, by inode and by name.
#[derive(Default)]
struct Volatile {
    flushed: BTreeMap<u64, Vec<u8>>,
    written: BTreeMap<u64, Vec<(u64, Vec<u8>)>>,
    names_flushed: BTreeMap<String, u64>,
    /// After so many more operations nothing works any more.
    operations_left: u64,
    ended: bool,
    /// Whether a flush that fails takes what it should have flushed for clean: it is in the cache, and will never be on
    /// the disk unless it is written again. So does Linux.
    forgets: bool,
}

struct PowerCut(Mutex<Volatile>);

impl PowerCut {
    /// What is in `directory` is on the disk.
    fn finding(directory: &Path) -> Self {
        let names_flushed = names_in(directory);
        let read = |name| std::fs::read(directory.join(name)).expect("a file");
        let flushed = names_flushed.iter().map(|(name, inode)| (*inode, read(name))).collect();
        Self(Mutex::new(Volatile { flushed, names_flushed, ..Volatile::default() }))
    }

    fn operation<T>(&self, run: impl FnOnce(&mut Volatile) -> io::Result<T>) -> io::Result<T> {
        let mut volatile = self.0.lock();
        if volatile.operations_left == 0 {
            return Err(os_error(Errno::IO));
        }
        volatile.operations_left -= 1;
        run(&mut volatile)
    }

    /// What is found when the power is back.
    fn restore(&self, from: &Path, to: &Path, random: &mut impl Rng) {
        let volatile = self.0.lock();
        let mut names = volatile.names_flushed.clone();
        // A name that was given and not flushed is there or is not.
        let now = names_in(from);
        for (name, inode) in &now {
            if random.random() {
                names.retain(|_, other| other != inode);
                names.insert(name.clone(), *inode);
            }
        }
        for (name, inode) in names {
            let mut bytes = volatile.flushed.get(&inode).cloned().unwrap_or_default();
            for (position, written) in volatile.written.get(&inode).into_iter().flatten() {
                let mut at = *position as usize;
                let mut rest = &written[..];
                while !rest.is_empty() {
                    let len = rest.len().min(SECTOR - at % SECTOR);
                    let (sector, further) = rest.split_at(len);
                    if random.random() {
                        let end = at + len;
                        if bytes.len() < end {
                            bytes.resize(end, 0);
                        }
                        bytes[at..end].copy_from_slice(sector);
                    }
                    at += len;
                    rest = further;
                }
            }
            std::fs::write(to.join(name), bytes).expect("written");
        }
    }
}

fn names_in(directory: &Path) -> BTreeMap<String, u64> {
    let names = std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry"));
    names
        .filter_map(|entry| {
            let inode = entry.metadata().ok()?.ino();
            entry.file_name().into_string().ok().map(|name| (name, inode))
        })
        .collect()
}

impl Disk for PowerCut {
    fn write_all_at(&self, file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
        let write = |volatile: &mut Volatile| {
            file.write_all_at(bytes, position)?;
            let inode = file.metadata()?.ino();
            volatile.written.entry(inode).or_default().push((position, bytes.to_vec()));
            Ok(())
        };
        {
            // What is being written when everything ends may have been written.
            let mut volatile = self.0.lock();
            if volatile.operations_left == 0 && !volatile.ended {
                volatile.ended = true;
                write(&mut volatile)?;
            }
        }
        self.operation(write)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        {
            let mut volatile = self.0.lock();
            if volatile.operations_left == 0 && volatile.forgets {
                volatile.written.remove(&file.metadata()?.ino());
            }
        }
        self.operation(|volatile| {
            let inode = file.metadata()?.ino();
            let flushed = volatile.flushed.entry(inode).or_default();
            for (position, bytes) in volatile.written.remove(&inode).unwrap_or_default() {
                let (start, end) = (position as usize, position as usize + bytes.len());
                if flushed.len() < end {
                    flushed.resize(end, 0);
                }
                flushed[start..end].copy_from_slice(&bytes);
            }
            Ok(())
        })
    }

    fn reserve(&self, _file: &File, _bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operation(|_| std::fs::rename(from, to))
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.operation(|volatile| {
            volatile.names_flushed = names_in(directory);
            Ok(())
        })
    }
}

/// One life of a log, until the disk does nothing any more; what was acknowledged in it goes to `acknowledged`.
fn live(directory: &Path, disk: &Arc<PowerCut>, random: &mut impl Rng, acknowledged: &mut Known) {
    let options = || Options { disk: Arc::clone(disk) as Arc<dyn Disk>, segment_bytes: 8 << 10, ..small(PARTITIONS) };
    let log = match EmbeddedLog::open(directory, options()) {
        Ok((log, report)) => {
            acknowledged.torn += u32::from(report.torn.is_some());
            log
        }
        // The power went while it was opened.
        Err(OpenFault::Disk { .. }) => return,
        Err(other) => panic!("{other}"),
    };
    acknowledged.judge(&log);
    let sinks = (0..PARTITIONS).map(|_| Arc::new(Collector::default())).collect::<Vec<_>>();
    let mut appenders = (0..PARTITIONS)
        .zip(&sinks)
        .map(|(partition, sink)| log.appender(Partition(partition), Arc::clone(sink) as Arc<dyn DeliverySink>))
        .collect::<Vec<_>>();
    let mut handed = vec![0; usize::from(PARTITIONS)];
    while log.stopped().is_none() {
        for _ in 0..random.random_range(1..8) {
            let partition = random.random_range(0..usize::from(PARTITIONS));
            let number = acknowledged.handed_over;
            acknowledged.handed_over += 1;
            appenders[partition].append(number, record(number, random.random_range(10..1_500)));
            handed[partition] += 1;
        }
        let partition = random.random_range(0..usize::from(PARTITIONS));
        sinks[partition].wait_for(handed[partition]);
    }
    for (partition, sink) in sinks.iter().enumerate() {
        for delivery in sink.wait_for(handed[partition]) {
            if let Ok(Some(offset)) = delivery.result {
                acknowledged.records.insert((partition as u16, offset.0), delivery.tag);
            }
        }
    }
}

const PARTITIONS: u16 = 3;

/// What clients know.
#[derive(Default)]
struct Known {
    records: BTreeMap<(u16, u64), u64>,
    handed_over: u64,
    /// How often a torn group was cut.
    torn: u32,
}

impl Known {
    /// Everything acknowledged, and everything seen before, is there at its place; everything there was handed over, and is there once.
    fn judge(&mut self, log: &EmbeddedLog) {
        let contents = contents(log);
        for ((partition, offset), number) in &self.records {
            let found = contents[partition].get(*offset as usize);
            let found = found.unwrap_or_else(|| panic!("{partition}:{offset} was acknowledged and is gone"));
            assert!(found.starts_with(format!("record {number} ").as_bytes()), "{partition}:{offset} is another");
        }
        let mut seen = std::collections::BTreeSet::new();
        let records =
            contents.iter().flat_map(|(partition, records)| (0..).zip(records).map(move |at| (*partition, at)));
        for (partition, (offset, bytes)) in records.filter(|(_, (offset, _))| *offset > 0) {
            let text = std::str::from_utf8(bytes).expect("a whole record");
            let number = text.split(' ').nth(1).and_then(|number| number.parse::<u64>().ok()).expect("a number");
            assert!(number < self.handed_over && seen.insert(number), "{number} is there twice or from nowhere");
            // Readers have seen it now and act on it, so it must stay, acknowledged or not.
            self.records.insert((partition, offset), number);
        }
    }
}

#[test]
fn power_cuts_lose_nothing_that_was_acknowledged() {
    let (mut kills, mut cuts, mut torn) = (0, 0, 0);
    for seed in 0..50 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut directory = tempfile::tempdir().expect("a directory");
        let mut known = Known::default();
        // Several cuts in a row, some of them while the log recovers from the one before.
        for _ in 0..6 {
            let disk = Arc::new(PowerCut::finding(directory.path()));
            // Before each, the process is killed now and then: then the cache lives on, flushed or not.
            for _ in 0..random.random_range(1..4) {
                let operations = match random.random_range(0..3) {
                    0 => random.random_range(1..12),
                    _ => random.random_range(12..150),
                };
                {
                    let mut volatile = disk.0.lock();
                    (volatile.operations_left, volatile.ended) = (operations, false);
                    volatile.forgets = random.random();
                }
                live(directory.path(), &disk, &mut random, &mut known);
                kills += 1;
            }
            let after = tempfile::tempdir().expect("a directory");
            disk.restore(directory.path(), after.path(), &mut random);
            directory = after;
            cuts += 1;
        }
        let (log, report) = open(directory.path(), small(PARTITIONS));
        torn += known.torn;
        known.judge(&log);
        if report.founded {
            assert!(known.records.is_empty());
        }
    }
    println!("{kills} kills, {cuts} power cuts, {torn} torn groups");
    assert!(torn > 30, "the cuts must hit groups in flight");
}
