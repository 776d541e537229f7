//! One key of a configuration: what it is for, what it may be, how it is read from a text, and what of it may be shown.

use std::net::SocketAddr;

use figment::value::{Num, Value};

use super::ConfigFault;

/// Longest text that a key takes, in bytes.
const TEXT_BYTES_MAX: usize = 4_096;

/// A key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name, with dots between tables.
    pub path: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// What it is for, in a sentence or two.
    pub doc: &'static str,
}

/// What a key may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text that is not empty.
    Text,
    /// A text that nobody is shown.
    Secret,
    /// A URL; its password is nobody shown.
    Url,
    /// An address to listen on: `127.0.0.1:8080`.
    Address,
    /// A whole number within these bounds, both included.
    Whole(u64, u64),
    /// Yes or no.
    Flag,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// One or more of these words; commas between them where it is a text.
    ManyOf(&'static [&'static str]),
}

impl Kind {
    /// In words, for people.
    pub fn told(&self) -> String {
        match self {
            Self::Text => "a text".to_owned(),
            Self::Secret => "a secret".to_owned(),
            Self::Url => "a URL".to_owned(),
            Self::Address => "an address such as 127.0.0.1:8080".to_owned(),
            Self::Whole(least, most) => format!("a whole number from {least} to {most}"),
            Self::Flag => "true or false".to_owned(),
            Self::OneOf(words) => format!("one of {}", words.join(", ")),
            Self::ManyOf(words) => format!("a list of {}", words.join(", ")),
        }
    }
}

impl Key {
    /// A text as a value of this key. What does not fit stays a text, to be refused as such.
    pub(super) fn read(&self, text: &str) -> Value {
        match self.kind {
            Kind::Whole(..) => text.replace('_', "").parse::<u64>().map_or_else(|_| Value::from(text), Value::from),
            Kind::Flag => text.parse::<bool>().map_or_else(|_| Value::from(text), Value::from),
            Kind::ManyOf(_) => {
                let words = text.trim_matches(['[', ']']).split(',').map(|word| word.trim().trim_matches('"'));
                Value::from(words.filter(|word| !word.is_empty()).collect::<Vec<_>>())
            }
            _ => Value::from(text),
        }
    }

    /// Why this value is none for this key.
    pub(super) fn refuse(&self, value: &Value, place: String) -> Option<ConfigFault> {
        let fits = match (self.kind, value) {
            (Kind::Text | Kind::Secret, Value::String(_, text)) => !text.is_empty() && text.len() <= TEXT_BYTES_MAX,
            (Kind::Url, Value::String(_, text)) => text.contains(':') && text.len() <= TEXT_BYTES_MAX,
            (Kind::Address, Value::String(_, text)) => text.parse::<SocketAddr>().is_ok(),
            (Kind::Whole(least, most), Value::Num(_, number)) => {
                whole(*number).is_some_and(|number| (least..=most).contains(&number))
            }
            (Kind::Flag, Value::Bool(..)) => true,
            (Kind::OneOf(words), Value::String(_, text)) => words.contains(&text.as_str()),
            (Kind::ManyOf(words), Value::Array(_, values)) => {
                let known = |value: &Value| value.as_str().is_some_and(|word| words.contains(&word));
                !values.is_empty() && values.iter().all(known)
            }
            _ => false,
        };
        (!fits).then(|| {
            let is = match self.kind {
                // Even what does not fit may be a password in the wrong place.
                Kind::Secret | Kind::Url => String::new(),
                _ => format!(", not {}", json(value)),
            };
            ConfigFault {
                key: Some(self.path.to_owned()),
                what: format!("must be {}{is}", self.kind.told()),
                place: Some(place),
            }
        })
    }

    /// What may be shown of a value of this key.
    pub(super) fn shown(&self, value: &Value) -> serde_json::Value {
        match (self.kind, value) {
            (Kind::Secret, _) => HIDDEN.into(),
            (Kind::Url, Value::String(_, url)) => without_password(url).into(),
            _ => json(value),
        }
    }
}

/// What is shown in place of a secret.
const HIDDEN: &str = "***";

/// A URL without what only its server should know.
pub(super) fn without_password(url: &str) -> String {
    let (before, query) = url.split_once('?').map_or((url, None), |(before, query)| (before, Some(query)));
    let mut shown = before.to_owned();
    if let Some(start) = before.find("://").map(|at| at + 3) {
        let end = before[start..].find('/').map_or(before.len(), |at| start + at);
        // The last @: a password that was not escaped may hold one.
        if let Some(at) = before[start..end].rfind('@')
            && let Some(colon) = before[start..start + at].find(':')
        {
            shown.replace_range(start + colon + 1..start + at, HIDDEN);
        }
    }
    if let Some(query) = query {
        let hidden = query.split('&').map(|pair| match pair.split_once('=') {
            Some((name, _)) if name.contains("password") || name.contains("secret") => format!("{name}={HIDDEN}"),
            _ => pair.to_owned(),
        });
        shown = format!("{shown}?{}", hidden.collect::<Vec<_>>().join("&"));
    }
    shown
}

fn whole(number: Num) -> Option<u64> {
    number.to_u128().or_else(|| number.to_i128().and_then(|number| u128::try_from(number).ok()))?.try_into().ok()
}

fn json(value: &Value) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}
