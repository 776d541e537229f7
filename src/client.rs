//! The command line's own client of the HTTP contract: commands with a key that are repeated until their outcome is
//! definite, reads, and streams of lines. It knows what accepted, rejected and unknown mean, and nothing of orders.
//!
//! A command is repeated under the same key when the outcome is unknown or the connection drops, a bounded number of
//! times with growing pauses. A server that was never reached is not asked again: nothing can have happened there.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method};
use reqwest::Url;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

mod problem;
mod retry;

pub(crate) use problem::{CommandTrouble, Problem, Trouble};
pub(crate) use retry::Pauses;

/// The server holds a repeat back for at most 30 s while the first still runs; a little longer, and it is not there.
const ANSWER_WITHIN: Duration = Duration::from_secs(35);
/// Judging a whole log takes longer than any other read.
const LONG_READ_WITHIN: Duration = Duration::from_secs(600);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Where a server is: `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server(Url);

impl Server {
    /// `host:port`, to connect to.
    pub(crate) fn authority(&self) -> String {
        let host = self.0.host_str().unwrap_or("127.0.0.1");
        format!("{host}:{}", self.0.port_or_known_default().unwrap_or(80))
    }

    /// The address of a resource: segments are escaped as needed, so a stream's name is one segment whatever is in it.
    pub(crate) fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.0.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear().extend(segments);
        }
        url
    }
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text).map_err(|error| format!("{error}; write it as http://127.0.0.1:8080"))?;
        if url.scheme() != "http" || !url.has_host() {
            return Err("only http://HOST[:PORT] can be reached".to_owned());
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() {
            return Err("give the server only, without a path".to_owned());
        }
        Ok(Self(url))
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

/// A command to send.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    method: Method,
    url: Url,
    key: Uuid,
    body: Value,
    wait_s: Option<u64>,
    must_be_new: bool,
}

impl Command {
    /// A POST under this key.
    pub(crate) fn post(url: Url, key: Uuid, body: Value) -> Self {
        Self { method: Method::POST, url, key, body, wait_s: None, must_be_new: false }
    }

    /// A PUT under this key.
    pub(crate) fn put(url: Url, key: Uuid, body: Value) -> Self {
        Self { method: Method::PUT, ..Self::post(url, key, body) }
    }

    /// Answered when all is settled, or after so many seconds.
    #[must_use]
    pub(crate) fn wait(mut self, seconds: Option<u64>) -> Self {
        self.wait_s = seconds;
        self
    }

    /// Refused with 412 if the resource exists.
    #[must_use]
    pub(crate) fn must_be_new(mut self) -> Self {
        self.must_be_new = true;
        self
    }
}

/// What the server said, with a status of 2xx.
#[derive(Clone, Debug)]
pub(crate) struct Answer<T = Value> {
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its body.
    pub(crate) body: T,
}

/// A connection pool to one server.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    server: Server,
    told_about: HeaderMap,
    tell: bool,
    pauses: Pauses,
}

impl Client {
    /// Talks to `server`; retries are told on stderr.
    pub(crate) fn new(server: Server) -> Self {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_WITHIN)
            .tcp_nodelay(true)
            .no_proxy()
            .user_agent(concat!("docket/", env!("CARGO_PKG_VERSION")))
            .build();
        // Without TLS and without a resolver of its own there is nothing in it that can fail.
        let http = http.expect("a plain HTTP client can always be built");
        Self { http, server, told_about: HeaderMap::new(), tell: true, pauses: Pauses::patient() }
    }

    /// Says who acts, and why, with every command.
    #[must_use]
    pub(crate) fn acting_as(mut self, actor: Option<&str>, because: Option<&str>) -> Self {
        for (name, text) in [("docket-actor", actor), ("docket-reason", because)] {
            if let Some(value) = text.and_then(|text| HeaderValue::from_str(&percent_encoded(text)).ok()) {
                self.told_about.insert(name, value);
            }
        }
        self
    }

    /// Tells nothing on stderr.
    #[must_use]
    pub(crate) fn quiet(mut self) -> Self {
        self.tell = false;
        self
    }

    /// Asks again at once.
    #[cfg(test)]
    pub(crate) fn hasty(mut self) -> Self {
        self.pauses = Pauses::hasty();
        self
    }

    /// Where it talks to.
    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// The address of a resource.
    pub(crate) fn url(&self, segments: &[&str]) -> Url {
        self.server.url(segments)
    }

    /// Sends a command, again under the same key while its outcome is unknown.
    pub(crate) async fn command(&self, command: &Command) -> Result<Answer, CommandTrouble> {
        let mut headers = self.told_about.clone();
        let key = HeaderValue::from_str(&command.key.to_string()).expect("a UUID is a header value");
        headers.insert("idempotency-key", key);
        if let Some(seconds) = command.wait_s {
            headers.insert("prefer", HeaderValue::from_str(&format!("wait={seconds}")).expect("digits"));
        }
        if command.must_be_new {
            headers.insert("if-none-match", HeaderValue::from_static("*"));
        }
        let within = ANSWER_WITHIN + Duration::from_secs(command.wait_s.unwrap_or(0));
        self.until_definite(|| {
            self.http
                .request(command.method.clone(), command.url.clone())
                .headers(headers.clone())
                .timeout(within)
                .json(&command.body)
        })
        .await
        .map_err(|trouble| trouble.of_command(command.key))
    }

    /// Reads a resource.
    pub(crate) async fn read(&self, url: Url) -> Result<Answer, Trouble> {
        self.until_definite(|| self.http.get(url.clone()).timeout(ANSWER_WITHIN)).await
    }

    /// Reads a resource no older than these positions.
    pub(crate) async fn read_fresh<T: DeserializeOwned>(
        &self,
        url: Url,
        positions: &str,
    ) -> Result<Answer<T>, Trouble> {
        self.until_definite(|| {
            let request = self.http.get(url.clone()).timeout(ANSWER_WITHIN).header("prefer", "wait=30");
            if positions.is_empty() { request } else { request.header("docket-min-position", positions) }
        })
        .await
    }

    /// Reads what takes the server long to find out.
    pub(crate) async fn read_long<T: DeserializeOwned>(&self, url: Url) -> Result<Answer<T>, Trouble> {
        self.until_definite(|| self.http.get(url.clone()).timeout(LONG_READ_WITHIN)).await
    }

    /// Opens a stream of JSON lines. It has no time limit; dropping it ends it.
    pub(crate) async fn lines(&self, url: Url) -> Result<reqwest::Response, Trouble> {
        let request = self.http.get(url).header("accept", "application/x-ndjson");
        let response = request.send().await.map_err(|error| Trouble::transport(&self.server, &error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let body = response.bytes().await.map_err(|error| Trouble::transport(&self.server, &error))?;
        Err(Trouble::Refused(Problem::read(status, &body)))
    }

    async fn until_definite<T: DeserializeOwned>(
        &self,
        request: impl Fn() -> reqwest::RequestBuilder,
    ) -> Result<Answer<T>, Trouble> {
        let mut pauses = self.pauses.clone();
        let mut reached = false;
        loop {
            let (trouble, retry_after) = match self.once(request()).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let again = match &trouble {
                Trouble::Refused(_) => false,
                Trouble::Unknown(_) | Trouble::Dropped { .. } => true,
                Trouble::Unreachable { .. } => reached,
            };
            reached |= again;
            let Some(pause) = pauses.next(retry_after).filter(|_| again) else { return Err(trouble) };
            if self.tell {
                eprintln!("{trouble}; again in {} ms", pause.as_millis());
            } else {
                tracing::debug!(why = %trouble, "asking again");
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn once<T: DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<Answer<T>, (Trouble, Option<Duration>)> {
        let lost = |error: reqwest::Error| (Trouble::transport(&self.server, &error), None);
        let response = request.send().await.map_err(lost)?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = response.bytes().await.map_err(lost)?;
        if (200..300).contains(&status) {
            return match serde_json::from_slice(if body.is_empty() { b"null" } else { &body }) {
                Ok(body) => Ok(Answer { headers, body }),
                Err(_) => Err((Trouble::Refused(Problem::not_ours(status)), None)),
            };
        }
        let problem = Problem::read(status, &body);
        let retry_after = headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let trouble = if problem.is_definite() { Trouble::Refused(problem) } else { Trouble::Unknown(problem) };
        Err((trouble, retry_after.map(Duration::from_secs)))
    }
}

/// UTF-8 percent-encoded beyond visible ASCII, as `Docket-Actor` and `Docket-Reason` have it.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
