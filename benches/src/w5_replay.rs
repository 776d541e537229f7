//! W5: how fast is everything read from the beginning? From the log itself, every record checked and decoded, beside a file
//! whose bytes nobody looks at; and over HTTP, every event as a line of JSON.

use std::io::Read;
use std::time::Instant;

use crate::child::Child;
use crate::house::{History, read_all};
use crate::table::{Row, Table};
use crate::{Done, How, floor};

pub(crate) fn measure(how: &How, history: &History, table: &mut Table) -> Done<()> {
    let before = floor::log::read_rate(how, history.orders)?;
    let began = Instant::now();
    let records = read_all(history.root.path())?;
    let rate = records as f64 / began.elapsed().as_secs_f64();
    let floors = Some((before, floor::log::read_rate(how, history.orders)?));
    table.push(Row { floors, target: "800,000/s", ..Row::new("W5 replay, from the log", rate, "events/s") });

    let docket = Child::docket(how, history.root.path())?;
    // Its views first: they share the machine.
    docket.caught_up()?;
    let before = docket.cpu_s()?;
    let began = Instant::now();
    let mut answer = docket.ask("/v1/events?from=start", "application/x-ndjson")?;
    let (mut buffer, mut lines) = (vec![0; 1 << 20], 0);
    loop {
        match answer.read(&mut buffer)? {
            0 => break,
            bytes => lines += buffer[..bytes].iter().filter(|byte| **byte == b'{').count() as u64,
        }
    }
    let took = began.elapsed().as_secs_f64();
    // One brace per line at least; the events there are, are known.
    if lines < history.orders {
        return Err(format!("only {lines} of {} events came", history.orders).into());
    }
    let cpu_s_per_1000 = Some((docket.cpu_s()? - before) / history.orders as f64 * 1000.0);
    let rss_mb = Some(docket.peak_rss_mb()?);
    let row = Row::new("W5 replay, NDJSON over HTTP", history.orders as f64 / took, "events/s");
    table.push(Row { cpu_s_per_1000, rss_mb, ..row });
    docket.stop()
}
