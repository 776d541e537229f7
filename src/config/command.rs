//! `docket config`: shows what a node would be told and by what, checks it without starting anything, and lists every key.

use clap::{Args, Subcommand};
use comfy_table::Cell;
use serde_json::{Value, json};

use super::{Config, ConfigArguments, KEYS};
use crate::cli::Global;
use crate::failure::Failure;
use crate::output::{Column, Paint, text};

const SHOW_EXAMPLES: &str = "\
Examples:
  docket config show                                            every setting, passwords hidden
  docket config show --config docket.toml --sources             and what set it
  docket config show --set log.kind=kafka --set log.kafka.bootstrap=127.0.0.1:19192 --output json";

const CHECK_EXAMPLES: &str = "\
Examples:
  docket config check --config docket.toml                      exits 1 and tells all that is wrong";

const REFERENCE_EXAMPLES: &str = "\
Examples:
  docket config reference                                       every key: what for, what it may be, its default";

/// What can be asked of a configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show the settings a node would start with
    #[command(after_help = SHOW_EXAMPLES)]
    Show(ShowArguments),
    /// Check the settings without starting anything
    #[command(after_help = CHECK_EXAMPLES)]
    Check(ConfigArguments),
    /// List every key there is
    #[command(after_help = REFERENCE_EXAMPLES)]
    Reference,
}

/// What `docket config show` takes.
#[derive(Debug, Args)]
pub(crate) struct ShowArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Also show what set each: the default, a file, a variable, --set
    #[arg(long)]
    sources: bool,
}

const SETTINGS: &[Column] = &[
    Column { title: "key", show: |setting| Cell::new(text(&setting["key"])) },
    Column { title: "value", show: |setting| Cell::new(text(&setting["value"])) },
];

const SOURCES: &[Column] = &[
    Column { title: "key", show: |setting| Cell::new(text(&setting["key"])) },
    Column { title: "value", show: |setting| Cell::new(text(&setting["value"])) },
    Column { title: "set by", show: |setting| Cell::new(text(&setting["source"])) },
];

const REFERENCE: &[Column] = &[
    Column { title: "key", show: |key| Cell::new(text(&key["key"])) },
    Column { title: "default", show: |key| Cell::new(text(&key["default"])) },
    Column { title: "what it may be", show: |key| Cell::new(text(&key["kind"])) },
    Column { title: "what for", show: |key| Cell::new(text(&key["doc"])) },
];

/// Does it.
pub(crate) fn run(command: &ConfigCommand, global: &Global) -> Result<(), Failure> {
    match command {
        ConfigCommand::Show(arguments) => show(arguments, global),
        ConfigCommand::Check(arguments) => {
            Config::load(arguments)?;
            let done = json!({"ok": true});
            global.screen().item(&done, |_, paint: Paint| format!("{}\n", paint.good("the configuration can be used")))
        }
        ConfigCommand::Reference => global.page().list(&json!({"items": reference()?}), REFERENCE),
    }
}

fn show(arguments: &ShowArguments, global: &Global) -> Result<(), Failure> {
    let (_, settings) = Config::load(&arguments.config)?;
    let items: Vec<Value> = settings
        .all()
        .into_iter()
        .map(|setting| match arguments.sources {
            true => json!({"key": setting.key, "value": setting.value, "source": setting.source}),
            false => json!({"key": setting.key, "value": setting.value}),
        })
        .collect();
    let columns = if arguments.sources { SOURCES } else { SETTINGS };
    global.screen().list(&json!({"items": items}), columns)
}

fn reference() -> Result<Vec<Value>, Failure> {
    let defaults = serde_json::to_value(Config::default()).map_err(|fault| Failure::of("no defaults", &fault))?;
    let default = |path: &str| path.split('.').fold(&defaults, |at, word| &at[word]).clone();
    let told = KEYS
        .iter()
        .map(|key| json!({"key": key.path, "default": default(key.path), "kind": key.kind.told(), "doc": key.doc}));
    Ok(told.collect())
}
