//! Too few file descriptors and too little memory. Without descriptors nobody new is let in, whoever is in is served or
//! told to try again, and all goes on when some are given back. Out of memory is a death like any other.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kit::{Client, Dice, Docket, knob};
use uuid::Uuid;

use crate::house::House;
use crate::kills::rest_and_judge;
use crate::load::World;
use crate::log_calls::{an_order, until_ready, work};

/// What the process may have open: half of it, which connections may take, leaves enough for the rest.
const ENOUGH_BESIDE: usize = 96;
/// And so few that it leaves none.
const TOO_FEW: usize = 56;
/// Connections that somebody opens and does not use.
const IDLE: usize = 200;
/// Connections of those who were there before.
const REGULARS: usize = 4;
/// Large orders: more than the first segment of the log holds (8 MiB).
const ORDERS: usize = 520;
/// Lines of each: 20 KB.
const LINES: usize = 160;
/// What it may use of memory, and what a load wants.
const MEMORY_BYTES: u64 = 256 << 20;
/// How long it may take to go on.
const SEEN_WITHIN: Duration = Duration::from_secs(60);

/// Sends this order under one key until it is taken.
async fn until_taken(client: &Client, world: &World, dice: &mut Dice) -> bool {
    let command = crate::history::Command::new(
        dice.uuid(),
        crate::history::Verb::Place,
        "/v1/orders",
        crate::full::an_order(LINES),
    );
    world.history.send(client, command).await.1.is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_descriptors_nobody_new_is_let_in_and_all_goes_on_when_there_are_some() {
    let _alone = crate::one_at_a_time().await;
    for descriptors in [ENOUGH_BESIDE, TOO_FEW] {
        crowded_out(descriptors).await;
    }
}

/// Idle connections take all that they are let take, of so many descriptors.
async fn crowded_out(descriptors: usize) {
    let seed = knob("DOCKET_TEST_SEED", 1);
    let data = tempfile::tempdir().expect("a scratch directory");
    let (mut house, world, mut dice) = (House::new(data.path()), World::default(), Dice::new(seed, &[32]));
    let limit = format!("ulimit -n {descriptors}");
    let docket = Docket::try_start_after(&limit, &house.data, &[]).await.unwrap_or_else(|fault| panic!("{fault}"));
    let client = docket.client();
    world.stock_shelves(&client, &mut dice).await;
    work(&world, &client, seed ^ 0x64, 0, 60).await;
    // These keep their connections.
    let regulars: Vec<Client> = (0..REGULARS).map(|_| docket.client()).collect();
    for regular in &regulars {
        assert_eq!(regular.get("/livez").await.expect("an answer").status, 200);
    }
    let address = docket.address().trim_start_matches("http://").to_owned();
    let idle: Vec<TcpStream> = (0..IDLE).filter_map(|_| TcpStream::connect(&address).ok()).collect();
    if descriptors == TOO_FEW {
        let began = Instant::now();
        while !docket.printed().contains("cannot accept connections") {
            assert!(began.elapsed() < SEEN_WITHIN, "{} connections were all accepted", idle.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    // Who is in goes on, into the log's next segment too. Where there are too few, at worst they are told to try again.
    let orders = if descriptors == ENOUGH_BESIDE { ORDERS } else { ORDERS / 8 };
    let mut taken = 0;
    for number in 0..orders {
        taken += usize::from(until_taken(&regulars[number % REGULARS], &world, &mut dice).await);
    }
    if descriptors == ENOUGH_BESIDE {
        assert_eq!(taken, orders, "connections took what the rest of the process needs\n{}", docket.printed());
        assert!(!docket.printed().contains("Too many open files"), "{}", docket.printed());
    }
    drop(idle);
    until_ready(&regulars[0], true).await;
    let newcomer = docket.client();
    let began = Instant::now();
    loop {
        let reply = newcomer.post("/v1/orders", Uuid::now_v7(), &an_order()).await;
        if reply.is_some_and(|reply| reply.status == 201) {
            break;
        }
        assert!(began.elapsed() < SEEN_WITHIN, "nobody new is let in\n{}", docket.printed());
    }
    for _ in 0..ORDERS / 4 {
        assert!(until_taken(&newcomer, &world, &mut dice).await, "{}", docket.printed());
    }
    if descriptors == ENOUGH_BESIDE {
        let segments = fs::read_dir(house.data.join("log")).expect("a folder").flatten();
        let segments = segments.filter(|entry| entry.path().extension().is_some_and(|it| it == "segment")).count();
        assert!(segments > 1, "the log's first segment was not filled");
    }
    let printed = docket.kill9();
    assert!(!printed.contains("panicked"), "docket panicked\n{printed}");
    rest_and_judge(&mut house, &world, &mut dice, 0).await;
}

/// A control group that bounds a process's memory, where this machine lets a test make one.
struct Bounded(PathBuf);

impl Bounded {
    fn make() -> Result<Self, String> {
        let name = format!("docket-test-{}", std::process::id());
        let kinds = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        let mut why = String::new();
        for (root, limit) in kinds {
            let group = Self(PathBuf::from(root).join(&name));
            match fs::create_dir(&group.0).and_then(|()| fs::write(group.0.join(limit), MEMORY_BYTES.to_string())) {
                Ok(()) => return Ok(group),
                Err(error) => why = format!("{}: {error}", group.0.display()),
            }
        }
        Err(why)
    }

    fn join(&self) -> String {
        format!("echo $$ > {}", self.0.join("cgroup.procs").display())
    }

    /// Less, from now on.
    fn squeeze(&self, bytes: u64) -> bool {
        ["memory.limit_in_bytes", "memory.max"].iter().any(|it| fs::write(self.0.join(it), bytes.to_string()).is_ok())
    }
}

impl Drop for Bounded {
    fn drop(&mut self) {
        // One that stays behind has nobody in it.
        let _ = fs::remove_dir(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_256_mib_it_carries_a_load_and_killed_for_want_of_memory_it_loses_nothing() {
    let _alone = crate::one_at_a_time().await;
    let seed = knob("DOCKET_TEST_SEED", 1);
    let bounded = match Bounded::make() {
        Ok(bounded) => bounded,
        Err(why) => return println!("SKIPPED: no memory can be bounded here: {why}"),
    };
    let data = tempfile::tempdir().expect("a scratch directory");
    let (mut house, world, mut dice) = (House::new(data.path()), World::default(), Dice::new(seed, &[33]));
    let mut docket =
        Docket::try_start_after(&bounded.join(), &house.data, &[]).await.unwrap_or_else(|fault| panic!("{fault}"));
    let client = docket.client();
    world.stock_shelves(&client, &mut dice).await;
    work(&world, &client, seed ^ 0x65, 0, 300).await;
    assert!(docket.runs(), "it does not live in 256 MiB\n{}", docket.printed());
    house.settle(&docket).await;
    // Now there is less than it holds already, and the system takes its life in the middle of the work.
    let shoppers = world.open(&client, seed ^ 0x65, 1, None);
    let began = Instant::now();
    let mut bytes = MEMORY_BYTES;
    while docket.runs() {
        bytes = (bytes / 2).max(1 << 20);
        bounded.squeeze(bytes);
        assert!(began.elapsed() < SEEN_WITHIN, "it lives on in {bytes} bytes");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    shoppers.go_home().await;
    let printed = docket.kill9();
    assert!(!printed.contains("panicked"), "docket panicked\n{printed}");
    rest_and_judge(&mut house, &world, &mut dice, 0).await;
}
