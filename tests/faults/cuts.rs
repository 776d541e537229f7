//! Power cuts: the data directory lies on a file system of its own, an XFS image on a loop device, that is shut down
//! under load without flushing its log. What was not forced to the disk before is gone, as it would be in a power cut;
//! what clients heard before the cut must still be there.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use kit::{Dice, Docket, knob};

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
        let shoppers = world.open(&client, seed ^ 0xC07, cut, None);
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

/// What a disk does that says yes to every flush and forgets: the C library's flushes, doing nothing.
const LYING_FLUSHES: &str = "int fsync(int f) { return 0; }\nint fdatasync(int f) { return 0; }\n";
/// Cuts with such a disk. One is enough, unless its file system happens to write everything in the last moment.
const LYING_CUTS: u64 = 3;
/// Commands before such a cut.
const LYING_COMMANDS: usize = 100;

/// Builds the library that makes a process's flushes lie; why not, where there is no C compiler.
fn lying_flushes(folder: &std::path::Path) -> Result<PathBuf, String> {
    let (source, library) = (folder.join("lying.c"), folder.join("lying.so"));
    std::fs::write(&source, LYING_FLUSHES).map_err(|error| error.to_string())?;
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    if built.map_err(|error| format!("cc: {error}"))?.success() { Ok(library) } else { Err("cc fails".to_owned()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_judge_finds_what_a_lying_disk_loses_in_a_power_cut() {
    let _alone = crate::one_at_a_time().await;
    let seed = knob("DOCKET_TEST_SEED", 1);
    let folder = tempfile::tempdir().expect("a scratch directory");
    let (disk, lies) = match Disk::make(IMAGE_BYTES).and_then(|disk| Ok((disk, lying_flushes(folder.path())?))) {
        Ok(made) => made,
        Err(why) => {
            println!("SKIPPED: no disk can be made to lie here: {why}");
            return;
        }
    };
    let mut found = Vec::new();
    for cut in 0..LYING_CUTS {
        let (mut house, world) = (House::new(&disk.data().join(cut.to_string())), World::default());
        let mut dice = Dice::new(seed, &[11, cut]);
        std::fs::create_dir_all(&house.data).expect("a folder can be made");
        let docket = house.start().await;
        world.stock_shelves(&docket.client(), &mut dice).await;
        docket.terminate().await;
        disk.flush();
        let environment = [("LD_PRELOAD", lies.clone())];
        let docket =
            Docket::try_start_in(&environment, &house.data, &[]).await.unwrap_or_else(|fault| panic!("{fault}"));
        let shoppers = world.open(&docket.client(), seed ^ 0x11E, cut, None);
        let enough = world.history.len() + LYING_COMMANDS;
        while world.history.len() < enough {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        world.history.deafen(true);
        disk.cut(cut);
        docket.kill9();
        shoppers.go_home().await;
        disk.bring_back();
        assert!(disk.has_forgotten(cut), "nothing was taken away: the power was not cut");
        // A house that notices by itself, and will not serve, is as good; then another cut has to show what the judge sees.
        match Docket::try_start(&house.data, &[]).await {
            Ok(docket) => {
                house.follower.catch_up(&docket.client()).await;
                found = judge_at_any_time(&world.history.commands(), &house.follower.told);
                docket.kill9();
            }
            Err(fault) => println!("cuts: refused after a lie: {}", fault.what),
        }
        if !found.is_empty() {
            break;
        }
    }
    let lost = found.iter().filter(|finding| finding.rule == "CMD-1" && finding.what.contains("is not in the log"));
    assert!(lost.count() > 0, "acknowledged commands were lost, and the judge found {found:#?}");
}
