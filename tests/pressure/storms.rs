//! Ten thousand requests whose clients hang up at any moment: while they connect, in the middle of a head or a body, while
//! the answer is made, while it comes. What was taken has its effect once, and nothing else is left of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kit::{Dice, knob};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::clients::{House, command};

/// Who hangs up at the same time.
const CLIENTS: u64 = 64;
/// How often, in all.
const REQUESTS: u64 = 10_000;

/// What a client knows of a command when it hangs up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Not all of it was sent: it cannot have been taken.
    Cut,
    /// It was sent; nobody waited to hear.
    Sent,
    /// It was answered with success.
    Answered,
}

/// Sends a part of a command, or all of it, and hangs up at some moment.
async fn hangs_up(address: &str, dice: &mut Dice) -> (Uuid, Known) {
    let key = Uuid::now_v7();
    let request = command("POST /v1/stock/here/b/receive", key, r#"{"quantity":1}"#);
    let Ok(mut stream) = TcpStream::connect(address).await else { return (key, Known::Cut) };
    // Half of them slam the door: a reset instead of an end.
    if dice.percent(50) {
        let _ = stream.set_zero_linger();
    }
    let cut = dice.percent(25);
    let part = if cut { dice.between(0, request.len() as u64 - 1) as usize } else { request.len() };
    if stream.write_all(&request[..part]).await.is_err() || cut {
        return (key, Known::Cut);
    }
    let mut answer = [0; 64];
    let patience = Duration::from_micros(dice.between(0, 10_000));
    let known = match tokio::time::timeout(patience, stream.read(&mut answer)).await {
        Ok(Ok(16..)) if answer.starts_with(b"HTTP/1.1 200") => Known::Answered,
        _ => Known::Sent,
    };
    (key, known)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_hang_up_and_what_was_taken_has_its_effect_once() {
    let mut house = House::open(&[]).await;
    let (address, client) = (house.address(), house.client());
    let counted = client.put("/v1/stock/here/b", Uuid::now_v7(), &json!({"on_hand": 0})).await.expect("an answer");
    assert_eq!(counted.status, 201);
    let seed = knob("DOCKET_TEST_SEED", 7);
    let storm = |requests: u64, seed: u64| {
        let address = address.clone();
        async move {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|number| {
                    let (address, mut dice) = (address.clone(), Dice::new(seed, &[number]));
                    tokio::spawn(async move {
                        let mut known = Vec::new();
                        for _ in 0..requests / CLIENTS {
                            known.push(hangs_up(&address, &mut dice).await);
                        }
                        known
                    })
                })
                .collect();
            let mut known = BTreeMap::new();
            for client in clients {
                known.extend(client.await.expect("a client does not panic"));
            }
            known
        }
    };
    // A small one first: what is allocated once is not a leak.
    let mut known = storm(REQUESTS / 5, seed).await;
    let (rss, files) = (house.rss_mib(), house.open_files());
    house.calms_down(files).await;
    known.extend(storm(REQUESTS, seed + 1).await);
    house.calms_down(files).await;
    let grown = house.rss_mib().saturating_sub(rss);
    assert!(grown < 96, "{grown} MiB more than before");

    let events = client.ndjson("/v1/streams/stock-here~b/events").await.expect("a stream");
    let received: Vec<Uuid> = events
        .iter()
        .filter(|event| event["type"] == "StockReceived")
        .map(|event| event["command_id"].as_str().and_then(|id| id.parse().ok()).expect("an id"))
        .collect();
    let taken: BTreeSet<Uuid> = received.iter().copied().collect();
    assert_eq!(taken.len(), received.len(), "no command took effect twice");
    for key in &taken {
        assert!(matches!(known.get(key), Some(Known::Sent | Known::Answered)), "{key}: {:?}", known.get(key));
    }
    for (key, known) in &known {
        assert!(*known != Known::Answered || taken.contains(key), "{key} was answered with success and is not there");
    }
    let of = |wanted: Known| known.values().filter(|known| **known == wanted).count();
    eprintln!(
        "{} cut, {} sent, {} answered: {} taken; {grown} MiB more",
        of(Known::Cut),
        of(Known::Sent),
        of(Known::Answered),
        taken.len()
    );
    assert!(of(Known::Cut) > 1_000 && of(Known::Sent) > 100 && of(Known::Answered) > 100);
    let stock = client.get("/v1/stock/here/b").await.expect("an answer").body;
    assert_eq!(stock["on_hand"], taken.len() as u64, "{stock}");
    house.is_sound().await;
    house.is_well().await;
}
