//! `docket`: the command line. Reads what is asked, hands it to the room that does it, and ends with a code that scripts
//! can tell apart: 0 done, 1 refused or a failed check, 2 a command line that makes no sense, 3 no answer, 4 conflict.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on has failed"))]

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;

mod cli;
mod client;
mod config;
mod demo;
mod descriptors;
mod dev;
mod dice;
mod doctor;
mod explain;
mod failure;
mod fsck;
mod house;
mod load;
mod log;
mod order;
mod output;
mod projection;
mod saga;
mod serve;
mod stock;
mod stream;

use cli::Cli;
use output::Paint;

/// Allocates fast on many threads, and gives memory back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    // Huge pages make a small process large, and clearing them costs more here than they save. Where the kernel refuses,
    // all works as well.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    match Cli::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint!("{}", failure.report(Paint::on(std::io::stderr().is_terminal())));
            ExitCode::from(failure.code() as u8)
        }
    }
}
