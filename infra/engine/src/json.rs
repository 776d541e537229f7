//! A JSON text as it came, with a table of where its values are: one allocation for all of them, however many there are.
//! Bodies are read once and thrown away, so they need no maps and no strings of their own. Stricter than the grammar:
//! nesting and number of values are bounded, and no object names a member twice (two readers of such a body could see two
//! different commands).

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};

/// Deepest nesting: the outermost object or array is 1.
pub const DEPTH_MAX: u32 = 32;
/// Most values in a text, counting objects, arrays and what they hold.
pub const NODES_MAX: u32 = 10_000;

/// Longest part of a member's name that is told back.
const NAME_CHARS_SHOWN: usize = 64;
/// Members up to which names are compared one with another, which costs less than a table of them.
const FEW_MEMBERS: usize = 16;

/// A text and what is in it.
#[derive(Clone)]
pub struct Document {
    text: Box<str>,
    /// In the order of the text; an object's members are a name and a value each.
    nodes: Vec<Node>,
}

#[derive(Clone)]
struct Node {
    kind: Kind,
    /// The place after it and all that it holds.
    end: u32,
}

#[derive(Clone)]
enum Kind {
    Null,
    Bool(bool),
    Number(Number),
    /// Bytes of the text.
    Text(u32, u32),
    /// A text with escapes, without them.
    Unescaped(Box<str>),
    List,
    Object,
}

/// One value of a document.
#[derive(Clone, Copy)]
pub struct Json<'a> {
    document: &'a Document,
    place: u32,
}

/// A value as it is told apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(&'a Number),
    /// A text.
    Text(&'a str),
    /// An array.
    List,
    /// An object.
    Object,
}

impl Document {
    /// Reads one JSON value.
    ///
    /// # Errors
    /// What is wrong and where, in words for whoever sent it.
    pub fn parse(text: &str) -> Result<Self, String> {
        u32::try_from(text.len()).map_err(|_| "it is too long".to_owned())?;
        // About one value in twelve bytes: bodies of this kind then need no second allocation.
        let mut nodes = Vec::with_capacity((text.len() / 12).clamp(4, NODES_MAX as usize));
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let reading = Reading { depth: 1, text, values: &mut 0, nodes: &mut nodes };
        reading.deserialize(&mut deserializer).and_then(|()| deserializer.end()).map_err(|error| error.to_string())?;
        // A copy: what it came in is a buffer many times as large, which is wanted for the next request.
        Ok(Self { text: text.into(), nodes })
    }

    /// Of a value in memory.
    ///
    /// # Panics
    /// If it is more than a document may be.
    pub fn of(value: &Value) -> Self {
        Self::parse(&value.to_string()).expect("a value within the bounds of a document")
    }

    /// `{}`.
    pub fn empty_object() -> Self {
        Self { text: Box::default(), nodes: vec![Node { kind: Kind::Object, end: 1 }] }
    }

    /// The outermost value.
    pub fn root(&self) -> Json<'_> {
        Json { document: self, place: 0 }
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.root().fmt(f)
    }
}

impl<'a> Json<'a> {
    fn node(self) -> &'a Node {
        &self.document.nodes[self.place as usize]
    }

    fn text(self) -> Option<&'a str> {
        match &self.node().kind {
            Kind::Text(from, to) => self.document.text.get(*from as usize..*to as usize),
            Kind::Unescaped(text) => Some(text),
            _ => None,
        }
    }

    /// What it is.
    pub fn shape(self) -> Shape<'a> {
        match &self.node().kind {
            Kind::Null => Shape::Null,
            Kind::Bool(value) => Shape::Bool(*value),
            Kind::Number(number) => Shape::Number(number),
            Kind::Text(..) | Kind::Unescaped(_) => Shape::Text(self.text().unwrap_or_default()),
            Kind::List => Shape::List,
            Kind::Object => Shape::Object,
        }
    }

    /// The text, if it is one.
    pub fn as_str(self) -> Option<&'a str> {
        self.text()
    }

    /// The items of an array; nothing of anything else.
    pub fn items(self) -> impl Iterator<Item = Json<'a>> {
        let is_list = matches!(self.node().kind, Kind::List);
        let (mut place, end) = (self.place + 1, if is_list { self.node().end } else { 0 });
        std::iter::from_fn(move || {
            let item = (place < end).then_some(Json { place, ..self })?;
            place = item.node().end;
            Some(item)
        })
    }

    /// The members of an object, in the order of the text; nothing of anything else.
    pub fn members(self) -> impl Iterator<Item = (&'a str, Json<'a>)> {
        let is_object = matches!(self.node().kind, Kind::Object);
        let (mut place, end) = (self.place + 1, if is_object { self.node().end } else { 0 });
        std::iter::from_fn(move || {
            let name = (place < end).then_some(Json { place, ..self })?;
            let value = Json { place: place + 1, ..self };
            place = value.node().end;
            Some((name.text().unwrap_or_default(), value))
        })
    }

    /// The member of that name, if it is an object that has it.
    pub fn get(self, name: &str) -> Option<Json<'a>> {
        self.members().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// The same as a value of its own.
    pub fn to_value(self) -> Value {
        match self.shape() {
            Shape::Null => Value::Null,
            Shape::Bool(value) => Value::Bool(value),
            Shape::Number(number) => Value::Number(number.clone()),
            Shape::Text(text) => Value::String(text.to_owned()),
            Shape::List => self.items().map(Json::to_value).collect(),
            Shape::Object => self.members().map(|(name, value)| (name.to_owned(), value.to_value())).collect(),
        }
    }
}

impl fmt::Debug for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_value().fmt(f)
    }
}

/// Reads a value that is a text in JSON, without making a string first.
///
/// # Errors
/// What the deserializer says where there is no text, or `read` of the text.
pub fn read_text<'de, D, T, F>(deserializer: D, read: impl FnOnce(&str) -> Result<T, F>) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    F: fmt::Display,
{
    struct Text<R>(R);

    impl<T, F: fmt::Display, R: FnOnce(&str) -> Result<T, F>> Visitor<'_> for Text<R> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            (self.0)(text).map_err(E::custom)
        }
    }

    deserializer.deserialize_str(Text(read))
}

/// Writes a value down that stands at `depth`.
struct Reading<'b, 'a> {
    depth: u32,
    text: &'a str,
    values: &'b mut u32,
    nodes: &'b mut Vec<Node>,
}

impl<'a> Reading<'_, 'a> {
    fn push(&mut self, kind: Kind) {
        let end = self.next() + 1;
        self.nodes.push(Node { kind, end });
    }

    fn next(&self) -> u32 {
        u32::try_from(self.nodes.len()).expect("values and names are bounded")
    }

    fn push_text(&mut self, text: &str) {
        // A text without escapes lies in the document as it is.
        let from = (text.as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
        let lies_there = from.checked_add(text.len()).is_some_and(|to| to <= self.text.len());
        self.push(if lies_there {
            Kind::Text(from as u32, (from + text.len()) as u32)
        } else {
            Kind::Unescaped(text.into())
        });
    }

    /// Makes room for what holds others, and gives its place.
    fn open<E: de::Error>(&mut self, kind: Kind) -> Result<usize, E> {
        if self.depth > DEPTH_MAX {
            return Err(E::custom(format_args!("nested deeper than {DEPTH_MAX} levels")));
        }
        self.push(kind);
        Ok(self.nodes.len() - 1)
    }

    fn close(&mut self, place: usize) {
        self.nodes[place].end = self.next();
    }

    fn deeper(&mut self) -> Reading<'_, 'a> {
        Reading { depth: self.depth + 1, text: self.text, values: self.values, nodes: self.nodes }
    }

    fn text_at(&self, place: usize) -> &str {
        match &self.nodes[place].kind {
            Kind::Text(from, to) => &self.text[*from as usize..*to as usize],
            Kind::Unescaped(text) => text,
            _ => unreachable!("a member begins with its name"),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Reading<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        *self.values += 1;
        if *self.values > NODES_MAX {
            return Err(de::Error::custom(format_args!("more than {NODES_MAX} values")));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reading<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(mut self) -> Result<(), E> {
        self.push(Kind::Null);
        Ok(())
    }

    fn visit_bool<E>(mut self, value: bool) -> Result<(), E> {
        self.push(Kind::Bool(value));
        Ok(())
    }

    fn visit_i64<E>(mut self, value: i64) -> Result<(), E> {
        self.push(Kind::Number(value.into()));
        Ok(())
    }

    fn visit_u64<E>(mut self, value: u64) -> Result<(), E> {
        self.push(Kind::Number(value.into()));
        Ok(())
    }

    fn visit_f64<E: de::Error>(mut self, value: f64) -> Result<(), E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("not a number that JSON can hold"))?;
        self.push(Kind::Number(number));
        Ok(())
    }

    fn visit_str<E>(mut self, value: &str) -> Result<(), E> {
        self.push_text(value);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut access: A) -> Result<(), A::Error> {
        let place = self.open(Kind::List)?;
        while access.next_element_seed(self.deeper())?.is_some() {}
        self.close(place);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut access: A) -> Result<(), A::Error> {
        let place = self.open(Kind::Object)?;
        let mut names = Names::Few(0);
        loop {
            let name = self.nodes.len();
            if access.next_key_seed(Name(self.deeper()))?.is_none() {
                break;
            }
            if names.has(&self, place, name) {
                let shown = self.text_at(name).chars().take(NAME_CHARS_SHOWN).collect::<String>();
                return Err(de::Error::custom(format_args!("{shown:?} is named twice in one object")));
            }
            access.next_value_seed(self.deeper())?;
        }
        self.close(place);
        Ok(())
    }
}

/// Writes a member's name down.
struct Name<'b, 'a>(Reading<'b, 'a>);

impl<'de> DeserializeSeed<'de> for Name<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        // Not counted: its value is.
        deserializer.deserialize_str(self.0)
    }
}

/// The names that an object has so far.
enum Names {
    Few(usize),
    Many(BTreeSet<String>),
}

impl Names {
    /// Whether the name at `place` was named before in the object; counts it.
    fn has(&mut self, reading: &Reading<'_, '_>, object: usize, place: usize) -> bool {
        let name = reading.text_at(place);
        let before = || {
            let mut at = object + 1;
            std::iter::from_fn(move || {
                let name = (at < place).then(|| reading.text_at(at))?;
                at = reading.nodes[at + 1].end as usize;
                Some(name)
            })
        };
        match self {
            Self::Few(count) if *count < FEW_MEMBERS => {
                *count += 1;
                before().any(|other| other == name)
            }
            Self::Few(_) => {
                let mut names = before().map(str::to_owned).collect::<BTreeSet<_>>();
                let is_new = names.insert(name.to_owned());
                *self = Self::Many(names);
                !is_new
            }
            Self::Many(names) => !names.insert(name.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(text: &str) -> Result<Document, String> {
        Document::parse(text)
    }

    #[test]
    fn a_document_says_what_its_text_says() {
        for text in [
            "null",
            " true ",
            "-1",
            "18446744073709551615",
            "1.5e3",
            r#""""#,
            r#""a\nb\u00e4""#,
            "[]",
            "{}",
            r#"{"a":{"b":[1,[2,[]],{"c":null}],"d\t":"e"},"":false,"z":[{},{"y":"ä"}]}"#,
        ] {
            let value = serde_json::from_str::<Value>(text).expect("it is JSON");
            assert_eq!(parse(text).expect("it is JSON").root().to_value(), value, "{text}");
            assert_eq!(Document::of(&value).root().to_value(), value, "{text}");
        }
        assert_eq!(Document::empty_object().root().to_value(), json!({}));
    }

    #[test]
    fn members_are_found_by_name_wherever_they_stand() {
        let document = parse(r#"{"a":[1,{"b":2}],"b\u0021":"\"c","d":{"e":"f"}}"#).expect("it is JSON");
        let root = document.root();
        assert_eq!(root.get("b!").and_then(Json::as_str), Some("\"c"));
        assert_eq!(root.get("d").and_then(|d| d.get("e")).and_then(Json::as_str), Some("f"));
        assert!(root.get("b").is_none() && root.get("d").expect("it is there").get("d").is_none());
        assert!(root.get("a").expect("it is there").get("b").is_none(), "a list has no members");
        assert_eq!(root.get("d").expect("it is there").items().count(), 0, "an object has no items");
        assert_eq!(root.members().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "b!", "d"]);
    }

    #[test]
    fn a_name_given_twice_is_refused_among_few_and_among_many() {
        for others in [0, 1, FEW_MEMBERS - 2, FEW_MEMBERS - 1, FEW_MEMBERS, FEW_MEMBERS + 1, 300] {
            let members = (0..others).map(|number| format!(r#""m{number}":[{number},{{"n":0}}],"#)).collect::<String>();
            let once = format!(r#"{{{members}"n":1}}"#);
            assert_eq!(parse(&once).expect("it is JSON").root().members().count(), others + 1);
            let twice = format!(r#"{{"\u006e":0,{members}"n":1}}"#);
            assert!(parse(&twice).expect_err("it is refused").contains(r#""n" is named twice"#), "among {others}");
        }
    }
}
