//! The judge is judged: a small honest story in which it finds nothing, and then that story with one lie at a time, each of
//! which it must find under the right name. A judge that sees nothing would pass every run.

use std::collections::BTreeMap;

use kit::Reply;
use kit::shop::{card, count, euros, line, order};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::history::{Answer, Command, Verb};
use crate::judge::{Evidence, Row, judge};

const ORDER: &str = "0198aaaa-0000-7000-8000-000000000001";
const PAYMENT: &str = "0198aaaa-0000-7000-8000-000000000002";
const RESERVATION: &str = "0198aaaa-0000-7000-8000-000000000003";
/// The client's keys: a count, an order, a refused shipping.
const KEYS: [Uuid; 3] = [Uuid::from_u128(0xA1), Uuid::from_u128(0xA2), Uuid::from_u128(0xA3)];

fn event(position: &str, index: u64, stream: &str, version: u64, kind: &str, command: Uuid, data: Value) -> Value {
    json!({
        "type": kind, "stream": stream, "version": version, "position": position, "index": index,
        "command_id": command, "data": data,
    })
}

fn answered(status: u16, position: &str, version: u64, body: Value) -> Answer {
    let mut body = body;
    let mut headers = vec![("docket-position".to_owned(), position.to_owned())];
    if status < 300 {
        body["version"] = json!(version);
        headers.push(("etag".to_owned(), format!("\"{version}\"")));
    }
    Answer::Definite(Reply { status, headers, text: body.to_string(), body })
}

/// One order for two of a hundred, paid, by a client who also shipped it too early and was refused.
fn honest() -> Evidence {
    let own = |step: u128| Uuid::from_u128(0xB0 + step);
    let (order_stream, saga) = (format!("order-{ORDER}"), format!("checkout-{ORDER}"));
    let (stock, reserved) = ("stock-shop-1~beans", format!("reservation-shop-1~{RESERVATION}"));
    let paid_by = format!("payment-{PAYMENT}");
    let lines = json!([{"sku": "beans", "quantity": 2, "unit_price": euros(500), "location_id": "shop-1"}]);
    let moved = json!({"reservation_id": RESERVATION, "quantity": 2, "order_id": ORDER});
    let requested = json!({"order_id": ORDER, "amount": euros(1_000), "method": "card", "token": "tok_ok"});
    let events = vec![
        event("1:1", 0, stock, 1, "StockCounted", KEYS[0], json!({"on_hand": 100})),
        event(
            "2:1",
            0,
            &order_stream,
            1,
            "OrderPlaced",
            KEYS[1],
            json!({"customer_id": "c-1", "location_id": "shop-1", "lines": lines}),
        ),
        event("2:1", 1, &order_stream, 2, "CheckoutStarted", KEYS[1], json!({"saga_id": ORDER, "payment_id": PAYMENT})),
        event("2:1", 2, &saga, 1, "CheckoutPlanned", KEYS[1], json!({"token": "tok_ok"})),
        event(
            "1:2",
            0,
            &reserved,
            1,
            "ReservationMade",
            own(1),
            json!({"lines": [{"sku": "beans", "quantity": 2}], "order_id": ORDER}),
        ),
        event("1:2", 1, stock, 2, "StockReserved", own(1), moved.clone()),
        event("2:2", 0, &paid_by, 1, "PaymentRequested", own(2), requested),
        event("2:3", 0, &paid_by, 2, "PaymentAuthorized", own(3), json!({})),
        event("1:3", 0, &reserved, 2, "ReservationCommitted", own(4), json!({})),
        event("1:3", 1, stock, 3, "StockCommitted", own(4), moved),
        event("2:4", 0, &paid_by, 3, "PaymentCaptureRequested", own(5), json!({"amount": euros(1_000)})),
        event("2:5", 0, &paid_by, 4, "PaymentCaptured", own(6), json!({"amount": euros(1_000)})),
        event("2:5", 1, &order_stream, 3, "OrderConfirmed", own(6), json!({"paid": euros(1_000)})),
        event("2:6", 0, &saga, 2, "CheckoutCompleted", own(7), json!({})),
    ];
    let mut counted = Command::new(KEYS[0], Verb::Count, "/v1/stock/shop-1/beans", count(100));
    counted.answers = vec![answered(201, "1:1", 1, json!({"on_hand": 100}))];
    let body = order("c-1", "shop-1", vec![line("beans", 2, 500)], Some("tok_ok"));
    let mut placed = Command::new(KEYS[1], Verb::Place, "/v1/orders", body);
    let first = answered(201, "2:1", 2, json!({"order_id": ORDER}));
    placed.answers = vec![Answer::Unknown("no answer".to_owned()), first.clone(), first];
    let mut shipped = Command::new(KEYS[2], Verb::Ship, format!("/v1/orders/{ORDER}/ship"), json!({}));
    shipped.answers = vec![answered(409, "2:7", 0, json!({"code": "order-not-shippable"}))];
    let row = |version: u64, mut body: Value| {
        body["version"] = json!(version);
        Row { etag: Some(format!("\"{version}\"")), body }
    };
    let rows = BTreeMap::from([
        (
            order_stream,
            row(
                3,
                json!({
                    "status": "confirmed", "customer_id": "c-1", "total": euros(1_000), "lines": [{}], "paid": euros(1_000),
                    "refunded": euros(0), "payment_id": PAYMENT, "saga_id": ORDER, "cancellation": null,
                }),
            ),
        ),
        (stock.to_owned(), row(3, json!({"on_hand": 98, "reserved": 0, "available": 98}))),
        (reserved, row(2, json!({"status": "committed"}))),
        (
            paid_by,
            row(
                4,
                json!({
                    "status": "captured", "authorized": euros(1_000), "captured": euros(1_000), "refunded": euros(0),
                    "in_flight": null, "method": card("tok_ok"),
                }),
            ),
        ),
        (saga, row(2, json!({"state": "completed"}))),
    ]);
    let listed = rows.iter().map(|(stream, row)| (stream.clone(), row.body.clone()));
    let listed = listed.filter(|(stream, _)| !stream.starts_with("payment-") && !stream.starts_with("reservation-"));
    Evidence {
        history: vec![counted, placed, shipped],
        events,
        ledger: vec![
            json!({"payment_id": PAYMENT, "authorized": 1_000, "captured": 1_000, "voided": 0, "refunded": 0}),
        ],
        listed: listed.collect(),
        rows,
        invariants: Some(json!({"violations": []})),
    }
}

/// The rules that the judge says are broken.
fn broken(evidence: &Evidence) -> Vec<&'static str> {
    let mut rules: Vec<&str> = judge(evidence).iter().map(|finding| finding.rule).collect();
    rules.dedup();
    rules
}

/// Asserts that this lie is found under this name.
fn finds(rule: &str, lie: impl FnOnce(&mut Evidence)) {
    let mut evidence = honest();
    lie(&mut evidence);
    let found = broken(&evidence);
    assert!(found.contains(&rule), "{rule} is not among {found:?}");
}

fn row<'a>(evidence: &'a mut Evidence, prefix: &str) -> &'a mut Value {
    let (_, row) = evidence.rows.iter_mut().find(|(stream, _)| stream.starts_with(prefix)).expect("a row");
    &mut row.body
}

/// The place of the event of this type.
fn place(evidence: &Evidence, kind: &str) -> usize {
    evidence.events.iter().position(|event| event["type"] == kind).expect("an event")
}

#[test]
fn an_honest_story_breaks_nothing() {
    let findings = judge(&honest());
    assert!(findings.is_empty(), "{findings:?}");
}

#[test]
fn a_lost_acknowledgement_is_found() {
    finds("CMD-1", |evidence| {
        evidence.events.retain(|event| event["command_id"] != json!(KEYS[0]));
    });
}

#[test]
fn a_double_effect_is_found() {
    finds("CMD-1", |evidence| {
        let mut again = evidence.events[0].clone();
        (again["position"], again["version"]) = (json!("1:9"), json!(4));
        evidence.events.push(again);
    });
}

#[test]
fn a_double_effect_of_the_house_itself_is_found() {
    finds("CMD-1", |evidence| {
        let mut again = evidence.events[place(evidence, "PaymentCaptured")].clone();
        (again["position"], again["version"]) = (json!("2:9"), json!(5));
        evidence.events.push(again);
    });
}

#[test]
fn an_acknowledgement_with_the_wrong_position_or_version_is_found() {
    finds("CMD-1", |evidence| {
        evidence.history[0].answers = vec![answered(201, "1:7", 1, json!({}))];
    });
    finds("CMD-1", |evidence| {
        evidence.history[0].answers = vec![answered(201, "1:1", 2, json!({}))];
    });
}

#[test]
fn an_effect_that_is_not_what_was_asked_for_is_found() {
    finds("CMD-1", |evidence| evidence.history[0].body = count(99));
}

#[test]
fn two_answers_to_one_key_are_found() {
    finds("CMD-2", |evidence| {
        evidence.history[1].answers.push(answered(201, "2:1", 2, json!({"order_id": PAYMENT})));
    });
    finds("CMD-2", |evidence| {
        evidence.history[2].answers.push(answered(200, "2:1", 2, json!({})));
    });
}

#[test]
fn a_rejected_command_that_took_effect_is_found() {
    finds("CMD-3", |evidence| {
        let stream = format!("order-{ORDER}");
        evidence.events.push(event("2:8", 0, &stream, 4, "OrderShipped", KEYS[2], json!({})));
    });
}

#[test]
fn a_gap_in_versions_is_found() {
    finds("LOG-1", |evidence| {
        let gone = place(evidence, "PaymentAuthorized");
        evidence.events.remove(gone);
    });
}

#[test]
fn a_log_told_out_of_order_is_found() {
    finds("LOG-2", |evidence| evidence.events.swap(0, 4));
}

#[test]
fn two_commands_in_one_record_are_found() {
    finds("LOG-3", |evidence| evidence.events[2]["command_id"] = json!(KEYS[0]));
}

#[test]
fn a_wrong_row_is_found() {
    finds("PROJ-1", |evidence| row(evidence, "stock-")["on_hand"] = json!(99));
    finds("PROJ-1", |evidence| row(evidence, "order-")["status"] = json!("shipped"));
    finds("PROJ-1", |evidence| row(evidence, "payment-")["version"] = json!(3));
    finds("PROJ-1", |evidence| row(evidence, "payment-")["in_flight"] = json!("capture"));
    finds("PROJ-1", |evidence| row(evidence, "checkout-")["state"] = json!("running"));
    finds("PROJ-1", |evidence| row(evidence, "reservation-")["status"] = json!("reserved"));
}

#[test]
fn a_missing_row_and_a_row_too_many_are_found() {
    finds("PROJ-1", |evidence| drop(evidence.rows.pop_first()));
    finds("PROJ-1", |evidence| drop(evidence.listed.pop_first()));
    finds("PROJ-1", |evidence| {
        evidence.listed.insert(format!("order-{PAYMENT}"), json!({}));
    });
}

#[test]
fn a_list_that_differs_from_the_log_is_found() {
    finds("PROJ-1", |evidence| {
        let (_, listed) = evidence.listed.iter_mut().find(|(stream, _)| stream.starts_with("order-")).expect("a row");
        listed["status"] = json!("placed");
    });
}

#[test]
fn a_wrong_book_is_found() {
    finds("MONEY-4", |evidence| evidence.ledger[0]["captured"] = json!(2_000));
    finds("MONEY-4", |evidence| evidence.ledger[0]["refunded"] = json!(1));
    finds("MONEY-4", |evidence| evidence.ledger.clear());
    finds("MONEY-4", |evidence| {
        let mut other = evidence.ledger[0].clone();
        other["payment_id"] = json!(RESERVATION);
        evidence.ledger.push(other);
    });
}

#[test]
fn a_confirmed_order_that_nobody_paid_is_found() {
    finds("MONEY-1", |evidence| {
        let captured = place(evidence, "PaymentCaptured");
        evidence.events[captured]["data"]["amount"] = euros(999);
    });
}

#[test]
fn a_cancelled_order_that_keeps_the_money_is_found() {
    finds("MONEY-1", |evidence| {
        let stream = format!("order-{ORDER}");
        let reason = json!({"reason": "customer"});
        evidence.events.push(event("2:8", 0, &stream, 4, "OrderCancelled", Uuid::from_u128(1), reason));
    });
}

#[test]
fn goods_that_left_for_a_cancelled_order_are_found() {
    finds("STOCK-2", |evidence| {
        let stream = format!("order-{ORDER}");
        let reason = json!({"reason": "customer"});
        evidence.events.push(event("2:8", 0, &stream, 4, "OrderCancelled", Uuid::from_u128(1), reason));
    });
}

#[test]
fn a_saga_or_a_payment_that_never_ends_is_found() {
    finds("SAGA-1", |evidence| drop(evidence.events.pop()));
    finds("SAGA-1", |evidence| {
        let captured = place(evidence, "PaymentCaptured");
        evidence.events.remove(captured);
    });
}

#[test]
fn stock_sold_twice_is_found() {
    finds("STOCK-1", |evidence| evidence.events[0]["data"]["on_hand"] = json!(1));
}

#[test]
fn a_promise_that_stock_and_reservation_tell_differently_is_found() {
    finds("STOCK-3", |evidence| {
        let moved = place(evidence, "StockReserved");
        evidence.events[moved]["data"]["quantity"] = json!(3);
    });
    finds("STOCK-3", |evidence| {
        let gone = place(evidence, "ReservationCommitted");
        evidence.events[gone]["type"] = json!("ReservationReleased");
    });
    finds("STOCK-3", |evidence| {
        let stray = json!({"reservation_id": PAYMENT, "quantity": 1, "order_id": null});
        evidence.events.push(event("1:9", 0, "stock-shop-1~beans", 4, "StockReserved", Uuid::from_u128(1), stray));
    });
}

#[test]
fn what_the_house_itself_finds_is_found() {
    finds("INVARIANTS", |evidence| {
        evidence.invariants = Some(json!({"violations": [{"invariant": "STOCK-1"}]}));
    });
}
