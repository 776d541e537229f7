//! More checkouts than can be carried through: those that are taken end soon all the same, and the others are told to come
//! back, before anything of them is recorded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use uuid::Uuid;

use crate::clients::{House, PATIENCE, Wire, command, order};

/// Few steps at once, so that this machine can ask for more checkouts than end.
const SETTINGS: &[&str] = &["limits.errands=4", "timeouts.steps_late_ms=50"];
/// Clients that ask for checkouts, one after the other.
const CLIENTS: usize = 64;
/// How long they do.
const LASTING: Duration = Duration::from_secs(4);
/// When all that was taken has ended, at the latest: many times what a busy machine needs.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);

fn checkout(key: Uuid) -> Vec<u8> {
    let body = r#"{"customer_id":"c","location_id":"here","lines":[{"sku":"b","quantity":1,"unit_price":{"amount":100,"currency":"EUR"}}],"payment":{"method":"card","token":"tok_ok"}}"#;
    command("POST /v1/orders", key, body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_settles_soon_and_the_rest_is_told_to_come_again() {
    let mut house = House::open(SETTINGS).await;
    let (address, client) = (house.address(), house.client());
    let stocked = client.put("/v1/stock/here/b", Uuid::now_v7(), &kit::shop::count(1_000_000)).await;
    assert!(stocked.is_some_and(|reply| reply.status < 300));
    let address = Arc::new(address);
    let began = Instant::now();
    let tasks: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let address = Arc::clone(&address);
            tokio::spawn(async move {
                let mut wire = Wire::to(&address).await.expect("the server listens");
                let (mut taken, mut held_back) = (Vec::new(), Vec::new());
                while began.elapsed() < LASTING {
                    let key = Uuid::now_v7();
                    match wire.ask(&checkout(key)).await {
                        Some(answer) if answer.status == 201 => {
                            let order = serde_json::from_str::<Value>(&answer.body).expect("an order is JSON");
                            taken.push(order["order_id"].as_str().expect("an order has an id").to_owned());
                        }
                        Some(answer) if answer.asks_to_come_back() => held_back.push(key),
                        other => panic!("told otherwise: {other:?}"),
                    }
                }
                (taken, held_back)
            })
        })
        .collect();
    let (mut taken, mut held_back) = (Vec::new(), Vec::new());
    for task in tasks {
        let (of_one, of_one_not) = task.await.expect("a client does not panic");
        taken.extend(of_one);
        held_back.extend(of_one_not);
    }
    let (ended, open) = (Instant::now(), house.metric("docket_sagas_open").await);
    let turned_away = house.metric("docket_sagas_turned_away_total").await;
    assert!(!taken.is_empty() && turned_away > 0.0, "{} taken, {turned_away} turned away", taken.len());
    // What begins nothing is done meanwhile.
    let mut wire = Wire::to(&address).await.expect("the server listens");
    let placed = wire.ask(&order(Uuid::now_v7())).await;
    assert!(placed.as_ref().is_some_and(|answer| answer.status == 201), "{placed:?}");
    while house.metric("docket_sagas_open").await > 0.0 {
        assert!(ended.elapsed() < SETTLED_WITHIN, "{} were taken, {open} were open at the end", taken.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = ended.elapsed();
    eprintln!("{} taken, {turned_away} turned away; {open} open at the end, settled after {took:?}", taken.len());
    for order in taken.iter().step_by(97) {
        let told = client.get(&format!("/v1/orders/{order}")).await.expect("an answer");
        assert_eq!(told.body["status"], "confirmed", "{told:?}");
    }
    // Nothing was recorded of the others, and each may come again under its key.
    for key in held_back.iter().step_by(97) {
        let asked = Instant::now();
        loop {
            match wire.ask(&checkout(*key)).await {
                Some(answer) if answer.status == 201 => {
                    assert!(!answer.head.contains("idempotency-replayed"), "{answer:?}");
                    break;
                }
                Some(answer) if answer.asks_to_come_back() => assert!(asked.elapsed() < PATIENCE, "{answer:?}"),
                other => panic!("told otherwise: {other:?}"),
            }
        }
    }
    house.is_sound().await;
    house.is_well().await;
}
