//! Reservations: all lines or none, kept, taken back, run out; a checkout's obey only the checkout.

use domain::Shop;
use engine::harness::{Given, START, given};
use engine::stream::StreamName;
use schemas::command::ShopCommand;
use schemas::event::ShopEvent;
use schemas::event::reservation::ReservedLine;
use schemas::event::reservation::{
    Barred, ReservationCommitted, ReservationExpired, ReservationMade, ReservationReleased, ReservationReturned,
};
use schemas::event::stock::{
    StockCommitted, StockCounted, StockReleased, StockReservationExpired, StockReserved, StockReturned,
};
use schemas::id::OrderId;

use crate::kit::*;

fn shop_with(beans: i64, cups: i64) -> Given<Shop> {
    let counted = |on_hand| ShopEvent::from(StockCounted { on_hand, reason: None });
    given(Shop, [(stock(SHOP, BEANS), counted(beans)), (stock(SHOP, CUPS), counted(cups))]).at(START)
}

fn stream() -> StreamName {
    reservation_id(1).stream_at(&location(SHOP))
}

fn lines() -> Vec<ReservedLine> {
    vec![pieces(CUPS, 1), pieces(BEANS, 2), pieces(BEANS, 3)]
}

fn ask() -> ShopCommand {
    reserve(reservation_id(1), lines())
}

fn ask_for(order: OrderId) -> ShopCommand {
    reserve_for(Some(order), reservation_id(1), lines())
}

fn commit(order: Option<OrderId>) -> ShopCommand {
    ShopCommand::CommitStock(verb(reservation_id(1), lines(), order))
}

fn release(order: Option<OrderId>) -> ShopCommand {
    ShopCommand::ReleaseStock(verb(reservation_id(1), lines(), order))
}

fn give_back(order: OrderId) -> ShopCommand {
    ShopCommand::ReturnStock(verb(reservation_id(1), lines(), Some(order)))
}

fn expire(order: Option<OrderId>) -> ShopCommand {
    ShopCommand::ExpireReservation(verb(reservation_id(1), lines(), order))
}

/// The reservation's event, and one for each of its two SKUs.
macro_rules! moved {
    ($reservation:expr, $stock:ident, $order:expr) => {{
        let (reservation_id, order_id) = (reservation_id(1), $order);
        [
            (stream(), ShopEvent::from($reservation)),
            (stock(SHOP, BEANS), $stock { reservation_id, quantity: 5, order_id }.into()),
            (stock(SHOP, CUPS), $stock { reservation_id, quantity: 1, order_id }.into()),
        ]
    }};
}

fn made(order_id: Option<OrderId>) -> ReservationMade {
    ReservationMade { lines: lines(), order_id, expires_at: START.plus_ms(900_000) }
}

#[test]
fn the_same_sku_on_two_lines_counts_together() {
    shop_with(5, 1).when(ask()).then(moved!(made(None), StockReserved, None));
    shop_with(4, 1).when(ask()).then_refused("stock-insufficient");
}

#[test]
fn every_shortage_is_told_at_once() {
    let then = shop_with(4, 0).when(ask());
    let engine::decider::Decision::Refuse(refusal) = then.decision() else { panic!("{:?}", then.decision()) };
    let told = refusal.errors.iter().map(|error| (error.more["requested"].clone(), error.more["available"].clone()));
    assert_eq!(told.collect::<Vec<_>>(), [(1.into(), 0.into()), (5.into(), 4.into()), (5.into(), 4.into())]);
    let code = "stock-insufficient";
    then.then_refused_with(code, &[("/lines/0", code), ("/lines/1", code), ("/lines/2", code)]);
}

#[test]
fn what_was_never_counted_has_nothing_available() {
    given(Shop, []).when(ask()).then_refused("stock-insufficient");
}

#[test]
fn a_reservation_never_exceeds_what_is_available() {
    shop_with(10, 1)
        .when(reserve(reservation_id(2), vec![pieces(BEANS, 8)]))
        .then_accepted()
        .when(reserve(reservation_id(3), vec![pieces(BEANS, 3)]))
        .then_refused_with("stock-insufficient", &[("/lines/0", "stock-insufficient")])
        .when(reserve(reservation_id(3), vec![pieces(BEANS, 2)]))
        .then_accepted();
}

#[test]
fn a_late_repeat_does_not_reserve_again() {
    let given = shop_with(10, 1).when(ask()).then_accepted();
    let given = given.when(ask()).then_nothing();
    let given = given.when(release(None)).then_accepted();
    given.when(ask()).then_nothing();
}

#[test]
fn other_lines_under_its_id_are_refused() {
    let other = reserve(reservation_id(1), vec![pieces(BEANS, 1)]);
    let given = shop_with(10, 1).when(ask()).then_accepted();
    given
        .when(other)
        .then_refused("reservation-already-exists")
        .when(ask_for(order_id(1)))
        .then_refused("reservation-already-exists");
}

#[test]
fn kept_it_leaves_the_shelf_once() {
    let given = shop_with(10, 1).when(ask()).then_accepted();
    let given = given.when(commit(None)).then(moved!(ReservationCommitted {}, StockCommitted, None));
    assert_eq!(given.state(&stock(SHOP, BEANS)).unwrap().stock().unwrap().shown.on_hand, 5);
    given.when(commit(None)).then_nothing().when(release(None)).then_refused("reservation-closed");
}

#[test]
fn taken_back_it_is_available_again() {
    let given = shop_with(10, 1).when(ask()).then_accepted();
    let given = given.when(release(None)).then(moved!(ReservationReleased { barred: None }, StockReleased, None));
    assert_eq!(given.state(&stock(SHOP, BEANS)).unwrap().stock().unwrap().shown.available, 10);
    given.when(release(None)).then_nothing().when(commit(None)).then_refused("reservation-closed");
}

#[test]
fn its_time_runs_out_unless_it_was_kept_or_taken_back() {
    let given = shop_with(10, 1).when(ask()).then_accepted();
    let timer = given.owes(&stream()).timer.unwrap();
    assert_eq!((timer.due, timer.armed_at.0), (START.plus_ms(900_000), 1));
    let kept = given.clone().when(commit(None)).then_accepted();
    assert!(kept.owes(&stream()).is_empty());
    kept.when(expire(None)).then_nothing();
    given.clone().when(release(None)).then_accepted().when(expire(None)).then_nothing();
    // Also fired by a clock that has since been set back.
    let expired = given.when(expire(None)).then(moved!(ReservationExpired {}, StockReservationExpired, None));
    assert!(expired.owes(&stream()).is_empty());
    expired.when(commit(None)).then_refused("reservation-closed").when(expire(None)).then_nothing();
}

#[test]
fn what_is_not_there_is_not_found() {
    shop_with(10, 1)
        .when(commit(None))
        .then_refused("reservation-not-found")
        .when(release(None))
        .then_refused("reservation-not-found");
}

#[test]
fn a_checkouts_reservation_obeys_only_its_checkout() {
    let order = order_id(1);
    shop_with(10, 1)
        .when(ask_for(order))
        .then(moved!(made(Some(order)), StockReserved, Some(order)))
        .when(commit(None))
        .then_refused("belongs-to-order")
        .when(release(None))
        .then_refused("belongs-to-order")
        .when(commit(Some(order_id(2))))
        .then_refused("belongs-to-order")
        .when(commit(Some(order)))
        .then(moved!(ReservationCommitted {}, StockCommitted, Some(order)))
        .when(give_back(order))
        .then(moved!(ReservationReturned {}, StockReturned, Some(order)))
        .when(give_back(order))
        .then_nothing()
        .when(release(Some(order)))
        .then_nothing()
        .when(ask_for(order))
        .then_refused("reservation-closed");
}

#[test]
fn undone_before_it_arrives_it_never_arrives() {
    let order = order_id(1);
    for undo in [release(Some(order)), give_back(order)] {
        let barred = Some(Barred { lines: lines(), order_id: Some(order) });
        shop_with(10, 1)
            .when(undo.clone())
            .then([(stream(), ReservationReleased { barred }.into())])
            .when(undo)
            .then_nothing()
            .when(ask_for(order))
            .then_refused("reservation-closed")
            .when(commit(Some(order)))
            .then_refused("reservation-closed");
    }
}

#[test]
fn returned_before_it_was_kept_it_is_released_and_cannot_be_kept() {
    let order = order_id(1);
    shop_with(10, 1)
        .when(ask_for(order))
        .then_accepted()
        .when(give_back(order))
        .then(moved!(ReservationReleased { barred: None }, StockReleased, Some(order)))
        .when(commit(Some(order)))
        .then_refused("reservation-closed");
}

#[test]
fn a_checkout_does_not_undo_what_others_reserved() {
    shop_with(10, 1)
        .when(ask())
        .then_accepted()
        .when(release(Some(order_id(1))))
        .then_refused("reservation-already-exists");
}

#[test]
fn ids_of_all_that_changed_it_are_remembered() {
    let order = order_id(1);
    let given = shop_with(10, 1).when_asked_as(command_id(1), ask_for(order)).then_accepted();
    let given = given.when_asked_as(command_id(2), commit(Some(order))).then_accepted();
    let given = given.when_asked_as(command_id(3), give_back(order)).then_accepted();
    for number in 1..=3 {
        assert_eq!(given.remembers(&stream(), command_id(number.into())).map(|version| version.0), Some(number));
    }
}
