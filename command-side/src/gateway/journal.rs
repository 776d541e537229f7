//! The journal under the simulator's books: lines of JSON, flushed before the gateway answers. One thread writes what
//! there is and flushes once for all of it. A last line without its end was never answered and is cut.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::mpsc;

use tokio::sync::oneshot;

use super::books::{Books, BooksFault, Line};

/// Calls waiting for one flush. 4,096: more than the errands a node has under way.
const WAITING_MAX: usize = 4_096;

type Entry = (Vec<u8>, oneshot::Sender<Result<(), String>>);

/// Where lines go. Without a file they are only remembered.
pub(super) enum Journal {
    Memory,
    File(mpsc::SyncSender<Entry>),
}

impl Journal {
    /// Opens or creates the journal and reads the books it holds.
    pub(super) fn open(path: &Path) -> Result<(Self, Books), BooksFault> {
        let named = path.display().to_string();
        let unreadable = |source| BooksFault::Unreadable { path: named.clone(), source };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(unreadable)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(unreadable)?;
        let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let mut books = Books::default();
        for (index, line) in text[..whole].split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).enumerate() {
            let line: Line = serde_json::from_slice(line)
                .map_err(|_| BooksFault::Damaged { path: named.clone(), line: index + 1 })?;
            books.enter(&line);
        }
        file.set_len(whole as u64).and_then(|()| file.sync_all()).map_err(unreadable)?;
        file.seek(SeekFrom::End(0)).map_err(unreadable)?;
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(unreadable)?;
        }
        let (sender, receiver) = mpsc::sync_channel(WAITING_MAX);
        std::thread::Builder::new()
            .name("gateway-books".to_owned())
            .spawn(move || write(file, &receiver))
            .map_err(unreadable)?;
        Ok((Self::File(sender), books))
    }

    /// Hands lines over and answers once they are flushed.
    pub(super) fn flush(&self, lines: &[Line]) -> Flushed {
        let Self::File(sender) = self else { return Flushed(None) };
        let mut bytes = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut bytes, line).expect("a line is plain data");
            bytes.push(b'\n');
        }
        let (done, flushed) = oneshot::channel();
        // Blocks only while 4,096 calls wait for one flush: then the caller may as well.
        let _ = sender.send((bytes, done));
        Flushed(Some(flushed))
    }
}

/// Waits for a flush.
pub(super) struct Flushed(Option<oneshot::Receiver<Result<(), String>>>);

impl Flushed {
    pub(super) async fn wait(self) -> Result<(), String> {
        match self.0 {
            None => Ok(()),
            Some(flushed) => flushed.await.unwrap_or_else(|_| Err("the gateway's books are closed".to_owned())),
        }
    }
}

/// Writes until all senders are gone. Where the disk is full, what was written of it is cut again and the calls are told
/// so. After any other failure nothing is certain about the file, so nothing more is written and every call is told so.
fn write(mut file: File, receiver: &mpsc::Receiver<Entry>) {
    let mut broken: Option<String> = None;
    while let Ok(first) = receiver.recv() {
        let mut waiting = vec![first];
        waiting.extend(receiver.try_iter().take(WAITING_MAX));
        let written = match &broken {
            Some(why) => Err(why.clone()),
            None => {
                let bytes: Vec<u8> = waiting.iter().flat_map(|(bytes, _)| bytes.iter().copied()).collect();
                keep(&mut file, &bytes).map_err(|trouble| match trouble {
                    Trouble::Full(error) => format!("the gateway's books have no room: {error}"),
                    Trouble::Failed(error) => {
                        tracing::error!(error = %error, "the gateway simulator's books cannot be written; it answers nothing more");
                        broken.insert(format!("the gateway's books cannot be written: {error}")).clone()
                    }
                })
            }
        };
        for (_, done) in waiting {
            let _ = done.send(written.clone());
        }
    }
}

/// Why lines were not kept.
enum Trouble {
    /// No room; the file is as it was.
    Full(io::Error),
    /// Nobody knows what is in the file.
    Failed(io::Error),
}

fn keep(file: &mut File, bytes: &[u8]) -> Result<(), Trouble> {
    let end = file.stream_position().map_err(Trouble::Failed)?;
    match file.write_all(bytes) {
        Ok(()) => file.sync_data().map_err(Trouble::Failed),
        Err(full) if matches!(full.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            let cut = file.set_len(end).and_then(|()| file.seek(SeekFrom::Start(end)));
            cut.and_then(|_| file.sync_data()).map_err(Trouble::Failed)?;
            Err(Trouble::Full(full))
        }
        Err(error) => Err(Trouble::Failed(error)),
    }
}
