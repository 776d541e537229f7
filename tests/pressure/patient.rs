//! Clients with all the time in the world: heads and bodies byte by byte, answers that nobody reads. Who behaves is served
//! meanwhile, and the others are not waited for.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use uuid::Uuid;

use crate::clients::{House, PATIENCE, Wire, behaves};

/// Clients of each kind.
const CLIENTS: usize = 150;

/// Sends a beginning, then the same few bytes again and again, until the server has had enough; all it says.
async fn drips(address: String, beginning: String, drop: &'static str) -> (Option<String>, Duration) {
    let began = Instant::now();
    let mut wire = Wire::to(&address).await.expect("the server listens");
    let mut said = wire.send(beginning.as_bytes()).await;
    while said.is_ok() && began.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(100)).await;
        said = wire.send(drop.as_bytes()).await;
    }
    (wire.until_closed().await, began.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_heads_and_bodies_are_not_waited_for() {
    let mut house = House::open(&["timeouts.head_ms=1000", "limits.commands_at_once=64"]).await;
    let address = house.address();
    let mut quiet = behaves(&address, Duration::from_secs(1), "/v1/orders").await;
    let (rss, files) = (house.rss_mib(), house.open_files());
    let key = Uuid::now_v7();
    let heads = (0..CLIENTS).map(|_| {
        let beginning = "POST /v1/orders HTTP/1.1\r\nHost: a\r\n".to_owned();
        tokio::spawn(drips(address.clone(), beginning, "X-A: b\r\n"))
    });
    let bodies = (0..CLIENTS).map(|_| {
        let head = "POST /v1/orders HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
        let beginning = format!("{head}Idempotency-Key: {key}\r\nContent-Length: 100000\r\n\r\n{{");
        tokio::spawn(drips(address.clone(), beginning, " "))
    });
    let (heads, bodies): (Vec<_>, Vec<_>) = (heads.collect(), bodies.collect());
    let mut beside = behaves(&address, Duration::from_secs(3), "/v1/orders").await;
    eprintln!("beside slow clients p50 {:?} p99 {:?}, {:?} before", beside.at(50), beside.at(99), quiet.at(99));
    assert!(beside.at(50) < quiet.at(99) * 3 + Duration::from_millis(50), "{:?}", beside.at(50));
    for head in heads {
        let (said, took) = head.await.expect("a client does not panic");
        assert!(said.is_some() && took < PATIENCE, "a slow head is waited for");
    }
    for body in bodies {
        let (said, took) = body.await.expect("a client does not panic");
        let said = said.expect("a slow body is not waited for");
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 408") && said.contains("body-too-slow"), "{said}");
        assert!(took < PATIENCE);
    }
    house.calms_down(files).await;
    let grown = house.rss_mib().saturating_sub(rss);
    assert!(grown < 96, "{grown} MiB more");
    house.is_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_what_it_asked_for_costs_little() {
    let mut house = House::open(&[]).await;
    let (address, client) = (house.address(), house.client());
    // Some megabytes of events: far more than two sockets hold.
    let lines: Vec<_> = (0..200).map(|number| kit::shop::line(&format!("sku-{number:050}"), 1, 100)).collect();
    let large = kit::shop::order("c", "here", lines, None);
    for _ in 0..300 {
        let reply = client.post("/v1/orders", Uuid::now_v7(), &large).await.expect("an answer");
        assert_eq!(reply.status, 201, "{}", reply.text);
    }
    let mut quiet = behaves(&address, Duration::from_secs(1), "/v1/orders").await;
    let (rss, files) = (house.rss_mib(), house.open_files());
    let mut deaf = Vec::new();
    for number in 0..40 {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4 * 1024).expect("a small buffer");
        let mut stream = socket.connect(address.parse().expect("an address")).await.expect("the server listens");
        let follow = ["", "?follow=true"][number % 2];
        let request = format!("GET /v1/events{follow} HTTP/1.1\r\nHost: a\r\nAccept: application/x-ndjson\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("the server takes it");
        deaf.push(stream);
    }
    let mut beside = behaves(&address, Duration::from_secs(3), "/v1/orders").await;
    let grown = house.rss_mib().saturating_sub(rss);
    eprintln!(
        "beside deaf clients p50 {:?} p99 {:?}, {:?} before; {grown} MiB more",
        beside.at(50),
        beside.at(99),
        quiet.at(99)
    );
    // Until their sockets are full it works for them as for anybody.
    assert!(beside.at(50) < quiet.at(99) * 10 + Duration::from_millis(300), "{:?}", beside.at(50));
    assert!(grown < 192, "{grown} MiB more");
    drop(deaf);
    house.calms_down(files).await;
    let orders = client.get("/v1/orders?limit=1").await.expect("an answer");
    assert_ne!(orders.body["items"], json!([]));
    house.is_well().await;
}
