//! The log as segment files on local disk: one physical log for all partitions of a node, one flush per group of
//! records. An append is confirmed after its flush; readers see nothing before. Opening finds the end by looking at the
//! last segment only, cuts a torn group and says so, and refuses whatever else is not as it was written.
//!
//! Start with [`EmbeddedLog::open`]. The bytes are written down in `docs/segment-format.md`.

mod block;
mod cache;
mod copy;
mod disk;
mod files;
mod index;
mod layout;
mod offline;
mod options;
mod recover;
mod spare;
mod store;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use engine::log::{Appender, DeliverySink, Log, LogFault, Stored, WakerGuard};
use engine::position::{LogId, Offset, Partition};
use engine::record::Genesis;
use parking_lot::Mutex;

pub use crate::copy::{
    COPIED_RECORD_BYTES_MAX, CopyFault, CopyReadFault, CopyReader, CopyReport, LogCopy, is_copy, no_room,
};
pub use crate::disk::{Disk, RealDisk};
use crate::files::Lock;
pub use crate::offline::{
    FINDINGS_MAX, Finding, FindingKind, LogFacts, OfflineRecord, Severity, VerifyOptions, VerifyReport, log_facts,
    read_records, verify,
};
pub use crate::options::{CACHE_BYTES, KnownDurable, OpenFault, OpenReport, Options, TornTail};
use crate::spare::Spares;
use crate::store::{Active, Fault, Store};
use crate::writer::{Hub, Measures, QueueAppender, TailBound, Writer};

/// A log on local disk, open for one process.
///
/// Dropping it, or [`EmbeddedLog::close`], finishes what is queued, seals the log and lets go of the directory. Records
/// it gives out are slices of what was read, up to a few MiB: who keeps one for long should copy it.
pub struct EmbeddedLog {
    genesis: Genesis,
    hub: Arc<Hub>,
    store: Arc<Store>,
    open: Mutex<Option<Open>>,
}

/// What ends with [`EmbeddedLog::close`].
struct Open {
    writer: JoinHandle<()>,
    lock: Lock,
}

impl EmbeddedLog {
    /// Opens the log in `directory`, or founds it if the options say so and nothing is there. When this returns,
    /// everything that can be read is on the disk. Install a metrics recorder before, if there is to be one.
    pub fn open(directory: impl AsRef<Path>, options: Options) -> Result<(Self, OpenReport), OpenFault> {
        let directory = directory.as_ref();
        let started = Instant::now();
        if options.genesis.is_none() && !directory.is_dir() {
            return Err(OpenFault::Absent { directory: directory.to_owned() });
        }
        recover::make_directory(directory, &*options.disk)?;
        let lock = Lock::take(directory)?;
        if copy::is_copy(directory) {
            return Err(OpenFault::Copy { directory: directory.to_owned() });
        }
        let recovered = recover::recover(directory, &options)?;
        let segments = recovered.header.segment + 1;
        let (header, file) = (Arc::new(recovered.header), Arc::new(recovered.file));
        let (position, chain) = (recovered.index.end, recovered.index.chain.clone());
        let store = Arc::new(Store::new(
            directory.to_owned(),
            options.block_bytes,
            options.caches(),
            Active { header: Arc::clone(&header), file: Arc::clone(&file), index: recovered.index },
        ));
        let first = store.read(Partition(0), Offset(0), 1).map_err(|fault| match fault {
            Fault::Damaged { file, offset, what } => OpenFault::Damaged { file, offset, what },
            Fault::Unreadable(what) => disk_fault("read", directory, std::io::Error::other(what)),
        })?;
        let first = first.into_iter().next().map(|stored| stored.bytes).unwrap_or_default();
        let genesis = recover::read_genesis(files::segment_path(directory, 0), &header, &first)?;
        let spares = Spares::start(directory.to_owned(), header.log, Arc::clone(&options.disk))
            .map_err(|error| disk_fault("start a thread for", directory, error))?;
        let hub = Arc::new(Hub::new());
        let writer = Writer {
            hub: Arc::clone(&hub),
            store: Arc::clone(&store),
            disk: Arc::clone(&options.disk),
            spares,
            directory: directory.to_owned(),
            segment_bytes: options.segment_bytes,
            group_bytes_max: options.group_bytes_max(),
            header,
            file,
            position,
            chain,
            sealed: true,
            tail: TailBound::new(options.caches()),
            measures: Measures::new(recovered.segments_bytes),
        };
        let writer = std::thread::Builder::new()
            .name("docket-log-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| disk_fault("start a thread for", directory, error))?;
        let report = OpenReport {
            founded: recovered.founded,
            segments,
            bytes_scanned: recovered.bytes_scanned,
            sealed: recovered.was_sealed,
            torn: recovered.torn,
            took: started.elapsed(),
        };
        Ok((Self { genesis, hub, store, open: Mutex::new(Some(Open { writer, lock })) }, report))
    }

    /// What the log is.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// Why nothing can be appended until the log is opened again; nothing while all is well.
    pub fn stopped(&self) -> Option<String> {
        self.hub.stopped()
    }

    /// Sets the gauges of what waits for the writer and of what is kept in memory for readers: to be called by whoever
    /// renders metrics, right before.
    pub fn measure(&self) {
        self.hub.measure();
        self.store.measure();
    }

    /// Finishes what is queued, seals the log, ends its threads and lets go of the directory. What is durable can still
    /// be read; further appends are answered with [`engine::log::AppendError::Stopped`], on the caller's own thread.
    /// Must not be called by a sink or a waker.
    pub fn close(&self) {
        let Some(open) = self.open.lock().take() else { return };
        self.hub.close();
        // The last handle may be dropped by a sink: a thread cannot wait for itself, and it ends soon enough.
        if open.writer.thread().id() != std::thread::current().id() && open.writer.join().is_err() {
            tracing::error!("the log's writer panicked");
        }
        drop(open.lock);
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for EmbeddedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedLog").field("id", &self.genesis.log).finish_non_exhaustive()
    }
}

impl Log for EmbeddedLog {
    fn id(&self) -> LogId {
        self.store.log()
    }

    fn partitions(&self) -> u16 {
        self.store.partitions()
    }

    fn appender(&self, partition: Partition, sink: Arc<dyn DeliverySink>) -> Box<dyn Appender> {
        assert!(partition.0 < self.partitions(), "there is no partition {partition}");
        Box::new(QueueAppender { hub: Arc::clone(&self.hub), partition, sink })
    }

    fn read(&self, partition: Partition, from: Offset, bytes_max: usize) -> Result<Vec<Stored>, LogFault> {
        self.store.read(partition, from, bytes_max).map_err(LogFault::from)
    }

    fn end(&self, partition: Partition) -> Offset {
        self.store.end(partition)
    }

    fn on_append(&self, waker: Arc<dyn Fn() + Send + Sync>) -> WakerGuard {
        let hub = Arc::clone(&self.hub);
        let number = hub.add_waker(waker);
        WakerGuard::new(move || hub.remove_waker(number))
    }
}

fn disk_fault(doing: &'static str, directory: &Path, source: std::io::Error) -> OpenFault {
    OpenFault::Disk { doing, file: directory.to_owned(), source }
}
