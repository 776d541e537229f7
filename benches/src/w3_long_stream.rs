//! W3: how fast does a stream of 10,000 events take one more? Once when the process has just started and nothing of the
//! stream is at hand, each stream's first access; then again and again. The floor is the minimal handler placing orders.

use std::time::{Duration, Instant};

use crate::child::Child;
use crate::generator::{Loop, Profile};
use crate::house::{House, ON_SHELF, shelf};
use crate::table::{Row, Table};
use crate::times::Times;
use crate::wire::Kept;
use crate::{Done, How, floor};

/// Connections that ask, each for streams of its own.
const CLIENTS: u32 = 16;
/// Streams of each.
const STREAMS: u64 = 4;
/// Events of each stream.
const EVENTS: u64 = 10_000;
const EVENTS_QUICK: u64 = 500;
/// Callers that make the streams.
const CALLERS: u64 = 512;
/// Starts after which each stream is met for the first time.
const STARTS: u32 = 5;

pub(crate) async fn measure(how: &How, table: &mut Table) -> Done<()> {
    let (scratch, events) = (how.scratch()?, if how.quick { EVENTS_QUICK } else { EVENTS });
    let streams = u64::from(CLIENTS) * STREAMS;
    eprintln!("  making {streams} streams of {events} events");
    let house = House::open(scratch.path()).await?;
    house.receive(CALLERS, streams, events).await?;
    house.close().await?;
    tokio::task::block_in_place(|| {
        // Folding views is another question.
        let docket = Child::docket(how, scratch.path())?;
        docket.caught_up()?;
        docket.stop()?;
        let floor = floor::http::start(how)?;
        let placed = || Done::Ok(floor.load(how, Profile::Place, Loop::Closed { clients: CLIENTS })?.rate());
        let before = placed()?;

        let mut first = Appended::default();
        for _ in 0..STARTS {
            let docket = Child::docket(how, scratch.path())?;
            first.add(append(&docket, |each| each >= STREAMS)?);
            docket.stop()?;
        }
        let docket = Child::docket(how, scratch.path())?;
        let until = Instant::now() + Duration::from_secs(u64::from(how.seconds()));
        let again = append(&docket, |_| Instant::now() >= until)?;
        docket.stop()?;

        let floors = Some((before, placed()?));
        let to = format!("to streams of {events} events, {CLIENTS} clients");
        table.push(Row { floors, ..first.row(format!("W3 first append after a start {to}")) });
        table.push(Row { floors, ..again.row(format!("W3 append {to}")) });
        Ok(())
    })
}

/// What was appended.
struct Appended {
    times: Times,
    took: Duration,
    cpu_s: f64,
    rss_mb: f64,
}

impl Default for Appended {
    fn default() -> Self {
        Self { times: Times::new(), took: Duration::ZERO, cpu_s: 0.0, rss_mb: 0.0 }
    }
}

impl Appended {
    fn add(&mut self, more: Self) {
        self.times.add(&more.times);
        self.took += more.took;
        self.cpu_s += more.cpu_s;
        self.rss_mb = self.rss_mb.max(more.rss_mb);
    }

    fn row(&self, what: String) -> Row {
        let count = self.times.count() as f64;
        Row {
            p50_ms: Some(self.times.at(0.5)),
            p99_ms: Some(self.times.at(0.99)),
            rss_mb: Some(self.rss_mb),
            cpu_s_per_1000: Some(self.cpu_s / count * 1000.0),
            target: "2,000/s",
            ..Row::new(what, count / self.took.as_secs_f64(), "/s")
        }
    }
}

/// One event more to one stream after the other, by all connections at once, until it is `over` for one that has made so
/// many.
fn append(server: &Child, over: impl Fn(u64) -> bool + Sync) -> Done<Appended> {
    let (address, before) = (server.address(), server.cpu_s()?);
    let connections = (0..CLIENTS).map(|_| Kept::open(address)).collect::<Done<Vec<_>>>()?;
    let began = Instant::now();
    let times = std::thread::scope(|scope| {
        let clients = connections.into_iter().zip(0..).map(|(connection, client)| {
            let over = &over;
            scope.spawn(move || append_to_its_own(connection, client, over))
        });
        let mut all = Times::new();
        for client in clients.collect::<Vec<_>>() {
            all.add(&client.join().map_err(|_| "a client panicked")??);
        }
        Done::Ok(all)
    })?;
    let took = began.elapsed();
    Ok(Appended { times, took, cpu_s: server.cpu_s()? - before, rss_mb: server.peak_rss_mb()? })
}

fn append_to_its_own(mut server: Kept, client: u64, over: impl Fn(u64) -> bool) -> Done<Times> {
    let (mut times, mut made) = (Times::new(), 0);
    while !over(made) {
        let location = shelf(client * STREAMS + made % STREAMS);
        let asked = Instant::now();
        server.post(&format!("/v1/stock/{location}/{ON_SHELF}/receive"), r#"{"quantity":1}"#)?;
        times.note(asked.elapsed());
        made += 1;
    }
    Ok(times)
}
