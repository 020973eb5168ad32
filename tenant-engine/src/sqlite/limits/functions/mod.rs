//! Replaces functions of SQLite that take too long on long arguments by equivalent ones that are linear or bounded.
//!
//! SQLite does not check the clock inside a function, and stack space is limited. `instr`, `replace` and the `trim`
//! family are linear here. `unhex` with a second argument and some JSON functions refuse calls that would take long,
//! take much memory or nest deeply. They leave the rest to the original (`original.rs`). `printf` refuses a result that is
//! too long, for which the original answers NULL. Every other result equals the original's, so indexes, checks and
//! generated columns agree with any other SQLite. Installed on every connection that runs SQL of a tenant.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::functions::FunctionFlags;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Error, Result, ToSql, ffi};

use crate::sqlite::error::TOO_EXPENSIVE;

mod json;
mod json_values;
mod original;
mod printf;
mod text;

/// The maximum bytes of a result: one number for all functions of a connection, changed between statements.
#[derive(Debug, Clone)]
pub(in crate::sqlite) struct ResultBytes(Arc<AtomicUsize>);

impl ResultBytes {
    /// The initial maximum in bytes.
    pub(in crate::sqlite) fn new(bytes_max: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes_max)))
    }

    /// Sets the maximum in bytes from now on.
    pub(in crate::sqlite) fn set(&self, bytes_max: usize) {
        self.0.store(bytes_max, Ordering::Relaxed);
    }

    /// The current maximum in bytes.
    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Installs all replacements on a connection. Their results have at most `bytes_max` bytes.
///
/// # Errors
/// SQLite's.
pub(in crate::sqlite) fn install_functions(db: &Connection, bytes_max: &ResultBytes) -> Result<()> {
    text::install_text(db, bytes_max)?;
    printf::install_printf(db, bytes_max)?;
    json::install_json(db, bytes_max)?;
    json_values::install_json_values(db, bytes_max)
}

/// The flags of the originals: equal arguments give an equal result, and an untrusted schema may use them.
fn default_flags() -> FunctionFlags {
    FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS
}

/// A value of SQLite, whose text may not be UTF-8.
#[derive(Debug, Clone, PartialEq)]
enum FunctionOutput {
    Null,
    Integer(i64),
    Real(f64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

impl From<ValueRef<'_>> for FunctionOutput {
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

impl ToSql for FunctionOutput {
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

fn too_expensive(why: &str) -> Error {
    sqlite_failure(ffi::SQLITE_ERROR, Some(format!("{TOO_EXPENSIVE}{why}")))
}

/// The error in the words of the original functions.
fn too_big() -> Error {
    sqlite_failure(ffi::SQLITE_TOOBIG, None)
}

fn sqlite_failure(code: i32, message: Option<String>) -> Error {
    Error::SqliteFailure(ffi::Error::new(code), message)
}

#[cfg(test)]
mod tests;
