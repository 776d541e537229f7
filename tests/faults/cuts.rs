//! Power cuts: the data directory lies on a file system of its own, an XFS image on a loop device, that is shut down
//! under load without flushing its log. What was not forced to the disk before is gone, as it would be in a power cut;
//! what clients heard before the cut must still be there.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use kit::{Dice, knob};

use crate::history::History;
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
/// What is written right before a cut and never forced to the disk.
const CANARY: &[u8] = b"sings";
/// How often a busy file system is asked again to let go: the process that held it has just died.
const UNMOUNTS_MAX: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_in_a_power_cut() {
    let _alone = crate::one_at_a_time().await;
    let (cuts, seed) = (knob("DOCKET_TEST_CUTS", CUTS), knob("DOCKET_TEST_SEED", 1));
    let disk = match Disk::make() {
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
        disk.cut(&world.history, cut);
        // It goes on for a while with a disk that takes nothing: what it says now counts for nothing, and must not be yes.
        tokio::time::sleep(Duration::from_millis(dice.between(0, 50))).await;
        let printed = docket.kill9();
        assert!(!printed.contains("panicked"), "seed {seed}, cut {cut}: docket panicked\n{printed}");
        shoppers.go_home().await;
        disk.bring_back();
        // Its name may have come to the disk with somebody else's flush; what was in it cannot have.
        forgotten += u64::from(std::fs::read(disk.canary(cut)).ok().as_deref() != Some(CANARY));
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

/// A file system whose power can be cut.
#[derive(Debug)]
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// Makes and mounts one; why not, where that is impossible.
    fn make() -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let disk = Self { folder };
        let image = std::fs::File::create(disk.image()).map_err(|error| error.to_string())?;
        image.set_len(IMAGE_BYTES).map_err(|error| error.to_string())?;
        std::fs::create_dir(disk.mount_point()).map_err(|error| error.to_string())?;
        run(Command::new("mkfs.xfs").arg("-q").arg(disk.image()))?;
        run(Command::new("xfs_io").arg("-V"))?;
        disk.mount()?;
        Ok(disk)
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("disk.xfs")
    }

    fn mount_point(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn data(&self) -> PathBuf {
        self.mount_point().join("docket")
    }

    fn mount(&self) -> Result<(), String> {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(self.mount_point()))
    }

    /// A file written right before a cut and not forced to the disk.
    fn canary(&self, cut: u64) -> PathBuf {
        self.mount_point().join(format!("canary-{cut}"))
    }

    /// Cuts the power. What is heard from here on does not count.
    fn cut(&self, history: &History, cut: u64) {
        history.deafen(true);
        std::fs::write(self.canary(cut), CANARY).expect("a file can be written");
        // Without -f the file system's own log is not flushed either.
        run(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(self.mount_point()))
            .expect("the power can be cut");
    }

    /// Takes the dead file system away and mounts it again, which replays its log.
    fn bring_back(&self) {
        self.unmount().expect("a dead file system can be unmounted");
        self.mount().expect("a file system comes back after a power cut");
    }

    fn unmount(&self) -> Result<(), String> {
        let mut last = Ok(());
        for _ in 0..UNMOUNTS_MAX {
            last = run(Command::new("umount").arg(self.mount_point()));
            if last.is_ok() || !is_mounted(&self.mount_point()) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        last
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if is_mounted(&self.mount_point())
            && let Err(why) = self.unmount()
        {
            eprintln!("{} stays mounted: {why}", self.mount_point().display());
        }
    }
}

fn is_mounted(point: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(1) == point.to_str())
}

fn run(command: &mut Command) -> Result<(), String> {
    let Output { status, stderr, .. } = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&stderr);
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}: {}", said.trim())) }
}
