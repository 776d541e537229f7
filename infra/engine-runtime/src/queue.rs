//! A queue between async tasks and plain threads: pushed to without waiting, taken from in batches, so that a thread that
//! falls behind catches up by taking more at once. Its callers bound what can be in it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// A queue whose takers block.
pub(crate) struct Queue<T> {
    inner: Mutex<Inner<T>>,
    filled: Condvar,
}

struct Inner<T> {
    items: VecDeque<T>,
    closed: bool,
    /// Somebody waits for what is in it.
    urgent: bool,
    /// Somebody lets this many gather.
    gathering: Option<usize>,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self {
            inner: Mutex::new(Inner { items: VecDeque::new(), closed: false, urgent: false, gathering: None }),
            filled: Condvar::new(),
        }
    }

    /// Adds these, in order. What is pushed after closing is dropped.
    pub(crate) fn push_all(&self, items: impl IntoIterator<Item = T>) {
        let mut inner = self.inner.lock();
        if inner.closed {
            return;
        }
        inner.items.extend(items);
        // Whoever lets things gather is not woken for each of them.
        let wake = inner.gathering.is_none_or(|max| inner.items.len() >= max);
        drop(inner);
        if wake {
            self.filled.notify_one();
        }
    }

    /// Adds this; takers that let things gather stop doing so.
    pub(crate) fn push_urgent(&self, item: T) {
        let mut inner = self.inner.lock();
        if inner.closed {
            return;
        }
        inner.items.push_back(item);
        inner.urgent = true;
        drop(inner);
        self.filled.notify_one();
    }

    /// Somebody waits for what is in it: takers that let things gather stop doing so.
    pub(crate) fn hurry(&self) {
        let mut inner = self.inner.lock();
        if inner.items.is_empty() {
            return;
        }
        inner.urgent = true;
        drop(inner);
        self.filled.notify_one();
    }

    /// As [`Self::take`], but once there is something lets more gather for as long as `gather` then says, or until there
    /// are `max`, or somebody is in a hurry. For a queue with one taker.
    pub(crate) fn take_gathered(&self, max: usize, gather: impl FnOnce() -> Duration, into: &mut Vec<T>) -> bool {
        let mut inner = self.inner.lock();
        while inner.items.is_empty() {
            if inner.closed {
                return false;
            }
            self.filled.wait(&mut inner);
        }
        let until = Instant::now() + gather();
        inner.gathering = Some(max);
        while inner.items.len() < max && !inner.urgent && !inner.closed {
            if self.filled.wait_until(&mut inner, until).timed_out() {
                break;
            }
        }
        inner.gathering = None;
        let count = inner.items.len().min(max);
        into.extend(inner.items.drain(..count));
        inner.urgent &= !inner.items.is_empty();
        true
    }

    /// Blocks until there is something and moves up to `max` of it to `into`. False once closed and empty.
    pub(crate) fn take(&self, max: usize, into: &mut Vec<T>) -> bool {
        let mut inner = self.inner.lock();
        while inner.items.is_empty() {
            if inner.closed {
                return false;
            }
            self.filled.wait(&mut inner);
        }
        let count = inner.items.len().min(max);
        into.extend(inner.items.drain(..count));
        if !inner.items.is_empty() {
            // Several takers: the rest is for another one.
            self.filled.notify_one();
        }
        true
    }

    /// How much is in it.
    pub(crate) fn len(&self) -> usize {
        self.inner.lock().items.len()
    }

    /// No more comes; takers end when what is there is taken.
    pub(crate) fn close(&self) {
        self.inner.lock().closed = true;
        self.filled.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_in_a_hurry_is_not_kept_waiting() {
        let queue = Queue::new();
        queue.push_all([1, 2]);
        queue.push_urgent(3);
        let (mut taken, began) = (Vec::new(), Instant::now());
        assert!(queue.take_gathered(10, || Duration::from_secs(60), &mut taken));
        assert_eq!(taken, [1, 2, 3]);
        assert!(began.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn what_gathers_is_given_at_once_to_who_waits_for_it() {
        let queue = Queue::new();
        queue.hurry();
        let (mut taken, began) = (Vec::new(), Instant::now());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                queue.push_all([1]);
                queue.hurry();
            });
            assert!(queue.take_gathered(10, || Duration::from_secs(60), &mut taken));
        });
        assert_eq!(taken, [1]);
        assert!(began.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn a_closed_queue_gives_what_is_left_and_ends() {
        let queue = Queue::new();
        queue.push_all([1, 2, 3]);
        queue.close();
        queue.push_all([4]);
        let mut taken = Vec::new();
        assert!(queue.take(2, &mut taken));
        assert!(queue.take_gathered(2, || Duration::from_secs(60), &mut taken));
        assert_eq!(taken, [1, 2, 3]);
        assert!(!queue.take(2, &mut taken));
        assert!(!queue.take_gathered(2, || Duration::ZERO, &mut taken));
    }
}
