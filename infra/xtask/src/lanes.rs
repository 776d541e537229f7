//! Steps that run beside others, so that no processor is idle: what a lane says is shown when it has ended.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use super::{Done, root, step};

/// Test targets that wait most of the time: for elections, time-outs and processes that start.
const WAITING: &[&str] = &["it_on_kafka", "kafka", "serve", "tls", "trials"];
/// Test targets that ask for as much as the machine can do, and need it for themselves.
const ALONE: &[&str] = &["pressure"];
/// All that fails is told in one run.
const ALL: &[&str] = &["test", "--workspace", "--all-features", "--no-fail-fast"];

/// Runs every integration test of the workspace: those that wait beside those that do not, then those that want to be alone.
pub(crate) fn run_tests() -> Done {
    let mut all = test_targets()?;
    let mut take = |its: &[&str]| all.extract_if(.., |name| its.contains(&name.as_str())).collect::<Vec<_>>();
    let (waiting, alone) = (take(WAITING), take(ALONE));
    let run = |its: &[String]| step("cargo", &arguments(its).iter().map(String::as_str).collect::<Vec<_>>());
    let waiting = Lane::start(arguments(&waiting))?;
    let busy = run(&all);
    // Also if the other lane failed: nothing is left running, and all tell what they found.
    let waiting = waiting.end();
    busy.and(waiting).and(run(&alone))
}

/// Builds every integration test of the workspace.
pub(crate) fn build_tests() -> Done {
    step("cargo", &[ALL, &["--test", "*", "--no-run"]].concat())
}

/// What was built goes to the disk now: else it would go there while tests wait for their own few bytes.
pub(crate) fn let_the_disk_rest() -> Done {
    step("sync", &[])
}

fn arguments(targets: &[String]) -> Vec<String> {
    let named = targets.iter().flat_map(|name| ["--test".to_owned(), name.clone()]);
    ALL.iter().copied().map(str::to_owned).chain(named).collect()
}

/// The names of all integration tests. `--test '*'` would do for all of them, but nothing leaves one out.
fn test_targets() -> Result<Vec<String>, String> {
    let told = Command::new("cargo")
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cargo metadata ({error})"))?;
    let told: Value = serde_json::from_slice(&told.stdout).map_err(|error| format!("cargo metadata ({error})"))?;
    let packages = told["packages"].as_array().into_iter().flatten();
    let targets = packages.flat_map(|package| package["targets"].as_array().into_iter().flatten());
    let tests = targets.filter(|target| target["kind"][0] == "test");
    let mut names: Vec<_> = tests.filter_map(|target| target["name"].as_str().map(str::to_owned)).collect();
    names.sort();
    names.dedup();
    match names.is_empty() {
        true => Err("cargo metadata names no tests".to_owned()),
        false => Ok(names),
    }
}

/// A step of cargo's that runs beside others, with its words in a file. Dropped before its end, it is ended.
pub(crate) struct Lane {
    typed: String,
    child: std::process::Child,
    said: tempfile::NamedTempFile,
    began: Instant,
}

impl Lane {
    pub(crate) fn start(arguments: impl IntoIterator<Item = impl Into<String>>) -> Result<Self, String> {
        let arguments: Vec<String> = arguments.into_iter().map(Into::into).collect();
        let typed = format!("cargo {}", arguments.join(" "));
        let failed = |error: std::io::Error| format!("{typed} ({error})");
        println!("xtask: meanwhile: {typed}");
        let said = tempfile::NamedTempFile::new().map_err(failed)?;
        let file = || -> std::io::Result<File> { said.as_file().try_clone() };
        let child = Command::new("cargo")
            .args(&arguments)
            .current_dir(root())
            .stdin(Stdio::null())
            .stdout(file().map_err(failed)?)
            .stderr(file().map_err(failed)?)
            .spawn()
            .map_err(failed)?;
        Ok(Self { typed, child, said, began: Instant::now() })
    }

    /// Waits for its end, and shows what it said.
    pub(crate) fn end(mut self) -> Done {
        let status = self.child.wait().map_err(|error| format!("{} ({error})", self.typed))?;
        let said = std::fs::read(self.said.path()).unwrap_or_default();
        println!("xtask: what was said meanwhile:\n{}", String::from_utf8_lossy(&said));
        println!("xtask: {:.0} s for {}", self.began.elapsed().as_secs_f64(), self.typed);
        if status.success() { Ok(()) } else { Err(std::mem::take(&mut self.typed)) }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // Another step has failed, or it has ended: then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
