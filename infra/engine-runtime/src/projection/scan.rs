//! Reads a partition's effective events from its beginning, one after the other, for those who look at what a projection
//! did rather than go on with it. Blocking, and in pieces of bounded size.

use engine::event::{Event, Recorded};
use engine::fold::Verdict;
use engine::log::Log;
use engine::position::{Checkpoint, Offset, Partition, Position, Version};
use engine::record::{Body, Header, Kind, Record};
use engine::stream::StreamId;

/// 1 MiB: read at once.
const READ_BYTES: usize = 1 << 20;

/// An event as it was met; one that cannot be read says why.
pub(super) struct Met<E> {
    pub(super) stream: StreamId,
    pub(super) version: Version,
    pub(super) position: Position,
    pub(super) event: Result<Recorded<E>, String>,
}

/// Shows every effective event below `to`, in order. `stride` is told how many records were read since it was told last;
/// false from it ends the scan early.
pub(super) fn scan<E: Event>(
    log: &dyn Log,
    partition: Partition,
    to: Offset,
    mut stride: impl FnMut(u64) -> bool,
    mut met: impl FnMut(Met<E>),
) -> Result<(), String> {
    let mut checkpoint = Checkpoint::default();
    while checkpoint.next_offset < to {
        let from = checkpoint.next_offset;
        let read = log.read(partition, from, READ_BYTES).map_err(|fault| crate::chain(&fault))?;
        for stored in read {
            let position = Position { partition, offset: stored.offset };
            if stored.offset >= to {
                break;
            }
            if stored.offset != checkpoint.next_offset {
                return Err(format!("{position} came where {} was asked for", checkpoint.next_offset));
            }
            let header = Header::decode(&stored.bytes).map_err(|fault| format!("{position}: {fault}"))?;
            if checkpoint.accept(&header) != Verdict::Effective || header.kind != Kind::Commit {
                continue;
            }
            let record = Record::decode(&stored.bytes).map_err(|fault| format!("{position}: {fault}"))?;
            let Body::Commit(commit) = record.body else { continue };
            for told in commit.events() {
                let event = told.read(position).map_err(|fault| fault.to_string());
                met(Met { stream: told.stream(), version: told.version, position, event });
            }
        }
        let read = checkpoint.next_offset.0 - from.0;
        if read == 0 {
            return Err(format!("{} ends at {from}, and was to reach {to}", Position { partition, offset: from }));
        }
        if !stride(read) {
            return Ok(());
        }
    }
    Ok(())
}
