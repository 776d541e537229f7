//! A payment as it is shown.

use engine::event::EventMeta;
use engine::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::Fold;
use crate::event::ShopEvent;
use crate::id::{OrderId, PaymentId, Subject};
use crate::money::Money;

/// Where a payment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentStatus {
    /// The gateway has not answered yet.
    Pending,
    /// It promised.
    Authorized,
    /// It said no.
    Declined,
    /// Cashed.
    Captured,
    /// Given up.
    Voided,
    /// The promise ran out.
    Expired,
}

/// What the gateway is being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InFlight {
    /// To promise.
    Authorize,
    /// To cash.
    Capture,
    /// To give up.
    Void,
    /// To give back.
    Refund,
}

/// The gateway's no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decline {
    /// Its reason.
    pub reason: String,
}

/// `GET /v1/payments/{id}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Payment {
    /// Which.
    pub payment_id: PaymentId,
    /// What it is for, if told.
    pub order_id: Option<OrderId>,
    /// Where it stands.
    pub status: PaymentStatus,
    /// What was asked for, and promised once `authorized`.
    pub authorized: Money,
    /// What was cashed.
    pub captured: Money,
    /// What was given back.
    pub refunded: Money,
    /// The gateway's no.
    pub decline: Option<Decline>,
    /// Until when the promise holds.
    pub expires_at: Option<Timestamp>,
    /// What the gateway is being asked right now.
    pub in_flight: Option<InFlight>,
    /// How many events its stream has; its ETag.
    pub version: u64,
    /// Refunds asked for and not answered.
    pub refunds_in_flight: u32,
}

impl Fold for Payment {
    fn evolve(this: Option<Self>, event: &ShopEvent, meta: &EventMeta) -> Option<Self> {
        let Some(mut payment) = this else {
            let (ShopEvent::PaymentRequested(asked), Some(Subject::Payment(payment_id))) =
                (event, Subject::of(&meta.stream))
            else {
                return None;
            };
            return Some(Self {
                payment_id,
                order_id: asked.order_id,
                status: PaymentStatus::Pending,
                authorized: asked.amount,
                captured: Money::zero(asked.amount.currency),
                refunded: Money::zero(asked.amount.currency),
                decline: None,
                expires_at: None,
                in_flight: Some(InFlight::Authorize),
                version: meta.version.0,
                refunds_in_flight: 0,
            });
        };
        payment.version = meta.version.0;
        match event {
            ShopEvent::PaymentAuthorized(authorized) => {
                payment.status = PaymentStatus::Authorized;
                payment.expires_at = Some(authorized.expires_at);
                payment.in_flight = None;
            }
            ShopEvent::PaymentDeclined(declined) => {
                payment.status = PaymentStatus::Declined;
                payment.decline = Some(Decline { reason: declined.reason.clone() });
                payment.in_flight = None;
            }
            ShopEvent::PaymentCaptureRequested(_) => payment.in_flight = Some(InFlight::Capture),
            ShopEvent::PaymentCaptured(captured) => {
                payment.status = PaymentStatus::Captured;
                payment.captured = captured.amount;
                payment.in_flight = None;
            }
            ShopEvent::PaymentCaptureFailed(_) => payment.in_flight = None,
            ShopEvent::PaymentVoidRequested(_) => payment.in_flight = Some(InFlight::Void),
            ShopEvent::PaymentVoidFailed(_) => payment.in_flight = None,
            ShopEvent::PaymentVoided(_) => {
                payment.status = PaymentStatus::Voided;
                payment.in_flight = None;
            }
            ShopEvent::PaymentRefundRequested(_) => payment.refund_opened(),
            ShopEvent::PaymentRefunded(refunded) => {
                payment.refunded.amount += refunded.amount.amount;
                payment.refund_answered();
            }
            ShopEvent::PaymentRefundFailed(_) => payment.refund_answered(),
            ShopEvent::PaymentAuthorizationExpired(_) => {
                payment.status = PaymentStatus::Expired;
                payment.in_flight = None;
            }
            _ => {}
        }
        Some(payment)
    }
}

impl Payment {
    /// The order whose checkout it belongs to; `None` for a free payment, whatever order that names.
    pub fn checkout_of(&self) -> Option<OrderId> {
        self.order_id.filter(|order| order.payment() == self.payment_id)
    }

    fn refund_opened(&mut self) {
        self.refunds_in_flight += 1;
        self.in_flight = Some(InFlight::Refund);
    }

    fn refund_answered(&mut self) {
        self.refunds_in_flight = self.refunds_in_flight.saturating_sub(1);
        if self.refunds_in_flight == 0 {
            self.in_flight = None;
        }
    }
}
