//! The checkout: a saga that carries an order across stock and payment, and back if it must. Order of work: reserve at each
//! location, authorize, commit at each location, capture (no way back after it), confirm; undo goes in reverse.
//!
//! Few records: the answer to the last step of a kind is recorded together with the intent of the next. Stock commands
//! are owed by the checkout under ids that only an operator's word changes; so are the gateway calls for its payment, so
//! that a parked checkout is quiet and every failed try is counted here. A step that may still land late is undone like
//! one that was done, never assumed absent; an authorization nobody answered is barred at once on our side, and at the
//! gateway when the stock is back, for which nobody has to wait who cannot be reached.

mod answers;
mod decisions;
mod draft;
mod owed;

use std::collections::BTreeMap;

use engine::event::EventMeta;
use engine::message::CommandId;
use engine::position::{Positions, Version};
use engine::time::Timestamp;
use schemas::event::ShopEvent;
use schemas::event::checkout::{CheckoutPlanned, CheckoutUndoRequested, StepKind};
use schemas::resource::Fold;
use schemas::resource::saga::{Direction, Saga, SagaState, Step, StepState};
use serde::{Deserialize, Serialize};

pub(crate) use answers::{record_gateway, record_step};
pub(crate) use decisions::{cancel, decide_saga};
pub(crate) use owed::{heard, react};

/// How long a checkout's reservations last unless committed: 15 minutes, three times what the gateway may take.
pub const RESERVATION_S: u32 = 15 * 60;
/// How long the authorization is tried before the order is called off: 5 minutes.
pub const AUTHORIZATION_WAIT_MS: u64 = crate::payment::AUTHORIZATION_WAIT_MS;
/// The wait after the first failed try; it doubles from try to try.
pub const BACK_OFF_MS_MIN: u64 = 100;
/// The longest wait between two tries.
pub const BACK_OFF_MS_MAX: u64 = 10_000;

/// What decisions know of a checkout: its progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckoutState {
    /// As shown.
    pub shown: Saga,
    /// What is to be done.
    pub plan: CheckoutPlanned,
    /// When the step at hand was first asked for, or asked for again by an operator.
    began_at: Timestamp,
    /// How many tries at the gateway call at hand have failed.
    failures: u32,
    /// How the payment's step at hand is being undone.
    undo: Option<CheckoutUndoRequested>,
    /// Where steps and undos had their effects, beyond this partition.
    positions: Positions,
    /// The answers recorded here are never forgotten.
    remembered: BTreeMap<CommandId, Version>,
}

/// What a checkout is doing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Errand {
    pub(crate) kind: StepKind,
    /// The step's name.
    pub(crate) step: String,
    pub(crate) work: Work,
}

impl Errand {
    /// The version of the payment's intent that it carries out, if it is the payment's.
    fn intent(&self) -> Option<u64> {
        match (self.kind, &self.work) {
            (_, Work::UndoAsked(undo)) => Some(undo.intent),
            (StepKind::Authorize, Work::Do) => Some(CheckoutPlanned::AUTHORIZE_INTENT),
            (StepKind::Capture, Work::Do) => Some(CheckoutPlanned::CAPTURE_INTENT),
            _ => None,
        }
    }
}

/// Which way.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Work {
    /// The step is carried out; or waited for, where it cannot be taken back before it is answered.
    Do,
    /// The step is undone.
    Undo,
    /// The payment's step is undone under this intent.
    UndoAsked(CheckoutUndoRequested),
}

impl CheckoutState {
    pub(crate) fn evolve(this: Option<Self>, event: &ShopEvent, meta: &EventMeta) -> Option<Self> {
        let Some(mut state) = this else {
            let ShopEvent::CheckoutPlanned(plan) = event else { return None };
            return Some(Self {
                shown: Saga::evolve(None, event, meta)?,
                plan: plan.clone(),
                began_at: meta.recorded_at,
                failures: 0,
                undo: None,
                positions: Positions::default(),
                remembered: BTreeMap::new(),
            });
        };
        state.shown = Saga::evolve(Some(state.shown), event, meta)?;
        match event {
            ShopEvent::CheckoutStepDone(done) => state.answered(&done.step, done.position, meta),
            ShopEvent::CheckoutStepFailed(failed) => state.answered(&failed.step, failed.position, meta),
            ShopEvent::CheckoutStepUndone(undone) => state.answered(&undone.step, undone.position, meta),
            ShopEvent::CheckoutStepSkipped(skipped) => state.answered(&skipped.step, None, meta),
            ShopEvent::CheckoutStepRetried(retried) => state.failures = retried.attempt,
            ShopEvent::CheckoutUndoRequested(asked) => {
                state.undo = Some(asked.clone());
                state.failures = 0;
            }
            ShopEvent::CheckoutResumed(_) | ShopEvent::CheckoutRetryRequested(_) => state.began_at = meta.recorded_at,
            _ => {}
        }
        Some(state)
    }

    fn answered(&mut self, step: &str, position: Option<engine::position::Position>, meta: &EventMeta) {
        if let Some(position) = position {
            self.positions.reach(position);
            // Only answers from other streams are recorded by commands to this one.
            self.remembered.entry(meta.command_id).or_insert(meta.version);
        }
        self.began_at = meta.recorded_at;
        self.failures = 0;
        // A void that waits until the stock is back outlives the answers to that.
        self.undo.take_if(|undo| undo.step == step);
    }

    pub(crate) fn remembers(&self, id: CommandId) -> Option<Version> {
        self.remembered.get(&id).copied()
    }

    /// Where the checkout's steps and undos had their effects, beyond its own partition.
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// Whether an operator has to decide before anything goes on.
    pub fn is_parked(&self) -> bool {
        self.shown.state == SagaState::Parked
    }

    /// What is at hand; `None` once all is settled.
    pub(crate) fn errand(&self) -> Option<Errand> {
        let at = self.shown.at_hand()?;
        let Step { name, state, .. } = &self.shown.steps[at];
        let kind = self.kind_at(at);
        let undo = self.undo.clone().filter(|undo| undo.step == *name);
        let work = match (self.shown.direction, undo) {
            (Direction::Forward, _) => Work::Do,
            (Direction::Backward, Some(undo)) => Work::UndoAsked(undo),
            // Whether the money was cashed has to be known before it can go back.
            (Direction::Backward, None) if kind == StepKind::Capture && *state != StepState::Done => Work::Do,
            (Direction::Backward, None) => Work::Undo,
        };
        Some(Errand { kind, step: name.clone(), work })
    }

    fn kind_at(&self, at: usize) -> StepKind {
        let legs = self.plan.legs.len();
        match at {
            at if at < legs => StepKind::Reserve(at),
            at if at == legs => StepKind::Authorize,
            at if at <= 2 * legs => StepKind::Commit(at - legs - 1),
            at if at == 2 * legs + 1 => StepKind::Capture,
            _ => StepKind::Confirm,
        }
    }

    fn index_of(&self, kind: StepKind) -> usize {
        let legs = self.plan.legs.len();
        match kind {
            StepKind::Reserve(leg) => leg,
            StepKind::Authorize => legs,
            StepKind::Commit(leg) => legs + 1 + leg,
            StepKind::Capture => 2 * legs + 1,
            StepKind::Confirm => 2 * legs + 2,
        }
    }

    pub(crate) fn step(&self, kind: StepKind) -> &Step {
        &self.shown.steps[self.index_of(kind)]
    }
}
