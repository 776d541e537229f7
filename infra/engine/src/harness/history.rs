//! What happened, numbered and timed as a log would: versions without gaps, one record after the other, a second apart.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use crate::decider::Decider;
use crate::event::{Event, EventMeta, Recorded};
use crate::message::{CommandId, Fingerprint, Provenance};
use crate::position::{Offset, Partition, Position, Version};
use crate::stream::{StreamName, Tenant};
use crate::time::Timestamp;

/// When harness time starts: 2026-01-01T00:00:00Z.
pub const START: Timestamp = Timestamp(1_767_225_600_000_000);

/// Events in the order in which they were recorded.
#[derive(Clone, Debug)]
pub struct History<E> {
    tenant: Tenant,
    recorded: Vec<Recorded<E>>,
    versions: BTreeMap<StreamName, Version>,
    next_offset: Offset,
}

/// These events, each in a record of its own.
pub fn history<E: Event>(events: impl IntoIterator<Item = (StreamName, E)>) -> History<E> {
    let mut history = History::new();
    for event in events {
        history.record_next([event]);
    }
    history
}

impl<E: Event> Default for History<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E: Event> History<E> {
    /// Nothing yet.
    pub fn new() -> Self {
        // Offset 0 is the genesis of a log.
        let (tenant, next_offset) = (Tenant::default(), Offset(1));
        Self { tenant, recorded: Vec::new(), versions: BTreeMap::new(), next_offset }
    }

    /// Adds one record with these events, a second after the one before, under an id of its own.
    pub fn record_next(&mut self, events: impl IntoIterator<Item = (StreamName, E)>) -> Position {
        let recorded_at = self.recorded.last().map_or(START, |last| last.meta.recorded_at.plus_ms(1_000));
        let id = CommandId(Uuid::from_u128(u128::from(self.next_offset.0)));
        self.record(id, Fingerprint::default(), recorded_at, events)
    }

    /// Adds one record with these events. They are kept as read back from their stored form.
    ///
    /// # Panics
    /// If an event cannot be read back.
    pub fn record(
        &mut self,
        command_id: CommandId,
        fingerprint: Fingerprint,
        recorded_at: Timestamp,
        events: impl IntoIterator<Item = (StreamName, E)>,
    ) -> Position {
        let position = Position { partition: Partition(0), offset: self.next_offset };
        self.next_offset = self.next_offset.next();
        for (index, (stream, event)) in (0..).zip(events) {
            let version = self.versions.entry(stream.clone()).or_default();
            *version = version.next();
            let meta = EventMeta {
                tenant: self.tenant.clone(),
                stream,
                version: *version,
                recorded_at,
                command_id,
                fingerprint,
            };
            let event =
                E::decode(&event.encode()).unwrap_or_else(|error| panic!("{event:?} cannot be read back: {error}"));
            self.recorded.push(Recorded { meta, position, index, provenance: Provenance::default(), event });
        }
        position
    }

    /// All of it.
    pub fn recorded(&self) -> &[Recorded<E>] {
        &self.recorded
    }

    /// A stream's events.
    pub fn of(&self, stream: &StreamName) -> impl Iterator<Item = &Recorded<E>> {
        self.recorded.iter().filter(move |event| event.meta.stream == *stream)
    }
}

/// A history and what it amounts to.
#[derive(Debug)]
pub struct Folded<D: Decider> {
    decider: Arc<D>,
    history: History<D::Event>,
    states: BTreeMap<StreamName, (Version, Arc<D::State>)>,
}

impl<D: Decider> Clone for Folded<D> {
    fn clone(&self) -> Self {
        Self { decider: self.decider.clone(), history: self.history.clone(), states: self.states.clone() }
    }
}

impl<D: Decider> Folded<D> {
    /// Nothing yet.
    pub fn new(decider: Arc<D>) -> Self {
        Self { decider, history: History::new(), states: BTreeMap::new() }
    }

    /// The business.
    pub fn decider(&self) -> &Arc<D> {
        &self.decider
    }

    /// What happened.
    pub fn history(&self) -> &History<D::Event> {
        &self.history
    }

    /// Every stream that was written, with its version and state.
    pub fn streams(&self) -> impl Iterator<Item = (&StreamName, Version, &Arc<D::State>)> {
        self.states.iter().map(|(name, (version, state))| (name, *version, state))
    }

    /// What a stream amounts to.
    pub fn state(&self, stream: &StreamName) -> Option<&Arc<D::State>> {
        self.states.get(stream).map(|(_, state)| state)
    }

    /// How many events a stream has.
    pub fn version(&self, stream: &StreamName) -> Version {
        self.states.get(stream).map_or(Version(0), |(version, _)| *version)
    }

    /// Adds one record, a second after the one before, under an id of its own.
    pub fn record_next(&mut self, events: impl IntoIterator<Item = (StreamName, D::Event)>) -> Position {
        let before = self.history.recorded.len();
        let position = self.history.record_next(events);
        self.fold_from(before);
        position
    }

    /// Adds one record.
    pub fn record(
        &mut self,
        command_id: CommandId,
        fingerprint: Fingerprint,
        recorded_at: Timestamp,
        events: impl IntoIterator<Item = (StreamName, D::Event)>,
    ) -> Position {
        let before = self.history.recorded.len();
        let position = self.history.record(command_id, fingerprint, recorded_at, events);
        self.fold_from(before);
        position
    }

    fn fold_from(&mut self, first: usize) {
        for Recorded { meta, event, .. } in &self.history.recorded[first..] {
            let state = self.states.remove(&meta.stream).map(|(_, state)| Arc::unwrap_or_clone(state));
            let state = self.decider.evolve(state, event, meta);
            // The state store keeps states as JSON: what does not survive that must show here.
            let stored =
                serde_json::to_vec(&state).unwrap_or_else(|error| panic!("{state:?} cannot be stored: {error}"));
            let state = serde_json::from_slice::<D::State>(&stored).unwrap_or_else(|error| {
                panic!("{state:?}, stored as {}, cannot be read back: {error}", String::from_utf8_lossy(&stored))
            });
            self.states.insert(meta.stream.clone(), (meta.version, Arc::new(state)));
        }
    }
}
