//! Killed again while it gets up: at a write or a flush that is drawn, in the recovery of the log, while the state store or
//! the read models are folded afresh, several times one inside the other. Whatever was half done then is done again, and
//! nothing that was acknowledged before is missed.

use std::fs;
use std::path::Path;

use kit::{Dice, Docket, knob};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::forge;
use crate::house::House;
use crate::judge::{assert_clean, judge_at_any_time};
use crate::kills::rest_and_judge;
use crate::load::World;
use crate::log_calls::work;
use crate::preload::{Calls, Faults, Wrong};

/// Lives that begin in trouble.
const ROUNDS: u64 = 6;
/// Kills one inside the other before each of them.
const NESTED: u64 = 4;
/// Commands of each life.
const COMMANDS: usize = 60;

/// Records of a log whose states are folded afresh on all cores, past the journal: that begins at 20,000.
const RECORDS: usize = 24_000;

fn remove_rows(data: &Path) {
    for name in ["views.db", "views.db-wal", "views.db-shm"] {
        // A life that was killed early may not have made it.
        let _ = fs::remove_file(data.join(name));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_recovery_and_in_rebuild_again_and_again_it_loses_nothing() {
    let _alone = crate::one_at_a_time().await;
    let seed = knob("DOCKET_TEST_SEED", 1);
    let (data, faults) = (tempfile::tempdir().expect("a scratch directory"), Faults::new());
    let (mut house, world, mut dice) = (House::new(data.path()), World::default(), Dice::new(seed, &[29]));
    // The directory's own name: every file of the house, and no pipe or socket.
    let ours = data.path().file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
    let environment = faults.environment();
    // How many calls a whole start makes, to draw from.
    let mut calls = 40;
    let mut killed = 0;
    for round in 0..ROUNDS {
        let docket = house.start_in(&environment).await;
        let client = docket.client();
        if round == 0 {
            world.stock_shelves(&client, &mut dice).await;
        }
        house.settle(&docket).await;
        assert_clean(&judge_at_any_time(&world.history.commands(), &house.follower.told), || docket.printed());
        work(&world, &client, seed ^ 0x61, round, COMMANDS).await;
        docket.kill9();
        for nested in 0..NESTED {
            // Nothing, states, rows, both.
            if (round % 4) & 1 == 1 && nested < 2 {
                let _ = fs::remove_dir_all(data.path().join("state"));
            }
            if (round % 4) & 2 == 2 && nested < 2 {
                remove_rows(data.path());
            }
            let pass = u32::try_from(dice.between(0, calls)).expect("small");
            let rule = faults.arm(Calls::Changes, &ours, Wrong::Kill, pass, 1);
            let started = Docket::try_start_in(&environment, &house.data, &[]).await;
            match started {
                Ok(docket) => drop(docket.kill9()),
                Err(fault) => assert!(fault.what.contains("signal: 9"), "seed {seed}, round {round}: {fault}"),
            }
            calls = u64::from(faults.seen(rule)).max(calls / 2).max(8);
            killed += u64::from(faults.lift(rule));
        }
    }
    assert!(killed >= ROUNDS * NESTED / 2, "only {killed} kills fell into a recovery");
    rest_and_judge(&mut house, &world, &mut dice, 0).await;
    println!("recovering: {killed} kills inside of {} recoveries", ROUNDS * NESTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_a_large_log_is_folded_afresh_it_ends_with_the_same_states() {
    let _alone = crate::one_at_a_time().await;
    let seed = knob("DOCKET_TEST_SEED", 1);
    let (data, faults) = (tempfile::tempdir().expect("a scratch directory"), Faults::new());
    let (mut house, world, mut dice) = (House::new(data.path()), World::default(), Dice::new(seed, &[37]));
    let docket = house.start().await;
    world.stock_shelves(&docket.client(), &mut dice).await;
    let receive = |client: kit::Client| async move {
        let path = "/v1/stock/shop-1/beans/receive";
        client.post(path, Uuid::now_v7(), &json!({"quantity": 1})).await.expect("an answer")
    };
    assert_eq!(receive(docket.client()).await.status, 200);
    house.follower.catch_up(&docket.client()).await;
    let stream = "stock-shop-1~beans";
    let partition = house.follower.told.stream(stream).next().expect("it is in the log").position.0;
    docket.terminate().await;
    let version = forge::add(data.path(), partition, stream, |newest| vec![vec![newest.clone()]; RECORDS]);

    let (environment, words) = (faults.environment(), "/state/");
    let (mut calls, mut killed) = (20, 0);
    for _ in 0..NESTED {
        let _ = fs::remove_dir_all(data.path().join("state"));
        for _ in 0..2 {
            let pass = u32::try_from(dice.between(0, calls)).expect("small");
            let rule = faults.arm(Calls::Changes, words, Wrong::Kill, pass, 1);
            match Docket::try_start_in(&environment, &house.data, &[]).await {
                Ok(docket) => drop(docket.kill9()),
                Err(fault) => assert!(fault.what.contains("signal: 9"), "seed {seed}: {fault}"),
            }
            calls = u64::from(faults.seen(rule)).max(calls / 2).max(8);
            killed += faults.lift(rule);
        }
    }
    assert!(u64::from(killed) >= NESTED, "only {killed} kills fell into a rebuild");
    let started = Docket::try_start_in(&environment, &house.data, &[]).await;
    let docket = started.unwrap_or_else(|fault| panic!("{fault}"));
    let reply = receive(docket.client()).await;
    assert_eq!((reply.status, &reply.body["version"]), (200, &Value::from(version + 1)), "{}", reply.body);
    let row = docket.client().get_with("/v1/stock/shop-1/beans", &[("prefer", "wait=30")]).await;
    let shown = row.expect("an answer");
    assert_eq!(shown.body["on_hand"], Value::from(200_002 + RECORDS), "{}", shown.body);
    docket.terminate().await;
}
