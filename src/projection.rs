//! `docket projection`: how the read models stand, and what an operator may do to them: rebuild them beside those in use,
//! compare, switch, roll back; list, retry and drop what is parked.

use std::time::Duration;

use clap::{Args, Subcommand};
use comfy_table::Cell;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::cli::Global;
use crate::client::{Client, Command};
use crate::failure::{Exit, Failure};
use crate::order::{Page, tell_more};
use crate::output::{Column, state, table, text, time};

/// Between two looks at something under way on the server.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Seconds that a switch waits on the server.
const SWITCH_WAIT_S: u64 = 30;

const LIST_EXAMPLES: &str = "\
Examples:
  docket projection list
  docket projection list --output json                checkpoints of every partition, too";
const REBUILD_EXAMPLES: &str = "\
Examples:
  docket projection rebuild                           beside the rows in use; waits, with a progress bar
  docket projection rebuild --switch                  then checks them and brings them into use
  docket projection rebuild --detach                  only begins";
const COMPARE_EXAMPLES: &str = "\
Examples:
  docket projection compare                           exits 1 and names the first row that differs";
const SWITCH_EXAMPLES: &str = "\
Examples:
  docket projection switch                            what was in use is kept, for a rollback";
const ROLLBACK_EXAMPLES: &str = "\
Examples:
  docket projection rollback                          the rows kept from before, caught up with the log first";
const DISCARD_EXAMPLES: &str = "\
Examples:
  docket projection discard                           drops what is beside, and ends a rebuild";
const PARKED_LIST_EXAMPLES: &str = "\
Examples:
  docket projection parked list";
const RETRY_EXAMPLES: &str = "\
Examples:
  docket projection parked retry order-01980000-0000-7000-8000-000000000000";
const DROP_EXAMPLES: &str = "\
Examples:
  docket projection parked drop order-01980000-0000-7000-8000-000000000000 --because ticket-17 --actor ada";

/// `docket projection …`
#[derive(Debug, Subcommand)]
pub(crate) enum ProjectionCommand {
    /// Show how projections stand, with what is beside the rows in use
    #[command(after_help = LIST_EXAMPLES)]
    List,
    /// Fold the whole log into new rows beside those in use
    #[command(after_help = REBUILD_EXAMPLES)]
    Rebuild(RebuildArguments),
    /// Compare the rebuilt rows with those in use
    #[command(after_help = COMPARE_EXAMPLES)]
    Compare(Named),
    /// Bring the rebuilt rows into use
    #[command(after_help = SWITCH_EXAMPLES)]
    Switch(Named),
    /// Bring the rows back that were in use before the last switch
    #[command(after_help = ROLLBACK_EXAMPLES)]
    Rollback(Named),
    /// Drop what is beside the rows in use
    #[command(after_help = DISCARD_EXAMPLES)]
    Discard(Named),
    /// Streams set aside because one of their events cannot be folded
    #[command(subcommand)]
    Parked(ParkedCommand),
}

/// `docket projection parked …`
#[derive(Debug, Subcommand)]
pub(crate) enum ParkedCommand {
    /// List them
    #[command(after_help = PARKED_LIST_EXAMPLES)]
    List(ParkedListArguments),
    /// Try one again; exits 1 if it stays parked
    #[command(after_help = RETRY_EXAMPLES)]
    Retry(ParkedArguments),
    /// Give one up: it is shown as it was before that event
    #[command(after_help = DROP_EXAMPLES)]
    Drop(ParkedArguments),
}

/// Which projection.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// The projection
    #[arg(long = "projection", default_value = "shop", value_name = "NAME")]
    name: String,
}

/// What `docket projection rebuild` takes.
#[derive(Debug, Args)]
pub(crate) struct RebuildArguments {
    #[command(flatten)]
    named: Named,
    /// Only begin; `docket projection list` tells how far it is
    #[arg(long, conflicts_with = "switch")]
    detach: bool,
    /// Check the new rows when they are done, and bring them into use if they are what the log makes
    #[arg(long)]
    switch: bool,
}

/// What `docket projection parked list` takes.
#[derive(Debug, Args)]
pub(crate) struct ParkedListArguments {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    page: Page,
}

/// What `docket projection parked retry` and `drop` take.
#[derive(Debug, Args)]
pub(crate) struct ParkedArguments {
    #[command(flatten)]
    named: Named,
    /// The stream
    stream: String,
}

/// Does it.
pub(crate) async fn run(command: ProjectionCommand, global: &Global) -> Result<(), Failure> {
    let (client, screen) = (global.client(), global.screen());
    let shown = |item: &Value, paint| table(COLUMNS, std::slice::from_ref(item), paint);
    match command {
        ProjectionCommand::List => {
            let page = client.read(client.url(&["v1", "projections"])).await?.body;
            screen.list(&page, COLUMNS)
        }
        ProjectionCommand::Rebuild(RebuildArguments { named, detach, switch }) => {
            let mut projection = post(&client, &named.name, &["rebuild"], None).await?;
            if !detach {
                projection = rebuilt(&client, &named.name).await?;
            }
            if switch {
                let compared = check(&client, &named.name, &json!({"scope": "rebuilt"})).await?;
                equal(&compared)?;
                projection = post(&client, &named.name, &["switch"], Some(SWITCH_WAIT_S)).await?;
            }
            screen.item(&projection, shown)
        }
        ProjectionCommand::Compare(Named { name }) => {
            let compared = check(&client, &name, &json!({"scope": "beside"})).await?;
            screen.item(&compared, |item, paint| table(CHECK_COLUMNS, std::slice::from_ref(item), paint))?;
            equal(&compared)
        }
        ProjectionCommand::Switch(Named { name }) => {
            screen.item(&post(&client, &name, &["switch"], Some(SWITCH_WAIT_S)).await?, shown)
        }
        ProjectionCommand::Rollback(Named { name }) => {
            screen.item(&post(&client, &name, &["rollback"], Some(SWITCH_WAIT_S)).await?, shown)
        }
        ProjectionCommand::Discard(Named { name }) => {
            screen.item(&post(&client, &name, &["discard"], None).await?, shown)
        }
        ProjectionCommand::Parked(ParkedCommand::List(ParkedListArguments { named, page })) => {
            let page = page.read(&client, &["v1", "projections", &named.name, "parked"], &[]).await?;
            screen.list(&page, PARKED_COLUMNS)?;
            tell_more(&page, screen);
            Ok(())
        }
        ProjectionCommand::Parked(ParkedCommand::Retry(ParkedArguments { named, stream })) => {
            let retried = post(&client, &named.name, &["parked", &stream, "retry"], None).await?;
            screen.item(&retried, |item, _| match &item["parked"] {
                Value::Null => format!("{stream} is folded again\n"),
                parked => format!("{stream} stays parked: {}\n", text(&parked["why"])),
            })?;
            match &retried["parked"] {
                Value::Null => Ok(()),
                parked => Err(Failure::plain(format!("{stream} stays parked: {}", text(&parked["why"])))),
            }
        }
        ProjectionCommand::Parked(ParkedCommand::Drop(ParkedArguments { named, stream })) => {
            let dropped = post(&client, &named.name, &["parked", &stream, "drop"], None).await?;
            screen.item(&dropped, |item, paint| table(PARKED_COLUMNS, std::slice::from_ref(item), paint))
        }
    }
}

const COLUMNS: &[Column] = &[
    Column { title: "projection", show: |item| Cell::new(text(&item["name"])) },
    Column { title: "state", show: |item| state(&item["state"]) },
    Column { title: "records", show: |item| Cell::new(text(&item["records"])) },
    Column { title: "behind", show: |item| Cell::new(text(&item["behind"])) },
    Column { title: "parked", show: |item| Cell::new(text(&item["parked"])) },
    Column { title: "dropped", show: |item| Cell::new(text(&item["dropped"])) },
    Column { title: "generation", show: |item| Cell::new(text(&item["generation"])) },
    Column { title: "beside", show: |item| Cell::new(beside(&item["beside"])) },
];

const PARKED_COLUMNS: &[Column] = &[
    Column { title: "stream", show: |item| Cell::new(text(&item["stream"])) },
    Column {
        title: "position",
        show: |item| Cell::new(format!("{}:{}", text(&item["partition"]), text(&item["offset"]))),
    },
    Column { title: "version", show: |item| Cell::new(text(&item["version"])) },
    Column { title: "waiting", show: |item| Cell::new(text(&item["waiting"])) },
    Column { title: "dropped", show: |item| Cell::new(time(&item["dropped"]["at"])) },
    Column { title: "by", show: |item| Cell::new(text(&item["dropped"]["by"])) },
    Column { title: "why", show: |item| Cell::new(text(&item["why"])) },
];

/// How a check stands, in a table.
pub(crate) const CHECK_COLUMNS: &[Column] = &[
    Column { title: "checked", show: |item| Cell::new(text(&item["scope"])) },
    Column { title: "rows", show: |item| Cell::new(text(&item["rows"])) },
    Column { title: "parked", show: |item| Cell::new(text(&item["parked"])) },
    Column { title: "result", show: |item| Cell::new(text(&item["state"])) },
    Column { title: "seconds", show: |item| Cell::new(format!("{:.1}", item["seconds"].as_f64().unwrap_or(0.0))) },
    Column { title: "table", show: |item| Cell::new(text(&item["difference"]["table"])) },
    Column { title: "key", show: |item| Cell::new(text(&item["difference"]["key"])) },
    Column { title: "what", show: |item| Cell::new(text(&item["difference"]["detail"])) },
];

/// What is beside, in a few words.
fn beside(beside: &Value) -> String {
    let word = text(&beside["state"]);
    if word != "folding" {
        return word;
    }
    let (done, total) = (beside["records_done"].as_f64().unwrap_or(0.0), beside["records_total"].as_f64());
    let percent = 100.0 * done / total.unwrap_or(1.0).max(1.0);
    match beside["eta_s"].as_f64() {
        Some(eta_s) => format!("{word} {percent:.0} %, {eta_s:.0} s left"),
        None => format!("{word} {percent:.0} %"),
    }
}

async fn post(client: &Client, name: &str, rest: &[&str], wait_s: Option<u64>) -> Result<Value, Failure> {
    let url = client.url(&[&["v1", "projections", name], rest].concat());
    Ok(client.command(&Command::post(url, Uuid::now_v7(), json!({})).wait(wait_s)).await?.body)
}

/// Waits until the rows beside are as far as the log.
async fn rebuilt(client: &Client, name: &str) -> Result<Value, Failure> {
    let url = client.url(&["v1", "projections", name]);
    let bar = bar();
    loop {
        let projection = client.read(url.clone()).await?.body;
        let beside = &projection["beside"];
        bar.set_length(beside["records_total"].as_u64().unwrap_or(0));
        bar.set_position(beside["records_done"].as_u64().unwrap_or(0));
        bar.set_message(format!("rebuilding, {:.0} events/s", beside["events_per_s"].as_f64().unwrap_or(0.0)));
        match beside["state"].as_str() {
            Some("ready") => {
                bar.finish_and_clear();
                return Ok(projection);
            }
            Some("folding") => tokio::time::sleep(LOOK_AGAIN).await,
            _ => {
                bar.finish_and_clear();
                let why = text(&beside["why"]);
                return Err(Failure::plain(format!("the rebuild has ended: {why}")));
            }
        }
    }
}

/// Has rows checked, and waits for the end of it.
pub(crate) async fn check(client: &Client, name: &str, scope: &Value) -> Result<Value, Failure> {
    let url = client.url(&["v1", "projections", name, "check"]);
    let mut state = client.command(&Command::post(url.clone(), Uuid::now_v7(), scope.clone())).await?.body;
    let bar = bar();
    while state["state"] == "running" {
        tokio::time::sleep(LOOK_AGAIN).await;
        state = client.read(url.clone()).await?.body;
        let done = state["done"].as_u64().unwrap_or(0);
        bar.set_length(state["total"].as_u64().unwrap_or(done));
        bar.set_position(done);
        bar.set_message(text(&state["phase"]));
    }
    bar.finish_and_clear();
    Ok(state)
}

/// Fails unless nothing differs.
pub(crate) fn equal(state: &Value) -> Result<(), Failure> {
    match state["state"].as_str() {
        Some("equal") => Ok(()),
        Some("different") => {
            let difference = &state["difference"];
            let row = format!("{} {}", text(&difference["table"]), text(&difference["key"]));
            let mut failure = Failure::plain(format!("{row} is not what the log makes of it"));
            failure = failure.detail(text(&difference["detail"]));
            if !difference["position"].is_null() {
                failure = failure.detail(format!("last event at {}", text(&difference["position"])));
            }
            Err(failure.next("docket projection rebuild --switch"))
        }
        _ => Err(Failure::plain(format!("the check has ended: {}", text(&state["why"]))).exit(Exit::Refused)),
    }
}

/// A bar on a terminal, nothing elsewhere.
fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:32} {wide_bar} {pos}/{len} {eta}");
    let bar = ProgressBar::new(0);
    style.map_or(bar.clone(), |style| bar.with_style(style))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rebuild_is_told_with_how_long_it_takes() {
        let folding = json!({"state": "folding", "records_done": 50, "records_total": 200, "eta_s": 3.2});
        assert_eq!(beside(&folding), "folding 25 %, 3 s left");
        assert_eq!(beside(&json!({"state": "kept"})), "kept");
        assert_eq!(beside(&Value::Null), "");
    }

    #[test]
    fn a_difference_is_named_and_ends_with_1() {
        let different = json!({"state": "different", "difference": {
            "table": "orders", "key": "0198", "detail": "/status is \"x\"; the log makes it \"y\"", "position": "3:17"}});
        let failure = equal(&different).unwrap_err();
        assert_eq!(failure.code(), Exit::Refused);
        let report = failure.report(crate::output::Paint::never());
        for told in ["orders 0198", "/status", "3:17", "docket projection rebuild"] {
            assert!(report.contains(told), "{told} in {report}");
        }
        equal(&json!({"state": "equal"})).unwrap();
    }
}
