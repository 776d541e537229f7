//! Payments that stand alone: promised, cashed, given up, given back, run out.

use domain::Shop;
use domain::payment::recording;
use engine::harness::{Given, START, given};
use engine::message::CommandId;
use engine::saga::{Ask, Heard, Reactor};
use engine::stream::StreamName;
use schemas::command::{GatewayAnswer, GatewayCall, ShopCommand};
use schemas::event::ShopEvent;
use schemas::event::payment::*;
use schemas::id::PaymentId;
use schemas::money::Money;
use schemas::resource::payment::{InFlight, PaymentStatus};

use crate::kit::*;

fn id() -> PaymentId {
    payment_id(1)
}

fn stream() -> StreamName {
    id().stream()
}

fn at(event: impl Into<ShopEvent>) -> [(StreamName, ShopEvent); 1] {
    [(stream(), event.into())]
}

fn ask() -> ShopCommand {
    ShopCommand::AuthorizePayment {
        payment_id: id(),
        order_id: Some(order_id(5)),
        amount: eur(1_999),
        means: card("tok_ok"),
    }
}

fn requested() -> PaymentRequested {
    let (order_id, method) = (Some(order_id(5)), Method::Card);
    PaymentRequested { order_id, amount: eur(1_999), method, token: "tok_ok".to_owned(), checkout: false }
}

fn pending() -> Given<Shop> {
    given(Shop, at(requested()))
}

fn authorized() -> Given<Shop> {
    pending().and(at(PaymentAuthorized { expires_at: START.plus_ms(3_600_000) }))
}

fn captured(amount: i64) -> Given<Shop> {
    let asked = at(PaymentCaptureRequested { amount: eur(amount) });
    authorized().and(asked).and(at(PaymentCaptured { amount: eur(amount) }))
}

fn capture(amount: Option<Money>) -> ShopCommand {
    ShopCommand::CapturePayment { payment_id: id(), amount }
}

fn void() -> ShopCommand {
    ShopCommand::VoidPayment { payment_id: id() }
}

fn refund(amount: Money) -> ShopCommand {
    let reason = "late".to_owned();
    ShopCommand::RefundPayment { payment_id: id(), checkout_of: None, amount, reason }
}

fn answer(intent: u64, answer: GatewayAnswer) -> ShopCommand {
    ShopCommand::RecordGateway { payment_id: id(), checkout_of: None, intent, answer }
}

fn done() -> GatewayAnswer {
    GatewayAnswer::Done { expires_at: None }
}

fn no(reason: &str) -> GatewayAnswer {
    GatewayAnswer::Refused { reason: reason.to_owned() }
}

fn refund_requested(amount: i64) -> PaymentRefundRequested {
    PaymentRefundRequested { amount: eur(amount), reason: "late".to_owned(), via: Via::Payment }
}

fn shown(given: &Given<Shop>) -> schemas::resource::payment::Payment {
    given.state(&stream()).unwrap().payment().unwrap().shown.clone()
}

/// Keys and calls that are pending.
fn calls(given: &Given<Shop>) -> Vec<(CommandId, GatewayCall)> {
    let pending = given.owes(&stream()).pending.into_iter();
    pending
        .map(|pending| match pending.ask {
            Ask::Call(call) => (pending.id, call),
            Ask::Command(command) => panic!("{command:?}"),
        })
        .collect()
}

#[test]
fn the_gateway_is_asked_only_after_the_intent_is_recorded() {
    let given = given(Shop, []).when(ask()).then(at(requested()));
    let call = GatewayCall::Authorize { payment_id: id(), amount: eur(1_999), token: "tok_ok".to_owned() };
    assert_eq!(calls(&given), [(id().gateway_key("authorize", 1), call)]);
    assert_eq!(shown(&given).in_flight, Some(InFlight::Authorize));
    given.when(ask()).then_nothing();
}

#[test]
fn its_answer_promises_or_declines() {
    let expires_at = START.plus_ms(5_000);
    let given = pending().when(answer(1, GatewayAnswer::Done { expires_at: Some(expires_at) }));
    let given = given.then(at(PaymentAuthorized { expires_at }));
    assert_eq!(calls(&given), []);
    assert_eq!((shown(&given).status, shown(&given).in_flight), (PaymentStatus::Authorized, None));
    let declined = pending().when(answer(1, no("insufficient_funds")));
    declined
        .then(at(PaymentDeclined { reason: "insufficient_funds".to_owned() }))
        .when(capture(None))
        .then_refused("payment-not-capturable")
        .when(void())
        .then_refused("payment-not-voidable");
}

#[test]
fn an_answer_that_comes_twice_or_late_changes_nothing() {
    authorized().when(answer(1, done())).then_nothing().when(answer(1, no("declined"))).then_nothing();
    // Given up while the promise was on its way: it is worth nothing.
    pending()
        .when(void())
        .then(at(PaymentVoidRequested {}))
        .when(answer(1, done()))
        .then_nothing()
        .when(answer(2, done()))
        .then(at(PaymentVoided {}))
        .when(answer(1, done()))
        .then_nothing();
}

#[test]
fn it_is_captured_once() {
    let given = authorized().when(capture(None)).then(at(PaymentCaptureRequested { amount: eur(1_999) }));
    let call = GatewayCall::Capture { payment_id: id(), amount: eur(1_999) };
    assert_eq!(calls(&given), [(id().gateway_key("capture", 3), call)]);
    given
        .when(capture(None))
        .then_nothing()
        .when(void())
        .then_refused("payment-not-voidable")
        .when(answer(3, done()))
        .then(at(PaymentCaptured { amount: eur(1_999) }))
        .when(capture(Some(eur(1))))
        .then_nothing()
        .when(void())
        .then_refused("payment-not-voidable");
}

#[test]
fn less_can_be_captured_but_not_more_and_nothing_else() {
    authorized()
        .when(capture(Some(eur(2_000))))
        .then_invalid(&["/amount"])
        .when(capture(Some(usd(1))))
        .then_invalid(&["/amount/currency"])
        .when(capture(Some(eur(500))))
        .then(at(PaymentCaptureRequested { amount: eur(500) }));
}

#[test]
fn what_is_not_promised_cannot_be_captured() {
    pending().when(capture(None)).then_refused("payment-not-capturable");
    authorized().at(START.plus_ms(3_600_000)).when(capture(None)).then_refused("payment-not-capturable");
    given(Shop, [])
        .when(capture(None))
        .then_refused("payment-not-found")
        .when(void())
        .then_refused("payment-not-found")
        .when(refund(eur(1)))
        .then_refused("payment-not-found");
}

#[test]
fn a_capture_refused_may_be_tried_again_under_another_key() {
    let given = authorized().when(capture(None)).then_accepted();
    let given = given.when(answer(3, no("later"))).then(at(PaymentCaptureFailed { reason: "later".to_owned() }));
    assert_eq!(given.owes(&stream()).timer.unwrap().armed_at.0, 4);
    let given = given.when(capture(None)).then_accepted();
    assert_eq!(calls(&given)[0].0, id().gateway_key("capture", 5));
}

#[test]
fn it_is_given_up_once() {
    let given = authorized().when(void()).then(at(PaymentVoidRequested {}));
    // With its token: the gateway may never have heard of it.
    let call = GatewayCall::Void { payment_id: id(), token: "tok_ok".to_owned() };
    assert_eq!(calls(&given), [(id().gateway_key("void", 3), call)]);
    given
        .when(void())
        .then_nothing()
        .when(capture(None))
        .then_refused("payment-not-capturable")
        .when(answer(3, done()))
        .then(at(PaymentVoided {}))
        .when(void())
        .then_nothing();
    authorized()
        .when(void())
        .then_accepted()
        .when(answer(3, no("odd")))
        .then(at(PaymentVoidFailed { reason: "odd".to_owned() }))
        .when(void())
        .then(at(PaymentVoidRequested {}));
}

#[test]
fn refunds_never_exceed_the_capture_and_count_from_their_request_on() {
    captured(1_000)
        .when(refund(usd(1)))
        .then_invalid(&["/amount/currency"])
        .when(refund(eur(1_001)))
        .then_refused("refund-exceeds-paid")
        .when(refund(eur(600)))
        .then(at(refund_requested(600)))
        .when(refund(eur(401)))
        .then_refused("refund-exceeds-paid")
        .when(refund(eur(400)))
        .then(at(refund_requested(400)))
        .when(answer(6, done()))
        .then(at(PaymentRefunded { intent: 6, amount: eur(400), reason: "late".to_owned() }))
        .when(answer(5, no("odd")))
        .then(at(PaymentRefundFailed { intent: 5, amount: eur(600), reason: "odd".to_owned() }))
        .when(refund(eur(601)))
        .then_refused("refund-exceeds-paid")
        .when(refund(eur(600)))
        .then_accepted();
    authorized().when(refund(eur(1))).then_refused("payment-not-refundable");
}

#[test]
fn of_two_equal_refunds_each_answer_finds_its_own() {
    let given = captured(1_000).when(refund(eur(100))).then_accepted().when(refund(eur(100))).then_accepted();
    let given = given.when(answer(6, done())).then_accepted();
    let left = calls(&given);
    assert_eq!(left.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [id().gateway_key("refund", 5)]);
}

#[test]
fn an_authorization_that_nobody_answers_is_given_up_after_five_minutes() {
    let given = pending();
    let timer = given.owes(&stream()).timer.unwrap();
    assert_eq!((timer.due, timer.armed_at.0), (START.plus_ms(300_000), 1));
    let state = given.state(&stream()).unwrap().clone();
    let fire = Shop.fire(&stream(), &state, &timer);
    let given = given.when(fire.clone()).then(at(PaymentVoidRequested {}));
    assert_eq!(given.owes(&stream()).timer, None);
    given.when(fire.clone()).then_nothing();
    // Fired just as the answer came: the promise stands.
    authorized().when(fire).then_nothing();
}

#[test]
fn a_promise_runs_out_unless_it_is_cashed_or_given_up() {
    let given = authorized();
    let timer = given.owes(&stream()).timer.unwrap();
    assert_eq!((timer.due, timer.armed_at.0), (START.plus_ms(3_600_000), 2));
    let fire = Shop.fire(&stream(), given.state(&stream()).unwrap(), &timer);
    let capturing = given.clone().when(capture(None)).then_accepted();
    assert_eq!(capturing.owes(&stream()).timer, None);
    capturing.when(fire.clone()).then_nothing();
    given.clone().when(void()).then_accepted().when(fire.clone()).then_nothing();
    given
        .when(fire.clone())
        .then(at(PaymentAuthorizationExpired {}))
        .when(fire)
        .then_nothing()
        .when(capture(None))
        .then_refused("payment-not-capturable");
}

#[test]
fn tries_that_reached_nobody_are_not_recorded() {
    let given = pending();
    let errand = given.owes(&stream()).pending.remove(0);
    let state = given.state(&stream()).unwrap();
    assert_eq!(Shop.heard(&stream(), state, &errand, &Heard::Unreachable("down".to_owned()), START), None);
    let unreachable = GatewayAnswer::Unreachable { attempt: 1, error: "down".to_owned() };
    given.clone().when(answer(1, unreachable)).then_nothing();
}

#[test]
fn an_answer_heard_by_its_key_is_recorded_under_an_id_that_follows_from_it() {
    let given = authorized();
    let key = id().gateway_key("authorize", 1);
    let state = given.state(&stream()).unwrap().payment().unwrap();
    // Also the second time, when nothing is open any more.
    assert_eq!(recording(state, key, done()), Some((key.derive("outcome"), answer(1, done()))));
    assert_eq!(recording(state, key.derive("other"), done()), None);
}

#[test]
fn creators_refunds_timers_and_answers_are_remembered() {
    let given = given(Shop, []).when_asked_as(command_id(1), ask()).then_accepted();
    let given = given.when_asked_as(command_id(2), answer(1, done())).then_accepted();
    let given = given.when_asked_as(command_id(3), capture(None)).then_accepted();
    let given = given.when_asked_as(command_id(4), answer(3, done())).then_accepted();
    let given = given.when_asked_as(command_id(5), refund(eur(1))).then_accepted();
    let remembered = |number| given.remembers(&stream(), command_id(number)).map(|version| version.0);
    assert_eq!([1, 2, 3, 4, 5].map(remembered), [Some(1), Some(2), None, Some(4), Some(5)]);
}
