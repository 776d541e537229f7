//! Thousands of connections that nobody uses: they cost little, and keep nobody out.

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::clients::{House, PATIENCE, Wire, behaves};

/// More than the server takes by default.
const CONNECTIONS: usize = 5_000;

/// As many as this process may have open, with some left for everything else.
fn affordable() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = CONNECTIONS as u64 + 1_000;
    let raised = limit.maximum.map_or(wanted, |maximum| wanted.min(maximum)).max(limit.current.unwrap_or(wanted));
    setrlimit(Resource::Nofile, Rlimit { current: Some(raised), ..limit }).expect("below the hard limit");
    CONNECTIONS.min(usize::try_from(raised).unwrap_or(usize::MAX).saturating_sub(1_000))
}

async fn opened(address: &str, count: usize) -> Vec<Wire> {
    let mut wires = Vec::with_capacity(count);
    let began = Instant::now();
    while wires.len() < count {
        match Wire::to(address).await {
            Ok(wire) => wires.push(wire),
            // The backlog is full: the server is busy accepting.
            Err(error) => assert!(began.elapsed() < PATIENCE, "after {}: {error}", wires.len()),
        }
    }
    wires
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_idle_connections_keep_nobody_out() {
    let mut house = House::open(&[]).await;
    let address = house.address();
    let mut quiet = behaves(&address, Duration::from_secs(1), "/v1/orders").await;
    let (rss, files) = (house.rss_mib(), house.open_files());
    let idle = opened(&address, affordable()).await;
    // Served without being told to come back is more than is promised here: that it is served at all is.
    let mut beside = behaves(&address, Duration::from_secs(3), "/v1/orders").await;
    let grown = house.rss_mib().saturating_sub(rss);
    eprintln!(
        "{} idle connections, {} MiB more; p50 {:?} p99 {:?}, {:?} before",
        idle.len(),
        grown,
        beside.at(50),
        beside.at(99),
        quiet.at(99)
    );
    assert!(beside.at(50) < quiet.at(99) * 3 + Duration::from_millis(50), "{:?}", beside.at(50));
    assert!(grown < 192, "{grown} MiB more");
    drop(idle);
    house.calms_down(files).await;
    house.is_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_there_is_no_room_the_longest_idle_goes_and_the_newcomer_is_served() {
    let house = House::open(&["limits.connections=50"]).await;
    let address = house.address();
    let idle = opened(&address, 50).await;
    let began = Instant::now();
    loop {
        // Until they have been idle for a second newcomers are told to come back: always with words.
        let mut newcomer = Wire::to(&address).await.expect("the server listens");
        let answer = newcomer.ask(b"GET /v1/orders HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let answer = answer.expect("an answer, not a bare close");
        if answer.status == 200 {
            break;
        }
        assert!(answer.asks_to_come_back(), "{answer:?}");
        assert!(began.elapsed() < PATIENCE, "nobody makes room");
    }
    // The room was made by as few as need be.
    let mut open = 0;
    for mut wire in idle {
        // Who was let go cannot ask any more; the others can.
        let _ = wire.send(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await;
        open += usize::from(wire.answer().await.is_some_and(|answer| answer.status == 200));
    }
    assert!((30..50).contains(&open), "{open} of 50 are still open");
}
