//! The shop as one business: which streams a command names, which aggregate decides it, what its streams amount to and
//! what they owe.

use engine::decider::{Context, Decider, Decision, States};
use engine::event::EventMeta;
use engine::message::CommandId;
use engine::position::Version;
use engine::saga::{Agenda, Heard, Pending, Reactor, Timer};
use engine::stream::StreamName;
use engine::time::Timestamp;
use schemas::command::{GatewayAnswer, GatewayCall, ShopCommand};
use schemas::event::ShopEvent;
use schemas::id::stock_stream;
use schemas::resource::Resource;
use serde::{Deserialize, Serialize};

use crate::checkout::{self, CheckoutState};
use crate::order::{self, OrderState};
use crate::payment::{self, PaymentState};
use crate::reservation::{self, ReservationState, Verb};
use crate::stock::{self, Place, StockState};

/// The shop: orders, payments, stock, reservations and the checkouts that join them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shop;

/// What a stream of the shop amounts to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShopState {
    /// An order.
    Order(Box<OrderState>),
    /// A payment.
    Payment(Box<PaymentState>),
    /// Stock.
    Stock(Box<StockState>),
    /// A reservation.
    Reservation(Box<ReservationState>),
    /// A checkout.
    Checkout(Box<CheckoutState>),
}

impl ShopState {
    /// What API consumers are shown of it.
    pub fn resource(&self) -> Resource {
        match self {
            Self::Order(state) => Resource::Order(state.shown.clone()),
            Self::Payment(state) => Resource::Payment(state.shown.clone()),
            Self::Stock(state) => Resource::Stock(state.shown.clone()),
            Self::Reservation(state) => Resource::Reservation(state.shown.clone()),
            Self::Checkout(state) => Resource::Saga(state.shown.clone()),
        }
    }

    /// The order, if it is one.
    pub fn order(&self) -> Option<&OrderState> {
        if let Self::Order(state) = self { Some(state) } else { None }
    }

    /// The payment, if it is one.
    pub fn payment(&self) -> Option<&PaymentState> {
        if let Self::Payment(state) = self { Some(state) } else { None }
    }

    /// The stock, if it is one.
    pub fn stock(&self) -> Option<&StockState> {
        if let Self::Stock(state) = self { Some(state) } else { None }
    }

    /// The reservation, if it is one.
    pub fn reservation(&self) -> Option<&ReservationState> {
        if let Self::Reservation(state) = self { Some(state) } else { None }
    }

    /// The checkout, if it is one.
    pub fn checkout(&self) -> Option<&CheckoutState> {
        if let Self::Checkout(state) = self { Some(state) } else { None }
    }
}

impl Decider for Shop {
    type Command = ShopCommand;
    type Event = ShopEvent;
    type State = ShopState;

    fn version(&self) -> u32 {
        1
    }

    fn streams(&self, command: &ShopCommand) -> Vec<StreamName> {
        match command {
            ShopCommand::PlaceOrder { order_id, payment: None, .. } => vec![order_id.stream()],
            ShopCommand::PlaceOrder { order_id, .. } | ShopCommand::StartCheckout { order_id, .. } => {
                vec![order_id.stream(), order_id.checkout_stream()]
            }
            ShopCommand::CancelOrder { order_id, .. } => {
                vec![order_id.stream(), order_id.checkout_stream(), order_id.payment().stream()]
            }
            ShopCommand::ShipOrder { order_id, .. } | ShopCommand::DeliverOrder { order_id } => vec![order_id.stream()],
            ShopCommand::RefundOrder { order_id, .. } => vec![order_id.stream(), order_id.payment().stream()],
            ShopCommand::CountStock { location_id, sku, .. }
            | ShopCommand::ReceiveStock { location_id, sku, .. }
            | ShopCommand::AdjustStock { location_id, sku, .. } => vec![stock_stream(location_id, sku)],
            ShopCommand::ReserveStock { location_id, reservation_id, lines, .. } => {
                reservation::streams(location_id, *reservation_id, lines)
            }
            ShopCommand::CommitStock(verb)
            | ShopCommand::ReleaseStock(verb)
            | ShopCommand::ReturnStock(verb)
            | ShopCommand::ExpireReservation(verb) => {
                reservation::streams(&verb.location_id, verb.reservation_id, &verb.lines)
            }
            ShopCommand::AuthorizePayment { payment_id, .. }
            | ShopCommand::CapturePayment { payment_id, .. }
            | ShopCommand::VoidPayment { payment_id }
            | ShopCommand::ExpirePayment { payment_id, .. } => vec![payment_id.stream()],
            ShopCommand::RefundPayment { payment_id, checkout_of, .. } => {
                std::iter::once(payment_id.stream()).chain(checkout_of.map(|order| order.stream())).collect()
            }
            ShopCommand::RecordGateway { payment_id, checkout_of, .. } => {
                let of_checkout = checkout_of.iter().flat_map(|order| [order.stream(), order.checkout_stream()]);
                std::iter::once(payment_id.stream()).chain(of_checkout).collect()
            }
            ShopCommand::RecordStep { order_id, .. } | ShopCommand::DecideSaga { order_id, .. } => {
                vec![order_id.checkout_stream(), order_id.stream(), order_id.payment().stream()]
            }
        }
    }

    fn makes(&self, command: &ShopCommand, index: usize) -> bool {
        match command {
            ShopCommand::PlaceOrder { .. } => true,
            ShopCommand::StartCheckout { .. } => index == 1,
            ShopCommand::ReserveStock { .. } | ShopCommand::AuthorizePayment { .. } => index == 0,
            // A checkout's payment is made by one of its steps.
            ShopCommand::RecordStep { .. } => index == 2,
            _ => false,
        }
    }

    fn begins(&self, command: &ShopCommand) -> bool {
        // A payment of a checkout is begun by a step of it; this one is asked for by itself.
        matches!(
            command,
            ShopCommand::PlaceOrder { payment: Some(_), .. }
                | ShopCommand::StartCheckout { .. }
                | ShopCommand::AuthorizePayment { .. }
        )
    }

    fn decide(&self, states: &States<'_, ShopState>, command: &ShopCommand, context: &Context) -> Decision<ShopEvent> {
        let addressed = states.at(0);
        let order = || addressed.and_then(ShopState::order);
        let payment = || addressed.and_then(ShopState::payment);
        let stock = || addressed.and_then(ShopState::stock);
        let reservation = || addressed.and_then(ShopState::reservation);
        match command {
            ShopCommand::PlaceOrder { order_id, customer_id, location_id, lines, payment } => {
                let (order_id, payment) = (*order_id, payment.as_ref());
                order::place(order(), &order::Asked { order_id, customer_id, location_id, lines, payment })
            }
            ShopCommand::StartCheckout { payment, .. } => order::start_checkout(order(), payment),
            ShopCommand::CancelOrder { reason, detail, .. } => {
                checkout::cancel(states, *reason, detail.as_deref(), context)
            }
            ShopCommand::ShipOrder { carrier, tracking, .. } => {
                order::ship(order(), carrier.as_deref(), tracking.as_deref())
            }
            ShopCommand::DeliverOrder { .. } => order::deliver(order()),
            ShopCommand::RefundOrder { amount, reason, .. } => order::refund(states, *amount, reason),

            ShopCommand::CountStock { location_id, sku, on_hand, reason } => {
                stock::count(stock(), &Place { location_id, sku }, *on_hand, reason.as_deref(), context)
            }
            ShopCommand::ReceiveStock { location_id, sku, quantity } => {
                stock::receive(stock(), &Place { location_id, sku }, *quantity, context)
            }
            ShopCommand::AdjustStock { location_id, sku, delta, reason } => {
                stock::adjust(stock(), &Place { location_id, sku }, *delta, reason, context)
            }

            ShopCommand::ReserveStock { reservation_id, lines, expires_in_s, order_id, .. } => {
                let asked = reservation::Asked {
                    lines,
                    expires_in_s: *expires_in_s,
                    order_id: *order_id,
                    reservation_id: *reservation_id,
                };
                reservation::reserve(reservation(), states, &asked, context)
            }
            ShopCommand::CommitStock(asked) => reservation::carry_out(reservation(), Verb::Commit, asked),
            ShopCommand::ReleaseStock(asked) => reservation::carry_out(reservation(), Verb::Release, asked),
            ShopCommand::ReturnStock(asked) => reservation::carry_out(reservation(), Verb::Return, asked),
            ShopCommand::ExpireReservation(asked) => reservation::carry_out(reservation(), Verb::Expire, asked),

            ShopCommand::AuthorizePayment { payment_id, order_id, amount, means } => {
                payment::authorize(payment(), *payment_id, *order_id, *amount, means)
            }
            ShopCommand::CapturePayment { amount, .. } => payment::capture(payment(), *amount, context),
            ShopCommand::VoidPayment { .. } => payment::void(payment()),
            ShopCommand::RefundPayment { checkout_of, amount, reason, .. } => {
                payment::refund(payment(), *checkout_of, *amount, reason)
            }
            ShopCommand::RecordGateway { checkout_of, intent, answer, .. } => {
                payment::record(states, *checkout_of, *intent, answer, context)
            }
            ShopCommand::ExpirePayment { armed_at, .. } => payment::expire(payment(), *armed_at),

            ShopCommand::RecordStep { step, undo, result, .. } => {
                checkout::record_step(states, step, *undo, result, context)
            }
            ShopCommand::DecideSaga { decision, reason, .. } => {
                checkout::decide_saga(states, *decision, reason, context)
            }
        }
    }

    fn evolve(&self, state: Option<ShopState>, event: &ShopEvent, meta: &EventMeta) -> ShopState {
        let evolved = match state {
            Some(ShopState::Order(state)) => OrderState::evolve(Some(*state), event, meta).map(order_state),
            Some(ShopState::Payment(state)) => PaymentState::evolve(Some(*state), event, meta).map(payment_state),
            Some(ShopState::Stock(state)) => StockState::evolve(Some(*state), event, meta).map(stock_state),
            Some(ShopState::Reservation(state)) => {
                ReservationState::evolve(Some(*state), event, meta).map(reservation_state)
            }
            Some(ShopState::Checkout(state)) => CheckoutState::evolve(Some(*state), event, meta).map(checkout_state),
            None => match meta.stream.category() {
                "order" => OrderState::evolve(None, event, meta).map(order_state),
                "payment" => PaymentState::evolve(None, event, meta).map(payment_state),
                "stock" => StockState::evolve(None, event, meta).map(stock_state),
                "reservation" => ReservationState::evolve(None, event, meta).map(reservation_state),
                "checkout" => CheckoutState::evolve(None, event, meta).map(checkout_state),
                _ => None,
            },
        };
        // The decider alone writes these streams: anything else is not our log, and nothing must be decided on it.
        evolved.unwrap_or_else(|| panic!("{} of {} begins with {}", meta.version, meta.stream, event.event_type()))
    }

    fn remembers(&self, state: &ShopState, id: CommandId) -> Option<Version> {
        match state {
            ShopState::Order(state) => state.remembers(id),
            ShopState::Payment(state) => state.remembers(id),
            ShopState::Stock(state) => state.remembers(id),
            ShopState::Reservation(state) => state.remembers(id),
            ShopState::Checkout(state) => state.remembers(id),
        }
    }
}

fn order_state(state: OrderState) -> ShopState {
    ShopState::Order(Box::new(state))
}

fn payment_state(state: PaymentState) -> ShopState {
    ShopState::Payment(Box::new(state))
}

fn stock_state(state: StockState) -> ShopState {
    ShopState::Stock(Box::new(state))
}

fn reservation_state(state: ReservationState) -> ShopState {
    ShopState::Reservation(Box::new(state))
}

fn checkout_state(state: CheckoutState) -> ShopState {
    ShopState::Checkout(Box::new(state))
}

impl Reactor for Shop {
    type Call = GatewayCall;
    type Returned = GatewayAnswer;

    fn react(&self, _stream: &StreamName, _version: Version, state: &ShopState) -> Agenda<ShopCommand, GatewayCall> {
        match state {
            ShopState::Payment(payment) => payment::react(payment),
            ShopState::Checkout(checkout) => checkout::react(checkout),
            ShopState::Reservation(reservation) => reservation::react(reservation),
            ShopState::Order(_) | ShopState::Stock(_) => Agenda::default(),
        }
    }

    fn heard(
        &self,
        _stream: &StreamName,
        state: &ShopState,
        pending: &Pending<ShopCommand, GatewayCall>,
        heard: &Heard<GatewayAnswer>,
        _now: Timestamp,
    ) -> Option<(CommandId, ShopCommand)> {
        match state {
            ShopState::Payment(payment) => payment::heard(payment, pending.id, heard),
            ShopState::Checkout(checkout) => checkout::heard(checkout, pending.id, heard),
            ShopState::Order(_) | ShopState::Stock(_) | ShopState::Reservation(_) => None,
        }
    }

    fn fire(&self, stream: &StreamName, state: &ShopState, timer: &Timer) -> ShopCommand {
        match state {
            ShopState::Payment(payment) => payment::fire(payment, timer),
            ShopState::Reservation(reservation) => ShopCommand::ExpireReservation(reservation.expiry()),
            ShopState::Order(_) | ShopState::Stock(_) | ShopState::Checkout(_) => {
                panic!("{stream} has no timer: only payments and reservations are woken")
            }
        }
    }
}
