//! Events of a reservation: several lines promised at one location, all or none.

use engine::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{OrderId, Sku};

/// One line of a reservation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservedLine {
    /// What.
    pub sku: Sku,
    /// How many, 1–1,000,000.
    pub quantity: u32,
}

/// All lines promised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservationMade {
    /// As asked: the same SKU may stand on two lines.
    pub lines: Vec<ReservedLine>,
    /// The order whose checkout made it; it then obeys only that.
    pub order_id: Option<OrderId>,
    /// When it runs out if nobody commits it.
    pub expires_at: Timestamp,
}

/// Kept: what was promised is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservationCommitted {}

/// Taken back. As version 1 it bars a reservation that may still arrive late.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservationReleased {
    /// What would have been reserved; only as version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub barred: Option<Barred>,
}

/// A reservation that was undone before it arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Barred {
    /// Its lines.
    pub lines: Vec<ReservedLine>,
    /// Whose checkout.
    pub order_id: Option<OrderId>,
}

/// Brought back after it was committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservationReturned {}

/// Ran out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservationExpired {}
