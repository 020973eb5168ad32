//! A connection while it is outside its pool. A lease may be used up, dropped by a cancelled future, or unwound by a
//! panic. In each case its connection is returned without an open transaction or closed, and its slot is free again.
//!
//! `pool.rs` makes leases; `transaction.rs` uses them on workers.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::connection::SqliteTenantConnection;
use super::pool::SqlitePoolInner;
use super::transaction::rollback_transaction;
use crate::error::{Error, ErrorKind, Result};
use crate::sqlite::error::{about_file, from_sqlite};
use crate::sqlite::storage::descriptors::ConnectionPlace;
use crate::statement::AccessMode;

/// One checked-out connection, or the right to open one.
pub(super) struct SqliteLease {
    pool: Arc<SqlitePoolInner>,
    access: AccessMode,
    held: Option<SqliteLeaseContents>,
}

/// The parts of a lease that are returned. The slot comes last, so that its next owner finds the connection in the
/// pool.
struct SqliteLeaseContents {
    conn: Option<SqliteTenantConnection>,
    /// The place in the process's budget for a connection that is not open yet.
    place: Option<ConnectionPlace>,
    _slot: OwnedSemaphorePermit,
}

impl SqliteLease {
    /// A lease with an idle connection.
    pub(super) fn of_idle(
        pool: Arc<SqlitePoolInner>,
        access: AccessMode,
        slot: OwnedSemaphorePermit,
        conn: SqliteTenantConnection,
    ) -> Self {
        Self { pool, access, held: Some(SqliteLeaseContents { conn: Some(conn), place: None, _slot: slot }) }
    }

    /// A lease without a connection, which is opened at the first use.
    pub(super) fn to_open(
        pool: Arc<SqlitePoolInner>,
        access: AccessMode,
        slot: OwnedSemaphorePermit,
        place: ConnectionPlace,
    ) -> Self {
        Self { pool, access, held: Some(SqliteLeaseContents { conn: None, place: Some(place), _slot: slot }) }
    }

    /// Uses the connection, opening it when needed. Blocks.
    pub(super) fn open_with<T>(
        &mut self,
        work: impl FnOnce(&SqliteTenantConnection, &SqlitePoolInner) -> Result<T>,
    ) -> Result<T> {
        let held = self.held.as_mut().ok_or_else(connection_lost)?;
        if held.conn.is_none() {
            // The place stays in the lease when opening fails, because a locked file is tried again.
            let mut conn = self.pool.open_connection(self.access)?;
            conn.occupy_place(held.place.take().ok_or_else(connection_lost)?);
            held.conn = Some(conn);
        }
        held.conn.as_ref().ok_or_else(connection_lost).and_then(|conn| work(conn, &self.pool))
    }

    /// Uses the connection, which must be open. Blocks.
    pub(super) fn with_connection<T>(&self, work: impl FnOnce(&SqliteTenantConnection) -> Result<T>) -> Result<T> {
        self.held.as_ref().and_then(|held| held.conn.as_ref()).ok_or_else(connection_lost).and_then(work)
    }

    /// An error of the first use, explained by a check of the file.
    pub(super) fn explain_error(&self, error: Error) -> Error {
        about_file(error, self.pool.file_path())
    }

    /// Releases the disk space of a write that failed on a full disk. Blocks.
    pub(super) fn shrink_log(&mut self) {
        self.roll_back();
        // The disk may still be too full for this. The next write tries again.
        let _ = self.with_connection(|conn| conn.truncate_log().map_err(from_sqlite));
    }

    /// Ends the transaction, keeping the connection. Blocks.
    pub(super) fn roll_back(&mut self) {
        let Some(held) = self.held.as_mut() else { return };
        if held.conn.as_ref().is_some_and(|conn| rollback_transaction(conn).is_err()) {
            held.conn = None;
        }
    }

    /// Returns everything, after rolling back an open transaction. Blocks.
    pub(super) fn end_lease(mut self) {
        if let Some(held) = self.held.take() {
            held.give_back(&self.pool, self.access);
        }
    }
}

impl SqliteLeaseContents {
    fn give_back(mut self, pool: &SqlitePoolInner, access: AccessMode) {
        let Some(conn) = self.conn.take() else { return };
        if rollback_transaction(&conn).is_ok() {
            // A connection that the pool does not want is closed here.
            drop(pool.put_back(access, conn));
        }
    }

    fn is_clean(&self) -> bool {
        self.conn.as_ref().is_none_or(|conn| !conn.in_transaction())
    }
}

impl Drop for SqliteLease {
    fn drop(&mut self) {
        let Some(mut held) = self.held.take() else { return };
        let panicking = std::thread::panicking();
        if held.is_clean() && !panicking {
            match held.conn.take().and_then(|conn| self.pool.put_back(self.access, conn)) {
                None => return,
                unwanted => held.conn = unwanted,
            }
        }
        let (pool, access) = (Arc::clone(&self.pool), self.access);
        // Refused only at shutdown; the job is then dropped, which closes the connection.
        let _ = self.pool.submit_job(Box::new(move || {
            // After a panic the state of the connection is unknown.
            if !panicking {
                held.give_back(&pool, access);
            }
        }));
    }
}

impl std::fmt::Debug for SqliteLease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteLease").field("access", &self.access).finish_non_exhaustive()
    }
}

fn connection_lost() -> Error {
    Error::new(ErrorKind::Internal, "the connection of this transaction is lost")
}
