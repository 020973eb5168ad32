//! Opens and closes connections in tasks of their own. So an abandoned request does not waste a login, and no request
//! waits for a connection to close.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::budget::OpenFailure;
use super::connection::{ConnectTarget, PostgresTenantConnection};
use super::lease::LeaseOwner;
use super::server_health::WaitFailure;
use super::server_pool::ServerPool;
use super::tenant_share::TenantShareId;
use crate::error::{Error, ErrorKind};

/// A server that takes longer to accept a connection counts as not answering: requests wait at most 5 s.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Opens a connection for this owner, after closing `instead_of`, and reports the result to the budget.
pub(super) fn open_in_background(
    owner: LeaseOwner,
    target: Option<Arc<ConnectTarget>>,
    instead_of: Option<PostgresTenantConnection>,
) {
    let runtime = owner.host.runtime_handle().clone();
    let opening = PendingOpen(Some(owner));
    runtime.spawn(async move {
        if let Some(conn) = instead_of {
            conn.close().await;
        }
        // The target disappears only together with its share, which still has a connection that is being opened.
        let Some(target) = target else { return };
        opening.open_and_report(&target).await;
    });
}

/// Closes a connection that the budget already counts as closing.
pub(super) fn close_in_background(host: &Arc<ServerPool>, account: TenantShareId, conn: PostgresTenantConnection) {
    let closing = PendingClose { host: Arc::clone(host), account };
    host.runtime_handle().spawn(async move {
        conn.close().await;
        drop(closing);
    });
}

/// A connection that is being opened. Dropping it reports a failure.
struct PendingOpen(Option<LeaseOwner>);

impl PendingOpen {
    async fn open_and_report(mut self, target: &ConnectTarget) {
        let Some(owner) = self.0.clone() else { return };
        let begun = Instant::now();
        let opened = PostgresTenantConnection::open(target, owner.login, owner.host.server_version());
        let opened = tokio::time::timeout(CONNECT_MAX, opened).await.unwrap_or_else(|_| {
            let message = format!("the server accepted no connection for {} s", CONNECT_MAX.as_secs());
            Err(Error::new(ErrorKind::ServerUnreachable, message))
        });
        self.0 = None;
        let LeaseOwner { host, account, login } = &owner;
        match opened {
            Ok(conn) => {
                let took = begun.elapsed();
                host.connection_metrics().record_connect(took);
                host.change_budget(|budget, now| budget.connection_opened(*account, *login, conn, took, now));
            }
            Err(error) => {
                tracing::debug!(database = %target.database, error = %error, "no connection");
                host.change_budget(|budget, now| budget.open_failed(*account, *login, open_failure(&error), now));
            }
        }
    }
}

impl Drop for PendingOpen {
    fn drop(&mut self) {
        let Some(LeaseOwner { host, account, login }) = self.0.take() else { return };
        let failure = WaitFailure::new(ErrorKind::Internal, "connecting was abandoned");
        host.change_budget(|budget, now| budget.open_failed(account, login, OpenFailure::Own(failure), now));
    }
}

fn open_failure(error: &Error) -> OpenFailure {
    let failure = WaitFailure::from(error);
    match error.kind() {
        ErrorKind::ServerUnreachable => OpenFailure::Unreachable(failure),
        // A limit of one role or database says nothing about the server.
        ErrorKind::ServerFull if !error.message().contains("for role") && !error.message().contains("for database") => {
            OpenFailure::Full
        }
        _ => OpenFailure::Own(failure),
    }
}

/// A connection that is being closed. Dropping it reports that the connection is closed.
struct PendingClose {
    host: Arc<ServerPool>,
    account: TenantShareId,
}

impl Drop for PendingClose {
    fn drop(&mut self) {
        self.host.change_budget(|budget, now| budget.connection_closed(self.account, now));
    }
}
