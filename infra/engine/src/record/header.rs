//! The fixed header: 40 bytes, little-endian, the same place for each field in every format that bears this magic, so
//! that any version can tell damage from what is merely newer. The checksum covers every byte of the record but itself.

use super::{FORMAT, Header, Kind, UnreadableRecord};
use crate::position::{Epoch, Nonce, Seq};

/// Bytes of the header.
pub(super) const BYTES: usize = 40;

const MAGIC: [u8; 4] = *b"DKT\x1e";
const LENGTH_AT: usize = 32;
const CHECKSUM_AT: usize = 36;

/// Starts a record of `length` bytes: the header with an empty checksum, room for the rest.
pub(super) fn start(header: &Header, length: usize) -> Vec<u8> {
    let body_length = u32::try_from(length - BYTES).expect("a record is far smaller than 4 GiB");
    let mut record = Vec::with_capacity(length);
    record.extend_from_slice(&MAGIC);
    record.push(u8::try_from(FORMAT).expect("the format is written in one byte"));
    record.push(kind_code(header.kind));
    record.extend_from_slice(&[0; 2]); // flags: none yet
    record.extend_from_slice(&header.epoch.0.to_le_bytes());
    record.extend_from_slice(&header.nonce.0.to_le_bytes());
    record.extend_from_slice(&header.seq.0.to_le_bytes());
    record.extend_from_slice(&body_length.to_le_bytes());
    record.extend_from_slice(&[0; 4]);
    record
}

/// Writes the checksum once all else is there.
pub(super) fn seal(record: &mut [u8]) {
    let checksum = checksum_of(record);
    record[CHECKSUM_AT..BYTES].copy_from_slice(&checksum.to_le_bytes());
}

/// The header of a whole and undamaged record.
pub(super) fn decode(record: &[u8]) -> Result<Header, UnreadableRecord> {
    let damaged = |what: String| Err(UnreadableRecord::Damaged(what));
    if record.len() < BYTES {
        return damaged(format!("{} bytes are fewer than a header's {BYTES}", record.len()));
    }
    if record[..4] != MAGIC {
        return damaged("it does not begin as a record does".to_owned());
    }
    let length = BYTES as u64 + u64::from(u32_at(record, LENGTH_AT));
    if length != record.len() as u64 {
        return damaged(format!("it says {length} bytes and has {}", record.len()));
    }
    let (said, is) = (u32_at(record, CHECKSUM_AT), checksum_of(record));
    if said != is {
        return damaged(format!("its checksum says {said:08x}, its bytes {is:08x}"));
    }
    // From here on the bytes are what was written: what is strange now is not damage but news.
    match u16::from(record[4]) {
        0 => return damaged("formats count from 1".to_owned()),
        format if format > FORMAT => return Err(UnreadableRecord::TooNew(format!("record format {format}"))),
        _ => {}
    }
    if record[6..8] != [0; 2] {
        return Err(UnreadableRecord::TooNew(format!("flags {:02x}{:02x}", record[7], record[6])));
    }
    Ok(Header {
        kind: kind_of(record[5])?,
        epoch: Epoch(u64_at(record, 8)),
        nonce: Nonce(u64_at(record, 16)),
        seq: Seq(u64_at(record, 24)),
    })
}

fn checksum_of(record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&record[..CHECKSUM_AT]), &record[BYTES..])
}

fn kind_code(kind: Kind) -> u8 {
    match kind {
        Kind::Genesis => 1,
        Kind::Claim => 2,
        Kind::Commit => 3,
        Kind::Barrier => 4,
        Kind::Release => 5,
    }
}

fn kind_of(code: u8) -> Result<Kind, UnreadableRecord> {
    Ok(match code {
        1 => Kind::Genesis,
        2 => Kind::Claim,
        3 => Kind::Commit,
        4 => Kind::Barrier,
        5 => Kind::Release,
        _ => return Err(UnreadableRecord::TooNew(format!("record kind {code}"))),
    })
}

fn u32_at(record: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(record[at..at + 4].try_into().expect("four bytes are four bytes"))
}

fn u64_at(record: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(record[at..at + 8].try_into().expect("eight bytes are eight bytes"))
}
