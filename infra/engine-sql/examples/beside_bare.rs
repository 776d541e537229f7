//! How fast does a read store in PostgreSQL take new rows, and what would bare statements take? The same rows of an order of
//! three lines, in batches of 2,000, one connection, in one run: through the store (checkpoint, notification and all), not told and told that they are new;
//! `INSERT … SELECT FROM UNNEST … ON CONFLICT`; `COPY` into the table itself; `COPY` into a temporary table and from
//! there `INSERT … SELECT … ON CONFLICT`. Each with the indexes there from the beginning, and without any. Needs
//! PostgreSQL's server programs; starts a server of its own.
//!
//! `cargo run --release -p engine-sql --example beside_bare [rows]`

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on says why and ends")]

use std::time::{Duration, Instant};

use engine::position::{Checkpoint, LogId, Offset, Partition};
use engine::read_store::{Batch, ReadStore};
use engine::view::{Column, ColumnKind, Doc, Row, RowKey, Table};
use engine_sql::{Index, Options, SqlReadStore};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

const TABLES: &[Table] = &[Table {
    name: "orders",
    columns: &[
        Column { name: "customer_id", kind: ColumnKind::Text },
        Column { name: "status", kind: ColumnKind::Text },
        Column { name: "placed_at", kind: ColumnKind::Integer },
    ],
}];
const INDEXES: &[Index] = &[
    Index { table: "orders", columns: &["placed_at"] },
    Index { table: "orders", columns: &["customer_id", "placed_at"] },
    Index { table: "orders", columns: &["status", "placed_at"] },
];
const BATCH_ROWS: usize = 2_000;

/// In order of time, as ids of version 7 are.
fn key(number: usize) -> String {
    let dice = (number as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) >> 64;
    Uuid::from_u128((number as u128) << 80 | dice).to_string()
}

/// An order of three lines: some 700 bytes.
fn row(number: usize) -> Row {
    let line = |n: u64| json!({ "sku": format!("beans-{n}kg"), "quantity": n, "unit_price": { "amount": 1_999, "currency": "EUR" }, "reserved": true });
    let doc = json!({
        "id": key(number), "version": 1, "status": "confirmed", "customer_id": format!("customer-{}", number % 500),
        "lines": [line(1), line(2), line(3)], "total": { "amount": 11_994, "currency": "EUR" },
        "placed_at": "2026-11-21T13:26:43.123456Z", "updated_at": "2026-11-21T13:26:43.423456Z",
        "payment": { "id": key(number + 1), "status": "captured" }, "location_id": "shop-1",
    });
    let columns = vec![json!(format!("customer-{}", number % 500)), json!("confirmed"), json!(number)];
    Row { version: 1, doc: Doc::of(&doc), columns }
}

/// What the process, or the process and its children, have had of processors. On a busy machine it says more than a clock.
fn cpu_ms(with_children: bool, pid: u32) -> f64 {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let stats = processes.filter_map(|process| {
        let stat = std::fs::read_to_string(process.path().join("stat")).ok()?;
        let (own, rest) = (stat.split(' ').next()?.parse::<u32>().ok()?, stat.rsplit(')').next()?);
        let fields = rest.split_whitespace().collect::<Vec<_>>();
        let time = |at: usize| fields.get(at).and_then(|time| time.parse::<f64>().ok()).unwrap_or(0.0);
        // A process with what its ended children had; a child that lives.
        let own = (own == pid).then(|| time(11) + time(12) + time(13) + time(14));
        let child = || (with_children && time(1) == f64::from(pid)).then(|| time(11) + time(12));
        own.or_else(child)
    });
    // A hundred ticks to a second.
    stats.sum::<f64>() * 10.0
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Store,
    StoreNew,
    Upsert,
    Copy,
    Staged,
}

#[tokio::main]
async fn main() {
    let rows = std::env::args().nth(1).map_or(100_000, |rows| rows.parse().unwrap());
    let postgres = xtask::postgres::Postgres::start();
    let server_pid = u32::try_from(postgres.process().unwrap().pid).unwrap();
    for indexed in [true, false] {
        for how in [How::Upsert, How::Store, How::Copy, How::StoreNew, How::Staged, How::Upsert] {
            let url = postgres.new_database();
            let (server, ours) = (cpu_ms(true, server_pid), cpu_ms(false, std::process::id()));
            let took = match how {
                How::Store | How::StoreNew => through_the_store(&url, rows, indexed, how == How::StoreNew).await,
                how => bare(&url, rows, indexed, how).await,
            };
            let indexes = if indexed { "with indexes" } else { "without indexes" };
            let server_took = cpu_ms(true, server_pid) - server;
            let ours_took = cpu_ms(false, std::process::id()) - ours;
            println!(
                "{:>8} {indexes:<16} {:>9.0} rows/s, of processors {:>5.1} us/row there, {:>5.1} us/row here",
                format!("{how:?}"),
                rows as f64 / took.as_secs_f64(),
                server_took * 1e3 / rows as f64,
                ours_took * 1e3 / rows as f64,
            );
        }
    }
}

async fn through_the_store(url: &str, rows: usize, indexed: bool, new: bool) -> Duration {
    let store = SqlReadStore::open(url, TABLES, Options { indexes: INDEXES, ..Options::default() }).await.unwrap();
    store.open(LogId(Uuid::from_u128(1))).await.unwrap();
    if !indexed {
        drop_indexes(url).await;
    }
    let mut was = None;
    let mut took = Duration::ZERO;
    for first in (0..rows).step_by(BATCH_ROWS) {
        let numbers = first..rows.min(first + BATCH_ROWS);
        let next = Checkpoint { next_offset: Offset(numbers.end as u64), ..Checkpoint::default() };
        let rows = numbers.map(|n| (RowKey { table: "orders", key: key(n) }, Some(row(n)))).collect();
        let batch = Batch { new: if new { usize::MAX } else { 0 }, rows, checkpoints: vec![(Partition(0), was, next)] };
        was = Some(next);
        let began = Instant::now();
        store.commit(batch).await.unwrap();
        took += began.elapsed();
    }
    took
}

async fn drop_indexes(url: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    for index in INDEXES {
        let drop = format!("DROP INDEX IF EXISTS docket.orders__{}", index.columns.join("__"));
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut connection).await.unwrap();
    }
}

async fn bare(url: &str, rows: usize, indexed: bool, how: How) -> Duration {
    let options = Options { indexes: INDEXES, ..Options::default() };
    SqlReadStore::open(url, TABLES, options).await.unwrap().close().await;
    if !indexed {
        drop_indexes(url).await;
    }
    let mut connection = PgConnection::connect(url).await.unwrap();
    let settings = "SET search_path TO docket; SET jit = off; \
        CREATE TEMPORARY TABLE staged (LIKE orders) ON COMMIT DELETE ROWS";
    sqlx::raw_sql(settings).execute(&mut connection).await.unwrap();
    let conflict = "ON CONFLICT (key) DO UPDATE SET version = excluded.version, doc = excluded.doc, \
         customer_id = excluded.customer_id, status = excluded.status, placed_at = excluded.placed_at";
    let upsert = format!(
        "INSERT INTO orders SELECT k, v, d::json, a, b, c FROM UNNEST($1::text[], $2::bigint[], $3::text[], $4::text[], \
         $5::text[], $6::bigint[]) AS g (k, v, d, a, b, c) {conflict}"
    );
    let staged = format!("INSERT INTO orders SELECT * FROM staged {conflict}");
    let mut took = Duration::ZERO;
    for first in (0..rows).step_by(BATCH_ROWS) {
        let batch = (first..rows.min(first + BATCH_ROWS)).map(|n| (key(n), row(n))).collect::<Vec<_>>();
        let text = |row: &Row, n: usize| row.columns[n].as_str().unwrap().to_owned();
        let began = Instant::now();
        let mut transaction = connection.begin().await.unwrap();
        match how {
            How::Copy | How::Staged => {
                let table = if how == How::Copy { "orders" } else { "staged" };
                let mut data = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
                let field = |data: &mut Vec<u8>, bytes: &[u8]| {
                    data.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
                    data.extend_from_slice(bytes);
                };
                for (key, row) in &batch {
                    data.extend_from_slice(&6_i16.to_be_bytes());
                    field(&mut data, key.as_bytes());
                    field(&mut data, &row.version.to_be_bytes());
                    field(&mut data, row.doc.text().as_bytes());
                    field(&mut data, row.columns[0].as_str().unwrap().as_bytes());
                    field(&mut data, row.columns[1].as_str().unwrap().as_bytes());
                    field(&mut data, &row.columns[2].as_i64().unwrap().to_be_bytes());
                }
                data.extend_from_slice(&(-1_i16).to_be_bytes());
                let statement = format!("COPY {table} FROM STDIN (FORMAT binary)");
                let mut copy = transaction.copy_in_raw(&statement).await.unwrap();
                copy.send(data).await.unwrap();
                copy.finish().await.unwrap();
                if how == How::Staged {
                    sqlx::query(AssertSqlSafe(staged.clone())).execute(&mut *transaction).await.unwrap();
                }
            }
            How::Upsert | How::Store | How::StoreNew => {
                sqlx::query(AssertSqlSafe(upsert.clone()))
                    .bind(batch.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>())
                    .bind(batch.iter().map(|(_, row)| row.version as i64).collect::<Vec<_>>())
                    .bind(batch.iter().map(|(_, row)| row.doc.text().to_owned()).collect::<Vec<_>>())
                    .bind(batch.iter().map(|(_, row)| text(row, 0)).collect::<Vec<_>>())
                    .bind(batch.iter().map(|(_, row)| text(row, 1)).collect::<Vec<_>>())
                    .bind(batch.iter().map(|(_, row)| row.columns[2].as_i64().unwrap()).collect::<Vec<_>>())
                    .execute(&mut *transaction)
                    .await
                    .unwrap();
            }
        }
        transaction.commit().await.unwrap();
        took += began.elapsed();
    }
    took
}
