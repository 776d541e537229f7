//! `docket log show`: the records of a log on this disk in the order in which they were flushed, each with the verdict of
//! the accept fold. A table for people; for programs one JSON document a line, with all that a record says but the key
//! that its log's fingerprints are made with.

use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::ValueEnum;
use engine::event::{ContentType, EncodedEvent};
use engine::fold::Verdict;
use engine::record::{Body, Kind};
use engine_embedded::{OfflineRecord, read_records};
use serde_json::{Map, Value, json};

use super::place;
use crate::cli::Global;
use crate::failure::Failure;
use crate::house::log::blocking;
use crate::output::{Format, Screen, csv, pretty, say, text};

/// What the help shows.
pub(crate) const EXAMPLES: &str = "\
Examples:
  docket log show docket-data --limit 20
  docket log show docket-data --partition 3 --from 1000 --to 1100 --output ndjson
  docket log show docket-data --stream stock-shop-1~beans-1kg --type StockReceived
  docket log show docket-data --kind claim          who led which partition, and when

Works on a log that no node has open, on that of a running node, on a backup and on a node's local copy of a log in Kafka.
Nothing is written. Ends with 1 where the log is damaged, after showing what is before.";

/// Bytes printed at once.
const PRINT_BYTES: usize = 64 << 10;

/// What `docket log show` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArguments {
    /// A data directory, or the directory of a log or a copy
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Only this partition
    #[arg(long, value_name = "P")]
    partition: Option<u16>,
    /// From this offset of the partition on
    #[arg(long, value_name = "OFFSET", requires = "partition")]
    from: Option<u64>,
    /// Up to and with this offset of the partition
    #[arg(long, value_name = "OFFSET", requires = "partition")]
    to: Option<u64>,
    /// Only records of this stream, or addressed to it
    #[arg(long, value_name = "NAME")]
    stream: Option<String>,
    /// Only records with an event of this type
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Only records of this kind
    #[arg(long, value_enum, value_name = "KIND")]
    kind: Option<ShownKind>,
    /// At most so many records
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ShownKind {
    Genesis,
    Claim,
    Commit,
    Barrier,
    Release,
}

impl ShownKind {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Genesis => Self::Genesis,
            Kind::Claim => Self::Claim,
            Kind::Commit => Self::Commit,
            Kind::Barrier => Self::Barrier,
            Kind::Release => Self::Release,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Genesis => "genesis",
            Self::Claim => "claim",
            Self::Commit => "commit",
            Self::Barrier => "barrier",
            Self::Release => "release",
        }
    }
}

/// Does it.
pub(super) async fn run(arguments: ShowArguments, global: &Global) -> Result<(), Failure> {
    let directory = place::find(&arguments.directory)?;
    let screen = global.lines();
    blocking(move || {
        let mut printer = Printer::new(screen);
        let shown = show(&directory, &arguments, &mut printer);
        // What was shown before a fault is worth having.
        printer.end()?;
        shown
    })
    .await
}

fn show(directory: &std::path::Path, arguments: &ShowArguments, printer: &mut Printer) -> Result<(), Failure> {
    let mut left = arguments.limit.unwrap_or(u64::MAX);
    let mut failed = None;
    let read = read_records(
        directory,
        |position, header| {
            if arguments.partition.is_some_and(|partition| partition != position.partition.0) {
                return ControlFlow::Continue(false);
            }
            if arguments.to.is_some_and(|to| position.offset.0 > to) {
                return ControlFlow::Break(());
            }
            let kind = arguments.kind.is_none_or(|kind| kind == ShownKind::of(header.kind));
            ControlFlow::Continue(kind && arguments.from.is_none_or(|from| position.offset.0 >= from))
        },
        |record| {
            if !is_wanted(arguments, &record) {
                return ControlFlow::Continue(());
            }
            left -= 1;
            match printer.record(&told(&record)) {
                Ok(()) if left > 0 => ControlFlow::Continue(()),
                Ok(()) => ControlFlow::Break(()),
                Err(failure) => {
                    failed = Some(failure);
                    ControlFlow::Break(())
                }
            }
        },
    );
    match failed {
        Some(failure) => Err(failure),
        None => read.map_err(|fault| place::cannot_read(&fault)),
    }
}

fn is_wanted(arguments: &ShowArguments, record: &OfflineRecord) -> bool {
    if arguments.stream.is_none() && arguments.event_type.is_none() {
        return true;
    }
    let Body::Commit(commit) = &record.record.body else { return false };
    let of_stream = arguments.stream.as_ref().is_none_or(|name| {
        commit.resource.as_str() == name || commit.streams.iter().any(|stream| stream.name.as_str() == name)
    });
    let events = || commit.streams.iter().flat_map(|stream| &stream.events);
    of_stream && arguments.event_type.as_ref().is_none_or(|name| events().any(|event| *event.event_type == **name))
}

/// All that a record says.
fn told(record: &OfflineRecord) -> Value {
    let header = &record.record.header;
    let mut told = json!({
        "position": record.position.to_string(),
        "kind": ShownKind::of(header.kind).name(),
        "effective": record.verdict == Verdict::Effective,
        "epoch": header.epoch.0,
        "nonce": format!("{:016x}", header.nonce.0),
        "seq": header.seq.0,
        "bytes": record.bytes,
    });
    let more = match &record.record.body {
        Body::Genesis(genesis) => json!({
            "log_id": genesis.log.to_string(), "partitions": genesis.partitions,
            "placement_rule": genesis.placement_rule, "format": genesis.format,
            "created_at": genesis.created_at.to_string(),
        }),
        Body::Claim(claim) => json!({
            "node": claim.node, "address": claim.address, "claimed_at": claim.claimed_at.to_string(),
        }),
        Body::Commit(commit) => {
            let (outcome, provenance) = (&commit.outcome, &commit.provenance);
            let id = |id: Option<engine::message::CommandId>| id.map(|id| id.0.to_string());
            json!({
                "recorded_at": commit.recorded_at.to_string(),
                "command_id": commit.command_id.0.to_string(),
                "tenant": commit.tenant.as_str(),
                "resource": commit.resource.as_str(),
                "resource_version": commit.resource_version.0,
                "status": outcome.status, "code": outcome.code, "detail": outcome.detail,
                "errors": outcome.errors, "answer": outcome.answer,
                "actor": provenance.actor, "reason": provenance.reason,
                "correlation_id": id(provenance.correlation_id), "causation_id": id(provenance.causation_id),
                "traceparent": provenance.traceparent,
                "streams": commit.streams.iter().map(|stream| json!({
                    "stream": stream.name.as_str(),
                    "first_version": stream.first_version.0,
                    "last_version": stream.last_version().0,
                    "events": stream.events.iter().map(event).collect::<Vec<_>>(),
                })).collect::<Vec<_>>(),
            })
        }
        Body::Barrier | Body::Release => json!({}),
    };
    let known = told.as_object_mut().expect("it was made an object");
    if let Value::Object(more) = more {
        known.extend(more.into_iter().filter(|(_, value)| !is_nothing(value)));
    }
    let later: Vec<u8> = record.record.later.iter().map(|section| section.number).collect();
    if !later.is_empty() {
        known.insert("unknown_sections".to_owned(), json!(later));
    }
    told
}

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

fn event(event: &EncodedEvent) -> Value {
    let mut told = Map::new();
    told.insert("type".to_owned(), json!(event.event_type));
    told.insert("schema_version".to_owned(), json!(event.schema_version));
    let data = match event.content_type {
        ContentType::Json => serde_json::from_slice(&event.payload).ok(),
        ContentType::Octets => None,
    };
    match data {
        Some(data) => told.insert("data".to_owned(), data),
        None => told.insert(
            "octets".to_owned(),
            json!(event.payload.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        ),
    };
    Value::Object(told)
}

/// Prints records as they come, many at once.
struct Printer {
    screen: Screen,
    waiting: String,
    printed: u64,
}

impl Printer {
    fn new(screen: Screen) -> Self {
        let waiting = match screen.format {
            Format::Json => "{\"items\":[".to_owned(),
            Format::Table => {
                let header = format!(
                    "{:<12}  {:<7}  {:>9}  {:<23}  {:<36}  {:>3}  {:<12}  streams and events",
                    "position", "kind", "epoch/seq", "recorded", "command", "", "actor"
                );
                format!("{}\n", screen.paint.dim(&header))
            }
            _ => String::new(),
        };
        Self { screen, waiting, printed: 0 }
    }

    fn record(&mut self, told: &Value) -> Result<(), Failure> {
        let first = self.printed == 0;
        self.printed += 1;
        match self.screen.format {
            Format::Table => {
                let row = row(told);
                let row = if told["effective"] == true {
                    row
                } else {
                    self.screen.paint.dim(&format!("{row}  (does not count)"))
                };
                self.waiting.push_str(&row);
                self.waiting.push('\n');
            }
            Format::Json => {
                self.waiting.push_str(if first { "\n" } else { ",\n" });
                self.waiting.push_str(pretty(told).trim_end());
            }
            Format::Ndjson => self.waiting.push_str(&format!("{told}\n")),
            Format::Csv => {
                let lines = csv(&[flat(told)]);
                self.waiting.push_str(if first { &lines } else { lines.split_once("\r\n").map_or("", |(_, row)| row) });
            }
        }
        if self.waiting.len() < PRINT_BYTES {
            return Ok(());
        }
        say(&std::mem::take(&mut self.waiting))
    }

    fn end(&mut self) -> Result<(), Failure> {
        if self.screen.format == Format::Json {
            self.waiting.push_str("\n]}\n");
        }
        say(&std::mem::take(&mut self.waiting))
    }
}

/// The same fields of every record, so that all rows fit one header.
fn flat(told: &Value) -> Value {
    let fields = [
        "position",
        "kind",
        "effective",
        "epoch",
        "seq",
        "bytes",
        "recorded_at",
        "command_id",
        "resource",
        "resource_version",
        "status",
        "code",
        "actor",
    ];
    let mut flat: Map<String, Value> = fields.iter().map(|name| ((*name).to_owned(), told[*name].clone())).collect();
    flat.insert("streams".to_owned(), json!(streams(told)));
    Value::Object(flat)
}

fn row(told: &Value) -> String {
    let recorded = ["recorded_at", "claimed_at", "created_at"].iter().map(|name| text(&told[*name]));
    let recorded =
        recorded.filter(|time| !time.is_empty()).map(|time| time.chars().take(23).collect::<String>()).next();
    let recorded = recorded.unwrap_or_default().replacen('T', " ", 1);
    let what = match told["kind"].as_str() {
        Some("genesis") => format!("log {}, {} partitions", text(&told["log_id"]), told["partitions"]),
        Some("claim") => format!("{} at {}", text(&told["node"]), text(&told["address"])),
        Some("commit") => match streams(told) {
            nothing if nothing.is_empty() => format!("{}: {}", text(&told["resource"]), text(&told["code"])),
            streams => streams,
        },
        _ => String::new(),
    };
    format!(
        "{:<12}  {:<7}  {:>9}  {recorded:<23}  {:<36}  {:>3}  {:<12}  {what}",
        text(&told["position"]),
        text(&told["kind"]),
        format!("{}/{}", told["epoch"], told["seq"]),
        text(&told["command_id"]),
        text(&told["status"]),
        text(&told["actor"]),
    )
}

/// `order-1 1: OrderPlaced, CheckoutStarted; checkout-1 1: CheckoutPlanned`
fn streams(told: &Value) -> String {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let streams = list(&told["streams"]).into_iter().map(|stream| {
        let events = list(&stream["events"]).iter().map(|event| text(&event["type"])).collect::<Vec<_>>();
        format!("{} {}: {}", text(&stream["stream"]), stream["first_version"], events.join(", "))
    });
    streams.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use engine::position::{Epoch, LogId, Nonce, Offset, Partition, Position, Seq};
    use engine::record::{Claim, Genesis, Header, Record};
    use engine::time::Timestamp;

    use super::*;

    fn shown(record: Record, verdict: Verdict) -> Value {
        let bytes = record.encode();
        let record = Record::decode(&bytes).unwrap();
        told(&OfflineRecord {
            position: Position { partition: Partition(3), offset: Offset(7) },
            verdict,
            record,
            bytes: bytes.len(),
        })
    }

    #[test]
    fn the_key_of_fingerprints_is_not_shown() {
        let genesis = Genesis {
            log: LogId(uuid::Uuid::from_u128(5)),
            partitions: 4,
            placement_rule: 1,
            format: 1,
            fingerprint_key: *b"a key that nobody needs to see!!",
            created_at: Timestamp(0),
        };
        let told = shown(Record::genesis(genesis), Verdict::Effective);
        assert_eq!((&told["kind"], &told["partitions"]), (&json!("genesis"), &json!(4)));
        assert!(!told.to_string().contains("key"), "{told}");
    }

    #[test]
    fn what_does_not_count_is_said_to_be_so() {
        let header = Header { kind: Kind::Claim, epoch: Epoch(2), nonce: Nonce(9), seq: Seq(0) };
        let claim = Claim { node: "node-1".into(), address: "a:1".into(), claimed_at: Timestamp(1_000_000) };
        let told = shown(Record::new(header, Body::Claim(claim)), Verdict::Ignored);
        assert_eq!((&told["effective"], &told["position"]), (&json!(false), &json!("3:7")));
        let row = row(&told);
        assert!(row.starts_with("3:7 ") && row.contains("2/0") && row.contains("node-1 at a:1"), "{row}");
        assert!(row.contains("1970-01-01 00:00:01"), "{row}");
    }

    #[test]
    fn octets_are_shown_as_hex_and_json_as_it_is() {
        let encoded = |content_type, payload: &'static [u8]| EncodedEvent {
            event_type: "X".into(),
            schema_version: 1,
            content_type,
            payload: Bytes::from_static(payload),
        };
        assert_eq!(event(&encoded(ContentType::Json, b"{\"a\":1}"))["data"], json!({"a": 1}));
        assert_eq!(event(&encoded(ContentType::Octets, &[0, 255]))["octets"], json!("00ff"));
        assert_eq!(event(&encoded(ContentType::Json, b"{"))["octets"], json!("7b"));
    }
}
