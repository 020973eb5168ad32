//! Opens and closes connections in tasks of their own, so that a request that is given up wastes no login, and nobody
//! waits for a goodbye.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::account::AccountId;
use super::budget::OpenFailure;
use super::connection::{Conn, Target};
use super::host::Host;
use super::lease::Owner;
use super::pace::Failure;
use crate::error::{Error, ErrorKind};

/// A server that takes longer to let us in does not answer, as far as requests are concerned: they wait 5 s.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Opens a connection for this owner, after `instead_of` is closed, and tells the budget.
pub(super) fn open(owner: Owner, target: Option<Arc<Target>>, instead_of: Option<Conn>) {
    let runtime = owner.host.runtime().clone();
    let opening = Opening(Some(owner));
    runtime.spawn(async move {
        if let Some(conn) = instead_of {
            conn.close().await;
        }
        // Gone only with the account, which has a connection in the making.
        let Some(target) = target else { return };
        opening.run(&target).await;
    });
}

/// Closes a connection that the budget already counts as closing.
pub(super) fn close(host: &Arc<Host>, account: AccountId, conn: Conn) {
    let closing = Closing { host: Arc::clone(host), account };
    host.runtime().spawn(async move {
        conn.close().await;
        drop(closing);
    });
}

/// A connection in the making; dropped, it has failed.
struct Opening(Option<Owner>);

impl Opening {
    async fn run(mut self, target: &Target) {
        let Some(owner) = self.0.clone() else { return };
        let begun = Instant::now();
        let opened = Conn::open(target, owner.login, owner.host.version());
        let opened = tokio::time::timeout(CONNECT_MAX, opened).await.unwrap_or_else(|_| {
            let message = format!("the server let nobody in for {} s", CONNECT_MAX.as_secs());
            Err(Error::new(ErrorKind::ServerUnreachable, message))
        });
        self.0 = None;
        let Owner { host, account, login } = &owner;
        match opened {
            Ok(conn) => {
                let took = begun.elapsed();
                host.meters().connected(took);
                host.change(|budget, now| budget.opened(*account, *login, conn, took, now));
            }
            Err(error) => {
                tracing::debug!(database = %target.database, error = %error, "no connection");
                host.change(|budget, now| budget.open_failed(*account, *login, failure(&error), now));
            }
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        let Some(Owner { host, account, login }) = self.0.take() else { return };
        let failure = Failure::new(ErrorKind::Internal, "connecting was given up");
        host.change(|budget, now| budget.open_failed(account, login, OpenFailure::Own(failure), now));
    }
}

fn failure(error: &Error) -> OpenFailure {
    let failure = Failure::from(error);
    match error.kind() {
        ErrorKind::ServerUnreachable => OpenFailure::Unreachable(failure),
        // A limit of one role or database says nothing about the server.
        ErrorKind::ServerFull if !error.message().contains("for role") && !error.message().contains("for database") => {
            OpenFailure::Full
        }
        _ => OpenFailure::Own(failure),
    }
}

/// A connection that is being closed; dropped, it is.
struct Closing {
    host: Arc<Host>,
    account: AccountId,
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.host.change(|budget, now| budget.closed(self.account, now));
    }
}
