//! Commands on stock and on reservations.

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{post, put};
use chassis::body::{CommandRequest, bare_command_request, command_request};
use chassis::problem::Problem;
use chassis::respond::Reply;
use domain::ShopState;
use engine::json::Json;
use engine::message::FieldError;
use engine::position::Version;
use http::StatusCode;
use schemas::command::{ReservationVerb, ShopCommand};
use schemas::id::{LocationId, ReservationId, Sku, stock_stream};
use schemas::problem::{RESERVATION_NOT_FOUND, STOCK_NOT_FOUND};
use schemas::request::{AdjustStockBody, CountStockBody, EmptyBody, ReceiveStockBody, ReserveStockBody, named_id};

use super::door::{Accepted, Asked, Door, path_uuid, shop_problem};

type Answer = Result<Response, Problem>;

pub(super) fn routes() -> Router<Door> {
    Router::new()
        .route("/v1/stock/{location}/{sku}", put(count))
        .route("/v1/stock/{location}/{sku}/receive", post(receive))
        .route("/v1/stock/{location}/{sku}/adjust", post(adjust))
        .route("/v1/stock/{location}/reservations", post(reserve))
        .route("/v1/stock/{location}/reservations/{id}/commit", post(commit))
        .route("/v1/stock/{location}/reservations/{id}/release", post(release))
}

type Place = (String, String);

async fn count(State(door): State<Door>, Path(place): Path<Place>, request: Request) -> Answer {
    door.stock_verb("count", place, request, |location_id, sku, body| {
        CountStockBody::parse(body).map(|body| ShopCommand::CountStock {
            location_id,
            sku,
            on_hand: body.on_hand,
            reason: body.reason,
        })
    })
    .await
}

async fn receive(State(door): State<Door>, Path(place): Path<Place>, request: Request) -> Answer {
    door.stock_verb("receive", place, request, |location_id, sku, body| {
        ReceiveStockBody::parse(body).map(|body| ShopCommand::ReceiveStock {
            location_id,
            sku,
            quantity: body.quantity,
        })
    })
    .await
}

async fn adjust(State(door): State<Door>, Path(place): Path<Place>, request: Request) -> Answer {
    door.stock_verb("adjust", place, request, |location_id, sku, body| {
        AdjustStockBody::parse(body).map(|body| ShopCommand::AdjustStock {
            location_id,
            sku,
            delta: body.delta,
            reason: body.reason,
        })
    })
    .await
}

async fn reserve(State(door): State<Door>, Path(location): Path<String>, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let request = command_request(&parts, body).await?;
    let Ok(location_id) = LocationId::new(&location) else { return Err(shop_problem(STOCK_NOT_FOUND)) };
    let reservation_id = named_id(request.body.root(), "reservation_id")
        .map_or_else(|| ReservationId::of_command(request.id), ReservationId);
    let command = ReserveStockBody::parse(request.body.root()).map(|body| ShopCommand::ReserveStock {
        location_id: location_id.clone(),
        reservation_id,
        lines: body.lines,
        expires_in_s: body.expires_in_s,
        order_id: None,
    });
    door.reservation("reserve", reservation_id, &location_id, request, command).await
}

async fn commit(State(door): State<Door>, Path(place): Path<Place>, request: Request) -> Answer {
    door.reservation_verb("commit", place, request, ShopCommand::CommitStock).await
}

async fn release(State(door): State<Door>, Path(place): Path<Place>, request: Request) -> Answer {
    door.reservation_verb("release", place, request, ShopCommand::ReleaseStock).await
}

impl Door {
    async fn stock_verb(
        &self,
        verb: &'static str,
        (location, sku): Place,
        request: Request,
        parse: impl FnOnce(LocationId, Sku, Json<'_>) -> Result<ShopCommand, Vec<FieldError>>,
    ) -> Answer {
        let (parts, body) = request.into_parts();
        let request = command_request(&parts, body).await?;
        let (Ok(location), Ok(sku)) = (LocationId::new(&location), Sku::new(&sku)) else {
            return Err(shop_problem(STOCK_NOT_FOUND));
        };
        let resource = stock_stream(&location, &sku);
        let path = format!("/v1/stock/{location}/{sku}");
        let command = parse(location, sku, request.body.root());
        let accepted = self.ask(Asked { request, verb, resource, command }).await?;
        // Stock streams are long: the record holds the counters as they were after it.
        let Some(stock) = &accepted.decided.outcome.answer else {
            tracing::error!(path, "a stock's command was accepted without its counters");
            return Err(Problem::internal());
        };
        Ok(reply(&accepted, stock, &path).into_response())
    }

    async fn reservation_verb(
        &self,
        verb: &'static str,
        (location, id): Place,
        request: Request,
        make: impl FnOnce(ReservationVerb) -> ShopCommand,
    ) -> Answer {
        let (parts, body) = request.into_parts();
        let request = bare_command_request(&parts, body).await?;
        let (Ok(location_id), Some(id)) = (LocationId::new(&location), path_uuid(&id)) else {
            return Err(shop_problem(RESERVATION_NOT_FOUND));
        };
        let reservation_id = ReservationId(id);
        // A command names every stream it may write, so the lines have to be known; they never change.
        let lines = match self.current(reservation_id.stream_at(&location_id)).await?.as_deref() {
            Some(ShopState::Reservation(reservation)) => reservation.shown.lines.clone(),
            _ => Vec::new(),
        };
        let command = EmptyBody::parse(request.body.root())
            .map(|_| make(ReservationVerb { location_id: location_id.clone(), reservation_id, lines, order_id: None }));
        self.reservation(verb, reservation_id, &location_id, request, command).await
    }

    async fn reservation(
        &self,
        verb: &'static str,
        id: ReservationId,
        location: &LocationId,
        request: CommandRequest,
        command: Result<ShopCommand, Vec<FieldError>>,
    ) -> Answer {
        let resource = id.stream_at(location);
        let accepted = self.ask(Asked { request, verb, resource, command }).await?;
        let Some(ShopState::Reservation(reservation)) = accepted.decided.state.as_deref() else {
            tracing::error!(reservation.id = %id, "a reservation's command was accepted without a reservation");
            return Err(Problem::internal());
        };
        let path = format!("/v1/stock/{location}/reservations/{id}");
        Ok(reply(&accepted, &reservation.shown, &path).into_response())
    }
}

fn reply<T: serde::Serialize>(accepted: &Accepted, shown: &T, path: &str) -> Reply {
    let created = accepted.decided.outcome.status == 201;
    let reply = Reply::json(if created { StatusCode::CREATED } else { StatusCode::OK }, shown)
        .version(Version(accepted.decided.version.0))
        .positions(&accepted.positions())
        .replayed(accepted.decided.replayed)
        .timing(accepted.timing());
    if created { reply.location(path) } else { reply }
}
