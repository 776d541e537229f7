//! Bytes, numbers and texts on the wire: variable-length integers (LEB128, shortest form only, so that each number has
//! one spelling), length-prefixed byte strings, and a reader that cannot be led past its end.

use bytes::Bytes;

use super::UnreadableRecord;

/// Most bytes of a variable-length 64-bit number.
const VARINT_BYTES_MAX: usize = 10;

/// What went wrong while reading; the codec adds where.
pub(super) fn damaged(what: impl Into<String>) -> UnreadableRecord {
    UnreadableRecord::Damaged(what.into())
}

/// How many bytes a number takes.
pub(super) fn varint_bytes(number: u64) -> usize {
    // 7 bits a byte; 0 takes one too.
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

/// How many bytes a byte string of this length takes with its length.
pub(super) fn prefixed_bytes(length: usize) -> usize {
    varint_bytes(length as u64) + length
}

pub(super) fn put_varint(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    to.push(number.to_le_bytes()[0]);
}

pub(super) fn put_prefixed(to: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

/// Reads from the front of a range of a record.
pub(super) struct Reader<'a> {
    record: &'a Bytes,
    at: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    /// Over all of `record` from `at` on.
    pub(super) fn new(record: &'a Bytes, at: usize) -> Self {
        Self { record, at, end: record.len() }
    }

    pub(super) fn remaining(&self) -> usize {
        self.end - self.at
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at == self.end
    }

    /// The next `length` bytes as a reader of their own.
    pub(super) fn part(&mut self, length: u64) -> Result<Reader<'a>, UnreadableRecord> {
        let length = usize::try_from(length).ok().filter(|&length| length <= self.remaining());
        let length = length.ok_or_else(|| damaged("a length that leads past the end"))?;
        let part = Reader { record: self.record, at: self.at, end: self.at + length };
        self.at = part.end;
        Ok(part)
    }

    /// All that is left, borrowed.
    pub(super) fn rest(self) -> &'a [u8] {
        &self.record[self.at..self.end]
    }

    /// All that is left, sharing the record's memory.
    pub(super) fn rest_shared(self) -> Bytes {
        self.record.slice(self.at..self.end)
    }

    pub(super) fn byte(&mut self) -> Result<u8, UnreadableRecord> {
        if self.is_empty() {
            return Err(damaged("it ends in the middle"));
        }
        let byte = self.record[self.at];
        self.at += 1;
        Ok(byte)
    }

    pub(super) fn varint(&mut self) -> Result<u64, UnreadableRecord> {
        let mut number = 0_u64;
        for index in 0..VARINT_BYTES_MAX {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if index == VARINT_BYTES_MAX - 1 && bits > 1 {
                return Err(damaged("a number above 64 bits"));
            }
            number |= bits << (7 * index);
            if byte < 0x80 {
                if byte == 0 && index > 0 {
                    return Err(damaged("a number not in its shortest form"));
                }
                return Ok(number);
            }
        }
        Err(damaged("a number above 64 bits"))
    }

    pub(super) fn prefixed(&mut self) -> Result<Reader<'a>, UnreadableRecord> {
        let length = self.varint()?;
        self.part(length)
    }

    /// All that is left, as exactly `N` bytes.
    pub(super) fn exactly<const N: usize>(self) -> Result<[u8; N], UnreadableRecord> {
        let found = self.remaining();
        self.rest().try_into().map_err(|_| damaged(format!("{found} bytes where {N} belong")))
    }

    /// All that is left, as text.
    pub(super) fn text(self) -> Result<&'a str, UnreadableRecord> {
        std::str::from_utf8(self.rest()).map_err(|_| damaged("text that is not UTF-8"))
    }
}
