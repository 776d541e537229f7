//! `docket fsck`: asks the server to judge its whole log, and, if told to, whether rows of the read models are what the log
//! makes of them. Fails if anything that must hold does not.

use clap::Args;
use comfy_table::Cell;
use serde_json::{Value, json};

use crate::cli::Global;
use crate::client::{Client, Trouble};
use crate::failure::Failure;
use crate::output::{Column, Paint, table, text};
use crate::projection::{self, CHECK_COLUMNS};

/// What `docket fsck` takes.
#[derive(Debug, Args)]
pub(crate) struct FsckArguments {
    /// Also check the rows that show this stream
    #[arg(long, value_name = "STREAM", group = "rows")]
    key: Option<String>,
    /// Also check so many rows, drawn by lot
    #[arg(long, value_name = "N", group = "rows", value_parser = clap::value_parser!(u64).range(1..=1_000))]
    sample: Option<u64>,
    /// Also check all rows: folds the whole log beside them
    #[arg(long, group = "rows")]
    whole: bool,
    /// The projection whose rows are checked
    #[arg(long = "projection", default_value = "shop", value_name = "NAME", requires = "rows")]
    name: String,
}

impl FsckArguments {
    /// Which rows, as the server is asked.
    fn rows(&self) -> Option<Value> {
        match (&self.key, self.sample, self.whole) {
            (Some(stream), ..) => Some(json!({"scope": "stream", "stream": stream})),
            (_, Some(count), _) => Some(json!({"scope": "sample", "count": count})),
            (.., true) => Some(json!({"scope": "whole"})),
            _ => None,
        }
    }
}

const COLUMNS: &[Column] = &[
    Column { title: "invariant", show: |found| Cell::new(text(&found["invariant"])) },
    Column { title: "stream", show: |found| Cell::new(text(&found["stream"])) },
    Column { title: "position", show: |found| Cell::new(text(&found["position"])) },
    Column { title: "what", show: |found| Cell::new(text(&found["detail"])) },
];

/// Does it.
pub(crate) async fn run(arguments: FsckArguments, global: &Global) -> Result<(), Failure> {
    let client = global.client();
    let Some(rows) = arguments.rows() else {
        let judged = invariants(&client).await?;
        global.screen().item(&judged, shown)?;
        return hold(&judged);
    };
    let judged = match invariants(&client).await {
        Ok(judged) => judged,
        Err(Trouble::Refused(problem)) if problem.code() == "no-such-route" => {
            eprintln!("the invariants are judged where /dev is served only: checking rows alone");
            Value::Null
        }
        Err(trouble) => return Err(trouble.into()),
    };
    let checked = projection::check(&client, &arguments.name, &rows).await?;
    let both = json!({"invariants": judged, "rows": checked});
    global.screen().item(&both, |both, paint| {
        let rows = table(CHECK_COLUMNS, std::slice::from_ref(&both["rows"]), paint);
        if judged.is_null() { rows } else { format!("{}\n{rows}", shown(&judged, paint)) }
    })?;
    projection::equal(&checked)?;
    hold(&judged)
}

async fn invariants(client: &Client) -> Result<Value, Trouble> {
    Ok(client.read_long(client.url(&["dev", "invariants"])).await?.body)
}

fn hold(judged: &Value) -> Result<(), Failure> {
    match violations(judged) {
        [] => Ok(()),
        found => Err(Failure::plain(format!("{} things that must hold do not", found.len()))),
    }
}

fn violations(judged: &Value) -> &[Value] {
    judged["violations"].as_array().map_or(&[], Vec::as_slice)
}

fn shown(judged: &Value, paint: Paint) -> String {
    let checked = judged["checked"].as_array().map_or(&[][..], Vec::as_slice);
    let checked = checked.iter().map(text).collect::<Vec<_>>().join(" ");
    match violations(judged) {
        [] => format!("{} {checked}\n", paint.good("all hold:")),
        found => format!("{} {checked}\n\n{}", paint.dim("checked:"), table(COLUMNS, found, paint)),
    }
}
