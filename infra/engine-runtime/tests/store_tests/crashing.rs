//! A store that was not closed is as it was after some save, or is found damaged and folded afresh; in either case the log
//! makes it what it would have been.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use engine::position::Partition;
use engine_runtime::store::{Opened, StoreFault, StoreOptions};

use crate::toy::Happened;
use crate::world::{Dump, World, copy, dump, dump_of_a_fresh_fold, rebuilt_in_runs_of};

fn a_world_with_some_history(steps: u64) -> World {
    let mut world = World::new(3);
    for number in 0..steps {
        world.now.0 += 1_000_000;
        let due = world.now.plus_ms(number * 1_000);
        let (one, other) = (format!("count-{}~1", number % 5), format!("count-{}~2", number % 5));
        world.happen(&[(&one, Happened::Added(number)), (&other, Happened::Armed(due)), (&other, Happened::Promised)]);
        if number % 3 == 0 {
            world.happen(&[(&other, Happened::Kept), (&other, Happened::Disarmed)]);
        }
    }
    world
}

/// Opens what is left, checks that it stands after one of the saves, and brings it up to the log.
fn recovers(world: &World, directory: &Path, fresh: &Dump) -> Opened {
    let (store, opened) = world.open(directory);
    world.catch_up(&store);
    drop(store);
    assert!(dump(directory) == *fresh, "{opened:?}, but what came of it differs from a fold of the log");
    opened
}

fn journal(directory: &Path) -> PathBuf {
    let files = std::fs::read_dir(directory.join("db")).unwrap().map(|entry| entry.unwrap().path());
    let journals = files.filter(|path| path.extension().is_some_and(|end| end == "jnl")).collect::<Vec<_>>();
    assert_eq!(journals.len(), 1, "the history is too long for this test");
    journals[0].clone()
}

/// How much of the journal is written: it is made full of zeros.
fn written_bytes(journal: &Path) -> u64 {
    let mut bytes = Vec::new();
    File::open(journal).unwrap().read_to_end(&mut bytes).unwrap();
    bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last as u64 + 1)
}

#[test]
fn after_a_kill_the_store_is_as_it_was_after_its_last_save() {
    let world = a_world_with_some_history(60);
    let fresh = dump_of_a_fresh_fold(&world);
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = world.open(directory.path());
    for records in world.effective.chunks(7).take(9) {
        store.save(records).unwrap();
    }
    let crashed = tempfile::tempdir().unwrap();
    copy(directory.path(), crashed.path());
    let (after, opened) = world.open(crashed.path());
    assert_eq!(opened, Opened::Resumed);
    for partition in (0..3).map(Partition) {
        assert_eq!(after.checkpoint(partition), store.checkpoint(partition));
    }
    drop(after);
    assert_eq!(recovers(&world, crashed.path(), &fresh), Opened::Resumed);
}

#[test]
fn after_a_power_cut_the_store_is_as_it_was_after_some_save() {
    let world = a_world_with_some_history(40);
    let fresh = dump_of_a_fresh_fold(&world);
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = world.open(directory.path());
    let mut possible = vec![vec![0, 0, 0]];
    for records in world.effective.chunks(5) {
        store.save(records).unwrap();
        possible.push((0..3).map(|partition| store.checkpoint(Partition(partition)).0.next_offset.0).collect());
    }
    let whole = tempfile::tempdir().unwrap();
    copy(directory.path(), whole.path());
    let length = written_bytes(&journal(whole.path()));
    let mut resumed = 0;
    for cut in (1..24).map(|part| length * part / 24) {
        let crashed = tempfile::tempdir().unwrap();
        copy(whole.path(), crashed.path());
        let file = OpenOptions::new().write(true).open(journal(crashed.path())).unwrap();
        file.set_len(cut).unwrap();
        drop(file);
        let (after, opened) = world.open(crashed.path());
        resumed += usize::from(opened == Opened::Resumed);
        let reached = (0..3).map(|partition| after.checkpoint(Partition(partition)).0.next_offset.0).collect();
        assert!(possible.contains(&reached), "cut at {cut}: {reached:?} is after no save");
        drop(after);
        recovers(&world, crashed.path(), &fresh);
    }
    assert!(resumed > 20, "only {resumed} of 23 stores were of use");
}

#[test]
fn pages_that_a_power_cut_left_empty_are_noticed() {
    let world = a_world_with_some_history(60);
    let fresh = dump_of_a_fresh_fold(&world);
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = world.open(directory.path());
    for records in world.effective.chunks(5) {
        store.save(records).unwrap();
    }
    let whole = tempfile::tempdir().unwrap();
    copy(directory.path(), whole.path());
    let length = written_bytes(&journal(whole.path()));
    for page in 0..length / 4_096 {
        let crashed = tempfile::tempdir().unwrap();
        copy(whole.path(), crashed.path());
        let mut file = OpenOptions::new().write(true).open(journal(crashed.path())).unwrap();
        file.seek(SeekFrom::Start(page * 4_096)).unwrap();
        file.write_all(&[0; 4_096]).unwrap();
        drop(file);
        recovers(&world, crashed.path(), &fresh);
    }
}

#[test]
fn a_store_that_flushes_and_compacts_all_the_time_holds_the_same() {
    let world = a_world_with_some_history(1_500);
    let fresh = dump_of_a_fresh_fold(&world);
    let directory = tempfile::tempdir().unwrap();
    let options = StoreOptions { write_buffer_bytes: 8 << 10, ..StoreOptions::default() };
    for (index, records) in world.effective.chunks(400).enumerate() {
        let (store, opened) = world.open_with(directory.path(), options);
        assert_eq!(opened == Opened::New, index == 0);
        for records in records.chunks(20) {
            store.save(records).unwrap();
        }
        store.persist().unwrap();
    }
    assert_eq!(recovers(&world, directory.path(), &fresh), Opened::Resumed);
}

#[test]
fn a_disk_that_is_almost_full_is_left_alone_until_there_is_room() {
    let world = a_world_with_some_history(10);
    let directory = tempfile::tempdir().unwrap();
    let options = StoreOptions { reserve_bytes: u64::MAX, ..StoreOptions::default() };
    let (store, _) = world.open_with(directory.path(), options);
    for fault in [store.save(&world.effective).unwrap_err(), world.try_catch_up(&store, None).unwrap_err()] {
        assert!(matches!(fault, StoreFault::Full { .. }) && fault.may_pass(), "{fault:?}");
    }
    assert_eq!(store.checkpoint(Partition(0)).0.next_offset.0, 0);
    drop(store);
    let (store, opened) = world.open(directory.path());
    assert_eq!(opened, Opened::Resumed);
    store.save(&world.effective).unwrap();
    drop(store);
    assert!(dump(directory.path()) == dump_of_a_fresh_fold(&world));
}

#[test]
fn a_rebuild_that_was_cut_short_begins_again() {
    let world = a_world_with_some_history(200);
    let fresh = dump_of_a_fresh_fold(&world);
    let directory = tempfile::tempdir().unwrap();
    let left = tempfile::tempdir().unwrap();
    let (store, _) = world.open_with(directory.path(), rebuilt_in_runs_of(1 << 10));
    let killed = std::sync::Mutex::new(0);
    let progress = |_| {
        let mut killed = killed.lock().unwrap();
        if *killed < 20 {
            copy(directory.path(), &left.path().join(killed.to_string()));
            *killed += 1;
        }
    };
    assert!(store.rebuild(&world.log, &progress).unwrap());
    drop(store);
    assert!(dump(directory.path()) == fresh, "what was rebuilt differs from a fold of the log");
    let killed = killed.into_inner().unwrap();
    assert!(killed > 5, "only {killed} pieces");
    for number in 0..killed {
        let opened = recovers(&world, &left.path().join(number.to_string()), &fresh);
        assert!(matches!(opened, Opened::Wiped(_)), "{opened:?}");
    }
}

#[test]
fn an_event_that_cannot_be_read_ends_a_rebuild_and_leaves_nothing_of_it() {
    let mut world = a_world_with_some_history(50);
    let unreadable = world.happen(&[("count-2", Happened::Unheard)]).position;
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = world.open_with(directory.path(), rebuilt_in_runs_of(1 << 10));
    match store.rebuild(&world.log, &|_| {}).unwrap_err() {
        StoreFault::Event { position, .. } => assert_eq!(position, unreadable),
        other => panic!("{other:?}"),
    }
    drop(store);
    let (_, opened) = world.open(directory.path());
    assert!(matches!(opened, Opened::Wiped(_)), "{opened:?}");
}
