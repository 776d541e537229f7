//! `docket saga`: list and show. A checkout saga bears its order's id.

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use comfy_table::Cell;
use serde_json::Value;
use uuid::Uuid;

use crate::cli::Global;
use crate::failure::Failure;
use crate::order::{Page, tell_more};
use crate::output::{Column, Paint, grid, state, table, text, time};

const LIST_EXAMPLES: &str = "\
Examples:
  docket saga list
  docket saga list --state retrying,stuck-forward,stuck-compensating,parked     what needs a look
  docket saga list --order 01980000-0000-7000-8000-000000000000";
const SHOW_EXAMPLES: &str = "\
Examples:
  docket saga show 01980000-0000-7000-8000-000000000000";

/// `docket saga …`
#[derive(Debug, Subcommand)]
pub(crate) enum SagaCommand {
    /// List sagas
    #[command(after_help = LIST_EXAMPLES)]
    List(ListArguments),
    /// Show a saga with its steps
    #[command(after_help = SHOW_EXAMPLES)]
    Show(ShowArguments),
}

/// What `docket saga list` takes.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// Only those in this state; several by comma
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(schemas::resource::saga::SagaState::ALL.map(|(name, _)| name)))]
    state: Vec<String>,
    /// Only this order's
    #[arg(long, value_name = "ID")]
    order: Option<Uuid>,
    #[command(flatten)]
    page: Page,
}

/// What `docket saga show` takes.
#[derive(Debug, Args)]
pub(crate) struct ShowArguments {
    /// The saga's id, which is its order's
    id: Uuid,
}

/// Does it.
pub(crate) async fn run(command: SagaCommand, global: &Global) -> Result<(), Failure> {
    let (client, screen) = (global.client(), global.screen());
    match command {
        SagaCommand::List(ListArguments { state, order, page }) => {
            let states = (!state.is_empty()).then(|| state.join(","));
            let filters = [("state", states), ("order_id", order.map(|id| id.to_string()))];
            let page = page.read(&client, &["v1", "sagas"], &filters).await?;
            screen.list(&page, COLUMNS)?;
            tell_more(&page, screen);
            Ok(())
        }
        SagaCommand::Show(ShowArguments { id }) => {
            let url = client.url(&["v1", "sagas", &id.to_string()]);
            screen.item(&client.read(url).await?.body, shown)
        }
    }
}

const COLUMNS: &[Column] = &[
    Column { title: "saga", show: |saga| Cell::new(text(&saga["saga_id"])) },
    Column { title: "kind", show: |saga| Cell::new(text(&saga["kind"])) },
    Column { title: "state", show: |saga| state(&saga["state"]) },
    Column { title: "at", show: |saga| Cell::new(at(saga)) },
    Column { title: "started", show: |saga| Cell::new(time(&saga["started_at"])) },
    Column { title: "next attempt", show: |saga| Cell::new(time(&saga["next_attempt_at"])) },
];

const STEP_COLUMNS: &[Column] = &[
    Column { title: "step", show: |step| Cell::new(text(&step["name"])) },
    Column { title: "state", show: |step| state(&step["state"]) },
    Column { title: "attempts", show: |step| Cell::new(text(&step["attempts"])) },
    Column { title: "last error", show: |step| Cell::new(text(&step["last_error"])) },
];

/// The step it is at, if any.
fn at(saga: &Value) -> String {
    let steps = saga["steps"].as_array().map_or(&[][..], Vec::as_slice);
    let at = steps.iter().find(|step| matches!(step["state"].as_str(), Some("running" | "retrying")));
    at.map(|step| text(&step["name"])).unwrap_or_default()
}

fn shown(saga: &Value, paint: Paint) -> String {
    let mut rows = vec![
        ("saga", Cell::new(format!("{} {}", text(&saga["kind"]), text(&saga["saga_id"])))),
        ("state", state(&saga["state"])),
        ("started", Cell::new(time(&saga["started_at"]))),
        ("updated", Cell::new(time(&saga["updated_at"]))),
    ];
    if !saga["next_attempt_at"].is_null() {
        rows.push(("next attempt", Cell::new(time(&saga["next_attempt_at"]))));
    }
    let mut shown = grid(Vec::new(), rows.into_iter().map(|(name, cell)| vec![Cell::new(name), cell]), paint);
    shown.push('\n');
    shown.push_str(&table(STEP_COLUMNS, saga["steps"].as_array().map_or(&[], Vec::as_slice), paint));
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_saga_is_shown_with_each_step_and_what_went_wrong() {
        let saga = json!({
            "saga_id": "0198", "kind": "checkout", "state": "retrying", "started_at": "2026-11-21T10:00:00.000001Z",
            "updated_at": "2026-11-21T10:00:01.000001Z", "next_attempt_at": "2026-11-21T10:00:02.000001Z",
            "steps": [
                {"name": "reserve_stock", "state": "done", "attempts": 1, "last_error": null, "command_id": "c"},
                {"name": "authorize_payment", "state": "retrying", "attempts": 2, "last_error": "unreachable", "command_id": "d"},
            ],
        });
        let shown = shown(&saga, Paint::never());
        for told in ["0198", "retrying", "reserve_stock", "authorize_payment", "unreachable", "10:00:02"] {
            assert!(shown.contains(told), "{told} in\n{shown}");
        }
        assert_eq!(at(&saga), "authorize_payment");
    }
}
