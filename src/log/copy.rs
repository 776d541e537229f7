//! `docket log copy`: an embedded log into Kafka, byte for byte. What is in the topic already is compared first, so that
//! a copy goes on where it ended and a foreign topic is refused; in the end all of it is read back from Kafka and compared.
//! Ids, positions and the number of partitions stay; claims stay as history, and the next node claims above them.

use std::path::Path;
use std::time::{Duration, Instant};

use engine::log::{Log, Stored};
use engine::position::{Offset, Partition};
use engine_kafka::{KafkaFault, KafkaLog};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use uuid::Uuid;

use super::lane::Lane;
use super::target::Target;
use crate::config::{Config, ConfigArguments};
use crate::failure::{Exit, Failure};
use crate::house;
use crate::output::Paint;

/// Bytes read from a partition at once.
const READ_BYTES: usize = 1 << 20;
/// How long the producer goes on trying: an outage of the brokers should not end a long copy.
const DELIVERY_WAIT: Duration = Duration::from_secs(300);
/// How long what was copied may take to be fetched again.
const FETCH_WAIT: Duration = Duration::from_secs(24 * 3_600);

/// What was done.
pub(super) struct Copied {
    log: String,
    topic: String,
    partitions: u16,
    records: u64,
    bytes: u64,
    were_there: u64,
    took: Duration,
}

impl Copied {
    /// For programs.
    pub(super) fn told(&self) -> Value {
        json!({
            "log_id": self.log, "topic": self.topic, "partitions": self.partitions, "records": self.records,
            "bytes": self.bytes, "records_there_before": self.were_there, "verified": true,
            "seconds": (self.took.as_secs_f64() * 1_000.0).round() / 1_000.0,
        })
    }

    /// For people.
    pub(super) fn shown(&self, paint: Paint) -> String {
        format!(
            "{} log {} is in topic {}\n  {} records, {} bytes, {} partitions; {} were there before; all read back and equal; {:.1} s\n  next: docket serve with log.kind = \"kafka\" and log.name = {:?}, on a fresh data directory\n",
            paint.good("copied:"),
            self.log,
            self.topic,
            self.records,
            self.bytes,
            self.partitions,
            self.were_there,
            self.took.as_secs_f64(),
            self.topic.trim_start_matches("docket.log."),
        )
    }
}

/// The local copy of the topic, for as long as it is compared.
struct Scratch(std::path::PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind is untidy, not wrong.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Does it. Waits for disks and brokers.
pub(super) fn copy(from: &Path, to: &str, config: &ConfigArguments) -> Result<Copied, Failure> {
    let began = Instant::now();
    let target = Target::read(to)?;
    let mut config = Config::load_beside(config, &["log.kind=embedded"])?;
    target.put_into(&mut config);
    let source = house::log::open_existing(from)?;
    let genesis = *source.genesis();
    let scratch = Scratch(std::env::temp_dir().join(format!("docket-copy-{}", Uuid::now_v7())));
    let mut options = config.kafka_options(&scratch.0)?;
    options.client_id = "docket-log-copy".to_owned();
    options.delivery_timeout = DELIVERY_WAIT;
    let topic = options.topic();
    let kafka = KafkaLog::open(&options, Some(&genesis)).map_err(|fault| cannot(&fault))?;
    if kafka.id() != genesis.log {
        return Err(elsewhere(format!("topic {topic} holds log {}, not log {}", kafka.id(), genesis.log)));
    }
    let partitions = || (0..genesis.partitions).map(Partition);
    let total: u64 = partitions().map(|partition| source.end(partition).0).sum();

    let bar = progress("comparing what is there", total);
    kafka.caught_up(FETCH_WAIT).map_err(|fault| cannot(&fault))?;
    let mut there = Vec::new();
    for partition in partitions() {
        let end = kafka.end(partition);
        if end > source.end(partition) {
            let what = "somebody has written to it since it was copied, or it is a newer copy";
            return Err(elsewhere(format!("topic {topic} has more of partition {partition}: {what}")));
        }
        compare(&source, &kafka, partition, end, &topic, &bar)?;
        there.push(end);
    }
    let were_there = there.iter().map(|end| end.0).sum();

    let bar = progress("copying", total);
    bar.set_position(were_there);
    let mut bytes = 0;
    let mut lanes: Vec<(Lane, Offset)> =
        partitions().zip(&there).map(|(partition, end)| (Lane::open(&kafka, partition, *end), *end)).collect();
    // A piece of each in turn: all of them keep the brokers busy.
    loop {
        let mut sent = 0;
        for (partition, (lane, next)) in partitions().zip(&mut lanes) {
            for record in read(&source, partition, *next)? {
                lane.send(&record)?;
                *next = Offset(record.offset.0 + 1);
                sent += 1;
            }
        }
        bar.inc(sent);
        if sent == 0 {
            break;
        }
    }
    lanes.iter().try_for_each(|(lane, _)| lane.finish())?;

    let bar = progress("reading it back", total);
    kafka.caught_up(FETCH_WAIT).map_err(|fault| cannot(&fault))?;
    for partition in partitions() {
        let end = source.end(partition);
        if kafka.end(partition) != end {
            let what = format!("partition {partition} ends at {} there and at {end} here", kafka.end(partition));
            return Err(elsewhere(format!("topic {topic}: {what}")));
        }
        bytes += compare(&source, &kafka, partition, end, &topic, &bar)?;
    }
    bar.finish_and_clear();
    kafka.close();
    source.close();
    Ok(Copied {
        log: genesis.log.to_string(),
        topic,
        partitions: genesis.partitions,
        records: total,
        bytes,
        were_there,
        took: began.elapsed(),
    })
}

/// Compares all records of a partition before `end`, and says how many bytes they have.
fn compare(
    source: &dyn Log,
    kafka: &dyn Log,
    partition: Partition,
    end: Offset,
    topic: &str,
    bar: &ProgressBar,
) -> Result<u64, Failure> {
    let (mut next, mut bytes) = (Offset(0), 0);
    while next < end {
        let theirs = read(kafka, partition, next)?;
        let ours = read(source, partition, next)?;
        let pairs = theirs.iter().zip(&ours).take_while(|(record, _)| record.offset < end);
        let before = next;
        for (theirs, ours) in pairs {
            if theirs.offset != ours.offset || theirs.bytes != ours.bytes {
                let place = format!("{partition}:{}", ours.offset);
                return Err(elsewhere(format!("topic {topic} holds another record at {place} than the log")));
            }
            next = Offset(ours.offset.0 + 1);
            bytes += ours.bytes.len() as u64;
        }
        if next == before {
            return Err(Failure::plain(format!("partition {partition} cannot be read at offset {next}")));
        }
        bar.inc(next.0 - before.0);
    }
    Ok(bytes)
}

fn read(log: &dyn Log, partition: Partition, from: Offset) -> Result<Vec<Stored>, Failure> {
    log.read(partition, from, READ_BYTES).map_err(|fault| Failure::of("the log cannot be read", &fault))
}

/// A topic that is not this log's copy.
fn elsewhere(what: String) -> Failure {
    Failure::plain(what).exit(Exit::Conflict).next("copy to another name, or delete the topic if it is of no use")
}

fn cannot(fault: &KafkaFault) -> Failure {
    let failure = house::kafka::failure(fault);
    match fault {
        KafkaFault::Foreign { .. } | KafkaFault::Partitions { .. } => {
            failure.exit(Exit::Conflict).next("copy to another name, or delete the topic if it is of no use")
        }
        _ => failure,
    }
}

/// A bar on a terminal; nothing elsewhere.
fn progress(what: &'static str, total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:24} {wide_bar} {human_pos}/{human_len} records {eta}");
    let bar = ProgressBar::new(total).with_message(what);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
