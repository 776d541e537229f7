//! What can be asked of the shop, by API consumers, by the checkout saga, by timers and by the gateway's answers. All come
//! through the same door.
//!
//! A command also travels as JSON, from the node that took it to the node that leads its partition, and the two may be of
//! different versions of this program: `golden/commands/` holds a sample of each. It is never stored. Members and variants
//! that are not known are refused rather than passed over, so a new variant or a new member of a command needs nothing
//! more than its sample; anything that an older node would read *otherwise* (a member of [`Line`] or [`Money`], another
//! meaning) raises [`ShopCommand::FORMAT`], and an owner that does not know that format refuses to decide.

use engine::message::Portable;
use engine::position::Position;
use engine::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::event::order::{CancelReason, Line};
use crate::event::payment::Method;
use crate::event::reservation::ReservedLine;
use crate::id::{CustomerId, LocationId, OrderId, PaymentId, ReservationId, Sku};
use crate::money::Money;

/// Everything that can be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum ShopCommand {
    /// Places an order; with `payment`, its checkout begins in the same record.
    PlaceOrder {
        /// Named by the caller or derived from the command.
        order_id: OrderId,
        /// Whose.
        customer_id: CustomerId,
        /// Where lines come from that name no place.
        location_id: LocationId,
        /// 1–200, of one currency, quantities and prices in bounds (checked before).
        lines: Vec<Line>,
        /// Starts checkout at once.
        payment: Option<PaymentMeans>,
    },
    /// Begins the checkout of a placed order.
    StartCheckout {
        /// Which.
        order_id: OrderId,
        /// How it is paid.
        payment: PaymentMeans,
    },
    /// Calls an order off.
    CancelOrder {
        /// Which.
        order_id: OrderId,
        /// Why: customer, operator, fraud or other.
        reason: CancelReason,
        /// In words.
        detail: Option<String>,
    },
    /// It is on its way.
    ShipOrder {
        /// Which.
        order_id: OrderId,
        /// With whom.
        carrier: Option<String>,
        /// Under which number.
        tracking: Option<String>,
    },
    /// It arrived.
    DeliverOrder {
        /// Which.
        order_id: OrderId,
    },
    /// Gives money of an order back.
    RefundOrder {
        /// Which.
        order_id: OrderId,
        /// How much.
        amount: Money,
        /// Why.
        reason: String,
    },

    /// Counts stock afresh.
    CountStock {
        /// Where.
        location_id: LocationId,
        /// What.
        sku: Sku,
        /// How many are there.
        on_hand: i64,
        /// Why.
        reason: Option<String>,
    },
    /// More came in.
    ReceiveStock {
        /// Where.
        location_id: LocationId,
        /// What.
        sku: Sku,
        /// How many.
        quantity: u32,
    },
    /// Sets stock right.
    AdjustStock {
        /// Where.
        location_id: LocationId,
        /// What.
        sku: Sku,
        /// By how many.
        delta: i64,
        /// Why.
        reason: String,
    },

    /// Promises several lines at one location, all or none.
    ReserveStock {
        /// Where.
        location_id: LocationId,
        /// Under which id.
        reservation_id: ReservationId,
        /// What. The same SKU on two lines counts together.
        lines: Vec<ReservedLine>,
        /// How long it holds, in seconds.
        expires_in_s: u32,
        /// Whose checkout, if the saga asks.
        order_id: Option<OrderId>,
    },
    /// Keeps a reservation.
    CommitStock(ReservationVerb),
    /// Takes a reservation back. From the saga, on an absent one, bars it for ever.
    ReleaseStock(ReservationVerb),
    /// Undoes a reservation however far it came: released if reserved, returned if committed, barred if absent. The
    /// saga's undo once commit was asked.
    ReturnStock(ReservationVerb),
    /// A reservation's time is up. Only a timer asks.
    ExpireReservation(ReservationVerb),

    /// Asks the gateway for money; a free payment, outside any checkout.
    AuthorizePayment {
        /// Named by the command.
        payment_id: PaymentId,
        /// Groups payments.
        order_id: Option<OrderId>,
        /// How much.
        amount: Money,
        /// How.
        means: PaymentMeans,
    },
    /// Cashes a free payment.
    CapturePayment {
        /// Which.
        payment_id: PaymentId,
        /// How much; all if `None`.
        amount: Option<Money>,
    },
    /// Gives a free payment up.
    VoidPayment {
        /// Which.
        payment_id: PaymentId,
    },
    /// Gives money of a payment back; on a checkout's payment it shows on the order too.
    RefundPayment {
        /// Which.
        payment_id: PaymentId,
        /// The order whose checkout it belongs to, looked up before ([`Payment::checkout_of`]); `None` for a free one.
        ///
        /// [`Payment::checkout_of`]: crate::resource::payment::Payment::checkout_of
        checkout_of: Option<OrderId>,
        /// How much.
        amount: Money,
        /// Why.
        reason: String,
    },
    /// What the gateway answered to a recorded intent. Only the owner of the payment asks.
    RecordGateway {
        /// Which payment.
        payment_id: PaymentId,
        /// The order whose checkout it belongs to.
        checkout_of: Option<OrderId>,
        /// The version of the `…Requested` event it answers.
        intent: u64,
        /// The answer.
        answer: GatewayAnswer,
    },
    /// A free authorization's time, or the time to wait for the gateway, is up. Only a timer asks.
    ExpirePayment {
        /// Which payment.
        payment_id: PaymentId,
        /// The version of the payment whose event armed the timer: a later arming is another matter.
        armed_at: u64,
    },

    /// Records what came of a saga's step at a location.
    RecordStep {
        /// Whose checkout.
        order_id: OrderId,
        /// The step that was answered.
        step: String,
        /// Whether it was the step's undo.
        undo: bool,
        /// What came of it.
        result: StepResult,
    },
    /// An operator's decision about a saga.
    DecideSaga {
        /// Whose checkout.
        order_id: OrderId,
        /// What.
        decision: SagaDecision,
        /// Why.
        reason: String,
    },
}

impl Portable for ShopCommand {
    const FORMAT: u32 = 1;
}

/// How something is paid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentMeans {
    /// By what.
    pub method: Method,
    /// The gateway's token.
    pub token: String,
}

/// What is done with a reservation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReservationVerb {
    /// Where.
    pub location_id: LocationId,
    /// Which.
    pub reservation_id: ReservationId,
    /// Its lines: a command names all streams it may write, so they are looked up before (empty if it is absent).
    pub lines: Vec<ReservedLine>,
    /// Whose checkout asks; `None` for API consumers. A checkout's reservation obeys only its checkout.
    pub order_id: Option<OrderId>,
}

/// What the gateway was asked, as pending on a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayCall {
    /// Promise money. Asked again under the same key it answers the same.
    Authorize {
        /// The key: the payment's.
        payment_id: PaymentId,
        /// How much.
        amount: Money,
        /// With which token.
        token: String,
    },
    /// Cash the promise.
    Capture {
        /// Of which payment.
        payment_id: PaymentId,
        /// How much.
        amount: Money,
    },
    /// Give the promise up, and bar the payment's key for ever, whether or not it was ever seen.
    Void {
        /// Of which payment.
        payment_id: PaymentId,
        /// With which token it was asked for: the gateway may hear of the payment for the first time.
        token: String,
    },
    /// Give money back.
    Refund {
        /// Of which payment.
        payment_id: PaymentId,
        /// How much.
        amount: Money,
    },
}

/// What the gateway answers; that it cannot be reached is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum GatewayAnswer {
    /// Done as asked. `expires_at` only after an authorization.
    Done {
        /// Until when the promise holds.
        expires_at: Option<Timestamp>,
    },
    /// No, for good.
    Refused {
        /// Why: `insufficient_funds`, `declined`, `unknown_token`, `voided`, `expired`, …
        reason: String,
    },
    /// A checkout's try that did not reach it: recorded on the saga as a retry.
    Unreachable {
        /// How many tries under this key have failed now. The gateway's port does not know; the saga counts.
        attempt: u32,
        /// What went wrong.
        error: String,
    },
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum StepResult {
    /// Done, there.
    Done(Position),
    /// Refused for good, with this code, there.
    Refused(String, Position),
    /// It went wrong in a way that cannot be; the saga parks.
    Broken(String),
}

/// What an operator decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SagaDecision {
    /// Try the step at hand again now.
    Retry,
    /// Give the undo at hand up.
    Skip,
    /// Undo all (before the point of no return).
    Compensate,
    /// Set it aside.
    Park,
    /// Take it up again.
    Resume,
}
