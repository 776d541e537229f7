//! What is said to the system and what it answers: a command in its envelope, the outcome that is recorded with it, and
//! the answer that its sender gets.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::position::{Position, Version};
use crate::stream::{StreamName, Tenant};
use crate::time::Timestamp;

/// A command's id: the caller's `Idempotency-Key`, or derived from what caused it. It counts within the stream that the
/// command addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommandId(pub Uuid);

impl CommandId {
    /// An id that follows from this one and a name: the same every time, so that a repeat is recognised.
    #[must_use]
    pub fn derive(self, name: &str) -> Self {
        Self(Uuid::new_v5(&self.0, name.as_bytes()))
    }
}

impl std::fmt::Display for CommandId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Keyed hash of verb and body: tells whether a repeated id asks the same, and gives nothing else away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(pub [u8; 16]);

/// Who, why, and because of what. Kept with the record and with every record it causes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Who asked.
    pub actor: Option<Arc<str>>,
    /// Why.
    pub reason: Option<Arc<str>>,
    /// The first command of the chain this one belongs to.
    pub correlation_id: Option<CommandId>,
    /// The command that caused this one.
    pub causation_id: Option<CommandId>,
    /// W3C trace context as received.
    pub traceparent: Option<Arc<str>>,
}

impl Provenance {
    /// What a command caused by `command_id` (which had this provenance) carries.
    #[must_use]
    pub fn caused_by(&self, command_id: CommandId) -> Self {
        Self {
            correlation_id: Some(self.correlation_id.unwrap_or(command_id)),
            causation_id: Some(command_id),
            ..self.clone()
        }
    }
}

/// What the sender demands of the addressed stream's version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// Must exist (`If-Match: *`).
    Exists,
    /// Must be at one of these versions (`If-Match: "3", "4"`). Empty: can never match.
    AnyOf(Vec<Version>),
    /// Must not exist (`If-None-Match: *`).
    Absent,
}

impl Precondition {
    /// Whether a stream at `version` (0: nobody wrote it) meets it.
    pub fn holds_at(&self, version: Version) -> bool {
        match self {
            Self::None => true,
            Self::Exists => version > Version(0),
            Self::AnyOf(versions) => versions.contains(&version),
            Self::Absent => version == Version(0),
        }
    }
}

/// A command on its way to the shard that owns its streams.
#[derive(Clone, Debug)]
pub struct Envelope<C> {
    /// Its id.
    pub id: CommandId,
    /// Whose it is.
    pub tenant: Tenant,
    /// The stream it addresses: idempotency and preconditions count there.
    pub resource: StreamName,
    /// Tells a repeat from another command under the same id.
    pub fingerprint: Fingerprint,
    /// What the sender demands of `resource`'s version.
    pub precondition: Precondition,
    /// Who, why, because of what.
    pub provenance: Provenance,
    /// What is asked. `None` asks only whether the id is known: the answer is its replay, `Reused` or `Unheard`.
    pub command: Option<C>,
}

/// A command that can travel, as JSON, to the node that leads its partition.
pub trait Portable: Serialize + serde::de::DeserializeOwned {
    /// The form and meaning of that JSON. Raised when an older program would read it without complaint and wrongly; it
    /// refuses what is newer than it knows. Its first is 1.
    const FORMAT: u32;

    /// The least format in which this very command is read rightly. A program that knows a later format still sends what
    /// has not changed in the older one, so that nodes of both versions understand each other while they are upgraded.
    fn format(&self) -> u32 {
        Self::FORMAT
    }
}

/// Where in a request a fault lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum At {
    /// A JSON Pointer into the body.
    Pointer(String),
    /// A query parameter.
    Parameter(String),
    /// A header.
    Header(String),
}

/// One fault of a request, as told in a problem's `errors`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// Where.
    #[serde(flatten)]
    pub at: At,
    /// Stable name of what is wrong, kebab-case.
    pub code: Cow<'static, str>,
    /// What is wrong and what would be right, for a person.
    pub detail: String,
    /// Further members, such as `requested` and `available`.
    #[serde(flatten, default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub more: serde_json::Map<String, serde_json::Value>,
}

impl FieldError {
    /// A fault at a JSON Pointer.
    pub fn at(pointer: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            at: At::Pointer(pointer.into()),
            code: Cow::Borrowed(code),
            detail: detail.into(),
            more: serde_json::Map::new(),
        }
    }

    /// The same with one more member.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }
}

/// What came of a command, as recorded: with its streams' states at the recorded versions it is enough to give the same
/// answer again. Accepted if `code` is `None`, else refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Status in HTTP's vocabulary: 200, 201; refusals 404, 409, 412.
    pub status: u16,
    /// The refusal's stable code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Cow<'static, str>>,
    /// The refusal in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Its faults one by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// What the answer needs beyond the streams' states (a stock's counters after; `current_version` of a mismatch).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<serde_json::Value>,
}

impl Outcome {
    /// Whether the command was accepted.
    pub fn is_accepted(&self) -> bool {
        self.code.is_none()
    }
}

/// A definite answer from the owner of a command's streams. Everything else is *unknown* ([`NoAnswer`]).
#[derive(Clone, Debug)]
pub enum Answer<S> {
    /// Decided and recorded, now or (if `replayed`) before.
    Decided(Decided<S>),
    /// Can never be valid as asked; nothing was recorded (HTTP 422 `invalid-fields`).
    Invalid(Vec<FieldError>),
    /// The id was used for something else; nothing was recorded (422 `idempotency-key-reused`).
    Reused,
    /// A UUIDv7 from before what is remembered: refused rather than run again (409 `command-expired`).
    Expired,
    /// The answer to an envelope without a command: the id is not known here.
    Unheard,
}

/// A recorded outcome and what is needed to tell it.
#[derive(Clone, Debug)]
pub struct Decided<S> {
    /// What came of it.
    pub outcome: Outcome,
    /// Where its record is.
    pub position: Position,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// The addressed stream's version after the record.
    pub version: Version,
    /// The addressed stream's state at that version; `None` where nobody wrote it, or where the outcome says all
    /// (refusals, and answers with `Outcome::answer`).
    pub state: Option<Arc<S>>,
    /// Whether this was answered before.
    pub replayed: bool,
}

impl<S> Decided<S> {
    /// Whether a state belongs to it and is not there: it came from a node whose states this one may not read, and has to
    /// be folded here before it is told.
    pub fn lacks_state(&self) -> bool {
        let says_all = !self.outcome.is_accepted() || self.outcome.answer.is_some();
        self.state.is_none() && !says_all && self.version > Version(0)
    }
}

/// Why there is no definite answer. The sender may ask again with the same id; that converges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// A queue or the memory of what is under way is full: this try did nothing.
    #[error("too busy to take the command")]
    Overloaded,
    /// This process does not own the partition, or no longer.
    #[error("the partition is not owned here")]
    NotOwner,
    /// The node that owns the partition cannot be reached: this try did nothing.
    #[error("the partition's owner cannot be reached")]
    Unreachable,
    /// Shutting down: this try did nothing.
    #[error("shutting down")]
    Draining,
    /// It was handed to the log and nothing certain came back.
    #[error("the log has not confirmed the record")]
    Unconfirmed,
    /// The log has no room: this try did nothing.
    #[error("the log is full")]
    LogFull,
    /// The log's writer has stopped for good.
    #[error("the log has stopped")]
    LogStopped,
    /// The log or the state cannot be read.
    #[error("the log cannot be read")]
    LogDamaged,
    /// Nothing came in the time given.
    #[error("no answer in time")]
    TimedOut,
}
