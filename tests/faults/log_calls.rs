//! The log's disk goes wrong under the real binary, call by call: what is only slow or in pieces is no fault, what has no
//! room passes by itself, and what the disk fails to write or to flush stops the writer for good. Then nothing more is
//! said yes to, reads go on, and whoever looks is told why and what to do.

use std::time::{Duration, Instant};

use kit::shop::{line, order};
use kit::{Client, Dice, Docket, knob};
use rustix::io::Errno;
use serde_json::Value;
use uuid::Uuid;

use crate::house::House;
use crate::kills::rest_and_judge;
use crate::load::World;
use crate::preload::{Calls, Faults, Wrong};

/// The log's files, among all that a process has open.
const SEGMENTS: &str = ".segment";
/// Commands in each part of a story.
const COMMANDS: usize = 60;
/// How often what is no fault happens.
const TIMES: u32 = 30;
/// How long the house may take to see something, or to go on.
const SEEN_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// Sends commands until there are so many more, all shoppers at once.
pub(crate) async fn work(world: &World, client: &Client, seed: u64, round: u64, commands: usize) {
    let (began, enough) = (Instant::now(), world.history.len() + commands);
    let shoppers = world.open(client, seed, round, None);
    while world.history.len() < enough {
        assert!(began.elapsed() < SEEN_WITHIN, "nobody can do anything");
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
    shoppers.go_home().await;
}

/// Waits until it is ready, or is not; what it says.
pub(crate) async fn until_ready(client: &Client, is_ready: bool) -> String {
    let began = Instant::now();
    loop {
        // A connection that was left alone too long may have been closed; the next one is not.
        let reply = client.get("/readyz").await;
        if let Some(reply) = &reply
            && (reply.status == 200) == is_ready
        {
            return reply.text.clone();
        }
        assert!(began.elapsed() < SEEN_WITHIN, "/readyz stays so: {reply:?}");
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}

/// An order like any other.
pub(crate) fn an_order() -> Value {
    order("c-1", "shop-1", vec![line("beans", 1, 500)], None)
}

/// After this the writer has stopped: that is told to everybody, and reads go on.
async fn assert_stopped(client: &Client, why: &str) {
    let said = until_ready(client, false).await;
    assert!(said.contains("stopped") && said.contains(why), "/readyz does not say why: {said}");
    for _ in 0..3 {
        let reply = client.post("/v1/orders", Uuid::now_v7(), &an_order()).await.expect("an answer");
        assert_eq!((reply.status, reply.code()), (503, Some("log-stopped")), "{}", reply.body);
        assert_eq!(reply.body["outcome"], "unknown", "{}", reply.body);
    }
    for path in ["/livez", "/v1/orders?limit=5", "/v1/stock/shop-1/beans", "/v1/events?limit=5"] {
        let reply = client.get(path).await.expect("an answer");
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
    }
}

/// It ends when asked to, and says that it did not end well, why, and what to do.
async fn assert_ends_badly(mut docket: Docket, why: &str) {
    docket.ask_to_stop();
    let status = docket.ended().await;
    let printed = docket.printed();
    assert_eq!(status.code(), Some(1), "{printed}");
    assert!(!printed.contains("panicked"), "docket panicked\n{printed}");
    let error = printed.split("error:").last().unwrap_or_default();
    assert!(error.contains(why) && error.contains("next:"), "it does not say why, or what to do: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_fails_once_is_the_last_one_and_nothing_more_is_acknowledged() {
    let _place = crate::beside_another().await;
    let seed = knob("DOCKET_TEST_SEED", 1);
    let (data, faults) = (tempfile::tempdir().expect("a scratch directory"), Faults::new());
    let (mut house, world, mut dice) = (House::new(data.path()), World::default(), Dice::new(seed, &[20]));
    let docket = house.start_in(&faults.environment()).await;
    let client = docket.client();
    world.stock_shelves(&client, &mut dice).await;
    work(&world, &client, seed, 1, COMMANDS).await;
    let shoppers = world.open(&client, seed, 2, None);
    let rule = faults.arm(Calls::Flushes, SEGMENTS, Wrong::Error(Errno::IO), 3, 1);
    faults.until_fired(rule, 1).await;
    shoppers.go_home().await;
    // The disk says that it is well again, and is not believed.
    assert_stopped(&client, "cannot flush").await;
    assert_ends_badly(docket, "cannot flush").await;
    assert_eq!(faults.lift(rule), 1);
    rest_and_judge(&mut house, &world, &mut dice, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_and_interruptions_are_no_faults_no_room_passes_and_a_failed_write_stops_the_log() {
    let _place = crate::beside_another().await;
    let seed = knob("DOCKET_TEST_SEED", 1);
    let (data, faults) = (tempfile::tempdir().expect("a scratch directory"), Faults::new());
    let (mut house, world, mut dice) = (House::new(data.path()), World::default(), Dice::new(seed, &[21]));
    let docket = house.start_in(&faults.environment()).await;
    let client = docket.client();
    world.stock_shelves(&client, &mut dice).await;

    let unknown = |world: &World| world.history.commands().iter().filter(|it| it.definite().is_none()).count();
    let before = unknown(&world);
    let harmless = [
        (Calls::Writes, Wrong::Half),
        (Calls::Writes, Wrong::Error(Errno::INTR)),
        (Calls::Flushes, Wrong::Error(Errno::INTR)),
    ];
    for (round, (calls, wrong)) in (0..).zip(harmless) {
        let rule = faults.arm(calls, SEGMENTS, wrong, 0, TIMES);
        while faults.fired(rule) < TIMES {
            work(&world, &client, seed, 10 + round, COMMANDS).await;
        }
        faults.lift(rule);
    }
    assert_eq!(unknown(&world), before, "pieces or interruptions were taken for faults");

    // A write that finds no room, of which nothing is left: told, and gone on from within seconds, by itself.
    for round in 0..3 {
        let shoppers = world.open(&client, seed, 20 + round, Some(Duration::from_millis(5)));
        let rule = faults.arm(Calls::Writes, SEGMENTS, Wrong::Error(Errno::NOSPC), 2, 1);
        faults.until_fired(rule, 1).await;
        shoppers.go_home().await;
        faults.lift(rule);
        until_ready(&client, true).await;
        let reply = client.post("/v1/orders", Uuid::now_v7(), &an_order()).await.expect("an answer");
        assert_eq!(reply.status, 201, "{}", reply.body);
    }
    let full = world.history.commands().iter().any(|command| {
        command.answers.iter().any(|it| matches!(it, crate::history::Answer::Unknown(why) if why.contains("log-full")))
    });
    assert!(full, "nobody was told that the log is full");

    let shoppers = world.open(&client, seed, 30, None);
    let rule = faults.arm(Calls::Writes, SEGMENTS, Wrong::Error(Errno::IO), 2, 1);
    faults.until_fired(rule, 1).await;
    shoppers.go_home().await;
    assert_stopped(&client, "cannot write").await;
    assert_ends_badly(docket, "cannot write").await;
    faults.lift(rule);
    rest_and_judge(&mut house, &world, &mut dice, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_read_is_refused_or_told_and_is_well_when_the_disk_is() {
    let _place = crate::beside_another().await;
    let seed = knob("DOCKET_TEST_SEED", 1);
    let (data, faults) = (tempfile::tempdir().expect("a scratch directory"), Faults::new());
    let (mut house, world, mut dice) = (House::new(data.path()), World::default(), Dice::new(seed, &[36]));
    let docket = house.start().await;
    world.stock_shelves(&docket.client(), &mut dice).await;
    work(&world, &docket.client(), seed ^ 0x67, 0, COMMANDS).await;
    docket.kill9();
    // Pieces are no fault here either.
    let rule = faults.arm(Calls::Reads, SEGMENTS, Wrong::Half, 0, TIMES);
    house.start_in(&faults.environment()).await.terminate().await;
    assert_eq!(faults.lift(rule), TIMES);

    let rule = faults.arm(Calls::Reads, SEGMENTS, Wrong::Error(Errno::IO), 0, crate::preload::ALWAYS);
    let refused = Docket::try_start_in(&faults.environment(), data.path(), &[]).await;
    let fault = refused.expect_err("a log that cannot be read is not served");
    assert!(faults.lift(rule) > 0);
    assert!(fault.what.contains("exit status: 1"), "{fault}");
    assert!(fault.printed.contains(SEGMENTS) && !fault.printed.contains("panicked"), "the file is not named: {fault}");

    let docket = house.start_in(&faults.environment()).await;
    let client = docket.client();
    let rule = faults.arm(Calls::Reads, SEGMENTS, Wrong::Error(Errno::IO), 0, crate::preload::ALWAYS);
    let reply = client.get("/v1/events?limit=500").await.expect("an answer");
    let fired = faults.lift(rule);
    // What is in memory needs no disk.
    assert!(fired == 0 || (reply.status >= 500 && reply.code().is_some()), "{} {}", reply.status, reply.body);
    house.follower.catch_up(&client).await;
    let printed = docket.kill9();
    assert!(!printed.contains("panicked"), "docket panicked\n{printed}");
    assert!(fired > 0, "nothing was read from the disk");
    rest_and_judge(&mut house, &world, &mut dice, 0).await;
}
