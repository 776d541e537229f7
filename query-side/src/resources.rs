//! `GET` of one resource, by the id in its path.

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chassis::body::{APPLICATION_JSON, read_request};
use chassis::headers::{DOCKET_DROPPED, parse_uuid};
use chassis::problem::{Code, Problem};
use chassis::query::Query;
use chassis::respond::Reply;
use engine::position::{Offset, Partition, Position, Positions, Version};
use engine::saga::Reactor;
use engine::stream::{StreamName, Tenant};
use http::StatusCode;
use http::request::Parts;
use schemas::event::ShopEvent;
use schemas::id::{LocationId, OrderId, PaymentId, ReservationId, Sku, Subject, stock_stream};
use schemas::problem::{
    ORDER_NOT_FOUND, PAYMENT_NOT_FOUND, RESERVATION_NOT_FOUND, SAGA_NOT_FOUND, STOCK_NOT_FOUND, ShopCode,
};
use uuid::Uuid;

use crate::QuerySide;

pub(crate) fn routes<R: Reactor<Event = ShopEvent>>(side: &QuerySide<R>) -> Router {
    Router::new()
        .route("/v1/orders/{id}", get(order::<R>))
        .route("/v1/payments/{id}", get(payment::<R>))
        .route("/v1/sagas/{id}", get(saga::<R>))
        .route("/v1/stock/{location}/{sku}", get(stock::<R>))
        .route("/v1/stock/{location}/reservations/{id}", get(reservation::<R>))
        .with_state(side.clone())
}

type Answer = Result<Response, Problem>;

async fn order<R: Reactor<Event = ShopEvent>>(
    State(side): State<QuerySide<R>>,
    Path(id): Path<String>,
    parts: Parts,
) -> Answer {
    let subject = uuid(&id).map(|id| Subject::Order(OrderId(id)));
    side.show(subject, ORDER_NOT_FOUND, &parts).await
}

async fn payment<R: Reactor<Event = ShopEvent>>(
    State(side): State<QuerySide<R>>,
    Path(id): Path<String>,
    parts: Parts,
) -> Answer {
    let subject = uuid(&id).map(|id| Subject::Payment(PaymentId(id)));
    side.show(subject, PAYMENT_NOT_FOUND, &parts).await
}

async fn saga<R: Reactor<Event = ShopEvent>>(
    State(side): State<QuerySide<R>>,
    Path(id): Path<String>,
    parts: Parts,
) -> Answer {
    let subject = uuid(&id).map(|id| Subject::Checkout(OrderId(id)));
    side.show(subject, SAGA_NOT_FOUND, &parts).await
}

async fn stock<R: Reactor<Event = ShopEvent>>(
    State(side): State<QuerySide<R>>,
    Path((location, sku)): Path<(String, String)>,
    parts: Parts,
) -> Answer {
    let subject = LocationId::new(&location).and_then(|location| Ok(Subject::Stock(location, Sku::new(&sku)?)));
    side.show(subject.ok(), STOCK_NOT_FOUND, &parts).await
}

async fn reservation<R: Reactor<Event = ShopEvent>>(
    State(side): State<QuerySide<R>>,
    Path((location, id)): Path<(String, String)>,
    parts: Parts,
) -> Answer {
    let location = LocationId::new(&location).ok();
    let subject = location.and_then(|location| Some(Subject::Reservation(location, ReservationId(uuid(&id)?))));
    side.show(subject, RESERVATION_NOT_FOUND, &parts).await
}

impl<R: Reactor<Event = ShopEvent>> QuerySide<R> {
    /// Shows a subject as its row has it. A path that names none can have nothing behind it.
    async fn show(&self, subject: Option<Subject>, absent: ShopCode, parts: &Parts) -> Answer {
        let read = read_request(parts, &[APPLICATION_JSON])?;
        Query::of(&parts.uri).finish()?;
        let Some(subject) = subject else { return Err(not_found(absent)) };
        let stream = stream_of(&subject);
        let found = self.row(&read, &stream, &views::row_key(&subject)).await?;
        let positions = reflected(self.node.partition_of(&Tenant::default(), &stream), found.as_of);
        // Shown without what an operator gave up, and saying so.
        let dropped = self.projection.parked_as(&Tenant::default(), &stream).map(|parked| parked.version.0);
        let Some(row) = found.row else {
            let problem = not_found(absent).positions(&positions);
            return Err(match dropped {
                Some(version) => problem.header(DOCKET_DROPPED, version.into()),
                None => problem,
            });
        };
        let reply = Reply::json(StatusCode::OK, &row.doc).version(Version(row.version)).positions(&positions);
        let reply = match dropped {
            Some(version) => reply.header(DOCKET_DROPPED, version.into()),
            None => reply,
        };
        Ok(reply.conditional(&parts.headers).into_response())
    }
}

/// What an answer from rows at this checkpoint reflects.
pub(crate) fn reflected(partition: Partition, next: Offset) -> Positions {
    match next.0.checked_sub(1) {
        Some(offset) => Position { partition, offset: Offset(offset) }.into(),
        None => Positions::default(),
    }
}

/// A problem of the shop.
pub(crate) fn not_found(code: ShopCode) -> Problem {
    Problem::new(Code::new(code.name, code.status, code.title, code.page), code.title)
}

/// The read store failed. What broke is for the log.
pub(crate) fn unavailable(fault: &engine::read_store::StoreFault) -> Problem {
    let error = fault as &dyn std::error::Error;
    match fault {
        // Every reader meets it, and the projection says it as well.
        engine::read_store::StoreFault::Unavailable(_) => tracing::debug!(error, "the read store does not answer"),
        _ => tracing::error!(error, "the read store failed"),
    }
    Problem::new(chassis::problem::codes::NOT_SERVING, "the read store does not answer")
}

fn uuid(text: &str) -> Option<Uuid> {
    parse_uuid(text.as_bytes())
}

fn stream_of(subject: &Subject) -> StreamName {
    match subject {
        Subject::Order(id) => id.stream(),
        Subject::Checkout(id) => id.checkout_stream(),
        Subject::Payment(id) => id.stream(),
        Subject::Stock(location, sku) => stock_stream(location, sku),
        Subject::Reservation(location, id) => id.stream_at(location),
    }
}
