//! The walkthrough of ARCHITECTURE.md, walked on the real binary: one order from its request to its rows, with every event
//! in its place across the streams, and every answer caused by what came before.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::platform::{Shop, Told, text};

fn partition_of(event: &Value) -> u64 {
    text(&event["position"]).split_once(':').expect("partition and offset").0.parse().expect("a number")
}

fn offset_of(event: &Value) -> u64 {
    text(&event["position"]).split_once(':').expect("partition and offset").1.parse().expect("a number")
}

#[tokio::test]
async fn follow_one_order() {
    let shop = Shop::open().await;
    shop.count("beans", 10).await;

    // 1–3. A request becomes one record: the order, the start of its checkout, and the saga's plan.
    let key = Uuid::now_v7();
    let body = shop.order_of("beans", 2, 1999, Some("tok_ok"));
    let placed = shop.post_as(key, "/v1/orders", body.clone()).await.is(201);
    assert_eq!((placed.text("status"), placed.header("etag")), ("placed".to_owned(), Some("\"2\"")));
    let (order, payment) = (placed.text("order_id"), placed.text("payment_id"));
    let position = placed.header("docket-position").expect("a position").to_owned();
    shop.saga_until(&order, "completed").await;

    let read =
        async |stream: String| shop.client().list(&format!("/v1/streams/{stream}/events")).await.expect("a list");
    let orders = read(format!("order-{order}")).await;
    let saga = read(format!("checkout-{order}")).await;
    let payments = read(format!("payment-{payment}")).await;
    let stock = read(format!("stock-{}~beans", shop.location)).await;
    let reservations =
        shop.client().list(&format!("/v1/streams?prefix=reservation-{}", shop.location)).await.expect("a list");
    let reservation = read(text(&reservations[0]["stream"])).await;
    let types = |events: &[Value]| events.iter().map(|event| text(&event["type"])).collect::<Vec<_>>();
    assert_eq!(types(&orders), ["OrderPlaced", "CheckoutStarted", "OrderConfirmed"]);
    assert_eq!(
        types(&payments),
        ["PaymentRequested", "PaymentAuthorized", "PaymentCaptureRequested", "PaymentCaptured"]
    );
    assert_eq!(types(&stock), ["StockCounted", "StockReserved", "StockCommitted"]);
    assert_eq!(types(&reservation), ["ReservationMade", "ReservationCommitted"]);
    assert_eq!(types(&saga).first().map(String::as_str), Some("CheckoutPlanned"));
    assert_eq!(types(&saga).last().map(String::as_str), Some("CheckoutCompleted"));

    let find =
        |events: &[Value], name: &str| events.iter().find(|event| event["type"] == name).cloned().expect("the event");
    for event in [&orders[0], &orders[1], &saga[0]] {
        assert_eq!((&event["position"], &event["command_id"]), (&json!(position), &json!(key.to_string())));
    }
    assert_eq!(orders[1]["data"]["payment_id"], payment);

    // 4–5. The first errand reserves at the location: all in one record there.
    let (made, reserved) = (find(&reservation, "ReservationMade"), find(&stock, "StockReserved"));
    assert_eq!((&made["position"], &made["data"]["order_id"]), (&reserved["position"], &json!(order)));
    assert_eq!(reserved["data"]["quantity"], 2);
    let (kept, committed) = (find(&reservation, "ReservationCommitted"), find(&stock, "StockCommitted"));
    assert_eq!(kept["position"], committed["position"]);
    assert!(offset_of(&reserved) < offset_of(&committed));

    // 6. Authorized only after it was asked for, captured only after the stock was taken, confirmed in the same record.
    let (requested, authorized) = (find(&payments, "PaymentRequested"), find(&payments, "PaymentAuthorized"));
    let (asked, captured) = (find(&payments, "PaymentCaptureRequested"), find(&payments, "PaymentCaptured"));
    let home: Vec<u64> = [&orders[0], &requested, &authorized, &asked, &captured].map(offset_of).to_vec();
    assert!(home.is_sorted_by(|earlier, later| earlier < later), "{home:?}");
    let time = |event: &Value| text(&event["recorded_at"]);
    assert!(
        time(&reserved) <= time(&requested)
            && time(&authorized) <= time(&committed)
            && time(&committed) <= time(&asked)
    );
    let (confirmed, completed) = (find(&orders, "OrderConfirmed"), find(&saga, "CheckoutCompleted"));
    assert_eq!((&confirmed["position"], &completed["position"]), (&captured["position"], &captured["position"]));
    assert_eq!(confirmed["data"]["paid"], json!({"amount": 3998, "currency": "EUR"}));

    // The order, its saga and its payment share a partition, and all of it goes back to the one request.
    let at_home = orders.iter().chain(&saga).chain(&payments);
    assert!(at_home.clone().all(|event| partition_of(event) == partition_of(&orders[0])));
    let caused = at_home.chain(&reservation).chain(stock.iter().skip(1));
    for event in caused.clone() {
        assert_eq!(event["correlation_id"], key.to_string(), "{event}");
        assert_eq!(event["causation_id"].is_null(), event["command_id"] == key.to_string(), "{event}");
    }

    // The same events again where all are told, per partition in order.
    let all: BTreeMap<String, Value> = shop
        .client()
        .ndjson("/v1/events")
        .await
        .expect("lines")
        .into_iter()
        .map(|event| (text(&event["event_id"]), event))
        .collect();
    for event in caused {
        assert_eq!(all.get(&text(&event["event_id"])), Some(event));
    }

    // 7. Rows say what the events say.
    let shown = shop.get(&format!("/v1/orders/{order}")).await.is(200);
    assert_eq!((shown.text("status"), shown.header("etag")), ("confirmed".to_owned(), Some("\"3\"")));
    assert_eq!(shown.body["paid"]["amount"], 3998);
    assert_eq!(shop.counters("beans").await, (8, 0, 8));
    let saga_row = shop.get(&format!("/v1/sagas/{order}")).await.is(200);
    assert_eq!(saga_row.header("etag"), Some(format!("\"{}\"", saga.len()).as_str()));
    for step in saga_row.body["steps"].as_array().expect("a list") {
        assert_eq!(step["state"], "done", "{step}");
    }
    let listed = shop.client().list(&format!("/v1/sagas?order_id={order}")).await.expect("a list");
    assert_eq!(listed, [saga_row.body]);

    // The gateway's own books agree, and nothing that must hold is violated.
    let row = shop.ledger(&payment).await.expect("a row");
    assert_eq!(
        (&row["authorized"], &row["captured"], &row["voided"], &row["refunded"]),
        (&json!(3998), &json!(3998), &json!(0), &json!(0))
    );
    assert_eq!((&row["currency"], &row["calls"]), (&json!("EUR"), &json!(2)));
    shop.is_sound().await;

    // Asked again with its key: the first answer, to the letter.
    let again = shop.post_as(key, "/v1/orders", body).await;
    assert!(again.is_replayed());
    assert_eq!(again.essence(), placed.essence());
}
