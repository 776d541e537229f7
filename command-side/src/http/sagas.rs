//! An operator's decisions about a saga.

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use chassis::body::command_request;
use chassis::problem::Problem;
use chassis::respond::Reply;
use domain::ShopState;
use engine::position::Version;
use http::StatusCode;
use schemas::command::{SagaDecision, ShopCommand};
use schemas::id::OrderId;
use schemas::problem::SAGA_NOT_FOUND;
use schemas::request::DecideSagaBody;

use super::door::{Asked, Door, path_uuid, shop_problem};

pub(super) fn routes() -> Router<Door> {
    DecideSagaBody::DECISIONS.into_iter().fold(Router::new(), |router, (word, decision)| {
        let decide = move |State(door): State<Door>, Path(id): Path<String>, request: Request| async move {
            door.decide(word, decision, &id, request).await
        };
        router.route(&format!("/v1/sagas/{{id}}/{word}"), post(decide))
    })
}

impl Door {
    async fn decide(
        &self,
        verb: &'static str,
        decision: SagaDecision,
        id: &str,
        request: Request,
    ) -> Result<Response, Problem> {
        let (parts, body) = request.into_parts();
        let request = command_request(&parts, body).await?;
        let Some(order_id) = path_uuid(id).map(OrderId) else { return Err(shop_problem(SAGA_NOT_FOUND)) };
        let command = DecideSagaBody::parse(request.body.root()).map(|body| ShopCommand::DecideSaga {
            order_id,
            decision,
            reason: body.reason,
        });
        let accepted = self.ask(Asked { request, verb, resource: order_id.checkout_stream(), command }).await?;
        let Some(ShopState::Checkout(saga)) = accepted.decided.state.as_deref() else {
            tracing::error!(saga.id = %order_id, "a saga's command was accepted without a saga");
            return Err(Problem::internal());
        };
        let saga = &saga.shown;
        Ok(Reply::json(StatusCode::OK, saga)
            .version(Version(saga.version))
            .positions(&accepted.positions())
            .replayed(accepted.decided.replayed)
            .timing(accepted.timing())
            .into_response())
    }
}
