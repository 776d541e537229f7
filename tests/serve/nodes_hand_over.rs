//! What one node may have under way to another has a bound. With an owner that does not answer, what comes beyond it is
//! turned away at once instead of waiting in line; when the owner is back, everything is done, and once.

use std::time::{Duration, Instant};

use futures::future::join_all;
use kit::{Client, Cluster, Reply, shop};
use serde_json::json;
use uuid::Uuid;

/// Commands that may be under way to one node: as few as can be set.
const FORWARDS: usize = 16;
/// The same to all nodes together.
const FORWARDS_IN_ALL: usize = 4 * FORWARDS;
/// Commands that are too many, beside the first of them.
const TOO_MANY: usize = 100;
/// Longest wait for anything.
const HAPPENS_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// One more of it.
async fn receive(client: &Client, shelf: &str, key: Uuid) -> Reply {
    client.post(&format!("{shelf}/receive"), key, &json!({"quantity": 1})).await.expect("an answer")
}

/// A metric without labels.
async fn metric(client: &Client, name: &str) -> usize {
    let text = client.get("/metrics").await.expect("an answer").text;
    let told = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    told.and_then(|told| told.parse().ok()).unwrap_or_else(|| panic!("no {name}\n{text}"))
}

/// A shelf in a partition that the first node leads, and one of the second's.
async fn shelves(client: &Client) -> [String; 2] {
    let mut found = [const { None }; 2];
    let mut number = 0;
    while found.contains(&None) {
        let path = format!("/v1/stock/shop-{number}/beans");
        let counted = client.put(&path, Uuid::now_v7(), &shop::count(0)).await.expect("an answer");
        assert_eq!(counted.status, 201, "{}", counted.body);
        found[usize::from(counted.positions()[0].0 > 5)] = Some(path);
        number += 1;
    }
    found.map(|path| path.expect("both were found"))
}

fn is_turned_away(reply: &Reply) -> bool {
    reply.status == 503 && reply.body["outcome"] == "unknown" && reply.header("retry-after").is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_for_a_frozen_node_is_turned_away_and_done_once_when_it_goes_on() {
    let mut cluster = Cluster::prepare(1, 2).await;
    for (number, partitions) in [(1, "0-5"), (2, "6-11")] {
        cluster.set_up(number, |node| {
            node.more.push(format!("limits = {{ forwards = {FORWARDS} }}"));
            node.more.push(format!("ownership = {{ kind = \"static\", partitions = \"{partitions}\" }}"));
        });
    }
    cluster.start_nodes().await;
    let client = cluster.client(1);
    let [here, there] = shelves(&client).await;
    let turned_away = async || metric(&client, "docket_commands_turned_away_total").await;
    assert_eq!(turned_away().await, 0);

    cluster.node(2).pause();
    let keys: Vec<Uuid> = (0..=FORWARDS + TOO_MANY).map(|_| Uuid::now_v7()).collect();
    let waiting: Vec<_> = keys[..FORWARDS]
        .iter()
        .map(|key| {
            let (client, there, key) = (client.clone(), there.clone(), *key);
            tokio::spawn(async move { receive(&client, &there, key).await })
        })
        .collect();
    let began = Instant::now();
    while metric(&client, "docket_forwards_in_flight").await < FORWARDS {
        assert!(began.elapsed() < HAPPENS_WITHIN, "they are not on their way");
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
    let one_more = receive(&client, &there, keys[FORWARDS]).await;
    assert!(is_turned_away(&one_more), "{one_more:?}");
    assert_eq!(turned_away().await, 1);

    // Many at once, and somebody who looks at the gauges meanwhile.
    let (done, is_done) = tokio::sync::watch::channel(false);
    let looking = tokio::spawn({
        let client = client.clone();
        async move {
            let mut most = (0, 0);
            while !*is_done.borrow() {
                most.0 = most.0.max(metric(&client, "docket_forwards_in_flight").await);
                most.1 = most.1.max(metric(&client, "docket_forwards_under_way").await);
            }
            most
        }
    });
    let too_many = join_all(keys[FORWARDS + 1..].iter().map(|key| receive(&client, &there, *key))).await;
    done.send_replace(true);
    let most = looking.await.expect("it looks");
    for reply in &too_many {
        assert!(is_turned_away(reply), "{reply:?}");
    }
    assert_eq!(turned_away().await, keys.len() - FORWARDS);
    assert!(most.0 <= FORWARDS && (FORWARDS..=FORWARDS_IN_ALL).contains(&most.1), "under way: {most:?}");
    // Nobody else waits for the one that is frozen.
    assert_eq!(receive(&client, &here, Uuid::now_v7()).await.status, 200);

    cluster.node(2).resume();
    for answer in waiting {
        let answer = answer.await.expect("a client does not panic");
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    for key in &keys {
        let began = Instant::now();
        while receive(&client, &there, *key).await.status != 200 {
            assert!(began.elapsed() < HAPPENS_WITHIN, "{key} is not done");
        }
    }
    for key in &keys {
        assert!(receive(&client, &there, *key).await.is_replayed(), "{key} is done again");
    }
    let shelf = client.get(&there).await.expect("an answer");
    assert_eq!(shelf.body["on_hand"], keys.len(), "{}", shelf.body);
    for name in ["docket_forwards_in_flight", "docket_forwards_under_way"] {
        assert_eq!(metric(&client, name).await, 0, "{name}");
    }
    cluster.terminate_nodes().await;
}
