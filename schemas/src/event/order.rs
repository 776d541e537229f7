//! Events of an order's own stream. What an order shows comes from these alone.

use serde::{Deserialize, Serialize};

use super::payment::Via;
use crate::id::{CustomerId, LocationId, OrderId, PaymentId, Sku};
use crate::money::{Money, TOTAL_LIMIT};

/// One line of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// What.
    pub sku: Sku,
    /// How many, 1–1,000,000.
    pub quantity: u32,
    /// At what price each.
    pub unit_price: Money,
    /// From where.
    pub location_id: LocationId,
}

/// The sum of quantity × unit price over lines of one currency; `None` without lines, or if it is too large for JSON
/// numbers to carry exactly.
pub fn total_of(lines: impl IntoIterator<Item = (u32, Money)>) -> Option<Money> {
    let mut currency = None;
    let mut total = 0_i128;
    for (quantity, unit_price) in lines {
        currency = Some(unit_price.currency);
        total += i128::from(quantity) * i128::from(unit_price.amount);
    }
    let total = i64::try_from(total).ok().filter(|total| *total < TOTAL_LIMIT)?;
    Some(Money::new(total, currency?))
}

/// The order as asked, with the total we reckoned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderPlaced {
    /// Which order.
    pub order_id: OrderId,
    /// Whose.
    pub customer_id: CustomerId,
    /// Where lines come from that name no place of their own.
    pub location_id: LocationId,
    /// 1–200 lines, one currency.
    pub lines: Vec<Line>,
    /// The sum of quantity × unit price.
    pub total: Money,
}

/// Its checkout began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckoutStarted {
    /// The saga that carries it out: the order's own id.
    pub saga_id: OrderId,
    /// The payment it will make.
    pub payment_id: PaymentId,
}

/// Stock committed, money captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderConfirmed {
    /// What was captured.
    pub paid: Money,
}

/// Captured after it was cancelled; it will be refunded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderPaid {
    /// What was captured.
    pub amount: Money,
}

/// Money is to go back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderRefundRequested {
    /// How much.
    pub amount: Money,
    /// Why.
    pub reason: String,
    /// Whom it was asked of.
    pub via: Via,
}

/// Money went back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderRefunded {
    /// How much.
    pub amount: Money,
    /// Why.
    pub reason: String,
}

/// The gateway refused to give money back; the amount may be asked for again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderRefundFailed {
    /// How much.
    pub amount: Money,
    /// Why not.
    pub reason: String,
}

/// On its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderShipped {
    /// With whom.
    pub carrier: Option<String>,
    /// Under which number.
    pub tracking: Option<String>,
}

/// Arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderDelivered {}

/// Called off; what was kept is undone by its saga.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderCancelled {
    /// Why.
    pub reason: CancelReason,
    /// In words.
    pub detail: Option<String>,
}

/// Why an order was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelReason {
    /// Not enough in stock, or the reservation ran out.
    StockInsufficient,
    /// The gateway said no.
    PaymentDeclined,
    /// The gateway could not be reached for long enough.
    PaymentUnreachable,
    /// The customer's wish.
    Customer,
    /// The operator's.
    Operator,
    /// Suspected fraud.
    Fraud,
    /// Something else.
    Other,
}
