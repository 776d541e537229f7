//! How fast is one order read, and what does it cost? A few thousand orders are placed, then a few connections that stay
//! open ask for them one after the other: all of a small set again and again (served from memory) or each once (loaded).
//! Beside it the minimal handler, which answers the least there is.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::child::Child;
use crate::generator::{Loop, Profile};
use crate::table::{Row, Table};
use crate::wire::Kept;
use crate::{Done, How, floor};

/// Connections that ask.
const READERS: usize = 4;
/// Orders that are read again and again.
const HOT: usize = 500;

pub(crate) fn measure(how: &How, table: &mut Table) -> Done<()> {
    let floor = floor::http::start(how)?;
    let least = ask_all(how, &floor, &["/readyz".to_owned()])?;
    table.push(least.row("minimal handler, reads"));
    let scratch = how.scratch()?;
    let docket = Child::docket(how, scratch.path())?;
    docket.load(how, Profile::Place, Loop::Closed { clients: 16 })?;
    let orders = orders(&docket)?;
    let hot = ask_all(how, &docket, &orders[..orders.len().min(HOT)])?;
    let least_again = ask_all(how, &floor, &["/readyz".to_owned()])?;
    let floors = Some((least.rate(), least_again.rate()));
    table.push(Row { floors, ..hot.row(format!("GET of {} orders", orders.len().min(HOT))) });
    let all = ask_all(how, &docket, &orders)?;
    table.push(Row { floors, ..all.row(format!("GET of {} orders", orders.len())) });
    let hits = docket.get("/metrics")?.1;
    for line in hits.lines().filter(|line| line.starts_with("docket_cache_") && line.contains("\"rows\"")) {
        eprintln!("  {line}");
    }
    Ok(())
}

/// Paths of orders, the newest first: as many as a short list has.
fn orders(docket: &Child) -> Done<Vec<String>> {
    let mut paths = Vec::new();
    let mut next = Some("/v1/orders?limit=500".to_owned());
    while let Some(path) = next.take().filter(|_| paths.len() < 20_000) {
        let page = serde_json::from_str::<serde_json::Value>(&docket.get(&path)?.1)?;
        let items = page["items"].as_array().ok_or("no list")?;
        paths.extend(items.iter().filter_map(|order| Some(format!("/v1/orders/{}", order["order_id"].as_str()?))));
        next = page["next_cursor"].as_str().map(|cursor| format!("/v1/orders?limit=500&cursor={cursor}"));
    }
    if paths.is_empty() { Err("there is no order to read".into()) } else { Ok(paths) }
}

struct Asked {
    times: Histogram<u64>,
    seconds: f64,
    cpu_s: f64,
    rss_mb: f64,
}

impl Asked {
    fn rate(&self) -> f64 {
        self.times.len() as f64 / self.seconds
    }

    fn row(&self, what: impl Into<String>) -> Row {
        let ms = |quantile| Some(self.times.value_at_quantile(quantile) as f64 / 1e3);
        Row {
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            rss_mb: Some(self.rss_mb),
            cpu_s_per_1000: Some(self.cpu_s * 1000.0 / self.times.len().max(1) as f64),
            ..Row::new(what, self.rate(), "/s")
        }
    }
}

/// Asks for these in turn, over connections that stay open.
fn ask_all(how: &How, server: &Child, paths: &[String]) -> Done<Asked> {
    let (address, before) = (server.address(), server.cpu_s()?);
    let began = Instant::now();
    let until = began + Duration::from_secs(how.seconds().into());
    let times = std::thread::scope(|scope| {
        let readers = (0..READERS).map(|first| scope.spawn(move || reader(address, paths, first, until)));
        let readers = readers.collect::<Vec<_>>();
        let mut all = Histogram::<u64>::new(3)?;
        for reader in readers {
            all.add(reader.join().map_err(|_| "a reader panicked")??)?;
        }
        Done::Ok(all)
    })?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(Asked { times, seconds, cpu_s: server.cpu_s()? - before, rss_mb: server.peak_rss_mb()? })
}

fn reader(address: SocketAddr, paths: &[String], first: usize, until: Instant) -> Done<Histogram<u64>> {
    let (mut server, mut times) = (Kept::open(address)?, Histogram::<u64>::new(3)?);
    let mut at = first * paths.len() / READERS;
    while Instant::now() < until {
        let began = Instant::now();
        server.get(&paths[at % paths.len()])?;
        at += 1;
        times.saturating_record(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    Ok(times)
}
