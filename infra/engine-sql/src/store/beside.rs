//! The second set of tables: made, fed, brought into use, dropped. Each change is one transaction in which nobody else
//! writes, so whoever fed either set before finds out with the next batch at the latest.

use std::sync::Arc;

use engine::read_store::{Beside, ReadStore, SideBySide, Standing, StoreFault, StoreFuture, Switch};
use engine::view::{Row, RowKey};

use super::{Aim, Inner, SqlReadStore, settle};
use crate::connection::{Access, AnySession, Bind, Database, Session, Statement};
use crate::dialect::Dialect;
use crate::sets::{self, InUse, Meta, Pin};
use crate::share::progress;

impl SqlReadStore {
    /// Runs what changes the sets: no batch is under way meanwhile, and it takes as long as it takes.
    async fn change<T, F, Operation>(&self, operation: F) -> Result<T, StoreFault>
    where
        T: Send + 'static,
        F: FnOnce(Arc<Inner>) -> Operation,
        Operation: Future<Output = Result<T, StoreFault>> + Send + 'static,
    {
        self.run(&self.writes, self.wait_max, None, operation).await
    }

    /// Asks the database what is in use. True if that is news.
    pub(super) async fn look_again(&self) -> Result<bool, StoreFault> {
        self.run(&self.reads, self.read_wait_max, self.read_end, |inner| async move {
            let meta = inner.look().await?;
            inner.adopt(&meta)
        })
        .await
    }

    /// What is in use has caught up: SQLite writes as always from now on. Before there are indexes, so that readers do not
    /// have to take turns while those are made.
    pub(super) async fn filled(&self) -> Result<(), StoreFault> {
        let Database::Sqlite(_) = &self.inner.database else { return Ok(()) };
        self.change(|inner| async move {
            match &inner.database {
                Database::Sqlite(sqlite) => sqlite.filled().await,
                Database::Postgres(_) => Ok(()),
            }
        })
        .await
    }

    /// Makes the indexes of what is meant, unless they are there.
    pub(super) async fn index(&self, pin: Pin) -> Result<(), StoreFault> {
        let indexed = self
            .run(&self.reads, self.read_wait_max, self.read_end, move |inner| async move {
                let meta = inner.look().await?;
                Ok(!meta.holds(pin) || meta.is_indexed(pin.set()))
            })
            .await?;
        if indexed {
            // Or not there any more, which whoever feeds it finds out soon.
            return Ok(());
        }
        let in_one = matches!(self.inner.database, Database::Postgres(_));
        if in_one {
            return self
                .change(move |inner| async move {
                    let mut session = inner.begin_alone().await?;
                    let done = sets::make_indexes(&mut session, inner.tables(pin.set()), pin, &inner.dialect).await;
                    settle(session, done).await.map(|_| ())
                })
                .await;
        }
        // One by one: batches of what is in use come in between.
        let tables = self.inner.tables(pin.set());
        let statements = tables.iter().flat_map(|table| self.inner.dialect.create_indexes(table)).collect::<Vec<_>>();
        for statement in statements {
            let made = self
                .change(move |inner| async move {
                    let Database::Sqlite(sqlite) = &inner.database else { return Ok(false) };
                    sqlite.sort_in_files(true).await?;
                    let made = async {
                        let mut session = AnySession::Sqlite(sqlite.begin(Access::Write).await?);
                        let done = async {
                            let holds = Meta::read(&mut session).await?.holds(pin);
                            if holds {
                                session.execute(Statement::plain(statement)).await?;
                            }
                            Ok(holds)
                        };
                        let done = done.await;
                        settle(session, done).await
                    };
                    let made = made.await;
                    sqlite.sort_in_files(false).await?;
                    made
                })
                .await?;
            if !made {
                return Ok(());
            }
        }
        self.change(move |inner| async move {
            let mut session = inner.begin_alone().await?;
            let done = sets::make_indexes(&mut session, inner.tables(pin.set()), pin, &inner.dialect).await;
            settle(session, done).await.map(|_| ())
        })
        .await
    }
}

impl Inner {
    async fn look(&self) -> Result<Meta, StoreFault> {
        let mut session = self.database.begin(Access::Read).await?;
        let done = Meta::read(&mut session).await;
        settle(session, done).await
    }

    async fn begin_alone(&self) -> Result<AnySession<'_>, StoreFault> {
        match &self.database {
            Database::Sqlite(sqlite) => sqlite.begin(Access::Write).await.map(AnySession::Sqlite),
            Database::Postgres(postgres) => postgres.begin_alone().await.map(AnySession::Postgres),
        }
    }

    /// Tells everybody else that something else is in use.
    async fn tell(&self, session: &mut AnySession<'_>) -> Result<(), StoreFault> {
        match &self.database {
            Database::Sqlite(_) => Ok(()),
            Database::Postgres(postgres) => progress::tell_to_look(session, postgres).await,
        }
    }
}

impl SideBySide for SqlReadStore {
    fn standing(&self) -> StoreFuture<'_, Standing> {
        Box::pin(self.run(&self.reads, self.read_wait_max, self.read_end, |inner| async move {
            let meta = inner.look().await?;
            inner.adopt(&meta)?;
            Ok(meta.standing())
        }))
    }

    fn begin_beside(&self) -> StoreFuture<'_, Beside> {
        Box::pin(self.change(|inner| async move {
            let mut session = inner.begin_alone().await?;
            let done = sets::begin_beside(&mut session, &inner.sets, &inner.dialect).await;
            let (meta, beside) = settle(session, done).await?;
            inner.adopt(&meta)?;
            Ok(beside)
        }))
    }

    fn beside(&self, beside: Beside) -> Arc<dyn ReadStore> {
        Arc::new(Self { aim: Aim::Beside(beside.token), ..self.clone() })
    }

    fn switch(&self, beside: Beside) -> StoreFuture<'_, Switch> {
        Box::pin(self.change(move |inner| async move {
            let mut session = inner.begin_alone().await?;
            let done = async {
                let (mut meta, done) = sets::switch(&mut session, &inner.sets, beside).await?;
                if let Switch::Done(generation) = done {
                    meta.in_use = InUse { generation, set: meta.in_use.set.other() };
                    if let Database::Postgres(_) = &inner.database {
                        // Who knows of one set only would read the wrong one from now on.
                        let text = "UPDATE meta SET usable_from = $1 WHERE usable_from < $1";
                        session.execute(Statement::new(text, vec![Bind::Integer(sets::USABLE_FROM)])).await?;
                    }
                    inner.tell(&mut session).await?;
                }
                Ok((meta, done))
            };
            let done = done.await;
            let (meta, done) = settle(session, done).await?;
            inner.adopt(&meta)?;
            Ok(done)
        }))
    }

    fn discard_beside(&self) -> StoreFuture<'_, bool> {
        Box::pin(self.change(|inner| async move {
            let mut session = inner.begin_alone().await?;
            let done = sets::drop_beside(&mut session, &inner.sets, "").await;
            settle(session, done).await.map(|meta| meta.beside.is_some())
        }))
    }

    fn amend(&self, key: RowKey, was: Row, becomes: Option<Row>) -> StoreFuture<'_, Option<i64>> {
        Box::pin(self.change(move |inner| async move {
            let mut session = inner.begin_alone().await?;
            let done = async {
                let mut meta = Meta::read(&mut session).await?;
                let becomes = becomes.as_ref();
                let done = sets::amend(&mut session, &inner.sets, &key, &was, becomes, &inner.dialect).await?;
                if let Some(in_use) = done {
                    meta.in_use = in_use;
                    inner.tell(&mut session).await?;
                }
                Ok((meta, done))
            };
            let done = done.await;
            let (meta, done) = settle(session, done).await?;
            inner.adopt(&meta)?;
            Ok(done.map(|in_use| in_use.generation))
        }))
    }
}
