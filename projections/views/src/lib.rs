//! The shop's read models as folds: one table per kind of resource, one row per stream, the resource's document as a GET
//! tells it. Nothing here waits; the `projections` workers and the read store do.

use engine::event::Recorded;
use engine::position::Version;
use engine::view::{Column, ColumnKind, Doc, Row, RowKey, Table, View};
use schemas::event::ShopEvent;
use schemas::id::Subject;
use schemas::resource::Fold;
use schemas::resource::order::Order;
use schemas::resource::payment::Payment;
use schemas::resource::reservation::Reservation;
use schemas::resource::saga::Saga;
use schemas::resource::stock::Stock;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Orders by id; found by customer and status, sorted by when they were placed (microseconds).
pub const ORDERS: Table =
    Table { name: "orders", columns: &[text("customer_id"), text("status"), integer("placed_at")] };
/// Stock by `<location>~<sku>`; found by location, sorted by SKU.
pub const STOCK: Table = Table { name: "stock", columns: &[text("location_id"), text("sku")] };
/// Reservations by `<location>~<id>`.
pub const RESERVATIONS: Table = Table { name: "reservations", columns: &[] };
/// Payments by id.
pub const PAYMENTS: Table = Table { name: "payments", columns: &[] };
/// Sagas by id; found by state and order, sorted by when they started (microseconds).
pub const SAGAS: Table = Table { name: "sagas", columns: &[text("state"), text("order_id"), integer("started_at")] };

const TABLES: &[Table] = &[ORDERS, STOCK, RESERVATIONS, PAYMENTS, SAGAS];

const fn text(name: &'static str) -> Column {
    Column { name, kind: ColumnKind::Text }
}

const fn integer(name: &'static str) -> Column {
    Column { name, kind: ColumnKind::Integer }
}

/// All tables of the shop.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShopView;

/// The row that shows a subject.
pub fn row_key(subject: &Subject) -> RowKey {
    match subject {
        Subject::Order(id) => RowKey { table: ORDERS.name, key: id.to_string() },
        Subject::Checkout(id) => RowKey { table: SAGAS.name, key: id.to_string() },
        Subject::Payment(id) => RowKey { table: PAYMENTS.name, key: id.to_string() },
        Subject::Stock(location, sku) => RowKey { table: STOCK.name, key: format!("{location}~{sku}") },
        Subject::Reservation(location, id) => RowKey { table: RESERVATIONS.name, key: format!("{location}~{id}") },
    }
}

impl View for ShopView {
    type Event = ShopEvent;

    fn tables(&self) -> &'static [Table] {
        TABLES
    }

    fn rows(&self, event: &Recorded<ShopEvent>) -> Vec<RowKey> {
        Subject::of(&event.meta.stream).as_ref().map(row_key).into_iter().collect()
    }

    fn begins(&self, _key: &RowKey, event: &Recorded<ShopEvent>) -> bool {
        // A row shows one stream.
        event.meta.version == Version(1)
    }

    fn evolve(&self, key: &RowKey, row: Option<Row>, event: &Recorded<ShopEvent>) -> Option<Row> {
        let doc = row.map(|row| row.doc);
        match key.table {
            table if table == ORDERS.name => fold(doc, event, |order: &Order| {
                let status = serde_json::to_value(order.status).unwrap_or_default();
                (order.version, vec![order.customer_id.as_str().into(), status, order.placed_at.0.into()])
            }),
            table if table == STOCK.name => fold(doc, event, |stock: &Stock| {
                (stock.version, vec![stock.location_id.as_str().into(), stock.sku.as_str().into()])
            }),
            table if table == RESERVATIONS.name => {
                fold(doc, event, |reservation: &Reservation| (reservation.version, Vec::new()))
            }
            table if table == PAYMENTS.name => fold(doc, event, |payment: &Payment| (payment.version, Vec::new())),
            table if table == SAGAS.name => fold(doc, event, |saga: &Saga| {
                let state = serde_json::to_value(saga.state).unwrap_or_default();
                (saga.version, vec![state, saga.order_id.to_string().into(), saga.started_at.0.into()])
            }),
            _ => None,
        }
    }
}

/// One event onto a document. `shown` gives the version and the table's columns.
///
/// # Panics
/// If the document is not of this resource: the row was written by another program, and the projection parks its key.
fn fold<R: Fold + Serialize + DeserializeOwned>(
    doc: Option<Doc>,
    event: &Recorded<ShopEvent>,
    shown: impl FnOnce(&R) -> (u64, Vec<Value>),
) -> Option<Row> {
    let before = doc.map(|doc| doc.read().expect("a row holds the document its view wrote"));
    let after = R::evolve(before, &event.event, &event.meta)?;
    let (version, columns) = shown(&after);
    Some(Row { version, doc: Doc::of(&after), columns })
}
