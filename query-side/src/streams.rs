//! Streams by name, and the events of one stream: a page as JSON, or a whole range as NDJSON that may go on as the stream
//! does.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chassis::body::{APPLICATION_JSON, read_request};
use chassis::problem::Problem;
use chassis::query::Query;
use chassis::respond::{KEEP_ALIVE, NDJSON, Reply, ndjson};
use engine::position::{Partition, Positions, Version};
use engine::saga::Reactor;
use engine::stream::{StreamId, StreamName, Tenant};
use engine_runtime::history::HistoryFault;
use engine_runtime::store::{Direction, StoreFault};
use futures::Stream;
use http::StatusCode;
use http::request::Parts;
use schemas::event::ShopEvent;
use schemas::problem::STREAM_NOT_FOUND;
use serde_json::json;

use crate::QuerySide;
use crate::resources::not_found;
use crate::wire::WireEvent;

/// Events read from the log at once while a range is streamed. 256: about 128 KiB, so a slow reader holds little.
const CHUNK: usize = 256;

pub(crate) fn routes<R: Reactor<Event = ShopEvent>>(side: &QuerySide<R>) -> Router {
    Router::new()
        .route("/v1/streams", get(streams::<R>))
        .route("/v1/streams/{stream}/events", get(events::<R>))
        .with_state(side.clone())
}

type Answer = Result<Response, Problem>;

async fn streams<R: Reactor<Event = ShopEvent>>(State(side): State<QuerySide<R>>, parts: Parts) -> Answer {
    let read = read_request(&parts, &[APPLICATION_JSON])?;
    let mut query = Query::of(&parts.uri);
    let prefix = query.text("prefix").unwrap_or_default();
    let limit = query.limit() as usize;
    let cursor = query.cursor();
    query.finish()?;
    let scope = format!("streams {prefix}");
    let after = match &cursor {
        Some(cursor) => Some(side.cursors.open::<StreamName>(&scope, cursor)?),
        None => None,
    };
    // What this node acknowledged is listed: the index is a few milliseconds behind at most.
    side.all_indexed(&read).await?;
    let mut positions = Positions::default();
    for partition in (0..side.node.genesis().partitions).map(Partition) {
        positions.reach_all(&side.index_at(partition));
    }
    let store = Arc::clone(&side.streams);
    let found =
        tokio::task::spawn_blocking(move || store.streams(&Tenant::default(), &prefix, after.as_ref(), limit + 1));
    let mut found = found.await.map_err(|_| Problem::internal())?.map_err(|fault| unreadable(fault.into()))?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next_cursor = found.last().filter(|_| more).map(|last| side.cursors.seal(&scope, &last.name));
    let items: Vec<_> = found
        .iter()
        .map(|info| json!({"stream": info.name, "version": info.version, "updated_at": info.updated_at}))
        .collect();
    let body = json!({"items": items, "next_cursor": next_cursor});
    Ok(Reply::json(StatusCode::OK, &body).positions(&positions).into_response())
}

/// Which events of a stream.
struct Range {
    stream: StreamName,
    from: Version,
    to: Version,
    direction: Direction,
}

async fn events<R: Reactor<Event = ShopEvent>>(
    State(side): State<QuerySide<R>>,
    Path(stream): Path<String>,
    parts: Parts,
) -> Answer {
    let read = read_request(&parts, &[APPLICATION_JSON, NDJSON])?;
    let streamed = read.media == NDJSON;
    let mut query = Query::of(&parts.uri);
    let from = query.whole("from_version", 1..=u64::MAX).unwrap_or(1);
    let to = query.whole("to_version", 1..=u64::MAX);
    let words = [("forward", Direction::Forward), ("backward", Direction::Backward)];
    let direction = query.one_of("direction", &words).unwrap_or(Direction::Forward);
    let follow = query.flag("follow");
    let limited = query.has("limit");
    let limit = query.limit() as usize;
    let cursor = query.cursor();
    if follow && !streamed {
        query.fault("follow", "not-here", "only application/x-ndjson can go on: send Accept");
    }
    if follow && (direction == Direction::Backward || to.is_some()) {
        query.fault("follow", "contradictory", "only a range that is open forward can go on");
    }
    if streamed && limited {
        query.fault("limit", "not-here", "application/x-ndjson tells the whole range");
    }
    if streamed && cursor.is_some() {
        query.fault("cursor", "not-here", "application/x-ndjson begins at from_version");
    }
    query.finish()?;
    let Ok(stream) = StreamName::new(&stream) else { return Err(not_found(STREAM_NOT_FOUND)) };
    let tenant = Tenant::default();
    let partition = side.node.partition_of(&tenant, &stream);
    side.indexed(partition, &read).await?;
    let seen = side.node.history().read_stream(&tenant, &stream, Version(1), Version(1), Direction::Forward, 1);
    if seen.await.map_err(unreadable)?.is_empty() && !follow {
        return Err(not_found(STREAM_NOT_FOUND));
    }
    let range = Range { stream, from: Version(from), to: Version(to.unwrap_or(u64::MAX)), direction };
    if streamed {
        // Taken before the first line is read: the lines reflect that much at least.
        let positions = side.index_at(partition);
        return Ok(ndjson(side.stream(range, follow), follow.then_some(KEEP_ALIVE), &positions));
    }
    side.page(range, limit, cursor).await
}

impl<R: Reactor<Event = ShopEvent>> QuerySide<R> {
    async fn page(&self, mut range: Range, limit: usize, cursor: Option<String>) -> Answer {
        let Range { stream, from, to, direction } = &range;
        let scope = format!("events of {stream} {from}..{to} {direction:?}");
        if let Some(cursor) = &cursor {
            let next: Version = self.cursors.open(&scope, cursor)?;
            match range.direction {
                Direction::Forward => range.from = next,
                Direction::Backward => range.to = next,
            }
        }
        // Taken before reading: the page reflects that much at least, also where it is empty.
        let mut positions = self.index_at(self.node.partition_of(&Tenant::default(), &range.stream));
        let mut found = self.read(&range, limit + 1).await.map_err(unreadable)?;
        let next = found.get(limit).map(|event| event.meta.version);
        found.truncate(limit);
        for event in &found {
            positions.reach(event.position);
        }
        let log = self.node.genesis().log;
        let items: Vec<WireEvent> = found.into_iter().map(|event| WireEvent::of(log, event)).collect();
        let next_cursor = next.map(|next| self.cursors.seal(&scope, &next));
        let body = json!({"items": items, "next_cursor": next_cursor});
        Ok(Reply::json(StatusCode::OK, &body).positions(&positions).vary_accept().into_response())
    }

    async fn read(&self, range: &Range, limit: usize) -> Result<Vec<engine::event::Recorded<ShopEvent>>, HistoryFault> {
        let Range { stream, from, to, direction } = range;
        self.node.history().read_stream(&Tenant::default(), stream, *from, *to, *direction, limit).await
    }

    /// The whole range in chunks; with `follow`, then whatever comes.
    fn stream(
        &self,
        range: Range,
        follow: bool,
    ) -> impl Stream<Item = Result<WireEvent, HistoryFault>> + Send + 'static {
        let side = self.clone();
        let log = self.node.genesis().log;
        let chunks = futures::stream::unfold(Some((side, range, None)), move |state| async move {
            let (side, mut range, mut watch) = state?;
            loop {
                let chunk = match side.read(&range, CHUNK).await {
                    Ok(chunk) => chunk,
                    Err(fault) => return Some((vec![Err(fault)], None)),
                };
                if let Some(last) = chunk.last() {
                    let version = last.meta.version;
                    let ends = match range.direction {
                        Direction::Forward => version >= range.to,
                        Direction::Backward => version <= range.from,
                    };
                    match range.direction {
                        Direction::Forward => range.from = version.next(),
                        Direction::Backward => range.to = Version(version.0 - 1),
                    }
                    let items = chunk.into_iter().map(|event| Ok(WireEvent::of(log, event))).collect();
                    return Some((items, (!ends).then_some((side, range, watch))));
                }
                if !follow {
                    return None;
                }
                if watch.is_none() {
                    let id = StreamId { tenant: Tenant::default(), name: range.stream.clone() };
                    watch = side.node.watch(id).await.ok();
                }
                let watching = watch.as_mut()?;
                let reached = tokio::select! {
                    biased;
                    () = side.draining.cancelled() => return None,
                    reached = watching.until(|current| current.version >= range.from) => reached?,
                };
                let least = reached.position.into();
                // What is known to have happened is indexed soon after; the reader waits for it here, not in a loop.
                while side.node.wait_saved(&least, KEEP_ALIVE).await.is_err() {
                    if !side.node.is_ready() {
                        return None;
                    }
                }
            }
        });
        futures::StreamExt::flat_map(chunks, futures::stream::iter)
    }
}

/// The log or its index cannot be read. What broke is for our own log.
pub(crate) fn unreadable(fault: HistoryFault) -> Problem {
    tracing::error!(error = &fault as &dyn std::error::Error, "history cannot be read");
    match fault {
        HistoryFault::Store(StoreFault::Log { .. }) => Problem::no_answer(engine::message::NoAnswer::LogDamaged),
        _ => Problem::internal(),
    }
}
