//! What may be asked of a payment, and what the gateway's answers make of it.

use engine::decider::{Context, Decision, States};
use schemas::command::{GatewayAnswer, PaymentMeans};
use schemas::event::ShopEvent;
use schemas::event::order::{OrderRefundFailed, OrderRefundRequested, OrderRefunded};
use schemas::event::payment::{
    PaymentAuthorizationExpired, PaymentAuthorized, PaymentCaptureFailed, PaymentCaptureRequested, PaymentCaptured,
    PaymentDeclined, PaymentRefundFailed, PaymentRefundRequested, PaymentRefunded, PaymentRequested, PaymentVoidFailed,
    PaymentVoidRequested, PaymentVoided, Via,
};
use schemas::id::{OrderId, PaymentId};
use schemas::money::Money;
use schemas::problem;
use schemas::resource::payment::PaymentStatus;

use super::{AUTHORIZATION_MS, Intent, PaymentState, owed};
use crate::checkout;
use crate::refusal::{ShopDecision, invalid, refuse};
use crate::shop::ShopState;

pub(crate) fn authorize(
    known: Option<&PaymentState>,
    payment_id: PaymentId,
    order_id: Option<OrderId>,
    amount: Money,
    means: &PaymentMeans,
) -> ShopDecision {
    if let Some(order) = order_id.filter(|order| order.payment() == payment_id) {
        return refuse(problem::BELONGS_TO_ORDER, format!("this payment is for the checkout of order {order} to make"));
    }
    if known.is_some() {
        // Its id follows from the command's: this very request was heard before.
        return Decision::nothing();
    }
    let asked =
        PaymentRequested { order_id, amount, method: means.method, token: means.token.clone(), checkout: false };
    Decision::create(vec![(0, asked.into())])
}

pub(crate) fn capture(known: Option<&PaymentState>, amount: Option<Money>, context: &Context) -> ShopDecision {
    let Some(payment) = known else { return absent() };
    let authorized = payment.shown.authorized;
    if let Some(amount) = amount {
        if let Some(fault) = other_currency(amount, authorized) {
            return fault;
        }
        if amount.amount > authorized.amount {
            return invalid("/amount", "out-of-range", format!("{amount} is more than the {authorized} asked for"));
        }
    }
    if let Some(refusal) = belongs_to_order(payment) {
        return refusal;
    }
    let under_way = payment.asks_for(|intent| matches!(intent, Intent::Capture { .. }));
    if under_way || payment.shown.status == PaymentStatus::Captured {
        return Decision::nothing();
    }
    let expired = payment.shown.expires_at.is_some_and(|expires_at| expires_at <= context.now);
    if !payment.can_be_captured() || expired {
        return refuse(problem::PAYMENT_NOT_CAPTURABLE, format!("the payment {}", standing(payment)));
    }
    Decision::accept(vec![(0, PaymentCaptureRequested { amount: amount.unwrap_or(authorized) }.into())])
}

pub(crate) fn void(known: Option<&PaymentState>) -> ShopDecision {
    let Some(payment) = known else { return absent() };
    if let Some(refusal) = belongs_to_order(payment) {
        return refusal;
    }
    let under_way = payment.asks_for(|intent| matches!(intent, Intent::Void));
    if under_way || payment.shown.status == PaymentStatus::Voided {
        return Decision::nothing();
    }
    // While the gateway has not promised yet, the key is barred: the promise can then never come.
    if payment.shown.status == PaymentStatus::Pending || payment.can_be_captured() {
        return Decision::accept(vec![(0, PaymentVoidRequested {}.into())]);
    }
    refuse(problem::PAYMENT_NOT_VOIDABLE, format!("the payment {}", standing(payment)))
}

/// A refund asked of the payment. Streams: the payment, and of a checkout's its order.
pub(crate) fn refund(
    known: Option<&PaymentState>,
    checkout_of: Option<OrderId>,
    amount: Money,
    reason: &str,
) -> ShopDecision {
    let Some(payment) = known else { return absent() };
    if let Some(fault) = other_currency(amount, payment.shown.captured) {
        return fault;
    }
    // A checkout's payment that was not there when it was looked up has not been captured since.
    if payment.shown.status != PaymentStatus::Captured || payment.checkout_of() != checkout_of {
        return refuse(problem::PAYMENT_NOT_REFUNDABLE, format!("the payment {}", standing(payment)));
    }
    if let Some(refusal) = exceeds(amount, payment.refundable()) {
        return refusal;
    }
    let reason = reason.to_owned();
    let mut events: Vec<(usize, ShopEvent)> =
        vec![(0, PaymentRefundRequested { amount, reason: reason.clone(), via: Via::Payment }.into())];
    if checkout_of.is_some() {
        events.push((1, OrderRefundRequested { amount, reason, via: Via::Payment }.into()));
    }
    Decision::accept(events)
}

/// What the gateway answered. Streams: the payment, and of a checkout's its order and checkout.
pub(crate) fn record(
    states: &States<'_, ShopState>,
    checkout_of: Option<OrderId>,
    intent: u64,
    answer: &GatewayAnswer,
    context: &Context,
) -> ShopDecision {
    let Some(payment) = states.at(0).and_then(ShopState::payment) else { return absent() };
    // Answered before, or given up: a late answer changes nothing.
    let Some(asked) = payment.intent(intent) else { return Decision::nothing() };
    let own = checkout_of.is_none() || matches!(asked, Intent::Refund { via: Via::Payment | Via::Order, .. });
    if !own {
        return checkout::record_gateway(states, intent, answer, context);
    }
    let event = match answer {
        GatewayAnswer::Unreachable { .. } => return Decision::nothing(),
        GatewayAnswer::Done { expires_at } => match asked {
            Intent::Authorize => {
                let expires_at = expires_at.unwrap_or_else(|| context.now.plus_ms(AUTHORIZATION_MS));
                PaymentAuthorized { expires_at }.into()
            }
            Intent::Capture { amount } => PaymentCaptured { amount: *amount }.into(),
            Intent::Void => PaymentVoided {}.into(),
            Intent::Refund { amount, reason, .. } => {
                PaymentRefunded { intent, amount: *amount, reason: reason.clone() }.into()
            }
        },
        GatewayAnswer::Refused { reason } => {
            let reason = reason.clone();
            match asked {
                Intent::Authorize => PaymentDeclined { reason }.into(),
                Intent::Capture { .. } => PaymentCaptureFailed { reason }.into(),
                Intent::Void => PaymentVoidFailed { reason }.into(),
                Intent::Refund { amount, .. } => PaymentRefundFailed { intent, amount: *amount, reason }.into(),
            }
        }
    };
    let told = checkout_of.and_then(|_| match &event {
        ShopEvent::PaymentRefunded(refunded) => {
            Some(OrderRefunded { amount: refunded.amount, reason: refunded.reason.clone() }.into())
        }
        ShopEvent::PaymentRefundFailed(failed) => {
            Some(OrderRefundFailed { amount: failed.amount, reason: failed.reason.clone() }.into())
        }
        _ => None,
    });
    Decision::accept(std::iter::once((0, event)).chain(told.map(|event| (1, event))).collect())
}

/// Its timer went off. Whoever fires it has seen that it is due, by a clock that may since have been set back.
pub(crate) fn expire(known: Option<&PaymentState>, armed_at: u64) -> ShopDecision {
    let Some(payment) = known else { return Decision::nothing() };
    match owed::timer(payment) {
        Some(timer) if timer.armed_at.0 == armed_at => {}
        _ => return Decision::nothing(),
    }
    let event = match payment.shown.status {
        PaymentStatus::Pending => PaymentVoidRequested {}.into(),
        _ => PaymentAuthorizationExpired {}.into(),
    };
    Decision::accept(vec![(0, event)])
}

fn absent() -> ShopDecision {
    refuse(problem::PAYMENT_NOT_FOUND, "there is no such payment")
}

fn belongs_to_order(payment: &PaymentState) -> Option<ShopDecision> {
    let order = payment.checkout_of()?;
    Some(refuse(problem::BELONGS_TO_ORDER, format!("it belongs to the checkout of order {order}")))
}

/// No, if an amount is of another currency than the resource's.
pub(crate) fn other_currency(amount: Money, of: Money) -> Option<ShopDecision> {
    let detail = || format!("must be {}; is {}", of.currency, amount.currency);
    (amount.currency != of.currency).then(|| invalid("/amount/currency", "currency-mismatch", detail()))
}

/// No, if more is to go back than is left.
pub(crate) fn exceeds(amount: Money, refundable: i64) -> Option<ShopDecision> {
    let left = Money::new(refundable, amount.currency);
    let detail = || format!("{amount} is asked for, {left} can still be given back");
    (amount.amount > refundable).then(|| refuse(problem::REFUND_EXCEEDS_PAID, detail()))
}

fn standing(payment: &PaymentState) -> &'static str {
    if payment.asks_for(|intent| matches!(intent, Intent::Capture { .. })) {
        return "is being captured";
    }
    if payment.asks_for(|intent| matches!(intent, Intent::Void)) {
        return "is being voided";
    }
    match payment.shown.status {
        PaymentStatus::Pending => "has not been answered by the gateway",
        PaymentStatus::Authorized => "is authorized, not captured",
        PaymentStatus::Declined => "was declined",
        PaymentStatus::Captured => "was captured",
        PaymentStatus::Voided => "was voided",
        PaymentStatus::Expired => "has expired",
    }
}
