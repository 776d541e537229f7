//! Full logs, stopped logs, mistakes, overload and the end.

use std::sync::Arc;

use bytes::Bytes;
use engine::log::{AppendError, Appender, Delivery, DeliverySink, Log, LogFault, Stored, WakerGuard};
use engine::memory::MemoryLog;
use engine::message::NoAnswer;
use engine::position::{LogId, Offset, Partition};
use engine_runtime::node::{PartitionStatus, StartFault};
use parking_lot::Mutex;

use crate::business::Wish;
use crate::house::{House, LONG, add, asked, decided, genesis, id, jar, until};

/// A log that can be told to hold its deliveries back, or to fail.
struct Strange {
    log: MemoryLog,
    mood: Arc<Mutex<Mood>>,
}

/// Deliveries, and whom they are for.
type Held = (Arc<dyn DeliverySink>, Vec<Delivery>);

#[derive(Default)]
struct Mood {
    fails: Option<AppendError>,
    /// Written, but not told.
    holds: Option<Vec<Held>>,
}

struct StrangeSink(Arc<dyn DeliverySink>, Arc<Mutex<Mood>>);

impl DeliverySink for StrangeSink {
    fn delivered(&self, deliveries: Vec<Delivery>) {
        if let Some(held) = &mut self.1.lock().holds {
            held.push((self.0.clone(), deliveries));
            return;
        }
        self.0.delivered(deliveries);
    }
}

struct StrangeAppender(Box<dyn Appender>, Arc<dyn DeliverySink>, Arc<Mutex<Mood>>);

impl Appender for StrangeAppender {
    fn append(&mut self, tag: u64, record: Bytes) {
        let fails = self.2.lock().fails;
        match fails {
            Some(error) => self.1.delivered(vec![Delivery { tag, result: Err(error) }]),
            None => self.0.append(tag, record),
        }
    }
}

impl Log for Strange {
    fn id(&self) -> LogId {
        self.log.id()
    }
    fn partitions(&self) -> u16 {
        self.log.partitions()
    }
    fn appender(&self, partition: Partition, sink: Arc<dyn DeliverySink>) -> Box<dyn Appender> {
        let inner = Arc::new(StrangeSink(sink.clone(), self.mood.clone()));
        Box::new(StrangeAppender(self.log.appender(partition, inner), sink, self.mood.clone()))
    }
    fn read(&self, partition: Partition, from: Offset, bytes_max: usize) -> Result<Vec<Stored>, LogFault> {
        self.log.read(partition, from, bytes_max)
    }
    fn end(&self, partition: Partition) -> Offset {
        self.log.end(partition)
    }
    fn on_append(&self, waker: Arc<dyn Fn() + Send + Sync>) -> WakerGuard {
        self.log.on_append(waker)
    }
}

fn strange() -> (House, Arc<Mutex<Mood>>) {
    let genesis = genesis();
    let mood = Arc::new(Mutex::new(Mood::default()));
    let log = Strange { log: MemoryLog::new(genesis), mood: mood.clone() };
    (House::over(Arc::new(log), genesis), mood)
}

#[tokio::test]
async fn a_full_log_is_said_and_recovered_from() {
    let (house, mood) = strange();
    let node = house.node().await;
    decided(node.submit(asked(id(), add("a", 1))).await);
    mood.lock().fails = Some(AppendError::Full);
    let command = asked(id(), add("a", 2));
    assert_eq!(node.submit(command.clone()).await.unwrap_err(), NoAnswer::LogFull);
    assert_eq!(node.submit(command.clone()).await.unwrap_err(), NoAnswer::LogFull);
    assert!(node.status().unready().unwrap().contains("full"));
    mood.lock().fails = None;
    node.until_status(|all| all.iter().all(|status| matches!(status, PartitionStatus::Leading(_)))).await;
    let answer = decided(node.submit(command).await);
    assert_eq!((answer.replayed, answer.state.unwrap().filled()), (false, 3));
}

#[tokio::test]
async fn a_stopped_log_is_said_until_the_end() {
    let (house, mood) = strange();
    let node = house.node().await;
    mood.lock().fails = Some(AppendError::Stopped);
    let first = node.submit(asked(id(), add("a", 2))).await.unwrap_err();
    assert!(matches!(first, NoAnswer::LogStopped | NoAnswer::Unconfirmed), "{first:?}");
    node.until_status(|all| all.contains(&PartitionStatus::Stopped)).await;
    assert_eq!(node.submit(asked(id(), add("a", 2))).await.unwrap_err(), NoAnswer::LogStopped);
    assert!(!node.drain(LONG).await);
}

#[tokio::test]
async fn a_node_does_not_start_on_a_full_or_stopped_log() {
    let (house, mood) = strange();
    mood.lock().fails = Some(AppendError::Full);
    assert!(matches!(house.try_node().await.err(), Some(StartFault::Full(_))));
    mood.lock().fails = Some(AppendError::Stopped);
    assert!(matches!(house.try_node().await.err(), Some(StartFault::Stopped)));
    mood.lock().fails = None;
    decided(house.node().await.submit(asked(id(), add("a", 1))).await);
}

#[tokio::test]
async fn an_unknown_outcome_is_found_out() {
    let (house, mood) = strange();
    let node = house.node().await;
    let partition = node.partition_of(&Default::default(), &jar("a"));
    mood.lock().holds = Some(Vec::new());
    let waiting = tokio::spawn(node.submit(asked(id(), add("a", 2))));
    while mood.lock().holds.as_ref().is_some_and(Vec::is_empty) {
        tokio::task::yield_now().await;
    }
    // It is in the log; the writer is told that nobody knows.
    let held = mood.lock().holds.take().unwrap();
    for (sink, deliveries) in held {
        let unknown = |delivery: Delivery| Delivery { result: Err(AppendError::Unknown), ..delivery };
        sink.delivered(deliveries.into_iter().map(unknown).collect());
    }
    let answer = decided(waiting.await.unwrap());
    assert_eq!(answer.state.unwrap().filled(), 2);
    assert_eq!(until(&node, &jar("a"), |_| true).await.filled(), 2);
    assert!(
        matches!(&node.status().partitions[usize::from(partition.0)], PartitionStatus::Leading(epoch) if epoch.0 == 2)
    );
}

#[tokio::test]
async fn a_mistake_in_the_business_costs_its_partition_only() {
    let house = House::new();
    let node = house.node().await;
    let partition = node.partition_of(&Default::default(), &jar("a"));
    let elsewhere = (0..).map(|number: u32| number.to_string());
    let elsewhere =
        elsewhere.into_iter().find(|name| node.partition_of(&Default::default(), &jar(name)) != partition).unwrap();
    assert_eq!(node.submit(asked(id(), Wish::Explode { jar: jar("a") })).await.unwrap_err(), NoAnswer::LogDamaged);
    assert_eq!(node.submit(asked(id(), add("a", 1))).await.unwrap_err(), NoAnswer::LogDamaged);
    assert!(node.status().unready().unwrap().contains("mistake"));
    decided(node.submit(asked(id(), add(&elsewhere, 1))).await);
}

#[tokio::test]
async fn a_full_queue_is_said_at_once_and_nothing_taken_is_lost() {
    let (mut house, mood) = strange();
    house.options.queue_max = 8;
    house.options.limits.in_flight_max = 4;
    house.options.limits.loading_max = 4;
    let node = house.node().await;
    mood.lock().holds = Some(Vec::new());
    let waiting = (0..50).map(|_| node.submit(asked(id(), add("a", 1)))).collect::<Vec<_>>();
    let held = async {
        // As long as the log is silent, whoever was taken waits.
        while mood.lock().holds.as_ref().is_some_and(Vec::is_empty) {
            tokio::task::yield_now().await;
        }
        let held = mood.lock().holds.take().unwrap();
        for (sink, deliveries) in held {
            sink.delivered(deliveries);
        }
    };
    let (answers, ()) = futures::join!(futures::future::join_all(waiting), held);
    let turned_away = answers.iter().filter(|answer| matches!(answer, Err(NoAnswer::Overloaded))).count();
    let taken = answers.into_iter().filter(Result::is_ok).map(decided).count();
    assert_eq!(turned_away + taken, 50);
    assert!(turned_away > 0);
    assert_eq!(until(&node, &jar("a"), |_| true).await.filled(), taken as u64);
}

#[tokio::test]
async fn what_waited_too_long_in_the_queue_is_not_begun() {
    const TOO_LONG: std::time::Duration = std::time::Duration::from_millis(50);
    let (mut house, mood) = strange();
    house.options.queue_wait_max = TOO_LONG;
    house.options.limits.in_flight_max = 4;
    house.options.limits.loading_max = 4;
    let node = house.node().await;
    mood.lock().holds = Some(Vec::new());
    // As long as the log is silent, the first ones fill the shard, and the others wait in front of it.
    let mut waiting = (0..10).map(|_| node.submit(asked(id(), add("a", 1)))).collect::<Vec<_>>();
    while mood.lock().holds.as_ref().is_some_and(Vec::is_empty) {
        tokio::task::yield_now().await;
    }
    waiting.extend((0..40).map(|_| node.submit(asked(id(), add("a", 1)))));
    let held = async {
        let asked = std::time::Instant::now();
        while asked.elapsed() < TOO_LONG * 2 {
            tokio::task::yield_now().await;
        }
        let held = mood.lock().holds.take().unwrap();
        for (sink, deliveries) in held {
            sink.delivered(deliveries);
        }
    };
    let (answers, ()) = futures::join!(futures::future::join_all(waiting), held);
    let late = answers.iter().filter(|answer| matches!(answer, Err(NoAnswer::Overloaded))).count();
    let taken = answers.into_iter().filter(Result::is_ok).map(decided).count();
    assert_eq!(late + taken, 50);
    assert_eq!((late, taken), (40, 10));
    assert_eq!(until(&node, &jar("a"), |_| true).await.filled(), taken as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_answers_everybody_and_gives_the_partitions_back() {
    let house = House::new();
    let node = house.node().await;
    let waiting = (0..500).map(|number| node.submit(asked(id(), add(&number.to_string(), 1)))).collect::<Vec<_>>();
    let (answers, drained) = futures::join!(futures::future::join_all(waiting), node.drain(LONG));
    assert!(drained);
    let mut taken = 0;
    for answer in answers {
        match answer {
            Ok(_) => taken += 1,
            Err(no) => assert_eq!(no, NoAnswer::Draining),
        }
    }
    assert_eq!(node.submit(asked(id(), add("a", 1))).await.unwrap_err(), NoAnswer::Draining);
    assert!(node.status().partitions.iter().all(|status| *status == PartitionStatus::Released));
    drop(node);
    let node = house.node().await;
    let mut found = 0;
    for number in 0..500 {
        let watch = node.watch(crate::house::of_main(&jar(&number.to_string()))).await.unwrap();
        found += usize::from(watch.current().is_some());
    }
    assert_eq!(found, taken);
}
