//! Events as the business sees them and as they are stored. The business has an enum; the log has a type name, a schema
//! version and a payload that no reader of the log itself needs to understand.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::message::{CommandId, Fingerprint, Provenance};
use crate::position::{Position, Version};
use crate::stream::{StreamName, Tenant};
use crate::time::Timestamp;

/// An event in stored form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedEvent {
    /// Its type's name, past tense: `OrderPlaced`.
    pub event_type: Box<str>,
    /// Which version of that type's payload this is, from 1.
    pub schema_version: u16,
    /// What the payload is written in.
    pub content_type: ContentType,
    /// The payload.
    pub payload: Bytes,
}

/// What a payload is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContentType {
    /// JSON, UTF-8.
    #[default]
    Json,
    /// Anything else.
    Octets,
}

/// The events of one business: an enum that knows how it is stored.
pub trait Event: Clone + std::fmt::Debug + Send + Sync + 'static {
    /// The stored form, always of the newest schema version.
    fn encode(&self) -> EncodedEvent;
    /// Back from the stored form, older schema versions upcast.
    fn decode(stored: &EncodedEvent) -> Result<Self, UnreadableEvent>;
}

/// A stored event that no decoder here understands. Never skipped: whoever meets it parks what it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read event {event_type} v{schema_version}: {why}")]
pub struct UnreadableEvent {
    /// The stored type.
    pub event_type: String,
    /// The stored schema version.
    pub schema_version: u16,
    /// What is wrong with it.
    pub why: String,
}

/// What an event's fold may know beside the event itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventMeta {
    /// Whose stream.
    pub tenant: Tenant,
    /// Which stream.
    pub stream: StreamName,
    /// The event's number in the stream.
    pub version: Version,
    /// When its record was recorded.
    pub recorded_at: Timestamp,
    /// The command it came from.
    pub command_id: CommandId,
    /// That command's fingerprint.
    pub fingerprint: Fingerprint,
}

/// An event with all that is known of it, as readers of the log get it.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded<E> {
    /// What a fold may know.
    pub meta: EventMeta,
    /// Where its record is.
    pub position: Position,
    /// Its place among its record's events, from 0.
    pub index: u32,
    /// Who, why, because of what.
    pub provenance: Provenance,
    /// The event.
    pub event: E,
}
