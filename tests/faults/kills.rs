//! `kill -9` under load, again and again, on one data directory: nothing acknowledged is lost, nothing is done twice, and
//! whoever comes back finds a house that has finished what was begun.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use kit::{Dice, knob};

use crate::history::Command;
use crate::house::{House, spread};
use crate::judge::{assert_clean, judge, judge_at_any_time, never_rewritten};
use crate::load::{Activity, World, assert_busy, named_in};

/// How many kills the tests do; `cargo xtask soak` does thousands.
const KILLS: u64 = 100;
/// How long the load runs before each kill, in milliseconds.
const LOAD_MS: (u64, u64) = (50, 400);
/// In so many of a hundred lives the load begins at once and the kill falls into the recovery of the one before.
const KILLED_RECOVERING_PERCENT: u64 = 25;
/// Every so many kills what happened so far is judged.
const JUDGED_EVERY: u64 = 10;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_or_doubled_by_kill_9_under_load() {
    let _alone = crate::one_at_a_time().await;
    let (kills, seed) = (knob("DOCKET_TEST_KILLS", KILLS), knob("DOCKET_TEST_SEED", 1));
    let data = tempfile::tempdir().expect("a scratch directory");
    let (mut house, world, mut dice) = (House::new(data.path()), World::default(), Dice::new(seed, &[0]));
    let began = Instant::now();
    let mut recovering = 0;
    for kill in 0..kills {
        let docket = house.start().await;
        let client = docket.client();
        if kill == 0 {
            world.stock_shelves(&client, &mut dice).await;
        }
        if kill > 0 && dice.percent(KILLED_RECOVERING_PERCENT) {
            recovering += 1;
        } else {
            house.settle(&docket).await;
        }
        if kill % JUDGED_EVERY == 0 {
            house.follower.catch_up(&client).await;
            let history = world.history.commands();
            assert_clean(&judge_at_any_time(&history, &house.follower.told), || docket.printed());
            assert_eq!(world.history.findings(), Vec::<String>::new(), "seed {seed}, after {kill} kills");
            println!(
                "kills: {kill} of {kills} in {:.0} s; {} commands, {} events; ready {}; settled {}",
                began.elapsed().as_secs_f64(),
                history.len(),
                house.follower.seen.len(),
                spread(&house.ready),
                spread(&house.settled)
            );
        }
        let shoppers = world.open(&client, seed, kill, None);
        tokio::time::sleep(Duration::from_millis(dice.between(LOAD_MS.0, LOAD_MS.1))).await;
        let printed = docket.kill9();
        assert!(!printed.contains("panicked"), "seed {seed}, kill {kill}: docket panicked\n{printed}");
        shoppers.go_home().await;
    }
    let history = rest_and_judge(&mut house, &world, &mut dice, usize::try_from(kills).expect("some kills")).await;
    println!(
        "kills: {kills} kills ({recovering} while recovering) in {:.0} s with seed {seed}: {:?}; ready {}; settled {}",
        began.elapsed().as_secs_f64(),
        Activity::of(&history),
        spread(&house.ready),
        spread(&house.settled)
    );
}

/// Brings the house to rest, asks for everything that is unknown, heals the gateway, stops gently and starts once more,
/// and judges all of it.
pub(crate) async fn rest_and_judge(house: &mut House, world: &World, dice: &mut Dice, faults: usize) -> Vec<Command> {
    rest_and_judge_in(&[], house, world, dice, faults).await
}

/// The same, with this in the environment of both lives.
pub(crate) async fn rest_and_judge_in(
    environment: &[(&str, PathBuf)],
    house: &mut House,
    world: &World,
    dice: &mut Dice,
    faults: usize,
) -> Vec<Command> {
    const ASKED_AGAIN: usize = 300;
    let docket = house.start_in(environment).await;
    house.settle(&docket).await;
    let client = docket.client();
    world.finish_all(&client).await;
    world.ask_again(&client, dice, ASKED_AGAIN).await;
    house.heal(&docket).await;
    // Reservations with an end run out; none lasts longer than 3 s but those of a quarter of an hour.
    house.wait_expired(&docket, &world.history.commands()).await;
    docket.terminate().await;
    let docket = house.start_in(environment).await;
    let client = docket.client();
    // What was answered before is answered now.
    world.ask_again(&client, dice, ASKED_AGAIN).await;
    house.follower.catch_up(&client).await;
    let mut evidence = house.evidence(&client).await;
    evidence.history = world.history.commands();
    let mut findings = judge(&evidence);
    findings.extend(never_rewritten(&house.follower.seen, &evidence.events));
    assert_clean(&findings, || format!("{}\n{}", named_in(&findings, &evidence.history), docket.printed()));
    assert_eq!(world.history.findings(), Vec::<String>::new());
    assert_busy(&evidence.history, &evidence.events, faults);
    house.assert_prompt();
    docket.terminate().await;
    evidence.history
}
