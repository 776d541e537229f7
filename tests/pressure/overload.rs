//! More orders than it can take, asked for at times that do not wait for answers: as many as it can are taken all the
//! same, the others are told to come back, and afterwards it is as before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::clients::{House, PATIENCE, Times, Wire, behaves, order};

/// Few places and a short wait, so that this machine can ask for more than there is.
const SETTINGS: &[&str] = &["limits.commands_at_once=16", "timeouts.turn_ms=100"];
/// Clients that try to ask for too much.
const CLIENTS: u64 = 600;
/// How long each rate lasts.
const LASTING: Duration = Duration::from_secs(4);

/// What came of a load.
#[derive(Default)]
struct Found {
    /// How long those took that were accepted.
    accepted: Times,
    /// Told to come back as the contract says.
    turned_away: u64,
    /// Anything else: what was said.
    other: Vec<String>,
    /// Ids of what was accepted: a sample.
    keys: Vec<Uuid>,
    lasted: Duration,
}

impl Found {
    fn a_second(&self) -> f64 {
        self.accepted.count() as f64 / self.lasted.as_secs_f64()
    }
}

/// Puts it under load: with a rate each request is due at a fixed time, whatever the server does, and one that no client
/// is free for by then goes out as soon as one is; without, each client asks again at once.
async fn load(address: &str, clients: u64, rate: Option<f64>, lasting: Duration) -> Found {
    let began = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let (address, next) = (address.to_owned(), Arc::clone(&next));
            tokio::spawn(async move {
                let mut found = Found::default();
                let mut wire = None;
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let due = rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(number as f64 / rate));
                    if due > lasting || began.elapsed() > lasting {
                        return found;
                    }
                    tokio::time::sleep_until((began + due).into()).await;
                    let mut at_hand: Wire = match wire.take() {
                        Some(wire) => wire,
                        None => Wire::to(&address).await.expect("the server listens"),
                    };
                    let (key, sent) = (Uuid::now_v7(), Instant::now());
                    match at_hand.ask(&order(key)).await {
                        Some(answer) if answer.status == 201 => {
                            found.accepted.note(sent.elapsed());
                            if found.keys.len() < 2 {
                                found.keys.push(key);
                            }
                            wire = Some(at_hand);
                        }
                        Some(answer) if answer.asks_to_come_back() => {
                            found.turned_away += 1;
                            wire = Some(at_hand);
                        }
                        other => found.other.push(format!("{other:?}")),
                    }
                }
            })
        })
        .collect();
    let mut all = Found::default();
    for task in tasks {
        let found = task.await.expect("a client does not panic");
        all.accepted.add(found.accepted);
        all.turned_away += found.turned_away;
        all.other.extend(found.other);
        all.keys.extend(found.keys);
    }
    all.lasted = began.elapsed().max(lasting);
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_much_is_shed_and_the_rest_is_done_as_fast_as_ever() {
    let mut house = House::open(SETTINGS).await;
    let address = house.address();
    // Warm, then its best: enough clients to fill every place, few enough that nobody is turned away.
    load(&address, 16, None, Duration::from_secs(1)).await;
    let peak = load(&address, 24, None, LASTING).await;
    assert_eq!(peak.other, Vec::<String>::new());
    // None, but for a moment in which the machine did something else.
    assert!(peak.turned_away * 50 < peak.accepted.count() as u64, "{} turned away", peak.turned_away);
    let mut quiet = behaves(&address, Duration::from_secs(1), "/v1/orders").await;
    let (rss, files) = (house.rss_mib(), house.open_files());
    eprintln!("at its best {:.0}/s; quiet p99 {:?}; {rss} MiB, {files} files", peak.a_second(), quiet.at(99));
    let mut keys = Vec::new();
    for times in [2.0, 5.0] {
        let mut found = load(&address, CLIENTS, Some(peak.a_second() * times), LASTING).await;
        eprintln!(
            "at {times} times: {:.0}/s accepted, {} turned away, p50 {:?}, p99 {:?}",
            found.a_second(),
            found.turned_away,
            found.accepted.at(50),
            found.accepted.at(99)
        );
        assert_eq!(found.other, Vec::<String>::new(), "everybody is answered, and nobody otherwise");
        assert!(found.turned_away > 0, "it was not too much");
        // The clients take their share of the machine too: the bench tells how much is kept where they do not.
        assert!(found.a_second() > peak.a_second() * 0.3, "{:.0}/s of {:.0}/s", found.a_second(), peak.a_second());
        let bound = Duration::from_millis(100) * 10 + quiet.at(99) * 10;
        assert!(found.accepted.at(99) < bound, "{:?}, more than {bound:?}", found.accepted.at(99));
        keys.extend(found.keys);
    }
    // Back to normal: nobody is turned away any more, and nobody waits as one did.
    let began = Instant::now();
    let bound = quiet.at(99) * 5 + Duration::from_millis(50);
    loop {
        let mut after = behaves(&address, Duration::from_millis(500), "/v1/orders").await;
        if after.at(99) < bound {
            break;
        }
        assert!(began.elapsed() < PATIENCE / 3, "{:?} is still not {bound:?}", after.at(99));
    }
    house.calms_down(files).await;
    assert!(house.metric("docket_http_requests_refused_total").await > 0.0);
    let grown = house.rss_mib().saturating_sub(rss);
    assert!(grown < 192, "{grown} MiB more than before");
    // What was accepted is there.
    let client = house.client();
    for key in keys.iter().step_by(29) {
        let told = client.get(&format!("/v1/commands/{key}")).await.expect("an answer");
        assert_eq!(told.body["items"][0]["outcome"], "accepted", "{told:?}");
    }
    house.is_sound().await;
    house.is_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_looks_how_it_is_is_answered_while_it_is_too_busy_for_others() {
    let house = House::open(SETTINGS).await;
    let address = house.address();
    let loading = {
        let address = address.clone();
        tokio::spawn(async move { load(&address, 300, None, LASTING).await })
    };
    let (began, mut times) = (Instant::now(), Times::default());
    while began.elapsed() < LASTING / 2 {
        for path in ["/livez", "/readyz", "/metrics"] {
            let asked = Instant::now();
            let reply = house.client().get(path).await.expect("an answer");
            assert_eq!(reply.status, 200, "{path}");
            times.note(asked.elapsed());
        }
    }
    let found = loading.await.expect("clients do not panic");
    assert!(found.turned_away > 0 && found.other.is_empty(), "{:?}", found.other);
    assert!(times.at(90) < Duration::from_secs(5), "{:?}", times.at(90));
}
