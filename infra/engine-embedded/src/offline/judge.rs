//! What the records say, judged in the order of the log: who may write (the accept fold), versions 1, 2, 3… of every
//! stream, times that never go back, and one genesis. Runs on one thread over what the segments' readers cut down.

use std::path::PathBuf;

use engine::fold::Verdict;
use engine::position::{Checkpoint, LogId, Offset, Partition, Position};
use engine::record::{Genesis, Kind};

use super::Directory;
use super::finding::{Finding, FindingKind};
use super::segment::{Looked, Told, read_again};
use super::versions::Versions;

/// How many records there are, by what came of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) records: u64,
    pub(super) ignored: u64,
    pub(super) commands: u64,
    pub(super) events: u64,
}

/// The state of the folds between two segments.
pub(super) struct Judge<'a> {
    directory: &'a Directory,
    log: LogId,
    partitions: Vec<Folded>,
    genesis: Option<Genesis>,
    versions: Versions,
    /// Whether this is the first time that the log is read: only then all but versions is judged.
    first: bool,
    pub(super) counts: Counts,
    pub(super) findings: Vec<Finding>,
}

#[derive(Clone, Copy, Default)]
struct Folded {
    checkpoint: Checkpoint,
    recorded_at: i64,
}

impl<'a> Judge<'a> {
    pub(super) fn new(
        directory: &'a Directory,
        log: LogId,
        partitions: usize,
        versions: Versions,
        first: bool,
    ) -> Self {
        let partitions = vec![Folded { recorded_at: i64::MIN, ..Folded::default() }; partitions];
        let (counts, findings) = (Counts::default(), Vec::new());
        Self { directory, log, partitions, genesis: None, versions, first, counts, findings }
    }

    /// The versions, once all is judged.
    pub(super) fn into_versions(self) -> Versions {
        self.versions
    }

    /// Judges a segment's records.
    pub(super) fn judge(&mut self, segment: u64, looked: &Looked) {
        let mut streams = looked.streams.iter();
        let mut geneses = looked.geneses.iter();
        for told in &looked.records {
            let genesis = (told.header.kind == Kind::Genesis).then(|| geneses.next()).flatten();
            let commit_streams = told.commit.as_ref().map_or(0, |commit| commit.streams as usize);
            let of_record = streams.by_ref().take(commit_streams);
            let partition = usize::from(told.partition);
            let verdict = self.partitions[partition].checkpoint.accept(&told.header);
            self.counts.records += 1;
            if told.offset == 0 && self.first {
                self.check_genesis(segment, told, genesis.map(|(_, _, genesis)| genesis));
            }
            if verdict == Verdict::Ignored {
                self.counts.ignored += 1;
                of_record.for_each(drop);
                continue;
            }
            let Some(commit) = &told.commit else { continue };
            self.counts.commands += 1;
            let folded = &mut self.partitions[partition];
            let before = folded.recorded_at;
            folded.recorded_at = before.max(commit.recorded_at);
            if commit.recorded_at < before && self.first {
                let what = format!("recorded {} µs before a record before it", before - commit.recorded_at);
                self.find(FindingKind::TimeBackwards, segment, told, what);
            }
            for stream in of_record {
                self.counts.events += u64::from(stream.events);
                if stream.misplaced && self.first {
                    let what =
                        format!("{} belongs in another partition", self.stream_of(segment, told, stream.first_version));
                    self.find(FindingKind::StreamMisplaced, segment, told, what);
                }
                if !self.versions.looks_at(stream.key) {
                    continue;
                }
                let known = self.versions.get(told.partition, stream.key);
                self.versions.set(told.partition, stream.key, stream.first_version + u64::from(stream.events) - 1);
                if stream.first_version != known + 1 {
                    let name = self.stream_of(segment, told, stream.first_version);
                    let what = format!("{name} goes on with version {} after version {known}", stream.first_version);
                    self.find(FindingKind::VersionGap, segment, told, what);
                }
            }
            if self.versions.looks_at(commit.resource) {
                let known = self.versions.get(told.partition, commit.resource);
                if known != commit.resource_version {
                    let said = commit.resource_version;
                    let what = format!("the record says that its resource has version {said}, its events make {known}");
                    self.find(FindingKind::ResourceVersion, segment, told, what);
                }
            }
        }
    }

    fn check_genesis(&mut self, segment: u64, told: &Told, genesis: Option<&Genesis>) {
        let partitions = self.partitions.len();
        let what = match (genesis, &self.genesis) {
            (None, _) => "no genesis".to_owned(),
            (Some(genesis), _) if genesis.log != self.log || usize::from(genesis.partitions) != partitions => {
                format!("the genesis of log {} with {} partitions", genesis.log, genesis.partitions)
            }
            (Some(genesis), Some(first)) if genesis != first => "another genesis than in another partition".to_owned(),
            (Some(genesis), _) => {
                self.genesis = Some(*genesis);
                return;
            }
        };
        self.find(FindingKind::GenesisWrong, segment, told, what);
    }

    /// The name of a record's stream, by the version that it goes on with.
    fn stream_of(&self, segment: u64, told: &Told, first_version: u64) -> String {
        let record = read_again(self.directory, segment, told.at, told.len);
        let commit = match record.map(|record| record.body) {
            Some(engine::record::Body::Commit(commit)) => commit,
            _ => return "a stream".to_owned(),
        };
        let stream = commit.streams.iter().find(|stream| stream.first_version.0 == first_version);
        stream.map_or_else(|| "a stream".to_owned(), |stream| format!("stream {}", stream.name))
    }

    fn find(&mut self, kind: FindingKind, segment: u64, told: &Told, what: String) {
        let position = Position { partition: Partition(told.partition), offset: Offset(told.offset) };
        let file: PathBuf = self.directory.segment(segment);
        self.findings.push(Finding { kind, file, byte: told.at, position: Some(position), what });
    }
}
