//! History reads what happened and only what counts, and folds it as the shards did.

use std::sync::Arc;

use engine::position::{Checkpoint, Partition, Position, Version};
use engine::record::Commit;
use engine::stream::Tenant;
use engine_runtime::history::{History, HistoryFault};
use engine_runtime::store::{Direction, StoreFault};

use crate::toy::{Happened, Sum, Toy};
use crate::world::{World, stream, tenant};

fn history_of(world: World) -> (History<Toy>, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = world.open(directory.path());
    store.save(&world.effective).unwrap();
    (History::new(Arc::new(world.log), Arc::new(store), 16), directory)
}

async fn versions(history: &History<Toy>, from: u64, to: u64, direction: Direction, limit: usize) -> Vec<u64> {
    let (from, to) = (Version(from), Version(to));
    let events = history.read_stream(&Tenant::default(), &stream("count-1~1"), from, to, direction, limit).await;
    events.unwrap().iter().map(|event| event.meta.version.0).collect()
}

#[tokio::test]
async fn a_stream_is_read_both_ways_from_and_to_any_version() {
    let mut world = World::new(2);
    for number in 0..600 {
        let added = Happened::Added(number);
        // Two of this stream, one of another in the same record, and a stranger in between.
        world.happen(&[("count-1~2", added.clone()), ("count-1~1", added.clone()), ("count-1~1", added.clone())]);
        world.happen(&[("count-1~3", added)]);
    }
    let (history, _directory) = history_of(world);
    assert_eq!(versions(&history, 1, u64::MAX, Direction::Forward, 9_999).await, (1..=1_200).collect::<Vec<_>>());
    assert_eq!(
        versions(&history, 1, u64::MAX, Direction::Backward, 9_999).await,
        (1..=1_200).rev().collect::<Vec<_>>()
    );
    assert_eq!(versions(&history, 6, 9, Direction::Forward, 99).await, [6, 7, 8, 9]);
    assert_eq!(versions(&history, 6, 9, Direction::Backward, 99).await, [9, 8, 7, 6]);
    assert_eq!(versions(&history, 6, 9, Direction::Backward, 3).await, [9, 8, 7]);
    assert_eq!(versions(&history, 1_200, 1_300, Direction::Forward, 9).await, [1_200]);
    assert_eq!(versions(&history, 1_201, 1_300, Direction::Forward, 9).await, [0; 0]);
    assert_eq!(versions(&history, 1, 9, Direction::Forward, 0).await, [0; 0]);
    let name = stream("count-1~1");
    let first = Version(3);
    let event =
        history.read_stream(&Tenant::default(), &name, first, first, Direction::Forward, 1).await.unwrap().remove(0);
    assert_eq!((event.index, event.event), (1, Happened::Added(1)));
    let nobody = history.read_stream(&tenant("nobody"), &name, first, first, Direction::Forward, 1).await.unwrap();
    assert!(nobody.is_empty());
}

#[tokio::test]
async fn a_state_is_what_it_was_at_every_version() {
    let mut world = World::new(1);
    let mut states = vec![];
    for number in 0..30 {
        let events = [("count-1~1", Happened::Added(number)), ("count-1~1", Happened::Promised)];
        let size = if number % 2 == 0 { 2 } else { 1 };
        let record = world.happen(&events[..size]);
        states.push((record.changed[0].version, Sum::clone(&record.changed[0].state)));
    }
    let last = states.last().unwrap().0;
    let (history, _directory) = history_of(world);
    let name = stream("count-1~1");
    for (version, state) in states {
        let found = history.state_at(&Tenant::default(), &name, version).await.unwrap();
        assert_eq!(found.as_deref(), Some(&state), "at {version}");
    }
    for absent in [Version(0), last.next()] {
        assert!(history.state_at(&Tenant::default(), &name, absent).await.unwrap().is_none());
    }
    // Also between the events of one record.
    let found = history.state_at(&Tenant::default(), &name, Version(1)).await.unwrap().unwrap();
    assert_eq!((found.total, found.promised), (0, 0));
}

#[tokio::test]
async fn a_record_is_found_by_its_position_and_only_commits_are() {
    let mut world = World::new(1);
    let record = world.happen(&[("count-1", Happened::Added(1))]);
    world.barrier(Partition(0));
    let (history, _directory) = history_of(world);
    let found: Commit = history.record_at(record.position).await.unwrap();
    assert_eq!(Some(&found), record.commit.as_deref());
    for offset in [record.position.offset.next(), engine::position::Offset(99)] {
        let position = Position { partition: Partition(0), offset };
        let fault = history.record_at(position).await.unwrap_err();
        assert!(matches!(fault, HistoryFault::NoCommit(at) if at == position), "{fault:?}");
    }
}

#[tokio::test]
async fn a_partition_is_read_in_pieces_of_any_size_and_without_what_does_not_count() {
    let mut world = World::new(1);
    let mut expected = Vec::new();
    for number in 0..50 {
        let record = world.happen(&[("count-1~1", Happened::Added(number)), ("count-1~2", Happened::Promised)]);
        expected.push((record.position, 0, Happened::Added(number)));
        expected.push((record.position, 1, Happened::Promised));
        match number % 4 {
            0 => world.zombie(Partition(0)),
            1 => world.barrier(Partition(0)),
            2 => world.claim(Partition(0)),
            _ => {}
        }
    }
    let (history, _directory) = history_of(world);
    for bytes_max in [1, 500, 5_000, 1 << 20] {
        let mut cursor = Checkpoint::default();
        let mut found = Vec::new();
        loop {
            let (events, next) = history.read_partition(Partition(0), cursor, bytes_max).await.unwrap();
            if next == cursor {
                break;
            }
            found.extend(events.into_iter().map(|event| (event.position, event.index, event.event)));
            cursor = next;
        }
        assert_eq!(found, expected, "{bytes_max} bytes at a time");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_does_not_hinder_its_neighbours() {
    let mut world = World::new(1);
    let record = world.happen(&[("count-1~2", Happened::Unheard), ("count-1~1", Happened::Added(5))]);
    let (history, _directory) = history_of(world);
    assert_eq!(versions(&history, 1, 9, Direction::Forward, 9).await, [1]);
    let all = (Version(1), Version(9));
    let fault = history
        .read_stream(&Tenant::default(), &stream("count-1~2"), all.0, all.1, Direction::Forward, 9)
        .await
        .unwrap_err();
    let is_named = |fault: &HistoryFault| match fault {
        HistoryFault::Store(StoreFault::Event { position, .. }) => *position == record.position,
        _ => false,
    };
    assert!(is_named(&fault), "{fault:?}");
    let fault = history.read_partition(Partition(0), Checkpoint::default(), 1 << 20).await.unwrap_err();
    assert!(is_named(&fault), "{fault:?}");
}
