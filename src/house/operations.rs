//! `/v1/projections`: what an operator may look at and do to the read models. Nothing here is a command: nothing of it
//! reaches the log. What is done runs in a task of its own, so that a caller who hangs up leaves nothing half-done; asked
//! again under the same key, what changes which rows are in use is not done twice.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use chassis::body::{APPLICATION_JSON, bare_command_request, command_request, read_request};
use chassis::cursor::CursorKey;
use chassis::problem::{Problem, codes};
use chassis::query::Query;
use chassis::respond::Reply;
use engine::message::{At, CommandId, FieldError};
use engine::ports::Clock;
use engine::read_store::StoreFault;
use engine::stream::{StreamId, StreamName, Tenant};
use engine_runtime::projection::{Denied, Dropped, Scope};
use engine_runtime::system::SystemClock;
use http::StatusCode;
use http::request::Parts;
use projections::{NAME, Operations};
use serde_json::{Value, json};

/// 10 s: how long a switch waits for the rows beside, unless `Prefer: wait` says otherwise.
const SWITCH_WAIT_DEFAULT: Duration = Duration::from_secs(10);
/// 64 keys remembered: a repeat comes soon or never.
const DONE_MAX: usize = 64;
/// Most rows of a sample.
const SAMPLE_MAX: u64 = 1_000;

#[derive(Clone)]
struct Desk {
    operations: Operations,
    cursors: CursorKey,
    /// Keys of what was done last, so that a repeat whose first answer was lost does not do it twice.
    done: Arc<Mutex<VecDeque<(CommandId, &'static str)>>>,
}

/// Its routes.
pub(super) fn routes(operations: &Operations, cursors: &CursorKey) -> Router {
    Router::new()
        .route("/v1/projections", get(list))
        .route("/v1/projections/{name}", get(show))
        .route("/v1/projections/{name}/rebuild", post(rebuild))
        .route("/v1/projections/{name}/switch", post(switch))
        .route("/v1/projections/{name}/rollback", post(roll_back))
        .route("/v1/projections/{name}/discard", post(discard))
        .route("/v1/projections/{name}/check", get(checked).post(check))
        .route("/v1/projections/{name}/parked", get(parked))
        .route("/v1/projections/{name}/parked/{stream}/retry", post(retry))
        .route("/v1/projections/{name}/parked/{stream}/drop", post(drop_parked))
        .with_state(Desk { operations: operations.clone(), cursors: cursors.clone(), done: Arc::default() })
}

type Answer = Result<Response, Problem>;

async fn list(State(desk): State<Desk>, parts: Parts) -> Answer {
    read_request(&parts, &[APPLICATION_JSON])?;
    Query::of(&parts.uri).finish()?;
    let state = desk.operations.state(NAME).await.map_err(denied)?;
    Ok(Reply::json(StatusCode::OK, &json!({"items": [state], "next_cursor": null})).into_response())
}

async fn show(State(desk): State<Desk>, Path(name): Path<String>, parts: Parts) -> Answer {
    read_request(&parts, &[APPLICATION_JSON])?;
    Query::of(&parts.uri).finish()?;
    known(&name)?;
    desk.state(StatusCode::OK).await
}

async fn rebuild(State(desk): State<Desk>, Path(name): Path<String>, request: Request) -> Answer {
    let (id, _) = bare(request).await?;
    known(&name)?;
    let operations = desk.operations.clone();
    desk.once(id, "rebuild", StatusCode::ACCEPTED, async move { operations.rebuild().await.map(|_| ()) }).await
}

async fn switch(State(desk): State<Desk>, Path(name): Path<String>, request: Request) -> Answer {
    let (id, wait) = bare(request).await?;
    known(&name)?;
    let operations = desk.operations.clone();
    desk.once(id, "switch", StatusCode::OK, async move { operations.switch(wait).await.map(|_| ()) }).await
}

async fn roll_back(State(desk): State<Desk>, Path(name): Path<String>, request: Request) -> Answer {
    let (id, wait) = bare(request).await?;
    known(&name)?;
    let operations = desk.operations.clone();
    desk.once(id, "rollback", StatusCode::OK, async move { operations.roll_back(wait).await.map(|_| ()) }).await
}

async fn discard(State(desk): State<Desk>, Path(name): Path<String>, request: Request) -> Answer {
    let (id, _) = bare(request).await?;
    known(&name)?;
    let operations = desk.operations.clone();
    desk.once(id, "discard", StatusCode::OK, async move { operations.discard().await.map(|_| ()) }).await
}

async fn check(State(desk): State<Desk>, Path(name): Path<String>, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let request = command_request(&parts, body).await?;
    known(&name)?;
    let scope = scope(&request.body.root().to_value()).map_err(|mut errors| {
        errors.extend(request.parameters.clone());
        Problem::invalid_fields(errors)
    })?;
    if !request.parameters.is_empty() {
        return Err(Problem::invalid_fields(request.parameters));
    }
    let state = desk.operations.begin_check(scope).await.map_err(denied)?;
    Ok(Reply::json(StatusCode::ACCEPTED, &state).into_response())
}

async fn checked(State(desk): State<Desk>, Path(name): Path<String>, parts: Parts) -> Answer {
    read_request(&parts, &[APPLICATION_JSON])?;
    Query::of(&parts.uri).finish()?;
    known(&name)?;
    let none = || Problem::new(codes::CHECK_NOT_FOUND, "this node has checked no rows since it was started");
    let state = desk.operations.check_state().ok_or_else(none)?;
    Ok(Reply::json(StatusCode::OK, &state).into_response())
}

async fn parked(State(desk): State<Desk>, Path(name): Path<String>, parts: Parts) -> Answer {
    read_request(&parts, &[APPLICATION_JSON])?;
    let mut query = Query::of(&parts.uri);
    let (limit, cursor) = (query.limit() as usize, query.cursor());
    query.finish()?;
    known(&name)?;
    let after = cursor.map(|cursor| desk.cursors.open::<StreamName>("parked", &cursor)).transpose()?;
    let mut items = desk.operations.parked().await.map_err(denied)?;
    items.retain(|parked| parked.tenant == Tenant::default());
    items.retain(|parked| after.as_ref().is_none_or(|after| parked.stream > *after));
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|last| desk.cursors.seal("parked", &last.stream));
    Ok(Reply::json(StatusCode::OK, &json!({"items": items, "next_cursor": next})).into_response())
}

async fn retry(State(desk): State<Desk>, Path((name, stream)): Path<(String, String)>, request: Request) -> Answer {
    bare(request).await?;
    known(&name)?;
    let stream = stream_id(&stream)?;
    let (operations, retried) = (desk.operations.clone(), stream.clone());
    let parked = done(async move { operations.retry(&retried).await }).await?;
    Ok(Reply::json(StatusCode::OK, &json!({"stream": stream.name, "parked": parked})).into_response())
}

async fn drop_parked(
    State(desk): State<Desk>,
    Path((name, stream)): Path<(String, String)>,
    request: Request,
) -> Answer {
    let (parts, body) = request.into_parts();
    let request = bare_command_request(&parts, body).await?;
    only_empty(&request.body.root().to_value(), request.parameters)?;
    known(&name)?;
    let stream = stream_id(&stream)?;
    let dropped =
        Dropped { at: SystemClock.now(), by: request.provenance.actor.clone(), why: request.provenance.reason.clone() };
    let operations = desk.operations.clone();
    let parked = done(async move { operations.drop_parked(&stream, dropped).await }).await?;
    tracing::warn!(stream = %parked.stream, by = parked.dropped.as_ref().and_then(|it| it.by.as_deref()), "a parked stream is dropped");
    Ok(Reply::json(StatusCode::OK, &parked).into_response())
}

impl Desk {
    async fn state(&self, status: StatusCode) -> Answer {
        let state = self.operations.state(NAME).await.map_err(denied)?;
        Ok(Reply::json(status, &state).into_response())
    }

    /// Does it, unless it was done under this key, and tells how the projection stands.
    async fn once(
        &self,
        id: CommandId,
        verb: &'static str,
        status: StatusCode,
        work: impl Future<Output = Result<(), Denied>> + Send + 'static,
    ) -> Answer {
        let remembered = Arc::clone(&self.done);
        if !held(&remembered).contains(&(id, verb)) {
            done(async move {
                work.await?;
                let mut remembered = held(&remembered);
                remembered.push_back((id, verb));
                if remembered.len() > DONE_MAX {
                    remembered.pop_front();
                }
                Ok(())
            })
            .await?;
        }
        self.state(status).await
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request that says everything in its path; its key, and how long it waits.
async fn bare(request: Request) -> Result<(CommandId, Duration), Problem> {
    let (parts, body) = request.into_parts();
    let request = bare_command_request(&parts, body).await?;
    only_empty(&request.body.root().to_value(), request.parameters)?;
    Ok((request.id, request.wait.unwrap_or(SWITCH_WAIT_DEFAULT)))
}

fn only_empty(body: &Value, mut errors: Vec<FieldError>) -> Result<(), Problem> {
    match body.as_object() {
        None => errors.push(fault("", "wrong-type", "must be an object")),
        Some(fields) => {
            errors.extend(fields.keys().map(|name| fault(name, "unknown-field", "is not taken here")));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Problem::invalid_fields(errors)) }
}

/// What is to be checked.
fn scope(body: &Value) -> Result<Scope, Vec<FieldError>> {
    let Some(fields) = body.as_object() else { return Err(vec![fault("", "wrong-type", "must be an object")]) };
    let mut errors = Vec::new();
    let word = fields.get("scope").and_then(Value::as_str).unwrap_or_default();
    let (scope, taken) = match word {
        "stream" => {
            let stream = fields.get("stream").and_then(Value::as_str).and_then(|name| StreamName::new(name).ok());
            if stream.is_none() {
                errors.push(fault("stream", "malformed", "must be a stream's name"));
            }
            (stream.map(|name| Scope::Stream(StreamId { tenant: Tenant::default(), name })), "stream")
        }
        "sample" => {
            let count = fields.get("count").and_then(Value::as_u64).filter(|count| (1..=SAMPLE_MAX).contains(count));
            if count.is_none() {
                errors.push(fault("count", "out-of-range", "must be 1 to 1000"));
            }
            (count.map(|count| Scope::Sample(count as usize)), "count")
        }
        "whole" => (Some(Scope::Whole), ""),
        "beside" => (Some(Scope::Beside), ""),
        "rebuilt" => (Some(Scope::Rebuilt), ""),
        _ => {
            errors.push(fault("scope", "unknown-value", "must be stream, sample, whole, beside or rebuilt"));
            (None, "")
        }
    };
    let unknown = fields.keys().filter(|name| *name != "scope" && *name != taken);
    errors.extend(unknown.map(|name| fault(name, "unknown-field", "is not taken here")));
    match scope {
        Some(scope) if errors.is_empty() => Ok(scope),
        _ => Err(errors),
    }
}

fn fault(name: &str, code: &'static str, detail: &str) -> FieldError {
    let pointer = if name.is_empty() { String::new() } else { format!("/{name}") };
    FieldError { at: At::Pointer(pointer), code: code.into(), detail: detail.to_owned(), more: serde_json::Map::new() }
}

fn known(name: &str) -> Result<(), Problem> {
    if name == NAME {
        return Ok(());
    }
    Err(Problem::new(codes::PROJECTION_NOT_FOUND, format!("there is one projection, {NAME}")))
}

fn stream_id(stream: &str) -> Result<StreamId, Problem> {
    let name = StreamName::new(stream).map_err(|_| denied(Denied::NotParked))?;
    Ok(StreamId { tenant: Tenant::default(), name })
}

/// Does it in a task that nobody can end half-way.
async fn done<T: Send + 'static>(work: impl Future<Output = Result<T, Denied>> + Send + 'static) -> Result<T, Problem> {
    match tokio::spawn(work).await {
        Ok(done) => done.map_err(denied),
        Err(cut) => {
            tracing::error!(error = %cut, "an operation on a projection broke");
            Err(Problem::internal())
        }
    }
}

fn denied(why: Denied) -> Problem {
    match why {
        Denied::Busy(_) => Problem::new(codes::PROJECTION_BUSY, why.to_string()),
        Denied::Nothing(_) => Problem::new(codes::NOTHING_BESIDE, why.to_string()),
        Denied::NotReady { behind } => Problem::new(codes::REBUILD_NOT_READY, why.to_string()).with("behind", behind),
        Denied::NotParked => Problem::new(codes::STREAM_NOT_PARKED, why.to_string()),
        Denied::NotTried => Problem::new(codes::UNCONFIRMED, why.to_string()),
        Denied::Store(StoreFault::Unavailable(error)) => {
            tracing::debug!(error = %error, "the read store does not answer");
            Problem::new(codes::NOT_SERVING, "the read store does not answer")
        }
        Denied::Log(_) | Denied::NoRows | Denied::Store(_) | Denied::Projection(_) => {
            tracing::error!(error = &why as &dyn std::error::Error, "an operation on a projection failed");
            Problem::internal()
        }
    }
}
