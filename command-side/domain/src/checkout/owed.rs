//! What a checkout owes at the step it has reached: one stock command or one gateway call, under an id that stays the same
//! however often it is sent.

use engine::message::CommandId;
use engine::saga::{Agenda, Ask, Heard, Pending};
use schemas::command::{GatewayAnswer, GatewayCall, ReservationVerb, ShopCommand, StepResult};
use schemas::event::checkout::{CheckoutPlanned, Leg, StepKind};

use super::{CheckoutState, RESERVATION_S, Work};

pub(crate) fn react(checkout: &CheckoutState) -> Agenda<ShopCommand, GatewayCall> {
    let pending = if checkout.is_parked() { None } else { at_hand(checkout) };
    Agenda { pending: pending.into_iter().collect(), timer: None }
}

fn at_hand(checkout: &CheckoutState) -> Option<Pending<ShopCommand, GatewayCall>> {
    let plan = &checkout.plan;
    let errand = checkout.errand()?;
    let payment_id = plan.payment_id;
    let command = |errand: &str, command| Pending {
        id: plan.order_id.errand(errand, checkout.shown.round),
        not_before: None,
        ask: Ask::Command(command),
    };
    let call = |verb: &str, intent, call| Pending {
        id: payment_id.gateway_key(verb, intent),
        not_before: checkout.shown.next_attempt_at,
        ask: Ask::Call(call),
    };
    let step = &errand.step;
    Some(match (errand.kind, &errand.work) {
        (StepKind::Reserve(leg), Work::Do) => {
            let Leg { location_id, reservation_id, lines } = plan.legs[leg].clone();
            let (expires_in_s, order_id) = (RESERVATION_S, Some(plan.order_id));
            command(step, ShopCommand::ReserveStock { location_id, reservation_id, lines, expires_in_s, order_id })
        }
        (StepKind::Commit(leg), Work::Do) => command(step, ShopCommand::CommitStock(verb(plan, leg))),
        (StepKind::Commit(leg), _) => command(&format!("undo {step}"), ShopCommand::ReturnStock(verb(plan, leg))),
        (StepKind::Reserve(leg), _) => command(&format!("undo {step}"), ShopCommand::ReleaseStock(verb(plan, leg))),
        (StepKind::Authorize, Work::Do) => {
            let ask = GatewayCall::Authorize { payment_id, amount: plan.amount, token: plan.token.clone() };
            call("authorize", CheckoutPlanned::AUTHORIZE_INTENT, ask)
        }
        (StepKind::Capture, Work::Do) => {
            call("capture", CheckoutPlanned::CAPTURE_INTENT, GatewayCall::Capture { payment_id, amount: plan.amount })
        }
        (_, Work::UndoAsked(undo)) => match undo.refund {
            Some(amount) => call("refund", undo.intent, GatewayCall::Refund { payment_id, amount }),
            None => call("void", undo.intent, GatewayCall::Void { payment_id, token: plan.token.clone() }),
        },
        // Told in the same record as what they follow, or waiting for an operator.
        (StepKind::Confirm | StepKind::Authorize | StepKind::Capture, _) => return None,
    })
}

fn verb(plan: &CheckoutPlanned, leg: usize) -> ReservationVerb {
    let Leg { location_id, reservation_id, lines } = plan.legs[leg].clone();
    ReservationVerb { location_id, reservation_id, lines, order_id: Some(plan.order_id) }
}

pub(crate) fn heard(
    checkout: &CheckoutState,
    id: CommandId,
    heard: &Heard<GatewayAnswer>,
) -> Option<(CommandId, ShopCommand)> {
    // What is no longer at hand changes nothing any more: its undo has it in view.
    let pending = at_hand(checkout).filter(|pending| pending.id == id)?;
    let errand = checkout.errand()?;
    let order_id = checkout.plan.order_id;
    if matches!(pending.ask, Ask::Command(_)) {
        let result = match heard {
            Heard::Outcome(outcome, position) => match &outcome.code {
                None => StepResult::Done(*position),
                Some(code) => StepResult::Refused(code.to_string(), *position),
            },
            Heard::Invalid(what) => StepResult::Broken(what.clone()),
            Heard::Returned(_) | Heard::Unreachable(_) => return None,
        };
        let undo = errand.work == Work::Undo;
        return Some((id.derive("outcome"), ShopCommand::RecordStep { order_id, step: errand.step, undo, result }));
    }
    let attempt = checkout.failures + 1;
    let (id, answer) = match heard {
        Heard::Returned(GatewayAnswer::Unreachable { error, .. }) | Heard::Unreachable(error) => {
            (id.derive(&format!("attempt {attempt}")), GatewayAnswer::Unreachable { attempt, error: error.clone() })
        }
        Heard::Returned(answer) => (id.derive("outcome"), answer.clone()),
        Heard::Outcome(..) | Heard::Invalid(_) => return None,
    };
    let intent = errand.intent()?;
    let (payment_id, checkout_of) = (checkout.plan.payment_id, Some(order_id));
    Some((id, ShopCommand::RecordGateway { payment_id, checkout_of, intent, answer }))
}
