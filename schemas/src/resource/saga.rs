//! A checkout saga as it is shown: its named state, and every step with what came of it.

use engine::event::EventMeta;
use engine::message::CommandId;
use engine::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::Fold;
use crate::event::ShopEvent;
use crate::id::OrderId;

/// Where a saga stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SagaState {
    /// A step is being carried out.
    Running,
    /// The outside world has been asked and has not answered.
    Waiting,
    /// A step failed and is tried again.
    Retrying,
    /// Steps are being undone.
    Compensating,
    /// Past the point of no return, and a step keeps failing.
    StuckForward,
    /// An undo keeps failing.
    StuckCompensating,
    /// Set aside until an operator decides.
    Parked,
    /// All promises kept.
    Completed,
    /// All promises undone.
    Compensated,
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Not begun.
    Pending,
    /// Asked.
    Running,
    /// Failed, and tried again.
    Retrying,
    /// Answered: done.
    Done,
    /// Answered: no.
    Failed,
    /// Done and taken back, or barred before it was done.
    Undone,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// `reserve_stock`, or `reserve_stock@shop-2` where there are several locations.
    pub name: String,
    /// Where it stands.
    pub state: StepState,
    /// How often it was tried.
    pub attempts: u32,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// The command, or the gateway's key, it goes under.
    pub command_id: Option<CommandId>,
}

/// `GET /v1/sagas/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saga {
    /// Which: its order's id.
    pub saga_id: OrderId,
    /// `checkout`.
    pub kind: String,
    /// For which order.
    pub order_id: OrderId,
    /// Where it stands.
    pub state: SagaState,
    /// How many events its stream has; its ETag.
    pub version: u64,
    /// When it was planned.
    pub started_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When a failed step is tried next.
    pub next_attempt_at: Option<Timestamp>,
    /// All its steps, in the order of work.
    pub steps: Vec<Step>,
}

impl Fold for Saga {
    fn evolve(_this: Option<Self>, _event: &ShopEvent, _meta: &EventMeta) -> Option<Self> {
        unimplemented!("laid by the checkout helper")
    }
}
