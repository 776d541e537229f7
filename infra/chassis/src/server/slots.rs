//! How many connections there are, in all and per address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The places for connections.
#[derive(Clone)]
pub(super) struct Slots(Arc<Shared>);

struct Shared {
    total_max: usize,
    per_address_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    total: usize,
    /// Addresses with a connection; loopback is not counted.
    by_address: HashMap<IpAddr, usize>,
}

impl Slots {
    pub(super) fn new(total_max: usize, per_address_max: usize) -> Self {
        Self(Arc::new(Shared { total_max, per_address_max, taken: Mutex::default() }))
    }

    /// A place for a connection from `address`, until dropped; `None` if there is none left.
    pub(super) fn take(&self, address: IpAddr, gauge: metrics::Gauge) -> Option<Slot> {
        let address = address.to_canonical();
        let counted = (!address.is_loopback()).then_some(address);
        let mut taken = self.taken();
        if taken.total >= self.0.total_max {
            return None;
        }
        if let Some(address) = counted {
            let of_address = taken.by_address.entry(address).or_insert(0);
            if *of_address >= self.0.per_address_max {
                return None;
            }
            *of_address += 1;
        }
        taken.total += 1;
        gauge.increment(1);
        Some(Slot { slots: self.clone(), address: counted, gauge })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Counting cannot panic half-way.
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place that is taken.
pub(super) struct Slot {
    slots: Slots,
    address: Option<IpAddr>,
    gauge: metrics::Gauge,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken();
        taken.total -= 1;
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
    use super::*;

    fn take(slots: &Slots, address: &str) -> Option<Slot> {
        slots.take(address.parse().unwrap(), metrics::Gauge::noop())
    }

    #[test]
    fn an_address_has_its_share_and_gets_it_back() {
        let slots = Slots::new(10, 2);
        let first = take(&slots, "192.0.2.1").unwrap();
        let _second = take(&slots, "192.0.2.1").unwrap();
        assert!(take(&slots, "192.0.2.1").is_none());
        assert!(take(&slots, "::ffff:192.0.2.1").is_none(), "the same address in other clothes");
        assert!(take(&slots, "192.0.2.2").is_some());
        drop(first);
        assert!(take(&slots, "192.0.2.1").is_some());
    }

    #[test]
    fn loopback_has_no_share_but_counts_in_all() {
        let slots = Slots::new(3, 1);
        let held = (0..3).map(|_| take(&slots, "127.0.0.1").unwrap()).collect::<Vec<_>>();
        assert!(take(&slots, "127.0.0.1").is_none());
        drop(held);
        assert!(take(&slots, "::1").is_some());
        assert!(slots.taken().by_address.is_empty());
        assert_eq!(slots.taken().total, 0);
    }
}
