//! Read models are rebuilt beside those in use, checked, brought into use and back, all while orders are placed and read:
//! nobody finds anything missing or older than what he was told.

use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::platform::{Shop, Told, id};

/// Runs `docket` against the shop's server.
pub(crate) async fn docket(shop: &Shop, arguments: &[&str]) -> Output {
    let mut command = Command::new(kit::docket::binary());
    command.args(arguments).args(["--server", shop.address(), "--output", "json"]);
    let run = tokio::task::spawn_blocking(move || command.output().expect("the binary runs"));
    run.await.expect("the binary ends")
}

/// What it printed, if it went well.
pub(crate) async fn told(shop: &Shop, arguments: &[&str]) -> Value {
    let output = docket(shop, arguments).await;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}{}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|why| panic!("{arguments:?}: {why}"))
}

/// Places orders and cancels them, and reads each back: at once, by position, and in lists.
async fn trade(shop: Arc<Shop>, stop: Arc<AtomicBool>) -> u64 {
    let mut rounds = 0;
    let customer = format!("c-{}", &id()[24..]);
    while !stop.load(Ordering::SeqCst) {
        let mut body = shop.order_of("b", 1, 5, None);
        body["customer_id"] = json!(customer);
        let placed = shop.post("/v1/orders", body).await.is(201);
        let path = format!("/v1/orders/{}", placed.text("order_id"));
        assert_eq!(shop.get(&path).await.is(200).body, placed.body);
        let cancelled = shop.post(&format!("{path}/cancel"), json!({"reason": "customer"})).await.is(200);
        assert_eq!(shop.get(&path).await.is(200).body, cancelled.body);
        let position = cancelled.header("docket-position").expect("a position").to_owned();
        let headers = [("docket-min-position", position.as_str()), ("prefer", "wait=30")];
        assert_eq!(shop.get_with(&path, &headers).await.is(200).body, cancelled.body);
        rounds += 1;
        let list = format!("/v1/orders?customer_id={customer}&limit=500");
        let listed = shop.get_with(&list, &headers).await.is(200).body;
        assert_eq!(listed["items"].as_array().map_or(0, Vec::len) as u64, rounds.min(500), "of {rounds}");
    }
    rounds
}

#[tokio::test]
async fn nobody_finds_anything_missing_or_old_while_rows_are_rebuilt_and_exchanged() {
    let shop = Arc::new(Shop::alone().await);
    for number in 1..=100 {
        shop.post("/v1/orders", shop.order_of("b", 1, number, None)).await.is(201);
    }
    let before = told(&shop, &["projection", "list"]).await["items"][0].clone();
    assert_eq!(
        (&before["name"], &before["state"], &before["beside"]),
        (&json!("shop"), &json!("running"), &json!(null))
    );

    let stop = Arc::new(AtomicBool::new(false));
    let trading = [(); 2].map(|()| tokio::spawn(trade(shop.clone(), stop.clone())));
    let ready = told(&shop, &["projection", "rebuild"]).await;
    assert_eq!((&ready["beside"]["state"], &ready["beside"]["rebuilt"]), (&json!("ready"), &json!(true)), "{ready}");
    assert!(ready["beside"]["events"].as_u64() >= Some(100), "{ready}");
    shop.post("/v1/projections/shop/rebuild", json!({})).await.refuses(409, "projection-busy");
    let compared = told(&shop, &["projection", "compare"]).await;
    assert!(compared["state"] == "equal" && compared["rows"].as_u64() >= Some(100), "{compared}");
    let key = Uuid::now_v7();
    let switched = shop.post_as(key, "/v1/projections/shop/switch", json!({})).await.is(200).body;
    assert_eq!(switched["beside"]["state"], "kept", "{switched}");
    assert!(switched["generation"].as_i64() > before["generation"].as_i64(), "{switched}");
    // A repeat whose first answer was lost finds it done.
    let repeated = shop.post_as(key, "/v1/projections/shop/switch", json!({})).await.is(200).body;
    assert_eq!(repeated["generation"], switched["generation"]);
    let back = told(&shop, &["projection", "rollback"]).await;
    assert!(back["generation"].as_i64() > switched["generation"].as_i64(), "{back}");
    // In one go, over what was kept.
    let again = told(&shop, &["projection", "rebuild", "--switch"]).await;
    assert!(again["generation"].as_i64() > back["generation"].as_i64(), "{again}");
    let discarded = told(&shop, &["projection", "discard"]).await;
    assert_eq!(discarded["beside"], json!(null));
    stop.store(true, Ordering::SeqCst);
    for trader in trading {
        assert!(trader.await.expect("nothing was missing or old") > 0);
    }

    for nothing in ["switch", "rollback"] {
        shop.post(&format!("/v1/projections/shop/{nothing}"), json!({})).await.refuses(409, "nothing-beside");
        assert_eq!(docket(&shop, &["projection", nothing]).await.status.code(), Some(4));
    }
    let whole = told(&shop, &["fsck", "--whole"]).await;
    assert_eq!(whole["rows"]["state"], "equal", "{whole}");
    let sample = told(&shop, &["fsck", "--sample", "50"]).await;
    assert_eq!(sample["rows"]["state"], "equal", "{sample}");
}

#[tokio::test]
async fn what_an_operator_asks_for_has_to_make_sense() {
    let shop = Shop::open().await;
    shop.get("/v1/projections/other").await.says(404, "projection-not-found");
    shop.post("/v1/projections/other/rebuild", json!({})).await.refuses(404, "projection-not-found");
    let odd = shop.post("/v1/projections/shop/switch", json!({"now": true})).await;
    assert_eq!(odd.refuses(422, "invalid-fields").faults(), [crate::platform::at("/now", "unknown-field")]);
    for (body, place, code) in [
        (json!({}), "/scope", "unknown-value"),
        (json!({"scope": "all"}), "/scope", "unknown-value"),
        (json!({"scope": "stream"}), "/stream", "malformed"),
        (json!({"scope": "sample", "count": 0}), "/count", "out-of-range"),
        (json!({"scope": "whole", "count": 1}), "/count", "unknown-field"),
    ] {
        let refused = shop.post("/v1/projections/shop/check", body).await.refuses(422, "invalid-fields");
        assert_eq!(refused.faults(), [crate::platform::at(place, code)]);
    }
    for verb in ["retry", "drop"] {
        let path = format!("/v1/projections/shop/parked/order-{}/{verb}", id());
        shop.post(&path, json!({})).await.refuses(404, "stream-not-parked");
    }
    let listed = shop.get("/v1/projections/shop/parked").await.is(200).body;
    assert_eq!(listed, json!({"items": [], "next_cursor": null}));
    shop.get("/v1/projections?what=1").await.says(422, "invalid-fields");
}
