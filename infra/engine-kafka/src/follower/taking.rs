//! What a fetched record has to be before the copy takes it: the very next one of its partition, and the first after a
//! start the same that was fetched before.

use std::sync::atomic::Ordering;

use engine::position::Partition;
use engine_embedded::{COPIED_RECORD_BYTES_MAX, LogCopy};
use rdkafka::message::{BorrowedMessage, Message};

use super::Shared;
use super::following::Next;
use crate::fault::KafkaFault;

/// Why records could not be taken over.
pub(super) enum Taking {
    Failed(String),
    Fault(KafkaFault),
}

/// Adds what is new in a batch to the copy.
pub(super) fn take(
    copy: &mut LogCopy,
    next: &mut [Next],
    shared: &Shared,
    batch: &[BorrowedMessage<'_>],
) -> Result<usize, Taking> {
    let mut records = Vec::with_capacity(batch.len());
    let mut fault = None;
    for message in batch {
        let Some(next) = usize::try_from(message.partition()).ok().and_then(|partition| next.get_mut(partition)) else {
            continue;
        };
        let partition = Partition(message.partition() as u16);
        let (offset, bytes) = (message.offset() as u64, message.payload().unwrap_or_default());
        match check(shared, partition, next, offset, bytes) {
            Ok(true) => {
                next.offset += 1;
                records.push((partition, bytes));
            }
            Ok(false) => {}
            Err(found) => {
                fault = Some(found);
                break;
            }
        }
    }
    if !records.is_empty()
        && let Err(error) = copy.append(&records)
    {
        let what = if engine_embedded::no_room(&error) { "the disk is full" } else { "the disk fails" };
        return Err(Taking::Failed(format!("{what}, the local copy does not go on: {error}")));
    }
    fault.map_or(Ok(records.len()), |fault| Err(Taking::Fault(fault)))
}

/// Whether a record is the next one; `false` if it is here already.
fn check(
    shared: &Shared,
    partition: Partition,
    next: &mut Next,
    offset: u64,
    bytes: &[u8],
) -> Result<bool, KafkaFault> {
    let topic = || shared.topic.clone();
    if let Some(overlap) = &next.overlap {
        // The first that comes must be the one that was fetched last time.
        if offset != overlap.offset.0 || bytes != &overlap.bytes[..] {
            let what = format!("offset {} holds another record than this node has read there", overlap.offset);
            return Err(KafkaFault::Truncated { topic: topic(), partition, what });
        }
        next.overlap = None;
        shared.verified[usize::from(partition.0)].store(true, Ordering::Release);
        return Ok(false);
    }
    if offset < next.offset {
        return Ok(false);
    }
    if offset > next.offset {
        let what = format!(
            "after offset {} of partition {partition} comes {offset}: a transaction was written to it, or it was compacted",
            next.offset.saturating_sub(1)
        );
        return Err(KafkaFault::Foreign { topic: topic(), what });
    }
    if bytes.len() > COPIED_RECORD_BYTES_MAX {
        let what = format!("offset {offset} of partition {partition} has {} bytes", bytes.len());
        return Err(KafkaFault::Foreign { topic: topic(), what });
    }
    Ok(true)
}
