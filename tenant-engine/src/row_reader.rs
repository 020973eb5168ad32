//! [`RowReader`]: reads the rows of an answer where the engine finds them, without a copy in between.

use std::borrow::Cow;

use crate::value::SqlValue;

/// A cell of an answer. Text and bytes are borrowed from the database where that is possible.
#[derive(Debug, Clone, PartialEq)]
pub enum CellValue<'a> {
    /// SQL NULL.
    Null,
    /// A Postgres boolean.
    Boolean(bool),
    /// A 64-bit signed integer.
    Integer(i64),
    /// A 64-bit float.
    Real(f64),
    /// UTF-8 text.
    Text(Cow<'a, str>),
    /// Bytes; also text that is not UTF-8.
    Blob(Cow<'a, [u8]>),
}

impl From<SqlValue> for CellValue<'_> {
    fn from(value: SqlValue) -> Self {
        match value {
            SqlValue::Null => Self::Null,
            SqlValue::Boolean(value) => Self::Boolean(value),
            SqlValue::Integer(value) => Self::Integer(value),
            SqlValue::Real(value) => Self::Real(value),
            SqlValue::Text(text) => Self::Text(Cow::Owned(text)),
            SqlValue::Blob(bytes) => Self::Blob(Cow::Owned(bytes)),
        }
    }
}

/// The cells of one row, in the order of the columns.
pub trait RowCells<'a> {
    /// The next cell. `None` after the last one, and after an error that the engine reports itself.
    fn next_cell(&mut self) -> Option<CellValue<'a>>;

    /// Number of the cells that were not taken yet.
    fn cells_left(&self) -> usize;

    /// True when the next cell is NULL.
    fn next_is_null(&self) -> bool;
}

impl<'a> RowCells<'a> for std::vec::IntoIter<SqlValue> {
    fn next_cell(&mut self) -> Option<CellValue<'a>> {
        self.next().map(CellValue::from)
    }

    fn cells_left(&self) -> usize {
        self.len()
    }

    fn next_is_null(&self) -> bool {
        matches!(self.as_slice().first(), Some(SqlValue::Null))
    }
}

/// Takes the rows of one answer, in their order.
pub trait RowReader: Send + 'static {
    /// Reads one row. An engine may call it on one of its threads, so it must not wait.
    fn read_row<'a>(&mut self, columns: &'a [String], cells: &mut impl RowCells<'a>);
}
