//! A pen for a log whose house is closed: it claims a partition as a node does, and adds records to a stream that no node
//! of this version would, through the real adapter and the real record format. More events than anybody sends in a test's
//! time, and events that a later version may write.

use std::path::Path;
use std::sync::mpsc;

use engine::event::{ContentType, EncodedEvent};
use engine::log::{Delivery, DeliverySink, Log as _};
use engine::message::CommandId;
use engine::position::{Checkpoint, Epoch, Nonce, Offset, Partition, Seq};
use engine::record::{Body, Claim, Commit, Header, Kind, Record, StreamEvents};
use engine_embedded::{EmbeddedLog, Options};
use uuid::Uuid;

/// Records appended before their deliveries are looked at: 100 KB each at most.
const WINDOW: usize = 64;
/// Bytes read at once.
const CHUNK_BYTES: usize = 1 << 20;

struct Sink(mpsc::Sender<Delivery>);

impl DeliverySink for Sink {
    fn delivered(&self, deliveries: Vec<Delivery>) {
        for delivery in deliveries {
            // Nobody waits any more after a failure.
            let _ = self.0.send(delivery);
        }
    }
}

/// An event that nobody in this version knows.
pub(crate) fn unheard_of(event_type: &str, schema_version: u16) -> EncodedEvent {
    EncodedEvent {
        event_type: event_type.into(),
        schema_version,
        content_type: ContentType::Json,
        payload: r#"{"where":"another version"}"#.into(),
    }
}

/// Adds records to a stream that has some: `events` is told the stream's newest event and gives the events of each record.
/// Returns the stream's version after them.
///
/// # Panics
/// When there is no such stream, or the log does not take them.
pub(crate) fn add(
    data: &Path,
    partition: u64,
    stream: &str,
    events: impl FnOnce(&EncodedEvent) -> Vec<Vec<EncodedEvent>>,
) -> u64 {
    let (log, _) = EmbeddedLog::open(data.join("log"), Options::existing()).expect("the log opens");
    let partition = Partition(u16::try_from(partition).expect("a partition"));
    let (mut checkpoint, mut last) = (Checkpoint::default(), None::<Commit>);
    while checkpoint.next_offset < log.end(partition) {
        for stored in log.read(partition, checkpoint.next_offset, CHUNK_BYTES).expect("the log can be read") {
            let record = Record::decode(&stored.bytes).expect("a record");
            checkpoint.accept(&record.header);
            if let Body::Commit(commit) = record.body
                && commit.streams.iter().any(|it| it.name.as_str() == stream)
            {
                last = Some(*commit);
            }
        }
    }
    let last = last.expect("the stream has records");
    let named = last.streams.iter().find(|it| it.name.as_str() == stream).expect("found by it");
    let (name, mut version) = (named.name.clone(), named.last_version());
    let records = events(named.events.last().expect("a record has events"));

    let (told, deliveries) = mpsc::channel();
    let mut appender = log.appender(partition, std::sync::Arc::new(Sink(told)));
    let (epoch, nonce) = (Epoch(checkpoint.epoch.0 + 1), Nonce(4_711));
    let claim = Claim { node: "pen".into(), address: "".into(), claimed_at: last.recorded_at };
    let header = |kind, seq| Header { kind, epoch, nonce, seq: Seq(seq) };
    let mut bytes = vec![Record::new(header(Kind::Claim, 0), Body::Claim(claim)).encode()];
    for (seq, events) in (1..).zip(records) {
        let streams = StreamEvents { name: name.clone(), first_version: version.next(), events };
        version = streams.last_version();
        let commit = Commit {
            command_id: CommandId(Uuid::now_v7()),
            resource: name.clone(),
            resource_version: version,
            streams: vec![streams],
            ..last.clone()
        };
        bytes.push(Record::new(header(Kind::Commit, seq), Body::Commit(Box::new(commit))).encode());
    }
    // A window at a time: a queue has its bound.
    for window in bytes.chunks(WINDOW) {
        for (tag, record) in (0..).zip(window) {
            appender.append(tag, record.clone());
        }
        for _ in window {
            let delivery = deliveries.recv().expect("it is told");
            assert!(matches!(delivery.result, Ok(Some(Offset(_)))), "{:?}", delivery.result);
        }
    }
    drop(appender);
    log.close();
    version.0
}
