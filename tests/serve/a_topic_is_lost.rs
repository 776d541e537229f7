//! The topic is meddled with under a node that serves: its first records are thrown away, or it is deleted, or made anew. The
//! node ends by itself and says what has happened; until then nobody is told that anything was done that nobody else has.

use std::time::{Duration, Instant};

use kit::cluster::{Alone, PARTITIONS};
use kit::{Client, Docket, Reply, shop};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;
use xtask::kafka::Kafka;

/// How soon a node has ended: it looks every ten seconds, or waits so long for the topic to come back, and then settles.
const ENDS_WITHIN: Duration = Duration::from_secs(60);
/// How long brokers may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// Where the test writes.
const BEANS: &str = "/v1/stock/shop-1/beans";
/// The topic of the log.
const TOPIC: &str = "docket.log.main";

/// A node alone on a broker, with some records in one partition.
struct House {
    alone: Alone,
    node: Docket,
    client: Client,
    /// Where the records are.
    partition: u64,
    meddler: AdminClient<DefaultClientContext>,
    kafka: Kafka,
    _folder: TempDir,
}

async fn receive(client: &Client) -> Option<Reply> {
    client.post(&format!("{BEANS}/receive"), Uuid::now_v7(), &json!({"quantity": 1})).await
}

fn within() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE))
}

impl House {
    async fn open() -> Self {
        let kafka = tokio::task::spawn_blocking(|| Kafka::start(1)).await.expect("a broker");
        let folder = TempDir::new().expect("a folder");
        let rows = format!("sqlite:{}", folder.path().join("views.db").display());
        // What waits for a topic that is gone is not waited for.
        let alone = Alone::new(folder.path(), "main", Some((kafka.bootstrap(), 1)), rows)
            .with("timeouts = { drain_ms = 500, drain_requests_ms = 500 }");
        let node = alone.start().await;
        let client = node.client();
        let counted = client.put(BEANS, Uuid::now_v7(), &shop::count(100)).await.expect("an answer");
        assert_eq!(counted.status, 201, "{}", counted.body);
        let partition = counted.positions()[0].0;
        for _ in 0..10 {
            assert_eq!(receive(&client).await.expect("an answer").status, 200);
        }
        let meddler = ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().expect("a client");
        Self { alone, node, client, partition, meddler, kafka, _folder: folder }
    }

    async fn delete_topic(&self) {
        let gone = self.meddler.delete_topics(&[TOPIC], &within()).await.expect("an answer");
        assert!(gone.iter().all(Result::is_ok), "{gone:?}");
        let began = Instant::now();
        while self.kafka.topics().iter().any(|topic| topic == TOPIC) {
            assert!(began.elapsed() < PATIENCE, "the topic does not go");
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
    }

    /// Makes a topic of that name as a node would, and nothing in it.
    async fn make_topic(&self) {
        let new = NewTopic::new(TOPIC, i32::from(PARTITIONS), TopicReplication::Fixed(1));
        let new = new.set("retention.ms", "-1").set("max.message.bytes", "2097152");
        let made = self.meddler.create_topics([&new], &within()).await.expect("an answer");
        assert!(made.iter().all(Result::is_ok), "{made:?}");
    }

    /// Asks for one thing after the other until the node has ended: none of it can be done any more.
    async fn says_no_until_it_ends(&mut self) {
        let began = Instant::now();
        while self.node.runs() {
            assert!(began.elapsed() < ENDS_WITHIN, "it goes on\n{}", self.node.printed());
            if let Some(reply) = receive(&self.client).await {
                assert!(matches!(reply.status, 503 | 504), "{} {}", reply.status, reply.text);
                assert_eq!(reply.body["outcome"], "unknown", "{}", reply.text);
            }
        }
        println!("ended after {:?}", began.elapsed());
    }

    /// It has ended, or does now, with exit code 1 and these words.
    async fn ends_with(&mut self, words: &[&str]) {
        let began = Instant::now();
        let status = self.node.ended_within(ENDS_WITHIN).await;
        println!("ended after another {:?}", began.elapsed());
        let printed = self.node.printed();
        assert_eq!(status.code(), Some(1), "{printed}");
        assert!(!printed.contains("panicked"), "{printed}");
        let last = printed.split_once("error: ").map_or("", |(_, last)| last);
        for word in words.iter().chain(&["docket explain topic-truncated"]) {
            assert!(last.contains(word), "{word}\n{printed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_topic_loses_its_beginning_ends_and_is_not_started_again() {
    let mut house = House::open().await;
    let mut list = TopicPartitionList::new();
    let partition = i32::try_from(house.partition).expect("a partition");
    list.add_partition_offset(TOPIC, partition, Offset::Offset(3)).expect("it fits");
    house.meddler.delete_records(&list, &within()).await.expect("they are thrown away");
    // What is written now is in the topic: nothing that was said is untrue.
    let reply = receive(&house.client).await.expect("an answer");
    assert_eq!(reply.status, 200, "{}", reply.body);
    let lost = format!("has lost records of partition {partition}: it begins at offset 3");
    house.ends_with(&[&lost]).await;
    let again = house.alone.try_start().await.expect_err("it is refused").printed;
    assert!(again.contains(&lost), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_topic_is_deleted_ends() {
    let mut house = House::open().await;
    house.delete_topic().await;
    house.says_no_until_it_ends().await;
    house.ends_with(&["the topic is gone"]).await;
    // Nor does it make another one when it is started again, which others would take for this log.
    let again = house.alone.try_start().await.expect_err("it is refused").printed;
    assert!(again.contains("the topic is gone"), "{again}");
    assert!(!house.kafka.topics().iter().any(|topic| topic == TOPIC), "it was made anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_topic_is_made_anew_ends() {
    let mut house = House::open().await;
    house.delete_topic().await;
    house.make_topic().await;
    house.says_no_until_it_ends().await;
    house.ends_with(&["has lost records of partition"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_topic_another_has_founded_anew_ends() {
    let mut house = House::open().await;
    house.delete_topic().await;
    let folder = TempDir::new().expect("a folder");
    let rows = format!("sqlite:{}", folder.path().join("views.db").display());
    let other = Alone::new(folder.path(), "main", Some((house.kafka.bootstrap(), 1)), rows).start().await;
    house.says_no_until_it_ends().await;
    house.ends_with(&["has lost records of partition"]).await;
    other.terminate().await;
}
