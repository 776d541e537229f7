//! `docket stream`: reads a stream event by event, as it comes; with `--follow` it goes on, and takes up a lost connection
//! where it was.

use clap::{Args, Subcommand};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::cli::Global;
use crate::client::{Client, Pauses, Trouble};
use crate::failure::Failure;
use crate::output::{Format, Paint, Screen, csv, say, text};

const READ_EXAMPLES: &str = "\
Examples:
  docket stream read order-01980000-0000-7000-8000-000000000000
  docket stream read stock-shop-1~beans-1kg --backward --limit 5
  docket stream read stock-shop-1~beans-1kg --follow --output ndjson

Streams are order-ID, checkout-ID, payment-ID, stock-LOCATION~SKU and reservation-LOCATION~ID.";

/// An event is a few KiB at most; a line beyond this is no event.
const LINE_BYTES_MAX: usize = 16 << 20;

/// `docket stream …`
#[derive(Debug, Subcommand)]
pub(crate) enum StreamCommand {
    /// Read the events of a stream
    #[command(after_help = READ_EXAMPLES)]
    Read(ReadArguments),
}

/// What `docket stream read` takes.
#[derive(Debug, Args)]
pub(crate) struct ReadArguments {
    /// The stream's name
    stream: String,
    /// From this version on
    #[arg(long, value_name = "VERSION")]
    from: Option<u64>,
    /// Up to and with this version
    #[arg(long, value_name = "VERSION", conflicts_with = "follow")]
    to: Option<u64>,
    /// Newest first
    #[arg(long, conflicts_with = "follow")]
    backward: bool,
    /// Go on with what is still to come
    #[arg(long)]
    follow: bool,
    /// At most so many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

/// Does it.
pub(crate) async fn run(command: StreamCommand, global: &Global) -> Result<(), Failure> {
    let StreamCommand::Read(arguments) = command;
    let (client, screen) = (global.client(), global.screen());
    let mut printer = Printer::new(screen, arguments.follow);
    let mut left = arguments.limit.unwrap_or(u64::MAX);
    let mut from = arguments.from;
    let mut pauses = Pauses::endless();
    printer.begin()?;
    loop {
        let before = from;
        let ended = read(&client, &arguments, &mut from, &mut left, &mut printer).await;
        match ended {
            // A server that drains ends the stream in good order; what follows is still to come.
            Ok(()) if !arguments.follow || left == 0 => return printer.end(),
            Err(trouble @ (Trouble::Refused(_) | Trouble::Unknown(_))) => return Err(trouble.into()),
            Err(trouble) if !arguments.follow || (before.is_none() && from.is_none()) => return Err(trouble.into()),
            Ok(()) => {}
            Err(trouble) => eprintln!("{trouble}; going on where it was"),
        }
        if from != before {
            pauses = Pauses::endless();
        }
        if let Some(pause) = pauses.next(None) {
            tokio::time::sleep(pause).await;
        }
    }
}

/// Reads until the stream ends or enough was read, and keeps in `from` where to go on.
async fn read(
    client: &Client,
    arguments: &ReadArguments,
    from: &mut Option<u64>,
    left: &mut u64,
    printer: &mut Printer,
) -> Result<(), Trouble> {
    let mut url = client.url(&["v1", "streams", &arguments.stream, "events"]);
    let asked = [
        ("from_version", from.map(|version| version.to_string())),
        ("to_version", arguments.to.map(|version| version.to_string())),
        ("direction", arguments.backward.then(|| "backward".to_owned())),
        ("follow", arguments.follow.then(|| "true".to_owned())),
    ];
    for (name, value) in asked {
        if let Some(value) = value {
            url.query_pairs_mut().append_pair(name, &value);
        }
    }
    let mut chunks = client.lines(url).await?.bytes_stream();
    let mut lines = Lines::default();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Trouble::Dropped { why: error.to_string() })?;
        for line in lines.push(&chunk).map_err(|why| Trouble::Dropped { why })? {
            let event = serde_json::from_slice::<Value>(&line)
                .map_err(|error| Trouble::Dropped { why: format!("a line that is no event: {error}") })?;
            if let Some(version) = event["version"].as_u64().filter(|_| !arguments.backward) {
                *from = Some(version + 1);
            }
            printer.event(&event).map_err(|failure| Trouble::Dropped { why: failure.to_string() })?;
            *left -= 1;
            if *left == 0 {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Cuts what arrives into lines; empty ones, which only keep the connection alive, are left out.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn push(&mut self, chunk: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        self.rest.extend_from_slice(chunk);
        let mut lines = Vec::new();
        if let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') {
            let rest = self.rest.split_off(end + 1);
            let whole = std::mem::replace(&mut self.rest, rest);
            lines.extend(
                whole.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).map(<[u8]>::to_vec),
            );
        }
        if self.rest.len() > LINE_BYTES_MAX {
            return Err("a line that is too long to be an event".to_owned());
        }
        Ok(lines)
    }
}

/// Prints events as they come.
struct Printer {
    format: Format,
    paint: Paint,
    printed: u64,
}

impl Printer {
    /// What goes on for ever can be no JSON document: it is printed as lines.
    fn new(screen: Screen, follow: bool) -> Self {
        let format = if follow && screen.format == Format::Json { Format::Ndjson } else { screen.format };
        Self { format, paint: screen.paint, printed: 0 }
    }

    fn begin(&self) -> Result<(), Failure> {
        match self.format {
            Format::Json => say("{\"items\":["),
            Format::Table => {
                let header = format!("{:>7}  {:<23}  {:<26}  {:<12}  data", "version", "recorded", "type", "actor");
                say(&format!("{}\n", self.paint.dim(&header)))
            }
            _ => Ok(()),
        }
    }

    fn event(&mut self, event: &Value) -> Result<(), Failure> {
        let first = self.printed == 0;
        self.printed += 1;
        match self.format {
            Format::Table => say(&row(event)),
            Format::Json => say(&format!("{}\n{event}", if first { "" } else { "," })),
            Format::Ndjson => say(&format!("{event}\n")),
            Format::Csv => {
                let mut flat = event.clone();
                // Each type has other data: a column each would make a header of all of them.
                flat["data"] = json!(event["data"].to_string());
                let lines = csv(&[flat]);
                say(if first { &lines } else { lines.split_once("\r\n").map_or("", |(_, row)| row) })
            }
        }
    }

    fn end(&self) -> Result<(), Failure> {
        if self.format == Format::Json { say("\n]}\n") } else { Ok(()) }
    }
}

fn row(event: &Value) -> String {
    let recorded = text(&event["recorded_at"]).get(..23).map(|time| time.replacen('T', " ", 1)).unwrap_or_default();
    let (version, kind, actor) = (text(&event["version"]), text(&event["type"]), text(&event["actor"]));
    format!("{version:>7}  {recorded:<23}  {kind:<26}  {actor:<12}  {}\n", event["data"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_wherever_the_network_cuts_them() {
        let whole = b"{\"a\":1}\n\n{\"b\":2}\n\n\n{\"c\":3}\n";
        for size in 1..whole.len() {
            let mut lines = Lines::default();
            let mut all = Vec::new();
            for chunk in whole.chunks(size) {
                all.extend(lines.push(chunk).unwrap());
            }
            assert_eq!(all, [b"{\"a\":1}", b"{\"b\":2}", b"{\"c\":3}"], "cut every {size}");
        }
    }

    #[test]
    fn a_line_without_end_is_given_up() {
        let mut lines = Lines::default();
        assert!(lines.push(&vec![b'x'; LINE_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn an_event_is_one_row() {
        let event = json!({"version": 1, "recorded_at": "2026-11-21T10:00:00.123456Z", "type": "OrderPlaced", "actor": null, "data": {"a": 1}});
        let row = row(&event);
        assert!(
            row.contains("2026-11-21 10:00:00.123 ") && row.contains("OrderPlaced") && row.ends_with("{\"a\":1}\n"),
            "{row}"
        );
    }
}
