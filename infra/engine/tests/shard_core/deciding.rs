//! From a command to its answer: what is decided on which state, what goes into the log, what is refused.

use engine::message::{Answer, CommandId, Envelope, Fingerprint, NoAnswer, Precondition};
use engine::position::{Seq, Version};
use engine::shard::{Effect, Input, Limits, Ticket};
use engine::simulated::bank::{BankCommand, account};
use engine::stream::{Tenant, partition_of};
use engine::time::Timestamp;
use uuid::Uuid;

use crate::bench::{Bench, NOW, envelope, id, name, question};

#[test]
fn a_command_is_answered_once_its_record_is_certain() {
    let mut bench = Bench::new();
    bench.submit(1, envelope(1, BankCommand::Open(name(0))));
    bench.nothing_more();
    let offset = bench.land();
    let effective = bench.effective();
    assert_eq!(effective.position.offset, offset);
    assert_eq!(effective.checkpoint.next_seq, Seq(2));
    assert_eq!(effective.changed.len(), 1);
    let (ticket, decided) = bench.decided();
    assert_eq!(ticket, 1);
    assert_eq!((decided.outcome.status, decided.version, decided.replayed), (201, Version(1), false));
    assert_eq!(decided.state.expect("a state").opened_by, id(1));
    let commit = effective.commit.clone().expect("a commit");
    assert_eq!((commit.recorded_at, commit.resource_version), (NOW, Version(1)));
}

#[test]
fn later_commands_are_decided_on_states_that_are_not_yet_certain() {
    let mut bench = Bench::new();
    bench.submit(1, envelope(1, BankCommand::Open(name(0))));
    bench.submit(2, envelope(2, BankCommand::Deposit(name(0), 5)));
    bench.submit(3, envelope(3, BankCommand::Withdraw(name(0), 6)));
    bench.submit(4, envelope(4, BankCommand::Withdraw(name(0), 5)));
    bench.nothing_more();
    for _ in 0..4 {
        bench.land();
    }
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let version = bench.effective().commit.as_ref().expect("a commit").resource_version;
        let (ticket, decided) = bench.decided();
        statuses.push((ticket, decided.outcome.status, version));
    }
    assert_eq!(statuses, [(1, 201, Version(1)), (2, 200, Version(2)), (3, 409, Version(2)), (4, 200, Version(3))]);
}

#[test]
fn both_sides_of_a_transfer_are_in_one_record() {
    let mut bench = Bench::new();
    for (number, command) in [
        BankCommand::Open(name(0)),
        BankCommand::Open(name(1)),
        BankCommand::Deposit(name(0), 9),
        BankCommand::Transfer(name(0), name(1), 4),
        BankCommand::Transfer(name(0), name(0), 4),
    ]
    .into_iter()
    .enumerate()
    {
        bench.submit(number as u64, envelope(number as u128 + 1, command));
        bench.land();
    }
    let transfers = bench
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Effective(effective) => effective.commit.as_ref(),
            _ => None,
        })
        .skip(3)
        .map(|commit| commit.streams.iter().map(|s| (s.name.clone(), s.first_version, s.events.len())).collect())
        .collect::<Vec<Vec<_>>>();
    assert_eq!(transfers[0], [(name(0), Version(3), 1), (name(1), Version(2), 1)]);
    assert_eq!(transfers[1], [(name(0), Version(4), 2)]);
}

#[test]
fn a_refused_precondition_is_recorded_with_the_current_version() {
    let mut bench = Bench::new();
    bench.submit(1, envelope(1, BankCommand::Open(name(0))));
    for (ticket, number, precondition, current) in [
        (2, 0, Precondition::AnyOf(vec![Version(3), Version(4)]), 1),
        (3, 0, Precondition::Absent, 1),
        (4, 1, Precondition::Exists, 0),
    ] {
        let command = BankCommand::Deposit(name(number), 1);
        bench.submit(ticket, Envelope { precondition, ..envelope(u128::from(ticket), command) });
        assert_eq!(bench.handed.len(), 1 + usize::from(ticket == 2));
        while !bench.handed.is_empty() {
            bench.effects.clear();
            bench.land();
        }
        let effective = bench.effective();
        assert!(effective.changed.is_empty());
        let (_, decided) = bench.decided();
        assert_eq!(decided.outcome.code.as_deref(), Some("version-mismatch"));
        assert_eq!(decided.outcome.status, 412);
        assert_eq!(decided.outcome.answer, Some(serde_json::json!({ "current_version": current })));
    }
}

#[test]
fn what_is_answered_without_a_record_waits_for_a_barrier() {
    let mut bench = Bench::new();
    bench.submit(1, envelope(1, BankCommand::Deposit(name(0), 5_000)));
    bench.submit(2, question(2, &BankCommand::Open(name(0))));
    bench.nothing_more();
    assert_eq!(bench.handed.len(), 1, "one barrier at a time");
    bench.land();
    assert!(bench.effective().commit.is_none());
    assert!(matches!(bench.answer(), (1, Ok(Answer::Invalid(errors))) if errors[0].code == "too-much"));
    bench.nothing_more();
    assert_eq!(bench.handed.len(), 1, "a second for what came after the first");
    bench.land();
    bench.effective();
    assert!(matches!(bench.answer(), (2, Ok(Answer::Unheard))));
    // Nothing was recorded under id 1: another command may use it.
    bench.submit(3, envelope(1, BankCommand::Open(name(0))));
    bench.land();
    bench.effective();
    assert_eq!(bench.decided().1.outcome.status, 201);
}

#[test]
fn a_load_says_what_is_to_be_made_and_whether_its_id_was_just_drawn() {
    const SECOND: i64 = 1_000_000;
    for (from_now, is_fresh) in [(-60 * SECOND, false), (-5 * SECOND, true), (5 * SECOND, true), (60 * SECOND, false)] {
        let mut bench = Bench::new();
        let mut asked = envelope(0, BankCommand::Open(name(0)));
        let seconds = u64::try_from((NOW.0 + from_now) / SECOND).expect("after 1970");
        asked.id = CommandId(Uuid::new_v7(uuid::Timestamp::from_unix_time(seconds, 0, 0, 0)));
        bench.feed(Input::Submit(Ticket(1), asked));
        let (_, load) = bench.load();
        assert_eq!((load.made, load.id_is_fresh), (vec![true], is_fresh), "{from_now}");
    }
    let mut bench = Bench::new();
    bench.feed(Input::Submit(Ticket(1), envelope(0, BankCommand::Deposit(name(0), 5))));
    let (_, load) = bench.load();
    assert_eq!((load.made, load.id_is_fresh), (vec![false], false), "what is not made, under an id that tells no time");
    let mut own = envelope(7, BankCommand::Deposit(name(0), 5));
    own.fingerprint = Fingerprint(*own.id.0.as_bytes());
    let mut bench = Bench::new();
    bench.feed(Input::Submit(Ticket(1), own));
    assert!(bench.load().1.id_is_fresh, "what a node asks itself it asks once");
}

#[test]
fn too_large_a_record_is_never_handed_to_the_log() {
    let mut bench = Bench::new();
    bench.submit(1, envelope(1, BankCommand::Open(name(0))));
    bench.land();
    bench.effects.clear();
    bench.submit(2, envelope(2, BankCommand::Note(name(0), 2, 1 << 19)));
    bench.land();
    bench.effective();
    match bench.answer() {
        (2, Ok(Answer::Invalid(errors))) => {
            assert_eq!(errors[0].code, "too-large");
            assert_eq!(errors[0].at, engine::message::At::Pointer(String::new()));
        }
        other => panic!("{other:?}"),
    }
    // Version and seq were not used up.
    bench.submit(3, envelope(3, BankCommand::Deposit(name(0), 1)));
    bench.land();
    bench.effective();
    assert_eq!(bench.decided().1.version, Version(2));
}

#[test]
fn the_shard_stops_taking_at_its_bounds() {
    let mut bench = Bench::with_limits(Limits { in_flight_max: 2, loading_max: 1, unsaved_max: 3 });
    assert!(bench.shard.can_take());
    bench.feed(Input::Submit(Ticket(1), envelope(1, BankCommand::Open(name(1)))));
    assert!(!bench.shard.can_take(), "one load");
    let (load, asked) = bench.load();
    bench.find_nothing(load, &asked);
    assert!(bench.shard.can_take());
    bench.submit(2, envelope(2, BankCommand::Open(name(2))));
    assert!(!bench.shard.can_take(), "two in flight");
    bench.land();
    let offset = bench.land();
    assert!(!bench.shard.can_take(), "two ids and two streams not saved");
    bench.feed(Input::Saved(offset));
    assert!(bench.shard.can_take());
    assert_eq!((bench.shard.unsaved(), bench.shard.in_flight(), bench.shard.loading()), (2, 0, 0));
}

#[test]
fn time_never_goes_back_within_a_partition() {
    let mut bench = Bench::new();
    bench.submit(1, envelope(1, BankCommand::Open(name(1))));
    bench.now = Timestamp(NOW.0 - 3_600_000_000);
    bench.submit(2, envelope(2, BankCommand::Open(name(2))));
    bench.land();
    bench.land();
    let times = bench.effects.iter().filter_map(|effect| match effect {
        Effect::Effective(effective) => effective.commit.as_ref().map(|commit| commit.recorded_at),
        _ => None,
    });
    assert_eq!(times.collect::<Vec<_>>(), [NOW, NOW]);
}

#[test]
#[should_panic(expected = "must live in the partition")]
fn a_command_for_another_partition_is_never_decided() {
    let elsewhere = (0..100)
        .map(|number| account(&format!("c{number}"), 0))
        .find(|other| partition_of(&Tenant::default(), other, 12) != partition_of(&Tenant::default(), &name(0), 12))
        .expect("another partition");
    Bench::new().submit(1, envelope(1, BankCommand::Open(elsewhere)));
}

#[test]
fn while_it_is_crowded_nothing_more_is_begun_and_all_else_goes_on() {
    let mut bench = Bench::new();
    bench.submit(1, envelope(1, BankCommand::Open(name(0))));
    bench.land();
    bench.effects.clear();
    bench.feed(Input::Crowded(true));
    bench.feed(Input::Submit(Ticket(2), envelope(2, BankCommand::Open(name(1)))));
    bench.feed(Input::Submit(Ticket(3), envelope(2, BankCommand::Open(name(1)))));
    let (load, asked) = bench.load();
    bench.find_nothing(load, &asked);
    for ticket in [2, 3] {
        assert!(matches!(bench.answer(), (answered, Err(NoAnswer::Overloaded)) if answered == ticket));
    }
    assert!(bench.handed.is_empty(), "nothing of it is durable");
    // What is known is told, what belongs to something begun is done, and what the business refuses is refused for good.
    bench.submit(4, envelope(1, BankCommand::Open(name(0))));
    assert!(matches!(bench.next(), Effect::Replay(Ticket(4), ..)));
    for (ticket, command, status) in [(5, BankCommand::Deposit(name(0), 1), 200), (6, BankCommand::Open(name(0)), 409)]
    {
        bench.submit(ticket, envelope(u128::from(ticket), command));
        bench.land();
        bench.effective();
        assert_eq!(bench.decided().1.outcome.status, status);
    }
    // The same again once there is room.
    bench.feed(Input::Crowded(false));
    bench.submit(7, envelope(2, BankCommand::Open(name(1))));
    bench.land();
    bench.effective();
    let (ticket, decided) = bench.decided();
    assert_eq!((ticket, decided.outcome.status, decided.replayed), (7, 201, false));
    bench.nothing_more();
}
