//! Brokers die, freeze and are all away; a node loses its way to them while clients still reach it. What is acknowledged
//! then is what the log has, and nothing else.

use std::time::Duration;

use kit::{Cluster, Proxy};

use super::Trial;

/// The log's topic.
const TOPIC: &str = "docket.log.main";
/// How long all brokers are away (the issue).
const ALL_AWAY: Duration = Duration::from_secs(20);
/// How long one broker is frozen: longer than its session, so that others lead.
const FROZEN: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn no_broker_and_not_all_of_them_can_take_away_what_was_acknowledged() {
    let _alone = crate::one_at_a_time().await;
    let Some(mut trial) = Trial::open(3, 3, 4).await else { return };
    let shoppers = trial.shoppers();
    trial.trade(1_000, 2_000).await;

    let leader = trial.cluster.kafka.leader_of(TOPIC, 0).expect("partition 0 is led");
    trial.cluster.kafka.kill(leader);
    let without = trial.probe.wait_led(&trial.client).await;
    println!("broker {leader} killed: all partitions accept after {without:?}");
    trial.cluster.kafka.restart_dead();
    trial.cluster.kafka.wait_in_sync();
    trial.judge_so_far(1).await;

    let leader = trial.cluster.kafka.leader_of(TOPIC, 1).expect("partition 1 is led");
    trial.cluster.kafka.pause(leader);
    let without = trial.probe.wait_led(&trial.client).await;
    println!("broker {leader} frozen: all partitions accept after {without:?}");
    tokio::time::sleep(FROZEN.saturating_sub(without)).await;
    trial.cluster.kafka.resume(leader);
    trial.cluster.kafka.wait_in_sync();
    trial.judge_so_far(2).await;

    // Both at once, and the broker one that keeps the nodes' group as likely as not.
    let leader = trial.cluster.kafka.leader_of(TOPIC, 2).expect("partition 2 is led");
    trial.cluster.kafka.kill(leader);
    let printed = trial.cluster.take_node(3).kill9();
    assert!(!printed.contains("panicked"), "node-3 panicked\n{printed}");
    let without = trial.probe.wait_led(&trial.client_without(3)).await;
    println!("broker {leader} and node-3 killed together: all partitions accept after {without:?}");
    trial.cluster.kafka.restart_dead();
    trial.cluster.kafka.wait_in_sync();
    trial.cluster.start_node(3).await;
    trial.judge_so_far(3).await;

    for broker in 1..=3 {
        trial.cluster.kafka.kill(broker);
    }
    tokio::time::sleep(ALL_AWAY).await;
    trial.cluster.kafka.restart_dead();
    let back = trial.probe.wait_led(&trial.client).await;
    println!("all brokers back: all partitions accept after {back:?}");
    trial.trade(1_000, 2_000).await;
    shoppers.go_home().await;
    trial.rest_and_judge("brokers lost", 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_clients_reach_and_brokers_do_not_acknowledges_nothing_of_its_own() {
    let _alone = crate::one_at_a_time().await;
    if Trial::is_impossible() {
        return;
    }
    let mut cluster = Cluster::prepare(1, 3).await;
    let mut between = Vec::new();
    let mut bootstrap = Vec::new();
    for (port, door) in cluster.kafka.side_doors() {
        between.push(Proxy::start(port, &door).await);
        bootstrap.push(format!("127.0.0.1:{port}"));
    }
    let bootstrap = bootstrap.join(",");
    cluster.set_up(1, |node| node.kafka = Some((bootstrap, 1)));
    cluster.start_nodes().await;
    let mut trial = Trial::on(cluster, 5).await;
    let shoppers = trial.shoppers();
    for silent in [true, false] {
        trial.trade(1_500, 2_500).await;
        for proxy in &between {
            if silent { proxy.silence() } else { proxy.refuse() }
        }
        let others = trial.client_without(1);
        let elsewhere = trial.shoppers_without(1);
        let taken = trial.probe.wait_led(&others).await;
        println!("node-1 cut off from the brokers (silently: {silent}): taken over after {taken:?}");
        trial.trade(3_000, 4_000).await;
        for proxy in &between {
            proxy.pass();
        }
        trial.probe.wait_led(&trial.client).await;
        elsewhere.go_home().await;
        trial.judge_so_far(1).await;
    }
    shoppers.go_home().await;
    trial.rest_and_judge("a node cut off", 2).await;
}
