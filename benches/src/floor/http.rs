//! How fast is the least that could take orders over HTTP? Parses the body, looks the idempotency key up in a set, makes
//! 700 bytes durable with the group they fall into, in a file or in a topic, answers 201 with a small body. It runs as a
//! process of its own under the same load generator as the product.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::serve::ListenerExt;
use parking_lot::Mutex;
use serde::Deserialize;
use uuid::Uuid;

use super::log::{GroupFile, RECORD_BYTES};
use super::topic::Topic;
use crate::child::Child;
use crate::generator::{Loop, Profile};
use crate::table::Table;
use crate::{Done, How};

/// What makes a record durable.
enum Durable {
    File(GroupFile),
    Topic(Topic),
}

struct Floor {
    log: Durable,
    keys: Mutex<HashSet<Uuid>>,
}

/// What is read of an order: enough to know that it is one.
#[derive(Deserialize)]
struct Order<'a> {
    order_id: Uuid,
    customer_id: &'a str,
    lines: Vec<Line<'a>>,
}

#[derive(Deserialize)]
struct Line<'a> {
    sku: &'a str,
    quantity: u32,
    unit_price: Price,
}

#[derive(Deserialize)]
struct Price {
    amount: u64,
}

/// Serves until it is killed, on a file.
pub(crate) async fn serve(listen: SocketAddr, directory: &Path) -> Done<()> {
    serve_on(listen, Durable::File(GroupFile::start(directory)?)).await
}

/// Serves until it is killed, on a topic.
pub(crate) async fn serve_topic(listen: SocketAddr, brokers: &str, topic: &str) -> Done<()> {
    serve_on(listen, Durable::Topic(Topic::start(brokers, topic)?)).await
}

async fn serve_on(listen: SocketAddr, log: Durable) -> Done<()> {
    let floor = Floor { log, keys: Mutex::default() };
    let routes = Router::new()
        .route("/v1/orders", post(place))
        // The generator brings stock before it begins.
        .route("/v1/stock/{location}/{sku}", put(|| async { StatusCode::OK }))
        .route("/readyz", get(|| async { StatusCode::OK }))
        .with_state(Arc::new(floor));
    let listener = tokio::net::TcpListener::bind(listen).await?.tap_io(|stream| {
        // Small answers must not wait for more.
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, routes).await?;
    Ok(())
}

async fn place(State(floor): State<Arc<Floor>>, headers: HeaderMap, body: Bytes) -> Response {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).and_then(|key| key.parse::<Uuid>().ok());
    let (Some(key), Ok(order)) = (key, serde_json::from_slice::<Order<'_>>(&body)) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let total = order.lines.iter().map(|line| u64::from(line.quantity) * line.unit_price.amount).sum::<u64>();
    if order.customer_id.is_empty() || order.lines.iter().any(|line| line.sku.is_empty()) {
        return StatusCode::UNPROCESSABLE_ENTITY.into_response();
    }
    if !floor.keys.lock().insert(key) {
        return StatusCode::CONFLICT.into_response();
    }
    let mut record = Vec::with_capacity(RECORD_BYTES);
    record.extend_from_slice(&body);
    record.resize(RECORD_BYTES, 0);
    let durable = match &floor.log {
        Durable::File(file) => file.append(Bytes::from(record)).await.is_ok(),
        Durable::Topic(topic) => topic.append(key, &record).await,
    };
    if !durable {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let answer = format!(r#"{{"order_id":"{}","total":{total},"status":"placed"}}"#, order.order_id);
    (StatusCode::CREATED, [(header::CONTENT_TYPE, "application/json")], answer).into_response()
}

/// Starts it in a process of its own.
pub(crate) fn start(how: &How) -> Done<Child> {
    let scratch = how.scratch()?;
    Child::floor(scratch)
}

pub(crate) fn measure(how: &How, table: &mut Table) -> Done<()> {
    let floor = start(how)?;
    for clients in crate::w1_http::CLIENTS {
        let found = floor.load(how, Profile::Place, Loop::Closed { clients })?;
        table.push(found.row(format!("minimal handler, {clients} clients")));
    }
    Ok(())
}
