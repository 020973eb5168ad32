//! Converts values to and from the text of statements and answers, because the simple protocol only has text.

use std::fmt::Write as _;

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::error::from_ours;
use crate::error::Result;

/// A text as an SQL literal, valid for either value of `standard_conforming_strings`.
pub(super) fn sql_literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    match doubled.contains('\\') {
        true => format!("E'{}'", doubled.replace('\\', "\\\\")),
        false => format!("'{doubled}'"),
    }
}

/// A name as a quoted SQL identifier.
pub(super) fn quoted_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Bytes as an SQL literal.
pub(super) fn bytea_literal(bytes: &[u8]) -> String {
    let hex = bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a text takes everything");
        hex
    });
    format!("pg_catalog.decode('{hex}', 'hex')")
}

/// A value that the simple protocol sent as text.
///
/// # Errors
/// When the column is missing or NULL: a bug, or a server with an invalid answer.
pub(super) fn text_column(row: &PgRow, column: usize) -> Result<String> {
    row.try_get_unchecked(column).map_err(from_ours)
}
