//! Just enough of Kafka's protocol to ask a broker whom it knows and who leads what: one request, Metadata version 7. The
//! tools that come with Kafka would take a second and a JVM for each question.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const METADATA: i16 = 3;
/// The last but one version before the encoding changes; Kafka 2.1 to at least 4.3 speak it.
const VERSION: i16 = 7;
/// How long a broker may take to answer: it knows this by heart.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// No answer about a test's cluster is longer.
const ANSWER_MAX_BYTES: usize = 4 << 20;

/// What a broker knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// The brokers that are up, by node id.
    pub(crate) brokers: Vec<i32>,
    /// The node that is asked for changes.
    pub(crate) controller: Option<i32>,
    /// Topic, partition, and what is known of it.
    pub(crate) partitions: Vec<Partition>,
}

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    pub(crate) topic: String,
    pub(crate) index: i32,
    pub(crate) leader: Option<i32>,
    pub(crate) in_sync: Vec<i32>,
}

/// Asks a broker about all topics.
///
/// # Errors
/// When it does not answer, or not in words we know.
pub(crate) fn ask(address: &str) -> Result<Metadata, String> {
    let mut request = Vec::new();
    request.extend(METADATA.to_be_bytes());
    request.extend(VERSION.to_be_bytes());
    request.extend(1_i32.to_be_bytes()); // correlation id
    request.extend((-1_i16).to_be_bytes()); // no client id
    request.extend((-1_i32).to_be_bytes()); // all topics
    request.push(0); // create none
    let asked = address.parse().map_err(|_| format!("{address} is no address")).and_then(|address| {
        let told = |error: std::io::Error| format!("{address} does not answer: {error}");
        let mut stream = TcpStream::connect_timeout(&address, ANSWERS_WITHIN).map_err(told)?;
        stream.set_read_timeout(Some(ANSWERS_WITHIN)).map_err(told)?;
        stream.set_write_timeout(Some(ANSWERS_WITHIN)).map_err(told)?;
        let length = i32::try_from(request.len()).expect("a short request");
        stream.write_all(&[&length.to_be_bytes()[..], &request].concat()).map_err(told)?;
        let mut length = [0; 4];
        stream.read_exact(&mut length).map_err(told)?;
        let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > ANSWER_MAX_BYTES {
            return Err(format!("{address} does not speak Kafka"));
        }
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer).map_err(told)?;
        Ok(answer)
    })?;
    read(&mut Reader(&asked)).ok_or_else(|| format!("{address} answers what we cannot read"))
}

fn read(answer: &mut Reader<'_>) -> Option<Metadata> {
    answer.i32()?; // correlation id
    answer.i32()?; // throttled for so long
    let mut metadata = Metadata::default();
    for _ in 0..answer.i32()? {
        metadata.brokers.push(answer.i32()?);
        answer.text()?; // host
        answer.i32()?; // port
        answer.text()?; // rack
    }
    answer.text()?; // cluster id
    metadata.controller = Some(answer.i32()?).filter(|id| *id >= 0);
    for _ in 0..answer.i32()? {
        answer.i16()?; // error
        let topic = answer.text()?;
        answer.bytes(1)?; // internal
        for _ in 0..answer.i32()? {
            answer.i16()?; // error
            let index = answer.i32()?;
            let leader = Some(answer.i32()?).filter(|id| *id >= 0);
            answer.i32()?; // leader epoch
            answer.ids()?; // replicas
            let in_sync = answer.ids()?;
            answer.ids()?; // offline
            metadata.partitions.push(Partition { topic: topic.clone(), index, leader, in_sync });
        }
    }
    Some(metadata)
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes(&mut self, count: usize) -> Option<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn i16(&mut self) -> Option<i16> {
        self.bytes(2).map(|bytes| i16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn i32(&mut self) -> Option<i32> {
        self.bytes(4).map(|bytes| i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// A text; none is the empty one.
    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.i16()?).unwrap_or(0);
        self.bytes(length).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    fn ids(&mut self) -> Option<Vec<i32>> {
        let count = self.i32()?;
        (0..count).map(|_| self.i32()).collect()
    }
}
