//! The pages of all codes: the generic ones and those the business brings. Served at `/problems/{code}` and printed by
//! the command line's `explain`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};

use super::{Code, Problem, codes};
use crate::headers;

const MARKDOWN: &str = "text/markdown";
const HTML: &str = "text/html";

/// Every code there is, by name. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pages(Arc<BTreeMap<&'static str, Code>>);

impl Pages {
    /// The generic codes and `more`.
    ///
    /// # Panics
    /// If two codes bear one name: a code means one thing.
    pub fn with(more: impl IntoIterator<Item = Code>) -> Self {
        let mut pages = BTreeMap::new();
        for code in codes::ALL.iter().copied().chain(more) {
            let before = pages.insert(code.name, code);
            assert!(before.is_none_or(|before| before == code), "two problems are named {}", code.name);
        }
        Self(Arc::new(pages))
    }

    /// The code of that name.
    pub fn find(&self, name: &str) -> Option<Code> {
        self.0.get(name).copied()
    }

    /// All codes, by name.
    pub fn iter(&self) -> impl Iterator<Item = Code> + '_ {
        self.0.values().copied()
    }

    /// The route `/problems/{code}`.
    pub fn routes(&self) -> Router {
        let pages = self.clone();
        Router::new().route(
            "/problems/{code}",
            get(move |Path(name): Path<String>, request_headers: HeaderMap| {
                let answer = pages.answer(&name, &request_headers);
                async move { answer }
            }),
        )
    }

    fn answer(&self, name: &str, request_headers: &HeaderMap) -> Response {
        let Some(code) = self.find(name) else {
            return Problem::no_such_route().into_response();
        };
        let offered = [MARKDOWN, HTML, "text/plain"];
        let (body, media) = match headers::negotiate(request_headers, &offered) {
            Some(HTML) => (Body::from(html(&code)), "text/html; charset=utf-8"),
            Some("text/plain") => (Body::from(code.page), "text/plain; charset=utf-8"),
            Some(_) => (Body::from(code.page), "text/markdown; charset=utf-8"),
            None => return Problem::not_acceptable(&offered).into_response(),
        };
        let mut response = Response::new(body);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
        response
    }
}

/// The page for a browser. The Markdown is kept readable as it is, so its text is shown rather than translated.
fn html(code: &Code) -> String {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{}</title>\
         <body style=\"max-width:44em;margin:2em auto;padding:0 1em;font-family:system-ui\">\
         <pre style=\"white-space:pre-wrap;font:inherit\">{}</pre></body></html>",
        escape(code.title),
        escape(code.page)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_page_that_names_it_and_says_what_to_do() {
        for code in Pages::with([]).iter() {
            let mut lines = code.page.lines();
            assert_eq!(lines.next(), Some(format!("# {}", code.title).as_str()));
            let told = lines.nth(1).unwrap_or_default();
            // Some are only ever read in the log: no client is told them by that name.
            let answered = told == format!("`{}` · HTTP {}", code.name, code.status);
            let logged = code.status == 500 && told == format!("`{}` · in the log, as `fault.code`", code.name);
            assert!(answered || logged, "{told}");
            assert!(code.page.contains("## What it means\n"), "{}", code.name);
            assert!(code.page.contains("## What to do\n"), "{}", code.name);
            assert!(code.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{}", code.name);
        }
    }

    #[test]
    fn every_page_belongs_to_a_code() {
        let pages = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/pages")).unwrap();
        let names = pages.map(|page| page.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned());
        let mut names = names.collect::<Vec<_>>();
        names.sort();
        let known = Pages::with([]).iter().map(|code| code.name).collect::<Vec<_>>();
        assert_eq!(names, known);
    }

    #[test]
    fn the_business_adds_its_own() {
        const OWN: Code = Code::new("tea-cold", 409, "The tea is cold", "# The tea is cold\n");
        let pages = Pages::with([OWN]);
        assert_eq!(pages.find("tea-cold"), Some(OWN));
        assert!(pages.find("bad-cursor").is_some());
        assert!(pages.find("unheard-of").is_none());
    }

    #[test]
    #[should_panic(expected = "two problems are named internal")]
    fn a_name_means_one_thing() {
        let _ = Pages::with([Code::new("internal", 500, "Another", "# Another\n")]);
    }
}
