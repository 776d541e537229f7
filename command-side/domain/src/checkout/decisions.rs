//! What people decide about a checkout: the customer who calls the order off, and the operator of a saga that is stuck.

use engine::decider::{Context, States};
use schemas::command::SagaDecision;
use schemas::event::checkout::{
    CheckoutParked, CheckoutResumed, CheckoutRetryRequested, CheckoutStepSkipped, StepKind,
};
use schemas::event::order::{CancelReason, OrderCancelled, OrderRefundFailed};
use schemas::event::payment::{PaymentRefundFailed, PaymentVoidFailed};
use schemas::problem;
use schemas::resource::order::OrderStatus;
use schemas::resource::saga::{Direction, StepState};

use super::Work;
use super::answers::no_saga;
use super::draft::{Draft, Places};
use crate::order::{absent, cancel_untouched, name_of};
use crate::payment::Intent;
use crate::refusal::{ShopDecision, refuse};
use crate::shop::ShopState;

/// Streams: order, checkout, payment.
pub(crate) fn cancel(
    states: &States<'_, ShopState>,
    reason: CancelReason,
    detail: Option<&str>,
    context: &Context,
) -> ShopDecision {
    let Some(order) = states.at(0).and_then(ShopState::order) else { return absent() };
    let detail = detail.map(str::to_owned);
    match order.shown.status {
        OrderStatus::Placed | OrderStatus::Confirmed => {}
        status => return refuse(problem::ORDER_NOT_CANCELLABLE, format!("the order is {}", name_of(status))),
    }
    let places = Places { order: 0, checkout: 1, payment: 2 };
    let Some(mut draft) = Draft::new(states, places, context) else {
        return cancel_untouched(OrderCancelled { reason, detail });
    };
    draft.call_off(reason, detail);
    draft.accept()
}

/// Streams: checkout, order, payment.
pub(crate) fn decide_saga(
    states: &States<'_, ShopState>,
    decision: SagaDecision,
    reason: &str,
    context: &Context,
) -> ShopDecision {
    let places = Places { order: 1, checkout: 0, payment: 2 };
    let Some(mut draft) = Draft::new(states, places, context) else { return no_saga() };
    let Some(errand) = draft.checkout.errand() else { return not_actionable("it is settled") };
    let reason = reason.to_owned();
    let parked = draft.checkout.is_parked();
    match decision {
        SagaDecision::Park if parked => return not_actionable("it is parked"),
        SagaDecision::Park => draft.checkout(CheckoutParked { reason }),
        SagaDecision::Resume if !parked => return not_actionable("it is not parked"),
        SagaDecision::Resume => draft.checkout(CheckoutResumed { reason }),
        SagaDecision::Retry if !parked && draft.checkout.shown.next_attempt_at.is_none() => {
            return not_actionable("nothing has failed");
        }
        SagaDecision::Retry => draft.checkout(CheckoutRetryRequested { reason }),
        SagaDecision::Skip if errand.work == Work::Do => return not_actionable("only an undo can be skipped"),
        SagaDecision::Skip => {
            if parked {
                draft.checkout(CheckoutResumed { reason: reason.clone() });
            }
            draft.skip(errand.kind, errand.step, reason);
        }
        SagaDecision::Compensate if draft.checkout.shown.direction == Direction::Backward => {
            return not_actionable("it is compensating");
        }
        SagaDecision::Compensate if draft.checkout.step(StepKind::Capture).state != StepState::Pending => {
            return not_actionable("the capture was asked for; cancel the order instead");
        }
        SagaDecision::Compensate => {
            if parked {
                draft.checkout(CheckoutResumed { reason });
            }
            draft.call_off(CancelReason::Operator, None);
        }
    }
    // An undo that the gateway refused is asked for anew.
    if matches!(decision, SagaDecision::Resume | SagaDecision::Retry)
        && draft.checkout.shown.direction == Direction::Backward
    {
        draft.go_back();
    }
    draft.accept()
}

fn not_actionable(why: &str) -> ShopDecision {
    refuse(problem::SAGA_NOT_ACTIONABLE, why)
}

impl Draft<'_> {
    /// Somebody settles this undo by hand.
    fn skip(&mut self, kind: StepKind, step: String, reason: String) {
        let asked = self.checkout.undo.as_ref().filter(|undo| undo.step == step).map(|undo| undo.intent);
        let open = asked.and_then(|version| Some((version, self.payment.as_ref()?.intent(version)?.clone())));
        match open {
            Some((_, Intent::Void)) => self.payment(PaymentVoidFailed { reason: reason.clone() }),
            Some((intent, Intent::Refund { amount, .. })) => {
                self.payment(PaymentRefundFailed { intent, amount, reason: reason.clone() });
                self.order(OrderRefundFailed { amount, reason: reason.clone() });
            }
            _ => {}
        }
        self.checkout(CheckoutStepSkipped { step, reason: reason.clone() });
        if let StepKind::Commit(leg) = kind {
            // What stays committed cannot be released: the promise is given up with it.
            let step = self.checkout.step(StepKind::Reserve(leg)).name.clone();
            self.checkout(CheckoutStepSkipped { step, reason });
        }
        self.end_if_all_is_undone();
        self.go_back();
    }
}
