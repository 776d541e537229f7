//! What can be typed: the commands, what all of them take, and examples of each. What they do is elsewhere.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::client::{Client, Server};
use crate::config::ConfigArguments;
use crate::config::command::{self as config, ConfigCommand};
use crate::dev::{self, DevArguments};
use crate::doctor;
use crate::explain::{self, ExplainArguments};
use crate::failure::Failure;
use crate::fsck::{self, FsckArguments};
use crate::load::{self, LoadArguments};
use crate::log::{self, LogCommand};
use crate::order::{self, OrderCommand};
use crate::output::{Format, Screen};
use crate::projection::{self, ProjectionCommand};
use crate::saga::{self, SagaCommand};
use crate::serve::{self, ServeArguments};
use crate::stock::{self, StockCommand};
use crate::stream::{self, StreamCommand};

const EXAMPLES: &str = "\
Examples:
  docket dev --demo shop                          everything in one process, with a shop that trades
  docket stock set shop-1 beans-1kg 100           count stock
  docket order place --customer c-17 --location shop-1 --line beans-1kg:2:1999 --pay tok_ok --wait 5
  docket order list                               what became of it
  docket explain stock-insufficient               what a problem means and what to do

Exit codes: 0 done, 1 refused or a failed check, 2 usage, 3 no answer, 4 conflict.";

const DEV_EXAMPLES: &str = "\
Examples:
  docket dev                                      keeps its data in ./docket-data
  docket dev --demo shop                          with a shop that trades
  docket dev --memory --listen 127.0.0.1:0        forgets everything; picks a free port and prints it";

const FSCK_EXAMPLES: &str = "\
Examples:
  docket fsck                                     exits 1 if something that must hold does not
  docket fsck --key order-01980000-0000-7000-8000-000000000000     and if its row is not what the log makes of it
  docket fsck --sample 100                        the same of a hundred rows
  docket fsck --whole                             of all rows; names the first that differs
  docket fsck --output json";

/// An event-sourced order–pay–stock system over a distributed log, in one binary
#[derive(Debug, Parser)]
#[command(name = "docket", version, after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// The server to talk to
    #[arg(long, global = true, env = "DOCKET_SERVER", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    server: Server,
    /// How to print results [default: table on a terminal, json elsewhere]
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    /// Who acts: kept in the log with every command
    #[arg(long, global = true, env = "DOCKET_ACTOR", value_name = "WHO")]
    actor: Option<String>,
    /// Why: kept in the log with every command
    #[arg(long, global = true, value_name = "WHY")]
    because: Option<String>,
}

impl Global {
    /// The server, to talk to.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.server.clone()).acting_as(self.actor.as_deref(), self.because.as_deref())
    }

    /// Where results go.
    pub(crate) fn screen(&self) -> Screen {
        Screen::stdout(self.output)
    }

    /// Where long lists go, that are printed as they come: one document a line unless somebody looks.
    pub(crate) fn lines(&self) -> Screen {
        let screen = Screen::stdout(self.output);
        let format = self.output.unwrap_or(match screen.format {
            Format::Json => Format::Ndjson,
            format => format,
        });
        Screen { format, ..screen }
    }

    /// Where texts go: they are to be read, in a pager too, unless a program asks for another form.
    pub(crate) fn page(&self) -> Screen {
        Screen::stdout(self.output.or(Some(Format::Table)))
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything in one process on embedded storage
    #[command(after_help = DEV_EXAMPLES)]
    Dev(DevArguments),
    /// Run one node as its configuration says
    #[command(after_help = serve::EXAMPLES)]
    Serve(ServeArguments),
    /// Show, check and explain the configuration of a node
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Place, show, list and cancel orders
    #[command(subcommand)]
    Order(OrderCommand),
    /// Count and show stock
    #[command(subcommand)]
    Stock(StockCommand),
    /// Show checkout sagas: how far each order is, and what it waits for
    #[command(subcommand)]
    Saga(SagaCommand),
    /// Read what happened, event by event
    #[command(subcommand)]
    Stream(StreamCommand),
    /// Put a server under load, and check that money and stock add up
    #[command(after_help = load::EXAMPLES)]
    Load(LoadArguments),
    /// Look at all that a node rests on: disk, brokers, database, clocks
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(ConfigArguments),
    /// Verify, show or move a log
    #[command(subcommand)]
    Log(LogCommand),
    /// Look after the read models: rebuild, compare, switch, roll back; what is parked
    #[command(subcommand)]
    Projection(ProjectionCommand),
    /// Check what must hold over the whole log, and that rows are what the log makes of them
    #[command(after_help = FSCK_EXAMPLES)]
    Fsck(FsckArguments),
    /// Explain a problem code; without one, list them all
    #[command(after_help = explain::EXAMPLES)]
    Explain(ExplainArguments),
}

impl Cli {
    /// Does what was asked.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let global = self.global;
        match self.command {
            Command::Dev(arguments) => dev::run(arguments).await,
            Command::Serve(arguments) => serve::run(arguments).await,
            Command::Config(command) => config::run(&command, &global),
            Command::Order(command) => order::run(command, &global).await,
            Command::Stock(command) => stock::run(command, &global).await,
            Command::Saga(command) => saga::run(command, &global).await,
            Command::Stream(command) => stream::run(command, &global).await,
            Command::Load(arguments) => load::run(arguments, &global).await,
            Command::Doctor(arguments) => doctor::run(&arguments, &global).await,
            Command::Log(command) => log::run(command, &global).await,
            Command::Projection(command) => projection::run(command, &global).await,
            Command::Fsck(arguments) => fsck::run(arguments, &global).await,
            Command::Explain(arguments) => explain::run(&arguments, global.page()),
        }
    }
}

/// A span of time: `500ms`, `30s`, `2m`, `1h`, or plain seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("{unit:?} is no unit; write 500ms, 30s, 2m or 1h")),
    };
    let number = number.parse::<f64>().map_err(|_| "write 500ms, 30s, 2m or 1h".to_owned())?;
    // A week: no run of a command is meant to last longer, and a float beyond it is a slip.
    if (0.0..=604_800.0).contains(&(number * seconds)) {
        Ok(Duration::from_secs_f64(number * seconds))
    } else {
        Err("at most a week".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn help_of(path: &[&str]) -> String {
        let mut command = Cli::command();
        command.build();
        let command = path.iter().fold(&mut command, |command, name| command.find_subcommand_mut(name).expect(name));
        command.render_long_help().to_string()
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_comes_with_examples() {
        fn check(command: &clap::Command, path: &str) {
            let subcommands = command.get_subcommands().filter(|sub| sub.get_name() != "help").collect::<Vec<_>>();
            if subcommands.is_empty() {
                let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(examples.starts_with("Examples:\n"), "{path} has no examples");
                assert!(examples.contains(path), "{path} is not in its own examples");
            }
            for subcommand in subcommands {
                check(subcommand, &format!("{path} {}", subcommand.get_name()));
            }
        }
        check(&Cli::command(), "docket");
    }

    /// What examples say must be typable.
    #[test]
    fn every_example_can_be_typed() {
        fn check(command: &clap::Command) {
            let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in examples.lines().filter_map(|line| line.strip_prefix("  docket ")) {
                let typed = line.split("   ").next().unwrap_or(line).split_whitespace();
                let parsed = Cli::try_parse_from(std::iter::once("docket").chain(typed));
                assert!(parsed.is_ok(), "docket {line}: {}", parsed.unwrap_err());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn the_help_says_what_every_command_takes_and_how_it_ends() {
        let help = help_of(&[]);
        for told in [
            "--server",
            "DOCKET_SERVER",
            "--output",
            "ndjson",
            "Exit codes",
            "dev",
            "serve",
            "order",
            "load",
            "explain",
        ] {
            assert!(help.contains(told), "{told}");
        }
        assert!(help_of(&["order", "place"]).contains("SKU:QUANTITY:PRICE[:CURRENCY]"));
    }

    #[test]
    fn the_server_may_be_named_before_or_after_the_command() {
        for line in [
            ["docket", "--server", "http://a:1", "order", "list"],
            ["docket", "order", "list", "--server", "http://a:1"],
        ] {
            assert_eq!(Cli::try_parse_from(line).unwrap().global.server.to_string(), "http://a:1");
        }
    }

    #[test]
    fn usage_errors_end_with_2() {
        assert_eq!(Cli::try_parse_from(["docket", "order", "frobnicate"]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn times_are_read_with_their_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        for wrong in ["", "s", "-1s", "30d", "3 s", "NaN", "1e99"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
