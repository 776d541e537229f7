//! What comes of a checkout's steps: answers of stock, answers of the gateway, and tries that reached nobody.

use engine::decider::{Context, Decision, States};
use engine::position::Position;
use engine::time::Timestamp;
use schemas::command::{GatewayAnswer, StepResult};
use schemas::event::checkout::{
    CheckoutCompleted, CheckoutStepDone, CheckoutStepFailed, CheckoutStepRetried, StepKind,
};
use schemas::event::order::{CancelReason, OrderConfirmed, OrderPaid, OrderRefundFailed, OrderRefunded};
use schemas::event::payment::{
    PaymentAuthorized, PaymentCaptureFailed, PaymentCaptured, PaymentDeclined, PaymentRefundFailed, PaymentRefunded,
    PaymentVoidFailed, PaymentVoided,
};
use schemas::problem;
use schemas::resource::saga::Direction;

use super::draft::{Draft, Places};
use super::{AUTHORIZATION_WAIT_MS, BACK_OFF_MS_MAX, BACK_OFF_MS_MIN, Errand, Work};
use crate::payment::{AUTHORIZATION_MS, Intent};
use crate::refusal::{ShopDecision, refuse};
use crate::shop::ShopState;

/// Streams: checkout, order, payment.
pub(crate) fn record_step(
    states: &States<'_, ShopState>,
    step: &str,
    undo: bool,
    result: &StepResult,
    context: &Context,
) -> ShopDecision {
    let places = Places { order: 1, checkout: 0, payment: 2 };
    let Some(mut draft) = Draft::new(states, places, context) else { return no_saga() };
    // Not at hand, or no longer: a late answer changes nothing. What it did is undone by the step's undo.
    let Some(errand) = draft.checkout.errand() else { return Decision::nothing() };
    if errand.step != step || undo != (errand.work == Work::Undo) {
        return Decision::nothing();
    }
    match (result, undo) {
        (StepResult::Done(position), false) => {
            draft.checkout(CheckoutStepDone { step: errand.step, position: Some(*position) });
            draft.ask_payment();
        }
        (StepResult::Refused(code, position), false) => step_refused(&mut draft, errand, code, *position),
        (StepResult::Done(position), true) => {
            draft.undone(errand.step, Some(*position));
            draft.go_back();
        }
        (StepResult::Refused(code, position), true) => {
            draft.park(format!("the undo of {step} was refused at {position}: {code}"));
        }
        (StepResult::Broken(what), _) => draft.park(format!("{step} cannot be carried out: {what}")),
    }
    draft.accept()
}

fn step_refused(draft: &mut Draft<'_>, errand: Errand, code: &str, position: Position) {
    // No stock, or its reservation ran out or was closed before it could be kept.
    let short = match errand.kind {
        StepKind::Reserve(_) => [problem::STOCK_INSUFFICIENT.name, problem::RESERVATION_CLOSED.name].contains(&code),
        StepKind::Commit(_) => [problem::RESERVATION_CLOSED.name, problem::RESERVATION_NOT_FOUND.name].contains(&code),
        _ => false,
    };
    if !short {
        return draft.park(format!("{} was refused at {position}: {code}", errand.step));
    }
    draft.checkout(CheckoutStepFailed { step: errand.step, error: code.to_owned(), position: Some(position) });
    draft.call_off(CancelReason::StockInsufficient, None);
}

/// What the gateway answered to an open intent of this checkout. Streams: payment, order, checkout.
pub(crate) fn record_gateway(
    states: &States<'_, ShopState>,
    version: u64,
    answer: &GatewayAnswer,
    context: &Context,
) -> ShopDecision {
    let places = Places { order: 1, checkout: 2, payment: 0 };
    let Some(mut draft) = Draft::new(states, places, context) else { return no_saga() };
    let intent = draft.payment.as_ref().and_then(|payment| payment.intent(version)).cloned();
    // Not at hand, or no longer: what is asked for later is asked for then.
    let errand = draft.checkout.errand().filter(|errand| errand.intent() == Some(version));
    let (Some(intent), Some(errand)) = (intent, errand) else { return Decision::nothing() };
    match answer {
        GatewayAnswer::Done { expires_at } => done(&mut draft, version, intent, errand, *expires_at, context),
        GatewayAnswer::Refused { reason } => refused(&mut draft, version, intent, errand, reason),
        GatewayAnswer::Unreachable { attempt, error } => {
            if *attempt == draft.checkout.failures + 1 {
                unreachable(&mut draft, errand, *attempt, error, context);
            }
        }
    }
    draft.accept()
}

fn done(
    draft: &mut Draft<'_>,
    version: u64,
    intent: Intent,
    errand: Errand,
    expires_at: Option<Timestamp>,
    context: &Context,
) {
    match intent {
        Intent::Authorize => {
            let expires_at = expires_at.unwrap_or_else(|| context.now.plus_ms(AUTHORIZATION_MS));
            draft.payment(PaymentAuthorized { expires_at });
            draft.checkout(CheckoutStepDone { step: errand.step, position: None });
        }
        Intent::Capture { amount } => {
            draft.payment(PaymentCaptured { amount });
            if draft.checkout.shown.direction == Direction::Forward {
                draft.order(OrderConfirmed { paid: amount });
                draft.checkout(CheckoutStepDone { step: errand.step, position: None });
                let step = draft.checkout.plan.step_name(StepKind::Confirm);
                draft.checkout(CheckoutStepDone { step, position: None });
                draft.checkout(CheckoutCompleted {});
            } else {
                // Cancelled while the money was on its way: it came, and goes back.
                draft.order(OrderPaid { amount });
                draft.checkout(CheckoutStepDone { step: errand.step, position: None });
                draft.go_back();
            }
        }
        Intent::Void => {
            draft.payment(PaymentVoided {});
            draft.undone(errand.step, None);
            draft.go_back();
        }
        Intent::Refund { amount, reason, .. } => {
            draft.payment(PaymentRefunded { intent: version, amount, reason: reason.clone() });
            draft.order(OrderRefunded { amount, reason });
            draft.undone(errand.step, None);
            draft.go_back();
        }
    }
}

fn refused(draft: &mut Draft<'_>, version: u64, intent: Intent, errand: Errand, reason: &str) {
    let failed = CheckoutStepFailed { step: errand.step.clone(), error: reason.to_owned(), position: None };
    let reason = reason.to_owned();
    match intent {
        Intent::Authorize => {
            draft.payment(PaymentDeclined { reason });
            draft.checkout(failed);
            draft.call_off(CancelReason::PaymentDeclined, None);
        }
        Intent::Capture { .. } => {
            draft.payment(PaymentCaptureFailed { reason });
            draft.checkout(failed);
            if draft.checkout.shown.direction == Direction::Forward {
                draft.call_off(CancelReason::PaymentDeclined, None);
            } else {
                draft.go_back();
            }
        }
        // An undo that is refused cannot be: somebody has to look.
        Intent::Void => {
            draft.park(format!("the gateway refused to void the payment: {reason}"));
            draft.payment(PaymentVoidFailed { reason });
        }
        Intent::Refund { amount, .. } => {
            draft.park(format!("the gateway refused to refund the payment: {reason}"));
            draft.payment(PaymentRefundFailed { intent: version, amount, reason: reason.clone() });
            draft.order(OrderRefundFailed { amount, reason });
        }
    }
}

/// The gateway could not be reached. Only the authorization is ever given up; it is then barred, for it may have landed.
fn unreachable(draft: &mut Draft<'_>, errand: Errand, attempt: u32, error: &str, context: &Context) {
    let waited_ms = context.now.micros_since(draft.checkout.began_at) / 1_000;
    if errand.kind == StepKind::Authorize && errand.work == Work::Do && waited_ms >= AUTHORIZATION_WAIT_MS {
        return draft.call_off(CancelReason::PaymentUnreachable, None);
    }
    let next_attempt_at = context.now.plus_ms(back_off_ms(attempt));
    draft.checkout(CheckoutStepRetried { step: errand.step, attempt, error: error.to_owned(), next_attempt_at });
}

/// The wait after the `attempt`-th failed try, from 0.1 s doubling to 10 s.
pub(super) fn back_off_ms(attempt: u32) -> u64 {
    // Past the eighth doubling the longest wait is reached.
    (BACK_OFF_MS_MIN << attempt.saturating_sub(1).min(8)).min(BACK_OFF_MS_MAX)
}

pub(super) fn no_saga() -> ShopDecision {
    refuse(problem::SAGA_NOT_FOUND, "this order has no checkout")
}
