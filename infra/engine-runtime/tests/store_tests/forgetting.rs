//! Command ids are forgotten after seven days of running time and not before, whatever the clock does; or early, the
//! oldest first, when there are too many.

use engine::message::CommandId;
use engine::stream::Tenant;
use engine::time::Timestamp;
use engine_runtime::store::{StateStore, StoreOptions};

use crate::toy::{Happened, Toy};
use crate::world::{DAY, MINUTE, NOON, World, dump, dump_of_a_fresh_fold, stream};

/// Something happens every ten minutes until this time.
fn run_until(world: &mut World, end: i64) {
    while world.now.0 + 10 * MINUTE <= end {
        world.now.0 += 10 * MINUTE;
        world.happen(&[("count-beat", Happened::Added(1))]);
    }
}

fn midnight(days: i64) -> i64 {
    NOON + DAY / 2 + days * DAY
}

fn is_remembered(store: &StateStore<Toy>, id: CommandId) -> bool {
    store.remembered(id, &Tenant::default(), &stream("count-1")).unwrap().is_some()
}

fn happen_as(world: &mut World, id: CommandId) {
    world.happen_as(id, &Tenant::default(), &[("count-1", Happened::Added(1))]);
}

fn saved_as_it_ran(world: &World, options: StoreOptions) -> (StateStore<Toy>, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = world.open_with(directory.path(), options);
    for records in world.effective.chunks(100) {
        store.save(records).unwrap();
    }
    (store, directory)
}

#[test]
fn an_id_is_remembered_for_seven_running_days_and_then_forgotten() {
    let mut world = World::new(1);
    world.now.0 = midnight(0) - 1;
    let id = world.id();
    happen_as(&mut world, id);
    world.now.0 = midnight(0) - 10 * MINUTE;
    run_until(&mut world, midnight(7) - MINUTE);
    let (store, _directory) = saved_as_it_ran(&world, StoreOptions::default());
    assert!(is_remembered(&store, id), "forgotten within seven days");
    let saved = world.effective.len();
    run_until(&mut world, midnight(8));
    store.save(&world.effective[saved..]).unwrap();
    assert!(!is_remembered(&store, id), "still remembered after eight days");
    assert!(store.known(id).unwrap().is_empty());
}

#[test]
fn a_jump_of_the_clock_forgets_nothing() {
    let mut world = World::new(1);
    let id = world.id();
    happen_as(&mut world, id);
    for years in [1, 5, 70] {
        world.now.0 = NOON + years * 365 * DAY;
        world.happen(&[("count-beat", Happened::Added(1))]);
    }
    let (store, _directory) = saved_as_it_ran(&world, StoreOptions::default());
    assert!(is_remembered(&store, id));
    assert_eq!(store.forgotten_before(), None);
}

#[test]
fn time_in_which_nothing_happens_forgets_nothing() {
    let mut world = World::new(1);
    let id = world.id();
    happen_as(&mut world, id);
    // An hour's work a day: a week of running time takes half a year.
    for day in 1..=160 {
        world.now.0 = NOON + day * DAY;
        run_until(&mut world, NOON + day * DAY + 60 * MINUTE);
    }
    let (store, _directory) = saved_as_it_ran(&world, StoreOptions::default());
    assert!(is_remembered(&store, id));
}

#[test]
fn folding_partition_by_partition_forgets_what_following_them_forgot() {
    let mut world = World::new(5);
    // One partition busy, others now and then, one only on the first day and one only on the last.
    for step in 0..24 * 144_i64 {
        world.now.0 = NOON + step * 10 * MINUTE;
        let made_at = world.now;
        let id = world.id_of(made_at);
        world.happen_as(id, &Tenant::default(), &[("count-busy", Happened::Added(1))]);
        for (name, every) in [("count-1", 7), ("count-2", 50), ("count-3", 700), ("count-4", 3_400)] {
            if step % every == 0 {
                world.happen(&[(name, Happened::Added(1))]);
            }
        }
    }
    let (store, directory) = saved_as_it_ran(&world, StoreOptions::default());
    let forgotten_before = store.forgotten_before();
    assert!(forgotten_before.is_some());
    drop(store);
    let followed = dump(directory.path());
    let buckets = followed.keys().filter(|name| name.starts_with("ids-")).count();
    assert_eq!(buckets, 8, "seven running days and the one that is running");
    assert_eq!(followed, dump_of_a_fresh_fold(&world));
    let (store, _) = world.open(directory.path());
    assert_eq!(store.forgotten_before(), forgotten_before);
}

#[test]
fn a_uuidv7_that_may_be_forgotten_is_told_from_one_that_cannot() {
    let mut world = World::new(1);
    let old_at = world.now;
    let old = world.id_of(old_at);
    happen_as(&mut world, old);
    // Made by somebody whose clock is decades ahead: it must not make everybody's ids look forgotten.
    let absurd = world.id_of(Timestamp(NOON + 40 * 365 * DAY));
    happen_as(&mut world, absurd);
    run_until(&mut world, midnight(3));
    let later_at = world.now;
    let later = world.id_of(later_at);
    happen_as(&mut world, later);
    run_until(&mut world, midnight(8));
    let (store, _directory) = saved_as_it_ran(&world, StoreOptions::default());
    assert!(!is_remembered(&store, old) && is_remembered(&store, later));
    let forgotten_before = store.forgotten_before().unwrap();
    assert!(old_at < forgotten_before, "the old one may be forgotten");
    assert!(later_at >= forgotten_before, "the later one cannot be");
}

#[test]
fn too_many_ids_are_forgotten_oldest_first_and_never_the_newest() {
    let mut world = World::new(1);
    let mut ids = Vec::new();
    for _ in 0..2_000 {
        world.now.0 += 1_000_000;
        let made_at = world.now;
        let id = world.id_of(made_at);
        ids.push((id, made_at));
        happen_as(&mut world, id);
    }
    let options = StoreOptions { ids_bytes_max: 32 << 10, ..StoreOptions::default() };
    let (store, directory) = saved_as_it_ran(&world, options);
    let forgotten = ids.iter().take_while(|(id, _)| !is_remembered(&store, *id)).count();
    assert!((500..1_900).contains(&forgotten), "{forgotten} are forgotten");
    assert!(ids[forgotten..].iter().all(|(id, _)| is_remembered(&store, *id)), "one in between is forgotten");
    let forgotten_before = store.forgotten_before().unwrap();
    assert!(ids[..forgotten].iter().all(|(_, made_at)| *made_at < forgotten_before));
    assert!(ids[forgotten].1 >= forgotten_before);
    drop(store);
    let kept = dump(directory.path())
        .iter()
        .filter(|(name, _)| name.starts_with("ids-"))
        .map(|(_, ids)| ids.len())
        .sum::<usize>();
    assert_eq!(kept, ids.len() - forgotten, "what is forgotten is gone from the disk");
}
