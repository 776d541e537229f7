//! How long does one durable write take? 4 KiB into a preallocated file of written zeros, then fdatasync: every
//! acknowledgement rests on it, so every figure is to be read beside it.

use std::os::unix::fs::FileExt;
use std::time::Instant;

use super::log::zeroed;
use crate::table::{Row, Table};
use crate::times::Times;
use crate::{Done, How};

const BYTES: u64 = 4 << 20;

pub(crate) fn measure(how: &How, table: &mut Table) -> Done<()> {
    let scratch = how.scratch()?;
    let file = zeroed(&scratch.path().join("disk"), BYTES)?;
    let block = [7; 4096];
    let mut times = Times::new();
    let began = Instant::now();
    for number in 0..if how.quick { 200 } else { 2_000 } {
        let asked = Instant::now();
        file.write_all_at(&block, number * 4096 % BYTES)?;
        file.sync_data()?;
        times.note(asked.elapsed());
    }
    let rate = times.count() as f64 / began.elapsed().as_secs_f64();
    let (p50_ms, p99_ms) = (Some(times.at(0.5)), Some(times.at(0.99)));
    table.push(Row { p50_ms, p99_ms, ..Row::new("disk: 4 KiB + fdatasync", rate, "/s") });
    Ok(())
}
