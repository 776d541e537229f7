//! JSON, stricter than its grammar: nesting and number of values are bounded, and no object names a member twice (two
//! readers of such a body could see two different commands).

use std::cell::Cell;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::problem::Problem;

/// Deepest nesting: the outermost object or array is 1.
pub const DEPTH_MAX: u32 = 32;
/// Most values in a body, counting objects, arrays and what they hold.
pub const NODES_MAX: u32 = 10_000;

/// Longest part of a member's name that is told back.
const NAME_CHARS_SHOWN: usize = 64;

/// Parses one JSON value in UTF-8: 400 `malformed-body`, saying what is wrong and where, for anything else.
pub fn parse_json(bytes: &[u8]) -> Result<Value, Problem> {
    if bytes.trim_ascii().is_empty() {
        return Err(Problem::malformed_body("the body is empty; send a JSON object, {} at least"));
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err(Problem::malformed_body("the body is not UTF-8"));
    };
    let nodes = Cell::new(0);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let parsed = Strict { depth: 1, nodes: &nodes }.deserialize(&mut deserializer);
    match parsed.and_then(|value| deserializer.end().map(|()| value)) {
        Ok(value) => Ok(value),
        Err(error) => Err(Problem::malformed_body(error.to_string())),
    }
}

/// Builds a value that stands at `depth`.
#[derive(Clone, Copy)]
struct Strict<'a> {
    depth: u32,
    nodes: &'a Cell<u32>,
}

impl Strict<'_> {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        if self.depth > DEPTH_MAX {
            return Err(E::custom(format_args!("nested deeper than {DEPTH_MAX} levels")));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let nodes = self.nodes.get() + 1;
        if nodes > NODES_MAX {
            return Err(de::Error::custom(format_args!("more than {NODES_MAX} values")));
        }
        self.nodes.set(nodes);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a number that JSON can hold"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let element = self.deeper()?;
        let mut elements = Vec::new();
        while let Some(value) = access.next_element_seed(element)? {
            elements.push(value);
        }
        Ok(Value::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let member = self.deeper()?;
        let mut members = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            if members.contains_key(&name) {
                let shown = name.chars().take(NAME_CHARS_SHOWN).collect::<String>();
                return Err(de::Error::custom(format_args!("{shown:?} is named twice in one object")));
            }
            let value = access.next_value_seed(member)?;
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}
