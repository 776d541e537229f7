//! What can be found, each kind under a name that stays, so that a script or a runbook can rely on it.

use std::fmt;
use std::path::PathBuf;

use engine::position::Position;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingKind {
    /// A segment between others, or before an index, is not there.
    SegmentMissing,
    /// A segment's header is not as it was written.
    SegmentHeader,
    /// A segment belongs to another log, or has another number than its name says.
    SegmentForeign,
    /// A segment does not lead to the next one.
    SegmentChain,
    /// A segment or a record was written by a newer version of this program.
    TooNew,
    /// Where a group should be is none whose checksum matches.
    GroupDamaged,
    /// A whole group that does not follow from what is before it.
    GroupMisplaced,
    /// A record inside a whole group cannot be read.
    RecordDamaged,
    /// Offset 0 of a partition is no genesis, or not that of this log.
    GenesisWrong,
    /// A stream's versions do not go 1, 2, 3…
    VersionGap,
    /// A record says another version of its resource than the events before it make.
    ResourceVersion,
    /// A record says that it is older than one before it in its partition.
    TimeBackwards,
    /// A stream's events lie in another partition than its name places them in.
    StreamMisplaced,
    /// The disk does not give the bytes.
    Unreadable,
    /// The last group is only partly there: it was being written when the process or the machine died.
    TornTail,
    /// An index is missing or cannot be used: it is made again from its segment.
    IndexUnusable,
    /// A process has the log open.
    InUse,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing that was acknowledged is lost: opening the log mends it, or there is nothing to mend.
    Note,
    /// Nobody can say: the bytes cannot be read, or not by this program.
    Unknown,
    /// What was durable is not as it was written.
    Damage,
}

impl FindingKind {
    /// Its name, for ever.
    pub fn name(self) -> &'static str {
        match self {
            Self::SegmentMissing => "segment-missing",
            Self::SegmentHeader => "segment-header",
            Self::SegmentForeign => "segment-foreign",
            Self::SegmentChain => "segment-chain",
            Self::TooNew => "too-new",
            Self::GroupDamaged => "group-damaged",
            Self::GroupMisplaced => "group-misplaced",
            Self::RecordDamaged => "record-damaged",
            Self::GenesisWrong => "genesis-wrong",
            Self::VersionGap => "version-gap",
            Self::ResourceVersion => "resource-version",
            Self::TimeBackwards => "time-backwards",
            Self::StreamMisplaced => "stream-misplaced",
            Self::Unreadable => "unreadable",
            Self::TornTail => "torn-tail",
            Self::IndexUnusable => "index-unusable",
            Self::InUse => "in-use",
        }
    }

    /// How bad it is.
    pub fn severity(self) -> Severity {
        match self {
            Self::TornTail | Self::IndexUnusable | Self::InUse => Severity::Note,
            Self::TooNew | Self::Unreadable => Severity::Unknown,
            _ => Severity::Damage,
        }
    }
}

/// One thing that is not as it should be, or worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub kind: FindingKind,
    /// In which file.
    pub file: PathBuf,
    /// The first byte of it there.
    pub byte: u64,
    /// In which record, where it is about one.
    pub position: Option<Position>,
    /// What exactly.
    pub what: String,
}

impl Finding {
    /// About a file as a whole.
    pub(super) fn of_file(kind: FindingKind, file: PathBuf, what: String) -> Self {
        Self { kind, file, byte: 0, position: None, what }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {} at byte {}", self.kind.name(), self.file.display(), self.byte)?;
        if let Some(position) = self.position {
            write!(f, " (position {position})")?;
        }
        write!(f, ": {}", self.what)
    }
}
