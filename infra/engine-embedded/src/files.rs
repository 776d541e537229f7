//! The names in a log's directory, and the lock that keeps a second process out of it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::options::OpenFault;

/// A segment being made; it has no number until it is used.
pub(crate) const SPARE: &str = "spare.tmp";

pub(crate) fn segment_path(directory: &Path, segment: u64) -> PathBuf {
    directory.join(format!("{segment:010}.segment"))
}

pub(crate) fn index_path(directory: &Path, segment: u64) -> PathBuf {
    directory.join(format!("{segment:010}.index"))
}

/// What is in a log's directory.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// The numbers of the segments, ascending.
    pub(crate) segments: Vec<u64>,
    /// The numbers of the segments that have an index, ascending.
    pub(crate) indexes: Vec<u64>,
    /// Bytes of all segments.
    pub(crate) segments_bytes: u64,
}

pub(crate) fn list(directory: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some((number, kind)) = name.to_str().and_then(|name| name.split_once('.')) else { continue };
        let Ok(number) = number.parse::<u64>() else { continue };
        match kind {
            "segment" => {
                listing.segments.push(number);
                listing.segments_bytes += entry.metadata()?.len();
            }
            "index" => listing.indexes.push(number),
            _ => {}
        }
    }
    listing.segments.sort_unstable();
    listing.indexes.sort_unstable();
    Ok(listing)
}

/// Held as long as the log is open. The kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "the lock lasts as long as the file is open")] File);

impl Lock {
    /// Takes the lock of `directory`, or says which process has it.
    pub(crate) fn take(directory: &Path) -> Result<Self, OpenFault> {
        let path = directory.join("lock");
        let fault = |doing, source| OpenFault::Disk { doing, file: path.clone(), source };
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|error| fault("open", error))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid).map_err(|error| fault("read", error))?;
                let pid = pid.trim();
                let pid = if pid.is_empty() { "unknown" } else { pid }.to_owned();
                return Err(OpenFault::InUse { directory: directory.to_owned(), pid });
            }
            Err(error) => return Err(fault("lock", error.into())),
        }
        // Written only by whoever has the lock, so what a loser reads is the winner's.
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(|error| fault("write", error))?;
        Ok(Self(file))
    }
}
