//! [`RusqliteTx`]: the open transaction with the methods of `rusqlite`, for an application's own code.
//!
//! It offers rusqlite's statements and rows, not its connection. A connection could remove the sandbox, name the file,
//! or keep settings for the next borrower. Called on worker threads, through `transaction.rs`.

use std::cell::Cell;

use rusqlite::{Batch, CachedStatement, Params, Row};

use super::connection::SqliteTenantConnection;
use super::sandbox::{TenantSql, VALUE_BYTES_MAX, value_bytes_max};
use super::statement::{check_prepared, check_single, check_text};
use crate::error::{Error, ErrorKind, Result};
use crate::sqlite::error::{from_sqlite, to_rusqlite};
use crate::statement::{AccessMode, SessionLimits};

/// A tenant's open transaction, with the methods of [`rusqlite::Connection`] that run statements. The statements obey
/// the rules of all tenant SQL: no DDL, no ATTACH, no transaction control, and the limits of the session.
pub struct RusqliteTx<'a> {
    conn: &'a SqliteTenantConnection,
    access: AccessMode,
    limits: &'a SessionLimits,
    /// Maximum bytes of each value: the least that one of the statements so far demands.
    value_bytes: Cell<usize>,
    // Declared last: statements run as the tenant's SQL until everything else is dropped.
    _tenant: TenantSql<'a>,
}

impl<'a> RusqliteTx<'a> {
    pub(super) fn new(conn: &'a SqliteTenantConnection, access: AccessMode, limits: &'a SessionLimits) -> Self {
        let value_bytes = Cell::new(VALUE_BYTES_MAX);
        Self { conn, access, limits, value_bytes, _tenant: conn.sandbox_guard().tenant_sql(limits.temp_bytes_max) }
    }

    /// As [`rusqlite::Connection::prepare_cached`]: prepares one statement, or takes it from the connection's cache.
    ///
    /// # Errors
    /// SQLite's. A refusal of this crate is a [`rusqlite::Error::UserFunctionError`] that holds an [`Error`].
    pub fn prepare(&self, sql: &str) -> rusqlite::Result<CachedStatement<'_>> {
        self.prepare_checked(sql.trim()).map_err(to_rusqlite)
    }

    /// As [`rusqlite::Connection::execute`]: runs one statement and returns the number of changed rows.
    ///
    /// # Errors
    /// As [`RusqliteTx::prepare`].
    pub fn execute<P: Params>(&self, sql: &str, params: P) -> rusqlite::Result<usize> {
        self.prepare(sql)?.execute(params)
    }

    /// As [`rusqlite::Connection::query_row`]: reads the first row.
    ///
    /// # Errors
    /// As [`RusqliteTx::prepare`]; [`rusqlite::Error::QueryReturnedNoRows`].
    pub fn query_row<T, P, F>(&self, sql: &str, params: P, read: F) -> rusqlite::Result<T>
    where
        P: Params,
        F: FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    {
        self.prepare(sql)?.query_row(params, read)
    }

    /// As [`rusqlite::Connection::execute_batch`]: runs several statements that have no parameters.
    ///
    /// # Errors
    /// As [`RusqliteTx::prepare`]. The statements before the failed one have run; the transaction is still open.
    pub fn execute_batch(&self, sql: &str) -> rusqlite::Result<()> {
        self.check_before(sql).map_err(to_rusqlite)?;
        let mut batch = Batch::new(self.conn.raw_connection(), sql);
        while let Some(mut statement) = rusqlite::fallible_iterator::FallibleIterator::next(&mut batch)
            .map_err(|error| to_rusqlite(self.explain_refusal(from_sqlite(error))))?
        {
            check_prepared(&statement, self.access).map_err(to_rusqlite)?;
            let mut rows = statement.raw_query();
            while rows.next()?.is_some() {}
        }
        Ok(())
    }

    /// As [`rusqlite::Connection::last_insert_rowid`].
    #[must_use]
    pub fn last_insert_rowid(&self) -> i64 {
        self.conn.raw_connection().last_insert_rowid()
    }

    /// As [`rusqlite::Connection::changes`]: rows that the last statement changed.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.conn.raw_connection().changes()
    }

    fn prepare_checked(&self, sql: &str) -> Result<CachedStatement<'_>> {
        self.check_before(sql)?;
        check_single(self.conn, sql)?;
        let prepared = self.conn.raw_connection().prepare_cached(sql).map_err(from_sqlite);
        let statement = prepared.map_err(|error| self.explain_refusal(error))?;
        check_prepared(&statement, self.access)?;
        Ok(statement)
    }

    /// What is checked before SQLite sees a text. A statement that may hold many large values lowers the limit on each
    /// value until the transaction is returned.
    fn check_before(&self, sql: &str) -> Result<()> {
        let guard = self.conn.sandbox_guard();
        if !self.conn.in_transaction() {
            return Err(Error::new(ErrorKind::Closed, "the transaction was rolled back by an earlier error"));
        }
        if guard.deadline_passed() {
            return Err(super::transaction::deadline_exceeded());
        }
        guard.check_disk()?;
        self.bound_values(value_bytes_max(self.limits, check_text(sql, self.limits)?))
    }

    fn bound_values(&self, bytes_max: usize) -> Result<()> {
        let usual = self.value_bytes.get();
        // The first statement may also raise the limit above the usual one.
        let bytes_max = if usual == VALUE_BYTES_MAX { bytes_max } else { bytes_max.min(usual) };
        if bytes_max == usual {
            return Ok(());
        }
        self.value_bytes.set(bytes_max);
        self.conn.bound_values(bytes_max).map_err(from_sqlite)
    }

    fn explain_refusal(&self, error: Error) -> Error {
        match self.conn.sandbox_guard().take_refusal() {
            Some(reason) => Error::new(ErrorKind::SqlForbidden, reason).with_source(error),
            None => error,
        }
    }
}

impl Drop for RusqliteTx<'_> {
    fn drop(&mut self) {
        if self.value_bytes.get() != VALUE_BYTES_MAX {
            // SQLite refuses only an unknown limit.
            let _ = self.conn.bound_values(VALUE_BYTES_MAX);
        }
    }
}

impl std::fmt::Debug for RusqliteTx<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RusqliteTx").field("access", &self.access).finish_non_exhaustive()
    }
}
