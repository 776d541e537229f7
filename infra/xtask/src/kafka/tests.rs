//! That the brokers do what the tests of others rely on: they answer, die, freeze and come back.

use super::*;

#[test]
fn a_cluster_id_has_the_length_kafka_asks_for() {
    let id = cluster_id();
    assert_eq!(id.len(), 22, "{id}");
    assert!(id.chars().all(|letter| letter.is_ascii_alphanumeric()), "{id}");
}

#[test]
fn a_broker_comes_back_after_kill_9_and_ends_with_its_owner() {
    if let Some(missing) = missing() {
        println!("SKIPPED: {missing}");
        return;
    }
    let mut kafka = Kafka::start(1);
    let first = kafka.process(1).expect("it runs");
    assert!(wire::ask(&kafka.address(1)).is_ok());
    kafka.kill(1);
    assert!(!first.is_alive());
    assert!(wire::ask(&kafka.address(1)).is_err());
    kafka.restart_dead();
    let second = kafka.process(1).expect("it runs");
    kafka.pause(1);
    drop(kafka);
    assert!(!second.is_alive(), "a paused broker outlives its owner");
}

#[test]
fn of_three_brokers_two_notice_within_seconds_that_the_third_is_paused() {
    if let Some(missing) = missing() {
        println!("SKIPPED: {missing}");
        return;
    }
    let kafka = Kafka::start(3);
    let known = kafka.ask_any().expect("one answers");
    assert_eq!(known.brokers.len(), 3);
    let controller = u8::try_from(known.controller.expect("there is one")).expect("a small id");
    kafka.pause(controller);
    let began = Instant::now();
    while kafka.ask_any().expect("one answers").brokers.len() == 3 {
        assert!(began.elapsed() < Duration::from_secs(20), "nobody misses broker {controller}");
        std::thread::sleep(LOOK_AGAIN_AFTER);
    }
    println!("the controller's pause was noticed after {:?}", began.elapsed());
    kafka.resume(controller);
    while kafka.ask_any().expect("one answers").brokers.len() < 3 {
        assert!(began.elapsed() < Duration::from_secs(40), "broker {controller} does not come back");
        std::thread::sleep(LOOK_AGAIN_AFTER);
    }
}
