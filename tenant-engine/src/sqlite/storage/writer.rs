//! Write transactions of the engine operations, made durable by the group's flush and not one by one.
//!
//! Called by `actions/migrate.rs` and `actions/stamp.rs`. The proof that this loses nothing is in `durability.rs`. This
//! file chooses `synchronous` for each transaction.

use rusqlite::Connection;

use super::open::{FileSharing, OpenDatabase, open_database};
use super::shared_state::FlushNeed;
use crate::error::{Error, Result};
use crate::placement::Placement;
use crate::sqlite::error::from_sqlite;

/// The log of a tenant that is migrated again and again and never opened in between must not grow without limit. Above
/// this size it is copied into the main file, which costs the fsyncs that the flush saves.
const LOG_BYTES_MAX: u64 = 1 << 20;

/// An open database whose write transactions leave durability to the caller's flush.
#[derive(Debug)]
pub(in crate::sqlite) struct DatabaseWriter {
    database: OpenDatabase,
    sync: SyncMode,
}

/// What SQLite syncs by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SyncMode {
    /// Nothing: safe while the log is empty, because there are no old frames that could be mistaken for new ones.
    Off,
    /// The log's header when the log starts over.
    Header,
    /// Everything: for a database without a write-ahead log, where nothing less is safe.
    Full,
}

impl DatabaseWriter {
    /// Opens the database at a placement for changing it.
    ///
    /// # Errors
    /// Those of [`open_database`].
    pub(in crate::sqlite) fn open(at: &Placement) -> Result<Self> {
        Self::over_database(open_database(at, FileSharing::AloneIfIdle)?)
    }

    /// An empty database in memory, for building a template.
    ///
    /// # Errors
    /// SQLite's.
    pub(in crate::sqlite) fn in_memory() -> Result<Self> {
        Self::over_database(OpenDatabase::in_memory()?)
    }

    /// A writer over an open database of any kind.
    ///
    /// # Errors
    /// SQLite's.
    pub(in crate::sqlite) fn over_database(database: OpenDatabase) -> Result<Self> {
        let mode: String = database.query_row("pragma journal_mode", [], |row| row.get(0)).map_err(from_sqlite)?;
        let sync = match mode.as_str() {
            "wal" if database.wal_bytes() == 0 => SyncMode::Off,
            "wal" => SyncMode::Header,
            _ => SyncMode::Full,
        };
        let writer = Self { database, sync };
        writer.apply_sync()?;
        Ok(writer)
    }

    /// The database, for reading and for statements that must run outside a transaction; see
    /// [`DatabaseWriter::expect_log`].
    pub(in crate::sqlite) fn inner_database(&self) -> &OpenDatabase {
        &self.database
    }

    /// Runs `work` in one write transaction; an error rolls it back.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Busy`] when another writer keeps its lock; those of `work`; otherwise SQLite's.
    pub(in crate::sqlite) fn write_transaction<T, E: From<Error>>(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        self.begin_immediate()?;
        let commit = |value| match self.database.execute_batch("commit") {
            Ok(()) => Ok(value),
            Err(error) => Err(from_sqlite(error).into()),
        };
        let outcome = work(&self.database).and_then(commit);
        if !self.database.is_autocommit() {
            // The first error is the one to report.
            let _ = self.database.execute_batch("rollback");
        }
        if outcome.is_err() && self.database.wal_bytes() > LOG_BYTES_MAX {
            // The rolled-back data still fills the log, and perhaps the disk. It is removed now if possible.
            let _ = self.fold_log();
        }
        outcome
    }

    /// Prepares for statements that commit by themselves: another process may use the log between them.
    ///
    /// # Errors
    /// SQLite's.
    pub(in crate::sqlite) fn expect_log(&mut self) -> Result<()> {
        if self.sync == SyncMode::Off {
            self.sync = SyncMode::Header;
            self.apply_sync()?;
        }
        Ok(())
    }

    /// Closes the database, and reports whether its log may hold data that is not on disk yet, of this call or of an
    /// interrupted one.
    ///
    /// # Errors
    /// SQLite's.
    pub(in crate::sqlite) fn finish_writing(mut self) -> Result<FlushNeed> {
        if self.database.wal_bytes() > LOG_BYTES_MAX {
            self.fold_log()?;
        }
        Ok(if self.database.wal_bytes() > 0 { FlushNeed::Needed } else { FlushNeed::Done })
    }

    /// Closes the database after a failure. Removes its log if possible, because its content is not needed.
    pub(in crate::sqlite) fn abandon_writing(mut self) {
        if self.database.wal_bytes() > LOG_BYTES_MAX {
            let _ = self.fold_log();
        }
    }

    /// Copies the log into the main file with all syncs. It is not an error when readers prevent that.
    fn fold_log(&mut self) -> Result<()> {
        let before = std::mem::replace(&mut self.sync, SyncMode::Full);
        self.apply_sync()?;
        let folded = self.database.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(())).map_err(from_sqlite);
        self.sync = before;
        self.apply_sync()?;
        folded
    }

    /// Resets connection settings that statements outside a transaction may have changed.
    ///
    /// # Errors
    /// SQLite's.
    pub(in crate::sqlite) fn restore_connection(&mut self) -> Result<()> {
        if !self.database.is_autocommit() {
            self.database.execute_batch("rollback").map_err(from_sqlite)?;
        }
        self.apply_sync()
    }

    /// While the write lock is held, no other connection can write to the log, so its length decides for the whole
    /// transaction.
    fn begin_immediate(&mut self) -> Result<()> {
        self.database.execute_batch("begin immediate").map_err(from_sqlite)?;
        if self.sync != SyncMode::Off || self.database.wal_bytes() == 0 {
            return Ok(());
        }
        self.database.execute_batch("rollback").map_err(from_sqlite)?;
        self.expect_log()?;
        self.database.execute_batch("begin immediate").map_err(from_sqlite)
    }

    fn apply_sync(&self) -> Result<()> {
        let level = match self.sync {
            SyncMode::Off => "off",
            SyncMode::Header => "normal",
            SyncMode::Full => "full",
        };
        self.database.execute_batch(&format!("pragma synchronous={level}")).map_err(from_sqlite)
    }
}
