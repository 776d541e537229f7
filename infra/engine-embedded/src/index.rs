//! Where in a segment a record is. One entry about every 64 KiB says what the log stood at there, so the bytes between
//! two entries, a *block*, can be read, verified and understood without anything before them. The index of a sealed
//! segment is kept in a file beside it; losing or damaging that file costs one scan of the segment, nothing else.

use bytes::BufMut;
use engine::position::LogId;
use uuid::Uuid;

use crate::layout::{Chain, u16_at, u32_at, u64_at};

const INDEX_MAGIC: &[u8; 8] = b"DOCKETIX";
const INDEX_FORMAT: u16 = 1;
const INDEX_HEADER_BYTES: usize = 64;
const ENTRY_BYTES: usize = 24;

/// The index of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentIndex {
    entries: Vec<Entry>,
    /// The next offset of every partition at each entry, entry by entry.
    offsets: Vec<u64>,
    /// The byte after the last group.
    pub(crate) end: u64,
    /// What the log stood at there.
    pub(crate) chain: Chain,
    /// The first block starts here, and a new one about every `block_bytes`.
    block_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    position: u64,
    next_group: u64,
    previous_crc: u32,
}

/// A run of whole groups that can be verified by itself.
#[derive(Clone, Debug)]
pub(crate) struct BlockPlace {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// What the log stands at before it.
    pub(crate) before: Chain,
    /// The number of the group after it, and the CRC of its last.
    pub(crate) after: (u64, u32),
    /// Whether groups may yet be added to it.
    pub(crate) open: bool,
}

impl SegmentIndex {
    /// Of a segment without groups, whose header ends at `start`.
    pub(crate) fn new(start: u64, chain: Chain, block_bytes: u64) -> Self {
        // Entries of a log with very many partitions are large; they must stay small against what they index.
        let block_bytes = block_bytes.max(256 * chain.next_offsets.len() as u64);
        Self { entries: Vec::new(), offsets: Vec::new(), end: start, chain, block_bytes }
    }

    /// Adds a group that ends at byte `end`, after which the log stands at `chain`.
    pub(crate) fn push(&mut self, end: u64, chain: &Chain) {
        if self.entries.last().is_none_or(|last| self.end - last.position >= self.block_bytes) {
            self.entries.push(Entry {
                position: self.end,
                next_group: self.chain.next_group,
                previous_crc: self.chain.previous_crc,
            });
            self.offsets.extend_from_slice(&self.chain.next_offsets);
        }
        self.end = end;
        self.chain.next_group = chain.next_group;
        self.chain.previous_crc = chain.previous_crc;
        // Into the memory that is there: this runs for every group.
        self.chain.next_offsets.clone_from(&chain.next_offsets);
    }

    /// The block that holds a record of this segment.
    pub(crate) fn find(&self, partition: u16, offset: u64) -> Option<BlockPlace> {
        let partitions = self.chain.next_offsets.len();
        let partition = usize::from(partition);
        if offset >= self.chain.next_offsets[partition] {
            return None;
        }
        // The last block that starts at or before it: all between starts later and so cannot hold it.
        let (mut low, mut high) = (0, self.entries.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.offsets[middle * partitions + partition] <= offset {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let at = low.checked_sub(1)?;
        let entry = self.entries[at];
        let (end, after, open) = match self.entries.get(at + 1) {
            Some(next) => (next.position, (next.next_group, next.previous_crc), false),
            None => (self.end, (self.chain.next_group, self.chain.previous_crc), true),
        };
        Some(BlockPlace {
            start: entry.position,
            end,
            before: Chain {
                next_group: entry.next_group,
                previous_crc: entry.previous_crc,
                next_offsets: self.offsets[at * partitions..(at + 1) * partitions].to_vec(),
            },
            after,
            open,
        })
    }

    /// About how much memory it takes.
    pub(crate) fn weight(&self) -> usize {
        256 + ENTRY_BYTES * self.entries.len() + 8 * self.offsets.len()
    }

    /// As a file.
    pub(crate) fn encode(&self, log: LogId, segment: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(INDEX_HEADER_BYTES + self.weight());
        out.put_slice(INDEX_MAGIC);
        out.put_u16_le(INDEX_FORMAT);
        out.put_u16_le(u16::try_from(self.chain.next_offsets.len()).expect("partitions are counted in a u16"));
        out.put_u32_le(u32::try_from(self.entries.len()).expect("far fewer blocks than 2^32"));
        out.put_slice(log.0.as_bytes());
        out.put_u64_le(segment);
        out.put_u64_le(self.end);
        out.put_u64_le(self.chain.next_group);
        out.put_u32_le(self.chain.previous_crc);
        out.put_u32_le(0);
        for offset in &self.chain.next_offsets {
            out.put_u64_le(*offset);
        }
        for entry in &self.entries {
            out.put_u64_le(entry.position);
            out.put_u64_le(entry.next_group);
            out.put_u32_le(entry.previous_crc);
            out.put_u32_le(0);
        }
        for offset in &self.offsets {
            out.put_u64_le(*offset);
        }
        let crc = crc32c::crc32c(&out);
        out.put_u32_le(crc);
        out
    }

    /// Back from a file; nothing if it is not the index of that segment to the last bit.
    pub(crate) fn decode(bytes: &[u8], log: LogId, segment: u64, block_bytes: u64) -> Option<Self> {
        let (body, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        if body.len() < INDEX_HEADER_BYTES || crc32c::crc32c(body) != u32_at(crc, 0) {
            return None;
        }
        if &body[..8] != INDEX_MAGIC || u16_at(body, 8) != INDEX_FORMAT {
            return None;
        }
        let log_found: [u8; 16] = body[16..32].try_into().ok()?;
        if LogId(Uuid::from_bytes(log_found)) != log || u64_at(body, 32) != segment {
            return None;
        }
        let partitions = usize::from(u16_at(body, 10));
        let count = u32_at(body, 12) as usize;
        if body.len() != INDEX_HEADER_BYTES + 8 * partitions + count * (ENTRY_BYTES + 8 * partitions) {
            return None;
        }
        let u64s =
            |from: usize, count: usize| (0..count).map(move |at| u64_at(body, from + 8 * at)).collect::<Vec<_>>();
        let entries_at = INDEX_HEADER_BYTES + 8 * partitions;
        Some(Self {
            entries: (0..count)
                .map(|at| entries_at + ENTRY_BYTES * at)
                .map(|at| Entry {
                    position: u64_at(body, at),
                    next_group: u64_at(body, at + 8),
                    previous_crc: u32_at(body, at + 16),
                })
                .collect(),
            offsets: u64s(entries_at + ENTRY_BYTES * count, count * partitions),
            end: u64_at(body, 40),
            chain: Chain {
                next_group: u64_at(body, 48),
                previous_crc: u32_at(body, 56),
                next_offsets: u64s(INDEX_HEADER_BYTES, partitions),
            },
            block_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> SegmentIndex {
        let mut index =
            SegmentIndex::new(96, Chain { next_group: 7, previous_crc: 9, next_offsets: vec![10, 20, 30] }, 1);
        for group in 0..20_u64 {
            let next_offsets = vec![11 + group, 20 + group / 2, 30];
            let end = index.end + 1_000;
            index.push(end, &Chain { next_group: 8 + group, previous_crc: 100 + group as u32, next_offsets });
        }
        index
    }

    #[test]
    fn a_record_is_found_in_the_only_block_that_can_hold_it() {
        let index = sample();
        for offset in 10..30 {
            let block = index.find(0, offset).expect("it is there");
            assert_eq!(block.before.next_offsets[0], offset, "each block holds one record of partition 0");
            assert_eq!(block.start, 96 + 1_000 * (offset - 10));
            assert_eq!(block.end - block.start, 1_000);
        }
        for offset in 20..29 {
            let block = index.find(1, offset).expect("it is there");
            assert_eq!(block.before.next_offsets[1], offset);
        }
        assert!(index.find(0, 30).is_none());
        assert!(index.find(2, 30).is_none(), "partition 2 has nothing here");
    }

    #[test]
    fn it_comes_back_from_its_file_and_no_other() {
        let (index, log) = (sample(), LogId(Uuid::from_u128(5)));
        let bytes = index.encode(log, 3);
        assert_eq!(SegmentIndex::decode(&bytes, log, 3, index.block_bytes), Some(index));
        assert_eq!(SegmentIndex::decode(&bytes, log, 4, 1), None);
        assert_eq!(SegmentIndex::decode(&bytes, LogId(Uuid::from_u128(6)), 3, 1), None);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_its_file_is_noticed() {
        let (index, log) = (sample(), LogId(Uuid::from_u128(5)));
        let bytes = index.encode(log, 3);
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentIndex::decode(&bytes, log, 3, 1), None, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(SegmentIndex::decode(&bytes[..len], log, 3, 1), None, "cut at {len}");
        }
    }
}
