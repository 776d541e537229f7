//! What API consumers see: the body of a GET, and how events make it. Both sides show resources, so the fold is here once:
//! the write side tells what a command made of a resource, the read side tells what the log made of it, and the two
//! cannot differ. Folds cannot fail; an event that does not fit leaves the resource as it is.

pub mod order;
pub mod payment;
pub mod reservation;
pub mod saga;
pub mod stock;

use engine::event::EventMeta;

use crate::event::ShopEvent;

/// A resource of any kind.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Resource {
    /// `/v1/orders/{id}`.
    Order(order::Order),
    /// `/v1/payments/{id}`.
    Payment(payment::Payment),
    /// `/v1/stock/{location}/{sku}`.
    Stock(stock::Stock),
    /// `/v1/stock/{location}/reservations/{id}`.
    Reservation(reservation::Reservation),
    /// `/v1/sagas/{id}`.
    Saga(saga::Saga),
}

/// Something that one stream's events make, from the first on.
pub trait Fold: Sized {
    /// After one more event of its stream; `None` before the first that makes it.
    fn evolve(this: Option<Self>, event: &ShopEvent, meta: &EventMeta) -> Option<Self>;
}
