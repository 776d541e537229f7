//! How fast is it on Kafka and PostgreSQL, on one node and on three, on one broker and on three? Beside it, on the same
//! brokers in the same minutes: a bare producer that waits for all replicas, and a minimal handler answering from one. Then
//! how soon reads follow, how fast views are folded afresh, and how long the partitions of a killed node stay without one.

use crate::generator::{Loop, Profile};
use crate::ground::{Ground, Nodes, missing};
use crate::table::{Row, Table};
use crate::{Done, How};

pub(crate) mod floor;
mod in_process;
mod shelves;
mod take_over;
mod views;

use floor::HttpFloor;

/// Seconds per figure, unless asked for otherwise: there are some sixty of them.
const SECONDS: u32 = 6;
/// Nodes that share the work.
const NODES: [usize; 2] = [1, 3];
/// Requests a second of the open loops.
const RATES: [u32; 2] = [300, 3_000];

/// Asks all of it; skips it, said aloud, where there can be no brokers and `optional` says that this is no fault.
pub(crate) fn measure(how: &How, optional: bool, table: &mut Table) -> Done<()> {
    if let Some(missing) = missing() {
        if optional {
            eprintln!("  several nodes: not asked: {missing}");
            return Ok(());
        }
        return Err(missing.into());
    }
    let seconds = how.seconds.unwrap_or(if how.quick { 1 } else { SECONDS });
    let how = &How { seconds: Some(seconds), ..how.clone() };
    for brokers in [1, 3] {
        let ground = Ground::start(how, brokers)?;
        in_process::measure(how, &ground, table)?;
        workloads(how, &ground, table)?;
        views::measure(how, &ground, table)?;
        if brokers == 3 {
            take_over::measure(how, &ground, table)?;
        }
    }
    Ok(())
}

fn workloads(how: &How, ground: &Ground, table: &mut Table) -> Done<()> {
    let floor = HttpFloor::start(how, ground)?;
    let closed: &[u32] = if how.quick { &[16] } else { &crate::w1_http::CLIENTS };
    for &clients in closed {
        let pace = Loop::Closed { clients };
        beside(how, ground, &floor, Profile::Place, pace, &format!("W1, {clients} clients"), "70 % of floor", table)?;
    }
    let pace = Loop::Closed { clients: 64 };
    beside(how, ground, &floor, Profile::HotStock, pace, "W2, 64 clients", "", table)?;
    let rates = if how.quick { &RATES[..1] } else { &RATES };
    for &rate in rates {
        let (pace, what) = (Loop::Open { rate }, format!("{rate}/s open loop"));
        table.push(floor.load(how, ground, Profile::Place, pace)?.row(format!("{}, {what}", floor.told(ground))));
        for count in NODES {
            let nodes = settled(how, ground, count)?;
            let found = nodes.load(how, Profile::Place, pace)?;
            table.push(found.row(format!("W1, {what}, {}", nodes.told())));
        }
    }
    drop(floor);
    for pace in [Loop::Closed { clients: 128 }, Loop::Open { rate: 300 }] {
        for count in NODES {
            let nodes = settled(how, ground, count)?;
            let found = nodes.load(how, Profile::Checkout, pace)?;
            let what = match pace {
                Loop::Closed { clients } => format!("{clients} clients"),
                Loop::Open { rate } => format!("{rate}/s open loop"),
            };
            table.push(found.row_settled(format!("W6, {what}, {}", nodes.told())));
        }
        if how.quick {
            break;
        }
    }
    Ok(())
}

/// One workload on one node and on three; the floor before, between and after.
#[expect(clippy::too_many_arguments, reason = "a line of the table says all of it")]
fn beside(
    how: &How,
    ground: &Ground,
    floor: &HttpFloor,
    profile: Profile,
    pace: Loop,
    what: &str,
    target: &'static str,
    table: &mut Table,
) -> Done<()> {
    let placed = || floor.load(how, ground, Profile::Place, pace);
    let mut before = placed()?;
    if profile == Profile::Place {
        let clients = what.trim_start_matches("W1, ");
        table.push(before.row(format!("{}, {clients}", floor.told(ground))));
    }
    for count in NODES {
        // A log of their own each: what an earlier load left behind is another question.
        let nodes = settled(how, ground, count)?;
        let found = nodes.load(how, profile, pace)?;
        let retries = match profile {
            Profile::HotStock => format!(", {} retries", found.retries()),
            Profile::Place | Profile::Checkout => String::new(),
        };
        let told = nodes.told();
        drop(nodes);
        let after = placed()?;
        let floors = Some((before.rate(), after.rate()));
        table.push(Row { floors, target, ..found.row(format!("{what}{retries}, {told}")) });
        before = after;
    }
    Ok(())
}

/// New nodes, their partitions shared evenly.
fn settled<'a>(how: &How, ground: &'a Ground, count: usize) -> Done<Nodes<'a>> {
    let nodes = Nodes::start(how, ground, count)?;
    shelves::Shelves::find(&nodes)?.wait_shared(&nodes)?;
    Ok(nodes)
}
