//! Books of money: what each payment and each order says, and what the gateway says.

use std::collections::{BTreeMap, BTreeSet};

use engine::event::EventMeta;
use schemas::event::ShopEvent;
use schemas::id::{OrderId, PaymentId, Subject};
use schemas::ledger::LedgerRow;

use super::{Blame, Found, MONEY_1, MONEY_2, MONEY_3, MONEY_4};

#[derive(Debug, Default)]
pub(super) struct MoneyBooks {
    pub(super) payments: BTreeMap<PaymentId, Purse>,
    pub(super) orders: BTreeMap<OrderId, Bill>,
}

/// What a payment's stream says.
#[derive(Clone, Debug, Default)]
pub(super) struct Purse {
    asked: i64,
    /// Whose checkout's, if one's.
    pub(super) checkout_of: Option<OrderId>,
    promised: bool,
    pub(super) captured: Option<i64>,
    pub(super) refunded: i64,
    /// Refunds under way, by the version of their request.
    refunds: BTreeMap<u64, i64>,
    /// Refunds that were refused or given up.
    pub(super) refunds_failed: i64,
    ended: bool,
    declined: bool,
    expired: bool,
    /// Calls without an answer, refunds apart.
    calls_open: i64,
}

impl Purse {
    fn requested(&self) -> i64 {
        self.refunds.values().sum()
    }

    /// What is neither given back nor about to be.
    pub(super) fn kept(&self) -> i64 {
        self.captured.unwrap_or(0) - self.refunded - self.requested()
    }

    fn waits(&self) -> bool {
        self.calls_open > 0 || !self.refunds.is_empty()
    }
}

/// What an order's stream says.
#[derive(Clone, Debug, Default)]
pub(super) struct Bill {
    total: i64,
    paid: i64,
    refunded: i64,
    requested: i64,
    pub(super) confirmed: bool,
    pub(super) cancelled: bool,
}

impl MoneyBooks {
    pub(super) fn observe(&mut self, meta: &EventMeta, event: &ShopEvent, blame: &mut Blame<'_>) {
        match Subject::of(&meta.stream) {
            Some(Subject::Payment(id)) => {
                let purse = self.payments.entry(id).or_default();
                purse.observe(meta.version.0, event, blame);
                let (kept, captured) = (purse.kept(), purse.captured);
                blame.unless(kept >= 0, MONEY_2, || format!("{captured:?} captured, {kept} left after refunds"));
            }
            Some(Subject::Order(id)) => self.orders.entry(id).or_default().observe(event, blame),
            _ => {}
        }
    }

    pub(super) fn finish(&self, found: &mut Found) {
        for (id, bill) in &self.orders {
            let purse = self.payments.get(&id.payment()).filter(|purse| purse.checkout_of == Some(*id));
            let nothing = Purse::default();
            let purse = purse.unwrap_or(&nothing);
            let ours = (bill.paid, bill.refunded, bill.requested);
            let theirs = (purse.captured.unwrap_or(0), purse.refunded, purse.requested());
            if ours != theirs {
                let detail = format!("paid, refunded, asked for are {ours:?} on the order, {theirs:?} on its payment");
                found.add(MONEY_1, &id.stream(), None, detail);
            }
        }
    }

    pub(super) fn compare(&self, ledger: &[LedgerRow], moving: &BTreeSet<PaymentId>, found: &mut Found) {
        let rows = ledger.iter().map(|row| (row.payment_id, row)).collect::<BTreeMap<_, _>>();
        for (id, purse) in self.payments.iter().filter(|(id, purse)| !moving.contains(id) && !purse.waits()) {
            let row = rows.get(id).copied();
            let says = row.map_or((0, 0, 0, 0), |row| (row.authorized, row.captured, row.voided, row.refunded));
            if !purse.agrees(says) {
                let detail =
                    format!("the gateway says {says:?} (authorized, captured, voided, refunded), the log {purse:?}");
                found.add(MONEY_4, &id.stream(), None, detail);
            }
        }
        for (id, row) in rows {
            if !moving.contains(&id) && !self.payments.contains_key(&id) && row.authorized > 0 {
                found.add(MONEY_4, &id.stream(), None, format!("the log knows nothing of {row:?}"));
            }
        }
    }
}

impl Purse {
    fn observe(&mut self, version: u64, event: &ShopEvent, blame: &mut Blame<'_>) {
        match event {
            ShopEvent::PaymentRequested(asked) => {
                self.asked = asked.amount.amount;
                self.checkout_of = asked.order_id.filter(|_| asked.checkout);
                self.calls_open = 1;
            }
            ShopEvent::PaymentAuthorized(_) => {
                self.promised = true;
                self.calls_open -= 1;
            }
            ShopEvent::PaymentDeclined(_) => {
                self.declined = true;
                self.calls_open -= 1;
            }
            ShopEvent::PaymentCaptureRequested(asked) => {
                let (amount, promised) = (asked.amount.amount, self.asked);
                let may = self.promised && !self.ended && !self.expired && self.captured.is_none();
                blame.unless(may && amount <= promised, MONEY_2, || format!("{amount} to be captured of {self:?}"));
                self.calls_open += 1;
            }
            ShopEvent::PaymentCaptured(captured) => {
                let amount = captured.amount.amount;
                blame.unless(self.captured.is_none(), MONEY_2, || format!("{amount} captured of {self:?}"));
                self.captured = Some(amount);
                self.calls_open -= 1;
            }
            ShopEvent::PaymentCaptureFailed(_) | ShopEvent::PaymentVoidFailed(_) => self.calls_open -= 1,
            // An authorization that has not been answered is not waited for any more.
            ShopEvent::PaymentVoidRequested(_) => self.calls_open = 1,
            ShopEvent::PaymentVoided(_) => {
                self.ended = true;
                self.calls_open -= 1;
            }
            ShopEvent::PaymentAuthorizationExpired(_) => self.expired = true,
            ShopEvent::PaymentRefundRequested(asked) => drop(self.refunds.insert(version, asked.amount.amount)),
            ShopEvent::PaymentRefunded(refunded) => {
                let asked = self.refunds.remove(&refunded.intent);
                let amount = refunded.amount.amount;
                blame.unless(asked == Some(amount), MONEY_2, || format!("{amount} refunded, {asked:?} asked for"));
                self.refunded += amount;
            }
            ShopEvent::PaymentRefundFailed(failed) => {
                self.refunds_failed += self.refunds.remove(&failed.intent).unwrap_or(0);
            }
            _ => {}
        }
    }

    /// Whether the gateway's books (authorized, captured, voided, refunded) tell the same story.
    fn agrees(&self, (authorized, captured, voided, refunded): (i64, i64, i64, i64)) -> bool {
        if captured != self.captured.unwrap_or(0) || refunded != self.refunded {
            return false;
        }
        if self.captured.is_some() {
            return authorized == self.asked && voided == authorized - captured;
        }
        if self.ended {
            // Barred before or after the promise: either way nothing is left of it.
            return voided == authorized;
        }
        if self.declined {
            return authorized == 0;
        }
        if self.expired || !self.promised {
            return true;
        }
        authorized == self.asked && voided == 0
    }
}

impl Bill {
    fn observe(&mut self, event: &ShopEvent, blame: &mut Blame<'_>) {
        match event {
            ShopEvent::OrderPlaced(placed) => self.total = placed.total.amount,
            ShopEvent::OrderConfirmed(confirmed) => {
                let (paid, total) = (confirmed.paid.amount, self.total);
                blame.unless(paid == total && !self.cancelled, MONEY_1, || format!("confirmed for {paid} of {total}"));
                self.paid = paid;
                self.confirmed = true;
            }
            ShopEvent::OrderPaid(paid) => {
                blame.unless(self.cancelled && self.paid == 0, MONEY_1, || "paid twice, or not cancelled".to_owned());
                self.paid = paid.amount.amount;
            }
            ShopEvent::OrderRefundRequested(asked) => self.requested += asked.amount.amount,
            ShopEvent::OrderRefunded(refunded) => {
                self.requested -= refunded.amount.amount;
                self.refunded += refunded.amount.amount;
            }
            ShopEvent::OrderRefundFailed(failed) => self.requested -= failed.amount.amount,
            ShopEvent::OrderShipped(_) => {
                blame.unless(self.confirmed && !self.cancelled, MONEY_3, || "shipped and not confirmed".to_owned());
            }
            ShopEvent::OrderCancelled(_) => {
                blame.unless(!self.cancelled, MONEY_3, || "cancelled twice".to_owned());
                self.cancelled = true;
            }
            _ => {}
        }
    }
}
