//! Reading groups back: as blocks for those who want records, and one after the other for those who want to know where
//! a segment ends. Nothing leaves here unverified.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use engine::log::Stored;
use engine::position::{LogId, Offset};

use crate::index::{BlockPlace, SegmentIndex};
use crate::layout::{
    Chain, GROUP_HEADER_BYTES, GroupFault, GroupHeader, Place, SegmentHeader, proven_group, take_group,
};

/// How much of a segment is read at once when all of it is looked at.
const WINDOW_BYTES: usize = 1 << 20;

/// Why bytes cannot be read back.
#[derive(Debug)]
pub(crate) enum ReadFault {
    Disk(io::Error),
    Damaged { offset: u64, what: &'static str },
}

impl From<io::Error> for ReadFault {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// A verified block: its bytes, and where in them each partition's records are.
pub(crate) struct Block {
    bytes: Bytes,
    /// By partition, then offset.
    frames: Vec<(u32, u32)>,
    /// Which partitions have records here: the partition, its first offset, the place of that in `frames`.
    partitions: Vec<(u16, u64, u32)>,
}

impl Block {
    /// Reads and verifies the block at `place`.
    pub(crate) fn load(file: &File, log: LogId, segment: u64, place: BlockPlace) -> Result<Self, ReadFault> {
        let len = usize::try_from(place.end - place.start).expect("blocks are small");
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, place.start).map_err(|error| cut_off(error, place.start))?;
        let first_offsets = place.before.next_offsets.clone();
        let mut chain = place.before;
        let mut found = Vec::new();
        let mut at = 0;
        while at < len {
            let position = place.start + at as u64;
            let mut in_group = |partition: u16, start: usize, len: usize| {
                found.push((partition, u32::try_from(at + start).expect("blocks are small"), len as u32));
            };
            let header = take_group(&mut chain, Place { log, segment, position }, &bytes[at..], |frame| {
                in_group(frame.partition, frame.at, frame.len);
            })
            .map_err(|fault| damaged(position, fault))?;
            at += header.group_bytes();
        }
        if (chain.next_group, chain.previous_crc) != place.after {
            return Err(ReadFault::Damaged { offset: place.start, what: "the block does not lead to the next one" });
        }
        // Sorted by counting: within a partition the order on disk is the order of offsets.
        let mut partitions = Vec::new();
        let mut next_slots = vec![0_u32; first_offsets.len()];
        let mut slots = 0;
        for (partition, (first, next)) in first_offsets.iter().zip(&chain.next_offsets).enumerate() {
            next_slots[partition] = slots;
            if next > first {
                partitions.push((partition as u16, *first, slots));
                slots += (next - first) as u32;
            }
        }
        let mut frames = vec![(0, 0); found.len()];
        for (partition, at, len) in found {
            let slot = &mut next_slots[usize::from(partition)];
            frames[*slot as usize] = (at, len);
            *slot += 1;
        }
        Ok(Self { bytes: bytes.into(), frames, partitions })
    }

    /// Adds records of `partition` from `from` up to, not including, `end` to `out`, until `room` bytes are used. The
    /// first of `out` is taken whatever its size. Says whether `room` was what ended it.
    pub(crate) fn read(&self, partition: u16, from: u64, end: u64, room: &mut usize, out: &mut Vec<Stored>) -> bool {
        let Ok(found) = self.partitions.binary_search_by_key(&partition, |(partition, ..)| *partition) else {
            return false;
        };
        let (_, first, slot) = self.partitions[found];
        let slots_end = self.partitions.get(found + 1).map_or(self.frames.len(), |(.., slot)| *slot as usize);
        let start = slot as usize + (from - first) as usize;
        for (slot, offset) in (start..slots_end).zip(from..end) {
            let (at, len) = (self.frames[slot].0 as usize, self.frames[slot].1 as usize);
            if len > *room && !out.is_empty() {
                return true;
            }
            *room = room.saturating_sub(len);
            out.push(Stored { offset: Offset(offset), bytes: self.bytes.slice(at..at + len) });
        }
        false
    }

    /// About how much memory it takes.
    pub(crate) fn weight(&self) -> usize {
        256 + self.bytes.len() + 8 * self.frames.len() + 16 * self.partitions.len()
    }
}

/// What a walk over a segment from its start found.
pub(crate) struct Walk {
    pub(crate) index: SegmentIndex,
    /// The last whole group: where it is, and its bytes.
    pub(crate) last: Option<(u64, Vec<u8>)>,
    /// Why there is no further group at `index.end`; nothing if the walk stopped where it was told to.
    pub(crate) stopped: Option<GroupFault>,
}

/// Walks the groups of a segment until the one numbered `until`, or until there are no more.
pub(crate) fn walk(
    file: &File,
    header: &SegmentHeader,
    block_bytes: u64,
    until: Option<u64>,
) -> Result<Walk, ReadFault> {
    let start = SegmentHeader::len(header.next_offsets.len()) as u64;
    let mut chain = Chain::before(header);
    let mut index = SegmentIndex::new(start, chain.clone(), block_bytes);
    let mut window = Window::new(file, header.bytes);
    let mut last = None;
    let stopped = loop {
        if until.is_some_and(|until| chain.next_group >= until) {
            break None;
        }
        let position = index.end;
        let place = Place { log: header.log, segment: header.segment, position };
        let bytes = window.group_at(position)?;
        match take_group(&mut chain, place, bytes, |_| {}) {
            Ok(header) => {
                last = Some((position, header.group_bytes()));
                index.push(position + header.group_bytes() as u64, &chain);
            }
            Err(fault) => break Some(fault),
        }
    };
    let last = match last {
        Some((position, len)) => {
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, position)?;
            Some((position, bytes))
        }
        None => None,
    };
    Ok(Walk { index, last, stopped })
}

/// What lies after the last whole group of a segment.
pub(crate) struct Rest {
    /// The byte after the last that is not zero; the start of the rest if all are.
    pub(crate) written_end: u64,
    /// Where a whole group lies, further on than the bytes that are none.
    pub(crate) group_at: Option<u64>,
}

/// Looks at everything from `from` to the end of the file.
pub(crate) fn inspect_rest(file: &File, header: &SegmentHeader, from: u64) -> Result<Rest, ReadFault> {
    let window = usize::try_from(header.bytes - from).map_or(WINDOW_BYTES, |len| len.min(WINDOW_BYTES));
    let zeros = vec![0; window];
    let mut chunk = vec![0; window];
    let mut rest = Rest { written_end: from, group_at: None };
    let mut position = from;
    let mut candidates = Window::new(file, header.bytes);
    while position < header.bytes {
        let len = read_up_to(file, &mut chunk, position, header.bytes)?;
        if len == 0 {
            break;
        }
        let found = &chunk[..len];
        if found != &zeros[..len] {
            let last = found.iter().rposition(|byte| *byte != 0).expect("not all are zero");
            rest.written_end = position + last as u64 + 1;
            for at in (0..len.saturating_sub(3)).step_by(crate::layout::GROUP_ALIGNMENT) {
                if rest.group_at.is_none() && found[at..].starts_with(crate::layout::GROUP_MAGIC) {
                    let position = position + at as u64;
                    let place = Place { log: header.log, segment: header.segment, position };
                    if proven_group(place, candidates.group_at(position)?).is_ok() {
                        rest.group_at = Some(position);
                    }
                }
            }
        }
        position += len as u64;
    }
    Ok(rest)
}

/// Reads a file piece by piece, large ones at a time.
struct Window<'a> {
    file: &'a File,
    end: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(file: &'a File, end: u64) -> Self {
        Self { file, end, start: 0, bytes: Vec::new() }
    }

    /// The bytes of the group that claims to be at `position`; fewer where the file ends.
    fn group_at(&mut self, position: u64) -> io::Result<&[u8]> {
        self.fill(position, GROUP_HEADER_BYTES)?;
        let len = GroupHeader::claimed(self.from(position)).map_or(GROUP_HEADER_BYTES, |header| header.group_bytes());
        self.fill(position, len)?;
        let bytes = self.from(position);
        Ok(&bytes[..len.min(bytes.len())])
    }

    fn from(&self, position: u64) -> &[u8] {
        let at = usize::try_from(position - self.start).expect("windows are small");
        self.bytes.get(at..).unwrap_or_default()
    }

    fn fill(&mut self, position: u64, len: usize) -> io::Result<()> {
        let have = self.start + self.bytes.len() as u64;
        if position >= self.start && position + len as u64 <= have {
            return Ok(());
        }
        let rest = usize::try_from(self.end.saturating_sub(position)).unwrap_or(usize::MAX);
        self.bytes.resize(len.max(WINDOW_BYTES).min(rest), 0);
        let got = read_up_to(self.file, &mut self.bytes, position, self.end)?;
        self.bytes.truncate(got);
        self.start = position;
        Ok(())
    }
}

/// Fills `into` from `position` as far as the file, or what counts of it, goes.
pub(crate) fn read_up_to(file: &File, into: &mut [u8], position: u64, end: u64) -> io::Result<usize> {
    let len = into.len().min(usize::try_from(end.saturating_sub(position)).unwrap_or(usize::MAX));
    let mut done = 0;
    while done < len {
        match file.read_at(&mut into[done..len], position + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

fn damaged(offset: u64, fault: GroupFault) -> ReadFault {
    let (GroupFault::Unproven(what) | GroupFault::Misplaced(what)) = fault;
    ReadFault::Damaged { offset, what }
}

fn cut_off(error: io::Error, offset: u64) -> ReadFault {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        ReadFault::Damaged { offset, what: "the file ends before" }
    } else {
        ReadFault::Disk(error)
    }
}
