//! The checker sees what it is there to see: each violation planted in a history is found, and only that.

use domain::invariants::{Checker, INVARIANTS};
use engine::event::Recorded;
use engine::harness::history;
use engine::position::Version;
use engine::stream::StreamName;
use schemas::event::ShopEvent;
use schemas::event::checkout::*;
use schemas::event::order::*;
use schemas::event::payment::*;
use schemas::event::reservation::*;
use schemas::event::stock::*;
use schemas::ledger::LedgerRow;

use crate::kit::*;

/// A checkout that went well, with what the gateway says of it.
fn good() -> (Vec<Recorded<ShopEvent>>, Vec<LedgerRow>) {
    let mut world = open_shop();
    let lines = vec![line(SHOP, BEANS, 2, 1_000), line(DEPOT, CUPS, 1, 500)];
    world.submit(command_id(1), place(order_id(1), lines, Some("tok_ok"))).unwrap();
    world.run_until_quiet();
    (world.folded().history().recorded().to_vec(), world.outside().ledger())
}

fn violated(recorded: &[Recorded<ShopEvent>], ledger: Option<&[LedgerRow]>) -> Vec<&'static str> {
    let mut checker = Checker::new();
    recorded.iter().for_each(|recorded| checker.observe(recorded));
    let mut ids = checker.finish(ledger).violations.iter().map(|violation| violation.invariant).collect::<Vec<_>>();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn of(events: Vec<(StreamName, ShopEvent)>) -> Vec<&'static str> {
    violated(history(events).recorded(), None)
}

#[test]
fn ids_are_unique_and_all_are_checked() {
    let mut ids = INVARIANTS.iter().map(|each| each.id).collect::<Vec<_>>();
    let (recorded, ledger) = good();
    let mut checker = Checker::new();
    recorded.iter().for_each(|recorded| checker.observe(recorded));
    let report = checker.finish(Some(&ledger));
    assert_eq!((report.checked, report.violations), (ids.clone(), Vec::new()));
    ids.dedup();
    assert_eq!(ids.len(), INVARIANTS.len());
}

#[test]
fn any_event_lost_is_found() {
    let (recorded, ledger) = good();
    for lost in 0..recorded.len() {
        let mut rest = recorded.clone();
        rest.remove(lost);
        // With the numbers closed up, as if it had never been said.
        let mut versions = std::collections::BTreeMap::<StreamName, u64>::new();
        for event in &mut rest {
            let version = versions.entry(event.meta.stream.clone()).or_default();
            *version += 1;
            event.meta.version = Version(*version);
        }
        let event = &recorded[lost].event;
        // Who began it, an intent that was answered, and the end of what then merely goes on leave no other trace; nor
        // does a count of stock that nobody took from.
        let traceless = matches!(
            event,
            ShopEvent::CheckoutStarted(_) | ShopEvent::PaymentCaptureRequested(_) | ShopEvent::CheckoutCompleted(_)
        ) || matches!(event, ShopEvent::StockCounted(_))
            && !taken_from(&recorded, &recorded[lost].meta.stream);
        assert!(traceless || !violated(&rest, Some(&ledger)).is_empty(), "{event:?}");
    }
}

fn taken_from(recorded: &[Recorded<ShopEvent>], stock: &StreamName) -> bool {
    recorded.iter().any(|each| each.meta.stream == *stock && matches!(each.event, ShopEvent::StockReserved(_)))
}

#[test]
fn any_event_doubled_is_found() {
    let (recorded, _) = good();
    for doubled in 0..recorded.len() {
        let mut all = recorded.clone();
        all.insert(doubled, recorded[doubled].clone());
        assert!(violated(&all, None).contains(&"LOG-1"), "{:?}", recorded[doubled].event);
    }
}

fn counted(on_hand: i64) -> (StreamName, ShopEvent) {
    (stock(SHOP, BEANS), StockCounted { on_hand, reason: None }.into())
}

#[test]
fn more_promised_than_there_is_is_found() {
    let moved = StockReserved { reservation_id: reservation_id(1), quantity: 11, order_id: None };
    let made = ReservationMade { lines: vec![pieces(BEANS, 11)], order_id: None, expires_at: engine::harness::START };
    let made = (reservation_id(1).stream_at(&location(SHOP)), made.into());
    assert_eq!(of(vec![counted(10), made, (stock(SHOP, BEANS), moved.into())]), ["STOCK-1"]);
}

#[test]
fn a_reservation_that_ends_twice_is_found() {
    let stream = reservation_id(1).stream_at(&location(SHOP));
    let made = ReservationMade { lines: Vec::new(), order_id: None, expires_at: engine::harness::START };
    let ends = [(stream.clone(), ReservationCommitted {}.into()), (stream.clone(), ReservationExpired {}.into())];
    assert_eq!(of([vec![(stream, made.into())], ends.into()].concat()), ["STOCK-3"]);
}

fn payment(event: impl Into<ShopEvent>) -> (StreamName, ShopEvent) {
    (payment_id(1).stream(), event.into())
}

fn captured(amount: i64) -> Vec<(StreamName, ShopEvent)> {
    let (order_id, method, token) = (None, Method::Card, "tok_ok".to_owned());
    vec![
        payment(PaymentRequested { order_id, amount: eur(100), method, token, checkout: false }),
        payment(PaymentAuthorized { expires_at: engine::harness::START }),
        payment(PaymentCaptureRequested { amount: eur(amount) }),
        payment(PaymentCaptured { amount: eur(amount) }),
    ]
}

#[test]
fn more_captured_than_promised_or_refunded_than_captured_is_found() {
    assert_eq!(of(captured(101)), ["MONEY-2"]);
    let refund = PaymentRefundRequested { amount: eur(91), reason: "late".to_owned(), via: Via::Payment };
    assert_eq!(of([captured(90), vec![payment(refund)]].concat()), ["MONEY-2"]);
}

#[test]
fn books_that_differ_are_found_and_those_in_motion_are_left_out() {
    let (recorded, ledger) = good();
    let mut other = ledger.clone();
    other[0].captured += 1;
    assert_eq!(violated(&recorded, Some(&other)), ["MONEY-4"]);
    assert_eq!(violated(&recorded, Some(&[])), ["MONEY-4"]);
    let mut unknown = ledger.clone();
    unknown.push(LedgerRow { payment_id: payment_id(9), ..ledger[0].clone() });
    assert_eq!(violated(&recorded, Some(&unknown)), ["MONEY-4"]);
    let mut checker = Checker::new();
    recorded.iter().for_each(|recorded| checker.observe(recorded));
    checker.leave_out([ledger[0].payment_id]);
    assert_eq!(checker.finish(Some(&other)).violations, []);
}

#[test]
fn what_was_shipped_unpaid_is_found() {
    let mut world = open_shop();
    world.submit(command_id(1), place(order_id(1), vec![line(SHOP, BEANS, 1, 1)], None)).unwrap();
    let mut all = engine::harness::History::new();
    for recorded in world.folded().history().recorded() {
        all.record_next([(recorded.meta.stream.clone(), recorded.event.clone())]);
    }
    all.record_next([(order_id(1).stream(), OrderShipped { carrier: None, tracking: None }.into())]);
    assert_eq!(violated(all.recorded(), None), ["MONEY-3"]);
}

#[test]
fn a_saga_that_settles_with_promises_open_or_undoes_out_of_order_is_found() {
    let (recorded, _) = good();
    let plan = recorded.iter().find_map(|each| match &each.event {
        ShopEvent::CheckoutPlanned(plan) => Some(plan.clone()),
        _ => None,
    });
    let stream = order_id(1).checkout_stream();
    let at = |event: ShopEvent| (stream.clone(), event);
    let done = |step: &str| at(CheckoutStepDone { step: step.to_owned(), position: None }.into());
    let undone = |step: &str| at(CheckoutStepUndone { step: step.to_owned(), position: None }.into());
    let planned = at(plan.unwrap().into());
    assert!(of(vec![planned.clone(), at(CheckoutCompleted {}.into())]).contains(&"SAGA-1"));
    assert!(of(vec![planned.clone(), done("a"), at(CheckoutCompensated {}.into())]).contains(&"SAGA-1"));
    assert_eq!(of(vec![planned.clone(), done("a"), done("b"), undone("a")]), ["SAGA-2"]);
    assert_eq!(of(vec![planned.clone(), undone("a"), undone("a")]), ["SAGA-2"]);
    assert_eq!(of(vec![planned.clone(), planned.clone()]), ["SAGA-6"]);
    assert!(of(vec![planned, at(CheckoutCompensated {}.into()), done("a")]).contains(&"SAGA-6"));
}

#[test]
fn a_saga_is_judged_only_where_its_steps_have_been_scanned() {
    let (recorded, _) = good();
    // As if the reservations lay in another partition that was not scanned.
    let elsewhere = engine::position::Position { partition: engine::position::Partition(7), ..recorded[0].position };
    let without = recorded.into_iter().filter(|each| !matches!(each.meta.stream.category(), "stock" | "reservation"));
    let mut without = without.collect::<Vec<_>>();
    for each in &mut without {
        if let ShopEvent::CheckoutStepDone(done) = &mut each.event {
            done.position = done.position.map(|_| elsewhere);
        }
    }
    assert_eq!(violated(&without, None), Vec::<&str>::new());
    let mut checker = Checker::new();
    without.iter().for_each(|recorded| checker.observe(recorded));
    checker.scanned(elsewhere);
    let found = checker.finish(None).violations;
    assert!(!found.is_empty() && found.iter().all(|violation| violation.invariant == "SAGA-1"), "{found:?}");
}
