//! Brokers that say for a while that there are none: librdkafka may then let go of all it knows, for good.

use std::time::Duration;

use engine::log::{AppendError, Log};
use engine::position::Partition;
use engine_kafka::KafkaGroup;
use xtask::kafka::Kafka;

use crate::between::Between;
use crate::owners::wait_until;
use crate::support::{PATIENCE, Writer, all, fresh_name, genesis, needs_kafka, open, options, until};

/// A record of its own: what became of it.
fn write(log: &dyn Log) -> Result<(), AppendError> {
    let mut writer = Writer::new(log, 0);
    writer.hand("probe");
    writer.settle()[0].result.map(drop)
}

#[test]
fn who_was_told_that_there_are_no_brokers_goes_on_when_there_are() {
    needs_kafka!();
    let kafka = Kafka::start(1);
    let between = Between::start(&kafka);
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = options(&fresh_name(), directory.path());
    options.brokers = between.address();
    options.delivery_timeout = Duration::from_secs(5);
    options.request_timeout = Duration::from_secs(2);
    let log = open(&options, Some(&genesis(1)));
    Writer::new(&log, 0).append_many(10, |number| format!("record {number}").into_bytes());
    let first = KafkaGroup::join(&options, 4).expect("it joins");
    wait_until(&[&first], |hints| hints[0].len() == 4);
    between.hide();
    // Each of the clients asks by and by, and is told so: the group's, the follower, the producer, and who asks on demand.
    wait_until(&[&first], |hints| hints[0].is_empty());
    until("the follower to have no broker", || log.reachable().is_err());
    until("the producer to have no broker", || write(&log) == Err(AppendError::Unknown));
    assert!(between.hidden() >= 3, "{} answers", between.hidden());
    let asked = std::thread::scope(|scope| {
        let asking = scope.spawn(|| log.end_at_broker(Partition(0)));
        // Others ask meanwhile; but by then it has lost its first client.
        let before = between.hidden();
        until("it to be told so", || between.hidden() > before + 10 || asking.is_finished());
        between.show();
        asking.join().expect("it asks")
    });
    asked.expect("who asks goes on asking by another client");
    until("a record to be taken", || write(&log).is_ok());
    until("the follower to have its leader", || log.reachable().is_ok());
    log.caught_up(PATIENCE).expect("it follows");
    let found = all(&log, 0);
    assert_eq!((&found[10][..], &found[found.len() - 1][..]), (&b"record 9"[..], &b"probe"[..]));
    let second = KafkaGroup::join(&options, 4).expect("it joins");
    wait_until(&[&first, &second], |hints| {
        hints[0].len() == 2 && hints[1].len() == 2 && hints[0].is_disjoint(&hints[1])
    });
}
