//! How soon is it ready again, with a long history? After a clean stop, after kill -9 under load, and with what is folded
//! from the log deleted: its states, its views. Ready is the first 200 of `/readyz` after the process was started.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::child::Child;
use crate::house::History;
use crate::table::{Row, Table};
use crate::{Done, How};

/// How long it is under load before it is killed.
const KILLED_AFTER: Duration = Duration::from_secs(3);
/// How often its lag is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Child {
    /// Waits until its views reflect the whole log.
    pub(crate) fn caught_up(&self) -> Done<()> {
        // The gauge is there from the first page of the log on.
        while self.metric("docket_projection_events_total")? == 0.0
            || self.metric("docket_projection_lag_events")? > 0.0
        {
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }
}

pub(crate) fn measure(how: &How, history: &History, table: &mut Table) -> Done<()> {
    let (root, orders) = (history.root.path(), history.orders);
    let thousands = orders / 1_000;
    let megabytes = history.bytes("log")? / 1_000_000;

    // W4, the first half: nobody has folded a row yet, unless `w5-replay` ran before.
    for name in ["views.db", "views.db-wal", "views.db-shm", "views.db-filling"] {
        let _ = std::fs::remove_file(root.join(name));
    }
    let began = Instant::now();
    let docket = Child::docket(how, root)?;
    let ready = docket.ready_after;
    docket.caught_up()?;
    let rate = orders as f64 / began.elapsed().as_secs_f64();
    let rss_mb = Some(docket.peak_rss_mb()?);
    let cpu_s_per_1000 = Some(docket.cpu_s()? / orders as f64 * 1000.0);
    let row = Row::new("W4 views folded afresh into SQLite", rate, "events/s");
    table.push(Row { rss_mb, cpu_s_per_1000, target: "200,000/s", ..row });
    table.push(start_row(format!("start without views, {thousands} K orders"), ready, None, ""));
    docket.stop()?;

    let docket = Child::docket(how, root)?;
    let what = format!("start after a clean stop, {thousands} K orders, log {megabytes} MB");
    let rss_mb = Some(docket.peak_rss_mb()?);
    table.push(start_row(what, docket.ready_after, rss_mb, "1 s; red line 2 s"));

    let mut load = Command::new(how.load()?);
    load.args(["load", "--server", &format!("http://{}", docket.address()), "--profile", "place", "--clients", "128"]);
    load.args(["--for", "1h", "--skip-checks"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut load = load.spawn()?;
    std::thread::sleep(KILLED_AFTER);
    let rss_mb = Some(docket.peak_rss_mb()?);
    docket.kill()?;
    load.kill()?;
    load.wait()?;
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

fn start_row(what: String, ready: Duration, rss_mb: Option<f64>, target: &'static str) -> Row {
    Row { rss_mb, target, ..Row::new(what, ready.as_secs_f64(), "s") }
}
