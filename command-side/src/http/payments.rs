//! Payments outside any checkout, and refunds of any payment. These wait for the gateway; what is told is the payment as
//! it first was with nothing in flight after the command's own record, so that a repeat is told the same.

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use chassis::body::{CommandRequest, bare_command_request, command_request};
use chassis::problem::Problem;
use chassis::respond::Reply;
use domain::ShopState;
use engine::message::FieldError;
use engine::position::{Position, Version};
use engine::stream::Tenant;
use engine_runtime::store::Direction;
use http::StatusCode;
use schemas::command::ShopCommand;
use schemas::id::{OrderId, PaymentId};
use schemas::problem::PAYMENT_NOT_FOUND;
use schemas::request::{AuthorizePaymentBody, CapturePaymentBody, EmptyBody, RefundBody};
use schemas::resource::Fold;
use schemas::resource::payment::Payment;
use tokio::time::Instant;

use super::door::{Accepted, Asked, Door, path_uuid, shop_problem};

/// How long to wait for the gateway unless `Prefer: wait` says otherwise.
const GATEWAY_WAIT: Duration = Duration::from_secs(10);
/// Most events of a payment that are looked through for the one that settled a command: a payment has a handful, and one
/// refund more each time somebody asks.
const EVENTS_MAX: usize = 10_000;

type Answer = Result<Response, Problem>;

pub(super) fn routes() -> Router<Door> {
    Router::new()
        .route("/v1/payments", post(authorize))
        .route("/v1/payments/{id}/capture", post(capture))
        .route("/v1/payments/{id}/void", post(void))
        .route("/v1/payments/{id}/refund", post(refund))
}

async fn authorize(State(door): State<Door>, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let request = command_request(&parts, body).await?;
    let payment_id = PaymentId::of_command(request.id);
    let command = AuthorizePaymentBody::parse(request.body.root()).map(|body| ShopCommand::AuthorizePayment {
        payment_id,
        order_id: body.order_id.map(OrderId),
        amount: body.amount,
        means: body.means,
    });
    door.payment("authorize", payment_id, request, command).await
}

async fn capture(State(door): State<Door>, Path(id): Path<String>, request: Request) -> Answer {
    door.payment_verb("capture", &id, request, |payment_id, _, request| {
        CapturePaymentBody::parse(request.body.root())
            .map(|body| ShopCommand::CapturePayment { payment_id, amount: body.amount })
    })
    .await
}

async fn void(State(door): State<Door>, Path(id): Path<String>, request: Request) -> Answer {
    door.payment_verb("void", &id, request, |payment_id, _, request| {
        EmptyBody::parse(request.body.root()).map(|_| ShopCommand::VoidPayment { payment_id })
    })
    .await
}

async fn refund(State(door): State<Door>, Path(id): Path<String>, request: Request) -> Answer {
    door.payment_verb("refund", &id, request, |payment_id, checkout_of, request| {
        RefundBody::parse(request.body.root()).map(|body| ShopCommand::RefundPayment {
            payment_id,
            checkout_of,
            amount: body.amount,
            reason: body.reason,
        })
    })
    .await
}

impl Door {
    async fn payment_verb(
        &self,
        verb: &'static str,
        id: &str,
        request: Request,
        parse: impl FnOnce(PaymentId, Option<OrderId>, &CommandRequest) -> Result<ShopCommand, Vec<FieldError>>,
    ) -> Answer {
        let (parts, body) = request.into_parts();
        let request = bare_command_request(&parts, body).await?;
        let Some(payment_id) = path_uuid(id).map(PaymentId) else { return Err(shop_problem(PAYMENT_NOT_FOUND)) };
        let checkout_of = match self.current(payment_id.stream()).await?.as_deref() {
            Some(ShopState::Payment(payment)) => payment.checkout_of(),
            _ => None,
        };
        let command = parse(payment_id, checkout_of, &request);
        self.payment(verb, payment_id, request, command).await
    }

    async fn payment(
        &self,
        verb: &'static str,
        payment_id: PaymentId,
        request: CommandRequest,
        command: Result<ShopCommand, Vec<FieldError>>,
    ) -> Answer {
        let resource = payment_id.stream();
        let accepted = self.ask(Asked { request, verb, resource, command }).await?;
        let Some(ShopState::Payment(payment)) = accepted.decided.state.as_deref() else {
            tracing::error!(payment.id = %payment_id, "a payment's command was accepted without a payment");
            return Err(Problem::internal());
        };
        let wait = accepted.wait.unwrap_or(GATEWAY_WAIT);
        let (shown, position) = match self.at_rest(payment_id, &accepted, &payment.shown, wait).await? {
            Some(at_rest) => at_rest,
            None => self.as_it_is(payment_id, &accepted, &payment.shown).await?,
        };
        let status = if accepted.decided.outcome.status == 201 { StatusCode::CREATED } else { StatusCode::OK };
        let mut reply = Reply::json(status, &shown)
            .version(Version(shown.version))
            .positions(&position.into())
            .replayed(accepted.decided.replayed)
            .timing(accepted.timing());
        if let Some(wait) = accepted.wait.filter(|_| shown.in_flight.is_none()) {
            reply = reply.preference_applied(wait);
        }
        if status == StatusCode::CREATED {
            reply = reply.location(&format!("/v1/payments/{payment_id}"));
        }
        Ok(reply.into_response())
    }

    /// The payment as it first was with nothing in flight, at or after the command's record; `None` if that takes longer
    /// than `wait`.
    async fn at_rest(
        &self,
        payment_id: PaymentId,
        accepted: &Accepted,
        recorded: &Payment,
        wait: Duration,
    ) -> Result<Option<(Payment, Position)>, Problem> {
        if recorded.in_flight.is_none() {
            return Ok(Some((recorded.clone(), accepted.decided.position)));
        }
        let deadline = Instant::now() + wait;
        let mut watch = self.watch(payment_id.stream()).await?;
        let quiet = watch.until(|current| {
            current.version > accepted.decided.version
                && matches!(&*current.state, ShopState::Payment(payment) if payment.shown.in_flight.is_none())
        });
        let Some(Some(quiet)) = self.by(deadline, quiet).await else { return Ok(None) };
        if quiet.version == accepted.decided.version.next()
            && let ShopState::Payment(payment) = &*quiet.state
        {
            return Ok(Some((payment.shown.clone(), quiet.position)));
        }
        // More has happened since: look where it first came to rest. The index may lag a moment behind what is known.
        let (reached, left) = (quiet.position.into(), deadline.saturating_duration_since(Instant::now()));
        if self.node().wait_saved(&reached, left).await.is_err() {
            return Ok(None);
        }
        let stream = payment_id.stream();
        let history = self.node().history();
        let tenant = Tenant::default();
        let events = history
            .read_stream(&tenant, &stream, Version(1), quiet.version, Direction::Forward, EVENTS_MAX)
            .await
            .map_err(|fault| {
                tracing::error!(error = &fault as &dyn std::error::Error, payment.id = %payment_id, "history cannot be read");
                Problem::internal()
            })?;
        let mut payment = None;
        for event in &events {
            payment = Payment::evolve(payment, &event.event, &event.meta);
            if let Some(payment) = &payment
                && event.meta.version >= accepted.decided.version
                && payment.in_flight.is_none()
            {
                return Ok(Some((payment.clone(), event.position)));
            }
        }
        Ok(None)
    }

    async fn as_it_is(
        &self,
        payment_id: PaymentId,
        accepted: &Accepted,
        recorded: &Payment,
    ) -> Result<(Payment, Position), Problem> {
        Ok(match self.watch(payment_id.stream()).await?.current() {
            Some(current) if current.version >= accepted.decided.version => match &*current.state {
                ShopState::Payment(payment) => (payment.shown.clone(), current.position),
                _ => (recorded.clone(), accepted.decided.position),
            },
            _ => (recorded.clone(), accepted.decided.position),
        })
    }
}
