//! A reservation as it is shown.

use engine::event::EventMeta;
use engine::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::Fold;
use crate::event::ShopEvent;
use crate::event::reservation::ReservedLine;
use crate::id::{LocationId, OrderId, ReservationId, Subject};

/// Where a reservation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReservationStatus {
    /// Promised.
    Reserved,
    /// Kept.
    Committed,
    /// Taken back.
    Released,
    /// Ran out.
    Expired,
    /// Brought back after it was committed.
    Returned,
}

/// `GET /v1/stock/{location}/reservations/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// Which.
    pub reservation_id: ReservationId,
    /// Where.
    pub location_id: LocationId,
    /// Where it stands.
    pub status: ReservationStatus,
    /// What is promised, as asked.
    pub lines: Vec<ReservedLine>,
    /// Whose checkout it belongs to, if any.
    pub order_id: Option<OrderId>,
    /// When it runs out unless committed; null where it was barred before it was made.
    pub expires_at: Option<Timestamp>,
    /// How many events its stream has; its ETag.
    pub version: u64,
}

impl Fold for Reservation {
    fn evolve(this: Option<Self>, event: &ShopEvent, meta: &EventMeta) -> Option<Self> {
        let Some(mut reservation) = this else {
            let Some(Subject::Reservation(location_id, reservation_id)) = Subject::of(&meta.stream) else {
                return None;
            };
            let (status, lines, order_id, expires_at) = match event {
                ShopEvent::ReservationMade(made) => {
                    (ReservationStatus::Reserved, made.lines.clone(), made.order_id, Some(made.expires_at))
                }
                ShopEvent::ReservationReleased(released) => {
                    let barred = released.barred.clone();
                    let (lines, order_id) = barred.map_or((Vec::new(), None), |barred| (barred.lines, barred.order_id));
                    (ReservationStatus::Released, lines, order_id, None)
                }
                _ => return None,
            };
            let version = meta.version.0;
            return Some(Self { reservation_id, location_id, status, lines, order_id, expires_at, version });
        };
        reservation.version = meta.version.0;
        reservation.status = match event {
            ShopEvent::ReservationCommitted(_) => ReservationStatus::Committed,
            ShopEvent::ReservationReleased(_) => ReservationStatus::Released,
            ShopEvent::ReservationReturned(_) => ReservationStatus::Returned,
            ShopEvent::ReservationExpired(_) => ReservationStatus::Expired,
            _ => reservation.status,
        };
        Some(reservation)
    }
}
