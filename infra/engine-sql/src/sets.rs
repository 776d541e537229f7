//! Two sets of the view tables, each with checkpoints of its own: one is in use, beside it the other is filled anew or kept
//! from before. Which is which stands in one row, `meta`. Whoever feeds a set looks there in the same transaction that
//! writes, and whoever reads in the same state that is read; so a switch is one update, and nobody writes to or reads from
//! the wrong set afterwards.

use std::sync::Arc;

use engine::position::{Checkpoint, Offset, Partition};
use engine::read_store::{Beside, Origin, Standing, StoreFault, Switch};
use engine::view::{ColumnKind, Row, RowKey};
use serde_json::Value;

use crate::connection::{Bind, Session, Statement};
use crate::dialect::{Dialect, quoted};
use crate::tables::{SECOND, Tables};
use crate::work;

const INTEGER: ColumnKind = ColumnKind::Integer;
const TEXT: ColumnKind = ColumnKind::Text;
const META: &str = "SELECT generation, in_use, beside_token, indexed, beside, tables FROM meta";
const META_KINDS: [ColumnKind; 6] = [INTEGER, INTEGER, INTEGER, INTEGER, TEXT, TEXT];

/// The oldest format whose programs can work once the second set has been in use: the one that has it.
pub(crate) const USABLE_FROM: i64 = 2;

/// One of the two sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Set {
    /// Its tables are called as the views call them.
    A,
    /// Theirs end with [`SECOND`].
    B,
}

impl Set {
    /// Both.
    pub(crate) const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The other one.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Where it stands in an array of both; and what `meta.in_use` says.
    pub(crate) fn index(self) -> usize {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }

    /// Its bit in `meta.indexed`.
    fn bit(self) -> i64 {
        1 << self.index()
    }

    /// What a table is called in it.
    pub(crate) fn stored(self, name: &str) -> String {
        match self {
            Self::A => name.to_owned(),
            Self::B => format!("{name}{SECOND}"),
        }
    }
}

/// The statements about a set's checkpoints.
#[derive(Clone, Debug)]
pub(crate) struct CheckpointTexts {
    pub(crate) all: Arc<str>,
    /// With the generation in each row, also where there is no checkpoint.
    pub(crate) all_with_generation: Arc<str>,
    pub(crate) first: Arc<str>,
    pub(crate) clear: Arc<str>,
}

impl CheckpointTexts {
    pub(crate) fn of(set: Set) -> Self {
        let table = set.stored("checkpoints");
        let columns = "\"partition\", next_offset, epoch, nonce, next_seq, open";
        Self {
            all: format!("SELECT {columns} FROM {table}").into(),
            all_with_generation: format!(
                "SELECT {columns}, generation, beside_token FROM meta LEFT JOIN {table} ON true"
            )
            .into(),
            first: format!(
                "INSERT INTO {table} ({columns}) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (\"partition\") DO NOTHING"
            )
            .into(),
            clear: format!("DELETE FROM {table}").into(),
        }
    }
}

/// What is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InUse {
    /// Counts what came into use.
    pub(crate) generation: i64,
    /// Which.
    pub(crate) set: Set,
}

/// What somebody means to read or feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pin {
    /// What was in use when it was looked up.
    InUse(InUse),
    /// What was beside it.
    Beside {
        /// Which set.
        set: Set,
        /// What the set held.
        token: i64,
    },
}

impl Pin {
    /// Which set.
    pub(crate) fn set(self) -> Set {
        match self {
            Self::InUse(in_use) => in_use.set,
            Self::Beside { set, .. } => set,
        }
    }

    /// Whether it still is so.
    pub(crate) fn holds(self, generation: i64, token: i64) -> bool {
        match self {
            Self::InUse(in_use) => in_use.generation == generation,
            // A set that came into use is beside no more, and its token is gone.
            Self::Beside { token: meant, .. } => meant == token,
        }
    }
}

/// What the store says of its sets.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    pub(crate) in_use: InUse,
    pub(crate) token: i64,
    pub(crate) beside: Option<Origin>,
    indexed: i64,
    /// The specification of the tables.
    pub(crate) tables: String,
}

impl Meta {
    /// Looks.
    pub(crate) async fn read(session: &mut impl Session) -> Result<Self, StoreFault> {
        let damaged = || StoreFault::Damaged("it says nothing about its tables".to_owned());
        let found = session.fetch(Statement::plain(META), &META_KINDS).await?;
        let row = found.into_iter().next().ok_or_else(damaged)?;
        let [generation, in_use, token, indexed, Value::String(beside), Value::String(tables)] = row.as_slice() else {
            return Err(damaged());
        };
        let number = |value: &Value| value.as_i64().ok_or_else(damaged);
        let set = match number(in_use)? {
            0 => Set::A,
            1 => Set::B,
            _ => return Err(damaged()),
        };
        let beside = match beside.as_str() {
            "" => None,
            "rebuilt" => Some(Origin::Rebuilt),
            "kept" => Some(Origin::Kept),
            _ => return Err(damaged()),
        };
        Ok(Self {
            in_use: InUse { generation: number(generation)?, set },
            token: number(token)?,
            beside,
            indexed: number(indexed)?,
            tables: tables.clone(),
        })
    }

    /// Whether what is meant is still there.
    pub(crate) fn holds(&self, pin: Pin) -> bool {
        pin.holds(self.in_use.generation, self.token)
    }

    /// For those outside.
    pub(crate) fn standing(&self) -> Standing {
        let beside = self.beside.map(|origin| Beside { origin, token: self.token });
        Standing { generation: self.in_use.generation, beside }
    }

    /// Whether a set's indexes are made.
    pub(crate) fn is_indexed(&self, set: Set) -> bool {
        self.indexed & set.bit() != 0
    }
}

/// Makes the indexes of a set that have not been made. False if the set is not what was meant.
pub(crate) async fn make_indexes(
    session: &mut impl Session,
    tables: &Tables,
    pin: Pin,
    dialect: &impl Dialect,
) -> Result<bool, StoreFault> {
    let meta = Meta::read(session).await?;
    if !meta.holds(pin) {
        return Ok(false);
    }
    if !meta.is_indexed(pin.set()) {
        for statement in tables.iter().flat_map(|table| dialect.create_indexes(table)) {
            session.execute(Statement::plain(statement)).await?;
        }
        let indexed = meta.indexed | pin.set().bit();
        session.execute(Statement::new("UPDATE meta SET indexed = $1", vec![Bind::Integer(indexed)])).await?;
    }
    Ok(true)
}

/// Drops what is beside and makes an empty set there.
pub(crate) async fn begin_beside(
    session: &mut impl Session,
    sets: &[Tables; 2],
    dialect: &impl Dialect,
) -> Result<(Meta, Beside), StoreFault> {
    let meta = drop_beside(session, sets, "rebuilt").await?;
    let set = meta.in_use.set.other();
    for table in sets[set.index()].iter() {
        session.execute(Statement::plain(dialect.create(table))).await?;
    }
    let beside = Beside { origin: Origin::Rebuilt, token: meta.token + 1 };
    Ok((meta, beside))
}

/// Drops what is beside. What the store said before.
pub(crate) async fn drop_beside(
    session: &mut impl Session,
    sets: &[Tables; 2],
    becomes: &str,
) -> Result<Meta, StoreFault> {
    let meta = Meta::read(session).await?;
    let set = meta.in_use.set.other();
    let tables = &sets[set.index()];
    for table in tables.iter() {
        session.execute(Statement::plain(format!("DROP TABLE IF EXISTS {}", quoted(&table.stored)))).await?;
    }
    session.execute(Statement::plain(tables.checkpoints.clear.clone())).await?;
    let indexed = Bind::Integer(meta.indexed & !set.bit());
    let binds = vec![Bind::Text(becomes.to_owned()), Bind::Integer(meta.token + 1), indexed];
    session.execute(Statement::new("UPDATE meta SET beside = $1, beside_token = $2, indexed = $3", binds)).await?;
    Ok(meta)
}

/// Brings what is beside into use, if it is as far as what it replaces.
pub(crate) async fn switch(
    session: &mut impl Session,
    sets: &[Tables; 2],
    beside: Beside,
) -> Result<(Meta, Switch), StoreFault> {
    let meta = Meta::read(session).await?;
    if meta.beside.is_none() || meta.token != beside.token {
        return Ok((meta, Switch::Gone));
    }
    let (now, next) = (meta.in_use.set, meta.in_use.set.other());
    let used = work::checkpoints(session, &sets[now.index()]).await?;
    let fed = work::checkpoints(session, &sets[next.index()]).await?;
    let at =
        |partition: &Partition| fed.get(partition).map_or(Offset(0), |checkpoint: &Checkpoint| checkpoint.next_offset);
    if let Some((partition, _)) = used.iter().find(|(partition, used)| used.next_offset > at(partition)) {
        return Ok((meta.clone(), Switch::Behind(*partition)));
    }
    if !meta.is_indexed(next) {
        return Ok((meta, Switch::Behind(Partition(0))));
    }
    let generation = meta.in_use.generation + 1;
    let binds = vec![Bind::Integer(next.index() as i64), Bind::Integer(generation), Bind::Integer(meta.token + 1)];
    let text = "UPDATE meta SET in_use = $1, generation = $2, beside = 'kept', beside_token = $3";
    session.execute(Statement::new(text, binds)).await?;
    Ok((meta, Switch::Done(generation)))
}

/// Replaces a row of the set in use, if it is as it `was`, and begins a new generation over the same tables.
pub(crate) async fn amend(
    session: &mut impl Session,
    sets: &[Tables; 2],
    key: &RowKey,
    was: &Row,
    becomes: Option<&Row>,
    dialect: &impl Dialect,
) -> Result<Option<InUse>, StoreFault> {
    let meta = Meta::read(session).await?;
    let tables = &sets[meta.in_use.set.index()];
    let found = work::load(session, vec![key.clone()], tables, dialect).await?;
    if found.get(key) != Some(was) {
        return Ok(None);
    }
    work::write(session, std::iter::once((key, becomes)), tables, dialect).await?;
    let generation = meta.in_use.generation + 1;
    session.execute(Statement::new("UPDATE meta SET generation = $1", vec![Bind::Integer(generation)])).await?;
    Ok(Some(InUse { generation, set: meta.in_use.set }))
}
