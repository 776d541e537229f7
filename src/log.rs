//! `docket log`: what is done with a whole log beside the node that writes it: verified and shown as it lies on the disk,
//! without being opened, or moved into Kafka while nobody writes to it.

use clap::Subcommand;

use crate::cli::Global;
use crate::failure::Failure;

#[cfg(feature = "kafka")]
mod copy;
#[cfg(feature = "kafka")]
mod lane;
mod place;
mod show;
#[cfg(feature = "kafka")]
mod target;
mod verify;

const COPY_EXAMPLES: &str = "\
Examples:
  docket log copy --from docket-data --to kafka://127.0.0.1:19192/shop
  docket log copy --from docket-data --to kafka://10.0.0.1:9092,10.0.0.2:9092/shop --config docket.toml
  docket log copy --from docket-data --to kafka://127.0.0.1:19192/try?replication_factor=1

Stop the node first. Ended half-way, typed again it goes on where it was. Exit codes: 0 all is there and was read back,
1 refused, 3 brokers not reachable, 4 the topic holds something else.";

/// What can be done with a log.
#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Check every byte of a log on this disk: framing, checksums, who might write, versions; nothing is changed
    #[command(after_help = verify::EXAMPLES)]
    Verify(verify::VerifyArguments),
    /// Show the records of a log on this disk, with what became of each; nothing is changed
    #[command(after_help = show::EXAMPLES)]
    Show(show::ShowArguments),
    /// Move an embedded log into Kafka: the same records at the same positions, read back and compared
    #[command(after_help = COPY_EXAMPLES)]
    Copy(CopyArguments),
}

/// What `docket log copy` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct CopyArguments {
    /// The data directory of a node with an embedded log
    #[arg(long, value_name = "DIR")]
    from: std::path::PathBuf,
    /// Brokers and the log's name there: kafka://HOST:PORT[,HOST:PORT]/NAME[?replication_factor=N]
    #[arg(long, value_name = "URL")]
    to: String,
    #[command(flatten)]
    config: crate::config::ConfigArguments,
}

/// Does it.
pub(crate) async fn run(command: LogCommand, global: &Global) -> Result<(), Failure> {
    match command {
        LogCommand::Verify(arguments) => verify::run(arguments, global).await,
        LogCommand::Show(arguments) => show::run(arguments, global).await,
        LogCommand::Copy(arguments) => copy(arguments, global).await,
    }
}

#[cfg(feature = "kafka")]
async fn copy(arguments: CopyArguments, global: &Global) -> Result<(), Failure> {
    let screen = global.screen();
    let done =
        crate::house::log::blocking(move || copy::copy(&arguments.from, &arguments.to, &arguments.config)).await?;
    screen.item(&done.told(), |_, paint| done.shown(paint))
}

/// Says that it cannot.
#[cfg(not(feature = "kafka"))]
async fn copy(CopyArguments { from: _, to: _, config: _ }: CopyArguments, _global: &Global) -> Result<(), Failure> {
    Err(Failure::plain("this build has no Kafka").next("build it with the feature kafka"))
}
