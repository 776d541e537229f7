//! What a run has found, as one JSON document for programs and as a page for people.

use std::time::Duration;

use clap::ValueEnum;
use comfy_table::Cell;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::pace::Pace;
use super::tally::{Tally, note};
use super::workload::Workload;
use super::{LoadArguments, Profile};
use crate::failure::Failure;
use crate::output::{Paint, grid, text};

/// As many differences are told; more of them say nothing new.
const TOLD_MAX: usize = 20;

/// All there is to know about a run.
pub(super) fn result(
    arguments: &LoadArguments,
    workload: &Workload,
    pace: &Pace,
    tally: &Tally,
    differences: Option<&[String]>,
) -> Value {
    let profile = workload.profile.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let from = pace.measured_from();
    let seconds = tally.last.map_or(Duration::ZERO, |last| last.saturating_duration_since(from)).as_secs_f64();
    let requests = tally.accepted + tally.rejected + tally.unknown;
    let never_sent = pace.never_sent();
    let mut answers = tally.answers.clone();
    // What was due and never sent has waited at least until the end: left out, a server that stalls would look fast.
    if let Some(last) = tally.last {
        for due in pace.never_sent_due() {
            note(&mut answers, last.saturating_duration_since(due));
        }
    }
    let mut result = json!({
        "profile": profile,
        "run": workload.run,
        "clients": arguments.clients(),
        "rate": arguments.rate,
        "seconds": rounded(seconds),
        "requests": requests,
        "per_second": rounded(per_second(requests, seconds)),
        "latency_ms": percentiles(&answers),
        "outcomes": {"accepted": tally.accepted, "rejected": tally.rejected, "unknown": tally.unknown},
        "refusals": tally.refusals,
        "retries": tally.retries,
        "tries_ms": percentiles(&tally.tries),
        "turned_away": {"told_when": tally.turned_away - tally.told_no_time, "told_no_time": tally.told_no_time},
        "lost": tally.lost,
        "never_sent": never_sent,
    });
    if workload.profile == Profile::Checkout {
        let settled = tally.settlements.len();
        result["settled"] = settled.into();
        result["settled_per_second"] = rounded(per_second(settled, seconds));
        result["settled_ms"] = percentiles(&tally.settlements);
    }
    result["checks"] = match differences {
        None => "skipped".into(),
        Some([]) => "passed".into(),
        Some(_) => "failed".into(),
    };
    let told = differences.unwrap_or_default();
    result["differences"] = json!(told.iter().take(TOLD_MAX).collect::<Vec<_>>());
    result["differences_count"] = told.len().into();
    result
}

fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

/// Three decimals: microseconds of a millisecond.
fn rounded(number: f64) -> Value {
    json!((number * 1000.0).round() / 1000.0)
}

/// Percentiles in milliseconds; null without a single time.
fn percentiles(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    let at = |quantile| rounded(histogram.value_at_quantile(quantile) as f64 / 1000.0);
    json!({
        "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p99.9": at(0.999),
        "max": rounded(histogram.max() as f64 / 1000.0), "count": histogram.len(),
    })
}

/// The same for people.
pub(super) fn table(result: &Value, paint: Paint) -> String {
    let loops = match &result["rate"] {
        Value::Null => "as fast as they are answered".to_owned(),
        rate => format!("{rate}/s"),
    };
    let outcomes = &result["outcomes"];
    let mut rows = vec![
        ("profile", format!("{}, {} clients, {loops}", text(&result["profile"]), result["clients"])),
        ("requests", format!("{} in {} s, {}/s", result["requests"], result["seconds"], result["per_second"])),
        (
            "outcomes",
            format!(
                "{} accepted, {} rejected, {} unknown",
                outcomes["accepted"], outcomes["rejected"], outcomes["unknown"]
            ),
        ),
    ];
    let refusals = result["refusals"].as_object().into_iter().flatten();
    rows.extend(refusals.map(|(code, times)| ("  refused", format!("{times} {code}"))));
    if result["retries"] != 0 {
        rows.push(("retries", result["retries"].to_string()));
    }
    let turned_away = ["told_when", "told_no_time"].map(|how| result["turned_away"][how].as_u64().unwrap_or_default());
    if turned_away != [0, 0] || result["lost"] != 0 {
        let [told, untold] = turned_away;
        let told =
            format!("{told} told when to come back, {untold} without a time, {} without an answer", result["lost"]);
        rows.push(("turned away", told));
        rows.push(("accepted tries", times(&result["tries_ms"])));
    }
    if result["never_sent"] != 0 {
        rows.push(("never sent", format!("{}: the server was too far behind", result["never_sent"])));
    }
    rows.push(("answered after", times(&result["latency_ms"])));
    if result.get("settled").is_some() {
        rows.push(("settled", format!("{}, {}/s", result["settled"], result["settled_per_second"])));
        rows.push(("settled after", times(&result["settled_ms"])));
    }
    let checks = match result["checks"].as_str() {
        Some("passed") => paint.good("money and stock add up"),
        Some("failed") => paint.bad(&format!("{} differences", result["differences_count"])),
        _ => "skipped".to_owned(),
    };
    let mut page = grid(Vec::new(), rows.into_iter().map(|(name, told)| vec![Cell::new(name), Cell::new(told)]), paint);
    page.push_str(&format!(" checks          {checks}\n"));
    page
}

fn times(percentiles: &Value) -> String {
    if percentiles.is_null() {
        return "never".to_owned();
    }
    let told = ["p50", "p90", "p99", "p99.9", "max"].map(|name| format!("{name} {}", percentiles[name]));
    format!("{} ms", told.join("  "))
}

/// How a run fails whose books differ.
pub(super) fn failure(differences: &[String]) -> Failure {
    let failure = Failure::plain(format!("{} things do not add up", differences.len()));
    let told = differences.iter().take(TOLD_MAX).fold(failure, |failure, difference| failure.detail(difference));
    match differences.len().saturating_sub(TOLD_MAX) {
        0 => told,
        more => told.detail(format!("and {more} more")),
    }
}
