//! When requests are due. A closed loop's are due at once; an open loop's at fixed times from the start, woken by a thread
//! of its own because the runtime's timer is a millisecond coarse, which would be most of what is measured.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

/// Most that the pacing thread sleeps, so that it notices the end.
const NAP: Duration = Duration::from_millis(100);

/// Reads a rate: `500/s` or `500`.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    match number.parse::<f64>() {
        // A million a second is beyond what one machine asks.
        Ok(rate) if rate > 0.0 && rate <= 1e6 => Ok(rate),
        _ => Err("write a rate such as 500/s".to_owned()),
    }
}

/// When requests are due, and until when.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Option<f64>,
    /// Requests there are at most.
    count: Option<u64>,
    /// From the start, warm-up included.
    lasting: Option<Duration>,
    warmup: Duration,
    start: OnceLock<Instant>,
    next: AtomicU64,
    due: Semaphore,
    finished: AtomicBool,
    /// Requests answered so far, for those who watch.
    pub(super) answered: AtomicU64,
}

/// One request's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// Which request, from 0.
    pub(super) number: u64,
    /// When it is due: latency counts from here.
    pub(super) due: Instant,
    /// Whether it counts: not while warming up.
    pub(super) measured: bool,
}

impl Pace {
    /// A closed loop without a rate, an open one with it.
    pub(super) fn new(rate: Option<f64>, lasting: Option<Duration>, count: Option<u64>, warmup: Duration) -> Arc<Self> {
        let lasting = lasting.map(|lasting| lasting + warmup);
        // An open loop knows beforehand how many there will be.
        let count = match (rate, lasting) {
            (Some(rate), Some(lasting)) => {
                Some(count.unwrap_or(u64::MAX).min((rate * lasting.as_secs_f64()).ceil() as u64))
            }
            _ => count,
        };
        Arc::new(Self {
            rate,
            count,
            lasting,
            warmup,
            start: OnceLock::new(),
            next: AtomicU64::new(0),
            due: Semaphore::new(0),
            finished: AtomicBool::new(false),
            answered: AtomicU64::new(0),
        })
    }

    /// Starts the clock. In an open loop, requests that are still late this long after the last was due are not sent.
    pub(super) fn begin(self: &Arc<Self>, grace: Duration) {
        let start = *self.start.get_or_init(Instant::now);
        if self.rate.is_none() {
            self.due.close();
            return;
        }
        let pace = Arc::clone(self);
        // A thread that cannot be had leaves nobody to say what is due: end rather than hang.
        let pacing = std::thread::Builder::new().name("pace".to_owned()).spawn(move || pace.wake(start, grace));
        if pacing.is_err() {
            self.finish();
        }
    }

    /// Wakes clients whenever a request is due.
    fn wake(&self, start: Instant, grace: Duration) {
        let mut woken = 0_u64;
        while !self.is_finished() {
            let by_now = self.due_after(start.elapsed()).min(self.count.unwrap_or(u64::MAX));
            if by_now > woken {
                self.due.add_permits((by_now - woken) as usize);
                woken = by_now;
            }
            if self.count.is_some_and(|count| woken >= count) {
                break;
            }
            let next = start + self.offset(woken);
            std::thread::sleep(next.saturating_duration_since(Instant::now()).min(NAP));
        }
        let deadline = Instant::now() + grace;
        while !self.is_finished() && Instant::now() < deadline {
            if self.count.is_some_and(|count| self.next.load(Ordering::Relaxed) >= count) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.due.close();
    }

    /// How many requests are due after this long.
    fn due_after(&self, elapsed: Duration) -> u64 {
        self.rate.map_or(u64::MAX, |rate| (elapsed.as_secs_f64() * rate).floor() as u64 + 1)
    }

    /// When a request is due, from the start.
    fn offset(&self, number: u64) -> Duration {
        self.rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(number as f64 / rate))
    }

    /// Waits until a request is due; `None` when there are no more.
    pub(super) async fn turn(&self) -> Option<Turn> {
        if self.rate.is_some() {
            self.due.acquire().await.ok()?.forget();
        } else {
            // Closed as soon as the clock runs: nobody starts before.
            let _ = self.due.acquire().await;
        }
        let start = *self.start.get()?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if self.count.is_some_and(|count| number >= count) {
            return None;
        }
        let due = if self.rate.is_some() { start + self.offset(number) } else { Instant::now() };
        let since = due.saturating_duration_since(start);
        if self.rate.is_none() && self.lasting.is_some_and(|lasting| since >= lasting) {
            return None;
        }
        Some(Turn { number, due, measured: since >= self.warmup })
    }

    /// When measuring began.
    pub(super) fn measured_from(&self) -> Instant {
        self.start.get().map_or_else(Instant::now, |start| *start + self.warmup)
    }

    /// How long it has been running.
    pub(super) fn elapsed(&self) -> Duration {
        self.start.get().map_or(Duration::ZERO, Instant::elapsed)
    }

    /// Requests that were due and never sent: the server was too far behind.
    pub(super) fn never_sent(&self) -> u64 {
        match (self.rate, self.count) {
            (Some(_), Some(count)) => count.saturating_sub(self.next.load(Ordering::Relaxed)),
            _ => 0,
        }
    }

    /// When these were due, at most a million of them: more would take longer to count than to understand.
    pub(super) fn never_sent_due(&self) -> impl Iterator<Item = Instant> + '_ {
        let first = self.next.load(Ordering::Relaxed);
        let start = self.start.get().copied();
        let numbers = first..first + self.never_sent().min(1_000_000);
        numbers.filter_map(move |number| Some(start? + self.offset(number)))
    }

    /// Says that all clients are done.
    pub(super) fn finish(&self) {
        self.finished.store(true, Ordering::Relaxed);
        self.due.close();
    }

    /// Whether all clients are done.
    pub(super) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn rates_are_read_with_or_without_their_unit() {
        assert_eq!(rate("500/s"), Ok(500.0));
        assert_eq!(rate("0.5"), Ok(0.5));
        for wrong in ["", "0", "-1", "fast", "500/m", "NaN", "inf"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_open_loop_is_due_at_fixed_times() {
        let pace = Pace::new(Some(500.0), Some(2 * SECOND), None, Duration::ZERO);
        assert_eq!(pace.count, Some(1000));
        assert_eq!(pace.offset(0), Duration::ZERO);
        assert_eq!(pace.offset(250), SECOND / 2);
        assert_eq!(pace.due_after(Duration::ZERO), 1);
        assert_eq!(pace.due_after(Duration::from_millis(2)), 2);
        assert_eq!(pace.due_after(SECOND), 501);
    }

    #[test]
    fn warming_up_comes_before_what_is_measured() {
        let pace = Pace::new(Some(100.0), Some(2 * SECOND), None, SECOND);
        assert_eq!(pace.count, Some(300));
        assert_eq!(Pace::new(Some(100.0), Some(2 * SECOND), Some(7), SECOND).count, Some(7));
    }

    #[tokio::test]
    async fn turns_are_given_once_each_and_end() {
        let pace = Pace::new(Some(1000.0), None, Some(20), Duration::from_millis(10));
        pace.begin(SECOND);
        let mut turns = Vec::new();
        while let Some(turn) = pace.turn().await {
            turns.push(turn);
            if turns.len() == 20 {
                pace.finish();
            }
        }
        let start = turns[0].due;
        for (number, turn) in turns.iter().enumerate() {
            assert_eq!(turn.number, number as u64);
            assert_eq!(turn.due - start, Duration::from_millis(number as u64));
            assert_eq!(turn.measured, number >= 10, "{number}");
            assert!(Instant::now() >= turn.due);
        }
        assert_eq!(turns.len(), 20);
    }

    /// The heart of an open loop: who is served late is late from when it was due, not from when it was sent.
    #[tokio::test]
    async fn a_late_turn_was_due_when_it_was_due() {
        let pace = Pace::new(Some(1000.0), None, Some(100), Duration::ZERO);
        pace.begin(SECOND);
        let first = pace.turn().await.unwrap();
        let stalled = Duration::from_millis(60);
        tokio::time::sleep(stalled).await;
        let second = pace.turn().await.unwrap();
        assert_eq!(second.due - first.due, Duration::from_millis(1));
        assert!(second.due.elapsed() >= stalled - Duration::from_millis(1));
        pace.finish();
    }

    #[tokio::test]
    async fn a_closed_loop_ends_with_its_count() {
        let pace = Pace::new(None, None, Some(3), Duration::ZERO);
        pace.begin(SECOND);
        let mut numbers = Vec::new();
        while let Some(turn) = pace.turn().await {
            numbers.push(turn.number);
        }
        assert_eq!(numbers, [0, 1, 2]);
        assert_eq!(pace.never_sent(), 0);
    }
}
