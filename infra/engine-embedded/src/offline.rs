//! Looking at a log's directory without opening it: nothing is written, cut or made again, not even the lock is taken, so
//! that a backup on a read-only disk can be looked at, and a running node does not notice. [`verify`] judges all of it and
//! goes on behind what is damaged; [`read_records`] shows the records and stops there.

mod facts;
mod finding;
mod groups;
mod judge;
mod reading;
mod segment;
mod verify;
mod versions;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::copy::is_copy;
use crate::files::{Listing, list, segment_path};
use crate::layout::{HeaderFault, SegmentHeader};
use crate::options::OpenFault;
use crate::store::{HeaderReadFault, read_header};

pub use facts::{LogFacts, log_facts};
pub use finding::{Finding, FindingKind, Severity};
pub use reading::{OfflineRecord, read_records};
pub use verify::{FINDINGS_MAX, VerifyOptions, VerifyReport, verify};

/// A log's directory, as it was when it was listed.
struct Directory {
    path: PathBuf,
    listing: Listing,
    copy: bool,
}

impl Directory {
    fn list(path: &Path) -> Result<Self, OpenFault> {
        let absent = || OpenFault::Absent { directory: path.to_owned() };
        let listing = list(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => absent(),
            _ => OpenFault::Disk { doing: "list", file: path.to_owned(), source },
        })?;
        if listing.segments.is_empty() && listing.indexes.is_empty() {
            return Err(absent());
        }
        Ok(Self { path: path.to_owned(), listing, copy: is_copy(path) })
    }

    fn segment(&self, number: u64) -> PathBuf {
        segment_path(&self.path, number)
    }

    /// The segments there should be: runs of numbers, each there or missing. Names may say anything, so what is missing
    /// between two of them is one run, however long.
    fn runs(&self) -> Vec<Run> {
        let mut runs = Vec::with_capacity(self.listing.segments.len());
        let mut next = 0;
        let missing_until = |next: &mut u64, number: u64| {
            let gap = (*next < number).then(|| Run { first: *next, last: number - 1, there: false });
            *next = number.saturating_add(1);
            gap
        };
        for number in &self.listing.segments {
            runs.extend(missing_until(&mut next, *number));
            runs.push(Run { first: *number, last: *number, there: true });
        }
        // An index is written only once the next segment is there.
        if let Some(index) = self.listing.indexes.last() {
            runs.extend(missing_until(&mut next, index.saturating_add(2)));
        }
        runs
    }

    /// The process that has the log open, as it wrote it down; nothing if none has. Looks whether the lock could be
    /// shared, and lets go of it at once.
    fn user(&self) -> Option<String> {
        let path = self.path.join("lock");
        let file = File::open(&path).ok()?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let pid = std::fs::read_to_string(&path).unwrap_or_default();
                let pid = pid.trim();
                Some(if pid.is_empty() { "unknown" } else { pid }.to_owned())
            }
            _ => None,
        }
    }
}

/// Segments that follow each other: one that is there, or some that are missing.
#[derive(Clone, Copy)]
struct Run {
    first: u64,
    last: u64,
    there: bool,
}

/// Why a segment cannot be looked into.
enum HeadFault {
    Missing,
    Damaged(&'static str),
    TooNew(u16),
    Disk(io::Error),
}

/// Opens a segment, and reads and verifies its header.
fn open_segment(path: &Path) -> Result<(File, SegmentHeader), HeadFault> {
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => HeadFault::Missing,
        _ => HeadFault::Disk(error),
    })?;
    match read_header(&file) {
        Ok(header) => Ok((file, header)),
        Err(HeaderReadFault::Disk(error)) => Err(HeadFault::Disk(error)),
        Err(HeaderReadFault::Header(HeaderFault::Damaged(what))) => Err(HeadFault::Damaged(what)),
        Err(HeaderReadFault::Header(HeaderFault::TooNew(format))) => Err(HeadFault::TooNew(format)),
    }
}
