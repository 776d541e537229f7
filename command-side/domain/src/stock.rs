//! Stock of one SKU at one location: what is on hand and what is promised. Counters only: who was promised what is the
//! reservation's own stream, so this state does not grow. Its stream does, so every answer carries the counters after.
//!
//! STOCK-1: never negative, never more promised than there is, at every prefix of the log.

use engine::decider::{Accepted, Context, Decision};
use engine::event::EventMeta;
use engine::message::{CommandId, Fingerprint};
use engine::position::Version;
use engine::stream::Tenant;
use schemas::event::ShopEvent;
use schemas::event::stock::{StockAdjusted, StockCounted, StockReceived};
use schemas::id::{LocationId, Sku, stock_stream};
use schemas::problem;
use schemas::resource::Fold;
use schemas::resource::stock::Stock;
use serde::{Deserialize, Serialize};

use crate::refusal::{ShopDecision, refuse};

/// Most that can be on hand: 10¹². Only what comes back from a reservation may exceed it, for it was there before.
pub const ON_HAND_MAX: i64 = 1_000_000_000_000;

/// What decisions know of stock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StockState {
    /// As shown.
    pub shown: Stock,
    /// The command that counted it first.
    creator: CommandId,
}

impl StockState {
    pub(crate) fn evolve(this: Option<Self>, event: &ShopEvent, meta: &EventMeta) -> Option<Self> {
        let creator = this.as_ref().map_or(meta.command_id, |state| state.creator);
        let shown = Stock::evolve(this.map(|state| state.shown), event, meta)?;
        // STOCK-1. Stop rather than sell what is not there.
        assert!(shown.reserved >= 0, "{} at {}: reserved below zero", meta.stream, meta.version);
        assert!(shown.reserved <= shown.on_hand, "{} at {}: more reserved than on hand", meta.stream, meta.version);
        Some(Self { shown, creator })
    }

    pub(crate) fn remembers(&self, id: CommandId) -> Option<Version> {
        (self.creator == id).then_some(Version(1))
    }
}

/// Which stock a command means.
pub(crate) struct Place<'a> {
    pub(crate) location_id: &'a LocationId,
    pub(crate) sku: &'a Sku,
}

pub(crate) fn count(
    stock: Option<&StockState>,
    place: &Place<'_>,
    on_hand: i64,
    reason: Option<&str>,
    context: &Context,
) -> ShopDecision {
    let status = if stock.is_some() { 200 } else { 201 };
    if on_hand > ON_HAND_MAX {
        return refuse(problem::STOCK_ABOVE_LIMIT, format!("{on_hand} is above {ON_HAND_MAX}"));
    }
    if let Some(refusal) = below_reserved(stock, on_hand) {
        return refusal;
    }
    answered(status, stock, place, StockCounted { on_hand, reason: reason.map(str::to_owned) }, context)
}

pub(crate) fn receive(stock: Option<&StockState>, place: &Place<'_>, quantity: u32, context: &Context) -> ShopDecision {
    let Some(known) = stock else { return absent(place) };
    if let Some(refusal) = above_limit(known.shown.on_hand + i64::from(quantity)) {
        return refusal;
    }
    answered(200, stock, place, StockReceived { quantity }, context)
}

pub(crate) fn adjust(
    stock: Option<&StockState>,
    place: &Place<'_>,
    delta: i64,
    reason: &str,
    context: &Context,
) -> ShopDecision {
    let Some(known) = stock else { return absent(place) };
    let on_hand = known.shown.on_hand.saturating_add(delta);
    if let Some(refusal) = below_reserved(stock, on_hand) {
        return refusal;
    }
    // Taking away from what returns brought above the limit is no reason to say no.
    if delta > 0
        && let Some(refusal) = above_limit(on_hand)
    {
        return refusal;
    }
    answered(200, stock, place, StockAdjusted { delta, reason: reason.to_owned() }, context)
}

fn absent(place: &Place<'_>) -> ShopDecision {
    refuse(problem::STOCK_NOT_FOUND, format!("{} was never counted at {}", place.sku, place.location_id))
}

fn below_reserved(stock: Option<&StockState>, on_hand: i64) -> Option<ShopDecision> {
    let reserved = stock.map_or(0, |state| state.shown.reserved);
    let detail = || format!("{reserved} are reserved; there cannot be only {on_hand}");
    (on_hand < reserved).then(|| refuse(problem::STOCK_BELOW_RESERVED, detail()))
}

fn above_limit(on_hand: i64) -> Option<ShopDecision> {
    (on_hand > ON_HAND_MAX)
        .then(|| refuse(problem::STOCK_ABOVE_LIMIT, format!("there would be {on_hand}, more than {ON_HAND_MAX}")))
}

/// The event, and in the answer the counters after it: finding them again in a stream this long would be slow.
fn answered(
    status: u16,
    stock: Option<&StockState>,
    place: &Place<'_>,
    event: impl Into<ShopEvent>,
    context: &Context,
) -> ShopDecision {
    let event = event.into();
    let meta = EventMeta {
        tenant: Tenant::default(),
        stream: stock_stream(place.location_id, place.sku),
        version: Version(stock.map_or(0, |state| state.shown.version) + 1),
        recorded_at: context.now,
        command_id: context.command_id,
        fingerprint: Fingerprint::default(),
    };
    let after = Stock::evolve(stock.map(|state| state.shown.clone()), &event, &meta);
    let answer = after.map(|after| serde_json::to_value(after).expect("a resource is plain data with text keys"));
    Decision::Accept(Accepted { status, events: vec![(0, event)], answer })
}
