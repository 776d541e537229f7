//! A business that can do all that a state store must keep: add up, owe errands, set timers.

use bytes::Bytes;
use engine::decider::{Context, Decider, Decision, States};
use engine::event::{ContentType, EncodedEvent, Event, EventMeta, UnreadableEvent};
use engine::message::CommandId;
use engine::position::Version;
use engine::saga::{Agenda, Ask, Heard, Pending, Reactor, Timer};
use engine::stream::StreamName;
use engine::time::Timestamp;
use serde::{Deserialize, Serialize};

/// The business, in this version.
#[derive(Debug)]
pub(crate) struct Toy(pub(crate) u32);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Happened {
    Added(u64),
    Promised,
    Kept,
    Armed(Timestamp),
    Disarmed,
    /// Written by a version that is yet to come.
    Unheard,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sum {
    pub(crate) total: u64,
    pub(crate) promised: u64,
    pub(crate) armed: Option<(Timestamp, Version)>,
    pub(crate) last: Option<CommandId>,
}

impl Event for Happened {
    fn encode(&self) -> EncodedEvent {
        EncodedEvent {
            event_type: "Happened".into(),
            schema_version: if *self == Self::Unheard { 2 } else { 1 },
            content_type: ContentType::Json,
            payload: Bytes::from(serde_json::to_vec(self).expect("plain data")),
        }
    }

    fn decode(stored: &EncodedEvent) -> Result<Self, UnreadableEvent> {
        let unreadable = |why: &str| UnreadableEvent {
            event_type: stored.event_type.to_string(),
            schema_version: stored.schema_version,
            why: why.to_owned(),
        };
        match stored.schema_version {
            1 => serde_json::from_slice(&stored.payload).map_err(|error| unreadable(&error.to_string())),
            _ => Err(unreadable("from a version yet to come")),
        }
    }
}

impl Decider for Toy {
    type Command = ();
    type Event = Happened;
    type State = Sum;

    fn version(&self) -> u32 {
        self.0
    }

    fn streams(&self, _: &()) -> Vec<StreamName> {
        Vec::new()
    }

    fn decide(&self, _: &States<'_, Sum>, _: &(), _: &Context) -> Decision<Happened> {
        Decision::nothing()
    }

    fn evolve(&self, state: Option<Sum>, event: &Happened, meta: &EventMeta) -> Sum {
        let mut sum = state.unwrap_or_default();
        match event {
            Happened::Added(amount) => sum.total += amount,
            Happened::Promised => sum.promised += 1,
            Happened::Kept => sum.promised = sum.promised.saturating_sub(1),
            Happened::Armed(due) => sum.armed = Some((*due, meta.version)),
            Happened::Disarmed => sum.armed = None,
            Happened::Unheard => unreachable!("cannot be decoded"),
        }
        sum.last = Some(meta.command_id);
        sum
    }

    fn remembers(&self, _: &Sum, _: CommandId) -> Option<Version> {
        None
    }
}

impl Reactor for Toy {
    type Call = ();
    type Returned = ();

    fn react(&self, _: &StreamName, _: Version, sum: &Sum) -> Agenda<(), ()> {
        let pending = (0..sum.promised)
            .map(|_| Pending { id: sum.last.expect("something happened"), not_before: None, ask: Ask::Call(()) })
            .collect();
        Agenda { pending, timer: sum.armed.map(|(due, armed_at)| Timer { due, armed_at }) }
    }

    fn heard(
        &self,
        _: &StreamName,
        _: &Sum,
        _: &Pending<(), ()>,
        _: &Heard<()>,
        _: Timestamp,
    ) -> Option<(CommandId, ())> {
        None
    }

    fn fire(&self, _: &StreamName, _: &Sum, _: &Timer) {}
}
