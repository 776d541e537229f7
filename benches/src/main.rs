//! Each file is a question, answered with a number: how fast is it, beside what this machine could do at best? A floor (the
//! raw file, the minimal handler) is measured in the same run, before and after, so that a figure can be read as a ratio
//! and the machine's own noise is seen. `benches all` asks everything and prints one table; `--quick` is enough to see
//! that it works, not to quote.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on has failed"))]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

mod child;
mod floor;
mod generator;
mod ground;
mod growth;
mod house;
mod overload;
mod reads;
mod restart;
mod several_nodes;
mod table;
mod times;
mod visible;
mod w1_http;
mod w1_in_process;
mod w2_hot_stock;
mod w3_long_stream;
mod w4_views;
mod w5_replay;
mod w6_checkout;
mod wire;

use table::Table;

/// The same as the product's, so that floors and engine allocate alike.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What goes wrong ends the run: a measurement that is half right is wrong.
type Done<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Parser)]
#[command(name = "benches", about = "Docket's benchmarks, beside their floors")]
struct Arguments {
    #[command(subcommand)]
    question: Question,
    #[command(flatten)]
    how: How,
}

/// How to measure.
#[derive(Args, Clone)]
struct How {
    /// The binary to measure [default: `docket` beside this one]
    #[arg(long, global = true, value_name = "FILE")]
    docket: Option<PathBuf>,
    /// The binary that makes the load [default: the one to measure]
    #[arg(long, global = true, value_name = "FILE")]
    load: Option<PathBuf>,
    /// Where to keep what is written meanwhile: the disk that is measured [default: the directory for temporary files]
    #[arg(long, global = true, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Short and small: shows that it works, not how fast it is
    #[arg(long, global = true)]
    quick: bool,
    /// Seconds per figure
    #[arg(long, global = true, value_name = "N")]
    seconds: Option<u32>,
    /// Orders in the log of `restart`, `w4-views` and `w5-replay`, and those that `growth` places
    #[arg(long, global = true, value_name = "N")]
    orders: Option<u64>,
    /// How large the log of `growth` grows, in GiB [default: 10]
    #[arg(long, global = true, value_name = "GIB")]
    gib: Option<f64>,
    /// Print JSON instead of a table
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, PartialEq, Eq, Subcommand)]
enum Question {
    /// Everything, one after the other
    All,
    /// How fast is one durable write, and a file with group commit?
    RawLog,
    /// How fast is the least that could take orders over HTTP?
    HttpFloor,
    /// How fast are orders placed over HTTP?
    W1Http,
    /// How fast are orders placed without HTTP?
    W1InProcess,
    /// How fast is one order read?
    Reads,
    /// How fast are few SKUs reserved by many?
    W2HotStock,
    /// How fast does a long stream take one event more, also right after a start?
    W3LongStream,
    /// How fast are views folded afresh, and how soon do they show what was accepted?
    W4Views,
    /// How fast is everything read from the beginning?
    W5Replay,
    /// How fast do orders settle, from stock to money?
    W6Checkout,
    /// How soon is it ready again, with a long history?
    Restart,
    /// What becomes of it when it is asked for twice and five times what it can do?
    Overload,
    /// Does it stay small and fast with many orders and a large log? Some minutes and 15 GB; not among `all`
    Growth,
    /// How fast is it on Kafka and PostgreSQL, on one node and on three, and how soon is a dead node's work taken over?
    SeveralNodes,
    /// Be the minimal handler (the floor starts itself so)
    #[command(hide = true)]
    ServeFloor { listen: SocketAddr },
    /// Be the minimal handler on a topic
    #[command(hide = true)]
    ServeTopic { listen: SocketAddr, brokers: String, topic: String },
}

impl How {
    fn seconds(&self) -> u32 {
        self.seconds.unwrap_or(if self.quick { 2 } else { 8 })
    }

    fn orders(&self) -> u64 {
        self.orders.unwrap_or(if self.quick { 20_000 } else { 1_000_000 })
    }

    fn docket(&self) -> Done<PathBuf> {
        let path = match &self.docket {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("docket"),
        };
        if path.is_file() {
            Ok(path)
        } else {
            Err(format!("there is no {}: cargo build --release --package docket, or --docket FILE", path.display())
                .into())
        }
    }

    /// The binary that makes the load: when two are compared, the same for both.
    fn load(&self) -> Done<PathBuf> {
        self.load.clone().map_or_else(|| self.docket(), Ok)
    }

    /// Bytes that the log of `growth` grows to.
    fn log_bytes(&self) -> u64 {
        let gib = self.gib.unwrap_or(if self.quick { 0.1 } else { 10.0 });
        (gib * (1_u64 << 30) as f64) as u64
    }

    /// A directory of its own on the disk that is measured; goes when dropped.
    fn scratch(&self) -> Done<tempfile::TempDir> {
        let parent = self.scratch.clone().unwrap_or_else(std::env::temp_dir);
        Ok(tempfile::Builder::new().prefix("docket-benches-").tempdir_in(parent)?)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { question, how } = Arguments::parse();
    match ask(question, &how).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("benches: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn ask(question: Question, how: &How) -> Done<()> {
    if let Question::ServeFloor { listen } = question {
        return floor::http::serve(listen, &how.scratch.clone().unwrap_or_else(std::env::temp_dir)).await;
    }
    if let Question::ServeTopic { listen, brokers, topic } = question {
        return floor::http::serve_topic(listen, &brokers, &topic).await;
    }
    let all = question == Question::All;
    let asked = |one: Question| all || question == one;
    let mut table = Table::new(how.json);
    floor::disk::measure(how, &mut table)?;
    if asked(Question::RawLog) {
        floor::log::measure(how, &mut table).await?;
    }
    if asked(Question::W1InProcess) {
        w1_in_process::measure(how, &mut table).await?;
    }
    if asked(Question::HttpFloor) && !all {
        floor::http::measure(how, &mut table)?;
    }
    if asked(Question::W1Http) {
        w1_http::measure(how, &mut table)?;
    }
    if asked(Question::Reads) {
        reads::measure(how, &mut table)?;
    }
    if asked(Question::W2HotStock) {
        w2_hot_stock::measure(how, &mut table)?;
    }
    if asked(Question::W3LongStream) {
        w3_long_stream::measure(how, &mut table).await?;
    }
    if asked(Question::W6Checkout) {
        w6_checkout::measure(how, &mut table)?;
    }
    if asked(Question::Overload) {
        overload::measure(how, &mut table)?;
    }
    if asked(Question::Restart) || asked(Question::W5Replay) || asked(Question::W4Views) {
        let history = house::History::make(how).await?;
        if asked(Question::W4Views) {
            tokio::task::block_in_place(|| w4_views::measure(how, &history, &mut table))?;
        }
        if asked(Question::W5Replay) {
            w5_replay::measure(how, &history, &mut table)?;
        }
        if asked(Question::Restart) {
            restart::measure(how, &history, &mut table)?;
        }
    }
    if question == Question::Growth {
        growth::measure(how, &mut table).await?;
    }
    if asked(Question::SeveralNodes) {
        tokio::task::block_in_place(|| several_nodes::measure(how, all, &mut table))?;
    }
    floor::disk::measure(how, &mut table)?;
    table.print();
    Ok(())
}
