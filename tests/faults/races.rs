//! Crowds: a thousand buyers for a hundred units, and one impatient client who sends the same command fifty times at once.

use std::sync::Arc;

use kit::shop::{card, count, euros, line, order, payment, reservation};
use kit::{Client, Dice, Docket, Reply};
use serde_json::{Value, json};
use tokio::sync::Barrier;
use uuid::Uuid;

use crate::history::what_is_promised;
use crate::house::House;
use crate::judge::{assert_clean, judge};

const BUYERS: usize = 1_000;
const UNITS: i64 = 100;
const AT_ONCE: usize = 50;

/// Sends all of these at once and waits for all answers.
async fn all_at_once(client: &Client, requests: Vec<(String, Uuid, Value)>) -> Vec<Reply> {
    let gate = Arc::new(Barrier::new(requests.len()));
    let tasks: Vec<_> = requests
        .into_iter()
        .map(|(path, key, body)| {
            let (client, gate) = (client.clone(), Arc::clone(&gate));
            tokio::spawn(async move {
                gate.wait().await;
                client.post(&path, key, &body).await.expect("an answer")
            })
        })
        .collect();
    let mut replies = Vec::new();
    for task in tasks {
        replies.push(task.await.expect("a client does not panic"));
    }
    replies
}

async fn shop_with(units: i64, data: &std::path::Path) -> (House, Docket) {
    let mut house = House::new(data);
    let docket = house.start().await;
    let counted = docket.client().put("/v1/stock/shop-1/beans", Uuid::now_v7(), &count(units)).await;
    assert_eq!(counted.map(|reply| reply.status), Some(201));
    (house, docket)
}

/// Waits for rest and judges everything but the history, which these tests know better.
async fn rest_and_judge(mut house: House, docket: Docket) {
    house.settle(&docket).await;
    let evidence = house.evidence(&docket.client()).await;
    assert_clean(&judge(&evidence), || docket.printed());
    docket.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_buyers_of_a_hundred_units_exactly_a_hundred_succeed() {
    let _alone = crate::one_at_a_time().await;
    let data = tempfile::tempdir().expect("a scratch directory");
    let (house, docket) = shop_with(UNITS, data.path()).await;
    let client = docket.client();
    let mut dice = Dice::new(1, &[2]);
    let reserve =
        |dice: &mut Dice| ("/v1/stock/shop-1/reservations".to_owned(), dice.uuid(), reservation(&[("beans", 1)], None));
    let replies = all_at_once(&client, (0..BUYERS).map(|_| reserve(&mut dice)).collect()).await;
    let made = replies.iter().filter(|reply| reply.status == 201).count();
    let short = replies.iter().filter(|reply| reply.code() == Some("stock-insufficient")).count();
    assert_eq!((made, short), (100, BUYERS - 100));
    let stock = client.get("/v1/stock/shop-1/beans").await.expect("an answer").body;
    assert_eq!((&stock["on_hand"], &stock["reserved"], &stock["available"]), (&json!(100), &json!(100), &json!(0)));
    rest_and_judge(house, docket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_orders_for_a_hundred_units_exactly_a_hundred_are_confirmed() {
    let _alone = crate::one_at_a_time().await;
    let data = tempfile::tempdir().expect("a scratch directory");
    let (mut house, docket) = shop_with(UNITS, data.path()).await;
    let client = docket.client();
    let mut dice = Dice::new(1, &[3]);
    let body = order("c-1", "shop-1", vec![line("beans", 1, 1_999)], Some("tok_ok"));
    let orders = (0..BUYERS).map(|_| ("/v1/orders".to_owned(), dice.uuid(), body.clone())).collect();
    let replies = all_at_once(&client, orders).await;
    assert!(replies.iter().all(|reply| reply.status == 201));
    house.heal(&docket).await;
    let of_status = |status: &'static str| {
        let client = client.clone();
        async move { client.list(&format!("/v1/orders?status={status}")).await.expect("a list").len() }
    };
    // The lists follow the log: read what the last of it made.
    let evidence = house.evidence(&client).await;
    assert_clean(&judge(&evidence), || docket.printed());
    assert_eq!((of_status("confirmed").await, of_status("cancelled").await), (100, BUYERS - 100));
    let stock = client.get("/v1/stock/shop-1/beans").await.expect("an answer").body;
    assert_eq!((&stock["on_hand"], &stock["reserved"]), (&json!(0), &json!(0)));
    let captured: i64 = evidence.ledger.iter().filter_map(|row| row["captured"].as_i64()).sum();
    assert_eq!(captured, 100 * 1_999);
    docket.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_fifty_times_at_once_has_one_effect_and_fifty_equal_answers() {
    let _alone = crate::one_at_a_time().await;
    let data = tempfile::tempdir().expect("a scratch directory");
    let (house, docket) = shop_with(10_000, data.path()).await;
    let client = docket.client();
    let asked = [
        ("/v1/orders", order("c-1", "shop-1", vec![line("beans", 1, 5)], None), 1),
        ("/v1/orders", order("c-1", "shop-1", vec![line("beans", 1, 5)], Some("tok_twice")), 1),
        ("/v1/stock/shop-1/beans/receive", json!({"quantity": 7}), 1),
        ("/v1/stock/shop-1/reservations", reservation(&[("beans", 3)], None), 1),
        ("/v1/stock/shop-1/reservations", reservation(&[("beans", 1_000_000)], None), 0),
        ("/v1/payments", payment(500, "tok_slow_50"), 1),
    ];
    for (path, body, effects) in asked {
        let key = Uuid::now_v7();
        let replies = all_at_once(&client, vec![(path.to_owned(), key, body.clone()); AT_ONCE]).await;
        let first = what_is_promised(&replies[0]);
        for reply in &replies {
            assert_eq!(what_is_promised(reply), first, "{path} {body}");
        }
        let fresh = replies.iter().filter(|reply| !reply.is_replayed()).count();
        assert_eq!(fresh, 1, "{path} {body}: so many were told that they were first");
        let events = client.ndjson("/v1/events").await.expect("the log can be read");
        let records: std::collections::BTreeSet<&str> = events
            .iter()
            .filter(|event| event["command_id"] == key.to_string())
            .filter_map(|event| event["position"].as_str())
            .collect();
        assert_eq!(records.len(), effects, "{path} {body}");
    }
    rest_and_judge(house, docket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_checkouts_of_one_order_at_once_pay_once() {
    let _alone = crate::one_at_a_time().await;
    let data = tempfile::tempdir().expect("a scratch directory");
    let (house, docket) = shop_with(10_000, data.path()).await;
    let client = docket.client();
    let body = order("c-1", "shop-1", vec![line("beans", 2, 1_000)], None);
    let placed = client.post("/v1/orders", Uuid::now_v7(), &body).await.expect("an answer");
    let id = placed.body["order_id"].as_str().expect("an order has an id").to_owned();
    let path = format!("/v1/orders/{id}/checkout");
    let body = json!({"payment": card("tok_ok")});
    let requests = (0..AT_ONCE).map(|_| (path.clone(), Uuid::now_v7(), body.clone())).collect();
    let replies = all_at_once(&client, requests).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 1);
    assert_eq!(replies.iter().filter(|reply| reply.code() == Some("order-not-payable")).count(), AT_ONCE - 1);
    let mut house = house;
    house.settle(&docket).await;
    let shown = client.get(&format!("/v1/orders/{id}")).await.expect("an answer").body;
    assert_eq!((&shown["status"], &shown["paid"]), (&json!("confirmed"), &euros(2_000)));
    rest_and_judge(house, docket).await;
}
