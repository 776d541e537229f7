//! A server in a process of its own, so that its memory and CPU time are its own: the product, or the floor.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Done, How, wire};

/// Longest wait until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(300);
/// How often it is asked meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(2);
/// How often its lag is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The kernel counts CPU time in ticks of 10 ms on every Linux there is.
const TICKS_PER_S: f64 = 100.0;

/// A running server; killed when dropped.
pub(crate) struct Child {
    process: std::process::Child,
    address: SocketAddr,
    /// From start to the first 200 of `/readyz`.
    pub(crate) ready_after: Duration,
    /// Its own directory, if it is not the caller's.
    _scratch: Option<tempfile::TempDir>,
}

impl Child {
    /// `docket dev` on this directory.
    pub(crate) fn docket(how: &How, data: &Path) -> Done<Self> {
        let address = free_address()?;
        let mut command = Command::new(how.docket()?);
        command.args(["dev", "--log", "json", "--listen", &address.to_string(), "--data"]).arg(data);
        Self::start(command, address, None)
    }

    /// The same on a processor of its own, if it [`can_be_apart`].
    pub(crate) fn docket_apart(how: &How, data: &Path) -> Done<Self> {
        let address = free_address()?;
        let mut command = Command::new(how.docket()?);
        if can_be_apart() {
            command = Command::new("taskset");
            command.args(["-c", "0"]).arg(how.docket()?);
        }
        command.args(["dev", "--log", "json", "--listen", &address.to_string(), "--data"]).arg(data);
        Self::start(command, address, None)
    }

    /// The minimal handler, which writes to `scratch`.
    pub(crate) fn floor(scratch: tempfile::TempDir) -> Done<Self> {
        let address = free_address()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve-floor").arg(address.to_string()).arg("--scratch").arg(scratch.path());
        Self::start(command, address, Some(scratch))
    }

    fn start(mut command: Command, address: SocketAddr, scratch: Option<tempfile::TempDir>) -> Done<Self> {
        let began = Instant::now();
        let process = command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn()?;
        let mut child = Self { process, address, ready_after: Duration::ZERO, _scratch: scratch };
        while !matches!(child.get("/readyz"), Ok((200, _))) {
            if let Some(status) = child.process.try_wait()? {
                return Err(format!("the server ended before it was ready: {status}").into());
            }
            if began.elapsed() > READY_WITHIN {
                return Err("the server is not ready".into());
            }
            std::thread::sleep(ASK_EVERY);
        }
        child.ready_after = began.elapsed();
        Ok(child)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks it for something; status and body.
    pub(crate) fn get(&self, path: &str) -> Done<(u16, String)> {
        let reply = wire::get(self.address, path)?;
        Ok((reply.status, reply.body))
    }

    /// Asks it for something; the answer is still to be read.
    pub(crate) fn ask(&self, path: &str, accept: &str) -> Done<TcpStream> {
        let mut stream = TcpStream::connect(self.address)?;
        let host = self.address;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n")?;
        Ok(stream)
    }

    /// A figure of `/metrics`: the sum of all lines of that name.
    pub(crate) fn metric(&self, name: &str) -> Done<f64> {
        Ok(wire::metric(&self.get("/metrics")?.1, name))
    }

    /// Waits until its views reflect the whole log.
    pub(crate) fn caught_up(&self) -> Done<()> {
        // The gauge is there from the first page of the log on.
        while self.metric("docket_projection_events_total")? == 0.0
            || self.metric("docket_projection_lag_events")? > 0.0
        {
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// CPU seconds it has spent.
    pub(crate) fn cpu_s(&self) -> Done<f64> {
        cpu_s(self.process.id())
    }

    /// Files it has open.
    pub(crate) fn open_files(&self) -> Done<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.process.id()))?.count())
    }

    /// The most memory it has had, in MB.
    pub(crate) fn peak_rss_mb(&self) -> Done<f64> {
        peak_rss_mb(self.process.id())
    }

    /// The memory it has now, in MB.
    pub(crate) fn rss_mb(&self) -> Done<f64> {
        memory_mb(self.process.id(), "VmRSS:")
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) -> Done<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits until it has drained.
    pub(crate) fn stop(mut self) -> Done<()> {
        Command::new("kill").arg(self.process.id().to_string()).status()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Gone already, if it was stopped.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// CPU seconds that a process has spent, with those of children that it saw end.
pub(crate) fn cpu_s(pid: u32) -> Done<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name before may hold anything, blanks too.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect::<Vec<_>>();
    let ticks = |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or_default();
    Ok((11..15).map(ticks).sum::<f64>() / TICKS_PER_S)
}

/// The most memory that a process has had, in MB.
pub(crate) fn peak_rss_mb(pid: u32) -> Done<f64> {
    memory_mb(pid, "VmHWM:")
}

fn memory_mb(pid: u32, which: &str) -> Done<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let found = status.lines().find_map(|line| line.strip_prefix(which));
    let kib = found.and_then(|found| found.split_whitespace().next()?.parse::<f64>().ok());
    Ok(kib.ok_or_else(|| format!("no {which}"))? * 1024.0 / 1e6)
}

/// Whether two processes can be given a processor each.
pub(crate) fn can_be_apart() -> bool {
    let tried = Command::new("taskset").args(["-c", "0,1", "true"]).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
        && std::thread::available_parallelism().is_ok_and(|count| count.get() > 1)
}

fn free_address() -> Done<SocketAddr> {
    // Free a moment ago: nobody else on a machine that is being measured should want it.
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
