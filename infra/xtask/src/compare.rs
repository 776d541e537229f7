//! `cargo xtask bench --compare REV`: another revision beside this one, in one run on one machine. It is built in a git
//! worktree of its own with the same settings; then both are measured in turn, A B A B, because a machine's disk and
//! neighbours are not the same all day. A difference counts if it is larger than what a revision differs from itself.
//!
//! Questions to a server are asked by this revision's `benches` and make their load with this revision's `docket load`, for
//! both alike. Questions within a process can only be asked by the `benches` that has the revision's code in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::Value;

use crate::{Done, root, step_in, target};

/// Questions that a server is asked; also what `all` means here.
const OF_A_SERVER: [&str; 3] = ["w1-http", "w2-hot-stock", "w6-checkout"];
/// Questions whose answer is in the `benches` itself.
const IN_PROCESS: [&str; 5] = ["w1-in-process", "w3-long-stream", "w4-views", "w5-replay", "restart"];

/// What is compared of a line, and whether more of it is better.
const FIGURES: [(&str, &str, bool); 5] = [
    ("value", "figure", true),
    ("p50_ms", "p50 ms", false),
    ("p99_ms", "p99 ms", false),
    ("rss_mb", "peak RSS MB", false),
    ("cpu_s_per_1000", "CPU-s/1,000", false),
];

/// How to compare.
pub(crate) struct Plan<'a> {
    /// The other revision, as git names it.
    pub(crate) revision: &'a str,
    /// A question, or `all`.
    pub(crate) question: &'a str,
    /// Short and small.
    pub(crate) quick: bool,
    /// Seconds per figure.
    pub(crate) seconds: Option<u32>,
    /// How often each is measured.
    pub(crate) rounds: u32,
}

/// The programs of a revision.
struct Side {
    name: String,
    docket: PathBuf,
    benches: PathBuf,
}

/// Every figure of a side, round by round.
type Rounds = BTreeMap<(usize, String, String, usize), Vec<f64>>;

/// Does it.
pub(crate) fn compare(plan: &Plan<'_>) -> Done {
    let questions: Vec<&str> = match plan.question {
        "all" => OF_A_SERVER.to_vec(),
        one if OF_A_SERVER.contains(&one) || IN_PROCESS.contains(&one) => vec![one],
        other => {
            let known = [&OF_A_SERVER[..], &IN_PROCESS].concat().join(", ");
            return Err(format!("{other} cannot be compared; these can: {known}"));
        }
    };
    let there = other(plan.revision)?;
    step_in(&root(), "cargo", &["build", "--release", "--package", "docket", "--package", "benches", "--bins"])?;
    let release = target().join("release");
    let here = Side { name: "here".to_owned(), docket: release.join("docket"), benches: release.join("benches") };
    let load = here.docket.clone();
    let (mut before, mut now) = (Rounds::new(), Rounds::new());
    for round in 1..=plan.rounds {
        for (side, found) in [(&there, &mut before), (&here, &mut now)] {
            for (at, question) in questions.iter().enumerate() {
                println!("xtask: round {round} of {}, {}: {question}", plan.rounds, side.name);
                let asking = if IN_PROCESS.contains(question) { &side.benches } else { &here.benches };
                let rows = measure(plan, asking, &side.docket, &load, question)?;
                note(found, at, &rows);
            }
        }
    }
    show(&there.name, &before, &now);
    Ok(())
}

/// Builds the other revision, unless that was done before.
fn other(revision: &str) -> Result<Side, String> {
    let commit = git(&["rev-parse", "--verify", "--quiet", &format!("{revision}^{{commit}}")])
        .map_err(|_| format!("git knows no revision {revision}"))?;
    let short = commit.get(..12).unwrap_or(&commit).to_owned();
    let compare = target().join("compare");
    let kept = compare.join(&short);
    let side = Side { name: short, docket: kept.join("docket"), benches: kept.join("benches") };
    if side.docket.is_file() && side.benches.is_file() {
        println!("xtask: {} was built before, in {}", side.name, kept.display());
        return Ok(side);
    }
    let tree = compare.join("tree");
    let told = tree.display().to_string();
    // What an earlier run left when it was ended.
    let _ = git(&["worktree", "remove", "--force", &told]);
    let _ = fs::remove_dir_all(&tree);
    git(&["worktree", "prune"])?;
    git(&["worktree", "add", "--detach", "--force", &told, &commit])?;
    // One directory for all revisions: what they depend on is mostly the same.
    let built = compare.join("build");
    let into = built.display().to_string();
    let done = step_in(
        &tree,
        "cargo",
        &["build", "--release", "--package", "docket", "--package", "benches", "--bins", "--target-dir", &into],
    );
    let removed = git(&["worktree", "remove", "--force", &told]);
    done?;
    removed?;
    fs::create_dir_all(&kept).map_err(|error| format!("cannot make {}: {error}", kept.display()))?;
    for (name, to) in [("docket", &side.docket), ("benches", &side.benches)] {
        let from = built.join("release").join(name);
        fs::copy(&from, to).map_err(|error| format!("cannot keep {}: {error}", from.display()))?;
    }
    Ok(side)
}

/// One run of a question, as the rows that `benches --json` prints.
fn measure(plan: &Plan<'_>, benches: &Path, docket: &Path, load: &Path, question: &str) -> Result<Vec<Value>, String> {
    let mut command = Command::new(benches);
    command.arg(question).arg("--json").arg("--docket").arg(docket);
    // An older `benches` may not know it, and asks nothing of a server that would need it.
    if !IN_PROCESS.contains(&question) {
        command.arg("--load").arg(load);
    }
    if plan.quick {
        command.arg("--quick");
    }
    if let Some(seconds) = plan.seconds {
        command.arg("--seconds").arg(seconds.to_string());
    }
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("{} cannot be run: {error}", benches.display()))?;
    if !output.status.success() {
        return Err(format!("{} {question} failed", benches.display()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("{} told no JSON: {error}", benches.display()))
}

/// Adds a run's figures, line by line; a line that comes twice in a run (the disk, before and after) is averaged with itself.
fn note(found: &mut Rounds, question: usize, rows: &[Value]) {
    let mut run = BTreeMap::<_, (f64, f64)>::new();
    for row in rows {
        let (Some(what), unit) = (row["what"].as_str(), row["unit"].as_str().unwrap_or_default()) else { continue };
        for (at, (field, ..)) in FIGURES.iter().enumerate() {
            if let Some(value) = row[*field].as_f64() {
                let sum = run.entry((question, what.to_owned(), unit.to_owned(), at)).or_default();
                *sum = (sum.0 + value, sum.1 + 1.0);
            }
        }
    }
    for (key, (sum, count)) in run {
        found.entry(key).or_default().push(sum / count);
    }
}

/// Mean of some runs, and how far they are apart as a share of it.
fn mean_and_spread(runs: &[f64]) -> (f64, f64) {
    let mean = runs.iter().sum::<f64>() / runs.len().max(1) as f64;
    let (least, most) = runs.iter().fold((f64::MAX, f64::MIN), |(least, most), run| (least.min(*run), most.max(*run)));
    (mean, if mean > 0.0 { (most - least) / mean } else { 0.0 })
}

/// What a ratio beside its noise says.
fn verdict(ratio: f64, noise: f64, more_is_better: bool) -> &'static str {
    // Below a fiftieth nothing is claimed, however quiet the machine was.
    if !ratio.is_finite() || (ratio - 1.0).abs() <= noise.max(0.02) {
        "the same, as far as can be seen"
    } else if (ratio > 1.0) == more_is_better {
        "better"
    } else {
        "worse"
    }
}

fn show(there: &str, before: &Rounds, now: &Rounds) {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["what", "", there, "here", "here / there", "noise", "here is"]);
    for at in 2..6 {
        if let Some(column) = table.column_mut(at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let number = |value: f64| if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.3}") };
    for (key, runs) in before {
        let Some(others) = now.get(key) else { continue };
        let (_, what, unit, figure) = key;
        let (_, title, more_is_better) = FIGURES[*figure];
        // A time is better the shorter it is, whatever stands in its column.
        let more_is_better = more_is_better && !["s", "ms", "ms (p50)", "s (p50)", "MB"].contains(&unit.as_str());
        let ((theirs, spread), (ours, other_spread)) = (mean_and_spread(runs), mean_and_spread(others));
        let (ratio, noise) = (ours / theirs, spread.max(other_spread));
        let title = if *figure == 0 { unit.as_str() } else { title };
        table.add_row(vec![
            Cell::new(what),
            Cell::new(title),
            Cell::new(number(theirs)),
            Cell::new(number(ours)),
            Cell::new(format!("{ratio:.2}")),
            Cell::new(format!("±{:.0} %", noise * 100.0)),
            Cell::new(verdict(ratio, noise, more_is_better)),
        ]);
    }
    println!("\n{table}\n");
    let only = |ours: &Rounds, theirs: &Rounds| {
        let lines = ours.keys().filter(|key| !theirs.contains_key(key)).map(|key| key.1.clone());
        lines.collect::<std::collections::BTreeSet<_>>()
    };
    for (whose, lines) in [(there, only(before, now)), ("here", only(now, before))] {
        for line in lines {
            println!("only {whose}: {line}");
        }
    }
    println!(
        "Noise is the furthest that runs of one revision are apart. Floors and the disk are no part of a revision: what they \
         differ by, the machine did."
    );
}

fn git(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(root())
        .output()
        .map_err(|error| format!("git cannot be run: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(format!("git {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_difference_counts_only_beyond_the_noise_and_in_its_own_direction() {
        assert_eq!(verdict(1.05, 0.10, true), "the same, as far as can be seen");
        assert_eq!(verdict(1.30, 0.10, true), "better");
        assert_eq!(verdict(1.30, 0.10, false), "worse");
        assert_eq!(verdict(0.70, 0.10, true), "worse");
        assert_eq!(verdict(0.70, 0.10, false), "better");
        assert_eq!(verdict(1.01, 0.0, true), "the same, as far as can be seen");
        assert_eq!(verdict(f64::NAN, 0.0, true), "the same, as far as can be seen");
    }

    #[test]
    fn runs_are_kept_apart_and_lines_of_one_run_are_averaged() {
        let mut found = Rounds::new();
        let row = |value: f64| json!({"what": "disk", "unit": "/s", "value": value, "p50_ms": null});
        note(&mut found, 0, &[row(90.0), row(110.0)]);
        note(&mut found, 0, &[row(120.0)]);
        assert_eq!(found.len(), 1, "what is null is no figure");
        assert_eq!(found.values().next().map(Vec::as_slice), Some(&[100.0, 120.0][..]));
        let (mean, spread) = mean_and_spread(&[100.0, 120.0]);
        assert!((mean - 110.0).abs() < 1e-9 && (spread - 20.0 / 110.0).abs() < 1e-9);
    }
}
