//! A record in the making: events of an order, its checkout and its payment, each folded at once, so that what follows is
//! decided on what the record will have made true.

use engine::decider::{Context, Decision, States};
use engine::event::EventMeta;
use engine::message::Fingerprint;
use engine::position::{Position, Version};
use engine::stream::{StreamName, Tenant};
use schemas::event::ShopEvent;
use schemas::event::checkout::{
    CheckoutCompensated, CheckoutCompensationStarted, CheckoutParked, CheckoutPlanned, CheckoutStepFailed,
    CheckoutStepUndone, CheckoutUndoRequested, StepKind,
};
use schemas::event::order::{CancelReason, OrderCancelled, OrderRefundRequested};
use schemas::event::payment::{
    PaymentCaptureRequested, PaymentRefundRequested, PaymentRequested, PaymentVoidRequested, Via,
};
use schemas::money::Money;
use schemas::resource::order::OrderStatus;
use schemas::resource::payment::PaymentStatus;
use schemas::resource::saga::StepState;

use super::{CheckoutState, Work};
use crate::order::OrderState;
use crate::payment::PaymentState;
use crate::refusal::ShopDecision;
use crate::shop::ShopState;

/// Where order, checkout and payment stand among the streams that a command named.
#[derive(Clone, Copy)]
pub(super) struct Places {
    pub(super) order: usize,
    pub(super) checkout: usize,
    pub(super) payment: usize,
}

pub(super) struct Draft<'a> {
    pub(super) order: OrderState,
    pub(super) checkout: CheckoutState,
    pub(super) payment: Option<PaymentState>,
    places: Places,
    names: [StreamName; 3],
    versions: [Version; 3],
    context: &'a Context,
    events: Vec<(usize, ShopEvent)>,
}

impl<'a> Draft<'a> {
    /// `None` where the order has no checkout.
    pub(super) fn new(states: &States<'_, ShopState>, places: Places, context: &'a Context) -> Option<Self> {
        let order = states.at(places.order)?.order()?.clone();
        let checkout = states.at(places.checkout)?.checkout()?.clone();
        let payment = states.at(places.payment).and_then(ShopState::payment).cloned();
        let at = [places.order, places.checkout, places.payment];
        let id = order.shown.order_id;
        Some(Self {
            order,
            checkout,
            payment,
            places,
            names: [id.stream(), id.checkout_stream(), id.payment().stream()],
            versions: at.map(|index| states.version_at(index)),
            context,
            events: Vec::new(),
        })
    }

    pub(super) fn accept(self) -> ShopDecision {
        Decision::accept(self.events)
    }

    pub(super) fn order(&mut self, event: impl Into<ShopEvent>) {
        let (event, meta) = (event.into(), self.next_meta(0));
        self.order = OrderState::evolve(Some(self.order.clone()), &event, &meta).expect("an order stays one");
        self.events.push((self.places.order, event));
    }

    pub(super) fn checkout(&mut self, event: impl Into<ShopEvent>) {
        let (event, meta) = (event.into(), self.next_meta(1));
        self.checkout =
            CheckoutState::evolve(Some(self.checkout.clone()), &event, &meta).expect("a checkout stays one");
        self.events.push((self.places.checkout, event));
    }

    pub(super) fn payment(&mut self, event: impl Into<ShopEvent>) {
        let (event, meta) = (event.into(), self.next_meta(2));
        self.payment = PaymentState::evolve(self.payment.take(), &event, &meta);
        self.events.push((self.places.payment, event));
    }

    fn next_meta(&mut self, which: usize) -> EventMeta {
        self.versions[which] = self.versions[which].next();
        EventMeta {
            tenant: Tenant::default(),
            stream: self.names[which].clone(),
            version: self.versions[which],
            recorded_at: self.context.now,
            command_id: self.context.command_id,
            fingerprint: Fingerprint::default(),
        }
    }

    /// The payment's version after what the draft holds.
    fn payment_version(&self) -> u64 {
        self.versions[2].0
    }

    /// The checkout's next step is the payment's: its intent is recorded here and now.
    pub(super) fn ask_payment(&mut self) {
        let Some(errand) = self.checkout.errand() else { return };
        match (errand.kind, errand.work) {
            (StepKind::Authorize, Work::Do) if self.payment.is_none() => {
                let plan = &self.checkout.plan;
                self.payment(PaymentRequested {
                    order_id: Some(plan.order_id),
                    amount: plan.amount,
                    method: plan.method,
                    token: plan.token.clone(),
                    checkout: true,
                });
                assert_eq!(
                    self.payment_version(),
                    CheckoutPlanned::AUTHORIZE_INTENT,
                    "a payment begins with its request"
                );
            }
            // Somebody made a payment of their own under the id that follows from this order. It is not ours to use.
            (StepKind::Authorize, Work::Do) => {
                let error = "the payment's id is taken".to_owned();
                self.checkout(CheckoutStepFailed { step: errand.step, error, position: None });
                self.call_off(CancelReason::PaymentDeclined, None);
            }
            (StepKind::Capture, Work::Do) => {
                if self.payment.as_ref().is_some_and(PaymentState::can_be_captured) {
                    let amount = self.checkout.plan.amount;
                    self.payment(PaymentCaptureRequested { amount });
                    assert_eq!(
                        self.payment_version(),
                        CheckoutPlanned::CAPTURE_INTENT,
                        "a capture follows its promise"
                    );
                } else {
                    let error = "the authorization has expired".to_owned();
                    self.checkout(CheckoutStepFailed { step: errand.step, error, position: None });
                    self.call_off(CancelReason::PaymentDeclined, None);
                }
            }
            _ => {}
        }
    }

    /// The order is cancelled, and all that was promised for it is taken back.
    pub(super) fn call_off(&mut self, reason: CancelReason, detail: Option<String>) {
        assert!(
            matches!(self.order.shown.status, OrderStatus::Placed | OrderStatus::Confirmed),
            "order {} is called off twice",
            self.order.shown.order_id
        );
        self.order(OrderCancelled { reason, detail: detail.clone() });
        self.checkout(CheckoutCompensationStarted { reason, detail });
        let authorize = self.checkout.step(StepKind::Authorize);
        if matches!(authorize.state, StepState::Running | StepState::Retrying) {
            // From this record on the promise is worth nothing, however late it comes. The gateway is told so last: while
            // it cannot be reached, the stock need not wait for it.
            let step = authorize.name.clone();
            self.ask_void(&step);
        }
        self.go_back();
    }

    /// Undoes what needs no command, and records the intent of an undo by the payment; then, if nothing is left, ends.
    pub(super) fn go_back(&mut self) {
        loop {
            // A first reservation that is refused leaves nothing to undo.
            let Some(errand) = self.checkout.errand() else { return self.end_if_all_is_undone() };
            if matches!(errand.work, Work::Do) {
                return;
            }
            let trivially = match errand.kind {
                // Told by the order's cancellation.
                StepKind::Confirm => true,
                StepKind::Capture => !self.ask_refund(&errand.step),
                StepKind::Authorize => !self.ask_void(&errand.step),
                StepKind::Commit(_) => false,
                // Returning what was committed took the promise back with it.
                StepKind::Reserve(leg) => self.checkout.step(StepKind::Commit(leg)).state == StepState::Undone,
            };
            if !trivially {
                return;
            }
            self.undone(errand.step, None);
        }
    }

    /// The step at hand is undone; ends the checkout with the last one.
    pub(super) fn undone(&mut self, step: String, position: Option<Position>) {
        self.checkout(CheckoutStepUndone { step, position });
        self.end_if_all_is_undone();
    }

    pub(super) fn end_if_all_is_undone(&mut self) {
        if !self.checkout.shown.state.is_settled() && self.checkout.errand().is_none() {
            self.checkout(CheckoutCompensated {});
        }
    }

    /// Gives back what is left of what was captured. False if nothing is: refunds count from their request on.
    fn ask_refund(&mut self, step: &str) -> bool {
        let Some(payment) = &self.payment else { return false };
        if self.undo_is_open() {
            return true;
        }
        let rest = Money::new(payment.refundable(), payment.shown.captured.currency);
        if rest.amount == 0 {
            return false;
        }
        let reason = "the order was cancelled".to_owned();
        self.order(OrderRefundRequested { amount: rest, reason: reason.clone(), via: Via::Checkout });
        self.payment(PaymentRefundRequested { amount: rest, reason, via: Via::Checkout });
        let intent = self.payment_version();
        self.checkout(CheckoutUndoRequested { step: step.to_owned(), intent, refund: Some(rest) });
        true
    }

    /// Gives the promise up and bars the payment's key. False if there is nothing to give up.
    fn ask_void(&mut self, step: &str) -> bool {
        let Some(payment) = &self.payment else { return false };
        if self.undo_is_open() {
            return true;
        }
        // An authorization that ran out by our clock may not have by the gateway's.
        let open = [PaymentStatus::Pending, PaymentStatus::Authorized, PaymentStatus::Expired];
        if !open.contains(&payment.shown.status) {
            return false;
        }
        self.payment(PaymentVoidRequested {});
        let intent = self.payment_version();
        self.checkout(CheckoutUndoRequested { step: step.to_owned(), intent, refund: None });
        true
    }

    /// Whether the payment still owes the undo that was asked of it.
    fn undo_is_open(&self) -> bool {
        let asked = self.checkout.undo.as_ref();
        asked.is_some_and(|undo| self.payment.as_ref().is_some_and(|payment| payment.intent(undo.intent).is_some()))
    }

    /// The checkout is set aside: what came back cannot be.
    pub(super) fn park(&mut self, reason: String) {
        if !self.checkout.is_parked() {
            self.checkout(CheckoutParked { reason });
        }
    }
}
