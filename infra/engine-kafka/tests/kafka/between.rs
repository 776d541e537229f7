//! Somebody who stands between a client and its broker, and at times takes the brokers out of every answer to "whom do you
//! know?". So answers a broker that its controller has fenced, alone or with all the others: right after it was frozen, or
//! while a whole cluster comes back.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use xtask::kafka::Kafka;

/// The request that asks for brokers and topics.
const METADATA: i16 = 3;
/// Its versions whose answers are written as this expects them.
const VERSIONS: RangeInclusive<i16> = 12..=13;
/// How many topics are added.
const PADDING: usize = 10_000;

/// It stands there until it is dropped.
pub(crate) struct Between {
    shared: Arc<Shared>,
    port: u16,
    listener: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    hiding: AtomicBool,
    hidden: AtomicUsize,
    closing: AtomicBool,
    connections: Mutex<Vec<TcpStream>>,
}

impl Between {
    /// Stands before the side door of the first broker.
    pub(crate) fn start(kafka: &Kafka) -> Self {
        let (port, door) = kafka.side_doors().swap_remove(0);
        let listening = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the port is free");
        let shared = Arc::new(Shared::default());
        let listener = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || listen(&listening, &door, &shared)
        });
        Self { shared, port, listener: Some(listener) }
    }

    /// For `bootstrap.servers`.
    pub(crate) fn address(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }

    /// Takes the brokers out of every answer from now on.
    pub(crate) fn hide(&self) {
        self.shared.hiding.store(true, Ordering::SeqCst);
    }

    /// Passes all on as it is.
    pub(crate) fn show(&self) {
        self.shared.hiding.store(false, Ordering::SeqCst);
    }

    /// How many answers had no brokers.
    pub(crate) fn hidden(&self) -> usize {
        self.shared.hidden.load(Ordering::SeqCst)
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        // It waits for somebody.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        self.shared.break_all();
    }
}

impl Shared {
    fn break_all(&self) {
        for connection in self.connections.lock().drain(..) {
            // Who has gone already needs no breaking.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

fn listen(listening: &TcpListener, door: &str, shared: &Arc<Shared>) {
    while let Ok((client, _)) = listening.accept() {
        if shared.closing.load(Ordering::SeqCst) {
            return;
        }
        let Ok(broker) = TcpStream::connect(door) else { continue };
        for end in [&client, &broker] {
            end.set_nodelay(true).expect("it is a connection");
        }
        let again = |end: &TcpStream| end.try_clone().expect("there are descriptors");
        shared.connections.lock().extend([again(&client), again(&broker)]);
        let asked: Arc<Mutex<HashSet<i32>>> = Arc::default();
        let (mut from, mut to, note) = (again(&client), again(&broker), Arc::clone(&asked));
        std::thread::spawn(move || {
            while let Some(request) = frame(&mut from) {
                if number(&request, 0) == METADATA {
                    let id = i32::from_be_bytes(request[4..8].try_into().expect("four bytes"));
                    assert!(VERSIONS.contains(&number(&request, 2)), "the answer cannot be read");
                    note.lock().insert(id);
                }
                if send(&mut to, &request).is_none() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
        });
        let (mut from, mut to, shared) = (broker, client, Arc::clone(shared));
        std::thread::spawn(move || {
            while let Some(mut answer) = frame(&mut from) {
                let id = i32::from_be_bytes(answer[..4].try_into().expect("four bytes"));
                if asked.lock().remove(&id) && shared.hiding.load(Ordering::SeqCst) {
                    answer = without_brokers(&answer);
                    shared.hidden.fetch_add(1, Ordering::SeqCst);
                }
                if send(&mut to, &answer).is_none() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
        });
    }
}

fn frame(from: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length).ok()?;
    let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length)).ok()?];
    from.read_exact(&mut frame).ok()?;
    Some(frame)
}

fn send(to: &mut TcpStream, frame: &[u8]) -> Option<()> {
    let length = i32::try_from(frame.len()).expect("it came with a length");
    to.write_all(&[&length.to_be_bytes()[..], frame].concat()).ok()
}

fn number(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The same answer, but for the brokers, and with topics that nobody has asked for: librdkafka loses its last broker for good
/// only where it is still at the answer when that one's thread has gone, and an answer of one topic is short.
fn without_brokers(answer: &[u8]) -> Vec<u8> {
    // The correlation id; the header's tags, of which there are none; for how long the client is throttled.
    let head = 4 + 1 + 4;
    let mut at = head;
    for _ in 0..length(answer, &mut at) {
        at += 4; // node id
        text(answer, &mut at); // host
        at += 4; // port
        text(answer, &mut at); // rack
        at += 1; // tags
    }
    let about_it = at;
    text(answer, &mut at); // the cluster's name
    at += 4; // the controller
    let between = &answer[about_it..at];
    let topics = length(answer, &mut at);
    let mut changed = [&answer[..head], &[1], between].concat();
    put_length(&mut changed, topics + PADDING);
    for number in 0..PADDING {
        changed.extend(3_i16.to_be_bytes()); // no such topic
        let name = format!("docket.padding.{number}");
        put_length(&mut changed, name.len());
        changed.extend(name.as_bytes());
        changed.extend([0; 16]); // its id
        changed.push(0); // not internal
        put_length(&mut changed, 0); // partitions
        changed.extend(i32::MIN.to_be_bytes()); // what the client may do with it
        changed.push(0); // tags
    }
    changed.extend(&answer[at..]);
    changed
}

/// A length, which is written as one more, seven bits a byte; nothing at all has none.
fn length(bytes: &[u8], at: &mut usize) -> usize {
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        let byte = bytes[*at];
        *at += 1;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return length.saturating_sub(1);
        }
    }
}

fn put_length(bytes: &mut Vec<u8>, length: usize) {
    let mut left = length + 1;
    while left > 0x7f {
        bytes.push(0x80 | u8::try_from(left & 0x7f).expect("seven bits"));
        left >>= 7;
    }
    bytes.push(u8::try_from(left).expect("seven bits"));
}

fn text(bytes: &[u8], at: &mut usize) {
    let long = length(bytes, at);
    *at += long;
}
