//! This machine's clock: whether it can be right at all, whether it is set or bent while we look, and whether anybody is
//! seen to keep it right. Times in the log are UTC and never go back within a partition: a clock that runs ahead and is set
//! back makes recorded times stand still until it has caught up.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Finding;

/// How long both clocks are watched.
const WATCHED: Duration = Duration::from_millis(300);
/// Apart by more than this after that, somebody has set the clock.
const STEP: Duration = Duration::from_millis(20);
/// No clock is right before this program was made: 2025-01-01.
const EARLIEST_S: u64 = 1_735_689_600;
/// Nor after 2100-01-01.
const LATEST_S: u64 = 4_102_444_800;
/// What daemons that keep the clock right leave here while they run or when they have done it.
const KEEPERS: [(&str, &str); 6] = [
    ("/run/systemd/timesync/synchronized", "systemd-timesyncd"),
    ("/run/chrony/chronyd.pid", "chrony"),
    ("/run/chronyd.pid", "chrony"),
    ("/var/run/chrony/chronyd.pid", "chrony"),
    ("/run/ntpd.pid", "ntpd"),
    ("/run/openntpd.pid", "openntpd"),
];

/// Looks at it. Takes a moment.
pub(super) fn look() -> Vec<Finding> {
    let (began, at) = (Instant::now(), SystemTime::now());
    std::thread::sleep(WATCHED);
    let (steady, wall) = (began.elapsed(), SystemTime::now());
    let keeper = KEEPERS.iter().find(|(path, _)| Path::new(path).exists()).map(|(_, name)| *name);
    vec![judge(at, steady, wall, keeper, &zone())]
}

fn judge(at: SystemTime, steady: Duration, wall: SystemTime, keeper: Option<&str>, zone: &str) -> Finding {
    let now_s = wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if !(EARLIEST_S..LATEST_S).contains(&now_s) {
        let what = format!("it is {now_s} s after 1970, which cannot be");
        return Finding::failed("clock", what, "set the clock before anything is recorded: what is in a log stays");
    }
    let went = match wall.duration_since(at) {
        Ok(forward) => forward.as_secs_f64(),
        Err(back) => -back.duration().as_secs_f64(),
    };
    let step_s = went - steady.as_secs_f64();
    if step_s.abs() > STEP.as_secs_f64() {
        let way = if step_s > 0.0 { "forward" } else { "back" };
        let what = format!("somebody set the clock {way} by {:.3} s while it was looked at", step_s.abs());
        return Finding::note("clock", what, "let one daemon bend it slowly instead (chrony: makestep only at boot)");
    }
    let kept = match keeper {
        Some(keeper) => format!("{keeper} keeps it"),
        // In a container it is the host that does.
        None => "who keeps it right cannot be seen from here".to_owned(),
    };
    let what = format!(
        "steady within {:.1} ms in {} ms; {kept}; zone {zone}, times are kept and told in UTC",
        step_s.abs() * 1e3,
        steady.as_millis()
    );
    Finding::ok("clock", what)
}

/// What people here call their time.
fn zone() -> String {
    let named = std::env::var("TZ").ok().filter(|zone| !zone.is_empty());
    let linked = || {
        let link = std::fs::read_link("/etc/localtime").ok()?;
        link.to_str()?.split_once("zoneinfo/").map(|(_, zone)| zone.to_owned())
    };
    named.or_else(linked).unwrap_or_else(|| "UTC".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_clock_that_is_set_or_cannot_be_right_is_told() {
        let at = UNIX_EPOCH + Duration::from_secs(1_780_000_000);
        let steady = Duration::from_millis(300);
        let found = |wall: SystemTime| judge(at, steady, wall, None, "UTC");
        assert_eq!(found(at + steady).state, State::Ok);
        assert_eq!(found(at + Duration::from_millis(310)).state, State::Ok);
        let forward = found(at + Duration::from_secs(3_600));
        assert_eq!(forward.state, State::Note);
        assert!(forward.what.contains("forward by 3599.7"), "{forward:?}");
        assert!(found(at - Duration::from_secs(1)).what.contains("back by 1.3"));
        assert_eq!(found(UNIX_EPOCH).state, State::Failed);
        assert!(judge(at, steady, at + steady, Some("chrony"), "CET").what.contains("chrony keeps it; zone CET"));
    }
}
