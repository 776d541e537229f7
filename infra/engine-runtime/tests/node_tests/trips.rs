//! What streams owe is carried out: at once, after failures, and across restarts.

use std::time::Duration;

use engine::message::NoAnswer;
use engine::ports::Clock;
use engine::position::Version;
use engine::stream::Tenant;
use engine_runtime::store::Direction;
use tokio::time::timeout;

use crate::business::{Wish, step};
use crate::house::{House, PARTITIONS, add, asked, decided, id, jar, trip, until};

fn start(name: &str) -> Wish {
    Wish::StartTrip { trip: trip(name), jar: jar(name) }
}

#[tokio::test]
async fn a_trip_runs_to_its_end() {
    let house = House::new();
    let node = house.node().await;
    let first = id();
    decided(node.submit(asked(first, start("a"))).await);
    let ended = until(&node, &trip("a"), |thing| thing.rung().is_some()).await;
    assert_eq!(ended.rung(), Some("ring: done"));
    assert_eq!(until(&node, &jar("a"), |thing| thing.filled() > 0).await.filled(), 1);
    assert_eq!(*house.bell.calls.lock(), [step(&trip("a"), "ring")]);
}

#[tokio::test]
async fn what_a_trip_causes_says_so() {
    let house = House::new();
    let node = house.node().await;
    let first = id();
    decided(node.submit(asked(first, start("a"))).await);
    until(&node, &trip("a"), |thing| thing.rung().is_some()).await;
    // Draining saves everything.
    node.drain(crate::house::LONG).await;
    let (from, to) = (Version(1), Version(1));
    let filled = node.history().read_stream(&Tenant::default(), &jar("a"), from, to, Direction::Forward, 1).await;
    let provenance = filled.unwrap().remove(0).provenance;
    assert_eq!((provenance.correlation_id, provenance.causation_id), (Some(first), Some(first)));
    assert_eq!(provenance.actor.as_deref(), Some("a test"));
}

#[tokio::test]
async fn a_call_that_fails_is_made_again_under_the_same_key() {
    let house = House::new();
    house.bell.fail(3);
    let node = house.node().await;
    decided(node.submit(asked(id(), start("a"))).await);
    until(&node, &trip("a"), |thing| thing.rung().is_some()).await;
    assert_eq!(*house.bell.calls.lock(), [step(&trip("a"), "ring"); 4]);
}

#[tokio::test]
async fn a_trip_cut_off_in_the_middle_goes_on_after_the_restart() {
    for lose in [false, true] {
        let house = House::new();
        house.bell.be_silent();
        let node = house.node().await;
        decided(node.submit(asked(id(), start("a"))).await);
        // Filled, and ringing at a silent bell.
        while house.bell.calls.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        node.abandon().await;
        drop(node);
        if lose {
            house.lose_the_state();
        }
        house.bell.answer_again();
        let node = house.node().await;
        until(&node, &trip("a"), |thing| thing.rung().is_some()).await;
        assert_eq!(until(&node, &jar("a"), |_| true).await.filled(), 1);
        assert!(node.drain(crate::house::LONG).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_trips_run_through_few_permits() {
    let mut house = House::new();
    house.options.errands_max = 4;
    // However slow the machine is, all of them begin.
    house.options.late_max = crate::house::LONG;
    let node = house.node().await;
    for number in 0..100 {
        decided(node.submit(asked(id(), start(&number.to_string()))).await);
    }
    for number in 0..100 {
        until(&node, &trip(&number.to_string()), |thing| thing.rung().is_some()).await;
    }
}

#[tokio::test]
async fn a_partition_full_of_trips_begins_no_more_and_ends_those_it_has() {
    let mut house = House::new();
    house.options.open_max = 1;
    house.bell.be_silent();
    let node = house.node().await;
    let (mut begun, mut held_back) = (Vec::new(), Vec::new());
    // One more than there are partitions: two of them meet.
    for number in 0..=PARTITIONS {
        let (name, key) = (number.to_string(), id());
        match node.submit(asked(key, start(&name))).await {
            Err(NoAnswer::Overloaded) => held_back.push((name, key)),
            answer => {
                assert!(decided(answer).outcome.is_accepted());
                begun.push((name, key));
            }
        }
    }
    assert!(!held_back.is_empty() && begun.len() + held_back.len() > usize::from(PARTITIONS));
    // What is known is told, and everything else is done.
    let (name, key) = &begun[0];
    assert!(decided(node.submit(asked(*key, start(name))).await).replayed);
    decided(node.submit(asked(id(), add(&held_back[0].0, 1))).await);
    house.bell.answer_again();
    for (name, _) in &begun {
        until(&node, &trip(name), |thing| thing.rung().is_some()).await;
    }
    for (name, key) in &held_back {
        let later = decided(node.submit(asked(*key, start(name))).await);
        assert!(!later.replayed, "nothing was recorded of it");
        until(&node, &trip(name), |thing| thing.rung().is_some()).await;
    }
}

#[tokio::test]
async fn while_steps_are_late_no_more_trips_begin() {
    let mut house = House::new();
    house.options.errands_max = 1;
    house.options.late_max = Duration::from_millis(1);
    house.bell.be_silent();
    let node = house.node().await;
    let mut begun = 0;
    let crowded = async {
        loop {
            let (name, key) = (begun.to_string(), id());
            match node.submit(asked(key, start(&name))).await {
                Err(NoAnswer::Overloaded) => break (name, key),
                answer => drop(decided(answer)),
            }
            begun += 1;
        }
    };
    let (name, key) = timeout(crate::house::LONG, crowded).await.expect("some are held back");
    decided(node.submit(asked(id(), add("a", 1))).await);
    house.bell.answer_again();
    for number in 0..begun {
        until(&node, &trip(&number.to_string()), |thing| thing.rung().is_some()).await;
    }
    let again = async { while matches!(node.submit(asked(key, start(&name))).await, Err(NoAnswer::Overloaded)) {} };
    timeout(crate::house::LONG, again).await.expect("it begins once nothing is late");
    until(&node, &trip(&name), |thing| thing.rung().is_some()).await;
}

#[tokio::test]
async fn an_alarm_fires_when_due() {
    let house = House::new();
    let node = house.node().await;
    let due = house.clock.now().plus_ms(30);
    decided(node.submit(asked(id(), Wish::SetAlarm { trip: trip("a"), due })).await);
    until(&node, &trip("a"), |thing| thing.woken() == 1).await;
    assert!(house.clock.now() >= due);
}

#[tokio::test]
async fn an_alarm_fires_once_after_a_restart_and_a_clock_jump() {
    let house = House::new();
    let node = house.node().await;
    let due = house.clock.now().plus_ms(3_600_000);
    decided(node.submit(asked(id(), Wish::SetAlarm { trip: trip("a"), due })).await);
    node.abandon().await;
    drop(node);
    let node = house.node().await;
    house.clock.forward(Duration::from_secs(3_601));
    let woken = until(&node, &trip("a"), |thing| thing.woken() > 0).await;
    assert_eq!(woken.woken(), 1);
    assert!(node.drain(crate::house::LONG).await);
    drop(node);
    let node = house.node().await;
    assert_eq!(until(&node, &trip("a"), |_| true).await.woken(), 1);
}
