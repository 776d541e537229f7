//! Content negotiation by `Accept` (RFC 9110 §12.5.1).

use http::HeaderMap;
use http::header::ACCEPT;

use super::{is_token, split_list};
use crate::problem::Problem;

/// The type to answer with, of those `offered` (best first); 406 naming them if none is acceptable.
pub fn accept(headers: &HeaderMap, offered: &[&'static str]) -> Result<&'static str, Problem> {
    negotiate(headers, offered).ok_or_else(|| Problem::not_acceptable(offered))
}

/// The acceptable type of highest quality; among equals the one offered first. Without `Accept`, or with nothing in it
/// that can be understood, everything is acceptable. `offered` are bare types without parameters.
pub fn negotiate(headers: &HeaderMap, offered: &[&'static str]) -> Option<&'static str> {
    let mut values = headers.get_all(ACCEPT).iter().peekable();
    match values.peek() {
        None => return offered.first().copied(),
        // What curl and most clients send.
        Some(only) if *only == "*/*" && headers.get_all(ACCEPT).iter().count() == 1 => return offered.first().copied(),
        Some(_) => {}
    }
    let ranges = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| split_list(text, b','))
        .filter_map(Range::parse)
        .collect::<Vec<_>>();
    if ranges.is_empty() {
        return offered.first().copied();
    }
    let mut best = None;
    for &media in offered {
        let quality = quality(&ranges, media);
        if quality > 0 && best.is_none_or(|(_, before)| quality > before) {
            best = Some((media, quality));
        }
    }
    best.map(|(media, _)| media)
}

/// Quality of `media` in thousandths: that of the most specific range that covers it.
fn quality(ranges: &[Range<'_>], media: &str) -> u16 {
    let (kind, subkind) = media.split_once('/').unwrap_or((media, ""));
    ranges
        .iter()
        .filter_map(|range| {
            let specific = match (range.kind, range.subkind) {
                ("*", _) => 0,
                (own, "*") if own.eq_ignore_ascii_case(kind) => 1,
                (own, sub) if own.eq_ignore_ascii_case(kind) && sub.eq_ignore_ascii_case(subkind) => 2,
                _ => return None,
            };
            Some((specific, range.quality))
        })
        // Of equally specific ones the kindest: the same type may stand there with several parameters.
        .max()
        .map_or(0, |(_, quality)| quality)
}

struct Range<'a> {
    kind: &'a str,
    subkind: &'a str,
    quality: u16,
}

impl<'a> Range<'a> {
    fn parse(element: &'a str) -> Option<Self> {
        let mut parts = split_list(element, b';');
        let (kind, subkind) = parts.next()?.split_once('/')?;
        if !is_token(kind) || !is_token(subkind) || (kind == "*" && subkind != "*") {
            return None;
        }
        let mut quality = 1_000;
        for parameter in parts {
            if let Some((name, value)) = parameter.split_once('=')
                && name.trim().eq_ignore_ascii_case("q")
            {
                quality = thousandths(value.trim())?;
            }
        }
        Some(Self { kind, subkind, quality })
    }
}

/// `0`, `0.7`, `1.000`: at most 1 and at most three decimals.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let decimals = decimals.bytes().chain(std::iter::repeat(b'0')).take(3).fold(0, |n, b| n * 10 + u16::from(b - b'0'));
    match (whole, decimals) {
        ("0", decimals) => Some(decimals),
        ("1", 0) => Some(1_000),
        _ => None,
    }
}
