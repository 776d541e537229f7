//! How a term begins, goes on over gaps, and ends.

use engine::log::{AppendError, Delivery};
use engine::message::NoAnswer;
use engine::position::{Checkpoint, Epoch, Nonce, Offset, Seq};
use engine::record::{Header, Kind};
use engine::shard::{Effect, Input, Limits, Shard, StepDown, Ticket};
use engine::simulated::bank::{BankCommand, bank};
use engine::stream::{Tenant, partition_of};

use crate::bench::{Bench, NOW, a_claim, envelope, id, name, tickets};

#[test]
fn a_gap_is_read_back_before_anybody_is_answered() {
    let mut bench = Bench::new();
    bench.submit(1, envelope(1, BankCommand::Open(name(0))));
    bench.submit(2, envelope(2, BankCommand::Deposit(name(0), 1)));
    // A late record of a writer that is not the one any more.
    bench.foreign(Kind::Barrier, 1, 6, 1);
    bench.land();
    assert!(matches!(bench.next(), Effect::ReadBack(Offset(2))));
    bench.land();
    bench.nothing_more();
    bench.feed(Input::ReadBack(Vec::new()));
    assert!(matches!(bench.next(), Effect::ReadBack(Offset(2))));
    bench.give_back(Offset(2));
    for (offset, ticket) in [(3, 1), (4, 2)] {
        assert_eq!(bench.effective().position.offset, Offset(offset));
        assert_eq!(bench.decided().0, ticket);
    }
    bench.nothing_more();
}

#[test]
fn a_record_without_an_offset_is_read_back() {
    let mut bench = Bench::new();
    bench.submit(1, envelope(1, BankCommand::Open(name(0))));
    let (tag, bytes) = bench.handed.pop_front().expect("a record");
    bench.log.push(bytes.clone());
    // The log wrote it twice and knows neither place.
    bench.log.push(bytes);
    bench.feed(Input::Delivered(vec![Delivery { tag, result: Ok(None) }]));
    assert!(matches!(bench.next(), Effect::ReadBack(Offset(2))));
    bench.give_back(Offset(2));
    assert_eq!(bench.effective().position.offset, Offset(2));
    assert_eq!(bench.decided().0, 1);
    bench.submit(2, envelope(2, BankCommand::Deposit(name(0), 1)));
    bench.land();
    assert_eq!(bench.effective().position.offset, Offset(4));
}

#[test]
fn a_higher_claim_ends_the_term_and_gives_back_what_is_open() {
    let mut bench = Bench::new();
    bench.submit(1, envelope(1, BankCommand::Open(name(0))));
    bench.feed(Input::Inquire(Ticket(3), Tenant::default(), id(1)));
    bench.feed(Input::Submit(Ticket(2), envelope(2, BankCommand::Open(name(1)))));
    let (late, asked) = bench.load();
    bench.foreign(Kind::Claim, 2, 9, 0);
    bench.land();
    bench.effects.clear();
    bench.give_back(Offset(2));
    assert!(matches!(bench.answer(), (3, Err(NoAnswer::NotOwner))));
    let stepped_down = bench.stepped_down();
    assert_eq!(stepped_down.why, StepDown::Fenced);
    assert_eq!(tickets(&stepped_down.unresolved), [1, 2]);
    assert!(!bench.shard.is_leading() && !bench.shard.can_take());
    bench.submit(4, envelope(4, BankCommand::Open(name(0))));
    assert!(matches!(bench.answer(), (4, Err(NoAnswer::NotOwner))));

    // The same shard leads again. What comes back late from the earlier term says nothing.
    let checkpoint =
        Checkpoint { next_offset: Offset(4), epoch: Epoch(2), nonce: Nonce(9), next_seq: Seq(1), open: true };
    let (_, claim) = bench.shard.claim(&checkpoint, Nonce(8), a_claim());
    let mut led = checkpoint;
    led.accept(&Header::decode(&claim).expect("a claim"));
    assert!(bench.shard.lead(led, NOW));
    bench.log.push(claim);
    for (ticket, envelope) in stepped_down.unresolved {
        bench.feed(Input::Submit(ticket, envelope));
    }
    bench.effects.clear();
    bench.handed.clear();
    bench.find_nothing(late, &asked);
    bench.feed(Input::Delivered(vec![Delivery { tag: (1 << 40) | 2, result: Ok(Some(Offset(5))) }]));
    bench.nothing_more();
    assert_eq!(bench.shard.loading(), 2);
}

#[test]
fn a_claim_that_lost_does_not_lead() {
    let mut shard = Shard::new(bank(), partition_of(&Tenant::default(), &name(0), 12), 12, Limits::default());
    let mut checkpoint = Checkpoint { next_offset: Offset(1), ..Checkpoint::default() };
    shard.claim(&checkpoint, Nonce(1), a_claim());
    let other = Header { kind: Kind::Claim, epoch: Epoch(1), nonce: Nonce(2), seq: Seq(0) };
    checkpoint.accept(&other);
    assert!(!shard.lead(checkpoint, NOW));
    assert!(!shard.is_leading());
}

#[test]
fn an_unknown_append_ends_the_term() {
    let mut bench = Bench::new();
    for number in 1..=3_u64 {
        bench.submit(number, envelope(u128::from(number), BankCommand::Open(name(number))));
    }
    bench.land();
    bench.effective();
    bench.decided();
    bench.fail(AppendError::Unknown);
    let stepped_down = bench.stepped_down();
    assert_eq!(stepped_down.why, StepDown::Unknown);
    assert_eq!(tickets(&stepped_down.unresolved), [2, 3]);
}

#[test]
fn a_full_log_answers_those_that_were_certainly_not_written() {
    let mut bench = Bench::new();
    for number in 1..=3_u64 {
        bench.submit(number, envelope(u128::from(number), BankCommand::Open(name(number))));
    }
    // The first is durable, but where is not known yet.
    let (tag, _) = bench.handed.pop_front().expect("a record");
    bench.feed(Input::Delivered(vec![Delivery { tag, result: Ok(None) }]));
    bench.effects.clear();
    bench.fail(AppendError::Full);
    assert!(matches!(bench.answer(), (2, Err(NoAnswer::LogFull))));
    assert!(matches!(bench.answer(), (3, Err(NoAnswer::LogFull))));
    let stepped_down = bench.stepped_down();
    assert_eq!(stepped_down.why, StepDown::Full);
    assert_eq!(tickets(&stepped_down.unresolved), [1]);
}

#[test]
fn a_stopped_log_answers_everybody_and_nothing_is_given_back() {
    let mut bench = Bench::new();
    bench.submit(1, envelope(1, BankCommand::Open(name(1))));
    bench.feed(Input::Submit(Ticket(2), envelope(2, BankCommand::Open(name(2)))));
    bench.effects.clear();
    bench.fail(AppendError::Stopped);
    assert!(matches!(bench.answer(), (1, Err(NoAnswer::LogStopped))));
    assert!(matches!(bench.answer(), (2, Err(NoAnswer::LogStopped))));
    let stepped_down = bench.stepped_down();
    assert_eq!(stepped_down.why, StepDown::Stopped);
    assert!(stepped_down.unresolved.is_empty());
}

#[test]
fn an_offset_that_goes_backwards_is_damage() {
    let mut bench = Bench::new();
    bench.submit(1, envelope(1, BankCommand::Open(name(1))));
    let (tag, _) = bench.handed.pop_front().expect("a record");
    bench.feed(Input::Delivered(vec![Delivery { tag, result: Ok(Some(Offset(1))) }]));
    assert!(matches!(bench.answer(), (1, Err(NoAnswer::LogDamaged))));
    assert!(matches!(bench.stepped_down().why, StepDown::Damaged(_)));
}

#[test]
fn draining_settles_what_is_open_and_releases() {
    let mut bench = Bench::new();
    bench.feed(Input::Submit(Ticket(1), envelope(1, BankCommand::Open(name(0)))));
    let (load, asked) = bench.load();
    bench.feed(Input::Drain);
    assert!(!bench.shard.can_take());
    bench.submit(2, envelope(2, BankCommand::Open(name(1))));
    assert!(matches!(bench.answer(), (2, Err(NoAnswer::Draining))));
    bench.find_nothing(load, &asked);
    bench.land();
    bench.effective();
    assert_eq!(bench.decided().0, 1);
    bench.land();
    assert!(!bench.effective().checkpoint.open);
    assert!(matches!(bench.next(), Effect::Released));
    assert!(!bench.shard.is_leading());
}

#[test]
fn a_record_that_overtook_another_ends_the_term_without_alarm() {
    for reported in [Some(Offset(2)), None] {
        let mut bench = Bench::new();
        bench.submit(1, envelope(1, BankCommand::Open(name(1))));
        bench.submit(2, envelope(2, BankCommand::Open(name(2))));
        let (first, one) = bench.handed.pop_front().expect("a record");
        let (second, two) = bench.handed.pop_front().expect("a record");
        bench.log.extend([two, one]);
        bench.feed(Input::Delivered(vec![Delivery { tag: first, result: Ok(Some(Offset(3))) }]));
        assert!(matches!(bench.next(), Effect::ReadBack(Offset(2))));
        bench.feed(Input::Delivered(vec![Delivery { tag: second, result: Ok(reported) }]));
        bench.give_back(Offset(2));
        let stepped_down = bench.stepped_down();
        assert_eq!(stepped_down.why, StepDown::Unknown);
        assert_eq!(tickets(&stepped_down.unresolved), [1, 2]);
    }
}
