//! A connection while a session uses it. A lease may be returned, dropped by a cancelled future, or unwound by a panic.
//! In each case its connection is returned clean or closed, and its place in the budget is free again.
//!
//! `server_pool.rs` makes leases; `transaction.rs` uses them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection};

use super::budget::ConnectionUse;
use super::connection::PostgresTenantConnection;
use super::counters::CloseReason;
use super::server_pool::ServerPool;
use super::tenant_share::TenantShareId;
use crate::statement::AccessMode;

/// Longest time to clean an abandoned connection. After that, closing it is cheaper for everyone than waiting.
const RECOVER_MAX: Duration = Duration::from_millis(250);

/// The known state of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionPhase {
    /// No work is under way and no transaction is open.
    Clean,
    /// A command of this program that changes nothing is under way.
    Setting,
    /// A statement without a transaction is under way, or its answer was not read to the end.
    Alone,
    /// A statement of a transaction is under way, or its answer was not read to the end.
    Statement,
    /// A transaction is open, or may be open.
    Transaction,
    /// A commit is under way.
    Committing,
    /// An application uses the driver itself: a transaction may be open, and the session may have any setting.
    Lent,
}

/// A connection in use. It counts as in use until it is returned or closed.
#[derive(Debug)]
pub(super) struct PostgresLease {
    held: Option<PostgresLeaseContents>,
}

#[derive(Debug)]
struct PostgresLeaseContents {
    conn: PostgresTenantConnection,
    phase: ConnectionPhase,
    since: Instant,
    charged: u64,
    owner: LeaseOwner,
}

/// The pool and the login to which the connection belongs.
#[derive(Debug, Clone)]
pub(super) struct LeaseOwner {
    pub(super) host: Arc<ServerPool>,
    pub(super) account: TenantShareId,
    pub(super) login: AccessMode,
}

impl PostgresLease {
    pub(super) fn new(owner: LeaseOwner, conn: PostgresTenantConnection, charged: u64) -> Self {
        Self {
            held: Some(PostgresLeaseContents {
                conn,
                phase: ConnectionPhase::Clean,
                since: Instant::now(),
                charged,
                owner,
            }),
        }
    }

    /// The connection. It is marked to be in `phase` until [`PostgresLease::mark_phase`] changes that.
    pub(super) fn use_connection(&mut self, phase: ConnectionPhase) -> &mut PostgresTenantConnection {
        let held = self.held.as_mut().expect("a lease holds a connection until it ends");
        held.phase = phase;
        &mut held.conn
    }

    /// The driver's connection, for code of the application.
    pub(super) fn lent_connection(&self) -> &PgConnection {
        self.held.as_ref().expect("a lease holds a connection until it ends").conn.driver_connection_ref()
    }

    /// As [`PostgresLease::lent_connection`].
    pub(super) fn lent_connection_mut(&mut self) -> &mut PgConnection {
        self.use_connection(ConnectionPhase::Lent).driver_connection()
    }

    pub(super) fn current_phase(&self) -> ConnectionPhase {
        self.held.as_ref().map_or(ConnectionPhase::Clean, |held| held.phase)
    }

    pub(super) fn mark_phase(&mut self, phase: ConnectionPhase) {
        self.use_connection(phase);
    }

    /// Closes the connection, because its state is unknown or it is of no use.
    pub(super) fn close(mut self, reason: CloseReason) {
        if let Some(held) = self.held.take() {
            held.close(reason);
        }
    }
}

impl Drop for PostgresLease {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else { return };
        match held.phase {
            ConnectionPhase::Clean => held.give_back(),
            // Reading an answer of any length to its end would occupy a thread: the driver does not pause while data
            // keeps coming.
            ConnectionPhase::Alone | ConnectionPhase::Statement => held.close(CloseReason::Abandoned),
            ConnectionPhase::Setting
            | ConnectionPhase::Transaction
            | ConnectionPhase::Committing
            | ConnectionPhase::Lent => held.recover_in_background(),
        }
    }
}

impl PostgresLeaseContents {
    fn give_back(self) {
        let used = self.use_record();
        if self.conn.is_old(Instant::now()) {
            return self.close(CloseReason::Lifetime);
        }
        self.owner.host.release_connection(&self.owner, self.conn, used);
    }

    fn close(self, reason: CloseReason) {
        let used = self.use_record();
        self.owner.host.close_used(&self.owner, self.conn, used, reason);
    }

    /// Cleans the connection and returns it, in a task of its own; closes it when that takes too long.
    fn recover_in_background(self) {
        let runtime = self.owner.host.runtime_handle().clone();
        let mut doomed = CloseOnDrop(Some(self));
        runtime.spawn(async move {
            let Some(held) = doomed.0.as_mut() else { return };
            let clean = tokio::time::timeout(RECOVER_MAX, held.clean_up()).await;
            if !matches!(clean, Ok(Ok(()))) {
                return;
            }
            if let Some(held) = doomed.0.take() {
                held.give_back();
            }
        });
    }

    async fn clean_up(&mut self) -> Result<(), sqlx::Error> {
        match self.phase {
            ConnectionPhase::Transaction => {
                sqlx::raw_sql("rollback").execute(self.conn.driver_connection()).await.map(drop)
            }
            ConnectionPhase::Lent => self.conn.reset_session().await,
            _ => self.conn.driver_connection().ping().await,
        }
    }

    fn use_record(&self) -> ConnectionUse {
        ConnectionUse { charged: self.charged, held: self.since.elapsed(), born: self.conn.opened_at() }
    }
}

/// Closes the connection unless it is taken out, also when the runtime that should clean it is gone.
struct CloseOnDrop(Option<PostgresLeaseContents>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if let Some(held) = self.0.take() {
            held.close(CloseReason::Abandoned);
        }
    }
}
