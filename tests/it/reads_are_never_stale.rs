//! Reads: what was acknowledged is found, what was asked for as a position is waited for or refused, never shown older.
//! Lists show each item exactly once while the world goes on, and their cursors are nobody else's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::platform::{Shop, Told, id, text};

#[tokio::test]
async fn what_was_answered_201_is_found_at_once() {
    let shop = Shop::open().await;
    for number in 0..50 {
        let order = shop.post("/v1/orders", shop.order_of("b", 1, number, None)).await.is(201);
        let found = shop.get(&format!("/v1/orders/{}", order.text("order_id"))).await.is(200);
        assert_eq!((found.header("etag"), &found.body), (order.header("etag"), &order.body));
        let (partition, offset) = order.positions()[0];
        assert!(found.positions().iter().any(|&(at, reached)| at == partition && reached >= offset), "{found:?}");
        let sku = format!("sku-{number}");
        let stock = shop.count(&sku, number).await;
        assert_eq!(shop.get(&shop.stock_path(&sku)).await.body, stock.body);
    }
}

#[tokio::test]
async fn a_reader_who_has_it_already_is_not_told_again() {
    let shop = Shop::open().await;
    shop.count("b", 3).await;
    let path = shop.stock_path("b");
    for known in ["\"1\"", "W/\"1\"", "\"9\", \"1\"", "*"] {
        let same = shop.get_with(&path, &[("if-none-match", known)]).await.is(304);
        assert_eq!((same.text.as_str(), same.header("etag")), ("", Some("\"1\"")));
        assert!(!same.positions().is_empty());
    }
    shop.get_with(&path, &[("if-none-match", "\"2\"")]).await.is(200);
    shop.count("b", 4).await;
    shop.get_with(&path, &[("if-none-match", "\"1\"")]).await.is(200);
}

#[tokio::test]
async fn a_position_is_waited_for_and_then_refused_but_never_shown_older() {
    let shop = Shop::open().await;
    let made = shop.count("b", 3).await;
    let position = made.header("docket-position").expect("a position").to_owned();
    let (partition, offset) = made.positions()[0];
    let paths = [
        shop.stock_path("b"),
        "/v1/orders".to_owned(),
        format!("/v1/stock/{}", shop.location),
        "/v1/sagas".to_owned(),
        "/v1/streams".to_owned(),
        "/v1/events".to_owned(),
    ];
    for path in &paths {
        let reached = shop.get_with(path, &[("docket-min-position", &position)]).await.is(200);
        assert!(
            reached.positions().iter().any(|&(at, reached)| at == partition && reached >= offset)
                || path == "/v1/events",
            "{path} {reached:?}"
        );
    }
    let future = format!("{partition}:{}", offset + 1_000_000_000);
    for path in &paths {
        let began = Instant::now();
        let headers = [("docket-min-position", future.as_str()), ("prefer", "wait=1")];
        let behind = shop.get_with(path, &headers).await.says(503, "read-model-behind");
        assert!((Duration::from_millis(900)..Duration::from_secs(5)).contains(&began.elapsed()), "{path}");
        assert!(behind.header("retry-after").is_some_and(|after| after.parse::<u64>().is_ok()), "{behind:?}");
        assert!(
            behind.positions().iter().any(|&(at, reached)| at == partition && reached >= offset),
            "{path} {behind:?}"
        );
    }
    let began = Instant::now();
    shop.get_with(&paths[0], &[("docket-min-position", &future), ("prefer", "wait=0")]).await.is(503);
    assert!(began.elapsed() < Duration::from_millis(900));
    // Malformed, and so ignored: 2 s.
    let began = Instant::now();
    shop.get_with(&paths[0], &[("docket-min-position", &future), ("prefer", "wait=soon")]).await.is(503);
    assert!(began.elapsed() >= Duration::from_millis(1_900));
    for malformed in ["x", "1", "1:", ":1", "1:x", "-1:1", "1:2;3:4", "9999:1", "1:99999999999999999999"] {
        for path in &paths {
            shop.get_with(path, &[("docket-min-position", malformed)]).await.says(400, "bad-position");
        }
    }
}

#[tokio::test]
async fn a_reader_who_waits_is_told_as_soon_as_it_has_happened() {
    let shop = Arc::new(Shop::open().await);
    let made = shop.count("b", 3).await;
    let (partition, offset) = made.positions()[0];
    let next = format!("{partition}:{}", offset + 1);
    let reading = {
        let (shop, path) = (Arc::clone(&shop), shop.stock_path("b"));
        tokio::spawn(
            async move { shop.get_with(&path, &[("docket-min-position", &next), ("prefer", "wait=20")]).await },
        )
    };
    shop.count("b", 4).await;
    let read = reading.await.expect("no panic").is(200);
    assert!(read.positions().iter().any(|&(at, reached)| at == partition && reached > offset), "{read:?}");
}

#[tokio::test]
async fn orders_are_listed_newest_first_by_customer_status_and_time() {
    let shop = Shop::open().await;
    let customer = shop.location.clone();
    let mut placed = Vec::new();
    for price in 0..7 {
        let mut body = shop.order_of("b", 1, price, None);
        body["customer_id"] = json!(customer);
        placed.push(shop.post("/v1/orders", body).await.is(201).body);
    }
    let cancelled = text(&placed[3]["order_id"]);
    shop.post(&format!("/v1/orders/{cancelled}/cancel"), json!({"reason": "customer"})).await.is(200);
    let list = async |filter: &str| {
        let items = shop.client().list(&format!("/v1/orders?customer_id={customer}{filter}")).await.expect("a list");
        items.iter().map(|order| text(&order["order_id"])).collect::<Vec<_>>()
    };
    let ids: Vec<String> = placed.iter().rev().map(|order| text(&order["order_id"])).collect();
    shop.until(&format!("/v1/orders?customer_id={customer}&status=cancelled"), |page| {
        page["items"].as_array().is_some_and(|items| items.len() == 1)
    })
    .await;
    assert_eq!(list("").await, ids);
    assert_eq!(list("&status=cancelled").await, std::slice::from_ref(&cancelled));
    assert_eq!(list("&status=placed").await.len(), 6);
    assert!(list("&status=shipped").await.is_empty());
    let time = text(&placed[4]["placed_at"]);
    assert_eq!(list(&format!("&placed_after={time}")).await, ids[..2]);
    assert_eq!(list(&format!("&placed_before={time}")).await, ids[3..]);
    assert!(list(&format!("&placed_after={time}&placed_before={time}")).await.is_empty());
    assert_eq!(
        shop.get("/v1/orders?customer_id=nobody-at-all").await.is(200).body,
        json!({"items": [], "next_cursor": null})
    );
    let page = shop.get(&format!("/v1/orders?customer_id={customer}&limit=7")).await.is(200).body;
    assert_eq!(page["next_cursor"], Value::Null, "the last page says so");
    assert_eq!(
        page["items"][6],
        shop.get(&format!("/v1/orders/{}", ids[6])).await.body,
        "a list shows what a read shows"
    );
}

#[tokio::test]
async fn pages_show_each_order_exactly_once_while_others_are_placed() {
    let shop = Arc::new(Shop::open().await);
    let customer = shop.location.clone();
    let place = |shop: Arc<Shop>, customer: String| async move {
        let mut body = shop.order_of("b", 1, 1, None);
        body["customer_id"] = json!(customer);
        shop.post("/v1/orders", body).await.is(201).text("order_id")
    };
    let mut there = Vec::new();
    for _ in 0..40 {
        there.push(place(Arc::clone(&shop), customer.clone()).await);
    }
    shop.until(&format!("/v1/orders?customer_id={customer}&limit=500"), |page| {
        page["items"].as_array().is_some_and(|items| items.len() == 40)
    })
    .await;
    let done = Arc::new(AtomicBool::new(false));
    let placing = {
        let (shop, customer, done) = (Arc::clone(&shop), customer.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                place(Arc::clone(&shop), customer.clone()).await;
            }
        })
    };
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let page = shop.get(&format!("/v1/orders?customer_id={customer}&limit=3{cursor}")).await.is(200).body;
        for order in page["items"].as_array().expect("a list") {
            *seen.entry(text(&order["order_id"])).or_default() += 1;
        }
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    done.store(true, Ordering::Relaxed);
    placing.await.expect("no panic");
    for order in &there {
        assert_eq!(seen.get(order), Some(&1), "{order}");
    }
    assert!(seen.values().all(|times| *times == 1));
}

#[tokio::test]
async fn a_cursor_is_good_for_its_own_list_only() {
    let shop = Shop::open().await;
    for _ in 0..3 {
        shop.ordered("nothing", 1, 1, "tok_ok").await;
    }
    let paths = [
        "/v1/orders?limit=1",
        "/v1/orders?limit=1&customer_id=c-17",
        "/v1/sagas?limit=1",
        "/v1/streams?limit=1",
        "/v1/streams?limit=1&prefix=order-",
    ];
    let mut cursors = Vec::new();
    for path in paths {
        let page = shop.until(path, |page| page["next_cursor"].is_string()).await;
        cursors.push(text(&page["next_cursor"]));
    }
    for (path, own) in paths.iter().zip(&cursors) {
        shop.get(&format!("{path}&cursor={own}")).await.is(200);
        for foreign in cursors.iter().filter(|cursor| *cursor != own) {
            shop.get(&format!("{path}&cursor={foreign}")).await.says(400, "bad-cursor");
        }
        let middle = own.len() / 2;
        let other = if &own[middle..=middle] == "A" { "B" } else { "A" };
        for altered in [
            "x".to_owned(),
            "%20".to_owned(),
            own[1..].to_owned(),
            own[..own.len() - 1].to_owned(),
            format!("{own}A"),
            format!("{}{other}{}", &own[..middle], &own[middle + 1..]),
        ] {
            shop.get(&format!("{path}&cursor={altered}")).await.says(400, "bad-cursor");
        }
    }
    let order = shop.ordered("nothing", 1, 1, "tok_ok").await.text("order_id");
    let events = |query: &str| format!("/v1/streams/order-{order}/events?limit=1{query}");
    let cursor = shop.get(&events("")).await.is(200).text("next_cursor");
    shop.get(&events(&format!("&cursor={cursor}"))).await.is(200);
    shop.get(&events(&format!("&direction=backward&cursor={cursor}"))).await.says(400, "bad-cursor");
    shop.get(&format!("/v1/events?from={cursor}")).await.says(400, "bad-cursor");
    let all = shop.get("/v1/events?limit=1").await.is(200).text("next_cursor");
    shop.get(&format!("/v1/events?limit=1&from={all}&type=OrderPlaced")).await.says(400, "bad-cursor");
    shop.get(&format!("/v1/events?limit=1&from={all}")).await.is(200);
}

#[tokio::test]
async fn what_nobody_made_is_not_found() {
    let shop = Shop::open().await;
    let nobody = id();
    for (path, code) in [
        (format!("/v1/orders/{nobody}"), "order-not-found"),
        (format!("/v1/payments/{nobody}"), "payment-not-found"),
        (format!("/v1/sagas/{nobody}"), "saga-not-found"),
        (shop.stock_path("nothing"), "stock-not-found"),
        (format!("{}/{nobody}", shop.reservations_path()), "reservation-not-found"),
        (format!("/v1/streams/order-{nobody}/events"), "stream-not-found"),
        ("/v1/streams/x/events".to_owned(), "stream-not-found"),
        (format!("/v1/commands/{nobody}"), "command-not-found"),
    ] {
        let told = shop.get(&path).await.says(404, code);
        assert!(told.body["outcome"].is_null());
    }
}

#[tokio::test]
async fn an_orders_version_moves_when_and_only_when_it_does() {
    let shop = Shop::open().await;
    shop.count("b", 9).await;
    let order = shop.ordered("b", 1, 100, "tok_flaky_2").await;
    let path = format!("/v1/orders/{}", order.text("order_id"));
    assert_eq!(order.header("etag"), Some("\"3\""), "placed, checkout started, confirmed");
    let events = shop.types(&format!("order-{}", order.text("order_id"))).await;
    assert_eq!(events, ["OrderPlaced", "CheckoutStarted", "OrderConfirmed"]);
    assert_eq!(shop.get(&path).await.header("etag"), Some("\"3\""));
}
