//! The records of a log in the order in which they were flushed, each with the verdict of the accept fold. Stops at the
//! first byte that is not as it was written: what is behind it is `verify`'s to judge.

use std::ops::ControlFlow;
use std::path::Path;

use engine::fold::Verdict;
use engine::position::{Checkpoint, Offset, Partition, Position};
use engine::record::{Header, Record, UnreadableRecord};

use super::groups::Groups;
use super::{Directory, HeadFault, open_segment};
use crate::layout::{Chain, GroupFault, Place, SegmentHeader, take_group};
use crate::options::OpenFault;

/// A record, where it is and whether it counts.
#[derive(Clone, Debug)]
pub struct OfflineRecord {
    /// Its position.
    pub position: Position,
    /// Whether it counts.
    pub verdict: Verdict,
    /// What it says.
    pub record: Record,
    /// How many bytes it has.
    pub bytes: usize,
}

/// Shows `each` the records that `wanted` says by their headers, until either breaks off. Of the others only checksums and
/// headers are read, because the verdict on a record follows from all before it. Nothing is written; if a process has the
/// log open, what it has written so far is shown.
///
/// A fault means that not all was shown: the log is damaged, or cannot be read.
pub fn read_records(
    directory: impl AsRef<Path>,
    mut wanted: impl FnMut(Position, &Header) -> ControlFlow<(), bool>,
    mut each: impl FnMut(OfflineRecord) -> ControlFlow<()>,
) -> Result<(), OpenFault> {
    let directory = Directory::list(directory.as_ref())?;
    let in_use = directory.user().is_some();
    let mut folded = Vec::new();
    let mut before: Option<Chain> = None;
    let runs = directory.runs();
    for (at, run) in runs.iter().enumerate() {
        let number = run.first;
        let file = directory.segment(number);
        let damaged =
            |offset: u64, what: &str| OpenFault::Damaged { file: file.clone(), offset, what: what.to_owned() };
        let (opened, header) = open_segment(&file).map_err(|fault| match fault {
            HeadFault::Missing => damaged(0, "the segment is missing"),
            HeadFault::Damaged(what) => damaged(0, what),
            HeadFault::TooNew(format) => {
                OpenFault::TooNew { file: file.clone(), what: format!("segment format {format}") }
            }
            HeadFault::Disk(source) => OpenFault::Disk { doing: "read", file: file.clone(), source },
        })?;
        let mut chain = Chain::before(&header);
        if before.as_ref().is_some_and(|before| *before != chain) || header.segment != number {
            return Err(damaged(0, "the segment does not follow the one before it"));
        }
        folded.resize(header.next_offsets.len(), Checkpoint::default());
        let next = (at + 1 < runs.len()).then(|| open_segment(&directory.segment(number + 1)));
        let until = match &next {
            Some(Ok((_, next))) => Some(next.first_group),
            _ => None,
        };
        let mut groups = Groups::new(&opened, &header);
        let mut position = SegmentHeader::len(header.next_offsets.len()) as u64;
        let mut frames = Vec::new();
        while until.is_none_or(|until| chain.next_group < until) {
            let disk = |source| OpenFault::Disk { doing: "read", file: file.clone(), source };
            let bytes = groups.at(position).map_err(disk)?;
            let mut offsets = chain.next_offsets.clone();
            frames.clear();
            let place = Place { log: header.log, segment: number, position };
            let group = match take_group(&mut chain, place, &bytes, |frame| frames.push(frame)) {
                Ok(group) => group,
                // The end; or a group that is being written.
                Err(GroupFault::Unproven(_)) if until.is_none() && next.is_none() => {
                    drop(bytes);
                    let behind = if in_use { None } else { groups.find(place, position + 1).map_err(disk)? };
                    return match behind {
                        Some((at, _)) => {
                            Err(damaged(position, &format!("no whole group is here, but one follows at byte {at}")))
                        }
                        None => Ok(()),
                    };
                }
                Err(GroupFault::Unproven(what) | GroupFault::Misplaced(what)) => return Err(damaged(position, what)),
            };
            for frame in &frames {
                let offset = &mut offsets[usize::from(frame.partition)];
                let at = Position { partition: Partition(frame.partition), offset: Offset(*offset) };
                *offset += 1;
                let record = bytes.slice(frame.at..frame.at + frame.len);
                let unreadable = |fault| match fault {
                    UnreadableRecord::Damaged(what) => damaged(position + frame.at as u64, &what),
                    UnreadableRecord::TooNew(what) => {
                        OpenFault::TooNew { file: file.clone(), what: format!("position {at}: {what}") }
                    }
                };
                let head = Header::decode(&record).map_err(unreadable)?;
                let verdict = folded[usize::from(frame.partition)].accept(&head);
                let ControlFlow::Continue(wanted) = wanted(at, &head) else { return Ok(()) };
                if wanted {
                    let bytes = record.len();
                    let record = Record::decode(&record).map_err(unreadable)?;
                    if each(OfflineRecord { position: at, verdict, record, bytes }).is_break() {
                        return Ok(());
                    }
                }
            }
            position += group.group_bytes() as u64;
        }
        before = Some(chain);
    }
    Ok(())
}
