//! The engine-neutral value of a cell, used by requests, by queries across the fleet and by exports.

use crate::answers::AnswerHold;

/// One cell or one parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum SqlValue {
    /// SQL NULL.
    Null,
    /// A Postgres boolean; SQLite stores booleans as 0 and 1.
    Boolean(bool),
    /// A 64-bit signed integer.
    Integer(i64),
    /// A 64-bit float.
    Real(f64),
    /// UTF-8 text.
    Text(String),
    /// Bytes. Also a value that the database calls text but that is not UTF-8: nothing is lost, and the row stays
    /// readable.
    Blob(Vec<u8>),
}

impl SqlValue {
    /// Bytes that the text or bytes of the value take besides the cell.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::Null | Self::Boolean(_) | Self::Integer(_) | Self::Real(_) => 0,
            Self::Text(_) | Self::Blob(_) => self.size_bytes(),
        }
    }

    /// Approximate bytes of the value, for the limits on results.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Null | Self::Boolean(_) | Self::Integer(_) | Self::Real(_) => 8,
            Self::Text(text) => text.len(),
            Self::Blob(bytes) => bytes.len(),
        }
    }
}

impl From<bool> for SqlValue {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}
impl From<i64> for SqlValue {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}
impl From<f64> for SqlValue {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}
impl From<&str> for SqlValue {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}
impl From<String> for SqlValue {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}
impl From<Vec<u8>> for SqlValue {
    fn from(value: Vec<u8>) -> Self {
        Self::Blob(value)
    }
}

/// The answer of one statement.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rows {
    /// Column names, in order; empty for a statement that returns no rows.
    pub columns: Vec<String>,
    /// The rows, each as long as `columns`.
    pub rows: Vec<Vec<SqlValue>>,
    /// Number of rows that an INSERT, UPDATE or DELETE changed; 0 for SELECT.
    pub rows_affected: u64,
    /// The memory for answers that these rows hold; keep it as long as the rows.
    pub hold: AnswerHold,
}
