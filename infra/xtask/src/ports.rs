//! Free ports of loopback, kept until they are no longer needed. They lie below the range from which the kernel draws ports
//! for outgoing connections: a broker that is dead for a while finds its own port free when it comes back. A locked file per
//! port keeps two of our processes from choosing the same.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The ports we choose from. Linux draws outgoing ones from 32768 up.
const LOWEST: u16 = 20_000;
const HIGHEST: u16 = 31_999;

/// A port of 127.0.0.1 that nobody else of us takes while this lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:number`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}

/// So many free ports.
///
/// # Errors
/// When there are not that many, or no file can be made for them.
pub fn take(count: usize) -> Result<Vec<Port>, String> {
    let folder = folder()?;
    let span = u64::from(HIGHEST - LOWEST) + 1;
    // Any start will do: it only keeps processes that begin at once from asking for the same ports in the same order.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::from(since.subsec_nanos()));
    let start = (now ^ (u64::from(std::process::id()) << 7)) % span;
    let mut taken = Vec::new();
    for step in 0..span {
        if taken.len() == count {
            break;
        }
        let number = LOWEST + u16::try_from((start + step) % span).expect("less than the span");
        taken.extend(lock(&folder, number));
    }
    if taken.len() == count { Ok(taken) } else { Err(format!("no {count} free ports from {LOWEST} to {HIGHEST}")) }
}

/// This port if it is free, else any.
///
/// # Errors
/// As [`take`].
pub fn take_rather(number: u16) -> Result<Port, String> {
    match lock(&folder()?, number) {
        Some(port) => Ok(port),
        None => take(1)?.pop().ok_or_else(|| "no free port".to_owned()),
    }
}

fn lock(folder: &Path, number: u16) -> Option<Port> {
    let lock = File::options().create(true).truncate(false).write(true).open(folder.join(number.to_string())).ok()?;
    let free = lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok();
    free.then_some(Port { number, _lock: lock })
}

fn folder() -> Result<PathBuf, String> {
    let user = rustix::process::geteuid().as_raw();
    let folder = std::env::temp_dir().join(format!("docket-ports-{user}"));
    fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    Ok(folder)
}
