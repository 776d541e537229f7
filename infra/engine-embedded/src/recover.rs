//! Finding the end of a log that was closed, killed or cut off from power, and founding one where there is none.
//!
//! A group is written only after the one before it is on the disk. So at most the last group can be half there, and a
//! bad group with a whole one after it, in its segment or in the next, was whole once: that is damage, and nothing is
//! touched. What is cut is overwritten with zeros, so that its bytes cannot come back; and the last whole group is
//! written and flushed again, because after a kill the page cache may hold what the disk does not.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use engine::position::Offset;
use engine::record::{Body, Genesis, Record, UnreadableRecord};

use crate::block::{ReadFault, inspect_rest, walk};
use crate::disk::Disk;
use crate::files::{SPARE, list, segment_path};
use crate::index::SegmentIndex;
use crate::layout::{
    Chain, FORMAT, FRAME_HEADER_BYTES, GROUP_HEADER_BYTES, GroupFault, HeaderFault, Place, SegmentHeader, encode_group,
    group_bytes,
};
use crate::options::{OpenFault, Options, TornTail};
use crate::spare::make_zeros;
use crate::store::{HeaderReadFault, read_header};

/// A log whose end is known and on the disk.
pub(crate) struct Recovered {
    pub(crate) header: SegmentHeader,
    pub(crate) file: File,
    pub(crate) index: SegmentIndex,
    pub(crate) segments_bytes: u64,
    pub(crate) founded: bool,
    pub(crate) bytes_scanned: u64,
    pub(crate) was_sealed: bool,
    pub(crate) torn: Option<TornTail>,
}

/// Makes the directory if need be, and its name durable.
pub(crate) fn make_directory(directory: &Path, disk: &dyn Disk) -> Result<(), OpenFault> {
    if directory.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(directory).map_err(|error| fault("make", directory, error))?;
    // Every directory on the way may be new.
    for parent in directory.ancestors().skip(1) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        disk.sync_directory(parent).map_err(|error| fault("flush", parent, error))?;
    }
    Ok(())
}

/// Founds or recovers the log in `directory`, whose lock is held.
pub(crate) fn recover(directory: &Path, options: &Options) -> Result<Recovered, OpenFault> {
    let mut listing = list(directory).map_err(|error| fault("list", directory, error))?;
    let founded = listing.segments.is_empty();
    if founded {
        let genesis = options.genesis.as_ref();
        if let Some(segment) = listing.indexes.last() {
            return Err(missing(directory, *segment));
        }
        let genesis = genesis.ok_or_else(|| OpenFault::Absent { directory: directory.to_owned() })?;
        found(directory, genesis, options)?;
        listing = list(directory).map_err(|error| fault("list", directory, error))?;
    }
    for (expected, segment) in (0..).zip(&listing.segments) {
        if *segment != expected {
            return Err(missing(directory, expected));
        }
    }
    let segment = listing.segments.len() as u64 - 1;
    // An index is written only once the next segment is there.
    if let Some(index) = listing.indexes.last().filter(|index| **index >= segment) {
        return Err(missing(directory, index + 1));
    }
    let path = segment_path(directory, segment);
    let file = OpenOptions::new().read(true).write(true).open(&path).map_err(|error| fault("open", &path, error))?;
    let header = checked_header(&path, &file, segment)?;
    let tail = find_end(&path, &file, &header, options)?;
    let mut recovered = Recovered {
        bytes_scanned: header.bytes,
        header,
        file,
        index: tail.index,
        segments_bytes: listing.segments_bytes,
        founded,
        was_sealed: tail.was_sealed,
        torn: tail.torn,
    };
    settle(directory, &path, &mut recovered, tail.last, tail.written_end, &*options.disk)
        .map_err(|error| fault("write", &path, error))?;
    Ok(recovered)
}

fn checked_header(path: &Path, file: &File, segment: u64) -> Result<SegmentHeader, OpenFault> {
    let header = read_header(file).map_err(|error| match error {
        HeaderReadFault::Disk(error) => fault("read", path, error),
        HeaderReadFault::Header(HeaderFault::TooNew(format)) => {
            let what = format!("its format is {format}, this program reads up to {FORMAT}");
            OpenFault::TooNew { file: path.to_owned(), what }
        }
        // A segment gets its name only after its header is on the disk.
        HeaderReadFault::Header(HeaderFault::Damaged(what)) => damaged(path, 0, what),
    })?;
    if header.segment != segment {
        return Err(damaged(path, 0, "this segment belongs elsewhere"));
    }
    Ok(header)
}

struct Tail {
    index: SegmentIndex,
    last: Option<(u64, Vec<u8>)>,
    was_sealed: bool,
    written_end: u64,
    torn: Option<TornTail>,
}

/// Finds where the last segment ends and judges what comes after. Only reads.
fn find_end(path: &Path, file: &File, header: &SegmentHeader, options: &Options) -> Result<Tail, OpenFault> {
    let unreadable = |error| match error {
        ReadFault::Disk(error) => fault("read", path, error),
        ReadFault::Damaged { offset, what } => damaged(path, offset, what),
    };
    let walk = walk(file, header, options.block_bytes, None).map_err(unreadable)?;
    let end = walk.index.end;
    if let Some(GroupFault::Misplaced(what)) = walk.stopped {
        return Err(damaged(path, end, what));
    }
    let rest = inspect_rest(file, header, end).map_err(unreadable)?;
    if let Some(group_at) = rest.group_at {
        let what = format!("no whole group is here, but one follows at byte {group_at}");
        return Err(OpenFault::Damaged { file: path.to_owned(), offset: end, what });
    }
    let torn = (rest.written_end > end).then(|| TornTail {
        file: path.to_owned(),
        offset: end,
        bytes: rest.written_end - end,
    });
    let partitions = u16::try_from(header.next_offsets.len()).expect("partitions are counted in a u16");
    for (partition, required) in &(options.known_durable)(header.log, partitions) {
        let next = walk.index.chain.next_offsets.get(usize::from(partition.0)).copied().unwrap_or(0);
        if next < required.0 {
            return Err(match torn {
                Some(_) => OpenFault::Damaged {
                    file: path.to_owned(),
                    offset: end,
                    what: format!("what looks torn here was durable: offset {next} of partition {partition} was read"),
                },
                None => OpenFault::Behind { partition: *partition, end: Offset(next), required: *required },
            });
        }
    }
    let was_sealed = match &walk.last {
        Some((_, bytes)) => bytes.len() == GROUP_HEADER_BYTES,
        // The header of this segment seals the one before.
        None => true,
    };
    Ok(Tail { index: walk.index, last: walk.last, was_sealed, written_end: rest.written_end, torn })
}

/// Makes certain that what was found is on the disk, and that nothing else is.
fn settle(
    directory: &Path,
    path: &Path,
    recovered: &mut Recovered,
    last: Option<(u64, Vec<u8>)>,
    written_end: u64,
    disk: &dyn Disk,
) -> io::Result<()> {
    let Recovered { file, index, header, .. } = recovered;
    if let Some((position, bytes)) = &last {
        disk.write_all_at(file, bytes, *position)?;
    }
    write_zeros(disk, file, index.end, written_end)?;
    // A file that was cut short gets its length back, as zeros that are written like the others.
    let length = file.metadata()?.len();
    write_zeros(disk, file, length.max(index.end), header.bytes)?;
    disk.sync_data(file)?;
    if !recovered.was_sealed && index.end + GROUP_HEADER_BYTES as u64 <= header.bytes {
        let mut chain = index.chain.clone();
        let place = Place { log: header.log, segment: header.segment, position: index.end };
        let seal = encode_group(&mut chain, place, 0, std::iter::empty());
        disk.write_all_at(file, &seal, index.end)?;
        disk.sync_data(file)?;
        index.push(index.end + seal.len() as u64, &chain);
    }
    // The segment's name may not have reached the disk before a kill.
    disk.sync_directory(directory)?;
    if let Some(torn) = &recovered.torn {
        tracing::warn!(
            file = %path.display(), offset = torn.offset, bytes = torn.bytes,
            "cut a torn group off the log: {} bytes at byte {} of {}, never acknowledged",
            torn.bytes, torn.offset, path.display(),
        );
    }
    Ok(())
}

pub(crate) fn write_zeros(disk: &dyn Disk, file: &File, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut position = from;
    while position < to {
        let len = zeros.len().min(usize::try_from(to - position).unwrap_or(usize::MAX));
        disk.write_all_at(file, &zeros[..len], position)?;
        position += len as u64;
    }
    Ok(())
}

/// Makes a log with its `Genesis` in every partition. It appears whole or not at all.
fn found(directory: &Path, genesis: &Genesis, options: &Options) -> Result<(), OpenFault> {
    let record: Bytes = Record::genesis(*genesis).encode();
    let partitions = usize::from(genesis.partitions);
    let frames_bytes = partitions * (FRAME_HEADER_BYTES + record.len());
    let start = SegmentHeader::len(partitions);
    let needed = (start + group_bytes(frames_bytes) + GROUP_HEADER_BYTES) as u64;
    let header = SegmentHeader {
        log: genesis.log,
        segment: 0,
        first_group: 1,
        previous_crc: 0,
        bytes: options.segment_bytes_first.max(needed),
        next_offsets: vec![0; partitions],
    };
    let mut chain = Chain::before(&header);
    let place = Place { log: header.log, segment: 0, position: start as u64 };
    let records = (0..genesis.partitions).map(|partition| (partition, &record[..]));
    let group = encode_group(&mut chain, place, frames_bytes, records);
    let place = Place { position: place.position + group.len() as u64, ..place };
    let seal = encode_group(&mut chain, place, 0, std::iter::empty());

    let path = directory.join(SPARE);
    let disk = &*options.disk;
    let write = || {
        let spare = make_zeros(disk, &path, header.bytes, &AtomicBool::new(false))?;
        disk.write_all_at(&spare.file, &[&header.encode()[..], &group, &seal].concat(), 0)?;
        disk.sync_data(&spare.file)?;
        disk.rename(&path, &segment_path(directory, 0))?;
        disk.sync_directory(directory)
    };
    write().map_err(|error| fault("found a log in", directory, error))
}

/// What the `Genesis` of a log says, if it fits the log's segments.
pub(crate) fn read_genesis(path: PathBuf, header: &SegmentHeader, record: &Bytes) -> Result<Genesis, OpenFault> {
    let wrong = |what: String| OpenFault::Damaged { file: path.clone(), offset: 0, what };
    let record = Record::decode(record).map_err(|error| match error {
        UnreadableRecord::Damaged(what) => wrong(format!("the first record: {what}")),
        UnreadableRecord::TooNew(what) => OpenFault::TooNew { file: path.clone(), what },
    })?;
    let Body::Genesis(genesis) = record.body else {
        return Err(wrong("the first record is no genesis".to_owned()));
    };
    if genesis.log != header.log || usize::from(genesis.partitions) != header.next_offsets.len() {
        return Err(wrong("the genesis is of another log".to_owned()));
    }
    Ok(genesis)
}

fn missing(directory: &Path, segment: u64) -> OpenFault {
    damaged(&segment_path(directory, segment), 0, "the segment is missing")
}

fn damaged(path: &Path, offset: u64, what: &str) -> OpenFault {
    OpenFault::Damaged { file: path.to_owned(), offset, what: what.to_owned() }
}

fn fault(doing: &'static str, path: &Path, source: io::Error) -> OpenFault {
    OpenFault::Disk { doing, file: path.to_owned(), source }
}
