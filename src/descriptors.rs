//! How many files this process may have open, and how many of them connections may take. What is beside them (segments,
//! states, rows, brokers) must never find none left because clients hold them all: a log that cannot open its next
//! segment stops.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that a node has open beside its connections: segments, state store, brokers, database.
pub(crate) const FILES_BESIDE: u64 = 512;

/// Raises this process's own limit if it is too low for that many connections, as far as it may, and gives how many
/// there is room for.
pub(crate) fn room_for(connections: usize) -> usize {
    let needed = connections as u64 + FILES_BESIDE;
    let limit = getrlimit(Resource::Nofile);
    let mut current = limit.current.unwrap_or(u64::MAX);
    if current < needed {
        let raised = needed.min(limit.maximum.unwrap_or(u64::MAX));
        // Refused where somebody forbade it: then what there is has to do.
        if raised > current && setrlimit(Resource::Nofile, Rlimit { current: Some(raised), ..limit }).is_ok() {
            current = raised;
        }
    }
    let room = usize::try_from(connections_within(current)).unwrap_or(usize::MAX);
    if room < connections {
        tracing::warn!(
            connections = room,
            "only {current} files may be open: at most {room} connections are taken, not {connections}"
        );
    }
    room.min(connections)
}

/// How many connections leave enough of so many files; where there are few, half of them.
fn connections_within(files: u64) -> u64 {
    files.saturating_sub(FILES_BESIDE).max(files / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_never_take_all_files() {
        assert_eq!(connections_within(4_608), 4_096);
        assert_eq!(connections_within(1_024), 512);
        assert_eq!(connections_within(256), 128);
        assert!(room_for(16) == 16);
    }
}
