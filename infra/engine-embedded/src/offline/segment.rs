//! One segment, judged by itself: its header, its groups' checksums and chain, its records, and that it leads to the next
//! segment. What its records say is left for [`super::judge`], which needs all segments in order; here it is cut down to
//! the few numbers that are judged.

use std::fs::File;
use std::path::PathBuf;

use bytes::Bytes;
use engine::position::{LogId, Offset, Partition, Position};
use engine::record::{Body, Genesis, Header, Record, UnreadableRecord};
use engine::stream::partition_of;

use super::finding::{Finding, FindingKind};
use super::groups::Groups;
use super::versions::Key;
use super::{Directory, HeadFault, Run, open_segment};
use crate::files::index_path;
use crate::index::SegmentIndex;
use crate::layout::{Chain, FORMAT, Frame, GroupFault, Place, SegmentHeader, proven_group, take_group};
use crate::options::OpenFault;

/// After so many damaged places a segment is given up: each costs a search for what is whole behind it.
const DAMAGED_PLACES_MAX: usize = 16;

/// How far apart the entries of an index are where no test says otherwise.
const BLOCK_BYTES: u64 = 64 << 10;

/// What a record says, as far as it is judged.
pub(super) struct Told {
    pub(super) partition: u16,
    pub(super) offset: u64,
    /// Where its bytes are in the segment.
    pub(super) at: u64,
    pub(super) len: u32,
    pub(super) header: Header,
    pub(super) commit: Option<ToldCommit>,
}

/// What a command's record says.
pub(super) struct ToldCommit {
    pub(super) recorded_at: i64,
    pub(super) resource: Key,
    pub(super) resource_version: u64,
    /// How many of the segment's [`ToldStream`]s are its.
    pub(super) streams: u32,
}

/// What happened to a stream in one record.
pub(super) struct ToldStream {
    pub(super) key: Key,
    pub(super) first_version: u64,
    pub(super) events: u32,
    /// Whether its name places it in another partition.
    pub(super) misplaced: bool,
}

/// What came of looking at a segment.
#[derive(Default)]
pub(super) struct Looked {
    pub(super) findings: Vec<Finding>,
    /// Bytes of header and groups that were verified.
    pub(super) bytes: u64,
    pub(super) groups: u64,
    /// Up to the first damage.
    pub(super) records: Vec<Told>,
    pub(super) streams: Vec<ToldStream>,
    pub(super) geneses: Vec<(u16, u64, Genesis)>,
    /// Not all of its records could be read: what follows cannot be judged by what is before.
    pub(super) broken: bool,
    /// Where each partition ends after it, as far as it is whole.
    pub(super) ends: Vec<u64>,
}

/// Looks at segments of one log.
pub(super) struct Looking<'a> {
    pub(super) directory: &'a Directory,
    pub(super) log: LogId,
    pub(super) partitions: u16,
    /// Whether somebody writes to it: then what is behind the last whole group is being written, and not judged.
    pub(super) in_use: bool,
}

impl<'a> Looking<'a> {
    /// How to look at the log that lies in `directory`: which it is, in which format, and who has it open, come with it.
    pub(super) fn at(directory: &'a Directory) -> Result<(Self, u16, Option<String>), OpenFault> {
        let (log, partitions, format) = identity(directory)?;
        let user = directory.user();
        let in_use = user.is_some();
        let looking = Self { directory, log, partitions, in_use };
        Ok((looking, format, user))
    }

    /// Looks at a segment; `is_last` if there should be none after it. `read` is told of bytes as they are read.
    pub(super) fn look(&self, run: Run, is_last: bool, read: &(dyn Fn(u64) + Sync)) -> Looked {
        let mut looked = Looked::default();
        let number = run.first;
        let path = self.directory.segment(number);
        if !run.there {
            let what = match run.last - run.first {
                0 => "the segment is missing".to_owned(),
                _ => format!("the segments {} to {} are missing", run.first, run.last),
            };
            looked.findings.push(Finding::of_file(FindingKind::SegmentMissing, path, what));
            looked.broken = true;
            return looked;
        }
        let (file, header) = match open_segment(&path) {
            Ok(opened) => opened,
            Err(fault) => {
                let (kind, byte, what) = match fault {
                    HeadFault::Missing => (FindingKind::SegmentMissing, 0, "the segment is missing".to_owned()),
                    HeadFault::Damaged(what) => (FindingKind::SegmentHeader, 0, what.to_owned()),
                    HeadFault::TooNew(format) => (FindingKind::TooNew, 8, format!("segment format {format}")),
                    HeadFault::Disk(error) => (FindingKind::Unreadable, 0, error.to_string()),
                };
                looked.findings.push(Finding { kind, file: path, byte, position: None, what });
                looked.broken = true;
                return looked;
            }
        };
        if !self.is_ours(&header, number) {
            let what = format!("the header says segment {} of log {}", header.segment, header.log);
            looked.findings.push(Finding::of_file(FindingKind::SegmentForeign, path, what));
            looked.broken = true;
            return looked;
        }
        // One that cannot be read, or is not ours, is told of in its own turn.
        let next = (!is_last).then(|| {
            let (_, next) = open_segment(&self.directory.segment(number + 1)).ok()?;
            self.is_ours(&next, number + 1).then_some(next)
        });
        let mut scan = Scan {
            looking: self,
            path,
            chain: Chain::before(&header),
            position: SegmentHeader::len(header.next_offsets.len()) as u64,
            groups: Groups::new(&file, &header),
            looked,
            scratch: Vec::new(),
            told_until: 0,
            read,
        };
        scan.run(&header, next.as_ref().map(Option::as_ref));
        if let Some(Some(next)) = &next {
            scan.check_index(number, next);
        }
        scan.tell(scan.position);
        scan.looked.bytes = scan.position;
        scan.looked.ends = scan.chain.next_offsets;
        scan.looked
    }

    fn is_ours(&self, header: &SegmentHeader, number: u64) -> bool {
        header.log == self.log && header.segment == number && header.next_offsets.len() == usize::from(self.partitions)
    }
}

/// Which log it is, how many partitions it has and in which format: as the last segment says whose header can be read.
fn identity(directory: &Directory) -> Result<(LogId, u16, u16), OpenFault> {
    let mut why = None;
    for number in directory.listing.segments.iter().rev() {
        let file = directory.segment(*number);
        match open_segment(&file) {
            Ok((_, header)) => {
                let partitions = u16::try_from(header.next_offsets.len()).expect("partitions are counted in a u16");
                // A header is decoded in one format so far; older ones would say so here.
                return Ok((header.log, partitions, FORMAT));
            }
            Err(fault) => {
                let fault = match fault {
                    HeadFault::Missing => continue,
                    HeadFault::Damaged(what) => OpenFault::Damaged { file, offset: 0, what: what.to_owned() },
                    HeadFault::TooNew(format) => OpenFault::TooNew { file, what: format!("segment format {format}") },
                    HeadFault::Disk(source) => OpenFault::Disk { doing: "read", file, source },
                };
                why.get_or_insert(fault);
            }
        }
    }
    Err(why.unwrap_or_else(|| OpenFault::Damaged {
        file: directory.segment(0),
        offset: 0,
        what: "the segment is missing".to_owned(),
    }))
}

struct Scan<'a> {
    looking: &'a Looking<'a>,
    path: PathBuf,
    chain: Chain,
    position: u64,
    groups: Groups<'a>,
    looked: Looked,
    scratch: Vec<u8>,
    told_until: u64,
    read: &'a (dyn Fn(u64) + Sync),
}

impl Scan<'_> {
    /// Goes through all groups. `next` is the header of the next segment: nothing if this is the last segment, and nothing
    /// inside if there is one that cannot be read.
    fn run(&mut self, header: &SegmentHeader, next: Option<Option<&SegmentHeader>>) {
        let mut damaged_places = 0;
        // Behind damage offsets are not known: only checksums and the chain are looked at.
        let mut framing_only = false;
        loop {
            if let Some(Some(next)) = next
                && self.chain.next_group >= next.first_group
            {
                return self.check_leads_to(next, framing_only);
            }
            let place = Place { log: header.log, segment: header.segment, position: self.position };
            let bytes = match self.groups.at(self.position) {
                Ok(bytes) => bytes,
                Err(error) => return self.unreadable(&error),
            };
            let taken = if framing_only { self.follow(place, &bytes) } else { self.take(place, &bytes) };
            let fault = match taken {
                Ok(len) => {
                    self.looked.groups += 1;
                    self.position += len;
                    if self.position - self.told_until > 1 << 22 {
                        self.tell(self.position);
                    }
                    continue;
                }
                Err(fault) => fault,
            };
            drop(bytes);
            let (kind, what) = match fault {
                GroupFault::Unproven(what) => (FindingKind::GroupDamaged, what),
                GroupFault::Misplaced(what) => (FindingKind::GroupMisplaced, what),
            };
            if kind == FindingKind::GroupDamaged && self.looking.in_use && next.is_none() {
                return;
            }
            let further = match self.groups.find(place, self.position + 1) {
                // Behind the end of a segment may lie what was there before it was cut: it means nothing.
                Ok(found) => found.filter(|(_, header)| {
                    header.number >= self.chain.next_group
                        && next.flatten().is_none_or(|next| header.number < next.first_group)
                }),
                Err(error) => return self.unreadable(&error),
            };
            if kind == FindingKind::GroupDamaged && further.is_none() && next.is_none_or(|next| next.is_none()) {
                return self.judge_end(next.is_some());
            }
            let what = match further {
                Some((byte, _)) => format!("{what}; a whole group follows at byte {byte}"),
                None => what.to_owned(),
            };
            self.find(kind, self.position, None, what);
            self.looked.broken = true;
            framing_only = true;
            damaged_places += 1;
            let Some((byte, found)) = further.filter(|_| damaged_places < DAMAGED_PLACES_MAX) else { return };
            self.position = byte;
            self.chain.next_group = found.number;
            self.chain.previous_crc = found.previous_crc;
        }
    }

    /// Takes a whole group and what its records say.
    fn take(&mut self, place: Place, bytes: &Bytes) -> Result<u64, GroupFault> {
        let mut frames = Vec::new();
        // Of a group that is refused in the middle nothing is told.
        let mut chain = self.chain.clone();
        let header = take_group(&mut chain, place, bytes, |frame| frames.push(frame))?;
        let mut offsets = std::mem::replace(&mut self.chain, chain).next_offsets;
        if !self.looked.broken {
            self.looked.records.reserve(frames.len());
            for frame in frames {
                let offset = &mut offsets[usize::from(frame.partition)];
                self.read_record(frame, *offset, place.position, bytes);
                *offset += 1;
            }
        }
        Ok(header.group_bytes() as u64)
    }

    /// Takes a group behind damage: whole, and next in the chain.
    fn follow(&mut self, place: Place, bytes: &Bytes) -> Result<u64, GroupFault> {
        let header = proven_group(place, bytes)?;
        if header.number != self.chain.next_group || header.previous_crc != self.chain.previous_crc {
            return Err(GroupFault::Misplaced("the group does not follow the one before it"));
        }
        self.chain.next_group += 1;
        self.chain.previous_crc = header.crc;
        Ok(header.group_bytes() as u64)
    }

    fn read_record(&mut self, frame: Frame, offset: u64, group_at: u64, group: &Bytes) {
        let at = group_at + frame.at as u64;
        let position = Position { partition: Partition(frame.partition), offset: Offset(offset) };
        let record = match Record::decode(&group.slice(frame.at..frame.at + frame.len)) {
            Ok(record) => record,
            Err(fault) => {
                let (kind, what) = match fault {
                    UnreadableRecord::Damaged(what) => (FindingKind::RecordDamaged, what),
                    UnreadableRecord::TooNew(what) => (FindingKind::TooNew, what),
                };
                self.looked.broken = true;
                return self.find(kind, at, Some(position), what);
            }
        };
        let commit = match record.body {
            Body::Genesis(genesis) => {
                self.looked.geneses.push((frame.partition, offset, genesis));
                None
            }
            Body::Commit(commit) => {
                let tenant = commit.tenant.as_str();
                for stream in &commit.streams {
                    self.looked.streams.push(ToldStream {
                        key: Key::of(tenant, stream.name.as_str(), &mut self.scratch),
                        first_version: stream.first_version.0,
                        events: u32::try_from(stream.events.len()).expect("a record is far smaller than 4 GiB"),
                        misplaced: partition_of(&commit.tenant, &stream.name, self.looking.partitions)
                            != position.partition,
                    });
                }
                Some(ToldCommit {
                    recorded_at: commit.recorded_at.0,
                    resource: Key::of(tenant, commit.resource.as_str(), &mut self.scratch),
                    resource_version: commit.resource_version.0,
                    streams: u32::try_from(commit.streams.len()).expect("a record is far smaller than 4 GiB"),
                })
            }
            Body::Claim(_) | Body::Barrier | Body::Release => None,
        };
        let len = u32::try_from(frame.len).expect("a record is far smaller than 4 GiB");
        self.looked.records.push(Told { partition: frame.partition, offset, at, len, header: record.header, commit });
    }

    /// All groups that the next segment says there are, are taken.
    fn check_leads_to(&mut self, next: &SegmentHeader, framing_only: bool) {
        let chained = self.chain.next_group == next.first_group && self.chain.previous_crc == next.previous_crc;
        let offsets = framing_only || self.chain.next_offsets == next.next_offsets;
        if !(chained && offsets) {
            self.find(
                FindingKind::SegmentChain,
                self.position,
                None,
                "the segment does not lead to the next one".to_owned(),
            );
            self.looked.broken = true;
        }
    }

    /// No whole group is here, nor further on.
    fn judge_end(&mut self, more_segments: bool) {
        let written = match self.groups.written_end(self.position) {
            Ok(written) => written,
            Err(error) => return self.unreadable(&error),
        };
        if more_segments {
            // The next one's header, which would say where this one ends, cannot be read: its own turn tells so.
            self.looked.broken = true;
        } else if written > self.position {
            let what = format!(
                "the last {} bytes are no whole group: it was being written, and never acknowledged unless a store has \
                 folded it",
                written - self.position
            );
            self.find(FindingKind::TornTail, self.position, None, what);
        }
    }

    fn check_index(&mut self, number: u64, next: &SegmentHeader) {
        let path = index_path(&self.looking.directory.path, number);
        let what = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => "the index is missing",
            Err(_) => "the index cannot be read",
            Ok(bytes) => match SegmentIndex::decode(&bytes, self.looking.log, number, BLOCK_BYTES) {
                Some(index)
                    if index.chain.next_group == next.first_group
                        && index.chain.previous_crc == next.previous_crc
                        && index.chain.next_offsets == next.next_offsets =>
                {
                    return;
                }
                _ => "the index is not that of its segment",
            },
        };
        let what = format!("{what}; it is made again when it is needed");
        self.looked.findings.push(Finding::of_file(FindingKind::IndexUnusable, path, what));
    }

    fn unreadable(&mut self, error: &std::io::Error) {
        self.find(FindingKind::Unreadable, self.position, None, error.to_string());
        self.looked.broken = true;
    }

    fn find(&mut self, kind: FindingKind, byte: u64, position: Option<Position>, what: String) {
        self.looked.findings.push(Finding { kind, file: self.path.clone(), byte, position, what });
    }

    fn tell(&mut self, until: u64) {
        (self.read)(until.saturating_sub(self.told_until));
        self.told_until = until;
    }
}

/// Reads a record again, to tell of it by its names.
pub(super) fn read_again(directory: &Directory, segment: u64, at: u64, len: u32) -> Option<Record> {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; len as usize];
    File::open(directory.segment(segment)).ok()?.read_exact_at(&mut bytes, at).ok()?;
    Record::decode(&Bytes::from(bytes)).ok()
}
