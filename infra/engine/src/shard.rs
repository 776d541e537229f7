//! The shard: owner of one partition, as a state machine without I/O. It is fed inputs and answers with effects; whoever
//! runs it (a task of `engine-runtime`, or the simulation) carries the effects out and feeds back what comes of them.
//!
//! For each command: dedup → load states (by the runner, off the shard) → `decide` → record handed to the log →
//! *speculative* states for the next command. Answers wait until what they rest on is certain. What is acknowledged but
//! not yet in the state store stays here, in a bounded map, until the runner says it is saved.
//!
//! Before it leads, the runner folds the partition into the state store up to the shard's own claim, so a shard starts
//! with nothing in memory and knows only what happened in its own term.

use std::sync::Arc;

use bytes::Bytes;

use crate::decider::{Decider, StreamState};
use crate::log::{Delivery, Stored};
use crate::message::{Answer, CommandId, Envelope, Fingerprint, NoAnswer};
use crate::position::{Checkpoint, Offset, Position, Version};
use crate::record::Commit;
use crate::stream::{StreamName, Tenant};
use crate::time::Timestamp;

mod judge;
mod machine;
mod memory;
mod pipeline;

pub use machine::Shard;

/// Names one submission, so that its answer finds its sender. Never reused within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What a shard bounds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Records handed to the log and not confirmed. 4,096: two groups of the largest size measured to help.
    pub in_flight_max: usize,
    /// Commands waiting for a load.
    pub loading_max: usize,
    /// Streams and ids acknowledged but not saved.
    pub unsaved_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { in_flight_max: 4_096, loading_max: 4_096, unsaved_max: 65_536 }
    }
}

/// What a shard is told.
#[derive(Debug)]
pub enum Input<D: Decider> {
    /// A command (or, without one, the question whether its id is known).
    Submit(Ticket, Envelope<D::Command>),
    /// Asks for everything known of a command id in this partition, behind a barrier.
    Inquire(Ticket, Tenant, CommandId),
    /// The answer to `Effect::Load`.
    Loaded(Ticket, Result<Loaded<D::State>, NoAnswer>),
    /// What became of appended records.
    Delivered(Vec<Delivery>),
    /// The answer to `Effect::ReadBack`: the records from where it asked, as far as there are any; empty if nothing new.
    ReadBack(Vec<Stored>),
    /// The state store holds everything below this offset.
    Saved(Offset),
    /// The state store no longer remembers ids from before this time.
    Forgotten(Timestamp),
    /// Whether too much is going on already: then what would begin more ([`Decider::begins`]) is answered `Overloaded`
    /// and not recorded, until this is taken back. Ids that are known are answered all the same.
    Crowded(bool),
    /// Somebody else may have written to the partition, perhaps a claim: find out by a barrier, unless what is in flight
    /// will tell. A shard that has nothing to write learns only by this that its term is over.
    Probe,
    /// Take no more; when all in flight is settled, append a release.
    Drain,
}

/// What the state store knew.
#[derive(Clone, Debug)]
pub struct Loaded<S> {
    /// The asked streams, in the order asked.
    pub streams: Vec<StreamState<S>>,
    /// Where the id was used on that resource, if it was.
    pub remembered: Option<Remembered>,
}

/// A command id that was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Where its record is.
    pub offset: Offset,
    /// What it asked.
    pub fingerprint: Fingerprint,
}

/// What a shard wants done.
#[derive(Debug)]
pub enum Effect<D: Decider> {
    /// Look these up in the state store, off the shard, and feed `Loaded` with the same ticket. The ticket names this
    /// load, not a submission, and is never reused, also not in a later term.
    Load(Ticket, Load),
    /// Hand to the log.
    Append(u64, Bytes),
    /// Give the sender this answer.
    Answer(Ticket, Result<Answer<D::State>, NoAnswer>),
    /// Answer the sender from the record at this offset, which is effective and durable (and perhaps not yet in the
    /// state store): as replayed, if its fingerprint is this one, else `Reused`.
    Replay(Ticket, Offset, Fingerprint),
    /// Answer the sender from the record that holds this version of this stream (the aggregate remembers the id), as
    /// for `Replay`: effective, and perhaps not yet in the state store's index. If that record bears another command id the memory is wrong and that is a fault.
    ReplayVersion(Ticket, Tenant, StreamName, Version, Fingerprint),
    /// The answer to `Inquire`: what this shard holds beyond the state store. The runner adds what the store knows.
    Inquired(Ticket, Vec<Inquired>),
    /// A record of ours is effective and durable. In offset order, without gaps but for ignored records.
    Effective(Arc<Effective<D>>),
    /// Read the log from this offset on and feed `ReadBack`; when empty, again once the log has grown.
    ReadBack(Offset),
    /// The term is over. Nothing more is decided; in `unresolved` are the commands whose fate is open: submit them again
    /// to whoever leads next, under the same tickets.
    SteppedDown(SteppedDown<D>),
    /// `Drain` is done: the release is durable.
    Released,
}

/// What to look up.
#[derive(Clone, Debug)]
pub struct Load {
    /// Whose.
    pub tenant: Tenant,
    /// These streams' states.
    pub streams: Vec<StreamName>,
    /// By stream: whether the command is to make it, so that most likely there is nothing to be found.
    pub made: Vec<bool>,
    /// Whether this id was used on this resource.
    pub id: CommandId,
    /// The resource.
    pub resource: StreamName,
    /// Whether the id was drawn a moment ago, so that most likely it was never used.
    pub id_is_fresh: bool,
}

/// What a shard knows of a command id.
#[derive(Clone, Debug, PartialEq)]
pub struct Inquired {
    /// The resource it addressed.
    pub resource: StreamName,
    /// Its record, or `None` while it runs.
    pub commit: Option<(Position, Arc<Commit>)>,
}

/// An effective record of this shard's term.
#[derive(Debug)]
pub struct Effective<D: Decider> {
    /// Where it is.
    pub position: Position,
    /// The fold after it.
    pub checkpoint: Checkpoint,
    /// The command and what came of it; `None` for barriers, claims and releases.
    pub commit: Option<Arc<Commit>>,
    /// The streams it changed, after it, with the decoded events.
    pub changed: Vec<Changed<D>>,
}

/// A stream after a record.
#[derive(Debug)]
pub struct Changed<D: Decider> {
    /// Which.
    pub name: StreamName,
    /// Its version after the record.
    pub version: Version,
    /// Its state after the record.
    pub state: Arc<D::State>,
    /// What happened to it.
    pub events: Vec<D::Event>,
}

/// Why a term ended, and what is open.
#[derive(Debug)]
pub struct SteppedDown<D: Decider> {
    /// Why.
    pub why: StepDown,
    /// Commands whose fate is open.
    pub unresolved: Vec<(Ticket, Envelope<D::Command>)>,
}

/// Why a term ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepDown {
    /// Somebody claimed a higher epoch.
    Fenced,
    /// The outcome of an append is unknown: claim again with a new epoch, and answer from the fold.
    Unknown,
    /// The log has no room; nothing of what was answered `LogFull` is in it. Claim again when there is room.
    Full,
    /// The log's writer has stopped for good.
    Stopped,
    /// The log went backwards or says what cannot be: stop and tell a person.
    Damaged(String),
}
