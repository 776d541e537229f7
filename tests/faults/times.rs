//! Time goes wrong: the process stands still for a minute while the world goes on, and the wall clock jumps an hour ahead
//! and back. Timers fire once and not again, ids are remembered, what was answered is answered, versions and times in the
//! log never go back, and nothing that was promised is broken.

use std::time::{Duration, Instant};

use kit::shop::reservation;
use kit::{Dice, knob};
use serde_json::Value;
use uuid::Uuid;

use crate::history::what_is_promised;
use crate::house::House;
use crate::judge::{assert_clean, judge_at_any_time};
use crate::kills::{rest_and_judge, rest_and_judge_in};
use crate::load::World;
use crate::log_calls::{until_ready, work};
use crate::preload::Faults;

/// How long it stands still.
const STANDSTILL: Duration = Duration::from_secs(60);
/// Commands between two jumps.
const COMMANDS: usize = 60;
/// Where the clock stands, one after the other: ahead, back, behind, and far enough ahead that everything is due.
const JUMPS_SECONDS: [i64; 4] = [3_600, 0, -3_600, 7_500];
/// How long what is due may take.
const SEEN_WITHIN: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn after_a_minute_of_standstill_everything_due_happens_once() {
    let alone = crate::one_at_a_time().await;
    let seed = knob("DOCKET_TEST_SEED", 1);
    let data = tempfile::tempdir().expect("a scratch directory");
    let (mut house, world, mut dice) = (House::new(data.path()), World::default(), Dice::new(seed, &[30]));
    let docket = house.start().await;
    let client = docket.client();
    world.stock_shelves(&client, &mut dice).await;
    work(&world, &client, seed ^ 0x62, 0, COMMANDS).await;
    // In the middle of the work: what is under way stays so.
    let before = world.history.len();
    let shoppers = world.open(&client, seed ^ 0x62, 1, None);
    while world.history.len() < before + COMMANDS {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    docket.pause();
    // It needs nothing meanwhile: others may go on.
    drop(alone);
    tokio::time::sleep(STANDSTILL).await;
    let _alone = crate::one_at_a_time().await;
    docket.resume();
    shoppers.go_home().await;
    until_ready(&client, true).await;
    house.settle(&docket).await;
    assert_clean(&judge_at_any_time(&world.history.commands(), &house.follower.told), || docket.printed());
    work(&world, &client, seed ^ 0x62, 2, COMMANDS).await;
    let printed = docket.terminate().await;
    assert!(!printed.contains("panicked"), "docket panicked\n{printed}");
    rest_and_judge(&mut house, &world, &mut dice, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_an_hour_either_way_breaks_no_promise() {
    let _alone = crate::one_at_a_time().await;
    let seed = knob("DOCKET_TEST_SEED", 1);
    let (data, faults) = (tempfile::tempdir().expect("a scratch directory"), Faults::new());
    let (mut house, world, mut dice) = (House::new(data.path()), World::default(), Dice::new(seed, &[31]));
    let docket = house.start_in(&faults.environment()).await;
    let client = docket.client();
    world.stock_shelves(&client, &mut dice).await;
    // For a quarter of an hour: over after the first jump, and never again.
    let key = Uuid::now_v7();
    let path = "/v1/stock/shop-1/reservations";
    let body = reservation(&[("beans", 2)], Some(900));
    let made = client.post(path, key, &body).await.expect("an answer");
    assert_eq!(made.status, 201, "{}", made.body);
    let shown_at = format!("{path}/{}", made.body["reservation_id"].as_str().expect("an id"));
    work(&world, &client, seed ^ 0x63, 0, COMMANDS).await;
    let looked = faults.looks_at_clock();
    for (round, seconds) in (1..).zip(JUMPS_SECONDS) {
        let shoppers = world.open(&client, seed ^ 0x63, 10 + round, Some(Duration::from_millis(5)));
        faults.set_clock(seconds);
        work(&world, &client, seed ^ 0x63, round, COMMANDS).await;
        shoppers.go_home().await;
        let began = Instant::now();
        loop {
            let shown = client.get(&shown_at).await.expect("an answer");
            if shown.body["status"] == "expired" {
                assert_eq!(shown.body["version"], Value::from(2), "it expired more than once: {}", shown.body);
                break;
            }
            assert!(began.elapsed() < SEEN_WITHIN, "an hour later: {}", shown.body);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // The same answer as before all jumps.
        let again = client.post(path, key, &body).await.expect("an answer");
        assert_eq!(what_is_promised(&again), what_is_promised(&made));
        assert!(again.is_replayed());
        world.ask_again(&client, &mut dice, COMMANDS).await;
        house.follower.catch_up(&client).await;
        assert_clean(&judge_at_any_time(&world.history.commands(), &house.follower.told), || docket.printed());
    }
    assert!(faults.looks_at_clock() > looked + COMMANDS as u64, "nobody looked at the clock");
    // Times never go back within a partition.
    let mut last = std::collections::BTreeMap::<String, String>::new();
    for event in &house.follower.seen {
        let partition = event["position"].as_str().and_then(|it| it.split(':').next()).expect("a position").to_owned();
        let time = event["recorded_at"].as_str().expect("a time").to_owned();
        let before = last.insert(partition, time.clone());
        assert!(before.as_ref().is_none_or(|before| *before <= time), "{before:?} before {event}");
    }
    assert!(last.len() > 1, "nothing was recorded");
    house.settle(&docket).await;
    let printed = docket.kill9();
    assert!(!printed.contains("panicked"), "docket panicked\n{printed}");
    rest_and_judge_in(&faults.environment(), &mut house, &world, &mut dice, 0).await;
}
