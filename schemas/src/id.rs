//! Who is who: the shop's ids, the names of its streams, and ids that follow from others.

use std::fmt;
use std::sync::Arc;

use engine::json::read_text;
use engine::message::CommandId;
use engine::stream::StreamName;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Longest customer id, location id or SKU, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

macro_rules! uuid_id {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
uuid_id!(
    /// An order. Its checkout saga bears the same id.
    OrderId,
    /// A payment. One made by a checkout shares its order's last two bytes, hence its partition.
    PaymentId,
    /// A reservation at one location.
    ReservationId,
);

macro_rules! name_id {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// 1–64 of `[A-Za-z0-9._-]`, and none of the words that routes use.
            pub fn new(text: &str) -> Result<Self, InvalidId> {
                if is_name(text) { Ok(Self(text.into())) } else { Err(InvalidId(text.to_owned())) }
            }

            /// As text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                read_text(deserializer, Self::new)
            }
        }
    )*};
}
name_id!(
    /// Who orders; a surrogate, never a name or an address.
    CustomerId,
    /// Where stock is kept.
    LocationId,
    /// What is kept.
    Sku,
);

/// Whether text is a customer id, location id or SKU.
pub fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && !matches!(text, "." | ".." | "reservations" | "history")
}

/// Text that is no such id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not 1 to 64 of A–Z, a–z, 0–9, dot, underscore and dash")]
pub struct InvalidId(pub String);

fn stream(name: &str) -> StreamName {
    StreamName::new(name).expect("ids are visible ASCII and short enough")
}

/// `order-` and an id, made without a string in between: every command names its streams several times.
fn stream_of(prefix: &str, id: Uuid) -> StreamName {
    let mut name = [0; 64];
    name[..prefix.len()].copy_from_slice(prefix.as_bytes());
    let length = prefix.len() + id.as_hyphenated().encode_lower(&mut name[prefix.len()..]).len();
    stream(std::str::from_utf8(&name[..length]).expect("a word and a UUID"))
}

impl OrderId {
    /// The order's own stream.
    pub fn stream(self) -> StreamName {
        stream_of("order-", self.0)
    }

    /// The stream of its checkout saga.
    pub fn checkout_stream(self) -> StreamName {
        stream_of("checkout-", self.0)
    }

    /// The order that a placing command makes which names none.
    pub fn of_command(command: CommandId) -> Self {
        Self(command.derive("order").0)
    }

    /// The payment of this order's checkout, in the order's partition. It follows from the order alone, so that every
    /// command about the order can name the payment's stream without looking it up first; an order has one checkout.
    pub fn payment(self) -> PaymentId {
        PaymentId(placed_like(CommandId(self.0).derive("checkout payment").0, self.0))
    }

    /// The id under which its checkout asks for a step at a location, or for its undo (`undo commit_stock`). Only an
    /// operator's retry or resumption raises the round.
    pub fn errand(self, errand: &str, round: u32) -> CommandId {
        CommandId(self.0).derive(&format!("{errand} {round}"))
    }

    /// The reservation of this order's checkout at a location.
    pub fn reservation_at(self, location: &LocationId) -> ReservationId {
        ReservationId(Uuid::new_v5(&self.0, format!("reservation {location}").as_bytes()))
    }
}

impl PaymentId {
    /// The payment's stream.
    pub fn stream(self) -> StreamName {
        stream_of("payment-", self.0)
    }

    /// The payment that a command makes which names none.
    pub fn of_command(command: CommandId) -> Self {
        Self(command.derive("payment").0)
    }

    /// The key under which the gateway is asked what the event of this version of the payment's stream requested.
    /// `verb` is `authorize`, `capture`, `void` or `refund`.
    pub fn gateway_key(self, verb: &str, intent: u64) -> CommandId {
        CommandId(self.0).derive(&format!("{verb} {intent}"))
    }
}

impl ReservationId {
    /// The reservation's stream, in its location's partition.
    pub fn stream_at(self, location: &LocationId) -> StreamName {
        stream(&format!("reservation-{location}~{self}"))
    }

    /// The reservation that a command makes which names none.
    pub fn of_command(command: CommandId) -> Self {
        Self(command.derive("reservation").0)
    }
}

/// The stream of one SKU's stock at one location.
pub fn stock_stream(location: &LocationId, sku: &Sku) -> StreamName {
    stream(&format!("stock-{location}~{sku}"))
}

/// What a stream's name says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// An order.
    Order(OrderId),
    /// An order's checkout saga.
    Checkout(OrderId),
    /// A payment.
    Payment(PaymentId),
    /// Stock.
    Stock(LocationId, Sku),
    /// A reservation.
    Reservation(LocationId, ReservationId),
}

impl Subject {
    /// Reads a stream's name; `None` if it is none of ours.
    pub fn of(name: &StreamName) -> Option<Self> {
        let rest = name.rest();
        let id = || Uuid::try_parse(rest).ok();
        let placed = || rest.split_once('~').and_then(|(at, what)| Some((LocationId::new(at).ok()?, what)));
        match name.category() {
            "order" => Some(Self::Order(OrderId(id()?))),
            "checkout" => Some(Self::Checkout(OrderId(id()?))),
            "payment" => Some(Self::Payment(PaymentId(id()?))),
            "stock" => placed().and_then(|(at, sku)| Some(Self::Stock(at, Sku::new(sku).ok()?))),
            "reservation" => {
                placed().and_then(|(at, id)| Some(Self::Reservation(at, ReservationId(Uuid::try_parse(id).ok()?))))
            }
            _ => None,
        }
    }

    /// The path of the resource, as in `Location`: `/v1/orders/0198…`.
    pub fn path(&self) -> String {
        match self {
            Self::Order(id) => format!("/v1/orders/{id}"),
            Self::Checkout(id) => format!("/v1/sagas/{id}"),
            Self::Payment(id) => format!("/v1/payments/{id}"),
            Self::Stock(location, sku) => format!("/v1/stock/{location}/{sku}"),
            Self::Reservation(location, id) => format!("/v1/stock/{location}/reservations/{id}"),
        }
    }
}

/// `id` with the last two bytes of `like`: streams of both are placed alike. The bytes replaced carry neither version
/// nor variant.
fn placed_like(id: Uuid, like: Uuid) -> Uuid {
    let mut bytes = id.into_bytes();
    bytes[14..].copy_from_slice(&like.as_bytes()[14..]);
    Uuid::from_bytes(bytes)
}
