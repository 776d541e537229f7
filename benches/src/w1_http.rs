//! W1: how fast are orders placed over HTTP? Each makes an order of three lines durable. `docket dev` with live views under
//! closed and open loops, beside the minimal handler under the same load in the same minute: before and after, because a
//! machine's disk and neighbours are not the same all day.

use crate::child::Child;
use crate::generator::{Loop, Profile};
use crate::table::{Row, Table};
use crate::{Done, How, floor};

/// Clients of the closed loops.
pub(crate) const CLIENTS: [u32; 3] = [1, 16, 128];
/// Requests a second of the open loops.
const RATES: [u32; 2] = [500, 2_000];

const TARGETS: [&str; 3] = ["60 % of floor", "60 % of floor, p99 3 ms", "60 % of floor, p99 15 ms"];

pub(crate) fn measure(how: &How, table: &mut Table) -> Done<()> {
    let floor = floor::http::start(how)?;
    for (clients, target) in CLIENTS.into_iter().zip(TARGETS) {
        let pace = Loop::Closed { clients };
        // One directory each: what an earlier load left behind is another question (`restart`).
        let scratch = how.scratch()?;
        let docket = Child::docket(how, scratch.path())?;
        let before = floor.load(how, Profile::Place, pace)?;
        table.push(before.row(format!("minimal handler, {clients} clients")));
        let found = docket.load(how, Profile::Place, pace)?;
        let after = floor.load(how, Profile::Place, pace)?;
        let floors = Some((before.rate(), after.rate()));
        table.push(Row { floors, target, ..found.row(format!("W1 HTTP, {clients} clients")) });
    }
    let scratch = how.scratch()?;
    let docket = Child::docket(how, scratch.path())?;
    for rate in RATES {
        let pace = Loop::Open { rate };
        table.push(floor.load(how, Profile::Place, pace)?.row(format!("minimal handler, {rate}/s open loop")));
        table.push(docket.load(how, Profile::Place, pace)?.row(format!("W1 HTTP, {rate}/s open loop")));
    }
    Ok(())
}
