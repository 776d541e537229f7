//! A real PostgreSQL on loopback in a scratch directory, never a system cluster. It refuses to run as root, so under root
//! it runs as the user `postgres` that its package makes. It trusts everyone on 127.0.0.1, and fsync is on: what it
//! acknowledges survives kill -9 here as it does elsewhere.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::ports::{self, Port};
use crate::process::{self, Life, Recipe, Running, Signal, in_path, is_root};

/// How long it may take to accept connections: a second, or some when it recovers on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a stop may take: it only has to write a checkpoint.
const STOPS_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks at something that has no better way to tell.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Who may do everything, and the database that [`Postgres::url`] names.
const NAME: &str = "docket";

/// Why there can be no PostgreSQL here, with the mend; `None` if there can.
pub fn missing() -> Option<String> {
    if programs().is_none() {
        return Some("no PostgreSQL server (Debian: apt-get install postgresql; 15 or newer)".to_owned());
    }
    (is_root() && user().is_none())
        .then(|| "PostgreSQL refuses to run as root, and there is no user postgres".to_owned())
}

/// A running server. Dropping it ends it and removes its files, unless it was made with a directory.
#[derive(Debug)]
pub struct Postgres {
    recipe: Recipe,
    programs: PathBuf,
    port: Port,
    life: Life,
    running: Option<Running>,
    databases: AtomicU32,
    // Last: files go after those who write them.
    _scratch: Option<TempDir>,
}

impl Postgres {
    /// Starts a new server and waits until it accepts connections. It ends when this is dropped, and also when the calling
    /// process dies.
    ///
    /// # Panics
    /// When it does not: what to install, or the end of its log.
    pub fn start() -> Self {
        Self::try_start().unwrap_or_else(|fault| panic!("{fault}"))
    }

    /// As [`Postgres::start`].
    ///
    /// # Errors
    /// What to install, or the end of its log.
    pub fn try_start() -> Result<Self, String> {
        let scratch =
            TempDir::with_prefix("docket-postgres-").map_err(|error| format!("no scratch directory: {error}"))?;
        let mut postgres = Self::start_in(scratch.path(), Life::Ours)?;
        postgres._scratch = Some(scratch);
        Ok(postgres)
    }

    /// Starts a new server whose files lie in `directory`. They stay there, unless it is [`Life::Ours`] and we die. Under root the directory becomes the user
    /// postgres's, who must be able to reach it.
    ///
    /// # Errors
    /// What to install, or the end of its log.
    pub fn start_in(directory: &Path, life: Life) -> Result<Self, String> {
        if let Some(missing) = missing() {
            return Err(missing);
        }
        let programs = programs().ok_or("no PostgreSQL server")?;
        let fault = |error: std::io::Error| format!("cannot make {}: {error}", directory.display());
        fs::create_dir_all(directory).map_err(fault)?;
        let user = if is_root() { user() } else { None };
        if let Some((user, group)) = user {
            chown(directory, Some(user), Some(group)).map_err(fault)?;
        }
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(fault)?;
        let data = directory.join("data");
        let mut initialize = Command::new(programs.join("initdb"));
        initialize
            // Not forced to the disk: an empty cluster is soon made again.
            .args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "--username", NAME, "--pgdata"])
            .arg(&data)
            .current_dir(directory);
        if let Some((user, group)) = user {
            initialize.uid(user).gid(group);
        }
        process::run(&mut initialize)?;
        let port = match life {
            Life::Ours => ports::take(1)?.pop().ok_or("no free port")?,
            // People type it. Not 5432: that is where a system's own would be.
            Life::Detached => ports::take_rather(15_432)?,
        };
        let mut recipe = Recipe::new(programs.join("postgres"), directory, &directory.join("postgres.log"));
        recipe.user = user;
        recipe.left_behind = (life == Life::Ours).then(|| directory.to_owned());
        recipe = recipe.arguments(["-D"]).arguments([&data]).arguments(["-p", &port.number().to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            // No socket in /tmp that others might find.
            "unix_socket_directories=",
            "fsync=on",
            "max_connections=200",
            "shared_buffers=64MB",
            "log_min_messages=warning",
        ] {
            recipe = recipe.arguments(["-c", setting]);
        }
        let databases = AtomicU32::new(0);
        let mut postgres = Self { recipe, programs, port, life, running: None, databases, _scratch: None };
        postgres.run()?;
        postgres.make_database(NAME)?;
        Ok(postgres)
    }

    /// `postgres://docket@127.0.0.1:port/docket`.
    pub fn url(&self) -> String {
        self.url_of(NAME)
    }

    /// Makes an empty database beside the first, and gives its URL: tests that share a server do not share tables.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new_database(&self) -> String {
        let name = format!("docket_{}", self.databases.fetch_add(1, Ordering::Relaxed) + 1);
        self.make_database(&name).unwrap_or_else(|fault| panic!("{fault}"));
        self.url_of(&name)
    }

    /// Where it listens: `127.0.0.1:port`.
    pub fn address(&self) -> String {
        self.port.address()
    }

    /// The server's first process, if it runs.
    pub fn process(&self) -> Option<process::Name> {
        self.running.as_ref().map(Running::name)
    }

    /// How it was started.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Stops it: connections are cut, what is committed is kept.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            // Postgres's "fast" shutdown.
            running.end(Signal::INT, STOPS_WITHIN).unwrap_or_else(|fault| panic!("postgres: {fault}"));
        }
    }

    /// Kills it, all its processes, with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            let family = running.name().children();
            running.kill();
            for child in family {
                // Most go by themselves when the first is gone.
                let _ = child.signal(Signal::KILL);
                let _ = child.wait_gone(STOPS_WITHIN);
            }
        }
    }

    /// Starts it on its own files, on the same port, and waits until it accepts connections.
    ///
    /// # Panics
    /// When it does not.
    pub fn start_again(&mut self) {
        self.kill();
        self.run().unwrap_or_else(|fault| panic!("{fault}"));
    }

    /// Freezes all its processes with SIGSTOP: connections stay open and nothing comes out of them.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pause(&self) {
        self.process().expect("postgres runs").pause().unwrap_or_else(|fault| panic!("postgres: {fault}"));
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// If it does not run.
    pub fn resume(&self) {
        self.process().expect("postgres runs").resume().unwrap_or_else(|fault| panic!("postgres: {fault}"));
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://{NAME}@{}/{database}", self.address())
    }

    fn run(&mut self) -> Result<(), String> {
        let began = Instant::now();
        loop {
            let mut running = Running::start(&self.recipe, self.life)?;
            while !running.has_ended() && began.elapsed() < READY_WITHIN {
                if self.accepts() {
                    self.running = Some(running);
                    return Ok(());
                }
                std::thread::sleep(LOOK_AGAIN_AFTER);
            }
            running.kill();
            // It ends at once while a process of its predecessor is still on its way out.
            if began.elapsed() > READY_WITHIN || !self.recipe.tail().contains("still in use") {
                return Err(format!("PostgreSQL does not start; {}", self.recipe.tail()));
            }
        }
    }

    fn accepts(&self) -> bool {
        self.client("pg_isready").args(["--quiet", "--timeout=1"]).status().is_ok_and(|status| status.success())
    }

    fn make_database(&self, name: &str) -> Result<(), String> {
        process::run(self.client("createdb").args(["--maintenance-db=postgres", name])).map(drop)
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.args(["--host=127.0.0.1", "--port", &self.port.number().to_string(), "--username", NAME]);
        command.current_dir(&self.recipe.directory);
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.life == Life::Ours {
            self.kill();
        }
    }
}

/// Where the newest server's programs lie.
fn programs() -> Option<PathBuf> {
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<PathBuf> = debian.filter(|path| path.join("bin/initdb").is_file()).collect();
    found.sort_by_key(|path| version(path));
    let newest = found.pop().map(|path| path.join("bin"));
    newest.or_else(|| in_path("initdb").and_then(|path| Some(path.canonicalize().ok()?.parent()?.to_owned())))
}

/// User and group id of `postgres`.
fn user() -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let line = users.lines().find_map(|line| line.strip_prefix("postgres:"))?;
    let mut fields = line.split(':').skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    //! That the server does what the tests of others rely on.

    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn a_server_survives_kill_9_and_ends_with_its_owner() {
        if let Some(missing) = missing() {
            println!("SKIPPED: {missing}");
            return;
        }
        let mut postgres = Postgres::start();
        assert_eq!(postgres.url(), format!("postgres://docket@{}/docket", postgres.address()));
        assert_ne!(postgres.new_database(), postgres.new_database());
        postgres.kill();
        assert!(TcpStream::connect(postgres.address()).is_err());
        postgres.start_again();
        postgres.stop();
        postgres.start_again();
        let first = postgres.process().expect("it runs");
        postgres.pause();
        // The kernel takes the connection; nobody says a word on it.
        let mut silent = TcpStream::connect(postgres.address()).expect("a paused server's port is open");
        silent.set_read_timeout(Some(Duration::from_millis(200))).expect("a time-out");
        silent.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).expect("room in the socket");
        assert!(silent.read(&mut [0]).is_err(), "a paused server answers");
        postgres.resume();
        silent.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
        assert_eq!(silent.read(&mut [0]).ok(), Some(1), "a resumed server does not answer");
        drop(postgres);
        assert!(!first.is_alive(), "it outlives its owner");
    }
}
