//! Programs that run beside us: started with their output in a file, found again by pid, stopped, paused and killed. One
//! that belongs to us ends when we do, however we end: a small shell holds it, reads from a pipe of ours, and kills it when
//! that pipe closes. A detached one goes on and is found again by what [`Name`] says of it, so that a pid that the system
//! gave to somebody else meanwhile is never taken for ours.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, kill_process};

pub use rustix::process::Signal;

/// How long a program may take to be gone after SIGKILL: longer means that the kernel holds it.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks at something that has no better way to tell.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(10);
/// Most of a log that a message shows, from its end, in bytes.
const TAIL_MAX: usize = 4 * 1024;

/// Starts the program, says its pid, waits for a line or the end of its pipe, and kills it. Without a line whoever held
/// the pipe is dead, and what was left behind goes too. The program stays a child of the shell to the end, so its pid is
/// nobody else's.
const WATCH: &str = r#"log=$1; left=$2; shift 2
"$@" </dev/null >>"$log" 2>&1 &
child=$!
echo "$child"
read -r _ && left=
kill -9 "$child" 2>/dev/null
wait "$child" 2>/dev/null
[ -z "$left" ] || rm -rf "$left"
"#;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// What its environment has beyond ours.
    pub environment: Vec<(String, String)>,
    /// Where it runs.
    pub directory: PathBuf,
    /// The file that its output is added to.
    pub log: PathBuf,
    /// User and group to run as, if not ours. Needs root.
    pub user: Option<(u32, u32)>,
    /// Where nothing is to be left when its owner dies without a chance to clean up: a test that ends by `exit` drops
    /// nothing.
    pub left_behind: Option<PathBuf>,
}

impl Recipe {
    /// A program that runs in `directory` and writes to `log`.
    pub fn new(program: impl Into<PathBuf>, directory: &Path, log: &Path) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: directory.to_owned(),
            log: log.to_owned(),
            user: None,
            left_behind: None,
        }
    }

    /// With these arguments added.
    #[must_use]
    pub fn arguments(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// The end of what it wrote, for messages.
    pub fn tail(&self) -> String {
        let written = fs::read(&self.log).unwrap_or_default();
        let from = written.len().saturating_sub(TAIL_MAX);
        format!("the end of {}:\n{}", self.log.display(), String::from_utf8_lossy(&written[from..]))
    }
}

/// How long a program lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// As long as whoever started it.
    Ours,
    /// Until somebody ends it.
    Detached,
}

/// Who a process is: its pid, and when it began as the kernel counts it (0 where that cannot be known).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    /// Its pid.
    pub pid: i32,
    /// Clock ticks from the machine's start to its own.
    pub began: u64,
}

impl Name {
    /// The process that has this pid now.
    pub fn of(pid: i32) -> Self {
        Self { pid, began: stat(pid).map_or(0, |stat| stat.began) }
    }

    /// Whether it is there and has not ended.
    pub fn is_alive(self) -> bool {
        match stat(self.pid) {
            Some(stat) => stat.state != 'Z' && stat.began == self.began,
            // Without /proc only this can be asked.
            None => !Path::new("/proc/self/stat").exists() && self.signal_raw(None),
        }
    }

    /// Whether it is stopped by SIGSTOP.
    pub fn is_paused(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.state == 'T' && stat.began == self.began)
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it is gone, or is not ours to signal.
    pub fn signal(self, signal: Signal) -> Result<(), String> {
        if self.is_alive() && self.signal_raw(Some(signal)) {
            return Ok(());
        }
        Err(format!("process {} is gone or not ours", self.pid))
    }

    /// The processes it began that are still there.
    pub fn children(self) -> Vec<Self> {
        let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
        all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
            .filter_map(|pid| stat(pid).filter(|stat| stat.parent == self.pid).map(|stat| (pid, stat)))
            .map(|(pid, stat)| Self { pid, began: stat.began })
            .collect()
    }

    /// Freezes it and all that it began with SIGSTOP: connections stay open and nothing comes out of them.
    ///
    /// # Errors
    /// When it is gone, or is not ours to signal.
    pub fn pause(self) -> Result<(), String> {
        // The first before the others, so that it begins no more of them.
        self.signal(Signal::STOP)?;
        for child in self.children() {
            // One that has just ended needs no pause.
            let _ = child.signal(Signal::STOP);
        }
        Ok(())
    }

    /// Lets what is paused go on.
    ///
    /// # Errors
    /// When it is gone, or is not ours to signal.
    pub fn resume(self) -> Result<(), String> {
        for child in self.children() {
            let _ = child.signal(Signal::CONT);
        }
        self.signal(Signal::CONT)
    }

    /// Kills it and all that it began with SIGKILL, and waits until all of them are gone.
    ///
    /// # Errors
    /// When one is still there after 10 s.
    pub fn kill(self) -> Result<(), String> {
        let family = self.children();
        for one in std::iter::once(self).chain(family) {
            // Gone already is as good.
            let _ = one.signal(Signal::KILL);
            one.wait_gone(GONE_WITHIN)?;
        }
        Ok(())
    }

    /// Waits until it is gone.
    ///
    /// # Errors
    /// When it is still there after this time.
    pub fn wait_gone(self, within: Duration) -> Result<(), String> {
        let began = Instant::now();
        while self.is_alive() {
            if began.elapsed() > within {
                return Err(format!("process {} is still there after {} s", self.pid, within.as_secs()));
            }
            std::thread::sleep(LOOK_AGAIN_AFTER);
        }
        Ok(())
    }

    fn signal_raw(self, signal: Option<Signal>) -> bool {
        let Some(pid) = Pid::from_raw(self.pid) else { return false };
        match signal {
            Some(signal) => kill_process(pid, signal).is_ok(),
            None => rustix::process::test_kill_process(pid).is_ok(),
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.pid)
    }
}

#[derive(Clone, Copy, Debug)]
struct Stat {
    state: char,
    parent: i32,
    began: u64,
}

/// What Linux tells of a process; `None` if it is gone.
fn stat(pid: i32) -> Option<Stat> {
    let told = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets, and may hold spaces and brackets itself.
    let (_, rest) = told.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        began: fields.get(19)?.parse().ok()?,
    })
}

/// A program that was started. One that is ours is killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    name: Name,
    watcher: Option<Child>,
}

impl Running {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn start(recipe: &Recipe, life: Life) -> Result<Self, String> {
        let fault = |error: std::io::Error| format!("cannot run {}: {error}", recipe.program.display());
        let mut command = match life {
            Life::Ours => {
                let mut command = Command::new("/bin/sh");
                command.args(["-c", WATCH, "docket-watch"]).arg(&recipe.log);
                command.arg(recipe.left_behind.as_deref().unwrap_or(Path::new(""))).arg(&recipe.program);
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
                command
            }
            Life::Detached => {
                let log = File::options().create(true).append(true).open(&recipe.log).map_err(fault)?;
                let mut command = Command::new(&recipe.program);
                command.stdin(Stdio::null()).stdout(log.try_clone().map_err(fault)?).stderr(log);
                command
            }
        };
        command.args(&recipe.arguments).current_dir(&recipe.directory);
        command.envs(recipe.environment.iter().map(|(name, value)| (name, value)));
        // A group of its own: Ctrl-C is for whoever started it, who then ends it in order.
        command.process_group(0);
        if let Some((user, group)) = recipe.user {
            command.uid(user).gid(group);
        }
        let mut child = command.spawn().map_err(fault)?;
        if life == Life::Detached {
            let pid = i32::try_from(child.id()).map_err(|_| "a pid beyond 31 bits".to_owned())?;
            return Ok(Self { name: Name::of(pid), watcher: None });
        }
        let mut said = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut said).map_err(fault)?;
        let pid = said.trim().parse().map_err(|_| format!("cannot run {}: no pid", recipe.program.display()))?;
        Ok(Self { name: Name::of(pid), watcher: Some(child) })
    }

    /// Who it is.
    pub fn name(&self) -> Name {
        self.name
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&self) -> bool {
        !self.name.is_alive()
    }

    /// Kills it with SIGKILL and waits until it is gone. Nothing if it is.
    pub fn kill(&mut self) {
        // Gone already is as good.
        let _ = self.name.signal(Signal::KILL);
        match self.watcher.take() {
            Some(mut watcher) => {
                if let Some(mut pipe) = watcher.stdin.take() {
                    // It may be gone, and so are its files then.
                    let _ = pipe.write_all(b"\n");
                }
                let _ = watcher.wait();
            }
            None => {
                let _ = self.name.wait_gone(GONE_WITHIN);
            }
        }
    }

    /// Asks it to end with this signal, and waits until it is gone.
    ///
    /// # Errors
    /// When it is still there after this time; then it is killed.
    pub fn end(mut self, signal: Signal, within: Duration) -> Result<(), String> {
        let gone = self.name.signal(signal).and_then(|()| self.name.wait_gone(within));
        self.kill();
        gone
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.watcher.is_some() {
            self.kill();
        }
    }
}

/// Whether we are root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The first program of this name in `PATH`.
pub fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Runs something that ends by itself, and gives what it printed.
///
/// # Errors
/// What it printed, if it failed.
pub fn run(command: &mut Command) -> Result<String, String> {
    let told = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("cannot run {told}: {error}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    Err(format!("{told} failed with {}:\n{stdout}{}", output.status, String::from_utf8_lossy(&output.stderr)))
}
