//! The ownership hint: which partitions this node should lead. It may be wrong, late or the same for two nodes: only the
//! log decides who leads, so a bad hint costs time and nothing else. Whoever makes hints (a consumer group, a lease, a
//! person) sends a new set when it changes; a hint whose sender is gone stays as it is.

use std::collections::BTreeSet;
use std::sync::Arc;

use engine::position::Partition;
use tokio::sync::watch;

/// What a node should lead, as it changes.
pub type Wanted = watch::Receiver<Arc<BTreeSet<Partition>>>;

/// All partitions of a log of `partitions`, for ever.
pub fn all(partitions: u16) -> Wanted {
    only((0..partitions).map(Partition))
}

/// These partitions, for ever.
pub fn only(partitions: impl IntoIterator<Item = Partition>) -> Wanted {
    watch::channel(Arc::new(partitions.into_iter().collect())).1
}

/// Nothing, for ever: a node that only follows.
pub fn nothing() -> Wanted {
    only([])
}

/// Whether this is all there is, for ever: then nobody else is to lead any of it.
pub(crate) fn is_all_for_ever(wanted: &Wanted, partitions: u16) -> bool {
    wanted.has_changed().is_err() && wanted.borrow().len() == usize::from(partitions)
}

/// Waits until the hint has changed.
pub(crate) async fn changed(wanted: &mut Wanted) {
    if wanted.changed().await.is_err() {
        // Nobody will ever change it.
        std::future::pending::<()>().await;
    }
}
