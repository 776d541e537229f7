//! The end of the log as a crash may leave it, and its middle as only a failing disk can: the first is cut and nothing
//! acknowledged is missed, the second is refused with file and offset. Every byte and every bit of it is tried in the
//! embedded log's own tests; here is that the whole house behaves so.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use kit::{Dice, Docket, knob};

use crate::house::House;
use crate::judge::{assert_clean, judge};
use crate::load::World;

/// Commands before the log is torn: some groups' worth.
const COMMANDS: usize = 60;
/// How often the end is torn, each time differently.
const TEARS: u64 = 6;

/// The last segment of the log, and where its data ends.
fn end_of_log(data: &Path) -> (PathBuf, u64) {
    let mut segments: Vec<PathBuf> = fs::read_dir(data.join("log"))
        .expect("the log has a folder")
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "segment"))
        .collect();
    segments.sort();
    let last = segments.pop().expect("a log has a segment");
    let bytes = fs::read(&last).expect("a segment can be read");
    // After the last group there are zeros; a group's end is a multiple of 8 (docs/segment-format.md).
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("a segment has a header") + 1;
    (last, end.next_multiple_of(8) as u64)
}

async fn some_work(house: &mut House, world: &World, docket: &Docket, seed: u64, round: u64) {
    let before = world.history.len();
    let shoppers = world.open(&docket.client(), seed, round, None);
    while world.history.len() < before + COMMANDS {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    shoppers.go_home().await;
    house.settle(docket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_end_is_cut_and_nothing_acknowledged_is_missed() {
    let _place = crate::beside_another().await;
    let seed = knob("DOCKET_TEST_SEED", 1);
    let data = tempfile::tempdir().expect("a scratch directory");
    let (mut house, world, mut dice) = (House::new(data.path()), World::default(), Dice::new(seed, &[6]));
    let mut docket = house.start().await;
    world.stock_shelves(&docket.client(), &mut dice).await;
    for tear in 0..TEARS {
        some_work(&mut house, &world, &docket, seed, 10_000 + tear).await;
        docket.kill9();
        let (segment, end) = end_of_log(data.path());
        // A group that was being written: it begins as groups do, and then it is not what it says, or breaks off.
        let length = dice.between(9, 3_000);
        let mut torn = b"DKgp".to_vec();
        torn.extend((4..length).map(|_| u8::try_from(dice.between(1, 255)).expect("a byte")));
        let file = OpenOptions::new().write(true).open(&segment).expect("the segment can be written");
        file.write_all_at(&torn, end).expect("the end can be torn");
        docket = house.start().await;
        house.settle(&docket).await;
        assert!(docket.printed().contains("cut a group"), "nothing was said of the torn end\n{}", docket.printed());
    }
    let client = docket.client();
    world.finish_all(&client).await;
    house.heal(&docket).await;
    // What would expire while the log and the rows are read would be in one of them only.
    house.wait_expired(&docket, &world.history.commands()).await;
    let mut evidence = house.evidence(&client).await;
    evidence.history = world.history.commands();
    assert_clean(&judge(&evidence), || docket.printed());
    docket.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_damaged_in_its_middle_is_refused_with_file_and_offset() {
    let _place = crate::beside_another().await;
    let seed = knob("DOCKET_TEST_SEED", 1);
    let data = tempfile::tempdir().expect("a scratch directory");
    let (mut house, world, mut dice) = (House::new(data.path()), World::default(), Dice::new(seed, &[7]));
    let docket = house.start().await;
    world.stock_shelves(&docket.client(), &mut dice).await;
    some_work(&mut house, &world, &docket, seed, 20_000).await;
    docket.kill9();
    let (segment, end) = end_of_log(data.path());
    let file = OpenOptions::new().read(true).write(true).open(&segment).expect("the segment can be written");
    // A bit in the first half: groups follow it, so no crash can have done this.
    let at = dice.between(1_000, end / 2);
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("the segment can be read");
    file.write_all_at(&[byte[0] ^ 4], at).expect("the segment can be written");
    let fault = Docket::try_start(data.path(), &[]).await.expect_err("a damaged log is not served");
    assert!(fault.what.contains("exit status: 1"), "{fault}");
    let name = segment.file_name().and_then(|name| name.to_str()).expect("a segment has a name");
    assert!(fault.printed.contains(name), "the file is not named: {fault}");
    // The group that the bit is in begins at or before it.
    let told = fault.printed.split("at byte ").nth(1).and_then(|rest| rest.split(':').next()?.parse::<u64>().ok());
    assert!(told.is_some_and(|byte| byte <= at), "the byte is not named, or not near {at}: {fault}");
    // Made good again, it is the log it was.
    file.write_all_at(&byte, at).expect("the segment can be written");
    let docket = house.start().await;
    world.finish_all(&docket.client()).await;
    house.heal(&docket).await;
    // What would expire while the log and the rows are read would be in one of them only.
    house.wait_expired(&docket, &world.history.commands()).await;
    let mut evidence = house.evidence(&docket.client()).await;
    evidence.history = world.history.commands();
    assert_clean(&judge(&evidence), || docket.printed());
    docket.terminate().await;
}
