//! Watching single streams: somebody who waits for a saga to settle, or for a payment to become definite, registers and
//! is told of every later version. Fed by the shards' effective records; nothing is kept for streams nobody watches.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use engine::position::{Position, Version};
use engine::stream::StreamId;
use parking_lot::Mutex;
use tokio::sync::watch;

/// A stream as it stands.
#[derive(Debug)]
pub struct Current<S> {
    /// How many events it has.
    pub version: Version,
    /// What they amount to.
    pub state: Arc<S>,
    /// The record that last changed it.
    pub position: Position,
}

impl<S> Clone for Current<S> {
    fn clone(&self) -> Self {
        Self { version: self.version, state: self.state.clone(), position: self.position }
    }
}

/// Follows one stream. Dropping it is all there is to ending it.
pub struct Watch<S> {
    // Declared before the seat, so dropped before it: the seat looks whether this was the last receiver.
    receiver: watch::Receiver<Option<Current<S>>>,
    _seat: Seat<S>,
}

impl<S: Send + Sync + 'static> Watch<S> {
    /// The stream as last seen; `None` while nobody wrote it.
    pub fn current(&self) -> Option<Current<S>> {
        self.receiver.borrow().clone()
    }

    /// Waits until the stream is at another version than when this was last called (or the watch was made), and says
    /// how it stands. Versions may be passed over. `None` once the node has stopped.
    pub async fn changed(&mut self) -> Option<Current<S>> {
        loop {
            self.receiver.changed().await.ok()?;
            if let Some(current) = self.receiver.borrow_and_update().clone() {
                return Some(current);
            }
        }
    }

    /// Waits until `done` says so of the stream as it stands, which may be at once. `None` once the node has stopped.
    pub async fn until(&mut self, mut done: impl FnMut(&Current<S>) -> bool) -> Option<Current<S>> {
        let reached = self.receiver.wait_for(|current| current.as_ref().is_some_and(&mut done)).await.ok()?;
        reached.clone()
    }
}

type Sender<S> = Arc<watch::Sender<Option<Current<S>>>>;

/// Takes the entry away when the last watch of a stream goes.
struct Seat<S> {
    watches: Arc<Watches<S>>,
    stream: StreamId,
}

impl<S> Drop for Seat<S> {
    fn drop(&mut self) {
        let mut entries = self.watches.entries.lock();
        if entries.get(&self.stream).is_some_and(|sender| sender.receiver_count() == 0) {
            entries.remove(&self.stream);
            self.watches.count.store(entries.len(), Ordering::Release);
        }
    }
}

/// Everybody who watches streams of one partition.
pub(crate) struct Watches<S> {
    entries: Mutex<BTreeMap<StreamId, Sender<S>>>,
    /// Lets shards pass by without the lock while nobody watches.
    count: AtomicUsize,
}

impl<S: Send + Sync + 'static> Watches<S> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { entries: Mutex::new(BTreeMap::new()), count: AtomicUsize::new(0) })
    }

    /// Registers. Whoever calls looks up how the stream stands *afterwards* and reports it with [`Self::report`], so no
    /// change is missed.
    pub(crate) fn register(self: &Arc<Self>, stream: StreamId) -> Watch<S> {
        let mut entries = self.entries.lock();
        let receiver = match entries.entry(stream.clone()) {
            Entry::Occupied(entry) => entry.get().subscribe(),
            Entry::Vacant(entry) => {
                let (sender, receiver) = watch::channel(None);
                entry.insert(Arc::new(sender));
                receiver
            }
        };
        self.count.store(entries.len(), Ordering::Release);
        // Pairs with the fence in `anybody`: either the shard sees this watcher, or the look-up that follows sees what
        // the shard had put in the cache.
        fence(Ordering::SeqCst);
        Watch { receiver, _seat: Seat { watches: self.clone(), stream } }
    }

    /// Whether it is worth calling [`Self::report`]. To be asked after the change can be looked up.
    pub(crate) fn anybody(&self) -> bool {
        fence(Ordering::SeqCst);
        self.count.load(Ordering::Acquire) > 0
    }

    /// Tells the stream's watchers, if it is news to them.
    pub(crate) fn report(&self, stream: &StreamId, current: &Current<S>) {
        let sender = self.entries.lock().get(stream).cloned();
        let Some(sender) = sender else { return };
        sender.send_if_modified(|seen| {
            let news = seen.as_ref().is_none_or(|seen| seen.version < current.version);
            if news {
                *seen = Some(current.clone());
            }
            news
        });
    }

    /// Whether somebody watches this stream.
    pub(crate) fn is_watched(&self, stream: &StreamId) -> bool {
        self.anybody() && self.entries.lock().contains_key(stream)
    }

    /// Every stream somebody watches.
    pub(crate) fn watched(&self) -> Vec<StreamId> {
        self.entries.lock().keys().cloned().collect()
    }

    /// Ends all watches.
    pub(crate) fn close(&self) {
        self.entries.lock().clear();
        self.count.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use engine::position::{Offset, Partition};
    use engine::stream::{StreamName, Tenant};

    use super::*;

    fn stream() -> StreamId {
        StreamId { tenant: Tenant::default(), name: StreamName::new("jar-1").expect("a name") }
    }

    fn at(version: u64) -> Current<u64> {
        let position = Position { partition: Partition(0), offset: Offset(version) };
        Current { version: Version(version), state: Arc::new(version), position }
    }

    #[test]
    fn what_nobody_watches_any_more_is_forgotten() {
        let watches = Watches::<u64>::new();
        let (one, other) = (watches.register(stream()), watches.register(stream()));
        assert!(watches.anybody());
        drop(one);
        watches.report(&stream(), &at(1));
        assert_eq!(other.current().map(|current| current.version), Some(Version(1)));
        drop(other);
        assert!(!watches.anybody());
        assert_eq!(watches.watched(), []);
    }

    #[test]
    fn an_older_look_up_does_not_undo_a_newer_report() {
        let watches = Watches::<u64>::new();
        let watch = watches.register(stream());
        watches.report(&stream(), &at(2));
        watches.report(&stream(), &at(1));
        assert_eq!(watch.current().map(|current| *current.state), Some(2));
    }
}
