//! Requests that come twice, to several nodes at once, or late; and nodes that are restarted one after the other while nobody
//! may notice.

use std::time::{Duration, Instant};

use futures::StreamExt;
use kit::shop::{line, order, payment, reservation};
use kit::{Cluster, Proxy};
use serde_json::json;

use super::{Trial, assert_as_a_rule};
use crate::history::{Answer, Command, Verb};

/// How long a node takes to stop, as a rule.
const STOPS_WITHIN: Duration = Duration::from_secs(10);
/// Commands that are asked three times.
const ASKED_THRICE: usize = 90;
/// Commands that are asked once more at the end, and how many of them at once.
const ASKED_LATE: usize = 500;
const LATE_AT_ONCE: usize = 16;

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_under_load_fails_no_request() {
    let _alone = crate::one_at_a_time().await;
    let Some(mut trial) = Trial::open(1, 3, 7).await else { return };
    let shoppers = trial.shoppers();
    let mut stops = Vec::new();
    for number in 1..=3 {
        trial.trade(1_000, 2_000).await;
        // As a load balancer does that hears of the stop before it begins.
        trial.client.leave_out(number - 1, true);
        let began = Instant::now();
        let printed = trial.cluster.take_node(number).terminate().await;
        assert!(!printed.contains("panicked"), "node-{number} panicked\n{printed}");
        stops.push(began.elapsed());
        trial.trade(500, 1_000).await;
        trial.cluster.start_node(number).await;
        trial.client.leave_out(number - 1, false);
    }
    trial.trade(500, 1_000).await;
    shoppers.go_home().await;
    println!("rolling restart: {}", crate::house::spread(&stops));
    assert_as_a_rule("stopped", &stops, STOPS_WITHIN);
    let printed = trial.cluster.printed();
    let history = trial.rest_and_judge("rolling restart", 0).await;
    let failed = history.iter().filter(|command| command.answers.iter().any(|one| matches!(one, Answer::Unknown(_))));
    let failed: Vec<String> =
        failed.map(|command| format!("{:?} {} {:?}", command.verb, command.path, command.answers)).take(10).collect();
    assert!(failed.is_empty(), "requests failed in a rolling restart: {failed:#?}\n{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_come_twice_or_late_take_effect_once() {
    let _alone = crate::one_at_a_time().await;
    if Trial::is_impossible() {
        return;
    }
    let mut cluster = Cluster::prepare(1, 3).await;
    // Between the nodes somebody is slow now and then.
    let mut between = Vec::new();
    for number in 1..=3 {
        let port = xtask::ports::take(1).expect("a port").pop().expect("a port");
        let mut to = String::new();
        cluster.set_up(number, |node| {
            to = node.grpc.clone();
            node.advertise = Some(port.address());
        });
        between.push((Proxy::start(port.number(), &to).await, port));
    }
    cluster.start_nodes().await;
    let mut trial = Trial::on(cluster, 8).await;
    let shoppers = trial.shoppers();
    let clients: Vec<_> = (1..=3).map(|number| trial.cluster.client(number)).collect();
    for turn in 0..ASKED_THRICE {
        if turn % 6 == 0 {
            for (proxy, _) in &between {
                match trial.dice.between(1, 3) {
                    1 => proxy.pass(),
                    _ => proxy.delay(Duration::from_millis(trial.dice.between(1, 300))),
                }
            }
        }
        let key = trial.dice.uuid();
        let command = match trial.dice.between(1, 4) {
            1 => {
                let body = order("c-1", "shop-1", vec![line("beans", 1, 5)], Some("tok_ok"));
                Command::new(key, Verb::Place, "/v1/orders", body)
            }
            2 => Command::new(key, Verb::Receive, "/v1/stock/shop-2/beans/receive", json!({"quantity": 7})),
            3 => {
                let path = "/v1/stock/shop-3/reservations";
                Command::new(key, Verb::Reserve, path, reservation(&[("beans", 1)], None))
            }
            _ => Command::new(key, Verb::Authorize, "/v1/payments", payment(500, "tok_slow_50")),
        };
        let history = &trial.world.history;
        // Given up at once by one client: it arrives, and nobody waits for what becomes of it.
        let (place, _) = history.send(&clients[turn % 3], command.clone()).await;
        let again =
            (history.send_again(&clients[(turn + 1) % 3], place), history.send_again(&clients[(turn + 2) % 3], place));
        tokio::join!(again.0, again.1);
    }
    for (proxy, _) in &between {
        proxy.pass();
    }
    // Late: everything that was ever said is said once more, to whoever.
    let (history, client) = (&trial.world.history, &trial.client);
    let said = (0..history.len().min(ASKED_LATE)).filter(|place| history.command(*place).definite().is_some());
    let late = futures::stream::iter(said).map(async |place| history.send_again(client, place).await);
    late.buffer_unordered(LATE_AT_ONCE).for_each(async |_| {}).await;
    shoppers.go_home().await;
    trial.rest_and_judge("twice and late", 0).await;
}
