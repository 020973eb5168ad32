//! What a failed step of a transaction means for its connection, and whether it may be tried once more.

use super::error::{code, ends_connection, from_sqlx, is_ended, is_raised, was_ended};
use crate::error::{Error, ErrorKind};

/// The server's words when a migration changed what a prepared statement answers (`feature_not_supported`).
const STALE: (&str, &str) = ("0A000", "cached plan must not change result type");

/// An error, and what is known about the connection after it.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) error: Error,
    pub(super) cause: Cause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// We refused it; the server knows nothing of it.
    Refused,
    /// The server refused it; the connection is fine.
    Server,
    /// The prepared statement is out of date; nothing has run.
    Stale,
    /// The database is not the expected one any more, or takes no writes now; nothing has run.
    Fenced,
    /// We did not read the answer to its end.
    Unread,
    /// The server did not answer in time; whatever it does now, nobody listens.
    Late,
    /// The connection is gone. What ran on it, if the commit was not sent before, is undone or never was.
    Lost(Lost),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// The statement did not run, or was undone.
    NothingRan,
    /// What ran is undone: its transaction was not committed.
    Undone,
    /// It broke before an answer came: a statement of its own may have run.
    Unanswered,
    /// It broke after the answer, before the server said that it is durable.
    Unconfirmed,
}

impl Fault {
    /// A failure of what changes nothing: BEGIN, settings, preparing.
    pub(super) fn before_anything(error: sqlx::Error) -> Self {
        Self::of(error, Lost::NothingRan)
    }

    /// A failure before the server said that the statement is complete.
    pub(super) fn before_completion(error: sqlx::Error) -> Self {
        let lost = if is_ended(&error) { Lost::NothingRan } else { Lost::Unanswered };
        Self::of(error, lost)
    }

    /// A failure after that.
    pub(super) fn after_completion(error: sqlx::Error) -> Self {
        Self::of(error, Lost::Unconfirmed)
    }

    /// True when somebody ended the session, and it said so.
    pub(super) fn was_ended(&self) -> bool {
        was_ended(&self.error)
    }

    /// True when the server says that the login may not.
    pub(super) fn is_denied(&self) -> bool {
        self.cause == Cause::Server && self.error.kind() == ErrorKind::SqlForbidden
    }

    /// What a denied statement means when the database was asked once more whose it is, and this is the answer.
    pub(super) fn because(self, answer: Error) -> Self {
        let cause = match answer.kind() {
            ErrorKind::Fenced | ErrorKind::WrongTenant | ErrorKind::Missing => Cause::Fenced,
            ErrorKind::ConnectionLost | ErrorKind::ServerUnreachable => Cause::Lost(Lost::NothingRan),
            _ => return self,
        };
        Self { error: answer, cause }
    }

    fn of(error: sqlx::Error, lost: Lost) -> Self {
        let cause = if ends_connection(&error) {
            Cause::Lost(lost)
        } else if is_stale(&error) {
            Cause::Stale
        } else {
            Cause::Server
        };
        let error = from_sqlx(error);
        match (cause, error.kind()) {
            // The driver's words for a connection that ends in the middle.
            (Cause::Lost(_), ErrorKind::Internal | ErrorKind::ServerUnreachable) => {
                let message = format!("the connection to the server broke: {}", error.message());
                Self { error: Error::new(ErrorKind::ConnectionLost, message).with_source(error), cause }
            }
            // The statement's own words about some database: only connecting can find that ours is another one.
            (Cause::Server, ErrorKind::Missing | ErrorKind::Fenced | ErrorKind::WrongTenant) => {
                Self { error: Error::new(ErrorKind::SqlInvalid, error.message().to_owned()).with_source(error), cause }
            }
            _ => Self { error, cause },
        }
    }
}

fn is_stale(error: &sqlx::Error) -> bool {
    code(error).as_deref() == Some(STALE.0) && error.to_string().contains(STALE.1) && !is_raised(error)
}
