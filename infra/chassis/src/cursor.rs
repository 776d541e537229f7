//! Cursors: where a list goes on, opaque and signed, so that nobody builds one, alters one or uses it with other filters.
//! A cursor is base64url of a tag and the payload; the tag covers the *scope*, a text of the caller that names the list
//! and all its filters, without the cursor carrying it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::Sha256;

use crate::problem::Problem;

/// Bytes of the tag: 128 bits of HMAC-SHA256.
const TAG_BYTES: usize = 16;
/// Longest cursor taken. Headers and query share 16 KiB.
const CURSOR_CHARS_MAX: usize = 12 * 1024;

/// Signs and opens cursors. Cursors outlive the process if the secret does. Cheap to clone.
#[derive(Clone)]
pub struct CursorKey(Hmac<Sha256>);

impl CursorKey {
    /// A key from a secret of any length; 32 random bytes are best.
    pub fn new(secret: &[u8]) -> Self {
        Self(Hmac::new_from_slice(secret).expect("HMAC takes keys of any length"))
    }

    /// A cursor for the list that `scope` names, such as `orders?customer_id=c-17&status=`.
    ///
    /// # Panics
    /// If the payload cannot be JSON (maps without text keys): a mistake of the caller's type, not of its value.
    pub fn seal<T: Serialize>(&self, scope: &str, payload: &T) -> String {
        let payload = serde_json::to_vec(payload).expect("a cursor's payload is JSON");
        let mut bytes = Vec::with_capacity(TAG_BYTES + payload.len());
        bytes.extend_from_slice(&self.mac(scope, &payload).finalize().into_bytes()[..TAG_BYTES]);
        bytes.extend_from_slice(&payload);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What [`seal`](Self::seal) put in, for the same scope. Anything altered, foreign or of another list: 400
    /// `bad-cursor`.
    pub fn open<T: DeserializeOwned>(&self, scope: &str, cursor: &str) -> Result<T, Problem> {
        self.opened(scope, cursor).ok_or_else(Problem::bad_cursor)
    }

    fn opened<T: DeserializeOwned>(&self, scope: &str, cursor: &str) -> Option<T> {
        if cursor.len() > CURSOR_CHARS_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (tag, payload) = bytes.split_at_checked(TAG_BYTES)?;
        self.mac(scope, payload).verify_truncated_left(tag).ok()?;
        serde_json::from_slice(payload).ok()
    }

    fn mac(&self, scope: &str, payload: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        // The length first, so that no scope and payload can be cut apart differently.
        mac.update(&(scope.len() as u64).to_be_bytes());
        mac.update(scope.as_bytes());
        mac.update(payload);
        mac
    }
}

impl std::fmt::Debug for CursorKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CursorKey(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCOPE: &str = "orders?customer_id=c-17";

    fn key() -> CursorKey {
        CursorKey::new(b"a secret of some length")
    }

    #[test]
    fn what_was_sealed_is_opened() {
        let cursor = key().seal(SCOPE, &("2026-11-21", 42));
        assert!(cursor.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{cursor}");
        assert_eq!(key().open::<(String, u32)>(SCOPE, &cursor).unwrap(), ("2026-11-21".to_owned(), 42));
    }

    #[test]
    fn another_list_or_filter_or_key_is_refused() {
        let cursor = key().seal(SCOPE, &42);
        for scope in ["orders?customer_id=c-18", "orders?customer_id=c-1", "sagas?customer_id=c-17", ""] {
            assert_eq!(key().open::<u32>(scope, &cursor).unwrap_err().code().name, "bad-cursor");
        }
        assert!(CursorKey::new(b"another").open::<u32>(SCOPE, &cursor).is_err());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let cursor = key().seal(SCOPE, &42);
        let bytes = URL_SAFE_NO_PAD.decode(&cursor).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut altered = bytes.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(key().open::<u32>(SCOPE, &URL_SAFE_NO_PAD.encode(altered)).is_err(), "bit {bit}");
        }
        for end in 0..cursor.len() {
            assert!(key().open::<u32>(SCOPE, &cursor[..end]).is_err(), "cut at {end}");
        }
        for foreign in ["", "=", "ä", "a b", &"A".repeat(CURSOR_CHARS_MAX + 4)] {
            assert!(key().open::<u32>(SCOPE, foreign).is_err(), "{foreign:.20}");
        }
    }

    #[test]
    fn scope_and_payload_cannot_be_cut_apart_differently() {
        let cursor = key().seal("a", &12);
        let bytes = URL_SAFE_NO_PAD.decode(&cursor).unwrap();
        let moved = [&bytes[..TAG_BYTES], b"2"].concat();
        assert!(key().open::<u32>("a1", &URL_SAFE_NO_PAD.encode(moved)).is_err());
    }

    #[test]
    fn the_secret_is_not_shown() {
        assert_eq!(format!("{:?}", key()), "CursorKey(secret)");
    }
}
