//! What a store does, said once for all databases: bind itself to a log, make its tables, commit, load, list. Each
//! function works within one open transaction and leaves it to its caller to commit or roll back.

use std::collections::BTreeMap;

use engine::position::{Checkpoint, Epoch, LogId, Nonce, Offset, Partition, Seq};
use engine::read_store::{Batch, Origin, Query, StoreFault};
use engine::view::{ColumnKind, Row, RowKey};
use serde_json::Value;
use uuid::Uuid;

use crate::connection::{Bind, Session, Statement};
use crate::dialect::{Dialect, quoted};
use crate::list;
use crate::sets::{self, InUse, Meta, Pin, Set};
use crate::tables::{Tables, is_plain, misused};

/// 100 rows of one table: for fewer, a copy's second round trip takes longer than it saves.
const COPY_ROWS_MIN: usize = 100;
const INTEGER: ColumnKind = ColumnKind::Integer;
const TEXT: ColumnKind = ColumnKind::Text;

/// Makes the view tables unless they are there as specified; what is there is dropped, and the checkpoints with it.
/// Returns what is in use. `alone`: nobody else can be filling what is beside, so what was not finished is dropped.
pub(crate) async fn make_tables(
    session: &mut impl Session,
    sets: &[Tables; 2],
    existing: &[String],
    dialect: &impl Dialect,
    alone: bool,
) -> Result<InUse, StoreFault> {
    let meta = Meta::read(session).await?;
    let tables = &sets[meta.in_use.set.index()];
    let (text, found) = (tables.text(), &meta.tables);
    let complete = tables.iter().all(|table| existing.contains(&table.stored));
    if *found == text && complete {
        if alone && meta.beside == Some(Origin::Rebuilt) {
            sets::drop_beside(session, sets, "").await?;
        }
        return Ok(meta.in_use);
    }
    if !found.is_empty() {
        let found = serde_json::from_str::<Value>(found)
            .map_err(|_| StoreFault::Damaged("the specification of its tables is no JSON".to_owned()))?;
        let view_version = found["view_version"].as_i64().unwrap_or_default();
        if view_version > i64::from(tables.view_version) {
            return Err(StoreFault::TooNew { found: view_version, known: i64::from(tables.view_version) });
        }
        let names = found["tables"].as_object().into_iter().flatten().map(|(name, _)| name);
        for name in names.filter(|name| is_plain(name)) {
            for name in Set::BOTH.map(|set| set.stored(name)) {
                session.execute(Statement::plain(format!("DROP TABLE IF EXISTS {}", quoted(&name)))).await?;
            }
        }
        tracing::warn!(
            view.version = tables.view_version,
            "the read store's tables have changed: rows and checkpoints are dropped and folded anew from the log"
        );
    }
    for table in tables.iter() {
        session.execute(Statement::plain(dialect.create(table))).await?;
    }
    for set in sets {
        session.execute(Statement::plain(set.checkpoints.clear.clone())).await?;
    }
    let in_use = InUse { generation: meta.in_use.generation + 1, set: meta.in_use.set };
    let binds = vec![Bind::Text(text), Bind::Integer(in_use.generation), Bind::Integer(meta.token + 1)];
    // Indexes are made once there are rows.
    let made = "UPDATE meta SET tables = $1, generation = $2, beside = '', beside_token = $3, indexed = 0";
    session.execute(Statement::new(made, binds)).await?;
    Ok(in_use)
}

/// Binds the store to a log, if it is not bound to another; then the checkpoints of what is meant. `Fenced` if that is not
/// there any more.
pub(crate) async fn open(
    session: &mut impl Session,
    log: LogId,
    pin: Pin,
    tables: &Tables,
) -> Result<BTreeMap<Partition, Checkpoint>, StoreFault> {
    if !Meta::read(session).await?.holds(pin) {
        return Err(StoreFault::Fenced(Partition(0)));
    }
    let meta = session.fetch(Statement::plain("SELECT log_id FROM meta"), &[TEXT]).await?;
    match meta.first().and_then(|cells| cells.first()) {
        Some(Value::Null) => {
            // Two nodes may see it unbound at once: one binds it, and the other looks again.
            let binds = vec![Bind::Text(log.0.to_string())];
            let bind = "UPDATE meta SET log_id = $1 WHERE log_id IS NULL OR log_id = $1";
            if session.execute(Statement::new(bind, binds)).await? == 0 {
                let bound = session.fetch(Statement::plain("SELECT log_id FROM meta"), &[TEXT]).await?;
                let found = bound.first().and_then(|cells| cells.first()).and_then(Value::as_str).unwrap_or_default();
                return Err(StoreFault::ForeignLog {
                    found: LogId(Uuid::parse_str(found).unwrap_or_default()),
                    expected: log,
                });
            }
        }
        Some(Value::String(found)) => {
            let found = Uuid::parse_str(found).map(LogId);
            let found = found.map_err(|_| StoreFault::Damaged("its log id is no UUID".to_owned()))?;
            if found != log {
                return Err(StoreFault::ForeignLog { found, expected: log });
            }
        }
        _ => return Err(StoreFault::Damaged("it does not say whose it is".to_owned())),
    }
    checkpoints(session, tables).await
}

/// The checkpoints, one for each partition that has one.
pub(crate) async fn checkpoints(
    session: &mut impl Session,
    tables: &Tables,
) -> Result<BTreeMap<Partition, Checkpoint>, StoreFault> {
    let rows = session.fetch(Statement::plain(tables.checkpoints.all.clone()), &[INTEGER; 6]).await?;
    rows.iter().map(|cells| checkpoint(cells).ok_or_else(out_of_range)).collect()
}

/// The same, if what is meant is still there; else `Fenced`.
pub(crate) async fn checkpoints_of(
    session: &mut impl Session,
    pin: Pin,
    tables: &Tables,
) -> Result<BTreeMap<Partition, Checkpoint>, StoreFault> {
    let text = tables.checkpoints.all_with_generation.clone();
    let rows = session.fetch(Statement::plain(text), &[INTEGER; 8]).await?;
    let mut found = BTreeMap::new();
    for cells in &rows {
        let [checkpointed @ .., generation, token] = cells.as_slice() else { return Err(out_of_range()) };
        let numbers = generation.as_i64().zip(token.as_i64());
        let (generation, token) = numbers.ok_or_else(out_of_range)?;
        if !pin.holds(generation, token) {
            return Err(StoreFault::Fenced(Partition(0)));
        }
        if checkpointed.first().is_some_and(|partition| !partition.is_null()) {
            let (partition, checkpoint) = checkpoint(checkpointed).ok_or_else(out_of_range)?;
            found.insert(partition, checkpoint);
        }
    }
    Ok(found)
}

fn out_of_range() -> StoreFault {
    StoreFault::Damaged("a checkpoint is out of range".to_owned())
}

/// What a batch changes in one table.
#[derive(Default)]
struct Changes<'a> {
    /// Rows that are not there yet, as far as is known.
    inserts: Vec<(&'a str, &'a Row)>,
    upserts: Vec<(&'a str, &'a Row)>,
    deletes: Vec<&'a str>,
}

/// Writes a batch; new rows by copying, if that may be. After `Fenced`, and after any other fault, the transaction must be
/// rolled back.
pub(crate) async fn commit(
    session: &mut impl Session,
    batch: &Batch,
    may_copy: bool,
    tables: &Tables,
    pin: Pin,
    dialect: &impl Dialect,
) -> Result<(), StoreFault> {
    let somewhere = batch.checkpoints.first().map(|(partition, ..)| *partition).unwrap_or_default();
    let meta = session.fetch(Statement::plain("SELECT generation, beside_token FROM meta"), &[INTEGER; 2]).await?;
    let numbers = meta.first().and_then(|cells| Some((cells.first()?.as_i64()?, cells.get(1)?.as_i64()?)));
    if !numbers.is_some_and(|(generation, token)| pin.holds(generation, token)) {
        // Other tables came into use since this store was opened: what this worker folded belongs to the old ones.
        return Err(StoreFault::Fenced(somewhere));
    }
    let (mut moves, mut firsts) = (Vec::with_capacity(batch.checkpoints.len()), Vec::new());
    for (partition, expected, next) in &batch.checkpoints {
        match expected {
            Some(expected) => moves.push(checkpoint_move(*partition, *expected, *next)?),
            None => firsts.push((*partition, *next)),
        }
    }
    moves.sort_unstable();
    let mut moved = 0;
    for statement in dialect.moves(&tables.moves, &moves) {
        moved += session.execute(statement).await?;
    }
    if moved != moves.len() as u64 {
        let found = checkpoints(session, tables).await?;
        // Those that could be moved have been, in this transaction.
        let stays = |(partition, _, next): &&(_, Option<Checkpoint>, Checkpoint)| found.get(partition) != Some(next);
        let fenced = batch.checkpoints.iter().filter(|(_, expected, _)| expected.is_some()).find(stays);
        return Err(StoreFault::Fenced(fenced.map_or(somewhere, |(partition, ..)| *partition)));
    }
    firsts.sort_unstable_by_key(|(partition, _)| *partition);
    for (partition, next) in firsts {
        let mut binds = vec![Bind::Integer(i64::from(partition.0))];
        binds.extend(checkpoint_numbers(next)?.map(Bind::Integer));
        if session.execute(Statement::new(tables.checkpoints.first.clone(), binds)).await? != 1 {
            return Err(StoreFault::Fenced(partition));
        }
    }
    // By table and by key: one statement for many rows, and a tree is written in its own order. Where several workers
    // write at once, the same order for all of them is also why they do not wait for each other in a circle.
    let mut changes: BTreeMap<&str, Changes<'_>> = BTreeMap::new();
    for (index, (key, row)) in batch.rows.iter().enumerate() {
        let changes = changes.entry(key.table).or_default();
        match row {
            Some(row) => {
                tables.get(key.table)?.accept(&key.key, row)?;
                let rows = if may_copy && index < batch.new { &mut changes.inserts } else { &mut changes.upserts };
                rows.push((key.key.as_str(), row));
            }
            None => changes.deletes.push(&key.key),
        }
    }
    for (name, Changes { mut inserts, mut upserts, mut deletes }) in changes {
        let table = tables.get(name)?;
        let insert = table.insert.as_ref().filter(|_| inserts.len() >= COPY_ROWS_MIN);
        if insert.is_none() {
            upserts.append(&mut inserts);
        }
        // Mostly they are in order already, which is found out by one look at each.
        inserts.sort_by_key(|(key, _)| *key);
        upserts.sort_by_key(|(key, _)| *key);
        deletes.sort_unstable();
        for keys in deletes.chunks(dialect.keys_max()) {
            let keys = dialect.texts(keys.iter().copied());
            session.execute(Statement::new(table.delete.clone(), vec![keys])).await?;
        }
        if let Some(insert) = insert {
            session.copy(insert.clone(), dialect.inserts(table, &inserts)).await?;
        }
        for statement in dialect.upserts(table, &upserts) {
            session.execute(statement).await?;
        }
    }
    Ok(())
}

/// Writes rows one by one.
pub(crate) async fn write<'a>(
    session: &mut impl Session,
    rows: impl Iterator<Item = (&'a RowKey, Option<&'a Row>)>,
    tables: &Tables,
    dialect: &impl Dialect,
) -> Result<(), StoreFault> {
    for (key, row) in rows {
        let table = tables.get(key.table)?;
        let Some(row) = row else {
            let keys = dialect.texts(std::iter::once(key.key.as_str()));
            session.execute(Statement::new(table.delete.clone(), vec![keys])).await?;
            continue;
        };
        table.accept(&key.key, row)?;
        let one = [(key.key.as_str(), row)];
        for statement in dialect.upserts(table, &one) {
            session.execute(statement).await?;
        }
    }
    Ok(())
}

/// How many rows have each value of a column.
pub(crate) async fn count_by(
    session: &mut impl Session,
    table: &str,
    column: &str,
    tables: &Tables,
) -> Result<Vec<(Value, u64)>, StoreFault> {
    let table = tables.get(table)?;
    let (column, kind) = table.column(column)?;
    let text = format!("SELECT {column}, COUNT(*) FROM {} GROUP BY {column}", quoted(&table.stored));
    let counted = session.fetch(Statement::plain(text), &[kind, INTEGER]).await?;
    let pair = |cells: Vec<Value>| {
        let [value, count] = <[Value; 2]>::try_from(cells).ok()?;
        Some((value, count.as_u64()?))
    };
    Ok(counted.into_iter().filter_map(pair).collect())
}

/// The rows that exist among these.
pub(crate) async fn load(
    session: &mut impl Session,
    keys: Vec<RowKey>,
    tables: &Tables,
    dialect: &impl Dialect,
) -> Result<BTreeMap<RowKey, Row>, StoreFault> {
    let mut by_table: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    for key in keys {
        by_table.entry(key.table).or_default().push(key.key);
    }
    let mut found = BTreeMap::new();
    for (name, mut keys) in by_table {
        let table = tables.get(name)?;
        keys.sort_unstable();
        for keys in keys.chunks(dialect.keys_max()) {
            let keys = dialect.texts(keys.iter().map(String::as_str));
            for cells in session.fetch(Statement::new(table.load.clone(), vec![keys]), &table.kinds).await? {
                let (key, row) = table.row(cells)?;
                found.insert(RowKey { table: name, key }, row);
            }
        }
    }
    Ok(found)
}

/// Finds rows.
pub(crate) async fn list(
    session: &mut impl Session,
    query: &Query,
    tables: &Tables,
    dialect: &impl Dialect,
) -> Result<Vec<(String, Row)>, StoreFault> {
    let table = tables.get(query.table)?;
    let limit = query.limit as usize;
    let mut found = Vec::new();
    for mut statement in list::statements(table, query, dialect)? {
        if found.len() >= limit {
            break;
        }
        if let Some(last) = statement.binds.last_mut() {
            *last = Bind::Integer((limit - found.len()) as i64);
        }
        for cells in session.fetch(statement, &table.kinds).await? {
            found.push(table.row(cells)?);
        }
    }
    Ok(found)
}

/// A partition, the columns of the checkpoint it goes to, and of the one it must be at: see [`Dialect::moves`].
fn checkpoint_move(partition: Partition, from: Checkpoint, to: Checkpoint) -> Result<[i64; 11], StoreFault> {
    let mut numbers = [i64::from(partition.0); 11];
    numbers[1..6].copy_from_slice(&checkpoint_numbers(to)?);
    numbers[6..].copy_from_slice(&checkpoint_numbers(from)?);
    Ok(numbers)
}

/// The columns of a checkpoint but its partition.
fn checkpoint_numbers(checkpoint: Checkpoint) -> Result<[i64; 5], StoreFault> {
    let plain = |number: u64| i64::try_from(number).map_err(|_| misused(format!("{checkpoint:?} is out of range")));
    Ok([
        plain(checkpoint.next_offset.0)?,
        plain(checkpoint.epoch.0)?,
        // Databases know no unsigned numbers. A nonce is drawn from all 64 bits; they are kept, read as a signed number.
        checkpoint.nonce.0.cast_signed(),
        plain(checkpoint.next_seq.0)?,
        i64::from(checkpoint.open),
    ])
}

/// A checkpoint from its columns, if they are what this program wrote.
fn checkpoint(cells: &[Value]) -> Option<(Partition, Checkpoint)> {
    let [partition, next_offset, epoch, nonce, next_seq, open] = cells else { return None };
    let checkpoint = Checkpoint {
        next_offset: Offset(next_offset.as_u64()?),
        epoch: Epoch(epoch.as_u64()?),
        nonce: Nonce(nonce.as_i64()?.cast_unsigned()),
        next_seq: Seq(next_seq.as_u64()?),
        open: open.as_u64()? == 1,
    };
    Some((Partition(u16::try_from(partition.as_u64()?).ok()?), checkpoint))
}
