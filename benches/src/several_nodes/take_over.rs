//! How long do the partitions of a node stay without a leader after kill -9? Three nodes under a light load; one is killed,
//! and the others are asked for something in each of its partitions again and again until they accept it. Then it comes back
//! and the next one goes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::shelves::Shelves;
use crate::generator::{Loop, Profile};
use crate::ground::{Ground, Nodes};
use crate::table::{Row, Table};
use crate::visible::deliver;
use crate::{Done, How};

/// How many kills.
const KILLS: usize = 20;
/// Orders a second meanwhile.
const RATE: u32 = 100;
/// How long the load lasts before a kill.
const TRADES_FOR: Duration = Duration::from_secs(1);
/// Longest a try may take; then there is another, as a load balancer would make it.
const TRY_WITHIN: Duration = Duration::from_secs(1);
/// Between two tries.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(5);
/// Longer than anyone waits.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(60);

pub(super) fn measure(how: &How, ground: &Ground, table: &mut Table) -> Done<()> {
    let mut nodes = Nodes::start(how, ground, 3)?;
    let shelves = Shelves::find(&nodes)?;
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for kill in 0..if how.quick { 2 } else { KILLS } {
        let leaders = shelves.wait_shared(&nodes)?;
        let victim = kill % 3;
        let its = shelves.all().filter(|(partition, _)| leaders[partition] == victim).map(|(_, shelf)| shelf);
        let its = its.collect::<Vec<_>>();
        let others = nodes.addresses().into_iter().enumerate().filter(|(at, _)| *at != victim);
        let others = others.map(|(_, address)| address).collect::<Vec<_>>();
        let load = nodes.load_beside(how, Profile::Place, Loop::Open { rate: RATE }, "1h")?;
        std::thread::sleep(TRADES_FOR);
        let began = Instant::now();
        let killed = nodes.kill(victim)?;
        let others = &others;
        let mut taken = std::thread::scope(|scope| {
            let tries = its.iter().map(|shelf| scope.spawn(move || accepted_after(began, others, shelf)));
            tries
                .collect::<Vec<_>>()
                .into_iter()
                .map(|one| one.join().expect("it does not panic"))
                .collect::<Done<Vec<_>>>()
        })?;
        taken.sort();
        first.extend(taken.first().map(Duration::as_secs_f64));
        last.extend(taken.last().map(Duration::as_secs_f64));
        // Waits until it is gone: it comes back on its own files.
        drop((load, killed));
        nodes.start_dead()?;
    }
    table.push(spread("first partition of a killed node taken over", "10 s, aim 3 s", first));
    table.push(spread("all partitions of a killed node taken over", "10 s, aim 3 s", last));
    Ok(())
}

/// How long after the kill a command on this shelf is accepted.
fn accepted_after(began: Instant, others: &[SocketAddr], shelf: &str) -> Done<Duration> {
    let mut servers = others.iter().cycle();
    loop {
        let server = *servers.next().ok_or("there are others")?;
        match deliver(server, shelf, TRY_WITHIN) {
            Ok(_) => return Ok(began.elapsed()),
            Err(why) if began.elapsed() > TAKEN_OVER_WITHIN => return Err(why),
            Err(_) => std::thread::sleep(TRY_AGAIN_AFTER),
        }
    }
}

fn spread(what: &str, target: &'static str, mut times_s: Vec<f64>) -> Row {
    times_s.sort_by(f64::total_cmp);
    let at = |share: f64| times_s[((times_s.len() - 1) as f64 * share).round() as usize];
    let what = format!(
        "{what}, {} kills: min {:.2}, p50 {:.2}, p90 {:.2}, max {:.2} s",
        times_s.len(),
        at(0.0),
        at(0.5),
        at(0.9),
        at(1.0)
    );
    let row = Row::new(what, at(0.5), "s (p50)");
    Row { target, times_s, ..row }
}
