//! `docket stock`: count and show.

use clap::{Args, Subcommand};
use comfy_table::Cell;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::cli::Global;
use crate::client::Command;
use crate::failure::Failure;
use crate::order::{Page, tell_more};
use crate::output::{Column, table, text, time};

const SET_EXAMPLES: &str = "\
Examples:
  docket stock set shop-1 beans-1kg 100
  docket stock set shop-1 beans-1kg 97 --reason damaged";
const SHOW_EXAMPLES: &str = "\
Examples:
  docket stock show shop-1                        everything there
  docket stock show shop-1 beans-1kg";

/// `docket stock …`
#[derive(Debug, Subcommand)]
pub(crate) enum StockCommand {
    /// Say how many there are, as counted
    #[command(after_help = SET_EXAMPLES)]
    Set(SetArguments),
    /// Show how many there are, how many are promised, how many can be had
    #[command(after_help = SHOW_EXAMPLES)]
    Show(ShowArguments),
}

/// What `docket stock set` takes.
#[derive(Debug, Args)]
pub(crate) struct SetArguments {
    /// Where
    location: String,
    /// What
    sku: String,
    /// How many, promised ones included
    on_hand: u64,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// The idempotency key, to repeat a command safely [default: a new one]
    #[arg(long, value_name = "UUID")]
    key: Option<Uuid>,
}

/// What `docket stock show` takes.
#[derive(Debug, Args)]
pub(crate) struct ShowArguments {
    /// Where
    location: String,
    /// What [default: everything there]
    #[arg(conflicts_with_all = ["limit", "cursor", "all"])]
    sku: Option<String>,
    #[command(flatten)]
    page: Page,
}

/// Does it.
pub(crate) async fn run(command: StockCommand, global: &Global) -> Result<(), Failure> {
    let (client, screen) = (global.client(), global.screen());
    let one = |stock: &Value, paint| table(COLUMNS, std::slice::from_ref(stock), paint);
    match command {
        StockCommand::Set(SetArguments { location, sku, on_hand, reason, key }) => {
            let mut body = json!({"on_hand": on_hand});
            if let Some(reason) = reason {
                body["reason"] = reason.into();
            }
            let url = client.url(&["v1", "stock", &location, &sku]);
            let answer = client.command(&Command::put(url, key.unwrap_or_else(Uuid::now_v7), body)).await?;
            screen.item(&answer.body, one)
        }
        StockCommand::Show(ShowArguments { location, sku: Some(sku), .. }) => {
            let url = client.url(&["v1", "stock", &location, &sku]);
            screen.item(&client.read(url).await?.body, one)
        }
        StockCommand::Show(ShowArguments { location, sku: None, page }) => {
            let page = page.read(&client, &["v1", "stock", &location], &[]).await?;
            screen.list(&page, COLUMNS)?;
            tell_more(&page, screen);
            Ok(())
        }
    }
}

const COLUMNS: &[Column] = &[
    Column { title: "location", show: |stock| Cell::new(text(&stock["location_id"])) },
    Column { title: "sku", show: |stock| Cell::new(text(&stock["sku"])) },
    Column { title: "on hand", show: |stock| Cell::new(text(&stock["on_hand"])) },
    Column { title: "reserved", show: |stock| Cell::new(text(&stock["reserved"])) },
    Column { title: "available", show: |stock| Cell::new(text(&stock["available"])) },
    Column { title: "version", show: |stock| Cell::new(text(&stock["version"])) },
    Column { title: "updated", show: |stock| Cell::new(time(&stock["updated_at"])) },
];
