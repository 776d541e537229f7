//! The tests in two lanes. Those of several nodes on real brokers mostly wait, for elections, time-outs and processes that
//! start: so they run beside all others, and what they say is shown when both lanes have ended.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use super::{Done, root, step};

/// Test targets that wait most of the time.
const WAITING: &[&str] = &["kafka", "tls", "trials"];
const ALL: &[&str] = &["test", "--workspace", "--all-features"];

/// Builds every integration test of the workspace, and runs them.
pub(crate) fn run() -> Done {
    step("cargo", &[ALL, &["--test", "*", "--no-run"]].concat())?;
    let (waiting, busy): (Vec<_>, Vec<_>) =
        test_targets()?.into_iter().partition(|name| WAITING.contains(&name.as_str()));
    let waiting = Lane::start(&arguments(&waiting))?;
    let busy = step("cargo", &arguments(&busy).iter().map(String::as_str).collect::<Vec<_>>());
    // Also if the other lane failed: nothing is left running, and both tell what they found.
    let waiting = waiting.end();
    busy.and(waiting)
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

/// Tests that run beside others, with their words in a file.
struct Lane {
    typed: String,
    child: std::process::Child,
    said: tempfile::NamedTempFile,
    began: Instant,
}

impl Lane {
    fn start(arguments: &[String]) -> Result<Self, String> {
        let typed = format!("cargo {}", arguments.join(" "));
        let failed = |error: std::io::Error| format!("{typed} ({error})");
        println!("xtask: meanwhile: {typed}");
        let said = tempfile::NamedTempFile::new().map_err(failed)?;
        let file = || -> std::io::Result<File> { said.as_file().try_clone() };
        let child = Command::new("cargo")
            .args(arguments)
            .current_dir(root())
            .stdin(Stdio::null())
            .stdout(file().map_err(failed)?)
            .stderr(file().map_err(failed)?)
            .spawn()
            .map_err(failed)?;
        Ok(Self { typed, child, said, began: Instant::now() })
    }

    fn end(mut self) -> Done {
        let status = self.child.wait().map_err(|error| format!("{} ({error})", self.typed))?;
        let said = std::fs::read(self.said.path()).unwrap_or_default();
        println!("xtask: what was said meanwhile:\n{}", String::from_utf8_lossy(&said));
        println!("xtask: {:.0} s for {}", self.began.elapsed().as_secs_f64(), self.typed);
        if status.success() { Ok(()) } else { Err(self.typed) }
    }
}
