//! W2: how fast are few SKUs reserved by many? 100 SKUs at four locations, one piece at a time. The floor is the minimal
//! handler placing orders: about the same bytes, and nothing to decide.

use crate::child::Child;
use crate::generator::{Loop, Profile};
use crate::table::{Row, Table};
use crate::{Done, How, floor};

pub(crate) fn measure(how: &How, table: &mut Table) -> Done<()> {
    let floor = floor::http::start(how)?;
    for clients in [16, 64] {
        let pace = Loop::Closed { clients };
        let scratch = how.scratch()?;
        let docket = Child::docket(how, scratch.path())?;
        let before = floor.load(how, Profile::Place, pace)?.rate();
        let found = docket.load(how, Profile::HotStock, pace)?;
        let after = floor.load(how, Profile::Place, pace)?.rate();
        let what = format!("W2 hot stock, {clients} clients, {} retries", found.retries());
        let target = if clients == 64 { "20,000/s, 0 retries" } else { "" };
        table.push(Row { floors: Some((before, after)), target, ..found.row(what) });
    }
    Ok(())
}
