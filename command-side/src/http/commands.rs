//! `GET /v1/commands/{key}`: what became of a command, asked of every owner.

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chassis::body::{APPLICATION_JSON, read_request};
use chassis::problem::Problem;
use chassis::query::Query;
use chassis::respond::Reply;
use engine::message::CommandId;
use engine::position::Positions;
use engine::stream::Tenant;
use http::StatusCode;
use http::request::Parts;
use schemas::id::Subject;
use schemas::problem::COMMAND_NOT_FOUND;
use serde_json::json;

use super::door::{Door, path_uuid, shop_problem};

pub(super) fn routes() -> Router<Door> {
    Router::new().route("/v1/commands/{key}", get(command))
}

async fn command(State(door): State<Door>, Path(key): Path<String>, parts: Parts) -> Result<Response, Problem> {
    read_request(&parts, &[APPLICATION_JSON])?;
    Query::of(&parts.uri).finish()?;
    let Some(id) = path_uuid(&key).map(CommandId) else { return Err(shop_problem(COMMAND_NOT_FOUND)) };
    let known = door.node().inquire(Tenant::default(), id).await.map_err(Problem::no_answer)?;
    if known.is_empty() {
        return Err(shop_problem(COMMAND_NOT_FOUND));
    }
    let mut positions = Positions::default();
    let items: Vec<_> = known
        .iter()
        .map(|known| {
            let resource = Subject::of(&known.resource).map_or_else(|| known.resource.to_string(), |it| it.path());
            let Some((position, commit)) = &known.commit else {
                return json!({
                    "command_id": id, "resource": resource, "outcome": "running",
                    "status": null, "position": null, "recorded_at": null,
                });
            };
            positions.reach(*position);
            json!({
                "command_id": id, "resource": resource,
                "outcome": if commit.outcome.is_accepted() { "accepted" } else { "rejected" },
                "status": commit.outcome.status, "position": position, "recorded_at": commit.recorded_at,
            })
        })
        .collect();
    Ok(Reply::json(StatusCode::OK, &json!({"items": items})).positions(&positions).into_response())
}
