//! Functions of SQLite that take too long on long arguments, replaced by equal ones that are linear or bounded.
//!
//! SQLite does not look at the clock inside a function, and a stack has an end. `instr`, `replace` and the `trim` family
//! are linear here; `unhex` with a second argument and some JSON functions refuse what would take long, take much
//! memory or nest deep, and leave the rest to the original (`original.rs`). Every result is the original's, so indexes,
//! checks and generated columns agree with any other SQLite. Installed on every connection that runs SQL of a tenant.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::functions::FunctionFlags;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Error, Result, ToSql, ffi};

mod json;
mod json_values;
mod original;
mod text;

/// How many bytes a result may have: one number for the functions of a connection, changed between statements.
#[derive(Debug, Clone)]
pub(super) struct ResultBytes(Arc<AtomicUsize>);

impl ResultBytes {
    /// So many at first.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes_max)))
    }

    /// So many from now on.
    pub(super) fn set(&self, bytes_max: usize) {
        self.0.store(bytes_max, Ordering::Relaxed);
    }

    /// So many now.
    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Installs all of them on a connection, whose functions return at most `bytes_max` bytes.
///
/// # Errors
/// SQLite's.
pub(super) fn install(db: &Connection, bytes_max: &ResultBytes) -> Result<()> {
    text::install(db, bytes_max)?;
    json::install(db, bytes_max)?;
    json_values::install(db, bytes_max)
}

/// As the originals: equal arguments give an equal result, and a schema may use them without being trusted.
fn flags() -> FunctionFlags {
    FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS
}

/// A value of SQLite whose text need not be UTF-8.
#[derive(Debug, Clone, PartialEq)]
enum Output {
    Null,
    Integer(i64),
    Real(f64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

impl From<ValueRef<'_>> for Output {
    fn from(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(value) => Self::Integer(value),
            ValueRef::Real(value) => Self::Real(value),
            ValueRef::Text(bytes) => Self::Text(bytes.to_vec()),
            ValueRef::Blob(bytes) => Self::Blob(bytes.to_vec()),
        }
    }
}

impl ToSql for Output {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(value) => ValueRef::Integer(*value),
            Self::Real(value) => ValueRef::Real(*value),
            Self::Text(bytes) => ValueRef::Text(bytes),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// How the message begins; `error.rs` knows the error by it.
pub(super) const TOO_EXPENSIVE: &str = "this call would take too long or too much memory: ";

fn too_expensive(why: &str) -> Error {
    failure(ffi::SQLITE_ERROR, Some(format!("{TOO_EXPENSIVE}{why}")))
}

/// As the originals say it.
fn too_big() -> Error {
    failure(ffi::SQLITE_TOOBIG, None)
}

fn failure(code: i32, message: Option<String>) -> Error {
    Error::SqliteFailure(ffi::Error::new(code), message)
}

#[cfg(test)]
mod tests;
