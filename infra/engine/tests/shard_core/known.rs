//! Commands that came before: repeats, questions, what is remembered and for how long.

use std::collections::BTreeMap;

use engine::message::{Answer, CommandId};
use engine::position::{Offset, Position, Version};
use engine::shard::{Effect, Input, Inquired, Remembered, Ticket};
use engine::simulated::bank::{Account, BankCommand};
use engine::stream::Tenant;
use uuid::Uuid;

use crate::bench::{Bench, NOW, envelope, id, name, question};

#[test]
fn a_repeat_joins_what_is_loading_or_in_flight() {
    let mut bench = Bench::new();
    let open = || envelope(1, BankCommand::Open(name(0)));
    bench.feed(Input::Submit(Ticket(1), open()));
    bench.feed(Input::Submit(Ticket(2), open()));
    let (load, asked) = bench.load();
    bench.find_nothing(load, &asked);
    bench.submit(3, open());
    bench.submit(4, envelope(1, BankCommand::Deposit(name(0), 1)));
    bench.submit(5, question(1, &BankCommand::Open(name(0))));
    assert_eq!(bench.handed.len(), 1);
    bench.land();
    bench.effective();
    for ticket in [2, 3] {
        let (answered, decided) = bench.decided();
        assert_eq!((answered, decided.replayed), (ticket, true));
    }
    assert!(matches!(bench.answer(), (4, Ok(Answer::Reused))));
    assert_eq!(bench.decided().0, 5);
    assert!(!bench.decided().1.replayed);
    bench.nothing_more();
}

#[test]
fn a_repeat_of_an_effective_command_is_replayed_from_its_record() {
    let mut bench = Bench::new();
    let open = BankCommand::Open(name(0));
    bench.submit(1, envelope(1, open.clone()));
    let offset = bench.land();
    bench.effects.clear();
    bench.submit(2, envelope(1, open.clone()));
    match bench.next() {
        Effect::Replay(Ticket(2), at, fingerprint) => assert_eq!((at, fingerprint), (offset, open.fingerprint())),
        other => panic!("{other:?}"),
    }
    bench.submit(3, envelope(1, BankCommand::Deposit(name(0), 1)));
    assert!(matches!(bench.answer(), (3, Ok(Answer::Reused))));

    // The state store takes over. What it remembers is replayed in the same way.
    bench.feed(Input::Saved(offset.next()));
    assert_eq!(bench.shard.unsaved(), 0);
    bench.feed(Input::Submit(Ticket(4), envelope(1, open.clone())));
    let (load, asked) = bench.load();
    let remembered = Remembered { offset, fingerprint: open.fingerprint() };
    bench.find(load, &asked, &BTreeMap::new(), Some(remembered));
    assert!(matches!(bench.next(), Effect::Replay(Ticket(4), at, _) if at == offset));
    bench.nothing_more();
}

#[test]
fn what_an_aggregate_remembers_is_never_run_again() {
    let mut bench = Bench::new();
    let stored = BTreeMap::from([(name(0), (Version(3), Account { balance: 2, opened_by: id(1) }))]);
    bench.feed(Input::Submit(Ticket(1), envelope(1, BankCommand::Open(name(0)))));
    let (load, asked) = bench.load();
    bench.find(load, &asked, &stored, None);
    match bench.next() {
        Effect::ReplayVersion(Ticket(1), _, stream, version, _) => assert_eq!((stream, version), (name(0), Version(1))),
        other => panic!("{other:?}"),
    }
    bench.nothing_more();
}

#[test]
fn a_uuid_v7_from_before_what_is_remembered_expires() {
    let mut bench = Bench::new();
    bench.feed(Input::Forgotten(NOW));
    let made_at = |micros: i64| {
        let ms = u64::try_from(micros / 1_000).expect("after 1970");
        Uuid::new_v7(uuid::Timestamp::from_unix_time(ms / 1_000, (ms % 1_000) as u32 * 1_000_000, 0, 0))
    };
    let mut old = envelope(0, BankCommand::Open(name(0)));
    old.id = CommandId(made_at(NOW.0 - 1_000));
    bench.submit(1, old);
    bench.land();
    bench.effective();
    assert!(matches!(bench.answer(), (1, Ok(Answer::Expired))));
    let mut young = envelope(0, BankCommand::Open(name(0)));
    young.id = CommandId(made_at(NOW.0));
    bench.submit(2, young);
    bench.land();
    bench.effective();
    assert_eq!(bench.decided().0, 2);
}

#[test]
fn a_uuid_v7_of_more_than_seven_days_expires_even_if_nothing_was_forgotten() {
    let mut bench = Bench::new();
    let ms = u64::try_from(NOW.0 / 1_000).expect("after 1970") - 7 * 24 * 60 * 60 * 1_000;
    for (ticket, made_at_ms, expires) in [(1, ms - 1, true), (2, ms + 60_000, false)] {
        let mut asked = envelope(0, BankCommand::Open(name(0)));
        let (seconds, nanos) = (made_at_ms / 1_000, (made_at_ms % 1_000) as u32 * 1_000_000);
        asked.id = CommandId(Uuid::new_v7(uuid::Timestamp::from_unix_time(seconds, nanos, 0, 0)));
        bench.submit(ticket, asked);
        bench.land();
        bench.effective();
        let (answered, answer) = bench.answer();
        assert_eq!((answered, matches!(answer, Ok(Answer::Expired))), (ticket, expires));
    }
}

#[test]
fn an_entry_outlives_the_loads_that_may_return_older_news() {
    let mut bench = Bench::new();
    let deposit = |number| envelope(number, BankCommand::Deposit(name(0), 1));
    let stored = BTreeMap::from([(name(0), (Version(1), Account { balance: 0, opened_by: id(99) }))]);
    bench.feed(Input::Submit(Ticket(1), deposit(1)));
    let (first, asked) = bench.load();
    bench.feed(Input::Submit(Ticket(2), deposit(2)));
    let (second, asked_again) = bench.load();
    assert_eq!(asked_again.streams, [name(0)]);
    bench.find(first, &asked, &stored, None);
    let offset = bench.land();
    bench.feed(Input::Saved(offset.next()));
    // The second load read before the first record was saved: it still shows version 1.
    bench.effects.clear();
    bench.find(second, &asked_again, &stored, None);
    bench.land();
    bench.effective();
    let (_, decided) = bench.decided();
    assert_eq!((decided.version, decided.state.expect("a state").balance), (Version(3), 2));
}

#[test]
fn a_question_sees_what_ran_while_it_was_loading() {
    let mut bench = Bench::new();
    let open = BankCommand::Open(name(0));
    bench.feed(Input::Submit(Ticket(1), question(1, &open)));
    let (asked_for, asked) = bench.load();
    bench.submit(2, envelope(1, open));
    let offset = bench.land();
    bench.feed(Input::Saved(offset.next()));
    bench.effects.clear();
    bench.find_nothing(asked_for, &asked);
    assert!(matches!(bench.next(), Effect::Replay(Ticket(1), at, _) if at == offset));
}

#[test]
fn an_inquiry_tells_what_runs_and_what_is_not_saved() {
    let mut bench = Bench::new();
    bench.submit(1, envelope(1, BankCommand::Open(name(0))));
    bench.land();
    bench.effects.clear();
    bench.feed(Input::Inquire(Ticket(2), Tenant::default(), id(1)));
    bench.submit(3, envelope(1, BankCommand::Open(name(1))));
    bench.land();
    bench.effective();
    match bench.next() {
        Effect::Inquired(Ticket(2), known) => {
            let [done, running] = known.as_slice() else { panic!("{known:?}") };
            let Inquired { resource, commit: Some((Position { offset, .. }, _)) } = done else { panic!("{done:?}") };
            assert_eq!((resource, *offset), (&name(0), Offset(2)));
            assert_eq!((&running.resource, &running.commit), (&name(1), &None));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_question_is_not_answered_by_what_was_handed_over_before_it_came() {
    let mut bench = Bench::new();
    bench.submit(1, envelope(1, BankCommand::Open(name(0))));
    bench.submit(2, question(2, &BankCommand::Open(name(1))));
    bench.land();
    bench.effective();
    assert_eq!(bench.decided().0, 1);
    bench.nothing_more();
    bench.land();
    bench.effective();
    assert!(matches!(bench.answer(), (2, Ok(Answer::Unheard))));
}

#[test]
fn what_an_aggregate_remembers_is_told_once_all_it_was_seen_with_is_certain() {
    let mut bench = Bench::new();
    let stored = BTreeMap::from([(name(0), (Version(3), Account { balance: 2, opened_by: id(1) }))]);
    bench.submit(1, envelope(9, BankCommand::Open(name(1))));
    bench.feed(Input::Submit(Ticket(2), envelope(1, BankCommand::Open(name(0)))));
    let (load, asked) = bench.load();
    bench.find(load, &asked, &stored, None);
    bench.nothing_more();
    bench.land();
    bench.effective();
    assert_eq!(bench.decided().0, 1);
    assert!(matches!(bench.next(), Effect::ReplayVersion(Ticket(2), ..)));
}
