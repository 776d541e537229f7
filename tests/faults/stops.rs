//! SIGTERM under load: what was taken is answered, then the house closes with exit code 0, and the next life begins where
//! it ended. Nobody is left with a command that was carried out and never answered.

use std::time::Duration;

use kit::{Dice, knob};

use crate::history::Answer;
use crate::house::{House, spread};
use crate::kills::rest_and_judge;
use crate::load::{Activity, World};

/// How often it is stopped.
const STOPS: u64 = 10;
/// How long the load runs before each stop, in milliseconds.
const LOAD_MS: (u64, u64) = (100, 500);

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_load_answers_all_that_it_took() {
    let _alone = crate::one_at_a_time().await;
    let seed = knob("DOCKET_TEST_SEED", 1);
    let data = tempfile::tempdir().expect("a scratch directory");
    let (mut house, world, mut dice) = (House::new(data.path()), World::default(), Dice::new(seed, &[8]));
    for stop in 0..STOPS {
        let docket = house.start().await;
        let client = docket.client();
        if stop == 0 {
            world.stock_shelves(&client, &mut dice).await;
        }
        house.settle(&docket).await;
        let shoppers = world.open(&client, seed ^ 0x57, stop, None);
        tokio::time::sleep(Duration::from_millis(dice.between(LOAD_MS.0, LOAD_MS.1))).await;
        let printed = docket.terminate().await;
        assert!(!printed.contains("panicked"), "seed {seed}, stop {stop}: docket panicked\n{printed}");
        shoppers.go_home().await;
    }
    let history = rest_and_judge(&mut house, &world, &mut dice, 0).await;
    let unanswered: Vec<String> = history
        .iter()
        .filter(|command| matches!(&command.answers[..], [Answer::Unknown(why), ..] if why == "no answer"))
        .filter(|command| command.definite().is_some_and(kit::Reply::is_replayed))
        .map(|command| format!("{:?} {} {}", command.verb, command.path, command.key))
        .collect();
    assert!(unanswered.is_empty(), "seed {seed}: carried out and never answered: {unanswered:#?}");
    println!(
        "stops: {STOPS} under load with seed {seed}: {:?}; ready {}",
        Activity::of(&history),
        spread(&house.ready)
    );
}
