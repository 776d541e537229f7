//! Nodes that each do a part of the work, on real brokers: who only takes commands, only feeds the read models or only
//! answers reads; nodes that are told what to lead; and one on Kafka that keeps its read models in a file of its own.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kit::cluster::Alone;
use kit::{Client, Cluster, shop};
use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;
use uuid::Uuid;
use xtask::kafka::Kafka;

/// Longest wait for a command that others have to lead first.
const LED_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// How long a command of these nodes waits for its outcome.
const ANSWER: &str = "timeouts = { answer_ms = 2000 }";

fn order() -> Value {
    shop::order("c-1", "shop-1", vec![shop::line("beans", 2, 500)], None)
}

/// Sends an order once: its status, its answer, and where its record is.
async fn place(client: &Client, key: Uuid) -> (u16, Value, Option<u64>) {
    let key = key.to_string();
    let headers = [("idempotency-key", key.as_str())];
    let reply = client.send(Method::POST, "/v1/orders", &headers, Some(&order())).await.expect("an answer");
    let partition = reply.positions().first().map(|(partition, _)| *partition);
    (reply.status, reply.body, partition)
}

/// The same, again and again under its key while the outcome is unknown.
async fn placed(client: &Client, key: Uuid) -> (Value, u64) {
    let began = Instant::now();
    loop {
        match place(client, key).await {
            (201, order, Some(partition)) => return (order, partition),
            (503, problem, _) if problem["outcome"] == "unknown" && began.elapsed() < LED_WITHIN => {}
            (status, problem, _) => panic!("{status}: {problem}"),
        }
    }
}

/// All orders, once there are so many: a list may be behind what a command was told.
async fn listed(client: &Client, count: usize) -> Vec<Value> {
    let began = Instant::now();
    loop {
        let orders = client.list("/v1/orders").await.expect("orders");
        assert!(orders.len() <= count, "{} orders, and {count} were placed", orders.len());
        if orders.len() == count {
            return orders;
        }
        assert!(began.elapsed() < LED_WITHIN, "{} of {count} orders after a minute", orders.len());
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}

/// A read of this path that is not older than `partition:offset`.
async fn read(client: &Client, path: &str, position: &str) -> (u16, Value, Option<String>) {
    let headers = [("docket-min-position", position), ("prefer", "wait=30")];
    let reply = client.get_with(path, &headers).await.expect("an answer");
    let code = reply.code().map(str::to_owned);
    (reply.status, reply.body, code)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_node_does_its_part_and_any_takes_a_command() {
    let mut cluster = Cluster::prepare(1, 3).await;
    for (number, role) in [(1, "command"), (2, "projection"), (3, "query")] {
        cluster.set_up(number, |node| {
            node.roles = vec![role.to_owned()];
            node.more.push(ANSWER.to_owned());
        });
    }
    cluster.start_nodes().await;
    for number in 1..=3 {
        let client = cluster.client(number);
        let key = Uuid::now_v7().to_string();
        let headers = [("idempotency-key", key.as_str())];
        let taken = client.send(Method::POST, "/v1/orders", &headers, Some(&order())).await.expect("an answer");
        assert_eq!(taken.status, 201, "through node-{number}: {}", taken.body);
        let path = format!("/v1/orders/{}", taken.body["order_id"].as_str().expect("an id"));
        let position = taken.header("docket-position").expect("a position").to_owned();
        // One answers reads of what another one leads and a third one feeds; the others say that they do not.
        let (status, body, _) = read(&cluster.client(3), &path, &position).await;
        assert_eq!((status, &body), (200, &taken.body));
        for other in [1, 2] {
            let (status, _, code) = read(&cluster.client(other), &path, &position).await;
            assert_eq!((status, code.as_deref()), (421, Some("not-served-here")), "node-{other}");
        }
    }

    // Without the only one that leads, commands are unknown and reads go on; back again, the same key is answered.
    cluster.take_node(1).kill9();
    let key = Uuid::now_v7();
    let (status, problem, _) = place(&cluster.client(3), key).await;
    assert_eq!((status, &problem["outcome"]), (503, &Value::from("unknown")), "{problem}");
    listed(&cluster.client(3), 3).await;
    cluster.start_node(1).await;
    let (order, _) = placed(&cluster.client(3), key).await;
    let (again, _) = placed(&cluster.client(2), key).await;
    assert_eq!(order, again);

    // Without the only one that feeds, commands go on and reads that ask for more are told how far it is.
    cluster.take_node(2).terminate().await;
    let (order, partition) = placed(&cluster.client(3), Uuid::now_v7()).await;
    let path = format!("/v1/orders/{}", order["order_id"].as_str().expect("an id"));
    let far = format!("{partition}:4000000000");
    let headers = [("docket-min-position", far.as_str()), ("prefer", "wait=1")];
    let behind = cluster.client(3).get_with(&path, &headers).await.expect("an answer");
    assert_eq!((behind.status, behind.code()), (503, Some("read-model-behind")), "{}", behind.body);
    cluster.start_node(2).await;
    let reply = cluster.client(3).get_with(&path, &[("prefer", "wait=30")]).await.expect("an answer");
    assert_eq!((reply.status, reply.body), (200, order));
    cluster.terminate_nodes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_are_told_what_to_lead_lead_that_and_nothing_else() {
    let mut cluster = Cluster::prepare(1, 2).await;
    for (number, partitions) in [(1, "0-5"), (2, "6-11")] {
        cluster.set_up(number, |node| {
            node.more.push(ANSWER.to_owned());
            node.more.push(format!("ownership = {{ kind = \"static\", partitions = \"{partitions}\" }}"));
        });
    }
    cluster.start_nodes().await;
    let (first, second) = (cluster.client(1), cluster.client(2));
    // Keys of orders in all partitions, sent to the nodes in turn.
    let (mut keys, mut seen) = (Vec::new(), BTreeSet::new());
    while seen.len() < usize::from(kit::cluster::PARTITIONS) {
        let key = Uuid::now_v7();
        let through = if keys.len() % 2 == 0 { &first } else { &second };
        let (_, partition) = placed(through, key).await;
        seen.insert(partition);
        keys.push((key, partition));
    }
    for client in [&first, &second] {
        let told = client.get("/metrics").await.expect("an answer").text;
        let forwarded = told.lines().find_map(|line| line.strip_prefix("docket_commands_forwarded_total "));
        assert!(forwarded.is_some_and(|count| count != "0"), "nothing was forwarded: {forwarded:?}");
    }

    // What the other one leads is nobody else's: unknown while it is away, and told when it is back.
    cluster.take_node(2).kill9();
    let of = |second_leads: bool| keys.iter().find(|(_, partition)| (*partition > 5) == second_leads).expect("a key").0;
    let (status, ..) = place(&first, of(false)).await;
    assert_eq!(status, 201);
    let (status, problem, _) = place(&first, of(true)).await;
    assert_eq!((status, &problem["outcome"]), (503, &Value::from("unknown")), "{problem}");
    cluster.start_node(2).await;
    let (again, partition) = placed(&first, of(true)).await;
    assert!(partition > 5 && again["order_id"].is_string());
    // Nothing was placed twice.
    listed(&first, keys.len()).await;
    cluster.terminate_nodes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_on_kafka_may_keep_its_read_models_in_a_file_and_lose_all_it_keeps() {
    let kafka = tokio::task::spawn_blocking(|| Kafka::start(1)).await.expect("a broker");
    let folder = TempDir::new().expect("a folder");
    let views = folder.path().join("views.db");
    let alone = Alone::new(folder.path(), "main", Some((kafka.bootstrap(), 1)), format!("sqlite:{}", views.display()));
    let node = alone.start().await;
    let client = node.client();
    let mut keys = Vec::new();
    for _ in 0..20 {
        let key = Uuid::now_v7();
        keys.push((key, placed(&client, key).await.0));
    }
    let orders = listed(&client, keys.len()).await;
    node.terminate().await;

    // The file of the read models first, then all that the node kept: either is folded afresh from the topic.
    for lost in [&views, &folder.path().join("node-1")] {
        let removed = if lost.is_dir() { std::fs::remove_dir_all(lost) } else { std::fs::remove_file(lost) };
        removed.unwrap_or_else(|error| panic!("{}: {error}", lost.display()));
        let node = alone.start().await;
        let client = node.client();
        for (key, order) in &keys {
            assert_eq!(&placed(&client, *key).await.0, order);
        }
        assert_eq!(listed(&client, keys.len()).await, orders);
        node.terminate().await;
    }
}
