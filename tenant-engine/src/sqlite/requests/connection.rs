//! One open connection to a tenant's file, configured for tenant SQL.
//!
//! It is opened, used and closed on worker threads only (see `pool.rs`). Between uses it is a plain value in the pool.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, InterruptHandle, OpenFlags};
use tokio::sync::Notify;

use super::sandbox::{SandboxGuard, VALUE_BYTES_MAX};
use crate::disk::DiskGauge;
use crate::error::{Error, ErrorKind, Result};
use crate::sqlite::error::{from_open, from_sqlite};
use crate::sqlite::identity::{INTERNAL, IdentityFence};
use crate::sqlite::limits::functions::{self, ResultBytes};
use crate::sqlite::limits::schema;
use crate::sqlite::limits::temp_files::TempFiles;
use crate::sqlite::migrations::ledger;
use crate::sqlite::storage::descriptors::ConnectionPlace;
use crate::sqlite::storage::disk_full::PAGES_MAX;
use crate::statement::AccessMode;

/// How long a thread waits for another process's lock; after that the request waits without a thread.
const BUSY_ON_THREAD: Duration = Duration::from_millis(10);

/// Prepared statements kept per connection: the working set of one application, at about 5 KB each.
const STATEMENTS_CACHED: usize = 64;

/// A write-ahead log is shortened to this size when it is reused, so that one burst does not occupy the disk
/// permanently.
const WAL_BYTES_KEPT: usize = 4 << 20;

/// An open connection. Dropping it closes it (slow: only on a worker) and returns its place in the budget.
pub(super) struct SqliteTenantConnection {
    // Dropped first, because the fields below may be released only after the connection is closed. Boxed, because
    // leases are moved by value.
    db: Box<Connection>,
    guard: Arc<SandboxGuard>,
    interrupt: Arc<InterruptHandle>,
    /// Maximum size of its functions' results.
    results: ResultBytes,
    _counted: CountedConnection,
    place: Option<ConnectionPlace>,
}

impl SqliteTenantConnection {
    /// Opens the file, which must exist. Changes nothing in a database that `fence` does not accept. `temp` is the disk
    /// of temporary files. The caller holds a place in the budget, and hands it over with
    /// [`SqliteTenantConnection::occupy_place`].
    ///
    /// # Errors
    /// [`ErrorKind::Missing`], [`ErrorKind::Corrupt`], those of [`IdentityFence::check_row`], otherwise SQLite's.
    pub(super) fn open(
        path: &Path,
        access: AccessMode,
        fence: &IdentityFence,
        counter: &Arc<ConnectionCounter>,
        temp: DiskGauge,
    ) -> Result<Self> {
        let flags = match access {
            AccessMode::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
            AccessMode::Write => OpenFlags::SQLITE_OPEN_READ_WRITE,
        };
        let db = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .map_err(|e| from_open(e, path))?;
        let results = ResultBytes::new(VALUE_BYTES_MAX);
        harden_connection(&db).and_then(|()| functions::install_functions(&db, &results)).map_err(from_sqlite)?;
        match access {
            AccessMode::Read => db.execute_batch("pragma query_only = on").map_err(from_sqlite)?,
            AccessMode::Write => prepare_for_writes(&db, fence)?,
        }
        schema::require_bounded(&db)?;
        let ledger = ledger::name(&db)?;
        let guard = SandboxGuard::install_hooks(&db, TempFiles::new(temp, access), ledger).map_err(from_sqlite)?;
        let interrupt = Arc::new(db.get_interrupt_handle());
        Ok(Self { db: Box::new(db), guard, interrupt, results, _counted: CountedConnection::new(counter), place: None })
    }

    /// Keeps the connection's place in the budget until it is closed.
    pub(super) fn occupy_place(&mut self, place: ConnectionPlace) {
        self.place = Some(place);
    }

    /// Copies the write-ahead log into the file and releases its disk space, as far as readers allow it now.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn truncate_log(&self) -> rusqlite::Result<()> {
        self.db.query_row("/*fleet*/ pragma wal_checkpoint(truncate)", [], |_| Ok(()))
    }

    /// The underlying connection, for this crate's own SQL.
    pub(super) fn raw_connection(&self) -> &Connection {
        &self.db
    }

    /// Sets the maximum length of the values that statements make and read from now on.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn bound_values(&self, bytes_max: usize) -> rusqlite::Result<()> {
        self.results.set(bytes_max);
        self.db.set_limit(Limit::SQLITE_LIMIT_LENGTH, i32::try_from(bytes_max).unwrap_or(i32::MAX)).map(drop)
    }

    /// Limits the size of the file from now on. A larger file keeps its size: its free pages can still be used.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn bound_size(&self, bytes_max: Option<u64>) -> rusqlite::Result<()> {
        let was_limited = self.guard.mark_pages_limited(bytes_max.is_some());
        if bytes_max.is_none() && !was_limited {
            return Ok(());
        }
        // Set each time: SQLite raises a limit that is below the present size of the file.
        let page: i64 = self.db.query_row("/*fleet*/ pragma page_size", [], |row| row.get(0))?;
        let pages = bytes_max.map_or(PAGES_MAX, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(1));
        let sql = format!("/*fleet*/ pragma max_page_count = {}", pages.clamp(1, PAGES_MAX));
        self.db.query_row(&sql, [], |_| Ok(()))
    }

    /// The switch between this program's SQL and the tenant's.
    pub(super) fn sandbox_guard(&self) -> &SandboxGuard {
        &self.guard
    }

    /// Interrupts the running statement.
    pub(super) fn interrupt_handle(&self) -> &Arc<InterruptHandle> {
        &self.interrupt
    }

    /// True when a transaction is open. Never blocks.
    pub(super) fn in_transaction(&self) -> bool {
        !self.db.is_autocommit()
    }

    /// Runs one of this program's own statements, which begin with [`INTERNAL`], from the cache.
    pub(super) fn run_internal(&self, sql: &str) -> rusqlite::Result<()> {
        debug_assert!(sql.starts_with(INTERNAL), "internal statements carry the mark");
        self.db.prepare_cached(sql)?.raw_execute().map(drop)
    }
}

impl std::fmt::Debug for SqliteTenantConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteTenantConnection").field("in_transaction", &self.in_transaction()).finish_non_exhaustive()
    }
}

/// Configures a connection before it runs any SQL that the file's schema could influence.
fn harden_connection(db: &Connection) -> rusqlite::Result<()> {
    db.busy_timeout(BUSY_ON_THREAD)?;
    db.set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, schema::TEXT_BYTES_MAX)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER, false)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true)?;
    db.execute_batch("pragma cell_size_check = on")
}

fn prepare_for_writes(db: &Connection, fence: &IdentityFence) -> Result<()> {
    let mode: String = db.query_row("pragma journal_mode", [], |row| row.get(0)).map_err(from_sqlite)?;
    if mode != "wal" {
        // The mode is written into the file, so the identity is checked first.
        fence.check_row(db)?;
        let mode: String = db.query_row("pragma journal_mode = wal", [], |row| row.get(0)).map_err(from_sqlite)?;
        if mode != "wal" {
            return Err(Error::new(ErrorKind::Io, format!("the database cannot use a write-ahead log, only '{mode}'")));
        }
    }
    db.execute_batch(&format!("pragma synchronous = full; pragma journal_size_limit = {WAL_BYTES_KEPT}"))
        .map_err(from_sqlite)
}

/// Counts the open connections of one pool, and wakes callers that wait until there are none.
#[derive(Debug, Default)]
pub(super) struct ConnectionCounter {
    open: AtomicUsize,
    none: Notify,
}

impl ConnectionCounter {
    /// Number of connections that are open now.
    pub(super) fn open_count(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Returns when no connection is open.
    pub(super) async fn wait_until_drained(&self) {
        loop {
            let none = self.none.notified();
            if self.open_count() == 0 {
                return;
            }
            none.await;
        }
    }
}

#[derive(Debug)]
struct CountedConnection(Arc<ConnectionCounter>);

impl CountedConnection {
    fn new(counter: &Arc<ConnectionCounter>) -> Self {
        counter.open.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(counter))
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none.notify_waiters();
        }
    }
}
