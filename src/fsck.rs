//! `docket fsck`: asks the server to judge its whole log, and fails if anything that must hold does not.

use comfy_table::Cell;
use serde_json::Value;

use crate::cli::Global;
use crate::failure::Failure;
use crate::output::{Column, Paint, table, text};

const COLUMNS: &[Column] = &[
    Column { title: "invariant", show: |found| Cell::new(text(&found["invariant"])) },
    Column { title: "stream", show: |found| Cell::new(text(&found["stream"])) },
    Column { title: "position", show: |found| Cell::new(text(&found["position"])) },
    Column { title: "what", show: |found| Cell::new(text(&found["detail"])) },
];

/// Does it.
pub(crate) async fn run(global: &Global) -> Result<(), Failure> {
    let client = global.client();
    let judged = client.read_long(client.url(&["dev", "invariants"])).await?.body;
    global.screen().item(&judged, shown)?;
    match violations(&judged) {
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
