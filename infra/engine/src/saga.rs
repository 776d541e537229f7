//! What a stream still owes the world. A state that waits for others says so as *pending* errands with fixed ids; whoever
//! owns its partition sends them, again and again, until the answer is recorded in the stream itself. There is no queue
//! to lose: at least once, with effect once.

use uuid::Uuid;

use crate::decider::Decider;
use crate::message::{CommandId, Outcome};
use crate::position::{Position, Version};
use crate::stream::StreamName;
use crate::time::Timestamp;

/// What a stream owes at one version: errands, and a moment to be woken.
#[derive(Clone, Debug, PartialEq)]
pub struct Agenda<C, Q> {
    /// What to send now, or at their time.
    pub pending: Vec<Pending<C, Q>>,
    /// When to fire, if nothing happens before.
    pub timer: Option<Timer>,
}

impl<C, Q> Default for Agenda<C, Q> {
    fn default() -> Self {
        Self { pending: Vec::new(), timer: None }
    }
}

impl<C, Q> Agenda<C, Q> {
    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.timer.is_none()
    }
}

/// An errand under a fixed id: v5(saga, step, round), where only a recorded event changes the round.
#[derive(Clone, Debug, PartialEq)]
pub struct Pending<C, Q> {
    /// Its id, the same however often it is sent: the command's id, or the key of the outside call.
    pub id: CommandId,
    /// Not to be sent earlier (a recorded back-off).
    pub not_before: Option<Timestamp>,
    /// What is asked of whom.
    pub ask: Ask<C, Q>,
}

/// What an errand asks.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask<C, Q> {
    /// A command to another stream, through the same door as everybody's.
    Command(C),
    /// A call to the outside world (a payment gateway).
    Call(Q),
}

/// A moment at which a stream wants to be woken. Firing is a command with id v5(stream, "timer", armed_at).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// When.
    pub due: Timestamp,
    /// The stream's version whose event armed it: tells this arming from an earlier or later one.
    pub armed_at: Version,
}

impl Timer {
    /// The id of the command that firing it is.
    pub fn command_id(&self, stream: &StreamName) -> CommandId {
        let stream = Uuid::new_v5(&Uuid::NAMESPACE_OID, stream.as_str().as_bytes());
        CommandId(stream).derive(&format!("timer {}", self.armed_at))
    }
}

/// What came back from one try at an errand.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard<R> {
    /// The command was answered: its recorded outcome and where it is.
    Outcome(Outcome, Position),
    /// The command can never be valid (it was not recorded). A saga that hears this is wrong and parks.
    Invalid(String),
    /// The outside call returned.
    Returned(R),
    /// The outside world could not be reached, for a reason that may pass.
    Unreachable(String),
}

/// A business whose streams owe things.
pub trait Reactor: Decider {
    /// A call to the outside world.
    type Call: Clone + std::fmt::Debug + Send + Sync + 'static;
    /// What such a call returns.
    type Returned: Clone + std::fmt::Debug + Send + Sync + 'static;

    /// What the stream owes in this state.
    fn react(&self, stream: &StreamName, version: Version, state: &Self::State) -> Agenda<Self::Command, Self::Call>;

    /// The command that records what came back, and the id it goes under; `None` if nothing is to be recorded and the
    /// errand is simply tried again later.
    ///
    /// Ids: an answer is v5(errand, "outcome"); a failed attempt must differ from attempt to attempt.
    fn heard(
        &self,
        stream: &StreamName,
        state: &Self::State,
        pending: &Pending<Self::Command, Self::Call>,
        heard: &Heard<Self::Returned>,
        now: Timestamp,
    ) -> Option<(CommandId, Self::Command)>;

    /// The command that firing the timer of a stream in this state is.
    fn fire(&self, stream: &StreamName, state: &Self::State, timer: &Timer) -> Self::Command;
}
