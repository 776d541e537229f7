//! What a real broker does not do on demand: acknowledgements that get lost, errors that nothing follows. In front of
//! librdkafka's broker that is none.

use std::sync::mpsc::channel;

use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;

const TOPIC: &str = "docket.log.test";
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Sink {
    all: Mutex<Vec<Delivery>>,
    came: Condvar,
}

impl DeliverySink for Sink {
    fn delivered(&self, deliveries: Vec<Delivery>) {
        self.all.lock().extend(deliveries);
        self.came.notify_all();
    }
}

impl Sink {
    fn wait_for(&self, count: usize) -> Vec<Delivery> {
        let deadline = Instant::now() + PATIENCE;
        let mut all = self.all.lock();
        while all.len() < count {
            assert!(!self.came.wait_until(&mut all, deadline).timed_out(), "{} of {count} deliveries", all.len());
        }
        all.clone()
    }
}

/// An outbox of two partitions in front of a mock, and a way to make the mock's next produce requests fail.
fn with_mock(run: impl FnOnce(&Outbox, &dyn Fn(&[RDKafkaRespErr]))) {
    let mock = MockCluster::new(1).expect("a mock");
    mock.create_topic(TOPIC, 2, 1).expect("a topic");
    let mut options = KafkaOptions::new(mock.bootstrap_servers(), "test", "/nowhere");
    options.delivery_timeout = Duration::from_secs(20);
    options.request_timeout = Duration::from_secs(5);
    let outbox = Outbox::open(&options, TOPIC, 2).expect("it opens");
    run(&outbox, &|errors| mock.request_errors(RDKafkaApiKey::Produce, errors));
    outbox.close();
}

fn tags(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries.iter().map(|delivery| delivery.tag).collect()
}

#[test]
fn a_lost_acknowledgement_is_neither_an_error_nor_out_of_order() {
    with_mock(|outbox, fail| {
        let sink = Arc::new(Sink::default());
        let mut appender = outbox.appender(Partition(0), sink.clone());
        appender.append(0, Bytes::from_static(b"first"));
        sink.wait_for(1);
        fail(&[RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT; 3]);
        for tag in 1..200 {
            appender.append(tag, Bytes::from_static(b"record"));
        }
        let deliveries = sink.wait_for(200);
        assert_eq!(tags(&deliveries), (0..200).collect::<Vec<_>>());
        // The mock keeps what it was sent twice, so offsets may jump: that is what the fold's gap path is for.
        let offsets: Vec<_> = deliveries.iter().map(|delivery| delivery.result.expect("it is delivered")).collect();
        assert!(offsets.is_sorted(), "{offsets:?}");
    });
}

#[test]
fn after_a_fatal_error_another_producer_goes_on() {
    with_mock(|outbox, fail| {
        let sink = Arc::new(Sink::default());
        let mut appender = outbox.appender(Partition(0), sink.clone());
        appender.append(0, Bytes::from_static(b"first"));
        assert_eq!(sink.wait_for(1)[0].result, Ok(Some(Offset(0))));
        fail(&[RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED; 3]);
        let mut tag = 1;
        // Unknown until the other is there; then as before.
        let deadline = Instant::now() + PATIENCE;
        loop {
            appender.append(tag, Bytes::from_static(b"next"));
            tag += 1;
            let deliveries = sink.wait_for(usize::try_from(tag).expect("it is small"));
            assert_eq!(tags(&deliveries), (0..tag).collect::<Vec<_>>(), "each is answered once, in order");
            match deliveries.last().expect("there is one").result {
                Ok(_) => break,
                Err(error) => assert_eq!(error, AppendError::Unknown),
            }
            assert!(Instant::now() < deadline, "no record is taken any more");
        }
        assert!(tag > 2, "the first after the error was not delivered");
        let current = outbox.shared.current.read().as_ref().map(|generation| generation.number);
        assert!(current > Some(1), "the producer was replaced");
    });
}

#[test]
fn silence_means_unknown_and_every_partition_keeps_its_order() {
    let mock = MockCluster::new(1).expect("a mock");
    mock.create_topic(TOPIC, 2, 1).expect("a topic");
    let mut options = KafkaOptions::new(mock.bootstrap_servers(), "test", "/nowhere");
    // Long enough for the first records, short enough to wait for.
    options.delivery_timeout = Duration::from_secs(8);
    options.request_timeout = Duration::from_secs(4);
    let outbox = Outbox::open(&options, TOPIC, 2).expect("it opens");
    let sinks = [Arc::new(Sink::default()), Arc::new(Sink::default())];
    let mut appenders: Vec<_> =
        (0..2).map(|partition| outbox.appender(Partition(partition), sinks[usize::from(partition)].clone())).collect();
    for appender in &mut appenders {
        appender.append(0, Bytes::from_static(b"first"));
    }
    for sink in &sinks {
        assert_eq!(sink.wait_for(1)[0].result, Ok(Some(Offset(0))));
    }
    mock.broker_down(1).expect("it goes");
    for tag in 1..50 {
        for appender in &mut appenders {
            let record = if tag == 7 { vec![0; RECORD_BYTES_MAX + 1] } else { vec![0; 100] };
            appender.append(tag, record.into());
        }
    }
    for sink in &sinks {
        let deliveries = sink.wait_for(50);
        assert_eq!(tags(&deliveries), (0..50).collect::<Vec<_>>());
        for delivery in &deliveries[1..] {
            let expected = if delivery.tag == 7 { AppendError::TooLarge } else { AppendError::Unknown };
            assert_eq!(delivery.result, Err(expected));
        }
    }
    mock.broker_up(1).expect("it comes back");
    let deadline = Instant::now() + PATIENCE;
    let mut tag = 50;
    loop {
        appenders[1].append(tag, Bytes::from_static(b"later"));
        tag += 1;
        if sinks[1].wait_for(usize::try_from(tag).expect("it is small")).last().expect("there is one").result.is_ok() {
            break;
        }
        assert!(Instant::now() < deadline, "no record is taken any more");
    }
}

#[test]
fn what_is_left_at_the_end_is_unknown_and_what_comes_later_is_refused() {
    let mut options = KafkaOptions::new("127.0.0.1:1", "test", "/nowhere");
    options.delivery_timeout = Duration::from_secs(60);
    let outbox = Outbox::open(&options, TOPIC, 1).expect("it opens");
    let sink = Arc::new(Sink::default());
    let mut appender = outbox.appender(Partition(0), sink.clone());
    for tag in 0..10 {
        appender.append(tag, Bytes::from_static(b"record"));
    }
    let (done, waiting) = channel();
    let closing = std::thread::spawn(move || {
        outbox.close();
        done.send(()).expect("somebody waits");
    });
    waiting.recv_timeout(PATIENCE).expect("closing ends");
    closing.join().expect("it closes");
    appender.append(10, Bytes::from_static(b"too late"));
    let deliveries = sink.wait_for(11);
    assert_eq!(tags(&deliveries), (0..11).collect::<Vec<_>>());
    assert!(deliveries[..10].iter().all(|delivery| delivery.result == Err(AppendError::Unknown)));
    assert_eq!(deliveries[10].result, Err(AppendError::Stopped));
}
