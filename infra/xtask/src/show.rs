//! What `cargo xtask cluster` shows: a table on a terminal, JSON elsewhere.

use std::io::IsTerminal;

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};
use xtask::cluster::{Cluster, Kind, Member};

/// Prints who there is and what they do.
pub(crate) fn members(cluster: &Cluster) {
    if std::io::stdout().is_terminal() {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(["WHO", "STATE", "ADDRESS", "PID", "OUTPUT"]);
        for member in &cluster.members {
            let (pid, log) = (member.name.to_string(), member.recipe.log.display().to_string());
            table.add_row([member.who.clone(), member.state().word().to_owned(), address(member), pid, log]);
        }
        println!("{table}");
    } else {
        println!("{:#}", Value::from(cluster.members.iter().map(member).collect::<Vec<_>>()));
    }
}

fn member(member: &Member) -> Value {
    json!({
        "who": member.who,
        "state": member.state().word(),
        "address": address(member),
        "pid": member.name.pid,
        "output": member.recipe.log.to_string_lossy(),
    })
}

fn address(member: &Member) -> String {
    match member.kind {
        Kind::Node => format!("http://{}", member.address),
        Kind::Postgres => format!("postgres://docket@{}/docket", member.address),
        Kind::Broker => member.address.clone(),
    }
}

/// What can be typed next, as it can be typed.
pub(crate) fn next(cluster: &Cluster) {
    // Not in a script's way.
    let first = cluster.members.iter().find(|member| member.kind == Kind::Node);
    eprintln!("\nNext:");
    if let Some(node) = first {
        let binary = node.recipe.program.display();
        eprintln!("  export DOCKET_SERVER=http://{}", node.address);
        eprintln!("  {binary} stock set shop-1 beans-1kg 100");
        eprintln!(
            "  {binary} order place --customer c-17 --location shop-1 --line beans-1kg:2:1999 --pay tok_ok --wait 5"
        );
    }
    if let Some(last) = cluster.members.last() {
        eprintln!("  cargo xtask cluster kill {}        then `up` brings it back", last.who);
    }
    eprintln!("  cargo xtask cluster status");
    eprintln!("  cargo xtask cluster down");
}
