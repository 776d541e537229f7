//! W1 without HTTP and without views: how much of the raw file with group commit is left when every record is a decided,
//! remembered, checksummed order? 128 callers, the floor beside it with as many.

use std::time::{Duration, Instant};

use crate::house::House;
use crate::table::{Row, Table};
use crate::{Done, How, floor};

const CALLERS: u32 = 128;

pub(crate) async fn measure(how: &How, table: &mut Table) -> Done<()> {
    let (before, _) = floor::log::rate(how, CALLERS).await?;
    let scratch = how.scratch()?;
    let house = House::open(scratch.path()).await?;
    let (began, lasting) = (Instant::now(), Duration::from_secs(u64::from(how.seconds())));
    let times = house.place(u64::from(CALLERS), move |_| began.elapsed() >= lasting).await?;
    let rate = times.count() as f64 / began.elapsed().as_secs_f64();
    house.close().await?;
    let (after, _) = floor::log::rate(how, CALLERS).await?;
    table.push(Row {
        floors: Some((before, after)),
        p50_ms: Some(times.at(0.5)),
        p99_ms: Some(times.at(0.99)),
        target: "50 % of floor, 90,000/s",
        ..Row::new(format!("W1 in process, {CALLERS} callers"), rate, "/s")
    });
    Ok(())
}
