//! The data directory: whether it can be written, how much room there is, and how long a flush takes, which is what every
//! answer of an embedded log waits for. What is written to find out is removed again.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::statvfs;
use uuid::Uuid;

use super::Finding;

/// Flushes measured: enough for a median, done in a moment on any disk worth having.
const FLUSHES: usize = 64;
/// Longest that measuring may take, however slow the disk.
const FLUSHES_WITHIN: Duration = Duration::from_secs(5);
/// Bytes of each: a small group of records.
const FLUSH_BYTES: usize = 4 << 10;
/// Slower ones are told.
const FLUSH_SLOW: Duration = Duration::from_millis(20);
/// With less room than two segments a log soon says that it is full.
const ROOM_LEAST: u64 = 256 << 20;
/// With less than that it is time to look.
const ROOM_LITTLE: u64 = 2 << 30;

/// Looks at it.
pub(super) fn look(data: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let there = match nearest(data) {
        Some(there) => there,
        None => {
            return vec![Finding::failed("data", format!("{} is nowhere", data.display()), "choose another directory")];
        }
    };
    if there == data {
        findings.push(Finding::ok("data", format!("{} is there", data.display())));
    } else {
        findings.push(Finding::ok("data", format!("{} will be made", data.display())));
    }
    findings.extend(room(there));
    findings.push(flushes(there));
    findings
}

/// The directory, or the one it would be made in.
fn nearest(data: &Path) -> Option<&Path> {
    let here = Path::new(".");
    data.ancestors().map(|path| if path.as_os_str().is_empty() { here } else { path }).find(|path| path.is_dir())
}

fn room(directory: &Path) -> Option<Finding> {
    let stat = statvfs(directory).ok()?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let what = format!("{} MiB are free in {}", free >> 20, directory.display());
    Some(match free {
        0..ROOM_LEAST => Finding::failed("room", what, "make room, or choose a larger disk"),
        ROOM_LEAST..ROOM_LITTLE => Finding::note("room", what, "make room soon: a log that is full refuses commands"),
        _ => Finding::ok("room", what),
    })
}

fn flushes(directory: &Path) -> Finding {
    match measure(directory) {
        Ok(p50) => {
            let what = format!("a flush takes {:.2} ms (p50 of up to {FLUSHES})", p50.as_secs_f64() * 1e3);
            if p50 > FLUSH_SLOW {
                Finding::note("flush", what, "an embedded log answers no faster than that: choose a faster disk")
            } else {
                Finding::ok("flush", what)
            }
        }
        Err(error) => Finding::failed(
            "data",
            format!("{} cannot be written: {error}", directory.display()),
            "give this user the directory, or choose another",
        ),
    }
}

fn measure(directory: &Path) -> std::io::Result<Duration> {
    let path = directory.join(format!(".docket-doctor-{}", Uuid::now_v7()));
    let mut file = File::create_new(&path)?;
    let began = Instant::now();
    let mut took = Vec::with_capacity(FLUSHES);
    let mut measured = Ok(());
    while took.len() < FLUSHES && began.elapsed() < FLUSHES_WITHIN && measured.is_ok() {
        let one = Instant::now();
        measured = file.write_all(&[0x64; FLUSH_BYTES]).and_then(|()| file.sync_data());
        took.push(one.elapsed());
    }
    drop(file);
    fs::remove_file(&path)?;
    measured?;
    took.sort_unstable();
    Ok(took[took.len() / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_measured_and_left_as_it_was() {
        let directory = std::env::temp_dir().join(format!("docket-doctor-test-{}", Uuid::now_v7()));
        fs::create_dir(&directory).unwrap();
        let checks: Vec<_> = look(&directory).into_iter().map(|finding| finding.check).collect();
        assert_eq!(checks, ["data", "room", "flush"]);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
        let below = directory.join("not/there/yet");
        assert!(look(&below)[0].what.ends_with("will be made"));
        assert!(!directory.join("not").exists());
        fs::remove_dir(&directory).unwrap();
    }
}
