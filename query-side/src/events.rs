//! Everything that happened, over all partitions: per partition in order, between partitions by the time recorded. A page
//! as JSON with a cursor that never ends, or all of it as NDJSON that may go on as the log does.

use std::collections::VecDeque;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chassis::body::{APPLICATION_JSON, read_request};
use chassis::problem::Problem;
use chassis::query::Query;
use chassis::respond::{KEEP_ALIVE, NDJSON, Reply, ndjson};
use engine::event::Recorded;
use engine::position::{Checkpoint, Partition, Positions};
use engine::saga::Reactor;
use engine::time::Timestamp;
use engine_runtime::history::HistoryFault;
use futures::Stream;
use http::StatusCode;
use http::request::Parts;
use schemas::event::ShopEvent;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::QuerySide;
use crate::resources::reflected;
use crate::streams::unreadable;
use crate::wire::WireEvent;

/// Bytes read from one partition at once.
const READ_BYTES: usize = 64 * 1024;
/// Events looked at for one page: a filter that matches little must not make one request read the whole log.
const LOOKED_AT_MAX: usize = 50_000;
/// Types one request may name.
const TYPES_MAX: usize = 64;

pub(crate) fn routes<R: Reactor<Event = ShopEvent>>(side: &QuerySide<R>) -> Router {
    Router::new().route("/v1/events", get(events::<R>)).with_state(side.clone())
}

/// What is wanted.
#[derive(Clone, Debug, Default)]
struct Wanted {
    types: Option<Vec<String>>,
    stream_prefix: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Wanted {
    fn has(&self, event: &Recorded<ShopEvent>) -> bool {
        let at = event.meta.recorded_at;
        self.types.as_ref().is_none_or(|types| types.iter().any(|wanted| wanted == event.event.event_type()))
            && self.stream_prefix.as_ref().is_none_or(|prefix| event.meta.stream.as_str().starts_with(prefix))
            && self.since.is_none_or(|since| at >= since)
            && self.until.is_none_or(|until| at < until)
    }
}

/// Where a reader of one partition stands: a fold, and how many events it has had of what comes after it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Place {
    fold: Checkpoint,
    had: usize,
}

async fn events<R: Reactor<Event = ShopEvent>>(
    State(side): State<QuerySide<R>>,
    parts: Parts,
) -> Result<Response, Problem> {
    let read = read_request(&parts, &[APPLICATION_JSON, NDJSON])?;
    let streamed = read.media == NDJSON;
    let mut query = Query::of(&parts.uri);
    let from = query.text("from").unwrap_or_else(|| "start".to_owned());
    let wanted = Wanted {
        types: query.texts("type", TYPES_MAX),
        stream_prefix: query.text("stream_prefix"),
        since: query.time("since"),
        until: query.time("until"),
    };
    for name in wanted.types.iter().flatten() {
        if !ShopEvent::TYPES.iter().any(|(known, _)| known == name) {
            query.fault("type", "unknown-value", format!("{name:?} is no type of event"));
        }
    }
    let follow = query.flag("follow");
    let limited = query.has("limit");
    let limit = query.limit() as usize;
    if follow && !streamed {
        query.fault("follow", "not-here", "only application/x-ndjson can go on: send Accept");
    }
    if streamed && limited {
        query.fault("limit", "not-here", "application/x-ndjson tells all there is");
    }
    query.finish()?;
    let scope = format!("events {wanted:?}");
    if from == "end" {
        // The end as it is now: what was acknowledged before the question is not news.
        side.all_indexed(&read).await?;
    } else if let Some(least) = &read.min_position {
        side.index_reached(least, read.wait).await?;
    }
    let places = match from.as_str() {
        "start" => vec![Place::default(); usize::from(side.node.genesis().partitions)],
        "end" => side.ends(),
        cursor => side.cursors.open(&scope, cursor)?,
    };
    if places.len() != usize::from(side.node.genesis().partitions) {
        return Err(Problem::bad_cursor());
    }
    let mut reader = Reader::new(side.clone(), places, wanted);
    if streamed {
        // Where the lines begin, and what is there before the first is read: they reflect that much at least.
        let mut positions = reflected_by(&reader.places());
        positions.reach_all(&reflected_by(&side.ends()));
        return Ok(ndjson(reader.stream(follow), follow.then_some(KEEP_ALIVE), &positions));
    }
    let mut items = Vec::new();
    let log = side.node.genesis().log;
    while items.len() < limit && reader.looked_at < LOOKED_AT_MAX {
        match reader.next().await.map_err(unreadable)? {
            Some(event) => items.push(WireEvent::of(log, event)),
            None => break,
        }
    }
    let places = reader.places();
    let positions = reflected_by(&places);
    let body = json!({"items": items, "next_cursor": side.cursors.seal(&scope, &places)});
    Ok(Reply::json(StatusCode::OK, &body).positions(&positions).vary_accept().into_response())
}

/// What a reader that stands in these places has behind it.
fn reflected_by(places: &[Place]) -> Positions {
    let mut positions = Positions::default();
    for (partition, place) in (0..).map(Partition).zip(places) {
        positions.reach_all(&reflected(partition, place.fold.next_offset));
    }
    positions
}

impl<R: Reactor<Event = ShopEvent>> QuerySide<R> {
    /// Where every partition ends now.
    fn ends(&self) -> Vec<Place> {
        let partitions = (0..self.node.genesis().partitions).map(Partition);
        partitions.map(|partition| Place { fold: self.streams.checkpoint(partition).0, had: 0 }).collect()
    }
}

/// Reads all partitions, the earliest recorded first.
struct Reader<R: Reactor<Event = ShopEvent>> {
    side: QuerySide<R>,
    lanes: Vec<Lane>,
    wanted: Wanted,
    looked_at: usize,
}

/// One partition being read.
struct Lane {
    /// The fold before what was read into `buffer`, and how many events of that were taken.
    began: Place,
    buffer: VecDeque<Recorded<ShopEvent>>,
    /// The fold after it: where to read next.
    next: Checkpoint,
    /// Events still to be passed over: those that an earlier page had.
    skip: usize,
}

impl<R: Reactor<Event = ShopEvent>> Reader<R> {
    fn new(side: QuerySide<R>, places: Vec<Place>, wanted: Wanted) -> Self {
        let lanes = places
            .into_iter()
            .map(|place| Lane { began: place, buffer: VecDeque::new(), next: place.fold, skip: place.had })
            .collect();
        Self { side, lanes, wanted, looked_at: 0 }
    }

    /// The next wanted event; `None` at the end of the log as it is now.
    async fn next(&mut self) -> Result<Option<Recorded<ShopEvent>>, HistoryFault> {
        loop {
            for index in 0..self.lanes.len() {
                self.fill(index).await?;
            }
            let heads = self.lanes.iter().enumerate();
            let earliest = heads
                .filter_map(|(index, lane)| lane.buffer.front().map(|event| (event.meta.recorded_at, index)))
                .min();
            let Some((_, index)) = earliest else { return Ok(None) };
            let lane = &mut self.lanes[index];
            let Some(event) = lane.buffer.pop_front() else { return Ok(None) };
            lane.began.had += 1;
            self.looked_at += 1;
            if self.wanted.has(&event) {
                return Ok(Some(event));
            }
            if self.looked_at.is_multiple_of(LOOKED_AT_MAX) {
                return Ok(None);
            }
        }
    }

    /// Reads on in a lane whose buffer is empty.
    async fn fill(&mut self, index: usize) -> Result<(), HistoryFault> {
        let lane = &mut self.lanes[index];
        while lane.buffer.is_empty() {
            let partition = Partition(u16::try_from(index).expect("a log has at most 1,024 partitions"));
            let (events, next) = self.side.node.history().read_partition(partition, lane.next, READ_BYTES).await?;
            if next == lane.next {
                return Ok(());
            }
            let passed = lane.skip.min(events.len());
            lane.skip -= passed;
            lane.began = Place { fold: lane.next, had: passed };
            lane.next = next;
            lane.buffer = events.into_iter().skip(passed).collect();
        }
        Ok(())
    }

    /// Where to go on.
    fn places(&self) -> Vec<Place> {
        self.lanes.iter().map(Lane::place).collect()
    }

    fn stream(self, follow: bool) -> impl Stream<Item = Result<WireEvent, HistoryFault>> + Send + 'static {
        let log = self.side.node.genesis().log;
        futures::stream::unfold(Some(self), move |state| async move {
            let mut reader = state?;
            // Taken before looking: what is saved while we look wakes us.
            let mut saved = reader.side.node.saved();
            let draining = reader.side.draining.clone();
            loop {
                saved.borrow_and_update();
                let looked_at = reader.looked_at;
                match reader.next().await {
                    Err(fault) => return Some((Err(fault), None)),
                    Ok(Some(event)) => return Some((Ok(WireEvent::of(log, event)), Some(reader))),
                    // Only a breath between stretches in which nothing matched.
                    Ok(None) if reader.looked_at > looked_at => {}
                    Ok(None) if !follow => return None,
                    Ok(None) => tokio::select! {
                        biased;
                        () = draining.cancelled() => return None,
                        grown = saved.changed() => grown.ok()?,
                    },
                }
            }
        })
    }
}

impl Lane {
    /// Where to go on: after the buffer if it is used up, else within it.
    fn place(&self) -> Place {
        if self.buffer.is_empty() { Place { fold: self.next, had: self.skip } } else { self.began }
    }
}
