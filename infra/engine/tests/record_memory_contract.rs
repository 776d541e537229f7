//! The adapters in memory keep what their ports promise.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use engine::contract::{self, LogFixture, StoreFixture};
use engine::memory::{MemoryLog, MemoryReadStore};
use engine::position::LogId;
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
