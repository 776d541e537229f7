//! One location that everybody wants something from: whoever is at another one does not notice much of it.

use std::time::{Duration, Instant};

use kit::Client;
use serde_json::json;
use uuid::Uuid;

use crate::clients::{House, Times, Wire, behaves, command};

/// Clients that want something of the hot location.
const CLIENTS: usize = 64;
const LASTING: Duration = Duration::from_secs(4);

/// Counts a SKU at a location; the partition that it lives in.
async fn counted(client: &Client, location: &str) -> u64 {
    let path = format!("/v1/stock/{location}/b");
    let reply = client.put(&path, Uuid::now_v7(), &json!({"on_hand": 1_000_000_000_i64})).await.expect("an answer");
    assert_eq!(reply.status, 201, "{}", reply.text);
    reply.positions()[0].0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_locations_stay_fast_beside_a_hot_one() {
    let house = House::open(&[]).await;
    let (address, client) = (house.address(), house.client());
    let hot = counted(&client, "hot").await;
    let mut cold = None;
    for number in 0.. {
        let location = format!("cold-{number}");
        if counted(&client, &location).await != hot {
            cold = Some(format!("/v1/stock/{location}/b/receive"));
            break;
        }
    }
    let cold = cold.expect("locations are spread over partitions");
    let mut quiet = behaves(&address, Duration::from_secs(1), &cold).await;
    let buyers: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let address = address.clone();
            tokio::spawn(async move {
                let mut wire = Wire::to(&address).await.expect("the server listens");
                let (began, mut times) = (Instant::now(), Times::default());
                while began.elapsed() < LASTING {
                    let asked = Instant::now();
                    let request = command(
                        "POST /v1/stock/hot/reservations",
                        Uuid::now_v7(),
                        r#"{"lines":[{"sku":"b","quantity":1}]}"#,
                    );
                    let answer = wire.ask(&request).await.expect("an answer");
                    assert_eq!(answer.status, 201, "{}", answer.body);
                    times.note(asked.elapsed());
                }
                times
            })
        })
        .collect();
    let mut beside = behaves(&address, LASTING, &cold).await;
    let mut crowd = Times::default();
    for buyer in buyers {
        crowd.add(buyer.await.expect("a buyer does not panic"));
    }
    eprintln!(
        "{} reservations, p50 {:?}; elsewhere p50 {:?} p99 {:?} beside them, p99 {:?} without",
        crowd.count(),
        crowd.at(50),
        beside.at(50),
        beside.at(99),
        quiet.at(99)
    );
    // They share disk and processors, but no line: who is elsewhere does not wait behind all who want the hot stock.
    assert!(beside.at(50) < crowd.at(50) * 2 + quiet.at(99), "{:?}", beside.at(50));
    assert!(beside.at(99) < quiet.at(99) * 30 + Duration::from_millis(500), "{:?}", beside.at(99));
    // Nothing was lost or sold twice on the way.
    let stock = client.get("/v1/stock/hot/b").await.expect("an answer").body;
    assert_eq!(stock["reserved"], crowd.count() as u64, "{stock}");
}
