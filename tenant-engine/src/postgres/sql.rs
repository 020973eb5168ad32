//! Values on their way into the text of a statement and out of the text of an answer: the simple protocol has no other.

use std::fmt::Write as _;

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::error::from_ours;
use crate::error::Result;

/// A text as SQL writes it, whatever a migration has set `standard_conforming_strings` to.
pub(super) fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    match doubled.contains('\\') {
        true => format!("E'{}'", doubled.replace('\\', "\\\\")),
        false => format!("'{doubled}'"),
    }
}

/// A name as SQL writes it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Bytes as SQL writes them.
pub(super) fn bytea(bytes: &[u8]) -> String {
    let hex = bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a text takes everything");
        hex
    });
    format!("pg_catalog.decode('{hex}', 'hex')")
}

/// A value that the simple protocol sent as text.
///
/// # Errors
/// When the column is not there or NULL: a bug, or a server that answers nonsense.
pub(super) fn text(row: &PgRow, column: usize) -> Result<String> {
    row.try_get_unchecked(column).map_err(from_ours)
}
