//! Orders: placed, then confirmed, shipped and delivered, or called off. What an order shows comes from its own events
//! alone; what moves its stock and money is its checkout.

use std::collections::BTreeMap;

use engine::decider::{Decision, States};
use engine::event::EventMeta;
use engine::message::CommandId;
use engine::position::Version;
use schemas::command::PaymentMeans;
use schemas::event::ShopEvent;
use schemas::event::checkout::{CheckoutPlanned, Leg};
use schemas::event::order::{
    CheckoutStarted, Line, OrderCancelled, OrderDelivered, OrderPlaced, OrderRefundRequested, OrderShipped, total_of,
};
use schemas::event::payment::{PaymentRefundRequested, Via};
use schemas::event::reservation::ReservedLine;
use schemas::id::{CustomerId, LocationId, OrderId};
use schemas::money::{Money, TOTAL_LIMIT};
use schemas::problem;
use schemas::resource::Fold;
use schemas::resource::order::{Order, OrderStatus};
use serde::{Deserialize, Serialize};

use crate::payment::{exceeds, other_currency};
use crate::refusal::{ShopDecision, invalid, refuse};
use crate::shop::ShopState;

/// What decisions know of an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderState {
    /// As shown.
    pub shown: Order,
    /// Refunds that are asked for and not answered, in minor units.
    refunds_open: i64,
    /// Ids that are never forgotten: who placed it, who began its checkout, who asked it for refunds.
    remembered: BTreeMap<CommandId, Version>,
}

impl OrderState {
    pub(crate) fn evolve(this: Option<Self>, event: &ShopEvent, meta: &EventMeta) -> Option<Self> {
        let Some(mut state) = this else {
            let remembered = BTreeMap::from([(meta.command_id, meta.version)]);
            return Some(Self { shown: Order::evolve(None, event, meta)?, refunds_open: 0, remembered });
        };
        state.shown = Order::evolve(Some(state.shown), event, meta)?;
        match event {
            ShopEvent::CheckoutStarted(_) => state.remember(meta),
            ShopEvent::OrderRefundRequested(asked) => {
                state.refunds_open += asked.amount.amount;
                if asked.via == Via::Order {
                    state.remember(meta);
                }
            }
            ShopEvent::OrderRefunded(refunded) => state.refunds_open -= refunded.amount.amount,
            ShopEvent::OrderRefundFailed(failed) => state.refunds_open -= failed.amount.amount,
            _ => {}
        }
        // MONEY-1, MONEY-2. Stop rather than give back what never came.
        assert!(state.refunds_open >= 0, "{} at {}: a refund that nobody asked for", meta.stream, meta.version);
        assert!(state.refundable() >= 0, "{} at {}: more refunded than paid", meta.stream, meta.version);
        Some(state)
    }

    fn remember(&mut self, meta: &EventMeta) {
        self.remembered.entry(meta.command_id).or_insert(meta.version);
    }

    pub(crate) fn remembers(&self, id: CommandId) -> Option<Version> {
        self.remembered.get(&id).copied()
    }

    /// What can still be given back, in minor units; a refund counts from its request on.
    pub fn refundable(&self) -> i64 {
        self.shown.paid.amount - self.shown.refunded.amount - self.refunds_open
    }
}

/// An order as asked.
pub(crate) struct Asked<'a> {
    pub(crate) order_id: OrderId,
    pub(crate) customer_id: &'a CustomerId,
    pub(crate) location_id: &'a LocationId,
    pub(crate) lines: &'a [Line],
    pub(crate) payment: Option<&'a PaymentMeans>,
}

/// Streams: the order and, with a payment, its checkout.
pub(crate) fn place(known: Option<&OrderState>, asked: &Asked<'_>) -> ShopDecision {
    let Some(total) = total_of(asked.lines.iter().map(|line| (line.quantity, line.unit_price))) else {
        return invalid("/lines", "out-of-range", format!("the total must stay below {TOTAL_LIMIT}"));
    };
    if known.is_some() {
        return refuse(problem::ORDER_ALREADY_EXISTS, format!("there is an order {} already", asked.order_id));
    }
    let placed = OrderPlaced {
        order_id: asked.order_id,
        customer_id: asked.customer_id.clone(),
        location_id: asked.location_id.clone(),
        lines: asked.lines.to_vec(),
        total,
    };
    let started = asked.payment.map(|means| begin(asked.order_id, asked.lines, total, means));
    Decision::create(std::iter::once((0, placed.into())).chain(started.into_iter().flatten()).collect())
}

/// Its checkout begins: on the order (stream 0) and on its checkout (stream 1).
fn begin(order_id: OrderId, lines: &[Line], total: Money, means: &PaymentMeans) -> [(usize, ShopEvent); 2] {
    let payment_id = order_id.payment();
    let plan = CheckoutPlanned {
        order_id,
        legs: legs(order_id, lines),
        payment_id,
        amount: total,
        method: means.method,
        token: means.token.clone(),
    };
    [(0, CheckoutStarted { saga_id: order_id, payment_id }.into()), (1, plan.into())]
}

/// Lines by location, in the order in which locations first appear.
fn legs(order_id: OrderId, lines: &[Line]) -> Vec<Leg> {
    let mut legs = Vec::<Leg>::new();
    for line in lines {
        let reserved = ReservedLine { sku: line.sku.clone(), quantity: line.quantity };
        match legs.iter_mut().find(|leg| leg.location_id == line.location_id) {
            Some(leg) => leg.lines.push(reserved),
            None => legs.push(Leg {
                location_id: line.location_id.clone(),
                reservation_id: order_id.reservation_at(&line.location_id),
                lines: vec![reserved],
            }),
        }
    }
    legs
}

/// Streams: the order and its checkout.
pub(crate) fn start_checkout(known: Option<&OrderState>, means: &PaymentMeans) -> ShopDecision {
    let Some(order) = known.map(|state| &state.shown) else { return absent() };
    if order.status != OrderStatus::Placed || order.saga_id.is_some() {
        let what = if order.saga_id.is_some() { "its checkout has begun" } else { "it is cancelled" };
        return refuse(problem::ORDER_NOT_PAYABLE, what);
    }
    Decision::accept(begin(order.order_id, &order.lines, order.total, means).into())
}

/// Calls an order off that no checkout ever touched. Stream: the order.
pub(crate) fn cancel_untouched(cancelled: OrderCancelled) -> ShopDecision {
    Decision::accept(vec![(0, cancelled.into())])
}

pub(crate) fn ship(known: Option<&OrderState>, carrier: Option<&str>, tracking: Option<&str>) -> ShopDecision {
    let Some(order) = known.map(|state| &state.shown) else { return absent() };
    if order.status != OrderStatus::Confirmed {
        return refuse(problem::ORDER_NOT_SHIPPABLE, format!("the order is {}", name_of(order.status)));
    }
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Decision::accept(vec![(0, OrderShipped { carrier: owned(carrier), tracking: owned(tracking) }.into())])
}

pub(crate) fn deliver(known: Option<&OrderState>) -> ShopDecision {
    let Some(order) = known.map(|state| &state.shown) else { return absent() };
    if order.status != OrderStatus::Shipped {
        return refuse(problem::ORDER_NOT_DELIVERABLE, format!("the order is {}", name_of(order.status)));
    }
    Decision::accept(vec![(0, OrderDelivered {}.into())])
}

/// A refund asked of the order. Streams: the order and its checkout's payment.
pub(crate) fn refund(states: &States<'_, ShopState>, amount: Money, reason: &str) -> ShopDecision {
    let Some(order) = states.at(0).and_then(ShopState::order) else { return absent() };
    if let Some(fault) = other_currency(amount, order.shown.total) {
        return fault;
    }
    let payment = match states.at(1).and_then(ShopState::payment) {
        Some(payment) if order.shown.paid.amount > 0 => payment,
        _ => return refuse(problem::ORDER_NOT_REFUNDABLE, "nothing has been paid"),
    };
    // MONEY-1: the two are told of every refund in the same records.
    assert_eq!(order.refundable(), payment.refundable(), "order and payment {} differ", order.shown.order_id);
    if let Some(refusal) = exceeds(amount, order.refundable()) {
        return refusal;
    }
    let reason = reason.to_owned();
    Decision::accept(vec![
        (0, OrderRefundRequested { amount, reason: reason.clone(), via: Via::Order }.into()),
        (1, PaymentRefundRequested { amount, reason, via: Via::Order }.into()),
    ])
}

pub(crate) fn absent() -> ShopDecision {
    refuse(problem::ORDER_NOT_FOUND, "there is no such order")
}

pub(crate) fn name_of(status: OrderStatus) -> &'static str {
    OrderStatus::ALL.iter().find(|(_, each)| *each == status).map_or("", |(name, _)| name)
}
