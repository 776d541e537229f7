//! The load: `docket load`, the same for the product and for the floor, in a process of its own.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::child::Child;
use crate::table::Row;
use crate::{Done, How};

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Orders of three lines without payment.
    Place,
    /// Orders that settle; one payment in ten is declined.
    Checkout,
    /// Reservations of one piece, of 100 SKUs.
    HotStock,
}

/// How it is asked for.
#[derive(Clone, Copy)]
pub(crate) enum Loop {
    /// So many clients, each asking again as soon as it is answered.
    Closed { clients: u32 },
    /// So many a second, whatever the server does; late answers count from when they were due.
    Open { rate: u32 },
}

/// What a load cost those who served it.
pub(crate) struct Cost {
    /// CPU seconds of the servers.
    pub(crate) cpu_s: f64,
    /// The most memory that one of them has had, in MB.
    pub(crate) rss_mb: f64,
    /// CPU seconds of what they stand on.
    pub(crate) beside: Vec<(&'static str, f64)>,
}

/// What came of a load.
pub(crate) struct Found {
    told: Value,
    cost: Cost,
}

/// `docket load` on these servers (`host:port`), still to be run; tells in JSON what came of it.
pub(crate) fn command(how: &How, servers: &[String], profile: Profile, pace: Loop, lasting: &str) -> Done<Command> {
    let (name, locations, skus) = match profile {
        Profile::Place => ("place", 1, 10),
        Profile::Checkout => ("checkout", 4, 100),
        Profile::HotStock => ("hot-stock", 4, 25),
    };
    let mut command = Command::new(how.load()?);
    command.args(["load", "--output", "json", "--skip-checks", "--profile", name, "--for", lasting]);
    for (at, server) in servers.iter().enumerate() {
        command.arg(if at == 0 { "--server" } else { "--also" }).arg(format!("http://{server}"));
    }
    command.args(["--locations", &format!("{locations}"), "--skus", &format!("{skus}")]);
    match pace {
        Loop::Closed { clients } => command.args(["--clients", &clients.to_string()]),
        Loop::Open { rate } => command.args(["--rate", &rate.to_string()]),
    };
    Ok(command)
}

/// Puts servers under load, its clients spread over all of them. `spent` tells what they have cost so far.
pub(crate) fn load(
    how: &How,
    servers: &[String],
    profile: Profile,
    pace: Loop,
    spent: impl Fn() -> Done<Cost>,
) -> Done<Found> {
    let mut command = command(how, servers, profile, pace, &format!("{}s", how.seconds()))?;
    let before = spent()?;
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("docket load failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let told = serde_json::from_slice::<Value>(&output.stdout)?;
    let outcomes = &told["outcomes"];
    if outcomes["unknown"] != 0 || told["never_sent"] != 0 || (profile == Profile::Place && outcomes["rejected"] != 0) {
        eprintln!(
            "  not all were accepted: {outcomes}, refused {}, never sent {}",
            told["refusals"], told["never_sent"]
        );
    }
    let mut cost = spent()?;
    cost.cpu_s -= before.cpu_s;
    for ((_, after), (_, before)) in cost.beside.iter_mut().zip(before.beside) {
        *after -= before;
    }
    Ok(Found { told, cost })
}

/// A load in the background, until it is dropped.
pub(crate) struct Beside(std::process::Child);

impl Drop for Beside {
    fn drop(&mut self) {
        // Gone already, if its server went before.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Child {
    /// Orders placed in the background.
    pub(crate) fn load_beside(&self, how: &How, pace: Loop) -> Done<Beside> {
        let mut command = command(how, &[self.address().to_string()], Profile::Place, pace, "1h")?;
        Ok(Beside(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
    }

    /// Puts it under load.
    pub(crate) fn load(&self, how: &How, profile: Profile, pace: Loop) -> Done<Found> {
        load(how, &[self.address().to_string()], profile, pace, || {
            Ok(Cost { cpu_s: self.cpu_s()?, rss_mb: self.peak_rss_mb()?, beside: Vec::new() })
        })
    }
}

impl Found {
    fn number(&self, pointer: &str) -> f64 {
        self.told.pointer(pointer).and_then(Value::as_f64).unwrap_or_default()
    }

    /// Answers a second.
    pub(crate) fn rate(&self) -> f64 {
        self.number("/per_second")
    }

    /// Tries after the first.
    pub(crate) fn retries(&self) -> u64 {
        self.told["retries"].as_u64().unwrap_or_default()
    }

    /// Answers, as a line of the table.
    pub(crate) fn row(&self, what: impl Into<String>) -> Row {
        self.row_of(what, self.rate(), "/s", "requests", "latency_ms")
    }

    /// Settled sagas, as a line of the table.
    pub(crate) fn row_settled(&self, what: impl Into<String>) -> Row {
        self.row_of(what, self.number("/settled_per_second"), "settled/s", "settled", "settled_ms")
    }

    fn row_of(&self, what: impl Into<String>, value: f64, unit: &'static str, count: &str, times: &str) -> Row {
        let per_1000 = 1000.0 / self.number(&format!("/{count}")).max(1.0);
        Row {
            p50_ms: Some(self.number(&format!("/{times}/p50"))),
            p99_ms: Some(self.number(&format!("/{times}/p99"))),
            rss_mb: Some(self.cost.rss_mb),
            cpu_s_per_1000: Some(self.cost.cpu_s * per_1000),
            beside: self.cost.beside.iter().map(|(whose, cpu_s)| (*whose, cpu_s * per_1000)).collect(),
            ..Row::new(what, value, unit)
        }
    }
}
