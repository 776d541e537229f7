//! The request headers of commands and reads, each as a pure function over the header map. What cannot be understood and
//! must not be ignored (a key, a precondition, a position, who and why) is a [`Problem`]; what only helps (`Prefer`,
//! `traceparent`) is ignored when malformed, as their specifications ask.

use std::sync::Arc;
use std::time::Duration;

use engine::message::{CommandId, FieldError, Precondition};
use engine::position::{Positions, Version};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

use crate::problem::Problem;

mod accept;
mod etag;
mod trace;

pub use accept::{accept, negotiate};
pub use trace::{TraceId, TraceParent, traceparent};

/// `Idempotency-Key`: the command's id.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// `Idempotency-Replayed: true`: this was answered before.
pub const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// `Docket-Position`: what an answer wrote or reflects.
pub const DOCKET_POSITION: HeaderName = HeaderName::from_static("docket-position");
/// `Docket-Dropped`: the version from which on events are missing in what is shown. An operator gave up what could not be
/// folded.
pub const DOCKET_DROPPED: HeaderName = HeaderName::from_static("docket-dropped");
/// `Docket-Min-Position`: what an answer must reflect at least.
pub const DOCKET_MIN_POSITION: HeaderName = HeaderName::from_static("docket-min-position");
/// `Docket-Actor`: who asks.
pub const DOCKET_ACTOR: HeaderName = HeaderName::from_static("docket-actor");
/// `Docket-Reason`: why.
pub const DOCKET_REASON: HeaderName = HeaderName::from_static("docket-reason");
/// `Prefer`, RFC 7240.
pub const PREFER: HeaderName = HeaderName::from_static("prefer");
/// `Preference-Applied`, RFC 7240.
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// `Request-Id`: ours.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
/// `Server-Timing`.
pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// `traceparent`, W3C.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Longest wait that `Prefer` can ask for, in seconds; more is cut to this.
pub const WAIT_S_MAX: u64 = 30;
/// Longest `Docket-Actor`, in characters.
pub const ACTOR_CHARS_MAX: usize = 200;
/// Longest `Docket-Reason`, in characters.
pub const REASON_CHARS_MAX: usize = 500;

/// The only value of a header that may be sent once. Sent twice: 400 `bad-header`, for nobody can tell which was meant.
pub fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Problem> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Problem::bad_header(name.as_str(), "repeated", "must be sent once"));
    }
    Ok(first)
}

/// The command's id: a UUID, bare or as a quoted structured-field string, in any case. Missing, or anything else
/// (sent twice too): 400.
pub fn idempotency_key(headers: &HeaderMap) -> Result<CommandId, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let value = values.next().ok_or_else(Problem::idempotency_key_missing)?;
    if values.next().is_some() {
        return Err(Problem::idempotency_key_malformed());
    }
    let text = trim(value.as_bytes());
    if text.is_empty() {
        return Err(Problem::idempotency_key_missing());
    }
    let text = match text {
        [b'"', inner @ .., b'"'] => inner,
        bare => bare,
    };
    parse_uuid(text).map(CommandId).ok_or_else(Problem::idempotency_key_malformed)
}

/// A UUID in its hyphenated form of 36 characters, in any case, and no other.
pub fn parse_uuid(text: &[u8]) -> Option<Uuid> {
    // The parser also takes forms without hyphens, in braces and as URN: these would be other names for one key.
    if text.len() == 36 { Uuid::try_parse_ascii(text).ok() } else { None }
}

/// What a command demands of its resource's version, from `If-Match` and `If-None-Match`. Weak tags and tags that are no
/// version never match. A tag list in `If-None-Match` has no meaning for a command and is refused rather than ignored.
pub fn precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    let absent = match etag::tags(headers, &IF_NONE_MATCH)? {
        None => false,
        Some(etag::Tags::Any) => true,
        Some(etag::Tags::Listed(_)) => {
            return Err(Problem::bad_header(IF_NONE_MATCH.as_str(), "unsupported", "only * is taken on a command"));
        }
    };
    let matching = match etag::tags(headers, &IF_MATCH)? {
        None => None,
        Some(etag::Tags::Any) => Some(Precondition::Exists),
        Some(etag::Tags::Listed(tags)) => {
            Some(Precondition::AnyOf(tags.iter().filter_map(|tag| tag.strong_version()).collect()))
        }
    };
    Ok(match (matching, absent) {
        (None, false) => Precondition::None,
        (None, true) => Precondition::Absent,
        (Some(matching), false) => matching,
        // Must exist and must not: both are to hold, so nothing can.
        (Some(_), true) => Precondition::AnyOf(Vec::new()),
    })
}

/// Whether a conditional GET of a resource at `version` is to be answered 304: its `If-None-Match` names that version
/// (weak comparison, RFC 9110) or `*`. A malformed one is ignored: then the answer is given in full.
pub fn not_modified(headers: &HeaderMap, version: Version) -> bool {
    match etag::tags(headers, &IF_NONE_MATCH) {
        Ok(Some(etag::Tags::Any)) => true,
        Ok(Some(etag::Tags::Listed(tags))) => tags.iter().any(|tag| tag.version() == Some(version)),
        Ok(None) | Err(_) => false,
    }
}

/// How long the sender prefers to wait: `Prefer: wait=<seconds>`, at most 30 s. The first well-formed one counts.
pub fn prefer_wait(headers: &HeaderMap) -> Option<Duration> {
    headers.get_all(PREFER).iter().find_map(|value| {
        let text = value.to_str().ok()?;
        split_list(text, b',').find_map(|preference| {
            let preference = split_list(preference, b';').next()?;
            let (name, value) = preference.split_once('=')?;
            if !name.trim().eq_ignore_ascii_case("wait") {
                return None;
            }
            let value = value.trim();
            let digits = value.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(value);
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            // All digits, so what does not fit is only too long.
            Some(Duration::from_secs(digits.parse::<u64>().map_or(WAIT_S_MAX, |seconds| seconds.min(WAIT_S_MAX))))
        })
    })
}

/// What an answer must reflect at least: `Docket-Min-Position: 3:1042, 5:77`, over several lines too. Malformed: 400.
pub fn min_position(headers: &HeaderMap) -> Result<Option<Positions>, Problem> {
    let mut asked = None;
    for value in headers.get_all(DOCKET_MIN_POSITION) {
        let text = value.to_str().map_err(|_| Problem::bad_position())?;
        let positions: Positions = text.parse().map_err(|_| Problem::bad_position())?;
        asked.get_or_insert_with(Positions::default).reach_all(&positions);
    }
    Ok(asked)
}

/// Who asks: `Docket-Actor`, decoded, at most 200 characters. Empty is none.
pub fn actor(headers: &HeaderMap) -> Result<Option<Arc<str>>, Problem> {
    decoded(headers, &DOCKET_ACTOR, ACTOR_CHARS_MAX)
}

/// Why: `Docket-Reason`, decoded, at most 500 characters. Empty is none.
pub fn reason(headers: &HeaderMap) -> Result<Option<Arc<str>>, Problem> {
    decoded(headers, &DOCKET_REASON, REASON_CHARS_MAX)
}

/// A text that is UTF-8, percent-encoded beyond ASCII.
fn decoded(headers: &HeaderMap, name: &HeaderName, chars_max: usize) -> Result<Option<Arc<str>>, Problem> {
    let Some(value) = single(headers, name)? else { return Ok(None) };
    let bad = |code, detail: String| Problem::bad_header(name.as_str(), code, detail);
    let raw = value.to_str().map_err(|_| {
        bad("not-ascii", "bytes beyond ASCII must be percent-encoded, and control characters are not taken".to_owned())
    })?;
    let text = percent_decode(raw.trim()).map_err(|why| bad("malformed", why.to_owned()))?;
    if text.chars().any(char::is_control) {
        return Err(bad("control-character", "control characters are not taken".to_owned()));
    }
    let chars = text.chars().count();
    if chars > chars_max {
        return Err(bad("too-long", format!("at most {chars_max} characters; has {chars}")));
    }
    Ok(if text.is_empty() { None } else { Some(Arc::from(text.as_ref())) })
}

/// Decodes percent escapes, strictly: a `%` without two hexadecimal digits and what is not UTF-8 are errors.
pub(crate) fn percent_decode(text: &str) -> Result<std::borrow::Cow<'_, str>, &'static str> {
    let bytes = text.as_bytes();
    let broken = |(at, &byte): (usize, &u8)| {
        byte == b'%' && !bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
    };
    if bytes.iter().enumerate().any(broken) {
        return Err("a % must be followed by two hexadecimal digits");
    }
    percent_encoding::percent_decode(bytes).decode_utf8().map_err(|_| "what it decodes to is not UTF-8")
}

/// That a command's body may be read as JSON: `Content-Type: application/json` or `application/*+json`, of charset UTF-8
/// if it names one, and no `Content-Encoding`. Only an empty body needs no type. Else 415.
pub fn json_body(headers: &HeaderMap, body_is_empty: bool) -> Result<(), Problem> {
    if headers.contains_key(CONTENT_ENCODING) {
        return Err(Problem::unsupported_media_type("a command's body is taken as it is, without Content-Encoding"));
    }
    let Some(value) = single(headers, &CONTENT_TYPE)? else {
        return if body_is_empty {
            Ok(())
        } else {
            Err(Problem::unsupported_media_type("the Content-Type is missing; send application/json"))
        };
    };
    // What nearly every client sends, without looking closer.
    if value == "application/json" || value.to_str().is_ok_and(is_json) {
        return Ok(());
    }
    Err(Problem::unsupported_media_type("send application/json in UTF-8"))
}

fn is_json(content_type: &str) -> bool {
    let mut parts = split_list(content_type, b';');
    let media = parts.next().unwrap_or_default().to_ascii_lowercase();
    let is_json = media == "application/json"
        || media.strip_prefix("application/").and_then(|rest| rest.strip_suffix("+json")).is_some_and(is_token);
    is_json
        && parts.all(|parameter| match parameter.split_once('=') {
            Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
                let value = value.trim().trim_matches('"');
                value.eq_ignore_ascii_case("utf-8") || value.eq_ignore_ascii_case("utf8")
            }
            Some((name, _)) => is_token(name.trim()),
            None => parameter.is_empty(),
        })
}

/// RFC 9110's token: one or more visible characters without delimiters.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// The elements of a list between `separator`s that are not in quotes, trimmed.
pub(crate) fn split_list(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let current = rest?;
        let (mut quoted, mut escaped) = (false, false);
        let end = current.bytes().position(|b| {
            match b {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                _ => {}
            }
            b == separator && !quoted
        });
        let element = match end {
            Some(end) => {
                rest = Some(&current[end + 1..]);
                &current[..end]
            }
            None => {
                rest = None;
                current
            }
        };
        Some(element.trim_matches([' ', '\t']))
    })
}

fn trim(bytes: &[u8]) -> &[u8] {
    bytes.trim_ascii()
}

/// Takes the faults of `problem` if it is a `bad-header`, so that several can be told at once.
pub(crate) fn collect<T>(result: Result<T, Problem>, faults: &mut Vec<FieldError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(problem) => {
            faults.extend_from_slice(problem.field_errors());
            None
        }
    }
}

#[cfg(test)]
mod tests;
