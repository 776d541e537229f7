//! Identity, genesis, and many partitions and writers at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use bytes::Bytes;

use super::tools::{Sink, Writer, marked, offset_of, offsets};
use super::{LogCase, LogFixture};
use crate::contract::cases;
use crate::fold::Verdict;
use crate::position::{Checkpoint, Offset, Partition};
use crate::record::{Body, Header, Record};

pub(super) const CASES: &[LogCase] = &cases![
    a_log_says_what_it_was_made_with,
    every_partition_begins_with_the_genesis,
    a_new_partition_holds_nothing_but_the_genesis,
    the_genesis_counts_for_the_fold,
    partitions_count_their_own_offsets,
    records_stay_in_their_partition,
    a_partition_nobody_wrote_stays_as_it_was,
    one_sink_may_serve_all_partitions,
    two_appenders_share_one_order,
    each_sink_hears_of_its_own_appends_only,
    writers_on_many_threads_lose_nothing,
    writers_on_many_threads_may_share_a_partition,
];

fn a_log_says_what_it_was_made_with(fixture: LogFixture) {
    assert_eq!(fixture.log.id(), fixture.genesis.log);
    assert_eq!(fixture.log.partitions(), fixture.genesis.partitions);
    assert!(fixture.genesis.partitions >= 2, "a fixture has at least two partitions");
}

fn every_partition_begins_with_the_genesis(fixture: LogFixture) {
    for partition in 0..fixture.genesis.partitions {
        let first = &fixture.read(partition, 0, 1)[0];
        assert_eq!(first.offset, Offset(0));
        let record = Record::decode(&first.bytes).expect("the genesis can be read");
        assert_eq!(record.body, Body::Genesis(fixture.genesis));
    }
}

fn a_new_partition_holds_nothing_but_the_genesis(fixture: LogFixture) {
    for partition in 0..fixture.genesis.partitions {
        assert_eq!(fixture.end(partition), Offset(1));
        assert_eq!(fixture.all_from(partition, 0).len(), 1);
    }
}

fn the_genesis_counts_for_the_fold(fixture: LogFixture) {
    let first = &fixture.read(0, 0, 1)[0];
    let header = Header::decode(&first.bytes).expect("the genesis can be read");
    assert_eq!(Checkpoint::default().accept(&header), Verdict::Effective);
}

fn partitions_count_their_own_offsets(fixture: LogFixture) {
    for partition in 0..fixture.genesis.partitions {
        let mut writer = fixture.writer(partition);
        for number in 0..5 {
            assert_eq!(writer.append(marked(partition, 0, number)), Offset(number as u64 + 1));
        }
    }
}

fn records_stay_in_their_partition(fixture: LogFixture) {
    let mut writers = (0..fixture.genesis.partitions).map(|partition| fixture.writer(partition)).collect::<Vec<_>>();
    for number in 0..100 {
        for (writer, partition) in writers.iter_mut().zip(0..) {
            writer.hand(marked(partition, 0, number));
        }
    }
    for (writer, partition) in writers.iter().zip(0..) {
        assert_eq!(writer.settle(), offsets(1, 100));
        let expected = (0..100).map(|number| marked(partition, 0, number)).collect::<Vec<_>>();
        assert_eq!(fixture.written(partition), expected);
    }
}

fn a_partition_nobody_wrote_stays_as_it_was(fixture: LogFixture) {
    let last = fixture.genesis.partitions - 1;
    let mut writer = fixture.writer(last);
    for number in 0..50 {
        writer.append(marked(last, 0, number));
    }
    for partition in 0..last {
        assert_eq!(fixture.end(partition), Offset(1));
        assert_eq!(fixture.read(partition, 1, 1_000), []);
    }
    assert_eq!(fixture.end(last), Offset(51));
}

fn one_sink_may_serve_all_partitions(fixture: LogFixture) {
    let sink = Arc::new(Sink::default());
    let count = u64::from(fixture.genesis.partitions);
    let mut appenders = (0..fixture.genesis.partitions)
        .map(|partition| fixture.log.appender(Partition(partition), sink.clone()))
        .collect::<Vec<_>>();
    for number in 0..50_u64 {
        for (appender, partition) in appenders.iter_mut().zip(0..) {
            appender.append(number * count + partition, Bytes::from_static(b"shared"));
        }
    }
    let mut next = vec![0_u64; appenders.len()];
    for delivery in sink.wait_for(50 * appenders.len()) {
        let partition = usize::try_from(delivery.tag % count).expect("partitions are few");
        assert_eq!(delivery.tag / count, next[partition], "in order within partition {partition}");
        next[partition] += 1;
        assert_eq!(offset_of(&delivery), Offset(next[partition]));
    }
}

fn two_appenders_share_one_order(fixture: LogFixture) {
    let (mut one, mut other) = (fixture.writer(0), fixture.writer(0));
    for number in 0..100 {
        one.hand(marked(0, 1, number));
        other.hand(marked(0, 2, number));
    }
    holds_exactly(&fixture, &[(1, one.settle()), (2, other.settle())]);
}

fn each_sink_hears_of_its_own_appends_only(fixture: LogFixture) {
    let (mut one, mut other) = (fixture.writer(0), fixture.writer(0));
    one.hand_tagged(11, "one");
    other.hand_tagged(22, "other");
    one.hand_tagged(12, "one");
    one.settle();
    other.settle();
    let tags = |writer: &Writer, count| writer.sink.wait_for(count).iter().map(|d| d.tag).collect::<Vec<_>>();
    assert_eq!(tags(&one, 2), [11, 12]);
    assert_eq!(tags(&other, 1), [22]);
}

fn writers_on_many_threads_lose_nothing(fixture: LogFixture) {
    let partitions = fixture.genesis.partitions.min(8);
    thread::scope(|scope| {
        for partition in 0..partitions {
            let mut writer = fixture.writer(partition);
            scope.spawn(move || {
                for number in 0..200 {
                    writer.hand(marked(partition, 0, number));
                    if number % 20 == 0 {
                        writer.settle();
                    }
                }
                assert_eq!(writer.settle(), offsets(1, 200));
            });
        }
    });
    for partition in 0..partitions {
        let expected = (0..200).map(|number| marked(partition, 0, number)).collect::<Vec<_>>();
        assert_eq!(fixture.written(partition), expected);
    }
}

fn writers_on_many_threads_may_share_a_partition(fixture: LogFixture) {
    let settled = thread::scope(|scope| {
        let threads = [1, 2, 3, 4].map(|name| {
            let mut writer = fixture.writer(0);
            let work = move || {
                for number in 0..100 {
                    writer.hand(marked(0, name, number));
                    if number % 10 == name {
                        writer.settle();
                    }
                }
                (name, writer.settle())
            };
            scope.spawn(work)
        });
        threads.map(|thread| thread.join().expect("every writer settles"))
    });
    holds_exactly(&fixture, &settled);
}

/// Partition 0 holds what these writers wrote where they were told, in the order of each, and nothing else.
fn holds_exactly(fixture: &LogFixture, writers: &[(usize, Vec<Offset>)]) {
    let mut expected = BTreeMap::new();
    for (name, offsets) in writers {
        assert!(offsets.is_sorted_by(|one, next| one < next), "offsets of one writer rise");
        for (number, offset) in offsets.iter().enumerate() {
            assert_eq!(expected.insert(*offset, marked(0, *name, number)), None, "no offset is given twice");
        }
    }
    let found = fixture.all_from(0, 1).into_iter().map(|stored| (stored.offset, stored.bytes));
    assert_eq!(found.collect::<BTreeMap<_, _>>(), expected);
}
