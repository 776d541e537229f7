//! Stock: counted, received, adjusted.

use domain::Shop;
use engine::harness::{Given, given};
use engine::stream::StreamName;
use schemas::command::ShopCommand;
use schemas::event::ShopEvent;
use schemas::event::stock::{StockAdjusted, StockCounted, StockReceived, StockReserved};
use serde_json::json;

use crate::kit::*;

fn counted(on_hand: i64) -> (StreamName, ShopEvent) {
    (stock(SHOP, BEANS), StockCounted { on_hand, reason: None }.into())
}

fn reserved(quantity: i64) -> (StreamName, ShopEvent) {
    let moved = StockReserved { reservation_id: reservation_id(1), quantity, order_id: None };
    (stock(SHOP, BEANS), moved.into())
}

fn receive(quantity: u32) -> ShopCommand {
    ShopCommand::ReceiveStock { location_id: location(SHOP), sku: sku(BEANS), quantity }
}

fn adjust(delta: i64) -> ShopCommand {
    ShopCommand::AdjustStock { location_id: location(SHOP), sku: sku(BEANS), delta, reason: "damaged".to_owned() }
}

fn nothing() -> Given<Shop> {
    given(Shop, [])
}

fn status_of(then: &engine::harness::Then<Shop>) -> u16 {
    match then.decision() {
        engine::decider::Decision::Accept(accepted) => accepted.status,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_count_makes_it_and_later_ones_set_it() {
    let then = nothing().when(count(SHOP, BEANS, 100));
    assert_eq!(status_of(&then), 201);
    let then = then.then([counted(100)]).when(count(SHOP, BEANS, 40));
    assert_eq!(status_of(&then), 200);
    then.then([counted(40)]);
}

#[test]
fn the_answer_carries_the_counters_after() {
    given(Shop, [counted(10), reserved(8)]).when(receive(5)).then_answered(&json!({
        "location_id": "shop-1", "sku": "beans", "on_hand": 15, "reserved": 8, "available": 7,
        "version": 3, "updated_at": "2026-01-01T00:00:01.000000Z"
    }));
}

#[test]
fn what_comes_in_and_what_is_set_right_changes_what_is_on_hand() {
    given(Shop, [counted(10)])
        .when(receive(5))
        .then([(stock(SHOP, BEANS), StockReceived { quantity: 5 }.into())])
        .when(adjust(-3))
        .then([(stock(SHOP, BEANS), StockAdjusted { delta: -3, reason: "damaged".to_owned() }.into())])
        .when(adjust(-13))
        .then_refused("stock-below-reserved");
}

#[test]
fn what_was_never_counted_is_not_there() {
    nothing().when(receive(5)).then_refused("stock-not-found").when(adjust(1)).then_refused("stock-not-found");
}

#[test]
fn there_are_never_fewer_than_are_promised() {
    given(Shop, [counted(10), reserved(8)])
        .when(count(SHOP, BEANS, 7))
        .then_refused("stock-below-reserved")
        .when(adjust(-3))
        .then_refused("stock-below-reserved")
        .when(adjust(-2))
        .then_accepted()
        .when(count(SHOP, BEANS, 8))
        .then_accepted();
}

#[test]
fn there_are_never_more_than_can_be_counted() {
    const MOST: i64 = 1_000_000_000_000;
    given(Shop, [counted(MOST)])
        .when(receive(1))
        .then_refused("stock-above-limit")
        .when(adjust(1))
        .then_refused("stock-above-limit")
        .when(count(SHOP, BEANS, MOST + 1))
        .then_refused("stock-above-limit")
        .when(adjust(-1))
        .then_accepted()
        .when(receive(1))
        .then_accepted();
}

#[test]
fn whoever_counted_it_first_is_remembered_for_ever() {
    let given = nothing().when_asked_as(command_id(7), count(SHOP, BEANS, 1)).then_accepted();
    let given = given.when_asked_as(command_id(8), receive(1)).then_accepted();
    assert_eq!(given.remembers(&stock(SHOP, BEANS), command_id(7)).map(|version| version.0), Some(1));
    assert_eq!(given.remembers(&stock(SHOP, BEANS), command_id(8)), None);
}
