//! A local copy of a log that lives elsewhere, in the same segment files. The records and their offsets are given by
//! whoever follows the original; nothing is flushed, and nothing here is the truth. So a torn end, a damaged or missing
//! segment is no fault: the copy is cut back to what is whole, and the follower fetches the rest again.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use engine::log::{RECORD_BYTES_MAX, Stored};
use engine::position::{LogId, Offset, Partition};
use parking_lot::RwLock;

use crate::block::{ReadFault, inspect_rest, walk};
use crate::disk::{Disk, is_full};
use crate::files::{Lock, SPARE, index_path, list, segment_path};
use crate::layout::SegmentHeader;
use crate::options::{OpenFault, Options};
use crate::recover::{make_directory, write_zeros};
use crate::spare::{Spares, make_zeros};
use crate::store::{Active, Fault, HeaderReadFault, Store, read_header};
use crate::writer::{Hub, Measures, TailBound, Writer};

/// Says that the segments beside it are a copy, so that a log that is nowhere else is never cut for one.
const MARKER: &str = "copy";

/// Most bytes a copied record may have: what a group can hold of one.
pub const COPIED_RECORD_BYTES_MAX: usize = 2 * RECORD_BYTES_MAX;

/// The writing end of a copy, for one thread of one process. Readers have [`CopyReader`]s.
pub struct LogCopy {
    directory: PathBuf,
    log: LogId,
    partitions: u16,
    options: Options,
    /// Nothing after a cut that failed: it is to be tried again.
    writer: Option<Writer>,
    readers: CopyReader,
    /// The segment that was cut back last: damaged again, it is given up whole.
    suspect: Option<u64>,
    _lock: Lock,
}

/// The reading end of a copy. Cheap to clone; any number of threads may read.
#[derive(Clone)]
pub struct CopyReader(Arc<RwLock<Arc<Store>>>);

/// What opening a copy found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyReport {
    /// Whether there was nothing to go on from.
    pub founded: bool,
    /// Why part of what was there was cut off, the newest part first. It will be fetched again.
    pub cut: Vec<String>,
}

/// Why a copy cannot be opened. Damage is no reason.
#[derive(Debug, thiserror::Error)]
pub enum CopyFault {
    /// The directory's copy is of another log.
    #[error("{directory} holds a copy of log {found}, not of {wanted}")]
    OtherLog {
        /// Where.
        directory: PathBuf,
        /// Which log is copied there.
        found: LogId,
        /// Which log was to be.
        wanted: LogId,
    },
    /// What is there is no copy but a log that is nowhere else.
    #[error("{directory} holds a log of its own, not the copy of one")]
    NotACopy {
        /// Where.
        directory: PathBuf,
    },
    /// In use, too new, or the disk fails.
    #[error(transparent)]
    Open(#[from] OpenFault),
}

/// Why a record of a copy cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyReadFault {
    /// To be given to [`LogCopy::cut_back`] by whoever has it, and read again once the rest was fetched.
    #[error("the local copy is damaged in segment {segment}: {what}")]
    Damaged {
        /// The segment that is not as it was written.
        segment: u64,
        /// What is wrong there.
        what: String,
    },
    /// Reading failed for a reason that may pass.
    #[error("cannot read the local copy: {0}")]
    Unreadable(String),
}

impl LogCopy {
    /// Opens the copy of `log` in `directory`, or starts one. Of `options`, sizes, cache and disk are used. Reads and verifies
    /// the last segment; those before are verified as they are read.
    pub fn open(
        directory: impl AsRef<Path>,
        log: LogId,
        partitions: u16,
        options: Options,
    ) -> Result<(Self, CopyReport), CopyFault> {
        let directory = directory.as_ref().to_owned();
        let options = Options { disk: Arc::new(Unflushed(Arc::clone(&options.disk))), ..options };
        make_directory(&directory, &*options.disk)?;
        let lock = Lock::take(&directory)?;
        let listing = list(&directory).map_err(|error| fault("list", &directory, error))?;
        let marker = directory.join(MARKER);
        if !listing.segments.is_empty() && !is_copy(&directory) {
            return Err(CopyFault::NotACopy { directory });
        }
        std::fs::write(&marker, "The segments here are a copy; the log itself is elsewhere.\n")
            .map_err(|error| fault("write", &marker, error))?;
        let mut report = CopyReport { founded: false, cut: Vec::new() };
        let (writer, store) = recover(&directory, log, partitions, &options, &mut report)?;
        let readers = CopyReader(Arc::new(RwLock::new(store)));
        Ok((
            Self { directory, log, partitions, options, writer: Some(writer), readers, suspect: None, _lock: lock },
            report,
        ))
    }

    /// A reading end.
    pub fn reader(&self) -> CopyReader {
        self.readers.clone()
    }

    /// The offset that `partition` needs next.
    pub fn end(&self, partition: Partition) -> Offset {
        self.readers.end(partition)
    }

    /// Adds records, each at its partition's end, and lets readers see them. On an error part of them may have been added:
    /// go on from [`LogCopy::end`]. [`no_room`] tells whether it was for lack of room.
    ///
    /// # Panics
    /// If a partition does not exist or a record is larger than [`COPIED_RECORD_BYTES_MAX`].
    pub fn append(&mut self, records: &[(Partition, &[u8])]) -> io::Result<()> {
        assert!(records.iter().all(|(_, record)| record.len() <= COPIED_RECORD_BYTES_MAX), "a record is too large");
        let writer = self.writer.as_mut().ok_or_else(|| io::Error::other("cutting the copy back failed"))?;
        writer.append_copied(records)
    }

    /// Cuts off what is not whole from `segment` on; readers see less until it is fetched again. Says why.
    pub fn cut_back(&mut self, segment: u64) -> Result<Vec<String>, CopyFault> {
        let again = self.suspect.replace(segment) == Some(segment);
        self.discard_from(if again { segment } else { segment + 1 })
    }

    /// Forgets everything: the copy starts anew from offset 0 of every partition.
    pub fn wipe(&mut self) -> Result<(), CopyFault> {
        self.discard_from(0).map(drop)
    }

    fn discard_from(&mut self, first: u64) -> Result<Vec<String>, CopyFault> {
        // Its thread makes segments under the very names that are looked at now.
        drop(self.writer.take());
        remove_segments(&self.directory, first)?;
        let mut report = CopyReport { founded: false, cut: Vec::new() };
        let (writer, store) = recover(&self.directory, self.log, self.partitions, &self.options, &mut report)?;
        self.writer = Some(writer);
        *self.readers.0.write() = store;
        Ok(report.cut)
    }
}

impl CopyReader {
    /// The offset after the last record that is here. Goes back when a damaged copy is cut.
    pub fn end(&self, partition: Partition) -> Offset {
        self.0.read().end(partition)
    }

    /// Sets the gauges of what is kept in memory for readers: to be called by whoever renders metrics, right before.
    pub fn measure(&self) {
        self.0.read().measure();
    }

    /// Records of `partition` from `from` on, as [`engine::log::Log::read`] says; empty at the end of the copy.
    pub fn read(&self, partition: Partition, from: Offset, bytes_max: usize) -> Result<Vec<Stored>, CopyReadFault> {
        let store = Arc::clone(&self.0.read());
        store.read(partition, from, bytes_max).map_err(|fault| match fault {
            Fault::Unreadable(what) => CopyReadFault::Unreadable(what),
            Fault::Damaged { file, offset, what } => CopyReadFault::Damaged {
                segment: file.file_stem().and_then(|stem| stem.to_str()?.parse().ok()).unwrap_or(0),
                what: format!("{} at byte {offset}: {what}", file.display()),
            },
        })
    }
}

/// Whether the segments in `directory` are a copy.
pub fn is_copy(directory: &Path) -> bool {
    directory.join(MARKER).exists()
}

/// Whether an append failed because the disk is full.
pub fn no_room(error: &io::Error) -> bool {
    is_full(error)
}

/// Finds what is whole, cuts off the rest, or starts anew.
fn recover(
    directory: &Path,
    log: LogId,
    partitions: u16,
    options: &Options,
    report: &mut CopyReport,
) -> Result<(Writer, Arc<Store>), CopyFault> {
    let active = loop {
        let listing = list(directory).map_err(|error| fault("list", directory, error))?;
        let whole = (0..).zip(&listing.segments).take_while(|(expected, segment)| expected == *segment).count() as u64;
        if whole < listing.segments.len() as u64 {
            report.cut.push(format!("segment {whole} is missing"));
            remove_segments(directory, whole)?;
        }
        let Some(last) = whole.checked_sub(1) else {
            report.founded = true;
            found(directory, log, partitions, options)?;
            continue;
        };
        remove_indexes(directory, last, &listing.indexes)?;
        match last_segment(directory, last, log, partitions, options, report)? {
            Some(active) => break active,
            None => remove_segments(directory, last)?,
        }
    };
    let (header, file) = (Arc::clone(&active.header), Arc::clone(&active.file));
    let (position, chain) = (active.index.end, active.index.chain.clone());
    let store = Arc::new(Store::new(directory.to_owned(), options.block_bytes, options.caches(), active));
    let spares = Spares::start(directory.to_owned(), log, Arc::clone(&options.disk))
        .map_err(|error| fault("start a thread for", directory, error))?;
    let listing = list(directory).map_err(|error| fault("list", directory, error))?;
    let writer = Writer {
        hub: Arc::new(Hub::new()),
        store: Arc::clone(&store),
        disk: Arc::clone(&options.disk),
        spares,
        directory: directory.to_owned(),
        segment_bytes: options.segment_bytes,
        group_bytes_max: options.group_bytes_max(),
        header,
        file,
        position,
        chain,
        sealed: true,
        tail: TailBound::new(options.caches()),
        measures: Measures::new(listing.segments_bytes),
    };
    Ok((writer, store))
}

/// The last segment, cut to what is whole in it; nothing if nothing of it can be used.
fn last_segment(
    directory: &Path,
    segment: u64,
    log: LogId,
    partitions: u16,
    options: &Options,
    report: &mut CopyReport,
) -> Result<Option<Active>, CopyFault> {
    let path = segment_path(directory, segment);
    let disk = |error| fault("read", &path, error);
    let file = OpenOptions::new().read(true).write(true).open(&path).map_err(disk)?;
    let header = match read_header(&file) {
        Ok(header) => header,
        Err(HeaderReadFault::Disk(error)) => return Err(fault("read", &path, error).into()),
        Err(HeaderReadFault::Header(_)) => {
            report.cut.push(format!("{}: no header that can be read", path.display()));
            return Ok(None);
        }
    };
    if header.log != log {
        return Err(CopyFault::OtherLog { directory: directory.to_owned(), found: header.log, wanted: log });
    }
    if header.segment != segment || header.next_offsets.len() != usize::from(partitions) {
        report.cut.push(format!("{}: this segment belongs elsewhere", path.display()));
        return Ok(None);
    }
    let mut cut = |at: u64, what: &str| report.cut.push(format!("{} at byte {at}: {what}", path.display()));
    let walked = match walk(&file, &header, options.block_bytes, None) {
        Ok(walked) => walked,
        Err(ReadFault::Disk(error)) => return Err(fault("read", &path, error).into()),
        Err(ReadFault::Damaged { offset, what }) => {
            cut(offset, what);
            return Ok(None);
        }
    };
    let end = walked.index.end;
    let rest = match inspect_rest(&file, &header, end) {
        Ok(rest) => rest,
        Err(ReadFault::Disk(error)) => return Err(fault("read", &path, error).into()),
        Err(ReadFault::Damaged { offset, what }) => {
            cut(offset, what);
            return Ok(None);
        }
    };
    if rest.written_end > end {
        cut(end, "no whole group is here");
    }
    let length = file.metadata().map_err(disk)?.len();
    write_zeros(&*options.disk, &file, end, rest.written_end)
        .and_then(|()| write_zeros(&*options.disk, &file, length.max(end), header.bytes))
        .map_err(|error| fault("write", &path, error))?;
    Ok(Some(Active { header: Arc::new(header), file: Arc::new(file), index: walked.index }))
}

/// The first segment, without records.
fn found(directory: &Path, log: LogId, partitions: u16, options: &Options) -> Result<(), CopyFault> {
    let next_offsets = vec![0; usize::from(partitions)];
    let start = SegmentHeader::len(next_offsets.len()) as u64;
    let bytes = options.segment_bytes_first.max(start + 4_096);
    let header = SegmentHeader { log, segment: 0, first_group: 1, previous_crc: 0, bytes, next_offsets };
    let path = directory.join(SPARE);
    let write = || {
        let spare = make_zeros(&*options.disk, &path, bytes, &AtomicBool::new(false))?;
        options.disk.write_all_at(&spare.file, &header.encode(), 0)?;
        options.disk.rename(&path, &segment_path(directory, 0))
    };
    write().map_err(|error| fault("start a copy in", directory, error).into())
}

fn remove_segments(directory: &Path, first: u64) -> Result<(), CopyFault> {
    let listing = list(directory).map_err(|error| fault("list", directory, error))?;
    remove_indexes(directory, first, &listing.indexes)?;
    // The last first, so that a half-done cut leaves no gap.
    for segment in listing.segments.iter().rev().filter(|segment| **segment >= first) {
        remove(&segment_path(directory, *segment))?;
    }
    Ok(())
}

fn remove_indexes(directory: &Path, first: u64, indexes: &[u64]) -> Result<(), CopyFault> {
    for segment in indexes.iter().filter(|segment| **segment >= first) {
        remove(&index_path(directory, *segment))?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), CopyFault> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fault("remove", path, error).into()),
        _ => Ok(()),
    }
}

fn fault(doing: &'static str, path: &Path, source: io::Error) -> OpenFault {
    OpenFault::Disk { doing, file: path.to_owned(), source }
}

/// A disk that is written and never waited for.
struct Unflushed(Arc<dyn Disk>);

impl Disk for Unflushed {
    fn write_all_at(&self, file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
        self.0.write_all_at(file, bytes, position)
    }

    fn sync_data(&self, _: &File) -> io::Result<()> {
        Ok(())
    }

    fn reserve(&self, file: &File, bytes: u64) -> io::Result<()> {
        self.0.reserve(file, bytes)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
