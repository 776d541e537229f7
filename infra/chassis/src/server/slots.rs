//! How many connections there are, in all and per address, and which of them are given up when there is no room for
//! another: those that have been idle the longest. A client may keep thousands open, and must not keep others out by it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::activity::Activity;

/// A connection is idle, and not just between two requests, after this long.
const IDLE_MIN: Duration = Duration::from_secs(1);
/// One in so many is given up at once: looking at all of them for each newcomer would cost more than they do.
const GIVEN_UP_SHARE: usize = 64;

/// The places for connections.
#[derive(Clone)]
pub(super) struct Slots(Arc<Shared>);

struct Shared {
    total_max: usize,
    per_address_max: usize,
    taken: Mutex<Taken>,
    /// One of those that were told to close has done so.
    left: Notify,
}

#[derive(Default)]
struct Taken {
    /// All that are open, by number.
    connections: HashMap<u64, Open>,
    /// Told to close, and about to.
    leaving: usize,
    numbered: u64,
    /// Addresses with a connection; loopback is not counted.
    by_address: HashMap<IpAddr, usize>,
}

/// An open connection.
struct Open {
    activity: Arc<Activity>,
    close: CancellationToken,
    leaving: bool,
}

impl Slots {
    pub(super) fn new(total_max: usize, per_address_max: usize) -> Self {
        Self(Arc::new(Shared { total_max, per_address_max, taken: Mutex::default(), left: Notify::new() }))
    }

    /// A place for a connection from `address`, until dropped; `None` if there is none left. `close` closes it.
    pub(super) fn take(
        &self,
        address: IpAddr,
        activity: &Arc<Activity>,
        close: &CancellationToken,
        gauge: metrics::Gauge,
    ) -> Option<Slot> {
        let address = address.to_canonical();
        let counted = (!address.is_loopback()).then_some(address);
        let mut taken = self.taken();
        if taken.staying() >= self.0.total_max {
            taken.give_up_idle(self.0.total_max.div_ceil(GIVEN_UP_SHARE));
        }
        if taken.staying() >= self.0.total_max {
            return None;
        }
        if let Some(address) = counted {
            let of_address = taken.by_address.entry(address).or_insert(0);
            if *of_address >= self.0.per_address_max {
                return None;
            }
            *of_address += 1;
        }
        taken.numbered += 1;
        let number = taken.numbered;
        let open = Open { activity: Arc::clone(activity), close: close.clone(), leaving: false };
        taken.connections.insert(number, open);
        gauge.increment(1);
        Some(Slot { slots: self.clone(), number, address: counted, gauge })
    }

    /// Waits until those that were told to close leave no more open than there may be: until then they have their files,
    /// and on a busy machine many newcomers could come before one of them has heard it. For one caller at a time.
    pub(super) async fn made_room(&self) {
        while self.taken().connections.len() > self.0.total_max {
            self.0.left.notified().await;
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Counting cannot panic half-way.
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn staying(&self) -> usize {
        self.connections.len() - self.leaving
    }

    /// Closes up to `count` that have been idle the longest.
    fn give_up_idle(&mut self, count: usize) {
        let now = Instant::now();
        let mut idle = self
            .connections
            .iter()
            .filter(|(_, open)| !open.leaving)
            .map(|(number, open)| (open.activity.idle_for(now), *number))
            .filter(|(idle_for, _)| *idle_for >= IDLE_MIN)
            .collect::<Vec<_>>();
        idle.sort_unstable_by_key(|(idle_for, _)| std::cmp::Reverse(*idle_for));
        for (_, number) in idle.into_iter().take(count) {
            if let Some(open) = self.connections.get_mut(&number) {
                open.leaving = true;
                open.close.cancel();
                self.leaving += 1;
            }
        }
    }
}

/// A place that is taken.
pub(super) struct Slot {
    slots: Slots,
    number: u64,
    address: Option<IpAddr>,
    gauge: metrics::Gauge,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken();
        if taken.connections.remove(&self.number).is_some_and(|open| open.leaving) {
            taken.leaving -= 1;
            self.slots.0.left.notify_one();
        }
        if let Some(address) = self.address
            && let Some(of_address) = taken.by_address.get_mut(&address)
        {
            *of_address -= 1;
            if *of_address == 0 {
                taken.by_address.remove(&address);
            }
        }
        self.gauge.decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::server::Limits;

    fn take(slots: &Slots, address: &str) -> Option<Slot> {
        take_with(slots, address, &Arc::new(Activity::new(Instant::now(), &Limits::DEFAULT))).map(|(slot, _)| slot)
    }

    fn take_with(slots: &Slots, address: &str, activity: &Arc<Activity>) -> Option<(Slot, CancellationToken)> {
        let close = CancellationToken::new();
        let slot = slots.take(address.parse().unwrap(), activity, &close, metrics::Gauge::noop())?;
        Some((slot, close))
    }

    #[tokio::test]
    async fn an_address_has_its_share_and_gets_it_back() {
        let slots = Slots::new(10, 2);
        let first = take(&slots, "192.0.2.1").unwrap();
        let _second = take(&slots, "192.0.2.1").unwrap();
        assert!(take(&slots, "192.0.2.1").is_none());
        assert!(take(&slots, "::ffff:192.0.2.1").is_none(), "the same address in other clothes");
        assert!(take(&slots, "192.0.2.2").is_some());
        drop(first);
        assert!(take(&slots, "192.0.2.1").is_some());
    }

    #[tokio::test]
    async fn loopback_has_no_share_but_counts_in_all() {
        let slots = Slots::new(3, 1);
        let held = (0..3).map(|_| take(&slots, "127.0.0.1").unwrap()).collect::<Vec<_>>();
        assert!(take(&slots, "127.0.0.1").is_none());
        drop(held);
        assert!(take(&slots, "::1").is_some());
        assert!(slots.taken().by_address.is_empty());
        assert!(slots.taken().connections.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_makes_room_and_nobody_who_is_busy() {
        const MOMENT: Duration = Duration::from_millis(1);
        let slots = Slots::new(2, 2);
        let activity = || Arc::new(Activity::new(Instant::now(), &Limits::DEFAULT));
        let busy = activity();
        busy.request_began();
        let (_busy, busy_close) = take_with(&slots, "127.0.0.1", &busy).unwrap();
        let (idle, idle_close) = take_with(&slots, "127.0.0.1", &activity()).unwrap();
        assert!(take(&slots, "127.0.0.1").is_none(), "just between two requests, perhaps");
        tokio::time::advance(IDLE_MIN * 2).await;
        let newcomer = take(&slots, "127.0.0.1").unwrap();
        assert!(idle_close.is_cancelled() && !busy_close.is_cancelled());
        assert!(take(&slots, "127.0.0.1").is_none(), "what leaves makes room once");
        assert!(timeout(MOMENT, slots.made_room()).await.is_err(), "nobody has left yet");
        drop(idle);
        timeout(MOMENT, slots.made_room()).await.expect("it has left");
        assert!(take(&slots, "127.0.0.1").is_none());
        drop(newcomer);
        assert!(take(&slots, "127.0.0.1").is_some());
        assert_eq!(slots.taken().leaving, 0);
    }
}
