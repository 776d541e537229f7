//! What the stories share: a shop at a location of its own on a server that all tests use, words for what is done there,
//! and ways to say what came back.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use kit::cluster::Alone;
use kit::{Client, Clock, Docket, Reply};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, OnceCell};
use uuid::Uuid;
use xtask::kafka::Kafka;
use xtask::postgres::Postgres;

/// Longest that anything may take that a test waits for.
const HAPPENS_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks at something that cannot be waited for otherwise.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// What the stories happen on. All of them hold on each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "each of the test binaries that share these files has one")]
pub(crate) enum Ground {
    /// `docket dev`: everything embedded.
    Dev,
    /// `docket serve`: the log on Kafka, rows in PostgreSQL.
    Kafka,
}

/// The database that all servers of this test binary share, each with tables of its own. Whoever started it outlives all
/// tests; that it ends with the process is its own affair.
static POSTGRES: OnceCell<Postgres> = OnceCell::const_new();
/// The brokers, likewise.
static KAFKA: OnceCell<Kafka> = OnceCell::const_new();

/// The server that tests share: it lives as long as any of them holds it.
static SHARED: Mutex<Weak<Server>> = Mutex::const_new(Weak::new());

/// A running product and its directory.
pub(crate) struct Server {
    /// The process.
    pub(crate) docket: Docket,
    /// How it is started again, if it is not `docket dev`.
    alone: Option<Alone>,
    /// Goes after it.
    pub(crate) data: TempDir,
}

/// One test's corner of a server.
pub(crate) struct Shop {
    client: Client,
    /// Where its stock lies; no other test writes there.
    pub(crate) location: String,
    server: Arc<Server>,
}

impl Server {
    /// A server of the test's own.
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        let data = TempDir::with_prefix("docket-it-").expect("a folder for the test's data");
        if crate::GROUND == Ground::Dev {
            let docket = Docket::start(data.path(), arguments).await;
            return Self { docket, alone: None, data };
        }
        assert_eq!(arguments, &[""; 0], "only `docket dev` takes these");
        let log = format!("it-{}", Uuid::now_v7().simple());
        let alone = Alone::new(data.path(), &log, Some(brokers().await), database().await);
        Self { docket: alone.start().await, alone: Some(alone), data }
    }

    /// A server of the test's own that goes by this clock.
    pub(crate) async fn start_by(clock: &Clock) -> Self {
        let data = TempDir::with_prefix("docket-it-").expect("a folder for the test's data");
        let docket = Docket::start_by(clock, data.path(), &[]).await;
        Self { docket, alone: None, data }
    }

    /// Kills it and starts it again on the same directory.
    pub(crate) async fn kill_and_start_again(self) -> Self {
        self.docket.kill9();
        let docket = match &self.alone {
            Some(alone) => alone.start().await,
            None => Docket::start(self.data.path(), &[]).await,
        };
        Self { docket, ..self }
    }
}

/// An empty database.
async fn database() -> String {
    let postgres = POSTGRES.get_or_init(async || blocking(Postgres::start).await).await;
    blocking(|| postgres.new_database()).await
}

/// Where a log may be kept, and in how many copies.
async fn brokers() -> (String, u8) {
    let kafka = KAFKA.get_or_init(async || blocking(|| Kafka::start(1)).await).await;
    (kafka.bootstrap(), kafka.brokers())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("what the tests stand on starts")
}

impl Shop {
    /// A location of its own on the shared server.
    pub(crate) async fn open() -> Self {
        let mut shared = SHARED.lock().await;
        let server = match shared.upgrade() {
            Some(server) => server,
            None => {
                let server = Arc::new(Server::start(&[]).await);
                *shared = Arc::downgrade(&server);
                server
            }
        };
        Self::at(server)
    }

    /// A server of its own, for tests that look at all of it.
    pub(crate) async fn alone() -> Self {
        Self::at(Arc::new(Server::start(&[]).await))
    }

    /// A location on this server.
    pub(crate) fn at(server: Arc<Server>) -> Self {
        let location = format!("shop-{}", Uuid::now_v7().simple());
        Self { client: server.docket.client(), location, server }
    }

    /// `http://host:port`.
    pub(crate) fn address(&self) -> &str {
        self.server.docket.address()
    }

    /// Its client.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The server's data directory.
    pub(crate) fn data(&self) -> PathBuf {
        let data = self.server.data.path();
        if crate::GROUND == Ground::Dev { data.to_owned() } else { data.join("node-1") }
    }

    /// The server again, to be stopped.
    pub(crate) fn server(self) -> Server {
        Arc::into_inner(self.server).expect("the test is alone with its server")
    }

    /// Any request.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Reply {
        let told = format!("{method} {path}");
        self.client.send(method, path, headers, body).await.unwrap_or_else(|| panic!("no answer to {told}"))
    }

    /// GET. Asks again where the answer is that it is not known yet: never stale, but on a busy machine late.
    pub(crate) async fn get(&self, path: &str) -> Reply {
        let began = Instant::now();
        loop {
            let reply = self.send(Method::GET, path, &[], None).await;
            if reply.code() != Some("read-model-behind") || began.elapsed() > HAPPENS_WITHIN {
                return reply;
            }
        }
    }

    /// GET with headers.
    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.send(Method::GET, path, headers, None).await
    }

    /// POST under a fresh key.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.post_as(Uuid::now_v7(), path, body).await
    }

    /// POST under this key.
    pub(crate) async fn post_as(&self, key: Uuid, path: &str, body: Value) -> Reply {
        self.post_with(key, path, &[], body).await
    }

    /// POST under this key with more headers.
    pub(crate) async fn post_with(&self, key: Uuid, path: &str, headers: &[(&str, &str)], body: Value) -> Reply {
        let key = key.to_string();
        let headers = [&[("idempotency-key", key.as_str())], headers].concat();
        self.send(Method::POST, path, &headers, Some(&body)).await
    }

    /// PUT under a fresh key.
    pub(crate) async fn put(&self, path: &str, body: Value) -> Reply {
        self.put_with(Uuid::now_v7(), path, &[], body).await
    }

    /// PUT under this key with more headers.
    pub(crate) async fn put_with(&self, key: Uuid, path: &str, headers: &[(&str, &str)], body: Value) -> Reply {
        let key = key.to_string();
        let headers = [&[("idempotency-key", key.as_str())], headers].concat();
        self.send(Method::PUT, path, &headers, Some(&body)).await
    }

    /// The path of a SKU's stock here.
    pub(crate) fn stock_path(&self, sku: &str) -> String {
        format!("/v1/stock/{}/{sku}", self.location)
    }

    /// The path of reservations here.
    pub(crate) fn reservations_path(&self) -> String {
        format!("/v1/stock/{}/reservations", self.location)
    }

    /// Counts a SKU here.
    pub(crate) async fn count(&self, sku: &str, on_hand: i64) -> Reply {
        self.put(&self.stock_path(sku), json!({"on_hand": on_hand})).await.accepted()
    }

    /// On hand, reserved and available of a SKU here.
    pub(crate) async fn counters(&self, sku: &str) -> (i64, i64, i64) {
        let stock = self.get(&self.stock_path(sku)).await.is(200).body;
        let number = |name: &str| stock[name].as_i64().unwrap_or_else(|| panic!("{name} in {stock}"));
        (number("on_hand"), number("reserved"), number("available"))
    }

    /// The body of an order of one SKU from here.
    pub(crate) fn order_of(&self, sku: &str, quantity: u64, unit_price: i64, token: Option<&str>) -> Value {
        kit::shop::order("c-17", &self.location, vec![kit::shop::line(sku, quantity, unit_price)], token)
    }

    /// Places an order with payment and waits until its saga has settled.
    pub(crate) async fn ordered(&self, sku: &str, quantity: u64, unit_price: i64, token: &str) -> Reply {
        let body = self.order_of(sku, quantity, unit_price, Some(token));
        let reply = self.post_with(Uuid::now_v7(), "/v1/orders", &[("prefer", "wait=30")], body).await.is(201);
        assert_eq!(reply.header("preference-applied"), Some("wait=30"), "{reply:?}");
        reply
    }

    /// Waits until a resource is as wanted, and shows it.
    pub(crate) async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.until_within(HAPPENS_WITHIN, path, wanted).await
    }

    /// Waits so long until a resource is as wanted, and shows it.
    pub(crate) async fn until_within(&self, within: Duration, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let reply = self.get(path).await;
            if reply.status == 200 && wanted(&reply.body) {
                return reply.body;
            }
            assert!(began.elapsed() < within, "{path} stays {} {}", reply.status, reply.body);
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
    }

    /// Waits until a saga stands somewhere, and shows it.
    pub(crate) async fn saga_until(&self, id: &str, state: &str) -> Value {
        self.until(&format!("/v1/sagas/{id}"), |saga| saga["state"] == state).await
    }

    /// The types of a stream's events.
    pub(crate) async fn types(&self, stream: &str) -> Vec<String> {
        let items =
            self.client.list(&format!("/v1/streams/{stream}/events")).await.unwrap_or_else(|why| panic!("{why}"));
        items.iter().map(|event| text(&event["type"])).collect()
    }

    /// The gateway's row about a payment.
    pub(crate) async fn ledger(&self, payment: &str) -> Option<Value> {
        let ledger = self.get("/dev/gateway/ledger").await.is(200).body;
        let rows = ledger["items"].as_array().expect("the ledger is a list");
        rows.iter().find(|row| row["payment_id"] == payment).cloned()
    }

    /// What the gateway promised, cashed, gave up and gave back.
    pub(crate) async fn money(&self, payment: &str) -> [i64; 4] {
        let row = self.ledger(payment).await.unwrap_or_else(|| panic!("the gateway does not know {payment}"));
        ["authorized", "captured", "voided", "refunded"].map(|name| row[name].as_i64().expect(name))
    }

    /// That nothing that must hold is violated.
    pub(crate) async fn is_sound(&self) {
        let report = self.get("/dev/invariants").await.is(200).body;
        assert_eq!(report["violations"], json!([]), "{report}");
        assert!(!report["checked"].as_array().expect("a list").is_empty(), "{report}");
    }
}

/// Saying what an answer is to be.
pub(crate) trait Told {
    /// It has this status.
    fn is(self, status: u16) -> Self;
    /// It is 2xx.
    fn accepted(self) -> Self;
    /// It is a problem of this status and code, of the shape that all problems have.
    fn says(self, status: u16, code: &str) -> Self;
    /// It is a problem of a command that will never take effect.
    fn refuses(self, status: u16, code: &str) -> Self;
    /// Pointer (or parameter, or header) and code of every fault, sorted.
    fn faults(&self) -> Vec<(String, String)>;
    /// A member of the body, as text.
    fn text(&self, name: &str) -> String;
    /// What a repeat has to have in common with the first answer.
    fn essence(&self) -> (u16, Option<String>, Option<String>, Option<String>, Value);
}

impl Told for Reply {
    fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{} {:?}", self.body, self.headers);
        self
    }

    fn accepted(self) -> Self {
        assert!((200..300).contains(&self.status), "{} {}", self.status, self.body);
        self
    }

    fn says(self, status: u16, code: &str) -> Self {
        assert_eq!((self.status, self.code()), (status, Some(code)), "{} {:?}", self.body, self.headers);
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(self.body["type"], format!("https://docket.dev/problems/{code}"));
        assert_eq!(self.body["status"], status);
        assert!(self.body["title"].is_string() && self.body["detail"].is_string(), "{}", self.body);
        assert_eq!(self.body["request_id"].as_str(), self.header("request-id"), "{}", self.body);
        self
    }

    fn refuses(self, status: u16, code: &str) -> Self {
        let reply = self.says(status, code);
        assert_eq!(reply.body["outcome"], "rejected", "{}", reply.body);
        reply
    }

    fn faults(&self) -> Vec<(String, String)> {
        let mut faults: Vec<_> = self.body["errors"]
            .as_array()
            .unwrap_or_else(|| panic!("no errors in {}", self.body))
            .iter()
            .map(|fault| {
                let place = ["pointer", "parameter", "header"].iter().find_map(|kind| fault[kind].as_str());
                (place.unwrap_or_else(|| panic!("a fault without a place: {fault}")).to_owned(), text(&fault["code"]))
            })
            .collect();
        faults.sort();
        faults
    }

    fn text(&self, name: &str) -> String {
        text(&self.body[name])
    }

    fn essence(&self) -> (u16, Option<String>, Option<String>, Option<String>, Value) {
        let header = |name| self.header(name).map(ToOwned::to_owned);
        let mut body = self.body.clone();
        // Whom to ask about this very try; every other word of a problem is the same.
        if let Some(body) = body.as_object_mut() {
            body.remove("request_id");
            body.remove("trace_id");
        }
        (self.status, header("location"), header("etag"), header("docket-position"), body)
    }
}

/// A JSON text.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// A saga's step.
pub(crate) fn step_of<'a>(saga: &'a Value, name: &str) -> &'a Value {
    let mut steps = saga["steps"].as_array().into_iter().flatten();
    steps.find(|step| step["name"] == name).unwrap_or_else(|| panic!("no {name} in {saga}"))
}

/// `at("/lines", "wrong-length")` for comparing with [`Told::faults`].
pub(crate) fn at(place: &str, code: &str) -> (String, String) {
    (place.to_owned(), code.to_owned())
}

/// A fresh id as text.
pub(crate) fn id() -> String {
    Uuid::now_v7().to_string()
}

/// Sends bytes as they are over a connection of their own, and gives all that comes back before the server closes.
pub(crate) async fn raw(address: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address.trim_start_matches("http://")).await.expect("the server listens");
    // Who is refused in the middle of a request reads why, whether or not the server took the rest of it.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let reading = tokio::time::timeout(HAPPENS_WITHIN, stream.read_to_end(&mut answer)).await;
    // A reset after the answer is the server's right; what came before it counts.
    let _ = reading.expect("the server closes the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The repository's root.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a folder of the repository").to_owned()
}
