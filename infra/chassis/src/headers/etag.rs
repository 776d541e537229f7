//! Entity tags (RFC 9110 §8.8.3). Ours are strong and hold a version: `"3"`.

use engine::position::Version;
use http::{HeaderMap, HeaderName};

use crate::problem::Problem;

/// Most tags taken in one request: more would be a list nobody writes by hand.
const TAGS_MAX: usize = 64;

/// What a precondition header holds.
pub(super) enum Tags {
    /// `*`.
    Any,
    /// A list of tags.
    Listed(Vec<Tag>),
}

/// One tag.
pub(super) struct Tag {
    weak: bool,
    version: Option<Version>,
}

impl Tag {
    /// The version it names, whether weak or strong.
    pub(super) fn version(&self) -> Option<Version> {
        self.version
    }

    /// The version it names; none if it is weak, for strong comparison never matches weak tags.
    pub(super) fn strong_version(&self) -> Option<Version> {
        if self.weak { None } else { self.version }
    }
}

/// The tags of that header, over all its lines; `None` if it was not sent.
pub(super) fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Problem> {
    let bad = |detail: &str| Problem::bad_header(name.as_str(), "malformed", detail);
    let form = "must be * or a list of quoted versions such as \"3\"";
    let mut found = None;
    let mut any = false;
    for value in headers.get_all(name) {
        let listed = found.get_or_insert_with(Vec::new);
        let mut rest = trim_start(value.as_bytes());
        if rest == b"*" {
            any = true;
            continue;
        }
        loop {
            // Empty elements are to be taken and skipped (RFC 9110 §5.6.1).
            while let [b',', after @ ..] = rest {
                rest = trim_start(after);
            }
            if rest.is_empty() {
                break;
            }
            let (tag, after) = tag(rest).ok_or_else(|| bad(form))?;
            listed.push(tag);
            if listed.len() > TAGS_MAX {
                return Err(bad("names too many versions"));
            }
            rest = trim_start(after);
            if !matches!(rest, [] | [b',', ..]) {
                return Err(bad(form));
            }
        }
    }
    match (found, any) {
        (None, _) => Ok(None),
        (Some(listed), true) if listed.is_empty() => Ok(Some(Tags::Any)),
        (Some(_), true) => Err(bad("must be either * or a list")),
        (Some(listed), false) if listed.is_empty() => Err(bad(form)),
        (Some(listed), false) => Ok(Some(Tags::Listed(listed))),
    }
}

fn tag(text: &[u8]) -> Option<(Tag, &[u8])> {
    let (weak, text) = match text {
        [b'W', b'/', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let [b'"', inner @ ..] = text else { return None };
    let end = inner.iter().position(|&b| b == b'"')?;
    let (opaque, after) = (&inner[..end], &inner[end + 1..]);
    // Anything visible, and bytes beyond ASCII: a foreign tag is well-formed and merely never ours.
    let well_formed = opaque.iter().all(|&b| b == 0x21 || (0x23..=0x7e).contains(&b) || b >= 0x80);
    well_formed.then(|| (Tag { weak, version: version(opaque) }, after))
}

/// A version as we write it: digits without a leading zero. Tags are compared character by character, so `"03"` is not
/// `"3"`.
fn version(opaque: &[u8]) -> Option<Version> {
    let canonical = matches!(opaque, [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit));
    if !canonical {
        return None;
    }
    std::str::from_utf8(opaque).ok()?.parse().ok().map(Version)
}

fn trim_start(bytes: &[u8]) -> &[u8] {
    bytes.trim_ascii()
}
