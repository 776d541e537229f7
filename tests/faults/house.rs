//! A house under test: one data directory, a process on it that dies and comes back, and what can be read from it. Between
//! two lives it is looked at twice: that all that is due settles with nobody asking, and that no promise is broken so far.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::StreamExt;
use kit::{Client, Docket};
use serde_json::Value;
use uuid::Uuid;

use crate::history::Command;
use crate::judge::{Evidence, Row};
use crate::load::UNTIL_HEALED;
use crate::log::{Event, Told};

/// How soon everything due settles after a restart (the issue: 5 s).
const SETTLES_WITHIN: Duration = Duration::from_secs(5);
/// How soon it serves after a restart, generously.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// How long one restart may take to settle: who else uses the disk may hold it up for many seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// From so many restarts on their median says something.
const MANY: usize = 5;
/// How long a reservation that was made for at most 3 s may stay.
const EXPIRES_WITHIN: Duration = Duration::from_secs(10);
/// How long the gateway's longest back-off and a few tries may take once it is healed.
const HEALS_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at what has happened.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(10);
/// Rows read at once.
const READS_AT_ONCE: usize = 16;

/// The log as it was followed through all lives.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    pub(crate) told: Told,
    /// As told, to be compared with what is told at the end.
    pub(crate) seen: Vec<Value>,
    cursor: Option<String>,
}

impl Follower {
    /// Reads what has been added.
    ///
    /// # Panics
    /// When events cannot be read: then nothing can be judged.
    pub(crate) async fn catch_up(&mut self, client: &Client) {
        loop {
            let from = self.cursor.clone().unwrap_or_else(|| "start".to_owned());
            let path = format!("/v1/events?from={from}&limit=500");
            let reply = client.get(&path).await.unwrap_or_else(|| panic!("no answer to {path}"));
            assert_eq!(reply.status, 200, "{path}: {}", reply.body);
            let items = reply.body["items"].as_array().cloned().unwrap_or_default();
            for item in &items {
                self.told.add(Event::of(item).unwrap_or_else(|fault| panic!("{fault}")));
            }
            let more = !items.is_empty();
            self.seen.extend(items);
            self.cursor = reply.body["next_cursor"].as_str().map(str::to_owned);
            assert!(self.cursor.is_some(), "{path} has no next_cursor");
            if !more {
                return;
            }
        }
    }
}

/// Everything that is durable, and how to bring it to life.
#[derive(Debug)]
pub(crate) struct House {
    pub(crate) data: PathBuf,
    pub(crate) ready: Vec<Duration>,
    pub(crate) settled: Vec<Duration>,
    pub(crate) follower: Follower,
    /// Streams once found settled that nothing touched since need no second look: how far each was looked at.
    settled_at: BTreeMap<String, usize>,
}

impl House {
    pub(crate) fn new(data: &Path) -> Self {
        Self {
            data: data.to_owned(),
            ready: Vec::new(),
            settled: Vec::new(),
            follower: Follower::default(),
            settled_at: BTreeMap::new(),
        }
    }

    /// Starts it.
    pub(crate) async fn start(&mut self) -> Docket {
        self.start_in(&[]).await
    }

    /// Starts it with this in its environment.
    pub(crate) async fn start_in(&mut self, environment: &[(&str, PathBuf)]) -> Docket {
        let started = Docket::try_start_in(environment, &self.data, &[]).await;
        let docket = started.unwrap_or_else(|fault| panic!("{fault}"));
        self.ready.push(docket.ready_in());
        docket
    }

    /// Waits, asking for nothing, until everything due has settled.
    ///
    /// # Panics
    /// When it does not.
    pub(crate) async fn settle(&mut self, docket: &Docket) {
        let took = self.wait_settled(docket, PATIENCE, false).await;
        self.settled.push(took);
    }

    /// That it served and settled as soon as is promised, if there were restarts enough to tell.
    ///
    /// # Panics
    /// When it took longer.
    pub(crate) fn assert_prompt(&self) {
        for (what, times, within) in
            [("serves", &self.ready, READY_WITHIN), ("has settled", &self.settled, SETTLES_WITHIN)]
        {
            let is_late = percentile(times, 50).is_some_and(|half| half > within);
            assert!(times.len() < MANY || !is_late, "after a restart it {what} too late: {}", spread(times));
        }
    }

    /// Heals the gateway and waits until nothing at all is under way.
    ///
    /// # Panics
    /// When it takes longer than the longest back-off allows.
    pub(crate) async fn heal(&mut self, docket: &Docket) {
        let client = docket.client();
        let healed = client.send(reqwest::Method::POST, "/dev/gateway/heal", &[], None).await;
        assert_eq!(healed.map(|reply| reply.status), Some(200), "the gateway cannot be healed");
        self.wait_settled(docket, HEALS_WITHIN, true).await;
    }

    async fn wait_settled(&mut self, docket: &Docket, within: Duration, with_down: bool) -> Duration {
        let (client, began) = (docket.client(), Instant::now());
        loop {
            self.follower.catch_up(&client).await;
            let open = self.open_streams(with_down);
            if open.is_empty() {
                return began.elapsed();
            }
            if began.elapsed() > within {
                let stories: Vec<String> = open.iter().take(5).map(|stream| self.story(stream)).collect();
                panic!(
                    "{} streams have not settled {within:?} after the restart:\n{}\n{}",
                    open.len(),
                    stories.join("\n"),
                    docket.printed()
                );
            }
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
    }

    /// Waits until no reservation is left that has an end within seconds.
    ///
    /// # Panics
    /// When one does not expire.
    pub(crate) async fn wait_expired(&mut self, docket: &Docket, history: &[Command]) {
        let short: BTreeSet<Uuid> = history
            .iter()
            .filter(|command| command.body["expires_in_s"].as_u64().is_some_and(|seconds| seconds <= 3))
            .map(|command| command.key)
            .collect();
        let (client, began) = (docket.client(), Instant::now());
        loop {
            self.follower.catch_up(&client).await;
            let told = &self.follower.told;
            let overdue = told.named("reservation-").map(|(stream, _)| stream).find(|stream| {
                let due = told.stream(stream).next().is_some_and(|made| {
                    made.kind == "ReservationMade" && made.command.is_some_and(|key| short.contains(&key))
                });
                due && told.fold(stream)["status"] == "reserved"
            });
            let Some(stream) = overdue else { return };
            assert!(began.elapsed() < EXPIRES_WITHIN, "{} does not expire\n{}", self.story(stream), docket.printed());
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
    }

    fn open_streams(&mut self, with_down: bool) -> Vec<String> {
        let told = &self.follower.told;
        let mut open = Vec::new();
        for (stream, places) in &told.streams {
            let is_saga = stream.starts_with("checkout-");
            if !(is_saga || stream.starts_with("payment-")) || self.settled_at.get(stream) == Some(&places.len()) {
                continue;
            }
            let state = told.fold(stream);
            let settled = if is_saga { !state["settled"].is_null() } else { state["open"] == 0 };
            if settled {
                self.settled_at.insert(stream.clone(), places.len());
            } else if with_down || !UNTIL_HEALED.iter().any(|token| state["token"] == *token) {
                open.push(stream.clone());
            }
        }
        open
    }

    fn story(&self, stream: &str) -> String {
        let events =
            self.follower.told.stream(stream).map(|event| format!("  {} {} {}", event.version, event.kind, event.data));
        format!("{stream}\n{}", events.collect::<Vec<_>>().join("\n"))
    }

    /// Everything there is to judge by, read from a house at rest.
    ///
    /// # Panics
    /// When something cannot be read.
    pub(crate) async fn evidence(&self, client: &Client) -> Evidence {
        let events = client.ndjson("/v1/events").await.unwrap_or_else(|fault| panic!("{fault}"));
        let told = Told::of(&events).unwrap_or_else(|fault| panic!("{fault}"));
        let ledger = client.get("/dev/gateway/ledger").await.expect("the books can be read");
        let ledger = ledger.body["items"].as_array().cloned().expect("the books have rows");
        // The read models follow: lists are asked for what the log had reached.
        let mut last = BTreeMap::<u64, u64>::new();
        for event in &told.events {
            last.insert(event.position.0, event.position.1);
        }
        let least: Vec<String> = last.iter().map(|(partition, offset)| format!("{partition}:{offset}")).collect();
        let least = least.join(", ");
        let reached =
            client.get_with("/v1/orders?limit=1", &[("docket-min-position", &least), ("prefer", "wait=10")]).await;
        assert_eq!(reached.map(|reply| reply.status), Some(200), "the read models do not reach {least}");
        let rows =
            futures::stream::iter(told.streams.keys().filter_map(|stream| Some((stream.clone(), path_of(stream)?))))
                .map(|(stream, path)| async move {
                    let reply = client.get(&path).await.unwrap_or_else(|| panic!("no answer to {path}"));
                    (reply.status == 200).then(|| {
                        let etag = reply.header("etag").map(str::to_owned);
                        (stream, Row { etag, body: reply.body })
                    })
                })
                .buffer_unordered(READS_AT_ONCE)
                .filter_map(|row| async move { row })
                .collect()
                .await;
        let mut listed = BTreeMap::new();
        for order in client.list("/v1/orders").await.unwrap_or_else(|fault| panic!("{fault}")) {
            listed.insert(format!("order-{}", text(&order, "order_id")), order);
        }
        for saga in client.list("/v1/sagas").await.unwrap_or_else(|fault| panic!("{fault}")) {
            listed.insert(format!("checkout-{}", text(&saga, "order_id")), saga);
        }
        let locations: BTreeSet<&str> =
            told.named("stock-").filter_map(|(_, place)| Some(place.split_once('~')?.0)).collect();
        for location in locations {
            for stock in client.list(&format!("/v1/stock/{location}")).await.unwrap_or_else(|fault| panic!("{fault}")) {
                listed.insert(format!("stock-{location}~{}", text(&stock, "sku")), stock);
            }
        }
        let invariants = client.get("/dev/invariants").await.expect("the invariants can be checked").body;
        Evidence { history: Vec::new(), events, ledger, rows, listed, invariants: Some(invariants) }
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// Where a stream's resource is read.
fn path_of(stream: &str) -> Option<String> {
    let (kind, name) = stream.split_once('-')?;
    Some(match kind {
        "order" => format!("/v1/orders/{name}"),
        "payment" => format!("/v1/payments/{name}"),
        "checkout" => format!("/v1/sagas/{name}"),
        "stock" => {
            let (location, sku) = name.split_once('~')?;
            format!("/v1/stock/{location}/{sku}")
        }
        "reservation" => {
            let (location, id) = name.split_once('~')?;
            format!("/v1/stock/{location}/reservations/{id}")
        }
        _ => return None,
    })
}

/// Median, 99th percentile and most of some times, in words.
pub(crate) fn spread(times: &[Duration]) -> String {
    match (percentile(times, 50), percentile(times, 99), times.iter().max()) {
        (Some(half), Some(most), Some(worst)) => {
            format!("median {} ms, p99 {} ms, most {} ms", half.as_millis(), most.as_millis(), worst.as_millis())
        }
        _ => "none".to_owned(),
    }
}

fn percentile(times: &[Duration], percent: usize) -> Option<Duration> {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied()
}
