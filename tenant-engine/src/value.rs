//! The engine-neutral cell, used by requests, by queries across the fleet and by exports.

use crate::answers::AnswerHold;

/// One cell or one parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// Postgres has them; to SQLite they are 0 and 1.
    Boolean(bool),
    /// A 64-bit signed integer.
    Integer(i64),
    /// A 64-bit float.
    Real(f64),
    /// UTF-8 text.
    Text(String),
    /// Bytes. Also what a database calls text but is not UTF-8: nothing is lost, and the row stays readable.
    Blob(Vec<u8>),
}

impl Value {
    /// Bytes that its text or bytes take beside the cell.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::Null | Self::Boolean(_) | Self::Integer(_) | Self::Real(_) => 0,
            Self::Text(_) | Self::Blob(_) => self.size_bytes(),
        }
    }

    /// About how many bytes this takes, for the caps on results.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Null | Self::Boolean(_) | Self::Integer(_) | Self::Real(_) => 8,
            Self::Text(text) => text.len(),
            Self::Blob(bytes) => bytes.len(),
        }
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}
impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}
impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}
impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}
impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}
impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Self::Blob(value)
    }
}

/// What one statement answered.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rows {
    /// Column names, in order; empty for a statement that returns none.
    pub columns: Vec<String>,
    /// The rows, each as long as `columns`.
    pub rows: Vec<Vec<Value>>,
    /// How many rows a DML statement changed; 0 for SELECT.
    pub rows_affected: u64,
    /// What these rows hold of the process's memory for answers; keep it as long as the rows.
    pub hold: AnswerHold,
}
