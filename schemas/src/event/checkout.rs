//! Events of a checkout saga's own stream: what was planned, answered, retried, undone, and decided by operators. A step
//! is named as over HTTP: `reserve_stock`, or `reserve_stock@shop-2` where an order takes from several locations.

use engine::position::Position;
use engine::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::order::CancelReason;
use super::payment::Method;
use super::reservation::ReservedLine;
use crate::id::{LocationId, OrderId, PaymentId, ReservationId};
use crate::money::Money;

/// What is to be done: reserve at each location, pay, commit at each, capture, confirm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckoutPlanned {
    /// For which order.
    pub order_id: OrderId,
    /// Where stock is taken, in the order in which it is reserved.
    pub legs: Vec<Leg>,
    /// The payment to make.
    pub payment_id: PaymentId,
    /// How much.
    pub amount: Money,
    /// How.
    pub method: Method,
    /// With which token of the gateway.
    pub token: String,
}

impl CheckoutPlanned {
    /// The version of the payment's stream at which the authorization is requested: its first.
    pub const AUTHORIZE_INTENT: u64 = 1;
    /// The version at which the capture is requested: after request and authorization.
    pub const CAPTURE_INTENT: u64 = 3;

    /// All steps in the order of work, each with its name over HTTP.
    pub fn steps(&self) -> Vec<(StepKind, String)> {
        let kinds = (0..self.legs.len())
            .map(StepKind::Reserve)
            .chain([StepKind::Authorize])
            .chain((0..self.legs.len()).map(StepKind::Commit))
            .chain([StepKind::Capture, StepKind::Confirm]);
        kinds.map(|kind| (kind, self.step_name(kind))).collect()
    }

    /// A step's name over HTTP: with its location where there are several.
    pub fn step_name(&self, kind: StepKind) -> String {
        let at = |step: &str, leg: usize| match self.legs.as_slice() {
            [_] => step.to_owned(),
            legs => format!("{step}@{}", legs[leg].location_id),
        };
        match kind {
            StepKind::Reserve(leg) => at("reserve_stock", leg),
            StepKind::Authorize => "authorize_payment".to_owned(),
            StepKind::Commit(leg) => at("commit_stock", leg),
            StepKind::Capture => "capture_payment".to_owned(),
            StepKind::Confirm => "confirm_order".to_owned(),
        }
    }
}

/// What a step does; a leg by its number in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// Promises a leg's stock.
    Reserve(usize),
    /// Has the gateway promise the money.
    Authorize,
    /// Keeps a leg's promise.
    Commit(usize),
    /// Cashes the money.
    Capture,
    /// Tells the order.
    Confirm,
}

/// What is taken at one location.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    /// Where.
    pub location_id: LocationId,
    /// Under which reservation.
    pub reservation_id: ReservationId,
    /// What.
    pub lines: Vec<ReservedLine>,
}

/// A step was answered: done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckoutStepDone {
    /// Which.
    pub step: String,
    /// Where its effect is recorded, if not in this very record.
    pub position: Option<Position>,
}

/// A step was answered: no, for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckoutStepFailed {
    /// Which.
    pub step: String,
    /// The refusal's code or the gateway's reason.
    pub error: String,
    /// Where the refusal is recorded, if not in this very record.
    pub position: Option<Position>,
}

/// A try at a step, or at its undo, went wrong; it is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckoutStepRetried {
    /// Which.
    pub step: String,
    /// How many tries went wrong so far, this one included.
    pub attempt: u32,
    /// What went wrong.
    pub error: String,
    /// When it is tried next.
    pub next_attempt_at: Timestamp,
}

/// What the payment did is to be undone: its intent is recorded on the payment in the same record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckoutUndoRequested {
    /// The step to undo: `capture_payment` by a refund, `authorize_payment` by a void.
    pub step: String,
    /// The version of the payment's `…Requested` event.
    pub intent: u64,
    /// How much goes back, if it is a refund.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refund: Option<Money>,
}

/// A step was undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckoutStepUndone {
    /// Which.
    pub step: String,
    /// Where its undo is recorded, if not in this very record.
    pub position: Option<Position>,
}

/// An operator gave an undo step up: somebody settles it by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckoutStepSkipped {
    /// Which.
    pub step: String,
    /// Why.
    pub reason: String,
}

/// From here on all is undone, in reverse order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckoutCompensationStarted {
    /// Why the order is cancelled.
    pub reason: CancelReason,
    /// In words.
    pub detail: Option<String>,
}

/// Set aside: it cannot go on alone, or an operator said so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckoutParked {
    /// Why.
    pub reason: String,
}

/// Taken up again where it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckoutResumed {
    /// Why.
    pub reason: String,
}

/// The step at hand is to be tried again at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckoutRetryRequested {
    /// Why.
    pub reason: String,
}

/// All promises kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckoutCompleted {}

/// All promises undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckoutCompensated {}
