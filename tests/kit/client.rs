//! A small HTTP client that tells "no answer" from every answer: nothing here retries, redirects or turns a status into an
//! error, because what exactly came back is what tests are about.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use uuid::Uuid;

/// How long any answer may take. Longer than the longest wait a request may ask for (30 s).
const ANSWER_WITHIN: Duration = Duration::from_secs(45);
/// Most pages of one list: far more than a test writes; a cursor that goes round in circles is found.
const PAGES_MAX: usize = 10_000;

/// A client of one server, or of several that are the same to it. Clones share connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    servers: Arc<[Server]>,
    /// Counts requests: each goes to the next server.
    requests: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Server {
    address: String,
    left_out: AtomicBool,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// All headers, names in lower case, in the order in which they came.
    pub headers: Vec<(String, String)>,
    /// The body; null when there is none or it is no JSON.
    pub body: Value,
    /// The body as it came.
    pub text: String,
}

impl Reply {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The positions in `Docket-Position`: partition and offset.
    pub fn positions(&self) -> Vec<(u64, u64)> {
        let parse = |one: &str| {
            let (partition, offset) = one.trim().split_once(':')?;
            Some((partition.parse().ok()?, offset.parse().ok()?))
        };
        self.header("docket-position").map(|all| all.split(',').filter_map(parse).collect()).unwrap_or_default()
    }

    /// Whether this is a repeat of an earlier answer.
    pub fn is_replayed(&self) -> bool {
        self.header("idempotency-replayed") == Some("true")
    }

    /// The problem's code, if it is one.
    pub fn code(&self) -> Option<&str> {
        self.body["code"].as_str()
    }
}

impl Client {
    /// A client of `server`, for example `http://127.0.0.1:8080`.
    pub fn new(server: &str) -> Self {
        Self::of_all([server])
    }

    /// A client that asks these in turn, as a load balancer would.
    pub fn of_all<'a>(servers: impl IntoIterator<Item = &'a str>) -> Self {
        let http = reqwest::Client::builder()
            .timeout(ANSWER_WITHIN)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("a client without TLS has nothing that could fail");
        let servers =
            servers.into_iter().map(|address| Server { address: address.to_owned(), left_out: AtomicBool::new(false) });
        Self { http, servers: servers.collect(), requests: Arc::default() }
    }

    /// Asks a server no more, or does again, as a load balancer would that hears it will stop. `place` counts from 0. If all
    /// are left out, all are asked.
    pub fn leave_out(&self, place: usize, left_out: bool) {
        self.servers[place].left_out.store(left_out, Ordering::SeqCst);
    }

    /// Whom the next request goes to.
    fn server(&self) -> &str {
        let turn = self.requests.fetch_add(1, Ordering::Relaxed);
        let all = self.servers.iter().cycle().skip(turn % self.servers.len()).take(self.servers.len());
        let asked = all.clone().find(|server| !server.left_out.load(Ordering::SeqCst));
        &asked.or_else(|| all.clone().next()).expect("a client has a server").address
    }

    /// GET; `None` if no whole answer came.
    pub async fn get(&self, path: &str) -> Option<Reply> {
        self.send(Method::GET, path, &[], None).await
    }

    /// GET with headers.
    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Option<Reply> {
        self.send(Method::GET, path, headers, None).await
    }

    /// POST under this key.
    pub async fn post(&self, path: &str, key: Uuid, body: &Value) -> Option<Reply> {
        self.send(Method::POST, path, &[("idempotency-key", &key.to_string())], Some(body)).await
    }

    /// PUT under this key.
    pub async fn put(&self, path: &str, key: Uuid, body: &Value) -> Option<Reply> {
        self.send(Method::PUT, path, &[("idempotency-key", &key.to_string())], Some(body)).await
    }

    /// Any request; `None` if no whole answer came: then it may have been carried out, or not.
    ///
    /// # Panics
    /// On a header that is none.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Option<Reply> {
        let mut request = self.http.request(method, format!("{}{path}", self.server()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        Self::answer(request).await
    }

    /// Any request with a body of any bytes; `None` if no whole answer came.
    ///
    /// # Panics
    /// On a header that is none.
    pub async fn send_bytes(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Option<Reply> {
        let mut request = self.http.request(method, format!("{}{path}", self.server())).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Self::answer(request).await
    }

    async fn answer(request: reqwest::RequestBuilder) -> Option<Reply> {
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let bytes = response.bytes().await.ok()?;
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Some(Reply { status, headers, body, text: String::from_utf8_lossy(&bytes).into_owned() })
    }

    /// All items of a list, page after page. `path` may have a query.
    ///
    /// # Errors
    /// The first answer that is not 200, or what else is wrong.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>, String> {
        let joint = if path.contains('?') { '&' } else { '?' };
        let (mut items, mut cursor) = (Vec::new(), None::<String>);
        for _ in 0..PAGES_MAX {
            let from = cursor.as_ref().map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            let page = format!("{path}{joint}limit=500{from}");
            let reply = self.get(&page).await.ok_or_else(|| format!("no answer to {page}"))?;
            match reply.body["items"].as_array() {
                Some(page) if reply.status == 200 => items.extend(page.iter().cloned()),
                _ => return Err(format!("{page} answers {} {}", reply.status, reply.body)),
            }
            match reply.body["next_cursor"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => return Ok(items),
            }
        }
        Err(format!("{path} has no end"))
    }

    /// A whole stream of NDJSON, for example all events there are: `/v1/events`.
    ///
    /// # Errors
    /// When it does not answer 200, breaks off, or has a line that is no JSON.
    pub async fn ndjson(&self, path: &str) -> Result<Vec<Value>, String> {
        let request = self.http.get(format!("{}{path}", self.server())).header("accept", "application/x-ndjson");
        // Its length has no bound, so neither has its time; a connection that breaks ends it.
        let response =
            request.timeout(Duration::from_secs(600)).send().await.map_err(|error| format!("{path}: {error}"))?;
        if response.status() != 200 {
            return Err(format!("{path} answers {}", response.status()));
        }
        let text = response.text().await.map_err(|error| format!("{path} breaks off: {error}"))?;
        let lines = text.lines().filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_str(line).map_err(|error| format!("{path}: {error} in {line}"))).collect()
    }
}
