//! Every checkout broken at every step, every step repeated, and every checkout called off at every moment. However it
//! goes, all promises are kept or all are undone, and the gateway's books agree.

use engine::harness::{breaks_every_step, repeats_every_step};
use schemas::command::SagaDecision;
use schemas::event::ShopEvent;
use schemas::event::order::CancelReason;
use schemas::resource::order::OrderStatus;
use schemas::resource::saga::{SagaState, StepState};

use crate::kit::*;

const ID: u128 = 1;

fn two_places() -> Vec<schemas::event::order::Line> {
    vec![line(SHOP, BEANS, 2, 1_999), line(DEPOT, BEANS, 1, 500), line(SHOP, CUPS, 1, 250), line(SHOP, BEANS, 1, 1_999)]
}

fn placed(token: &str) -> ShopWorld {
    let mut world = open_shop();
    world.submit(command_id(1), place(order_id(ID), two_places(), Some(token))).unwrap();
    world
}

fn placed_with_too_little() -> ShopWorld {
    let mut world = open_shop();
    let lines = vec![line(SHOP, BEANS, 2, 1_999), line(DEPOT, BEANS, 11, 500)];
    world.submit(command_id(1), place(order_id(ID), lines, Some("tok_ok"))).unwrap();
    world
}

fn placed_with_nothing_to_take() -> ShopWorld {
    let mut world = open_shop();
    let lines = vec![line(SHOP, BEANS, 11, 1_999)];
    world.submit(command_id(1), place(order_id(ID), lines, Some("tok_ok"))).unwrap();
    world
}

fn run(world: &mut ShopWorld) {
    world.run_until_quiet();
    // Past every reservation's end: what is left behind shows.
    world.advance(3_600_000);
}

/// Nothing is promised any more and nothing is missing.
#[track_caller]
fn all_is_undone(world: &mut ShopWorld) {
    for (at, what) in [(SHOP, BEANS), (SHOP, CUPS), (DEPOT, BEANS), (DEPOT, CUPS)] {
        assert_eq!(the_stock(world, at, what), (10, 0), "{what} at {at}");
    }
    let order = the_order(world, order_id(ID));
    assert_eq!(order.status, OrderStatus::Cancelled);
    assert_eq!(order.paid, order.refunded);
    assert_eq!(the_saga(world, order_id(ID)).state, SagaState::Compensated);
    for row in world.outside().ledger() {
        assert_eq!(row.captured, row.refunded, "{row:?}");
        assert_eq!(row.voided, row.authorized - row.captured, "{row:?}");
    }
    all_is_well(world);
}

#[track_caller]
fn all_is_kept(world: &mut ShopWorld) {
    assert_eq!(the_stock(world, SHOP, BEANS), (7, 0));
    assert_eq!(the_stock(world, SHOP, CUPS), (9, 0));
    assert_eq!(the_stock(world, DEPOT, BEANS), (9, 0));
    let order = the_order(world, order_id(ID));
    assert_eq!((order.status, order.paid, order.refunded), (OrderStatus::Confirmed, eur(6_747), eur(0)));
    assert_eq!(the_saga(world, order_id(ID)).state, SagaState::Completed);
    assert_eq!(world.outside().ledger()[0].captured, 6_747);
    all_is_well(world);
}

#[test]
fn a_checkout_that_goes_well_keeps_all_its_promises() {
    let mut world = placed("tok_ok");
    run(&mut world);
    all_is_kept(&mut world);
    let saga = the_saga(&world, order_id(ID));
    let names = saga.steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>();
    let expected = [
        "reserve_stock@shop-1",
        "reserve_stock@depot",
        "authorize_payment",
        "commit_stock@shop-1",
        "commit_stock@depot",
        "capture_payment",
        "confirm_order",
    ];
    assert_eq!(names, expected);
    assert!(saga.steps.iter().all(|step| step.state == StepState::Done && step.attempts <= 1), "{:?}", saga.steps);
}

#[test]
fn it_takes_few_records() {
    let mut world = open_shop();
    world.submit(command_id(1), place(order_id(ID), vec![line(SHOP, BEANS, 1, 100)], Some("tok_ok"))).unwrap();
    run(&mut world);
    let mut records = world.folded().history().recorded().iter().map(|event| event.position).collect::<Vec<_>>();
    records.dedup();
    // Four counts; placed, reserved, answered, authorized, committed, answered, captured.
    assert_eq!(records.len(), 4 + 7);
}

#[test]
fn broken_at_any_step_a_checkout_keeps_or_undoes_everything() {
    let runs = breaks_every_step(
        || placed("tok_ok"),
        run,
        |world| match the_saga(world, order_id(ID)).state {
            SagaState::Completed => all_is_kept(world),
            _ => all_is_undone(world),
        },
    );
    assert!(runs > 40, "{runs}");
}

#[test]
fn broken_at_any_step_a_checkout_without_enough_stock_undoes_everything() {
    breaks_every_step(placed_with_too_little, run, all_is_undone);
}

#[test]
fn a_checkout_whose_first_reservation_is_refused_has_nothing_to_undo_and_ends() {
    let mut world = placed_with_nothing_to_take();
    run(&mut world);
    all_is_undone(&mut world);
}

#[test]
fn broken_at_any_step_a_declined_checkout_undoes_everything() {
    breaks_every_step(
        || placed("tok_declined"),
        run,
        |world| {
            all_is_undone(world);
            let cancellation = the_order(world, order_id(ID)).cancellation.clone().unwrap();
            assert_eq!(cancellation.reason, CancelReason::PaymentDeclined);
        },
    );
}

#[test]
fn broken_at_any_step_a_checkout_whose_capture_is_refused_undoes_everything() {
    breaks_every_step(
        || placed("tok_capture_refused"),
        run,
        |world| {
            all_is_undone(world);
            let cancellation = the_order(world, order_id(ID)).cancellation.clone().unwrap();
            assert_eq!(cancellation.reason, CancelReason::PaymentDeclined);
        },
    );
}

#[test]
fn any_step_and_any_undo_repeated_leaves_no_trace() {
    for token in ["tok_ok", "tok_declined", "tok_capture_refused"] {
        assert!(repeats_every_step(|| placed(token), run) >= 4);
    }
    repeats_every_step(placed_with_too_little, run);
    repeats_every_step(cancelled_when_completed, run);
}

fn cancelled_when_completed() -> ShopWorld {
    let mut world = placed("tok_ok");
    world.run_until_quiet();
    world.submit(command_id(2), cancel(order_id(ID))).unwrap();
    world
}

#[test]
fn broken_at_any_step_the_cancellation_of_a_completed_checkout_undoes_everything() {
    breaks_every_step(cancelled_when_completed, run, |world| {
        all_is_undone(world);
        assert_eq!(the_order(world, order_id(ID)).refunded, eur(6_747));
    });
}

/// Lets the first `steps` errands be answered, loses the answer to the next, and calls the order off.
fn cancelled_after(steps: u64, late: bool) -> ShopWorld {
    use engine::harness::Fault;
    let mut world = placed("tok_ok");
    for step in 1..=steps {
        carry_out_one(&mut world, step);
    }
    if late {
        world.fault_at(world.steps() + 1, Fault::LandsLate(2));
    }
    world.submit(command_id(2), cancel(order_id(ID))).unwrap();
    world
}

/// One errand of the saga, and no more.
fn carry_out_one(world: &mut ShopWorld, step: u64) {
    use domain::Shop;
    use engine::position::Version;
    use engine::saga::{Ask, Heard, Reactor};
    let stream = order_id(ID).checkout_stream();
    let state = world.state(&stream).unwrap().clone();
    let pending = Shop.react(&stream, Version(0), &state).pending;
    let [pending] = pending.as_slice() else { panic!("step {step}: one errand at a time, not {pending:?}") };
    let heard = match &pending.ask {
        Ask::Command(command) => {
            let outcome = world.submit(pending.id, command.clone()).unwrap();
            let position = world.folded().history().recorded().last().unwrap().position;
            Heard::Outcome(outcome, position)
        }
        Ask::Call(call) => {
            let now = world.now();
            let answer = engine::harness::Outside::<Shop>::call(world.outside(), pending.id, call, now);
            Heard::Returned(answer.unwrap())
        }
    };
    let (id, command) = Shop.heard(&stream, &state, pending, &heard, world.now()).unwrap();
    world.submit(id, command).unwrap();
}

#[test]
fn called_off_at_any_moment_everything_is_undone() {
    // Two reserves, authorization, two commits, capture.
    for steps in 0..=6 {
        for late in [false, true] {
            let mut world = cancelled_after(steps, late);
            run(&mut world);
            all_is_undone(&mut world);
        }
    }
}

#[test]
fn called_off_at_any_moment_and_broken_at_any_step_everything_is_undone() {
    for steps in 0..=6 {
        breaks_every_step(|| cancelled_after(steps, false), run, all_is_undone);
        repeats_every_step(|| cancelled_after(steps, false), run);
    }
}

#[test]
fn what_was_asked_for_before_the_cancellation_and_lands_before_its_undo_is_undone() {
    for steps in 0..=4 {
        let (mut world, late) = cancelled_with_an_answer_out(steps);
        late.lands(&mut world);
        // Its answer is heard by somebody with an older state in hand: it is no longer waited for.
        let events = world.folded().history().recorded().len();
        late.is_heard(&mut world);
        assert_eq!(world.folded().history().recorded().len(), events, "after {steps} steps");
        run(&mut world);
        all_is_undone(&mut world);
    }
}

#[test]
fn what_was_asked_for_before_the_cancellation_and_lands_after_its_undo_changes_nothing() {
    // The capture is waited for: it cannot land after its undo.
    for steps in 0..=4 {
        let (mut world, late) = cancelled_with_an_answer_out(steps);
        world.run_until_quiet();
        let events = world.folded().history().recorded().len();
        late.lands(&mut world);
        late.is_heard(&mut world);
        assert_eq!(world.folded().history().recorded().len(), events, "after {steps} steps");
        all_is_undone(&mut world);
    }
}

/// An errand that is out while the order is called off.
struct Late {
    errand: engine::saga::Pending<schemas::command::ShopCommand, schemas::command::GatewayCall>,
    asked_by: domain::ShopState,
}

fn cancelled_with_an_answer_out(steps: u64) -> (ShopWorld, Late) {
    use engine::saga::Reactor;
    let mut world = placed("tok_ok");
    (1..=steps).for_each(|step| carry_out_one(&mut world, step));
    let stream = order_id(ID).checkout_stream();
    let asked_by = world.state(&stream).unwrap().clone();
    let errand = domain::Shop.react(&stream, engine::position::Version(0), &asked_by).pending.remove(0);
    world.submit(command_id(2), cancel(order_id(ID))).unwrap();
    (world, Late { errand, asked_by })
}

impl Late {
    fn lands(&self, world: &mut ShopWorld) {
        match &self.errand.ask {
            engine::saga::Ask::Command(command) => drop(world.submit(self.errand.id, command.clone()).unwrap()),
            engine::saga::Ask::Call(call) => {
                let now = world.now();
                engine::harness::Outside::<domain::Shop>::call(world.outside(), self.errand.id, call, now).unwrap();
            }
        }
    }

    fn is_heard(&self, world: &mut ShopWorld) {
        use engine::saga::{Ask, Heard, Reactor};
        let stream = order_id(ID).checkout_stream();
        let heard = match &self.errand.ask {
            Ask::Command(_) => {
                let position = world.folded().history().recorded()[0].position;
                Heard::Outcome(engine::message::Outcome { status: 200, ..Default::default() }, position)
            }
            Ask::Call(_) => Heard::Returned(schemas::command::GatewayAnswer::Done { expires_at: None }),
        };
        let now = world.now();
        let (id, command) = domain::Shop.heard(&stream, &self.asked_by, &self.errand, &heard, now).unwrap();
        world.submit(id, command).unwrap();
        let state = world.state(&stream).unwrap().clone();
        assert_eq!(domain::Shop.heard(&stream, &state, &self.errand, &heard, now), None);
    }
}

#[test]
fn a_gateway_that_stays_down_for_five_minutes_ends_the_checkout_and_bars_the_payment() {
    let mut world = placed("tok_ok");
    let began = world.now();
    world.outside().down_until = began.plus_ms(10 * 60 * 1_000);
    run(&mut world);
    let history = world.folded().history();
    let stream = order_id(ID).checkout_stream();
    let retried = history.of(&stream).filter_map(|recorded| match &recorded.event {
        ShopEvent::CheckoutStepRetried(retried) => Some((recorded.meta.recorded_at, retried.clone())),
        _ => None,
    });
    let retried = retried.collect::<Vec<_>>();
    let authorize =
        retried.iter().filter(|(_, retried)| retried.attempt <= 8 && retried.next_attempt_at < began.plus_ms(60_000));
    let waits = authorize.map(|(at, retried)| retried.next_attempt_at.micros_since(*at) / 1_000).collect::<Vec<_>>();
    assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000]);
    let cancelled =
        history.recorded().iter().rfind(|recorded| matches!(recorded.event, ShopEvent::OrderCancelled(_))).unwrap();
    let waited_ms = cancelled.meta.recorded_at.micros_since(began) / 1_000;
    assert!((300_000..=310_000).contains(&waited_ms), "{waited_ms}");
    let cancellation = the_order(&world, order_id(ID)).cancellation.clone().unwrap();
    assert_eq!(cancellation.reason, CancelReason::PaymentUnreachable);
    // The stock is back at once; the payment is barred as soon as somebody answers.
    let at = |kind: &str| {
        let recorded = history.recorded().iter().rfind(|recorded| recorded.event.event_type() == kind).unwrap();
        recorded.meta.recorded_at.micros_since(began) / 1_000
    };
    assert!(at("StockReleased") < waited_ms + 1_000, "{}", at("StockReleased"));
    assert!((600_000..620_000).contains(&at("PaymentVoided")), "{}", at("PaymentVoided"));
    all_is_undone(&mut world);
}

#[test]
fn operators_take_a_parked_checkout_up_again() {
    let mut world = placed("tok_ok");
    carry_out_one(&mut world, 1);
    world.submit(command_id(5), decide(SagaDecision::Park)).unwrap();
    run(&mut world);
    assert_eq!(the_saga(&world, order_id(ID)).state, SagaState::Parked);
    world.submit(command_id(6), decide(SagaDecision::Resume)).unwrap();
    world.run_until_quiet();
    // In the hour, what had been reserved ran out.
    all_is_undone(&mut world);
}

fn decide(decision: SagaDecision) -> schemas::command::ShopCommand {
    let reason = "looked into it".to_owned();
    schemas::command::ShopCommand::DecideSaga { order_id: order_id(ID), decision, reason }
}
