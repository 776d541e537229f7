//! W3C Trace Context: `traceparent` is taken over if it is valid and ignored if it is not, as the recommendation asks.

use std::fmt;
use std::sync::Arc;

use http::HeaderMap;
use serde::{Serialize, Serializer};

use super::TRACEPARENT;

/// Longest taken: later versions may append to the 55 characters of version 00, but not without end.
const TRACEPARENT_BYTES_MAX: usize = 128;

/// Which trace a request belongs to: 32 hexadecimal digits, lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl Serialize for TraceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A valid `traceparent`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceParent<'a> {
    /// As received.
    pub text: &'a str,
    /// The trace.
    pub trace_id: TraceId,
}

impl TraceParent<'_> {
    /// As it is kept with a record.
    pub fn to_arc(&self) -> Arc<str> {
        Arc::from(self.text)
    }
}

/// The caller's trace context; `None` if it sent none, several, or an invalid one.
pub fn traceparent(headers: &HeaderMap) -> Option<TraceParent<'_>> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let text = values.next()?.to_str().ok()?;
    if values.next().is_some() || text.len() > TRACEPARENT_BYTES_MAX {
        return None;
    }
    let bytes = text.as_bytes();
    let (version, trace_id, parent_id, flags) =
        (bytes.get(..2)?, bytes.get(3..35)?, bytes.get(36..52)?, bytes.get(53..55)?);
    let hyphens = [2, 35, 52].iter().all(|&at| bytes[at] == b'-');
    let digits = [version, trace_id, parent_id, flags].iter().all(|part| part.iter().all(is_lower_hex));
    let zero = |part: &[u8]| part.iter().all(|&b| b == b'0');
    let ends = match (version, bytes.get(55)) {
        (b"ff", _) => false,
        (_, None) => true,
        (b"00", Some(_)) => false,
        (_, Some(next)) => *next == b'-',
    };
    if !hyphens || !digits || !ends || zero(trace_id) || zero(parent_id) {
        return None;
    }
    let trace_id = u128::from_str_radix(&text[3..35], 16).ok()?;
    Some(TraceParent { text, trace_id: TraceId(trace_id.to_be_bytes()) })
}

fn is_lower_hex(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}
