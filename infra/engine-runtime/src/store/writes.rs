//! Where the entries of a sheet go: into one atomic batch, which passes the journal and the memory tables; or, while a
//! store is folded afresh, sorted straight into tables, which costs a third of that and is atomic for each keyspace only.

use fjall::{Database, Keyspace, OwnedWriteBatch, UserKey, UserValue};

/// Entries of several keyspaces, not yet written.
pub(super) enum Writes {
    Batch(OwnedWriteBatch),
    Runs(Vec<Run>),
}

/// The entries of one keyspace; `None` removes.
pub(super) struct Run {
    keyspace: Keyspace,
    entries: Vec<(UserKey, Option<UserValue>)>,
}

impl Writes {
    pub(super) fn batch(database: &Database) -> Self {
        Self::Batch(database.batch())
    }

    pub(super) fn runs() -> Self {
        Self::Runs(Vec::new())
    }

    pub(super) fn insert(&mut self, keyspace: &Keyspace, key: impl Into<UserKey>, value: impl Into<UserValue>) {
        match self {
            Self::Batch(batch) => batch.insert(keyspace, key, value),
            Self::Runs(runs) => run(runs, keyspace).entries.push((key.into(), Some(value.into()))),
        }
    }

    pub(super) fn remove(&mut self, keyspace: &Keyspace, key: impl Into<UserKey>) {
        match self {
            Self::Batch(batch) => batch.remove(keyspace, key),
            Self::Runs(runs) => run(runs, keyspace).entries.push((key.into(), None)),
        }
    }

    /// Writes them. Of several entries of one key the last counts.
    pub(super) fn commit(self) -> fjall::Result<()> {
        match self {
            Self::Batch(batch) => batch.commit(),
            Self::Runs(runs) => runs.into_iter().try_for_each(Run::ingest),
        }
    }
}

fn run<'a>(runs: &'a mut Vec<Run>, keyspace: &Keyspace) -> &'a mut Run {
    // A handful: states, index, ids, and where something is owed.
    let found = runs.iter().position(|run| run.keyspace.id() == keyspace.id());
    let at = found.unwrap_or_else(|| {
        runs.push(Run { keyspace: keyspace.clone(), entries: Vec::new() });
        runs.len() - 1
    });
    &mut runs[at]
}

impl Run {
    fn ingest(mut self) -> fjall::Result<()> {
        // Stable: the entries of one key stay in the order in which they were put.
        self.entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut ingestion = self.keyspace.start_ingestion()?;
        let mut entries = self.entries.into_iter().peekable();
        while let Some((key, value)) = entries.next() {
            if entries.peek().is_some_and(|(next, _)| *next == key) {
                continue;
            }
            match value {
                Some(value) => ingestion.write(key, value)?,
                None => ingestion.write_tombstone(key)?,
            }
        }
        ingestion.finish()
    }
}
