//! Reads: resources and lists from the read store, streams and events from the log. Never older than what the answering
//! node itself acknowledged, and as fresh as `Docket-Min-Position` asks; never stale instead of late.

mod events;
mod fresh;
mod lists;
mod resources;
mod streams;
mod wire;

pub use wire::WireEvent;

use std::sync::Arc;

use axum::Router;
use chassis::cursor::CursorKey;
use engine::saga::Reactor;
use engine_runtime::node::Node;
use engine_runtime::projection::Projection;
use engine_runtime::store::StateStore;
use engine_sql::SqlReadStore;
use schemas::event::ShopEvent;
use tokio_util::sync::CancellationToken;

/// What reads are answered from.
pub struct QuerySide<R: Reactor> {
    /// Says what this node acknowledged, and reads the log.
    pub node: Node<R>,
    /// Knows the streams.
    pub streams: Arc<StateStore<R>>,
    /// Keeps the rows current.
    pub projection: Projection,
    /// Holds the rows.
    pub store: Arc<SqlReadStore>,
    /// Signs cursors.
    pub cursors: CursorKey,
    /// Cancelled when the process drains: streams that follow end then.
    pub draining: CancellationToken,
}

impl<R: Reactor> Clone for QuerySide<R> {
    fn clone(&self) -> Self {
        Self {
            node: self.node.clone(),
            streams: Arc::clone(&self.streams),
            projection: self.projection.clone(),
            store: Arc::clone(&self.store),
            cursors: self.cursors.clone(),
            draining: self.draining.clone(),
        }
    }
}

impl<R: Reactor<Event = ShopEvent>> QuerySide<R> {
    /// All routes that only read.
    pub fn routes(&self) -> Router {
        Router::new()
            .merge(resources::routes(self))
            .merge(lists::routes(self))
            .merge(streams::routes(self))
            .merge(events::routes(self))
    }
}
