//! A node that needs its time before it serves: its lost state store is folded afresh from a long log, and the log's disk is
//! held up as long as somebody looks. Whoever asks meanwhile is answered: a supervisor that it lives, an operator what it is
//! at and how far, a client that it should come again with the same key.

use std::path::Path;
use std::time::{Duration, Instant};

use kit::{Client, Dice, Docket, Reply};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::forge;
use crate::house::House;
use crate::load::World;
use crate::preload::{ALWAYS, Calls, Faults, Rule, Wrong};

/// The log's files, among all that a process has open.
const SEGMENTS: &str = ".segment";
/// Records of a log whose states are folded afresh, past the journal: that begins at 20,000.
const RECORDS: usize = 24_000;
/// Reads of the log that go through between two looks.
const READS: u32 = 8;
/// How soon a process that is asked to end while it opens has ended; its own patience is 1 s.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// How long it may stay at one thing.
const MOVES_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(5);
/// Where the forged stream is.
pub(crate) const BEANS: &str = "/v1/stock/shop-1/beans";

/// A closed house with a long log and no state store; the version of its stream of beans.
pub(crate) async fn a_long_log(data: &Path) -> u64 {
    let (mut house, world, mut dice) = (House::new(data), World::default(), Dice::new(1, &[41]));
    let docket = house.start().await;
    world.stock_shelves(&docket.client(), &mut dice).await;
    assert_eq!(receive(&docket.client(), Uuid::now_v7()).await.status, 200);
    house.follower.catch_up(&docket.client()).await;
    let stream = "stock-shop-1~beans";
    let partition = house.follower.told.stream(stream).next().expect("it is in the log").position.0;
    docket.terminate().await;
    let version = forge::add(data, partition, stream, |newest| vec![vec![newest.clone()]; RECORDS]);
    std::fs::remove_dir_all(data.join("state")).expect("it can be removed");
    version
}

pub(crate) async fn receive(client: &Client, key: Uuid) -> Reply {
    client.post(&format!("{BEANS}/receive"), key, &json!({"quantity": 1})).await.expect("an answer")
}

/// What `/readyz` says of a node that is being opened.
async fn at(client: &Client) -> String {
    let reply = client.get("/readyz").await.expect("an answer");
    assert_eq!(reply.status, 503, "{}", reply.text);
    let said = reply.text.strip_prefix("[-] opening: ").and_then(|said| said.strip_suffix("\nnot ready\n"));
    said.unwrap_or_else(|| panic!("it does not say what it is at: {}", reply.text)).to_owned()
}

/// How much of the fold is done, in percent, if that is what it is at.
fn folded(said: &str) -> Option<u64> {
    let far = said.strip_prefix("folding the state store afresh: ")?;
    far.split_once(" %")?.0.parse().ok()
}

/// Lets a few more reads of the log go through.
async fn go_on(faults: &Faults, held: Rule) -> Rule {
    let next = faults.arm(Calls::Reads, SEGMENTS, Wrong::Wait, READS, ALWAYS);
    faults.lift(held);
    faults.until_fired(next, 1).await;
    next
}

/// Lets it go on until it folds, and is held there.
async fn until_it_folds(faults: &Faults, client: &Client, mut held: Rule) -> Rule {
    let began = Instant::now();
    while folded(&at(client).await).is_none() {
        assert!(began.elapsed() < MOVES_WITHIN, "it never folds");
        held = go_on(faults, held).await;
    }
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_folds_a_long_log_a_node_lives_says_how_far_it_is_and_has_commands_sent_again() {
    let _alone = crate::one_at_a_time().await;
    let (data, faults) = (tempfile::tempdir().expect("a scratch directory"), Faults::new());
    let version = a_long_log(data.path()).await;
    let held = faults.arm(Calls::Reads, SEGMENTS, Wrong::Wait, 0, ALWAYS);
    let docket = Docket::begin_in(&faults.environment(), data.path(), &[]).await;
    let client = docket.client();
    faults.until_fired(held, 1).await;
    assert_eq!(at(&client).await, "opening the log");
    let mut held = until_it_folds(&faults, &client, held).await;

    let key = Uuid::now_v7();
    let reply = receive(&client, key).await;
    assert_eq!((reply.status, reply.code()), (503, Some("not-open-yet")), "{}", reply.body);
    assert_eq!(reply.body["outcome"], "unknown", "{}", reply.body);
    let again = reply.header("retry-after").and_then(|after| after.parse::<u64>().ok());
    assert!(again.is_some_and(|after| (1..=5).contains(&after)), "come again after {again:?}");
    assert!(reply.body["detail"].as_str().is_some_and(|told| told.contains("afresh")), "{}", reply.body);
    for path in [BEANS, "/v1/orders?limit=5", "/v1/nothing", &format!("/v1/commands/{key}")] {
        let reply = client.get(path).await.expect("an answer");
        assert_eq!((reply.status, reply.code()), (503, Some("not-open-yet")), "{path}: {}", reply.body);
        assert_eq!(reply.body.get("outcome"), None, "{path}: {}", reply.body);
    }
    for path in ["/livez", "/version", "/problems/not-open-yet"] {
        assert_eq!(client.get(path).await.expect("an answer").status, 200, "{path}");
    }
    let metrics = client.get("/metrics").await.expect("an answer").text;
    assert!(metrics.contains("docket_state_rebuild_records_left"), "{metrics}");

    let mut percents = vec![folded(&at(&client).await).expect("it still folds")];
    while percents.len() < 5 {
        held = go_on(&faults, held).await;
        percents.extend(folded(&at(&client).await));
    }
    assert!(percents.is_sorted() && percents.first() < percents.last(), "it does not move: {percents:?}");
    // Said in the log too: held for long enough, it is told.
    while !docket.printed().contains("not open yet: folding the state store afresh") {
        assert!(client.get("/livez").await.is_some(), "it is gone\n{}", docket.printed());
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
    faults.lift(held);

    // The same client, on connections that were there before.
    let docket = docket.until_serving().await.unwrap_or_else(|fault| panic!("{fault}"));
    let reply = receive(&client, key).await;
    assert_eq!((reply.status, &reply.body["version"]), (200, &Value::from(version + 1)), "{}", reply.body);
    assert!(!reply.is_replayed(), "what was turned away was done");
    assert_eq!(client.get("/v1/nothing").await.expect("an answer").code(), Some("no-such-route"));
    docket.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_stop_while_it_folds_it_ends_at_once_and_begins_again() {
    let _alone = crate::one_at_a_time().await;
    let (data, faults) = (tempfile::tempdir().expect("a scratch directory"), Faults::new());
    let version = a_long_log(data.path()).await;
    for folds in [false, true] {
        let held = faults.arm(Calls::Reads, SEGMENTS, Wrong::Wait, 0, ALWAYS);
        let mut docket = Docket::begin_in(&faults.environment(), data.path(), &[]).await;
        let client = docket.client();
        let held = if folds { until_it_folds(&faults, &client, held).await } else { held };
        // Its disk does not answer, and it is not waited for.
        let began = Instant::now();
        docket.ask_to_stop();
        let status = docket.ended().await;
        assert!(began.elapsed() < ENDS_WITHIN, "it took {:?} to end\n{}", began.elapsed(), docket.printed());
        assert_eq!(status.code(), Some(0), "{}", docket.printed());
        assert!(!docket.printed().contains("panicked"), "{}", docket.printed());
        faults.lift(held);
    }
    let docket = Docket::start(data.path(), &[]).await;
    assert!(docket.printed().contains("the state store was folded from the log"), "{}", docket.printed());
    let reply = receive(&docket.client(), Uuid::now_v7()).await;
    assert_eq!((reply.status, &reply.body["version"]), (200, &Value::from(version + 1)), "{}", reply.body);
    docket.terminate().await;
}
