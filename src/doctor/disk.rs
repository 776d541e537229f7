//! The data directory: whether it can be written, how much room there is, and how long a flush takes, which is what every
//! answer of an embedded log waits for. What is written to find out is removed again.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::statvfs;
use uuid::Uuid;

use super::Finding;

/// Flushes measured: enough for the slowest in a hundred, done in a moment on any disk worth having.
const FLUSHES: usize = 200;
/// Longest that measuring may take, however slow the disk.
const FLUSHES_WITHIN: Duration = Duration::from_secs(5);
/// Bytes of each: a small group of records.
const FLUSH_BYTES: usize = 4 << 10;
/// Half of them slower than that is told.
const FLUSH_SLOW: Duration = Duration::from_millis(20);
/// One in a hundred slower than that is told: every answer waits for one.
const FLUSH_SLOW_P99: Duration = Duration::from_millis(100);
/// No disk has it on its platter or in its flash faster: somebody keeps it in memory.
const FLUSH_TOO_FAST: Duration = Duration::from_micros(15);
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
        Ok(took) => judge(&took, is_memory(directory)),
        Err(error) => Finding::failed(
            "data",
            format!("{} cannot be written: {error}", directory.display()),
            "give this user the directory, or choose another",
        ),
    }
}

/// Whether what is in the directory goes with the machine.
fn is_memory(directory: &Path) -> bool {
    // The kernel's numbers of tmpfs and ramfs.
    rustix::fs::statfs(directory).is_ok_and(|stat| [0x0102_1994, 0x8584_58f6].contains(&stat.f_type))
}

/// What sorted times of flushes say about the disk.
fn judge(took: &[Duration], memory: bool) -> Finding {
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
    let (p50, p99) = (at(50), at(99));
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    // Commands of one caller wait for one each; those of many share them.
    let alone = 1.0 / p50.as_secs_f64().max(1e-9);
    let what = format!(
        "a flush of {} KiB takes {:.3} ms (p50), {:.3} ms (p99) of {}: at most {alone:.0} commands/s for who sends one after \
         the other",
        FLUSH_BYTES >> 10,
        ms(p50),
        ms(p99),
        took.len(),
    );
    if memory {
        Finding::note(
            "flush",
            format!("{what}; it is memory"),
            "what is acknowledged goes with the machine: use a disk",
        )
    } else if p50 > FLUSH_SLOW {
        Finding::note("flush", what, "an embedded log answers no faster than that: choose a faster disk")
    } else if p99 > FLUSH_SLOW_P99 {
        let mend = "see who else writes to this disk: one command in a hundred waits so long";
        Finding::note("flush", what, mend)
    } else if p50 < FLUSH_TOO_FAST {
        let mend = "see that its cache survives a power cut; else nothing that is acknowledged does";
        Finding::note("flush", format!("{what}; no disk is so fast, a cache is"), mend)
    } else {
        Finding::ok("flush", what)
    }
}

/// Sorted.
fn measure(directory: &Path) -> std::io::Result<Vec<Duration>> {
    let path = directory.join(format!(".docket-doctor-{}", Uuid::now_v7()));
    let mut file = File::create_new(&path)?;
    let mut took = Vec::with_capacity(FLUSHES);
    // Written once before: a log's segments are there before they are written to.
    let mut measured = file.write_all(&[0; FLUSH_BYTES]).and_then(|()| file.sync_all());
    let began = Instant::now();
    while took.len() < FLUSHES && began.elapsed() < FLUSHES_WITHIN && measured.is_ok() {
        let one = Instant::now();
        measured = file.write_all_at(&[0x64; FLUSH_BYTES], 0).and_then(|()| file.sync_data());
        took.push(one.elapsed());
    }
    drop(file);
    fs::remove_file(&path)?;
    measured?;
    took.sort_unstable();
    Ok(took)
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

    #[test]
    fn slow_disks_spikes_caches_and_memory_are_told_apart() {
        let times = |p50_us: u64, p99_us: u64| {
            let mut took = vec![Duration::from_micros(p50_us); 98];
            took.extend([Duration::from_micros(p99_us); 2]);
            took
        };
        let mend = |p50_us, p99_us, memory| judge(&times(p50_us, p99_us), memory).mend;
        assert_eq!(mend(120, 200, false), "");
        assert!(mend(30_000, 40_000, false).contains("faster disk"));
        assert!(mend(500, 200_000, false).contains("one command in a hundred"));
        assert!(mend(2, 5, false).contains("power cut"));
        assert!(mend(120, 200, true).contains("use a disk"));
        assert!(judge(&times(1_000, 2_000), false).what.contains("1.000 ms (p50), 2.000 ms (p99)"));
    }
}
