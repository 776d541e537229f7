//! `docket log verify`: every byte of a log on this disk, without a node and without changing anything. Each finding has a
//! name that stays, the file and byte it is at, and what to do about it; the exit code says how it stands.

use std::path::PathBuf;
use std::time::Duration;

use comfy_table::{Cell, Color};
use engine_embedded::{Finding, FindingKind, Severity, VerifyOptions, VerifyReport, verify};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::place;
use crate::cli::Global;
use crate::failure::{Exit, Failure};
use crate::house::log::blocking;
use crate::output::{Column, Paint, table, text};

/// What the help shows.
pub(crate) const EXAMPLES: &str = "\
Examples:
  docket log verify docket-data                   exits 1 if anything is damaged
  docket log verify /backup/shop/log --output json
  docket log verify docket-data --memory-mib 64   slower with very many streams, and smaller

Works on the log of a node that is stopped or runs, on a backup, and on a node's local copy of a log in Kafka. Nothing is
written. Exit codes: 0 whole (a torn end that a restart cuts off is whole too), 1 damaged, 2 not verified: no log there, not
readable, or written by a newer version.";

/// What `docket log verify` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArguments {
    /// A data directory, or the directory of a log or a copy
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Most memory for the versions of streams, in MiB; with more streams than fit, the log is read several times
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    memory_mib: u32,
    /// Threads that read [default: as many as there are cores, up to 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
}

const COLUMNS: &[Column] = &[
    Column {
        title: "finding",
        show: |finding| {
            let colour = match finding["severity"].as_str() {
                Some("damage") => Color::Red,
                Some("unknown") => Color::Magenta,
                _ => Color::Yellow,
            };
            Cell::new(text(&finding["name"])).fg(colour)
        },
    },
    Column { title: "file", show: |finding| Cell::new(text(&finding["file"])) },
    Column { title: "byte", show: |finding| Cell::new(text(&finding["byte"])) },
    Column { title: "position", show: |finding| Cell::new(text(&finding["position"])) },
    Column { title: "what", show: |finding| Cell::new(text(&finding["what"])) },
    Column { title: "mend", show: |finding| Cell::new(text(&finding["mend"])) },
];

/// Does it.
pub(super) async fn run(arguments: VerifyArguments, global: &Global) -> Result<(), Failure> {
    let directory = place::find(&arguments.directory)?;
    let default = VerifyOptions::default();
    let options = VerifyOptions {
        versions_bytes_max: (arguments.memory_mib as usize) << 20,
        threads: arguments.threads.map_or(default.threads, usize::from),
    };
    let shown = directory.display().to_string();
    let report = blocking(move || {
        let bar = bar();
        let progress = |done: u64, all: u64| {
            bar.set_length(all);
            bar.set_position(done);
        };
        let report = verify(&directory, options, &progress).map_err(|fault| place::cannot_read(&fault));
        bar.finish_and_clear();
        report
    })
    .await?;
    global.screen().item(&told(&report, &shown), for_people)?;
    judged(&report)
}

/// How the command ends.
fn judged(report: &VerifyReport) -> Result<(), Failure> {
    let count = |severity| report.findings.iter().filter(|finding| finding.kind.severity() == severity).count();
    match report.worst() {
        Severity::Note => Ok(()),
        Severity::Unknown => Err(Failure::plain("not all of the log could be verified").exit(Exit::Usage)),
        Severity::Damage if report.findings_left_out > 0 => {
            let more = report.findings_left_out;
            Err(Failure::plain(format!("the log is damaged: {} findings and {more} more", report.findings.len())))
        }
        Severity::Damage if count(Severity::Damage) == 1 => Err(Failure::plain("the log is damaged in one place")),
        Severity::Damage => Err(Failure::plain(format!("the log is damaged in {} places", count(Severity::Damage)))),
    }
}

/// What can be done about it.
fn mend(kind: FindingKind, copy: bool) -> &'static str {
    match kind {
        FindingKind::TornTail if copy => "nothing to do: the node cuts it off and fetches it again",
        FindingKind::TornTail => "nothing to do: the node cuts it off when it starts, or says that a store knew it",
        FindingKind::IndexUnusable => "nothing to do",
        FindingKind::InUse => "verify again once the node is stopped, to have the end judged too",
        FindingKind::TooNew => "verify with the version of docket that wrote it, or a newer one",
        FindingKind::Unreadable => "look at the kernel's log, and copy the directory to a disk that is well",
        _ if copy => "stop the node and remove this directory: all of it is fetched again",
        FindingKind::SegmentMissing | FindingKind::SegmentForeign => {
            "put the segment back that belongs there, or restore the directory from a backup"
        }
        FindingKind::SegmentHeader
        | FindingKind::SegmentChain
        | FindingKind::GroupDamaged
        | FindingKind::GroupMisplaced => "keep the directory as it is, and restore it from a backup",
        // Under whole checksums: nobody altered it.
        FindingKind::RecordDamaged
        | FindingKind::GenesisWrong
        | FindingKind::VersionGap
        | FindingKind::ResourceVersion
        | FindingKind::TimeBackwards
        | FindingKind::StreamMisplaced => {
            "it was written so: keep the directory, report it as a fault of the program that wrote it"
        }
    }
}

fn told(report: &VerifyReport, directory: &str) -> Value {
    let verdict = match report.worst() {
        Severity::Note => "whole",
        Severity::Unknown => "unknown",
        Severity::Damage => "damaged",
    };
    let ends: serde_json::Map<String, Value> =
        report.ends.iter().map(|(partition, end)| (partition.to_string(), json!(end.0))).collect();
    let seconds = report.took.as_secs_f64();
    let read_bytes = report.bytes * u64::from(report.readings);
    json!({
        "verdict": verdict, "directory": directory, "log_id": report.log.to_string(), "copy": report.copy,
        "partitions": report.partitions, "segments": report.segments, "groups": report.groups, "bytes": report.bytes,
        "records": report.records, "ignored": report.ignored, "commands": report.commands, "events": report.events,
        "streams": report.streams, "ends": ends, "all_records_judged": report.complete, "readings": report.readings,
        "findings": report.findings.iter().map(|finding| finding_told(finding, report.copy)).collect::<Vec<_>>(),
        "findings_left_out": report.findings_left_out,
        "seconds": (seconds * 1_000.0).round() / 1_000.0,
        "megabytes_per_second": (read_bytes as f64 / seconds.max(1e-9) / 1e6).round(),
    })
}

fn finding_told(finding: &Finding, copy: bool) -> Value {
    let severity = match finding.kind.severity() {
        Severity::Note => "note",
        Severity::Unknown => "unknown",
        Severity::Damage => "damage",
    };
    json!({
        "name": finding.kind.name(), "severity": severity, "file": finding.file.display().to_string(),
        "byte": finding.byte, "position": finding.position.map(|position| position.to_string()),
        "what": finding.what, "mend": mend(finding.kind, copy),
    })
}

fn for_people(told: &Value, paint: Paint) -> String {
    let verdict = match told["verdict"].as_str() {
        Some("whole") => paint.good("whole:"),
        Some("damaged") => paint.bad("damaged:"),
        _ => paint.bad("not verified:"),
    };
    let what = if told["copy"] == true { "copy of log" } else { "log" };
    let mut lines = format!(
        "{verdict} {what} {} in {}\n  {} segments, {} groups, {} records of {} partitions; {} commands, {} events of {} \
         streams; {} records that do not count\n  {:.1} MB in {} s, {} MB/s",
        text(&told["log_id"]),
        text(&told["directory"]),
        told["segments"],
        told["groups"],
        told["records"],
        told["partitions"],
        told["commands"],
        told["events"],
        told["streams"],
        told["ignored"],
        told["bytes"].as_f64().unwrap_or_default() / 1e6,
        told["seconds"],
        told["megabytes_per_second"].as_f64().unwrap_or_default(),
    );
    if told["readings"] != 1 {
        lines
            .push_str(&format!("; read {} times, because so many streams do not fit (--memory-mib)", told["readings"]));
    }
    lines.push('\n');
    if told["all_records_judged"] == false {
        lines.push_str(
            "  behind the first damage only checksums were verified: versions follow from all that is before\n",
        );
    }
    let findings = told["findings"].as_array().map_or(&[][..], Vec::as_slice);
    if !findings.is_empty() {
        lines.push('\n');
        lines.push_str(&table(COLUMNS, findings, paint));
    }
    if told["findings_left_out"] != 0 {
        lines.push_str(&format!("and {} more\n", told["findings_left_out"]));
    }
    lines
}

/// Shown on a terminal only.
fn bar() -> ProgressBar {
    let style = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(0).with_style(style).with_message("verifying");
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(kind: FindingKind) -> Finding {
        Finding { kind, file: "0000000000.segment".into(), byte: 104, position: None, what: "x".to_owned() }
    }

    fn report(findings: Vec<Finding>) -> VerifyReport {
        VerifyReport {
            log: engine::position::LogId(uuid::Uuid::nil()),
            partitions: 1,
            copy: false,
            segments: 1,
            groups: 1,
            bytes: 1,
            records: 1,
            ignored: 0,
            commands: 0,
            events: 0,
            streams: 0,
            ends: Vec::new(),
            readings: 1,
            complete: true,
            findings,
            findings_left_out: 0,
            took: Duration::from_secs(1),
        }
    }

    #[test]
    fn the_exit_code_tells_whole_from_damaged_from_not_verified() {
        let ends_with = |kinds: &[FindingKind]| {
            judged(&report(kinds.iter().copied().map(finding).collect())).map_err(|failure| failure.code())
        };
        assert_eq!(ends_with(&[]), Ok(()));
        assert_eq!(ends_with(&[FindingKind::TornTail, FindingKind::IndexUnusable, FindingKind::InUse]), Ok(()));
        assert_eq!(ends_with(&[FindingKind::TornTail, FindingKind::TooNew]), Err(Exit::Usage));
        assert_eq!(ends_with(&[FindingKind::Unreadable, FindingKind::GroupDamaged]), Err(Exit::Refused));
    }

    #[test]
    fn a_finding_is_told_with_name_place_and_mend() {
        let report = report(vec![finding(FindingKind::GroupDamaged)]);
        let told = told(&report, "here");
        assert_eq!(told["findings"][0]["name"], "group-damaged");
        assert!(told["findings"][0]["mend"].as_str().is_some_and(|mend| mend.contains("backup")));
        let shown = for_people(&told, Paint::never());
        assert!(shown.starts_with("damaged: log ") && shown.contains("group-damaged"), "{shown}");
    }
}
