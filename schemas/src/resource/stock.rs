//! Stock of one SKU at one location as it is shown.

use engine::event::EventMeta;
use engine::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::Fold;
use crate::event::ShopEvent;
use crate::id::{LocationId, Sku, Subject};

/// `GET /v1/stock/{location}/{sku}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stock {
    /// Where.
    pub location_id: LocationId,
    /// What.
    pub sku: Sku,
    /// How many are there, promised ones included.
    pub on_hand: i64,
    /// How many of them are promised.
    pub reserved: i64,
    /// How many can still be promised: `on_hand - reserved`.
    pub available: i64,
    /// How many events its stream has; its ETag.
    pub version: u64,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl Fold for Stock {
    fn evolve(this: Option<Self>, event: &ShopEvent, meta: &EventMeta) -> Option<Self> {
        let mut stock = match this {
            Some(stock) => stock,
            None => {
                let Some(Subject::Stock(location_id, sku)) = Subject::of(&meta.stream) else { return None };
                Self {
                    location_id,
                    sku,
                    on_hand: 0,
                    reserved: 0,
                    available: 0,
                    version: 0,
                    updated_at: meta.recorded_at,
                }
            }
        };
        stock.version = meta.version.0;
        stock.updated_at = meta.recorded_at;
        match event {
            ShopEvent::StockCounted(counted) => stock.on_hand = counted.on_hand,
            ShopEvent::StockReceived(received) => stock.on_hand += i64::from(received.quantity),
            ShopEvent::StockAdjusted(adjusted) => stock.on_hand += adjusted.delta,
            ShopEvent::StockReserved(moved) => stock.reserved += moved.quantity,
            ShopEvent::StockCommitted(moved) => {
                stock.reserved -= moved.quantity;
                stock.on_hand -= moved.quantity;
            }
            ShopEvent::StockReleased(moved) => stock.reserved -= moved.quantity,
            ShopEvent::StockReservationExpired(moved) => stock.reserved -= moved.quantity,
            ShopEvent::StockReturned(moved) => stock.on_hand += moved.quantity,
            _ => {}
        }
        stock.available = stock.on_hand - stock.reserved;
        Some(stock)
    }
}
