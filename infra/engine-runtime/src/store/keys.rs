//! How keys and values lie in the store. Numbers are big-endian so that keys sort as numbers do; a tenant's name ends with
//! a zero byte, which no name contains, so that no tenant's keys lie within another's. All of it may change with
//! [`FORMAT`]: a store of another format is wiped and folded afresh.

use engine::message::{CommandId, Fingerprint};
use engine::position::{Checkpoint, Epoch, Nonce, Offset, Partition, Seq, Version};
use engine::saga::Timer;
use engine::shard::Remembered;
use engine::stream::{StreamId, StreamName, Tenant};
use engine::time::Timestamp;
use uuid::Uuid;

use super::{Indexed, Progress, StoreFault};
use crate::peers::Owner;

/// The layout described here.
pub(super) const FORMAT: u32 = 1;

/// `tenant 0 stream`: the key of a state, and the tail of other keys.
pub(super) fn stream(tenant: &Tenant, name: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(tenant.as_str().len() + name.len() + 10);
    push_stream(&mut key, tenant, name);
    key
}

fn push_stream(key: &mut Vec<u8>, tenant: &Tenant, name: &str) {
    key.extend_from_slice(tenant.as_str().as_bytes());
    key.push(0);
    key.extend_from_slice(name.as_bytes());
}

/// Back from [`stream`].
pub(super) fn read_stream(bytes: &[u8]) -> Result<StreamId, StoreFault> {
    let text = std::str::from_utf8(bytes).map_err(|_| damaged("a stream's key is no text"))?;
    let (tenant, name) = text.split_once('\0').ok_or_else(|| damaged("a stream's key has no tenant"))?;
    Ok(StreamId {
        tenant: Tenant::new(tenant).map_err(|error| damaged(&error.to_string()))?,
        name: StreamName::new(name).map_err(|error| damaged(&error.to_string()))?,
    })
}

/// `tenant 0 stream 0`: what the index keys of one stream begin with.
pub(super) fn index_prefix(tenant: &Tenant, name: &StreamName) -> Vec<u8> {
    let mut key = stream(tenant, name.as_str());
    key.push(0);
    key
}

/// `tenant 0 stream 0 version`: version of the record's first event of this stream.
pub(super) fn index(tenant: &Tenant, name: &StreamName, first_version: Version) -> Vec<u8> {
    let mut key = index_prefix(tenant, name);
    key.extend_from_slice(&first_version.0.to_be_bytes());
    key
}

/// `offset count`.
pub(super) fn index_value(offset: Offset, count: u32) -> [u8; 12] {
    let mut value = [0; 12];
    value[..8].copy_from_slice(&offset.0.to_be_bytes());
    value[8..].copy_from_slice(&count.to_be_bytes());
    value
}

/// Back from [`index`] and [`index_value`].
pub(super) fn read_index(key: &[u8], value: &[u8]) -> Result<Indexed, StoreFault> {
    let first_version = key.last_chunk().ok_or_else(|| damaged("an index key is too short"))?;
    let mut reader = Reader(value);
    Ok(Indexed {
        first_version: Version(u64::from_be_bytes(*first_version)),
        offset: Offset(reader.u64()?),
        count: u32::from_be_bytes(reader.take()?),
    })
}

/// `id tenant 0 resource`: all of an id lies together.
pub(super) fn id(id: CommandId, tenant: &Tenant, resource: &StreamName) -> Vec<u8> {
    let mut key = Vec::with_capacity(17 + tenant.as_str().len() + resource.as_str().len());
    key.extend_from_slice(id.0.as_bytes());
    push_stream(&mut key, tenant, resource.as_str());
    key
}

/// Back from [`id`], without the id.
pub(super) fn read_id(key: &[u8]) -> Result<StreamId, StoreFault> {
    let (_, rest) = key.split_first_chunk::<16>().ok_or_else(|| damaged("an id's key is too short"))?;
    read_stream(rest)
}

/// `offset partition fingerprint`.
pub(super) fn id_value(partition: Partition, remembered: &Remembered) -> [u8; 26] {
    let mut value = [0; 26];
    value[..8].copy_from_slice(&remembered.offset.0.to_be_bytes());
    value[8..10].copy_from_slice(&partition.0.to_be_bytes());
    value[10..].copy_from_slice(&remembered.fingerprint.0);
    value
}

/// Back from [`id_value`].
pub(super) fn read_id_value(value: &[u8]) -> Result<(Partition, Remembered), StoreFault> {
    let mut reader = Reader(value);
    let offset = Offset(reader.u64()?);
    let partition = Partition(u16::from_be_bytes(reader.take()?));
    Ok((partition, Remembered { offset, fingerprint: Fingerprint(reader.take()?) }))
}

/// When a UUIDv7 says it was made.
pub(super) fn made_at(id: CommandId) -> Option<Timestamp> {
    let id: Uuid = id.0;
    if id.get_version_num() != 7 {
        return None;
    }
    let bytes = id.as_bytes();
    let milliseconds = bytes[..6].iter().fold(0_i64, |sum, &byte| sum << 8 | i64::from(byte));
    Some(Timestamp(milliseconds * 1_000))
}

/// `partition`: what the timers of one partition begin with, and its open streams.
pub(super) fn partition(partition: Partition) -> [u8; 2] {
    partition.0.to_be_bytes()
}

/// `partition due tenant 0 stream`.
pub(super) fn timer(partition: Partition, due: Timestamp, stream_key: &[u8]) -> Vec<u8> {
    let mut key = timers_until(partition, due);
    key.extend_from_slice(stream_key);
    key
}

/// `partition due`: lies before all timers of that moment and after all earlier ones.
pub(super) fn timers_until(partition: Partition, due: Timestamp) -> Vec<u8> {
    let mut key = Vec::with_capacity(96);
    key.extend_from_slice(&partition.0.to_be_bytes());
    // The sign bit turned over: earlier than 1970 sorts before later.
    key.extend_from_slice(&(due.0 ^ i64::MIN).to_be_bytes());
    key
}

/// Back from [`timer`]: when it is due, and whose it is.
pub(super) fn read_timer(key: &[u8]) -> Result<(Timestamp, &[u8]), StoreFault> {
    let mut reader = Reader(key);
    reader.take::<2>()?;
    let due = i64::from_be_bytes(reader.take()?) ^ i64::MIN;
    Ok((Timestamp(due), reader.0))
}

/// `partition tenant 0 stream`.
pub(super) fn open(partition: Partition, stream_key: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(2 + stream_key.len());
    key.extend_from_slice(&partition.0.to_be_bytes());
    key.extend_from_slice(stream_key);
    key
}

/// What stands before a state's JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StateHead {
    pub(super) partition: Partition,
    pub(super) version: Version,
    pub(super) offset: Offset,
    pub(super) recorded_at: Timestamp,
    pub(super) open: bool,
    pub(super) timer: Option<Timer>,
}

const OPEN: u8 = 1;
const TIMER: u8 = 2;

impl StateHead {
    pub(super) fn write(&self, value: &mut Vec<u8>) {
        let mut flags = 0;
        if self.open {
            flags |= OPEN;
        }
        if self.timer.is_some() {
            flags |= TIMER;
        }
        value.push(flags);
        value.extend_from_slice(&self.partition.0.to_be_bytes());
        value.extend_from_slice(&self.version.0.to_be_bytes());
        value.extend_from_slice(&self.offset.0.to_be_bytes());
        value.extend_from_slice(&self.recorded_at.0.to_be_bytes());
        if let Some(timer) = &self.timer {
            value.extend_from_slice(&timer.due.0.to_be_bytes());
            value.extend_from_slice(&timer.armed_at.0.to_be_bytes());
        }
    }

    /// The head, and the JSON behind it.
    pub(super) fn read(value: &[u8]) -> Result<(Self, &[u8]), StoreFault> {
        let mut reader = Reader(value);
        let [flags] = reader.take()?;
        let partition = Partition(u16::from_be_bytes(reader.take()?));
        let version = Version(reader.u64()?);
        let offset = Offset(reader.u64()?);
        let recorded_at = Timestamp(i64::from_be_bytes(reader.take()?));
        let timer = if flags & TIMER == 0 {
            None
        } else {
            let due = Timestamp(i64::from_be_bytes(reader.take()?));
            Some(Timer { due, armed_at: Version(reader.u64()?) })
        };
        Ok((Self { partition, version, offset, recorded_at, open: flags & OPEN != 0, timer }, reader.0))
    }
}

/// A partition's progress under `meta`: the checkpoint, the time of the last commit, and who claimed it last: two texts,
/// each after its length. Stores of single nodes of old end before the texts.
pub(super) fn progress_value(progress: &Progress) -> Vec<u8> {
    let Progress { checkpoint, recorded_at, claimant } = progress;
    let mut value = Vec::with_capacity(96);
    value.extend_from_slice(&checkpoint.next_offset.0.to_be_bytes());
    value.extend_from_slice(&checkpoint.epoch.0.to_be_bytes());
    value.extend_from_slice(&checkpoint.nonce.0.to_be_bytes());
    value.extend_from_slice(&checkpoint.next_seq.0.to_be_bytes());
    value.push(u8::from(checkpoint.open));
    value.extend_from_slice(&recorded_at.0.to_be_bytes());
    if let Some(Owner { node, address }) = claimant {
        for text in [node, address] {
            let length = u32::try_from(text.len()).expect("it came out of a record of at most 1 MiB");
            value.extend_from_slice(&length.to_be_bytes());
            value.extend_from_slice(text.as_bytes());
        }
    }
    value
}

/// Back from [`progress_value`].
pub(super) fn read_progress(value: &[u8]) -> Result<Progress, StoreFault> {
    let mut reader = Reader(value);
    let checkpoint = Checkpoint {
        next_offset: Offset(reader.u64()?),
        epoch: Epoch(reader.u64()?),
        nonce: Nonce(reader.u64()?),
        next_seq: Seq(reader.u64()?),
        open: reader.take::<1>()? != [0],
    };
    let recorded_at = Timestamp(i64::from_be_bytes(reader.take()?));
    let claimant = match reader.0 {
        [] => None,
        _ => Some(Owner { node: reader.text()?.into(), address: reader.text()?.into() }),
    };
    Ok(Progress { checkpoint, recorded_at, claimant })
}

/// Under `meta`: what the store is.
pub(super) const META_STORE: &[u8] = b"store";
/// Under `meta`: up to where ids are forgotten.
pub(super) const META_FORGOTTEN: &[u8] = b"forgotten";
/// Under `meta`, then the partition: its progress.
pub(super) const META_PROGRESS: &[u8] = b"progress/";
/// Under `meta`, then the day: the slots of it in which something was recorded.
pub(super) const META_ACTIVE: &[u8] = b"active/";
/// Under `meta`, then day and part: a bucket of ids.
pub(super) const META_BUCKET: &[u8] = b"bucket/";

/// The key of a partition's progress.
pub(super) fn meta_progress(partition: Partition) -> Vec<u8> {
    [META_PROGRESS, &partition.0.to_be_bytes()].concat()
}

/// The key of a day's activity.
pub(super) fn meta_active(day: i32) -> Vec<u8> {
    [META_ACTIVE, &(day ^ i32::MIN).to_be_bytes()].concat()
}

/// Back from [`meta_active`].
pub(super) fn read_meta_active(key: &[u8]) -> Result<i32, StoreFault> {
    let day = key.strip_prefix(META_ACTIVE).and_then(|day| day.try_into().ok());
    day.map(|day| i32::from_be_bytes(day) ^ i32::MIN).ok_or_else(|| damaged("a day's key is wrong"))
}

/// Takes fixed-size pieces off the front.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Reader<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], StoreFault> {
        let (piece, rest) = self.0.split_first_chunk::<N>().ok_or_else(|| damaged("a value is too short"))?;
        self.0 = rest;
        Ok(*piece)
    }

    pub(super) fn u64(&mut self) -> Result<u64, StoreFault> {
        Ok(u64::from_be_bytes(self.take()?))
    }

    /// A text after its length.
    fn text(&mut self) -> Result<&str, StoreFault> {
        let length = u32::from_be_bytes(self.take()?) as usize;
        let (text, rest) = self.0.split_at_checked(length).ok_or_else(|| damaged("a text is too short"))?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_| damaged("a name is no text"))
    }
}

pub(super) fn damaged(what: &str) -> StoreFault {
    StoreFault::Damaged(what.to_owned())
}
