//! How fast does a read store in PostgreSQL commit? Against the same rows in bare statements, on the same connection count,
//! in one run: the store, one `INSERT … SELECT FROM UNNEST … ON CONFLICT` in a transaction with a checkpoint, the same
//! without `ON CONFLICT`, and `COPY` into an empty table. Needs PostgreSQL's server programs; starts one of its own.
//!
//! `cargo run --release -p engine-sql --example postgres_speed`

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on says why and ends")]

use std::time::Instant;

use engine::position::{Checkpoint, LogId, Offset, Partition};
use engine::read_store::{Batch, ReadStore};
use engine::view::{Column, ColumnKind, Doc, Row, RowKey, Table};
use engine_sql::{Options, SqlReadStore};
use serde_json::json;
use sqlx::postgres::PgPoolCopyExt as _;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

const TABLES: &[Table] = &[Table {
    name: "orders",
    columns: &[
        Column { name: "customer_id", kind: ColumnKind::Text },
        Column { name: "status", kind: ColumnKind::Text },
        Column { name: "placed_at", kind: ColumnKind::Integer },
    ],
}];
/// Rows written with each size.
const ROWS: usize = 40_000;
/// Keys they are written to.
const KEYS: u64 = 20_000;

fn key(number: u64) -> String {
    Uuid::from_u128(u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)).to_string()
}

/// An order of three lines: some 700 bytes.
fn row(number: u64, version: u64) -> Row {
    let line = |n: u64| json!({ "sku": format!("beans-{n}kg"), "quantity": n, "unit_price": { "amount": 1_999, "currency": "EUR" }, "reserved": true });
    let doc = json!({
        "id": key(number), "version": version, "status": "confirmed", "customer_id": format!("customer-{}", number % 500),
        "lines": [line(1), line(2), line(3)], "total": { "amount": 11_994, "currency": "EUR" },
        "placed_at": "2026-11-21T13:26:43.123456Z", "updated_at": "2026-11-21T13:26:43.423456Z",
        "payment": { "id": key(number + 1), "status": "captured" }, "location_id": "shop-1",
    });
    let columns = vec![json!(format!("customer-{}", number % 500)), json!("confirmed"), json!(number)];
    Row { version, doc: Doc::of(&doc), columns }
}

fn shuffled(number: u64) -> u64 {
    number.wrapping_mul(7_919) % KEYS
}

#[tokio::main]
async fn main() {
    let postgres = xtask::postgres::Postgres::start();
    println!("{:>6} {:>16} {:>16} {:>16} {:>16}", "batch", "store", "bare upsert", "bare insert", "bare copy");
    for size in [100, 1_000, 5_000] {
        let store = through_the_store(&postgres.new_database(), size).await;
        let upsert = bare(&postgres.new_database(), size, How::Upsert).await;
        let insert = bare(&postgres.new_database(), size, How::Insert).await;
        let copy = bare(&postgres.new_database(), size, How::Copy).await;
        println!("{size:>6} {store:>12.0} r/s {upsert:>12.0} r/s {insert:>12.0} r/s {copy:>12.0} r/s");
    }
}

async fn through_the_store(url: &str, size: usize) -> f64 {
    let store = SqlReadStore::open(url, TABLES, Options::default()).await.unwrap();
    store.open(LogId(Uuid::from_u128(1))).await.unwrap();
    let mut was = None;
    let mut took = std::time::Duration::ZERO;
    for batch in 0..ROWS / size {
        let numbers = (batch * size..(batch + 1) * size).map(|n| shuffled(n as u64));
        let rows = numbers.map(|n| (RowKey { table: "orders", key: key(n) }, Some(row(n, batch as u64 + 1)))).collect();
        let next = Checkpoint { next_offset: Offset((batch + 1) as u64), ..Checkpoint::default() };
        let batch = Batch { rows, checkpoints: vec![(Partition(0), was, next)] };
        was = Some(next);
        let began = Instant::now();
        store.commit(batch).await.unwrap();
        took += began.elapsed();
    }
    ROWS as f64 / took.as_secs_f64()
}

#[derive(Clone, Copy, PartialEq)]
enum How {
    Upsert,
    Insert,
    Copy,
}

async fn bare(url: &str, size: usize, how: How) -> f64 {
    let store = SqlReadStore::open(url, TABLES, Options::default()).await.unwrap();
    store.close().await;
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql("SET search_path TO docket; INSERT INTO checkpoints VALUES (0, 0, 0, 0, 0, 0)")
        .execute(&mut connection)
        .await
        .unwrap();
    let pool = sqlx::PgPool::connect(url).await.unwrap();
    let mut took = std::time::Duration::ZERO;
    let insert = "INSERT INTO orders SELECT k, v, d::json, a, b, c FROM \
        UNNEST($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::bigint[]) AS g (k, v, d, a, b, c)";
    let upsert = format!(
        "{insert} ON CONFLICT (key) DO UPDATE SET version = excluded.version, doc = excluded.doc, \
         customer_id = excluded.customer_id, status = excluded.status, placed_at = excluded.placed_at"
    );
    for batch in 0..ROWS / size {
        let numbers = (batch * size..(batch + 1) * size).map(|n| n as u64);
        // Only an upsert can write a key twice.
        let numbers = numbers.map(|n| if how == How::Upsert { shuffled(n) } else { n });
        let mut rows = numbers.map(|n| (key(n), row(n, 1))).collect::<Vec<_>>();
        rows.sort_by(|one, other| one.0.cmp(&other.0));
        let text = |row: &Row, n: usize| row.columns[n].as_str().unwrap().to_owned();
        let began = Instant::now();
        if how == How::Copy {
            let mut lines = String::new();
            for (key, row) in &rows {
                let doc = row.doc.text().replace('\\', "\\\\");
                let (a, b, c) = (text(row, 0), text(row, 1), row.columns[2].as_i64().unwrap());
                lines.push_str(&format!("{key}\t{}\t{doc}\t{a}\t{b}\t{c}\n", row.version));
            }
            let mut copy = pool.copy_in_raw("COPY docket.orders FROM STDIN").await.unwrap();
            copy.send(lines.into_bytes()).await.unwrap();
            copy.finish().await.unwrap();
        } else {
            let mut transaction = connection.begin().await.unwrap();
            sqlx::query(
                "UPDATE checkpoints SET next_offset = next_offset + 1 WHERE partition = 0 AND next_offset = $1",
            )
            .bind(batch as i64)
            .execute(&mut *transaction)
            .await
            .unwrap();
            let statement = if how == How::Upsert { upsert.clone() } else { insert.to_owned() };
            sqlx::query(sqlx::AssertSqlSafe(statement))
                .bind(rows.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>())
                .bind(rows.iter().map(|(_, row)| row.version as i64).collect::<Vec<_>>())
                .bind(rows.iter().map(|(_, row)| row.doc.text().to_owned()).collect::<Vec<_>>())
                .bind(rows.iter().map(|(_, row)| text(row, 0)).collect::<Vec<_>>())
                .bind(rows.iter().map(|(_, row)| text(row, 1)).collect::<Vec<_>>())
                .bind(rows.iter().map(|(_, row)| row.columns[2].as_i64().unwrap()).collect::<Vec<_>>())
                .execute(&mut *transaction)
                .await
                .unwrap();
            transaction.commit().await.unwrap();
        }
        took += began.elapsed();
    }
    ROWS as f64 / took.as_secs_f64()
}
