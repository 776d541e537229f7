//! Killed again while it gets up: at a write or a flush that is drawn, in the recovery of the log, while the state store or
//! the read models are folded afresh, several times one inside the other. Whatever was half done then is done again, and
//! nothing that was acknowledged before is missed.

use std::fs;
use std::path::Path;

use kit::{Dice, Docket, knob};

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
            if round % 4 & 1 == 1 && nested < 2 {
                let _ = fs::remove_dir_all(data.path().join("state"));
            }
            if round % 4 & 2 == 2 && nested < 2 {
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
