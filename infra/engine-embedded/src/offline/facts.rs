//! What a log's directory says of itself at a glance: which log, how much, where it ends, and who has it open. Reads the
//! headers and the last segment, nothing else.

use std::path::Path;
use std::time::SystemTime;

use engine::position::{LogId, Offset};

use super::Directory;
use super::finding::{Finding, Severity};
use super::segment::Looking;
use crate::options::OpenFault;

/// A log's directory at a glance.
#[derive(Clone, Debug)]
pub struct LogFacts {
    /// Which log.
    pub log: LogId,
    /// How many partitions it has.
    pub partitions: u16,
    /// The format that its last segment has.
    pub format: u16,
    /// Whether it is the local copy of a log that lives elsewhere.
    pub copy: bool,
    /// The process that has it open, as it wrote it down.
    pub user: Option<String>,
    /// How many segments there are.
    pub segments: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// The offset after the last record of each partition, as far as the last segment is whole.
    pub ends: Vec<Offset>,
    /// When the last segment was changed.
    pub changed_at: Option<SystemTime>,
    /// What of the last segment is damaged or cannot be read, if anything is.
    pub damage: Option<Finding>,
}

/// Looks at the log in `directory`, or at the copy of one. Nothing is written.
pub fn log_facts(directory: impl AsRef<Path>) -> Result<LogFacts, OpenFault> {
    let directory = Directory::list(directory.as_ref())?;
    let (looking, format, user) = Looking::at(&directory)?;
    let runs = directory.runs();
    let looked = runs.last().map(|last| looking.look(*last, true, &|_| {})).unwrap_or_default();
    let missing = runs.iter().rev().skip(1).find(|run| !run.there).map(|run| looking.look(*run, false, &|_| {}));
    let findings = looked.findings.into_iter().chain(missing.into_iter().flat_map(|looked| looked.findings));
    let damage = findings.into_iter().find(|finding| finding.kind.severity() > Severity::Note);
    let last = directory.listing.segments.last().map(|last| directory.segment(*last));
    Ok(LogFacts {
        log: looking.log,
        partitions: looking.partitions,
        format,
        copy: directory.copy,
        user,
        segments: directory.listing.segments.len() as u64,
        bytes: directory.listing.segments_bytes,
        ends: looked.ends.into_iter().map(Offset).collect(),
        changed_at: last.and_then(|last| std::fs::metadata(last).ok()?.modified().ok()),
        damage,
    })
}
