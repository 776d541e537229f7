//! `verify`: a whole log, judged without being opened. Threads take segment after segment, each verified by itself, and one
//! folds what they found in order. Memory is bounded: a window and the records' numbers of a few segments, and the
//! streams' versions up to a bound; beyond it the log is read again for the rest of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use engine::position::{LogId, Offset, Partition};
use parking_lot::{Condvar, Mutex};

use super::Directory;
use super::finding::{Finding, FindingKind, Severity};
use super::judge::{Counts, Judge};
use super::segment::{Looked, Looking};
use super::versions::Versions;
use crate::options::OpenFault;

/// Most findings that are kept; further ones are counted.
pub const FINDINGS_MAX: usize = 100;

/// Segments that are looked at, or wait to be judged, at once, for each thread.
const SEGMENTS_AHEAD: usize = 2;

/// How to verify.
#[derive(Clone, Copy, Debug)]
pub struct VerifyOptions {
    /// Most bytes that the streams' versions may take; with more streams than fit, the log is read several times.
    pub versions_bytes_max: usize,
    /// Threads that read segments, at least 1.
    pub threads: usize,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(1, 8);
        // 512 MiB: some fourteen million streams in one reading, 10 GiB of small orders.
        Self { versions_bytes_max: 512 << 20, threads }
    }
}

/// What verifying found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyReport {
    /// Which log, as its last readable segment says.
    pub log: LogId,
    /// How many partitions it has.
    pub partitions: u16,
    /// Whether it is the local copy of a log that lives elsewhere.
    pub copy: bool,
    /// How many segments there are.
    pub segments: u64,
    /// Whole groups, seals too.
    pub groups: u64,
    /// Bytes of segments, up to where they are written.
    pub bytes: u64,
    /// Records judged: all before the first damage.
    pub records: u64,
    /// Of those, what the accept fold drops: written by somebody who did not hold the partition, never acknowledged.
    pub ignored: u64,
    /// Of those, commands with their outcomes.
    pub commands: u64,
    /// Events of effective commands.
    pub events: u64,
    /// Streams that have events.
    pub streams: u64,
    /// The offset after the last record of each partition, as far as the last segment is whole.
    pub ends: Vec<(Partition, Offset)>,
    /// How often the log was read.
    pub readings: u32,
    /// Whether all records were judged: false if damage hides what came before the rest.
    pub complete: bool,
    /// What was found, the worst first, then by place; at most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// How many more there are.
    pub findings_left_out: u64,
    /// How long it took.
    pub took: Duration,
}

impl VerifyReport {
    /// The worst that was found; a note if nothing was.
    pub fn worst(&self) -> Severity {
        self.findings.iter().map(|finding| finding.kind.severity()).max().unwrap_or(Severity::Note)
    }
}

/// Verifies the log in `directory`, or the local copy of one: framing, checksums, chain, records, accept fold, versions,
/// times. Nothing is written. `progress` is told of bytes read and of all there are to read, from any thread.
///
/// An error means that there is nothing to look at: no log, or no segment whose header can be read at all.
pub fn verify(
    directory: impl AsRef<Path>,
    options: VerifyOptions,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<VerifyReport, OpenFault> {
    let began = Instant::now();
    let directory = Directory::list(directory.as_ref())?;
    let (looking, _, user) = Looking::at(&directory)?;
    let mut found = Found::default();
    if let Some(pid) = &user {
        let what = format!("process {pid} has the log open: what it is writing now is not judged");
        found.add([Finding::of_file(FindingKind::InUse, directory.path.join("lock"), what)]);
    }
    let read = Mutex::new(0);
    let readings = Mutex::new(1);
    let on_read = |bytes: u64| {
        let so_far = {
            let mut read = read.lock();
            *read += bytes;
            *read
        };
        progress(so_far, directory.listing.segments_bytes * u64::from(*readings.lock()));
    };

    let versions = Versions::new(usize::from(looking.partitions), options.versions_bytes_max, 1, 0);
    let (first, versions) = pass(&looking, options, versions, true, &mut found, &on_read);
    let slices = versions.slices();
    let mut streams = versions.streams();
    drop(versions);
    *readings.lock() = slices;
    for slice in 1..slices {
        let versions = Versions::new(usize::from(looking.partitions), options.versions_bytes_max, slices, slice);
        streams += pass(&looking, options, versions, false, &mut found, &on_read).1.streams();
    }
    // A node that was started meanwhile cuts and writes what looked torn.
    if user.is_none() && directory.user().is_some() {
        found.kept.retain(|finding| finding.kind != FindingKind::TornTail);
    }
    let (findings, findings_left_out) = found.sorted();
    Ok(VerifyReport {
        log: looking.log,
        partitions: looking.partitions,
        copy: directory.copy,
        segments: directory.listing.segments.len() as u64,
        groups: first.groups,
        bytes: first.bytes,
        records: first.counts.records,
        ignored: first.counts.ignored,
        commands: first.counts.commands,
        events: first.counts.events,
        streams,
        ends: (0..).map(Partition).zip(first.ends.into_iter().map(Offset)).collect(),
        readings: slices,
        complete: first.complete,
        findings,
        findings_left_out,
        took: began.elapsed(),
    })
}

/// What one reading of the log counted.
#[derive(Default)]
struct Pass {
    groups: u64,
    bytes: u64,
    counts: Counts,
    ends: Vec<u64>,
    complete: bool,
}

/// Segments on their way from the threads that read them to the one that judges.
#[derive(Default)]
struct Belt {
    next: usize,
    judged: usize,
    looked: BTreeMap<usize, Looked>,
}

/// A segment that somebody reads; put on the belt when it is dropped.
struct Slot<'a> {
    number: usize,
    looked: Looked,
    belt: &'a Mutex<Belt>,
    moved: &'a Condvar,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.belt.lock().looked.insert(self.number, std::mem::take(&mut self.looked));
        self.moved.notify_all();
    }
}

fn pass(
    looking: &Looking<'_>,
    options: VerifyOptions,
    versions: Versions,
    first: bool,
    found: &mut Found,
    on_read: &(dyn Fn(u64) + Sync),
) -> (Pass, Versions) {
    let runs = looking.directory.runs();
    let segments = runs.len();
    let threads = options.threads.max(1);
    let ahead = SEGMENTS_AHEAD * threads;
    let (belt, moved) = (Mutex::new(Belt::default()), Condvar::new());
    let work = || {
        loop {
            let number = {
                let mut belt = belt.lock();
                while belt.next < segments && belt.next >= belt.judged + ahead {
                    moved.wait(&mut belt);
                }
                if belt.next >= segments {
                    return;
                }
                belt.next += 1;
                belt.next - 1
            };
            // Put on the belt also if it panics: who judges waits for it, and passes the panic on.
            let mut slot =
                Slot { number, looked: Looked { broken: true, ..Looked::default() }, belt: &belt, moved: &moved };
            slot.looked = looking.look(runs[number], number + 1 == segments, on_read);
        }
    };
    let mut judge = Judge::new(looking.directory, looking.log, usize::from(looking.partitions), versions, first);
    let mut pass = Pass { complete: true, ..Pass::default() };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
        for (number, run) in runs.iter().enumerate() {
            let looked = {
                let mut belt = belt.lock();
                loop {
                    match belt.looked.remove(&number) {
                        Some(looked) => break looked,
                        None => moved.wait(&mut belt),
                    }
                }
            };
            // Up to the damage; behind it nothing can be judged by what came before.
            if pass.complete {
                judge.judge(run.first, &looked);
            }
            pass.complete &= !looked.broken;
            pass.groups += looked.groups;
            pass.bytes += looked.bytes;
            if first {
                found.add(looked.findings);
            }
            found.add(judge.findings.drain(..));
            pass.ends = looked.ends;
            belt.lock().judged = number + 1;
            moved.notify_all();
        }
    });
    pass.counts = judge.counts;
    (pass, judge.into_versions())
}

/// Findings, the worst of them if there are too many.
#[derive(Default)]
struct Found {
    kept: Vec<Finding>,
    left_out: u64,
}

impl Found {
    fn add(&mut self, findings: impl IntoIterator<Item = Finding>) {
        for finding in findings {
            // Found before the streams were cut into slices, and again in the slice's own reading.
            if self.kept.contains(&finding) {
                continue;
            }
            if self.kept.len() < FINDINGS_MAX {
                self.kept.push(finding);
                continue;
            }
            self.left_out += 1;
            // A note gives way to what is worse.
            let severity = finding.kind.severity();
            if let Some(milder) = self.kept.iter_mut().rfind(|kept| kept.kind.severity() < severity) {
                *milder = finding;
            }
        }
    }

    fn sorted(mut self) -> (Vec<Finding>, u64) {
        self.kept.sort_by(|one, other| {
            let place = |finding: &Finding| (finding.file.clone(), finding.byte);
            (other.kind.severity().cmp(&one.kind.severity())).then_with(|| place(one).cmp(&place(other)))
        });
        (self.kept, self.left_out)
    }
}
