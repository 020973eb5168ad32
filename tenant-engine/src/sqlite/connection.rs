//! One open connection to a tenant's file, configured for tenant SQL.
//!
//! Opened, used and closed on worker threads only (see `pool.rs`); between uses a plain value in the pool.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, InterruptHandle, OpenFlags};
use tokio::sync::Notify;

use super::descriptors::Place;
use super::error::{from_open, from_sqlite};
use super::functions::{self, ResultBytes};
use super::identity::{Fence, INTERNAL};
use super::sandbox::{Guard, VALUE_BYTES_MAX};
use super::schema;
use super::temp_files::TempFiles;
use crate::disk::DiskGauge;
use crate::error::{Error, ErrorKind, Result};
use crate::pool::Access;

/// How long a thread waits for another process's lock; after that the request waits without a thread.
const BUSY_ON_THREAD: Duration = Duration::from_millis(10);

/// Prepared statements kept per connection: the working set of one application, at about 5 KB each.
const STATEMENTS_CACHED: usize = 64;

/// A write-ahead log is cut back to this when it is reused, so that one burst does not occupy the disk for ever.
const WAL_BYTES_KEPT: usize = 4 << 20;

/// An open connection. Dropping it closes it (slow: only on a worker) and gives back its place in the budget.
pub(super) struct Conn {
    // Closed first: what follows is given back only after that. Boxed, because leases travel by value.
    db: Box<Connection>,
    guard: Arc<Guard>,
    interrupt: Arc<InterruptHandle>,
    /// How large its functions' results may be.
    results: ResultBytes,
    _counted: Counted,
    place: Option<Place>,
}

impl Conn {
    /// Opens the file, which must exist. Nothing is changed in a database that `fence` does not accept. `temp` is the disk
    /// of temporary files.
    /// The caller has a place in the budget, and puts it in with [`Conn::occupy`].
    ///
    /// # Errors
    /// [`ErrorKind::Missing`], [`ErrorKind::Corrupt`], those of [`Fence::check`], otherwise SQLite's.
    pub(super) fn open(
        path: &Path,
        access: Access,
        fence: &Fence,
        counter: &Arc<Counter>,
        temp: DiskGauge,
    ) -> Result<Self> {
        let flags = match access {
            Access::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
            Access::Write => OpenFlags::SQLITE_OPEN_READ_WRITE,
        };
        let db = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .map_err(|e| from_open(e, path))?;
        let results = ResultBytes::new(VALUE_BYTES_MAX);
        harden(&db).and_then(|()| functions::install(&db, &results)).map_err(from_sqlite)?;
        match access {
            Access::Read => db.execute_batch("pragma query_only = on").map_err(from_sqlite)?,
            Access::Write => prepare_for_writes(&db, fence)?,
        }
        schema::require_bounded(&db)?;
        let guard = Guard::install(&db, TempFiles::new(temp, access)).map_err(from_sqlite)?;
        let interrupt = Arc::new(db.get_interrupt_handle());
        Ok(Self { db: Box::new(db), guard, interrupt, results, _counted: Counted::new(counter), place: None })
    }

    /// Keeps its place in the budget until it is closed.
    pub(super) fn occupy(&mut self, place: Place) {
        self.place = Some(place);
    }

    /// Folds the write-ahead log into the file and gives its room back, as far as readers allow it now.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn truncate_log(&self) -> rusqlite::Result<()> {
        self.db.query_row("/*fleet*/ pragma wal_checkpoint(truncate)", [], |_| Ok(()))
    }

    /// The connection itself, for this crate's own SQL.
    pub(super) fn db(&self) -> &Connection {
        &self.db
    }

    /// Sets the length of the values that statements make and read from now on.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn bound_values(&self, bytes_max: usize) -> rusqlite::Result<()> {
        self.results.set(bytes_max);
        self.db.set_limit(Limit::SQLITE_LIMIT_LENGTH, i32::try_from(bytes_max).unwrap_or(i32::MAX)).map(drop)
    }

    /// The switch between our SQL and the tenant's.
    pub(super) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// What stops the statement that runs.
    pub(super) fn interrupt(&self) -> &Arc<InterruptHandle> {
        &self.interrupt
    }

    /// True when a transaction is open. Never blocks.
    pub(super) fn in_transaction(&self) -> bool {
        !self.db.is_autocommit()
    }

    /// Runs one of our own statements, which begin with [`INTERNAL`], from the cache.
    pub(super) fn internal(&self, sql: &str) -> rusqlite::Result<()> {
        debug_assert!(sql.starts_with(INTERNAL), "internal statements carry the mark");
        self.db.prepare_cached(sql)?.raw_execute().map(drop)
    }
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn").field("in_transaction", &self.in_transaction()).finish_non_exhaustive()
    }
}

/// What every connection gets before it runs anything that the file's schema could influence.
fn harden(db: &Connection) -> rusqlite::Result<()> {
    db.busy_timeout(BUSY_ON_THREAD)?;
    db.set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, schema::TEXT_BYTES_MAX)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER, false)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true)?;
    db.execute_batch("pragma cell_size_check = on")
}

fn prepare_for_writes(db: &Connection, fence: &Fence) -> Result<()> {
    let mode: String = db.query_row("pragma journal_mode", [], |row| row.get(0)).map_err(from_sqlite)?;
    if mode != "wal" {
        // The mode is written into the file: first be sure whose it is.
        fence.check(db)?;
        let mode: String = db.query_row("pragma journal_mode = wal", [], |row| row.get(0)).map_err(from_sqlite)?;
        if mode != "wal" {
            return Err(Error::new(ErrorKind::Io, format!("the database cannot use a write-ahead log, only '{mode}'")));
        }
    }
    db.execute_batch(&format!("pragma synchronous = full; pragma journal_size_limit = {WAL_BYTES_KEPT}"))
        .map_err(from_sqlite)
}

/// How many connections of one pool are open, and who waits for there to be none.
#[derive(Debug, Default)]
pub(super) struct Counter {
    open: AtomicUsize,
    none: Notify,
}

impl Counter {
    /// Connections open now.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Returns when no connection is open.
    pub(super) async fn drained(&self) {
        loop {
            let none = self.none.notified();
            if self.open() == 0 {
                return;
            }
            none.await;
        }
    }
}

#[derive(Debug)]
struct Counted(Arc<Counter>);

impl Counted {
    fn new(counter: &Arc<Counter>) -> Self {
        counter.open.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(counter))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none.notify_waiters();
        }
    }
}
