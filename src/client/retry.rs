//! How long to wait before asking again: twice as long each time, never for ever, and never in step with the others.

use std::time::Duration;

use rand::RngExt;

/// First pause.
const FIRST: Duration = Duration::from_millis(100);
/// Longest pause of our own choice; a server may ask for more.
const LONGEST: Duration = Duration::from_secs(2);
/// Longest pause a server is granted.
const GRANTED: Duration = Duration::from_secs(5);

/// The pauses between tries.
#[derive(Clone, Debug)]
pub(crate) struct Pauses {
    left: u32,
    next: Duration,
}

impl Pauses {
    /// Eight pauses, about ten seconds in all: a server that restarts is waited for, a person is not kept for ever.
    pub(crate) fn patient() -> Self {
        Self { left: 8, next: FIRST }
    }

    /// Pauses until something else ends it.
    pub(crate) fn endless() -> Self {
        Self { left: u32::MAX, next: FIRST }
    }

    /// Eight pauses of no length to speak of.
    #[cfg(test)]
    pub(super) fn hasty() -> Self {
        Self { next: Duration::ZERO, ..Self::patient() }
    }

    /// The next pause, at least what the server asked for; `None` when it is time to give up.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        let own = self.next.mul_f64(rand::rng().random_range(0.75..1.25));
        self.next = (self.next * 2).min(LONGEST);
        Some(own.max(asked.unwrap_or_default().min(GRANTED)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let mut pauses = Pauses::patient();
        let all = std::iter::from_fn(|| pauses.next(None)).collect::<Vec<_>>();
        assert_eq!(all.len(), 8);
        assert!(all[0] >= Duration::from_millis(75) && all[0] <= Duration::from_millis(125));
        assert!(all.iter().all(|pause| *pause <= LONGEST.mul_f64(1.25)));
        assert!(all[3] > all[0] * 3);
    }

    #[test]
    fn a_server_may_ask_for_more_within_reason() {
        assert!(Pauses::patient().next(Some(Duration::from_secs(3))) >= Some(Duration::from_secs(3)));
        assert_eq!(Pauses::patient().next(Some(Duration::from_secs(3600))), Some(GRANTED));
    }
}
