//! W6: how fast do orders settle? Stock reserved, money authorized, stock committed, money captured, order confirmed; one
//! payment in ten is declined and its reservation taken back. Then how long one takes while 300 come a second. The floor is
//! the minimal handler placing orders: it makes one record durable where a checkout makes eight.

use crate::child::Child;
use crate::generator::{Loop, Profile};
use crate::table::{Row, Table};
use crate::{Done, How, floor};

pub(crate) fn measure(how: &How, table: &mut Table) -> Done<()> {
    let floor = floor::http::start(how)?;
    for (pace, what, target) in [
        (Loop::Closed { clients: 16 }, "W6 checkout, 16 clients", ""),
        (Loop::Closed { clients: 128 }, "W6 checkout, 128 clients", "3,000/s; red line 500/s"),
        (Loop::Open { rate: 300 }, "W6 checkout, 300/s open loop", "p99 25 ms"),
    ] {
        let placed = || Done::Ok(floor.load(how, Profile::Place, pace)?.rate());
        // A share of the rate that is asked for would say nothing.
        let before = matches!(pace, Loop::Closed { .. }).then(placed).transpose()?;
        let scratch = how.scratch()?;
        let docket = Child::docket(how, scratch.path())?;
        let found = docket.load(how, Profile::Checkout, pace)?;
        docket.stop()?;
        let floors = before.map(|before| Done::Ok((before, placed()?))).transpose()?;
        table.push(Row { floors, target, ..found.row_settled(what) });
    }
    Ok(())
}
