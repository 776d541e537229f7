//! Those who wait until something has come so far in a partition. Each is woken once, when its own place is reached:
//! however many wait, what moves on wakes only those whom it concerns.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use engine::position::{Offset, Partition, Position};
use parking_lot::Mutex;
use tokio::sync::oneshot;

type Seats = BTreeMap<(Partition, Offset, u64), oneshot::Sender<()>>;

/// Who waits for which record.
#[derive(Default)]
pub(crate) struct Waiters {
    seats: Mutex<Seats>,
    number: AtomicU64,
}

/// One who waits. Dropping it is all there is to leaving.
pub(crate) struct Waiter<'a> {
    waiters: &'a Waiters,
    seat: (Partition, Offset, u64),
    woken: oneshot::Receiver<()>,
}

impl Waiters {
    /// Takes a seat. Whoever does looks *afterwards* whether the record is there already, so that no wake is missed.
    pub(crate) fn wait_for(&self, position: Position) -> Waiter<'_> {
        let (wake, woken) = oneshot::channel();
        let seat = (position.partition, position.offset, self.number.fetch_add(1, Ordering::Relaxed));
        self.seats.lock().insert(seat, wake);
        Waiter { waiters: self, seat, woken }
    }

    /// Wakes everybody whose record is before its partition's next offset. To be called after that shows.
    pub(crate) fn wake(&self, next: impl Fn(Partition) -> Offset) {
        let mut seats = self.seats.lock();
        let mut partition = seats.first_key_value().map(|(seat, _)| seat.0);
        while let Some(at) = partition {
            let here = seats.range((at, Offset(0), 0)..(at, next(at), 0)).map(|(seat, _)| *seat).collect::<Vec<_>>();
            for wake in here.iter().filter_map(|seat| seats.remove(seat)) {
                // Who left in this moment does not need it.
                let _ = wake.send(());
            }
            let beyond = (Partition(at.0.saturating_add(1)), Offset(0), 0);
            partition = seats.range(beyond..).next().map(|(seat, _)| seat.0).filter(|other| *other != at);
        }
    }

    /// How many wait.
    pub(crate) fn count(&self) -> usize {
        self.seats.lock().len()
    }
}

impl Waiter<'_> {
    /// Waits to be woken.
    pub(crate) async fn woken(&mut self) {
        // Nobody takes a seat away without waking who sits there.
        let _ = (&mut self.woken).await;
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.waiters.seats.lock().remove(&self.seat);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn at(partition: u16, offset: u64) -> Position {
        Position { partition: Partition(partition), offset: Offset(offset) }
    }

    #[test]
    fn of_a_thousand_who_wait_only_those_are_woken_whose_record_came() {
        let waiters = Waiters::default();
        let mut seated: Vec<Waiter<'_>> = (0..1_000).map(|n| waiters.wait_for(at((n % 4) as u16, n / 4))).collect();
        let woken = |seated: &mut Vec<Waiter<'_>>| {
            let mut count = 0;
            for waiter in seated.iter_mut() {
                count += usize::from(waiter.woken.try_recv().is_ok());
            }
            count
        };
        waiters.wake(|partition| Offset(if partition == Partition(2) { 10 } else { 0 }));
        assert_eq!((woken(&mut seated), waiters.count()), (10, 990));
        waiters.wake(|partition| Offset(if partition == Partition(2) { 10 } else { 0 }));
        assert_eq!(woken(&mut seated), 0, "nobody is woken twice");
        waiters.wake(|_| Offset(250));
        assert_eq!((woken(&mut seated), waiters.count()), (990, 0));
    }

    #[test]
    fn who_leaves_is_forgotten() {
        let waiters = Waiters::default();
        let (one, other) = (waiters.wait_for(at(1, 5)), waiters.wait_for(at(1, 5)));
        drop(one);
        assert_eq!(waiters.count(), 1);
        drop(other);
        assert_eq!(waiters.count(), 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_thousand_tasks_are_all_woken_in_the_end() {
        let waiters = Arc::new(Waiters::default());
        let reached = Arc::new(AtomicU64::new(0));
        let tasks = (0..1_000_u64).map(|n| {
            let (waiters, reached) = (Arc::clone(&waiters), Arc::clone(&reached));
            tokio::spawn(async move {
                let mut waiter = waiters.wait_for(at(0, n));
                if reached.load(Ordering::SeqCst) <= n {
                    waiter.woken().await;
                }
                assert!(reached.load(Ordering::SeqCst) > n, "woken before its time");
            })
        });
        let tasks = tasks.collect::<Vec<_>>();
        for next in 1..=1_000 {
            reached.store(next, Ordering::SeqCst);
            waiters.wake(|_| Offset(next));
            tokio::task::yield_now().await;
        }
        for task in tasks {
            task.await.expect("it was woken in time");
        }
        assert_eq!(waiters.count(), 0);
    }
}
