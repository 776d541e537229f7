//! Health as orchestrators ask for it: `/livez` says that this process answers at all and looks at nothing else;
//! `/readyz` says whether commands and reads are served, from named checks. While draining a process lives but is not
//! ready.

use std::fmt::Write;
use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, StatusCode, Uri};
use tokio_util::sync::CancellationToken;

use crate::query::Query;

/// What a check says: fine, or in a few words why not. Checks are called on every probe and must not wait.
pub type CheckResult = Result<(), String>;

/// The named checks of a process. Cheap to clone once built.
#[derive(Clone)]
pub struct Health {
    checks: Arc<Vec<Check>>,
    draining: CancellationToken,
}

struct Check {
    name: &'static str,
    ask: Box<dyn Fn() -> CheckResult + Send + Sync>,
}

/// A [`Health`] in the making.
#[must_use]
pub struct HealthBuilder {
    checks: Vec<Check>,
    draining: CancellationToken,
}

impl HealthBuilder {
    /// With one more check. Their order is the order in which they are told.
    pub fn check(mut self, name: &'static str, ask: impl Fn() -> CheckResult + Send + Sync + 'static) -> Self {
        self.checks.push(Check { name, ask: Box::new(ask) });
        self
    }

    /// Done.
    pub fn build(self) -> Health {
        Health { checks: Arc::new(self.checks), draining: self.draining }
    }
}

impl Health {
    /// Health without checks so far; not ready any more once `draining` is cancelled.
    pub fn builder(draining: CancellationToken) -> HealthBuilder {
        HealthBuilder { checks: Vec::new(), draining }
    }

    /// Whether everything is served, and what is not.
    pub fn readiness(&self) -> Readiness {
        let mut checks =
            vec![("draining", if self.draining.is_cancelled() { Err("shutting down".to_owned()) } else { Ok(()) })];
        checks.extend(self.checks.iter().map(|check| (check.name, (check.ask)())));
        Readiness { checks }
    }

    /// The routes `/livez` and `/readyz[?verbose]`.
    pub fn routes(&self) -> Router {
        let health = self.clone();
        let readyz = move |uri: Uri| {
            let answer = health.answer(&uri);
            async move { answer }
        };
        Router::new()
            .route("/livez", get(async || plain(StatusCode::OK, "ok\n".to_owned())))
            .route("/readyz", get(readyz))
    }

    fn answer(&self, uri: &Uri) -> Response {
        let mut query = Query::of(uri);
        let verbose = query.flag("verbose");
        if let Err(problem) = query.finish() {
            return problem.into_response();
        }
        let readiness = self.readiness();
        let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        plain(status, readiness.text(verbose))
    }
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.checks.iter().map(|check| check.name)).finish()
    }
}

/// What the checks said.
#[derive(Clone, Debug)]
pub struct Readiness {
    /// Each check by name.
    pub checks: Vec<(&'static str, CheckResult)>,
}

impl Readiness {
    /// Whether no check complains.
    pub fn is_ready(&self) -> bool {
        self.checks.iter().all(|(_, result)| result.is_ok())
    }

    /// A line per check (those that complain always, the others if `verbose`) and the verdict.
    pub fn text(&self, verbose: bool) -> String {
        let mut text = String::new();
        for (name, result) in &self.checks {
            // Writing to a string cannot fail.
            let _ = match result {
                Ok(()) if verbose => writeln!(text, "[+] {name} ok"),
                Ok(()) => Ok(()),
                Err(why) => writeln!(text, "[-] {name}: {why}"),
            };
        }
        text.push_str(if self.is_ready() { "ready\n" } else { "not ready\n" });
        text
    }
}

fn plain(status: StatusCode, text: String) -> Response {
    let mut response = (status, text).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn one_check_that_complains_is_enough() {
        let owned = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&owned);
        let health = Health::builder(CancellationToken::new())
            .check("log", || Ok(()))
            .check("partitions", move || {
                if seen.load(Ordering::Relaxed) { Ok(()) } else { Err("3 of 12 not owned yet".to_owned()) }
            })
            .build();
        assert_eq!(health.readiness().text(false), "[-] partitions: 3 of 12 not owned yet\nnot ready\n");
        owned.store(true, Ordering::Relaxed);
        assert_eq!(health.readiness().text(false), "ready\n");
        assert_eq!(health.readiness().text(true), "[+] draining ok\n[+] log ok\n[+] partitions ok\nready\n");
    }

    #[test]
    fn who_drains_is_not_ready() {
        let draining = CancellationToken::new();
        let health = Health::builder(draining.clone()).build();
        assert!(health.readiness().is_ready());
        draining.cancel();
        assert!(!health.readiness().is_ready());
    }
}
