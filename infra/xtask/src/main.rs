//! Chores that are more than one command: `cargo xtask test` sets a machine up and runs every check there is, in the order
//! in which a failure is cheapest to learn of. Each step is a command anyone can type; it is printed before it runs.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use clap::{Parser, Subcommand};

/// Shown by `--help`.
const EXAMPLES: &str = "Examples:
  cargo xtask test                              everything CI checks
  cargo xtask tidy                              only what is quick
  cargo xtask soak --kills 200 --cuts 30        some minutes of kill -9 and power cuts
  cargo xtask sim --seed 10000 --count 20000    that many simulated stories, beginning there
  cargo xtask bench --quick                     whether the benchmarks work";

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Docket's chores", disable_help_subcommand = true, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Set up what the tests need and run all of them: format, lints, house rules, tests on the real binary
    Test,
    /// Only format, lints and house rules
    Tidy,
    /// Kill and restart the real binary under load, far longer than the tests do
    Soak {
        /// How many times to kill -9 it
        #[arg(long, default_value_t = 2_000)]
        kills: u32,
        /// How many times to cut the power under it (needs root and xfsprogs)
        #[arg(long, default_value_t = 500)]
        cuts: u32,
        /// Where the run's dice start
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Run seeds of the simulated log beyond those that the tests run
    Sim {
        /// The first seed
        #[arg(long, default_value_t = 10_000)]
        seed: u64,
        /// How many
        #[arg(long, default_value_t = 100_000)]
        count: u64,
    },
    /// Measure: every benchmark beside its floor, in one run
    Bench {
        /// Short and small: shows that it works, not how fast it is
        #[arg(long)]
        quick: bool,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().chore {
        Chore::Test => test(),
        Chore::Tidy => tidy(),
        Chore::Soak { kills, cuts, seed } => soak(kills, cuts, seed),
        Chore::Sim { seed, count } => sim(seed, count),
        Chore::Bench { quick } => bench(quick),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(step) => {
            eprintln!("xtask: this step failed: {step}");
            ExitCode::FAILURE
        }
    }
}

/// A failed step, as it was typed.
type Done = Result<(), String>;

fn test() -> Done {
    set_up()?;
    tidy()?;
    // The tests that start the product start what users get.
    step("cargo", &["build", "--release", "--package", "docket"])?;
    step("cargo", &["test", "--workspace"])
}

fn tidy() -> Done {
    step("cargo", &["fmt", "--all", "--check"])?;
    step("cargo", &["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"])
}

fn soak(kills: u32, cuts: u32, seed: u64) -> Done {
    set_up()?;
    step("cargo", &["build", "--release", "--package", "docket"])?;
    let (kills, cuts, seed) = (kills.to_string(), cuts.to_string(), seed.to_string());
    let knobs = [("DOCKET_TEST_KILLS", &*kills), ("DOCKET_TEST_CUTS", &*cuts), ("DOCKET_TEST_SEED", &*seed)];
    step_with("cargo", &["test", "--package", "tests", "--test", "faults", "--", "--nocapture"], &knobs)
}

fn sim(seed: u64, count: u64) -> Done {
    let (seed, count) = (seed.to_string(), count.to_string());
    let knobs = [("SIM_FROM", &*seed), ("SIM_COUNT", &*count)];
    // Told what happened in them: seeds in which nothing did would prove nothing.
    let arguments = ["test", "--release", "--package", "engine", "--test", "sim_partition", "more_seeds"];
    step_with("cargo", &[&arguments[..], &["--", "--exact", "--nocapture"]].concat(), &knobs)
}

fn bench(quick: bool) -> Done {
    step("cargo", &["build", "--release", "--package", "docket"])?;
    let mut arguments = vec!["run", "--release", "--package", "benches", "--", "all"];
    arguments.extend(quick.then_some("--quick"));
    step("cargo", &arguments)
}

/// What the tests want beyond Rust and a C compiler: where one of these files is, the Debian package that brings them, and
/// what comes of it where it cannot be had.
const WANTED: [(&[&str], &str, &str); 2] = [
    // To cut the power under a real file system.
    (&["/usr/sbin/mkfs.xfs", "/sbin/mkfs.xfs"], "xfsprogs", "the power-cut tests will be skipped"),
    // To set a server's clock ahead.
    (
        &[
            "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
            "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
            "/usr/lib64/faketime/libfaketimeMT.so.1",
            "/usr/lib/faketime/libfaketimeMT.so.1",
        ],
        "faketime",
        "a test that waits five minutes will do so",
    ),
];

/// Installs what is wanted and missing, if that can be done.
fn set_up() -> Done {
    let is_missing = |files: &[&str]| !files.iter().any(|path| Path::new(path).exists());
    let missing: Vec<_> = WANTED.into_iter().filter(|(files, ..)| is_missing(files)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout.starts_with(b"0"));
    if root && Path::new("/usr/bin/apt-get").exists() {
        let quiet = [("DEBIAN_FRONTEND", "noninteractive")];
        let packages = missing.iter().map(|(_, package, _)| *package);
        let install: Vec<&str> = ["install", "-qq", "--yes"].into_iter().chain(packages).collect();
        // What is still missing afterwards is told below.
        let _ = step_with("apt-get", &["update", "-qq"], &quiet).and_then(|()| step_with("apt-get", &install, &quiet));
    }
    for (_, package, then) in missing.into_iter().filter(|(files, ..)| is_missing(files)) {
        println!("xtask: {package} (a Debian package) is not here and cannot be installed; {then}");
    }
    Ok(())
}

fn step(program: &str, arguments: &[&str]) -> Done {
    step_with(program, arguments, &[])
}

fn step_with(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Done {
    let named: String = environment.iter().map(|(name, value)| format!("{name}={value} ")).collect();
    let typed = format!("{named}{program} {}", arguments.join(" "));
    println!("xtask: {typed}");
    let began = Instant::now();
    let status = Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(root())
        .status()
        .map_err(|error| format!("{typed} ({error})"))?;
    println!("xtask: {:.0} s for {typed}", began.elapsed().as_secs_f64());
    if status.success() { Ok(()) } else { Err(typed) }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
