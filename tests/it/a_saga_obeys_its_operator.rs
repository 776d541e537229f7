//! What an operator can do about a saga: set it aside, take it up, try again, give up an undo, turn it round; and the no
//! where none of that makes sense. Each is an event with who and why.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::platform::{Shop, Told, id};

async fn decide(shop: &Shop, saga: &str, decision: &str) -> kit::Reply {
    shop.post(&format!("/v1/sagas/{saga}/{decision}"), json!({"reason": "on call"})).await
}

#[tokio::test]
async fn a_settled_saga_takes_no_decision_and_an_absent_one_is_not_found() {
    let shop = Shop::open().await;
    shop.count("beans", 5).await;
    let saga = shop.ordered("beans", 1, 100, "tok_ok").await.text("order_id");
    for decision in ["retry", "skip", "compensate", "park", "resume"] {
        decide(&shop, &saga, decision).await.refuses(409, "saga-not-actionable");
        decide(&shop, &id(), decision).await.refuses(404, "saga-not-found");
        decide(&shop, "no-uuid", decision).await.refuses(404, "saga-not-found");
        let told = shop.post(&format!("/v1/sagas/{saga}/{decision}"), json!({})).await.refuses(422, "invalid-fields");
        assert_eq!(told.faults()[0].0, "/reason");
    }
}

#[tokio::test]
async fn a_parked_saga_waits_until_it_is_resumed_and_holds_up_nobody() {
    let shop = Shop::open().await;
    shop.count("beans", 5).await;
    let body = shop.order_of("beans", 1, 100, Some("tok_slow_300"));
    let saga = shop.post("/v1/orders", body).await.is(201).text("order_id");
    let key = Uuid::now_v7();
    let headers = [("docket-actor", "grace")];
    let parked =
        shop.post_with(key, &format!("/v1/sagas/{saga}/park"), &headers, json!({"reason": "looks odd"})).await.is(200);
    assert_eq!((parked.text("state"), parked.text("saga_id")), ("parked".to_owned(), saga.clone()));
    assert!(
        shop.post_with(key, &format!("/v1/sagas/{saga}/park"), &headers, json!({"reason": "looks odd"}))
            .await
            .is_replayed()
    );
    decide(&shop, &saga, "park").await.refuses(409, "saga-not-actionable");
    assert_eq!(shop.ordered("beans", 1, 100, "tok_ok").await.text("status"), "confirmed", "nothing behind it waits");
    assert_eq!(shop.get(&format!("/v1/sagas/{saga}")).await.body["state"], "parked");
    assert_ne!(decide(&shop, &saga, "resume").await.is(200).text("state"), "parked");
    shop.saga_until(&saga, "completed").await;
    decide(&shop, &saga, "resume").await.refuses(409, "saga-not-actionable");
    let events = shop.client().list(&format!("/v1/streams/checkout-{saga}/events")).await.expect("a list");
    let told = events.iter().find(|event| event["type"] == "CheckoutParked").expect("the decision is an event");
    assert_eq!((&told["actor"], &told["data"]["reason"]), (&json!("grace"), &json!("looks odd")));
    shop.is_sound().await;
}

#[tokio::test]
async fn a_saga_that_retries_can_be_tried_now_or_turned_round() {
    let shop = Shop::alone().await;
    shop.count("beans", 5).await;
    let place = async || {
        let body = shop.order_of("beans", 1, 100, Some("tok_down"));
        let saga = shop.post("/v1/orders", body).await.is(201).text("order_id");
        shop.saga_until(&saga, "retrying").await;
        saga
    };
    let (turned, tried) = (place().await, place().await);
    decide(&shop, &turned, "skip").await.refuses(409, "saga-not-actionable");
    decide(&shop, &turned, "resume").await.refuses(409, "saga-not-actionable");
    let compensating = decide(&shop, &turned, "compensate").await.is(200);
    assert!(["compensating", "compensated"].contains(&compensating.text("state").as_str()), "{}", compensating.body);
    let order = shop.get(&format!("/v1/orders/{turned}")).await.body;
    assert_eq!((&order["status"], &order["cancellation"]["reason"]), (&json!("cancelled"), &json!("operator")));
    decide(&shop, &turned, "compensate").await.refuses(409, "saga-not-actionable");
    decide(&shop, &tried, "retry").await.is(200);
    shop.send(reqwest::Method::POST, "/dev/gateway/heal", &[], None).await.is(200);
    shop.saga_until(&tried, "completed").await;
    shop.saga_until(&turned, "compensated").await;
    assert_eq!(shop.counters("beans").await, (4, 0, 4));
    shop.is_sound().await;
}

#[tokio::test]
async fn an_undo_that_takes_too_long_is_given_up_by_hand() {
    let shop = Shop::alone().await;
    shop.count("beans", 5).await;
    let saga = shop.ordered("beans", 1, 100, "tok_slow_1500").await.text("order_id");
    // As slow to give the money back as it was to take it.
    shop.post(&format!("/v1/orders/{saga}/cancel"), json!({"reason": "customer"})).await.is(200);
    shop.saga_until(&saga, "compensating").await;
    decide(&shop, &saga, "skip").await.is(200);
    let settled = shop.saga_until(&saga, "compensated").await;
    assert_eq!(settled["next_attempt_at"], Value::Null);
    let types = shop.types(&format!("checkout-{saga}")).await;
    assert!(types.contains(&"CheckoutStepSkipped".to_owned()), "{types:?}");
    shop.until(&shop.stock_path("beans"), |stock| stock["available"] == 5).await;
}

#[tokio::test]
async fn sagas_are_listed_by_state_and_by_order() {
    let shop = Shop::open().await;
    shop.count("beans", 5).await;
    let good = shop.ordered("beans", 1, 100, "tok_ok").await.text("order_id");
    let bad = shop.ordered("beans", 1, 100, "tok_declined").await.text("order_id");
    for (saga, state) in [(&good, "completed"), (&bad, "compensated")] {
        shop.until(&format!("/v1/sagas?order_id={saga}"), |page| page["items"][0]["state"] == state).await;
    }
    let has = async |query: &str, saga: &str| {
        let listed = shop.client().list(&format!("/v1/sagas?{query}")).await.expect("a list");
        listed.iter().any(|item| item["saga_id"] == saga)
    };
    assert!(has("state=completed", &good).await && !has("state=completed", &bad).await);
    assert!(has("state=completed,compensated", &good).await && has("state=completed,compensated", &bad).await);
    assert!(has(&format!("order_id={}", bad.to_uppercase()), &bad).await);
    assert!(!has(&format!("order_id={bad}"), &good).await);
    assert!(!has(&format!("state=running&order_id={bad}"), &bad).await);
    let told = shop.get("/v1/sagas?state=completed,odd&order_id=x").await.says(422, "invalid-fields");
    let places: Vec<String> = told.faults().into_iter().map(|(place, _)| place).collect();
    assert_eq!(places, ["order_id", "state"]);
    shop.get(&format!("/v1/sagas/{}", id())).await.says(404, "saga-not-found");
}
