//! How the verbs open a database that exists, and how they let go of it again.
//!
//! A pool's connections are `pool.rs`'s business; these live for one verb on one worker thread. Neither reading nor
//! writing here ever checkpoints a log that holds something, so the main file changes only where a serving connection
//! decides so.

use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::error::{from_open, from_sqlite, is_busy};
use super::files::{self, Found, beside};
use super::functions::{self, ResultBytes};
use super::identity;
use super::schema;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Expected, Identity};
use crate::placement::Placement;

/// How long a verb waits for an application's writer before it answers `Busy`: a worker thread waits with it, and the
/// runner comes back later anyway.
pub(super) const BUSY_WAIT: Duration = Duration::from_millis(100);
/// Longest value that a function returns to a verb: SQLite's own limit.
pub(super) const LENGTH_MAX: usize = 1_000_000_000;

/// A database up to this size is held alone while a verb changes it: no shared-memory file is made, and a request
/// that comes meanwhile waits for milliseconds. A larger one stays readable throughout.
const ALONE_BYTES_MAX: u64 = 16 << 20;

/// An open database.
#[derive(Debug)]
pub(super) struct Database {
    db: Connection,
    wal: PathBuf,
}

/// Whether others may use the database meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    /// Like any other connection.
    Shared,
    /// Alone, when nobody else has it open and it is small; else shared.
    AloneIfIdle,
}

/// Opens the database at a placement; never creates one.
///
/// # Errors
/// [`ErrorKind::Missing`], [`ErrorKind::Corrupt`] for an empty file, [`ErrorKind::Io`]; otherwise SQLite's.
pub(super) fn open(at: &Placement, sharing: Sharing) -> Result<Database> {
    let path = at.path();
    let length = present(&path)?;
    if sharing == Sharing::AloneIfIdle && length <= ALONE_BYTES_MAX {
        let db = connect(&path)?;
        match db.execute_batch("pragma locking_mode=exclusive; select 1 from sqlite_schema limit 1") {
            Ok(()) => return settled(db, &path),
            Err(error) if is_busy(&error) => {}
            Err(error) => return Err(schema::unloaded(error)),
        }
    }
    settled(connect(&path)?, &path)
}

/// Opens the database at a placement and keeps everybody else out of it until it is closed; whatever its size.
///
/// # Errors
/// [`ErrorKind::Busy`] when anybody has it open, even a reader; else those of [`open`].
pub(super) fn open_alone(at: &Placement) -> Result<Database> {
    let path = at.path();
    present(&path)?;
    let db = connect(&path)?;
    // In this mode the lock is kept when the transaction ends; with a write-ahead log no reader shares it.
    match db.execute_batch("pragma locking_mode=exclusive; begin exclusive; commit") {
        Ok(()) => settled(db, &path),
        Err(error) if is_busy(&error) => {
            Err(Error::new(ErrorKind::Busy, "somebody has the database open").with_source(error))
        }
        Err(error) => Err(schema::unloaded(error)),
    }
}

/// Returns the length of the file.
fn present(path: &std::path::Path) -> Result<u64> {
    if files::look(path)? == Found::Nothing {
        return Err(Error::new(ErrorKind::Missing, "there is no database at its placement"));
    }
    let found = std::fs::symlink_metadata(path).map_err(|error| files::fault("cannot look at the database", error))?;
    match found.len() {
        0 => Err(Error::new(ErrorKind::Corrupt, "the database file is empty")),
        length => Ok(length),
    }
}

fn connect(path: &std::path::Path) -> Result<Connection> {
    // No CREATE: a missing file is an error, never an empty new tenant.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(|e| from_open(e, path))?;
    functions::install(&db, &ResultBytes::new(LENGTH_MAX)).map_err(from_sqlite)?;
    schema::bound(&db)?;
    // rusqlite's default is five seconds.
    db.busy_timeout(Duration::ZERO).map_err(from_sqlite)?;
    Ok(db)
}

fn settled(db: Connection, path: &std::path::Path) -> Result<Database> {
    db.busy_timeout(BUSY_WAIT).map_err(from_sqlite)?;
    db.execute_batch("pragma wal_autocheckpoint=0").map_err(from_sqlite)?;
    schema::load(&db)?;
    Ok(Database { db, wal: beside(path, "-wal") })
}

impl Database {
    /// A database in memory that is not empty.
    #[cfg(feature = "test-util")]
    pub(super) fn of(db: Connection) -> Self {
        Self { db, wal: PathBuf::new() }
    }

    /// An empty database in memory, with the page size every tenant has.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn in_memory() -> Result<Self> {
        let db = Connection::open_in_memory().map_err(from_sqlite)?;
        db.execute_batch("pragma page_size=4096; pragma auto_vacuum=none; pragma encoding='UTF-8'")
            .map_err(from_sqlite)?;
        functions::install(&db, &ResultBytes::new(LENGTH_MAX)).map_err(from_sqlite)?;
        Ok(Self { db, wal: PathBuf::new() })
    }

    /// Bytes in the write-ahead log now.
    pub(super) fn wal_bytes(&self) -> u64 {
        files::length(&self.wal)
    }

    /// Runs `work` in one read transaction, after the identity check.
    ///
    /// # Errors
    /// Those of the check and of `work`; otherwise SQLite's.
    pub(super) fn read<T>(
        &self,
        expected: Option<&Expected>,
        work: impl FnOnce(&Connection, Identity) -> Result<T>,
    ) -> Result<T> {
        self.db.execute_batch("begin").map_err(from_sqlite)?;
        let outcome = check(&self.db, expected).and_then(|identity| work(&self.db, identity));
        let ended = self.db.execute_batch("rollback").map_err(from_sqlite);
        outcome.and_then(|value| ended.map(|()| value))
    }
}

/// Reads the identity and compares it, in the open transaction.
///
/// # Errors
/// [`ErrorKind::WrongTenant`] or [`ErrorKind::Fenced`]; otherwise SQLite's.
pub(super) fn check(db: &Connection, expected: Option<&Expected>) -> Result<Identity> {
    let found = identity::read(db)?;
    expected.map_or(Ok(()), |expected| expected.check(&found))?;
    Ok(found)
}

impl Deref for Database {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.db
    }
}

impl Drop for Database {
    /// The last connection to leave would fold the log into the main file, fsyncs and all. With an empty log there is
    /// nothing to fold and closing only tidies up, unless another writer comes between: then it folds as it should.
    fn drop(&mut self) {
        let _ = match self.wal_bytes() {
            0 => self.db.execute_batch("pragma synchronous=full").is_ok(),
            _ => self.db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).is_ok(),
        };
    }
}
