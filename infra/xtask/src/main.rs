//! Chores that are more than one command, and clusters to play with: `cargo xtask test` sets a machine up and runs every
//! check of CI, in the order in which a failure is cheapest to learn of; what takes longer has a chore of its own. Each step
//! is a command anyone can type; it is printed before it runs.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use clap::{Parser, Subcommand};
use xtask::cluster::{self, Cluster};
use xtask::process::Name;
use xtask::{kafka, postgres};

mod compare;
mod dist;
mod lanes;
mod show;

use lanes::Lane;

/// Shown by `--help`.
const EXAMPLES: &str = "Examples:
  cargo xtask test                              everything CI checks
  cargo xtask tidy                              only what is quick
  cargo xtask trials                            several nodes, and all that can happen to them
  cargo xtask soak --kills 200 --cuts 30        some minutes of kill -9 and power cuts
  cargo xtask sim --seed 20000 --count 20000    that many simulated stories, beginning there
  cargo xtask sim --seed 17 --trace             one of them, line by line
  cargo xtask bench --quick                     whether the benchmarks work
  cargo xtask bench several-nodes               how fast nodes on Kafka and PostgreSQL are
  cargo xtask bench w1-http --compare main~5    another revision beside this one, in turn";

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
    /// The log in a real Kafka held to the contract, and several nodes on it and a real PostgreSQL: killed, frozen, cut off, restarted, with what they stand on
    Trials,
    /// Run seeds of the simulated partition and of the simulated nodes beyond those that the tests run
    Sim {
        /// The first seed
        #[arg(long, default_value_t = 20_000)]
        seed: u64,
        /// How many
        #[arg(long, default_value_t = 100_000)]
        count: u64,
        /// Tell what happens in this one seed of the simulated nodes, line by line
        #[arg(long, conflicts_with = "count")]
        trace: bool,
    },
    /// Measure: every benchmark beside its floor, in one run
    #[command(after_help = BENCH_EXAMPLES)]
    Bench {
        /// One question, e.g. several-nodes; benches/README.md has them all
        #[arg(default_value = "all")]
        question: String,
        /// Short and small: shows that it works, not how fast it is
        #[arg(long)]
        quick: bool,
        /// Seconds per figure
        #[arg(long, value_name = "N")]
        seconds: Option<u32>,
        /// Measure this revision and another one in turn, and tell where they differ by more than the noise
        #[arg(long, value_name = "REV")]
        compare: Option<String>,
        /// How often each of the two is measured
        #[arg(long, value_name = "N", default_value_t = 2, requires = "compare", value_parser = clap::value_parser!(u32).range(1..=20))]
        rounds: u32,
    },
    /// What a release is made of: the program with TLS to Kafka, its papers and a checksum, in target/dist
    Dist,
    /// A real Kafka, a real PostgreSQL and nodes on this machine, in the background
    #[command(after_help = CLUSTER_EXAMPLES)]
    Cluster {
        /// Where its files lie [default: target/cluster]
        #[arg(long, global = true, value_name = "DIR")]
        dir: Option<PathBuf>,
        #[command(subcommand)]
        what: ClusterChore,
    },
}

const BENCH_EXAMPLES: &str = "\
Examples:
  cargo xtask bench                                     everything, as one table
  cargo xtask bench w1-http --seconds 20                one question
  cargo xtask bench --compare main~5                    W1, W2 and W6 of that revision and of this one, in turn
  cargo xtask bench w1-in-process --compare v0.1.0 --rounds 4 --seconds 5
  cargo xtask bench growth                              a million orders and 10 GiB: half an hour and 15 GB";

const CLUSTER_EXAMPLES: &str = "\
Examples:
  cargo xtask cluster up                                three nodes on one broker and PostgreSQL
  cargo xtask cluster up --brokers 3                    on three brokers
  cargo xtask cluster up --nodes 0                      only Kafka and PostgreSQL, for nodes of your own
  cargo xtask cluster up --nodes 1 --brokers 0 --sqlite one node with a log of its own
  cargo xtask cluster kill node-2                       kill -9; `up` brings it back
  cargo xtask cluster pause broker-1                    SIGSTOP: it is there and says nothing
  cargo xtask cluster status | jq -r '.[].address'
  cargo xtask cluster down                              ends all and removes their files";

#[derive(Subcommand)]
enum ClusterChore {
    /// Start a cluster, or what is dead of the one that is there
    Up {
        /// Kafka brokers: 1 or 3, or 0 for a node with a log of its own
        #[arg(long, default_value_t = 1, value_parser = brokers)]
        brokers: u8,
        /// Nodes of the product
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(0..=9))]
        nodes: u16,
        /// Keep rows in PostgreSQL (the default)
        #[arg(long, conflicts_with = "sqlite")]
        postgres: bool,
        /// Keep rows in a SQLite file per node
        #[arg(long)]
        sqlite: bool,
        /// Partitions of the log
        #[arg(long, default_value_t = 12)]
        partitions: u16,
        /// The product; built in release if not given
        #[arg(long, env = "DOCKET_BIN", value_name = "FILE")]
        binary: Option<PathBuf>,
    },
    /// Who there is, and what they do: a table on a terminal, JSON elsewhere
    Status,
    /// End all and remove their files
    Down {
        /// Leave the files
        #[arg(long)]
        keep: bool,
    },
    /// kill -9
    Kill {
        /// broker-1, postgres, node-1, …
        who: Vec<String>,
    },
    /// SIGSTOP: its connections stay open and nothing comes out of them
    Pause {
        /// broker-1, postgres, node-1, …
        who: Vec<String>,
    },
    /// SIGCONT
    Resume {
        /// broker-1, postgres, node-1, …
        who: Vec<String>,
    },
}

fn brokers(text: &str) -> Result<u8, String> {
    text.parse().ok().filter(|count| [0, 1, 3].contains(count)).ok_or_else(|| "0, 1 or 3".to_owned())
}

fn main() -> ExitCode {
    let done = match Arguments::parse().chore {
        Chore::Test => test(),
        Chore::Tidy => tidy(),
        Chore::Soak { kills, cuts, seed } => soak(kills, cuts, seed),
        Chore::Trials => trials(),
        Chore::Sim { seed, trace: true, .. } => story(seed),
        Chore::Sim { seed, count, .. } => sim(seed, count),
        Chore::Bench { question, quick, seconds, compare: Some(revision), rounds } => {
            compare::compare(&compare::Plan { revision: &revision, question: &question, quick, seconds, rounds })
        }
        Chore::Bench { question, quick, seconds, .. } => bench(&question, quick, seconds),
        Chore::Dist => dist::dist(),
        Chore::Cluster { dir, what } => cluster(&dir.unwrap_or_else(|| target().join("cluster")), what),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(step) => {
            eprintln!("xtask: failed: {step}");
            ExitCode::FAILURE
        }
    }
}

/// A failed step, as it was typed.
type Done = Result<(), String>;

fn test() -> Done {
    let began = Instant::now();
    xtask::set_up::set_up();
    tidy()?;
    // The tests that start the product start what users get. It is built beside the tests: either leaves processors idle.
    let product = Lane::start(["build", "--release", "--package", "docket"])?;
    // What starts nothing tells of a fault before what takes minutes to build. Always the whole workspace, never a package of
    // it: what is built for one is not what is built for all, and would be built twice.
    step("cargo", &["test", "--workspace", "--all-features", "--lib", "--bins", "--test", "tidy"])?;
    step("cargo", &["test", "--workspace", "--all-features", "--doc"])?;
    match kafka::missing().or_else(postgres::missing) {
        None => {
            lanes::build_tests()?;
            product.end()?;
            lanes::let_the_disk_rest()?;
            lanes::run_tests()?;
        }
        Some(missing) => {
            product.end()?;
            println!("xtask: skipped: every story told on Kafka and PostgreSQL: {missing}");
            step("cargo", &["test", "--workspace", "--all-features", "--exclude", "tests", "--tests"])?;
            step("cargo", &[&["test", "--package", "tests"], WITHOUT_KAFKA].concat())?;
        }
    }
    println!("xtask: {:.0} s in all", began.elapsed().as_secs_f64());
    Ok(())
}

/// The tests of the whole house that need no broker and no database.
const WITHOUT_KAFKA: &[&str] = &["--test", "it", "--test", "faults", "--test", "pressure"];

fn tidy() -> Done {
    step("cargo", &["fmt", "--all", "--check"])?;
    step("cargo", &["clippy", "--workspace", "--all-targets", "--all-features", "--", "--deny", "warnings"])
}

fn soak(kills: u32, cuts: u32, seed: u64) -> Done {
    xtask::set_up::set_up();
    step("cargo", &["build", "--release", "--package", "docket"])?;
    let (kills, cuts, seed) = (kills.to_string(), cuts.to_string(), seed.to_string());
    let knobs = [("DOCKET_TEST_KILLS", &*kills), ("DOCKET_TEST_CUTS", &*cuts), ("DOCKET_TEST_SEED", &*seed)];
    step_with("cargo", &["test", "--package", "tests", "--test", "faults", "--", "--nocapture"], &knobs)
}

fn trials() -> Done {
    xtask::set_up::set_up();
    if let Some(missing) = kafka::missing().or_else(postgres::missing) {
        return Err(missing);
    }
    step("cargo", &["build", "--release", "--package", "docket"])?;
    step(
        "cargo",
        &["test", "--workspace", "--all-features", "--test", "kafka", "--test", "trials", "--", "--nocapture"],
    )
}

fn sim(seed: u64, count: u64) -> Done {
    let (seed, count) = (seed.to_string(), count.to_string());
    let knobs = [("SIM_FROM", &*seed), ("SIM_COUNT", &*count)];
    // Told what happened in them: seeds in which nothing did would prove nothing.
    for stories in ["sim_partition", "sim_house"] {
        let arguments = ["test", "--release", "--package", "engine", "--test", stories, "more_seeds"];
        step_with("cargo", &[&arguments[..], &["--", "--exact", "--nocapture"]].concat(), &knobs)?;
    }
    Ok(())
}

/// One seed of the simulated nodes, line by line.
fn story(seed: u64) -> Done {
    let seed = seed.to_string();
    let arguments = ["test", "--release", "--package", "engine", "--test", "sim_house", "one_seed"];
    step_with("cargo", &[&arguments[..], &["--", "--exact", "--nocapture"]].concat(), &[("SIM_SEED", &*seed)])
}

fn bench(question: &str, quick: bool, seconds: Option<u32>) -> Done {
    if ["all", "several-nodes"].contains(&question) {
        xtask::set_up::set_up();
    }
    step("cargo", &["build", "--release", "--package", "docket"])?;
    let mut arguments = vec!["run", "--release", "--package", "benches", "--", question];
    arguments.extend(quick.then_some("--quick"));
    let seconds = seconds.map(|seconds| seconds.to_string());
    arguments.extend(seconds.iter().flat_map(|seconds| ["--seconds", seconds]));
    step("cargo", &arguments)
}

fn cluster(directory: &Path, what: ClusterChore) -> Done {
    match what {
        ClusterChore::Up { brokers, nodes, postgres: _, sqlite, partitions, binary } => {
            if let Ok(mut there) = Cluster::find(directory) {
                let started = there.start_dead()?;
                show::members(&there);
                eprintln!(
                    "xtask: started {}",
                    if started.is_empty() { "nothing".to_owned() } else { started.join(", ") }
                );
                return Ok(());
            }
            let binary = match binary {
                Some(binary) => binary,
                None if nodes == 0 => PathBuf::new(),
                None => {
                    step("cargo", &["build", "--release", "--package", "docket"])?;
                    target().join("release/docket")
                }
            };
            let began = Instant::now();
            let plan = cluster::Plan { brokers, nodes, postgres: !sqlite, partitions, binary };
            let cluster = Cluster::up(directory, &plan)?;
            show::members(&cluster);
            eprintln!("\nUp in {:.1} s, in {}", began.elapsed().as_secs_f64(), cluster.directory().display());
            show::next(&cluster);
        }
        ClusterChore::Status => show::members(&Cluster::find(directory)?),
        ClusterChore::Down { keep } => Cluster::find(directory)?.down(keep)?,
        ClusterChore::Kill { who } => each(directory, &who, Name::kill)?,
        ClusterChore::Pause { who } => each(directory, &who, Name::pause)?,
        ClusterChore::Resume { who } => each(directory, &who, Name::resume)?,
    }
    Ok(())
}

/// Does something to members by name, and shows all.
fn each(directory: &Path, who: &[String], act: fn(Name) -> Done) -> Done {
    let cluster = Cluster::find(directory)?;
    // A mistyped name is found before anything is done.
    let members = who.iter().map(|who| cluster.member(who)).collect::<Result<Vec<_>, _>>()?;
    for member in members {
        act(member.name).map_err(|fault| format!("{}: {fault}", member.who))?;
    }
    show::members(&cluster);
    Ok(())
}

fn step(program: &str, arguments: &[&str]) -> Done {
    step_with(program, arguments, &[])
}

fn step_with(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Done {
    run(&root(), program, arguments, environment)
}

/// A step in another directory.
fn step_in(directory: &Path, program: &str, arguments: &[&str]) -> Done {
    run(directory, program, arguments, &[])
}

fn run(directory: &Path, program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Done {
    let named: String = environment.iter().map(|(name, value)| format!("{name}={value} ")).collect();
    let typed = format!("{named}{program} {}", arguments.join(" "));
    println!("xtask: {typed}");
    let began = Instant::now();
    let status = Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(directory)
        .status()
        .map_err(|error| format!("{typed} ({error})"))?;
    println!("xtask: {:.0} s for {typed}", began.elapsed().as_secs_f64());
    if status.success() { Ok(()) } else { Err(typed) }
}

/// Where cargo builds: this very program lies in `<target>/debug`.
fn target() -> PathBuf {
    let own = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.parent()?.to_owned()));
    own.unwrap_or_else(|| root().join("target"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
