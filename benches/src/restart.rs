//! How soon is it ready again, with a long history? After a clean stop, after kill -9 under load, and with what is folded
//! from the log deleted: its states, its views. Ready is the first 200 of `/readyz` after the process was started.

use std::path::Path;
use std::time::Duration;

use crate::child::Child;
use crate::generator::Loop;
use crate::house::History;
use crate::table::{Row, Table};
use crate::{Done, How};

/// How long it is under load before it is killed.
const KILLED_AFTER: Duration = Duration::from_secs(3);

pub(crate) fn measure(how: &How, history: &History, table: &mut Table) -> Done<()> {
    let (root, orders) = (history.root.path(), history.orders);
    let thousands = orders / 1_000;
    let megabytes = history.bytes("log")? / 1_000_000;

    // Without its views; whether or not another question has folded them.
    forget_views(root);
    let docket = Child::docket(how, root)?;
    table.push(start_row(format!("start without views, {thousands} K orders"), docket.ready_after, None, ""));
    docket.caught_up()?;
    docket.stop()?;

    let docket = Child::docket(how, root)?;
    let what = format!("start after a clean stop, {thousands} K orders, log {megabytes} MB");
    let rss_mb = Some(docket.peak_rss_mb()?);
    table.push(start_row(what, docket.ready_after, rss_mb, "1 s; red line 2 s"));

    let load = docket.load_beside(how, Loop::Closed { clients: 128 })?;
    std::thread::sleep(KILLED_AFTER);
    let rss_mb = Some(docket.peak_rss_mb()?);
    docket.kill()?;
    drop(load);
    let docket = Child::docket(how, root)?;
    table.push(start_row("start after kill -9 under load".to_owned(), docket.ready_after, rss_mb, "1 s; red line 2 s"));
    docket.stop()?;

    std::fs::remove_dir_all(root.join("state"))?;
    let docket = Child::docket(how, root)?;
    let rate = orders as f64 / docket.ready_after.as_secs_f64();
    let rss_mb = Some(docket.peak_rss_mb()?);
    let cpu_s_per_1000 = Some(docket.cpu_s()? / orders as f64 * 1000.0);
    table.push(start_row("start without state store".to_owned(), docket.ready_after, rss_mb, ""));
    let row = Row::new("state store folded afresh", rate, "records/s");
    table.push(Row { cpu_s_per_1000, target: "500,000/s", ..row });
    docket.stop()?;

    let empty = how.scratch()?;
    let docket = Child::docket(how, empty.path())?;
    let rss_mb = Some(docket.peak_rss_mb()?);
    table.push(start_row("start, empty".to_owned(), docket.ready_after, rss_mb, "0.5 s"));
    docket.stop()
}

/// Takes all rows away: they are folded afresh at the next start.
pub(crate) fn forget_views(root: &Path) {
    for name in ["views.db", "views.db-wal", "views.db-shm", "views.db-filling"] {
        // Not all of them are there.
        let _ = std::fs::remove_file(root.join(name));
    }
}

fn start_row(what: String, ready: Duration, rss_mb: Option<f64>, target: &'static str) -> Row {
    Row { rss_mb, target, ..Row::new(what, ready.as_secs_f64(), "s") }
}
