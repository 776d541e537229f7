//! The state store's tables: sorted files that the database writes in the background, after the batch that filled its memory
//! was answered, and reads whenever something is looked up that is not at hand. A disk that fails there fails nobody's call,
//! or a reader's only; and neither may show as a wrong answer.

use std::path::Path;
use std::time::Instant;

use kit::{Client, Dice, Docket, Reply, knob};
use rustix::io::Errno;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::disk::Disk;
use crate::full::{IMAGE_BYTES, SCARCE_BYTES, SEEN_WITHIN, an_order as a_large_order, is_ready};
use crate::history::{Command, Verb};
use crate::house::House;
use crate::judge::{assert_clean, judge_at_any_time};
use crate::kills::rest_and_judge;
use crate::load::World;
use crate::log_calls::{an_order, until_ready};
use crate::opening::{BEANS, a_long_log, receive};
use crate::preload::{ALWAYS, Calls, Faults, Rule, Wrong};

/// The state store's files, among all that a process has open.
const STATES: &str = "/state/db/";
/// Its tables among them.
const TABLES: &str = "/tables/";
/// Lines of an order: a hundred of them fill a memory table.
const LINES: usize = 200;
/// Orders placed at once.
const AT_ONCE: usize = 16;
/// Most of them that are placed to have a table written.
const ORDERS_MAX: usize = 2_000;
/// Reads that go well before one fails, at one start after another.
const STEP: u32 = 7;

/// Places large orders until the memory tables are full, and a table is being written in the background.
async fn until_a_table_is_written(world: &World, client: &Client, dice: &mut Dice, faults: &Faults, rule: Rule) {
    let enough = world.history.len() + ORDERS_MAX;
    while faults.fired(rule) == 0 {
        assert!(world.history.len() < enough, "no table is written");
        let orders = (0..AT_ONCE).map(|_| Command::new(dice.uuid(), Verb::Place, "/v1/orders", a_large_order(LINES)));
        futures::future::join_all(orders.map(|order| world.history.send(client, order))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_be_written_in_the_background_puts_the_node_out_of_service_until_the_next_start() {
    let _alone = crate::one_at_a_time().await;
    let seed = knob("DOCKET_TEST_SEED", 1);
    for (number, calls) in [(0, Calls::Writes), (1, Calls::Flushes)] {
        let (data, faults) = (tempfile::tempdir().expect("a scratch directory"), Faults::new());
        let (mut house, world, mut dice) = (House::new(data.path()), World::default(), Dice::new(seed, &[42, number]));
        let docket = house.start_in(&faults.environment()).await;
        let client = docket.client();
        world.stock_shelves(&client, &mut dice).await;
        let rule = faults.arm(calls, TABLES, Wrong::Error(Errno::IO), 0, 1);
        until_a_table_is_written(&world, &client, &mut dice, &faults, rule).await;
        // The next save hears of it.
        world.history.send(&client, Command::new(dice.uuid(), Verb::Place, "/v1/orders", an_order())).await;
        let said = until_ready(&client, false).await;
        assert!(said.contains("state store"), "/readyz does not say why: {said}");
        let reply = client.post("/v1/orders", Uuid::now_v7(), &an_order()).await.expect("an answer");
        assert_eq!((reply.status, reply.body["outcome"].as_str()), (503, Some("unknown")), "{}", reply.body);
        let told = client.get("/v1/orders?limit=5").await.expect("an answer");
        assert_eq!(told.status, 200, "what is there cannot be read: {}", told.body);
        assert_eq!(faults.lift(rule), 1);
        let printed = docket.terminate().await;
        assert!(printed.contains("state-store-failed") && !printed.contains("panicked"), "{printed}");
        let docket = house.start().await;
        assert!(docket.printed().contains("folded afresh"), "it was taken for good\n{}", docket.printed());
        docket.kill9();
        rest_and_judge(&mut house, &world, &mut dice, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_finds_no_room_in_the_background_is_written_when_there_is_some() {
    let _alone = crate::one_at_a_time().await;
    let disk = match Disk::make(IMAGE_BYTES) {
        Ok(disk) => disk,
        Err(why) => return println!("SKIPPED: no disk can be filled here: {why}"),
    };
    let (seed, faults) = (knob("DOCKET_TEST_SEED", 1), Faults::new());
    let (mut house, world, mut dice) = (House::new(&disk.data()), World::default(), Dice::new(seed, &[43]));
    let docket = house.start_in(&faults.environment()).await;
    let client = docket.client();
    world.stock_shelves(&client, &mut dice).await;
    // It begins while there is room; when it goes on there is none.
    let held = faults.arm(Calls::Writes, TABLES, Wrong::Wait, 0, ALWAYS);
    until_a_table_is_written(&world, &client, &mut dice, &faults, held).await;
    let began = Instant::now();
    while is_ready(&client).await {
        assert!(began.elapsed() < SEEN_WITHIN, "nobody sees that there is no room");
        // Again: what others give back is room too.
        disk.fill(SCARCE_BYTES);
        world.history.send(&client, Command::new(dice.uuid(), Verb::Place, "/v1/orders", an_order())).await;
    }
    let none = faults.arm(Calls::Writes, TABLES, Wrong::Error(Errno::NOSPC), 0, 1);
    faults.lift(held);
    faults.until_fired(none, 1).await;
    // Nobody has tried to save since: there is room before the database is asked again.
    disk.make_room();
    faults.lift(none);
    until_ready(&client, true).await;
    let enough = world.history.len() + AT_ONCE;
    while world.history.len() < enough {
        let order = Command::new(dice.uuid(), Verb::Place, "/v1/orders", an_order());
        let reply = world.history.send(&client, order).await.1.expect("an answer");
        assert_eq!(reply.status, 201, "{}", reply.body);
    }
    world.finish_all(&client).await;
    house.settle(&docket).await;
    assert_clean(&judge_at_any_time(&world.history.commands(), &house.follower.told), || docket.printed());
    let printed = docket.terminate().await;
    assert!(printed.contains("the state store goes on"), "it went on without being opened again\n{printed}");
    assert!(!printed.contains("folded afresh") && !printed.contains("panicked"), "{printed}");
    let docket = house.start().await;
    assert!(!docket.printed().contains("folded afresh"), "{}", docket.printed());
    docket.kill9();
    rest_and_judge(&mut house, &world, &mut dice, 0).await;
}

/// A closed house whose states lie in tables; the version of its stream of beans.
async fn in_tables(data: &Path) -> u64 {
    let version = a_long_log(data).await;
    Docket::start(data, &[]).await.terminate().await;
    version
}

/// Right, or a fault with a code.
fn assert_not_wrong(reply: &Reply, is_right: bool) {
    assert!(is_right || (reply.status >= 500 && reply.code().is_some()), "{} {}", reply.status, reply.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_store_that_cannot_be_read_while_it_serves_is_told_and_never_wrong() {
    let _alone = crate::one_at_a_time().await;
    let (data, faults) = (tempfile::tempdir().expect("a scratch directory"), Faults::new());
    let version = in_tables(data.path()).await;
    let docket = Docket::try_start_in(&faults.environment(), data.path(), &[]).await;
    let docket = docket.unwrap_or_else(|fault| panic!("{fault}"));
    let client = docket.client();
    let rule = faults.arm(Calls::Reads, STATES, Wrong::Error(Errno::IO), 0, ALWAYS);
    let key = Uuid::now_v7();
    let reply = receive(&client, key).await;
    assert_eq!((reply.status, reply.body["outcome"].as_str()), (503, Some("unknown")), "{}", reply.body);
    let from = version - 2;
    let events = format!("/v1/streams/stock-shop-1~beans/events?from_version={from}");
    let told = client.get(&events).await.expect("an answer");
    assert_not_wrong(&told, told.status == 200 && told.body["items"].as_array().is_some_and(|it| it.len() == 3));
    let told = client.get(&format!("/v1/commands/{key}")).await.expect("an answer");
    assert_not_wrong(&told, told.code() == Some("command-not-found"));
    let told = client.get("/v1/streams?prefix=stock-shop-1~beans&limit=1").await.expect("an answer");
    assert_not_wrong(&told, told.status == 200 && told.body["items"][0]["version"] == version);
    // Rows are no states.
    assert_eq!(client.get(BEANS).await.expect("an answer").status, 200);
    assert!(faults.lift(rule) > 0, "nothing was read from the disk");

    // It goes on, or says that it does not: what was asked is done once.
    let reply = receive(&client, key).await;
    assert_not_wrong(&reply, reply.status == 200 && reply.body["version"] == version + 1);
    let printed = docket.kill9();
    assert!(printed.contains("state-store-unreadable") && !printed.contains("panicked"), "{printed}");
    let docket = Docket::start(data.path(), &[]).await;
    assert!(docket.printed().contains("folded afresh"), "it was taken for good\n{}", docket.printed());
    let reply = receive(&docket.client(), key).await;
    assert_eq!((reply.status, &reply.body["version"]), (200, &Value::from(version + 1)), "{}", reply.body);
    docket.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_store_that_cannot_be_read_at_the_start_is_refused_or_folded_afresh() {
    let _alone = crate::one_at_a_time().await;
    let (data, faults) = (tempfile::tempdir().expect("a scratch directory"), Faults::new());
    let mut version = in_tables(data.path()).await;
    let (mut pass, mut refused) = (0, 0);
    loop {
        let rule = faults.arm(Calls::Reads, STATES, Wrong::Error(Errno::IO), pass, ALWAYS);
        let started = Docket::try_start_in(&faults.environment(), data.path(), &[]).await;
        let fired = faults.lift(rule);
        match started {
            Ok(docket) => {
                let printed = docket.kill9();
                assert!(!printed.contains("panicked"), "{printed}");
            }
            Err(fault) => {
                refused += 1;
                assert!(fault.what.contains("exit status: 1"), "{fault}");
                assert!(fault.printed.contains("state store") && fault.printed.contains("next:"), "what now? {fault}");
                assert!(!fault.printed.contains("thread 'main' panicked"), "{fault}");
            }
        }
        // The disk is well: nothing is missed.
        let docket = Docket::start(data.path(), &[]).await;
        let reply = receive(&docket.client(), Uuid::now_v7()).await;
        version += 1;
        assert_eq!((reply.status, &reply.body["version"]), (200, &json!(version)), "{}", reply.body);
        docket.terminate().await;
        if fired == 0 {
            break;
        }
        pass = pass * 2 + STEP;
    }
    assert!(refused > 0, "no start met the fault");
}
