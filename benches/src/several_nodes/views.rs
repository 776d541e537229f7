//! W4 on PostgreSQL: how fast are views folded afresh, and how soon does a read see what was just accepted, while 500 orders
//! a second come in?

use std::time::{Duration, Instant};

use super::shelves::Shelves;
use crate::generator::{self, Loop, Profile};
use crate::ground::{Ground, Nodes};
use crate::table::{Row, Table};
use crate::visible::{self, wait_seen};
use crate::{Done, How};

/// Events that a process has brought into views.
const EVENTS: &str = "docket_projection_events_total";
/// A read that takes a row.
const ANY_ORDER: &str = "/v1/orders?limit=1";
/// Orders in the log whose views are folded afresh.
const ORDERS: u64 = 200_000;
const ORDERS_QUICK: u64 = 5_000;
/// Orders a second meanwhile.
const RATE: u32 = 500;
/// How often it is looked for the first rows.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long until the first are there.
const BEGUN_WITHIN: Duration = Duration::from_secs(60);

pub(super) fn measure(how: &How, ground: &Ground, table: &mut Table) -> Done<()> {
    let mut nodes = Nodes::start(how, ground, 1)?;
    let shelves = Shelves::find(&nodes)?;
    fill(how, &nodes, if how.quick { ORDERS_QUICK } else { ORDERS })?;
    let (ends, events) = seen_all(&nodes, &shelves)?;
    table.push(fold_afresh(&mut nodes, &ends, events)?);
    table.push(lag(how, &nodes, &shelves)?);
    // Its process has seen the whole log by now: it counts all there is.
    let (_, events) = seen_all(&nodes, &shelves)?;
    nodes.join(3)?;
    shelves.wait_shared(&nodes)?;
    // Fetching the log is another question.
    while nodes.metric("docket_log_follow_lag_records") > 0.0 {
        std::thread::sleep(LOOK_EVERY);
    }
    let ends = shelves.ends(&nodes)?;
    table.push(fold_afresh(&mut nodes, &ends, events)?);
    shelves.wait_shared(&nodes)?;
    table.push(lag(how, &nodes, &shelves)?);
    Ok(())
}

/// Waits until views show all there is; where that is, and how many events.
fn seen_all(nodes: &Nodes<'_>, shelves: &Shelves) -> Done<(String, f64)> {
    let ends = shelves.ends(nodes)?;
    wait_seen(nodes.addresses()[0], ANY_ORDER, &ends)?;
    Ok((ends, nodes.metric(EVENTS)))
}

/// Places so many orders.
fn fill(how: &How, nodes: &Nodes<'_>, orders: u64) -> Done<()> {
    let servers = nodes.addresses().iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut command = generator::command(how, &servers, Profile::Place, Loop::Closed { clients: 128 }, "1h")?;
    let output = command.args(["--count", &orders.to_string()]).output()?;
    if output.status.success() { Ok(()) } else { Err("the log was not filled".into()) }
}

/// Starts all of them again on an empty database, and times how long it takes until they show what they showed before, from
/// the moment when the first rows are there.
fn fold_afresh(nodes: &mut Nodes<'_>, ends: &str, events: f64) -> Done<Row> {
    nodes.stop()?;
    nodes.rows_anew();
    let before = nodes.cost()?;
    let launched = Instant::now();
    nodes.launch()?;
    let mut there = 0.0;
    while there == 0.0 {
        if launched.elapsed() > BEGUN_WITHIN {
            return Err("no view is folded".into());
        }
        std::thread::sleep(LOOK_EVERY);
        there = nodes.metric(EVENTS);
    }
    let begun = Instant::now();
    nodes.start_dead()?;
    wait_seen(nodes.addresses()[0], ANY_ORDER, ends)?;
    // So few that they were there at the first look: then all of it counts.
    let (events, took) =
        if there > events / 2.0 { (events, launched.elapsed()) } else { (events - there, begun.elapsed()) };
    let after = nodes.cost()?;
    let per_1000 = 1000.0 / events;
    let beside = after.beside.iter().zip(&before.beside);
    Ok(Row {
        rss_mb: Some(after.rss_mb),
        cpu_s_per_1000: Some(after.cpu_s * per_1000),
        beside: beside.map(|((whose, after), (_, before))| (*whose, (after - before) * per_1000)).collect(),
        target: "100,000/s",
        ..Row::new(
            format!("W4 views folded afresh into PostgreSQL, {}", nodes.told()),
            events / took.as_secs_f64(),
            "events/s",
        )
    })
}

/// How long after a command is sent a read shows it, asked of the next node.
fn lag(how: &How, nodes: &Nodes<'_>, shelves: &Shelves) -> Done<Row> {
    let lasting = Duration::from_secs(u64::from(how.seconds()));
    let load = nodes.load_beside(how, Profile::Place, Loop::Open { rate: RATE }, "1h")?;
    std::thread::sleep(lasting / 4);
    let shelves = shelves.all().map(|(_, shelf)| shelf).collect::<Vec<_>>();
    let times = visible::times(&nodes.addresses(), &shelves, lasting)?;
    drop(load);
    Ok(Row {
        p50_ms: Some(times.at(0.5)),
        p99_ms: Some(times.at(0.99)),
        target: "p99 10 ms",
        ..Row::new(format!("W4 submit to visible at {RATE}/s, {}", nodes.told()), times.at(0.5), "ms (p50)")
    })
}
