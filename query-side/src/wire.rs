//! An event as it is told everywhere: over HTTP as JSON and NDJSON, and by the command line.

use engine::event::{Event, Recorded};
use engine::message::CommandId;
use engine::position::{LogId, Position, Version};
use engine::stream::StreamName;
use engine::time::Timestamp;
use schemas::event::ShopEvent;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use uuid::Uuid;

/// One event with all that is known of it.
#[derive(Clone, Debug, Serialize)]
pub struct WireEvent {
    event_id: Uuid,
    #[serde(rename = "type")]
    event_type: &'static str,
    schema_version: u16,
    stream: StreamName,
    version: Version,
    position: Position,
    index: u32,
    recorded_at: Timestamp,
    actor: Option<Arc<str>>,
    reason: Option<Arc<str>>,
    command_id: CommandId,
    correlation_id: CommandId,
    causation_id: Option<CommandId>,
    traceparent: Option<Arc<str>>,
    data: Value,
}

impl WireEvent {
    /// Tells an event of this log. Its id follows from log, position and index: the same for ever, everywhere.
    pub fn of(log: LogId, event: Recorded<ShopEvent>) -> Self {
        let Recorded { meta, position, index, provenance, event } = event;
        let stored = event.encode();
        Self {
            event_id: Uuid::new_v5(&log.0, format!("{position}/{index}").as_bytes()),
            event_type: event.event_type(),
            schema_version: stored.schema_version,
            stream: meta.stream,
            version: meta.version,
            position,
            index,
            recorded_at: meta.recorded_at,
            actor: provenance.actor,
            reason: provenance.reason,
            command_id: meta.command_id,
            correlation_id: provenance.correlation_id.unwrap_or(meta.command_id),
            causation_id: provenance.causation_id,
            traceparent: provenance.traceparent,
            data: serde_json::from_slice(&stored.payload).expect("our own events are JSON"),
        }
    }
}
