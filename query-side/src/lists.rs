//! Lists of orders, of a location's stock and of sagas. A page ends with a signed cursor that carries the place of its last
//! row and the list's filters, so that what was there and keeps matching appears exactly once.

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chassis::body::{APPLICATION_JSON, ReadRequest, read_request};
use chassis::problem::Problem;
use chassis::query::Query;
use chassis::respond::Reply;
use engine::position::Positions;
use engine::read_store::{Filter, Query as RowQuery};
use engine::saga::Reactor;
use engine::view::{Doc, Row};
use http::StatusCode;
use http::request::Parts;
use schemas::event::ShopEvent;
use schemas::id::is_name;
use schemas::resource::order::OrderStatus;
use schemas::resource::saga::SagaState;
use serde::Serialize;
use serde_json::Value;
use views::{ORDERS, SAGAS, STOCK};

use crate::QuerySide;
use crate::resources::unavailable;

pub(crate) fn routes<R: Reactor<Event = ShopEvent>>(side: &QuerySide<R>) -> Router {
    Router::new()
        .route("/v1/orders", get(orders::<R>))
        .route("/v1/stock/{location}", get(stock::<R>))
        .route("/v1/sagas", get(sagas::<R>))
        .with_state(side.clone())
}

type Answer = Result<Response, Problem>;

/// One page's answer.
#[derive(Serialize)]
struct Listed<'a> {
    items: Vec<&'a Doc>,
    next_cursor: Option<String>,
}

/// One page's question.
struct Page {
    rows: RowQuery,
    /// Names the list and its filters: a cursor of one is none of another.
    scope: String,
    cursor: Option<String>,
}

async fn orders<R: Reactor<Event = ShopEvent>>(State(side): State<QuerySide<R>>, parts: Parts) -> Answer {
    let read = read_request(&parts, &[APPLICATION_JSON])?;
    let mut query = Query::of(&parts.uri);
    let mut filters = Vec::new();
    if let Some(customer) = query.text("customer_id") {
        if !is_name(&customer) {
            query.fault("customer_id", "malformed", "is not 1 to 64 of A–Z, a–z, 0–9, dot, underscore and dash");
        }
        filters.push(Filter::Is("customer_id", customer.into()));
    }
    let words: Vec<(&str, &str)> = OrderStatus::ALL.iter().map(|(word, _)| (*word, *word)).collect();
    if let Some(status) = query.one_of("status", &words) {
        filters.push(Filter::Is("status", status.into()));
    }
    if let Some(after) = query.time("placed_after") {
        filters.push(Filter::AtLeast("placed_at", after.0.saturating_add(1).into()));
    }
    if let Some(before) = query.time("placed_before") {
        filters.push(Filter::Below("placed_at", before.0.into()));
    }
    let page = page("orders", ORDERS.name, filters, Some("placed_at"), true, &mut query);
    query.finish()?;
    side.list(page, &read).await
}

async fn stock<R: Reactor<Event = ShopEvent>>(
    State(side): State<QuerySide<R>>,
    Path(location): Path<String>,
    parts: Parts,
) -> Answer {
    let read = read_request(&parts, &[APPLICATION_JSON])?;
    let mut query = Query::of(&parts.uri);
    let scope = format!("stock {location}");
    let page =
        page(&scope, STOCK.name, vec![Filter::Is("location_id", location.into())], Some("sku"), false, &mut query);
    query.finish()?;
    side.list(page, &read).await
}

async fn sagas<R: Reactor<Event = ShopEvent>>(State(side): State<QuerySide<R>>, parts: Parts) -> Answer {
    let read = read_request(&parts, &[APPLICATION_JSON])?;
    let mut query = Query::of(&parts.uri);
    let mut filters = Vec::new();
    let words = SagaState::ALL.map(|(word, _)| (word, word));
    if let Some(states) = query.some_of("state", &words) {
        filters.push(Filter::OneOf("state", states.into_iter().map(Value::from).collect()));
    }
    if let Some(order) = query.uuid("order_id") {
        filters.push(Filter::Is("order_id", order.to_string().into()));
    }
    let page = page("sagas", SAGAS.name, filters, Some("started_at"), true, &mut query);
    query.finish()?;
    side.list(page, &read).await
}

fn page(
    name: &str,
    table: &'static str,
    filters: Vec<Filter>,
    sort: Option<&'static str>,
    descending: bool,
    query: &mut Query<'_>,
) -> Page {
    let limit = query.limit();
    let cursor = query.cursor();
    let scope = format!("{name} {filters:?}");
    Page { rows: RowQuery { table, filters, sort, descending, after: None, limit }, scope, cursor }
}

impl<R: Reactor<Event = ShopEvent>> QuerySide<R> {
    async fn list(&self, mut page: Page, read: &ReadRequest) -> Answer {
        if let Some(cursor) = &page.cursor {
            page.rows.after = Some(self.cursors.open::<(Value, String)>(&page.scope, cursor)?);
        }
        let least = read.min_position.clone().unwrap_or_default();
        self.reached(&least, read.wait).await?;
        let limit = page.rows.limit as usize;
        let sort = page.rows.sort;
        // One more than asked for: whether there is a next page is known without asking again.
        page.rows.limit += 1;
        let table = page.rows.table;
        let found = self.store.list_with_checkpoints(page.rows).await.map_err(|fault| unavailable(&fault))?;
        self.reflects(&found.checkpoints, &least)?;
        let mut positions = Positions::default();
        for (&partition, checkpoint) in &found.checkpoints {
            positions.reach_all(&crate::resources::reflected(partition, checkpoint.next_offset));
        }
        let mut rows: Vec<(String, Row)> = found.found;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = match rows.last() {
            Some((key, row)) if more => {
                let place = sort.map_or(Value::Null, |column| column_of(table, row, column));
                Some(self.cursors.seal(&page.scope, &(place, key)))
            }
            _ => None,
        };
        let items: Vec<&Doc> = rows.iter().map(|(_, row)| &row.doc).collect();
        let body = Listed { items, next_cursor };
        Ok(Reply::json(StatusCode::OK, &body).positions(&positions).into_response())
    }
}

/// The value of a column in a row.
fn column_of(table: &str, row: &Row, column: &str) -> Value {
    let columns =
        [ORDERS, STOCK, SAGAS].into_iter().find(|known| known.name == table).map_or(&[][..], |known| known.columns);
    let place = columns.iter().position(|known| known.name == column);
    place.and_then(|place| row.columns.get(place)).cloned().unwrap_or_default()
}
