//! The read models' disk goes wrong under the real binary, and their file is lost, broken, another log's, or knows more
//! than the log. Commands go on without them; a read is right or is refused with a word, never wrong. What is lost,
//! broken at its root or another's is set aside and folded afresh; what is ahead of the log is refused, since then it is
//! the log that has lost something.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use kit::{Client, Dice, Docket, knob};
use rustix::io::Errno;
use serde_json::Value;
use uuid::Uuid;

use crate::house::House;
use crate::kills::rest_and_judge;
use crate::load::World;
use crate::log_calls::{an_order, until_ready, work};
use crate::preload::{ALWAYS, Calls, Faults, Wrong};

/// The read models' files, among all that a process has open.
const ROWS: &str = "/views.db";
/// The one with the pages.
const PAGES: &str = "/views.db$";
/// Commands before the fault.
const COMMANDS: usize = 80;
/// How long rows may take to be current again.
const SEEN_WITHIN: Duration = Duration::from_secs(60);
/// What SQLite reads and writes at once.
const PAGE_BYTES: u64 = 4_096;
/// How many pages are broken, one life each.
const BROKEN_PAGES: u64 = 12;

/// Asks for a row at least as new as this until it is there.
async fn until_current(client: &Client, path: &str, position: &str) {
    let began = Instant::now();
    loop {
        let reply = client.get_with(path, &[("docket-min-position", position), ("prefer", "wait=5")]).await;
        let reply = reply.expect("an answer");
        if reply.status == 200 {
            return;
        }
        assert!(reply.status == 503 && began.elapsed() < SEEN_WITHIN, "{path}: {} {}", reply.status, reply.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_go_on_while_the_read_models_cannot_be_written_and_those_go_on_by_themselves() {
    let _place = crate::beside_another().await;
    let seed = knob("DOCKET_TEST_SEED", 1);
    let (data, faults) = (tempfile::tempdir().expect("a scratch directory"), Faults::new());
    let (mut house, world, mut dice) = (House::new(data.path()), World::default(), Dice::new(seed, &[25]));
    let docket = house.start_in(&faults.environment()).await;
    let client = docket.client();
    world.stock_shelves(&client, &mut dice).await;
    work(&world, &client, seed ^ 0x5D, 0, COMMANDS).await;
    for errno in [Errno::NOSPC, Errno::IO] {
        let rule = faults.arm(Calls::Writes, ROWS, Wrong::Error(errno), 0, ALWAYS);
        let placed = client.post("/v1/orders", Uuid::now_v7(), &an_order()).await.expect("an answer");
        assert_eq!(placed.status, 201, "{}", placed.body);
        let path = format!("/v1/orders/{}", placed.body["order_id"].as_str().expect("an id"));
        let position = placed.header("docket-position").expect("a position").to_owned();
        faults.until_fired(rule, 1).await;
        // Not the old rows, and not as if there were no such order.
        let reply = client.get_with(&path, &[("docket-min-position", &position), ("prefer", "wait=0")]).await;
        let reply = reply.expect("an answer");
        assert_eq!((reply.status, reply.code()), (503, Some("read-model-behind")), "{}", reply.body);
        assert!(reply.header("retry-after").is_some(), "{:?}", reply.headers);
        let said = until_ready(&client, false).await;
        assert!(said.contains("read models"), "/readyz does not say what: {said}");
        let placed = client.post("/v1/orders", Uuid::now_v7(), &an_order()).await.expect("an answer");
        assert_eq!(placed.status, 201, "commands do not go on: {}", placed.body);
        assert!(faults.lift(rule) > 0);
        until_ready(&client, true).await;
        until_current(&client, &path, &position).await;
    }
    let printed = docket.kill9();
    assert!(!printed.contains("panicked"), "docket panicked\n{printed}");
    rest_and_judge(&mut house, &world, &mut dice, 0).await;
}

/// Every order there is, as its own page shows it.
async fn orders(client: &Client, ids: &[String]) -> BTreeMap<String, Result<Value, (u16, Value)>> {
    let mut orders = BTreeMap::new();
    for id in ids {
        let reply = client.get(&format!("/v1/orders/{id}")).await.expect("an answer");
        let shown = if reply.status == 200 { Ok(reply.body) } else { Err((reply.status, reply.body["code"].clone())) };
        orders.insert(id.clone(), shown);
    }
    orders
}

/// A house that has worked and is at rest, its orders and what each of them shows.
async fn at_rest(house: &mut House, world: &World, dice: &mut Dice, seed: u64) -> BTreeMap<String, Value> {
    let docket = house.start().await;
    let client = docket.client();
    world.stock_shelves(&client, dice).await;
    work(world, &client, seed, 0, COMMANDS).await;
    world.finish_all(&client).await;
    house.heal(&docket).await;
    house.wait_expired(&docket, &world.history.commands()).await;
    let ids: Vec<String> = client
        .list("/v1/orders")
        .await
        .expect("orders can be listed")
        .iter()
        .filter_map(|order| order["order_id"].as_str().map(str::to_owned))
        .collect();
    assert!(ids.len() >= COMMANDS / 10, "only {} orders", ids.len());
    let shown = orders(&client, &ids).await.into_iter().map(|(id, shown)| (id, shown.expect("it can be read")));
    let shown = shown.collect();
    docket.terminate().await;
    shown
}

#[tokio::test(flavor = "multi_thread")]
async fn read_models_that_cannot_be_read_are_a_fault_and_never_wrong() {
    let _place = crate::beside_another().await;
    let seed = knob("DOCKET_TEST_SEED", 1);
    let (data, faults) = (tempfile::tempdir().expect("a scratch directory"), Faults::new());
    let (mut house, world, mut dice) = (House::new(data.path()), World::default(), Dice::new(seed, &[26]));
    let expected = at_rest(&mut house, &world, &mut dice, seed ^ 0x5E).await;
    let ids: Vec<String> = expected.keys().cloned().collect();
    // Without a map of the file it is read by calls, which can be failed.
    let maps = faults.arm(Calls::Maps, PAGES, Wrong::Error(Errno::NOMEM), 0, ALWAYS);
    let docket = house.start_in(&faults.environment()).await;
    let client = docket.client();
    let reads = faults.arm(Calls::Reads, PAGES, Wrong::Error(Errno::IO), 0, ALWAYS);
    let mut refused = 0;
    for (id, shown) in orders(&client, &ids).await {
        match shown {
            Ok(shown) => assert_eq!(shown, expected[&id], "{id} is shown otherwise"),
            Err((status, code)) => {
                assert!(status >= 500 && code.is_string(), "{id}: {status} {code}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0 && faults.lift(reads) > 0, "nothing was read from the disk");
    faults.lift(maps);
    let began = Instant::now();
    loop {
        let shown = orders(&client, &ids).await;
        if shown.iter().all(|(id, shown)| shown.as_ref() == Ok(&expected[id])) {
            break;
        }
        assert!(began.elapsed() < SEEN_WITHIN, "it does not go on when the disk can be read: {shown:?}");
    }
    let printed = docket.kill9();
    assert!(!printed.contains("panicked"), "docket panicked\n{printed}");
    rest_and_judge(&mut house, &world, &mut dice, 0).await;
}

fn remove_rows(data: &Path) {
    for name in ["views.db", "views.db-wal", "views.db-shm"] {
        match fs::remove_file(data.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{name}: {error}"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_store_that_is_lost_broken_or_another_log_s_is_folded_afresh_and_never_shown_wrong() {
    let _place = crate::beside_another().await;
    let seed = knob("DOCKET_TEST_SEED", 1);
    let other = tempfile::tempdir().expect("a scratch directory");
    Docket::start(other.path(), &[]).await.terminate().await;
    let data = tempfile::tempdir().expect("a scratch directory");
    let (mut house, world, mut dice) = (House::new(data.path()), World::default(), Dice::new(seed, &[27]));
    let expected = at_rest(&mut house, &world, &mut dice, seed ^ 0x5F).await;
    let ids: Vec<String> = expected.keys().cloned().collect();
    let (rows, good) = (data.path().join("views.db"), fs::read(data.path().join("views.db")).expect("it is there"));
    let pages = good.len() as u64 / PAGE_BYTES;

    // What is seen at once when it is opened.
    for round in 0..5 {
        remove_rows(data.path());
        match round {
            0 => {}
            1 => fs::write(&rows, b"not a database, whatever its name says").expect("it can be written"),
            2 => fs::write(&rows, &good[..good.len() / 2]).expect("it can be written"),
            3 => {
                let mut broken = good.clone();
                broken[..100].fill(0xA5);
                fs::write(&rows, broken).expect("it can be written");
            }
            _ => drop(fs::copy(other.path().join("views.db"), &rows).expect("it can be copied")),
        }
        let docket = house.start().await;
        let client = docket.client();
        for (id, shown) in orders(&client, &ids).await {
            assert_eq!(shown.as_ref(), Ok(&expected[&id]), "round {round}\n{}", docket.printed());
        }
        let printed = docket.terminate().await;
        assert!(round == 0 || printed.contains("folded afresh"), "round {round}: nothing was said\n{printed}");
    }

    // What is only met by whoever reads that page.
    let (mut refused, mut afresh) = (0, 0);
    for round in 0..BROKEN_PAGES {
        remove_rows(data.path());
        fs::write(&rows, &good).expect("it can be written");
        let page = 1 + round * (pages - 1) / BROKEN_PAGES;
        let file = OpenOptions::new().write(true).open(&rows).expect("it can be opened");
        let garbage: Vec<u8> = (0..PAGE_BYTES).map(|_| u8::try_from(dice.between(0, 255)).expect("a byte")).collect();
        file.write_all_at(&garbage, page * PAGE_BYTES).expect("it can be written");
        match Docket::try_start(data.path(), &[]).await {
            Ok(docket) => {
                for (id, shown) in orders(&docket.client(), &ids).await {
                    match shown {
                        Ok(shown) => assert_eq!(shown, expected[&id], "page {page}: {id} is shown otherwise"),
                        Err((status, code)) => {
                            assert!(status >= 500 && code.is_string(), "page {page}: {id}: {status} {code}");
                            refused += 1;
                        }
                    }
                }
                let printed = docket.kill9();
                assert!(!printed.contains("panicked"), "docket panicked\n{printed}");
                afresh += u64::from(printed.contains("folded afresh"));
            }
            Err(fault) => panic!("page {page}: {fault}"),
        }
    }
    assert!(refused + afresh > 0, "no broken page was ever met");
    remove_rows(data.path());
    rest_and_judge(&mut house, &world, &mut dice, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_knows_more_than_the_log_is_refused_since_the_log_has_lost_something() {
    let _place = crate::beside_another().await;
    let seed = knob("DOCKET_TEST_SEED", 1);
    let (data, older) = (tempfile::tempdir().expect("a scratch directory"), tempfile::tempdir().expect("another"));
    let (mut house, world, mut dice) = (House::new(data.path()), World::default(), Dice::new(seed, &[28]));
    at_rest(&mut house, &world, &mut dice, seed ^ 0x60).await;
    let (log, states) = (data.path().join("log"), data.path().join("state"));
    crate::state_calls::copy(&log, &older.path().join("log"));
    crate::state_calls::copy(&states, &older.path().join("state"));
    let docket = house.start().await;
    work(&world, &docket.client(), seed ^ 0x60, 1, COMMANDS).await;
    house.settle(&docket).await;
    docket.terminate().await;
    let newer = tempfile::tempdir().expect("a scratch directory");
    crate::state_calls::copy(&log, &newer.path().join("log"));
    crate::state_calls::copy(&states, &newer.path().join("state"));
    // First the rows alone are ahead, then the states are too.
    for (round, with_states) in [(0, true), (1, false)] {
        fs::remove_dir_all(&log).expect("it can be removed");
        crate::state_calls::copy(&older.path().join("log"), &log);
        if with_states {
            fs::remove_dir_all(&states).expect("it can be removed");
            crate::state_calls::copy(&older.path().join("state"), &states);
        }
        let fault = Docket::try_start(data.path(), &[]).await.expect_err("a log that lost its end is not served");
        assert!(fault.what.contains("exit status: 1"), "round {round}: {fault}");
        assert!(fault.printed.contains("next: restore"), "round {round}: it does not say what to do: {fault}");
        assert!(!fault.printed.contains("panicked"), "round {round}: {fault}");
        for (name, folder) in [("log", &log), ("state", &states)] {
            fs::remove_dir_all(folder).expect("it can be removed");
            crate::state_calls::copy(&newer.path().join(name), folder);
        }
    }
    rest_and_judge(&mut house, &world, &mut dice, 0).await;
}
