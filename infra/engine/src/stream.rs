//! Who a stream is and where it lives. A stream is `(tenant, name)`; its partition is a pure function of both, so every
//! process that knows the log's partition count places it alike, for ever.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3;

use crate::json::read_text;
use crate::position::Partition;

/// The tenant everybody is until there are several.
pub const MAIN_TENANT: &str = "main";
/// Longest stream name in bytes: a category, a 64-byte location, `~` and a 64-byte key fit twice over.
pub const STREAM_NAME_BYTES_MAX: usize = 200;
/// Longest tenant name in bytes.
pub const TENANT_BYTES_MAX: usize = 64;

/// Whose data a stream is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tenant(Arc<str>);

impl Tenant {
    /// A tenant name of 1–64 of `[A-Za-z0-9._-]`.
    pub fn new(name: &str) -> Result<Self, InvalidName> {
        let fits = !name.is_empty()
            && name.len() <= TENANT_BYTES_MAX
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if fits { Ok(Self(name.into())) } else { Err(InvalidName(name.to_owned())) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Tenant {
    fn default() -> Self {
        Self(MAIN_TENANT.into())
    }
}

/// A stream's name within its tenant: `<category>-<rest>`, for example `order-0198…` or `stock-shop-1~beans`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamName(Arc<str>);

impl StreamName {
    /// Takes a name that has a lower-case category, a dash and a rest of visible ASCII.
    pub fn new(name: &str) -> Result<Self, InvalidName> {
        let well_formed = name.split_once('-').is_some_and(|(category, rest)| {
            !category.is_empty()
                && category.bytes().all(|b| b.is_ascii_lowercase())
                && !rest.is_empty()
                && rest.bytes().all(|b| b.is_ascii_graphic())
        });
        if well_formed && name.len() <= STREAM_NAME_BYTES_MAX {
            Ok(Self(name.into()))
        } else {
            Err(InvalidName(name.to_owned()))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before the first dash: `order`, `stock`, …
    pub fn category(&self) -> &str {
        self.0.split_once('-').map_or("", |(category, _)| category)
    }

    /// What stands after the first dash.
    pub fn rest(&self) -> &str {
        self.0.split_once('-').map_or("", |(_, rest)| rest)
    }

    /// What decides the partition: what stands before `~` if there is one; else the last two bytes of the UUID that the
    /// rest is, so that ids made to share them share a partition; else the whole rest.
    fn placement_key(&self) -> PlacementKey<'_> {
        let rest = self.rest();
        if let Some((place, _)) = rest.split_once('~') {
            return PlacementKey::Text(place);
        }
        match Uuid::try_parse(rest) {
            Ok(id) => PlacementKey::Pair([id.as_bytes()[14], id.as_bytes()[15]]),
            Err(_) => PlacementKey::Text(rest),
        }
    }
}

enum PlacementKey<'a> {
    Text(&'a str),
    Pair([u8; 2]),
}

impl Serialize for StreamName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for StreamName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_text(deserializer, Self::new)
    }
}

/// A stream: whose, and which.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamId {
    /// Whose it is.
    pub tenant: Tenant,
    /// Which one it is.
    pub name: StreamName,
}

/// The partition of a stream in a log of `partitions` partitions: xxh3 of tenant, a zero byte and the placement key,
/// modulo the count. Written into `Genesis` as placement rule 1; it can never change for a log.
///
/// # Panics
/// If `partitions` is 0; `Genesis` refuses such a log.
pub fn partition_of(tenant: &Tenant, name: &StreamName, partitions: u16) -> Partition {
    let mut hash = Xxh3::new();
    hash.update(tenant.as_str().as_bytes());
    hash.update(&[0]);
    match name.placement_key() {
        PlacementKey::Text(text) => hash.update(text.as_bytes()),
        PlacementKey::Pair(pair) => hash.update(&pair),
    }
    let slot = hash.digest() % u64::from(partitions);
    Partition(u16::try_from(slot).expect("a remainder of a u16 fits one"))
}

/// A name that is no stream or tenant name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a valid name")]
pub struct InvalidName(pub String);

macro_rules! shown_as_text {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }
    )*};
}
shown_as_text!(Tenant, StreamName);
