//! W4: how fast are views folded afresh from a long log, beside SQLite alone; and how soon does a read see what was just
//! accepted, while orders come in?

use std::time::{Duration, Instant};

use crate::child::Child;
use crate::generator::Loop;
use crate::house::History;
use crate::restart::forget_views;
use crate::table::{Row, Table};
use crate::{Done, How, floor, visible};

/// Orders a second meanwhile, and what is asked of them.
const RATES: [(u32, &str); 2] = [(500, "p99 10 ms"), (5_000, "p99 25 ms")];
/// Shelves that are delivered to.
const SHELVES: u64 = 32;

pub(crate) fn measure(how: &How, history: &History, table: &mut Table) -> Done<()> {
    let (root, orders) = (history.root.path(), history.orders as f64);
    let before = floor::rows::rate(how)?;
    forget_views(root);
    let began = Instant::now();
    let docket = Child::docket(how, root)?;
    docket.caught_up()?;
    let rate = orders / began.elapsed().as_secs_f64();
    let rss_mb = Some(docket.peak_rss_mb()?);
    let cpu_s_per_1000 = Some(docket.cpu_s()? / orders * 1000.0);
    docket.stop()?;
    let floors = Some((before, floor::rows::rate(how)?));
    let row = Row::new("W4 views folded afresh into SQLite", rate, "events/s");
    table.push(Row { floors, rss_mb, cpu_s_per_1000, target: "200,000/s", ..row });
    for (rate, target) in RATES {
        table.push(lag(how, rate, target)?);
    }
    Ok(())
}

/// How long after a command is sent a read shows it.
fn lag(how: &How, rate: u32, target: &'static str) -> Done<Row> {
    let (scratch, lasting) = (how.scratch()?, Duration::from_secs(u64::from(how.seconds())));
    let docket = Child::docket(how, scratch.path())?;
    let shelves = (0..SHELVES).map(visible::path).collect::<Vec<_>>();
    let shelves = shelves.iter().map(String::as_str).collect::<Vec<_>>();
    for shelf in &shelves {
        visible::put_up(docket.address(), shelf)?;
    }
    let load = docket.load_beside(how, Loop::Open { rate })?;
    std::thread::sleep(lasting / 4);
    let times = visible::times(&[docket.address()], &shelves, lasting)?;
    drop(load);
    let rss_mb = Some(docket.peak_rss_mb()?);
    docket.stop()?;
    let (p50_ms, p99_ms) = (Some(times.at(0.5)), Some(times.at(0.99)));
    let row = Row::new(format!("W4 submit to visible at {rate}/s"), times.at(0.5), "ms (p50)");
    Ok(Row { p50_ms, p99_ms, rss_mb, target, ..row })
}
