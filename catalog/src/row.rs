//! Reads the columns of a row. An unexpected value is `Corrupt`, with the column's name.

use std::fmt::Display;
use std::str::FromStr;

use sqlx::Row as _;
use sqlx::any::AnyRow;
use tenant_engine::ids::{IdKind, TypedId};

use crate::error::{Error, ErrorKind, Result};
use crate::text_enum::TextEnum;

fn corrupt_column(column: &str, cause: impl Display) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the catalog's column {column} cannot be read: {cause}"))
}

pub(crate) fn int_column(row: &AnyRow, column: &str) -> Result<i64> {
    row.try_get(column).map_err(|e| corrupt_column(column, e))
}

pub(crate) fn nullable_int(row: &AnyRow, column: &str) -> Result<Option<i64>> {
    row.try_get(column).map_err(|e| corrupt_column(column, e))
}

pub(crate) fn text_column(row: &AnyRow, column: &str) -> Result<String> {
    row.try_get(column).map_err(|e| corrupt_column(column, e))
}

pub(crate) fn nullable_text(row: &AnyRow, column: &str) -> Result<Option<String>> {
    row.try_get(column).map_err(|e| corrupt_column(column, e))
}

/// A value with a text form, such as an id or an engine.
pub(crate) fn parsed_column<T: FromStr<Err: Display>>(row: &AnyRow, column: &str) -> Result<T> {
    let text: &str = row.try_get(column).map_err(|e| corrupt_column(column, e))?;
    text.parse().map_err(|e| corrupt_column(column, e))
}

pub(crate) fn nullable_id<K: IdKind>(row: &AnyRow, column: &str) -> Result<Option<TypedId<K>>> {
    let text: Option<&str> = row.try_get(column).map_err(|e| corrupt_column(column, e))?;
    text.map(|text| text.parse().map_err(|e| corrupt_column(column, e))).transpose()
}

pub(crate) fn enum_column<W: TextEnum>(row: &AnyRow, column: &str) -> Result<W> {
    W::from_stored_text(row.try_get(column).map_err(|e| corrupt_column(column, e))?)
}

pub(crate) fn nullable_enum<W: TextEnum>(row: &AnyRow, column: &str) -> Result<Option<W>> {
    let text: Option<&str> = row.try_get(column).map_err(|e| corrupt_column(column, e))?;
    text.map(W::from_stored_text).transpose()
}
