//! Given these events, when this is asked, then that.

use std::sync::Arc;

use uuid::Uuid;

use super::history::{Folded, START};
use crate::decider::{Context, Decider, Decision, Rejection, States, StreamState};
use crate::message::{At, CommandId, FieldError, Fingerprint};
use crate::position::Version;
use crate::saga::{Agenda, Reactor};
use crate::stream::StreamName;
use crate::time::Timestamp;

/// What happened so far.
#[derive(Clone, Debug)]
pub struct Given<D: Decider> {
    folded: Folded<D>,
    /// The time that decisions see.
    now: Timestamp,
    /// How many commands were asked: numbers their ids.
    asked: u64,
}

/// What a command came to, to be compared with what it should.
#[derive(Debug)]
#[must_use = "say what should come of it"]
pub struct Then<D: Decider> {
    given: Given<D>,
    names: Vec<StreamName>,
    command_id: CommandId,
    decision: Decision<D::Event>,
}

/// A business to which these events happened, each in a record of its own.
pub fn given<D: Decider>(decider: D, events: impl IntoIterator<Item = (StreamName, D::Event)>) -> Given<D> {
    Given { folded: Folded::new(Arc::new(decider)), now: START, asked: 0 }.and(events)
}

impl<D: Decider> Given<D> {
    /// And these events, each in a record of its own.
    #[must_use]
    pub fn and(mut self, events: impl IntoIterator<Item = (StreamName, D::Event)>) -> Self {
        for event in events {
            self.folded.record_next([event]);
        }
        let last = self.folded.history().recorded().last().map_or(START, |last| last.meta.recorded_at);
        self.now = self.now.max(last);
        self
    }

    /// And this is the time.
    #[must_use]
    pub fn at(mut self, now: Timestamp) -> Self {
        self.now = now;
        self
    }

    /// What happened and what it amounts to.
    pub fn folded(&self) -> &Folded<D> {
        &self.folded
    }

    /// What a stream amounts to.
    pub fn state(&self, stream: &StreamName) -> Option<&D::State> {
        self.folded.state(stream).map(Arc::as_ref)
    }

    /// How many events a stream has.
    pub fn version(&self, stream: &StreamName) -> Version {
        self.folded.version(stream)
    }

    /// Asks this, under an id that nobody used.
    pub fn when(mut self, command: D::Command) -> Then<D> {
        self.asked += 1;
        let id = CommandId(Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("asked {}", self.asked).as_bytes()));
        self.when_asked_as(id, command)
    }

    /// Asks this under this id. Repeats are the shard's affair: the decider is asked all the same.
    pub fn when_asked_as(self, command_id: CommandId, command: D::Command) -> Then<D> {
        let decider = self.folded.decider();
        let names = decider.streams(&command);
        assert!(!names.is_empty(), "a command names the stream it addresses: {command:?}");
        let states = (names.iter())
            .map(|name| StreamState {
                name: name.clone(),
                version: self.folded.version(name),
                state: self.folded.state(name).cloned(),
            })
            .collect::<Vec<_>>();
        let decision = decider.decide(&States::new(&states), &command, &Context { now: self.now, command_id });
        Then { given: self, names, command_id, decision }
    }

    /// What the stream owes the world.
    ///
    /// # Panics
    /// If nobody wrote it.
    pub fn owes(&self, stream: &StreamName) -> Agenda<D::Command, D::Call>
    where
        D: Reactor,
    {
        let state = self.state(stream).unwrap_or_else(|| panic!("nobody wrote {stream}"));
        self.folded.decider().react(stream, self.folded.version(stream), state)
    }

    /// Whether the stream remembers the id, and at which version.
    pub fn remembers(&self, stream: &StreamName, id: CommandId) -> Option<Version> {
        self.state(stream).and_then(|state| self.folded.decider().remembers(state, id))
    }
}

impl<D: Decider> Then<D> {
    /// These events happen, in this order; what follows is given them.
    #[track_caller]
    pub fn then(self, events: impl IntoIterator<Item = (StreamName, D::Event)>) -> Given<D>
    where
        D::Event: PartialEq,
    {
        let expected = events.into_iter().collect::<Vec<_>>();
        let happened = self.accepted();
        assert_eq!(happened, expected, "other events happened than should");
        self.happen()
    }

    /// Something happens; what follows is given it.
    #[track_caller]
    pub fn then_accepted(self) -> Given<D> {
        self.accepted();
        self.happen()
    }

    /// It is accepted and nothing changes.
    #[track_caller]
    pub fn then_nothing(self) -> Given<D> {
        let happened = self.accepted();
        assert!(happened.is_empty(), "nothing should happen, not {happened:?}");
        self.given
    }

    /// It is accepted with this in the answer beyond the stream's state; what follows is given what happened.
    #[track_caller]
    pub fn then_answered(self, answer: &serde_json::Value) -> Given<D> {
        match &self.decision {
            Decision::Accept(accepted) => assert_eq!(accepted.answer.as_ref(), Some(answer), "another answer"),
            other => panic!("it should be accepted, not {other:?}"),
        }
        self.happen()
    }

    /// The business says no with this code.
    #[track_caller]
    pub fn then_refused(self, code: &str) -> Given<D> {
        assert_eq!(self.refusal().code, code, "another refusal");
        self.given
    }

    /// The business says no with this code and these faults, as pointer and code.
    #[track_caller]
    pub fn then_refused_with(self, code: &str, faults: &[(&str, &str)]) -> Given<D> {
        let refusal = self.refusal();
        assert_eq!(refusal.code, code, "another refusal");
        let found = refusal.errors.iter().map(|fault| (place(fault), fault.code.as_ref())).collect::<Vec<_>>();
        assert_eq!(found, faults, "other faults");
        self.given
    }

    /// It can never be valid, for faults at these pointers.
    #[track_caller]
    pub fn then_invalid(self, pointers: &[&str]) -> Given<D> {
        match &self.decision {
            Decision::Invalid(faults) => {
                let found = faults.iter().map(place).collect::<Vec<_>>();
                assert_eq!(found, pointers, "other faults: {faults:?}");
            }
            other => panic!("it should be invalid, not {other:?}"),
        }
        self.given
    }

    /// What it came to, for what the words above do not say.
    pub fn decision(&self) -> &Decision<D::Event> {
        &self.decision
    }

    #[track_caller]
    fn refusal(&self) -> &Rejection {
        match &self.decision {
            Decision::Refuse(rejection) => rejection,
            other => panic!("it should be refused, not {other:?}"),
        }
    }

    #[track_caller]
    fn accepted(&self) -> Vec<(StreamName, D::Event)> {
        match &self.decision {
            Decision::Accept(accepted) => {
                accepted.events.iter().map(|(index, event)| (self.names[*index].clone(), event.clone())).collect()
            }
            other => panic!("it should be accepted, not {other:?}"),
        }
    }

    #[track_caller]
    fn happen(self) -> Given<D> {
        let events = self.accepted();
        let mut given = self.given;
        given.folded.record(self.command_id, Fingerprint::default(), given.now, events);
        given
    }
}

fn place(fault: &FieldError) -> &str {
    match &fault.at {
        At::Pointer(place) | At::Parameter(place) | At::Header(place) => place,
    }
}
