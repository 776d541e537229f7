//! A store that is lost, foreign, outdated or damaged is folded afresh; one that is in use is left alone.

use std::sync::Arc;

use engine::position::{Checkpoint, Partition};
use engine::time::Timestamp;
use engine_runtime::store::{Opened, StateStore, StoreFault, StoreOptions};

use crate::toy::{Happened, Toy};
use crate::world::{World, dump, dump_of_a_fresh_fold, log_id};

fn a_world_with_some_history() -> World {
    let mut world = World::new(3);
    for number in 0..50_u64 {
        world.happen(&[(&format!("count-{}", number % 7), Happened::Added(number))]);
    }
    world
}

fn open_as(directory: &std::path::Path, log: u128, decider: u32) -> Result<(StateStore<Toy>, Opened), StoreFault> {
    StateStore::open(directory, log_id(log), 3, Arc::new(Toy(decider)), StoreOptions::default())
}

fn was_wiped(opened: &Opened, because: &str) -> bool {
    matches!(opened, Opened::Wiped(reason) if reason.contains(because))
}

#[test]
fn a_new_store_is_empty_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let (store, opened) = World::new(3).open(directory.path());
    assert_eq!(opened, Opened::New);
    assert_eq!(store.checkpoint(Partition(2)), (Checkpoint::default(), Timestamp(0)));
    assert_eq!(store.partitions(), 3);
}

#[test]
fn a_store_goes_on_where_it_was() {
    let world = a_world_with_some_history();
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = world.open(directory.path());
    store.save(&world.effective).unwrap();
    let before = (0..3).map(|partition| store.checkpoint(Partition(partition))).collect::<Vec<_>>();
    drop(store);
    let (store, opened) = world.open(directory.path());
    assert_eq!(opened, Opened::Resumed);
    let after = (0..3).map(|partition| store.checkpoint(Partition(partition))).collect::<Vec<_>>();
    assert_eq!(before, after);
    assert_eq!(after[0].0.next_offset, engine::log::Log::end(&world.log, Partition(0)));
}

#[test]
fn a_store_of_another_log_is_folded_afresh() {
    let world = a_world_with_some_history();
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open_as(directory.path(), 2, 1).unwrap();
    store.save(&world.effective).unwrap();
    drop(store);
    let (store, opened) = world.open(directory.path());
    assert!(was_wiped(&opened, "it is of log"), "{opened:?}");
    assert_eq!(store.checkpoint(Partition(0)).0, Checkpoint::default());
    world.catch_up(&store);
    drop(store);
    assert_eq!(dump(directory.path()), dump_of_a_fresh_fold(&world));
}

#[test]
fn a_store_of_another_decider_version_is_folded_afresh() {
    let world = a_world_with_some_history();
    let directory = tempfile::tempdir().unwrap();
    drop(open_as(directory.path(), 1, 2).unwrap());
    let (_, opened) = world.open(directory.path());
    assert!(was_wiped(&opened, "decider version 2"), "{opened:?}");
    let (_, opened) = world.open(directory.path());
    assert_eq!(opened, Opened::Resumed);
}

#[test]
fn a_store_in_a_newer_format_is_folded_afresh() {
    let world = a_world_with_some_history();
    let directory = tempfile::tempdir().unwrap();
    drop(world.open(directory.path()));
    {
        let database = fjall::Database::builder(directory.path().join("db")).open().unwrap();
        let meta = database.keyspace("meta", fjall::KeyspaceCreateOptions::default).unwrap();
        let written = String::from_utf8(meta.get("store").unwrap().unwrap().to_vec()).unwrap();
        meta.insert("store", written.replace("\"format\":1", "\"format\":2")).unwrap();
    }
    let (_, opened) = world.open(directory.path());
    assert!(was_wiped(&opened, "its format is 2"), "{opened:?}");
}

#[test]
fn a_store_whose_files_are_garbage_is_folded_afresh() {
    let world = a_world_with_some_history();
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = world.open(directory.path());
    world.catch_up(&store);
    drop(store);
    std::fs::write(directory.path().join("db").join("version"), b"no such thing").unwrap();
    let (store, opened) = world.open(directory.path());
    assert!(matches!(opened, Opened::Wiped(_)), "{opened:?}");
    world.catch_up(&store);
    drop(store);
    assert_eq!(dump(directory.path()), dump_of_a_fresh_fold(&world));
}

#[test]
fn a_store_that_was_condemned_is_folded_afresh_once() {
    let world = a_world_with_some_history();
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = world.open(directory.path());
    world.catch_up(&store);
    drop(store);
    // A state that is no state: found when it is read, and the store condemned.
    {
        let database = fjall::Database::builder(directory.path().join("db")).open().unwrap();
        let states = database.keyspace("states", fjall::KeyspaceCreateOptions::default).unwrap();
        states.insert(b"main\0count-1", [0]).unwrap();
    }
    let (store, opened) = world.open(directory.path());
    assert_eq!(opened, Opened::Resumed);
    let fault = store.state(&engine::stream::Tenant::default(), &crate::world::stream("count-1")).unwrap_err();
    assert!(matches!(fault, StoreFault::Damaged(_)), "{fault:?}");
    drop(store);
    let (store, opened) = world.open(directory.path());
    assert!(was_wiped(&opened, "condemned"), "{opened:?}");
    world.catch_up(&store);
    drop(store);
    let (_, opened) = world.open(directory.path());
    assert_eq!(opened, Opened::Resumed);
}

#[test]
fn a_store_in_use_is_left_alone() {
    let world = a_world_with_some_history();
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = world.open(directory.path());
    world.catch_up(&store);
    let Err(fault) = open_as(directory.path(), 1, 1).map(|_| ()) else { panic!("opened twice") };
    assert!(matches!(fault, StoreFault::Locked(_)), "{fault:?}");
    assert!(store.state(&engine::stream::Tenant::default(), &crate::world::stream("count-1")).unwrap().is_some());
}
