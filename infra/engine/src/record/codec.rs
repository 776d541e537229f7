//! Sections: tag, length, content, in ascending order of their numbers, each at most once, so that a record has exactly
//! one encoding. Which numbers mean what is in the tables below and in `docs/record-format.md`; a number is never given
//! a second meaning.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::wire::{Reader, damaged, prefixed_bytes, put_prefixed, put_varint, varint_bytes};
use super::{Body, Claim, Commit, Genesis, Header, Kind, Record, Section, StreamEvents, UnreadableRecord, header};
use crate::event::{ContentType, EncodedEvent};
use crate::message::{CommandId, FieldError, Fingerprint, Outcome, Provenance};
use crate::position::{LogId, Version};
use crate::stream::{StreamName, Tenant};
use crate::time::Timestamp;

/// Set in the tag of a section that no reader may pass over.
const CRITICAL: u8 = 0x80;

/// Tags of `Genesis`.
mod genesis {
    use super::CRITICAL;
    pub(super) const LOG: u8 = CRITICAL | 1;
    pub(super) const PARTITIONS: u8 = CRITICAL | 2;
    pub(super) const PLACEMENT_RULE: u8 = CRITICAL | 3;
    pub(super) const FORMAT: u8 = CRITICAL | 4;
    pub(super) const FINGERPRINT_KEY: u8 = CRITICAL | 5;
    pub(super) const CREATED_AT: u8 = 6;
}

/// Tags of `Claim`.
mod claim {
    pub(super) const NODE: u8 = 1;
    pub(super) const ADDRESS: u8 = 2;
    pub(super) const CLAIMED_AT: u8 = 3;
}

/// Tags of `Commit`.
mod commit {
    use super::CRITICAL;
    pub(super) const COMMAND_ID: u8 = CRITICAL | 1;
    pub(super) const TENANT: u8 = CRITICAL | 2;
    pub(super) const RESOURCE: u8 = CRITICAL | 3;
    pub(super) const RESOURCE_VERSION: u8 = CRITICAL | 4;
    pub(super) const FINGERPRINT: u8 = CRITICAL | 5;
    pub(super) const RECORDED_AT: u8 = CRITICAL | 6;
    pub(super) const STATUS: u8 = CRITICAL | 7;
    pub(super) const CODE: u8 = CRITICAL | 8;
    pub(super) const DETAIL: u8 = CRITICAL | 9;
    pub(super) const ERRORS: u8 = CRITICAL | 10;
    pub(super) const ANSWER: u8 = CRITICAL | 11;
    pub(super) const ACTOR: u8 = 12;
    pub(super) const REASON: u8 = 13;
    pub(super) const CORRELATION_ID: u8 = 14;
    pub(super) const CAUSATION_ID: u8 = 15;
    pub(super) const TRACEPARENT: u8 = 16;
    pub(super) const STREAMS: u8 = CRITICAL | 17;
}

/// Fewest bytes of an event: three lengths or numbers, a content type.
const EVENT_BYTES_MIN: usize = 4;
/// Fewest bytes of a stream: name, first version and count, and one event.
const STREAM_BYTES_MIN: usize = 3 + EVENT_BYTES_MIN;

// ---- Writing -------------------------------------------------------------------------------------------------------

pub(super) fn encode(record: &Record) -> Bytes {
    assert_eq!(record.header.kind, record.body.kind(), "a record's header and body are of one kind");
    let mut sections = Sections::new(&record.later);
    match &record.body {
        Body::Genesis(body) => genesis_sections(body, &mut sections),
        Body::Claim(body) => claim_sections(body, &mut sections),
        Body::Commit(body) => commit_sections(body, &mut sections),
        Body::Barrier | Body::Release => {}
    }
    sections.seal(&record.header)
}

impl Body {
    fn kind(&self) -> Kind {
        match self {
            Self::Genesis(_) => Kind::Genesis,
            Self::Claim(_) => Kind::Claim,
            Self::Commit(_) => Kind::Commit,
            Self::Barrier => Kind::Barrier,
            Self::Release => Kind::Release,
        }
    }
}

/// What a section holds, before the record's buffer is there.
enum Content<'a> {
    /// As it is.
    Borrowed(&'a [u8]),
    /// A small number or a time; how many of the bytes count.
    Small([u8; 16], usize),
    /// What had to be made first.
    Made(Vec<u8>),
    /// Streams and their events, with their length.
    Streams(&'a Commit, usize),
}

/// Sections of a record to be: collected first, so that the buffer is allocated once and right.
struct Sections<'a> {
    list: Vec<(u8, Content<'a>)>,
    later: &'a [Section],
}

impl<'a> Sections<'a> {
    fn new(later: &'a [Section]) -> Self {
        Self { list: Vec::with_capacity(18 + later.len()), later }
    }

    fn put(&mut self, tag: u8, content: &'a [u8]) {
        self.list.push((tag, Content::Borrowed(content)));
    }

    fn put_small<const N: usize>(&mut self, tag: u8, content: [u8; N]) {
        let mut small = [0; 16];
        small[..N].copy_from_slice(&content);
        self.list.push((tag, Content::Small(small, N)));
    }

    fn put_text(&mut self, tag: u8, text: Option<&'a str>) {
        if let Some(text) = text {
            self.put(tag, text.as_bytes());
        }
    }

    fn seal(mut self, header: &Header) -> Bytes {
        if !self.later.is_empty() {
            assert!(
                self.later.iter().all(|section| (1..CRITICAL).contains(&section.number)),
                "sections count from 1 to 127"
            );
            self.list.extend(self.later.iter().map(|section| (section.number, Content::Borrowed(&section.content))));
            self.list.sort_by_key(|(tag, _)| tag & !CRITICAL);
        }
        let ascending = self.list.is_sorted_by(|(one, _), (next, _)| one & !CRITICAL < next & !CRITICAL);
        assert!(ascending, "a record says each thing once");
        let length = self.list.iter().map(|(_, content)| 1 + prefixed_bytes(content.length())).sum::<usize>();
        let length = header::BYTES + length;
        let mut record = header::start(header, length);
        for (tag, content) in &self.list {
            record.push(*tag);
            put_varint(&mut record, content.length() as u64);
            content.write(&mut record);
        }
        assert_eq!(record.len(), length, "a record is as long as was counted");
        header::seal(&mut record);
        record.into()
    }
}

impl Content<'_> {
    fn length(&self) -> usize {
        match self {
            Self::Borrowed(content) => content.len(),
            Self::Small(_, length) | Self::Streams(_, length) => *length,
            Self::Made(content) => content.len(),
        }
    }

    fn write(&self, record: &mut Vec<u8>) {
        match self {
            Self::Borrowed(content) => record.extend_from_slice(content),
            Self::Small(content, length) => record.extend_from_slice(&content[..*length]),
            Self::Made(content) => record.extend_from_slice(content),
            Self::Streams(commit, _) => put_streams(commit, record),
        }
    }
}

fn genesis_sections<'a>(body: &'a Genesis, sections: &mut Sections<'a>) {
    if let Err(wrong) = body.check() {
        panic!("no log may be so: {wrong}");
    }
    sections.put(genesis::LOG, body.log.0.as_bytes());
    sections.put_small(genesis::PARTITIONS, body.partitions.to_le_bytes());
    sections.put_small(genesis::PLACEMENT_RULE, body.placement_rule.to_le_bytes());
    sections.put_small(genesis::FORMAT, body.format.to_le_bytes());
    sections.put(genesis::FINGERPRINT_KEY, &body.fingerprint_key);
    sections.put_small(genesis::CREATED_AT, body.created_at.0.to_le_bytes());
}

fn claim_sections<'a>(body: &'a Claim, sections: &mut Sections<'a>) {
    sections.put(claim::NODE, body.node.as_bytes());
    sections.put(claim::ADDRESS, body.address.as_bytes());
    sections.put_small(claim::CLAIMED_AT, body.claimed_at.0.to_le_bytes());
}

fn commit_sections<'a>(body: &'a Commit, sections: &mut Sections<'a>) {
    let Outcome { status, code, detail, errors, answer } = &body.outcome;
    let Provenance { actor, reason, correlation_id, causation_id, traceparent } = &body.provenance;
    sections.put(commit::COMMAND_ID, body.command_id.0.as_bytes());
    sections.put(commit::TENANT, body.tenant.as_str().as_bytes());
    sections.put(commit::RESOURCE, body.resource.as_str().as_bytes());
    sections.put_small(commit::RESOURCE_VERSION, body.resource_version.0.to_le_bytes());
    sections.put(commit::FINGERPRINT, &body.fingerprint.0);
    sections.put_small(commit::RECORDED_AT, body.recorded_at.0.to_le_bytes());
    sections.put_small(commit::STATUS, status.to_le_bytes());
    sections.put_text(commit::CODE, code.as_deref());
    sections.put_text(commit::DETAIL, detail.as_deref());
    if !errors.is_empty() {
        let made = serde_json::to_vec(errors).expect("field errors are JSON");
        sections.list.push((commit::ERRORS, Content::Made(made)));
    }
    if let Some(answer) = answer {
        let made = serde_json::to_vec(answer).expect("a JSON value is JSON");
        sections.list.push((commit::ANSWER, Content::Made(made)));
    }
    sections.put_text(commit::ACTOR, actor.as_deref());
    sections.put_text(commit::REASON, reason.as_deref());
    if let Some(id) = correlation_id {
        sections.put(commit::CORRELATION_ID, id.0.as_bytes());
    }
    if let Some(id) = causation_id {
        sections.put(commit::CAUSATION_ID, id.0.as_bytes());
    }
    sections.put_text(commit::TRACEPARENT, traceparent.as_deref());
    if !body.streams.is_empty() {
        sections.list.push((commit::STREAMS, Content::Streams(body, streams_length(body))));
    }
}

/// The name as the streams section tells it: empty for the addressed stream, which the record names already.
fn told_name<'a>(commit: &Commit, stream: &'a StreamEvents) -> &'a [u8] {
    if stream.name == commit.resource { &[] } else { stream.name.as_str().as_bytes() }
}

fn streams_length(commit: &Commit) -> usize {
    let event = |event: &EncodedEvent| {
        prefixed_bytes(event.event_type.len())
            + varint_bytes(u64::from(event.schema_version))
            + 1
            + prefixed_bytes(event.payload.len())
    };
    let streams = commit.streams.iter().map(|stream| {
        prefixed_bytes(told_name(commit, stream).len())
            + varint_bytes(stream.first_version.0)
            + varint_bytes(stream.events.len() as u64)
            + stream.events.iter().map(event).sum::<usize>()
    });
    varint_bytes(commit.streams.len() as u64) + streams.sum::<usize>()
}

fn put_streams(commit: &Commit, record: &mut Vec<u8>) {
    put_varint(record, commit.streams.len() as u64);
    for stream in &commit.streams {
        assert!(!stream.events.is_empty(), "a record names only streams to which something happened");
        assert!(stream.first_version > Version(0), "versions count from 1");
        put_prefixed(record, told_name(commit, stream));
        put_varint(record, stream.first_version.0);
        put_varint(record, stream.events.len() as u64);
        for event in &stream.events {
            put_prefixed(record, event.event_type.as_bytes());
            put_varint(record, u64::from(event.schema_version));
            record.push(match event.content_type {
                ContentType::Json => 1,
                ContentType::Octets => 2,
            });
            put_prefixed(record, &event.payload);
        }
    }
}

// ---- Reading -------------------------------------------------------------------------------------------------------

pub(super) fn decode(bytes: &Bytes) -> Result<Record, UnreadableRecord> {
    let header = header::decode(bytes)?;
    let mut later = Vec::new();
    let mut sections = Walk { reader: Reader::new(bytes, header::BYTES), number: 0, later: &mut later };
    let body = match header.kind {
        Kind::Genesis => Body::Genesis(read_genesis(&mut sections)?),
        Kind::Claim => Body::Claim(read_claim(&mut sections)?),
        Kind::Commit => Body::Commit(Box::new(read_commit(&mut sections)?)),
        Kind::Barrier => read_nothing(&mut sections, Body::Barrier)?,
        Kind::Release => read_nothing(&mut sections, Body::Release)?,
    };
    Ok(Record { header, body, later })
}

/// Goes through a record's sections.
struct Walk<'a, 'l> {
    reader: Reader<'a>,
    number: u8,
    later: &'l mut Vec<Section>,
}

impl<'a> Walk<'a, '_> {
    fn next(&mut self) -> Result<Option<(u8, Reader<'a>)>, UnreadableRecord> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let tag = self.reader.byte()?;
        let number = tag & !CRITICAL;
        if number <= self.number {
            return Err(damaged(format!("section {number} after section {}", self.number)));
        }
        self.number = number;
        Ok(Some((tag, self.reader.prefixed()?)))
    }

    /// A section that this program does not know: kept if it may be passed over.
    fn unknown(&mut self, tag: u8, content: Reader<'_>) -> Result<(), UnreadableRecord> {
        let number = tag & !CRITICAL;
        if tag & CRITICAL != 0 {
            return Err(UnreadableRecord::TooNew(format!("section {number}")));
        }
        self.later.push(Section { number, content: content.rest_shared() });
        Ok(())
    }
}

fn needed<T>(value: Option<T>, what: &str) -> Result<T, UnreadableRecord> {
    value.ok_or_else(|| damaged(format!("it lacks its {what}")))
}

fn read_nothing(sections: &mut Walk<'_, '_>, body: Body) -> Result<Body, UnreadableRecord> {
    while let Some((tag, content)) = sections.next()? {
        sections.unknown(tag, content)?;
    }
    Ok(body)
}

fn read_genesis(sections: &mut Walk<'_, '_>) -> Result<Genesis, UnreadableRecord> {
    let (mut log, mut partitions, mut placement_rule) = (None, None, None);
    let (mut format, mut fingerprint_key, mut created_at) = (None, None, None);
    while let Some((tag, content)) = sections.next()? {
        match tag {
            genesis::LOG => log = Some(LogId(Uuid::from_bytes(content.exactly()?))),
            genesis::PARTITIONS => partitions = Some(u16::from_le_bytes(content.exactly()?)),
            genesis::PLACEMENT_RULE => placement_rule = Some(u16::from_le_bytes(content.exactly()?)),
            genesis::FORMAT => format = Some(u16::from_le_bytes(content.exactly()?)),
            genesis::FINGERPRINT_KEY => fingerprint_key = Some(content.exactly()?),
            genesis::CREATED_AT => created_at = Some(timestamp(content)?),
            _ => sections.unknown(tag, content)?,
        }
    }
    let genesis = Genesis {
        log: needed(log, "log id")?,
        partitions: needed(partitions, "partition count")?,
        placement_rule: needed(placement_rule, "placement rule")?,
        format: needed(format, "format")?,
        fingerprint_key: needed(fingerprint_key, "fingerprint key")?,
        created_at: needed(created_at, "time")?,
    };
    genesis.check()?;
    Ok(genesis)
}

fn read_claim(sections: &mut Walk<'_, '_>) -> Result<Claim, UnreadableRecord> {
    let (mut node, mut address, mut claimed_at) = (None, None, None);
    while let Some((tag, content)) = sections.next()? {
        match tag {
            claim::NODE => node = Some(content.text()?.into()),
            claim::ADDRESS => address = Some(content.text()?.into()),
            claim::CLAIMED_AT => claimed_at = Some(timestamp(content)?),
            _ => sections.unknown(tag, content)?,
        }
    }
    Ok(Claim {
        node: needed(node, "node")?,
        address: needed(address, "address")?,
        claimed_at: needed(claimed_at, "time")?,
    })
}

fn read_commit(sections: &mut Walk<'_, '_>) -> Result<Commit, UnreadableRecord> {
    let (mut id, mut tenant, mut resource, mut resource_version) = (None, None, None, None);
    let (mut fingerprint, mut recorded_at, mut status) = (None, None, None);
    let mut outcome = Outcome::default();
    let mut provenance = Provenance::default();
    let mut streams = Vec::new();
    while let Some((tag, content)) = sections.next()? {
        match tag {
            commit::COMMAND_ID => id = Some(command_id(content)?),
            commit::TENANT => tenant = Some(Tenant::new(content.text()?).map_err(not_a_name)?),
            commit::RESOURCE => resource = Some(StreamName::new(content.text()?).map_err(not_a_name)?),
            commit::RESOURCE_VERSION => resource_version = Some(Version(u64::from_le_bytes(content.exactly()?))),
            commit::FINGERPRINT => fingerprint = Some(Fingerprint(content.exactly()?)),
            commit::RECORDED_AT => recorded_at = Some(timestamp(content)?),
            commit::STATUS => status = Some(u16::from_le_bytes(content.exactly()?)),
            commit::CODE => outcome.code = Some(Cow::Owned(content.text()?.to_owned())),
            commit::DETAIL => outcome.detail = Some(content.text()?.to_owned()),
            commit::ERRORS => outcome.errors = errors(content)?,
            commit::ANSWER => outcome.answer = Some(json(content)?),
            commit::ACTOR => provenance.actor = Some(shared_text(content)?),
            commit::REASON => provenance.reason = Some(shared_text(content)?),
            commit::CORRELATION_ID => provenance.correlation_id = Some(command_id(content)?),
            commit::CAUSATION_ID => provenance.causation_id = Some(command_id(content)?),
            commit::TRACEPARENT => provenance.traceparent = Some(shared_text(content)?),
            commit::STREAMS => {
                // Sections ascend, so the addressed stream is known by now if it is there at all.
                let resource = resource.as_ref().ok_or_else(|| damaged("it lacks its resource"))?;
                streams = read_streams(content, resource)?;
            }
            _ => sections.unknown(tag, content)?,
        }
    }
    outcome.status = needed(status, "status")?;
    Ok(Commit {
        command_id: needed(id, "command id")?,
        tenant: needed(tenant, "tenant")?,
        resource: needed(resource, "resource")?,
        resource_version: needed(resource_version, "resource's version")?,
        fingerprint: needed(fingerprint, "fingerprint")?,
        outcome,
        provenance,
        recorded_at: needed(recorded_at, "time")?,
        streams,
    })
}

fn read_streams(mut content: Reader<'_>, resource: &StreamName) -> Result<Vec<StreamEvents>, UnreadableRecord> {
    let count = counted(&mut content, STREAM_BYTES_MIN)?;
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        let name = content.prefixed()?.text()?;
        let name = match name {
            "" => resource.clone(),
            name if name == resource.as_str() => return Err(damaged("the resource named twice")),
            name => StreamName::new(name).map_err(not_a_name)?,
        };
        let first_version = Version(content.varint()?);
        let events = read_events(&mut content)?;
        if first_version == Version(0) || first_version.0.checked_add(events.len() as u64).is_none() {
            return Err(damaged(format!("no event of a stream can have version {first_version}")));
        }
        streams.push(StreamEvents { name, first_version, events });
    }
    if content.is_empty() { Ok(streams) } else { Err(damaged("something after the last stream")) }
}

fn read_events(content: &mut Reader<'_>) -> Result<Vec<EncodedEvent>, UnreadableRecord> {
    let count = counted(content, EVENT_BYTES_MIN)?;
    let mut events = Vec::with_capacity(count);
    for _ in 0..count {
        events.push(EncodedEvent {
            event_type: content.prefixed()?.text()?.into(),
            schema_version: u16::try_from(content.varint()?).map_err(|_| damaged("a schema version above 65535"))?,
            content_type: match content.byte()? {
                1 => ContentType::Json,
                2 => ContentType::Octets,
                other => return Err(UnreadableRecord::TooNew(format!("content type {other}"))),
            },
            payload: content.prefixed()?.rest_shared(),
        });
    }
    Ok(events)
}

/// A count of at least one, of things that take at least `bytes_min` each: what cannot be there is not made room for.
fn counted(content: &mut Reader<'_>, bytes_min: usize) -> Result<usize, UnreadableRecord> {
    let count = content.varint()?;
    usize::try_from(count)
        .ok()
        .filter(|&count| count > 0 && count <= content.remaining() / bytes_min)
        .ok_or_else(|| damaged(format!("a count of {count} in {} bytes", content.remaining())))
}

fn timestamp(content: Reader<'_>) -> Result<Timestamp, UnreadableRecord> {
    Ok(Timestamp(i64::from_le_bytes(content.exactly()?)))
}

fn command_id(content: Reader<'_>) -> Result<CommandId, UnreadableRecord> {
    Ok(CommandId(Uuid::from_bytes(content.exactly()?)))
}

fn shared_text(content: Reader<'_>) -> Result<Arc<str>, UnreadableRecord> {
    content.text().map(Arc::from)
}

fn errors(content: Reader<'_>) -> Result<Vec<FieldError>, UnreadableRecord> {
    let errors: Vec<FieldError> = json(content)?;
    if errors.is_empty() { Err(damaged("an empty list of errors")) } else { Ok(errors) }
}

fn json<T: serde::de::DeserializeOwned>(content: Reader<'_>) -> Result<T, UnreadableRecord> {
    serde_json::from_slice(content.rest()).map_err(|wrong| damaged(format!("JSON that cannot be read: {wrong}")))
}

fn not_a_name(wrong: crate::stream::InvalidName) -> UnreadableRecord {
    damaged(wrong.to_string())
}
