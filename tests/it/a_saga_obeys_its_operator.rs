//! What an operator can do about a saga: set it aside, take it up, try again, give up an undo, turn it round; and the no
//! where none of that makes sense. Each is an event with who and why.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::platform::{Shop, Told, id, step_of};

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

/// Has a failing step tried at once, as often as it takes; how often that was.
async fn retried_until(shop: &Shop, saga: &str, end: &str) -> usize {
    let mut retries = 0;
    loop {
        let path = format!("/v1/sagas/{saga}");
        let shown = shop.until(&path, |saga| saga["state"] == end || !saga["next_attempt_at"].is_null()).await;
        if shown["state"] == end {
            return retries;
        }
        let told = decide(shop, saga, "retry").await;
        match told.status {
            200 => retries += 1,
            // It was tried just now, and went well.
            _ => drop(told.refuses(409, "saga-not-actionable")),
        }
    }
}

#[tokio::test]
async fn past_the_point_of_no_return_a_saga_is_stuck_forward_and_tried_until_the_money_is_cashed() {
    let shop = Shop::open().await;
    shop.count("beans", 5).await;
    let body = shop.order_of("beans", 1, 100, Some("tok_capture_fails_20"));
    let order = shop.post("/v1/orders", body).await.is(201);
    let saga = order.text("order_id");
    let stuck = shop.saga_until(&saga, "stuck-forward").await;
    let capture = step_of(&stuck, "capture_payment");
    assert!(capture["attempts"].as_u64() >= Some(5) && capture["last_error"].is_string(), "{stuck}");
    assert!(stuck["next_attempt_at"].is_string(), "{stuck}");
    assert_eq!(step_of(&stuck, "commit_stock")["state"], "done");
    // The stock is sold, the money not cashed: the only way is on.
    for decision in ["compensate", "skip", "resume"] {
        decide(&shop, &saga, decision).await.refuses(409, "saga-not-actionable");
    }
    assert_eq!(shop.get(&format!("/v1/orders/{saga}")).await.body["status"], "placed");
    assert_eq!(shop.counters("beans").await, (4, 0, 4));
    assert!(retried_until(&shop, &saga, "completed").await >= 1);
    let settled = shop.saga_until(&saga, "completed").await;
    assert_eq!(
        (&settled["next_attempt_at"], &step_of(&settled, "capture_payment")["attempts"]),
        (&Value::Null, &json!(21))
    );
    let order = shop.until(&format!("/v1/orders/{saga}"), |order| order["status"] == "confirmed").await;
    assert_eq!(shop.money(order["payment_id"].as_str().expect("a payment")).await, [100, 100, 0, 0]);
    shop.is_sound().await;
}

#[tokio::test]
async fn a_saga_that_was_stuck_forward_and_is_called_off_waits_for_the_money_and_gives_it_back() {
    let shop = Shop::open().await;
    shop.count("beans", 5).await;
    let body = shop.order_of("beans", 1, 100, Some("tok_capture_fails_20"));
    let saga = shop.post("/v1/orders", body).await.is(201).text("order_id");
    shop.saga_until(&saga, "stuck-forward").await;
    let cancelled = shop.post(&format!("/v1/orders/{saga}/cancel"), json!({"reason": "customer"})).await.is(200);
    assert_eq!((cancelled.text("status"), &cancelled.body["paid"]["amount"]), ("cancelled".to_owned(), &json!(0)));
    // Asked for and not answered, it may yet be cashed: first that, then its undo.
    let stuck = shop.saga_until(&saga, "stuck-compensating").await;
    assert_eq!(step_of(&stuck, "capture_payment")["state"], "retrying");
    for decision in ["compensate", "skip", "resume"] {
        decide(&shop, &saga, decision).await.refuses(409, "saga-not-actionable");
    }
    retried_until(&shop, &saga, "compensated").await;
    let order = shop.until(&format!("/v1/orders/{saga}"), |order| order["refunded"]["amount"] == 100).await;
    assert_eq!((&order["status"], &order["paid"]["amount"]), (&json!("cancelled"), &json!(100)));
    assert_eq!(shop.money(order["payment_id"].as_str().expect("a payment")).await, [100, 100, 0, 100]);
    assert_eq!(shop.counters("beans").await, (5, 0, 5));
    shop.is_sound().await;
}

#[tokio::test]
async fn a_saga_whose_void_nobody_answers_is_stuck_compensating_until_it_is_skipped_or_the_gateway_is_healed() {
    let shop = Shop::alone().await;
    shop.count("beans", 5).await;
    let stuck = async || {
        let body = shop.order_of("beans", 1, 100, Some("tok_down"));
        let saga = shop.post("/v1/orders", body).await.is(201).text("order_id");
        shop.saga_until(&saga, "retrying").await;
        decide(&shop, &saga, "compensate").await.is(200);
        shop.saga_until(&saga, "stuck-compensating").await;
        saga
    };
    let sagas = futures::future::join_all([stuck(), stuck(), stuck(), stuck()]).await;
    let [healed, retried, skipped, parked] = sagas.as_slice() else { panic!("{sagas:?}") };
    assert_eq!(shop.counters("beans").await, (5, 0, 5), "stock does not wait");
    for decision in ["compensate", "resume"] {
        decide(&shop, healed, decision).await.refuses(409, "saga-not-actionable");
    }
    let listed = shop.client().list("/v1/sagas?state=stuck-compensating").await.expect("a list");
    assert!(sagas.iter().all(|saga| listed.iter().any(|item| item["saga_id"] == **saga)), "{listed:?}");
    // Tried at once, and as far from an answer as before.
    let tries = |saga: &Value| step_of(saga, "authorize_payment")["attempts"].as_u64().expect("a number");
    let before = tries(&shop.get(&format!("/v1/sagas/{retried}")).await.body);
    assert_eq!(decide(&shop, retried, "retry").await.is(200).body["next_attempt_at"], Value::Null);
    let again = shop.saga_until(retried, "stuck-compensating").await;
    assert!(tries(&again) > before, "{again}");
    // Given up by hand: that is settled, whatever the gateway does.
    let settled = decide(&shop, skipped, "skip").await.is(200);
    assert_eq!(settled.text("state"), "compensated");
    assert_eq!(step_of(&settled.body, "authorize_payment")["last_error"], "undo given up: on call");
    decide(&shop, skipped, "skip").await.refuses(409, "saga-not-actionable");
    assert_eq!(decide(&shop, parked, "park").await.is(200).text("state"), "parked");
    shop.send(reqwest::Method::POST, "/dev/gateway/heal", &[], None).await.is(200);
    retried_until(&shop, retried, "compensated").await;
    shop.saga_until(healed, "compensated").await;
    assert_eq!(shop.get(&format!("/v1/sagas/{parked}")).await.body["state"], "parked", "set aside");
    assert_eq!(decide(&shop, parked, "resume").await.is(200).text("state"), "compensating");
    shop.saga_until(parked, "compensated").await;
    for saga in [healed, retried, parked] {
        let payment = shop.get(&format!("/v1/orders/{saga}")).await.text("payment_id");
        assert_eq!(
            shop.until(&format!("/v1/payments/{payment}"), |it| it["in_flight"].is_null()).await["status"],
            "voided"
        );
        assert_eq!(shop.money(&payment).await, [0, 0, 0, 0]);
    }
    let payment = shop.get(&format!("/v1/orders/{skipped}")).await.text("payment_id");
    assert_eq!(shop.ledger(&payment).await, None, "nobody asked any more");
    assert_eq!(shop.counters("beans").await, (5, 0, 5));
    shop.is_sound().await;
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
