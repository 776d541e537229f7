//! `docket order`: place, show, list and cancel.

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use comfy_table::Cell;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::cli::Global;
use crate::client::{Client, Command};
use crate::failure::Failure;
use crate::output::{Column, Paint, grid, items, money, state, table, text, time};

mod line;

use line::Line;

const PLACE_EXAMPLES: &str = "\
Examples:
  docket order place --customer c-17 --location shop-1 --line beans-1kg:2:1999 --line filter:1:450:EUR
  docket order place --customer c-17 --location shop-1 --line beans-1kg:2:1999 --pay tok_ok --wait 5
  docket order place --customer c-17 --location shop-1 --line beans-1kg:1:1999 --pay tok_declined

Without --pay the order is only placed. A repeat under the same --key is the same order, however often.";
const SHOW_EXAMPLES: &str = "\
Examples:
  docket order show 01980000-0000-7000-8000-000000000000
  docket order show 01980000-0000-7000-8000-000000000000 --at-version 1";
const LIST_EXAMPLES: &str = "\
Examples:
  docket order list
  docket order list --customer c-17 --status confirmed --limit 10
  docket order list --all --output csv";
const CANCEL_EXAMPLES: &str = "\
Examples:
  docket order cancel 01980000-0000-7000-8000-000000000000 --reason customer --wait 5";

/// `docket order …`
#[derive(Debug, Subcommand)]
pub(crate) enum OrderCommand {
    /// Place an order; with --pay, check it out at once
    #[command(after_help = PLACE_EXAMPLES)]
    Place(PlaceArguments),
    /// Show an order
    #[command(after_help = SHOW_EXAMPLES)]
    Show(ShowArguments),
    /// List orders, newest first
    #[command(after_help = LIST_EXAMPLES)]
    List(ListArguments),
    /// Cancel an order before it is shipped; what it kept is given back
    #[command(after_help = CANCEL_EXAMPLES)]
    Cancel(CancelArguments),
}

/// What `docket order place` takes.
#[derive(Debug, Args)]
pub(crate) struct PlaceArguments {
    /// Who orders: an id, no name or address
    #[arg(long, value_name = "ID")]
    customer: String,
    /// Where the stock is taken from
    #[arg(long, value_name = "ID")]
    location: String,
    /// What is ordered, for which unit price in minor units (1999 is 19.99 EUR); may be given several times
    #[arg(long = "line", required = true, value_name = "SKU:QUANTITY:PRICE[:CURRENCY]")]
    lines: Vec<Line>,
    /// Pay with this card token, and so check out at once
    #[arg(long, value_name = "TOKEN")]
    pay: Option<String>,
    /// Answer when the checkout has settled, or after so many seconds
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
    /// The order's id [default: follows from the key]
    #[arg(long, value_name = "UUID")]
    id: Option<Uuid>,
    /// The idempotency key, to repeat a command safely [default: a new one]
    #[arg(long, value_name = "UUID")]
    key: Option<Uuid>,
}

/// What `docket order show` takes.
#[derive(Debug, Args)]
pub(crate) struct ShowArguments {
    /// The order's id
    id: Uuid,
    /// As it was after so many events
    #[arg(long, value_name = "N")]
    at_version: Option<u64>,
}

/// What `docket order list` takes.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// Only this customer's
    #[arg(long, value_name = "ID")]
    customer: Option<String>,
    /// Only those that stand here
    #[arg(long, value_parser = PossibleValuesParser::new(schemas::resource::order::OrderStatus::ALL.map(|(name, _)| name)))]
    status: Option<String>,
    #[command(flatten)]
    page: Page,
}

/// What `docket order cancel` takes.
#[derive(Debug, Args)]
pub(crate) struct CancelArguments {
    /// The order's id
    id: Uuid,
    /// Why
    #[arg(long, value_parser = ["customer", "operator", "fraud", "other"])]
    reason: String,
    /// Why, in words; nothing about people
    #[arg(long, value_name = "TEXT")]
    detail: Option<String>,
    /// Answer when all is given back, or after so many seconds
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
    /// The idempotency key, to repeat a command safely [default: a new one]
    #[arg(long, value_name = "UUID")]
    key: Option<Uuid>,
}

/// How much of a list.
#[derive(Debug, Args)]
pub(crate) struct Page {
    /// How many a page
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=500))]
    limit: Option<u64>,
    /// Go on where an earlier page ended
    #[arg(long, value_name = "CURSOR", conflicts_with = "all")]
    cursor: Option<String>,
    /// All pages
    #[arg(long)]
    all: bool,
}

impl Page {
    /// Reads the page, or all pages as one.
    pub(crate) async fn read(
        self,
        client: &Client,
        path: &[&str],
        filters: &[(&str, Option<String>)],
    ) -> Result<Value, Failure> {
        let mut cursor = self.cursor;
        let mut gathered = Vec::new();
        loop {
            let mut url = client.url(path);
            // All pages are read in the largest ones, unless a size was asked for.
            let limit = self.limit.or(self.all.then_some(500)).map(|limit| limit.to_string());
            let paging = [("limit", limit), ("cursor", cursor.take())];
            for (name, value) in filters.iter().chain(&paging) {
                if let Some(value) = value {
                    url.query_pairs_mut().append_pair(name, value);
                }
            }
            let mut page = client.read(url).await?.body;
            cursor = page["next_cursor"].as_str().map(str::to_owned);
            if !self.all {
                return Ok(page);
            }
            gathered.append(page["items"].as_array_mut().unwrap_or(&mut Vec::new()));
            if cursor.is_none() {
                page["items"] = gathered.into();
                return Ok(page);
            }
        }
    }
}

/// Says on stderr how to see the rest of a list, to a person.
pub(crate) fn tell_more(page: &Value, screen: crate::output::Screen) {
    if screen.format == crate::output::Format::Table && !items(page).is_empty() && page["next_cursor"].is_string() {
        eprintln!("there are more: --all, or --cursor {}", text(&page["next_cursor"]));
    }
}

/// Does it.
pub(crate) async fn run(command: OrderCommand, global: &Global) -> Result<(), Failure> {
    let (client, screen) = (global.client(), global.screen());
    match command {
        OrderCommand::Place(arguments) => {
            let answer = client.command(&place(&client, arguments)).await?;
            screen.item(&answer.body, shown)
        }
        OrderCommand::Show(ShowArguments { id, at_version }) => {
            let mut url = client.url(&["v1", "orders", &id.to_string()]);
            if let Some(version) = at_version {
                url.query_pairs_mut().append_pair("at_version", &version.to_string());
            }
            screen.item(&client.read(url).await?.body, shown)
        }
        OrderCommand::List(ListArguments { customer, status, page }) => {
            let filters = [("customer_id", customer), ("status", status)];
            let page = page.read(&client, &["v1", "orders"], &filters).await?;
            screen.list(&page, COLUMNS)?;
            tell_more(&page, screen);
            Ok(())
        }
        OrderCommand::Cancel(CancelArguments { id, reason, detail, wait, key }) => {
            let url = client.url(&["v1", "orders", &id.to_string(), "cancel"]);
            let mut body = json!({"reason": reason});
            if let Some(detail) = detail {
                body["detail"] = detail.into();
            }
            let command = Command::post(url, key.unwrap_or_else(Uuid::now_v7), body).wait(wait);
            screen.item(&client.command(&command).await?.body, shown)
        }
    }
}

fn place(client: &Client, arguments: PlaceArguments) -> Command {
    let mut body = Map::new();
    if let Some(id) = arguments.id {
        body.insert("order_id".to_owned(), json!(id));
    }
    body.insert("customer_id".to_owned(), arguments.customer.into());
    body.insert("location_id".to_owned(), arguments.location.into());
    body.insert("lines".to_owned(), arguments.lines.iter().map(Line::to_json).collect());
    if let Some(token) = arguments.pay {
        body.insert("payment".to_owned(), json!({"method": "card", "token": token}));
    }
    let key = arguments.key.unwrap_or_else(Uuid::now_v7);
    Command::post(client.url(&["v1", "orders"]), key, body.into()).wait(arguments.wait)
}

const COLUMNS: &[Column] = &[
    Column { title: "order", show: |order| Cell::new(text(&order["order_id"])) },
    Column { title: "placed", show: |order| Cell::new(time(&order["placed_at"])) },
    Column { title: "customer", show: |order| Cell::new(text(&order["customer_id"])) },
    Column { title: "location", show: |order| Cell::new(text(&order["location_id"])) },
    Column { title: "status", show: |order| state(&order["status"]) },
    Column { title: "total", show: |order| Cell::new(money(&order["total"])) },
    Column { title: "why", show: |order| Cell::new(text(&order["cancellation"]["reason"])) },
];

const LINE_COLUMNS: &[Column] = &[
    Column { title: "sku", show: |line| Cell::new(text(&line["sku"])) },
    Column { title: "quantity", show: |line| Cell::new(text(&line["quantity"])) },
    Column { title: "unit price", show: |line| Cell::new(money(&line["unit_price"])) },
    Column { title: "location", show: |line| Cell::new(text(&line["location_id"])) },
];

fn shown(order: &Value, paint: Paint) -> String {
    let mut rows = vec![
        ("order", Cell::new(text(&order["order_id"]))),
        ("status", state(&order["status"])),
        ("customer", Cell::new(text(&order["customer_id"]))),
        ("total", Cell::new(money(&order["total"]))),
        ("paid", Cell::new(money(&order["paid"]))),
    ];
    if order["refunded"]["amount"] != 0 {
        rows.push(("refunded", Cell::new(money(&order["refunded"]))));
    }
    if let Some(reason) = order["cancellation"]["reason"].as_str() {
        let detail = order["cancellation"]["detail"].as_str();
        rows.push(("cancelled", Cell::new(detail.map_or(reason.to_owned(), |detail| format!("{reason}: {detail}")))));
    }
    rows.push(("placed", Cell::new(time(&order["placed_at"]))));
    rows.push(("version", Cell::new(text(&order["version"]))));
    let mut shown = grid(Vec::new(), rows.into_iter().map(|(name, cell)| vec![Cell::new(name), cell]), paint);
    shown.push('\n');
    shown.push_str(&table(LINE_COLUMNS, order["lines"].as_array().map_or(&[], Vec::as_slice), paint));
    if order["status"] == "placed" && !order["saga_id"].is_null() {
        shown.push_str(&format!("\n{} docket saga show {}\n", paint.dim("next:"), text(&order["saga_id"])));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_shown_with_its_lines_and_why_it_was_cancelled() {
        let order = json!({
            "order_id": "0198", "customer_id": "c-17", "location_id": "shop-1", "status": "cancelled", "version": 3,
            "placed_at": "2026-11-21T10:00:00.000001Z",
            "lines": [{"sku": "beans-1kg", "quantity": 2, "unit_price": {"amount": 1999, "currency": "EUR"}, "location_id": "shop-1"}],
            "total": {"amount": 3998, "currency": "EUR"}, "paid": {"amount": 0, "currency": "EUR"},
            "refunded": {"amount": 0, "currency": "EUR"}, "payment_id": null, "saga_id": null,
            "cancellation": {"reason": "payment_declined", "detail": null},
        });
        let shown = shown(&order, Paint::never());
        for told in
            ["0198", "cancelled", "payment_declined", "39.98 EUR", "beans-1kg", "19.99 EUR", "2026-11-21 10:00:00"]
        {
            assert!(shown.contains(told), "{told} in\n{shown}");
        }
        assert!(!shown.contains("refunded"));
    }
}
