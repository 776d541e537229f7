//! An order as it is shown.

use engine::event::EventMeta;
use engine::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::Fold;
use crate::event::ShopEvent;
use crate::event::order::{CancelReason, Line};
use crate::id::{CustomerId, LocationId, OrderId, PaymentId};
use crate::money::Money;

/// Where an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderStatus {
    /// Waits for its checkout to begin or to end.
    Placed,
    /// Stock committed, money captured.
    Confirmed,
    /// On its way.
    Shipped,
    /// Arrived.
    Delivered,
    /// Called off.
    Cancelled,
}

impl OrderStatus {
    /// As over HTTP.
    pub const ALL: [(&'static str, Self); 5] = [
        ("placed", Self::Placed),
        ("confirmed", Self::Confirmed),
        ("shipped", Self::Shipped),
        ("delivered", Self::Delivered),
        ("cancelled", Self::Cancelled),
    ];
}

/// Why it was called off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancellation {
    /// In a word.
    pub reason: CancelReason,
    /// In words.
    pub detail: Option<String>,
}

/// `GET /v1/orders/{id}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Which.
    pub order_id: OrderId,
    /// Whose.
    pub customer_id: CustomerId,
    /// Where its lines come from unless they say otherwise.
    pub location_id: LocationId,
    /// Where it stands.
    pub status: OrderStatus,
    /// How many events its stream has; its ETag.
    pub version: u64,
    /// When it was placed.
    pub placed_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// What was ordered.
    pub lines: Vec<Line>,
    /// What it costs.
    pub total: Money,
    /// What was captured; never falls.
    pub paid: Money,
    /// What was given back.
    pub refunded: Money,
    /// The payment of its checkout, once begun.
    pub payment_id: Option<PaymentId>,
    /// Its checkout, once begun.
    pub saga_id: Option<OrderId>,
    /// Why it was called off, if it was.
    pub cancellation: Option<Cancellation>,
}

impl Fold for Order {
    fn evolve(this: Option<Self>, event: &ShopEvent, meta: &EventMeta) -> Option<Self> {
        let Some(mut order) = this else {
            let ShopEvent::OrderPlaced(placed) = event else { return None };
            return Some(Self {
                order_id: placed.order_id,
                customer_id: placed.customer_id.clone(),
                location_id: placed.location_id.clone(),
                status: OrderStatus::Placed,
                version: meta.version.0,
                placed_at: meta.recorded_at,
                updated_at: meta.recorded_at,
                lines: placed.lines.clone(),
                total: placed.total,
                paid: Money::zero(placed.total.currency),
                refunded: Money::zero(placed.total.currency),
                payment_id: None,
                saga_id: None,
                cancellation: None,
            });
        };
        order.version = meta.version.0;
        order.updated_at = meta.recorded_at;
        match event {
            ShopEvent::CheckoutStarted(started) => {
                order.saga_id = Some(started.saga_id);
                order.payment_id = Some(started.payment_id);
            }
            ShopEvent::OrderConfirmed(confirmed) => {
                order.status = OrderStatus::Confirmed;
                order.paid = confirmed.paid;
            }
            ShopEvent::OrderPaid(paid) => order.paid = paid.amount,
            ShopEvent::OrderRefunded(refunded) => order.refunded.amount += refunded.amount.amount,
            ShopEvent::OrderShipped(_) => order.status = OrderStatus::Shipped,
            ShopEvent::OrderDelivered(_) => order.status = OrderStatus::Delivered,
            ShopEvent::OrderCancelled(cancelled) => {
                order.status = OrderStatus::Cancelled;
                order.cancellation = Some(Cancellation { reason: cancelled.reason, detail: cancelled.detail.clone() });
            }
            _ => {}
        }
        Some(order)
    }
}
