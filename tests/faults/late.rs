//! What lands late changes nothing: money promised or goods reserved for an order that is no longer wanted, with the house
//! dying in between. The gateway keeps books of its own, so it would know.

use std::time::{Duration, Instant};

use kit::shop::{count, line, order, payment};
use kit::{Client, Dice, Docket, Reply, knob};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::house::House;
use crate::judge::{assert_clean, judge};

/// How long something may take to be seen.
const SEEN_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(5);

async fn open(house: &mut House) -> Docket {
    let docket = house.start().await;
    for location in ["shop-1", "shop-2"] {
        let counted = docket.client().put(&format!("/v1/stock/{location}/beans"), Uuid::now_v7(), &count(1_000)).await;
        assert_eq!(counted.map(|reply| reply.status), Some(201));
    }
    docket
}

async fn asked(client: &Client, path: &str, body: Value) -> Reply {
    client.post(path, Uuid::now_v7(), &body).await.expect("an answer")
}

/// Reads until it shows what is waited for.
async fn until(client: &Client, path: &str, seen: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let shown = client.get(path).await.expect("an answer").body;
        if seen(&shown) {
            return shown;
        }
        assert!(began.elapsed() < SEEN_WITHIN, "{path} stays {shown}");
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}

/// Waits for rest and judges; gives back the books.
async fn rest(house: &mut House, docket: Docket) -> Vec<Value> {
    house.heal(&docket).await;
    docket.terminate().await;
    let docket = house.start().await;
    let client = docket.client();
    house.follower.catch_up(&client).await;
    let evidence = house.evidence(&client).await;
    assert_clean(&judge(&evidence), || docket.printed());
    docket.terminate().await;
    evidence.ledger
}

fn saga_step<'a>(saga: &'a Value, name: &str) -> &'a Value {
    let steps = saga["steps"].as_array().into_iter().flatten();
    steps.into_iter().find(|step| step["name"] == name).unwrap_or(&Value::Null)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorization_that_comes_after_the_cancel_holds_no_money() {
    let _alone = crate::one_at_a_time().await;
    let mut dice = Dice::new(knob("DOCKET_TEST_SEED", 1), &[4]);
    let data = tempfile::tempdir().expect("a scratch directory");
    let mut house = House::new(data.path());
    let mut docket = open(&mut house).await;
    // With and without a death between the question and the cancel, and between the cancel and the late answer.
    for (dies_before, dies_after) in [(false, false), (true, false), (false, true), (true, true)] {
        for token in ["tok_slow_400", "tok_lost_answer"] {
            let body = order("c-1", "shop-1", vec![line("beans", 1, 700)], Some(token));
            let placed = asked(&docket.client(), "/v1/orders", body).await;
            assert_eq!(placed.status, 201);
            let id = placed.body["order_id"].as_str().expect("an order has an id").to_owned();
            until(&docket.client(), &format!("/v1/sagas/{id}"), |saga| {
                saga_step(saga, "reserve_stock")["state"] == "done"
            })
            .await;
            if dies_before {
                docket.kill9();
                docket = house.start().await;
            }
            let cancelled =
                asked(&docket.client(), &format!("/v1/orders/{id}/cancel"), json!({"reason": "customer"})).await;
            assert_eq!((cancelled.status, &cancelled.body["status"]), (200, &json!("cancelled")));
            if dies_after {
                tokio::time::sleep(Duration::from_millis(dice.between(0, 100))).await;
                docket.kill9();
                docket = house.start().await;
            }
            house.settle(&docket).await;
            // After a kill the authorization is asked for again, beside its undo: whichever comes last must change nothing.
            until(&docket.client(), &format!("/v1/sagas/{id}"), |saga| saga["state"] == "compensated").await;
        }
    }
    // Given up, or given back where the house had gone on to the capture before the cancel came.
    for row in rest(&mut house, docket).await {
        let amount = |field: &str| row[field].as_i64().expect("an amount");
        let held = amount("authorized") - amount("voided") - amount("captured");
        assert_eq!((held, amount("captured") - amount("refunded")), (0, 0), "{row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_comes_after_the_cancel_is_given_back() {
    let _alone = crate::one_at_a_time().await;
    let data = tempfile::tempdir().expect("a scratch directory");
    let mut house = House::new(data.path());
    let mut docket = open(&mut house).await;
    for dies in [false, true, true] {
        let body = order("c-1", "shop-1", vec![line("beans", 1, 700)], Some("tok_capture_fails_3"));
        let placed = asked(&docket.client(), "/v1/orders", body).await;
        let id = placed.body["order_id"].as_str().expect("an order has an id").to_owned();
        // Stock is committed: from here on there is only forward, and then back.
        until(&docket.client(), &format!("/v1/sagas/{id}"), |saga| saga_step(saga, "commit_stock")["state"] == "done")
            .await;
        let cancelled = asked(&docket.client(), &format!("/v1/orders/{id}/cancel"), json!({"reason": "fraud"})).await;
        assert_eq!(cancelled.status, 200);
        if dies {
            docket.kill9();
            docket = house.start().await;
        }
        until(&docket.client(), &format!("/v1/sagas/{id}"), |saga| saga["state"] == "compensated").await;
    }
    for row in rest(&mut house, docket).await {
        assert_eq!(row["captured"], row["refunded"], "{row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_given_up_while_it_is_authorized_stays_given_up() {
    let _alone = crate::one_at_a_time().await;
    let data = tempfile::tempdir().expect("a scratch directory");
    let mut house = House::new(data.path());
    let mut docket = open(&mut house).await;
    for dies in [false, true] {
        for token in ["tok_slow_400", "tok_lost_answer", "tok_twice", "tok_down"] {
            let client = docket.client();
            let key = Uuid::now_v7().to_string();
            let headers = [("idempotency-key", key.as_str()), ("prefer", "wait=0")];
            let body = payment(4_200, token);
            let made =
                client.send(reqwest::Method::POST, "/v1/payments", &headers, Some(&body)).await.expect("an answer");
            assert_eq!(made.status, 201, "{}", made.body);
            let id = made.body["payment_id"].as_str().expect("a payment has an id").to_owned();
            let key = Uuid::now_v7().to_string();
            let headers = [("idempotency-key", key.as_str()), ("prefer", "wait=0")];
            let path = format!("/v1/payments/{id}/void");
            let given_up =
                client.send(reqwest::Method::POST, &path, &headers, Some(&json!({}))).await.expect("an answer");
            assert_eq!(given_up.status, 200, "{}", given_up.body);
            if dies {
                docket.kill9();
                docket = house.start().await;
            }
            if token != "tok_down" {
                until(&docket.client(), &format!("/v1/payments/{id}"), |payment| payment["status"] == "voided").await;
            }
        }
    }
    for row in rest(&mut house, docket).await {
        assert_eq!((&row["captured"], &row["authorized"]), (&json!(0), &row["voided"]), "{row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_that_comes_after_the_cancel_holds_nothing() {
    let _alone = crate::one_at_a_time().await;
    let mut dice = Dice::new(knob("DOCKET_TEST_SEED", 1), &[5]);
    let data = tempfile::tempdir().expect("a scratch directory");
    let mut house = House::new(data.path());
    let mut docket = open(&mut house).await;
    for round in 0..12 {
        let client = docket.client();
        let id = dice.uuid();
        let mut far = line("beans", 1, 100);
        far["location_id"] = json!("shop-2");
        let mut body = order("c-1", "shop-1", vec![line("beans", 1, 100), far], Some("tok_slow_50"));
        body["order_id"] = json!(id);
        // Cancelled while both places are being asked: sent on the heels of the order, before its answer.
        let path = format!("/v1/orders/{id}/cancel");
        let place = asked(&client, "/v1/orders", body);
        let cancel = async {
            tokio::time::sleep(Duration::from_micros(dice.between(0, 6_000))).await;
            asked(&client, &path, json!({"reason": "customer"})).await
        };
        let (placed, cancelled) = tokio::join!(place, cancel);
        assert_eq!(placed.status, 201, "{}", placed.body);
        if cancelled.status == 404 {
            assert_eq!(asked(&client, &path, json!({"reason": "customer"})).await.status, 200);
        }
        if round % 3 == 2 {
            docket.kill9();
            docket = house.start().await;
        }
        until(&docket.client(), &format!("/v1/sagas/{id}"), |saga| saga["state"] == "compensated").await;
    }
    for location in ["shop-1", "shop-2"] {
        let stock = docket.client().get(&format!("/v1/stock/{location}/beans")).await.expect("an answer").body;
        assert_eq!((&stock["on_hand"], &stock["reserved"]), (&json!(1_000), &json!(0)));
    }
    rest(&mut house, docket).await;
}
