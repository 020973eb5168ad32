//! What a failed step of a transaction means for its connection, and whether the call may be repeated.

use crate::error::{Error, ErrorKind};
use crate::postgres::error::{ends_connection, from_sqlx, is_ended, is_raised, sqlstate_code, was_ended};

/// The server's message when a migration changed the result type of a prepared statement (`feature_not_supported`).
const STALE: (&str, &str) = ("0A000", "cached plan must not change result type");

/// An error, and the state of the connection after it.
#[derive(Debug)]
pub(super) struct StatementFault {
    pub(super) error: Error,
    pub(super) cause: FaultCause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FaultCause {
    /// This program refused the statement; it was not sent to the server.
    Refused,
    /// The server refused the statement; the connection still works.
    Server,
    /// The prepared statement is out of date; nothing has run.
    Stale,
    /// The database is no longer the expected one, or accepts no writes now; nothing has run.
    Fenced,
    /// The answer was not read to its end.
    Unread,
    /// The server did not answer in time; its answer is no longer read.
    Late,
    /// The connection is lost. Unless the commit was already sent, its work was undone or never started.
    Lost(ConnectionLoss),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionLoss {
    /// The statement did not run, or was undone.
    NothingRan,
    /// The work was undone, because its transaction was not committed.
    Undone,
    /// The connection broke before an answer: a single statement without a transaction may have run.
    Unanswered,
    /// The connection broke after the answer, before the server confirmed that the work is durable.
    Unconfirmed,
}

impl StatementFault {
    /// A failure of a step that changes nothing: BEGIN, settings, preparing.
    pub(super) fn before_anything(error: sqlx::Error) -> Self {
        Self::from_driver(error, ConnectionLoss::NothingRan)
    }

    /// A failure before the server reported that the statement is complete.
    pub(super) fn before_completion(error: sqlx::Error) -> Self {
        let lost = if is_ended(&error) { ConnectionLoss::NothingRan } else { ConnectionLoss::Unanswered };
        Self::from_driver(error, lost)
    }

    /// A failure after the server reported that the statement is complete.
    pub(super) fn after_completion(error: sqlx::Error) -> Self {
        Self::from_driver(error, ConnectionLoss::Unconfirmed)
    }

    /// True when someone ended the session, and the session reported it.
    pub(super) fn was_ended(&self) -> bool {
        was_ended(&self.error)
    }

    /// True when the server reports that the login lacks a right.
    pub(super) fn is_denied(&self) -> bool {
        self.cause == FaultCause::Server && self.error.kind() == ErrorKind::SqlForbidden
    }

    /// The meaning of a denied statement, after the database's identity was checked again with the result `answer`.
    pub(super) fn explained_by(self, answer: Error) -> Self {
        let cause = match answer.kind() {
            ErrorKind::Fenced | ErrorKind::WrongTenant | ErrorKind::Missing => FaultCause::Fenced,
            ErrorKind::ConnectionLost | ErrorKind::ServerUnreachable => FaultCause::Lost(ConnectionLoss::NothingRan),
            _ => return self,
        };
        Self { error: answer, cause }
    }

    fn from_driver(error: sqlx::Error, lost: ConnectionLoss) -> Self {
        let cause = if ends_connection(&error) {
            FaultCause::Lost(lost)
        } else if is_stale(&error) {
            FaultCause::Stale
        } else {
            FaultCause::Server
        };
        let error = from_sqlx(error);
        match (cause, error.kind()) {
            // The driver's messages for a connection that ends in the middle.
            (FaultCause::Lost(_), ErrorKind::Internal | ErrorKind::ServerUnreachable) => {
                let message = format!("the connection to the server broke: {}", error.message());
                Self { error: Error::new(ErrorKind::ConnectionLost, message).with_source(error), cause }
            }
            // The statement itself reports such an error about some database. Only connecting can show that the
            // tenant's own database changed.
            (FaultCause::Server, ErrorKind::Missing | ErrorKind::Fenced | ErrorKind::WrongTenant) => {
                Self { error: Error::new(ErrorKind::SqlInvalid, error.message().to_owned()).with_source(error), cause }
            }
            _ => Self { error, cause },
        }
    }
}

fn is_stale(error: &sqlx::Error) -> bool {
    sqlstate_code(error).as_deref() == Some(STALE.0) && error.to_string().contains(STALE.1) && !is_raised(error)
}
