//! How fast does SQLite itself take rows? One table with nothing beside its key, a row per order with as many bytes as a
//! view's has, known beforehand: nothing is read from a log, folded, or written as JSON. As views that are folded afresh, it
//! writes without a journal and without flushing.

use std::time::Instant;

use rusqlite::Connection;
use uuid::Uuid;

use crate::{Done, How};

/// Rows that are inserted.
const ROWS: u64 = 200_000;
const ROWS_QUICK: u64 = 20_000;
/// Rows of a transaction.
const TOGETHER: u64 = 1_000;
/// Bytes of a row's document: an order of three lines.
const DOCUMENT_BYTES: usize = 900;

/// Rows a second.
pub(crate) fn rate(how: &How) -> Done<f64> {
    let (scratch, rows) = (how.scratch()?, if how.quick { ROWS_QUICK } else { ROWS });
    let database = Connection::open(scratch.path().join("floor.db"))?;
    database.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE;")?;
    database.execute_batch(
        "CREATE TABLE orders (key TEXT NOT NULL PRIMARY KEY, version INTEGER NOT NULL, doc TEXT NOT NULL)",
    )?;
    let document = "x".repeat(DOCUMENT_BYTES);
    let began = Instant::now();
    let mut insert = database.prepare("INSERT INTO orders (key, version, doc) VALUES (?1, 1, ?2)")?;
    for number in 0..rows {
        if number % TOGETHER == 0 {
            database.execute_batch(if number == 0 { "BEGIN" } else { "COMMIT; BEGIN" })?;
        }
        insert.execute((Uuid::now_v7().to_string(), &document))?;
    }
    database.execute_batch("COMMIT")?;
    Ok(rows as f64 / began.elapsed().as_secs_f64())
}
