//! The checkout record by record: what each answer brings about, what its states are called, what operators may decide.

use domain::Shop;
use engine::harness::{START, World};
use engine::message::{CommandId, Outcome};
use engine::position::Version;
use engine::saga::{Agenda, Ask, Heard, Pending, Reactor};
use schemas::command::{GatewayAnswer, GatewayCall, SagaDecision, ShopCommand, StepResult};
use schemas::event::ShopEvent;
use schemas::event::order::CancelReason;
use schemas::id::OrderId;
use schemas::resource::order::OrderStatus;
use schemas::resource::payment::{InFlight, PaymentStatus};
use schemas::resource::reservation::ReservationStatus;
use schemas::resource::saga::{SagaState, Step, StepState};

use crate::kit::*;

fn id() -> OrderId {
    order_id(1)
}

/// One line at one place, checkout begun.
fn begun() -> ShopWorld {
    let mut world = open_shop();
    world.submit(command_id(1), place(id(), vec![line(SHOP, BEANS, 2, 1_000)], Some("tok_ok"))).unwrap();
    world
}

fn agenda(world: &ShopWorld) -> Agenda<ShopCommand, GatewayCall> {
    let stream = id().checkout_stream();
    Shop.react(&stream, Version(0), world.state(&stream).unwrap())
}

fn pending(world: &ShopWorld) -> Pending<ShopCommand, GatewayCall> {
    let mut pending = agenda(world).pending;
    assert_eq!(pending.len(), 1, "one errand at a time: {pending:?}");
    pending.remove(0)
}

fn hear(world: &mut ShopWorld, pending: &Pending<ShopCommand, GatewayCall>, heard: &Heard<GatewayAnswer>) {
    let stream = id().checkout_stream();
    let state = world.state(&stream).unwrap().clone();
    let (id, command) = Shop.heard(&stream, &state, pending, heard, world.now()).unwrap();
    world.submit(id, command).unwrap();
}

/// Carries out what is pending and records its answer.
fn go(world: &mut ShopWorld) {
    let pending = pending(world);
    let heard = match &pending.ask {
        Ask::Command(command) => {
            let outcome = world.submit(pending.id, command.clone()).unwrap();
            Heard::Outcome(outcome, world.folded().history().recorded().last().unwrap().position)
        }
        Ask::Call(call) => {
            let now = world.now();
            Heard::Returned(engine::harness::Outside::<Shop>::call(world.outside(), pending.id, call, now).unwrap())
        }
    };
    hear(world, &pending, &heard);
}

fn fail(world: &mut ShopWorld) {
    let pending = pending(world);
    hear(world, &pending, &Heard::Unreachable("connection refused".to_owned()));
}

fn refuse(world: &mut ShopWorld, reason: &str) {
    let pending = pending(world);
    hear(world, &pending, &Heard::Returned(GatewayAnswer::Refused { reason: reason.to_owned() }));
}

fn answered_with(world: &mut ShopWorld, code: &'static str) {
    let pending = pending(world);
    let outcome = Outcome { status: 409, code: Some(code.into()), ..Outcome::default() };
    let position = world.folded().history().recorded()[0].position;
    hear(world, &pending, &Heard::Outcome(outcome, position));
}

fn say(world: &mut ShopWorld, number: u128, decision: SagaDecision) -> Outcome {
    let reason = "looked into it".to_owned();
    world.submit(command_id(number), ShopCommand::DecideSaga { order_id: id(), decision, reason }).unwrap()
}

#[track_caller]
fn refused_to(world: &mut ShopWorld, decision: SagaDecision) {
    let before = world.folded().history().recorded().len();
    let number = 70_000 + u128::from(world.folded().version(&id().checkout_stream()).0) * 10 + decision as u128;
    let outcome = say(world, number, decision);
    assert_eq!(outcome.code.as_deref(), Some("saga-not-actionable"), "{decision:?}");
    assert_eq!(world.folded().history().recorded().len(), before);
}

fn state(world: &ShopWorld) -> SagaState {
    the_saga(world, id()).state
}

fn step(world: &ShopWorld, name: &str) -> Step {
    the_saga(world, id()).steps.iter().find(|step| step.name == name).unwrap().clone()
}

/// The types of the events of the last record.
fn last_record(world: &ShopWorld) -> Vec<&'static str> {
    let recorded = world.folded().history().recorded();
    let last = recorded.last().unwrap().position;
    recorded.iter().filter(|event| event.position == last).map(|event| event.event.event_type()).collect()
}

#[test]
fn a_checkout_is_seven_records() {
    let mut world = begun();
    assert_eq!(last_record(&world), ["OrderPlaced", "CheckoutStarted", "CheckoutPlanned"]);
    assert_eq!(state(&world), SagaState::Running);
    let reserve = pending(&world);
    assert_eq!(reserve.id, id().errand("reserve_stock", 0));
    assert_eq!(step(&world, "reserve_stock").command_id, Some(reserve.id));
    go(&mut world);
    assert_eq!(last_record(&world), ["CheckoutStepDone", "PaymentRequested"]);
    assert_eq!(state(&world), SagaState::Waiting);
    let key = id().payment().gateway_key("authorize", 1);
    assert_eq!((pending(&world).id, step(&world, "authorize_payment").command_id), (key, Some(key)));
    go(&mut world);
    assert_eq!(last_record(&world), ["PaymentAuthorized", "CheckoutStepDone"]);
    assert_eq!(state(&world), SagaState::Running);
    go(&mut world);
    assert_eq!(last_record(&world), ["CheckoutStepDone", "PaymentCaptureRequested"]);
    let key = id().payment().gateway_key("capture", 3);
    assert_eq!((pending(&world).id, step(&world, "capture_payment").command_id), (key, Some(key)));
    go(&mut world);
    let told = ["PaymentCaptured", "OrderConfirmed", "CheckoutStepDone", "CheckoutStepDone", "CheckoutCompleted"];
    assert_eq!(last_record(&world), told);
    assert!(agenda(&world).is_empty());
    assert_eq!(the_order(&world, id()).status, OrderStatus::Confirmed);
    // The payment owes nothing of its own: the checkout asks for it.
    let stream = id().payment().stream();
    assert!(Shop.react(&stream, Version(4), world.state(&stream).unwrap()).is_empty());
    all_is_well(&mut world);
}

#[test]
fn a_settled_checkout_knows_where_its_effects_are() {
    let mut world = begun();
    world.run_until_quiet();
    let positions = world.state(&id().checkout_stream()).unwrap().checkout().unwrap().positions();
    let mut commits = world.folded().history().recorded().iter();
    let last = commits.rfind(|event| matches!(event.event, ShopEvent::ReservationCommitted(_))).unwrap();
    assert_eq!(positions.iter().collect::<Vec<_>>(), [last.position]);
}

#[test]
fn without_stock_the_order_is_cancelled_and_what_was_reserved_is_released() {
    let mut world = open_shop();
    let lines = vec![line(SHOP, BEANS, 2, 1_000), line(DEPOT, CUPS, 11, 1_000)];
    world.submit(command_id(1), place(id(), lines, Some("tok_ok"))).unwrap();
    go(&mut world);
    go(&mut world);
    assert_eq!(last_record(&world), ["CheckoutStepFailed", "OrderCancelled", "CheckoutCompensationStarted"]);
    assert_eq!(state(&world), SagaState::Compensating);
    assert_eq!(step(&world, "reserve_stock@depot").last_error.as_deref(), Some("stock-insufficient"));
    assert_eq!(the_order(&world, id()).cancellation.as_ref().unwrap().reason, CancelReason::StockInsufficient);
    assert_eq!(pending(&world).id, id().errand("undo reserve_stock@shop-1", 0));
    go(&mut world);
    assert_eq!(last_record(&world), ["CheckoutStepUndone", "CheckoutCompensated"]);
    assert_eq!(the_reservation(&world, id(), SHOP), Some(ReservationStatus::Released));
    assert_eq!(the_reservation(&world, id(), DEPOT), None);
    assert!(agenda(&world).is_empty());
    all_is_well(&mut world);
}

#[test]
fn an_unknown_sku_has_nothing_available() {
    let mut world = open_shop();
    world.submit(command_id(1), place(id(), vec![line(SHOP, "unheard-of", 1, 1)], Some("tok_ok"))).unwrap();
    go(&mut world);
    // Nothing was done, so nothing is left to undo.
    assert_eq!(state(&world), SagaState::Compensated);
    assert_eq!(the_order(&world, id()).cancellation.as_ref().unwrap().reason, CancelReason::StockInsufficient);
}

#[test]
fn a_reservation_that_ran_out_before_it_was_kept_undoes_the_promise_of_money() {
    let mut world = begun();
    go(&mut world);
    go(&mut world);
    let expire =
        ShopCommand::ExpireReservation(verb(id().reservation_at(&location(SHOP)), vec![pieces(BEANS, 2)], Some(id())));
    world.submit(command_id(2), expire).unwrap();
    go(&mut world);
    assert_eq!(the_order(&world, id()).cancellation.as_ref().unwrap().reason, CancelReason::StockInsufficient);
    assert_eq!(the_payment(&world, id().payment()).in_flight, Some(InFlight::Void));
    world.run_until_quiet();
    assert_eq!(the_payment(&world, id().payment()).status, PaymentStatus::Voided);
    assert_eq!(state(&world), SagaState::Compensated);
    all_is_well(&mut world);
}

#[test]
fn a_promise_of_money_that_ran_out_is_not_cashed() {
    let mut world = begun();
    go(&mut world);
    go(&mut world);
    let expire = ShopCommand::ExpirePayment { payment_id: id().payment(), armed_at: 2 };
    world.submit(command_id(2), expire).unwrap();
    assert_eq!(the_payment(&world, id().payment()).status, PaymentStatus::Expired);
    go(&mut world);
    assert_eq!(the_order(&world, id()).cancellation.as_ref().unwrap().reason, CancelReason::PaymentDeclined);
    world.run_until_quiet();
    assert_eq!(state(&world), SagaState::Compensated);
    assert_eq!(the_stock(&world, SHOP, BEANS), (10, 0));
    all_is_well(&mut world);
}

#[test]
fn failed_tries_are_counted_and_spaced() {
    let mut world = begun();
    go(&mut world);
    fail(&mut world);
    assert_eq!(last_record(&world), ["CheckoutStepRetried"]);
    assert_eq!(state(&world), SagaState::Retrying);
    let saga = the_saga(&world, id());
    assert_eq!(saga.next_attempt_at, Some(saga.updated_at.plus_ms(100)));
    assert_eq!(pending(&world).not_before, saga.next_attempt_at);
    fail(&mut world);
    let shown = step(&world, "authorize_payment");
    assert_eq!((shown.state, shown.attempts), (StepState::Retrying, 2));
    assert_eq!(shown.last_error.as_deref(), Some("connection refused"));
    go(&mut world);
    let shown = step(&world, "authorize_payment");
    assert_eq!((shown.state, shown.attempts), (StepState::Done, 3));
    assert_eq!(the_saga(&world, id()).next_attempt_at, None);
}

#[test]
fn a_try_heard_of_twice_counts_once() {
    let mut world = begun();
    go(&mut world);
    let call = pending(&world);
    let unreachable = Heard::Unreachable("down".to_owned());
    let stream = id().checkout_stream();
    let before = world.state(&stream).unwrap().clone();
    hear(&mut world, &call, &unreachable);
    let version = world.folded().version(&stream);
    let (again, command) = Shop.heard(&stream, &before, &call, &unreachable, START).unwrap();
    world.submit(again, command.clone()).unwrap();
    // Even under an id that was forgotten.
    world.submit(command_id(3), command).unwrap();
    assert_eq!(world.folded().version(&stream), version);
}

#[test]
fn past_the_point_of_no_return_it_is_stuck_and_tried_for_ever() {
    let mut world = begun();
    (0..3).for_each(|_| go(&mut world));
    (0..4).for_each(|_| fail(&mut world));
    assert_eq!(state(&world), SagaState::Retrying);
    (0..40).for_each(|_| fail(&mut world));
    assert_eq!(state(&world), SagaState::StuckForward);
    let saga = the_saga(&world, id());
    assert_eq!(saga.next_attempt_at, Some(saga.updated_at.plus_ms(10_000)));
    refused_to(&mut world, SagaDecision::Compensate);
    refused_to(&mut world, SagaDecision::Skip);
    refused_to(&mut world, SagaDecision::Resume);
    say(&mut world, 2, SagaDecision::Retry);
    // The gateway is asked under the same key: a new one could cash twice.
    assert_eq!(pending(&world).id, id().payment().gateway_key("capture", 3));
    assert_eq!(pending(&world).not_before, None);
    refused_to(&mut world, SagaDecision::Retry);
    go(&mut world);
    assert_eq!(state(&world), SagaState::Completed);
}

#[test]
fn an_undo_that_keeps_failing_is_stuck_and_tried_for_ever() {
    let mut world = begun();
    (0..2).for_each(|_| go(&mut world));
    world.submit(command_id(2), cancel(id())).unwrap();
    // Commit was asked for and not answered: it may land.
    assert_eq!(pending(&world).id, id().errand("undo commit_stock", 0));
    go(&mut world);
    assert_eq!(state(&world), SagaState::Compensating);
    (0..5).for_each(|_| fail(&mut world));
    assert_eq!(state(&world), SagaState::StuckCompensating);
    go(&mut world);
    assert_eq!(state(&world), SagaState::Compensated);
    all_is_well(&mut world);
}

/// Asked for money by a gateway that cannot be reached, and called off.
fn called_off_while_the_gateway_is_down() -> ShopWorld {
    let mut world = begun();
    go(&mut world);
    (0..6).for_each(|_| fail(&mut world));
    world.submit(command_id(2), cancel(id())).unwrap();
    world
}

#[test]
fn stock_does_not_wait_for_a_gateway_that_never_answered() {
    let mut world = called_off_while_the_gateway_is_down();
    assert_eq!(the_payment(&world, id().payment()).in_flight, Some(InFlight::Void));
    assert_eq!(pending(&world).id, id().errand("undo reserve_stock", 0));
    go(&mut world);
    assert_eq!(last_record(&world), ["CheckoutStepUndone"]);
    assert_eq!(the_stock(&world, SHOP, BEANS), (10, 0));
    assert_eq!(state(&world), SagaState::Compensating);
    let void = id().payment().gateway_key("void", 2);
    (0..4).for_each(|_| fail(&mut world));
    assert_eq!(state(&world), SagaState::Compensating);
    fail(&mut world);
    assert_eq!((state(&world), pending(&world).id), (SagaState::StuckCompensating, void));
    assert_eq!(step(&world, "authorize_payment").attempts, 5);
    refused_to(&mut world, SagaDecision::Compensate);
    refused_to(&mut world, SagaDecision::Resume);
    say(&mut world, 3, SagaDecision::Retry);
    // Under the same key: it may have been heard.
    assert_eq!((state(&world), pending(&world).id, pending(&world).not_before), (SagaState::Compensating, void, None));
    go(&mut world);
    assert_eq!(last_record(&world), ["PaymentVoided", "CheckoutStepUndone", "CheckoutCompensated"]);
    all_is_well(&mut world);
}

#[test]
fn an_answer_to_what_is_not_yet_asked_changes_nothing() {
    let mut world = called_off_while_the_gateway_is_down();
    let version = world.folded().version(&id().checkout_stream());
    let answer = GatewayAnswer::Done { expires_at: None };
    let (payment_id, checkout_of) = (id().payment(), Some(id()));
    let record = ShopCommand::RecordGateway { payment_id, checkout_of, intent: 2, answer };
    world.submit(command_id(3), record).unwrap();
    assert_eq!(world.folded().version(&id().checkout_stream()), version);
    world.run_until_quiet();
    assert_eq!(state(&world), SagaState::Compensated);
    all_is_well(&mut world);
}

#[test]
fn a_promise_that_was_given_is_taken_back_before_the_stock_is() {
    let mut world = begun();
    (0..2).for_each(|_| go(&mut world));
    world.submit(command_id(2), cancel(id())).unwrap();
    go(&mut world);
    assert_eq!(last_record(&world), ["CheckoutStepUndone", "PaymentVoidRequested", "CheckoutUndoRequested"]);
    // However often it fails: it was done, and undo goes in reverse.
    for _ in 0..7 {
        assert_eq!(pending(&world).id, id().payment().gateway_key("void", 3));
        fail(&mut world);
    }
    go(&mut world);
    assert_eq!(last_record(&world)[..2], ["PaymentVoided", "CheckoutStepUndone"]);
}

#[test]
fn a_void_that_nobody_answers_is_given_up_by_hand() {
    let mut world = called_off_while_the_gateway_is_down();
    go(&mut world);
    (0..5).for_each(|_| fail(&mut world));
    say(&mut world, 3, SagaDecision::Skip);
    assert_eq!(last_record(&world), ["PaymentVoidFailed", "CheckoutStepSkipped", "CheckoutCompensated"]);
    assert_eq!(step(&world, "authorize_payment").state, StepState::Failed);
    assert_eq!(the_payment(&world, id().payment()).in_flight, None);
    assert!(agenda(&world).is_empty());
    all_is_well(&mut world);
}

#[test]
fn the_stock_given_up_by_hand_leaves_the_void_to_be_done() {
    let mut world = called_off_while_the_gateway_is_down();
    answered_with(&mut world, "internal");
    assert_eq!(state(&world), SagaState::Parked);
    say(&mut world, 3, SagaDecision::Skip);
    assert_eq!(last_record(&world), ["CheckoutResumed", "CheckoutStepSkipped"]);
    assert_eq!(pending(&world).id, id().payment().gateway_key("void", 2));
    go(&mut world);
    assert_eq!(the_payment(&world, id().payment()).status, PaymentStatus::Voided);
    assert_eq!(state(&world), SagaState::Compensated);
}

#[test]
fn cancelled_while_the_promise_is_on_its_way_the_payment_is_barred() {
    let mut world = begun();
    go(&mut world);
    let late = pending(&world);
    world.submit(command_id(2), cancel(id())).unwrap();
    let told = ["OrderCancelled", "CheckoutCompensationStarted", "PaymentVoidRequested", "CheckoutUndoRequested"];
    assert_eq!(last_record(&world), told);
    // The promise had been given; its answer comes now and is worth nothing.
    let Ask::Call(call) = &late.ask else { panic!("{late:?}") };
    engine::harness::Outside::<Shop>::call(world.outside(), late.id, call, START).unwrap();
    let answer = GatewayAnswer::Done { expires_at: Some(START.plus_ms(1_000)) };
    let (payment_id, checkout_of) = (id().payment(), Some(id()));
    let record = ShopCommand::RecordGateway { payment_id, checkout_of, intent: 1, answer };
    world.submit(late.id.derive("outcome"), record).unwrap();
    assert_eq!(the_payment(&world, id().payment()).status, PaymentStatus::Pending);
    assert_eq!(pending(&world).id, id().errand("undo reserve_stock", 0));
    go(&mut world);
    assert_eq!(last_record(&world), ["CheckoutStepUndone"]);
    go(&mut world);
    assert_eq!(last_record(&world), ["PaymentVoided", "CheckoutStepUndone", "CheckoutCompensated"]);
    assert_eq!(world.outside().ledger()[0].voided, 2_000);
    all_is_well(&mut world);
}

#[test]
fn cancelled_while_the_money_is_on_its_way_it_comes_and_goes_back() {
    let mut world = begun();
    (0..3).for_each(|_| go(&mut world));
    let capture = pending(&world);
    world.submit(command_id(2), cancel(id())).unwrap();
    assert_eq!(last_record(&world), ["OrderCancelled", "CheckoutCompensationStarted"]);
    assert_eq!(pending(&world).id, capture.id);
    go(&mut world);
    let told = [
        "PaymentCaptured",
        "OrderPaid",
        "CheckoutStepDone",
        "OrderRefundRequested",
        "PaymentRefundRequested",
        "CheckoutUndoRequested",
    ];
    assert_eq!(last_record(&world), told);
    go(&mut world);
    assert_eq!(last_record(&world), ["PaymentRefunded", "OrderRefunded", "CheckoutStepUndone"]);
    go(&mut world);
    // Returned, what was committed takes the promise back with it; and nothing is left to void.
    let told = ["CheckoutStepUndone", "CheckoutStepUndone", "CheckoutStepUndone", "CheckoutCompensated"];
    assert_eq!(last_record(&world), told);
    let order = the_order(&world, id());
    assert_eq!((order.status, order.paid, order.refunded), (OrderStatus::Cancelled, eur(2_000), eur(2_000)));
    assert_eq!(the_stock(&world, SHOP, BEANS), (10, 0));
    all_is_well(&mut world);
}

#[test]
fn cancelled_after_it_completed_only_the_rest_goes_back() {
    let mut world = begun();
    world.run_until_quiet();
    let refund = ShopCommand::RefundOrder { order_id: id(), amount: eur(300), reason: "late".to_owned() };
    world.submit(command_id(2), refund).unwrap();
    world.submit(command_id(3), cancel(id())).unwrap();
    assert_eq!(state(&world), SagaState::Compensating);
    let Ask::Call(GatewayCall::Refund { amount, .. }) = pending(&world).ask else { panic!("{:?}", pending(&world)) };
    // What was asked for counts at once.
    assert_eq!(amount, eur(1_700));
    world.run_until_quiet();
    let order = the_order(&world, id());
    assert_eq!((order.paid, order.refunded), (eur(2_000), eur(2_000)));
    assert_eq!(state(&world), SagaState::Compensated);
    assert_eq!(the_reservation(&world, id(), SHOP), Some(ReservationStatus::Returned));
    all_is_well(&mut world);
}

#[test]
fn fully_refunded_before_it_is_cancelled_only_the_stock_goes_back() {
    let mut world = begun();
    world.run_until_quiet();
    let refund = ShopCommand::RefundOrder { order_id: id(), amount: eur(2_000), reason: "late".to_owned() };
    world.submit(command_id(2), refund).unwrap();
    world.submit(command_id(3), cancel(id())).unwrap();
    assert_eq!(pending(&world).id, id().errand("undo commit_stock", 0));
    world.run_until_quiet();
    assert_eq!(state(&world), SagaState::Compensated);
    all_is_well(&mut world);
}

#[test]
fn what_cannot_be_parks_the_checkout_alone_until_somebody_decides() {
    let mut world = begun();
    let errand = pending(&world);
    hear(&mut world, &errand, &Heard::Invalid("/lines: out-of-range".to_owned()));
    assert_eq!(last_record(&world), ["CheckoutParked"]);
    assert_eq!(state(&world), SagaState::Parked);
    assert!(agenda(&world).is_empty());
    refused_to(&mut world, SagaDecision::Park);
    refused_to(&mut world, SagaDecision::Skip);
    say(&mut world, 2, SagaDecision::Resume);
    // Under a new id: the old one was answered.
    assert_eq!(pending(&world).id, id().errand("reserve_stock", 1));
    assert_eq!(step(&world, "reserve_stock").command_id, Some(id().errand("reserve_stock", 1)));
    answered_with(&mut world, "reservation-already-exists");
    assert_eq!(state(&world), SagaState::Parked);
    say(&mut world, 3, SagaDecision::Retry);
    world.run_until_quiet();
    assert_eq!(state(&world), SagaState::Completed);
    all_is_well(&mut world);
}

#[test]
fn a_parked_checkout_records_what_comes_and_asks_for_nothing() {
    let mut world = begun();
    go(&mut world);
    let call = pending(&world);
    say(&mut world, 2, SagaDecision::Park);
    hear(&mut world, &call, &Heard::Returned(GatewayAnswer::Done { expires_at: None }));
    assert_eq!(last_record(&world), ["PaymentAuthorized", "CheckoutStepDone"]);
    assert_eq!(state(&world), SagaState::Parked);
    assert!(agenda(&world).is_empty());
    say(&mut world, 3, SagaDecision::Resume);
    assert_eq!(state(&world), SagaState::Running);
    assert_eq!(pending(&world).id, id().errand("commit_stock", 1));
}

#[test]
fn a_parked_checkout_is_called_off_and_stays_parked() {
    let mut world = begun();
    say(&mut world, 2, SagaDecision::Park);
    world.submit(command_id(3), cancel(id())).unwrap();
    assert_eq!(the_order(&world, id()).status, OrderStatus::Cancelled);
    assert_eq!(state(&world), SagaState::Parked);
    say(&mut world, 4, SagaDecision::Resume);
    world.run_until_quiet();
    assert_eq!(state(&world), SagaState::Compensated);
    // Asked for and never answered: barred.
    assert_eq!(the_reservation(&world, id(), SHOP), Some(ReservationStatus::Released));
    all_is_well(&mut world);
}

#[test]
fn operators_compensate_before_the_point_of_no_return() {
    for steps in 0..=2 {
        let mut world = begun();
        (0..steps).for_each(|_| go(&mut world));
        if steps == 1 {
            say(&mut world, 2, SagaDecision::Park);
        }
        say(&mut world, 3, SagaDecision::Compensate);
        assert_eq!(state(&world), SagaState::Compensating);
        refused_to(&mut world, SagaDecision::Compensate);
        world.run_until_quiet();
        assert_eq!(the_order(&world, id()).cancellation.as_ref().unwrap().reason, CancelReason::Operator);
        assert_eq!(state(&world), SagaState::Compensated);
        all_is_well(&mut world);
    }
}

#[test]
fn a_settled_checkout_is_nobodys_to_decide() {
    let mut world = begun();
    world.run_until_quiet();
    use SagaDecision::{Compensate, Park, Resume, Retry, Skip};
    for decision in [Retry, Skip, Compensate, Park, Resume] {
        refused_to(&mut world, decision);
    }
    let mut empty = World::new(Shop, Gateway::default());
    assert_eq!(say(&mut empty, 1, Retry).code.as_deref(), Some("saga-not-found"));
}

#[test]
fn an_undo_that_the_gateway_refuses_parks_and_is_asked_for_anew() {
    let mut world = begun();
    world.run_until_quiet();
    world.submit(command_id(2), cancel(id())).unwrap();
    let first = pending(&world).id;
    refuse(&mut world, "out_of_order");
    assert_eq!(last_record(&world), ["CheckoutParked", "PaymentRefundFailed", "OrderRefundFailed"]);
    assert_eq!(the_payment(&world, id().payment()).in_flight, None);
    say(&mut world, 3, SagaDecision::Retry);
    assert_ne!(pending(&world).id, first);
    world.run_until_quiet();
    assert_eq!(state(&world), SagaState::Compensated);
    all_is_well(&mut world);
}

#[test]
fn a_void_that_the_gateway_refuses_parks_and_is_asked_for_anew() {
    let mut world = begun();
    go(&mut world);
    world.submit(command_id(2), cancel(id())).unwrap();
    go(&mut world);
    let first = pending(&world).id;
    refuse(&mut world, "out_of_order");
    assert_eq!(last_record(&world), ["CheckoutParked", "PaymentVoidFailed"]);
    say(&mut world, 3, SagaDecision::Resume);
    assert_ne!(pending(&world).id, first);
    world.run_until_quiet();
    assert_eq!(state(&world), SagaState::Compensated);
    all_is_well(&mut world);
}

#[test]
fn operators_may_give_an_undo_up() {
    let mut world = begun();
    world.run_until_quiet();
    world.submit(command_id(2), cancel(id())).unwrap();
    say(&mut world, 3, SagaDecision::Skip);
    let told = ["PaymentRefundFailed", "OrderRefundFailed", "CheckoutStepSkipped"];
    assert_eq!(last_record(&world), told);
    assert_eq!(step(&world, "capture_payment").state, StepState::Failed);
    assert_eq!(pending(&world).id, id().errand("undo commit_stock", 0));
    answered_with(&mut world, "internal");
    assert_eq!(state(&world), SagaState::Parked);
    say(&mut world, 4, SagaDecision::Skip);
    // What stays committed cannot be released, and the captured money needs no void.
    assert_eq!(state(&world), SagaState::Compensated);
    assert!(agenda(&world).is_empty());
    assert_eq!(the_payment(&world, id().payment()).in_flight, None);
    all_is_well(&mut world);
}

#[test]
fn the_id_of_its_payment_taken_by_somebody_ends_the_checkout() {
    let mut world = begun();
    let payment_id = id().payment();
    let take = |order_id| ShopCommand::AuthorizePayment { payment_id, order_id, amount: eur(1), means: card("tok_ok") };
    let refused = world.submit(command_id(2), take(Some(id()))).unwrap();
    assert_eq!(refused.code.as_deref(), Some("belongs-to-order"));
    world.submit(command_id(3), take(None)).unwrap();
    world.run_until_quiet();
    assert_eq!(the_order(&world, id()).cancellation.as_ref().unwrap().reason, CancelReason::PaymentDeclined);
    assert_eq!(state(&world), SagaState::Compensated);
    assert_eq!(the_stock(&world, SHOP, BEANS), (10, 0));
}

#[test]
fn answers_to_steps_are_remembered_for_ever() {
    let mut world = begun();
    let errand = pending(&world);
    go(&mut world);
    let outcome = errand.id.derive("outcome");
    world.forget();
    let position = world.folded().history().recorded().last().unwrap().position;
    let step = "reserve_stock".to_owned();
    let result = StepResult::Done(engine::position::Position { offset: engine::position::Offset(7), ..position });
    let again = ShopCommand::RecordStep { order_id: id(), step, undo: false, result };
    let events = world.folded().history().recorded().len();
    // Another fingerprint, so that it would show if it were decided.
    assert!(world.submit(outcome, again).is_err());
    assert_eq!(world.folded().history().recorded().len(), events);
    let known: CommandId = outcome;
    assert!(engine::decider::Decider::remembers(&Shop, world.state(&id().checkout_stream()).unwrap(), known).is_some());
}
