//! Bringing a database up to date. Everything happens in one transaction under one lock, so that of many nodes that start
//! at once one does it and the others find it done. A program that knows fewer migrations than were made works on, if the
//! schema says that it may (`meta.usable_from`): migrations that only add do not stop the nodes of yesterday.

use engine::read_store::StoreFault;
use engine::view::ColumnKind;
use serde_json::Value;

use super::{Access, PostgresDatabase, PostgresSession, Session};
use crate::connection::Statement;
use crate::dialect::postgres::PostgresDialect;
use crate::sets::{InUse, Meta};
use crate::tables::Tables;
use crate::work;

/// In order; the last one's number is the format that this program knows.
const MIGRATIONS: &[(i64, &str)] = &[
    (1, include_str!("../../../migrations/postgres/0001_bookkeeping.sql")),
    (2, include_str!("../../../migrations/postgres/0002_two_sets.sql")),
];
const INTEGER: ColumnKind = ColumnKind::Integer;
const TEXT: ColumnKind = ColumnKind::Text;

fn format_known() -> i64 {
    MIGRATIONS.last().map_or(0, |(number, _)| *number)
}

impl PostgresDatabase {
    /// Makes the schema, the bookkeeping and the view tables as far as they are missing or old. Returns which of
    /// the view tables are in use.
    ///
    /// # Errors
    /// `TooNew` if a newer program made it so that this one cannot use it, `Damaged` if it is another program's.
    pub(crate) async fn prepare(&self, sets: &[Tables; 2]) -> Result<InUse, StoreFault> {
        // Most starts find everything as it should be, and hold up nobody.
        if let Some(in_use) = self.prepared(sets).await? {
            return Ok(in_use);
        }
        let mut session = self.begin_alone().await?;
        let made = self.prepare_in(&mut session, sets).await;
        match made {
            Ok(in_use) => session.commit().await.map(|()| in_use),
            Err(fault) => {
                let _ = session.rollback().await;
                Err(fault)
            }
        }
    }

    /// What is in use, if there is nothing to do.
    async fn prepared(&self, sets: &[Tables; 2]) -> Result<Option<InUse>, StoreFault> {
        let mut session = self.begin(Access::Snapshot).await?;
        let existing = existing(&mut session).await?;
        let mut in_use = None;
        if existing.iter().any(|name| name == "meta") {
            let format = self.check_format(&mut session).await?;
            if format >= format_known() {
                let meta = Meta::read(&mut session).await?;
                let tables = &sets[meta.in_use.set.index()];
                let complete = tables.iter().all(|table| existing.contains(&table.stored));
                in_use = (complete && meta.tables == tables.text()).then_some(meta.in_use);
            }
        }
        session.commit().await?;
        Ok(in_use)
    }

    async fn prepare_in(&self, session: &mut PostgresSession<'_>, sets: &[Tables; 2]) -> Result<InUse, StoreFault> {
        let encoding = session.fetch(Statement::plain("SHOW server_encoding"), &[TEXT]).await?;
        if encoding != [[Value::from("UTF8")]] {
            let shown = &self.place().shown;
            return Err(StoreFault::Misused(format!("{shown} is not encoded in UTF8: create the database with it")));
        }
        let schema = &self.place().schema;
        let namespace = format!("SELECT count(*) FROM pg_catalog.pg_namespace WHERE nspname = '{schema}'");
        if session.fetch(Statement::plain(namespace), &[INTEGER]).await? == [[Value::from(0)]] {
            session.say(&format!("CREATE SCHEMA \"{schema}\"")).await?;
        }
        let existing_tables = existing(session).await?;
        let mut format = 0;
        if existing_tables.iter().any(|name| name == "meta") {
            format = self.check_format(session).await?;
        } else if !existing_tables.is_empty() {
            let shown = &self.place().shown;
            return Err(StoreFault::Damaged(format!(
                "{shown} holds another program's tables: name another schema with ?schema= in the store's URL"
            )));
        }
        for (number, text) in MIGRATIONS.iter().filter(|(number, _)| *number > format) {
            session.say(text).await?;
            session.say(&format!("UPDATE meta SET format = {number}")).await?;
        }
        work::make_tables(session, sets, &existing_tables, &PostgresDialect, false).await
    }

    async fn check_format(&self, session: &mut PostgresSession<'_>) -> Result<i64, StoreFault> {
        let found = session.fetch(Statement::plain("SELECT format, usable_from FROM meta"), &[INTEGER; 2]).await?;
        let Some([Value::Number(format), Value::Number(usable_from)]) = found.first().map(Vec::as_slice) else {
            let shown = &self.place().shown;
            return Err(StoreFault::Damaged(format!("{shown}: it does not say which format it has")));
        };
        let (format, usable_from) = (format.as_i64().unwrap_or_default(), usable_from.as_i64().unwrap_or_default());
        if usable_from > format_known() {
            return Err(StoreFault::TooNew { found: format, known: format_known() });
        }
        Ok(format)
    }
}

/// The tables of the store's schema.
async fn existing(session: &mut PostgresSession<'_>) -> Result<Vec<String>, StoreFault> {
    let tables = "SELECT tablename::text FROM pg_catalog.pg_tables WHERE schemaname = current_schema()";
    let found = session.fetch(Statement::plain(tables), &[TEXT]).await?;
    Ok(found.into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect())
}
