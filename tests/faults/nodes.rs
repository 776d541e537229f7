//! What the trials of several nodes share: a cluster with a load on it, a probe that tells how soon all partitions are led
//! again, and the end of every trial, where all come back, everything settles, and the judge hears all there is.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use kit::shop::count;
use kit::{Client, Cluster, Dice, knob};
use serde_json::json;
use uuid::Uuid;

use crate::history::Command;
use crate::house::House;
use crate::judge::{Finding, assert_clean, judge, judge_at_any_time, never_rewritten};
use crate::load::{Activity, Shoppers, World, assert_busy, named_in};

mod brokers;
mod database;
mod owners;
mod requests;
mod versions;

/// How soon the partitions of a node that is gone are led by others, as a rule: the median of a trial's.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(10);
/// How long is waited for anything that must come: longer than the busiest machine takes.
const BACK_WITHIN: Duration = Duration::from_secs(60);
/// How long shoppers rest between two things they do: enough is under way at any moment, and the judge can read it all.
const REST: Duration = Duration::from_millis(25);
/// Between two tries of a probe.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Answers asked for again at the end.
const ASKED_AGAIN: usize = 100;
/// More places than it takes to find one in each of 12 partitions.
const PLACES_MAX: usize = 200;

/// A cluster on trial.
struct Trial {
    cluster: Cluster,
    /// Asks all nodes in turn.
    client: Client,
    world: World,
    dice: Dice,
    /// Reads what the judge needs.
    house: House,
    probe: Probe,
    seed: u64,
    rounds: u64,
    began: Instant,
}

impl Trial {
    /// Starts it all, with shelves full; `None`, said aloud, where there can be no cluster.
    async fn open(brokers: u8, nodes: u8, name: u64) -> Option<Self> {
        if Self::is_impossible() {
            return None;
        }
        let mut cluster = Cluster::prepare(brokers, nodes).await;
        cluster.start_nodes().await;
        Some(Self::on(cluster, name).await)
    }

    fn is_impossible() -> bool {
        let missing = kit::cluster::missing();
        if let Some(missing) = &missing {
            println!("SKIPPED: no cluster can run here: {missing}");
        }
        missing.is_some()
    }

    /// A trial on nodes that are running.
    async fn on(cluster: Cluster, name: u64) -> Self {
        let began = Instant::now();
        let seed = knob("DOCKET_TEST_SEED", 1);
        let (client, world) = (cluster.client_of_all(), World::default());
        let mut dice = Dice::new(seed, &[100 + name]);
        world.stock_shelves(&client, &mut dice).await;
        let probe = Probe::find(&client).await;
        // It never starts a process of its own; the nodes of the cluster do.
        let house = House::new(Path::new(""));
        Self { cluster, client, world, dice, house, probe, seed, rounds: 0, began }
    }

    /// Shoppers who ask all nodes in turn.
    fn shoppers(&mut self) -> Shoppers {
        self.rounds += 1;
        self.world.open(&self.client, self.seed, self.rounds, Some(REST))
    }

    /// More shoppers, who keep away from one node: they go on while those of all nodes wait for it.
    fn shoppers_without(&mut self, number: usize) -> Shoppers {
        self.rounds += 1;
        self.world.open(&self.client_without(number), self.seed, self.rounds, Some(REST))
    }

    /// Lets the load run for a while.
    async fn trade(&mut self, least_ms: u64, most_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.dice.between(least_ms, most_ms))).await;
    }

    /// A client of all nodes but one.
    fn client_without(&self, number: usize) -> Client {
        let client = self.cluster.client_of_all();
        client.leave_out(number - 1, true);
        client
    }

    /// Judges what holds at any moment, as this node tells it.
    async fn judge_so_far(&mut self, number: usize) {
        let history = self.world.history.commands();
        reach(&self.cluster.client(number), &history).await;
        self.house.follower.catch_up(&self.cluster.client(number)).await;
        let findings = judge_at_any_time(&history, &self.house.follower.told);
        assert_clean(&findings, || format!("{}\n{}", named_in(&findings, &history), self.cluster.printed()));
        assert_eq!(self.world.history.findings(), Vec::<String>::new(), "seed {}", self.seed);
    }

    /// Brings everybody back and everything to rest, and judges all of it.
    async fn rest_and_judge(mut self, name: &str, faults: usize) -> Vec<Command> {
        let began = Instant::now();
        self.cluster.start_nodes().await;
        self.probe.wait_led(&self.client).await;
        self.world.finish_all(&self.client).await;
        self.world.ask_again(&self.client, &mut self.dice, ASKED_AGAIN).await;
        let history = self.world.history.commands();
        for number in 1..=self.cluster.nodes() {
            reach(&self.cluster.client(number), &history).await;
        }
        self.house.heal(self.cluster.node(1)).await;
        self.house.wait_expired(self.cluster.node(1), &history).await;
        self.world.ask_again(&self.client, &mut self.dice, ASKED_AGAIN).await;
        let client = self.cluster.client(1);
        self.house.follower.catch_up(&client).await;
        let mut evidence = self.house.evidence(&client).await;
        evidence.history = self.world.history.commands();
        let mut findings = judge(&evidence);
        findings.extend(never_rewritten(&self.house.follower.seen, &evidence.events));
        for number in 2..=self.cluster.nodes() {
            findings.extend(told_by_all(&evidence.events, &self.cluster.client(number), number).await);
        }
        assert_clean(&findings, || format!("{}\n{}", named_in(&findings, &evidence.history), self.cluster.printed()));
        assert_eq!(self.world.history.findings(), Vec::<String>::new(), "seed {}", self.seed);
        let printed = self.cluster.printed();
        assert!(!printed.contains("panicked"), "seed {}: a node panicked\n{printed}", self.seed);
        assert_busy(&evidence.history, &evidence.events, faults);
        self.cluster.terminate_nodes().await;
        println!(
            "{name}: seed {}, {:?}, {} events; {:.0} s, of which rest and judgement {:.0} s",
            self.seed,
            Activity::of(&evidence.history),
            evidence.events.len(),
            self.began.elapsed().as_secs_f64(),
            began.elapsed().as_secs_f64()
        );
        evidence.history
    }
}

/// Waits until a node has all that any client was told of.
///
/// # Panics
/// When it does not get there.
async fn reach(client: &Client, history: &[Command]) {
    let mut last = BTreeMap::<u64, u64>::new();
    for (partition, offset) in history.iter().flat_map(Command::all_definite).flat_map(kit::Reply::positions) {
        let known = last.entry(partition).or_default();
        *known = offset.max(*known);
    }
    let least: Vec<String> = last.iter().map(|(partition, offset)| format!("{partition}:{offset}")).collect();
    let least = least.join(", ");
    let began = Instant::now();
    loop {
        let headers = [("docket-min-position", least.as_str()), ("prefer", "wait=10")];
        let reply = client.get_with("/v1/orders?limit=1", &headers).await;
        if reply.as_ref().is_some_and(|reply| reply.status == 200) {
            return;
        }
        assert!(began.elapsed() < BACK_WITHIN, "a node does not reach {least}: {reply:?}");
    }
}

/// LOG-2: every node tells the same log.
async fn told_by_all(events: &[serde_json::Value], client: &Client, number: usize) -> Vec<Finding> {
    let told = client.ndjson("/v1/events").await.unwrap_or_else(|fault| panic!("node-{number}: {fault}"));
    let place = |event: &serde_json::Value| format!("{} {}", event["position"], event["index"]);
    let told: BTreeMap<String, &serde_json::Value> = told.iter().map(|event| (place(event), event)).collect();
    let other = events.iter().filter(|event| told.get(&place(event)) != Some(event));
    other.map(|event| Finding { rule: "LOG-2", what: format!("node-{number} does not tell {event}") }).collect()
}

/// What is promised of most holds of most: one time in a few may be a busy machine's own.
///
/// # Panics
/// When the median is above what is promised.
fn assert_as_a_rule(what: &str, times: &[Duration], within: Duration) {
    let mut sorted = times.to_vec();
    sorted.sort();
    let median = sorted[(sorted.len() - 1) / 2];
    assert!(median <= within, "{what}: {}, and {within:?} is promised", crate::house::spread(times));
}

/// A shelf in every partition, to tell whether somebody leads it: only the leader can accept a delivery there.
#[derive(Clone, Debug)]
struct Probe(BTreeMap<u64, String>);

impl Probe {
    async fn find(client: &Client) -> Self {
        let mut shelves = BTreeMap::new();
        for number in 0..PLACES_MAX {
            let path = format!("/v1/stock/probe-{number}/bell");
            let reply = client.put(&path, Uuid::now_v7(), &count(1)).await.expect("an answer");
            assert_eq!(reply.status, 201, "{path}: {}", reply.body);
            let (partition, _) = *reply.positions().first().expect("an answer has a position");
            shelves.entry(partition).or_insert(path);
            if shelves.len() == usize::from(kit::cluster::PARTITIONS) {
                return Self(shelves);
            }
        }
        panic!("no place found in some partition: {shelves:?}");
    }

    /// Waits until every partition accepts a command, and tells how long the slowest took.
    ///
    /// # Panics
    /// When one takes too long.
    async fn wait_led(&self, client: &Client) -> Duration {
        let within = BACK_WITHIN;
        let began = Instant::now();
        let tries = self.0.iter().map(async |(partition, path)| {
            let key = Uuid::now_v7();
            let mut heard = String::new();
            while began.elapsed() < within {
                // Asked anew while an earlier try hangs: a load balancer would.
                let left = within.saturating_sub(began.elapsed()).min(Duration::from_secs(2));
                let path = format!("{path}/receive");
                let body = json!({"quantity": 1});
                match tokio::time::timeout(left, client.post(&path, key, &body)).await {
                    Ok(Some(reply)) if reply.status == 200 => return began.elapsed(),
                    Ok(other) => heard = format!("{other:?}"),
                    Err(_) => heard = "nothing within 2 s".to_owned(),
                }
                tokio::time::sleep(TRY_AGAIN_AFTER).await;
            }
            panic!("partition {partition} is not led after {within:?}: {heard}");
        });
        futures::future::join_all(tries).await.into_iter().max().unwrap_or_default()
    }
}
