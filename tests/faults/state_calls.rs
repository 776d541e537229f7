//! The state store's disk goes wrong under the real binary, and its files are lost, broken or another's. It is a fold of
//! the log: nothing in it may be missed. No room is waited for and gone on from without a restart; a disk that fails takes
//! the node out of service, with a word, until it is started again, and then all of it is folded afresh.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kit::{Dice, Docket, knob};
use rustix::io::Errno;
use uuid::Uuid;

use crate::house::House;
use crate::judge::{assert_clean, judge_at_any_time};
use crate::kills::rest_and_judge;
use crate::load::World;
use crate::log_calls::{an_order, until_ready, work};
use crate::preload::{Calls, Faults, Wrong};

/// The state store's files, among all that a process has open.
const STATES: &str = "/state/db/";
/// Commands in each part of a story.
const COMMANDS: usize = 80;
/// How often a write finds no room.
const TIMES: u64 = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_state_store_whose_write_finds_no_room_goes_on_by_itself() {
    let _place = crate::beside_another().await;
    let seed = knob("DOCKET_TEST_SEED", 1);
    let (data, faults) = (tempfile::tempdir().expect("a scratch directory"), Faults::new());
    let (mut house, world, mut dice) = (House::new(data.path()), World::default(), Dice::new(seed, &[22]));
    let docket = house.start_in(&faults.environment()).await;
    let client = docket.client();
    world.stock_shelves(&client, &mut dice).await;
    for time in 0..TIMES {
        let shoppers = world.open(&client, seed ^ 0x5A, time, Some(Duration::from_millis(5)));
        // Sometimes the first piece of a batch is there and the next is not.
        let rule = faults.arm(Calls::Writes, STATES, Wrong::Error(Errno::NOSPC), u32::try_from(time).expect("few"), 1);
        faults.until_fired(rule, 1).await;
        faults.lift(rule);
        shoppers.go_home().await;
        until_ready(&client, true).await;
        work(&world, &client, seed ^ 0x5A, 100 + time, COMMANDS).await;
        house.settle(&docket).await;
    }
    let printed = docket.printed();
    assert!(printed.contains("state-store-full"), "nothing was said of the full disk\n{printed}");
    assert!(printed.contains("the state store goes on"), "it went on without being opened again\n{printed}");
    assert!(!printed.contains("panicked"), "docket panicked\n{printed}");
    assert_clean(&judge_at_any_time(&world.history.commands(), &house.follower.told), || docket.printed());
    // And the files are sound: the next life resumes them.
    let printed = docket.terminate().await;
    assert!(!printed.contains("folded afresh"), "{printed}");
    let docket = house.start().await;
    assert!(!docket.printed().contains("folded afresh"), "{}", docket.printed());
    docket.kill9();
    rest_and_judge(&mut house, &world, &mut dice, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_store_whose_disk_fails_is_out_of_service_until_the_next_start_folds_it_afresh() {
    let _place = crate::beside_another().await;
    let seed = knob("DOCKET_TEST_SEED", 1);
    for (number, calls) in [(0, Calls::Writes), (1, Calls::Flushes)] {
        let (data, faults) = (tempfile::tempdir().expect("a scratch directory"), Faults::new());
        let (mut house, world, mut dice) = (House::new(data.path()), World::default(), Dice::new(seed, &[23, number]));
        let docket = house.start_in(&faults.environment()).await;
        let client = docket.client();
        world.stock_shelves(&client, &mut dice).await;
        work(&world, &client, seed ^ 0x5B, number, COMMANDS).await;
        let shoppers = world.open(&client, seed ^ 0x5B, 10 + number, None);
        let rule = faults.arm(calls, STATES, Wrong::Error(Errno::IO), 0, 1);
        faults.until_fired(rule, 1).await;
        let said = until_ready(&client, false).await;
        shoppers.go_home().await;
        faults.lift(rule);
        assert!(said.contains("state store"), "/readyz does not say why: {said}");
        let reply = client.post("/v1/orders", Uuid::now_v7(), &an_order()).await.expect("an answer");
        assert_eq!((reply.status, reply.body["outcome"].as_str()), (503, Some("unknown")), "{}", reply.body);
        let told = client.get("/v1/orders?limit=5").await.expect("an answer");
        assert_eq!(told.status, 200, "what is there cannot be read: {}", told.body);
        let printed = docket.kill9();
        assert!(printed.contains("state-store-failed") && !printed.contains("panicked"), "{printed}");
        let docket = house.start().await;
        assert!(docket.printed().contains("folded afresh"), "it was taken for good\n{}", docket.printed());
        docket.kill9();
        rest_and_judge(&mut house, &world, &mut dice, 0).await;
    }
}

/// All files of the state store, by path.
fn files_of(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder can be listed") {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() { files.extend(files_of(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("a folder can be listed") {
        let entry = entry.expect("an entry can be read");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("a file can be copied");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_store_that_is_lost_half_there_or_another_log_s_is_folded_afresh() {
    let _place = crate::beside_another().await;
    let seed = knob("DOCKET_TEST_SEED", 1);
    let other = tempfile::tempdir().expect("a scratch directory");
    Docket::start(other.path(), &[]).await.terminate().await;
    let data = tempfile::tempdir().expect("a scratch directory");
    let (mut house, world, mut dice) = (House::new(data.path()), World::default(), Dice::new(seed, &[24]));
    let docket = house.start().await;
    world.stock_shelves(&docket.client(), &mut dice).await;
    work(&world, &docket.client(), seed ^ 0x5C, 0, COMMANDS).await;
    docket.kill9();
    let states = data.path().join("state");
    let parts = files_of(&states).len() as u64;
    let mut afresh = 0;
    for round in 0..2 * parts + 2 {
        let files = files_of(&states);
        match round {
            0 => fs::remove_dir_all(&states).expect("it can be removed"),
            1 => {
                fs::remove_dir_all(&states).expect("it can be removed");
                copy(&other.path().join("state"), &states);
            }
            // Each file in turn, lost or half written.
            round => {
                let file = &files[usize::try_from(round / 2 - 1).expect("few") % files.len()];
                if round % 2 == 0 {
                    fs::remove_file(file).expect("it can be removed");
                } else {
                    let bytes = fs::read(file).expect("it can be read");
                    fs::write(file, &bytes[..bytes.len() / 2]).expect("it can be written");
                }
            }
        }
        // What is only found later is told, and the next start folds afresh.
        match Docket::try_start(&house.data, &[]).await {
            Ok(docket) => {
                afresh += u64::from(round < 2 || docket.printed().contains("folded afresh"));
                docket.kill9();
            }
            Err(fault) => {
                assert!(fault.printed.contains("next: start again"), "it does not say what to do: {fault}");
                afresh += 1;
            }
        }
        let docket = house.start().await;
        work(&world, &docket.client(), seed ^ 0x5C, 1 + round, COMMANDS / 8).await;
        house.settle(&docket).await;
        assert_clean(&judge_at_any_time(&world.history.commands(), &house.follower.told), || docket.printed());
        docket.kill9();
    }
    assert!(afresh >= 2 + parts / 2, "{afresh} of {} losses were noticed", 2 * parts + 2);
    rest_and_judge(&mut house, &world, &mut dice, 0).await;
}
