//! What can happen in the shop, in stored form: JSON payloads under a type name and a schema version. What was said stays
//! said: a changed event is a new version with an upcast and a golden sample, never an edit of an old one.

use bytes::Bytes;
use engine::event::{ContentType, EncodedEvent, Event, UnreadableEvent};

pub mod checkout;
pub mod order;
pub mod payment;
pub mod reservation;
pub mod stock;

macro_rules! shop_events {
    ($($(#[$doc:meta])* $name:ident($path:path) v $version:literal),* $(,)?) => {
        /// Everything that can happen in the shop.
        #[derive(Clone, Debug, PartialEq)]
        pub enum ShopEvent {
            $($(#[$doc])* $name($path),)*
        }

        impl ShopEvent {
            /// Every event type with its newest schema version.
            pub const TYPES: &'static [(&'static str, u16)] = &[$((stringify!($name), $version)),*];

            /// The type's name as stored: `OrderPlaced`.
            pub fn event_type(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => stringify!($name),)*
                }
            }
        }

        $(impl From<$path> for ShopEvent {
            fn from(event: $path) -> Self {
                Self::$name(event)
            }
        })*

        impl Event for ShopEvent {
            fn encode(&self) -> EncodedEvent {
                let (schema_version, payload) = match self {
                    $(Self::$name(event) => ($version, serde_json::to_vec(event)),)*
                };
                EncodedEvent {
                    event_type: self.event_type().into(),
                    schema_version,
                    content_type: ContentType::Json,
                    payload: Bytes::from(payload.expect("events are plain data with text keys")),
                }
            }

            fn decode(stored: &EncodedEvent) -> Result<Self, UnreadableEvent> {
                let unreadable = |why: String| UnreadableEvent {
                    event_type: stored.event_type.to_string(),
                    schema_version: stored.schema_version,
                    why,
                };
                match (&*stored.event_type, stored.schema_version) {
                    $((stringify!($name), $version) => serde_json::from_slice(&stored.payload)
                        .map(Self::$name)
                        .map_err(|error| unreadable(error.to_string())),)*
                    _ => Err(unreadable("this program does not know it".to_owned())),
                }
            }
        }
    };
}
shop_events!(
    /// An order came to be.
    OrderPlaced(order::OrderPlaced) v 1,
    /// Its checkout began.
    CheckoutStarted(order::CheckoutStarted) v 1,
    /// Stock committed, money captured.
    OrderConfirmed(order::OrderConfirmed) v 1,
    /// Captured after it was cancelled.
    OrderPaid(order::OrderPaid) v 1,
    /// Money is to go back.
    OrderRefundRequested(order::OrderRefundRequested) v 1,
    /// Money went back.
    OrderRefunded(order::OrderRefunded) v 1,
    /// Money could not go back.
    OrderRefundFailed(order::OrderRefundFailed) v 1,
    /// On its way.
    OrderShipped(order::OrderShipped) v 1,
    /// Arrived.
    OrderDelivered(order::OrderDelivered) v 1,
    /// Called off.
    OrderCancelled(order::OrderCancelled) v 1,
    /// Counted afresh.
    StockCounted(stock::StockCounted) v 1,
    /// More came in.
    StockReceived(stock::StockReceived) v 1,
    /// Set right.
    StockAdjusted(stock::StockAdjusted) v 1,
    /// Promised.
    StockReserved(stock::StockReserved) v 1,
    /// A promise kept: gone.
    StockCommitted(stock::StockCommitted) v 1,
    /// A promise taken back.
    StockReleased(stock::StockReleased) v 1,
    /// What was gone came back.
    StockReturned(stock::StockReturned) v 1,
    /// A promise ran out.
    StockReservationExpired(stock::StockReservationExpired) v 1,
    /// Several lines promised at one location.
    ReservationMade(reservation::ReservationMade) v 1,
    /// Kept.
    ReservationCommitted(reservation::ReservationCommitted) v 1,
    /// Taken back, or barred before it was made.
    ReservationReleased(reservation::ReservationReleased) v 1,
    /// Brought back.
    ReservationReturned(reservation::ReservationReturned) v 1,
    /// Ran out.
    ReservationExpired(reservation::ReservationExpired) v 1,
    /// The gateway is to be asked for money.
    PaymentRequested(payment::PaymentRequested) v 1,
    /// It promised.
    PaymentAuthorized(payment::PaymentAuthorized) v 1,
    /// It said no.
    PaymentDeclined(payment::PaymentDeclined) v 1,
    /// The promise is to be cashed.
    PaymentCaptureRequested(payment::PaymentCaptureRequested) v 1,
    /// It was.
    PaymentCaptured(payment::PaymentCaptured) v 1,
    /// It was refused for good.
    PaymentCaptureFailed(payment::PaymentCaptureFailed) v 1,
    /// The promise is to be given up.
    PaymentVoidRequested(payment::PaymentVoidRequested) v 1,
    /// It could not be.
    PaymentVoidFailed(payment::PaymentVoidFailed) v 1,
    /// It was.
    PaymentVoided(payment::PaymentVoided) v 1,
    /// Money is to go back.
    PaymentRefundRequested(payment::PaymentRefundRequested) v 1,
    /// It did.
    PaymentRefunded(payment::PaymentRefunded) v 1,
    /// It was refused for good.
    PaymentRefundFailed(payment::PaymentRefundFailed) v 1,
    /// The promise ran out.
    PaymentAuthorizationExpired(payment::PaymentAuthorizationExpired) v 1,
    /// A checkout's plan.
    CheckoutPlanned(checkout::CheckoutPlanned) v 1,
    /// A step was answered: done.
    CheckoutStepDone(checkout::CheckoutStepDone) v 1,
    /// A step was answered: no.
    CheckoutStepFailed(checkout::CheckoutStepFailed) v 1,
    /// A try at a step went wrong; it is tried again.
    CheckoutStepRetried(checkout::CheckoutStepRetried) v 1,
    /// A step was undone.
    CheckoutStepUndone(checkout::CheckoutStepUndone) v 1,
    /// The payment's undo was asked for.
    CheckoutUndoRequested(checkout::CheckoutUndoRequested) v 1,
    /// An operator gave an undo step up.
    CheckoutStepSkipped(checkout::CheckoutStepSkipped) v 1,
    /// From here on all is undone.
    CheckoutCompensationStarted(checkout::CheckoutCompensationStarted) v 1,
    /// Set aside until an operator decides.
    CheckoutParked(checkout::CheckoutParked) v 1,
    /// Taken up again.
    CheckoutResumed(checkout::CheckoutResumed) v 1,
    /// To be tried again at once.
    CheckoutRetryRequested(checkout::CheckoutRetryRequested) v 1,
    /// All promises kept.
    CheckoutCompleted(checkout::CheckoutCompleted) v 1,
    /// All promises undone.
    CheckoutCompensated(checkout::CheckoutCompensated) v 1,
);
