//! Reading members of a JSON object while keeping every fault. A reader gives `None` when it has added a fault; readers
//! go on after one, so that whoever asked learns of all.

use std::fmt;

use engine::json::{Json, Shape};
use engine::message::FieldError;
use uuid::Uuid;

use super::TEXT_CHARS_MAX;
use crate::id::InvalidId;
use crate::money::{Currency, Money};

/// Faults told at most: a body of 256 KiB can hold more than anybody reads.
const FAULTS_MAX: usize = 500;
/// Members that most objects may have.
const MEMBERS_USUAL: usize = 6;
/// Characters of a refused value that are told back.
const SHOWN_CHARS: usize = 40;

/// Where a value is in a body: written as a JSON Pointer only where something is wrong with it.
#[derive(Clone, Copy)]
pub(super) struct Pointer<'a>(Option<(&'a Pointer<'a>, Step<'a>)>);

#[derive(Clone, Copy)]
enum Step<'a> {
    Member(&'a str),
    Item(usize),
}

impl<'a> Pointer<'a> {
    /// To the whole body.
    const ROOT: Self = Self(None);

    /// To a member of what is here.
    pub(super) fn member(&'a self, name: &'a str) -> Self {
        Self(Some((self, Step::Member(name))))
    }

    /// To an item of what is here.
    pub(super) fn item(&'a self, index: usize) -> Self {
        Self(Some((self, Step::Item(index))))
    }
}

impl fmt::Display for Pointer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((holder, step)) = self.0 else { return Ok(()) };
        match step {
            Step::Member(name) => write!(f, "{holder}/{}", name.replace('~', "~0").replace('/', "~1")),
            Step::Item(index) => write!(f, "{holder}/{index}"),
        }
    }
}

/// The faults found so far.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<FieldError>);

impl Faults {
    pub(super) fn add(&mut self, at: &Pointer<'_>, code: &'static str, detail: impl Into<String>) {
        if self.0.len() < FAULTS_MAX {
            self.0.push(FieldError::at(at.to_string(), code, detail));
        }
    }

    /// Reads a whole body.
    pub(super) fn collect<T>(
        body: Json<'_>,
        read: impl FnOnce(&mut Members<'_>, &mut Faults) -> Option<T>,
    ) -> Result<T, Vec<FieldError>> {
        let mut faults = Self::default();
        let read = object(body, &Pointer::ROOT, &mut faults, read);
        match read {
            Some(read) if faults.0.is_empty() => Ok(read),
            _ => {
                debug_assert!(!faults.0.is_empty(), "whoever reads nothing says why");
                Err(faults.0)
            }
        }
    }
}

/// The members of one object, each asked for by name; what nobody asks for is refused.
pub(super) struct Members<'a> {
    at: &'a Pointer<'a>,
    object: Json<'a>,
    /// How many of the object's members were asked for: if all of them, none is unknown.
    found: usize,
    asked: Vec<&'static str>,
}

impl<'a> Members<'a> {
    /// A member that has to be there.
    pub(super) fn required<T>(
        &mut self,
        name: &'static str,
        faults: &mut Faults,
        read: impl FnOnce(Json<'_>, &Pointer<'_>, &mut Faults) -> Option<T>,
    ) -> Option<T> {
        let at = self.at.member(name);
        match self.get(name) {
            Some(value) => read(value, &at, faults),
            None => {
                faults.add(&at, "missing", "must be given");
                None
            }
        }
    }

    /// A member that may be left out or null. The outer `None` means that it is there and at fault.
    pub(super) fn optional<T>(
        &mut self,
        name: &'static str,
        faults: &mut Faults,
        read: impl FnOnce(Json<'_>, &Pointer<'_>, &mut Faults) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.get(name) {
            None => Some(None),
            Some(value) if value.shape() == Shape::Null => Some(None),
            Some(value) => read(value, &self.at.member(name), faults).map(Some),
        }
    }

    fn get(&mut self, name: &'static str) -> Option<Json<'a>> {
        self.asked.push(name);
        let found = self.object.get(name);
        self.found += usize::from(found.is_some());
        found
    }
}

/// Reads an object and refuses members that nobody asked for.
pub(super) fn object<T>(
    value: Json<'_>,
    at: &Pointer<'_>,
    faults: &mut Faults,
    read: impl FnOnce(&mut Members<'_>, &mut Faults) -> Option<T>,
) -> Option<T> {
    if value.shape() != Shape::Object {
        wrong_type(value, at, "an object", faults);
        return None;
    }
    let mut members = Members { at, object: value, found: 0, asked: Vec::with_capacity(MEMBERS_USUAL) };
    let read = read(&mut members, faults);
    if members.found < value.members().count() {
        for (name, _) in value.members().filter(|(name, _)| !members.asked.contains(name)) {
            faults.add(&at.member(name), "unknown-field", "there is no such field here");
        }
    }
    read
}

/// Reads a list of `least` to `most` items.
pub(super) fn list<T>(
    least: usize,
    most: usize,
    read: impl Fn(Json<'_>, &Pointer<'_>, &mut Faults) -> Option<T>,
) -> impl Fn(Json<'_>, &Pointer<'_>, &mut Faults) -> Option<Vec<T>> {
    move |value, at, faults| {
        if value.shape() != Shape::List {
            wrong_type(value, at, "a list", faults);
            return None;
        }
        let count = value.items().count();
        if !(least..=most).contains(&count) {
            faults.add(at, "wrong-length", format!("must have {least} to {most} items; has {count}"));
        }
        let mut items = Some(Vec::with_capacity(count.min(most)));
        for (index, item) in value.items().take(most).enumerate() {
            // All of them, also after one that is at fault.
            let item = read(item, &at.item(index), faults);
            items = items.zip(item).map(|(mut items, item)| {
                items.push(item);
                items
            });
        }
        items.filter(|_| (least..=most).contains(&count))
    }
}

/// Reads a whole number within bounds.
pub(super) fn whole(least: i64, most: i64) -> impl Fn(Json<'_>, &Pointer<'_>, &mut Faults) -> Option<i64> {
    move |value, at, faults| {
        let Shape::Number(number) = value.shape() else {
            wrong_type(value, at, "a whole number", faults);
            return None;
        };
        match number.as_i64() {
            Some(number) if (least..=most).contains(&number) => Some(number),
            None if number.is_f64() => {
                faults.add(at, "wrong-type", format!("must be a whole number; is {number}"));
                None
            }
            _ => {
                faults.add(at, "out-of-range", format!("must be {} to {}; is {number}", grouped(least), grouped(most)));
                None
            }
        }
    }
}

/// Reads a text of 1–200 characters without controls.
pub(super) fn text(value: Json<'_>, at: &Pointer<'_>, faults: &mut Faults) -> Option<String> {
    let text = string(value, at, faults)?;
    let characters = text.chars().count();
    if text.chars().any(char::is_control) {
        faults.add(at, "malformed", "must have no control characters");
        return None;
    }
    if characters == 0 || characters > TEXT_CHARS_MAX {
        faults.add(at, "wrong-length", format!("must have 1 to {TEXT_CHARS_MAX} characters; has {characters}"));
        return None;
    }
    Some(text.to_owned())
}

/// Reads a customer id, location id or SKU.
pub(super) fn name<T>(
    make: impl Fn(&str) -> Result<T, InvalidId>,
) -> impl Fn(Json<'_>, &Pointer<'_>, &mut Faults) -> Option<T> {
    move |value, at, faults| {
        let text = string(value, at, faults)?;
        make(text).map_err(|_| faults.add(at, "malformed", name_rule(text))).ok()
    }
}

fn name_rule(text: &str) -> String {
    format!(
        "must be 1 to 64 of A–Z, a–z, 0–9, dot, underscore and dash, and none of the words of routes; is {:?}",
        shown(text)
    )
}

/// Reads a UUID in its usual form, any case.
pub(super) fn uuid(value: Json<'_>, at: &Pointer<'_>, faults: &mut Faults) -> Option<Uuid> {
    let text = string(value, at, faults)?;
    let id = plain_uuid(text);
    if id.is_none() {
        faults.add(at, "malformed", format!("must be a UUID; is {:?}", shown(text)));
    }
    id
}

/// A UUID in its usual form, any case.
pub(super) fn plain_uuid(text: &str) -> Option<Uuid> {
    // 36 characters: the parser takes other forms too, which are not ours.
    if text.len() == 36 { Uuid::try_parse(text).ok() } else { None }
}

/// Reads one of some words.
pub(super) fn one_of<T: Clone>(words: &[(&str, T)]) -> impl Fn(Json<'_>, &Pointer<'_>, &mut Faults) -> Option<T> {
    move |value, at, faults| {
        let text = string(value, at, faults)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| meaning.clone());
        if found.is_none() {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            faults.add(at, "unknown-value", format!("must be {}; is {:?}", words.join(" or "), shown(text)));
        }
        found
    }
}

/// Reads `{"amount", "currency"}` with an amount within bounds.
pub(super) fn money(least: i64, most: i64) -> impl Fn(Json<'_>, &Pointer<'_>, &mut Faults) -> Option<Money> {
    move |value, at, faults| {
        object(value, at, faults, |members, faults| {
            let amount = members.required("amount", faults, whole(least, most));
            let currency = members.required("currency", faults, |value, at, faults| {
                let code = string(value, at, faults)?;
                code.parse::<Currency>()
                    .map_err(|_| {
                        faults.add(at, "unknown-currency", format!("{} is not an ISO 4217 code", shown(code)));
                    })
                    .ok()
            });
            Some(Money::new(amount?, currency?))
        })
    }
}

fn string<'a>(value: Json<'a>, at: &Pointer<'_>, faults: &mut Faults) -> Option<&'a str> {
    let text = value.as_str();
    if text.is_none() {
        wrong_type(value, at, "a text", faults);
    }
    text
}

fn wrong_type(value: Json<'_>, at: &Pointer<'_>, wanted: &str, faults: &mut Faults) {
    let found = match value.shape() {
        Shape::Null => "null",
        Shape::Bool(_) => "true or false",
        Shape::Number(_) => "a number",
        Shape::Text(_) => "a text",
        Shape::List => "a list",
        Shape::Object => "an object",
    };
    faults.add(at, "wrong-type", format!("must be {wanted}; is {found}"));
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).collect()
}

/// 1000000 as 1,000,000.
fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}
