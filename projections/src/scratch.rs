//! A read store that is there only as long as a check needs it: a file that goes with its last handle.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::position::{Checkpoint, LogId, Partition};
use engine::read_store::{Batch, Query, ReadStore, RowsAt, StoreFault, StoreFuture};
use engine::view::{Row, RowKey};
use engine_runtime::projection::Scratch;
use engine_sql::{Options, SqlReadStore};

/// Makes an empty store in a file at this path. One that a process left behind is thrown away.
pub(crate) fn at(path: PathBuf) -> Scratch {
    Arc::new(move || {
        let path = path.clone();
        Box::pin(async move {
            remove(&path).map_err(|error| StoreFault::Unavailable(Box::new(error)))?;
            let options = Options { readers: 1, cache_kib: 8 * 1024, ..Options::default() };
            let store = crate::open_with(&format!("sqlite:{}", path.display()), options).await?;
            Ok(Arc::new(Scratched { store, path }) as Arc<dyn ReadStore>)
        })
    })
}

fn remove(path: &Path) -> std::io::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        match std::fs::remove_file(format!("{}{suffix}", path.display())) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

struct Scratched {
    store: SqlReadStore,
    path: PathBuf,
}

impl Drop for Scratched {
    fn drop(&mut self) {
        // What stays behind is thrown away by the next check.
        let _ = remove(&self.path);
    }
}

impl ReadStore for Scratched {
    fn open(&self, log: LogId) -> StoreFuture<'_, BTreeMap<Partition, Checkpoint>> {
        ReadStore::open(&self.store, log)
    }

    fn load(&self, keys: Vec<RowKey>) -> StoreFuture<'_, BTreeMap<RowKey, Row>> {
        self.store.load(keys)
    }

    fn commit(&self, batch: Batch) -> StoreFuture<'_, ()> {
        self.store.commit(batch)
    }

    fn list(&self, query: Query) -> StoreFuture<'_, Vec<(String, Row)>> {
        self.store.list(query)
    }

    fn load_at(&self, keys: Vec<RowKey>) -> StoreFuture<'_, RowsAt> {
        self.store.load_at(keys)
    }
}
