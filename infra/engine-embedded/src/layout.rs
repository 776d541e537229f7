//! The bytes on disk: segment headers and groups. A segment is a header followed by groups; a group is what one flush
//! made durable, records of all partitions together. Every byte that is ever interpreted is under a CRC32C, and a
//! group's CRC also covers the log, the segment and the byte it belongs at, so that bytes which strayed from elsewhere
//! do not pass. `docs/segment-format.md` writes the same down for people.

use bytes::{BufMut, Bytes, BytesMut};
use engine::position::{LogId, PARTITIONS_MAX};
use uuid::Uuid;

/// The format this program writes, and the newest it reads.
pub(crate) const FORMAT: u16 = 1;
/// Bytes before a group's body.
pub(crate) const GROUP_HEADER_BYTES: usize = 32;
/// Bytes before a record in a group's body.
pub(crate) const FRAME_HEADER_BYTES: usize = 14;
/// Most bytes a group's body may have: a length beyond it is not believed, so no damaged length makes us allocate more.
pub(crate) const GROUP_BODY_BYTES_LIMIT: usize = 16 << 20;
/// Groups start at multiples of this, so a search for one after damage looks at an eighth of the bytes.
pub(crate) const GROUP_ALIGNMENT: usize = 8;

const SEGMENT_MAGIC: &[u8; 8] = b"DOCKETSG";
pub(crate) const GROUP_MAGIC: &[u8; 4] = b"DKgp";
const SEGMENT_HEADER_FIXED_BYTES: usize = 64;

/// What a segment says of itself: where it stands in the log, and what was there before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) log: LogId,
    pub(crate) segment: u64,
    /// The number of its first group.
    pub(crate) first_group: u64,
    /// The CRC of the group before that one; 0 in the first segment.
    pub(crate) previous_crc: u32,
    /// How long the file is.
    pub(crate) bytes: u64,
    /// The offset each partition's next record has.
    pub(crate) next_offsets: Vec<u64>,
}

/// Why bytes are no segment header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    TooNew(u16),
    Damaged(&'static str),
}

impl SegmentHeader {
    /// How long the header of a log of so many partitions is.
    pub(crate) fn len(partitions: usize) -> usize {
        SEGMENT_HEADER_FIXED_BYTES + 8 * partitions + 8
    }

    /// Enough bytes for any header.
    pub(crate) fn len_max() -> usize {
        Self::len(usize::from(PARTITIONS_MAX))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let partitions = u16::try_from(self.next_offsets.len()).expect("partitions are counted in a u16");
        let mut out = Vec::with_capacity(Self::len(self.next_offsets.len()));
        out.put_slice(SEGMENT_MAGIC);
        out.put_u16_le(FORMAT);
        out.put_u16_le(partitions);
        out.put_u32_le(0);
        out.put_slice(self.log.0.as_bytes());
        out.put_u64_le(self.segment);
        out.put_u64_le(self.first_group);
        out.put_u64_le(self.bytes);
        out.put_u32_le(self.previous_crc);
        out.put_u32_le(0);
        for offset in &self.next_offsets {
            out.put_u64_le(*offset);
        }
        out.put_u32_le(0);
        let crc = crc32c::crc32c(&out);
        out.put_u32_le(crc);
        out
    }

    /// Back from the first bytes of a segment. More bytes than the header has may be given.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        if bytes.len() < SEGMENT_HEADER_FIXED_BYTES {
            return Err(HeaderFault::Damaged("too short for a segment header"));
        }
        if &bytes[..8] != SEGMENT_MAGIC {
            return Err(HeaderFault::Damaged("not the header of a segment"));
        }
        // Whatever a later format changes, these two bytes keep their place.
        let format = u16_at(bytes, 8);
        if format > FORMAT {
            return Err(HeaderFault::TooNew(format));
        }
        let partitions = u16_at(bytes, 10);
        if partitions == 0 || partitions > PARTITIONS_MAX {
            return Err(HeaderFault::Damaged("impossible number of partitions"));
        }
        let len = Self::len(usize::from(partitions));
        if bytes.len() < len {
            return Err(HeaderFault::Damaged("too short for its partitions"));
        }
        if crc32c::crc32c(&bytes[..len - 4]) != u32_at(bytes, len - 4) {
            return Err(HeaderFault::Damaged("the header's checksum does not match"));
        }
        if format != FORMAT {
            return Err(HeaderFault::Damaged("a format that never was"));
        }
        let log: [u8; 16] = bytes[16..32].try_into().expect("16 bytes");
        Ok(Self {
            log: LogId(Uuid::from_bytes(log)),
            segment: u64_at(bytes, 32),
            first_group: u64_at(bytes, 40),
            bytes: u64_at(bytes, 48),
            previous_crc: u32_at(bytes, 56),
            next_offsets: (0..usize::from(partitions))
                .map(|partition| u64_at(bytes, SEGMENT_HEADER_FIXED_BYTES + 8 * partition))
                .collect(),
        })
    }
}

/// Where a group is. Its CRC covers this too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) log: LogId,
    pub(crate) segment: u64,
    pub(crate) position: u64,
}

/// Where the log stands between two groups: what the next one must carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) next_group: u64,
    pub(crate) previous_crc: u32,
    pub(crate) next_offsets: Vec<u64>,
}

impl Chain {
    /// As a segment's header says it was before the segment.
    pub(crate) fn before(header: &SegmentHeader) -> Self {
        Self {
            next_group: header.first_group,
            previous_crc: header.previous_crc,
            next_offsets: header.next_offsets.clone(),
        }
    }
}

/// What a group says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    pub(crate) number: u64,
    pub(crate) previous_crc: u32,
    pub(crate) body_bytes: usize,
    pub(crate) records: u32,
    pub(crate) crc: u32,
}

impl GroupHeader {
    /// Only what it claims: nothing is verified but that it can be a group at all.
    pub(crate) fn claimed(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < GROUP_HEADER_BYTES || &bytes[..4] != GROUP_MAGIC {
            return None;
        }
        let body_bytes = u32_at(bytes, 4) as usize;
        if body_bytes > GROUP_BODY_BYTES_LIMIT || !body_bytes.is_multiple_of(GROUP_ALIGNMENT) {
            return None;
        }
        Some(Self {
            number: u64_at(bytes, 8),
            previous_crc: u32_at(bytes, 16),
            body_bytes,
            records: u32_at(bytes, 20),
            crc: u32_at(bytes, 28),
        })
    }

    /// Header and body.
    pub(crate) fn group_bytes(&self) -> usize {
        GROUP_HEADER_BYTES + self.body_bytes
    }
}

/// Why a group cannot be taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum GroupFault {
    /// No whole group is there: never written, half written, or altered since.
    Unproven(&'static str),
    /// A whole group is there, but it does not follow from what is before it. A torn write never looks so.
    Misplaced(&'static str),
}

/// A record inside a group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) partition: u16,
    /// Where its bytes start, from the start of the group.
    pub(crate) at: usize,
    pub(crate) len: usize,
}

/// Whether a whole group starts `bytes`, wherever it stands in the chain.
pub(crate) fn proven_group(place: Place, bytes: &[u8]) -> Result<GroupHeader, GroupFault> {
    let header = GroupHeader::claimed(bytes).ok_or(GroupFault::Unproven("not the header of a group"))?;
    if bytes.len() < header.group_bytes() {
        return Err(GroupFault::Unproven("the group is cut off"));
    }
    if group_crc(place, &bytes[..header.group_bytes()]) != header.crc {
        return Err(GroupFault::Unproven("the group's checksum does not match"));
    }
    Ok(header)
}

/// Verifies the group that starts `bytes` and that it follows `chain`; moves `chain` past it and shows each record.
/// On a fault `chain` may have moved part of the way.
pub(crate) fn take_group(
    chain: &mut Chain,
    place: Place,
    bytes: &[u8],
    mut each: impl FnMut(Frame),
) -> Result<GroupHeader, GroupFault> {
    let header = proven_group(place, bytes)?;
    if u32_at(bytes, 24) != 0 {
        return Err(GroupFault::Misplaced("the group has flags that this program does not know"));
    }
    if header.number != chain.next_group {
        return Err(GroupFault::Misplaced("the group's number is not the next"));
    }
    if header.previous_crc != chain.previous_crc {
        return Err(GroupFault::Misplaced("the group does not follow the one before it"));
    }
    let bytes = &bytes[..header.group_bytes()];
    let mut at = GROUP_HEADER_BYTES;
    for _ in 0..header.records {
        if bytes.len() - at < FRAME_HEADER_BYTES {
            return Err(GroupFault::Misplaced("a record is cut off"));
        }
        let partition = u16_at(bytes, at);
        let offset = u64_at(bytes, at + 2);
        let len = u32_at(bytes, at + 10) as usize;
        at += FRAME_HEADER_BYTES;
        if bytes.len() - at < len {
            return Err(GroupFault::Misplaced("a record is cut off"));
        }
        let next = chain
            .next_offsets
            .get_mut(usize::from(partition))
            .ok_or(GroupFault::Misplaced("a record of no partition"))?;
        if offset != *next {
            return Err(GroupFault::Misplaced("a record's offset is not the next"));
        }
        *next += 1;
        each(Frame { partition, at, len });
        at += len;
    }
    if bytes.len() - at >= GROUP_ALIGNMENT {
        return Err(GroupFault::Misplaced("bytes after the last record"));
    }
    chain.next_group += 1;
    chain.previous_crc = header.crc;
    Ok(header)
}

/// How long a group with so many bytes of frames is.
pub(crate) fn group_bytes(frames_bytes: usize) -> usize {
    GROUP_HEADER_BYTES + frames_bytes.next_multiple_of(GROUP_ALIGNMENT)
}

/// Writes a group. `records` must follow `chain`, which moves past the group. Without records it is a seal.
pub(crate) fn encode_group<'a>(
    chain: &mut Chain,
    place: Place,
    frames_bytes: usize,
    records: impl Iterator<Item = (u16, &'a [u8])>,
) -> Bytes {
    let total = group_bytes(frames_bytes);
    let mut out = BytesMut::with_capacity(total);
    out.put_bytes(0, GROUP_HEADER_BYTES);
    let mut count = 0_u32;
    for (partition, record) in records {
        let next = &mut chain.next_offsets[usize::from(partition)];
        out.put_u16_le(partition);
        out.put_u64_le(*next);
        out.put_u32_le(u32::try_from(record.len()).expect("records are far below 4 GiB"));
        out.put_slice(record);
        *next += 1;
        count += 1;
    }
    assert!(out.len() <= total && total - out.len() < GROUP_ALIGNMENT, "a group's length was reckoned wrong");
    out.put_bytes(0, total - out.len());
    let body_bytes = u32::try_from(total - GROUP_HEADER_BYTES).expect("groups are far below 4 GiB");
    let mut header = &mut out[..GROUP_HEADER_BYTES];
    header.put_slice(GROUP_MAGIC);
    header.put_u32_le(body_bytes);
    header.put_u64_le(chain.next_group);
    header.put_u32_le(chain.previous_crc);
    header.put_u32_le(count);
    header.put_u32_le(0);
    let crc = group_crc(place, &out);
    out[GROUP_HEADER_BYTES - 4..GROUP_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    chain.next_group += 1;
    chain.previous_crc = crc;
    out.freeze()
}

fn group_crc(place: Place, group: &[u8]) -> u32 {
    let mut salt = [0; 32];
    salt[..16].copy_from_slice(place.log.0.as_bytes());
    salt[16..24].copy_from_slice(&place.segment.to_le_bytes());
    salt[24..].copy_from_slice(&place.position.to_le_bytes());
    let crc = crc32c::crc32c(&salt);
    let crc = crc32c::crc32c_append(crc, &group[..GROUP_HEADER_BYTES - 4]);
    crc32c::crc32c_append(crc, &group[GROUP_HEADER_BYTES..])
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("2 bytes"))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}
