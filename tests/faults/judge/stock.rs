//! Stock: never negative and never oversold at any prefix of the log, every promise kept, taken back or expired once, and
//! counters that are exactly the sum of the promises.

use std::collections::BTreeMap;

use serde_json::json;

use super::Findings;
use crate::log::{Told, by_sku, evolve};

/// STOCK-1, at every prefix of every stock.
pub(super) fn judge_prefixes(told: &Told, findings: &mut Findings) {
    for (stream, _) in told.named("stock-") {
        let mut row = json!({});
        for event in told.stream(stream) {
            evolve(&mut row, event);
            let (on_hand, reserved) = (row["on_hand"].as_i64().unwrap_or(0), row["reserved"].as_i64().unwrap_or(0));
            findings.unless(on_hand >= 0 && (0..=on_hand).contains(&reserved), "STOCK-1", || {
                format!("{stream} at version {}: {reserved} of {on_hand} reserved", event.version)
            });
        }
    }
}

/// STOCK-3: reservations and stocks tell the same story.
pub(super) fn judge_at_rest(told: &Told, findings: &mut Findings) {
    let mut open = BTreeMap::<String, i64>::new();
    let moves = moves(told);
    for (stream, place) in told.named("reservation-") {
        let Some((location, id)) = place.split_once('~') else {
            findings.add("STOCK-3", format!("{stream} names no location"));
            continue;
        };
        let Some(made) = told.stream(stream).find(|event| event.kind == "ReservationMade") else {
            // Barred before it came: it must have moved nothing, which the streams of its stocks are asked below.
            continue;
        };
        let kinds: Vec<&str> = told.stream(stream).map(|event| event.kind.as_str()).collect();
        let lawful = matches!(
            kinds[..],
            ["ReservationMade"]
                | ["ReservationMade", "ReservationCommitted" | "ReservationReleased" | "ReservationExpired"]
                | ["ReservationMade", "ReservationCommitted", "ReservationReturned"]
        );
        findings.unless(lawful, "STOCK-3", || format!("{stream} went through {kinds:?}"));
        if kinds.len() == 1 {
            for (sku, quantity) in by_sku(&made.data["lines"]) {
                *open.entry(format!("stock-{location}~{sku}")).or_default() += quantity;
            }
        }
        for (sku, quantity) in by_sku(&made.data["lines"]) {
            let stock = format!("stock-{location}~{sku}");
            let moved = moves.get(&(id, stock.as_str())).cloned().unwrap_or_default();
            let expected: Vec<(&str, i64)> = kinds.iter().filter_map(|kind| Some((move_of(kind)?, quantity))).collect();
            findings.unless(moved == expected, "STOCK-3", || {
                format!("{stream} went through {kinds:?}, {stock} was told {moved:?}")
            });
        }
    }
    let reservations: BTreeMap<&str, &str> =
        told.named("reservation-").filter_map(|(stream, place)| Some((place.split_once('~')?.1, stream))).collect();
    for (stock, _) in told.named("stock-") {
        let reserved = told.fold(stock)["reserved"].as_i64().unwrap_or(0);
        let promised = open.get(stock).copied().unwrap_or(0);
        findings.unless(reserved == promised, "STOCK-3", || {
            format!("{stock} shows {reserved} reserved, open reservations say {promised}")
        });
        for event in told.stream(stock) {
            let Some(reservation) = event.data["reservation_id"].as_str() else { continue };
            let known = reservations
                .get(reservation)
                .is_some_and(|stream| told.stream(stream).any(|made| made.kind == "ReservationMade"));
            findings.unless(known, "STOCK-3", || format!("{stock} moved for {reservation}, which was never made"));
        }
    }
}

/// What each stock was told of each reservation, in order.
fn moves(told: &Told) -> BTreeMap<(&str, &str), Vec<(&str, i64)>> {
    let mut moves = BTreeMap::<_, Vec<_>>::new();
    for (stock, _) in told.named("stock-") {
        for event in told.stream(stock) {
            if let Some(reservation) = event.data["reservation_id"].as_str() {
                let quantity = event.data["quantity"].as_i64().unwrap_or(0);
                moves.entry((reservation, stock)).or_default().push((event.kind.as_str(), quantity));
            }
        }
    }
    moves
}

/// What a stock is told when its reservation is told this.
fn move_of(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "ReservationMade" => "StockReserved",
        "ReservationCommitted" => "StockCommitted",
        "ReservationReleased" => "StockReleased",
        "ReservationReturned" => "StockReturned",
        "ReservationExpired" => "StockReservationExpired",
        _ => return None,
    })
}
