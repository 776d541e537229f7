//! Appends and their deliveries.

use bytes::Bytes;

use super::tools::{Writer, marked, noise, offset_of, offsets};
use super::{LogCase, LogFixture};
use crate::contract::cases;
use crate::log::{AppendError, RECORD_BYTES_MAX};
use crate::position::Offset;
use crate::record::Record;

pub(super) const CASES: &[LogCase] = &cases![
    the_first_record_lies_after_the_genesis,
    offsets_follow_without_gaps,
    deliveries_bear_their_tags_in_the_order_of_the_appends,
    tags_may_be_any_number_and_come_again,
    every_append_is_delivered_exactly_once,
    an_idle_appender_hears_nothing,
    a_delivered_record_can_be_read_at_once,
    the_end_is_past_a_delivered_record,
    the_end_never_goes_back,
    a_record_comes_back_byte_for_byte,
    a_record_of_one_byte_is_a_record,
    a_record_of_zeros_is_a_record,
    a_record_of_ones_is_a_record,
    a_record_may_hold_other_records,
    equal_records_are_kept_apart,
    lengths_around_powers_of_two_come_back,
    the_largest_record_is_taken,
    a_record_one_byte_too_large_is_refused,
    a_refused_record_leaves_no_trace,
    refusals_are_delivered_in_their_place,
    many_large_records_come_back,
    a_burst_is_delivered_in_order,
    a_dropped_appender_is_still_answered,
    a_second_appender_goes_on_where_the_first_stopped,
    an_appender_may_move_to_another_thread,
];

fn the_first_record_lies_after_the_genesis(fixture: LogFixture) {
    assert_eq!(fixture.writer(0).append("first"), Offset(1));
}

fn offsets_follow_without_gaps(fixture: LogFixture) {
    let mut writer = fixture.writer(0);
    for number in 0..100 {
        assert_eq!(writer.append(marked(0, 0, number)), Offset(number as u64 + 1));
    }
}

fn deliveries_bear_their_tags_in_the_order_of_the_appends(fixture: LogFixture) {
    let mut writer = fixture.writer(0);
    let tags = (0..500_u64).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect::<Vec<_>>();
    for &tag in &tags {
        writer.hand_tagged(tag, tag.to_string());
    }
    assert_eq!(writer.settle(), offsets(1, 500));
    assert_eq!(writer.sink.wait_for(500).iter().map(|delivery| delivery.tag).collect::<Vec<_>>(), tags);
    assert_eq!(fixture.written(0), tags.iter().map(|tag| Bytes::from(tag.to_string())).collect::<Vec<_>>());
}

fn tags_may_be_any_number_and_come_again(fixture: LogFixture) {
    let mut writer = fixture.writer(0);
    let tags = [0, u64::MAX, 7, 7, 0];
    for tag in tags {
        writer.hand_tagged(tag, "tagged");
    }
    assert_eq!(writer.settle(), offsets(1, 5));
    assert_eq!(writer.sink.wait_for(5).iter().map(|delivery| delivery.tag).collect::<Vec<_>>(), tags);
}

fn every_append_is_delivered_exactly_once(fixture: LogFixture) {
    let mut writer = fixture.writer(0);
    for number in 0..300 {
        writer.hand(marked(0, 0, number));
    }
    writer.settle();
    // A second delivery of the first 300 would come before the first of what follows.
    writer.append("last");
    let tags = writer.sink.wait_for(301).iter().map(|delivery| delivery.tag).collect::<Vec<_>>();
    assert_eq!(tags, (0..301).collect::<Vec<_>>());
}

fn an_idle_appender_hears_nothing(fixture: LogFixture) {
    let (idle, mut busy) = (fixture.writer(0), fixture.writer(0));
    for number in 0..50 {
        busy.append(marked(0, 1, number));
    }
    assert_eq!(idle.sink.wait_for(0), []);
}

fn a_delivered_record_can_be_read_at_once(fixture: LogFixture) {
    let mut writer = fixture.writer(0);
    for number in 0..50 {
        let record = marked(0, 0, number);
        let offset = writer.append(record.clone());
        let read = fixture.read(0, offset.0, 1);
        assert_eq!((read[0].offset, &read[0].bytes), (offset, &record));
    }
}

fn the_end_is_past_a_delivered_record(fixture: LogFixture) {
    let mut writer = fixture.writer(0);
    for number in 0..50 {
        let offset = writer.append(marked(0, 0, number));
        assert_eq!(fixture.end(0), offset.next());
    }
}

fn the_end_never_goes_back(fixture: LogFixture) {
    let mut writer = fixture.writer(0);
    let mut end = fixture.end(0);
    for number in 0..500 {
        writer.hand(marked(0, 0, number));
        let now = fixture.end(0);
        assert!(now >= end, "the end went back from {end} to {now}");
        end = now;
    }
    writer.settle();
    assert_eq!(fixture.end(0), Offset(501));
}

fn a_record_comes_back_byte_for_byte(fixture: LogFixture) {
    let all = (0..=u8::MAX).collect::<Vec<_>>();
    comes_back(&fixture, &[Bytes::from(all.clone()), Bytes::from(all.into_iter().rev().collect::<Vec<_>>())]);
}

fn a_record_of_one_byte_is_a_record(fixture: LogFixture) {
    comes_back(&fixture, &[Bytes::from_static(&[0]), Bytes::from_static(&[1]), Bytes::from_static(&[255])]);
}

fn a_record_of_zeros_is_a_record(fixture: LogFixture) {
    comes_back(&fixture, &[1, 4, 40, 511, 512, 4_096, 70_000].map(|length| Bytes::from(vec![0; length])));
}

fn a_record_of_ones_is_a_record(fixture: LogFixture) {
    comes_back(&fixture, &[1, 4, 40, 511, 512, 4_096, 70_000].map(|length| Bytes::from(vec![0xff; length])));
}

fn a_record_may_hold_other_records(fixture: LogFixture) {
    let genesis = Record::genesis(fixture.genesis).encode();
    comes_back(&fixture, &[genesis.clone(), [&genesis[..], &genesis[..], b"rest"].concat().into(), genesis]);
}

fn equal_records_are_kept_apart(fixture: LogFixture) {
    comes_back(&fixture, &vec![Bytes::from_static(b"the same"); 20]);
}

fn lengths_around_powers_of_two_come_back(fixture: LogFixture) {
    let around = (0..=17).map(|power| 1_usize << power).flat_map(|length| [length - 1, length, length + 1]);
    let lengths = around.filter(|&length| length > 0);
    comes_back(&fixture, &lengths.map(|length| noise(length, length as u64)).collect::<Vec<_>>());
}

fn the_largest_record_is_taken(fixture: LogFixture) {
    comes_back(&fixture, &[noise(RECORD_BYTES_MAX, 1), noise(RECORD_BYTES_MAX - 1, 2), Bytes::from_static(b"small")]);
}

fn a_record_one_byte_too_large_is_refused(fixture: LogFixture) {
    let mut writer = fixture.writer(0);
    assert_eq!(writer.fail(noise(RECORD_BYTES_MAX + 1, 1)), AppendError::TooLarge);
    assert_eq!(writer.fail(noise(3 * RECORD_BYTES_MAX, 2)), AppendError::TooLarge);
}

fn a_refused_record_leaves_no_trace(fixture: LogFixture) {
    let mut writer = fixture.writer(0);
    assert_eq!(writer.append("before"), Offset(1));
    assert_eq!(writer.fail(noise(RECORD_BYTES_MAX + 1, 1)), AppendError::TooLarge);
    assert_eq!(fixture.end(0), Offset(2));
    assert_eq!(writer.append("after"), Offset(2));
    assert_eq!(fixture.written(0), ["before", "after"]);
}

fn refusals_are_delivered_in_their_place(fixture: LogFixture) {
    let mut writer = fixture.writer(0);
    let too_large = noise(RECORD_BYTES_MAX + 1, 1);
    for number in 0..30 {
        writer.hand(if number % 3 == 1 { too_large.clone() } else { marked(0, 0, number) });
    }
    let deliveries = writer.sink.wait_for(30);
    assert_eq!(deliveries.iter().map(|delivery| delivery.tag).collect::<Vec<_>>(), (0..30).collect::<Vec<_>>());
    let (refused, taken): (Vec<_>, Vec<_>) = deliveries.iter().partition(|delivery| delivery.tag % 3 == 1);
    assert!(refused.iter().all(|delivery| delivery.result == Err(AppendError::TooLarge)));
    assert_eq!(taken.into_iter().map(offset_of).collect::<Vec<_>>(), offsets(1, 20));
}

fn many_large_records_come_back(fixture: LogFixture) {
    let mut writer = fixture.writer(0);
    // 20 MiB: more than any buffer, and more than the first segment of a log kept in files.
    for seed in 0..20 {
        writer.hand(noise(RECORD_BYTES_MAX, seed));
    }
    assert_eq!(writer.settle(), offsets(1, 20));
    for seed in 0..20 {
        let read = fixture.read(0, seed + 1, 1);
        assert!(read[0].bytes == noise(RECORD_BYTES_MAX, seed), "large record {seed} came back otherwise");
    }
}

fn a_burst_is_delivered_in_order(fixture: LogFixture) {
    let mut writer = fixture.writer(0);
    for number in 0..10_000 {
        writer.hand(marked(0, 0, number));
    }
    assert_eq!(writer.settle(), offsets(1, 10_000));
    assert_eq!(fixture.written(0), (0..10_000).map(|number| marked(0, 0, number)).collect::<Vec<_>>());
}

fn a_dropped_appender_is_still_answered(fixture: LogFixture) {
    let sink = {
        let mut writer = fixture.writer(0);
        for number in 0..20 {
            writer.hand(marked(0, 0, number));
        }
        writer.sink.clone()
    };
    assert_eq!(sink.offsets(20), offsets(1, 20));
}

fn a_second_appender_goes_on_where_the_first_stopped(fixture: LogFixture) {
    for number in 0..10 {
        assert_eq!(fixture.writer(0).append(marked(0, number, 0)), Offset(number as u64 + 1));
    }
    assert_eq!(fixture.written(0), (0..10).map(|number| marked(0, number, 0)).collect::<Vec<_>>());
}

fn an_appender_may_move_to_another_thread(fixture: LogFixture) {
    let mut writer = fixture.writer(0);
    writer.append("here");
    let there = std::thread::spawn(move || writer.append("there"));
    assert_eq!(there.join().expect("the other thread appends"), Offset(2));
    assert_eq!(fixture.written(0), ["here", "there"]);
}

/// Each record is taken and reads as it was handed over.
fn comes_back(fixture: &LogFixture, records: &[Bytes]) {
    let mut writer: Writer = fixture.writer(0);
    for record in records {
        writer.hand(record.clone());
    }
    assert_eq!(writer.settle(), offsets(1, records.len() as u64));
    let written = fixture.written(0);
    assert_eq!(written.len(), records.len());
    for (index, (came, went)) in written.iter().zip(records).enumerate() {
        assert!(came == went, "record {index} of {} bytes came back otherwise", went.len());
    }
}
