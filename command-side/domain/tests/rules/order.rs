//! Orders: placed, confirmed, shipped, delivered, refunded, called off.

use domain::Shop;
use engine::harness::{Given, given};
use engine::stream::StreamName;
use schemas::command::ShopCommand;
use schemas::event::ShopEvent;
use schemas::event::checkout::{CheckoutPlanned, Leg};
use schemas::event::order::*;
use schemas::event::payment::*;
use schemas::id::{CustomerId, OrderId};
use schemas::money::Money;

use crate::kit::*;

fn id() -> OrderId {
    order_id(1)
}

fn lines() -> Vec<Line> {
    vec![line(SHOP, BEANS, 2, 1_999), line(DEPOT, BEANS, 1, 500), line(SHOP, CUPS, 3, 0)]
}

fn at_order(event: impl Into<ShopEvent>) -> (StreamName, ShopEvent) {
    (id().stream(), event.into())
}

fn at_payment(event: impl Into<ShopEvent>) -> (StreamName, ShopEvent) {
    (id().payment().stream(), event.into())
}

fn placed() -> (StreamName, ShopEvent) {
    let customer_id = CustomerId::new("c-17").unwrap();
    at_order(OrderPlaced {
        order_id: id(),
        customer_id,
        location_id: location(SHOP),
        lines: lines(),
        total: eur(4_498),
    })
}

fn started() -> [(StreamName, ShopEvent); 2] {
    let leg =
        |at: &str, lines| Leg { location_id: location(at), reservation_id: id().reservation_at(&location(at)), lines };
    let plan = CheckoutPlanned {
        order_id: id(),
        legs: vec![leg(SHOP, vec![pieces(BEANS, 2), pieces(CUPS, 3)]), leg(DEPOT, vec![pieces(BEANS, 1)])],
        payment_id: id().payment(),
        amount: eur(4_498),
        method: Method::Card,
        token: "tok_ok".to_owned(),
    };
    [at_order(CheckoutStarted { saga_id: id(), payment_id: id().payment() }), (id().checkout_stream(), plan.into())]
}

fn start() -> ShopCommand {
    ShopCommand::StartCheckout { order_id: id(), payment: card("tok_ok") }
}

fn ship() -> ShopCommand {
    ShopCommand::ShipOrder { order_id: id(), carrier: Some("mule".to_owned()), tracking: None }
}

fn deliver() -> ShopCommand {
    ShopCommand::DeliverOrder { order_id: id() }
}

fn refund(amount: Money) -> ShopCommand {
    ShopCommand::RefundOrder { order_id: id(), amount, reason: "late".to_owned() }
}

/// Paid and confirmed; its payment is at version 4.
fn confirmed() -> Given<Shop> {
    let amount = eur(4_498);
    let requested = PaymentRequested {
        order_id: Some(id()),
        amount,
        method: Method::Card,
        token: "tok_ok".to_owned(),
        checkout: true,
    };
    given(Shop, [placed()]).and(started()).and([
        at_payment(requested),
        at_payment(PaymentAuthorized { expires_at: engine::harness::START.plus_ms(604_800_000) }),
        at_payment(PaymentCaptureRequested { amount }),
        at_payment(PaymentCaptured { amount }),
        at_order(OrderConfirmed { paid: amount }),
    ])
}

#[test]
fn placed_without_payment_it_only_waits() {
    let given = given(Shop, []).when(place(id(), lines(), None)).then([placed()]);
    given.when(start()).then(started()).when(start()).then_refused("order-not-payable");
}

#[test]
fn placed_with_payment_its_checkout_begins_in_the_same_record() {
    given(Shop, []).when(place(id(), lines(), Some("tok_ok"))).then([vec![placed()], started().into()].concat());
}

#[test]
fn an_order_is_placed_once() {
    given(Shop, [placed()]).when(place(id(), lines(), None)).then_refused("order-already-exists");
}

#[test]
fn its_total_fits_a_json_number() {
    let dear = |quantity| vec![line(SHOP, BEANS, quantity, 1_000_000_000_000)];
    given(Shop, []).when(place(id(), dear(9_008), None)).then_invalid(&["/lines"]);
    given(Shop, []).when(place(id(), dear(9_007), None)).then_accepted();
}

#[test]
fn what_is_not_there_is_not_found() {
    for command in [start(), cancel(id()), ship(), deliver(), refund(eur(1))] {
        given(Shop, []).when(command).then_refused("order-not-found");
    }
}

#[test]
fn an_order_that_nobody_pays_for_is_cancelled_alone() {
    let cancelled = OrderCancelled { reason: CancelReason::Customer, detail: None };
    given(Shop, [placed()])
        .when(cancel(id()))
        .then([at_order(cancelled)])
        .when(cancel(id()))
        .then_refused("order-not-cancellable")
        .when(start())
        .then_refused("order-not-payable")
        .when(ship())
        .then_refused("order-not-shippable");
}

#[test]
fn only_confirmed_orders_are_shipped_and_only_shipped_ones_delivered() {
    given(Shop, [placed()]).when(ship()).then_refused("order-not-shippable");
    confirmed()
        .when(deliver())
        .then_refused("order-not-deliverable")
        .when(ship())
        .then([at_order(OrderShipped { carrier: Some("mule".to_owned()), tracking: None })])
        .when(ship())
        .then_refused("order-not-shippable")
        .when(cancel(id()))
        .then_refused("order-not-cancellable")
        .when(deliver())
        .then([at_order(OrderDelivered {})])
        .when(deliver())
        .then_refused("order-not-deliverable")
        .when(cancel(id()))
        .then_refused("order-not-cancellable");
}

#[test]
fn refunds_are_told_to_order_and_payment_and_never_exceed_what_was_paid() {
    let reason = "late".to_owned();
    let asked = |amount| {
        [
            at_order(OrderRefundRequested { amount: eur(amount), reason: reason.clone(), via: Via::Order }),
            at_payment(PaymentRefundRequested { amount: eur(amount), reason: reason.clone(), via: Via::Order }),
        ]
    };
    let done = ShopCommand::RecordGateway {
        payment_id: id().payment(),
        checkout_of: Some(id()),
        intent: 5,
        answer: schemas::command::GatewayAnswer::Done { expires_at: None },
    };
    let given = confirmed()
        .when(refund(usd(1)))
        .then_invalid(&["/amount/currency"])
        .when(refund(eur(4_499)))
        .then_refused("refund-exceeds-paid")
        .when(refund(eur(4_000)))
        .then(asked(4_000))
        .when(refund(eur(499)))
        .then_refused("refund-exceeds-paid")
        .when(done)
        .then([
            at_payment(PaymentRefunded { intent: 5, amount: eur(4_000), reason: reason.clone() }),
            at_order(OrderRefunded { amount: eur(4_000), reason: reason.clone() }),
        ]);
    given.when(refund(eur(498))).then(asked(498)).when(refund(eur(1))).then_refused("refund-exceeds-paid");
}

#[test]
fn a_refund_asked_of_its_payment_shows_on_the_order() {
    let (amount, reason) = (eur(100), "late".to_owned());
    let ask = ShopCommand::RefundPayment {
        payment_id: id().payment(),
        checkout_of: Some(id()),
        amount,
        reason: reason.clone(),
    };
    confirmed()
        .when(ask)
        .then([
            at_payment(PaymentRefundRequested { amount, reason: reason.clone(), via: Via::Payment }),
            at_order(OrderRefundRequested { amount, reason, via: Via::Payment }),
        ])
        .when(refund(eur(4_399)))
        .then_refused("refund-exceeds-paid");
}

#[test]
fn nothing_is_given_back_of_what_was_not_paid() {
    given(Shop, [placed()]).when(refund(eur(1))).then_refused("order-not-refundable");
}

#[test]
fn its_checkouts_payment_obeys_only_the_checkout() {
    let payment_id = id().payment();
    confirmed()
        .when(ShopCommand::CapturePayment { payment_id, amount: None })
        .then_refused("belongs-to-order")
        .when(ShopCommand::VoidPayment { payment_id })
        .then_refused("belongs-to-order");
}

#[test]
fn creators_and_refunds_are_remembered_where_they_were_asked() {
    let given = given(Shop, []).when_asked_as(command_id(1), place(id(), lines(), None)).then_accepted();
    let given = given.when_asked_as(command_id(2), start()).then_accepted();
    assert_eq!(given.remembers(&id().stream(), command_id(1)).map(|version| version.0), Some(1));
    assert_eq!(given.remembers(&id().stream(), command_id(2)).map(|version| version.0), Some(2));
    assert_eq!(given.remembers(&id().checkout_stream(), command_id(2)), None);
    let given = confirmed().when_asked_as(command_id(3), refund(eur(1))).then_accepted();
    assert!(given.remembers(&id().stream(), command_id(3)).is_some());
    assert_eq!(given.remembers(&id().payment().stream(), command_id(3)), None);
}
