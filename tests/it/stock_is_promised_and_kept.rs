//! Stock: counted, received, adjusted, promised all or none, kept, taken back, and given up when time runs out. Never below
//! what is promised, never sold twice.

use std::sync::Arc;

use kit::shop::reservation;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::platform::{Shop, Told, id, text};

#[tokio::test]
async fn stock_is_counted_received_and_adjusted() {
    let shop = Shop::open().await;
    let path = shop.stock_path("beans");
    let new = shop.put(&path, json!({"on_hand": 100, "reason": "count"})).await.is(201);
    assert_eq!((new.header("location"), new.header("etag")), (Some(path.as_str()), Some("\"1\"")));
    let shown = &new.body;
    assert_eq!((&shown["location_id"], &shown["sku"]), (&json!(shop.location), &json!("beans")));
    assert_eq!(
        (&shown["on_hand"], &shown["reserved"], &shown["available"], &shown["version"]),
        (&json!(100), &json!(0), &json!(100), &json!(1))
    );
    assert!(shown["updated_at"].is_string());
    assert_eq!(shop.get(&path).await.is(200).body, *shown);
    shop.put(&path, json!({"on_hand": 90})).await.is(200);
    assert_eq!(shop.post(&format!("{path}/receive"), json!({"quantity": 10})).await.is(200).body["on_hand"], 100);
    let adjusted = shop.post(&format!("{path}/adjust"), json!({"delta": -3, "reason": "damaged"})).await.is(200);
    assert_eq!((&adjusted.body["on_hand"], adjusted.header("etag")), (&json!(97), Some("\"4\"")));
    assert_eq!(shop.get(&path).await.body, adjusted.body);
    assert_eq!(
        shop.types(&format!("stock-{}~beans", shop.location)).await,
        ["StockCounted", "StockCounted", "StockReceived", "StockAdjusted"]
    );
}

#[tokio::test]
async fn nothing_is_received_or_adjusted_where_nothing_was_counted() {
    let shop = Shop::open().await;
    let path = shop.stock_path("beans");
    shop.post(&format!("{path}/receive"), json!({"quantity": 10})).await.refuses(404, "stock-not-found");
    shop.post(&format!("{path}/adjust"), json!({"delta": 1, "reason": "found"})).await.refuses(404, "stock-not-found");
    shop.get(&path).await.says(404, "stock-not-found");
    for name in ["reservations", "history", "b%20c", "%C3%A4"] {
        shop.put(&shop.stock_path(name), json!({"on_hand": 1})).await;
        let shown = shop.get(&shop.stock_path(name)).await;
        assert!([404, 405].contains(&shown.status), "{name} {shown:?}");
    }
}

#[tokio::test]
async fn stock_never_falls_below_what_is_reserved_and_never_exceeds_its_limit() {
    let shop = Shop::open().await;
    let path = shop.stock_path("beans");
    shop.count("beans", 10).await;
    shop.post(&shop.reservations_path(), reservation(&[("beans", 6)], None)).await.is(201);
    shop.put(&path, json!({"on_hand": 5})).await.refuses(409, "stock-below-reserved");
    shop.post(&format!("{path}/adjust"), json!({"delta": -5, "reason": "damaged"}))
        .await
        .refuses(409, "stock-below-reserved");
    shop.put(&path, json!({"on_hand": 6})).await.is(200);
    assert_eq!(shop.counters("beans").await, (6, 6, 0));
    shop.put(&path, json!({"on_hand": 1_000_000_000_000_i64})).await.is(200);
    shop.post(&format!("{path}/receive"), json!({"quantity": 1})).await.refuses(409, "stock-above-limit");
    shop.post(&format!("{path}/adjust"), json!({"delta": 1, "reason": "found"}))
        .await
        .refuses(409, "stock-above-limit");
    assert_eq!(shop.counters("beans").await.0, 1_000_000_000_000);
}

#[tokio::test]
async fn a_reservation_takes_all_its_lines_or_none_and_tells_every_shortage() {
    let shop = Shop::open().await;
    shop.count("beans", 10).await;
    shop.count("rice", 1).await;
    let short = shop
        .post(&shop.reservations_path(), reservation(&[("beans", 6), ("rice", 2), ("salt", 3), ("beans", 6)], None))
        .await
        .refuses(409, "stock-insufficient");
    let errors = short.body["errors"].as_array().expect("every shortage");
    let told = |sku_line: &str| {
        let error = errors.iter().find(|error| error["pointer"].as_str().is_some_and(|at| at.starts_with(sku_line)));
        let error = error.unwrap_or_else(|| panic!("{sku_line} in {errors:?}"));
        (error["requested"].clone(), error["available"].clone())
    };
    assert_eq!(told("/lines/1"), (json!(2), json!(1)));
    assert_eq!(told("/lines/2"), (json!(3), json!(0)));
    // The same SKU on two lines counts together.
    assert_eq!(told("/lines/0"), (json!(12), json!(10)));
    assert_eq!((shop.counters("beans").await, shop.counters("rice").await), ((10, 0, 10), (1, 0, 1)));
    let made = shop
        .post(&shop.reservations_path(), reservation(&[("beans", 4), ("rice", 1), ("beans", 3)], Some(900)))
        .await
        .is(201);
    let reservation_id = made.text("reservation_id");
    assert_eq!(made.header("location"), Some(format!("{}/{reservation_id}", shop.reservations_path()).as_str()));
    assert_eq!((made.text("status"), &made.body["order_id"]), ("reserved".to_owned(), &Value::Null));
    assert_eq!((&made.body["location_id"], &made.body["version"]), (&json!(shop.location), &json!(1)));
    assert_eq!(made.body["lines"].as_array().map(Vec::len), Some(3));
    assert!(made.body["expires_at"].is_string());
    assert_eq!((shop.counters("beans").await, shop.counters("rice").await), ((10, 7, 3), (1, 1, 0)));
    assert_eq!(
        shop.get(&format!("{}/{}", shop.reservations_path(), reservation_id.to_uppercase())).await.is(200).body,
        made.body
    );
}

#[tokio::test]
async fn a_reservation_is_kept_or_taken_back_once_and_repeating_is_harmless() {
    let shop = Shop::open().await;
    shop.count("beans", 10).await;
    let reserve = async || {
        let made = shop.post(&shop.reservations_path(), reservation(&[("beans", 3)], None)).await.is(201);
        format!("{}/{}", shop.reservations_path(), made.text("reservation_id"))
    };
    for (verb, other, status, after) in
        [("commit", "release", "committed", (7, 0, 7)), ("release", "commit", "released", (7, 0, 7))]
    {
        let path = reserve().await;
        for _ in 0..2 {
            assert_eq!(shop.post(&format!("{path}/{verb}"), json!({})).await.is(200).text("status"), status);
        }
        shop.post(&format!("{path}/{other}"), json!({})).await.refuses(409, "reservation-closed");
        assert_eq!(shop.get(&path).await.is(200).text("status"), status);
        assert_eq!(shop.counters("beans").await, after);
    }
    for path in [format!("{}/{}", shop.reservations_path(), id()), format!("{}/x", shop.reservations_path())] {
        shop.post(&format!("{path}/commit"), json!({})).await.refuses(404, "reservation-not-found");
        shop.post(&format!("{path}/release"), json!({})).await.refuses(404, "reservation-not-found");
        shop.get(&path).await.says(404, "reservation-not-found");
    }
    shop.is_sound().await;
}

#[tokio::test]
async fn a_reservation_runs_out_when_its_time_has_come() {
    let shop = Shop::open().await;
    shop.count("beans", 10).await;
    let made = shop.post(&shop.reservations_path(), reservation(&[("beans", 3)], Some(1))).await.is(201);
    let path = format!("{}/{}", shop.reservations_path(), made.text("reservation_id"));
    let expired = shop.until(&path, |reservation| reservation["status"] == "expired").await;
    assert_eq!(expired["version"], 2);
    assert_eq!(shop.counters("beans").await, (10, 0, 10));
    shop.post(&format!("{path}/commit"), json!({})).await.refuses(409, "reservation-closed");
    let types = shop.types(&format!("stock-{}~beans", shop.location)).await;
    assert_eq!(types, ["StockCounted", "StockReserved", "StockReservationExpired"]);
}

#[tokio::test]
async fn what_a_checkout_reserved_obeys_only_its_saga() {
    let shop = Shop::open().await;
    shop.count("beans", 10).await;
    let order = shop.ordered("beans", 2, 100, "tok_ok").await.text("order_id");
    let streams =
        shop.client().list(&format!("/v1/streams?prefix=reservation-{}~", shop.location)).await.expect("a list");
    let stream = text(&streams[0]["stream"]);
    let (_, reservation) = stream.split_once('~').expect("a reservation's stream");
    let path = format!("{}/{reservation}", shop.reservations_path());
    let shown = shop.get(&path).await.is(200);
    assert_eq!((shown.text("status"), shown.text("order_id")), ("committed".to_owned(), order));
    for verb in ["commit", "release"] {
        shop.post(&format!("{path}/{verb}"), json!({})).await.refuses(409, "belongs-to-order");
    }
}

#[tokio::test]
async fn a_locations_stock_is_listed_by_sku() {
    let shop = Shop::open().await;
    let mut position = String::new();
    for sku in ["rice", "beans", "salt", "oil"] {
        position = shop.count(sku, 3).await.header("docket-position").expect("a position").to_owned();
    }
    let mut skus = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = shop
            .get_with(&format!("/v1/stock/{}?limit=3{cursor}", shop.location), &[("docket-min-position", &position)])
            .await
            .is(200)
            .body;
        skus.extend(page["items"].as_array().expect("a list").iter().map(|stock| text(&stock["sku"])));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(skus, ["beans", "oil", "rice", "salt"]);
    let nowhere = shop.get("/v1/stock/nowhere-at-all").await.is(200).body;
    assert_eq!(nowhere, json!({"items": [], "next_cursor": null}));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_buyers_of_a_hundred_pieces_exactly_a_hundred_get_one() {
    let shop = Arc::new(Shop::open().await);
    shop.count("ticket", 100).await;
    // Half of them order, half of them reserve; all at once.
    let buying = (0..1000).map(|number| {
        let shop = Arc::clone(&shop);
        tokio::spawn(async move {
            if number % 2 == 0 {
                return shop.post(&shop.reservations_path(), reservation(&[("ticket", 1)], None)).await.status == 201;
            }
            let body = shop.order_of("ticket", 1, 100, Some("tok_ok"));
            let order = shop.post_with(Uuid::now_v7(), "/v1/orders", &[("prefer", "wait=30")], body).await.is(201);
            match order.text("status").as_str() {
                "confirmed" => true,
                "cancelled" => {
                    assert_eq!(order.body["cancellation"]["reason"], "stock_insufficient");
                    false
                }
                other => panic!("an order is {other} after 30 s"),
            }
        })
    });
    let bought =
        futures::future::join_all(buying).await.into_iter().filter(|got| *got.as_ref().expect("no panic")).count();
    assert_eq!(bought, 100);
    let (on_hand, reserved, available) = shop.counters("ticket").await;
    assert_eq!((available, on_hand), (0, reserved), "sold or promised, none twice");
    shop.is_sound().await;
}
