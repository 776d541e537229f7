//! What lies in the data directory: the log, the states folded from it and the rows, each with its format and the log it is
//! of, and whether they fit together. Only what no node has open is looked into; nothing is made, wiped or cut.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use domain::Shop;
use engine::decider::Decider;
use engine::position::LogId;
use engine_embedded::{LogFacts, OpenFault, log_facts};
use engine_runtime::store::{StoreFacts, store_facts};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row};

use super::Finding;
use crate::config::{Config, LogKind};
use crate::failure::Failure;
use crate::house::log::blocking;

/// A log whose last bytes were written later than this from now was written by a clock that ran ahead.
const AHEAD: Duration = Duration::from_secs(60);

/// Looks at it.
pub(super) async fn look(config: &Config) -> Result<Vec<Finding>, Failure> {
    let data = config.data.0.clone();
    let folder = match config.log.kind {
        LogKind::Embedded => data.join("log"),
        LogKind::Kafka => data.join("copy"),
    };
    let (finding, facts) = blocking(move || Ok(look_at_log(&folder))).await?;
    let mut findings: Vec<Finding> = finding.into_iter().collect();
    let in_use = facts.as_ref().is_some_and(|facts| facts.user.is_some());
    if !in_use {
        let states = data.join("state");
        let looked = blocking(move || Ok(store_facts(&states))).await?;
        findings.extend(match looked {
            Ok(None) => None,
            Ok(Some(Ok(states))) => Some(judge_states(&states, facts.as_ref())),
            Ok(Some(Err(why))) => Some(afresh(&why)),
            Err(fault) => Some(Finding::note("state", format!("cannot be looked at: {fault}"), "stop who has it open")),
        });
    }
    let url = config.read_store.url.as_deref();
    let rows = match url {
        None => Some(data.join("views.db")),
        Some(url) => url.strip_prefix("sqlite:").map(|path| PathBuf::from(path.trim_start_matches("//"))),
    };
    if let Some(rows) = rows.filter(|rows| rows.is_file()) {
        findings.push(look_at_rows(&rows, facts.as_ref().map(|facts| facts.log)).await);
    }
    Ok(findings)
}

fn look_at_log(folder: &Path) -> (Option<Finding>, Option<LogFacts>) {
    match log_facts(folder) {
        Ok(facts) => (Some(judge_log(folder, &facts, SystemTime::now())), Some(facts)),
        // A node founds one where none is.
        Err(OpenFault::Absent { .. }) => (None, None),
        Err(fault) => {
            let mend = "docket log verify tells all of it; restore the directory from a backup";
            (Some(Finding::failed("log", Failure::of("cannot be read", &fault).to_string(), mend)), None)
        }
    }
}

fn judge_log(folder: &Path, facts: &LogFacts, now: SystemTime) -> Finding {
    let what = format!(
        "{} {}: format {}, {} partitions, {} segments, {} MiB, {} records",
        if facts.copy { "copy of log" } else { "log" },
        facts.log,
        facts.format,
        facts.partitions,
        facts.segments,
        facts.bytes >> 20,
        facts.ends.iter().map(|end| end.0).sum::<u64>(),
    );
    if let Some(damage) = &facts.damage {
        let mend = match facts.copy {
            true => "nothing to do: what is damaged is fetched again".to_owned(),
            false => format!("docket log verify {} tells all of it; restore it from a backup", folder.display()),
        };
        let what = format!("{what}; {damage}");
        return if facts.copy { Finding::note("log", what, mend) } else { Finding::failed("log", what, mend) };
    }
    let ahead = facts.changed_at.and_then(|at| at.duration_since(now).ok()).filter(|ahead| *ahead > AHEAD);
    if let Some(ahead) = ahead {
        let what = format!("{what}; it was last written {} s in the future", ahead.as_secs());
        return Finding::note("log", what, "set the clock: recorded times stand still until it has caught up");
    }
    match &facts.user {
        Some(pid) => Finding::ok("log", format!("{what}; process {pid} has it open")),
        None => Finding::ok("log", what),
    }
}

fn judge_states(states: &StoreFacts, log: Option<&LogFacts>) -> Finding {
    let decider = Shop.version();
    if states.format != states.format_known {
        return afresh(&format!("its format is {}, this program's is {}", states.format, states.format_known));
    }
    if states.decider != decider {
        return afresh(&format!("its states are of decider version {}, this program's is {decider}", states.decider));
    }
    let what = format!("format {}, decider version {}, of log {}", states.format, states.decider, states.log);
    let Some(log) = log else {
        return Finding::note("state", format!("{what}, which is not here"), "see that data names the right directory");
    };
    if (states.log, states.partitions) != (log.log, log.partitions) {
        return afresh(&format!("it is of log {}, not {}", states.log, log.log));
    }
    let pairs = || states.folded.iter().zip(&log.ends);
    // What a store has folded was durable once; a copy is fetched again.
    if let Some((partition, (folded, end))) = pairs().enumerate().find(|(_, (folded, end))| folded > end)
        && !log.copy
        && log.user.is_none()
    {
        let what = format!("{what}; partition {partition} is folded up to {folded}, but the log ends at {end}");
        return Finding::failed("state", what, "the log is an older copy or lost its end: restore the newer one");
    }
    let behind: u64 = pairs().map(|(folded, end)| end.0.saturating_sub(folded.0)).sum();
    Finding::ok("state", format!("{what}, {behind} records behind it"))
}

fn afresh(why: &str) -> Finding {
    Finding::note("state", format!("of no use: {why}"), "nothing to do: it is folded afresh when the node starts")
}

async fn look_at_rows(file: &Path, log: Option<LogId>) -> Finding {
    let shown = file.display();
    let mend = "move it away with its -wal and -shm: it is folded afresh when the node starts";
    let (format, of) = match read_rows(file).await {
        Ok(read) => read,
        Err(error) => return Finding::note("views", format!("{shown} cannot be read: {error}"), mend),
    };
    match (of, log) {
        (Some(of), Some(log)) if of != log.to_string() => {
            Finding::failed("views", format!("{shown} is a fold of log {of}, not of {log}"), mend)
        }
        (Some(of), _) => Finding::ok("views", format!("{shown}: format {format}, of log {of}")),
        (None, _) => Finding::ok("views", format!("{shown}: format {format}, of no log yet")),
    }
}

async fn read_rows(file: &Path) -> Result<(i64, Option<String>), sqlx::Error> {
    let options = SqliteConnectOptions::new().filename(file).read_only(true).disable_statement_logging();
    let mut connection = options.connect().await?;
    let row = sqlx::query("SELECT format, log_id FROM meta").fetch_one(&mut connection).await?;
    let read = (row.try_get(0)?, row.try_get(1)?);
    connection.close().await.ok();
    Ok(read)
}

#[cfg(test)]
mod tests {
    use engine::position::Offset;
    use uuid::Uuid;

    use super::super::State;
    use super::*;

    fn log() -> LogFacts {
        LogFacts {
            log: LogId(Uuid::from_u128(1)),
            partitions: 2,
            format: 1,
            copy: false,
            user: None,
            segments: 1,
            bytes: 8 << 20,
            ends: vec![Offset(10), Offset(20)],
            changed_at: None,
            damage: None,
        }
    }

    fn states(folded: [u64; 2]) -> StoreFacts {
        StoreFacts {
            format: 1,
            format_known: 1,
            log: LogId(Uuid::from_u128(1)),
            partitions: 2,
            decider: Shop.version(),
            folded: folded.map(Offset).to_vec(),
        }
    }

    #[test]
    fn states_that_do_not_fit_are_told_and_those_ahead_of_the_log_are_a_failure() {
        let found = |states: StoreFacts| judge_states(&states, Some(&log()));
        let well = found(states([10, 15]));
        assert!(well.state == State::Ok && well.what.ends_with("5 records behind it"), "{well:?}");
        assert_eq!(found(states([11, 15])).state, State::Failed);
        for other in [
            StoreFacts { log: LogId(Uuid::from_u128(2)), ..states([0, 0]) },
            StoreFacts { format: 2, ..states([0, 0]) },
            StoreFacts { decider: 0, ..states([0, 0]) },
        ] {
            let finding = found(other);
            assert!(finding.state == State::Note && finding.mend.contains("folded afresh"), "{finding:?}");
        }
        assert_eq!(judge_states(&states([0, 0]), None).state, State::Note);
        // A copy is fetched again.
        let copy = LogFacts { copy: true, ..log() };
        assert_eq!(judge_states(&states([11, 15]), Some(&copy)).state, State::Ok);
    }

    #[test]
    fn a_log_from_the_future_is_told() {
        let now = SystemTime::now();
        let ahead = LogFacts { changed_at: Some(now + Duration::from_secs(3_600)), ..log() };
        assert_eq!(judge_log(Path::new("x"), &ahead, now).state, State::Note);
        let past = LogFacts { changed_at: Some(now - Duration::from_secs(3_600)), ..log() };
        assert_eq!(judge_log(Path::new("x"), &past, now).state, State::Ok);
    }
}
