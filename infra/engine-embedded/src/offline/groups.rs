//! Reads a segment group by group from its beginning, in large pieces and into memory that is used again, and finds the
//! next whole group behind bytes that are none.

use std::fs::File;
use std::io;

use bytes::{Bytes, BytesMut};

use crate::block::read_up_to;
use crate::layout::{
    GROUP_ALIGNMENT, GROUP_HEADER_BYTES, GROUP_MAGIC, GroupHeader, Place, SegmentHeader, proven_group,
};

/// Bytes read at once: several of the largest groups that a log writes, so that little is read twice.
const WINDOW_BYTES: usize = 4 << 20;

/// A segment's bytes, from the front to the back.
pub(super) struct Groups<'a> {
    file: &'a File,
    end: u64,
    start: u64,
    bytes: Bytes,
}

impl<'a> Groups<'a> {
    pub(super) fn new(file: &'a File, header: &SegmentHeader) -> Self {
        Self { file, end: header.bytes, start: 0, bytes: Bytes::new() }
    }

    /// The bytes of the group that claims to be at `position`; fewer where the segment ends, or where none claims it.
    pub(super) fn at(&mut self, position: u64) -> io::Result<Bytes> {
        self.fill(position, GROUP_HEADER_BYTES)?;
        let len = GroupHeader::claimed(self.from(position)).map_or(GROUP_HEADER_BYTES, |header| header.group_bytes());
        self.fill(position, len)?;
        let at = usize::try_from(position - self.start).expect("windows are small").min(self.bytes.len());
        Ok(self.bytes.slice(at..self.bytes.len().min(at + len)))
    }

    /// The first whole group at or after `from`, if there is one.
    pub(super) fn find(&mut self, place: Place, from: u64) -> io::Result<Option<(u64, GroupHeader)>> {
        let mut position = from.next_multiple_of(GROUP_ALIGNMENT as u64);
        while position + GROUP_HEADER_BYTES as u64 <= self.end {
            self.fill(position, WINDOW_BYTES)?;
            let window = self.from(position);
            if window.len() < GROUP_HEADER_BYTES {
                break;
            }
            let steps = (0..=window.len() - GROUP_HEADER_BYTES).step_by(GROUP_ALIGNMENT);
            let candidates = steps.filter(|at| window[*at..].starts_with(GROUP_MAGIC)).collect::<Vec<_>>();
            let looked_at = ((window.len() - GROUP_HEADER_BYTES) / GROUP_ALIGNMENT + 1) * GROUP_ALIGNMENT;
            for at in candidates {
                let position = position + at as u64;
                let bytes = self.at(position)?;
                if let Ok(header) = proven_group(Place { position, ..place }, &bytes) {
                    return Ok(Some((position, header)));
                }
            }
            position += looked_at as u64;
        }
        Ok(None)
    }

    /// The byte after the last one that is not zero, from `from` to the end of the segment; `from` if all are.
    pub(super) fn written_end(&mut self, from: u64) -> io::Result<u64> {
        let (mut position, mut written) = (from, from);
        while position < self.end {
            self.fill(position, WINDOW_BYTES)?;
            let window = self.from(position);
            if window.is_empty() {
                break;
            }
            // Eight at a time: most of a segment that was just begun is zeros.
            let (words, rest) = window.as_chunks::<8>();
            let last = match rest.iter().rposition(|byte| *byte != 0) {
                Some(at) => Some(words.len() * 8 + at),
                None => words.iter().rposition(|word| u64::from_ne_bytes(*word) != 0).map(|word| {
                    let within = words[word].iter().rposition(|byte| *byte != 0);
                    word * 8 + within.unwrap_or_default()
                }),
            };
            if let Some(last) = last {
                written = position + last as u64 + 1;
            }
            position += window.len() as u64;
        }
        Ok(written)
    }

    fn from(&self, position: u64) -> &[u8] {
        let at = usize::try_from(position - self.start).expect("windows are small");
        self.bytes.get(at..).unwrap_or_default()
    }

    fn fill(&mut self, position: u64, len: usize) -> io::Result<()> {
        let have = self.start + self.bytes.len() as u64;
        let wanted = (position + len as u64).min(self.end);
        if position >= self.start && wanted <= have {
            return Ok(());
        }
        let rest = usize::try_from(self.end.saturating_sub(position)).unwrap_or(usize::MAX);
        // Nobody holds a slice of it any more but for the moment of a finding: the memory is used again.
        let mut buffer = std::mem::take(&mut self.bytes).try_into_mut().unwrap_or_else(|_| BytesMut::new());
        buffer.resize(len.max(WINDOW_BYTES).min(rest), 0);
        let got = read_up_to(self.file, &mut buffer, position, self.end)?;
        buffer.truncate(got);
        self.bytes = buffer.freeze();
        self.start = position;
        Ok(())
    }
}
