//! Payments outside any checkout: promised, cashed in whole or in part, given up, given back; told as they are while the
//! gateway takes its time; and always as the gateway's own books have it.

use kit::shop::payment;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::platform::{Shop, Told, id};

fn euros(amount: i64) -> Value {
    json!({"amount": amount, "currency": "EUR"})
}

async fn authorized(shop: &Shop, amount: i64, token: &str) -> String {
    shop.post("/v1/payments", payment(amount, token)).await.is(201).text("payment_id")
}

#[tokio::test]
async fn a_payment_is_promised_and_cashed() {
    let shop = Shop::open().await;
    let made = shop.post("/v1/payments", payment(1000, "tok_ok")).await.is(201);
    let id = made.text("payment_id");
    assert_eq!(made.header("location"), Some(format!("/v1/payments/{id}").as_str()));
    let shown = &made.body;
    assert_eq!(
        (&shown["status"], &shown["order_id"], &shown["decline"]),
        (&json!("authorized"), &Value::Null, &Value::Null)
    );
    assert_eq!((&shown["authorized"], &shown["captured"], &shown["refunded"]), (&euros(1000), &euros(0), &euros(0)));
    assert_eq!(shown["in_flight"], Value::Null);
    assert!(shown["expires_at"].is_string());
    assert_eq!(made.header("etag"), Some(format!("\"{}\"", shown["version"]).as_str()));
    assert_eq!(shop.get(&format!("/v1/payments/{}", id.to_uppercase())).await.is(200).body, *shown);
    let captured = shop.post(&format!("/v1/payments/{id}/capture"), json!({})).await.is(200);
    assert_eq!((captured.text("status"), &captured.body["captured"]), ("captured".to_owned(), &euros(1000)));
    assert_eq!(shop.money(&id).await, [1000, 1000, 0, 0]);
    // Under another key: nothing more happens.
    let again = shop.post(&format!("/v1/payments/{id}/capture"), json!({})).await.is(200);
    assert_eq!(again.body, captured.body);
    assert_eq!(shop.money(&id).await, [1000, 1000, 0, 0]);
    shop.post(&format!("/v1/payments/{id}/void"), json!({})).await.refuses(409, "payment-not-voidable");
    assert_eq!(
        shop.types(&format!("payment-{id}")).await,
        ["PaymentRequested", "PaymentAuthorized", "PaymentCaptureRequested", "PaymentCaptured"]
    );
}

#[tokio::test]
async fn a_smaller_capture_gives_back_the_rest_and_a_larger_one_is_pointed_at() {
    let shop = Shop::open().await;
    let id = authorized(&shop, 1000, "tok_ok").await;
    let path = format!("/v1/payments/{id}/capture");
    let larger = shop.post(&path, json!({"amount": euros(1001)})).await.refuses(422, "invalid-fields");
    assert!(larger.faults()[0].0.starts_with("/amount"), "{}", larger.body);
    let foreign =
        shop.post(&path, json!({"amount": {"amount": 10, "currency": "USD"}})).await.refuses(422, "invalid-fields");
    assert_eq!(foreign.faults()[0].0, "/amount/currency");
    let captured = shop.post(&path, json!({"amount": euros(600)})).await.is(200);
    assert_eq!((&captured.body["captured"], captured.text("status")), (&euros(600), "captured".to_owned()));
    assert_eq!(shop.money(&id).await, [1000, 600, 400, 0]);
    let refund = format!("/v1/payments/{id}/refund");
    shop.post(&refund, json!({"amount": euros(601), "reason": "late"})).await.refuses(409, "refund-exceeds-paid");
    shop.post(&refund, json!({"amount": euros(600), "reason": "late"})).await.is(200);
    assert_eq!(shop.money(&id).await, [1000, 600, 400, 600]);
    shop.is_sound().await;
}

#[tokio::test]
async fn a_promise_is_given_up() {
    let shop = Shop::open().await;
    let id = authorized(&shop, 1000, "tok_ok").await;
    let voided = shop.post(&format!("/v1/payments/{id}/void"), json!({})).await.is(200);
    assert_eq!(voided.text("status"), "voided");
    assert_eq!(shop.post(&format!("/v1/payments/{id}/void"), json!({})).await.is(200).body, voided.body);
    assert_eq!(shop.money(&id).await, [1000, 0, 1000, 0]);
    shop.post(&format!("/v1/payments/{id}/capture"), json!({})).await.refuses(409, "payment-not-capturable");
    shop.post(&format!("/v1/payments/{id}/refund"), json!({"amount": euros(1), "reason": "late"}))
        .await
        .refuses(409, "payment-not-refundable");
}

#[tokio::test]
async fn money_goes_back_several_times_and_never_more_than_came() {
    let shop = Shop::open().await;
    let id = authorized(&shop, 1000, "tok_ok").await;
    shop.post(&format!("/v1/payments/{id}/capture"), json!({})).await.is(200);
    let refund = async |amount: i64| {
        shop.post(&format!("/v1/payments/{id}/refund"), json!({"amount": euros(amount), "reason": "late"})).await
    };
    assert_eq!(refund(400).await.is(200).body["refunded"], euros(400));
    assert_eq!(refund(500).await.is(200).body["refunded"], euros(900));
    refund(101).await.refuses(409, "refund-exceeds-paid");
    assert_eq!(refund(100).await.is(200).body["refunded"], euros(1000));
    refund(1).await.refuses(409, "refund-exceeds-paid");
    assert_eq!(shop.money(&id).await, [1000, 1000, 0, 1000]);
    let told = shop
        .post(&format!("/v1/payments/{id}/refund"), json!({"amount": {"amount": 1, "currency": "USD"}, "reason": "x"}))
        .await;
    assert_eq!(told.refuses(422, "invalid-fields").faults()[0].0, "/amount/currency");
}

#[tokio::test]
async fn a_decline_is_an_outcome_and_no_error() {
    let shop = Shop::open().await;
    for (token, reason) in
        [("tok_declined", "declined"), ("tok_insufficient_funds", "insufficient_funds"), ("tok_x", "unknown_token")]
    {
        let declined = shop.post("/v1/payments", payment(1000, token)).await.is(201);
        assert_eq!(
            (declined.text("status"), &declined.body["decline"]),
            ("declined".to_owned(), &json!({"reason": reason}))
        );
        let id = declined.text("payment_id");
        shop.post(&format!("/v1/payments/{id}/capture"), json!({})).await.refuses(409, "payment-not-capturable");
        shop.post(&format!("/v1/payments/{id}/void"), json!({})).await.refuses(409, "payment-not-voidable");
    }
}

#[tokio::test]
async fn while_the_gateway_takes_its_time_the_payment_says_so() {
    let shop = Shop::open().await;
    let key = Uuid::now_v7();
    let body = payment(1000, "tok_slow_1200");
    let early = shop.post_with(key, "/v1/payments", &[("prefer", "wait=0")], body.clone()).await.is(201);
    assert_eq!((early.text("status"), early.text("in_flight")), ("pending".to_owned(), "authorize".to_owned()));
    assert_eq!(early.header("preference-applied"), None);
    let id = early.text("payment_id");
    // A repeat waits for the gateway as at first.
    let settled = shop.post_as(key, "/v1/payments", body.clone()).await.is(201);
    assert!(settled.is_replayed());
    assert_eq!((settled.text("status"), &settled.body["in_flight"]), ("authorized".to_owned(), &Value::Null));
    for (verb, body, in_flight, status) in [
        ("capture", json!({"amount": euros(900)}), "capture", "captured"),
        ("refund", json!({"amount": euros(100), "reason": "late"}), "refund", "captured"),
    ] {
        let key = Uuid::now_v7();
        let path = format!("/v1/payments/{id}/{verb}");
        let early = shop.post_with(key, &path, &[("prefer", "wait=0")], body.clone()).await.is(200);
        assert_eq!(early.text("in_flight"), in_flight);
        let settled = shop.post_with(key, &path, &[("prefer", "wait=20")], body.clone()).await.is(200);
        assert_eq!((settled.text("status").as_str(), &settled.body["in_flight"]), (status, &Value::Null));
        assert_eq!(settled.header("preference-applied"), Some("wait=20"));
        let again = shop.post_as(key, &path, body).await;
        assert_eq!((again.body, again.status), (settled.body, 200));
    }
    // Nothing in flight: promised equal, although more has happened since.
    let first = shop.post_as(key, "/v1/payments", body).await;
    assert_eq!(first.essence(), settled.essence());
    assert_eq!(shop.money(&id).await, [1000, 900, 100, 100]);
}

#[tokio::test]
async fn a_promise_can_be_given_up_before_the_gateway_has_answered() {
    let shop = Shop::open().await;
    let made = shop
        .post_with(Uuid::now_v7(), "/v1/payments", &[("prefer", "wait=0")], payment(1000, "tok_slow_800"))
        .await
        .is(201);
    let id = made.text("payment_id");
    shop.post(&format!("/v1/payments/{id}/capture"), json!({})).await.refuses(409, "payment-not-capturable");
    let voided = shop.post(&format!("/v1/payments/{id}/void"), json!({})).await.is(200);
    assert_eq!(voided.text("status"), "voided", "{}", voided.body);
    let row = shop.ledger(&id).await;
    assert!(row.is_none_or(|row| row["captured"] == 0 && row["authorized"] == row["voided"]));
    shop.is_sound().await;
}

#[tokio::test]
async fn every_clumsy_gateway_moves_money_once() {
    let shop = Shop::open().await;
    let tokens = ["tok_flaky_2", "tok_lost_answer", "tok_twice", "tok_slow_20", "tok_capture_fails_2"];
    let paying = tokens.map(async |token| {
        let id = authorized(&shop, 500, token).await;
        let path = format!("/v1/payments/{id}");
        shop.until(&path, |payment| payment["status"] == "authorized").await;
        shop.post(&format!("{path}/capture"), json!({"amount": euros(300)})).await.is(200);
        shop.until(&path, |payment| payment["status"] == "captured").await;
        shop.post(&format!("{path}/refund"), json!({"amount": euros(100), "reason": "late"})).await.is(200);
        shop.until(&path, |payment| payment["refunded"] == euros(100)).await;
        assert_eq!(shop.money(&id).await, [500, 300, 200, 100], "{token}");
    });
    futures::future::join_all(paying).await;
    shop.is_sound().await;
}

#[tokio::test]
async fn a_checkouts_payment_obeys_only_its_saga_but_can_be_refunded() {
    let shop = Shop::open().await;
    shop.count("beans", 5).await;
    let order = shop.ordered("beans", 1, 1000, "tok_ok").await;
    let (id, path) = (order.text("payment_id"), format!("/v1/orders/{}", order.text("order_id")));
    for verb in ["capture", "void"] {
        shop.post(&format!("/v1/payments/{id}/{verb}"), json!({})).await.refuses(409, "belongs-to-order");
    }
    let refunded =
        shop.post(&format!("/v1/payments/{id}/refund"), json!({"amount": euros(300), "reason": "late"})).await.is(200);
    assert_eq!(refunded.body["refunded"], euros(300));
    let shown = shop.get(&path).await.body;
    assert_eq!(shown["refunded"], euros(300), "a refund shows on the order too");
    shop.post(&format!("{path}/refund"), json!({"amount": euros(701), "reason": "late"}))
        .await
        .refuses(409, "refund-exceeds-paid");
    assert_eq!(shop.money(&id).await, [1000, 1000, 0, 300]);
    shop.is_sound().await;
}

#[tokio::test]
async fn a_payment_of_nobody_is_not_found_and_an_order_id_only_groups() {
    let shop = Shop::open().await;
    for id in [id(), "no-uuid".to_owned()] {
        shop.get(&format!("/v1/payments/{id}")).await.says(404, "payment-not-found");
        for (verb, body) in
            [("capture", json!({})), ("void", json!({})), ("refund", json!({"amount": euros(1), "reason": "x"}))]
        {
            shop.post(&format!("/v1/payments/{id}/{verb}"), body).await.refuses(404, "payment-not-found");
        }
    }
    let mut body = payment(100, "tok_ok");
    let group = id();
    body["order_id"] = json!(group);
    for _ in 0..2 {
        let made = shop.post("/v1/payments", body.clone()).await.is(201);
        assert_eq!(made.text("order_id"), group);
    }
}

#[tokio::test]
async fn the_ledger_has_one_row_per_payment() {
    let shop = Shop::open().await;
    let id = authorized(&shop, 250, "tok_flaky_1").await;
    shop.until(&format!("/v1/payments/{id}"), |payment| payment["status"] == "authorized").await;
    let ledger = shop.get("/dev/gateway/ledger").await.is(200).body;
    let rows: Vec<_> =
        ledger["items"].as_array().expect("a list").iter().filter(|row| row["payment_id"] == id).collect();
    assert_eq!(rows.len(), 1);
    let row = rows[0];
    assert_eq!((&row["authorized"], &row["currency"]), (&json!(250), &json!("EUR")));
    assert!(row["calls"].as_u64().is_some_and(|calls| calls >= 2) && row["key"].is_string(), "{row}");
}

#[tokio::test]
async fn a_free_payment_whose_gateway_is_down_is_voided_when_it_is_healed() {
    let shop = Shop::alone().await;
    let wait = [("prefer", "wait=0")];
    let made = shop.post_with(Uuid::now_v7(), "/v1/payments", &wait, kit::shop::payment(100, "tok_down")).await.is(201);
    let path = format!("/v1/payments/{}", made.text("payment_id"));
    let wait = [("prefer", "wait=1")];
    let voiding = shop.post_with(Uuid::now_v7(), &format!("{path}/void"), &wait, json!({})).await.is(200);
    assert_eq!((&voiding.body["status"], &voiding.body["in_flight"]), (&json!("pending"), &json!("void")));
    shop.send(reqwest::Method::POST, "/dev/gateway/heal", &[], None).await.is(200);
    shop.until(&path, |payment| payment["status"] == "voided" && payment["in_flight"].is_null()).await;
    assert_eq!(shop.money(&made.text("payment_id")).await, [0, 0, 0, 0]);
    shop.is_sound().await;
}
