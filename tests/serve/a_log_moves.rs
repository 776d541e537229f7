//! A shop outgrows its machine: its embedded log is moved into Kafka, record by record at the same positions, and a node
//! there goes on where the other one ended.

use kit::docket::binary;
use kit::{Docket, shop};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;
use xtask::kafka::Kafka;
use xtask::ports;

use crate::an_operator_asks::{docket, said};

/// Orders before the move.
const ORDERS: usize = 40;

/// A shop on an embedded log that was killed while it worked: its data, its events and its orders.
async fn a_shop_that_stopped() -> (TempDir, Vec<Value>, Vec<Value>) {
    let folder = TempDir::new().expect("a folder");
    let dev = Docket::start(folder.path(), &[]).await;
    let client = dev.client();
    client.put("/v1/stock/shop-1/beans", Uuid::now_v7(), &shop::count(1_000)).await.expect("stock");
    for number in 0..ORDERS {
        let body = shop::order("c-1", "shop-1", vec![shop::line("beans", 1, 500)], Some("tok_ok"));
        let key = Uuid::now_v7().to_string();
        let headers = [("idempotency-key", key.as_str()), ("prefer", "wait=10")];
        let placed = client.send(Method::POST, "/v1/orders", &headers, Some(&body)).await.expect("an answer");
        assert_eq!(placed.status, 201, "order {number}: {}", placed.body);
    }
    let events = client.ndjson("/v1/events").await.expect("events");
    let orders = client.list("/v1/orders").await.expect("orders");
    dev.kill9();
    (folder, events, orders)
}

fn copy(from: &TempDir, to: &str) -> std::process::Output {
    docket(&["log", "copy", "--output", "json", "--from", &from.path().display().to_string(), "--to", to])
}

fn by_position(mut events: Vec<Value>) -> Vec<Value> {
    let place = |event: &Value| {
        let position = event["position"].as_str().expect("a position").to_owned();
        let (partition, offset) = position.split_once(':').expect("partition:offset");
        (partition.parse::<u64>().expect("a number"), offset.parse::<u64>().expect("a number"), event["index"].as_u64())
    };
    events.sort_by_key(place);
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_log_goes_on_in_kafka_with_all_that_it_said() {
    let kafka = tokio::task::spawn_blocking(|| Kafka::start(1)).await.expect("a broker");
    let (from, events, orders) = a_shop_that_stopped().await;
    let to = format!("kafka://{}/moved?replication_factor=1", kafka.bootstrap());

    // Ended half-way, whenever that is, it goes on: what is there is compared, not written again.
    let mut halfway = std::process::Command::new(binary())
        .args(["log", "copy", "--from", &from.path().display().to_string(), "--to", &to])
        .spawn()
        .expect("the binary runs");
    while !kafka.topics().iter().any(|topic| topic == "docket.log.moved") {
        assert!(halfway.try_wait().expect("a child").is_none(), "it ended before it made the topic");
        tokio::task::yield_now().await;
    }
    halfway.kill().expect("a child that runs");
    halfway.wait().expect("a child");

    let output = copy(&from, &to);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let copied: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&copied["verified"], &copied["partitions"]), (&json!(true), &json!(12)));
    let again = copy(&from, &to);
    assert_eq!(again.status.code(), Some(0), "{}", said(&again));
    let again: Value = serde_json::from_slice(&again.stdout).expect("JSON");
    assert_eq!(again["records_there_before"], copied["records"], "nothing is written twice");

    // A node on the topic tells the same story from the same positions, and goes on.
    let data = TempDir::new().expect("a folder");
    let grpc = ports::take(1).expect("a port");
    let set = [
        "listen.http=127.0.0.1:0".to_owned(),
        format!("listen.grpc={}", grpc[0].address()),
        format!("data={}", data.path().display()),
        "log.kind=kafka".to_owned(),
        "log.name=moved".to_owned(),
        format!("log.kafka.bootstrap={}", kafka.bootstrap()),
        "log.kafka.replication_factor=1".to_owned(),
    ];
    let arguments: Vec<&str> = set.iter().flat_map(|one| ["--set", one.as_str()]).collect();
    let node = Docket::serve(&arguments).await.unwrap_or_else(|fault| panic!("{fault}"));
    let client = node.client();
    assert_eq!(by_position(client.ndjson("/v1/events").await.expect("events")), by_position(events));
    assert_eq!(client.list("/v1/orders").await.expect("orders"), orders);
    let stock = client.get("/v1/stock/shop-1/beans").await.expect("an answer").body;
    assert_eq!(stock["on_hand"], 1_000 - ORDERS as u64);
    let received = client.post("/v1/stock/shop-1/beans/receive", Uuid::now_v7(), &json!({"quantity": 1})).await;
    assert_eq!(received.expect("an answer").body["on_hand"], 1_001 - ORDERS as u64);
    node.terminate().await;

    // The topic has gone on: the old log is no longer its copy, and is refused.
    let late = copy(&from, &to);
    assert_eq!(late.status.code(), Some(4), "{}", said(&late));
    assert!(said(&late).contains("docket.log.moved has more of partition"), "{}", said(&late));

    // Another log's topic is nobody's to write to.
    let (other, ..) = a_shop_that_stopped().await;
    let foreign = copy(&other, &to);
    assert_eq!(foreign.status.code(), Some(4), "{}", said(&foreign));
}

#[test]
fn brokers_that_are_not_there_end_a_copy_with_3() {
    let folder = TempDir::new().expect("a folder");
    let dev = tokio::runtime::Runtime::new().expect("a runtime").block_on(Docket::start(folder.path(), &[]));
    let in_use = copy(&folder, "kafka://127.0.0.1:1/x");
    assert_eq!(in_use.status.code(), Some(1), "{}", said(&in_use));
    assert!(said(&in_use).contains("is in use by process"), "{}", said(&in_use));
    dev.kill9();
    let from = folder.path().display().to_string();
    let patience = ["--set", "log.kafka.start_timeout_ms=1000"];
    let nobody = docket(&[&["log", "copy", "--from", &from, "--to", "kafka://127.0.0.1:1/x"][..], &patience].concat());
    assert_eq!(nobody.status.code(), Some(3), "{}", said(&nobody));
}
