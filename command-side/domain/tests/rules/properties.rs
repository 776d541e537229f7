//! Random commands, in random order, with random faults: what must hold holds at every prefix.

use domain::Shop;
use engine::event::Event;
use engine::harness::{Fault, World};
use engine::message::Outcome;
use proptest::prelude::*;
use schemas::command::{SagaDecision, ShopCommand};
use schemas::resource::Fold;
use schemas::resource::order::Order;
use schemas::resource::payment::Payment;
use schemas::resource::reservation::Reservation;
use schemas::resource::saga::Saga;
use schemas::resource::stock::Stock;
use serde_json::Value;

use crate::kit::*;

/// Something a customer, a clerk or an operator may do.
#[derive(Clone, Debug)]
enum Move {
    Ask(ShopCommand),
    /// Everything owed is carried out.
    Settle,
    /// Time passes.
    Wait(u64),
}

fn place_at() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just(SHOP), Just(DEPOT)]
}

fn what() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just(BEANS), Just(CUPS)]
}

fn token() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just("tok_ok"), 1 => Just("tok_declined"), 1 => Just("tok_capture_refused")]
}

fn some_lines() -> impl Strategy<Value = Vec<schemas::event::order::Line>> {
    prop::collection::vec((place_at(), what(), 1..6_u32, 0..50_i64), 1..4)
        .prop_map(|lines| lines.into_iter().map(|(at, what, many, price)| line(at, what, many, price)).collect())
}

fn decision() -> impl Strategy<Value = SagaDecision> {
    use SagaDecision::{Compensate, Park, Resume, Retry};
    prop_oneof![Just(Retry), Just(Compensate), Just(Park), Just(Resume)]
}

fn command() -> impl Strategy<Value = ShopCommand> {
    let order = || (1..5_u128).prop_map(order_id);
    let free = || (1..3_u128).prop_map(payment_id);
    let held = || (1..4_u128).prop_map(reservation_id);
    let some = || {
        prop::collection::vec((what(), 1..5_u32), 1..3)
            .prop_map(|lines| lines.into_iter().map(|(what, many)| pieces(what, many)).collect::<Vec<_>>())
    };
    let reason = || "because".to_owned();
    prop_oneof![
        6 => (order(), some_lines(), prop::option::weighted(0.8, token())).prop_map(|(id, lines, token)| place(id, lines, token)),
        1 => (order(), token())
            .prop_map(|(order_id, token)| ShopCommand::StartCheckout { order_id, payment: card(token) }),
        2 => order().prop_map(cancel),
        1 => order().prop_map(|order_id| ShopCommand::ShipOrder { order_id, carrier: None, tracking: None }),
        1 => order().prop_map(|order_id| ShopCommand::DeliverOrder { order_id }),
        2 => (order(), 1..60_i64).prop_map(move |(order_id, amount)| ShopCommand::RefundOrder { order_id, amount: eur(amount), reason: reason() }),
        2 => (order(), 1..60_i64).prop_map(move |(order, amount)| ShopCommand::RefundPayment {
            payment_id: order.payment(), checkout_of: Some(order), amount: eur(amount), reason: reason(),
        }),
        1 => (order(), decision()).prop_map(move |(order_id, decision)| ShopCommand::DecideSaga { order_id, decision, reason: reason() }),
        2 => (place_at(), what(), 0..20_i64).prop_map(|(at, what, many)| count(at, what, many)),
        1 => (place_at(), what(), -5..8_i64).prop_map(move |(at, what, delta)| ShopCommand::AdjustStock {
            location_id: location(at), sku: sku(what), delta, reason: reason(),
        }),
        2 => (held(), some()).prop_map(|(id, lines)| reserve(id, lines)),
        1 => (held(), some()).prop_map(|(id, lines)| ShopCommand::CommitStock(verb(id, lines, None))),
        1 => (held(), some()).prop_map(|(id, lines)| ShopCommand::ReleaseStock(verb(id, lines, None))),
        1 => (free(), 1..60_i64, token()).prop_map(|(payment_id, amount, token)| ShopCommand::AuthorizePayment {
            payment_id, order_id: None, amount: eur(amount), means: card(token),
        }),
        1 => (free(), prop::option::of(1..60_i64)).prop_map(|(payment_id, amount)| ShopCommand::CapturePayment { payment_id, amount: amount.map(eur) }),
        1 => free().prop_map(|payment_id| ShopCommand::VoidPayment { payment_id }),
        1 => (free(), 1..60_i64).prop_map(move |(payment_id, amount)| ShopCommand::RefundPayment {
            payment_id, checkout_of: None, amount: eur(amount), reason: reason(),
        }),
    ]
}

fn a_move() -> impl Strategy<Value = Move> {
    prop_oneof![
        8 => command().prop_map(Move::Ask),
        2 => Just(Move::Settle),
        1 => (1..1_200_000_u64).prop_map(Move::Wait),
    ]
}

fn a_fault() -> impl Strategy<Value = (u64, Fault)> {
    let fault = prop_oneof![
        Just(Fault::Fails),
        Just(Fault::Repeated),
        Just(Fault::AnswerLost),
        (1..6_u64).prop_map(Fault::LandsLate),
    ];
    (1..60_u64, fault)
}

fn play(moves: &[Move], faults: &[(u64, Fault)]) -> ShopWorld {
    let mut world = open_shop();
    faults.iter().for_each(|(step, fault)| world.fault_at(*step, *fault));
    for (number, each) in moves.iter().enumerate() {
        match each {
            // What can never be valid is not recorded.
            Move::Ask(command) => drop(world.submit(command_id(100 + number as u128), command.clone())),
            Move::Settle => world.run_until_quiet(),
            Move::Wait(ms) => world.advance(*ms),
        }
    }
    world.run_until_quiet();
    world
}

/// The resource of each stream as its events make it, told as JSON.
fn refolded(world: &World<Shop, Gateway>) -> Vec<(String, Value)> {
    fn fold<F: Fold + serde::Serialize>(world: &ShopWorld, name: &engine::stream::StreamName) -> Value {
        let events = world.folded().history().of(name);
        let fold = events.fold(None::<F>, |this, recorded| F::evolve(this, &recorded.event, &recorded.meta));
        serde_json::to_value(fold).unwrap()
    }
    let each = world.folded().streams().map(|(name, ..)| {
        let value = match name.category() {
            "order" => fold::<Order>(world, name),
            "payment" => fold::<Payment>(world, name),
            "stock" => fold::<Stock>(world, name),
            "reservation" => fold::<Reservation>(world, name),
            _ => fold::<Saga>(world, name),
        };
        (name.to_string(), value)
    });
    each.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_asked_and_however_it_fails_all_is_well(
        moves in prop::collection::vec(a_move(), 1..40),
        faults in prop::collection::vec(a_fault(), 0..4),
    ) {
        let mut world = play(&moves, &faults);
        all_is_well(&mut world);
        // Every saga that nobody parked is settled.
        for (name, _, state) in world.folded().streams() {
            if let Some(checkout) = state.checkout() {
                prop_assert!(checkout.shown.state.is_settled() || checkout.is_parked(), "{name}: {:?}", checkout.shown);
            }
        }
    }

    #[test]
    fn what_is_shown_is_the_fold_of_the_stream(moves in prop::collection::vec(a_move(), 1..30)) {
        let world = play(&moves, &[]);
        let shown = world.folded().streams().map(|(name, _, state)| {
            (name.to_string(), serde_json::to_value(state.resource()).unwrap())
        });
        prop_assert_eq!(shown.collect::<Vec<_>>(), refolded(&world));
    }

    #[test]
    fn events_are_read_back_as_they_were_written(moves in prop::collection::vec(a_move(), 1..20)) {
        for recorded in play(&moves, &[]).folded().history().recorded() {
            prop_assert_eq!(&schemas::event::ShopEvent::decode(&recorded.event.encode()).unwrap(), &recorded.event);
        }
    }

    #[test]
    fn of_more_buyers_than_units_exactly_as_many_succeed(units in 0..30_i64, buyers in 1..60_u128) {
        let mut world = open_shop();
        world.submit(command_id(50), count(SHOP, BEANS, units)).unwrap();
        for buyer in 0..buyers {
            world.submit(command_id(100 + buyer), place(order_id(buyer), vec![line(SHOP, BEANS, 1, 5)], Some("tok_ok"))).unwrap();
        }
        world.run_until_quiet();
        let sold = (0..buyers).filter(|buyer| the_order(&world, order_id(*buyer)).paid.amount == 5).count() as i64;
        prop_assert_eq!(sold, units.min(i64::try_from(buyers).unwrap()));
        prop_assert_eq!(the_stock(&world, SHOP, BEANS), (units - sold, 0));
        all_is_well(&mut world);
    }
}

#[test]
fn half_of_what_is_asked_is_accepted() {
    // Random commands that are all refused would prove nothing.
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut accepted, mut asked) = (0, 0);
    for _ in 0..100 {
        let moves = prop::collection::vec(a_move(), 30).new_tree(&mut runner).unwrap().current();
        let mut world = open_shop();
        for (number, each) in moves.into_iter().enumerate() {
            let Move::Ask(command) = each else {
                world.run_until_quiet();
                continue;
            };
            asked += 1;
            let outcome = world.submit(command_id(100 + number as u128), command);
            accepted += usize::from(outcome.as_ref().is_ok_and(Outcome::is_accepted));
        }
    }
    assert!(accepted * 3 > asked, "{accepted} of {asked}");
}
