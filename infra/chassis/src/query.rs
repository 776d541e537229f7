//! Query strings: every parameter is asked for by name and type, every fault is kept, and what nobody asked for is
//! refused by name, so a misspelt filter never silently means "all". All faults come together, as 422 `invalid-fields`
//! with `parameter`.
//!
//! ```
//! # use chassis::query::Query;
//! let mut query = Query::parse(Some("customer_id=c-17&limit=20"));
//! let customer = query.text("customer_id");
//! let limit = query.limit();
//! query.finish()?;
//! assert_eq!((customer.as_deref(), limit), (Some("c-17"), 20));
//! # Ok::<(), chassis::problem::Problem>(())
//! ```

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::str::FromStr;

use engine::message::{At, FieldError};
use engine::time::Timestamp;
use http::Uri;
use uuid::Uuid;

use crate::headers::{parse_uuid, percent_decode};
use crate::problem::Problem;

/// Items on a page where `limit` is not given.
pub const LIMIT_DEFAULT: u32 = 50;
/// Most items on a page.
pub const LIMIT_MAX: u32 = 500;
/// Most parameters taken in one request: no route has a quarter as many.
const PARAMETERS_MAX: usize = 64;
/// Longest part of a value or name that is told back.
const CHARS_SHOWN: usize = 64;

/// A query string being read.
#[derive(Debug)]
pub struct Query<'a> {
    parameters: Vec<Parameter<'a>>,
    faults: Vec<FieldError>,
}

#[derive(Debug)]
struct Parameter<'a> {
    name: Cow<'a, str>,
    value: Cow<'a, str>,
    asked_for: bool,
}

impl<'a> Query<'a> {
    /// Reads a query string as it stands behind the `?`. Malformed and repeated parameters become faults.
    pub fn parse(raw: Option<&'a str>) -> Self {
        let mut query = Self { parameters: Vec::new(), faults: Vec::new() };
        let parts = raw.unwrap_or_default().split('&').filter(|part| !part.is_empty());
        for (count, part) in parts.enumerate() {
            if count == PARAMETERS_MAX {
                query.fault("", "too-many", format!("at most {PARAMETERS_MAX} parameters are taken"));
                break;
            }
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            query.take(name, value);
        }
        query
    }

    /// The query string of a request.
    pub fn of(uri: &'a Uri) -> Self {
        Self::parse(uri.query())
    }

    fn take(&mut self, raw_name: &'a str, raw_value: &'a str) {
        let name = match decode(raw_name) {
            Ok(name) => name,
            Err(why) => return self.fault(raw_name, "malformed", why),
        };
        // A parameter at fault still counts as given, lest its absence be told as a second fault.
        let value = match decode(raw_value) {
            Ok(value) => value,
            Err(why) => {
                self.fault(&name, "malformed", why);
                self.parameters.push(Parameter { name, value: Cow::Borrowed(""), asked_for: true });
                return;
            }
        };
        if self.parameters.iter().any(|parameter| parameter.name == name) {
            return self.fault(&name, "repeated", "must be given once");
        }
        self.parameters.push(Parameter { name, value, asked_for: false });
    }

    fn value(&mut self, name: &str) -> Option<String> {
        let parameter = self.parameters.iter_mut().find(|parameter| parameter.name == name)?;
        // Asked for already means malformed or read before; both have been dealt with.
        if std::mem::replace(&mut parameter.asked_for, true) {
            return None;
        }
        Some(parameter.value.clone().into_owned())
    }

    /// A text as it is; its rules are the caller's ([`fault`](Self::fault)). Each parameter is read once.
    pub fn text(&mut self, name: &str) -> Option<String> {
        self.value(name)
    }

    /// A value of a type that parses itself; `what` completes "is not …".
    pub fn parsed<T: FromStr>(&mut self, name: &str, what: &str) -> Option<T> {
        let value = self.value(name)?;
        let parsed = value.parse().ok();
        if parsed.is_none() {
            self.fault(name, "malformed", format!("{:?} is not {what}", shown(&value)));
        }
        parsed
    }

    /// A UUID in its usual form, any case.
    pub fn uuid(&mut self, name: &str) -> Option<Uuid> {
        let value = self.value(name)?;
        let parsed = parse_uuid(value.as_bytes());
        if parsed.is_none() {
            self.fault(name, "malformed", format!("{:?} is not a UUID", shown(&value)));
        }
        parsed
    }

    /// A time in RFC 3339.
    pub fn time(&mut self, name: &str) -> Option<Timestamp> {
        let value = self.value(name)?;
        // An offset's plus sign, not encoded, reads as a space.
        let parsed = value.replace(' ', "+").parse().ok();
        if parsed.is_none() {
            self.fault(name, "malformed", format!("{:?} is not a time such as 2026-11-21T10:00:00Z", shown(&value)));
        }
        parsed
    }

    /// A whole number within `range`, in plain digits.
    pub fn whole(&mut self, name: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let value = self.value(name)?;
        let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
        let (least, most) = (range.start(), range.end());
        if !digits {
            self.fault(name, "malformed", format!("{:?} is not a whole number", shown(&value)));
            return None;
        }
        // Only digits, so what does not parse is too large.
        let number = value.parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            self.fault(name, "out-of-range", format!("must be {least} to {most}; is {}", shown(&value)));
        }
        number
    }

    /// `limit`: 1 to 500, 50 if not given.
    pub fn limit(&mut self) -> u32 {
        let limit = self.whole("limit", 1..=u64::from(LIMIT_MAX));
        limit.and_then(|limit| u32::try_from(limit).ok()).unwrap_or(LIMIT_DEFAULT)
    }

    /// `true` or `false`; `name` alone is true; not given is false.
    pub fn flag(&mut self, name: &str) -> bool {
        match self.value(name).as_deref() {
            None | Some("false") => false,
            Some("true" | "") => true,
            Some(other) => {
                let detail = format!("must be true or false; is {:?}", shown(other));
                self.fault(name, "unknown-value", detail);
                false
            }
        }
    }

    /// One of some words.
    pub fn one_of<T: Clone>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let value = self.value(name)?;
        self.choose(name, &value, choices)
    }

    /// Some of some words, between commas; without repeats, in the order of `choices`.
    pub fn some_of<T: Clone>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<Vec<T>> {
        let value = self.value(name)?;
        let words = value.split(',').collect::<Vec<_>>();
        let unknown = words.iter().find(|word| !choices.iter().any(|(choice, _)| choice == *word));
        if let Some(unknown) = unknown {
            self.choose(name, unknown, choices);
            return None;
        }
        Some(choices.iter().filter(|(choice, _)| words.contains(choice)).map(|(_, value)| value.clone()).collect())
    }

    /// Texts between commas, at most `count_max`; none may be empty.
    pub fn texts(&mut self, name: &str, count_max: usize) -> Option<Vec<String>> {
        let value = self.value(name)?;
        let texts = value.split(',').map(str::to_owned).collect::<Vec<_>>();
        if texts.len() > count_max {
            self.fault(name, "too-many", format!("at most {count_max}, between commas; has {}", texts.len()));
            return None;
        }
        if texts.iter().any(String::is_empty) {
            self.fault(name, "malformed", "a word between commas is empty");
            return None;
        }
        Some(texts)
    }

    fn choose<T: Clone>(&mut self, name: &str, value: &str, choices: &[(&str, T)]) -> Option<T> {
        let chosen = choices.iter().find(|(choice, _)| *choice == value).map(|(_, value)| value.clone());
        if chosen.is_none() {
            let words = choices.iter().map(|(choice, _)| *choice).collect::<Vec<_>>().join(", ");
            self.fault(name, "unknown-value", format!("must be one of {words}; is {:?}", shown(value)));
        }
        chosen
    }

    /// `cursor`, to be opened with [`CursorKey::open`](crate::cursor::CursorKey::open) after [`finish`](Self::finish).
    pub fn cursor(&mut self) -> Option<String> {
        self.value("cursor")
    }

    /// Whether that parameter was given, at fault or not.
    pub fn has(&self, name: &str) -> bool {
        self.parameters.iter().any(|parameter| parameter.name == name)
    }

    /// Adds a fault that only the caller can see.
    pub fn fault(&mut self, name: &str, code: &'static str, detail: impl Into<String>) {
        self.faults.push(FieldError {
            at: At::Parameter(shown(name)),
            code: Cow::Borrowed(code),
            detail: detail.into(),
            more: serde_json::Map::new(),
        });
    }

    /// All faults, those of parameters that nobody asked for included.
    pub fn finish(mut self) -> Result<(), Problem> {
        for parameter in std::mem::take(&mut self.parameters) {
            if !parameter.asked_for {
                self.fault(&parameter.name, "unknown", "this route has no such parameter");
            }
        }
        if self.faults.is_empty() { Ok(()) } else { Err(Problem::invalid_fields(self.faults)) }
    }
}

fn decode(raw: &str) -> Result<Cow<'_, str>, &'static str> {
    let decoded = if raw.contains('+') {
        // Form encoding writes a space so. Replaced before decoding, for an encoded plus stays a plus.
        Cow::Owned(percent_decode(&raw.replace('+', " "))?.into_owned())
    } else {
        percent_decode(raw)?
    };
    if decoded.contains('\0') { Err("NUL is not taken") } else { Ok(decoded) }
}

fn shown(text: &str) -> String {
    text.chars().take(CHARS_SHOWN).collect()
}

#[cfg(test)]
mod tests;
