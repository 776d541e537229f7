//! Power cuts: the data directory lies on a file system of its own, an XFS image on a loop device, that is shut down
//! under load without flushing its log. What was not forced to the disk before is gone, as it would be in a power cut;
//! what clients heard before the cut must still be there.

use std::time::{Duration, Instant};

use kit::{Dice, knob};

use crate::disk::Disk;
use crate::house::{House, spread};
use crate::judge::{assert_clean, judge_at_any_time};
use crate::kills::rest_and_judge;
use crate::load::{Activity, World};

/// How many cuts the tests do; `cargo xtask soak` does hundreds.
const CUTS: u64 = 20;
/// How long the load runs before each cut, in milliseconds.
const LOAD_MS: (u64, u64) = (50, 400);
/// Every so many cuts what happened so far is judged.
const JUDGED_EVERY: u64 = 5;
/// Room for the log, what is folded from it, and the file system's own log. The image is sparse.
const IMAGE_BYTES: u64 = 4 << 30;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_in_a_power_cut() {
    let _alone = crate::one_at_a_time().await;
    let (cuts, seed) = (knob("DOCKET_TEST_CUTS", CUTS), knob("DOCKET_TEST_SEED", 1));
    let disk = match Disk::make(IMAGE_BYTES) {
        Ok(disk) => disk,
        Err(why) => {
            println!("SKIPPED: power cuts cannot be made here: {why}");
            return;
        }
    };
    let (mut house, world, mut dice) = (House::new(&disk.data()), World::default(), Dice::new(seed, &[1]));
    let began = Instant::now();
    // Cuts after which what was never forced to the disk was gone: those were real ones.
    let mut forgotten = 0;
    for cut in 0..cuts {
        let docket = house.start().await;
        let client = docket.client();
        if cut == 0 {
            world.stock_shelves(&client, &mut dice).await;
        }
        house.settle(&docket).await;
        if cut % JUDGED_EVERY == 0 {
            let history = world.history.commands();
            assert_clean(&judge_at_any_time(&history, &house.follower.told), || docket.printed());
            println!(
                "cuts: {cut} of {cuts} in {:.0} s; {} commands, {} events; ready {}; settled {}",
                began.elapsed().as_secs_f64(),
                history.len(),
                house.follower.seen.len(),
                spread(&house.ready),
                spread(&house.settled)
            );
        }
        let shoppers = world.open(&client, seed ^ 0xC07, cut);
        tokio::time::sleep(Duration::from_millis(dice.between(LOAD_MS.0, LOAD_MS.1))).await;
        world.history.deafen(true);
        disk.cut(cut);
        // It goes on for a while with a disk that takes nothing: what it says now counts for nothing, and must not be yes.
        tokio::time::sleep(Duration::from_millis(dice.between(0, 50))).await;
        let printed = docket.kill9();
        assert!(!printed.contains("panicked"), "seed {seed}, cut {cut}: docket panicked\n{printed}");
        shoppers.go_home().await;
        disk.bring_back();
        forgotten += u64::from(disk.has_forgotten(cut));
        world.history.deafen(false);
    }
    assert_eq!(forgotten, cuts, "some cuts took nothing away: the power was not cut");
    let history = rest_and_judge(&mut house, &world, &mut dice, usize::try_from(cuts).expect("some cuts")).await;
    println!(
        "cuts: {cuts} power cuts in {:.0} s with seed {seed}: {:?}; ready {}; settled {}",
        began.elapsed().as_secs_f64(),
        Activity::of(&history),
        spread(&house.ready),
        spread(&house.settled)
    );
}
