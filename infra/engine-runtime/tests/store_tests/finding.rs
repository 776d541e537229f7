//! What was saved is found: states, ids, timers, errands, the index, lists. And nothing of another tenant's.

use engine::message::{CommandId, Fingerprint};
use engine::position::{Offset, Partition, Version};
use engine::saga::Timer;
use engine::shard::Load;
use engine::stream::{StreamId, StreamName, Tenant};
use engine::time::Timestamp;
use engine_runtime::store::{Direction, StateStore};

use crate::toy::{Happened, Toy};
use crate::world::{NOON, World, dump, stream, tenant};

fn saved(world: &World) -> (StateStore<Toy>, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = world.open(directory.path());
    store.save(&world.effective).unwrap();
    (store, directory)
}

fn at(seconds: i64) -> Timestamp {
    Timestamp(NOON + seconds * 1_000_000)
}

fn names(streams: &[engine_runtime::store::StreamInfo]) -> Vec<&str> {
    streams.iter().map(|stream| stream.name.as_str()).collect()
}

#[test]
fn states_and_ids_are_loaded_as_they_were_saved() {
    let mut world = World::new(2);
    let first = world.happen(&[("count-a~1", Happened::Added(3)), ("count-a~2", Happened::Added(4))]);
    let refused = world.id();
    let second = world.refuse(refused, "count-a~1");
    let (store, _directory) = saved(&world);
    let commit = first.commit.clone().unwrap();
    let load = |id: CommandId, resource: &str| Load {
        tenant: Tenant::default(),
        streams: vec![stream("count-a~2"), stream("count-none"), stream("count-a~1")],
        made: vec![false; 3],
        id,
        resource: stream(resource),
        id_is_fresh: false,
    };
    let loaded = store.load(&load(commit.command_id, "count-a~1")).unwrap();
    let totals = loaded.streams.iter().map(|found| (found.version, found.state.as_ref().map(|sum| sum.total)));
    assert_eq!(totals.collect::<Vec<_>>(), [(Version(1), Some(4)), (Version(0), None), (Version(1), Some(3))]);
    let remembered = loaded.remembered.unwrap();
    assert_eq!((remembered.offset, remembered.fingerprint), (first.position.offset, commit.fingerprint));
    // Refusals are remembered too, and no id counts on another resource.
    let loaded = [load(refused, "count-a~1"), load(refused, "count-a~2")].map(|load| store.load(&load));
    let remembered = loaded.into_iter().map(|loaded| loaded.unwrap().remembered.map(|found| found.offset));
    assert_eq!(remembered.collect::<Vec<_>>(), [Some(second.position.offset), None]);
}

#[test]
fn all_that_is_known_of_an_id_is_found_and_nothing_of_its_neighbours() {
    let mut world = World::new(4);
    let ids = [world.id(), world.id(), world.id()];
    let other = tenant("other");
    for id in ids {
        world.happen_as(id, &Tenant::default(), &[("count-1", Happened::Added(1))]);
        world.happen_as(id, &Tenant::default(), &[("count-2", Happened::Added(1))]);
        world.happen_as(id, &other, &[("count-1", Happened::Added(1))]);
    }
    let (store, _directory) = saved(&world);
    let known = store.known(ids[1]).unwrap();
    let found = known.iter().map(|known| (known.tenant.as_str(), known.resource.as_str())).collect::<Vec<_>>();
    assert_eq!(found, [("main", "count-1"), ("main", "count-2"), ("other", "count-1")]);
    for known in known {
        assert_eq!(known.partition, world.partition_of(&known.tenant, known.resource.as_str()));
        let record = world.effective.iter().find(|record| {
            record.position.partition == known.partition && record.position.offset == known.remembered.offset
        });
        let commit = record.and_then(|record| record.commit.clone()).expect("the position is a commit's");
        assert_eq!((commit.command_id, &commit.resource), (ids[1], &known.resource));
    }
    assert!(store.known(world.id()).unwrap().is_empty());
}

#[test]
fn a_timer_is_found_when_due_and_gone_when_replaced() {
    let mut world = World::new(1);
    world.happen(&[("count-late", Happened::Armed(at(30)))]);
    world.happen(&[("count-early", Happened::Armed(at(10)))]);
    world.happen(&[("count-never", Happened::Armed(at(5))), ("count-never", Happened::Disarmed)]);
    let (store, _directory) = saved(&world);
    let due = |now| {
        let timers = store.due_timers(Partition(0), now, 10).unwrap();
        timers.into_iter().map(|due| (due.stream.name.as_str().to_owned(), due.timer)).collect::<Vec<_>>()
    };
    let timer = |seconds, armed_at| Timer { due: at(seconds), armed_at: Version(armed_at) };
    assert_eq!(store.next_due(Partition(0)).unwrap(), Some(at(10)));
    assert_eq!(due(at(9)), []);
    assert_eq!(due(at(10)), [("count-early".to_owned(), timer(10, 1))]);
    assert_eq!(due(at(99)), [("count-early".to_owned(), timer(10, 1)), ("count-late".to_owned(), timer(30, 1))]);
    assert_eq!(store.due_timers(Partition(0), at(99), 1).unwrap().len(), 1);

    let from = world.effective.len();
    world.happen(&[("count-early", Happened::Armed(at(50)))]);
    world.happen(&[("count-late", Happened::Disarmed)]);
    store.save(&world.effective[from..]).unwrap();
    assert_eq!(store.next_due(Partition(0)).unwrap(), Some(at(50)));
    assert_eq!(due(at(99)), [("count-early".to_owned(), timer(50, 2))]);

    // The same moment, armed anew: another arming.
    let from = world.effective.len();
    world.happen(&[("count-early", Happened::Armed(at(50)))]);
    store.save(&world.effective[from..]).unwrap();
    assert_eq!(due(at(99)), [("count-early".to_owned(), timer(50, 3))]);
}

#[test]
fn timers_and_errands_of_one_partition_are_not_another_s() {
    let mut world = World::new(8);
    let mut expected = std::collections::BTreeMap::<Partition, Vec<String>>::new();
    for number in 0..40 {
        let name = format!("count-{number:02}");
        world.happen(&[(&name, Happened::Promised), (&name, Happened::Armed(at(number)))]);
        expected.entry(world.partition_of(&Tenant::default(), &name)).or_default().push(name);
    }
    let (store, _directory) = saved(&world);
    for partition in (0..8).map(Partition) {
        let expected = expected.remove(&partition).unwrap_or_default();
        let open = store.open_streams(partition, None, 100).unwrap();
        assert_eq!(open.iter().map(|open| open.stream.name.as_str()).collect::<Vec<_>>(), expected);
        let due = store.due_timers(partition, at(100), 100).unwrap();
        assert_eq!(due.iter().map(|due| due.stream.name.as_str()).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn streams_with_errands_are_listed_page_by_page_until_they_owe_nothing() {
    let mut world = World::new(1);
    for number in 0..5 {
        world.happen(&[(&format!("count-{number}"), Happened::Promised)]);
    }
    world.happen(&[("count-2", Happened::Kept)]);
    let (store, _directory) = saved(&world);
    let mut after: Option<StreamId> = None;
    let mut pages = Vec::new();
    loop {
        let page = store.open_streams(Partition(0), after.as_ref(), 3).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.stream.clone());
        assert!(page.iter().all(|open| open.state.promised == 1 && open.version == Version(1)));
        pages.push(page.iter().map(|open| open.stream.name.as_str().to_owned()).collect::<Vec<_>>());
    }
    assert_eq!(pages, [vec!["count-0", "count-1", "count-3"], vec!["count-4"]]);
}

#[test]
fn every_version_is_found_in_its_record() {
    let mut world = World::new(1);
    let mut expected = vec![];
    for size in [1, 3, 2, 1, 4] {
        let events = vec![("count-1", Happened::Added(1)); size];
        let record = world.happen(&events);
        expected.extend(std::iter::repeat_n(Some(record.position.offset), size));
        // A stream whose name goes on where the other's ends.
        world.happen(&[("count-10", Happened::Added(1))]);
    }
    let (store, _directory) = saved(&world);
    let offset_of = |name: &str, version| store.offset_of(&Tenant::default(), &stream(name), Version(version)).unwrap();
    let found = (1..=11).map(|version| offset_of("count-1", version)).collect::<Vec<_>>();
    assert_eq!(found, expected);
    assert_eq!((offset_of("count-1", 0), offset_of("count-1", 12), offset_of("count-none", 1)), (None, None, None));

    let first_versions = |from, to, direction, limit| {
        let records =
            store.records_of(&Tenant::default(), &stream("count-1"), Version(from), Version(to), direction, limit);
        records.unwrap().iter().map(|record| record.first_version.0).collect::<Vec<_>>()
    };
    assert_eq!(first_versions(3, 7, Direction::Forward, 9), [2, 5, 7]);
    assert_eq!(first_versions(3, 7, Direction::Backward, 9), [7, 5, 2]);
    assert_eq!(first_versions(3, 7, Direction::Backward, 2), [7, 5]);
    assert_eq!(first_versions(1, u64::MAX, Direction::Forward, 2), [1, 2]);
    assert_eq!(first_versions(12, u64::MAX, Direction::Backward, 9), [0_u64; 0]);
    assert_eq!(first_versions(7, 3, Direction::Forward, 9), [0_u64; 0]);
}

#[test]
fn streams_are_listed_by_name_prefix_and_page() {
    let mut world = World::new(4);
    for name in ["count-b", "count-a", "count-a~1", "sum-a", "count-c"] {
        world.happen(&[(name, Happened::Added(1))]);
    }
    world.now = at(5);
    world.happen(&[("count-a", Happened::Added(1))]);
    let (store, _directory) = saved(&world);
    let list = |prefix: &str, after: Option<&StreamName>, limit| {
        store.streams(&Tenant::default(), prefix, after, limit).unwrap()
    };
    assert_eq!(names(&list("", None, 9)), ["count-a", "count-a~1", "count-b", "count-c", "sum-a"]);
    assert_eq!(names(&list("count-a", None, 9)), ["count-a", "count-a~1"]);
    assert_eq!(names(&list("count-", Some(&stream("count-a~1")), 1)), ["count-b"]);
    assert_eq!(names(&list("sum-", Some(&stream("count-a")), 9)), ["sum-a"]);
    assert_eq!(names(&list("count-", Some(&stream("sum-a")), 9)), [""; 0]);
    let first = list("", None, 1).remove(0);
    assert_eq!((first.version, first.updated_at), (Version(2), at(5)));
}

#[test]
fn nothing_of_one_tenant_is_found_by_another() {
    let mut world = World::new(1);
    // One tenant's name begins as the other's.
    let (short, long) = (tenant("shop"), tenant("shop-2"));
    let id = world.id();
    world.happen_as(id, &long, &[("count-1", Happened::Added(7)), ("count-1", Happened::Armed(at(1)))]);
    let (store, _directory) = saved(&world);
    assert!(store.state(&short, &stream("count-1")).unwrap().is_none());
    assert!(store.streams(&short, "", None, 9).unwrap().is_empty());
    assert_eq!(store.offset_of(&short, &stream("count-1"), Version(1)).unwrap(), None);
    assert_eq!(store.remembered(id, &short, &stream("count-1")).unwrap(), None);
    let load = Load {
        tenant: short,
        streams: vec![stream("count-1")],
        made: vec![false],
        id,
        resource: stream("count-1"),
        id_is_fresh: false,
    };
    let loaded = store.load(&load).unwrap();
    assert!(loaded.streams[0].state.is_none() && loaded.remembered.is_none());
    assert_eq!(names(&store.streams(&long, "", None, 9).unwrap()), ["count-1"]);
    assert_eq!(store.due_timers(Partition(0), at(1), 9).unwrap()[0].stream.tenant, long);
}

#[test]
fn what_is_saved_twice_is_there_once() {
    let mut world = World::new(1);
    world.happen(&[("count-1", Happened::Added(1))]);
    let (store, directory) = saved(&world);
    store.save(&world.effective).unwrap();
    assert_eq!(store.checkpoint(Partition(0)).0.next_offset, Offset(3));
    drop(store);
    let before = dump(directory.path());
    let (store, _) = world.open(directory.path());
    store.save(&world.effective[1..]).unwrap();
    world.catch_up(&store);
    drop(store);
    assert_eq!(dump(directory.path()), before);
}

#[test]
fn fingerprints_are_kept_to_the_byte() {
    let mut world = World::new(1);
    let record = world.happen(&[("count-1", Happened::Added(1))]);
    let (store, _directory) = saved(&world);
    let commit = record.commit.clone().unwrap();
    assert_ne!(commit.fingerprint, Fingerprint::default());
    let found = store.remembered(commit.command_id, &commit.tenant, &commit.resource).unwrap();
    assert_eq!(found.map(|found| found.fingerprint), Some(commit.fingerprint));
}
