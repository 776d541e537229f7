//! The adapters in memory keep what their ports promise.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use engine::contract::{self, LogFixture, StoreFixture};
use engine::log::{AppendError, Delivery, DeliverySink, Log as _};
use engine::memory::{MemoryLog, MemoryReadStore};
use engine::position::{LogId, Offset, Partition};
use engine::record::Genesis;
use engine::time::Timestamp;
use uuid::Uuid;

fn genesis() -> Genesis {
    Genesis {
        log: LogId(Uuid::from_u128(1)),
        partitions: 12,
        placement_rule: 1,
        format: 1,
        fingerprint_key: [7; 32],
        created_at: Timestamp(1),
    }
}

#[test]
fn a_log_in_memory_keeps_the_promises_of_a_log() {
    contract::log(|| LogFixture {
        log: Arc::new(MemoryLog::new(genesis())),
        genesis: genesis(),
        // It outlives being closed as long as this process does: enough to try the cases themselves.
        reopen: Some(Box::new(|log| log)),
        keep: Box::new(()),
    });
}

#[test]
fn a_read_store_in_memory_keeps_the_promises_of_a_read_store() {
    let make = || StoreFixture {
        store: Arc::new(MemoryReadStore::new(contract::read_store::TABLES)),
        reopen: Some(Box::new(|store| Box::pin(async move { store }))),
        keep: Box::new(()),
    };
    contract::read_store(make, |mut case| {
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(case.as_mut().poll(&mut context), Poll::Ready(()), "nothing in memory waits");
    });
}

#[test]
fn there_are_enough_promises_and_no_two_bear_one_name() {
    let logs = contract::log::log_cases().into_iter().map(|case| case.name);
    let stores = contract::read_store::store_cases().into_iter().map(|case| case.name);
    let mut names = logs.chain(stores).collect::<Vec<_>>();
    assert!(names.len() >= 100, "{} promises", names.len());
    names.sort_unstable();
    assert!(names.is_sorted_by(|one, next| one < next), "two promises bear one name");
}

/// Keeps what was delivered.
#[derive(Default)]
struct Delivered(Mutex<Vec<Delivery>>);

impl DeliverySink for Delivered {
    fn delivered(&self, deliveries: Vec<Delivery>) {
        self.0.lock().expect("no test panics while delivering").extend(deliveries);
    }
}

#[test]
fn a_full_log_in_memory_takes_records_again_once_there_is_room() {
    let log = MemoryLog::with_room(genesis(), 10);
    let sink = Arc::new(Delivered::default());
    let mut appender = log.appender(Partition(3), sink.clone());
    appender.append(1, "six by".into());
    appender.append(2, "too much".into());
    appender.append(3, "four".into());
    log.add_room(8);
    appender.append(4, "too much".into());
    let results = sink.0.lock().expect("nothing panicked").iter().map(|delivery| delivery.result).collect::<Vec<_>>();
    assert_eq!(results, [Ok(Some(Offset(1))), Err(AppendError::Full), Ok(Some(Offset(2))), Ok(Some(Offset(3)))]);
    assert_eq!(log.end(Partition(3)), Offset(4));
}

#[test]
#[should_panic(expected = "a log has 1 to 1024 partitions, not 0")]
fn a_log_without_partitions_cannot_be_made() {
    MemoryLog::new(Genesis { partitions: 0, ..genesis() });
}
