//! What a log that outlives being closed keeps. Logs that do not are not asked.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::tools::{marked, noise, offsets};
use super::{LogCase, LogFixture};
use crate::contract::cases;
use crate::log::{RECORD_BYTES_MAX, Stored};
use crate::position::Offset;

pub(super) const CASES: &[LogCase] = &cases![
    reopening_keeps_the_identity,
    reopening_a_new_log_keeps_only_the_genesis,
    reopening_keeps_every_record,
    reopening_keeps_large_records,
    appends_go_on_after_reopening,
    reopening_many_times_loses_nothing,
    reopening_twice_without_a_word_changes_nothing,
    a_waker_of_a_reopened_log_is_called,
];

impl LogFixture {
    /// Closed and opened again; `None` if this log does not outlive being closed.
    fn reopened(mut self) -> Option<Self> {
        let reopen = self.reopen.as_ref()?;
        self.log = reopen(self.log);
        Some(self)
    }

    fn everything(&self) -> BTreeMap<u16, Vec<Stored>> {
        (0..self.genesis.partitions).map(|partition| (partition, self.all_from(partition, 0))).collect()
    }
}

fn reopening_keeps_the_identity(fixture: LogFixture) {
    let Some(fixture) = fixture.reopened() else { return };
    assert_eq!(fixture.log.id(), fixture.genesis.log);
    assert_eq!(fixture.log.partitions(), fixture.genesis.partitions);
}

fn reopening_a_new_log_keeps_only_the_genesis(fixture: LogFixture) {
    let before = fixture.everything();
    let Some(fixture) = fixture.reopened() else { return };
    assert_eq!(fixture.everything(), before);
    assert_eq!(fixture.end(0), Offset(1));
}

fn reopening_keeps_every_record(fixture: LogFixture) {
    for partition in 0..fixture.genesis.partitions {
        let mut writer = fixture.writer(partition);
        for number in 0..100 + usize::from(partition) {
            writer.hand(marked(partition, 0, number));
        }
        writer.settle();
    }
    let before = fixture.everything();
    let Some(fixture) = fixture.reopened() else { return };
    assert_eq!(fixture.everything(), before);
    for (partition, stored) in before {
        assert_eq!(fixture.end(partition), Offset(stored.len() as u64));
    }
}

fn reopening_keeps_large_records(fixture: LogFixture) {
    let records = (0..12_u8).map(|seed| noise(RECORD_BYTES_MAX - usize::from(seed), u64::from(seed)));
    let records: Vec<Bytes> = records.collect();
    let mut writer = fixture.writer(0);
    for record in &records {
        writer.hand(record.clone());
    }
    writer.settle();
    drop(writer);
    let Some(fixture) = fixture.reopened() else { return };
    assert!(fixture.written(0) == records, "large records came back otherwise");
}

fn appends_go_on_after_reopening(fixture: LogFixture) {
    fixture.writer(1).append("before");
    let Some(fixture) = fixture.reopened() else { return };
    let mut writer = fixture.writer(1);
    for number in 0..20 {
        writer.hand(marked(1, 0, number));
    }
    assert_eq!(writer.settle(), offsets(2, 20));
    assert_eq!(fixture.writer(0).append("elsewhere"), Offset(1));
    assert_eq!(fixture.written(1)[0], "before");
    assert_eq!(fixture.written(1)[1..], (0..20).map(|number| marked(1, 0, number)).collect::<Vec<_>>());
}

fn reopening_many_times_loses_nothing(mut fixture: LogFixture) {
    for number in 0..8 {
        let offset = fixture.writer(0).append(marked(0, 0, number));
        assert_eq!(offset, Offset(number as u64 + 1));
        let Some(reopened) = fixture.reopened() else { return };
        fixture = reopened;
    }
    assert_eq!(fixture.written(0), (0..8).map(|number| marked(0, 0, number)).collect::<Vec<_>>());
}

fn reopening_twice_without_a_word_changes_nothing(fixture: LogFixture) {
    let mut writer = fixture.writer(0);
    for number in 0..30 {
        writer.hand(marked(0, 0, number));
    }
    writer.settle();
    drop(writer);
    let before = fixture.everything();
    let Some(fixture) = fixture.reopened().and_then(LogFixture::reopened) else { return };
    assert_eq!(fixture.everything(), before);
}

fn a_waker_of_a_reopened_log_is_called(fixture: LogFixture) {
    let Some(fixture) = fixture.reopened() else { return };
    let calls = std::sync::Arc::new(super::tools::Watched::<u64>::default());
    let counted = calls.clone();
    let guard = fixture.log.on_append(std::sync::Arc::new(move || counted.change(|calls| *calls += 1)));
    fixture.writer(0).append("wake up");
    calls.wait_until("a call of the waker", |calls| (*calls > 0).then_some(()));
    drop(guard);
}
