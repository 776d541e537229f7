//! A log that is looked at without being opened: every kind of damage is found under its name and at its byte, what is
//! harmless is no damage, nothing is written, and memory that is too small costs time, not truth.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use engine::event::{ContentType, EncodedEvent};
use engine::fold::Verdict;
use engine::message::{CommandId, Fingerprint, Outcome, Provenance};
use engine::position::{Epoch, LogId, Nonce, Partition, Seq, Version};
use engine::record::{Body, Claim, Commit, Genesis, Header, Kind, Record, StreamEvents};
use engine::stream::{StreamName, Tenant, partition_of};
use engine::time::Timestamp;
use engine_embedded::{
    FindingKind, LogCopy, OpenFault, Options, Severity, VerifyOptions, VerifyReport, read_records, verify,
};
use uuid::Uuid;

use crate::support::{
    NeverFlushes, append_all, copy_directory, genesis, groups, last_segment, must_append, open, segment, small,
};

const PARTITIONS: u16 = 3;

/// Verifies on one thread: thousands of small logs are.
fn verified(directory: &Path) -> VerifyReport {
    let options = VerifyOptions { threads: 1, ..VerifyOptions::default() };
    verify(directory, options, &|_, _| {}).expect("a log is there")
}

fn kinds(report: &VerifyReport) -> Vec<FindingKind> {
    report.findings.iter().map(|finding| finding.kind).collect()
}

/// Makes records as a node would: one term, versions one after the other, times that grow.
#[derive(Default)]
struct Pen {
    seqs: BTreeMap<u16, u64>,
    versions: BTreeMap<StreamName, u64>,
    commands: u64,
}

/// What a record is to have wrong.
#[derive(Clone, Copy, Default)]
struct Slip {
    versions_left_out: u64,
    resource_version_more: u64,
    earlier_us: i64,
    elsewhere: bool,
}

impl Pen {
    fn header(&mut self, partition: u16, kind: Kind) -> Header {
        let seq = self.seqs.entry(partition).or_default();
        let header = Header { kind, epoch: Epoch(1), nonce: Nonce(77), seq: Seq(*seq) };
        *seq += 1;
        header
    }

    fn claim(&mut self, partition: u16) -> Bytes {
        let claim = Claim { node: "n".into(), address: "".into(), claimed_at: Timestamp(0) };
        Record::new(self.header(partition, Kind::Claim), Body::Claim(claim)).encode()
    }

    /// `events` events of the stream of this number, in the partition where it belongs.
    fn commit(&mut self, stream: u64, events: usize, payload_bytes: usize, slip: Slip) -> (u16, Bytes) {
        let name = StreamName::new(&format!("order-{}", Uuid::from_u128(u128::from(stream)))).expect("a name");
        let home = partition_of(&Tenant::default(), &name, PARTITIONS).0;
        let partition = if slip.elsewhere { (home + 1) % PARTITIONS } else { home };
        self.commands += 1;
        let version = self.versions.entry(name.clone()).or_default();
        let first = *version + 1 + slip.versions_left_out;
        *version = first + events as u64 - 1;
        let event = EncodedEvent {
            event_type: "Noted".into(),
            schema_version: 1,
            content_type: ContentType::Octets,
            payload: vec![b'x'; payload_bytes].into(),
        };
        let mut streams = Vec::new();
        if events > 0 {
            let events = vec![event; events];
            streams.push(StreamEvents { name: name.clone(), first_version: Version(first), events });
        }
        let commit = Commit {
            command_id: CommandId(Uuid::from_u128(u128::from(self.commands))),
            tenant: Tenant::default(),
            resource: name,
            resource_version: Version(*version + slip.resource_version_more),
            fingerprint: Fingerprint([0; 16]),
            outcome: Outcome { status: 200, ..Outcome::default() },
            provenance: Provenance::default(),
            recorded_at: Timestamp(1_000_000 + self.commands as i64 - slip.earlier_us),
            streams,
        };
        (partition, Record::new(self.header(partition, Kind::Commit), Body::Commit(Box::new(commit))).encode())
    }
}

/// A closed log of some segments: claims, then `commands` of a few streams, and one that changes nothing.
fn log_of_orders(directory: &Path, commands: u64) -> Pen {
    let (log, _) = open(directory, small(PARTITIONS));
    let mut pen = Pen::default();
    for partition in 0..PARTITIONS {
        must_append(&log, partition, pen.claim(partition));
    }
    for number in 0..commands {
        let (partition, record) = pen.commit(number % 7, 1 + number as usize % 3, 300, Slip::default());
        must_append(&log, partition, record);
    }
    let (partition, record) = pen.commit(3, 0, 0, Slip::default());
    must_append(&log, partition, record);
    pen
}

/// Adds to a closed log.
fn append(directory: &Path, partition: u16, record: Bytes) {
    let (log, _) = open(directory, small(PARTITIONS));
    must_append(&log, partition, record);
}

/// What is in a directory, byte by byte.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry"));
    let name = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    entries.map(|entry| (name(&entry), std::fs::read(entry.path()).expect("a file"))).collect()
}

#[test]
fn a_whole_log_is_whole_and_counted_and_left_as_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    log_of_orders(directory.path(), 60);
    let before = files(directory.path());
    let progress = parking_lot::Mutex::new((0, 0));
    let report = verify(directory.path(), VerifyOptions::default(), &|done, all| *progress.lock() = (done, all))
        .expect("a log is there");
    assert_eq!(report.findings, []);
    assert!(report.complete && report.segments >= 2 && report.readings == 1 && !report.copy, "{report:?}");
    assert_eq!(report.records, 3 + 3 + 61, "geneses, claims and commands");
    assert_eq!((report.commands, report.ignored, report.streams), (61, 0, 7));
    assert_eq!(report.events, (0..60).map(|number| 1 + number % 3).sum::<u64>());
    assert_eq!(report.ends.iter().map(|(_, end)| end.0).sum::<u64>(), report.records);
    let (done, all) = *progress.lock();
    assert!(done > 0 && done <= all, "{done} of {all}");
    assert_eq!(files(directory.path()), before, "nothing was written");
}

#[test]
fn every_flipped_byte_of_the_last_segment_is_found_or_harmless() {
    let directory = tempfile::tempdir().expect("a directory");
    log_of_orders(directory.path(), 5);
    let path = last_segment(directory.path());
    assert_eq!(path, segment(directory.path(), 0), "one segment");
    let whole = std::fs::read(&path).expect("a segment");
    let groups = groups(&whole);
    let seal = groups.last().expect("a seal").clone();
    for at in 0..seal.end + 24 {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bytes).expect("written");
        let found = verify(directory.path(), VerifyOptions { threads: 1, ..VerifyOptions::default() }, &|_, _| {});
        let start = SEGMENT_HEADER_END;
        match found {
            // Nothing else says which log it is.
            Err(OpenFault::Damaged { offset: 0, .. } | OpenFault::TooNew { .. }) => assert!(at < start, "byte {at}"),
            Err(other) => panic!("byte {at}: {other}"),
            Ok(report) if at < seal.start => {
                assert_eq!(report.worst(), Severity::Damage, "byte {at}");
                assert!(!report.complete, "byte {at}");
                let group = groups.iter().map(|group| group.start).rfind(|start| *start <= at).expect("a group");
                let finding = &report.findings[0];
                assert_eq!((finding.byte as usize, &finding.file), (group, &path), "byte {at}");
            }
            Ok(report) => {
                assert_eq!(kinds(&report), [FindingKind::TornTail], "byte {at}");
                assert_eq!(report.worst(), Severity::Note);
                assert!(report.complete);
            }
        }
    }
}

/// Where the header of a segment of three partitions ends.
const SEGMENT_HEADER_END: usize = 64 + 8 * PARTITIONS as usize + 8;

#[test]
fn every_flipped_byte_of_a_sealed_segment_and_of_its_index_is_found_or_harmless() {
    let directory = tempfile::tempdir().expect("a directory");
    log_of_orders(directory.path(), 60);
    let sound = verified(directory.path());
    let path = segment(directory.path(), 1);
    assert!(segment(directory.path(), 2).exists(), "a segment after it");
    let whole = std::fs::read(&path).expect("a segment");
    let end = groups(&whole).last().expect("groups").end;
    for at in (0..end).chain([end, end + 40, whole.len() - 1]) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bytes).expect("written");
        let report = verified(directory.path());
        if at >= end {
            assert_eq!(report.findings, [], "byte {at}: behind the end bytes mean nothing");
            continue;
        }
        let finding = report.findings.first().unwrap_or_else(|| panic!("byte {at} was not noticed"));
        let expected = match at {
            // Of a segment's number or log nothing is known any more either way.
            0..SEGMENT_HEADER_END => [FindingKind::SegmentHeader, FindingKind::TooNew],
            _ => [FindingKind::GroupDamaged, FindingKind::GroupDamaged],
        };
        assert!(expected.contains(&finding.kind), "byte {at}: {finding}");
        assert_eq!(finding.file, path, "byte {at}");
        // The groups behind it are looked at all the same.
        if at >= SEGMENT_HEADER_END {
            assert_eq!(report.groups, sound.groups - 1, "byte {at}");
        }
    }
    std::fs::write(&path, &whole).expect("written");
    let path = directory.path().join("0000000001.index");
    let whole = std::fs::read(&path).expect("an index");
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bytes).expect("written");
        let report = verified(directory.path());
        assert_eq!(kinds(&report), [FindingKind::IndexUnusable], "byte {at}");
        assert_eq!((report.worst(), &report.findings[0].file), (Severity::Note, &path));
    }
}

#[test]
fn damage_in_several_places_is_told_of_each_and_checksums_are_verified_behind_it() {
    let directory = tempfile::tempdir().expect("a directory");
    log_of_orders(directory.path(), 60);
    let mut expected = BTreeSet::new();
    for number in [0, 1] {
        let path = segment(directory.path(), number);
        let mut bytes = std::fs::read(&path).expect("a segment");
        let groups = groups(&bytes);
        for group in [&groups[3], &groups[7]] {
            bytes[group.start + 40] ^= 1;
            expected.insert((path.clone(), group.start as u64));
        }
        std::fs::write(&path, bytes).expect("written");
    }
    let report = verified(directory.path());
    let found = report.findings.iter().map(|finding| (finding.file.clone(), finding.byte)).collect::<BTreeSet<_>>();
    assert_eq!(found, expected);
    assert!(!report.complete && report.commands < 60, "behind the first damage nothing is judged");
}

#[test]
fn a_group_that_is_cut_off_anywhere_is_a_torn_end() {
    let directory = tempfile::tempdir().expect("a directory");
    log_of_orders(directory.path(), 5);
    let path = last_segment(directory.path());
    let whole = std::fs::read(&path).expect("a segment");
    let groups = groups(&whole);
    let last = groups[groups.len() - 2].clone();
    for cut in last.start..last.end {
        let mut bytes = whole.clone();
        bytes[cut..].fill(0);
        std::fs::write(&path, &bytes).expect("written");
        let report = verified(directory.path());
        let torn = bytes[last.clone()].iter().any(|byte| *byte != 0);
        let expected: &[FindingKind] = match torn {
            // What was zero before is no loss to notice.
            true if bytes[last.clone()] != whole[last.clone()] => &[FindingKind::TornTail],
            _ => &[],
        };
        assert_eq!(kinds(&report), expected, "cut at {cut}");
        if let Some(finding) = report.findings.first() {
            assert_eq!((finding.byte as usize, report.worst()), (last.start, Severity::Note));
        }
        bytes.truncate(cut);
        std::fs::write(&path, &bytes).expect("written");
        assert_eq!(verified(directory.path()).worst(), Severity::Note, "cut off at {cut}");
    }
}

#[test]
fn segments_that_are_missing_foreign_or_newer_are_told_by_name() {
    let original = tempfile::tempdir().expect("a directory");
    log_of_orders(original.path(), 100);
    let last = (0..).take_while(|number| segment(original.path(), *number).exists()).count() as u64 - 1;
    assert!(last >= 3, "several segments");
    let other = tempfile::tempdir().expect("a directory");
    let mut options = small(PARTITIONS);
    options.genesis = Some(Genesis { log: LogId(Uuid::from_u128(9)), ..genesis(PARTITIONS) });
    drop(open(other.path(), options));
    let newer = |path: &Path| {
        let mut bytes = std::fs::read(path).expect("a segment");
        bytes[8] = 2;
        std::fs::write(path, bytes).expect("written");
    };
    type Harm<'a> = &'a dyn Fn(&Path);
    let cases: [(FindingKind, u64, Harm<'_>); 6] = [
        (FindingKind::SegmentMissing, 1, &|it| std::fs::remove_file(segment(it, 1)).expect("removed")),
        (FindingKind::SegmentMissing, 0, &|it| std::fs::remove_file(segment(it, 0)).expect("removed")),
        // Its index says that there was one.
        (FindingKind::SegmentMissing, last, &|it| std::fs::remove_file(segment(it, last)).expect("removed")),
        (FindingKind::SegmentForeign, 1, &|it| drop(std::fs::copy(segment(other.path(), 0), segment(it, 1)))),
        (FindingKind::SegmentForeign, 1, &|it| drop(std::fs::copy(segment(it, 2), segment(it, 1)))),
        (FindingKind::TooNew, 1, &|it| newer(&segment(it, 1))),
    ];
    for (kind, number, harm) in cases {
        let directory = tempfile::tempdir().expect("a directory");
        copy_directory(original.path(), directory.path());
        harm(directory.path());
        let report = verified(directory.path());
        let finding = report.findings.iter().find(|finding| finding.kind == kind);
        let finding = finding.unwrap_or_else(|| panic!("{}: {:?}", kind.name(), report.findings));
        assert_eq!(finding.file, segment(directory.path(), number));
        assert!(!report.complete);
        // What is beside it is verified all the same.
        assert!(report.groups > 3 * last, "{}: only {} groups", kind.name(), report.groups);
    }
    // However far a name leads, the gap is one finding.
    let directory = tempfile::tempdir().expect("a directory");
    copy_directory(original.path(), directory.path());
    std::fs::copy(segment(original.path(), last), directory.path().join("99999999999999.segment")).expect("a copy");
    let report = verified(directory.path());
    assert_eq!(report.findings.iter().filter(|it| it.kind == FindingKind::SegmentMissing).count(), 1);
}

#[test]
fn nothing_to_look_at_is_said_to_be_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let absent =
        |path: &Path| matches!(verify(path, VerifyOptions::default(), &|_, _| {}), Err(OpenFault::Absent { .. }));
    assert!(absent(directory.path()));
    assert!(absent(&directory.path().join("nowhere")));
    std::fs::write(segment(directory.path(), 0), b"").expect("written");
    assert!(verify(directory.path(), VerifyOptions::default(), &|_, _| {}).is_err());
}

#[test]
fn what_was_written_wrong_is_found_although_every_checksum_holds() {
    let cases: [(FindingKind, Slip); 4] = [
        (FindingKind::VersionGap, Slip { versions_left_out: 1, ..Slip::default() }),
        (FindingKind::ResourceVersion, Slip { resource_version_more: 1, ..Slip::default() }),
        (FindingKind::TimeBackwards, Slip { earlier_us: 500, ..Slip::default() }),
        (FindingKind::StreamMisplaced, Slip { elsewhere: true, ..Slip::default() }),
    ];
    for (kind, slip) in cases {
        let directory = tempfile::tempdir().expect("a directory");
        let mut pen = log_of_orders(directory.path(), 10);
        // A stream of its own where it lies elsewhere, so that only that is wrong.
        let (partition, record) = pen.commit(if slip.elsewhere { 100 } else { 3 }, 1, 10, slip);
        append(directory.path(), partition, record);
        let report = verified(directory.path());
        assert_eq!(kinds(&report), [kind], "{:?}", report.findings);
        let position = report.findings[0].position.expect("a record");
        assert_eq!(position.partition.0, partition);
        assert!(report.complete && report.worst() == Severity::Damage);
        if kind == FindingKind::VersionGap {
            assert!(report.findings[0].what.contains("order-0000"), "{}", report.findings[0]);
        }
    }
}

#[test]
fn a_record_that_cannot_be_read_is_told_by_position() {
    let directory = tempfile::tempdir().expect("a directory");
    log_of_orders(directory.path(), 4);
    append(directory.path(), 1, Bytes::from_static(b"no record"));
    let report = verified(directory.path());
    assert_eq!(kinds(&report), [FindingKind::RecordDamaged]);
    assert_eq!(report.findings[0].position.map(|position| position.partition), Some(Partition(1)));
}

#[test]
fn what_a_zombie_wrote_does_not_count_and_is_no_damage() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut pen = log_of_orders(directory.path(), 4);
    // The partition is somebody else's from here on.
    let header = Header { kind: Kind::Claim, epoch: Epoch(2), nonce: Nonce(5), seq: Seq(0) };
    let claim = Claim { node: "other".into(), address: "".into(), claimed_at: Timestamp(0) };
    let (partition, late) = pen.commit(3, 1, 10, Slip { versions_left_out: 9, earlier_us: 9, ..Slip::default() });
    append(directory.path(), partition, Record::new(header, Body::Claim(claim)).encode());
    append(directory.path(), partition, late);
    let report = verified(directory.path());
    assert_eq!((report.findings.as_slice(), report.ignored), (&[][..], 1));
    let mut verdicts = Vec::new();
    let shown = read_records(
        directory.path(),
        |position, _| ControlFlow::Continue(position.partition.0 == partition),
        |record| {
            verdicts.push(record.verdict);
            ControlFlow::Continue(())
        },
    );
    shown.expect("the log is whole");
    let ignored = verdicts.iter().filter(|verdict| **verdict == Verdict::Ignored).count();
    assert_eq!((ignored, verdicts.last()), (1, Some(&Verdict::Ignored)));
}

#[test]
fn with_little_memory_the_log_is_read_again_and_the_same_is_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let (log, _) = open(directory.path(), small(PARTITIONS));
    let mut pen = Pen::default();
    let claims = (0..PARTITIONS).map(|partition| (partition, pen.claim(partition))).collect::<Vec<_>>();
    let orders = (0..400).map(|stream| pen.commit(stream, 1, 10, Slip::default())).collect::<Vec<_>>();
    let gap = pen.commit(7, 1, 10, Slip { versions_left_out: 2, ..Slip::default() });
    let later = pen.commit(399, 1, 10, Slip { versions_left_out: 2, ..Slip::default() });
    let all = claims.into_iter().chain(orders).chain([gap, later]).collect::<Vec<_>>();
    for partition in 0..PARTITIONS {
        let own = all.iter().filter(|(home, _)| *home == partition).map(|(_, record)| record.clone());
        append_all(&log, partition, own);
    }
    drop(log);
    let ample = verified(directory.path());
    assert_eq!(kinds(&ample), [FindingKind::VersionGap; 2]);
    let options = VerifyOptions { versions_bytes_max: 2_000, threads: 2 };
    let scarce = verify(directory.path(), options, &|_, _| {}).expect("a log is there");
    assert!(scarce.readings > 4, "{}", scarce.readings);
    assert_eq!(scarce.findings, ample.findings);
    assert_eq!((scarce.streams, scarce.events, scarce.records), (ample.streams, ample.events, ample.records));
    assert_eq!(ample.streams, 400);
}

#[test]
fn a_log_that_is_open_is_verified_as_far_as_it_is_written() {
    let directory = tempfile::tempdir().expect("a directory");
    log_of_orders(directory.path(), 5);
    let (log, _) = open(directory.path(), small(PARTITIONS));
    // As if a group were on its way.
    let path = last_segment(directory.path());
    let mut bytes = std::fs::read(&path).expect("a segment");
    let end = groups(&bytes).last().expect("groups").end;
    bytes[end..end + 100].fill(0x77);
    std::fs::write(&path, &bytes).expect("written");
    let report = verified(directory.path());
    assert_eq!(kinds(&report), [FindingKind::InUse]);
    assert!(report.findings[0].what.contains(&std::process::id().to_string()), "{}", report.findings[0]);
    drop(log);
    bytes[end..end + 100].fill(0);
    std::fs::write(&path, &bytes).expect("written");
    assert_eq!(verified(directory.path()).findings, []);
}

#[test]
fn a_copy_is_verified_like_a_log_and_its_genesis_must_be_that_of_its_log() {
    let copied = |geneses: &[Genesis]| {
        let directory = tempfile::tempdir().expect("a directory");
        let options = Options { disk: Arc::new(NeverFlushes), ..small(PARTITIONS) };
        let log = genesis(PARTITIONS).log;
        let (mut copy, _) = LogCopy::open(directory.path(), log, PARTITIONS, options).expect("a copy");
        let mut pen = Pen::default();
        for (partition, genesis) in (0..).zip(geneses) {
            let (genesis, claim) = (Record::genesis(*genesis).encode(), pen.claim(partition));
            copy.append(&[(Partition(partition), &genesis), (Partition(partition), &claim)]).expect("appended");
        }
        for stream in 0..20 {
            let (partition, record) = pen.commit(stream, 2, 100, Slip::default());
            copy.append(&[(Partition(partition), &record)]).expect("appended");
        }
        drop(copy);
        let report = verified(directory.path());
        assert!(report.copy);
        report
    };
    let ours = genesis(PARTITIONS);
    let report = copied(&[ours; 3]);
    assert_eq!((report.findings.as_slice(), report.commands, report.streams), (&[][..], 20, 20));
    let other_log = Genesis { log: LogId(Uuid::from_u128(9)), ..ours };
    let other_key = Genesis { fingerprint_key: [1; 32], ..ours };
    for foreign in [other_log, other_key] {
        let report = copied(&[ours, foreign, ours]);
        assert_eq!(kinds(&report), [FindingKind::GenesisWrong]);
        assert_eq!(report.findings[0].position.map(|it| (it.partition.0, it.offset.0)), Some((1, 0)));
    }
}

#[test]
fn records_are_shown_in_the_order_of_the_log_up_to_the_damage() {
    let directory = tempfile::tempdir().expect("a directory");
    log_of_orders(directory.path(), 60);
    let read = |limit: usize| {
        let mut shown = Vec::new();
        let result = read_records(
            directory.path(),
            |_, header| ControlFlow::Continue(header.kind == Kind::Commit),
            |record| {
                assert_eq!(record.verdict, Verdict::Effective);
                let Body::Commit(commit) = record.record.body else { panic!("only commands were asked for") };
                shown.push(commit.command_id.0.as_u128());
                if shown.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        );
        (shown, result)
    };
    let (shown, result) = read(usize::MAX);
    result.expect("the log is whole");
    assert_eq!(shown, (1..=61).collect::<Vec<_>>());
    assert_eq!(read(5).0.len(), 5);
    let path = segment(directory.path(), 1);
    let mut bytes = std::fs::read(&path).expect("a segment");
    let bad = groups(&bytes)[2].clone();
    bytes[bad.start + 50] ^= 1;
    std::fs::write(&path, bytes).expect("written");
    let (shown, result) = read(usize::MAX);
    assert!(
        matches!(result, Err(OpenFault::Damaged { file, offset, .. }) if file == path && offset == bad.start as u64)
    );
    assert!(!shown.is_empty() && shown.len() < 61);
}
