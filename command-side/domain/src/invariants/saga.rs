//! Books of sagas: what was done and undone in which order, and whether a settled saga is what it says.

use std::collections::{BTreeMap, BTreeSet};

use engine::event::EventMeta;
use engine::position::Positions;
use schemas::event::ShopEvent;
use schemas::event::checkout::CheckoutPlanned;
use schemas::id::{OrderId, Subject};

use super::money::MoneyBooks;
use super::stock::{Stage, StockBooks};
use super::{Blame, Found, MONEY_3, SAGA_1, SAGA_2, SAGA_6};

#[derive(Debug, Default)]
pub(super) struct SagaBooks {
    sagas: BTreeMap<OrderId, Course>,
}

#[derive(Debug)]
struct Course {
    plan: CheckoutPlanned,
    /// Steps done and not undone, in the order in which they were done.
    done: Vec<String>,
    undone: BTreeSet<String>,
    /// Somebody settles these by hand.
    given_up: bool,
    /// Where the effects of its steps are.
    positions: Positions,
    settled: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Completed,
    Compensated,
}

impl SagaBooks {
    pub(super) fn observe(&mut self, meta: &EventMeta, event: &ShopEvent, blame: &mut Blame<'_>) {
        let Some(Subject::Checkout(id)) = Subject::of(&meta.stream) else { return };
        if let ShopEvent::CheckoutPlanned(plan) = event {
            let course = Course {
                plan: plan.clone(),
                done: Vec::new(),
                undone: BTreeSet::new(),
                given_up: false,
                positions: Positions::default(),
                settled: None,
            };
            let before = self.sagas.insert(id, course);
            return blame.unless(before.is_none(), SAGA_6, || "planned twice".to_owned());
        }
        match self.sagas.get_mut(&id) {
            Some(course) => course.observe(event, blame),
            None => blame.unless(false, SAGA_6, || format!("{} before it was planned", event.event_type())),
        }
    }

    pub(super) fn finish(&self, scanned: &Positions, stock: &StockBooks, money: &MoneyBooks, found: &mut Found) {
        for (id, course) in &self.sagas {
            let Some(end) = course.settled else { continue };
            let reached =
                |at: engine::position::Position| scanned.0.get(&at.partition).is_some_and(|end| *end >= at.offset);
            if course.positions.iter().all(reached) {
                course.judge(*id, end, stock, money, found);
            }
        }
    }
}

impl Course {
    fn observe(&mut self, event: &ShopEvent, blame: &mut Blame<'_>) {
        let reopens = matches!(event, ShopEvent::CheckoutCompensationStarted(_));
        let open = self.settled.is_none() || (self.settled == Some(End::Completed) && reopens);
        blame.unless(open, SAGA_6, || format!("{} after {:?}", event.event_type(), self.settled));
        match event {
            ShopEvent::CheckoutStepDone(done) => {
                blame.unless(!self.done.contains(&done.step), SAGA_2, || format!("{} done twice", done.step));
                self.done.push(done.step.clone());
                done.position.into_iter().for_each(|at| self.positions.reach(at));
            }
            ShopEvent::CheckoutStepFailed(failed) => {
                failed.position.into_iter().for_each(|at| self.positions.reach(at));
            }
            ShopEvent::CheckoutStepUndone(undone) => {
                let first = self.undone.insert(undone.step.clone());
                blame.unless(first, SAGA_2, || format!("{} undone twice", undone.step));
                // One that was asked and not answered is undone too; it was never done.
                if self.done.contains(&undone.step) {
                    let last = self.done.pop();
                    blame.unless(last.as_ref() == Some(&undone.step), SAGA_2, || {
                        format!("{} undone before {last:?}", undone.step)
                    });
                }
                undone.position.into_iter().for_each(|at| self.positions.reach(at));
            }
            ShopEvent::CheckoutStepSkipped(skipped) => {
                self.given_up = true;
                self.done.retain(|step| *step != skipped.step);
            }
            ShopEvent::CheckoutCompensationStarted(_) => self.settled = None,
            ShopEvent::CheckoutCompleted(_) => {
                let steps = self.plan.steps();
                let all = steps.iter().map(|(_, name)| name).eq(self.done.iter());
                blame.unless(all, SAGA_1, || format!("completed with {:?}", self.done));
                self.settled = Some(End::Completed);
            }
            ShopEvent::CheckoutCompensated(_) => {
                blame.unless(self.done.is_empty(), SAGA_1, || format!("compensated with {:?} done", self.done));
                self.settled = Some(End::Compensated);
            }
            _ => {}
        }
    }

    fn judge(&self, id: OrderId, end: End, stock: &StockBooks, money: &MoneyBooks, found: &mut Found) {
        let stream = id.checkout_stream();
        let bill = money.orders.get(&id).cloned().unwrap_or_default();
        let purse = money.payments.get(&id.payment()).cloned().unwrap_or_default();
        for leg in &self.plan.legs {
            let stage = stock.stage_of(&leg.reservation_id.stream_at(&leg.location_id));
            let right = match end {
                // Returned: a cancellation beyond what was scanned of its own partition has reopened it.
                End::Completed => matches!(stage, Some(Stage::Kept | Stage::Returned)),
                End::Compensated => !matches!(stage, Some(Stage::Promised | Stage::Kept)) || self.given_up,
            };
            if !right {
                let detail = format!("{end:?}, and the reservation at {} is {stage:?}", leg.location_id);
                found.add(SAGA_1, &stream, None, detail);
            }
        }
        let (told, kept) = match end {
            End::Completed => (bill.confirmed && !bill.cancelled, purse.captured == Some(self.plan.amount.amount)),
            End::Compensated => (bill.cancelled, true),
        };
        if !told || !kept {
            found.add(SAGA_1, &stream, None, format!("{end:?}, with {bill:?} and {purse:?}"));
        }
        let owed = purse.kept() - purse.refunds_failed;
        if end == End::Compensated && owed > 0 && !self.given_up {
            found.add(MONEY_3, &id.stream(), None, format!("called off, and {owed} of its money kept"));
        }
    }
}
