//! The business side of the write side. A decider looks at the states of the streams that a command names and says what
//! happens; its fold turns what happened into state. Both are pure: what a decision needs comes in with the command.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::event::{Event, EventMeta};
use crate::message::{CommandId, FieldError, Outcome};
use crate::position::Version;
use crate::stream::StreamName;
use crate::time::Timestamp;

/// A business: all its aggregates together, so that one command can name streams of several of them.
pub trait Decider: Send + Sync + 'static {
    /// What can be asked.
    type Command: Clone + std::fmt::Debug + Send + Sync + 'static;
    /// What can happen.
    type Event: Event;
    /// What a stream amounts to: usually an enum over the aggregates. Kept in the state store as JSON.
    type State: Clone + std::fmt::Debug + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Raised whenever `State` changes its meaning or encoding: states stored by another version are folded afresh.
    fn version(&self) -> u32;

    /// The streams that the command reads and may write, the addressed one first, all in one partition.
    fn streams(&self, command: &Self::Command) -> Vec<StreamName>;

    /// Whether the command is to make the `index`-th stream that it names, so that most likely nothing is there yet. It
    /// says only where the runner looks first, and changes nothing of what is decided.
    fn makes(&self, _command: &Self::Command, _index: usize) -> bool {
        false
    }

    /// Whether the command begins what then goes on by itself and owes things, such as a saga. While too much of that is
    /// going on already, more of it is not begun; all other commands are decided, or what was begun could not end.
    fn begins(&self, _command: &Self::Command) -> bool {
        false
    }

    /// What happens. Must not look at anything but its arguments.
    fn decide(
        &self,
        states: &States<'_, Self::State>,
        command: &Self::Command,
        context: &Context,
    ) -> Decision<Self::Event>;

    /// What a stream amounts to after one more event. Cannot fail: what was said was said.
    fn evolve(&self, state: Option<Self::State>, event: &Self::Event, meta: &EventMeta) -> Self::State;

    /// The version at which this stream's own record answered `id`, if the aggregate itself remembers it (its creator,
    /// its steps, timers and refunds): such ids are never forgotten.
    fn remembers(&self, state: &Self::State, id: CommandId) -> Option<Version>;
}

/// The states of the streams a command names, in the order in which it named them.
#[derive(Debug)]
pub struct States<'a, S> {
    entries: &'a [StreamState<S>],
}

/// One stream as a decision sees it.
#[derive(Clone, Debug)]
pub struct StreamState<S> {
    /// Which.
    pub name: StreamName,
    /// How many events it has.
    pub version: Version,
    /// What they amount to; `None` where nobody wrote it.
    pub state: Option<Arc<S>>,
}

impl<'a, S> States<'a, S> {
    /// Over these, in this order.
    pub fn new(entries: &'a [StreamState<S>]) -> Self {
        Self { entries }
    }

    /// The state of the `index`-th stream that the command named.
    ///
    /// # Panics
    /// If the command named fewer.
    pub fn at(&self, index: usize) -> Option<&'a S> {
        self.entries[index].state.as_deref()
    }

    /// The version of the `index`-th stream that the command named.
    ///
    /// # Panics
    /// If the command named fewer.
    pub fn version_at(&self, index: usize) -> Version {
        self.entries[index].version
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &'a StreamState<S>> {
        self.entries.iter()
    }
}

/// What a decision may know beside states and command.
#[derive(Clone, Debug)]
pub struct Context {
    /// The time that will be recorded; never earlier than an earlier record of the partition.
    pub now: Timestamp,
    /// The command's id: new ids are derived from it.
    pub command_id: CommandId,
}

/// What a command comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision<E> {
    /// It happens. Without events nothing changes, but the answer is recorded all the same.
    Accept(Accepted<E>),
    /// The business says no; recorded, so that it stays no for this id.
    Refuse(Rejection),
    /// It can never be valid for this resource (`invalid-fields`); not recorded.
    Invalid(Vec<FieldError>),
}

/// What happens, and how it is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted<E> {
    /// 200, or 201 when the addressed resource is new.
    pub status: u16,
    /// Events, each with the index of its stream in `streams(command)`; in this order within a stream.
    pub events: Vec<(usize, E)>,
    /// What the answer needs beyond the addressed stream's state.
    pub answer: Option<serde_json::Value>,
}

/// A business no: an answer, not a fault. Tell the caller what would help.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    /// 404 for what is absent, else 409.
    pub status: u16,
    /// Stable kebab-case name.
    pub code: &'static str,
    /// In a sentence.
    pub detail: String,
    /// Fault by fault.
    pub errors: Vec<FieldError>,
}

impl<E> Decision<E> {
    /// It happens to something that was there.
    pub fn accept(events: Vec<(usize, E)>) -> Self {
        Self::Accept(Accepted { status: 200, events, answer: None })
    }

    /// Something new comes to be.
    pub fn create(events: Vec<(usize, E)>) -> Self {
        Self::Accept(Accepted { status: 201, events, answer: None })
    }

    /// All is as asked already.
    pub fn nothing() -> Self {
        Self::accept(Vec::new())
    }

    /// Not in this state.
    pub fn refuse(code: &'static str, detail: impl Into<String>) -> Self {
        Self::Refuse(Rejection { status: 409, code, detail: detail.into(), errors: Vec::new() })
    }

    /// There is no such thing.
    pub fn absent(code: &'static str, detail: impl Into<String>) -> Self {
        Self::Refuse(Rejection { status: 404, code, detail: detail.into(), errors: Vec::new() })
    }
}

impl From<Rejection> for Outcome {
    fn from(rejection: Rejection) -> Self {
        Self {
            status: rejection.status,
            code: Some(Cow::Borrowed(rejection.code)),
            detail: Some(rejection.detail),
            errors: rejection.errors,
            answer: None,
        }
    }
}
