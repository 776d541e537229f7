//! What tells a repeated command from another one under the same id: a keyed hash of the verb and the JSON value of the
//! body. Keyed with the log's own key, so it gives nothing away about the body; of the *value*, so that the order of
//! members and white space do not matter.

use engine::json::{Json, Shape};
use engine::message::Fingerprint;
use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::Sha256;

/// Makes fingerprints under one log's key. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Fingerprints(Hmac<Sha256>);

impl Fingerprints {
    /// Under the key that the log's `Genesis` holds.
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(Hmac::new_from_slice(key).expect("HMAC takes keys of any length"))
    }

    /// The fingerprint of a verb (`place`, `cancel`, …) and a body.
    pub(crate) fn of(&self, verb: &str, body: Json<'_>) -> Fingerprint {
        let mut text = Vec::with_capacity(512);
        text.extend_from_slice(verb.as_bytes());
        text.push(b'\n');
        write(body, &mut text);
        let mut mac = self.0.clone();
        mac.update(&text);
        let tag = mac.finalize().into_bytes();
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&tag[..16]);
        Fingerprint(fingerprint)
    }
}

/// JSON with members in the order of their names.
fn write(value: Json<'_>, out: &mut Vec<u8>) {
    match value.shape() {
        Shape::Object => {
            let mut members: Vec<_> = value.members().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            out.push(b'{');
            for (name, value) in members {
                leaf(name, out);
                out.push(b':');
                write(value, out);
                out.push(b',');
            }
            out.push(b'}');
        }
        Shape::List => {
            out.push(b'[');
            for item in value.items() {
                write(item, out);
                out.push(b',');
            }
            out.push(b']');
        }
        Shape::Null => out.extend_from_slice(b"null"),
        Shape::Bool(value) => leaf(&value, out),
        Shape::Number(number) => leaf(number, out),
        Shape::Text(text) => leaf(text, out),
    }
}

fn leaf<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("writing a value to memory cannot fail");
}

#[cfg(test)]
mod tests {
    use engine::json::Document;
    use serde_json::{Value, json};

    use super::*;

    fn of(verb: &str, body: Value) -> Fingerprint {
        Fingerprints::new(&[7; 32]).of(verb, Document::of(&body).root())
    }

    #[test]
    fn the_order_of_members_does_not_matter() {
        assert_eq!(
            of("place", json!({"a": 1, "b": {"c": 2, "d": 3}})),
            of("place", json!({"b": {"d": 3, "c": 2}, "a": 1}))
        );
    }

    #[test]
    fn verb_value_order_of_items_and_key_do() {
        let one = of("place", json!({"a": [1, 2]}));
        assert_ne!(one, of("cancel", json!({"a": [1, 2]})));
        assert_ne!(one, of("place", json!({"a": [2, 1]})));
        assert_ne!(one, of("place", json!({"a": ["1", 2]})));
        assert_ne!(one, Fingerprints::new(&[8; 32]).of("place", Document::of(&json!({"a": [1, 2]})).root()));
    }

    #[test]
    fn what_was_recorded_under_a_key_stays_known_under_it() {
        // Logs hold these: a repeat must find what an earlier version of this program wrote.
        let body = json!({"lines": [{"sku": "b\"ä\n", "quantity": 2, "on": true}], "a": null, "c": -1.5e300, "d": []});
        let mut text = Vec::new();
        write(Document::of(&body).root(), &mut text);
        let expected = r#"{"a":null,"c":-1.5e+300,"d":[],"lines":[{"on":true,"quantity":2,"sku":"b\"ä\n",},],}"#;
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
