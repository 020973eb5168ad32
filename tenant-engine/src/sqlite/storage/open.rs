//! Opens an existing database for an engine operation, and closes it again.
//!
//! The connections of a pool belong to `requests/pool.rs`; these connections live for one operation on one worker
//! thread. Neither reading nor writing here checkpoints a log with content. So the main file changes only where a
//! serving connection decides that.

use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::files::{self, FilePresence, path_beside};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{ExpectedIdentity, Identity};
use crate::placement::Placement;
use crate::sqlite::error::{from_open, from_sqlite, is_busy};
use crate::sqlite::identity;
use crate::sqlite::limits::functions::{self, ResultBytes};
use crate::sqlite::limits::schema;

/// How long an operation waits for an application's writer before it fails with `Busy`. A worker thread waits with it,
/// and the runner tries again later anyway.
pub(in crate::sqlite) const BUSY_WAIT: Duration = Duration::from_millis(100);
/// Maximum length of a value that a function returns to an engine operation: SQLite's own limit.
pub(in crate::sqlite) const LENGTH_MAX: usize = 1_000_000_000;

/// A database up to this size is opened exclusively while an operation changes it. Then no shared-memory file is made,
/// and a request that comes meanwhile waits for milliseconds. A larger database stays readable throughout.
const ALONE_BYTES_MAX: u64 = 16 << 20;

/// An open database.
#[derive(Debug)]
pub(in crate::sqlite) struct OpenDatabase {
    db: Connection,
    wal: PathBuf,
}

/// Whether other connections may use the database meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sqlite) enum FileSharing {
    /// Shared, as with any other connection.
    Shared,
    /// Exclusive, when no other connection has it open and it is small; otherwise shared.
    AloneIfIdle,
}

/// Opens the database at a placement; never creates one.
///
/// # Errors
/// [`ErrorKind::Missing`], [`ErrorKind::Corrupt`] for an empty file, [`ErrorKind::Io`]; otherwise SQLite's.
pub(in crate::sqlite) fn open_database(at: &Placement, sharing: FileSharing) -> Result<OpenDatabase> {
    let path = at.file_path();
    let length = require_present(&path)?;
    if sharing == FileSharing::AloneIfIdle && length <= ALONE_BYTES_MAX {
        let db = connect_file(&path)?;
        match db.execute_batch("pragma locking_mode=exclusive; select 1 from sqlite_schema limit 1") {
            Ok(()) => return finish_opening(db, &path),
            Err(error) if is_busy(&error) => {}
            Err(error) => return Err(schema::load_error(error)),
        }
    }
    finish_opening(connect_file(&path)?, &path)
}

/// Opens the database at a placement and excludes all other connections until it is closed, for any size.
///
/// # Errors
/// [`ErrorKind::Busy`] when any other connection is open, even a reader; otherwise those of [`open_database`].
pub(in crate::sqlite) fn open_alone(at: &Placement) -> Result<OpenDatabase> {
    let path = at.file_path();
    require_present(&path)?;
    let db = connect_file(&path)?;
    // In this mode the lock is kept when the transaction ends; with a write-ahead log no reader can share it.
    match db.execute_batch("pragma locking_mode=exclusive; begin exclusive; commit") {
        Ok(()) => finish_opening(db, &path),
        Err(error) if is_busy(&error) => {
            Err(Error::new(ErrorKind::Busy, "another connection has the database open").with_source(error))
        }
        Err(error) => Err(schema::load_error(error)),
    }
}

/// Requires a file with content, and returns its length.
fn require_present(path: &std::path::Path) -> Result<u64> {
    if files::inspect_path(path)? == FilePresence::Nothing {
        return Err(Error::new(ErrorKind::Missing, "there is no database at its placement"));
    }
    let found =
        std::fs::symlink_metadata(path).map_err(|error| files::io_fault("cannot check the database file", error))?;
    match found.len() {
        0 => Err(Error::new(ErrorKind::Corrupt, "the database file is empty")),
        length => Ok(length),
    }
}

fn connect_file(path: &std::path::Path) -> Result<Connection> {
    // Without CREATE, a missing file is an error and never becomes an empty new tenant.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(|e| from_open(e, path))?;
    functions::install_functions(&db, &ResultBytes::new(LENGTH_MAX)).map_err(from_sqlite)?;
    schema::bound_schema(&db)?;
    // The default of rusqlite is five seconds.
    db.busy_timeout(Duration::ZERO).map_err(from_sqlite)?;
    Ok(db)
}

fn finish_opening(db: Connection, path: &std::path::Path) -> Result<OpenDatabase> {
    db.busy_timeout(BUSY_WAIT).map_err(from_sqlite)?;
    db.execute_batch("pragma wal_autocheckpoint=0").map_err(from_sqlite)?;
    schema::load_schema(&db)?;
    Ok(OpenDatabase { db, wal: path_beside(path, "-wal") })
}

impl OpenDatabase {
    /// Wraps a database in memory that is not empty.
    #[cfg(feature = "test-util")]
    pub(in crate::sqlite) fn from_memory(db: Connection) -> Self {
        Self { db, wal: PathBuf::new() }
    }

    /// An empty database in memory, with the page size of every tenant.
    ///
    /// # Errors
    /// SQLite's.
    pub(in crate::sqlite) fn in_memory() -> Result<Self> {
        let db = Connection::open_in_memory().map_err(from_sqlite)?;
        db.execute_batch("pragma page_size=4096; pragma auto_vacuum=none; pragma encoding='UTF-8'")
            .map_err(from_sqlite)?;
        functions::install_functions(&db, &ResultBytes::new(LENGTH_MAX)).map_err(from_sqlite)?;
        Ok(Self { db, wal: PathBuf::new() })
    }

    /// Bytes in the write-ahead log now.
    pub(in crate::sqlite) fn wal_bytes(&self) -> u64 {
        files::file_length(&self.wal)
    }

    /// Runs `work` in one read transaction, after the identity check.
    ///
    /// # Errors
    /// Those of the check and of `work`; otherwise SQLite's.
    pub(in crate::sqlite) fn read_transaction<T>(
        &self,
        expected: Option<&ExpectedIdentity>,
        work: impl FnOnce(&Connection, Identity) -> Result<T>,
    ) -> Result<T> {
        self.db.execute_batch("begin").map_err(from_sqlite)?;
        let outcome = check_identity(&self.db, expected).and_then(|identity| work(&self.db, identity));
        let ended = self.db.execute_batch("rollback").map_err(from_sqlite);
        outcome.and_then(|value| ended.map(|()| value))
    }
}

/// Reads the identity in the open transaction and compares it.
///
/// # Errors
/// [`ErrorKind::WrongTenant`] or [`ErrorKind::Fenced`]; otherwise SQLite's.
pub(in crate::sqlite) fn check_identity(db: &Connection, expected: Option<&ExpectedIdentity>) -> Result<Identity> {
    let found = identity::read_identity(db)?;
    expected.map_or(Ok(()), |expected| expected.check_identity(&found))?;
    Ok(found)
}

impl Deref for OpenDatabase {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.db
    }
}

impl Drop for OpenDatabase {
    /// The last connection to close would copy the log into the main file, with all its fsyncs. With an empty log there
    /// is nothing to copy, and closing only removes files. If another writer comes in between, closing copies the log
    /// as it should.
    fn drop(&mut self) {
        let _ = match self.wal_bytes() {
            0 => self.db.execute_batch("pragma synchronous=full").is_ok(),
            _ => self.db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).is_ok(),
        };
    }
}
