//! Following shards, folding the log and rebuilding from it give the same store to the letter.

use std::sync::Arc;

use engine::position::{Offset, Partition, Version};
use engine::shard::{Changed, Effective};
use engine::time::Timestamp;
use engine_runtime::store::StoreFault;
use proptest::prelude::*;

use crate::toy::Happened;
use crate::world::{DAY, MINUTE, NOON, World, dump, dump_of_a_fresh_fold, dump_of_a_rebuild};

/// One thing that happens in a world.
#[derive(Clone, Debug)]
enum Step {
    Happen(Vec<(u8, Happened)>),
    Refuse(u8),
    Barrier(u8),
    Claim(u8),
    Zombie(u8),
    Wait(i64),
    Save,
    Reopen,
    CatchUp,
}

fn a_step() -> impl Strategy<Value = Step> {
    let event = prop_oneof![
        4 => (0..100_u64).prop_map(Happened::Added),
        2 => Just(Happened::Promised),
        2 => Just(Happened::Kept),
        2 => (0..1_000_i64).prop_map(|minutes| Happened::Armed(Timestamp(NOON + minutes * MINUTE))),
        1 => Just(Happened::Disarmed),
    ];
    prop_oneof![
        12 => proptest::collection::vec((any::<u8>(), event), 1..5).prop_map(Step::Happen),
        1 => any::<u8>().prop_map(Step::Refuse),
        1 => any::<u8>().prop_map(Step::Barrier),
        1 => any::<u8>().prop_map(Step::Claim),
        1 => any::<u8>().prop_map(Step::Zombie),
        1 => (1..DAY).prop_map(Step::Wait),
        2 => Just(Step::Save),
        1 => Just(Step::Reopen),
        1 => Just(Step::CatchUp),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn following_and_folding_give_the_same_store(steps in proptest::collection::vec(a_step(), 1..120)) {
        let mut world = World::new(4);
        let directory = tempfile::tempdir().unwrap();
        let (mut store, _) = world.open(directory.path());
        let mut saved = 0;
        for step in steps {
            match step {
                Step::Happen(events) => {
                    // All streams of a record share the place before `~`, and so the partition.
                    let place = events[0].0 % 5;
                    let named = events.iter().map(|(stream, event)| {
                        (format!("count-{place}~{}", stream % 3), event.clone())
                    }).collect::<Vec<_>>();
                    let named = named.iter().map(|(name, event)| (name.as_str(), event.clone())).collect::<Vec<_>>();
                    world.happen(&named);
                }
                Step::Refuse(place) => {
                    let id = world.id();
                    world.refuse(id, &format!("count-{}~9", place % 5));
                }
                Step::Barrier(partition) => world.barrier(Partition(u16::from(partition % 4))),
                Step::Claim(partition) => world.claim(Partition(u16::from(partition % 4))),
                Step::Zombie(partition) => world.zombie(Partition(u16::from(partition % 4))),
                Step::Wait(micros) => world.now = Timestamp(world.now.0 + micros),
                Step::Save => {
                    store.save(&world.effective[saved..]).unwrap();
                    saved = world.effective.len();
                }
                Step::Reopen => {
                    drop(store);
                    (store, _) = world.open(directory.path());
                }
                // What is saved later is then there already.
                Step::CatchUp => world.catch_up(&store),
            }
        }
        store.save(&world.effective[saved..]).unwrap();
        // Ignored records at the end are told by no shard.
        world.catch_up(&store);
        drop(store);
        let followed = dump(directory.path());
        prop_assert_eq!(&followed, &dump_of_a_fresh_fold(&world));
        // In one run, or in many.
        let run_bytes = if saved % 2 == 0 { 1 << 20 } else { 2 << 10 };
        prop_assert_eq!(&followed, &dump_of_a_rebuild(&world, run_bytes));
    }
}

#[test]
fn catching_up_stops_where_it_is_told() {
    let mut world = World::new(1);
    for amount in 0..10 {
        world.happen(&[("count-1", Happened::Added(amount))]);
    }
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = world.open(directory.path());
    let told = world.try_catch_up(&store, Some(Offset(7))).unwrap();
    assert_eq!(told.last().map(|told| (told.records, told.next_offset, told.end)), Some((7, Offset(7), Offset(7))));
    // Genesis and claim are records too.
    assert_eq!(version_of(&store, "count-1"), Some(Version(5)));
    world.catch_up(&store);
    assert_eq!(version_of(&store, "count-1"), Some(Version(10)));
    assert_eq!(store.checkpoint(Partition(0)).0.next_offset, Offset(12));
}

fn version_of(store: &engine_runtime::store::StateStore<crate::toy::Toy>, name: &str) -> Option<Version> {
    store.state(&engine::stream::Tenant::default(), &crate::world::stream(name)).unwrap().map(|found| found.version)
}

#[test]
fn an_event_that_cannot_be_read_stops_the_fold_and_is_named() {
    let mut world = World::new(1);
    world.happen(&[("count-1", Happened::Added(1))]);
    let unreadable = world.happen(&[("count-2", Happened::Unheard)]).position;
    world.happen(&[("count-1", Happened::Added(1))]);
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = world.open(directory.path());
    let fault = world.try_catch_up(&store, None).unwrap_err();
    match fault {
        StoreFault::Event { position, stream, .. } => {
            assert_eq!((position, stream.name.as_str()), (unreadable, "count-2"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_store_ahead_of_its_log_is_refused() {
    let mut world = World::new(1);
    let shorter = World::new(1);
    world.happen(&[("count-1", Happened::Added(1))]);
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = world.open(directory.path());
    world.catch_up(&store);
    let fault = shorter.try_catch_up(&store, None).unwrap_err();
    assert!(matches!(fault, StoreFault::AheadOfLog { .. }), "{fault:?}");
}

#[test]
fn a_save_that_skips_a_version_is_refused_whole() {
    let mut world = World::new(1);
    world.happen(&[("count-1", Happened::Added(1))]);
    let skipped = world.happen(&[("count-1", Happened::Added(1))]);
    let last = world.happen(&[("count-1", Happened::Added(1))]);
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = world.open(directory.path());
    store.save(&world.effective[..2]).unwrap();
    let before = store.checkpoint(Partition(0));
    let fault = store.save(&[Arc::clone(&last)]).unwrap_err();
    assert!(matches!(fault, StoreFault::Gap { expected: Version(2), found: Version(3), .. }), "{fault:?}");
    assert_eq!(store.checkpoint(Partition(0)), before);
    store.save(&[skipped, last]).unwrap();
    assert_eq!(version_of(&store, "count-1"), Some(Version(3)));
}

#[test]
fn a_save_without_the_state_it_changed_is_refused() {
    let mut world = World::new(1);
    let whole = world.happen(&[("count-1~1", Happened::Added(1)), ("count-1~2", Happened::Added(1))]);
    let changed = whole.changed.iter().take(1).map(|changed| Changed {
        name: changed.name.clone(),
        version: changed.version,
        state: Arc::clone(&changed.state),
        events: changed.events.clone(),
    });
    let half = Effective {
        position: whole.position,
        checkpoint: whole.checkpoint,
        commit: whole.commit.clone(),
        changed: changed.collect(),
    };
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = world.open(directory.path());
    assert!(matches!(store.save(&[Arc::new(half)]), Err(StoreFault::Gap { .. })));
}
