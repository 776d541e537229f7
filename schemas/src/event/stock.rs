//! Events of one SKU's stock at one location. Counters only: who was promised what is the reservation's own stream.

use serde::{Deserialize, Serialize};

use crate::id::{OrderId, ReservationId};

/// Counted afresh: so many are there, promised ones included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockCounted {
    /// 0–10¹².
    pub on_hand: i64,
    /// Why.
    pub reason: Option<String>,
}

/// More came in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockReceived {
    /// 1–1,000,000.
    pub quantity: u32,
}

/// Set right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockAdjusted {
    /// −1,000,000…1,000,000, not 0.
    pub delta: i64,
    /// Why.
    pub reason: String,
}

macro_rules! reservation_movement {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name {
            /// For which reservation.
            pub reservation_id: ReservationId,
            /// How many of this SKU, all its lines together.
            pub quantity: i64,
            /// For which order, if a checkout's.
            pub order_id: Option<OrderId>,
        }
    )*};
}
reservation_movement!(
    /// Promised.
    StockReserved,
    /// A promise kept: gone from the shelf.
    StockCommitted,
    /// A promise taken back.
    StockReleased,
    /// What was gone came back to the shelf.
    StockReturned,
    /// A promise ran out.
    StockReservationExpired,
);
