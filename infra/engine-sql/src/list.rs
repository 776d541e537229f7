//! A query as statements. Names come from the checked specification, values are always bound. Pages continue after a
//! (sort, key), so a deep page costs what the first one costs.
//!
//! Null sorts before everything. A page that would have to say "smaller than this, or null" is asked in two parts, one
//! after the other: a database answers each from an index, the disjunction it would answer by reading everything.

use engine::read_store::{Filter, Query, StoreFault};
use engine::view::ColumnKind;
use serde_json::Value;

use crate::connection::{Bind, Statement};
use crate::dialect::Dialect;
use crate::tables::{TableSpec, misused};

/// The statements that answer the query: run in order until there are `limit` rows. The last value of each statement is its limit, which the caller lowers by what it already has.
pub(crate) fn statements(
    table: &TableSpec,
    query: &Query,
    dialect: &impl Dialect,
) -> Result<Vec<Statement>, StoreFault> {
    let mut conditions = Conditions { dialect, terms: Vec::new(), binds: Vec::new() };
    for filter in &query.filters {
        conditions.add(table, filter)?;
    }
    let (more, less) = if query.descending { ("<", "DESC") } else { (">", "ASC") };
    let sort = match query.sort {
        None | Some("key") => None,
        Some(name) => Some(table.column(name)?),
    };
    let mut parts = Vec::new();
    let order;
    match sort {
        None => {
            order = format!("\"key\" {less}");
            if let Some((_, key)) = &query.after {
                parts.push(format!("\"key\" {more} {}", conditions.bind(Bind::Text(key.clone()))));
            }
        }
        Some((sort, kind)) => {
            let nulls = if query.descending { "LAST" } else { "FIRST" };
            order = format!("{sort} {less} NULLS {nulls}, \"key\" {less}");
            match &query.after {
                None => {}
                Some((Value::Null, key)) => {
                    let key = conditions.bind(Bind::Text(key.clone()));
                    parts.push(format!("{sort} IS NULL AND \"key\" {more} {key}"));
                    if !query.descending {
                        parts.push(format!("{sort} IS NOT NULL"));
                    }
                }
                Some((value, key)) => {
                    let value = conditions.value(kind, value)?;
                    let key = conditions.bind(Bind::Text(key.clone()));
                    parts.push(format!("({sort}, \"key\") {more} ({value}, {key})"));
                    if query.descending {
                        parts.push(format!("{sort} IS NULL"));
                    }
                }
            }
        }
    }
    if parts.is_empty() {
        parts.push("true".to_owned());
    }
    let limit = conditions.bind(Bind::Integer(i64::from(query.limit)));
    let statement = |part: String| {
        let mut text = format!("{} WHERE {part}", table.select);
        for term in &conditions.terms {
            text.push_str(" AND ");
            text.push_str(term);
        }
        text.push_str(&format!(" ORDER BY {order} LIMIT {limit}"));
        Statement::new(text, conditions.binds.clone())
    };
    Ok(parts.into_iter().map(statement).collect())
}

struct Conditions<'a, D> {
    dialect: &'a D,
    terms: Vec<String>,
    binds: Vec<Bind>,
}

impl<D: Dialect> Conditions<'_, D> {
    fn add(&mut self, table: &TableSpec, filter: &Filter) -> Result<(), StoreFault> {
        match filter {
            Filter::Is(name, Value::Null) => {
                let (column, _) = table.column(name)?;
                self.terms.push(format!("{column} IS NULL"));
            }
            Filter::Is(name, value) => self.compare(table, name, "=", value)?,
            // Null is neither at least nor below anything.
            Filter::AtLeast(name, Value::Null) | Filter::Below(name, Value::Null) => {
                table.column(name)?;
                self.terms.push("false".to_owned());
            }
            Filter::AtLeast(name, value) => self.compare(table, name, ">=", value)?,
            Filter::Below(name, value) => self.compare(table, name, "<", value)?,
            Filter::OneOf(name, values) => {
                let (column, kind) = table.column(name)?;
                let (nulls, values): (Vec<_>, Vec<_>) = values.iter().partition(|value| value.is_null());
                let among = match kind {
                    ColumnKind::Text => {
                        let texts = values.iter().map(|value| text(value)).collect::<Result<Vec<_>, _>>()?;
                        let placeholder = self.place(self.dialect.texts(texts.into_iter()));
                        self.dialect.among_texts(&column, placeholder)
                    }
                    ColumnKind::Integer => {
                        let integers = values.iter().map(|value| integer(value)).collect::<Result<Vec<_>, _>>()?;
                        let placeholder = self.place(self.dialect.integers(integers.into_iter()));
                        self.dialect.among_integers(&column, placeholder)
                    }
                };
                self.terms.push(if nulls.is_empty() { among } else { format!("({among} OR {column} IS NULL)") });
            }
            Filter::StartsWith(name, prefix) => {
                let (column, kind) = table.column(name)?;
                if kind != ColumnKind::Text {
                    return Err(misused(format!("column {name:?} of table {} is no text", table.name)));
                }
                // A range, not LIKE: nothing in the prefix is special, and an index serves it.
                let from = self.bind(Bind::Text(prefix.clone()));
                self.terms.push(format!("{column} >= {from}"));
                if let Some(end) = after_prefix(prefix) {
                    let end = self.bind(Bind::Text(end));
                    self.terms.push(format!("{column} < {end}"));
                }
            }
        }
        Ok(())
    }

    fn compare(&mut self, table: &TableSpec, name: &str, operator: &str, value: &Value) -> Result<(), StoreFault> {
        let (column, kind) = table.column(name)?;
        let value = self.value(kind, value)?;
        self.terms.push(format!("{column} {operator} {value}"));
        Ok(())
    }

    fn value(&mut self, kind: ColumnKind, value: &Value) -> Result<String, StoreFault> {
        let bind = match kind {
            ColumnKind::Text => Bind::Text(text(value)?.to_owned()),
            ColumnKind::Integer => Bind::Integer(integer(value)?),
        };
        Ok(self.bind(bind))
    }

    fn bind(&mut self, bind: Bind) -> String {
        format!("${}", self.place(bind))
    }

    fn place(&mut self, bind: Bind) -> usize {
        self.binds.push(bind);
        self.binds.len()
    }
}

fn text(value: &Value) -> Result<&str, StoreFault> {
    value.as_str().ok_or_else(|| misused(format!("a text column was compared with {value}")))
}

fn integer(value: &Value) -> Result<i64, StoreFault> {
    value.as_i64().ok_or_else(|| misused(format!("an integer column was compared with {value}")))
}

/// The smallest text that is larger than all that start with the prefix; none if there is no such text.
fn after_prefix(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        // Bytes of UTF-8 sort as code points do, and code points have a hole where the surrogates are.
        let next = match last {
            '\u{D7FF}' => Some('\u{E000}'),
            _ => char::from_u32(last as u32 + 1),
        };
        if let Some(next) = next {
            end.push(next);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use engine::read_store::{Filter, Query};
    use engine::view::{Column, ColumnKind, Table};
    use proptest::prelude::*;
    use serde_json::json;

    use super::{after_prefix, statements};
    use crate::connection::sqlite::SqliteDatabase;
    use crate::connection::{Access, Session, Statement};
    use crate::dialect::Dialect;
    use crate::dialect::sqlite::SqliteDialect;
    use crate::sets::Set;
    use crate::store::Options;
    use crate::tables::{Index, Tables};

    proptest! {
        #[test]
        fn a_prefix_ends_where_the_range_ends(
            prefix in "\\PC{0,3}|[\u{D7FE}-\u{D7FF}\u{E000}\u{10FFFE}-\u{10FFFF}]{0,3}",
            other in "\\PC{0,4}",
            extend: bool,
        ) {
            let text = if extend { format!("{prefix}{other}") } else { other };
            let below = after_prefix(&prefix).is_none_or(|end| text < end);
            prop_assert_eq!(text.starts_with(&prefix), text >= prefix && below);
        }
    }

    #[test]
    fn the_largest_character_has_no_successor() {
        assert_eq!(after_prefix(""), None);
        assert_eq!(after_prefix("\u{10FFFF}"), None);
        assert_eq!(after_prefix("a\u{10FFFF}").as_deref(), Some("b"));
        assert_eq!(after_prefix("\u{D7FF}").as_deref(), Some("\u{E000}"));
    }

    #[tokio::test]
    async fn every_page_comes_from_an_index_in_order() {
        const TABLES: &[Table] = &[Table {
            name: "orders",
            columns: &[
                Column { name: "status", kind: ColumnKind::Text },
                Column { name: "placed_at", kind: ColumnKind::Integer },
            ],
        }];
        const INDEXES: &[Index] = &[
            Index { table: "orders", columns: &["status", "placed_at"] },
            Index { table: "orders", columns: &["placed_at"] },
        ];
        let tables = Tables::new(TABLES, INDEXES, 1, &SqliteDialect, Set::A).unwrap();
        let orders = tables.get("orders").unwrap();
        let database = SqliteDatabase::open(None, &Options::default()).await.unwrap();
        let mut session = database.begin(Access::Write).await.unwrap();
        session.execute(Statement::plain(SqliteDialect.create(orders))).await.unwrap();
        for statement in SqliteDialect.create_indexes(orders) {
            session.execute(Statement::plain(statement)).await.unwrap();
        }
        let filters = [
            vec![],
            vec![Filter::Is("status", json!("open"))],
            vec![Filter::Is("status", json!("open")), Filter::AtLeast("placed_at", json!(3))],
        ];
        let after = [None, Some((json!(5), "k".to_owned())), Some((json!(null), "k".to_owned()))];
        for (filters, after, descending) in
            filters.iter().flat_map(|f| after.iter().flat_map(move |a| [(f, a, false), (f, a, true)]))
        {
            let (filters, after, sort) = (filters.clone(), after.clone(), Some("placed_at"));
            let query = Query { table: "orders", filters, sort, descending, after, limit: 50 };
            for mut statement in statements(orders, &query, &SqliteDialect).unwrap() {
                statement.text = format!("EXPLAIN QUERY PLAN {}", statement.text).into();
                let kinds = [ColumnKind::Integer, ColumnKind::Integer, ColumnKind::Integer, ColumnKind::Text];
                let plan = session.fetch(statement, &kinds).await.unwrap();
                let plan = plan.iter().map(|line| line[3].as_str().unwrap()).collect::<Vec<_>>().join("; ");
                assert!(plan.contains("USING INDEX") && !plan.contains("TEMP B-TREE"), "{query:?}: {plan}");
            }
        }
    }
}
