//! The contract suites are tried themselves: an adapter with a mistake in it is told so, and which promise it broke.

#![allow(clippy::unwrap_used, reason = "a test stops where it is surprised")]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use engine::contract::read_store::CaseFuture;
use engine::contract::{self, LogFixture, StoreFixture};
use engine::log::{Appender, Delivery, DeliverySink, Log, LogFault, Stored, WakerGuard};
use engine::memory::{MemoryLog, MemoryReadStore};
use engine::position::{Checkpoint, LogId, Offset, Partition};
use engine::read_store::{Batch, Query, ReadStore, StoreFuture};
use engine::record::Genesis;
use engine::time::Timestamp;
use engine::view::{Row, RowKey};
use uuid::Uuid;

/// Whether a case notices.
fn notices(case: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(case)).is_err()
}

#[derive(Clone, Copy, PartialEq)]
enum LogMistake {
    TellsTheOffsetBefore,
    DeliversTwice,
    DeliversLastFirst,
    TakesWhatIsTooLarge,
    PutsAllInOnePartition,
    SkipsARecordWhenReading,
    ReadsNothingLarge,
    ReadsBeyondItsBytes,
    ShowsTheEndTooEarly,
    KeepsDroppedWakers,
    CutsZerosOff,
    ForgetsWhenClosed,
}

struct MistakenLog {
    log: MemoryLog,
    mistake: LogMistake,
    /// Guards that should have gone.
    kept: Arc<Mutex<Vec<WakerGuard>>>,
}

struct MistakenAppender {
    appender: Box<dyn Appender>,
    mistake: LogMistake,
}

struct MistakenSink {
    sink: Arc<dyn DeliverySink>,
    mistake: LogMistake,
    held: Mutex<Vec<Delivery>>,
}

impl Log for MistakenLog {
    fn id(&self) -> LogId {
        self.log.id()
    }

    fn partitions(&self) -> u16 {
        self.log.partitions()
    }

    fn appender(&self, partition: Partition, sink: Arc<dyn DeliverySink>) -> Box<dyn Appender> {
        let mistake = self.mistake;
        let partition = if mistake == LogMistake::PutsAllInOnePartition { Partition(0) } else { partition };
        let sink = Arc::new(MistakenSink { sink, mistake, held: Mutex::default() });
        Box::new(MistakenAppender { appender: self.log.appender(partition, sink), mistake })
    }

    fn read(&self, partition: Partition, from: Offset, bytes_max: usize) -> Result<Vec<Stored>, LogFault> {
        let bytes_max = if self.mistake == LogMistake::ReadsBeyondItsBytes { usize::MAX } else { bytes_max };
        let mut found = self.log.read(partition, from, bytes_max)?;
        match self.mistake {
            LogMistake::SkipsARecordWhenReading if found.len() > 2 => drop(found.remove(1)),
            LogMistake::ReadsNothingLarge => found.retain(|stored| stored.bytes.len() <= bytes_max),
            _ => {}
        }
        Ok(found)
    }

    fn end(&self, partition: Partition) -> Offset {
        let end = self.log.end(partition);
        if self.mistake == LogMistake::ShowsTheEndTooEarly { end.next() } else { end }
    }

    fn on_append(&self, waker: Arc<dyn Fn() + Send + Sync>) -> WakerGuard {
        let guard = self.log.on_append(waker);
        if self.mistake != LogMistake::KeepsDroppedWakers {
            return guard;
        }
        let kept = self.kept.clone();
        WakerGuard::new(move || kept.lock().unwrap().push(guard))
    }
}

impl Appender for MistakenAppender {
    fn append(&mut self, tag: u64, record: Bytes) {
        let record = match self.mistake {
            LogMistake::TakesWhatIsTooLarge if record.len() > engine::log::RECORD_BYTES_MAX => {
                Bytes::from_static(b"cut")
            }
            LogMistake::CutsZerosOff if record.last() == Some(&0) => record.slice(..record.len() - 1),
            _ => record,
        };
        self.appender.append(tag, record);
    }
}

impl DeliverySink for MistakenSink {
    fn delivered(&self, mut deliveries: Vec<Delivery>) {
        match self.mistake {
            LogMistake::TellsTheOffsetBefore => {
                for delivery in &mut deliveries {
                    delivery.result = delivery.result.map(|offset| offset.map(|offset| Offset(offset.0 - 1)));
                }
            }
            LogMistake::DeliversTwice => deliveries.extend(deliveries.clone()),
            LogMistake::DeliversLastFirst => {
                // Holds one back until the next has gone.
                let mut held = self.held.lock().unwrap();
                if deliveries.iter().any(|delivery| delivery.tag == 100) && held.is_empty() {
                    held.append(&mut deliveries);
                    return;
                }
                deliveries.append(&mut held);
            }
            _ => {}
        }
        self.sink.delivered(deliveries);
    }
}

fn genesis() -> Genesis {
    Genesis {
        log: LogId(Uuid::from_u128(1)),
        partitions: 4,
        placement_rule: 1,
        format: 1,
        fingerprint_key: [7; 32],
        created_at: Timestamp(1),
    }
}

fn mistaken_log(mistake: LogMistake) -> Arc<dyn Log> {
    Arc::new(MistakenLog { log: MemoryLog::new(genesis()), mistake, kept: Arc::default() })
}

fn log_is_told(mistake: LogMistake, promise: &str) {
    let make = || LogFixture {
        log: mistaken_log(mistake),
        genesis: genesis(),
        reopen: Some(Box::new(
            move |log| if mistake == LogMistake::ForgetsWhenClosed { mistaken_log(mistake) } else { log },
        )),
        keep: Box::new(()),
    };
    let cases = contract::log::log_cases();
    let case = cases.iter().find(|case| case.name == promise).expect("there is such a promise");
    assert!(notices(|| (case.run)(make())), "{promise} does not notice");
}

#[test]
fn a_log_that_tells_wrong_offsets_is_told() {
    log_is_told(LogMistake::TellsTheOffsetBefore, "the_first_record_lies_after_the_genesis");
}

#[test]
fn a_log_that_delivers_twice_is_told() {
    log_is_told(LogMistake::DeliversTwice, "every_append_is_delivered_exactly_once");
}

#[test]
fn a_log_that_delivers_out_of_order_is_told() {
    log_is_told(LogMistake::DeliversLastFirst, "every_append_is_delivered_exactly_once");
}

#[test]
fn a_log_that_takes_what_is_too_large_is_told() {
    log_is_told(LogMistake::TakesWhatIsTooLarge, "a_record_one_byte_too_large_is_refused");
}

#[test]
fn a_log_that_mixes_partitions_up_is_told() {
    log_is_told(LogMistake::PutsAllInOnePartition, "records_stay_in_their_partition");
}

#[test]
fn a_log_whose_reads_have_gaps_is_told() {
    log_is_told(LogMistake::SkipsARecordWhenReading, "a_read_from_any_offset_gives_what_follows");
}

#[test]
fn a_log_whose_reads_stop_at_a_large_record_is_told() {
    log_is_told(LogMistake::ReadsNothingLarge, "a_read_gives_at_least_one_record");
}

#[test]
fn a_log_whose_reads_know_no_bounds_is_told() {
    log_is_told(LogMistake::ReadsBeyondItsBytes, "a_read_keeps_to_its_bytes");
}

#[test]
fn a_log_that_shows_its_end_too_early_is_told() {
    log_is_told(LogMistake::ShowsTheEndTooEarly, "a_new_partition_holds_nothing_but_the_genesis");
}

#[test]
fn a_log_that_wakes_those_who_left_is_told() {
    log_is_told(LogMistake::KeepsDroppedWakers, "a_dropped_guard_is_silent");
}

#[test]
fn a_log_that_takes_zeros_for_nothing_is_told() {
    log_is_told(LogMistake::CutsZerosOff, "a_record_of_zeros_is_a_record");
}

#[test]
fn a_log_that_forgets_when_closed_is_told() {
    log_is_told(LogMistake::ForgetsWhenClosed, "reopening_keeps_every_record");
}

#[derive(Clone, Copy, PartialEq)]
enum StoreMistake {
    TakesAnyLog,
    WritesRowsBeforeItLooks,
    BeginsPagesWithTheLastRow,
    ForgetsTheLastFilter,
    ForgetsToTurn,
    IgnoresTheLimit,
    RoundsVersions,
}

struct MistakenStore {
    store: MemoryReadStore,
    mistake: StoreMistake,
    log: Mutex<Option<LogId>>,
}

impl ReadStore for MistakenStore {
    fn open(&self, log: LogId) -> StoreFuture<'_, BTreeMap<Partition, Checkpoint>> {
        let first = *self.log.lock().unwrap().get_or_insert(log);
        self.store.open(if self.mistake == StoreMistake::TakesAnyLog { first } else { log })
    }

    fn load(&self, keys: Vec<RowKey>) -> StoreFuture<'_, BTreeMap<RowKey, Row>> {
        self.store.load(keys)
    }

    fn commit(&self, mut batch: Batch) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            match self.mistake {
                StoreMistake::WritesRowsBeforeItLooks => {
                    let rows = Batch { rows: std::mem::take(&mut batch.rows), ..Batch::default() };
                    self.store.commit(rows).await?;
                }
                StoreMistake::RoundsVersions => {
                    for row in batch.rows.iter_mut().filter_map(|(_, row)| row.as_mut()) {
                        row.version &= 0xffff_ffff;
                    }
                }
                _ => {}
            }
            self.store.commit(batch).await
        })
    }

    fn list(&self, mut query: Query) -> StoreFuture<'_, Vec<(String, Row)>> {
        Box::pin(async move {
            match self.mistake {
                StoreMistake::BeginsPagesWithTheLastRow => {
                    let (after, limit) = (query.after.take(), std::mem::replace(&mut query.limit, u32::MAX));
                    let mut rows = self.store.list(query).await?;
                    if let Some((_, last)) = after {
                        rows.drain(..rows.iter().position(|(key, _)| *key == last).unwrap_or(0));
                    }
                    rows.truncate(limit as usize);
                    return Ok(rows);
                }
                StoreMistake::ForgetsTheLastFilter => drop(query.filters.pop()),
                StoreMistake::ForgetsToTurn => query.descending = false,
                StoreMistake::IgnoresTheLimit => query.limit = u32::MAX,
                _ => {}
            }
            self.store.list(query).await
        })
    }
}

fn store_is_told(mistake: StoreMistake, promise: &str) {
    let make = || StoreFixture {
        store: Arc::new(MistakenStore {
            store: MemoryReadStore::new(contract::read_store::TABLES),
            mistake,
            log: Mutex::default(),
        }),
        reopen: None,
        keep: Box::new(()),
    };
    let cases = contract::read_store::store_cases();
    let case = cases.iter().find(|case| case.name == promise).expect("there is such a promise");
    assert!(notices(|| run((case.run)(make()))), "{promise} does not notice");
}

fn run(mut case: CaseFuture<()>) {
    assert_eq!(case.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(()), "nothing here waits");
}

#[test]
fn a_suite_tells_every_broken_promise_by_name() {
    let make = || StoreFixture {
        store: Arc::new(MistakenStore {
            store: MemoryReadStore::new(contract::read_store::TABLES),
            mistake: StoreMistake::IgnoresTheLimit,
            log: Mutex::default(),
        }),
        reopen: None,
        keep: Box::new(()),
    };
    let panic = catch_unwind(AssertUnwindSafe(|| contract::read_store(make, run))).expect_err("promises are broken");
    let told = panic.downcast_ref::<String>().expect("the suite says which");
    for promise in ["a_limit_is_kept", "pages_by_key_give_each_row_once"] {
        assert!(told.contains(promise), "{told}");
    }
}

#[test]
fn a_store_that_takes_any_log_is_told() {
    store_is_told(StoreMistake::TakesAnyLog, "a_store_of_another_log_is_refused");
}

#[test]
fn a_store_that_writes_before_it_looks_is_told() {
    store_is_told(StoreMistake::WritesRowsBeforeItLooks, "a_fenced_commit_writes_nothing");
}

#[test]
fn a_store_whose_pages_overlap_is_told() {
    store_is_told(StoreMistake::BeginsPagesWithTheLastRow, "pages_by_key_give_each_row_once");
}

#[test]
fn a_store_that_forgets_a_filter_is_told() {
    store_is_told(StoreMistake::ForgetsTheLastFilter, "several_filters_must_all_hold");
}

#[test]
fn a_store_that_forgets_to_turn_is_told() {
    store_is_told(StoreMistake::ForgetsToTurn, "a_list_can_go_backwards");
}

#[test]
fn a_store_that_ignores_the_limit_is_told() {
    store_is_told(StoreMistake::IgnoresTheLimit, "a_limit_is_kept");
}

#[test]
fn a_store_that_rounds_versions_is_told() {
    store_is_told(StoreMistake::RoundsVersions, "large_numbers_come_back_exactly");
}
