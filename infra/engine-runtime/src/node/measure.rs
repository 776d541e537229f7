//! How full a node is: the depth of each of its queues and caches, looked up when somebody scrapes, so that no command pays
//! for it. What each of them holds at most is in docs/limits.md.

use engine::saga::Reactor;
use metrics::{counter, gauge};

use super::Node;

impl<R: Reactor> Node<R> {
    /// Sets the gauges of what waits and of what is kept: to be called by whoever renders metrics, right before.
    pub fn measure(&self) {
        let shared = &self.running.shared;
        let waiting = shared.doors.iter().map(|door| door.knocks.max_capacity() - door.knocks.capacity());
        let (all, most) = waiting.fold((0, 0), |(all, most), one| (all + one, most.max(one)));
        gauge!("docket_commands_waiting").set(all as f64);
        gauge!("docket_commands_waiting_fullest").set(most as f64);
        gauge!("docket_lookups_waiting").set(shared.loader.waiting() as f64);
        gauge!("docket_saves_waiting").set(shared.saver.waiting() as f64);
        gauge!("docket_index_waiters").set(shared.saver.waiters().count() as f64);
        let (ready, later) = shared.errands.waiting();
        gauge!("docket_errands_waiting", "when" => "now").set(ready as f64);
        gauge!("docket_errands_waiting", "when" => "later").set(later as f64);
        let (open, most) = shared.errands.open().fold((0, 0), |(all, most), one| (all + one, most.max(one)));
        gauge!("docket_sagas_open").set(open as f64);
        gauge!("docket_sagas_open_fullest").set(most as f64);
        gauge!("docket_errands_late_seconds").set(shared.errands.late().as_secs_f64());
        let forwards = shared.options.forwards_max.saturating_sub(shared.forwards.available_permits());
        gauge!("docket_forwards_under_way").set(forwards as f64);
        gauge!("docket_history_reads").set(shared.history.reading() as f64);
        shared.cache.measure();
        shared.store.measure();
        // What has not happened yet is told as 0, so that it can be watched.
        for rare in
            ["docket_commands_turned_away_total", "docket_sagas_turned_away_total", "docket_index_waits_in_vain_total"]
        {
            counter!(rare).increment(0);
        }
    }
}
