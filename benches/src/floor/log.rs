//! How fast is a file with group commit? A preallocated file of written zeros, one thread that writes whatever is queued
//! and flushes it once. No checksums, no order, no recovery: nothing that makes records durable can be faster on this
//! disk by much.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::table::{Row, Table};
use crate::times::Times;
use crate::{Done, How};

/// Bytes of a record: an order of three lines with all that a record says besides.
pub(crate) const RECORD_BYTES: usize = 700;
/// The file begins again at its start when it is full: what it costs to write stays the same.
const FILE_BYTES: u64 = 64 << 20;
const CALLERS: [u32; 3] = [1, 16, 128];

/// A file of `bytes` zeros that are on the disk.
pub(crate) fn zeroed(path: &Path, bytes: u64) -> std::io::Result<File> {
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
    let zeros = vec![0; 1 << 20];
    for _ in 0..bytes >> 20 {
        file.write_all(&zeros)?;
    }
    file.sync_all()?;
    Ok(file)
}

#[derive(Default)]
struct Queue {
    records: Vec<(Bytes, oneshot::Sender<()>)>,
    closed: bool,
}

/// The file, and the thread that writes it.
pub(crate) struct GroupFile {
    shared: Arc<(Mutex<Queue>, Condvar)>,
}

impl GroupFile {
    pub(crate) fn start(directory: &Path) -> std::io::Result<Self> {
        let file = zeroed(&directory.join("floor.log"), FILE_BYTES)?;
        let shared = Arc::new((Mutex::new(Queue::default()), Condvar::new()));
        let writing = shared.clone();
        std::thread::Builder::new().name("floor-writer".to_owned()).spawn(move || write(&file, &writing))?;
        Ok(Self { shared })
    }

    /// Returns once `record` is on the disk.
    pub(crate) async fn append(&self, record: Bytes) -> Result<(), oneshot::error::RecvError> {
        let (sender, receiver) = oneshot::channel();
        let first = {
            let mut queue = self.shared.0.lock();
            queue.records.push((record, sender));
            queue.records.len() == 1
        };
        if first {
            self.shared.1.notify_one();
        }
        receiver.await
    }
}

impl Drop for GroupFile {
    fn drop(&mut self) {
        self.shared.0.lock().closed = true;
        self.shared.1.notify_one();
    }
}

fn write(file: &File, shared: &(Mutex<Queue>, Condvar)) {
    let (mut group, mut bytes, mut position) = (Vec::new(), Vec::new(), 0);
    loop {
        let mut queue = shared.0.lock();
        while queue.records.is_empty() {
            if queue.closed {
                return;
            }
            shared.1.wait(&mut queue);
        }
        std::mem::swap(&mut group, &mut queue.records);
        drop(queue);
        bytes.clear();
        for (record, _) in &group {
            bytes.extend_from_slice(record);
        }
        if position + bytes.len() as u64 > FILE_BYTES {
            position = 0;
        }
        // A floor that fails answers nobody: whoever waits sees it.
        if file.write_all_at(&bytes, position).and_then(|()| file.sync_data()).is_err() {
            return;
        }
        position += bytes.len() as u64;
        for (_, sender) in group.drain(..) {
            let _ = sender.send(());
        }
    }
}

/// Records a second with so many callers, each waiting for its own before it writes the next, and how long they waited.
pub(crate) async fn rate(how: &How, callers: u32) -> Done<(f64, Times)> {
    let scratch = how.scratch()?;
    let log = Arc::new(GroupFile::start(scratch.path())?);
    let lasting = Duration::from_secs(u64::from(how.seconds()).div_ceil(2));
    let began = Instant::now();
    let callers = (0..callers).map(|_| {
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            let mut times = Times::new();
            while began.elapsed() < lasting {
                let asked = Instant::now();
                // A copy, as an encoder would make one.
                log.append(Bytes::from(vec![7; RECORD_BYTES])).await?;
                times.note(asked.elapsed());
            }
            Ok::<_, oneshot::error::RecvError>(times)
        })
    });
    let mut times = Times::new();
    for caller in callers.collect::<Vec<_>>() {
        times.add(&caller.await??);
    }
    Ok((times.count() as f64 / began.elapsed().as_secs_f64(), times))
}

/// Records a second that can be read from a file of so many, with nothing looked at.
pub(crate) fn read_rate(how: &How, records: u64) -> Done<f64> {
    /// Bytes asked for at once: as many as the log's own reader.
    const CHUNK_BYTES: usize = 64 << 10;
    let scratch = how.scratch()?;
    let path = scratch.path().join("floor.log");
    drop(zeroed(&path, records * RECORD_BYTES as u64)?);
    let (mut file, mut chunk, mut bytes) = (File::open(&path)?, vec![0; CHUNK_BYTES], 0);
    let began = Instant::now();
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            read => bytes += read,
        }
    }
    Ok((bytes / RECORD_BYTES) as f64 / began.elapsed().as_secs_f64())
}

pub(crate) async fn measure(how: &How, table: &mut Table) -> Done<()> {
    for callers in CALLERS {
        let (rate, times) = rate(how, callers).await?;
        let (p50_ms, p99_ms) = (Some(times.at(0.5)), Some(times.at(0.99)));
        table.push(Row {
            p50_ms,
            p99_ms,
            ..Row::new(format!("raw group commit, {callers} callers"), rate, "records/s")
        });
    }
    Ok(())
}
