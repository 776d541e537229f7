//! Rows in the binary form of PostgreSQL's `COPY`: a length before each value, so that nothing in a value needs an escape,
//! and nothing is parsed on the other side but the documents. Text is the same text that `UNNEST` would be given.

use engine::view::{ColumnKind, Row};

use crate::connection::postgres::escape;
use crate::tables::TableSpec;

/// 64 KiB and a row: what is sent at once. More would only be copied twice.
const PIECE_BYTES: usize = 64 << 10;
/// What every copy begins with: a signature, no flags, no extension.
const BEGIN: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What every copy ends with, where the next row would say how many values it has.
const END: i16 = -1;
/// The length of null.
const NULL: i32 = -1;

/// The rows, piece by piece.
pub(super) fn pieces<'a>(
    table: &'a TableSpec,
    rows: &'a [(&'a str, &'a Row)],
) -> impl Iterator<Item = Vec<u8>> + Send + 'a {
    let mut rows = rows.iter();
    let mut begun = false;
    let mut ended = false;
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let mut piece = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 8);
        if !begun {
            begun = true;
            piece.extend_from_slice(BEGIN);
        }
        while piece.len() < PIECE_BYTES {
            let Some((key, row)) = rows.next() else {
                ended = true;
                piece.extend_from_slice(&END.to_be_bytes());
                break;
            };
            append(&mut piece, table, key, row);
        }
        Some(piece)
    })
}

fn append(piece: &mut Vec<u8>, table: &TableSpec, key: &str, row: &Row) {
    // Key, version and document; a table with thirty thousand columns does not exist.
    piece.extend_from_slice(&(3 + table.columns.len() as i16).to_be_bytes());
    text(piece, key);
    integer(piece, i64::try_from(row.version).ok());
    text(piece, row.doc.text());
    for (column, value) in table.columns.iter().zip(&row.columns) {
        match column.kind {
            ColumnKind::Text => match value.as_str() {
                Some(value) => text(piece, value),
                None => piece.extend_from_slice(&NULL.to_be_bytes()),
            },
            ColumnKind::Integer => integer(piece, value.as_i64()),
        }
    }
}

fn text(piece: &mut Vec<u8>, value: &str) {
    let value = escape(value);
    // PostgreSQL refuses a text of a gibibyte before this could be wrong.
    piece.extend_from_slice(&(value.len() as u32).to_be_bytes());
    piece.extend_from_slice(value.as_bytes());
}

fn integer(piece: &mut Vec<u8>, value: Option<i64>) {
    match value {
        Some(value) => {
            piece.extend_from_slice(&8_i32.to_be_bytes());
            piece.extend_from_slice(&value.to_be_bytes());
        }
        None => piece.extend_from_slice(&NULL.to_be_bytes()),
    }
}
