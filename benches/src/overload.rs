//! What becomes of it when it is asked for more than it can do? Its best first; then twice and five times as many orders a
//! second, due at fixed times whatever it answers, from so many connections that waiting for answers holds nobody back,
//! and none of them repeated. Told are what was accepted, beside its best; how long those took; what was turned away; how
//! soon it is as before; and what is left of it in memory and open files. Where it can be, the server has one processor
//! and the load another: else the load takes from the server what it is to be measured by.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::child::Child;
use crate::generator::{self, Loop, Profile};
use crate::table::{Row, Table};
use crate::times::Times;
use crate::{Done, How, wire};

/// Connections that ask: nearly as many as a server takes by default.
const CLIENTS: u32 = 4_000;
/// Orders in a row that must be as fast as before for it to be as before.
const AS_BEFORE: usize = 50;
/// When that is not waited for any more.
const RECOVERS_WITHIN: Duration = Duration::from_secs(60);

pub(crate) fn measure(how: &How, table: &mut Table) -> Done<()> {
    let scratch = how.scratch()?;
    let docket = Child::docket_apart(how, scratch.path())?;
    let mut peak = 0.0_f64;
    for clients in [64, 256] {
        let told = load(how, &docket, Loop::Closed { clients }, &[])?;
        let row = row(&told, &docket, format!("at its best, {clients} clients"))?;
        peak = peak.max(row.value);
        table.push(row);
    }
    let mut quiet = Times::new();
    for _ in 0..AS_BEFORE * 4 {
        quiet.note(order(&docket)?.ok_or("an order is refused while nobody else asks")?);
    }
    let (rss, files) = (docket.rss_mb()?, docket.open_files()?);
    for times in [2.0, 5.0] {
        let rate = (peak * times) as u32;
        let beyond = ["--clients", &CLIENTS.to_string(), "--give-up", "0s", "--late-for", "0s"];
        let told = load(how, &docket, Loop::Open { rate }, &beyond)?;
        let ended = Instant::now();
        let number = |pointer: &str| told.pointer(pointer).and_then(Value::as_f64).unwrap_or_default();
        let (told_when, untold) = (number("/turned_away/told_when"), number("/turned_away/told_no_time"));
        let asked = number("/requests").max(1.0);
        let what = format!(
            "asked for {times} times as much: {:.0}/s sent, {:.0} % turned away ({untold} without a time, {} unanswered)",
            asked / number("/seconds").max(0.001),
            100.0 * (told_when + untold) / asked,
            number("/lost"),
        );
        let target = "70 % of its best";
        table.push(Row { floors: Some((peak, peak)), target, ..row(&told, &docket, what)? });
        let recovered = recovers(&docket, ended, quiet.at(0.99))?;
        table.push(Row { target: "10 s", ..Row::new("  as before after", recovered.as_secs_f64(), "s") });
    }
    let after = format!("memory and open files after; {rss:.0} MB and {files} before");
    let rss_mb = Some(docket.peak_rss_mb()?);
    table.push(Row { rss_mb, ..Row::new(format!("{after}, {} after", docket.open_files()?), docket.rss_mb()?, "MB") });
    Ok(())
}

fn load(how: &How, docket: &Child, pace: Loop, more: &[&str]) -> Done<Value> {
    let lasting = format!("{}s", how.seconds());
    let servers = [docket.address().to_string()];
    let command = generator::command(how, &servers, Profile::Place, pace, &lasting)?;
    let mut apart = Command::new("taskset");
    apart.args(["-c", "1"]).arg(command.get_program()).args(command.get_args()).args(more);
    let mut command = if crate::child::can_be_apart() { apart } else { command };
    if command.get_program() != "taskset" {
        command.args(more);
    }
    let before = docket.cpu_s()?;
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("docket load failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let mut told = serde_json::from_slice::<Value>(&output.stdout)?;
    told["cpu_s"] = json!(docket.cpu_s()? - before);
    Ok(told)
}

/// Accepted orders a second, and how long each of them took from when it was sent.
fn row(told: &Value, docket: &Child, what: String) -> Done<Row> {
    let number = |pointer: &str| told.pointer(pointer).and_then(Value::as_f64).unwrap_or_default();
    let accepted = number("/outcomes/accepted") / number("/seconds").max(0.001);
    Ok(Row {
        p50_ms: Some(number("/tries_ms/p50")),
        p99_ms: Some(number("/tries_ms/p99")),
        rss_mb: Some(docket.rss_mb()?),
        // Of what was accepted: what turning others away costs is in it.
        cpu_s_per_1000: Some(1_000.0 * number("/cpu_s") / number("/outcomes/accepted").max(1.0)),
        ..Row::new(format!("overload: {what}"), accepted, "/s")
    })
}

/// Places one order; how long it took if it was accepted.
fn order(docket: &Child) -> Done<Option<Duration>> {
    let line = json!({"sku": "b", "quantity": 1, "unit_price": {"amount": 100, "currency": "EUR"}});
    let body = json!({"customer_id": "c", "location_id": "here", "lines": [line]}).to_string();
    let key = uuid::Uuid::now_v7().to_string();
    let began = Instant::now();
    let headers = [("Idempotency-Key", key.as_str())];
    let reply = wire::ask(docket.address(), "POST /v1/orders", &headers, &body, RECOVERS_WITHIN)?;
    Ok((reply.status == 201).then(|| began.elapsed()))
}

/// From `ended` to the first of so many orders in a row that were all as fast as when it was quiet, but for one in fifty.
fn recovers(docket: &Child, ended: Instant, quiet_p99_ms: f64) -> Done<Duration> {
    let bound = Duration::from_secs_f64(quiet_p99_ms * 2.0 / 1_000.0);
    let (mut since, mut in_a_row) = (Instant::now(), 0);
    while in_a_row < AS_BEFORE {
        if ended.elapsed() > RECOVERS_WITHIN {
            return Err("it does not recover".into());
        }
        let began = Instant::now();
        if order(docket)?.is_some_and(|took| took < bound) {
            in_a_row += 1;
        } else {
            (since, in_a_row) = (began, 0);
        }
    }
    Ok(since - ended)
}
