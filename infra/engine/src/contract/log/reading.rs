//! Reads, alone and beside appends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::tools::{PLENTY_BYTES, all_from, marked, noise, offsets};
use super::{LogCase, LogFixture};
use crate::contract::cases;
use crate::log::{RECORD_BYTES_MAX, Stored};
use crate::position::Offset;

pub(super) const CASES: &[LogCase] = &cases![
    a_read_from_any_offset_gives_what_follows,
    a_read_from_the_end_is_empty,
    a_read_past_the_end_is_empty,
    a_read_gives_at_least_one_record,
    a_read_of_one_large_record_gives_it_whole,
    a_read_keeps_to_its_bytes,
    a_read_with_room_gives_more_than_one,
    pages_of_any_size_give_each_record_once,
    reading_twice_gives_the_same,
    readers_see_only_what_will_stay,
    a_reader_follows_a_writer_to_the_last_record,
];

/// Writes records of 100 bytes to partition 0.
fn write_hundreds(fixture: &LogFixture, count: u64) {
    let mut writer = fixture.writer(0);
    for seed in 0..count {
        writer.hand(noise(100, seed));
    }
    assert_eq!(writer.settle(), offsets(1, count));
}

fn a_read_from_any_offset_gives_what_follows(fixture: LogFixture) {
    write_hundreds(&fixture, 60);
    let all = fixture.all_from(0, 0);
    for from in 0..=61 {
        let found = fixture.all_from(0, from);
        assert_eq!(found, all[usize::try_from(from).expect("it is small")..]);
    }
}

fn a_read_from_the_end_is_empty(fixture: LogFixture) {
    assert_eq!(fixture.read(0, 1, PLENTY_BYTES), []);
    write_hundreds(&fixture, 10);
    assert_eq!(fixture.read(0, 11, PLENTY_BYTES), []);
}

fn a_read_past_the_end_is_empty(fixture: LogFixture) {
    write_hundreds(&fixture, 10);
    for from in [12, 1_000, u64::from(u32::MAX), 1 << 52] {
        assert_eq!(fixture.read(0, from, PLENTY_BYTES), []);
    }
}

fn a_read_gives_at_least_one_record(fixture: LogFixture) {
    write_hundreds(&fixture, 10);
    for from in 0..=10 {
        for bytes_max in [0, 1, 99] {
            let found = fixture.read(0, from, bytes_max);
            assert_eq!(found.iter().map(|stored| stored.offset).collect::<Vec<_>>(), [Offset(from)]);
        }
    }
}

fn a_read_of_one_large_record_gives_it_whole(fixture: LogFixture) {
    let mut writer = fixture.writer(0);
    writer.append(noise(RECORD_BYTES_MAX, 1));
    writer.append("small");
    assert!(fixture.read(0, 1, 10)[0].bytes == noise(RECORD_BYTES_MAX, 1), "the large record came back otherwise");
}

fn a_read_keeps_to_its_bytes(fixture: LogFixture) {
    write_hundreds(&fixture, 60);
    for bytes_max in [100, 101, 199, 200, 1_000, 2_550] {
        let found = fixture.read(0, 1, bytes_max);
        let bytes = found.iter().map(|stored| stored.bytes.len()).sum::<usize>();
        assert!(found.len() == 1 || bytes <= bytes_max, "{bytes} bytes where {bytes_max} were asked for");
    }
}

fn a_read_with_room_gives_more_than_one(fixture: LogFixture) {
    write_hundreds(&fixture, 60);
    // Ten times what the records take: whatever an adapter adds to each, all fit.
    let found = fixture.read(0, 1, 60_000);
    assert_eq!(found.into_iter().map(|stored| stored.offset).collect::<Vec<_>>(), offsets(1, 60));
}

fn pages_of_any_size_give_each_record_once(fixture: LogFixture) {
    let mut writer = fixture.writer(1);
    for number in 0..80 {
        writer.hand(noise(1 + number * 37 % 500, number as u64));
    }
    writer.settle();
    let all = fixture.all_from(1, 0);
    assert_eq!(all.len(), 81);
    for bytes_max in [1, 50, 333, 4_096, 65_536] {
        assert_eq!(all_from(fixture.log.as_ref(), 1, 0, bytes_max), all);
    }
}

fn reading_twice_gives_the_same(fixture: LogFixture) {
    write_hundreds(&fixture, 60);
    assert_eq!(fixture.all_from(0, 0), fixture.all_from(0, 0));
    assert_eq!(fixture.read(0, 7, 500), fixture.read(0, 7, 500));
}

/// Tells the readers that nothing more will come, also if the writer panics: they would read on for ever.
struct Writing<'a>(&'a AtomicBool);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn readers_see_only_what_will_stay(fixture: LogFixture) {
    let done = AtomicBool::new(false);
    let mut writer = fixture.writer(0);
    let log = fixture.log.as_ref();
    thread::scope(|scope| {
        let writing = Writing(&done);
        let readers = [1, 400, 100_000].map(|bytes_max| {
            let done = &done;
            scope.spawn(move || {
                let mut seen: Vec<Stored> = Vec::new();
                loop {
                    let last_round = done.load(Ordering::SeqCst);
                    seen.extend(all_from(log, 0, seen.len() as u64, bytes_max));
                    if last_round {
                        return seen;
                    }
                }
            })
        });
        for number in 0..500 {
            writer.hand(marked(0, 0, number));
            if number % 25 == 0 {
                writer.settle();
            }
        }
        writer.settle();
        drop(writing);
        let all = all_from(log, 0, 0, PLENTY_BYTES);
        for reader in readers {
            assert_eq!(reader.join().expect("the reader reads"), all);
        }
    });
}

fn a_reader_follows_a_writer_to_the_last_record(fixture: LogFixture) {
    let done = AtomicBool::new(false);
    let mut writer = fixture.writer(1);
    let log = fixture.log.as_ref();
    thread::scope(|scope| {
        let writing = Writing(&done);
        let reader = scope.spawn(|| {
            let mut next = 0;
            loop {
                // Asked before reading: what was settled by then is there, so one more round is the last.
                let last_round = done.load(Ordering::SeqCst);
                next += all_from(log, 1, next, 1_000).len() as u64;
                if last_round {
                    return next;
                }
                thread::yield_now();
            }
        });
        for number in 0..300 {
            writer.hand(marked(1, 0, number));
        }
        writer.settle();
        drop(writing);
        assert_eq!(reader.join().expect("the reader reads"), 301);
    });
}
