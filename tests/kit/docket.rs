//! One process of the product: started, watched until it serves, and ended by SIGTERM, by SIGKILL, or at the latest when
//! it goes out of scope. What it prints is kept, so that a failing test can show it.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use xtask::ports::{self, Port};

use crate::client::Client;
use crate::clock::Clock;

/// How long a start may take before it counts as failed. Far above what is promised: who promises less measures
/// [`Docket::ready_in`].
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a drain may take: the product allows itself 8 s.
const STOP_WITHIN: Duration = Duration::from_secs(15);
/// Between two looks at something that has no better way to tell.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(5);
/// Most of what a process printed that is kept, from its end: enough to see what went wrong.
const PRINTED_MAX: usize = 256 * 1024;

/// A running `docket dev` or `docket serve`.
#[derive(Debug)]
pub struct Docket {
    child: Child,
    address: String,
    /// Ours as long as it runs, if it was chosen before.
    port: Option<Port>,
    printed: Printed,
    /// They read what it prints until it has ended.
    readers: Vec<JoinHandle<()>>,
    began: Instant,
    ready_in: Duration,
}

/// It did not come to serve.
#[derive(Debug)]
pub struct StartFault {
    /// What went wrong.
    pub what: String,
    /// All it printed, stdout and stderr.
    pub printed: String,
}

impl std::fmt::Display for StartFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "docket did not start: {}\n{}", self.what, self.printed)
    }
}

#[derive(Clone, Debug, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl Printed {
    fn add(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().expect("nobody panics with the lock");
        kept.extend_from_slice(bytes);
        let over = kept.len().saturating_sub(PRINTED_MAX);
        kept.drain(..over);
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("nobody panics with the lock")).into_owned()
    }
}

impl Docket {
    /// Starts `docket dev` on this directory and waits until it serves.
    ///
    /// # Panics
    /// When it does not, with all it printed.
    pub async fn start(data: &Path, arguments: &[&str]) -> Self {
        Self::try_start(data, arguments).await.unwrap_or_else(|fault| panic!("{fault}"))
    }

    /// Starts `docket dev` on this directory, or tells why it would not serve.
    ///
    /// # Errors
    /// When it ended, or did not serve within a minute.
    pub async fn try_start(data: &Path, arguments: &[&str]) -> Result<Self, StartFault> {
        Self::try_start_in(&[], data, arguments).await
    }

    /// Starts `docket dev` on this directory with this wall clock and waits until it serves.
    ///
    /// # Panics
    /// When it does not, with all it printed.
    pub async fn start_by(clock: &Clock, data: &Path, arguments: &[&str]) -> Self {
        let started = Self::try_start_in(&clock.environment(), data, arguments).await;
        started.unwrap_or_else(|fault| panic!("{fault}"))
    }

    /// Starts `docket dev` on this directory with these in its environment, or tells why it would not serve.
    ///
    /// # Errors
    /// When it ended, or did not serve within a minute.
    pub async fn try_start_in(
        environment: &[(&str, PathBuf)],
        data: &Path,
        arguments: &[&str],
    ) -> Result<Self, StartFault> {
        let mut command = Command::new(binary());
        command.args(["dev", "--listen", "127.0.0.1:0", "--data"]).arg(data).args(arguments);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        Self::try_run(command).await
    }

    /// Starts `docket dev` on this directory in a shell that has done this first, `ulimit -n 64` for example, or tells why it
    /// would not serve.
    ///
    /// # Errors
    /// When it ended, or did not serve within a minute.
    pub async fn try_start_after(first: &str, data: &Path, arguments: &[&str]) -> Result<Self, StartFault> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{first} && exec \"$0\" \"$@\"")).arg(binary());
        command.args(["dev", "--listen", "127.0.0.1:0", "--data"]).arg(data).args(arguments);
        Self::try_run(command).await
    }

    /// Starts `docket serve` with these arguments and waits until it serves.
    ///
    /// # Errors
    /// When it ended, or did not serve within a minute.
    pub async fn serve(arguments: &[&str]) -> Result<Self, StartFault> {
        let mut command = Command::new(binary());
        command.arg("serve").args(arguments);
        Self::try_run(command).await
    }

    /// Starts `docket dev` on this directory with these in its environment and waits only until it answers at all: it may
    /// have much to do before it serves, see [`Docket::until_serving`].
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn begin_in(environment: &[(&str, PathBuf)], data: &Path, arguments: &[&str]) -> Self {
        let port = ports::take(1).expect("a port is free").remove(0);
        let address = port.address();
        let mut command = Command::new(binary());
        command.args(["dev", "--listen", &address, "--data"]).arg(data).args(arguments);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let mut docket = Self::begin(command, &address).await;
        docket.port = Some(port);
        docket
    }

    /// Runs it, to listen at this address, and waits only until it answers at all.
    ///
    /// # Panics
    /// When it does not answer.
    pub(crate) async fn begin(command: Command, address: &str) -> Self {
        let (mut docket, _) = Self::spawn(command);
        docket.address = format!("http://{address}");
        let client = docket.client();
        while client.get("/livez").await.is_none_or(|reply| reply.status != 200) {
            assert!(docket.runs() && docket.began.elapsed() < READY_WITHIN, "docket does not answer");
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
        docket
    }

    /// Runs it and waits until it serves.
    pub(crate) async fn try_run(command: Command) -> Result<Self, StartFault> {
        let (mut docket, address) = Self::spawn(command);
        while docket.address.is_empty() {
            match address.try_recv() {
                Ok(found) => docket.address = found,
                Err(_) => docket = docket.still_starting().await?,
            }
        }
        docket.until_serving().await
    }

    /// Waits until it serves.
    ///
    /// # Errors
    /// When it ended, or did not serve within a minute.
    pub async fn until_serving(mut self) -> Result<Self, StartFault> {
        while self.client().get("/readyz").await.is_none_or(|reply| reply.status != 200) {
            self = self.still_starting().await?;
        }
        self.ready_in = self.began.elapsed();
        Ok(self)
    }

    /// Waits a moment, unless that makes no sense any more.
    async fn still_starting(mut self) -> Result<Self, StartFault> {
        if let Ok(Some(status)) = self.child.try_wait() {
            self.hear_out();
            return Err(self.fault(format!("it ended with {status}")));
        }
        if self.began.elapsed() > READY_WITHIN {
            return Err(self.fault(format!("it does not serve after {} s", READY_WITHIN.as_secs())));
        }
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        Ok(self)
    }

    /// Runs it; tells the address that it prints.
    fn spawn(mut command: Command) -> (Self, mpsc::Receiver<String>) {
        let began = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", binary().display()));
        let printed = Printed::default();
        let (found, address) = mpsc::channel();
        // Both pipes are read to their end: a full one would block the process.
        let stdout = child.stdout.take().expect("stdout is piped");
        let kept = printed.clone();
        let lines = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                kept.add(format!("{line}\n").as_bytes());
                if let Some(address) = address_in(&line) {
                    // The receiver is gone once an address was found.
                    let _ = found.send(address);
                }
            }
        });
        let mut stderr = child.stderr.take().expect("stderr is piped");
        let kept = printed.clone();
        let rest = std::thread::spawn(move || {
            let mut buffer = [0; 8 * 1024];
            while let Ok(read @ 1..) = stderr.read(&mut buffer) {
                kept.add(&buffer[..read]);
            }
        });
        let readers = vec![lines, rest];
        (Self { child, address: String::new(), port: None, printed, readers, began, ready_in: Duration::ZERO }, address)
    }

    /// Its last words are read a moment after it has ended.
    fn hear_out(&mut self) {
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader does not panic");
        }
    }

    fn fault(self, what: String) -> StartFault {
        StartFault { what, printed: self.printed() }
    }

    /// Where it listens: `http://127.0.0.1:4711`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A client with connections of its own.
    pub fn client(&self) -> Client {
        Client::new(&self.address)
    }

    /// From its start to `/readyz` answering 200.
    pub fn ready_in(&self) -> Duration {
        self.ready_in
    }

    /// What it printed so far, stdout and stderr as they came; the last 256 KiB.
    pub fn printed(&self) -> String {
        self.printed.text()
    }

    /// Whether it runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it as `kill -9` does, waits until it is gone, and tells what it had printed.
    pub fn kill9(mut self) -> String {
        self.end();
        self.printed()
    }

    /// Asks it to stop with SIGTERM.
    ///
    /// # Panics
    /// When it was found ended before.
    pub fn ask_to_stop(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM)
            .expect("a child that was not waited for can be signalled");
    }

    /// Asks it to stop and waits until it has.
    ///
    /// # Panics
    /// When it takes longer than it may, or does not exit 0.
    pub async fn terminate(mut self) -> String {
        self.ask_to_stop();
        let status = self.ended().await;
        assert!(status.success(), "docket ended with {status} after SIGTERM\n{}", self.printed());
        self.printed()
    }

    /// Freezes it with SIGSTOP: its connections stay open and nothing comes out of them.
    ///
    /// # Panics
    /// When it has ended.
    pub fn pause(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).expect("it runs");
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// When it has ended.
    pub fn resume(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).expect("it runs");
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// When it takes longer than it may.
    pub async fn ended(&mut self) -> ExitStatus {
        self.ended_within(STOP_WITHIN).await
    }

    /// Waits so long for it to end by itself.
    ///
    /// # Panics
    /// When it takes longer.
    pub async fn ended_within(&mut self, within: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                self.hear_out();
                return status;
            }
            assert!(began.elapsed() < within, "docket does not stop\n{}", self.printed());
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
    }

    fn end(&mut self) {
        // Fails only where it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Docket {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            eprintln!("what docket printed:\n{}", self.printed());
        }
    }
}

/// `http://host:port` in a line, without the path.
fn address_in(line: &str) -> Option<String> {
    let after = line.split_once("http://")?.1;
    let host: String = after.chars().take_while(|c| !c.is_whitespace() && *c != '/').collect();
    Some(format!("http://{host}"))
}

/// The binary under test: `DOCKET_BIN`, else the release build beside this test's own, which is made if it is missing.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(named) = std::env::var_os("DOCKET_BIN") {
            return named.into();
        }
        // target/<profile>/deps/<test>
        let test = std::env::current_exe().expect("a running test knows where it is");
        let target = test.ancestors().nth(3).expect("tests lie three folders below the target folder");
        let binary = target.join("release/docket");
        if !binary.exists() {
            let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
            let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
                .args(["build", "--release", "--package", "docket", "--manifest-path"])
                .arg(manifest)
                .arg("--target-dir")
                .arg(target)
                .status();
            assert!(built.is_ok_and(|status| status.success()), "the binary under test cannot be built");
        }
        binary
    })
}
