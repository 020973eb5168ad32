//! Write transactions of the verbs, made durable by the group's flush and not one by one.
//!
//! Called by `migrate.rs` and `stamp.rs`. The proof that this loses nothing is in `durability.rs`; what this file
//! contributes is the choice of `synchronous` per transaction.

use rusqlite::Connection;

use super::error::from_sqlite;
use super::open::{Database, Sharing, open};
use super::verbs::Flush;
use crate::error::{Error, Result};
use crate::placement::Placement;

/// A tenant that is migrated again and again and never opened in between must not grow for ever: past this its log is
/// folded into the main file, which costs the fsyncs that the flush saves.
const LOG_BYTES_MAX: u64 = 1 << 20;

/// An open database whose write transactions leave durability to the caller's flush.
#[derive(Debug)]
pub(super) struct Writer {
    database: Database,
    sync: Sync,
}

/// What SQLite syncs by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sync {
    /// Nothing: right while the log is empty, where no old frame can be mistaken for a new one.
    Off,
    /// The log's header when the log starts over.
    Header,
    /// Everything: for a database without a write-ahead log, where nothing less is safe.
    Full,
}

impl Writer {
    /// Opens the database at a placement for changing it.
    ///
    /// # Errors
    /// Those of [`open`].
    pub(super) fn open(at: &Placement) -> Result<Self> {
        Self::over(open(at, Sharing::AloneIfIdle)?)
    }

    /// An empty database in memory, for building a template.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn in_memory() -> Result<Self> {
        Self::over(Database::in_memory()?)
    }

    /// An open database of any kind.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn over(database: Database) -> Result<Self> {
        let mode: String = database.query_row("pragma journal_mode", [], |row| row.get(0)).map_err(from_sqlite)?;
        let sync = match mode.as_str() {
            "wal" if database.wal_bytes() == 0 => Sync::Off,
            "wal" => Sync::Header,
            _ => Sync::Full,
        };
        let writer = Self { database, sync };
        writer.apply_sync()?;
        Ok(writer)
    }

    /// The database, for reading and for what must run outside a transaction; see [`Writer::expect_log`].
    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    /// Runs `work` in one write transaction; an error rolls it back.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Busy`] when another writer does not let go; those of `work`; otherwise SQLite's.
    pub(super) fn transaction<T, E: From<Error>>(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        self.begin()?;
        let commit = |value| match self.database.execute_batch("commit") {
            Ok(()) => Ok(value),
            Err(error) => Err(from_sqlite(error).into()),
        };
        let outcome = work(&self.database).and_then(commit);
        if !self.database.is_autocommit() {
            // The error to report is the one that came first.
            let _ = self.database.execute_batch("rollback");
        }
        if outcome.is_err() && self.database.wal_bytes() > LOG_BYTES_MAX {
            // What was rolled back still fills the log, and perhaps the disk. It goes now, if it can.
            let _ = self.fold();
        }
        outcome
    }

    /// Prepares for statements that commit by themselves: another process may use the log between them.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn expect_log(&mut self) -> Result<()> {
        if self.sync == Sync::Off {
            self.sync = Sync::Header;
            self.apply_sync()?;
        }
        Ok(())
    }

    /// Lets go of the database, and says whether its log may hold something that is in memory only: of this call, or
    /// of one that was cut off.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn finish(mut self) -> Result<Flush> {
        if self.database.wal_bytes() > LOG_BYTES_MAX {
            self.fold()?;
        }
        Ok(if self.database.wal_bytes() > 0 { Flush::Needed } else { Flush::Done })
    }

    /// Folds the log into the main file with every sync in place; that readers make it stay is not an error.
    fn fold(&mut self) -> Result<()> {
        let before = std::mem::replace(&mut self.sync, Sync::Full);
        self.apply_sync()?;
        let folded = self.database.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(())).map_err(from_sqlite);
        self.sync = before;
        self.apply_sync()?;
        folded
    }

    /// Undoes what statements outside a transaction may have changed about the connection.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn restore(&mut self) -> Result<()> {
        if !self.database.is_autocommit() {
            self.database.execute_batch("rollback").map_err(from_sqlite)?;
        }
        self.apply_sync()
    }

    /// With the write lock held nobody else can write to the log, so its length decides for the whole transaction.
    fn begin(&mut self) -> Result<()> {
        self.database.execute_batch("begin immediate").map_err(from_sqlite)?;
        if self.sync != Sync::Off || self.database.wal_bytes() == 0 {
            return Ok(());
        }
        self.database.execute_batch("rollback").map_err(from_sqlite)?;
        self.expect_log()?;
        self.database.execute_batch("begin immediate").map_err(from_sqlite)
    }

    fn apply_sync(&self) -> Result<()> {
        let level = match self.sync {
            Sync::Off => "off",
            Sync::Header => "normal",
            Sync::Full => "full",
        };
        self.database.execute_batch(&format!("pragma synchronous={level}")).map_err(from_sqlite)
    }
}
