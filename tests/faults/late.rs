//! What lands late changes nothing: money promised or goods reserved for an order that is no longer wanted, with the house
//! dying in between. The gateway keeps books of its own, so it would know.

use std::time::{Duration, Instant};

use kit::shop::{count, line, order, payment, reservation as reservation_body};
use kit::{Client, Dice, Docket, Reply, knob};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::history::what_is_promised;
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

/// Cancels an order, which is taken at once whatever has to be undone.
async fn cancel(client: &Client, order: &str) {
    let cancelled = asked(client, &format!("/v1/orders/{order}/cancel"), json!({"reason": "customer"})).await;
    assert_eq!((cancelled.status, &cancelled.body["status"]), (200, &json!("cancelled")), "{order}");
}

/// kill -9, and the house on the same data.
async fn killed_and_back(house: &mut House, docket: Docket) -> Docket {
    docket.kill9();
    house.start().await
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

/// The row of an order's payment in the gateway's books.
async fn books_of(client: &Client, order: &str) -> Value {
    let shown = client.get(&format!("/v1/orders/{order}")).await.expect("an answer").body;
    let ledger = client.get("/dev/gateway/ledger").await.expect("an answer").body;
    let mut rows = ledger["items"].as_array().into_iter().flatten();
    rows.find(|row| row["payment_id"] == shown["payment_id"]).unwrap_or_else(|| panic!("no row for {shown}")).clone()
}

/// All that the house shows of an order, its checkout, its payment and the stock, with versions.
async fn shown(client: &Client, order: &str) -> Vec<Value> {
    let order = client.get(&format!("/v1/orders/{order}")).await.expect("an answer").body;
    let mut all = vec![order.clone()];
    let text = |field: &str| order[field].as_str().expect("it began its checkout").to_owned();
    let paths = [
        format!("/v1/sagas/{}", text("saga_id")),
        format!("/v1/payments/{}", text("payment_id")),
        "/v1/stock/shop-1/beans".to_owned(),
        "/v1/stock/shop-2/beans".to_owned(),
    ];
    for path in paths {
        let reply = client.get(&path).await.expect("an answer");
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        all.push(reply.body);
    }
    all
}

/// The house dies between the question and the cancel, between all that is taken back and the arrival, or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn an_authorization_that_arrives_after_its_void_is_barred() {
    let _place = crate::beside_another().await;
    for dies_after in [false, true] {
        let data = tempfile::tempdir().expect("a scratch directory");
        let mut house = House::new(data.path());
        let mut docket = open(&mut house).await;
        let mut orders = Vec::new();
        for dies_before in [false, true] {
            let body = order("c-1", "shop-1", vec![line("beans", 1, 700)], Some("tok_late"));
            let placed = asked(&docket.client(), "/v1/orders", body).await;
            let id = placed.body["order_id"].as_str().expect("an order has an id").to_owned();
            // No answer came: the call is on its way.
            until(&docket.client(), &format!("/v1/sagas/{id}"), |saga| {
                saga_step(saga, "authorize_payment")["state"] == "retrying"
            })
            .await;
            if dies_before {
                docket = killed_and_back(&mut house, docket).await;
            }
            cancel(&docket.client(), &id).await;
            until(&docket.client(), &format!("/v1/sagas/{id}"), |saga| saga["state"] == "compensated").await;
            orders.push(id);
        }
        let mut before = Vec::new();
        for id in &orders {
            before.push((shown(&docket.client(), id).await, books_of(&docket.client(), id).await));
        }
        if dies_after {
            docket = killed_and_back(&mut house, docket).await;
        }
        house.heal(&docket).await;
        for (id, (shown_before, books_before)) in orders.iter().zip(before) {
            let books = books_of(&docket.client(), id).await;
            let calls = |row: &Value| row["calls"].as_u64().expect("calls are counted");
            assert_eq!(calls(&books), calls(&books_before) + 1, "nothing arrived late: {books}");
            for field in ["authorized", "captured", "voided", "refunded"] {
                assert_eq!(books[field], books_before[field], "what arrived late moved money: {books}");
            }
            assert_eq!(
                (&books["captured"], &books["voided"]),
                (&json!(0), &books["authorized"]),
                "money is held: {books}"
            );
            assert_eq!(shown(&docket.client(), id).await, shown_before);
        }
        rest(&mut house, docket).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_on_its_way_is_never_taken_for_absent_and_is_given_back_once() {
    let _place = crate::beside_another().await;
    let data = tempfile::tempdir().expect("a scratch directory");
    let mut house = House::new(data.path());
    let mut docket = open(&mut house).await;
    let mut orders = Vec::new();
    for dies in [false, true] {
        let body = order("c-1", "shop-1", vec![line("beans", 1, 700)], Some("tok_capture_late"));
        let placed = asked(&docket.client(), "/v1/orders", body).await;
        let id = placed.body["order_id"].as_str().expect("an order has an id").to_owned();
        let saga = format!("/v1/sagas/{id}");
        until(&docket.client(), &saga, |saga| saga_step(saga, "capture_payment")["state"] == "retrying").await;
        cancel(&docket.client(), &id).await;
        if dies {
            docket = killed_and_back(&mut house, docket).await;
        }
        // Asked again, unanswered again: still nothing behind it is undone.
        let tries = |saga: &Value| saga_step(saga, "capture_payment")["attempts"].as_u64().unwrap_or(0);
        let tried = tries(&docket.client().get(&saga).await.expect("an answer").body);
        let waiting = until(&docket.client(), &saga, |saga| tries(saga) > tried).await;
        let commit = saga_step(&waiting, "commit_stock");
        assert_eq!((&waiting["direction"], &commit["state"]), (&json!("backward"), &json!("done")), "{waiting}");
        orders.push(id);
    }
    house.heal(&docket).await;
    for id in &orders {
        let saga = docket.client().get(&format!("/v1/sagas/{id}")).await.expect("an answer").body;
        assert_eq!(saga["state"], "compensated", "{saga}");
        let books = books_of(&docket.client(), id).await;
        assert_eq!((&books["captured"], &books["refunded"]), (&json!(700), &json!(700)), "{books}");
    }
    let stock = docket.client().get("/v1/stock/shop-1/beans").await.expect("an answer").body;
    assert_eq!((&stock["on_hand"], &stock["reserved"]), (&json!(1_000), &json!(0)));
    rest(&mut house, docket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reserve_that_arrives_after_its_undo_changes_nothing() {
    let _place = crate::beside_another().await;
    let data = tempfile::tempdir().expect("a scratch directory");
    let mut house = House::new(data.path());
    let docket = open(&mut house).await;
    let client = docket.client();
    let mut orders = Vec::new();
    // Released, returned after the commit, and, where the cancel was faster than the question, barred.
    for (token, waits_for) in [("tok_late", "retrying"), ("tok_ok", "done"), ("tok_late", ""), ("tok_late", "")] {
        let mut far = line("beans", 2, 100);
        far["location_id"] = json!("shop-2");
        let body = order("c-1", "shop-1", vec![line("beans", 1, 100), far], Some(token));
        let placed = asked(&client, "/v1/orders", body).await;
        let id = placed.body["order_id"].as_str().expect("an order has an id").to_owned();
        if !waits_for.is_empty() {
            let waits_for = |saga: &Value| saga_step(saga, "authorize_payment")["state"] == waits_for;
            until(&client, &format!("/v1/sagas/{id}"), waits_for).await;
        }
        cancel(&client, &id).await;
        until(&client, &format!("/v1/sagas/{id}"), |saga| saga["state"] == "compensated").await;
        orders.push(id);
    }
    house.follower.catch_up(&client).await;
    let mut late = Vec::new();
    let mut reservations = Vec::new();
    for id in &orders {
        let saga = client.get(&format!("/v1/sagas/{id}")).await.expect("an answer").body;
        let steps = saga["steps"].as_array().expect("a checkout has steps");
        let steps =
            steps.iter().filter(|step| step["name"].as_str().is_some_and(|name| name.starts_with("reserve_stock")));
        let sent_as: Vec<Uuid> = steps.filter_map(|step| step["command_id"].as_str()?.parse().ok()).collect();
        assert!(!sent_as.is_empty(), "{saga}");
        for (place, quantity) in [("shop-1", 1), ("shop-2", 2)] {
            let told = &house.follower.told;
            let of_this = |stream: &str| {
                let first = told.stream(stream).next().map(|event| &event.data);
                first.is_some_and(|data| data["order_id"] == **id || data["barred"]["order_id"] == **id)
            };
            let at = format!("reservation-{place}~");
            for stream in told.streams.keys().filter(|stream| stream.starts_with(&at) && of_this(stream)) {
                let reservation = stream.rsplit('~').next().expect("its id").to_owned();
                let path = format!("/v1/stock/{place}/reservations");
                let mut body = reservation_body(&[("beans", quantity)], Some(900));
                body["reservation_id"] = json!(reservation);
                // Under a key of its own, and under the very id that the checkout sent it with.
                late.push((path.clone(), Uuid::now_v7(), body.clone()));
                late.extend(sent_as.iter().map(|sent_as| (path.clone(), *sent_as, body.clone())));
                for verb in ["commit", "release"] {
                    late.push((format!("{path}/{reservation}/{verb}"), Uuid::now_v7(), json!({})));
                }
                reservations.push(format!("{path}/{reservation}"));
            }
        }
    }
    assert!(reservations.len() >= 4, "{reservations:?}");
    reservations.extend(["shop-1", "shop-2"].map(|place| format!("/v1/stock/{place}/beans")));
    let mut before = Vec::new();
    for path in &reservations {
        before.push(client.get(path).await.expect("an answer").body);
    }
    let mut refusals = Vec::new();
    for (path, key, body) in &late {
        refusals.push(client.post(path, *key, body).await.expect("an answer"));
    }
    docket.kill9();
    let docket = house.start().await;
    let client = docket.client();
    for ((path, key, body), refused) in late.iter().zip(&refusals) {
        assert!(matches!(refused.status, 409 | 422), "{path} {body}: {}", refused.body);
        assert_eq!(refused.body["outcome"], "rejected", "{path} {body}: {}", refused.body);
        let again = client.post(path, *key, body).await.expect("an answer");
        assert_eq!(what_is_promised(&again), what_is_promised(refused), "{path} {body}");
    }
    for (path, before) in reservations.iter().zip(before) {
        assert_eq!(client.get(path).await.expect("an answer").body, before, "{path}");
    }
    rest(&mut house, docket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorization_that_comes_after_the_cancel_holds_no_money() {
    let _place = crate::beside_another().await;
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
                docket = killed_and_back(&mut house, docket).await;
            }
            cancel(&docket.client(), &id).await;
            if dies_after {
                tokio::time::sleep(Duration::from_millis(dice.between(0, 100))).await;
                docket = killed_and_back(&mut house, docket).await;
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
    let _place = crate::beside_another().await;
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
            docket = killed_and_back(&mut house, docket).await;
        }
        until(&docket.client(), &format!("/v1/sagas/{id}"), |saga| saga["state"] == "compensated").await;
    }
    for row in rest(&mut house, docket).await {
        assert_eq!(row["captured"], row["refunded"], "{row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_given_up_while_it_is_authorized_stays_given_up() {
    let _place = crate::beside_another().await;
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
                docket = killed_and_back(&mut house, docket).await;
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
    let _place = crate::beside_another().await;
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
            docket = killed_and_back(&mut house, docket).await;
        }
        until(&docket.client(), &format!("/v1/sagas/{id}"), |saga| saga["state"] == "compensated").await;
    }
    for location in ["shop-1", "shop-2"] {
        let stock = docket.client().get(&format!("/v1/stock/{location}/beans")).await.expect("an answer").body;
        assert_eq!((&stock["on_hand"], &stock["reserved"]), (&json!(1_000), &json!(0)));
    }
    rest(&mut house, docket).await;
}
