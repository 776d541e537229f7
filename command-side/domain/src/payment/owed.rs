//! What a payment owes: the gateway calls that it asks for itself, and the moments at which it gives up waiting.

use engine::message::CommandId;
use engine::saga::{Agenda, Ask, Heard, Pending, Timer};
use schemas::command::{GatewayAnswer, GatewayCall, ShopCommand};
use schemas::event::payment::Via;
use schemas::resource::payment::PaymentStatus;

use super::{AUTHORIZATION_WAIT_MS, Intent, PaymentState};

pub(crate) fn react(payment: &PaymentState) -> Agenda<ShopCommand, GatewayCall> {
    let own = |intent: &Intent| match intent {
        Intent::Refund { via, .. } => *via != Via::Checkout,
        _ => payment.checkout_of().is_none(),
    };
    let pending = payment.intents.iter().filter(|(_, intent)| own(intent)).map(|(&version, intent)| Pending {
        id: payment.shown.payment_id.gateway_key(intent.verb(), version),
        not_before: None,
        ask: Ask::Call(payment.call(intent)),
    });
    Agenda { pending: pending.collect(), timer: timer(payment) }
}

/// When it is woken: a free authorization that nobody answers, or a promise that runs out. A checkout's authorization
/// is given up by its saga.
pub(super) fn timer(payment: &PaymentState) -> Option<Timer> {
    let armed_at = payment.armed_at;
    match payment.shown.status {
        PaymentStatus::Pending if payment.asks_for(|intent| matches!(intent, Intent::Authorize)) => payment
            .checkout_of()
            .is_none()
            .then(|| Timer { due: payment.asked_at.plus_ms(AUTHORIZATION_WAIT_MS), armed_at }),
        PaymentStatus::Authorized if payment.can_be_captured() => {
            Some(Timer { due: payment.shown.expires_at?, armed_at })
        }
        _ => None,
    }
}

pub(crate) fn fire(payment: &PaymentState, timer: &Timer) -> ShopCommand {
    ShopCommand::ExpirePayment { payment_id: payment.shown.payment_id, armed_at: timer.armed_at.0 }
}

pub(crate) fn heard(
    payment: &PaymentState,
    id: CommandId,
    heard: &Heard<GatewayAnswer>,
) -> Option<(CommandId, ShopCommand)> {
    match heard {
        Heard::Returned(answer) => recording(payment, id, answer.clone()),
        // Nobody waits for these tries to be counted: the runner backs off in memory.
        Heard::Unreachable(_) | Heard::Outcome(..) | Heard::Invalid(_) => None,
    }
}

/// The command that records what the gateway answered under `key`, and its id, also for an answer that comes a second
/// time; `None` if this payment never asked under that key.
pub fn recording(payment: &PaymentState, key: CommandId, answer: GatewayAnswer) -> Option<(CommandId, ShopCommand)> {
    if matches!(answer, GatewayAnswer::Unreachable { .. }) {
        return None;
    }
    let payment_id = payment.shown.payment_id;
    let verbs = ["authorize", "capture", "void", "refund"];
    let asked = |version: &u64| verbs.iter().any(|verb| payment_id.gateway_key(verb, *version) == key);
    // What is still open first: nearly always it is that.
    let open = payment.intents.keys().copied().find(asked);
    let intent = open.or_else(|| (1..=payment.shown.version).find(asked))?;
    let checkout_of = payment.checkout_of();
    Some((key.derive("outcome"), ShopCommand::RecordGateway { payment_id, checkout_of, intent, answer }))
}
