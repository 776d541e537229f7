//! Four words that must never be mixed: *version* counts events in a stream, *offset* counts records in a partition,
//! *position* is partition and offset, *checkpoint* is how far a reader has folded and what it needs to go on.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Offsets stay below 2^53, so JSON numbers carry them exactly.
pub const OFFSET_LIMIT: u64 = 1 << 53;
/// Most partitions a log may have.
pub const PARTITIONS_MAX: u16 = 1_024;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}
number!(
    /// One of the log's totally ordered parts.
    Partition(u16)
);
number!(
    /// A record's place in its partition, from 0 without gaps.
    Offset(u64)
);
number!(
    /// How many events a stream has; an event's own number in it, from 1 without gaps. 0 is a stream nobody wrote.
    Version(u64)
);
number!(
    /// A term of ownership of a partition. 0 is before the first claim.
    Epoch(u64)
);
number!(
    /// Gap-free count of records within an epoch, from 1.
    Seq(u64)
);

impl Offset {
    /// The one after.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Version {
    /// The one after.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Drawn by the process that claims: two processes may bear one name, never one nonce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(pub u64);

/// Which log this is. Checkpoints, cursors and read stores carry it, and those of another log are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogId(pub Uuid);

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a record is: `3:1042`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The partition it is in.
    pub partition: Partition,
    /// Its offset there.
    pub offset: Offset,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
        let wrong = || InvalidPosition(text.to_owned());
        let (partition, offset) = text.trim().split_once(':').ok_or_else(wrong)?;
        if !plain(partition) || !plain(offset) {
            return Err(wrong());
        }
        let partition = Partition(partition.parse().map_err(|_| wrong())?);
        let offset = Offset(offset.parse().map_err(|_| wrong())?);
        if offset.0 >= OFFSET_LIMIT || partition.0 >= PARTITIONS_MAX {
            return Err(wrong());
        }
        Ok(Self { partition, offset })
    }
}

impl Serialize for Position {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A position per partition, the furthest of each: what `Docket-Position` carries. `3:1042, 5:77`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Positions(pub BTreeMap<Partition, Offset>);

impl Positions {
    /// Adds one, keeping the furthest of its partition.
    pub fn reach(&mut self, position: Position) {
        let offset = self.0.entry(position.partition).or_insert(position.offset);
        *offset = (*offset).max(position.offset);
    }

    /// Adds all of `other`.
    pub fn reach_all(&mut self, other: &Positions) {
        for position in other.iter() {
            self.reach(position);
        }
    }

    /// Each partition's position, by partition.
    pub fn iter(&self) -> impl Iterator<Item = Position> + '_ {
        self.0.iter().map(|(&partition, &offset)| Position { partition, offset })
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Position> for Positions {
    fn from(position: Position) -> Self {
        Self(BTreeMap::from([(position.partition, position.offset)]))
    }
}

impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, position) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            position.fmt(f)?;
        }
        Ok(())
    }
}

impl FromStr for Positions {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut positions = Self::default();
        for part in text.split(',') {
            positions.reach(part.parse()?);
        }
        Ok(positions)
    }
}

/// Text that is no position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a position such as 3:1042")]
pub struct InvalidPosition(pub String);

/// How far a reader has folded one partition, and the state of the accept fold there, so that it can go on from the
/// middle. Valid for one log only; whoever stores checkpoints stores the [`LogId`] beside them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The offset to read next.
    pub next_offset: Offset,
    /// The current term.
    pub epoch: Epoch,
    /// Who holds it; meaningless when `open` is false.
    pub nonce: Nonce,
    /// What the holder writes next.
    pub next_seq: Seq,
    /// Whether the term is held: false before the first claim and after a release.
    pub open: bool,
}
