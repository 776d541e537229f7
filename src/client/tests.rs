//! The client against servers that misbehave on purpose.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::json;
use tokio::net::TcpListener;

use super::*;
use crate::failure::{Exit, Failure};

/// Answers in turn with each of these, and keeps the keys it was asked under.
#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<Vec<(u16, Value)>>>,
    keys: Arc<Mutex<Vec<String>>>,
}

impl Script {
    async fn serve(answers: impl IntoIterator<Item = (u16, Value)>) -> (Self, Client) {
        let script = Self::default();
        script.answers.lock().unwrap().extend(answers);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().fallback(answer).with_state(script.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (script, client_of(address))
    }

    fn keys(&self) -> Vec<String> {
        self.keys.lock().unwrap().clone()
    }
}

async fn answer(State(script): State<Script>, request: Request) -> Response {
    let header = |name: &str| request.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    script.keys.lock().unwrap().push(header("idempotency-key"));
    let (status, body) = script.answers.lock().unwrap().remove(0);
    Response::builder().status(status).body(Body::from(body.to_string())).unwrap()
}

fn client_of(address: SocketAddr) -> Client {
    Client::new(format!("http://{address}").parse().unwrap()).quiet().hasty()
}

fn command(client: &Client) -> Command {
    Command::post(client.url(&["v1", "orders"]), Uuid::now_v7(), json!({}))
}

#[tokio::test]
async fn an_unknown_outcome_is_asked_again_under_the_same_key() {
    let unknown = json!({"code": "unconfirmed", "outcome": "unknown"});
    let (script, client) = Script::serve([(503, unknown.clone()), (503, unknown), (201, json!({"ok": true}))]).await;
    let answer = client.command(&command(&client)).await.unwrap();
    assert_eq!(answer.body, json!({"ok": true}));
    let keys = script.keys();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| *key == keys[0] && !key.is_empty()));
}

#[tokio::test]
async fn a_refusal_is_not_asked_again() {
    let (script, client) = Script::serve([(409, json!({"code": "stock-insufficient", "outcome": "rejected"}))]).await;
    let failure = Failure::from(client.command(&command(&client)).await.unwrap_err());
    assert_eq!(failure.code(), Exit::Conflict);
    assert_eq!(script.keys().len(), 1);
}

#[tokio::test]
async fn a_server_that_was_never_reached_is_not_asked_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client_of(listener.local_addr().unwrap());
    drop(listener);
    let failure = Failure::from(client.command(&command(&client)).await.unwrap_err());
    assert_eq!(failure.code(), Exit::NotReachable);
    assert!(failure.report(crate::output::Paint::never()).contains("docket dev"));
}

#[tokio::test]
async fn a_dropped_connection_is_asked_again_and_the_key_is_told_when_it_stays_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client_of(listener.local_addr().unwrap());
    let dropping = tokio::spawn(async move {
        let taken = listener.accept().await.unwrap();
        drop((taken, listener));
    });
    let asked = command(&client);
    let failure = Failure::from(client.command(&asked).await.unwrap_err());
    dropping.await.unwrap();
    assert_eq!(failure.code(), Exit::NotReachable);
    assert!(failure.report(crate::output::Paint::never()).contains(&format!("--key {}", asked.key)));
}

#[test]
fn a_problem_is_told_with_every_fault_and_what_to_type() {
    let body = json!({
        "title": "Not enough in stock", "status": 409, "code": "stock-insufficient", "detail": "1 line is short",
        "outcome": "rejected", "request_id": "r-1",
        "errors": [{"pointer": "/lines/0", "code": "stock-insufficient", "detail": "too few", "requested": 3, "available": 2}],
    });
    let problem = Problem::read(409, body.to_string().as_bytes());
    let failure = Failure::from(Trouble::Refused(problem));
    assert_eq!(
        failure.report(crate::output::Paint::never()),
        "error: Not enough in stock\n  1 line is short\n  /lines/0: too few, requested 3, available 2\n  request r-1\n  \
         next: docket explain stock-insufficient\n"
    );
}

#[test]
fn exit_codes_follow_from_the_status() {
    let code = |status: u16| Failure::from(Trouble::Refused(Problem::read(status, b"{}"))).code();
    assert_eq!([400, 404, 422].map(code), [Exit::Refused; 3]);
    assert_eq!([409, 412].map(code), [Exit::Conflict; 2]);
    assert_eq!([401, 429, 500, 503].map(code), [Exit::NotReachable; 4]);
    assert!(Problem::read(404, b"<html>").to_string().contains("404"));
}

#[test]
fn a_server_is_named_without_a_path() {
    let server = "http://127.0.0.1:8080".parse::<Server>().unwrap();
    assert_eq!(server.to_string(), "http://127.0.0.1:8080");
    assert_eq!(server.authority(), "127.0.0.1:8080");
    assert_eq!(server.url(&["v1", "streams", "a/b ~c"]).path(), "/v1/streams/a%2Fb%20~c");
    for wrong in ["127.0.0.1:8080", "https://shop", "http://shop/v1", "http://shop?x=1", ""] {
        assert!(wrong.parse::<Server>().is_err(), "{wrong}");
    }
}

#[test]
fn who_and_why_are_encoded_beyond_ascii() {
    assert_eq!(percent_encoded("Zoë, 5 %"), "Zo%C3%AB, 5 %25");
}
