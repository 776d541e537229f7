//! A newer version of the product beside this one, on one log, as in the middle of an upgrade. The newer one is played by
//! the trial itself: it claims, says and leaves with things in its records that no reader of today knows. What may be
//! passed over is; what may not stops whoever does not know it, with a plain word, and costs nobody anything else.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::fold::Verdict;
use engine::log::{Appender, Delivery, DeliverySink, Log};
use engine::message::CommandId;
use engine::position::{Checkpoint, Epoch, Nonce, Partition, Seq, Version};
use engine::record::{Body, Claim, Commit, HEADER_BYTES, Header, Kind, Record, Section};
use engine::time::Timestamp;
use engine_kafka::{KafkaLog, KafkaOptions};
use kit::{Client, Cluster};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::block_in_place;
use uuid::Uuid;

use super::{BACK_WITHIN, Probe, TRY_AGAIN_AFTER, Trial};

/// How long brokers may take for anything here.
const PATIENCE: Duration = Duration::from_secs(30);
/// Terms that the newer one takes beside the others.
const TERMS: u16 = 2;
/// Tries of one term: the others may claim in between.
const TRIES_MAX: usize = 30;
/// A section that no version has yet.
const LATER: u8 = 100;
/// The bit of a section's tag that says that nobody may pass it over, and where a record's checksum is: as
/// `docs/record-format.md` has it.
const CRITICAL: u8 = 0x80;
const CHECKSUM_AT: usize = 36;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_node_adds_to_its_records_is_passed_over_and_what_they_say_holds() {
    let _alone = crate::one_at_a_time().await;
    let Some(mut trial) = Trial::open(1, 3, 9).await else { return };
    let shoppers = trial.shoppers();
    let newer = block_in_place(|| Newer::join(&trial.cluster, "newer"));
    let mut delivered = BTreeMap::new();
    for turn in 0..TERMS {
        trial.trade(500, 1_000).await;
        // Something is received everywhere, which the newer one then receives once more.
        trial.probe.wait_led(&trial.client).await;
        let partition = Partition(turn * kit::cluster::PARTITIONS / TERMS);
        let path = trial.probe.0[&u64::from(partition.0)].clone();
        let told = block_in_place(|| newer.deliver(partition, &path));
        // Led again by a node of today, which goes on where the newer one stopped.
        trial.probe.wait_led(&trial.client).await;
        delivered.insert(path, told);
    }
    for (path, (id, on_hand)) in &delivered {
        let mut heard = Vec::new();
        for number in 1..=trial.cluster.nodes() {
            let client = trial.cluster.client(number);
            let reply =
                client.post(&format!("{path}/receive"), id.0, &json!({"quantity": 1})).await.expect("an answer");
            assert!(reply.status == 200 && reply.is_replayed(), "node-{number}, {path}: {reply:?}");
            assert_eq!(reply.body["on_hand"], *on_hand, "node-{number}, {path}: {reply:?}");
            heard.push((reply.positions(), reply.body));
        }
        assert!(heard.iter().all(|one| *one == heard[0]), "{path}: {heard:?}");
    }
    block_in_place(|| drop(newer));
    shoppers.go_home().await;
    trial.rest_and_judge("a newer node beside", usize::from(TERMS)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_needs_a_newer_version_stops_its_partition_and_nothing_else() {
    let _alone = crate::one_at_a_time().await;
    if Trial::is_impossible() {
        return;
    }
    let mut cluster = Cluster::prepare(1, 2).await;
    cluster.start_nodes().await;
    let client = cluster.client_of_all();
    let mut probe = Probe::find(&client).await;
    let newer = block_in_place(|| Newer::join(&cluster, "newer"));
    let (critical, format) = (Partition(3), Partition(7));
    let mut shut = Vec::new();
    let changes: [(Partition, fn(&mut [u8])); 2] = [(critical, Newer::critical), (format, Newer::of_format_2)];
    for (partition, change) in changes {
        let path = probe.0.remove(&u64::from(partition.0)).expect("a probe in every partition");
        block_in_place(|| newer.say_what_nobody_knows(partition, change));
        shut.push(path);
    }
    for path in &shut {
        let key = Uuid::now_v7();
        for number in 1..=cluster.nodes() {
            let reply = cluster.client(number).post(&format!("{path}/receive"), key, &json!({"quantity": 1})).await;
            let reply = reply.expect("an answer");
            assert_eq!((reply.status, &reply.body["outcome"]), (503, &json!("unknown")), "node-{number}: {reply:?}");
            // What was acknowledged before is still told.
            shows_one(&cluster.client(number), path).await;
        }
    }
    // All else goes on.
    probe.wait_led(&client).await;
    for number in 1..=cluster.nodes() {
        let printed = cluster.node(number).printed();
        assert!(!printed.contains("panicked"), "node-{number} panicked\n{printed}");
        for what in ["section 100", "record format 2"] {
            let why = format!("needs a newer version of this program: {what}");
            assert!(printed.contains(&why), "node-{number} does not say that it {why}\n{printed}");
        }
    }
    block_in_place(|| drop(newer));
    cluster.terminate_nodes().await;
}

/// Waits until a shelf is shown as it was counted: another node than the one that took the count may be late.
async fn shows_one(client: &Client, path: &str) {
    let began = Instant::now();
    loop {
        let reply = client.get(path).await.expect("an answer");
        if reply.status == 200 && (&reply.body["on_hand"], &reply.body["version"]) == (&json!(1), &json!(1)) {
            return;
        }
        assert!(began.elapsed() < BACK_WITHIN, "{path}: {reply:?}");
        tokio::time::sleep(TRY_AGAIN_AFTER).await;
    }
}

/// A node of a version that is not written yet, as far as it shows in the log.
struct Newer {
    log: KafkaLog,
    nonce: Nonce,
    _copy: TempDir,
}

impl Newer {
    /// Follows the cluster's log.
    fn join(cluster: &Cluster, name: &str) -> Self {
        let copy = TempDir::with_prefix("docket-newer-").expect("a scratch directory");
        let mut options = KafkaOptions::new(cluster.kafka.bootstrap(), "main", copy.path());
        (options.client_id, options.replication) = (name.to_owned(), u16::from(cluster.kafka.brokers()));
        let log = KafkaLog::open(&options, None).expect("the log opens");
        Self { log, nonce: Nonce(Uuid::now_v7().as_u64_pair().1), _copy: copy }
    }

    /// Takes a partition, receives what was received last on a shelf there once more, and leaves; all in words of its
    /// own besides. The command's id, and what is on hand after it.
    fn deliver(&self, partition: Partition, path: &str) -> (CommandId, Value) {
        let id = CommandId(Uuid::now_v7());
        for _ in 0..TRIES_MAX {
            let Some((epoch, records)) = self.claim(partition) else { continue };
            let last = records.iter().rev().find_map(|record| match &record.body {
                Body::Commit(commit) if is_of(commit, path) => Some(commit),
                _ => None,
            });
            let mut commit = last.unwrap_or_else(|| panic!("nothing was received at {path}")).clone();
            commit.command_id = id;
            commit.resource_version = Version(commit.resource_version.0 + 1);
            commit.streams[0].first_version = commit.resource_version;
            let answer = commit.outcome.answer.as_mut().expect("an answer tells the counters");
            for counter in ["on_hand", "available", "version"] {
                if let Some(before) = answer[counter].as_u64() {
                    answer[counter] = json!(before + 1);
                }
            }
            let on_hand = answer["on_hand"].clone();
            let latest = records.iter().filter_map(|record| match &record.body {
                Body::Commit(commit) => Some(commit.recorded_at),
                _ => None,
            });
            commit.recorded_at = latest.max().unwrap_or(commit.recorded_at);
            for (seq, kind, body) in [
                (1, Kind::Commit, Body::Commit(commit)),
                (2, Kind::Barrier, Body::Barrier),
                (3, Kind::Release, Body::Release),
            ] {
                self.say(partition, with_more(Record::new(self.header(kind, epoch, seq), body)));
            }
            let (_, records) = self.effective(partition);
            let held = |record: &Record| matches!(&record.body, Body::Commit(commit) if commit.command_id == id);
            if records.iter().any(held) {
                return (id, on_hand);
            }
        }
        panic!("partition {} could not be taken in {TRIES_MAX} tries", partition.0);
    }

    /// Takes a partition and says something there that may not be passed over.
    fn say_what_nobody_knows(&self, partition: Partition, change: fn(&mut [u8])) {
        for _ in 0..TRIES_MAX {
            let Some((epoch, _)) = self.claim(partition) else { continue };
            let mut record = with_more(Record::new(self.header(Kind::Barrier, epoch, 1), Body::Barrier)).to_vec();
            change(&mut record);
            let checksum = crc32c::crc32c_append(crc32c::crc32c(&record[..CHECKSUM_AT]), &record[HEADER_BYTES..]);
            record[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
            assert!(
                matches!(Record::decode(&record.clone().into()), Err(fault) if fault.to_string().contains("newer"))
            );
            self.say(partition, record.into());
            return;
        }
        panic!("partition {} could not be taken in {TRIES_MAX} tries", partition.0);
    }

    /// Makes its section one that nobody may pass over.
    fn critical(record: &mut [u8]) {
        record[HEADER_BYTES] |= CRITICAL;
    }

    /// Makes it one of the next format.
    fn of_format_2(record: &mut [u8]) {
        record[4] = 2;
    }

    /// Claims a partition; the epoch and all that counts there, if the claim does.
    fn claim(&self, partition: Partition) -> Option<(Epoch, Vec<Record>)> {
        let (before, _) = self.effective(partition);
        let epoch = Epoch(before.epoch.0 + 1);
        let claim = Claim { node: "newer".into(), address: "127.0.0.1:9".into(), claimed_at: Timestamp(1) };
        self.say(partition, with_more(Record::new(self.header(Kind::Claim, epoch, 0), Body::Claim(claim))));
        let (now, records) = self.effective(partition);
        (now.open && (now.epoch, now.nonce, now.next_seq) == (epoch, self.nonce, Seq(1))).then_some((epoch, records))
    }

    fn header(&self, kind: Kind, epoch: Epoch, seq: u64) -> Header {
        Header { kind, epoch, nonce: self.nonce, seq: Seq(seq) }
    }

    /// Appends, and waits until it is there.
    fn say(&self, partition: Partition, record: Bytes) {
        let (sender, receiver) = mpsc::channel();
        let mut appender: Box<dyn Appender> = self.log.appender(partition, Arc::new(Sink(sender)));
        appender.append(0, record);
        let deliveries = receiver.recv_timeout(PATIENCE).expect("brokers answer");
        deliveries[0].result.expect("it is appended");
    }

    /// All that counts in a partition, and how it stands.
    fn effective(&self, partition: Partition) -> (Checkpoint, Vec<Record>) {
        self.log.catch_up(partition, PATIENCE).expect("brokers answer");
        let (mut checkpoint, mut records) = (Checkpoint::default(), Vec::new());
        loop {
            let page = self.log.read(partition, checkpoint.next_offset, 1 << 20).expect("the copy can be read");
            if page.is_empty() {
                return (checkpoint, records);
            }
            for stored in page {
                let record = Record::decode(&stored.bytes).expect("a record");
                if checkpoint.accept(&record.header) == Verdict::Effective {
                    records.push(record);
                }
            }
        }
    }
}

/// A record with a section that may be passed over.
fn with_more(mut record: Record) -> Bytes {
    record.later.push(Section { number: LATER, content: Bytes::from_static(b"of a later day") });
    record.encode()
}

/// Whether it received something at this shelf: `/v1/stock/LOCATION/SKU`.
fn is_of(commit: &Commit, path: &str) -> bool {
    let stream = path.trim_start_matches("/v1/stock/").replacen('/', "~", 1);
    let is_there = commit.streams.first().is_some_and(|told| told.name.as_str() == format!("stock-{stream}"));
    is_there && commit.streams[0].events.iter().all(|event| &*event.event_type == "StockReceived")
}

struct Sink(mpsc::Sender<Vec<Delivery>>);

impl DeliverySink for Sink {
    fn delivered(&self, deliveries: Vec<Delivery>) {
        // Whoever waited may have given up.
        let _ = self.0.send(deliveries);
    }
}
