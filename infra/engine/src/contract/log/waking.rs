//! Wakers: whoever waits for the log to grow hears of it, and only while they listen.

use std::sync::Arc;

use super::tools::{Watched, marked};
use super::{LogCase, LogFixture};
use crate::contract::cases;
use crate::log::WakerGuard;
use crate::position::Offset;

pub(super) const CASES: &[LogCase] = &cases![
    a_waker_is_called_after_an_append,
    every_move_of_the_end_is_followed_by_a_call,
    a_woken_reader_finds_the_record,
    a_waker_hears_of_every_partition,
    every_waker_is_called,
    a_waker_that_comes_late_hears_of_what_comes_later,
    a_dropped_guard_is_silent,
    dropping_one_guard_leaves_the_others,
    a_waker_may_come_and_go_while_records_are_appended,
];

/// Counts its calls.
struct Counting {
    calls: Arc<Watched<u64>>,
    guard: WakerGuard,
}

impl Counting {
    fn new(fixture: &LogFixture) -> Self {
        let calls = Arc::new(Watched::default());
        let counted = calls.clone();
        let guard = fixture.log.on_append(Arc::new(move || counted.change(|calls| *calls += 1)));
        Self { calls, guard }
    }

    fn calls(&self) -> u64 {
        self.calls.change(|calls| *calls)
    }

    fn wait_past(&self, before: u64) {
        self.calls.wait_until("a call of the waker", |calls| (*calls > before).then_some(()));
    }
}

fn a_waker_is_called_after_an_append(fixture: LogFixture) {
    let waker = Counting::new(&fixture);
    fixture.writer(0).append("wake up");
    waker.wait_past(0);
}

fn every_move_of_the_end_is_followed_by_a_call(fixture: LogFixture) {
    let waker = Counting::new(&fixture);
    let mut writer = fixture.writer(0);
    for number in 0..30 {
        // Calls for earlier records are over or will be merged with this one's; the one that counts comes after.
        let before = waker.calls();
        writer.append(marked(0, 0, number));
        waker.wait_past(before);
    }
}

fn a_woken_reader_finds_the_record(fixture: LogFixture) {
    let waker = Counting::new(&fixture);
    let mut writer = fixture.writer(0);
    for number in 0..30 {
        writer.hand(marked(0, 0, number));
        let wanted = Offset(number as u64 + 2);
        let mut before = 0;
        // Looks again only when called: were a call missing, this would wait in vain.
        while fixture.end(0) < wanted {
            waker.wait_past(before);
            before = waker.calls();
        }
        assert_eq!(fixture.read(0, wanted.0 - 1, 1)[0].bytes, marked(0, 0, number));
    }
}

fn a_waker_hears_of_every_partition(fixture: LogFixture) {
    let waker = Counting::new(&fixture);
    for partition in 0..fixture.genesis.partitions {
        let before = waker.calls();
        fixture.writer(partition).append("wake up");
        waker.wait_past(before);
    }
}

fn every_waker_is_called(fixture: LogFixture) {
    let wakers = [(); 5].map(|()| Counting::new(&fixture));
    fixture.writer(0).append("wake up");
    for waker in &wakers {
        waker.wait_past(0);
    }
}

fn a_waker_that_comes_late_hears_of_what_comes_later(fixture: LogFixture) {
    let mut writer = fixture.writer(0);
    writer.append("before");
    let waker = Counting::new(&fixture);
    let before = waker.calls();
    writer.append("after");
    waker.wait_past(before);
}

fn a_dropped_guard_is_silent(fixture: LogFixture) {
    let Counting { calls, guard } = Counting::new(&fixture);
    let mut writer = fixture.writer(0);
    writer.append("heard");
    calls.wait_until("a call of the waker", |calls| (*calls > 0).then_some(()));
    drop(guard);
    // A call that was under way when the guard was dropped is over once a later waker was called twice.
    let later = Counting::new(&fixture);
    for _ in 0..2 {
        let before = later.calls();
        writer.append("settling");
        later.wait_past(before);
    }
    let settled = calls.change(|calls| *calls);
    for number in 0..20 {
        let before = later.calls();
        writer.append(marked(0, 0, number));
        later.wait_past(before);
    }
    assert_eq!(calls.change(|calls| *calls), settled);
}

fn dropping_one_guard_leaves_the_others(fixture: LogFixture) {
    let (one, two, three) = (Counting::new(&fixture), Counting::new(&fixture), Counting::new(&fixture));
    drop(two);
    fixture.writer(0).append("wake up");
    one.wait_past(0);
    three.wait_past(0);
}

fn a_waker_may_come_and_go_while_records_are_appended(fixture: LogFixture) {
    let mut writer = fixture.writer(0);
    let steady = Counting::new(&fixture);
    std::thread::scope(|scope| {
        let appending = scope.spawn(move || {
            for number in 0..200 {
                writer.hand(marked(0, 0, number));
            }
            writer.settle();
        });
        for _ in 0..200 {
            drop(Counting::new(&fixture));
        }
        appending.join().expect("the writer settles");
    });
    steady.wait_past(0);
}
