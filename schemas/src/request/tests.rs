//! Bodies with everything wrong at once, and bodies at their bounds.

use engine::json::Document;
use serde_json::{Value, json};

use super::*;

fn faults<T: std::fmt::Debug>(parsed: Result<T, Invalid>) -> Vec<(String, String)> {
    let faults = parsed.expect_err("the body is at fault");
    faults
        .into_iter()
        .map(|fault| match fault.at {
            engine::message::At::Pointer(pointer) => (pointer, fault.code.into_owned()),
            other => panic!("a body's faults are told by pointer, not {other:?}"),
        })
        .collect()
}

fn at(pointer: &str, code: &str) -> (String, String) {
    (pointer.to_owned(), code.to_owned())
}

fn order() -> Value {
    json!({
        "customer_id": "c-17", "location_id": "shop-1",
        "lines": [{"sku": "beans-1kg", "quantity": 2, "unit_price": {"amount": 1999, "currency": "EUR"}}],
    })
}

#[test]
fn an_order_as_in_the_contract_is_taken() {
    let mut body = order();
    body["payment"] = json!({"method": "card", "token": "tok_ok"});
    let placed = PlaceOrderBody::parse(Document::of(&body).root()).unwrap();
    assert_eq!(placed.lines[0].location_id.as_str(), "shop-1");
    assert_eq!(placed.payment.unwrap().token, "tok_ok");
    assert_eq!(placed.order_id, None);
}

#[test]
fn a_line_may_name_a_place_of_its_own() {
    let mut body = order();
    body["lines"][0]["location_id"] = json!("shop-2");
    assert_eq!(PlaceOrderBody::parse(Document::of(&body).root()).unwrap().lines[0].location_id.as_str(), "shop-2");
}

#[test]
fn every_fault_is_told_at_once_where_it_is() {
    let body = json!({
        "order_id": "no-uuid", "location_id": ".", "a/b~c": 1,
        "lines": [
            {"sku": "beans", "quantity": 0, "unit_price": {"amount": -1, "currency": "EURO"}},
            {"sku": 7, "unit_price": 1999},
            "nonsense",
        ],
        "payment": {"method": "cash", "token": "", "extra": null},
    });
    assert_eq!(
        faults(PlaceOrderBody::parse(Document::of(&body).root())),
        [
            at("/order_id", "malformed"),
            at("/customer_id", "missing"),
            at("/location_id", "malformed"),
            at("/lines/0/quantity", "out-of-range"),
            at("/lines/0/unit_price/amount", "out-of-range"),
            at("/lines/0/unit_price/currency", "unknown-currency"),
            at("/lines/1/sku", "wrong-type"),
            at("/lines/1/quantity", "missing"),
            at("/lines/1/unit_price", "wrong-type"),
            at("/lines/2", "wrong-type"),
            at("/payment/method", "unknown-value"),
            at("/payment/token", "wrong-length"),
            at("/payment/extra", "unknown-field"),
            at("/a~1b~0c", "unknown-field"),
        ]
    );
}

#[test]
fn mixed_currencies_are_told_at_each_that_differs() {
    let line = |currency: &str| json!({"sku": "a", "quantity": 1, "unit_price": {"amount": 1, "currency": currency}});
    let mut body = order();
    body["lines"] = json!([line("EUR"), line("USD"), line("EUR"), line("JPY")]);
    assert_eq!(
        faults(PlaceOrderBody::parse(Document::of(&body).root())),
        [at("/lines/1/unit_price/currency", "mixed-currency"), at("/lines/3/unit_price/currency", "mixed-currency")]
    );
}

#[test]
fn a_list_of_the_wrong_length_is_told_at_the_list() {
    let line = order()["lines"][0].clone();
    for lines in [json!([]), Value::Array(vec![line; LINES_MAX + 1])] {
        let mut body = order();
        body["lines"] = lines;
        assert_eq!(faults(PlaceOrderBody::parse(Document::of(&body).root())), [at("/lines", "wrong-length")]);
    }
}

#[test]
fn a_total_of_two_to_the_53rd_is_told_at_the_lines() {
    let line = json!({"sku": "a", "quantity": 1_000_000, "unit_price": {"amount": AMOUNT_MAX, "currency": "EUR"}});
    let mut body = order();
    body["lines"] = json!([line]);
    assert_eq!(faults(PlaceOrderBody::parse(Document::of(&body).root())), [at("/lines", "out-of-range")]);
}

#[test]
fn numbers_are_whole_and_bounds_are_inclusive() {
    let receive = |quantity: Value| ReceiveStockBody::parse(Document::of(&json!({"quantity": quantity})).root());
    assert_eq!(receive(json!(1)).unwrap().quantity, 1);
    assert_eq!(receive(json!(1_000_000)).unwrap().quantity, 1_000_000);
    for (quantity, code) in [
        (json!(0), "out-of-range"),
        (json!(1_000_001), "out-of-range"),
        (json!(u64::MAX), "out-of-range"),
        (json!(1.5), "wrong-type"),
        (json!("1"), "wrong-type"),
        (json!(null), "wrong-type"),
    ] {
        assert_eq!(faults(receive(quantity)), [at("/quantity", code)]);
    }
    assert_eq!(
        faults(AdjustStockBody::parse(Document::of(&json!({"delta": 0, "reason": "x"})).root())),
        [at("/delta", "out-of-range")]
    );
}

#[test]
fn texts_are_bounded_in_characters_and_have_no_controls() {
    let cancel =
        |detail: &str| CancelOrderBody::parse(Document::of(&json!({"reason": "other", "detail": detail})).root());
    assert!(cancel(&"ä".repeat(TEXT_CHARS_MAX)).is_ok());
    assert_eq!(faults(cancel(&"ä".repeat(TEXT_CHARS_MAX + 1))), [at("/detail", "wrong-length")]);
    assert_eq!(faults(cancel("a\u{7}b")), [at("/detail", "malformed")]);
}

#[test]
fn a_checkouts_own_reasons_are_not_for_callers() {
    assert_eq!(
        faults(CancelOrderBody::parse(Document::of(&json!({"reason": "payment_declined"})).root())),
        [at("/reason", "unknown-value")]
    );
}

#[test]
fn a_body_that_is_no_object_is_one_fault() {
    assert_eq!(faults(PlaceOrderBody::parse(Document::of(&json!([])).root())), [at("", "wrong-type")]);
    assert!(EmptyBody::parse(Document::of(&json!({})).root()).is_ok());
    assert_eq!(faults(EmptyBody::parse(Document::of(&json!({"x": 1})).root())), [at("/x", "unknown-field")]);
}

#[test]
fn left_out_and_null_are_the_same_for_what_may_be_left_out() {
    let body = ReserveStockBody::parse(
        Document::of(&json!({"lines": [{"sku": "a", "quantity": 1}], "expires_in_s": null})).root(),
    )
    .unwrap();
    assert_eq!((body.expires_in_s, body.reservation_id), (EXPIRES_IN_S_DEFAULT, None));
}
