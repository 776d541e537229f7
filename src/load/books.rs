//! Whether money and stock add up after a run: what was asked for, against what the server shows, the payment gateway's
//! own books and the stock on the shelves. Pure, so that it can be shown to find what it is there to find.

use std::collections::{BTreeMap, BTreeSet};

use schemas::id::OrderId;
use uuid::Uuid;

use super::Profile;
use super::tally::{Ending, Sent};
use super::workload::Workload;

/// An order as the server shows it; amounts in minor units.
#[derive(Clone, Debug)]
pub(super) struct OrderSeen {
    /// Where it stands.
    pub(super) status: String,
    /// What it costs.
    pub(super) total: i64,
    /// What it says was paid.
    pub(super) paid: i64,
    /// What it says was given back.
    pub(super) refunded: i64,
    /// The payment of its checkout.
    pub(super) payment: Option<Uuid>,
}

/// A payment as the gateway's books have it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Booked {
    /// What was taken.
    pub(super) captured: i64,
    /// What was given back.
    pub(super) refunded: i64,
}

/// Stock of one SKU at one location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StockSeen {
    /// How many are there.
    pub(super) on_hand: i64,
    /// How many of them are promised.
    pub(super) reserved: i64,
}

/// All that was seen when everything had settled.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// The run's orders.
    pub(super) orders: BTreeMap<Uuid, OrderSeen>,
    /// The gateway's books, of all payments there ever were.
    pub(super) books: BTreeMap<Uuid, Booked>,
    /// The run's stock, by location and SKU.
    pub(super) stock: BTreeMap<(u64, u64), StockSeen>,
    /// Sagas that had not settled in time.
    pub(super) unsettled: BTreeSet<Uuid>,
    /// What the server itself found wrong.
    pub(super) violations: Vec<String>,
}

/// Everything that does not add up, in sentences.
pub(super) fn differences(workload: &Workload, sent: &[Sent], on_hand_before: u64, seen: &Seen) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(seen.violations.iter().map(|violation| format!("the server's own check: {violation}")));
    found.extend(seen.unsettled.iter().map(|id| format!("saga {id} has not settled")));
    let on_hand_before = i64::try_from(on_hand_before).unwrap_or(i64::MAX);
    match workload.profile {
        Profile::Place | Profile::Checkout => {
            orders(workload, sent, seen, &mut found);
            stock_of_orders(workload, sent, on_hand_before, seen, &mut found);
        }
        Profile::HotStock => stock_of_reservations(workload, sent, on_hand_before, seen, &mut found),
    }
    found
}

fn orders(workload: &Workload, sent: &[Sent], seen: &Seen, found: &mut Vec<String>) {
    let mut known = BTreeSet::new();
    for Sent { number, id, ending, .. } in sent {
        known.insert(*id);
        let Some(order) = seen.orders.get(id) else {
            if *ending == Ending::Accepted {
                found.push(format!("order {id} was accepted and is gone"));
            }
            // What never was must not have been paid for either. Its payment's id follows from its own.
            let booked = seen.books.get(&OrderId(*id).payment().0);
            if booked.is_some_and(|booked| booked.captured != booked.refunded) {
                found.push(format!("order {id} does not exist and was paid for"));
            }
            continue;
        };
        if *ending == Ending::Rejected {
            found.push(format!("order {id} was rejected and exists"));
        }
        let asked = workload.asked(*number);
        let total = i64::try_from(asked.total()).unwrap_or(i64::MAX);
        if order.total != total {
            found.push(format!("order {id} should cost {total} and costs {}", order.total));
        }
        if !seen.unsettled.contains(id) {
            money(workload.profile, *id, order, total, asked.good_card, seen, found);
        }
    }
    for id in seen.orders.keys().filter(|id| !known.contains(id)) {
        found.push(format!("order {id} exists and nobody asked for it"));
    }
}

/// MONEY-1: captured = paid, refunded ≤ paid, and the gateway's books say the same.
fn money(
    profile: Profile,
    id: Uuid,
    order: &OrderSeen,
    total: i64,
    good_card: bool,
    seen: &Seen,
    found: &mut Vec<String>,
) {
    let payment = order.payment.unwrap_or(OrderId(id).payment().0);
    let Booked { captured, refunded } =
        seen.books.get(&payment).copied().unwrap_or(Booked { captured: 0, refunded: 0 });
    let status = order.status.as_str();
    if order.paid != captured || order.refunded != refunded {
        found.push(format!(
            "order {id} shows {} paid and {} refunded; the gateway took {captured} and gave back {refunded}",
            order.paid, order.refunded
        ));
    }
    match (profile, status) {
        (Profile::Checkout, "confirmed") => {
            if captured != total || refunded != 0 {
                found.push(format!(
                    "order {id} is confirmed for {total}; the gateway took {captured} and gave back {refunded}"
                ));
            }
            if !good_card {
                found.push(format!("order {id} is confirmed with a card that is declined"));
            }
        }
        (Profile::Checkout, "cancelled") | (Profile::Place, "placed") => {
            if captured != refunded {
                found.push(format!("order {id} is {status}; the gateway took {captured} and gave back {refunded}"));
            }
        }
        _ => found.push(format!("order {id} is {status}, which nobody asked for")),
    }
}

/// STOCK-1, and that what left the shelves is what was ordered.
fn stock_of_orders(workload: &Workload, sent: &[Sent], before: i64, seen: &Seen, found: &mut Vec<String>) {
    let mut gone = BTreeMap::<(u64, u64), i64>::new();
    for Sent { number, id, .. } in sent {
        if seen.orders.get(id).is_some_and(|order| order.status == "confirmed") {
            let asked = workload.asked(*number);
            for (sku, quantity) in asked.quantities() {
                *gone.entry((asked.location, sku)).or_default() += i64::try_from(quantity).unwrap_or(i64::MAX);
            }
        }
    }
    for_each_stock(workload, seen, found, |at, stock, name| {
        let expected = StockSeen { on_hand: before - gone.get(&at).copied().unwrap_or(0), reserved: 0 };
        (stock != expected).then(|| {
            format!(
                "stock {name} should have {} on hand and {} reserved and has {} and {}",
                expected.on_hand, expected.reserved, stock.on_hand, stock.reserved
            )
        })
    });
}

/// STOCK-4: of more buyers than pieces, exactly as many succeed as there are pieces.
fn stock_of_reservations(workload: &Workload, sent: &[Sent], before: i64, seen: &Seen, found: &mut Vec<String>) {
    #[derive(Default)]
    struct Wanted {
        accepted: i64,
        rejected: i64,
        unknown: i64,
    }
    let mut wanted = BTreeMap::<(u64, u64), Wanted>::new();
    for Sent { number, ending, .. } in sent {
        let asked = workload.asked(*number);
        let wanted = wanted.entry((asked.location, asked.lines[0].sku)).or_default();
        match ending {
            Ending::Accepted => wanted.accepted += 1,
            Ending::Rejected => wanted.rejected += 1,
            Ending::Unknown => wanted.unknown += 1,
        }
    }
    for_each_stock(workload, seen, found, |at, StockSeen { on_hand, reserved }, name| {
        let none = Wanted::default();
        let Wanted { accepted, rejected, unknown } = wanted.get(&at).unwrap_or(&none);
        if on_hand != before {
            Some(format!("stock {name} should have {before} on hand and has {on_hand}"))
        } else if *accepted > before {
            Some(format!("stock {name} has {before} pieces and {accepted} buyers were promised one"))
        } else if !(*accepted..=accepted + unknown).contains(&reserved) {
            Some(format!(
                "stock {name} has {reserved} reserved; {accepted} buyers were promised one, {unknown} never knew"
            ))
        } else if *rejected > 0 && reserved < before {
            Some(format!("stock {name} turned {rejected} buyers away with {} pieces left", before - reserved))
        } else {
            None
        }
    });
}

/// Judges each stock there should be.
fn for_each_stock(
    workload: &Workload,
    seen: &Seen,
    found: &mut Vec<String>,
    judge: impl Fn((u64, u64), StockSeen, &str) -> Option<String>,
) {
    for location in 0..workload.locations {
        for sku in 0..workload.skus {
            let name = format!("{}~{}", workload.location(location), workload.sku(sku));
            match seen.stock.get(&(location, sku)) {
                Some(stock) => found.extend(judge((location, sku), *stock, &name)),
                None => found.push(format!("stock {name} is gone")),
            }
        }
    }
}
