//! Books of stock: counters and, for each reservation, what it holds of them.

use std::collections::BTreeMap;

use engine::event::EventMeta;
use engine::stream::StreamName;
use schemas::event::ShopEvent;
use schemas::event::reservation::ReservedLine;
use schemas::id::{LocationId, ReservationId, Sku, Subject, stock_stream};

use super::{Blame, Found, STOCK_1, STOCK_2, STOCK_3};

/// Where a promise stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Promised,
    Kept,
    TakenBack,
    Returned,
}

#[derive(Debug, Default)]
pub(super) struct StockBooks {
    stocks: BTreeMap<StreamName, Shelf>,
    reservations: BTreeMap<StreamName, Promise>,
}

#[derive(Debug, Default)]
struct Shelf {
    on_hand: i64,
    reserved: i64,
    held: BTreeMap<ReservationId, (i64, Stage)>,
}

#[derive(Debug)]
struct Promise {
    location: LocationId,
    id: ReservationId,
    quantities: BTreeMap<Sku, i64>,
    stage: Stage,
}

impl StockBooks {
    pub(super) fn observe(&mut self, meta: &EventMeta, event: &ShopEvent, blame: &mut Blame<'_>) {
        match Subject::of(&meta.stream) {
            Some(Subject::Stock(..)) => {
                let shelf = self.stocks.entry(meta.stream.clone()).or_default();
                shelf.observe(event, blame);
                let (on_hand, reserved) = (shelf.on_hand, shelf.reserved);
                blame.unless(0 <= reserved && reserved <= on_hand, STOCK_1, || {
                    format!("{on_hand} on hand, {reserved} reserved")
                });
            }
            Some(Subject::Reservation(location, id)) => self.promise(meta, location, id, event, blame),
            _ => {}
        }
    }

    fn promise(
        &mut self,
        meta: &EventMeta,
        location: LocationId,
        id: ReservationId,
        event: &ShopEvent,
        blame: &mut Blame<'_>,
    ) {
        let Some(promise) = self.reservations.get_mut(&meta.stream) else {
            let (quantities, stage) = match event {
                ShopEvent::ReservationMade(made) => (by_sku(&made.lines), Stage::Promised),
                ShopEvent::ReservationReleased(released) if released.barred.is_some() => {
                    (BTreeMap::new(), Stage::TakenBack)
                }
                other => return blame.unless(false, STOCK_3, || format!("it begins with {}", other.event_type())),
            };
            self.reservations.insert(meta.stream.clone(), Promise { location, id, quantities, stage });
            return;
        };
        let next = match (promise.stage, event) {
            (Stage::Promised, ShopEvent::ReservationCommitted(_)) => Stage::Kept,
            (Stage::Promised, ShopEvent::ReservationReleased(_) | ShopEvent::ReservationExpired(_)) => Stage::TakenBack,
            (Stage::Kept, ShopEvent::ReservationReturned(_)) => Stage::Returned,
            (stage, other) => {
                return blame.unless(false, STOCK_3, || format!("{} follows {stage:?}", other.event_type()));
            }
        };
        promise.stage = next;
    }

    /// Where a reservation stands; `None` if it was never heard of.
    pub(super) fn stage_of(&self, reservation: &StreamName) -> Option<Stage> {
        self.reservations.get(reservation).map(|promise| promise.stage)
    }

    pub(super) fn finish(&self, found: &mut Found) {
        let mut promised = BTreeMap::<(StreamName, ReservationId), (i64, Stage)>::new();
        for promise in self.reservations.values() {
            for (sku, quantity) in &promise.quantities {
                let stock = stock_stream(&promise.location, sku);
                promised.insert((stock, promise.id), (*quantity, promise.stage));
            }
        }
        for (stream, shelf) in &self.stocks {
            for (id, held) in &shelf.held {
                let said = promised.remove(&(stream.clone(), *id));
                if said != Some(*held) {
                    found.add(
                        STOCK_2,
                        stream,
                        None,
                        format!("it says {held:?} of reservation {id}, which says {said:?}"),
                    );
                }
            }
        }
        for ((stream, id), said) in promised {
            found.add(STOCK_2, &stream, None, format!("it knows nothing of reservation {id}, which says {said:?}"));
        }
    }
}

fn by_sku(lines: &[ReservedLine]) -> BTreeMap<Sku, i64> {
    let mut quantities = BTreeMap::new();
    for line in lines {
        *quantities.entry(line.sku.clone()).or_insert(0) += i64::from(line.quantity);
    }
    quantities
}

impl Shelf {
    fn observe(&mut self, event: &ShopEvent, blame: &mut Blame<'_>) {
        let (id, quantity, from, to) = match event {
            ShopEvent::StockCounted(counted) => return self.on_hand = counted.on_hand,
            ShopEvent::StockReceived(received) => return self.on_hand += i64::from(received.quantity),
            ShopEvent::StockAdjusted(adjusted) => return self.on_hand += adjusted.delta,
            ShopEvent::StockReserved(moved) => (moved.reservation_id, moved.quantity, None, Stage::Promised),
            ShopEvent::StockCommitted(moved) => {
                (moved.reservation_id, moved.quantity, Some(Stage::Promised), Stage::Kept)
            }
            ShopEvent::StockReleased(moved) => {
                (moved.reservation_id, moved.quantity, Some(Stage::Promised), Stage::TakenBack)
            }
            ShopEvent::StockReservationExpired(moved) => {
                (moved.reservation_id, moved.quantity, Some(Stage::Promised), Stage::TakenBack)
            }
            ShopEvent::StockReturned(moved) => {
                (moved.reservation_id, moved.quantity, Some(Stage::Kept), Stage::Returned)
            }
            _ => return,
        };
        let held = self.held.insert(id, (quantity, to));
        blame.unless(held == from.map(|from| (quantity, from)), STOCK_3, || {
            format!("{quantity} of reservation {id} become {to:?}; before, it held {held:?}")
        });
        match to {
            Stage::Promised => self.reserved += quantity,
            Stage::Kept => {
                self.reserved -= quantity;
                self.on_hand -= quantity;
            }
            Stage::TakenBack => self.reserved -= quantity,
            Stage::Returned => self.on_hand += quantity,
        }
    }
}
