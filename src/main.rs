//! `docket`: the command line. Reads what is asked, hands it to the room that does it, and ends with a code that scripts
//! can tell apart: 0 done, 1 refused or a failed check, 2 a command line that makes no sense, 3 no answer, 4 conflict.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on has failed"))]

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

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
use failure::Failure;
use output::Paint;

/// Allocates fast on many threads, and gives memory back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long what still waits for a disk or the network may go on when the command has ended: a node that is told to stop
/// while it is being opened. It is left as if the process had died.
const LEFT_AFTER: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    // Huge pages make a small process large, and clearing them costs more here than they save. Where the kernel refuses,
    // all works as well.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let command = Cli::parse();
    let ended = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|fault| Failure::of("cannot start threads", &fault))
        .and_then(|runtime| {
            let ended = runtime.block_on(command.run());
            runtime.shutdown_timeout(LEFT_AFTER);
            ended
        });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint!("{}", failure.report(Paint::on(std::io::stderr().is_terminal())));
            ExitCode::from(failure.code() as u8)
        }
    }
}
