//! The reading side: what is durable, from memory at the end of the log and from verified blocks before. Any number of
//! threads read at once; only the writer changes what they see, and only after its flush. Memory is bounded however
//! large the log is: headers, indexes and blocks are looked up when needed and forgotten again.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use engine::log::{LogFault, Stored};
use engine::position::{LogId, Offset, Partition};
use parking_lot::RwLock;

use crate::block::{Block, ReadFault, read_up_to, walk};
use crate::cache::Cache;
use crate::files::{index_path, segment_path};
use crate::index::{BlockPlace, SegmentIndex};
use crate::layout::{HeaderFault, SegmentHeader};
use crate::options::CacheSizes;

/// What open files of sealed segments are taken to weigh in the cache of indexes, so that they are bounded too.
const OPEN_FILE_WEIGHT: usize = 64 << 10;

/// What readers see.
pub(crate) struct Store {
    directory: PathBuf,
    log: LogId,
    block_bytes: u64,
    tails: Vec<RwLock<Tail>>,
    active: RwLock<Active>,
    headers: Cache<u64, SegmentHeader>,
    sealed: Cache<u64, Sealed>,
    blocks: Cache<(u64, u64), Block>,
    /// Bytes of groups whose records are in `tails`, and the most there may be.
    tail_bytes: AtomicUsize,
    tail_bytes_max: usize,
}

/// Why something cannot be read.
#[derive(Debug)]
pub(crate) enum Fault {
    Damaged { file: PathBuf, offset: u64, what: String },
    Unreadable(String),
}

impl From<Fault> for LogFault {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Damaged { file, offset, what } => {
                Self::Damaged { place: format!("{} at byte {offset}", file.display()), what }
            }
            Fault::Unreadable(what) => Self::Unreadable(what),
        }
    }
}

/// The last records of a partition. Its end is the partition's durable end.
struct Tail {
    first: u64,
    records: VecDeque<Bytes>,
}

impl Tail {
    fn end(&self) -> u64 {
        self.first + self.records.len() as u64
    }
}

/// The segment that is written.
pub(crate) struct Active {
    pub(crate) header: Arc<SegmentHeader>,
    pub(crate) file: Arc<File>,
    pub(crate) index: SegmentIndex,
}

/// A segment that is not written any more.
pub(crate) struct Sealed {
    file: Arc<File>,
    index: SegmentIndex,
}

impl Store {
    pub(crate) fn new(directory: PathBuf, block_bytes: u64, caches: CacheSizes, active: Active) -> Self {
        let tails = active
            .index
            .chain
            .next_offsets
            .iter()
            .map(|next| RwLock::new(Tail { first: *next, records: VecDeque::new() }))
            .collect();
        Self {
            directory,
            log: active.header.log,
            block_bytes,
            tails,
            active: RwLock::new(active),
            headers: Cache::new(caches.headers),
            sealed: Cache::new(caches.indexes),
            blocks: Cache::new(caches.blocks),
            tail_bytes: AtomicUsize::new(0),
            tail_bytes_max: caches.tail,
        }
    }

    /// What is kept in memory for readers: its name, its bytes, and the most there may be.
    fn kept(&self) -> [(&'static str, (usize, usize)); 4] {
        let tail = (self.tail_bytes.load(Ordering::Relaxed), self.tail_bytes_max);
        [
            ("log-blocks", self.blocks.bytes()),
            ("log-indexes", self.sealed.bytes()),
            ("log-headers", self.headers.bytes()),
            ("log-tail", tail),
        ]
    }

    /// Sets the gauges of that.
    pub(crate) fn measure(&self) {
        for (cache, (bytes, most)) in self.kept() {
            metrics::gauge!("docket_cache_bytes", "cache" => cache).set(bytes as f64);
            metrics::gauge!("docket_cache_bytes_max", "cache" => cache).set(most as f64);
        }
    }

    pub(crate) fn log(&self) -> LogId {
        self.log
    }

    pub(crate) fn block_bytes(&self) -> u64 {
        self.block_bytes
    }

    pub(crate) fn partitions(&self) -> u16 {
        u16::try_from(self.tails.len()).expect("partitions are counted in a u16")
    }

    pub(crate) fn end(&self, partition: Partition) -> Offset {
        Offset(self.tails.get(usize::from(partition.0)).map_or(0, |tail| tail.read().end()))
    }

    pub(crate) fn read(&self, partition: Partition, from: Offset, bytes_max: usize) -> Result<Vec<Stored>, Fault> {
        let Some(tail) = self.tails.get(usize::from(partition.0)) else {
            return Err(Fault::Unreadable(format!("there is no partition {partition}")));
        };
        let (mut next, mut room, mut out) = (from.0, bytes_max, Vec::new());
        loop {
            let end = {
                let tail = tail.read();
                if next >= tail.first {
                    let at = usize::try_from(next - tail.first).unwrap_or(usize::MAX).min(tail.records.len());
                    for (bytes, offset) in tail.records.range(at..).zip(next..) {
                        if bytes.len() > room && !out.is_empty() {
                            break;
                        }
                        room = room.saturating_sub(bytes.len());
                        out.push(Stored { offset: Offset(offset), bytes: bytes.clone() });
                    }
                    return Ok(out);
                }
                tail.end()
            };
            let before = out.len();
            if self.block_of(partition.0, next)?.read(partition.0, next, end, &mut room, &mut out) {
                return Ok(out);
            }
            assert!(out.len() > before, "the block of offset {next} of partition {partition} does not hold it");
            next = from.0 + out.len() as u64;
        }
    }

    /// The verified block that holds a durable record.
    fn block_of(&self, partition: u16, offset: u64) -> Result<Arc<Block>, Fault> {
        let gone = |segment| {
            let what = format!("offset {offset} of partition {partition} is not where the segments' headers say");
            Fault::Damaged { file: segment_path(&self.directory, segment), offset: 0, what }
        };
        let (segment, file, place) = {
            let active = self.active.read();
            let segment = active.header.segment;
            if offset >= active.header.next_offsets[usize::from(partition)] {
                let place = active.index.find(partition, offset).ok_or_else(|| gone(segment))?;
                (segment, Arc::clone(&active.file), place)
            } else {
                drop(active);
                let segment = self.segment_of(partition, offset, segment)?;
                let sealed = self.sealed(segment)?;
                let place = sealed.index.find(partition, offset).ok_or_else(|| gone(segment))?;
                (segment, Arc::clone(&sealed.file), BlockPlace { open: false, ..place })
            }
        };
        self.block(segment, &file, place)
    }

    fn block(&self, segment: u64, file: &File, place: BlockPlace) -> Result<Arc<Block>, Fault> {
        let (key, open) = ((segment, place.start), place.open);
        // The last block of the active segment still grows, so it is not kept; in memory is what it ends with.
        if !open && let Some(block) = self.blocks.get(key) {
            return Ok(block);
        }
        let block = Block::load(file, self.log, segment, place).map_err(|fault| self.fault(segment, fault))?;
        let block = Arc::new(block);
        if !open {
            self.blocks.insert(key, Arc::clone(&block), block.weight());
        }
        Ok(block)
    }

    /// The last of the segments before `active` that starts at or before the offset.
    fn segment_of(&self, partition: u16, offset: u64, active: u64) -> Result<u64, Fault> {
        let (mut low, mut high) = (0, active);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.header(middle)?.next_offsets[usize::from(partition)] <= offset {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low.checked_sub(1).ok_or_else(|| {
            let what = "the first segment does not start at offset 0".to_owned();
            Fault::Damaged { file: segment_path(&self.directory, 0), offset: 0, what }
        })
    }

    fn header(&self, segment: u64) -> Result<Arc<SegmentHeader>, Fault> {
        if let Some(header) = self.headers.get(segment) {
            return Ok(header);
        }
        let file = self.open(segment)?;
        self.read_header(segment, &file)
    }

    fn open(&self, segment: u64) -> Result<File, Fault> {
        let path = segment_path(&self.directory, segment);
        File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Fault::Damaged { file: path, offset: 0, what: "the segment is missing".to_owned() }
            }
            _ => Fault::Unreadable(format!("{}: {error}", path.display())),
        })
    }

    fn read_header(&self, segment: u64, file: &File) -> Result<Arc<SegmentHeader>, Fault> {
        let header = read_header(file).map_err(|fault| match fault {
            HeaderReadFault::Disk(error) => self.fault(segment, ReadFault::Disk(error)),
            HeaderReadFault::Header(HeaderFault::Damaged(what)) => {
                self.fault(segment, ReadFault::Damaged { offset: 0, what })
            }
            HeaderReadFault::Header(HeaderFault::TooNew(_)) => {
                self.fault(segment, ReadFault::Damaged { offset: 8, what: "a newer format than the segments after it" })
            }
        })?;
        if header.log != self.log || header.segment != segment || header.next_offsets.len() != self.tails.len() {
            let what = "this segment belongs elsewhere";
            return Err(self.fault(segment, ReadFault::Damaged { offset: 0, what }));
        }
        let weight = 128 + 8 * header.next_offsets.len();
        let header = Arc::new(header);
        self.headers.insert(segment, Arc::clone(&header), weight);
        Ok(header)
    }

    fn sealed(&self, segment: u64) -> Result<Arc<Sealed>, Fault> {
        if let Some(sealed) = self.sealed.get(segment) {
            return Ok(sealed);
        }
        let file = self.open(segment)?;
        let header = self.read_header(segment, &file)?;
        // The next segment's header says where this one must have ended; an active one has a header as well.
        let next = self.header(segment + 1)?;
        let path = index_path(&self.directory, segment);
        let whole = |index: &SegmentIndex| {
            index.chain.next_group == next.first_group
                && index.chain.previous_crc == next.previous_crc
                && index.chain.next_offsets == next.next_offsets
        };
        let kept = std::fs::read(&path)
            .ok()
            .and_then(|bytes| SegmentIndex::decode(&bytes, self.log, segment, self.block_bytes))
            .filter(whole);
        let index = match kept {
            Some(index) => index,
            None => {
                tracing::info!(segment, "scanning segment {segment}, whose index is missing or damaged");
                let walk = walk(&file, &header, self.block_bytes, Some(next.first_group))
                    .map_err(|fault| self.fault(segment, fault))?;
                if !whole(&walk.index) {
                    let what = "the segment does not lead to the next one";
                    return Err(self.fault(segment, ReadFault::Damaged { offset: walk.index.end, what }));
                }
                write_index(&self.directory, self.log, segment, &walk.index);
                walk.index
            }
        };
        let sealed = Arc::new(Sealed { file: Arc::new(file), index });
        self.keep_sealed(segment, Arc::clone(&sealed));
        Ok(sealed)
    }

    fn keep_sealed(&self, segment: u64, sealed: Arc<Sealed>) {
        let weight = sealed.index.weight() + OPEN_FILE_WEIGHT;
        self.sealed.insert(segment, sealed, weight);
    }

    fn fault(&self, segment: u64, fault: ReadFault) -> Fault {
        let path = segment_path(&self.directory, segment);
        match fault {
            ReadFault::Disk(error) => Fault::Unreadable(format!("{}: {error}", path.display())),
            ReadFault::Damaged { offset, what } => Fault::Damaged { file: path, offset, what: what.to_owned() },
        }
    }
}

/// What the writer tells readers.
impl Store {
    /// A group is durable: the active segment ends later.
    pub(crate) fn lengthen(&self, end: u64, chain: &crate::layout::Chain) {
        self.active.write().index.push(end, chain);
    }

    /// Another segment is written from now on. Gives back the index of the one before.
    pub(crate) fn roll(&self, next: Active) -> (u64, SegmentIndex) {
        let mut active = self.active.write();
        let before = std::mem::replace(&mut *active, next);
        let segment = before.header.segment;
        // Still under the lock, so that no reader finds it in neither place and scans the file.
        self.keep_sealed(segment, Arc::new(Sealed { file: before.file, index: before.index.clone() }));
        drop(active);
        (segment, before.index)
    }

    /// A record is durable: readers see it from now on.
    pub(crate) fn show(&self, partition: u16, record: Bytes) {
        self.tails[usize::from(partition)].write().records.push_back(record);
    }

    /// So many bytes of groups are in memory for readers now.
    pub(crate) fn tail_weighs(&self, bytes: usize) {
        self.tail_bytes.store(bytes, Ordering::Relaxed);
    }

    /// The first `records` of those in memory are to be read from the disk from now on.
    pub(crate) fn forget(&self, partition: u16, records: usize) {
        let mut tail = self.tails[usize::from(partition)].write();
        tail.records.drain(..records);
        tail.first += records as u64;
    }
}

/// Why a header cannot be read.
pub(crate) enum HeaderReadFault {
    Disk(io::Error),
    Header(HeaderFault),
}

/// Reads and verifies a segment's header.
pub(crate) fn read_header(file: &File) -> Result<SegmentHeader, HeaderReadFault> {
    let mut bytes = vec![0; SegmentHeader::len_max()];
    let len = read_up_to(file, &mut bytes, 0, u64::MAX).map_err(HeaderReadFault::Disk)?;
    SegmentHeader::decode(&bytes[..len]).map_err(HeaderReadFault::Header)
}

/// Keeps an index beside its segment. Not flushed, and a failure is only told: it can be made again.
pub(crate) fn write_index(directory: &std::path::Path, log: LogId, segment: u64, index: &SegmentIndex) {
    let path = index_path(directory, segment);
    // Readers may do the same at the same time: each writes a file of its own, and the last name given stays.
    let unique = format!("index-{:?}.tmp", std::thread::current().id());
    let temporary = path.with_extension(unique);
    let written =
        std::fs::write(&temporary, index.encode(log, segment)).and_then(|()| std::fs::rename(&temporary, &path));
    if let Err(error) = written {
        tracing::warn!(segment, %error, "the index of segment {segment} could not be kept");
        if let Err(error) = std::fs::remove_file(&temporary) {
            tracing::debug!(%error, "nor its half-written file removed");
        }
    }
}

#[cfg(test)]
mod tests;
