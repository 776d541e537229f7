//! A full disk, met for real: whoever asks is told so and what that means, what is there can be read, and when there is
//! room again the house goes on by itself, with nothing lost of what it had said yes to and nothing done of what it had
//! not. Log, state store, read models and the gateway's books share the disk.

use std::time::{Duration, Instant};

use kit::shop::{line, order, payment};
use kit::{Client, Dice, Docket, Reply, knob};
use reqwest::Method;
use serde_json::Value;
use uuid::Uuid;

use crate::disk::Disk;
use crate::history::{Command, Verb};
use crate::house::House;
use crate::judge::{assert_clean, judge_at_any_time};
use crate::kills::rest_and_judge;
use crate::load::World;

/// Room for the file system's own log (64 MiB), a segment, and what is folded from it. The image is sparse.
pub(crate) const IMAGE_BYTES: u64 = 448 << 20;
/// Less than the state store leaves free, more than the read models want.
pub(crate) const SCARCE_BYTES: u64 = 16 << 20;
/// Enough for all but the log's next segment.
const NO_SEGMENT_BYTES: u64 = 48 << 20;
/// Payments that the gateway is asked for again and again while the disk is full: more lines than fit a block.
const PAYMENTS: u64 = 64;
/// Orders placed at once to fill the log.
const AT_ONCE: usize = 16;
/// Commands before the disk is full.
const COMMANDS: usize = 150;
/// How long a full disk may take to be met, or room to be found.
pub(crate) const SEEN_WITHIN: Duration = Duration::from_secs(30);
/// How long whoever asks may wait to be told.
const TOLD_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(10);

fn a_disk() -> Option<Disk> {
    match Disk::make(IMAGE_BYTES) {
        Ok(disk) => Some(disk),
        Err(why) => {
            println!("SKIPPED: no disk can be filled here: {why}");
            None
        }
    }
}

/// A house on this disk with shelves full and some work done.
async fn at_work(disk: &Disk, seed: u64, mut dice: Dice) -> (House, World, Dice, Docket) {
    let (mut house, world) = (House::new(&disk.data()), World::default());
    let docket = house.start().await;
    world.stock_shelves(&docket.client(), &mut dice).await;
    some_work(&mut house, &world, &docket, seed, 0).await;
    (house, world, dice, docket)
}

async fn some_work(house: &mut House, world: &World, docket: &Docket, seed: u64, round: u64) {
    let enough = world.history.len() + COMMANDS;
    let shoppers = world.open(&docket.client(), seed, round, None);
    while world.history.len() < enough {
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
    shoppers.go_home().await;
    house.settle(docket).await;
}

/// An order of `lines` lines, for a log that is to be filled.
pub(crate) fn an_order(lines: usize) -> Value {
    let long =
        |number: usize| line(&format!("a-name-of-sixty-four-characters-so-that-it-fills-the-log-{number:07}"), 1, 1);
    order("c-1", "shop-1", (0..lines).map(long).collect(), None)
}

/// Places orders until one is not taken because of the disk, and checks how that is told; the key and body of that order.
async fn until_full(world: &World, client: &Client, dice: &mut Dice, lines: usize) -> (Uuid, Value) {
    let began = Instant::now();
    while began.elapsed() < SEEN_WITHIN {
        let commands = (0..AT_ONCE).map(|_| Command::new(dice.uuid(), Verb::Place, "/v1/orders", an_order(lines)));
        let sent = futures::future::join_all(commands.map(|command| world.history.send(client, command))).await;
        for (place, _) in sent.into_iter().filter(|(_, reply)| reply.is_none()) {
            let Command { key, body, .. } = world.history.command(place);
            let asked = Instant::now();
            let reply = client.post("/v1/orders", key, &body).await.expect("an answer");
            // What did not fit beside others may fit alone.
            if reply.status != 201 {
                assert!(asked.elapsed() < TOLD_WITHIN, "it took {:?} to say {}", asked.elapsed(), reply.body);
                assert_refused(&reply);
                return (key, body);
            }
        }
    }
    panic!("the disk does not fill");
}

fn assert_refused(reply: &Reply) {
    assert_eq!((reply.status, reply.code()), (503, Some("log-full")), "{}", reply.body);
    assert_eq!(reply.body["outcome"], "unknown", "{}", reply.body);
    let wait = reply.header("retry-after").and_then(|seconds| seconds.parse::<u64>().ok());
    assert!(wait.is_some_and(|seconds| seconds >= 1), "Retry-After is {wait:?}");
}

/// On a full disk everything that was said can be read, and nothing pretends to be well.
async fn assert_readable(world: &World, client: &Client) {
    let placed =
        world.history.commands().into_iter().rev().find(|command| command.verb == Verb::Place && command.is_accepted());
    let placed = placed.expect("an order was placed");
    let id = placed.definite().expect("it was answered").body["order_id"].as_str().expect("an id").to_owned();
    let paths = [
        format!("/v1/orders/{id}"),
        "/v1/orders?limit=5".to_owned(),
        "/v1/stock/shop-1/beans".to_owned(),
        "/v1/stock/shop-1".to_owned(),
        "/v1/events?limit=5".to_owned(),
        "/dev/gateway/ledger".to_owned(),
        "/livez".to_owned(),
    ];
    for path in paths {
        let asked = Instant::now();
        let reply = client.get(&path).await.expect("an answer");
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        assert!(asked.elapsed() < TOLD_WITHIN, "{path} took {:?}", asked.elapsed());
    }
    // The index that history is read by is in the state store: what it could not take any more is told of, not left out.
    let told = client.get(&format!("/v1/streams/order-{id}/events")).await.expect("an answer");
    assert!(told.status == 200 || told.code() == Some("read-model-behind"), "{}", told.body);
}

pub(crate) async fn is_ready(client: &Client) -> bool {
    let ready = client.get("/readyz").await.expect("an answer");
    if ready.status != 200 {
        assert_eq!(ready.status, 503, "{}", ready.text);
        assert!(ready.text.contains("full"), "/readyz does not say why: {}", ready.text);
    }
    ready.status == 200
}

/// How often the gateway was called.
async fn gateway_calls(client: &Client) -> u64 {
    let ledger = client.get("/dev/gateway/ledger").await.expect("an answer");
    ledger.body["items"].as_array().into_iter().flatten().filter_map(|row| row["calls"].as_u64()).sum()
}

async fn until_ready(client: &Client) {
    let began = Instant::now();
    while !is_ready(client).await {
        assert!(began.elapsed() < SEEN_WITHIN, "room was made, and it does not go on");
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}

/// What was refused did nothing: asked again under its key it is done now, for the first time.
async fn assert_did_nothing(client: &Client, (key, body): (Uuid, Value)) {
    let reply = client.post("/v1/orders", key, &body).await.expect("an answer");
    assert_eq!((reply.status, reply.is_replayed()), (201, false), "{}", reply.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_read_from_and_gone_on_from() {
    let _place = crate::beside_another().await;
    let Some(disk) = a_disk() else { return };
    let seed = knob("DOCKET_TEST_SEED", 1);
    let (mut house, world, mut dice, docket) = at_work(&disk, seed ^ 0xF0, Dice::new(seed, &[9])).await;
    let client = docket.client();

    // The gateway goes on writing its books whatever the log does: each call is a line.
    for _ in 0..PAYMENTS {
        let command = Command::new(dice.uuid(), Verb::Authorize, "/v1/payments", payment(4_200, "tok_flaky_6"));
        world.history.send(&client, command.waiting(0)).await.1.expect("it is taken");
    }
    // In the middle of the work; and then not a byte is left.
    let shoppers = world.open(&client, seed ^ 0xF0, 1, None);
    disk.fill(SCARCE_BYTES);
    let refused = until_full(&world, &client, &mut dice, 1).await;
    shoppers.go_home().await;
    assert_readable(&world, &client).await;
    assert!(!is_ready(&client).await);
    disk.fill(0);
    let also_refused = until_full(&world, &client, &mut dice, 1).await;
    let (before, began) = (gateway_calls(&client).await, Instant::now());
    while gateway_calls(&client).await < before + PAYMENTS {
        assert!(began.elapsed() < SEEN_WITHIN, "the gateway is not called on a full disk");
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
    assert_readable(&world, &client).await;
    assert!(!is_ready(&client).await);
    let wait = [("idempotency-key", &*Uuid::now_v7().to_string()), ("prefer", "wait=1")];
    let asked = client.send(Method::POST, "/v1/orders", &wait, Some(&an_order(1))).await.expect("an answer");
    assert_refused(&asked);
    disk.make_room();
    until_ready(&client).await;
    assert_did_nothing(&client, refused).await;
    assert_did_nothing(&client, also_refused).await;
    world.finish_all(&client).await;
    house.heal(&docket).await;
    assert_clean(&judge_at_any_time(&world.history.commands(), &house.follower.told), || docket.printed());
    some_work(&mut house, &world, &docket, seed ^ 0xF0, 2).await;

    // The log's segment is full and the next one does not fit.
    disk.fill(NO_SEGMENT_BYTES);
    let refused = until_full(&world, &client, &mut dice, 200).await;
    assert_readable(&world, &client).await;
    // A second later what is smaller may fit, a claim at the least, and then it is ready for that.
    while is_ready(&client).await {
        until_full(&world, &client, &mut dice, 200).await;
    }
    disk.make_room();
    until_ready(&client).await;
    assert_did_nothing(&client, refused).await;
    let printed = docket.kill9();
    assert!(!printed.contains("panicked"), "docket panicked\n{printed}");
    rest_and_judge(&mut house, &world, &mut dice, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_house_that_dies_on_a_full_disk_says_what_it_needs_and_loses_nothing() {
    let _place = crate::beside_another().await;
    let Some(disk) = a_disk() else { return };
    let seed = knob("DOCKET_TEST_SEED", 1);
    let (mut house, world, mut dice, docket) = at_work(&disk, seed ^ 0xF1, Dice::new(seed, &[10])).await;
    let shoppers = world.open(&docket.client(), seed ^ 0xF1, 1, None);
    disk.fill(0);
    let refused = until_full(&world, &docket.client(), &mut dice, 1).await;
    let printed = docket.kill9();
    assert!(!printed.contains("panicked"), "docket panicked\n{printed}");
    shoppers.go_home().await;
    let fault = Docket::try_start(&house.data, &[]).await.expect_err("there is no room for a claim");
    assert!(fault.what.contains("exit status: 1"), "{fault}");
    assert!(!fault.printed.contains("panicked"), "{fault}");
    assert!(
        ["full", "room", "No space"].iter().any(|word| fault.printed.contains(word)),
        "it does not say why: {fault}"
    );
    disk.make_room();
    let docket = house.start().await;
    house.settle(&docket).await;
    assert_did_nothing(&docket.client(), refused).await;
    docket.terminate().await;
    rest_and_judge(&mut house, &world, &mut dice, 0).await;
}
