//! Reads the columns of a row; anything unexpected in one is `Corrupt`, naming the column.

use std::fmt::Display;
use std::str::FromStr;

use sqlx::Row as _;
use sqlx::any::AnyRow;
use tenant_engine::ids::{Id, IdKind};

use crate::error::{Error, ErrorKind, Result};
use crate::word::Word;

fn corrupt(column: &str, cause: impl Display) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the catalog's column {column} cannot be read: {cause}"))
}

pub(crate) fn int(row: &AnyRow, column: &str) -> Result<i64> {
    row.try_get(column).map_err(|e| corrupt(column, e))
}

pub(crate) fn int_or_null(row: &AnyRow, column: &str) -> Result<Option<i64>> {
    row.try_get(column).map_err(|e| corrupt(column, e))
}

pub(crate) fn text(row: &AnyRow, column: &str) -> Result<String> {
    row.try_get(column).map_err(|e| corrupt(column, e))
}

pub(crate) fn text_or_null(row: &AnyRow, column: &str) -> Result<Option<String>> {
    row.try_get(column).map_err(|e| corrupt(column, e))
}

/// Any value with a text form: ids, engines.
pub(crate) fn parsed<T: FromStr<Err: Display>>(row: &AnyRow, column: &str) -> Result<T> {
    let text: &str = row.try_get(column).map_err(|e| corrupt(column, e))?;
    text.parse().map_err(|e| corrupt(column, e))
}

pub(crate) fn id_or_null<K: IdKind>(row: &AnyRow, column: &str) -> Result<Option<Id<K>>> {
    let text: Option<&str> = row.try_get(column).map_err(|e| corrupt(column, e))?;
    text.map(|text| text.parse().map_err(|e| corrupt(column, e))).transpose()
}

pub(crate) fn word<W: Word>(row: &AnyRow, column: &str) -> Result<W> {
    W::of_word(row.try_get(column).map_err(|e| corrupt(column, e))?)
}

pub(crate) fn word_or_null<W: Word>(row: &AnyRow, column: &str) -> Result<Option<W>> {
    let text: Option<&str> = row.try_get(column).map_err(|e| corrupt(column, e))?;
    text.map(W::of_word).transpose()
}
