//! What API consumers send, read from a JSON value with *all* faults in one pass: structure and rules alike, each at its
//! JSON Pointer. A body that comes through here fits every bound of the contract; whether it makes sense for the resource
//! is the decider's affair.

mod fields;

use uuid::Uuid;

use crate::command::{PaymentMeans, SagaDecision};
use crate::event::order::{CancelReason, Line};
use crate::event::payment::Method;
use crate::event::reservation::ReservedLine;
use crate::id::{CustomerId, LocationId, Sku};
use crate::money::{AMOUNT_MAX, Money, TOTAL_LIMIT};
use engine::json::Json;
use engine::message::FieldError;
use fields::{Faults, Members, Pointer};

/// Most lines of an order or a reservation.
pub const LINES_MAX: usize = 200;
/// Most of one thing that one line or movement may name.
pub const QUANTITY_MAX: i64 = 1_000_000;
/// Most that a stock may hold.
pub const ON_HAND_MAX: i64 = 1_000_000_000_000;
/// Longest that a reservation may hold, in seconds: a week.
pub const EXPIRES_IN_S_MAX: i64 = 604_800;
/// How long a reservation holds that does not say, in seconds.
pub const EXPIRES_IN_S_DEFAULT: u32 = 900;
/// Longest free text, in characters.
pub const TEXT_CHARS_MAX: usize = 200;

/// Every fault of a body.
pub type Invalid = Vec<FieldError>;

/// `POST /v1/orders`.
#[derive(Clone, Debug, PartialEq)]
pub struct PlaceOrderBody {
    /// Left out: derived from the key.
    pub order_id: Option<Uuid>,
    /// Whose.
    pub customer_id: CustomerId,
    /// Where lines come from that name no place.
    pub location_id: LocationId,
    /// 1–200, of one currency, in all below 2⁵³.
    pub lines: Vec<Line>,
    /// Starts checkout at once.
    pub payment: Option<PaymentMeans>,
}

impl PlaceOrderBody {
    /// Reads it, or tells every fault.
    pub fn parse(body: Json<'_>) -> Result<Self, Invalid> {
        Faults::collect(body, |members, faults| {
            let order_id = members.optional("order_id", faults, fields::uuid);
            let customer_id = members.required("customer_id", faults, fields::name(CustomerId::new));
            let location_id = members.required("location_id", faults, fields::name(LocationId::new));
            let place = location_id.clone();
            let lines = members.required("lines", faults, |value, at, faults| order_lines(value, at, place, faults));
            let payment = members.optional("payment", faults, means);
            Some(Self {
                order_id: order_id?,
                customer_id: customer_id?,
                location_id: location_id?,
                lines: lines?,
                payment: payment?,
            })
        })
    }
}

/// `POST /v1/orders/{id}/checkout`.
#[derive(Clone, Debug, PartialEq)]
pub struct StartCheckoutBody {
    /// How it is paid.
    pub payment: PaymentMeans,
}

impl StartCheckoutBody {
    /// Reads it, or tells every fault.
    pub fn parse(body: Json<'_>) -> Result<Self, Invalid> {
        Faults::collect(body, |members, faults| Some(Self { payment: members.required("payment", faults, means)? }))
    }
}

/// `POST /v1/orders/{id}/cancel`.
#[derive(Clone, Debug, PartialEq)]
pub struct CancelOrderBody {
    /// Customer, operator, fraud or other: the rest is for the checkout to say.
    pub reason: CancelReason,
    /// In words.
    pub detail: Option<String>,
}

impl CancelOrderBody {
    /// Reads it, or tells every fault.
    pub fn parse(body: Json<'_>) -> Result<Self, Invalid> {
        const REASONS: [(&str, CancelReason); 4] = [
            ("customer", CancelReason::Customer),
            ("operator", CancelReason::Operator),
            ("fraud", CancelReason::Fraud),
            ("other", CancelReason::Other),
        ];
        Faults::collect(body, |members, faults| {
            let reason = members.required("reason", faults, fields::one_of(&REASONS));
            let detail = members.optional("detail", faults, fields::text);
            Some(Self { reason: reason?, detail: detail? })
        })
    }
}

/// `POST /v1/orders/{id}/ship`.
#[derive(Clone, Debug, PartialEq)]
pub struct ShipOrderBody {
    /// With whom.
    pub carrier: Option<String>,
    /// Under which number.
    pub tracking: Option<String>,
}

impl ShipOrderBody {
    /// Reads it, or tells every fault.
    pub fn parse(body: Json<'_>) -> Result<Self, Invalid> {
        Faults::collect(body, |members, faults| {
            let carrier = members.optional("carrier", faults, fields::text);
            let tracking = members.optional("tracking", faults, fields::text);
            Some(Self { carrier: carrier?, tracking: tracking? })
        })
    }
}

/// A verb that takes nothing: deliver, commit, release, void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmptyBody;

impl EmptyBody {
    /// Reads it, or tells every fault.
    pub fn parse(body: Json<'_>) -> Result<Self, Invalid> {
        Faults::collect(body, |_, _| Some(Self))
    }
}

/// `POST /v1/orders/{id}/refund` and `POST /v1/payments/{id}/refund`.
#[derive(Clone, Debug, PartialEq)]
pub struct RefundBody {
    /// How much.
    pub amount: Money,
    /// Why.
    pub reason: String,
}

impl RefundBody {
    /// Reads it, or tells every fault.
    pub fn parse(body: Json<'_>) -> Result<Self, Invalid> {
        Faults::collect(body, |members, faults| {
            let amount = members.required("amount", faults, fields::money(1, AMOUNT_MAX));
            let reason = members.required("reason", faults, fields::text);
            Some(Self { amount: amount?, reason: reason? })
        })
    }
}

/// `PUT /v1/stock/{location}/{sku}`.
#[derive(Clone, Debug, PartialEq)]
pub struct CountStockBody {
    /// How many are there.
    pub on_hand: i64,
    /// Why it was counted.
    pub reason: Option<String>,
}

impl CountStockBody {
    /// Reads it, or tells every fault.
    pub fn parse(body: Json<'_>) -> Result<Self, Invalid> {
        Faults::collect(body, |members, faults| {
            let on_hand = members.required("on_hand", faults, fields::whole(0, ON_HAND_MAX));
            let reason = members.optional("reason", faults, fields::text);
            Some(Self { on_hand: on_hand?, reason: reason? })
        })
    }
}

/// `POST /v1/stock/{location}/{sku}/receive`.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceiveStockBody {
    /// How many came in.
    pub quantity: u32,
}

impl ReceiveStockBody {
    /// Reads it, or tells every fault.
    pub fn parse(body: Json<'_>) -> Result<Self, Invalid> {
        Faults::collect(body, |members, faults| {
            Some(Self { quantity: members.required("quantity", faults, quantity)? })
        })
    }
}

/// `POST /v1/stock/{location}/{sku}/adjust`.
#[derive(Clone, Debug, PartialEq)]
pub struct AdjustStockBody {
    /// By how many; not 0.
    pub delta: i64,
    /// Why.
    pub reason: String,
}

impl AdjustStockBody {
    /// Reads it, or tells every fault.
    pub fn parse(body: Json<'_>) -> Result<Self, Invalid> {
        Faults::collect(body, |members, faults| {
            let delta = members.required("delta", faults, |value, at, faults| {
                let delta = fields::whole(-QUANTITY_MAX, QUANTITY_MAX)(value, at, faults)?;
                if delta == 0 {
                    faults.add(at, "out-of-range", "must not be 0");
                    return None;
                }
                Some(delta)
            });
            let reason = members.required("reason", faults, fields::text);
            Some(Self { delta: delta?, reason: reason? })
        })
    }
}

/// `POST /v1/stock/{location}/reservations`.
#[derive(Clone, Debug, PartialEq)]
pub struct ReserveStockBody {
    /// Left out: derived from the key.
    pub reservation_id: Option<Uuid>,
    /// 1–200.
    pub lines: Vec<ReservedLine>,
    /// How long it holds, in seconds.
    pub expires_in_s: u32,
}

impl ReserveStockBody {
    /// Reads it, or tells every fault.
    pub fn parse(body: Json<'_>) -> Result<Self, Invalid> {
        Faults::collect(body, |members, faults| {
            let reservation_id = members.optional("reservation_id", faults, fields::uuid);
            let lines = members.required("lines", faults, |value, at, faults| {
                fields::list(1, LINES_MAX, reserved_line)(value, at, faults)
            });
            let seconds = members.optional("expires_in_s", faults, fields::whole(1, EXPIRES_IN_S_MAX));
            let seconds = seconds?.and_then(|seconds| u32::try_from(seconds).ok());
            Some(Self {
                reservation_id: reservation_id?,
                lines: lines?,
                expires_in_s: seconds.unwrap_or(EXPIRES_IN_S_DEFAULT),
            })
        })
    }
}

/// `POST /v1/payments`.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthorizePaymentBody {
    /// Groups payments; any UUID.
    pub order_id: Option<Uuid>,
    /// How much.
    pub amount: Money,
    /// How.
    pub means: PaymentMeans,
}

impl AuthorizePaymentBody {
    /// Reads it, or tells every fault.
    pub fn parse(body: Json<'_>) -> Result<Self, Invalid> {
        Faults::collect(body, |members, faults| {
            let order_id = members.optional("order_id", faults, fields::uuid);
            let amount = members.required("amount", faults, fields::money(1, AMOUNT_MAX));
            let method = members.required("method", faults, fields::one_of(METHODS));
            let token = members.required("token", faults, fields::text);
            Some(Self { order_id: order_id?, amount: amount?, means: PaymentMeans { method: method?, token: token? } })
        })
    }
}

/// `POST /v1/payments/{id}/capture`.
#[derive(Clone, Debug, PartialEq)]
pub struct CapturePaymentBody {
    /// How much; all if left out.
    pub amount: Option<Money>,
}

impl CapturePaymentBody {
    /// Reads it, or tells every fault.
    pub fn parse(body: Json<'_>) -> Result<Self, Invalid> {
        Faults::collect(body, |members, faults| {
            Some(Self { amount: members.optional("amount", faults, fields::money(1, AMOUNT_MAX))? })
        })
    }
}

/// `POST /v1/sagas/{id}/retry|skip|compensate|park|resume`.
#[derive(Clone, Debug, PartialEq)]
pub struct DecideSagaBody {
    /// Why.
    pub reason: String,
}

impl DecideSagaBody {
    /// Every decision as its route names it.
    pub const DECISIONS: [(&'static str, SagaDecision); 5] = [
        ("retry", SagaDecision::Retry),
        ("skip", SagaDecision::Skip),
        ("compensate", SagaDecision::Compensate),
        ("park", SagaDecision::Park),
        ("resume", SagaDecision::Resume),
    ];

    /// Reads it, or tells every fault.
    pub fn parse(body: Json<'_>) -> Result<Self, Invalid> {
        Faults::collect(body, |members, faults| {
            Some(Self { reason: members.required("reason", faults, fields::text)? })
        })
    }
}

/// The id that a body names, if it is one, whatever else is wrong with it: it says which resource is addressed.
pub fn named_id(body: Json<'_>, member: &str) -> Option<Uuid> {
    fields::plain_uuid(body.get(member)?.as_str()?)
}

const METHODS: &[(&str, Method)] = &[("card", Method::Card)];

fn means(value: Json<'_>, at: &Pointer<'_>, faults: &mut Faults) -> Option<PaymentMeans> {
    fields::object(value, at, faults, |members, faults| {
        let method = members.required("method", faults, fields::one_of(METHODS));
        let token = members.required("token", faults, fields::text);
        Some(PaymentMeans { method: method?, token: token? })
    })
}

fn quantity(value: Json<'_>, at: &Pointer<'_>, faults: &mut Faults) -> Option<u32> {
    fields::whole(1, QUANTITY_MAX)(value, at, faults).and_then(|quantity| u32::try_from(quantity).ok())
}

fn reserved_line(value: Json<'_>, at: &Pointer<'_>, faults: &mut Faults) -> Option<ReservedLine> {
    fields::object(value, at, faults, |members, faults| {
        let sku = members.required("sku", faults, fields::name(Sku::new));
        let quantity = members.required("quantity", faults, quantity);
        Some(ReservedLine { sku: sku?, quantity: quantity? })
    })
}

/// A line before it is known where it comes from.
struct AskedLine {
    sku: Sku,
    quantity: u32,
    unit_price: Money,
    location_id: Option<LocationId>,
}

fn asked_line(value: Json<'_>, at: &Pointer<'_>, faults: &mut Faults) -> Option<AskedLine> {
    fields::object(value, at, faults, |members: &mut Members<'_>, faults| {
        let sku = members.required("sku", faults, fields::name(Sku::new));
        let quantity = members.required("quantity", faults, quantity);
        let unit_price = members.required("unit_price", faults, fields::money(0, AMOUNT_MAX));
        let location_id = members.optional("location_id", faults, fields::name(LocationId::new));
        Some(AskedLine { sku: sku?, quantity: quantity?, unit_price: unit_price?, location_id: location_id? })
    })
}

/// The lines of an order: one currency, that of the first line that names a known one, and a total below 2⁵³.
fn order_lines(value: Json<'_>, at: &Pointer<'_>, place: Option<LocationId>, faults: &mut Faults) -> Option<Vec<Line>> {
    one_currency(value, at, faults);
    let asked = fields::list(1, LINES_MAX, asked_line)(value, at, faults)?;
    let total: i128 = asked.iter().map(|line| i128::from(line.quantity) * i128::from(line.unit_price.amount)).sum();
    if total >= i128::from(TOTAL_LIMIT) {
        faults.add(at, "out-of-range", format!("the total must be below {TOTAL_LIMIT}; is {total}"));
        return None;
    }
    asked
        .into_iter()
        .map(|line| {
            let location_id = line.location_id.or_else(|| place.clone())?;
            Some(Line { sku: line.sku, quantity: line.quantity, unit_price: line.unit_price, location_id })
        })
        .collect()
}

/// Told beside whatever else is wrong with the lines, so it looks at the raw value.
fn one_currency(value: Json<'_>, at: &Pointer<'_>, faults: &mut Faults) {
    let currencies = value.items().enumerate().filter_map(|(index, line)| {
        let code = line.get("unit_price")?.get("currency")?.as_str()?;
        code.parse::<crate::money::Currency>().ok().map(|currency| (index, currency))
    });
    let mut first = None;
    for (index, currency) in currencies.take(LINES_MAX) {
        let wanted = *first.get_or_insert(currency);
        if currency != wanted {
            let (line, price) = (at.item(index), "unit_price");
            faults.add(
                &line.member(price).member("currency"),
                "mixed-currency",
                format!("the order is in {wanted}; this line is in {currency}"),
            );
        }
    }
}

#[cfg(test)]
mod tests;
