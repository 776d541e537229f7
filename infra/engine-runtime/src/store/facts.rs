//! What a store says of itself, without being asked to serve: of which log it is a fold, and how far. A store that would be
//! wiped at the next start is told of, not wiped.

use std::path::Path;

use engine::position::{LogId, Offset};

use super::tables::{self, Identity};
use super::{StoreFault, StoreOptions};

/// A state store at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFacts {
    /// The format of its keys and values.
    pub format: u32,
    /// The newest format that this program knows, and the only one it uses.
    pub format_known: u32,
    /// The log that it is a fold of.
    pub log: LogId,
    /// How many partitions that has.
    pub partitions: u16,
    /// The version of the decider whose states these are.
    pub decider: u32,
    /// The offset that each partition is to be folded from next.
    pub folded: Vec<Offset>,
}

impl From<(Identity, Vec<Offset>)> for StoreFacts {
    fn from((identity, folded): (Identity, Vec<Offset>)) -> Self {
        let Identity { format, log, partitions, decider } = identity;
        Self { format, format_known: super::keys::FORMAT, log, partitions, decider, folded }
    }
}

/// Looks at the store in `directory`: nothing if there is none, or one in which nothing was saved yet, and why if it is of
/// no use and would be folded afresh. Opens its database as a start does, so no node may have it open.
pub fn store_facts(directory: &Path) -> Result<Option<Result<StoreFacts, String>>, StoreFault> {
    let found = tables::look(directory, &StoreOptions::default())?;
    Ok(found.map(|usable| usable.map(StoreFacts::from)))
}
