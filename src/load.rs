//! `docket load`: puts a server under load through its public API, tells how long answers took, and then checks that
//! nothing was lost, doubled or oversold: orders against the payment gateway's own books, stock against what was ordered.
//!
//! Closed loop: each client asks again as soon as it is answered. Open loop (`--rate`): requests are due at fixed times
//! whatever the server does, and latency counts from when a request was due, so a server that stalls cannot hide it
//! (no coordinated omission). What ends unknown is repeated under the same key until the outcome is definite.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{Global, duration};
use crate::client::Server;
use crate::failure::Failure;

mod audit;
mod books;
mod pace;
mod report;
mod tally;
mod wire;
mod worker;
mod workload;

use pace::Pace;
use tally::Tally;
use worker::Worker;
use workload::Workload;

/// What the help shows.
pub(crate) const EXAMPLES: &str = "\
Examples:
  docket load --profile place --clients 16 --for 10s          as fast as 16 clients go
  docket load --profile checkout --rate 300/s --for 30s       what 300 buyers a second would feel
  docket load --profile hot-stock --clients 64 --count 1000 --skus 1 --stock 100      oversell, if you can
  docket load --profile place --rate 50000/s --clients 2000 --give-up 0s --late-for 0s      more than it can do
  docket load --profile checkout --count 100 --output json

Exits 1 if money or stock do not add up afterwards. It brings its own stock, at locations named load-<run>.";

/// What is asked of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// Orders of three lines without payment
    Place,
    /// Orders with payment, carried through stock and payment by their sagas; some payments are declined
    Checkout,
    /// Reservations of one piece each, of few SKUs
    HotStock,
}

/// What `docket load` takes.
#[derive(Debug, Args)]
pub(crate) struct LoadArguments {
    /// What to ask for
    #[arg(long, value_enum, default_value = "checkout")]
    profile: Profile,
    /// How many connections [default: 16; 64 with --rate]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: Option<u32>,
    /// Another server of the same log, as often as there are: clients are spread over all of them
    #[arg(long, value_name = "URL")]
    also: Vec<Server>,
    /// Open loop: so many requests a second, whatever the server does
    #[arg(long, value_name = "N[/s]", value_parser = pace::rate)]
    rate: Option<f64>,
    /// For how long [default: 10s unless --count is given]
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    lasting: Option<Duration>,
    /// At most so many requests
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Measure only after this long; comes before --for
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "0s")]
    warmup: Duration,
    /// Over how many locations stock is spread
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=100))]
    locations: u64,
    /// How many SKUs each location has
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=500))]
    skus: u64,
    /// How many pieces of each there are
    #[arg(long, value_name = "N", default_value_t = 1_000_000_000, value_parser = clap::value_parser!(u64).range(0..=1_000_000_000_000))]
    stock: u64,
    /// One payment in so many is declined; 0 for none
    #[arg(long, value_name = "N", default_value_t = 10)]
    declined: u64,
    /// How long a request is repeated before its outcome is left unknown
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s")]
    give_up: Duration,
    /// With --rate: how long after the last request was due late ones are still sent
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s")]
    late_for: Duration,
    /// How long sagas may take to settle after the last request
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s")]
    settle_within: Duration,
    /// Leave out the checks at the end
    #[arg(long)]
    skip_checks: bool,
}

impl LoadArguments {
    fn clients(&self) -> u32 {
        self.clients.unwrap_or(if self.rate.is_some() { 64 } else { 16 })
    }

    fn lasting(&self) -> Option<Duration> {
        self.lasting.or(self.count.is_none().then_some(Duration::from_secs(10)))
    }
}

/// Does it.
pub(crate) async fn run(arguments: LoadArguments, global: &Global) -> Result<(), Failure> {
    let client = global.client();
    let run = format!("load-{:08x}", rand::random::<u32>());
    let workload = Arc::new(Workload::new(&arguments, run));
    audit::seed(&client, &workload, arguments.stock).await?;

    let pace = Pace::new(arguments.rate, arguments.lasting(), arguments.count, arguments.warmup);
    let watching = tokio::spawn(watch(Arc::clone(&pace), arguments.lasting(), arguments.count, arguments.warmup));
    let servers = std::iter::once(client.server()).chain(&arguments.also).map(Server::authority).collect::<Vec<_>>();
    let workers = servers.iter().cycle().take(arguments.clients() as usize).map(|authority| {
        let worker = Worker::new(authority, Arc::clone(&workload), Arc::clone(&pace), arguments.give_up);
        tokio::spawn(worker.run())
    });
    let workers = workers.collect::<Vec<_>>();
    pace.begin(arguments.late_for);
    let mut tally = Tally::new();
    for worker in workers {
        tally.add(worker.await.map_err(|_| Failure::plain("a client of the load ended badly"))?);
    }
    pace.finish();
    watching.abort();

    let differences = if arguments.skip_checks {
        None
    } else {
        Some(audit::audit(&client, &workload, &mut tally, arguments.stock, arguments.settle_within).await?)
    };
    let result = report::result(&arguments, &workload, &pace, &tally, differences.as_deref());
    global.screen().item(&result, report::table)?;
    match differences.as_deref() {
        None | Some([]) => Ok(()),
        Some(found) => Err(report::failure(found)),
    }
}

/// Shows on a terminal how far it is.
async fn watch(pace: Arc<Pace>, lasting: Option<Duration>, count: Option<u64>, warmup: Duration) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    // One bar for whichever bound there is; a run bound by time shows milliseconds of it.
    let length = count.or(lasting.map(|lasting| (lasting + warmup).as_millis() as u64)).unwrap_or_default();
    let style = ProgressStyle::with_template("{wide_bar} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(length).with_style(style);
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    let mut before = 0;
    loop {
        tick.tick().await;
        let answered = pace.answered.load(Ordering::Relaxed);
        let done = if count.is_some() { answered } else { pace.elapsed().as_millis() as u64 };
        bar.set_position(done.min(length));
        bar.set_message(format!("{answered} answered, {}/s", (answered - before) * 5));
        before = answered;
        if pace.is_finished() {
            bar.finish_and_clear();
            return;
        }
    }
}

#[cfg(test)]
mod tests;
