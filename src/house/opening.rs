//! What a node that is being opened is at. It takes minutes where a long log is folded afresh or a topic is caught up with:
//! whoever asks meanwhile, a supervisor first of all, is told that the process lives, what it does and how long it will
//! take, and that a command sent now has done nothing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::routing::get;
use chassis::app::{App, turned_away};
use chassis::gate::Gates;
use chassis::health::Health;
use chassis::metrics::Metrics;
use chassis::problem::{Problem, codes};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{pages, version};

/// How often a person who waits is told.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Longest that a client is asked to stay away: an estimate may be wrong.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);
/// Until that much of the work is behind it there is no estimate of the rest.
const ESTIMATE_AFTER: Duration = Duration::from_millis(500);

/// What an opening does now. Clones are the same.
#[derive(Clone)]
pub(crate) struct Opening(Arc<Mutex<Stage>>);

struct Stage {
    doing: &'static str,
    since: Instant,
    /// How far it was when it began.
    from: u64,
    far: Option<Far>,
}

/// Says how much is done, and of how much; of 0 if that is not known. Asked by every probe: must not wait.
pub(super) type Far = Box<dyn Fn() -> (u64, u64) + Send>;

/// How far a stage is.
struct Told {
    doing: &'static str,
    done: u64,
    of: u64,
    left: Option<Duration>,
}

impl Opening {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Stage { doing: "opening the log", since: Instant::now(), from: 0, far: None })))
    }

    /// From now on it does this; nobody knows how far it is.
    pub(super) fn begin(&self, doing: &'static str) {
        *self.0.lock() = Stage { doing, since: Instant::now(), from: 0, far: None };
    }

    /// From now on it does this, and is so far.
    pub(super) fn begin_counted(&self, doing: &'static str, far: Far) {
        *self.0.lock() = Stage { doing, since: Instant::now(), from: far().0, far: Some(far) };
    }

    fn told(&self) -> Told {
        let stage = self.0.lock();
        let (done, of) = stage.far.as_ref().map_or((0, 0), |far| far());
        let left = left(stage.since.elapsed(), done.saturating_sub(stage.from), of.saturating_sub(done));
        let left = left.filter(|_| of > 0);
        Told { doing: stage.doing, done, of, left }
    }

    /// Tells the operator, again and again; to be dropped when it is open.
    pub(super) async fn tell(&self) -> Infallible {
        loop {
            tokio::time::sleep(TELL_EVERY).await;
            let told = self.told();
            tracing::info!(
                opening.done = told.done,
                opening.of = told.of,
                opening.left_s = told.left.map(|left| left.as_secs()),
                "not open yet: {}",
                told.text()
            );
        }
    }

    /// The app of a node that is being opened: it says that it lives and why it is not ready, has metrics and the pages of
    /// problems, and asks for patience for all else, until [`App::open`].
    pub(super) fn app(&self, gates: Gates, metrics: &Metrics, stop: &CancellationToken) -> App {
        let seen = self.clone();
        let health = Health::builder(stop.clone()).check("opening", move || Err(seen.told().text())).build();
        let asked = self.clone();
        let routes = Router::new()
            .merge(pages().routes())
            .merge(health.routes())
            .merge(metrics.routes())
            .route("/version", get(version))
            .fallback(async move |request: Request| turned_away(request, asked.told().problem()).await);
        App::opening(routes).behind(gates)
    }
}

/// How long the rest takes, if it goes on as it went.
fn left(took: Duration, done: u64, rest: u64) -> Option<Duration> {
    (done > 0 && took >= ESTIMATE_AFTER).then(|| took.mul_f64(rest as f64 / done as f64))
}

impl Told {
    /// `folding the state store afresh: 37 %, about 40 s left`.
    fn text(&self) -> String {
        let mut text = self.doing.to_owned();
        if self.of > 0 {
            // Not all of it as long as it goes on.
            let percent = (u128::from(self.done) * 100 / u128::from(self.of)).min(99);
            text.push_str(&format!(": {percent} %"));
        }
        if let Some(left) = self.left {
            text.push_str(&format!(", about {:.0} s left", left.as_secs_f64().ceil()));
        }
        text
    }

    fn problem(&self) -> Problem {
        let detail = format!("this node is not open yet ({}); nothing was done: send it again", self.text());
        Problem::new(codes::NOT_OPEN_YET, detail).retry_after(self.left.unwrap_or_default().min(RETRY_AFTER_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_what_it_does_how_far_it_is_and_how_long_it_will_take() {
        let told = |done, of, left| Told { doing: "folding", done, of, left }.text();
        assert_eq!(told(0, 0, None), "folding");
        assert_eq!(told(0, 300, None), "folding: 0 %");
        assert_eq!(told(100, 300, Some(Duration::from_millis(39_001))), "folding: 33 %, about 40 s left");
        assert_eq!(told(300, 300, Some(Duration::ZERO)), "folding: 99 %, about 0 s left");
    }

    #[test]
    fn the_rest_takes_as_long_as_what_was_done_and_nothing_is_said_too_early() {
        assert_eq!(left(Duration::from_secs(10), 100, 300), Some(Duration::from_secs(30)));
        assert_eq!(left(Duration::from_secs(10), 0, 300), None);
        assert_eq!(left(Duration::from_millis(400), 100, 300), None);
    }

    #[test]
    fn a_client_is_asked_to_stay_away_for_seconds_not_for_the_whole_time() {
        let told = Told { doing: "folding", done: 1, of: 300, left: Some(Duration::from_secs(300)) };
        assert_eq!(told.problem().code().status, 503);
        let headers = axum::response::IntoResponse::into_response(told.problem());
        assert_eq!(headers.headers()["retry-after"], "5");
    }

    #[test]
    fn what_was_done_before_it_began_says_nothing_of_its_speed() {
        let opening = Opening::new();
        opening.begin_counted("catching up with the log", Box::new(|| (900, 1_000)));
        let told = opening.told();
        assert_eq!((told.text(), told.left), ("catching up with the log: 90 %".to_owned(), None));
    }
}
