//! What an operator may do with streams that are set aside: look at them, have them tried again, and drop them. The decision
//! is written into the store beside the row it is about, under the guard that the row still is as it was looked at; then
//! everybody who feeds the store, on whichever node, begins anew from what it holds.
//!
//! A dropped stream is tried no more. Its rows stay as they were before the event that cannot be folded, and it stays
//! listed, with who decided that and why, until it is retried. A rebuild knows nothing of drops: it tries everything.

use std::sync::Arc;
use std::time::Duration;

use engine::read_store::{ReadStore, StoreFault};
use engine::stream::StreamId;
use engine::view::{Row, View};
use tokio::time::Instant;

use super::folder::{ParkedDoc, parked_key, parked_row};
use super::operations::{Denied, Operations};
use super::worker::{read_parked, spawned};
use super::{Dropped, Parked};

/// Tries to write a decision while the stream goes on counting what waits behind it.
const TRIES_MAX: usize = 20;
/// Longest wait for whoever feeds the stream to have tried it again.
const RETRY_WITHIN: Duration = Duration::from_secs(15);
/// Longest wait for news of it before the store is asked all the same: another node may be the one that tries.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

impl<V: View> Operations<V> {
    /// The streams set aside, dropped ones too, as the store has them.
    pub async fn parked(&self) -> Result<Vec<Parked>, Denied> {
        let store: Arc<dyn ReadStore> = self.inner.store.clone();
        let parked = read_parked(&store).await?;
        Ok(parked.into_values().map(|doc| doc.parked).collect())
    }

    /// Has a stream tried again, also a dropped one; others that are parked are tried with it. How it stands afterwards:
    /// `None` if nothing of it is set aside any more.
    pub async fn retry(&self, stream: &StreamId) -> Result<Option<Parked>, Denied> {
        let mut news = self.inner.live.parked_news();
        let generation = self.decide(stream, |doc| doc.parked.dropped = None).await?;
        let deadline = Instant::now() + RETRY_WITHIN;
        loop {
            match self.parked_doc(stream).await? {
                None => {
                    // So that who is answered is not told here any more that it is set aside. It is done all the same.
                    let seen = async {
                        while self.inner.live.is_parked(&stream.tenant, &stream.name) {
                            drop(news.changed().await);
                        }
                    };
                    let _ = tokio::time::timeout_at(deadline, seen).await;
                    return Ok(None);
                }
                Some((_, doc)) if doc.tried >= generation => return Ok(Some(doc.parked)),
                Some(_) if Instant::now() >= deadline => return Err(Denied::NotTried),
                Some(_) => drop(tokio::time::timeout(LOOK_AGAIN, news.changed()).await),
            }
        }
    }

    /// Has a stream tried no more, and its rows shown as they were before what cannot be folded.
    pub async fn drop_parked(&self, stream: &StreamId, dropped: Dropped) -> Result<Parked, Denied> {
        let decided = dropped.clone();
        self.decide(stream, move |doc| doc.parked.dropped = Some(decided.clone())).await?;
        // So that who is answered sees it here.
        let mut news = self.inner.live.parked_news();
        let seen = async {
            loop {
                match self.inner.live.parked_as(&stream.tenant, &stream.name) {
                    Some(parked) if parked.dropped.as_ref() == Some(&dropped) => return parked,
                    _ => drop(news.changed().await),
                }
            }
        };
        tokio::time::timeout(RETRY_WITHIN, seen).await.map_err(|_| Denied::NotTried)
    }

    /// Writes a decision about a stream. The generation that feeders begin with.
    async fn decide(&self, stream: &StreamId, change: impl Fn(&mut ParkedDoc)) -> Result<i64, Denied> {
        for _ in 0..TRIES_MAX {
            let (was, mut doc) = self.parked_doc(stream).await?.ok_or(Denied::NotParked)?;
            change(&mut doc);
            let (store, key, becomes) = (self.inner.store.clone(), parked_key(stream), parked_row(&doc));
            let amended = spawned(async move { store.amend(key, was, Some(becomes)).await }).await?;
            if let Some(generation) = amended {
                return Ok(generation);
            }
        }
        Err(Denied::NotTried)
    }

    async fn parked_doc(&self, stream: &StreamId) -> Result<Option<(Row, ParkedDoc)>, Denied> {
        let (store, key) = (self.inner.store.clone(), parked_key(stream));
        let mut found = spawned(async move { store.load(vec![key]).await }).await?;
        let Some(row) = found.remove(&parked_key(stream)) else { return Ok(None) };
        let doc = row.doc.read::<ParkedDoc>();
        let doc = doc.map_err(|why| StoreFault::Damaged(format!("parked {}: {why}", stream.name)))?;
        Ok(Some((row, doc)))
    }
}
