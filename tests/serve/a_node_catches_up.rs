//! A node that begins with nothing on a topic that holds much: it answers at once, says what it is at and how far, and has
//! commands sent again until it serves.

use std::time::Duration;

use kit::cluster::Alone;
use kit::{Client, Docket, shop};
use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;
use xtask::kafka::Kafka;

use crate::an_operator_asks::{docket, said};
use crate::forge;

/// Enough for some looks while they are folded.
const RECORDS: usize = 60_000;
/// Where they are.
const BEANS: &str = "/v1/stock/shop-1/beans";
/// Between two looks.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(1);

/// A long log in Kafka, and the version of its stream of beans.
async fn a_long_topic(kafka: &Kafka) -> u64 {
    let folder = TempDir::new().expect("a folder");
    let dev = Docket::start(folder.path(), &[]).await;
    let client = dev.client();
    client.put(BEANS, Uuid::now_v7(), &shop::count(10)).await.expect("stock");
    let received = receive(&client, Uuid::now_v7()).await;
    let partition = received.positions()[0].0;
    dev.terminate().await;
    let version =
        forge::add(folder.path(), partition, "stock-shop-1~beans", |newest| vec![vec![newest.clone()]; RECORDS]);
    let to = format!("kafka://{}/main?replication_factor=1", kafka.bootstrap());
    let copied = docket(&["log", "copy", "--from", &folder.path().display().to_string(), "--to", &to]);
    assert_eq!(copied.status.code(), Some(0), "{}", said(&copied));
    version
}

async fn receive(client: &Client, key: Uuid) -> kit::Reply {
    client.post(&format!("{BEANS}/receive"), key, &json!({"quantity": 1})).await.expect("an answer")
}

/// What a node that is not open yet is at, and how much of it is done, in percent, where it tells.
fn far(ready: &str) -> Option<(&str, u64)> {
    let (stage, far) = ready.strip_prefix("[-] opening: ")?.split_once(": ")?;
    Some((stage, far.split_once(" %")?.0.parse().ok()?))
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_catches_up_with_a_topic_a_node_says_how_far_it_is_and_has_commands_sent_again() {
    let kafka = tokio::task::spawn_blocking(|| Kafka::start(1)).await.expect("a broker");
    let version = a_long_topic(&kafka).await;
    let folder = TempDir::new().expect("a folder");
    let rows = format!("sqlite:{}", folder.path().join("views.db").display());
    let alone = Alone::new(folder.path(), "main", Some((kafka.bootstrap(), 1)), rows);
    let node = alone.begin().await;
    let (client, key) = (node.client(), Uuid::now_v7());
    let (mut seen, mut turned_away) = (Vec::new(), None);
    loop {
        let ready = client.get("/readyz").await.expect("an answer");
        if ready.status == 200 {
            break;
        }
        assert_eq!(ready.status, 503, "{}", ready.text);
        if let Some((stage, percent)) = far(&ready.text) {
            seen.push((stage.to_owned(), percent));
            if turned_away.is_none() {
                turned_away = Some(receive(&client, key).await);
            }
        }
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
    println!("{seen:?}");
    // What the copy has when the state store is opened is folded at once, and the rest as it comes.
    let stages = ["folding the state store afresh", "catching up with the log"];
    assert!(seen.iter().all(|(stage, _)| stages.contains(&stage.as_str())), "{seen:?}");
    assert!(seen.iter().any(|(_, percent)| *percent < 99), "it was not seen on its way: {seen:?}");
    for stage in seen.chunk_by(|one, next| one.0 == next.0) {
        assert!(stage.is_sorted(), "it goes back: {stage:?}");
    }
    let reply = turned_away.expect("it was asked");
    assert_eq!((reply.status, reply.code()), (503, Some("not-open-yet")), "{}", reply.body);
    assert_eq!(reply.body["outcome"], "unknown", "{}", reply.body);
    assert!(reply.header("retry-after").is_some(), "{reply:?}");

    let reply = receive(&client, key).await;
    assert_eq!((reply.status, reply.body["version"].as_u64()), (200, Some(version + 1)), "{}", reply.body);
    assert!(!reply.is_replayed(), "what was turned away was done");
    node.terminate().await;
}
