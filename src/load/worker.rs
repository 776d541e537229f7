//! One client of a load: takes its turns, sends, repeats what ended unknown under the same key, and notes how long it took.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Uri;
use http::header::RETRY_AFTER;
use uuid::Uuid;

use super::Profile;
use super::pace::{Pace, Turn};
use super::tally::{Ending, Sent, Tally, note};
use super::wire::{Reply, Wire};
use super::workload::Workload;
use crate::client::{Pauses, Problem};

/// One checkout in so many is first answered without waiting for its saga, to see both times.
const ANSWERED_AT_ONCE_EVERY: u64 = 10;

/// One client.
pub(super) struct Worker {
    wire: Wire,
    workload: Arc<Workload>,
    pace: Arc<Pace>,
    give_up: Duration,
    uris: Vec<Uri>,
    tally: Tally,
}

impl Worker {
    /// A client of `authority`.
    pub(super) fn new(authority: &str, workload: Arc<Workload>, pace: Arc<Pace>, give_up: Duration) -> Self {
        Self { wire: Wire::new(authority), workload, pace, give_up, uris: Vec::new(), tally: Tally::new() }
    }

    /// Works until there is nothing left to ask for.
    pub(super) async fn run(mut self) -> Tally {
        // One address per location, made once.
        for location in 0..self.workload.locations {
            let mut asked = self.workload.asked(0);
            asked.location = location;
            let path = self.workload.path(&asked).parse().expect("our own paths are paths");
            self.uris.push(path);
        }
        while let Some(turn) = self.pace.turn().await {
            self.take(turn).await;
            self.pace.answered.fetch_add(1, Ordering::Relaxed);
        }
        self.tally
    }

    async fn take(&mut self, turn: Turn) {
        // Drawn when first sent: a UUIDv7, so that ids made one after the other lie beside one another.
        let id = Uuid::now_v7();
        let asked = self.workload.asked(turn.number);
        let body = Bytes::from(self.workload.body(&asked, id));
        let location = asked.location as usize;
        let checkout = self.workload.profile == Profile::Checkout;
        let at_once = !checkout || turn.number.is_multiple_of(ANSWERED_AT_ONCE_EVERY);
        let (ending, mut settled) = self.ask(location, id, body.clone(), !at_once).await;
        if turn.measured && at_once {
            note(&mut self.tally.answers, turn.due.elapsed());
        }
        if checkout && at_once && ending == Ending::Accepted {
            // The same command again, now waiting: the same answer, as the resource then is.
            settled = self.ask(location, id, body, true).await.1;
        }
        if turn.measured {
            if settled {
                note(&mut self.tally.settlements, turn.due.elapsed());
            }
            self.tally.end(ending);
        }
        self.tally.sent.push(Sent { number: turn.number, id, ending, settled });
    }

    /// Asks until the outcome is definite; tells also whether the saga has settled.
    async fn ask(&mut self, location: usize, id: Uuid, body: Bytes, wait: bool) -> (Ending, bool) {
        let give_up_at = Instant::now() + self.give_up;
        let mut pauses = Pauses::endless();
        loop {
            // The key is the id of what it makes: one name to look for when something is odd.
            let sent = Instant::now();
            let answer = self.wire.post(&self.uris[location], id, body.clone(), wait).await;
            let pause = match answer {
                Ok(reply) => match self.judge(&reply) {
                    Some(ending) => {
                        if ending == Ending::Accepted {
                            note(&mut self.tally.tries, sent.elapsed());
                        }
                        return (ending, reply.headers.contains_key("preference-applied"));
                    }
                    None => {
                        let asked = asked_pause(&reply);
                        self.tally.turned_away += 1;
                        self.tally.told_no_time += u64::from(asked.is_none());
                        pauses.next(asked)
                    }
                },
                Err(_) => {
                    self.tally.lost += 1;
                    pauses.next(None)
                }
            };
            let Some(pause) = pause.filter(|pause| Instant::now() + *pause < give_up_at) else {
                return (Ending::Unknown, false);
            };
            self.tally.retries += 1;
            tokio::time::sleep(pause).await;
        }
    }

    /// The ending that an answer stands for; `None` if it is not definite.
    fn judge(&mut self, reply: &Reply) -> Option<Ending> {
        if let Some(positions) = reply.headers.get("docket-position").and_then(|value| value.to_str().ok()) {
            self.tally.reach_all(positions);
        }
        if reply.status.is_success() {
            return Some(Ending::Accepted);
        }
        let problem = Problem::read(reply.status.as_u16(), &reply.body);
        if !problem.is_definite() {
            return None;
        }
        let code = if problem.code().is_empty() { reply.status.as_str() } else { problem.code() };
        match self.tally.refusals.get_mut(code) {
            Some(times) => *times += 1,
            None => drop(self.tally.refusals.insert(code.to_owned(), 1)),
        }
        Some(Ending::Rejected)
    }
}

fn asked_pause(reply: &Reply) -> Option<Duration> {
    let seconds = reply.headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}
