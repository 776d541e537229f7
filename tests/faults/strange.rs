//! What is in the log may be strange to this version, or far more than fits into memory. A stream with an event that
//! nobody here knows is set aside by its name: commands on it and reads of it are refused with a word, its history is told
//! as it was written, and everything else goes on. A stream of hundreds of thousands of events is decided on, and told,
//! with no more memory than any other.

use std::fs;
use std::time::{Duration, Instant};

use futures::StreamExt;
use kit::shop::{line, order};
use kit::{Dice, Docket, knob};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::forge;
use crate::house::House;
use crate::load::World;
use crate::log_calls::work;

/// Records, and events in each, of a long stream.
const RECORDS: usize = 250;
const EVENTS: usize = 1_000;
/// What telling them may add to what the process holds. As one answer they would be some 80 MB.
const GROWTH_BYTES_MAX: u64 = 40 << 20;
/// How long folding them may take on a busy machine.
const FOLDED_WITHIN: Duration = Duration::from_secs(60);

/// A number of bytes in `/proc/PID/status`.
fn memory(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a line of it");
    let kib = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().expect("a number");
    kib * 1_024
}

/// The partition that a stream is in, as the log tells.
fn partition_of(house: &House, stream: &str) -> u64 {
    house.follower.told.stream(stream).next().expect("it is in the log").position.0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_250_000_events_is_decided_on_and_told_in_the_memory_of_any_other() {
    let _place = crate::beside_another().await;
    let seed = knob("DOCKET_TEST_SEED", 1);
    let data = tempfile::tempdir().expect("a scratch directory");
    let (mut house, world, mut dice) = (House::new(data.path()), World::default(), Dice::new(seed, &[34]));
    let docket = house.start().await;
    world.stock_shelves(&docket.client(), &mut dice).await;
    let receive = |client: kit::Client| async move {
        let path = "/v1/stock/shop-1/beans/receive";
        client.post(path, Uuid::now_v7(), &json!({"quantity": 1})).await.expect("an answer")
    };
    let reply = receive(docket.client()).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    house.follower.catch_up(&docket.client()).await;
    let stream = "stock-shop-1~beans";
    let partition = partition_of(&house, stream);
    docket.terminate().await;
    let version = forge::add(data.path(), partition, stream, |newest| vec![vec![newest.clone(); EVENTS]; RECORDS]);

    let began = Instant::now();
    let docket = Docket::start(data.path(), &[]).await;
    let client = docket.client();
    assert!(began.elapsed() < FOLDED_WITHIN, "it took {:?} to fold them", began.elapsed());
    let reply = receive(client.clone()).await;
    assert_eq!((reply.status, &reply.body["version"]), (200, &Value::from(version + 1)), "{}", reply.body);
    // The read models fold them too, meanwhile.
    let began = Instant::now();
    let shown = loop {
        let reply = client.get_with("/v1/stock/shop-1/beans", &[("prefer", "wait=20")]).await.expect("an answer");
        if reply.status == 200 {
            break reply;
        }
        assert!(began.elapsed() < FOLDED_WITHIN && reply.status == 503, "{}", reply.body);
    };
    assert_eq!(shown.body["on_hand"], Value::from(200_002 + RECORDS * EVENTS), "{}", shown.body);

    // The peak from here on.
    fs::write(format!("/proc/{}/clear_refs", docket.pid()), "5").expect("the peak can be set back");
    let before = memory(docket.pid(), "VmRSS");
    let url = format!("{}/v1/streams/{stream}/events", docket.address());
    let told = reqwest::Client::new().get(url).header("accept", "application/x-ndjson").send().await;
    let mut body = told.expect("an answer").bytes_stream();
    let (mut bytes, mut events) = (0, 0);
    while let Some(chunk) = body.next().await {
        let chunk = chunk.expect("it does not break off");
        bytes += chunk.len();
        events += chunk.iter().filter(|byte| **byte == b'\n').count();
    }
    assert!(events as u64 > version, "{events} of {} events were told", version + 1);
    let grown = memory(docket.pid(), "VmHWM").saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "telling {bytes} bytes took {grown} bytes of memory");
    println!("strange: {events} events, {bytes} bytes told with {grown} bytes of memory on top of {before}");
    let printed = docket.terminate().await;
    assert!(!printed.contains("panicked"), "docket panicked\n{printed}");
    // And with its states kept, the next start is like any other.
    house.start().await.terminate().await;
}

/// Places an order that only waits; its stream's name, and its page.
async fn place(docket: &Docket) -> (String, String) {
    let body = order("c-1", "shop-1", vec![line("beans", 1, 500)], None);
    let reply = docket.client().post("/v1/orders", Uuid::now_v7(), &body).await.expect("an answer");
    assert_eq!(reply.status, 201, "{}", reply.body);
    let id = reply.body["order_id"].as_str().expect("an id").to_owned();
    (format!("order-{id}"), format!("/v1/orders/{id}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_with_events_of_another_version_is_refused_by_name_and_left_as_it_is() {
    let _place = crate::beside_another().await;
    let seed = knob("DOCKET_TEST_SEED", 1);
    for (number, (event, version)) in (0..).zip([("OrderTeleported", 1), ("OrderShipped", 99)]) {
        let data = tempfile::tempdir().expect("a scratch directory");
        let (mut house, world, mut dice) = (House::new(data.path()), World::default(), Dice::new(seed, &[35, number]));
        let docket = house.start().await;
        world.stock_shelves(&docket.client(), &mut dice).await;
        work(&world, &docket.client(), seed ^ 0x66, number, 30).await;
        let (stream, _) = place(&docket).await;
        house.follower.catch_up(&docket.client()).await;
        let partition = partition_of(&house, &stream);
        docket.terminate().await;
        forge::add(data.path(), partition, &stream, |_| vec![vec![forge::unheard_of(event, version)]]);
        // Whoever decided on that order now would decide on half of what happened to it.
        for _ in 0..2 {
            let fault = Docket::try_start(data.path(), &[]).await.expect_err("what it means is not known here");
            assert!(fault.what.contains("exit status: 1"), "{fault}");
            assert!(!fault.printed.contains("panicked"), "{fault}");
            let told = fault.printed.split("error:").last().unwrap_or_default();
            for word in [stream.as_str(), event, &format!("v{version}"), &format!("{partition}:")] {
                assert!(told.contains(word), "{word} is not named: {fault}");
            }
        }
    }
}
