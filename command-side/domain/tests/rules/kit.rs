//! Words that the tests share: who, what and where; and a gateway with books of its own.

use std::collections::BTreeMap;

use domain::Shop;
use domain::invariants::{Checker, Report};
use engine::harness::{Folded, World};
use engine::message::CommandId;
use engine::stream::StreamName;
use engine::time::Timestamp;
use schemas::command::{GatewayAnswer, GatewayCall, PaymentMeans, ReservationVerb, ShopCommand};
use schemas::event::order::{CancelReason, Line};
use schemas::event::payment::Method;
use schemas::event::reservation::ReservedLine;
use schemas::id::{CustomerId, LocationId, OrderId, PaymentId, ReservationId, Sku, stock_stream};
use schemas::ledger::LedgerRow;
use schemas::money::{Currency, Money};
use schemas::resource::order::Order;
use schemas::resource::payment::Payment;
use schemas::resource::reservation::ReservationStatus;
use schemas::resource::saga::Saga;
use uuid::Uuid;

pub(crate) const BEANS: &str = "beans";
pub(crate) const CUPS: &str = "cups";
pub(crate) const SHOP: &str = "shop-1";
pub(crate) const DEPOT: &str = "depot";

pub(crate) fn location(name: &str) -> LocationId {
    LocationId::new(name).unwrap()
}

pub(crate) fn sku(name: &str) -> Sku {
    Sku::new(name).unwrap()
}

pub(crate) fn stock(at: &str, what: &str) -> StreamName {
    stock_stream(&location(at), &sku(what))
}

pub(crate) fn order_id(number: u128) -> OrderId {
    OrderId(Uuid::from_u128(number << 64 | 0x00de))
}

pub(crate) fn payment_id(number: u128) -> PaymentId {
    PaymentId(Uuid::from_u128(number << 64 | 0x9a9))
}

pub(crate) fn reservation_id(number: u128) -> ReservationId {
    ReservationId(Uuid::from_u128(number << 64 | 0x7e5))
}

pub(crate) fn command_id(number: u128) -> CommandId {
    CommandId(Uuid::from_u128(number << 64 | 0xc0))
}

pub(crate) fn eur(amount: i64) -> Money {
    Money::new(amount, "EUR".parse::<Currency>().unwrap())
}

pub(crate) fn usd(amount: i64) -> Money {
    Money::new(amount, "USD".parse::<Currency>().unwrap())
}

pub(crate) fn card(token: &str) -> PaymentMeans {
    PaymentMeans { method: Method::Card, token: token.to_owned() }
}

pub(crate) fn line(at: &str, what: &str, quantity: u32, price: i64) -> Line {
    Line { sku: sku(what), quantity, unit_price: eur(price), location_id: location(at) }
}

pub(crate) fn pieces(what: &str, quantity: u32) -> ReservedLine {
    ReservedLine { sku: sku(what), quantity }
}

pub(crate) fn place(id: OrderId, lines: Vec<Line>, token: Option<&str>) -> ShopCommand {
    ShopCommand::PlaceOrder {
        order_id: id,
        customer_id: CustomerId::new("c-17").unwrap(),
        location_id: location(SHOP),
        lines,
        payment: token.map(card),
    }
}

pub(crate) fn cancel(order_id: OrderId) -> ShopCommand {
    ShopCommand::CancelOrder { order_id, reason: CancelReason::Customer, detail: None }
}

pub(crate) fn count(at: &str, what: &str, on_hand: i64) -> ShopCommand {
    ShopCommand::CountStock { location_id: location(at), sku: sku(what), on_hand, reason: None }
}

pub(crate) fn reserve(id: ReservationId, lines: Vec<ReservedLine>) -> ShopCommand {
    reserve_for(None, id, lines)
}

pub(crate) fn reserve_for(order_id: Option<OrderId>, id: ReservationId, lines: Vec<ReservedLine>) -> ShopCommand {
    ShopCommand::ReserveStock { location_id: location(SHOP), reservation_id: id, lines, expires_in_s: 900, order_id }
}

pub(crate) fn verb(id: ReservationId, lines: Vec<ReservedLine>, order_id: Option<OrderId>) -> ReservationVerb {
    ReservationVerb { location_id: location(SHOP), reservation_id: id, lines, order_id }
}

/// A payment gateway as its customers hope for: what is asked under one key happens once, and a void bars the payment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gateway {
    answers: BTreeMap<CommandId, GatewayAnswer>,
    rows: BTreeMap<PaymentId, LedgerRow>,
    barred: BTreeMap<PaymentId, bool>,
    tokens: BTreeMap<PaymentId, String>,
    /// Nobody answers before.
    pub(crate) down_until: Timestamp,
    /// Refuses every call of these verbs, as no gateway should.
    pub(crate) refuses: Vec<&'static str>,
}

impl Gateway {
    pub(crate) fn ledger(&self) -> Vec<LedgerRow> {
        self.rows.values().cloned().collect()
    }

    fn judge(&mut self, call: &GatewayCall, now: Timestamp) -> GatewayAnswer {
        let no = |reason: &str| GatewayAnswer::Refused { reason: reason.to_owned() };
        let (id, verb) = match call {
            GatewayCall::Authorize { payment_id, .. } => (*payment_id, "authorize"),
            GatewayCall::Capture { payment_id, .. } => (*payment_id, "capture"),
            GatewayCall::Void { payment_id, .. } => (*payment_id, "void"),
            GatewayCall::Refund { payment_id, .. } => (*payment_id, "refund"),
        };
        if self.refuses.contains(&verb) {
            return no("out_of_order");
        }
        let barred = self.barred.get(&id).copied().unwrap_or(false);
        let row = self.rows.entry(id).or_insert(LedgerRow {
            payment_id: id,
            key: None,
            authorized: 0,
            captured: 0,
            voided: 0,
            refunded: 0,
            currency: None,
            calls: 0,
        });
        row.calls += 1;
        match call {
            GatewayCall::Authorize { amount, token, .. } => {
                self.tokens.insert(id, token.clone());
                if barred {
                    return no("voided");
                }
                if token == "tok_declined" {
                    return no("declined");
                }
                row.authorized = amount.amount;
                // A week.
                GatewayAnswer::Done { expires_at: Some(now.plus_ms(604_800_000)) }
            }
            GatewayCall::Capture { amount, .. } => {
                if barred || self.tokens.get(&id).is_some_and(|token| token == "tok_capture_refused") {
                    return no("voided");
                }
                assert!(row.captured == 0 && amount.amount <= row.authorized, "captured twice or too much");
                row.captured = amount.amount;
                row.voided = row.authorized - amount.amount;
                GatewayAnswer::Done { expires_at: None }
            }
            GatewayCall::Void { .. } => {
                assert_eq!(row.captured, 0, "nobody voids what was captured");
                row.voided = row.authorized;
                self.barred.insert(id, true);
                GatewayAnswer::Done { expires_at: None }
            }
            GatewayCall::Refund { amount, .. } => {
                row.refunded += amount.amount;
                assert!(row.refunded <= row.captured, "more refunded than captured");
                GatewayAnswer::Done { expires_at: None }
            }
        }
    }
}

impl engine::harness::Outside<Shop> for Gateway {
    fn call(&mut self, key: CommandId, call: &GatewayCall, now: Timestamp) -> Result<GatewayAnswer, String> {
        if now < self.down_until {
            return Err("connection refused".to_owned());
        }
        if let Some(answer) = self.answers.get(&key) {
            return Ok(answer.clone());
        }
        let answer = self.judge(call, now);
        self.answers.insert(key, answer.clone());
        Ok(answer)
    }
}

pub(crate) type ShopWorld = World<Shop, Gateway>;

/// A shop that has 10 of everything at both places.
pub(crate) fn open_shop() -> ShopWorld {
    let mut world = World::new(Shop, Gateway::default());
    for (number, (at, what)) in [(SHOP, BEANS), (SHOP, CUPS), (DEPOT, BEANS), (DEPOT, CUPS)].into_iter().enumerate() {
        world.submit(command_id(9_000 + number as u128), count(at, what, 10)).unwrap();
    }
    world
}

pub(crate) fn check(folded: &Folded<Shop>, ledger: Option<&[LedgerRow]>) -> Report {
    let mut checker = Checker::new();
    folded.history().recorded().iter().for_each(|recorded| checker.observe(recorded));
    checker.finish(ledger)
}

/// No invariant is violated, the gateway's books included.
#[track_caller]
pub(crate) fn all_is_well(world: &mut ShopWorld) {
    let ledger = world.outside().ledger();
    let report = check(world.folded(), Some(&ledger));
    assert_eq!(report.violations, [], "violated");
}

pub(crate) fn the_order(world: &ShopWorld, id: OrderId) -> &Order {
    &world.state(&id.stream()).unwrap().order().unwrap().shown
}

pub(crate) fn the_saga(world: &ShopWorld, id: OrderId) -> &Saga {
    &world.state(&id.checkout_stream()).unwrap().checkout().unwrap().shown
}

pub(crate) fn the_payment(world: &ShopWorld, id: PaymentId) -> &Payment {
    &world.state(&id.stream()).unwrap().payment().unwrap().shown
}

/// On hand and reserved.
pub(crate) fn the_stock(world: &ShopWorld, at: &str, what: &str) -> (i64, i64) {
    let shown = &world.state(&stock(at, what)).unwrap().stock().unwrap().shown;
    (shown.on_hand, shown.reserved)
}

pub(crate) fn the_reservation(world: &ShopWorld, id: OrderId, at: &str) -> Option<ReservationStatus> {
    let stream = id.reservation_at(&location(at)).stream_at(&location(at));
    Some(world.state(&stream)?.reservation().unwrap().shown.status)
}
