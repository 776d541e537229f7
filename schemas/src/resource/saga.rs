//! A checkout saga as it is shown: its named state, and every step with what came of it.

use engine::event::EventMeta;
use engine::message::CommandId;
use engine::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::Fold;
use crate::event::ShopEvent;
use crate::event::checkout::CheckoutPlanned;
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

/// Where a saga is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// It keeps its promises.
    Forward,
    /// It takes them back.
    Backward,
}

/// From so many failed tries on, a step is called stuck where nothing but trying again is left.
pub const STUCK_AFTER: u32 = 5;

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
    /// Where it is going.
    pub direction: Direction,
    /// How often an operator had it tried anew.
    pub round: u32,
    /// When a failed step is tried next.
    pub next_attempt_at: Option<Timestamp>,
    /// All its steps, in the order of work.
    pub steps: Vec<Step>,
}

impl SagaState {
    /// As over HTTP.
    pub const ALL: [(&'static str, Self); 9] = [
        ("running", Self::Running),
        ("waiting", Self::Waiting),
        ("retrying", Self::Retrying),
        ("compensating", Self::Compensating),
        ("stuck-forward", Self::StuckForward),
        ("stuck-compensating", Self::StuckCompensating),
        ("parked", Self::Parked),
        ("completed", Self::Completed),
        ("compensated", Self::Compensated),
    ];

    /// Whether nothing is left to do.
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated)
    }
}

impl Fold for Saga {
    fn evolve(this: Option<Self>, event: &ShopEvent, meta: &EventMeta) -> Option<Self> {
        let Some(mut saga) = this else {
            let ShopEvent::CheckoutPlanned(plan) = event else { return None };
            return Some(Self::planned(plan, meta));
        };
        saga.version = meta.version.0;
        saga.updated_at = meta.recorded_at;
        let mut parked = saga.state == SagaState::Parked;
        match event {
            ShopEvent::CheckoutStepDone(done) => {
                saga.answer(&done.step, StepState::Done);
                if saga.direction == Direction::Forward {
                    saga.begin_next();
                }
            }
            ShopEvent::CheckoutStepFailed(failed) => {
                saga.answer(&failed.step, StepState::Failed);
                saga.blame(&failed.step, &failed.error);
            }
            ShopEvent::CheckoutStepRetried(retried) => {
                saga.blame(&retried.step, &retried.error);
                if let Some(step) = saga.step_mut(&retried.step) {
                    step.state = StepState::Retrying;
                    step.attempts = retried.attempt;
                }
                saga.next_attempt_at = Some(retried.next_attempt_at);
            }
            ShopEvent::CheckoutUndoRequested(asked) => {
                let verb = if asked.refund.is_some() { "refund" } else { "void" };
                let key = saga.order_id.payment().gateway_key(verb, asked.intent);
                saga.next_attempt_at = None;
                if let Some(step) = saga.step_mut(&asked.step) {
                    step.command_id = Some(key);
                }
            }
            ShopEvent::CheckoutStepUndone(undone) => saga.answer(&undone.step, StepState::Undone),
            ShopEvent::CheckoutStepSkipped(skipped) => {
                saga.answer(&skipped.step, StepState::Failed);
                saga.blame(&skipped.step, &format!("undo given up: {}", skipped.reason));
            }
            ShopEvent::CheckoutCompensationStarted(_) => {
                saga.direction = Direction::Backward;
                // Promises that were kept are promises again: the saga is taken up where it had ended.
                if saga.state.is_settled() {
                    saga.state = SagaState::Compensating;
                }
            }
            ShopEvent::CheckoutParked(_) => parked = true,
            ShopEvent::CheckoutResumed(_) | ShopEvent::CheckoutRetryRequested(_) => {
                parked = false;
                saga.round += 1;
                saga.next_attempt_at = None;
                saga.name_errand();
            }
            ShopEvent::CheckoutCompleted(_) => saga.state = SagaState::Completed,
            ShopEvent::CheckoutCompensated(_) => saga.state = SagaState::Compensated,
            _ => {}
        }
        if !saga.state.is_settled() {
            saga.state = if parked { SagaState::Parked } else { saga.judged() };
        }
        Some(saga)
    }
}

impl Saga {
    fn planned(plan: &CheckoutPlanned, meta: &EventMeta) -> Self {
        let step = |name| Step { name, state: StepState::Pending, attempts: 0, last_error: None, command_id: None };
        let mut saga = Self {
            saga_id: plan.order_id,
            kind: "checkout".to_owned(),
            order_id: plan.order_id,
            state: SagaState::Running,
            version: meta.version.0,
            started_at: meta.recorded_at,
            updated_at: meta.recorded_at,
            direction: Direction::Forward,
            round: 0,
            next_attempt_at: None,
            steps: plan.steps().into_iter().map(|(_, name)| step(name)).collect(),
        };
        saga.begin_next();
        saga
    }

    /// The step being carried out or undone, by its place: the first that is asked and not answered; backward, the last
    /// that is not yet undone. One that was asked and not answered may still land, so it is undone like one that was done;
    /// an authorization nobody answered comes after all that was done, for its gateway may not answer the undo either.
    pub fn at_hand(&self) -> Option<usize> {
        if self.state.is_settled() {
            return None;
        }
        let open = |step: &Step| matches!(step.state, StepState::Running | StepState::Retrying);
        match self.direction {
            Direction::Forward => self.steps.iter().position(open),
            Direction::Backward => {
                let left = |step: &Step| open(step) || step.state == StepState::Done;
                let last = self.steps.iter().rposition(left)?;
                // An answer would have begun the step after it.
                let unanswered = self.steps.get(last + 1).is_some_and(|next| next.state == StepState::Pending);
                if unanswered && self.steps[last].name == "authorize_payment" {
                    return self.steps[..last].iter().rposition(left).or(Some(last));
                }
                Some(last)
            }
        }
    }

    fn step_mut(&mut self, name: &str) -> Option<&mut Step> {
        self.steps.iter_mut().find(|step| step.name == name)
    }

    fn answer(&mut self, name: &str, state: StepState) {
        self.next_attempt_at = None;
        if let Some(step) = self.step_mut(name) {
            // The try that was answered follows the ones that failed.
            step.attempts += u32::from(step.state == StepState::Retrying);
            step.state = state;
        }
    }

    fn blame(&mut self, name: &str, error: &str) {
        if let Some(step) = self.step_mut(name) {
            step.last_error = Some(error.to_owned());
        }
    }

    fn begin_next(&mut self) {
        if let Some(step) = self.steps.iter_mut().find(|step| step.state == StepState::Pending) {
            step.state = StepState::Running;
            step.attempts = 1;
        }
        self.name_errand();
    }

    /// Shows the id under which the step at hand is asked for.
    fn name_errand(&mut self) {
        if self.direction == Direction::Backward {
            return;
        }
        let (order, round) = (self.order_id, self.round);
        let Some(step) = self.at_hand().map(|at| &mut self.steps[at]) else { return };
        step.command_id = match step.name.as_str() {
            "confirm_order" => None,
            "authorize_payment" => Some(order.payment().gateway_key("authorize", CheckoutPlanned::AUTHORIZE_INTENT)),
            "capture_payment" => Some(order.payment().gateway_key("capture", CheckoutPlanned::CAPTURE_INTENT)),
            stock => Some(order.errand(stock, round)),
        };
    }

    /// The name of where it stands, if it is neither parked nor settled.
    fn judged(&self) -> SagaState {
        let at_hand = self.at_hand().map(|at| &self.steps[at]);
        let failing = self.next_attempt_at.is_some();
        let stuck = failing && at_hand.is_some_and(|step| step.attempts >= STUCK_AFTER);
        let named = |name: &str| at_hand.is_some_and(|step| step.name == name);
        match self.direction {
            Direction::Backward if stuck => SagaState::StuckCompensating,
            Direction::Backward => SagaState::Compensating,
            Direction::Forward if stuck && named("capture_payment") => SagaState::StuckForward,
            Direction::Forward if failing => SagaState::Retrying,
            Direction::Forward if named("authorize_payment") || named("capture_payment") => SagaState::Waiting,
            Direction::Forward => SagaState::Running,
        }
    }
}
