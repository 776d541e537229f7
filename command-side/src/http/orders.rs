//! `POST /v1/orders` and the verbs on an order.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use chassis::body::{CommandRequest, bare_command_request, command_request};
use chassis::problem::Problem;
use chassis::respond::Reply;
use domain::ShopState;
use engine::message::FieldError;
use engine::position::{Positions, Version};
use http::StatusCode;
use http::request::Parts;
use schemas::command::ShopCommand;
use schemas::id::OrderId;
use schemas::problem::ORDER_NOT_FOUND;
use schemas::request::{
    CancelOrderBody, EmptyBody, PlaceOrderBody, RefundBody, ShipOrderBody, StartCheckoutBody, named_id,
};
use schemas::resource::order::Order;
use schemas::resource::saga::SagaState;
use tokio::time::Instant;

use super::door::{Accepted, Asked, Door, path_uuid, shop_problem};

type Answer = Result<Response, Problem>;

pub(super) fn routes() -> Router<Door> {
    Router::new()
        .route("/v1/orders", post(place))
        .route("/v1/orders/{id}/checkout", post(checkout))
        .route("/v1/orders/{id}/cancel", post(cancel))
        .route("/v1/orders/{id}/ship", post(ship))
        .route("/v1/orders/{id}/deliver", post(deliver))
        .route("/v1/orders/{id}/refund", post(refund))
}

async fn place(State(door): State<Door>, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let request = command_request(&parts, body).await?;
    // What creates addresses the id named or derived, even if the rest of the body is at fault.
    let order_id = named_id(request.body.root(), "order_id").map_or_else(|| OrderId::of_command(request.id), OrderId);
    let command = PlaceOrderBody::parse(request.body.root()).map(|body| ShopCommand::PlaceOrder {
        order_id,
        customer_id: body.customer_id,
        location_id: body.location_id,
        lines: body.lines,
        payment: body.payment,
    });
    door.order("place", order_id, request, command, Waits::ForSaga).await
}

async fn checkout(State(door): State<Door>, Path(id): Path<String>, request: Request) -> Answer {
    let parse = |order_id, request: &CommandRequest| {
        StartCheckoutBody::parse(request.body.root())
            .map(|body| ShopCommand::StartCheckout { order_id, payment: body.payment })
    };
    door.order_verb("checkout", &id, request, parse, Waits::ForSaga).await
}

async fn cancel(State(door): State<Door>, Path(id): Path<String>, request: Request) -> Answer {
    let parse = |order_id, request: &CommandRequest| {
        CancelOrderBody::parse(request.body.root()).map(|body| ShopCommand::CancelOrder {
            order_id,
            reason: body.reason,
            detail: body.detail,
        })
    };
    door.order_verb("cancel", &id, request, parse, Waits::ForSaga).await
}

async fn ship(State(door): State<Door>, Path(id): Path<String>, request: Request) -> Answer {
    let parse = |order_id, request: &CommandRequest| {
        ShipOrderBody::parse(request.body.root()).map(|body| ShopCommand::ShipOrder {
            order_id,
            carrier: body.carrier,
            tracking: body.tracking,
        })
    };
    door.order_verb("ship", &id, request, parse, Waits::No).await
}

async fn deliver(State(door): State<Door>, Path(id): Path<String>, request: Request) -> Answer {
    let parse = |order_id, request: &CommandRequest| {
        EmptyBody::parse(request.body.root()).map(|_| ShopCommand::DeliverOrder { order_id })
    };
    door.order_verb("deliver", &id, request, parse, Waits::No).await
}

async fn refund(State(door): State<Door>, Path(id): Path<String>, request: Request) -> Answer {
    let parse = |order_id, request: &CommandRequest| {
        RefundBody::parse(request.body.root()).map(|body| ShopCommand::RefundOrder {
            order_id,
            amount: body.amount,
            reason: body.reason,
        })
    };
    door.order_verb("refund", &id, request, parse, Waits::No).await
}

/// Whether `Prefer: wait` means anything.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// Until the order's saga has settled.
    ForSaga,
    No,
}

impl Door {
    async fn order_verb(
        &self,
        verb: &'static str,
        id: &str,
        request: http::Request<Body>,
        parse: impl FnOnce(OrderId, &CommandRequest) -> Result<ShopCommand, Vec<FieldError>>,
        waits: Waits,
    ) -> Answer {
        let (parts, body): (Parts, Body) = request.into_parts();
        let request = bare_command_request(&parts, body).await?;
        let Some(order_id) = path_uuid(id).map(OrderId) else { return Err(shop_problem(ORDER_NOT_FOUND)) };
        let command = parse(order_id, &request);
        self.order(verb, order_id, request, command, waits).await
    }

    async fn order(
        &self,
        verb: &'static str,
        order_id: OrderId,
        request: CommandRequest,
        command: Result<ShopCommand, Vec<FieldError>>,
        waits: Waits,
    ) -> Answer {
        let resource = order_id.stream();
        let accepted = self.ask(Asked { request, verb, resource, command }).await?;
        if let (Waits::ForSaga, Some(wait)) = (waits, accepted.wait)
            // Boxed, for few ask for it and its room would be part of every request's.
            && let Some((order, positions)) = Box::pin(self.settled(order_id, &accepted, wait)).await?
        {
            return Ok(reply(&accepted, &order, &positions).preference_applied(wait).into_response());
        }
        let Some(ShopState::Order(order)) = accepted.decided.state.as_deref() else {
            tracing::error!(order.id = %order_id, "an order's command was accepted without an order");
            return Err(Problem::internal());
        };
        Ok(reply(&accepted, &order.shown, &accepted.positions()).into_response())
    }

    /// The order once its saga has settled, and every partition that took part; `None` if that takes longer than `wait`.
    /// An order whose checkout has not begun has nothing to wait for.
    async fn settled(
        &self,
        order_id: OrderId,
        accepted: &Accepted,
        wait: Duration,
    ) -> Result<Option<(Order, Positions)>, Problem> {
        let deadline = Instant::now() + wait;
        let order = self.watch(order_id.stream()).await?;
        let mut saga = self.watch(order_id.checkout_stream()).await?;
        let Some(current) = order.current() else { return Ok(None) };
        let ShopState::Order(state) = &*current.state else { return Ok(None) };
        let mut positions = accepted.positions();
        if state.shown.saga_id.is_some() {
            // The saga's first event is in the same record as the order's `CheckoutStarted`, and a cancel takes it up
            // again in its own: what the watch shows is never older than the command.
            let settled = saga.until(|current| {
                matches!(&*current.state, ShopState::Checkout(checkout)
                    if matches!(checkout.shown.state, SagaState::Completed | SagaState::Compensated))
            });
            let Some(settled) = self.by(deadline, settled).await else { return Ok(None) };
            let Some(settled) = settled else { return Ok(None) };
            positions.reach(settled.position);
            if let ShopState::Checkout(checkout) = &*settled.state {
                positions.reach_all(checkout.positions());
            }
        }
        let Some(current) = order.current() else { return Ok(None) };
        positions.reach(current.position);
        let ShopState::Order(state) = &*current.state else { return Ok(None) };
        Ok(Some((state.shown.clone(), positions)))
    }
}

fn reply(accepted: &Accepted, order: &Order, positions: &Positions) -> Reply {
    let status = if accepted.decided.outcome.status == 201 { StatusCode::CREATED } else { StatusCode::OK };
    let reply = Reply::json(status, order)
        .version(Version(order.version))
        .positions(positions)
        .replayed(accepted.decided.replayed)
        .timing(accepted.timing());
    if status == StatusCode::CREATED { reply.location(&format!("/v1/orders/{}", order.order_id)) } else { reply }
}
