//! Events of a payment. `…Requested` records the intent before the gateway is called; the key of that call follows from
//! the payment and the version of the intent, so it is the same however often it is sent.

use engine::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::OrderId;
use crate::money::Money;

/// How it is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// By card, through a token of the gateway.
    Card,
}

/// The gateway is to be asked to promise money.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentRequested {
    /// What it is for; groups payments, nothing more, unless `checkout`.
    pub order_id: Option<OrderId>,
    /// How much.
    pub amount: Money,
    /// How.
    pub method: Method,
    /// The gateway's token for the means of payment. No card number ever comes here.
    pub token: String,
    /// Whether it belongs to its order's checkout and obeys only that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub checkout: bool,
}

/// The gateway promised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentAuthorized {
    /// Until when.
    pub expires_at: Timestamp,
}

/// The gateway said no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentDeclined {
    /// Its reason: `insufficient_funds`, `unknown_token`, …
    pub reason: String,
}

/// The promise is to be cashed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentCaptureRequested {
    /// How much; what is left of the authorization is given up.
    pub amount: Money,
}

/// It was cashed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentCaptured {
    /// How much.
    pub amount: Money,
}

/// The gateway refused to cash it, for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentCaptureFailed {
    /// Its reason.
    pub reason: String,
}

/// The promise is to be given up, and its key barred for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentVoidRequested {}

/// The gateway refused to give it up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentVoidFailed {
    /// Its reason.
    pub reason: String,
}

/// It was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentVoided {}

/// Money is to go back; the amount counts as refunded from here on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentRefundRequested {
    /// How much.
    pub amount: Money,
    /// Why.
    pub reason: String,
    /// Whom it was asked of.
    pub via: Via,
}

/// Whom a refund was asked of: the same money goes back, but a repeat has to be found where it was asked, and only the
/// checkout's own is its undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// The payment.
    Payment,
    /// The order.
    Order,
    /// The checkout, which undoes its capture.
    Checkout,
}

/// It went back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentRefunded {
    /// Which request: the version of its `PaymentRefundRequested`.
    pub intent: u64,
    /// How much.
    pub amount: Money,
    /// Why.
    pub reason: String,
}

/// The gateway refused to give it back, for good; the amount may be asked for again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentRefundFailed {
    /// Which request: the version of its `PaymentRefundRequested`.
    pub intent: u64,
    /// How much.
    pub amount: Money,
    /// Why not.
    pub reason: String,
}

/// The promise ran out before it was cashed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentAuthorizationExpired {}
