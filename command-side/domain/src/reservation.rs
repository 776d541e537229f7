//! Reservations: several lines promised at one location, all or none. A reservation is its own stream beside its stocks;
//! one record changes both. A checkout's reservation obeys only its checkout, and its undo bars one that may still arrive
//! late, so that nothing promised is ever forgotten and nothing forgotten is promised.

use std::collections::BTreeMap;

use engine::decider::{Context, Decision, States};
use engine::event::EventMeta;
use engine::message::{CommandId, FieldError};
use engine::position::Version;
use engine::saga::{Agenda, Timer};
use engine::stream::StreamName;
use schemas::command::{GatewayCall, ReservationVerb, ShopCommand};
use schemas::event::ShopEvent;
use schemas::event::reservation::{
    Barred, ReservationCommitted, ReservationExpired, ReservationMade, ReservationReleased, ReservationReturned,
    ReservedLine,
};
use schemas::event::stock::{StockCommitted, StockReleased, StockReservationExpired, StockReserved, StockReturned};
use schemas::id::{LocationId, OrderId, ReservationId, Sku, stock_stream};
use schemas::problem;
use schemas::resource::Fold;
use schemas::resource::reservation::{Reservation, ReservationStatus};
use serde::{Deserialize, Serialize};

use crate::refusal::{ShopDecision, refuse, refuse_with};
use crate::shop::ShopState;

/// What decisions know of a reservation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReservationState {
    /// As shown.
    pub shown: Reservation,
    /// The commands that changed it; a reservation has three events at most.
    remembered: BTreeMap<CommandId, Version>,
}

impl ReservationState {
    pub(crate) fn evolve(this: Option<Self>, event: &ShopEvent, meta: &EventMeta) -> Option<Self> {
        let (shown, mut remembered) =
            this.map_or((None, BTreeMap::new()), |state| (Some(state.shown), state.remembered));
        let shown = Reservation::evolve(shown, event, meta)?;
        remembered.entry(meta.command_id).or_insert(meta.version);
        Some(Self { shown, remembered })
    }

    pub(crate) fn remembers(&self, id: CommandId) -> Option<Version> {
        self.remembered.get(&id).copied()
    }

    /// The command that gives it up when its time is up.
    pub(crate) fn expiry(&self) -> ReservationVerb {
        ReservationVerb {
            location_id: self.shown.location_id.clone(),
            reservation_id: self.shown.reservation_id,
            lines: self.shown.lines.clone(),
            order_id: self.shown.order_id,
        }
    }
}

/// While it only promises, it waits for its time to be up.
pub(crate) fn react(reservation: &ReservationState) -> Agenda<ShopCommand, GatewayCall> {
    let shown = &reservation.shown;
    let due = shown.expires_at.filter(|_| shown.status == ReservationStatus::Reserved);
    Agenda { pending: Vec::new(), timer: due.map(|due| Timer { due, armed_at: Version(shown.version) }) }
}

/// The reservation's stream and then those of its SKUs' stocks, each once, in the order of SKUs.
pub(crate) fn streams(location: &LocationId, reservation: ReservationId, lines: &[ReservedLine]) -> Vec<StreamName> {
    let stocks = by_sku(lines).into_keys().map(|sku| stock_stream(location, sku));
    std::iter::once(reservation.stream_at(location)).chain(stocks).collect()
}

/// How many of each SKU: the same SKU on two lines counts together.
fn by_sku(lines: &[ReservedLine]) -> BTreeMap<&Sku, i64> {
    let mut quantities = BTreeMap::new();
    for line in lines {
        *quantities.entry(&line.sku).or_insert(0) += i64::from(line.quantity);
    }
    quantities
}

/// What is to be promised.
pub(crate) struct Asked<'a> {
    pub(crate) lines: &'a [ReservedLine],
    pub(crate) expires_in_s: u32,
    pub(crate) order_id: Option<OrderId>,
    pub(crate) reservation_id: ReservationId,
}

pub(crate) fn reserve(
    known: Option<&ReservationState>,
    states: &States<'_, ShopState>,
    asked: &Asked<'_>,
    context: &Context,
) -> ShopDecision {
    if let Some(known) = known {
        return reserve_again(&known.shown, asked);
    }
    let quantities = by_sku(asked.lines);
    // The stocks follow the reservation among the named streams, in the order of SKUs.
    let available = quantities
        .keys()
        .zip(1..)
        .map(|(&sku, index)| {
            (sku, states.at(index).and_then(ShopState::stock).map_or(0, |stock| stock.shown.available))
        })
        .collect::<BTreeMap<_, _>>();
    // Every shortage at once: a shopper told only of the first comes back for each of the others.
    let shortages = asked.lines.iter().enumerate().filter_map(|(index, line)| {
        let (requested, available) = (quantities[&line.sku], available[&line.sku]);
        (requested > available).then(|| {
            let detail = format!("{requested} of {} are asked for, {available} are available", line.sku);
            FieldError::at(format!("/lines/{index}"), problem::STOCK_INSUFFICIENT.name, detail)
                .with("requested", requested)
                .with("available", available)
        })
    });
    let shortages = shortages.collect::<Vec<_>>();
    if !shortages.is_empty() {
        let skus = quantities.iter().filter(|(sku, requested)| **requested > available[*sku]).count();
        return refuse_with(problem::STOCK_INSUFFICIENT, format!("{skus} SKUs are short"), shortages);
    }
    let made = ReservationMade {
        lines: asked.lines.to_vec(),
        order_id: asked.order_id,
        expires_at: context.now.plus_ms(u64::from(asked.expires_in_s) * 1_000),
    };
    let promised = quantities.values().zip(1..).map(|(&quantity, index)| {
        let moved = StockReserved { reservation_id: asked.reservation_id, quantity, order_id: asked.order_id };
        (index, moved.into())
    });
    Decision::create(std::iter::once((0, made.into())).chain(promised).collect())
}

/// Asked for under another command before, or barred.
fn reserve_again(known: &Reservation, asked: &Asked<'_>) -> ShopDecision {
    if known.lines != asked.lines || known.order_id != asked.order_id {
        return refuse(problem::RESERVATION_ALREADY_EXISTS, "it was made with other lines");
    }
    let holds = matches!(known.status, ReservationStatus::Reserved | ReservationStatus::Committed);
    // An API consumer is shown what became of it; a checkout that believed in a promise taken back would sell air.
    if holds || asked.order_id.is_none() { Decision::nothing() } else { closed(known.status) }
}

/// What is to become of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Commit,
    Release,
    Return,
    Expire,
}

pub(crate) fn carry_out(known: Option<&ReservationState>, verb: Verb, asked: &ReservationVerb) -> ShopDecision {
    use ReservationStatus::{Committed, Expired, Released, Reserved, Returned};
    let from_checkout = asked.order_id.is_some();
    let Some(known) = known.map(|state| &state.shown) else {
        return match verb {
            // It may still land: barred, it cannot.
            Verb::Release | Verb::Return if from_checkout => bar(asked),
            Verb::Expire => Decision::nothing(),
            _ => not_found(asked),
        };
    };
    if known.order_id != asked.order_id {
        return match known.order_id {
            Some(order) => refuse(problem::BELONGS_TO_ORDER, format!("it belongs to the checkout of order {order}")),
            None => refuse(problem::RESERVATION_ALREADY_EXISTS, "it was made outside this checkout"),
        };
    }
    if known.lines != asked.lines {
        // Looked up before it was made: then, it was not there.
        return not_found(asked);
    }
    match (verb, known.status) {
        (Verb::Commit, Reserved) => moved(asked, ReservationCommitted {}, |reservation_id, quantity, order_id| {
            StockCommitted { reservation_id, quantity, order_id }
        }),
        (Verb::Release | Verb::Return, Reserved) => {
            moved(asked, ReservationReleased { barred: None }, |reservation_id, quantity, order_id| StockReleased {
                reservation_id,
                quantity,
                order_id,
            })
        }
        (Verb::Return, Committed) => moved(asked, ReservationReturned {}, |reservation_id, quantity, order_id| {
            StockReturned { reservation_id, quantity, order_id }
        }),
        (Verb::Expire, Reserved) => moved(asked, ReservationExpired {}, |reservation_id, quantity, order_id| {
            StockReservationExpired { reservation_id, quantity, order_id }
        }),
        (Verb::Commit, Committed) | (Verb::Release, Released) | (Verb::Return | Verb::Expire, _) => Decision::nothing(),
        // To a checkout that undoes it, what is no longer promised is undone.
        (Verb::Release, Expired | Returned) if from_checkout => Decision::nothing(),
        (Verb::Commit | Verb::Release, status) => closed(status),
    }
}

fn not_found(asked: &ReservationVerb) -> ShopDecision {
    let detail = format!("there is no reservation {} at {}", asked.reservation_id, asked.location_id);
    refuse(problem::RESERVATION_NOT_FOUND, detail)
}

fn closed(status: ReservationStatus) -> ShopDecision {
    let what = match status {
        ReservationStatus::Reserved => "reserved",
        ReservationStatus::Committed => "committed",
        ReservationStatus::Released => "released",
        ReservationStatus::Expired => "expired",
        ReservationStatus::Returned => "returned",
    };
    refuse(problem::RESERVATION_CLOSED, format!("the reservation is {what}"))
}

fn bar(asked: &ReservationVerb) -> ShopDecision {
    let barred = Some(Barred { lines: asked.lines.clone(), order_id: asked.order_id });
    Decision::accept(vec![(0, ReservationReleased { barred }.into())])
}

/// The reservation's event and each of its stocks'.
fn moved<E: Into<ShopEvent>>(
    asked: &ReservationVerb,
    reservation: impl Into<ShopEvent>,
    stock: impl Fn(ReservationId, i64, Option<OrderId>) -> E,
) -> ShopDecision {
    let quantities = by_sku(&asked.lines);
    let moved = quantities
        .values()
        .zip(1..)
        .map(|(&quantity, index)| (index, stock(asked.reservation_id, quantity, asked.order_id).into()));
    Decision::accept(std::iter::once((0, reservation.into())).chain(moved).collect())
}
