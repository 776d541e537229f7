//! The payment gateway's own books as the simulator tells them: apart from Docket's log, so that anyone can compare.

use engine::message::CommandId;
use serde::{Deserialize, Serialize};

use crate::id::PaymentId;
use crate::money::Currency;

/// One payment in the gateway's books. Amounts are minor units of `currency`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRow {
    /// Which payment.
    pub payment_id: PaymentId,
    /// The key it was first asked to authorize under; null where it was barred before it was ever asked.
    pub key: Option<CommandId>,
    /// What it promised.
    pub authorized: i64,
    /// What it cashed.
    pub captured: i64,
    /// What it gave up, and what a smaller capture left.
    pub voided: i64,
    /// What it gave back.
    pub refunded: i64,
    /// Of which currency; null where no amount was ever named.
    pub currency: Option<Currency>,
    /// How often it was called.
    pub calls: u32,
}
