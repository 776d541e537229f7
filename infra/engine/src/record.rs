//! The record: all events of one command, appended whole or not at all. A fixed header first, enough for the accept fold
//! without looking further, then tagged sections. The layout is written down in `docs/record-format.md`.

mod codec;
mod events;
mod header;
mod wire;

use bytes::Bytes;

pub use self::events::CommitEvent;
use crate::event::EncodedEvent;
use crate::message::{CommandId, Fingerprint, Outcome, Provenance};
use crate::position::{Epoch, LogId, Nonce, PARTITIONS_MAX, Seq, Version};
use crate::stream::{StreamName, Tenant};
use crate::time::Timestamp;

/// The newest record format that this program reads, and the one it writes.
pub const FORMAT: u16 = 1;
/// The newest placement rule that this program knows.
pub const PLACEMENT_RULE: u16 = 1;
/// Bytes of the fixed header.
pub const HEADER_BYTES: usize = header::BYTES;

/// A record: who wrote it in which term, and what it says.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// What the accept fold needs.
    pub header: Header,
    /// What it says.
    pub body: Body,
    /// What a later version of this program said besides, kept unread. Empty in what this one writes.
    pub later: Vec<Section>,
}

/// A section that this version of the program does not know and may pass over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its number, 1–127; a record's sections ascend.
    pub number: u8,
    /// What is in it.
    pub content: Bytes,
}

/// What the accept fold needs of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// The writer's term. 0 for `Genesis`.
    pub epoch: Epoch,
    /// The writer's nonce. 0 for `Genesis`.
    pub nonce: Nonce,
    /// Its place in the term; a claim has 0, what follows 1, 2, 3…
    pub seq: Seq,
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Offset 0 of every partition.
    Genesis,
    /// Opens a term.
    Claim,
    /// A command and what came of it.
    Commit,
    /// Says nothing; its acknowledgement proves that the writer still holds the term.
    Barrier,
    /// Closes the term.
    Release,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// What the log is.
    Genesis(Genesis),
    /// Who wants the partition.
    Claim(Claim),
    /// A command and what came of it.
    Commit(Box<Commit>),
    /// Nothing.
    Barrier,
    /// Nothing.
    Release,
}

/// What a log is, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Genesis {
    /// Which log.
    pub log: LogId,
    /// How many partitions it has.
    pub partitions: u16,
    /// How streams are placed; 1 is [`crate::stream::partition_of`].
    pub placement_rule: u16,
    /// The record format it started with.
    pub format: u16,
    /// Keys the fingerprints of its commands.
    pub fingerprint_key: [u8; 32],
    /// When it was made.
    pub created_at: Timestamp,
}

/// Who wants a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The node's name.
    pub node: Box<str>,
    /// Where commands for it can be sent.
    pub address: Box<str>,
    /// When.
    pub claimed_at: Timestamp,
}

/// A command and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    /// The command's id.
    pub command_id: CommandId,
    /// Whose it was.
    pub tenant: Tenant,
    /// The stream it addressed.
    pub resource: StreamName,
    /// That stream's version after this record.
    pub resource_version: Version,
    /// Tells repeats from other commands under the same id.
    pub fingerprint: Fingerprint,
    /// What came of it.
    pub outcome: Outcome,
    /// Who, why, because of what.
    pub provenance: Provenance,
    /// When; never earlier than an earlier record of the partition.
    pub recorded_at: Timestamp,
    /// What happened, by stream. Empty for refusals and where nothing changed.
    pub streams: Vec<StreamEvents>,
}

/// What happened to one stream in one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEvents {
    /// Which.
    pub name: StreamName,
    /// The version of the first of `events`.
    pub first_version: Version,
    /// At least one.
    pub events: Vec<EncodedEvent>,
}

impl StreamEvents {
    /// The version of the last of its events.
    pub fn last_version(&self) -> Version {
        Version(self.first_version.0 + self.events.len() as u64 - 1)
    }
}

/// Why bytes are no record that this program can take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableRecord {
    /// Too short, lengths that do not fit, or a wrong checksum.
    #[error("the record is damaged: {0}")]
    Damaged(String),
    /// Written by a newer version of this program: a reader must stop, not skip.
    #[error("the record needs a newer version of this program: {0}")]
    TooNew(String),
}

impl Record {
    /// A record of this writer.
    pub fn new(header: Header, body: Body) -> Self {
        Self { header, body, later: Vec::new() }
    }

    /// The first record of every partition.
    pub fn genesis(genesis: Genesis) -> Self {
        let header = Header { kind: Kind::Genesis, epoch: Epoch(0), nonce: Nonce(0), seq: Seq(0) };
        Self::new(header, Body::Genesis(genesis))
    }

    /// The record's bytes. May be more than [`crate::log::RECORD_BYTES_MAX`]: that is the log's to refuse.
    ///
    /// # Panics
    /// If the record says what no record may: a body of another kind than its header, a stream without events or from
    /// version 0 on, a log without partitions. Nothing that comes from outside can make such a record; better to stop
    /// than to write it.
    pub fn encode(&self) -> Bytes {
        codec::encode(self)
    }

    /// Back from bytes; the checksum is verified. Payloads are slices of `bytes`, not copies.
    pub fn decode(bytes: &Bytes) -> Result<Self, UnreadableRecord> {
        codec::decode(bytes)
    }
}

impl Header {
    /// The header alone; the checksum over the whole record is verified.
    pub fn decode(bytes: &[u8]) -> Result<Self, UnreadableRecord> {
        header::decode(bytes)
    }
}

impl Genesis {
    /// Whether a log may be so; what is wrong with it if not.
    pub fn check(&self) -> Result<(), UnreadableRecord> {
        if self.partitions == 0 || self.partitions > PARTITIONS_MAX {
            let wrong = format!("a log has 1 to {PARTITIONS_MAX} partitions, not {}", self.partitions);
            return Err(UnreadableRecord::Damaged(wrong));
        }
        if self.placement_rule == 0 || self.format == 0 {
            return Err(UnreadableRecord::Damaged("placement rules and formats count from 1".to_owned()));
        }
        if self.placement_rule > PLACEMENT_RULE {
            return Err(UnreadableRecord::TooNew(format!("placement rule {}", self.placement_rule)));
        }
        if self.format > FORMAT {
            return Err(UnreadableRecord::TooNew(format!("record format {}", self.format)));
        }
        Ok(())
    }
}
