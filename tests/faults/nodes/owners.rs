//! Nodes that own partitions are killed, frozen, and given the name of another. Others take over within seconds, and whoever
//! comes back from a sleep knows that it may have lost everything meanwhile.

use futures::future::join_all;
use kit::{Cluster, knob};
use uuid::Uuid;

use super::{TAKEN_OVER_WITHIN, Trial, assert_as_a_rule};
use crate::house::spread;

/// How many kills the tests do.
const KILLS: u64 = 3;
/// How many freezes.
const FREEZES: u64 = 2;
/// Commands that are asked of a node that is asleep.
const ASKED_ASLEEP: usize = 24;

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_any_node_loses_nothing_and_its_work_is_taken_over() {
    let _alone = crate::one_at_a_time().await;
    let kills = knob("DOCKET_TEST_NODE_KILLS", KILLS);
    let Some(mut trial) = Trial::open(1, 3, 1).await else { return };
    let mut taken_over = Vec::new();
    let shoppers = trial.shoppers();
    for kill in 0..kills {
        trial.trade(1_000, 2_500).await;
        let victim = usize::try_from(trial.dice.between(1, 3)).expect("a node");
        let printed = trial.cluster.take_node(victim).kill9();
        assert!(!printed.contains("panicked"), "kill {kill}: node-{victim} panicked\n{printed}");
        let others = trial.client_without(victim);
        taken_over.push(trial.probe.wait_led(&others).await);
        let witness = victim % 3 + 1;
        trial.judge_so_far(witness).await;
        trial.cluster.start_node(victim).await;
    }
    shoppers.go_home().await;
    println!("{kills} kills of nodes: taken over {}", spread(&taken_over));
    assert_as_a_rule("taken over from the dead", &taken_over, TAKEN_OVER_WITHIN);
    trial.rest_and_judge("kills of nodes", usize::try_from(kills).expect("some kills")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_slept_answers_nothing_from_before() {
    let _alone = crate::one_at_a_time().await;
    let Some(mut trial) = Trial::open(1, 3, 2).await else { return };
    let mut taken_over = Vec::new();
    let shoppers = trial.shoppers();
    for freeze in 0..FREEZES {
        trial.trade(1_000, 2_000).await;
        let sleeper = usize::try_from(trial.dice.between(1, 3)).expect("a node");
        let (direct, others) = (trial.cluster.client(sleeper), trial.client_without(sleeper));
        trial.cluster.node(sleeper).pause();
        let elsewhere = trial.shoppers_without(sleeper);
        // Its door is open while it sleeps: these lie in its sockets, and their shelves are led by others when it wakes.
        let asleep: Vec<_> = trial
            .probe
            .0
            .values()
            .cycle()
            .take(ASKED_ASLEEP)
            .map(|path| {
                let (direct, path) = (direct.clone(), format!("{path}/receive"));
                tokio::spawn(async move {
                    let body = serde_json::json!({"quantity": 1});
                    direct.post(&path, Uuid::now_v7(), &body).await
                })
            })
            .collect();
        taken_over.push(trial.probe.wait_led(&others).await);
        trial.trade(500, 2_000).await;
        // What the others accepted while it slept.
        let accepted: Vec<Uuid> = {
            let mut keys = Vec::new();
            for path in trial.probe.0.values() {
                let key = Uuid::now_v7();
                let body = serde_json::json!({"quantity": 1});
                let reply = others.post(&format!("{path}/receive"), key, &body).await.expect("an answer");
                assert_eq!(reply.status, 200, "freeze {freeze}: {}", reply.body);
                keys.push(key);
            }
            keys
        };
        trial.cluster.node(sleeper).resume();
        let asked = accepted.iter().map(async |key| {
            let reply = direct.get(&format!("/v1/commands/{key}")).await;
            let status = reply.as_ref().map_or(0, |reply| reply.status);
            // Known, or not known yet; never "never heard of it".
            assert!(matches!(status, 0 | 200 | 503 | 504), "freeze {freeze}: {key} was accepted and then {reply:?}");
        });
        join_all(asked).await;
        for task in asleep {
            let reply = task.await.expect("a client does not panic");
            let status = reply.as_ref().map_or(0, |reply| reply.status);
            assert!(matches!(status, 0 | 200 | 503 | 504), "freeze {freeze}: asked asleep, answered {reply:?}");
        }
        elsewhere.go_home().await;
        trial.judge_so_far(sleeper).await;
    }
    shoppers.go_home().await;
    println!("{FREEZES} freezes of nodes: taken over {}", spread(&taken_over));
    assert_as_a_rule("taken over from sleepers", &taken_over, TAKEN_OVER_WITHIN);
    trial.rest_and_judge("freezes of nodes", usize::try_from(FREEZES).expect("some")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_with_one_name_harm_nobody() {
    let _alone = crate::one_at_a_time().await;
    if Trial::is_impossible() {
        return;
    }
    let mut cluster = Cluster::prepare(1, 3).await;
    cluster.set_up(2, |node| node.name = "node-1".to_owned());
    // One after the other: they share a name, and so the file with their configuration.
    for number in 1..=3 {
        cluster.start_node(number).await;
    }
    let mut trial = Trial::on(cluster, 3).await;
    let shoppers = trial.shoppers();
    trial.trade(2_000, 3_000).await;
    for sleeper in [1, 2] {
        trial.cluster.node(sleeper).pause();
        let others = trial.client_without(sleeper);
        trial.probe.wait_led(&others).await;
        trial.cluster.node(sleeper).resume();
        trial.trade(1_000, 2_000).await;
    }
    let _ = trial.cluster.take_node(1).kill9();
    let others = trial.client_without(1);
    trial.probe.wait_led(&others).await;
    trial.cluster.start_node(1).await;
    trial.trade(500, 1_000).await;
    shoppers.go_home().await;
    trial.rest_and_judge("two with one name", 3).await;
}
