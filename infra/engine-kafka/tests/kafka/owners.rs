//! Which node should lead what: members come and go, and all partitions are named once.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use engine::position::Partition;
use engine_kafka::KafkaGroup;

use crate::support::{PATIENCE, fresh_name, needs_kafka, options};

/// Waits until the members' hints are so.
pub(crate) fn wait_until(groups: &[&KafkaGroup], so: impl Fn(&[BTreeSet<Partition>]) -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut hints: Vec<_> = groups.iter().map(|group| group.hint()).collect();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let now: Vec<_> = hints.iter_mut().map(|hint| BTreeSet::clone(&hint.borrow_and_update())).collect();
            if so(&now) {
                return;
            }
            // Any of them may be the next to change.
            let changes = hints.iter_mut().map(|hint| Box::pin(hint.changed()));
            let mut changes: Vec<_> = changes.collect();
            let any = std::future::poll_fn(|context| {
                let ready = changes.iter_mut().any(|change| change.as_mut().poll(context).is_ready());
                if ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
            });
            tokio::time::timeout_at(deadline, any).await.unwrap_or_else(|_| panic!("it stays {now:?}"));
        }
    });
}

#[test]
fn partitions_are_shared_out_and_taken_over() {
    needs_kafka!();
    let directory = tempfile::tempdir().expect("a directory");
    let options = options(&fresh_name(), directory.path());
    let all: BTreeSet<_> = (0..6).map(Partition).collect();
    let started = Instant::now();
    let first = KafkaGroup::join(&options, 6).expect("it joins");
    wait_until(&[&first], |hints| hints[0] == all);
    eprintln!("alone after {:?}", started.elapsed());
    let started = Instant::now();
    let second = KafkaGroup::join(&options, 6).expect("it joins");
    wait_until(&[&first, &second], |hints| {
        hints[0].len() == 3 && hints[1].len() == 3 && hints[0].union(&hints[1]).count() == 6
    });
    eprintln!("shared after {:?}", started.elapsed());
    // Leaving is told, so nobody waits for a session to end.
    let started = Instant::now();
    drop(second);
    wait_until(&[&first], |hints| hints[0] == all);
    eprintln!("taken over after {:?}", started.elapsed());
}

#[test]
fn two_members_of_one_name_share_as_well() {
    needs_kafka!();
    let directory = tempfile::tempdir().expect("a directory");
    let options = options(&fresh_name(), directory.path());
    let both = [KafkaGroup::join(&options, 2).expect("it joins"), KafkaGroup::join(&options, 2).expect("it joins")];
    wait_until(&[&both[0], &both[1]], |hints| {
        hints[0].len() == 1 && hints[1].len() == 1 && hints[0].is_disjoint(&hints[1])
    });
}

#[test]
fn whoever_loses_the_group_goes_on_by_what_it_was_told_and_is_told_anew() {
    needs_kafka!();
    let kafka = xtask::kafka::Kafka::start(1);
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = options(&fresh_name(), directory.path());
    // Shorter, and a busy machine loses the group before it has found it.
    (options.brokers, options.session_timeout) = (kafka.bootstrap(), Duration::from_secs(6));
    let first = KafkaGroup::join(&options, 4).expect("it joins");
    wait_until(&[&first], |hints| hints[0].len() == 4);
    kafka.pause(1);
    let mut hint = first.hint();
    hint.mark_unchanged();
    // Its session ends on both sides, and it is told nothing: neither then nor as long again.
    let clock = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let told = clock.block_on(async { tokio::time::timeout(options.session_timeout * 2, hint.changed()).await });
    assert!(told.is_err(), "it was told to lead {:?}", hint.borrow());
    kafka.resume(1);
    let second = KafkaGroup::join(&options, 4).expect("it joins");
    wait_until(&[&first, &second], |hints| {
        hints[0].len() == 2 && hints[1].len() == 2 && hints[0].is_disjoint(&hints[1])
    });
}
