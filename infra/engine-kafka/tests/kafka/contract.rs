//! The promises every log makes, kept on one broker and on three.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use engine::contract::LogFixture;
use engine::contract::log::log_cases;
use engine::log::Log;
use engine_kafka::KafkaOptions;
use parking_lot::Mutex;
use xtask::kafka::Kafka;

use crate::support::{fresh_name, genesis, needs_kafka, open, options};

/// Promises looked at side by side: each waits for brokers most of its time.
const SIDE_BY_SIDE: usize = 4;

#[test]
fn it_is_a_log() {
    needs_kafka!();
    keeps_every_promise(4, |directory| options(&fresh_name(), directory));
}

#[test]
fn it_is_a_log_on_three_brokers() {
    needs_kafka!();
    let kafka = Kafka::start(3);
    keeps_every_promise(2, |directory| {
        let mut options = options(&fresh_name(), directory);
        options.brokers = kafka.bootstrap();
        options.replication = 3;
        options
    });
}

/// Holds logs of so many partitions to every promise, each a fresh one.
fn keeps_every_promise(partitions: u16, options: impl Fn(&Path) -> KafkaOptions + Sync) {
    let (cases, next, broken) = (log_cases(), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let look = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            // One that is broken hides no other.
            if catch_unwind(AssertUnwindSafe(|| (case.run)(fixture(partitions, &options)))).is_err() {
                broken.lock().push(case.name);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(look);
        }
    });
    let broken = broken.into_inner();
    assert!(broken.is_empty(), "{} of {} promises are broken: {}", broken.len(), cases.len(), broken.join(", "));
}

fn fixture(partitions: u16, options: impl Fn(&Path) -> KafkaOptions) -> LogFixture {
    let directory = tempfile::tempdir().expect("a directory");
    let (options, genesis) = (options(directory.path()), genesis(partitions));
    let log: Arc<dyn Log> = Arc::new(open(&options, Some(&genesis)));
    let reopen = move |log| {
        drop(log);
        let log: Arc<dyn Log> = Arc::new(open(&options, None));
        log
    };
    let keep: Box<dyn Any> = Box::new(directory);
    LogFixture { log, genesis, reopen: Some(Box::new(reopen)), keep }
}
