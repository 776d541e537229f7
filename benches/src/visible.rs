//! How long after a command is sent does a read show what it did? Deliveries to shelves, each looked for with the position
//! that its answer told.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::house::{ON_SHELF, shelf};
use crate::times::Times;
use crate::wire::Reply;
use crate::{Done, wire};

/// Between two commands whose way into the views is timed.
const PAUSE: Duration = Duration::from_millis(10);
/// How long a command may take.
const ACCEPTED_WITHIN: Duration = Duration::from_secs(10);
/// How long until views have caught up.
const SEEN_WITHIN: Duration = Duration::from_secs(600);

/// Delivers to shelf after shelf for so long, each time until the next of these servers shows it.
pub(crate) fn times(servers: &[SocketAddr], shelves: &[&str], lasting: Duration) -> Done<Times> {
    let (began, mut times) = (Instant::now(), Times::new());
    for (at, shelf) in shelves.iter().cycle().enumerate() {
        if began.elapsed() > lasting {
            break;
        }
        let asked = Instant::now();
        let position = deliver(servers[at % servers.len()], shelf, ACCEPTED_WITHIN)?;
        wait_seen(servers[(at + 1) % servers.len()], shelf, &position)?;
        times.note(asked.elapsed());
        std::thread::sleep(PAUSE);
    }
    Ok(times)
}

/// Where a shelf with this number is.
pub(crate) fn path(number: u64) -> String {
    format!("/v1/stock/{}/{ON_SHELF}", shelf(number))
}

/// Puts a shelf up: only what was counted once can be delivered to.
pub(crate) fn put_up(server: SocketAddr, shelf: &str) -> Done<Reply> {
    let key = Uuid::now_v7().to_string();
    let headers = [("Idempotency-Key", key.as_str())];
    let body = r#"{"on_hand":1,"reason":"benches"}"#;
    let reply = wire::ask(server, &format!("PUT {shelf}"), &headers, body, ACCEPTED_WITHIN)?;
    if matches!(reply.status, 200 | 201) { Ok(reply) } else { Err(format!("a shelf was not put up: {reply:?}").into()) }
}

/// One piece more on a shelf; the position of that in the log.
pub(crate) fn deliver(server: SocketAddr, shelf: &str, within: Duration) -> Done<String> {
    let key = Uuid::now_v7().to_string();
    let headers = [("Idempotency-Key", key.as_str())];
    let reply = wire::ask(server, &format!("POST {shelf}/receive"), &headers, r#"{"quantity":1}"#, within)?;
    match reply.header("docket-position") {
        Some(position) if reply.status == 200 => Ok(position.to_owned()),
        _ => Err(format!("a delivery was not accepted: {reply:?}").into()),
    }
}

/// Waits until a read that is no older than these positions is answered.
pub(crate) fn wait_seen(server: SocketAddr, path: &str, positions: &str) -> Done<()> {
    let began = Instant::now();
    let headers = [("Docket-Min-Position", positions), ("Prefer", "wait=10")];
    loop {
        let reply = wire::ask(server, &format!("GET {path}"), &headers, "", Duration::from_secs(15));
        match reply {
            Ok(reply) if reply.status == 200 => return Ok(()),
            other if began.elapsed() > SEEN_WITHIN => return Err(format!("views do not catch up: {other:?}").into()),
            // It waited for us, or is not there yet.
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}
