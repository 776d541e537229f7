//! Who is woken when the log grows. A log says that something grew; here each partition's task is told of its own, so that
//! a node that follows many is not woken by all of them for each record of any.

use std::sync::Arc;

use engine::position::Partition;
use engine::saga::Reactor;
use tokio::sync::watch;

use super::shared::Shared;

/// A channel for one more partition.
pub(super) fn of_one(growths: &mut Vec<watch::Sender<u64>>) -> watch::Receiver<u64> {
    let (sender, receiver) = watch::channel(0);
    growths.push(sender);
    receiver
}

/// The task that passes growth on, until the node stops.
pub(super) async fn tell<R: Reactor>(
    shared: Arc<Shared<R>>,
    mut grown: watch::Receiver<u64>,
    growths: Vec<watch::Sender<u64>>,
) {
    let stop = shared.stop.clone();
    loop {
        grown.borrow_and_update();
        for (partition, growth) in (0..).map(Partition).zip(&growths) {
            let end = shared.log.end(partition).0;
            growth.send_if_modified(|told| std::mem::replace(told, end) != end);
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = grown.changed() => if changed.is_err() { return },
        }
    }
}
