//! Payments: every call to the gateway is recorded as an intent first, and as an outcome after. An intent without outcome
//! is owed: by the payment itself, or by the checkout for what a checkout asks, which then counts the tries.
//!
//! MONEY-2: what is given back, asked-for refunds included, never exceeds what was captured.

mod decide;
mod owed;

use std::collections::BTreeMap;

use engine::event::EventMeta;
use engine::message::CommandId;
use engine::position::Version;
use engine::time::Timestamp;
use schemas::command::GatewayCall;
use schemas::event::ShopEvent;
use schemas::event::payment::{PaymentRequested, Via};
use schemas::id::OrderId;
use schemas::money::Money;
use schemas::resource::Fold;
use schemas::resource::payment::{Payment, PaymentStatus};
use serde::{Deserialize, Serialize};

pub(crate) use decide::{authorize, capture, exceeds, expire, other_currency, record, refund, void};
pub use owed::recording;
pub(crate) use owed::{fire, heard, react};

/// How long the gateway may leave the authorization of a free payment unanswered before it is given up: 5 minutes, as
/// long as a checkout tries.
pub const AUTHORIZATION_WAIT_MS: u64 = 5 * 60 * 1_000;
/// How long a promise holds whose gateway did not say: 7 days, the shortest that card schemes grant.
pub const AUTHORIZATION_MS: u64 = 7 * 24 * 60 * 60 * 1_000;

/// What decisions know of a payment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PaymentState {
    /// As shown.
    pub shown: Payment,
    /// What it was asked with.
    asked: PaymentRequested,
    /// When it was asked.
    asked_at: Timestamp,
    /// What was asked of the gateway and not answered, by the version of the `…Requested` event.
    intents: BTreeMap<u64, Intent>,
    /// The version of the last event that set or freed its timer.
    armed_at: Version,
    /// Ids that are never forgotten: creator, refunds, timers, the gateway's answers.
    remembered: BTreeMap<CommandId, Version>,
}

/// What was asked of the gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Intent {
    Authorize,
    Capture { amount: Money },
    Void,
    Refund { amount: Money, reason: String, via: Via },
}

impl Intent {
    pub(crate) fn verb(&self) -> &'static str {
        match self {
            Self::Authorize => "authorize",
            Self::Capture { .. } => "capture",
            Self::Void => "void",
            Self::Refund { .. } => "refund",
        }
    }
}

impl PaymentState {
    pub(crate) fn evolve(this: Option<Self>, event: &ShopEvent, meta: &EventMeta) -> Option<Self> {
        let Some(mut state) = this else {
            let ShopEvent::PaymentRequested(asked) = event else { return None };
            return Some(Self {
                shown: Payment::evolve(None, event, meta)?,
                asked: asked.clone(),
                asked_at: meta.recorded_at,
                intents: BTreeMap::from([(meta.version.0, Intent::Authorize)]),
                armed_at: meta.version,
                remembered: BTreeMap::from([(meta.command_id, meta.version)]),
            });
        };
        state.shown = Payment::evolve(Some(state.shown), event, meta)?;
        let mut remember = true;
        match event {
            ShopEvent::PaymentAuthorized(_) | ShopEvent::PaymentDeclined(_) => {
                state.close(|intent| matches!(intent, Intent::Authorize));
                state.armed_at = meta.version;
            }
            ShopEvent::PaymentCaptureRequested(asked) => {
                state.intents.insert(meta.version.0, Intent::Capture { amount: asked.amount });
                remember = false;
            }
            ShopEvent::PaymentCaptured(_) => state.close(|intent| matches!(intent, Intent::Capture { .. })),
            ShopEvent::PaymentCaptureFailed(_) => {
                state.close(|intent| matches!(intent, Intent::Capture { .. }));
                state.armed_at = meta.version;
            }
            ShopEvent::PaymentVoidRequested(_) => {
                // From here on a late promise is worth nothing: its key is being barred.
                state.close(|intent| matches!(intent, Intent::Authorize));
                state.intents.insert(meta.version.0, Intent::Void);
            }
            ShopEvent::PaymentVoided(_) => state.close(|intent| matches!(intent, Intent::Void)),
            ShopEvent::PaymentVoidFailed(_) => {
                state.close(|intent| matches!(intent, Intent::Void));
                state.armed_at = meta.version;
            }
            ShopEvent::PaymentRefundRequested(asked) => {
                let (amount, reason) = (asked.amount, asked.reason.clone());
                state.intents.insert(meta.version.0, Intent::Refund { amount, reason, via: asked.via });
                remember = asked.via == Via::Payment;
            }
            ShopEvent::PaymentRefunded(refunded) => drop(state.intents.remove(&refunded.intent)),
            ShopEvent::PaymentRefundFailed(failed) => drop(state.intents.remove(&failed.intent)),
            _ => {}
        }
        if remember {
            state.remembered.entry(meta.command_id).or_insert(meta.version);
        }
        // MONEY-2. Stop rather than give back what never came.
        assert!(state.refundable() >= 0, "{} at {}: more refunded than captured", meta.stream, meta.version);
        Some(state)
    }

    pub(crate) fn remembers(&self, id: CommandId) -> Option<Version> {
        self.remembered.get(&id).copied()
    }

    /// The order whose checkout it belongs to, if it does not stand alone.
    pub fn checkout_of(&self) -> Option<OrderId> {
        self.asked.order_id.filter(|_| self.asked.checkout)
    }

    /// What can still be given back, in minor units; a refund counts from its request on.
    pub fn refundable(&self) -> i64 {
        let requested = self.intents.values().map(|intent| match intent {
            Intent::Refund { amount, .. } => amount.amount,
            _ => 0,
        });
        self.shown.captured.amount - self.shown.refunded.amount - requested.sum::<i64>()
    }

    pub(crate) fn intent(&self, version: u64) -> Option<&Intent> {
        self.intents.get(&version)
    }

    fn asks_for(&self, which: impl Fn(&Intent) -> bool) -> bool {
        self.intents.values().any(which)
    }

    fn close(&mut self, which: impl Fn(&Intent) -> bool) {
        self.intents.retain(|_, intent| !which(intent));
    }

    /// Whether its money is promised, and neither being cashed nor given up.
    pub(crate) fn can_be_captured(&self) -> bool {
        self.shown.status == PaymentStatus::Authorized
            && !self.asks_for(|intent| matches!(intent, Intent::Capture { .. } | Intent::Void))
    }

    /// The call that an intent of this payment is.
    fn call(&self, intent: &Intent) -> GatewayCall {
        let payment_id = self.shown.payment_id;
        match intent {
            Intent::Authorize => {
                GatewayCall::Authorize { payment_id, amount: self.asked.amount, token: self.asked.token.clone() }
            }
            Intent::Capture { amount } => GatewayCall::Capture { payment_id, amount: *amount },
            Intent::Void => GatewayCall::Void { payment_id, token: self.asked.token.clone() },
            Intent::Refund { amount, .. } => GatewayCall::Refund { payment_id, amount: *amount },
        }
    }
}
