//! A connection while it is out of its pool. However a lease ends (used up, dropped by a cancelled future, unwound by
//! a panic), its connection goes back without an open transaction or is closed, and its slot is free again.
//!
//! Made by `pool.rs`; `transaction.rs` uses it on workers.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::connection::Conn;
use super::descriptors::Place;
use super::error::{about_file, from_sqlite};
use super::pool::PoolInner;
use super::transaction::rollback;
use crate::error::{Error, ErrorKind, Result};
use crate::pool::Access;

/// One checked-out connection, or the right to open one.
pub(super) struct Lease {
    pool: Arc<PoolInner>,
    access: Access,
    held: Option<Held>,
}

/// What is given back. The slot comes last, so that whoever gets it next finds the connection in the pool.
struct Held {
    conn: Option<Conn>,
    /// The place in the process's budget for a connection that is not open yet.
    place: Option<Place>,
    _slot: OwnedSemaphorePermit,
}

impl Lease {
    /// With a connection that was idle.
    pub(super) fn of_idle(pool: Arc<PoolInner>, access: Access, slot: OwnedSemaphorePermit, conn: Conn) -> Self {
        Self { pool, access, held: Some(Held { conn: Some(conn), place: None, _slot: slot }) }
    }

    /// Without one: it is opened by the first use.
    pub(super) fn to_open(pool: Arc<PoolInner>, access: Access, slot: OwnedSemaphorePermit, place: Place) -> Self {
        Self { pool, access, held: Some(Held { conn: None, place: Some(place), _slot: slot }) }
    }

    /// Uses the connection, opening it when needed. Blocks.
    pub(super) fn open_with<T>(&mut self, work: impl FnOnce(&Conn, &PoolInner) -> Result<T>) -> Result<T> {
        let held = self.held.as_mut().ok_or_else(lost)?;
        if held.conn.is_none() {
            // The place stays here when opening fails: a locked file is tried again.
            let mut conn = self.pool.open(self.access)?;
            conn.occupy(held.place.take().ok_or_else(lost)?);
            held.conn = Some(conn);
        }
        held.conn.as_ref().ok_or_else(lost).and_then(|conn| work(conn, &self.pool))
    }

    /// Uses the connection, which must be open. Blocks.
    pub(super) fn with<T>(&self, work: impl FnOnce(&Conn) -> Result<T>) -> Result<T> {
        self.held.as_ref().and_then(|held| held.conn.as_ref()).ok_or_else(lost).and_then(work)
    }

    /// An error of the first use, with what a look at the file adds to it.
    pub(super) fn explain(&self, error: Error) -> Error {
        about_file(error, self.pool.path())
    }

    /// Gives back the room that a write took which failed on a full disk. Blocks.
    pub(super) fn shrink(&mut self) {
        self.roll_back();
        // The disk may still be too full for it. The next write tries again.
        let _ = self.with(|conn| conn.truncate_log().map_err(from_sqlite));
    }

    /// Ends the transaction, keeping the connection. Blocks.
    pub(super) fn roll_back(&mut self) {
        let Some(held) = self.held.as_mut() else { return };
        if held.conn.as_ref().is_some_and(|conn| rollback(conn).is_err()) {
            held.conn = None;
        }
    }

    /// Gives everything back, after a rollback if a transaction is open. Blocks.
    pub(super) fn end(mut self) {
        if let Some(held) = self.held.take() {
            held.give_back(&self.pool, self.access);
        }
    }
}

impl Held {
    fn give_back(mut self, pool: &PoolInner, access: Access) {
        let Some(conn) = self.conn.take() else { return };
        if rollback(&conn).is_ok() {
            // What the pool does not want is closed here.
            drop(pool.put(access, conn));
        }
    }

    fn is_clean(&self) -> bool {
        self.conn.as_ref().is_none_or(|conn| !conn.in_transaction())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(mut held) = self.held.take() else { return };
        let panicking = std::thread::panicking();
        if held.is_clean() && !panicking {
            match held.conn.take().and_then(|conn| self.pool.put(self.access, conn)) {
                None => return,
                unwanted => held.conn = unwanted,
            }
        }
        let (pool, access) = (Arc::clone(&self.pool), self.access);
        // Refused only at shutdown; the job is dropped then, and with it the connection is closed.
        let _ = self.pool.submit(Box::new(move || {
            // After a panic nobody knows what state the connection is in.
            if !panicking {
                held.give_back(&pool, access);
            }
        }));
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("access", &self.access).finish_non_exhaustive()
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::Internal, "the connection of this transaction is lost")
}
