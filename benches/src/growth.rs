//! Does it stay small and fast when there is much of it? One server takes order after order over HTTP, and at steps of their
//! number W1 is asked at a fixed rate: memory and answers must not grow with what is stored. Then a log of many GiB, made
//! in process with large records, is opened at steps of its size: how soon it serves, how much memory that takes, and how
//! long answers take then; in the end without its state store.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::child::Child;
use crate::generator::{Loop, Profile};
use crate::house::{House, bytes};
use crate::table::{Row, Table};
use crate::{Done, How};

/// What W1 is asked for at every step, per second: a load that two cores carry easily, so that times are those of the
/// program and not of a queue.
const RATE: u32 = 500;
/// Clients that place what is only to be there.
const FILLING: &str = "128";
/// Callers that make a log in process.
const CALLERS: u64 = 256;
/// Shares of all, in eighths, after which is measured.
const STEPS: [u64; 4] = [1, 2, 4, 8];
/// Bytes of the reason that each order of the large log carries: it lies in the record and in no state or row, so that the
/// log grows and the rest does not fill the disk.
const REASON_BYTES: usize = 16 << 10;
/// Bytes of such an order's record, about.
const RECORD_BYTES: u64 = REASON_BYTES as u64 + 800;

pub(crate) async fn measure(how: &How, table: &mut Table) -> Done<()> {
    tokio::task::block_in_place(|| orders(how, table))?;
    large_log(how, table).await
}

/// Many orders, one server.
fn orders(how: &How, table: &mut Table) -> Done<()> {
    let (scratch, orders) = (how.scratch()?, how.orders());
    let docket = Child::docket(how, scratch.path())?;
    step(how, &docket, "no orders before", table)?;
    let mut placed = 0;
    for share in STEPS {
        let until = orders * share / 8;
        fill(how, &docket, until - placed)?;
        placed = until;
        docket.caught_up()?;
        step(how, &docket, &format!("{} K orders before", placed / 1_000), table)?;
    }
    docket.stop()?;
    starts(how, scratch.path(), &format!("{} K orders", orders / 1_000), table)
}

/// Many bytes, a server at every step of them.
async fn large_log(how: &How, table: &mut Table) -> Done<()> {
    let (scratch, all) = (how.scratch()?, how.log_bytes());
    let reason: Arc<str> = "x".repeat(REASON_BYTES).into();
    let (mut last, mut placed) = (String::new(), 0);
    for share in STEPS {
        // At least one: whoever opens the log waits until its views have folded something.
        let missing = (all * share / 8 / RECORD_BYTES).saturating_sub(placed).max(1);
        placed += missing;
        eprintln!("  placing {missing} orders of {} KiB", REASON_BYTES >> 10);
        let house = House::open(scratch.path()).await?;
        house.place_because(CALLERS, &reason, move |number| number >= missing).await?;
        house.close().await?;
        last = format!("a log of {:.2} GiB", bytes(&scratch.path().join("log"))? as f64 / (1_u64 << 30) as f64);
        tokio::task::block_in_place(|| {
            let docket = Child::docket(how, scratch.path())?;
            table.push(start_row(format!("start, {last}"), &docket)?);
            docket.caught_up()?;
            step(how, &docket, &format!("{last}, its views just folded"), table)?;
            docket.stop()?;
            // Again, because folding views takes memory that serving does not.
            let docket = Child::docket(how, scratch.path())?;
            step(how, &docket, &last, table)?;
            docket.stop()
        })?;
    }
    tokio::task::block_in_place(|| starts(how, scratch.path(), &last, table))
}

/// One step: W1 at a fixed rate, and what memory there is afterwards.
fn step(how: &How, docket: &Child, what: &str, table: &mut Table) -> Done<()> {
    let found = docket.load(how, Profile::Place, Loop::Open { rate: RATE })?;
    table.push(found.row(format!("W1 at {RATE}/s, {what}")));
    let row = Row::new(format!("memory then, {what}"), docket.rss_mb()?, "MB");
    table.push(Row { rss_mb: Some(docket.peak_rss_mb()?), ..row });
    Ok(())
}

/// Starts with and without what is folded.
fn starts(how: &How, root: &Path, what: &str, table: &mut Table) -> Done<()> {
    let docket = Child::docket(how, root)?;
    let row = start_row(format!("start with state, {what}"), &docket)?;
    table.push(Row { target: "1 s; red line 2 s", ..row });
    docket.stop()?;
    std::fs::remove_dir_all(root.join("state"))?;
    let docket = Child::docket(how, root)?;
    table.push(start_row(format!("start without state store, {what}"), &docket)?);
    docket.stop()
}

fn start_row(what: String, docket: &Child) -> Done<Row> {
    Ok(Row { rss_mb: Some(docket.peak_rss_mb()?), ..Row::new(what, docket.ready_after.as_secs_f64(), "s") })
}

/// Places so many orders as fast as that goes.
fn fill(how: &How, docket: &Child, orders: u64) -> Done<()> {
    if orders == 0 {
        return Ok(());
    }
    eprintln!("  placing {orders} orders");
    let mut load = Command::new(how.load()?);
    load.args(["load", "--server", &format!("http://{}", docket.address()), "--profile", "place", "--skip-checks"]);
    load.args(["--clients", FILLING, "--count", &orders.to_string(), "--for", "6h"]);
    let status = load.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err("not all orders were placed".into()) }
}
