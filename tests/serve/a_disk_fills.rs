//! A node's own disk fills up while it follows a log on Kafka that others write: it says so, serves what it can, and goes on
//! when there is room. Where this machine has no disk to fill, a line is printed and the test is skipped.

use std::time::{Duration, Instant};

use kit::{Client, Cluster, shop};
use reqwest::Method;
use uuid::Uuid;

use crate::disk::Disk;

/// The file system's own log (64 MiB), the copy's first segment, states; and room for the next segment once there is any.
const DISK_BYTES: u64 = 448 << 20;
/// How long a node may take to see that its disk is full, or that there is room.
const SEEN_WITHIN: Duration = Duration::from_secs(60);
/// Orders before the disk fills: with so many each of twelve partitions very likely has one.
const ORDERS_BEFORE: usize = 60;
/// Between two looks.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Places an order through this node; where its record is, and its path.
async fn place(client: &Client) -> (String, String) {
    let body = shop::order("c-1", "shop-1", vec![shop::line("beans", 2, 500)], None);
    let began = Instant::now();
    let key = Uuid::now_v7().to_string();
    let headers = [("idempotency-key", key.as_str())];
    loop {
        let reply = client.send(Method::POST, "/v1/orders", &headers, Some(&body)).await.expect("an answer");
        if reply.status == 201 {
            let position = reply.header("docket-position").expect("a position").to_owned();
            return (position, format!("/v1/orders/{}", reply.body["order_id"].as_str().expect("an id")));
        }
        assert!(reply.status == 503 && began.elapsed() < SEEN_WITHIN, "{}: {}", reply.status, reply.body);
    }
}

/// Waits until a node is ready or is not, and gives what it says then.
async fn until_ready(client: &Client, is_ready: bool) -> String {
    let began = Instant::now();
    loop {
        let reply = client.get("/readyz").await.expect("an answer");
        if (reply.status == 200) == is_ready {
            return reply.text;
        }
        assert!(began.elapsed() < SEEN_WITHIN, "after a minute: {}", reply.text);
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}

/// Waits until this node has folded the order: not only its row, which another may have written.
async fn until_folded(client: &Client, path: &str) {
    let events = format!("/v1/streams/order-{}/events", path.rsplit('/').next().expect("a path has an end"));
    let began = Instant::now();
    loop {
        let reply = client.get(&events).await.expect("an answer");
        if reply.status == 200 && reply.body["items"].as_array().is_some_and(|items| !items.is_empty()) {
            return;
        }
        assert!(began.elapsed() < SEEN_WITHIN, "{}: {}", reply.status, reply.body);
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_is_full_says_so_and_goes_on_when_there_is_room() {
    let disk = match Disk::make(DISK_BYTES) {
        Ok(disk) => disk,
        Err(why) => return println!("SKIPPED: no disk can be filled here: {why}"),
    };
    let mut cluster = Cluster::prepare(1, 2).await;
    // The second one only follows: what it has no room for is led by the first.
    for (number, partitions) in [(1, "0-11"), (2, "")] {
        cluster.set_up(number, |node| match partitions {
            "" => {
                node.roles = vec!["projection".to_owned(), "query".to_owned()];
                node.data = disk.data();
            }
            partitions => {
                node.more.push(format!("ownership = {{ kind = \"static\", partitions = \"{partitions}\" }}"));
            }
        });
    }
    cluster.start_nodes().await;
    let (leads, follows) = (cluster.client(1), cluster.client(2));
    let (before, path_before) = place(&leads).await;
    let headers = [("docket-min-position", before.as_str()), ("prefer", "wait=30")];
    assert_eq!(follows.get_with(&path_before, &headers).await.expect("an answer").status, 200);
    // What is being folded at the very moment when another takes the last block is folded again later; that is asked for in
    // `tests/faults/state_calls.rs`. Here all of it is folded first.
    for _ in 0..ORDERS_BEFORE {
        let (_, path) = place(&follows).await;
        until_folded(&follows, &path).await;
    }

    disk.fill(0);
    let (during, path_during) = place(&leads).await;
    let said = until_ready(&follows, false).await;
    assert!(said.contains("full"), "{said}");
    // What it has, it serves; what it hands over, is done.
    assert_eq!(follows.get(&path_before).await.expect("an answer").status, 200);
    place(&follows).await;

    disk.make_room();
    until_ready(&follows, true).await;
    let headers = [("docket-min-position", during.as_str()), ("prefer", "wait=30")];
    let reply = follows.get_with(&path_during, &headers).await.expect("an answer");
    assert_eq!(reply.status, 200, "{}", reply.body);
    cluster.terminate_nodes().await;
}
