//! What the router caches: the open connections of one tenant's database, and the sessions that use them.
//! One enum, an arm per engine; on the request path there is no dynamic dispatch.

use std::time::Duration;

use crate::answers::AnswerShare;
use crate::error::Result;
use crate::postgres;
use crate::sqlite;
use crate::value::{Rows, Value};

/// What a transaction may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// SELECT only; the connection itself cannot write.
    Read,
    /// SELECT and DML.
    Write,
}

/// What happens to the transaction once the statements have run. An error always rolls back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It stays open for the next call.
    Keep,
    /// It is committed.
    Commit,
}

/// Caps of one session. Reached caps are errors, never silent truncation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Length of one SQL text, bytes; on SQLite at most 1,000,000.
    pub sql_bytes_max: usize,
    /// Bytes of one value, one row or one intermediate text of a statement on SQLite. A function runs to its end, so a
    /// larger limit lets a statement overrun its deadline further.
    pub value_bytes_max: usize,
    /// Rows of one statement's answer.
    pub rows_max: usize,
    /// Bytes of one statement's answer, as [`Value::size_bytes`] counts.
    pub bytes_max: usize,
    /// Bytes that one statement may write to temporary files while it reads on SQLite; a Postgres server has its own setting.
    pub temp_bytes_max: usize,
    /// How long one call may run on the database, waiting for a lock included.
    pub statement_timeout: Duration,
    /// How long a transaction may stay open; then it is rolled back and its connection is free again.
    pub transaction_timeout: Duration,
}

impl Default for Limits {
    /// SQL of 100 KB (a thousand rows in one INSERT, and values can travel as parameters), values of 1 MB, 10,000 rows, 16 MiB,
    /// 512 MiB of temporary files, 5 s a call, 10 s a transaction: what an API answers in one page, and no more.
    fn default() -> Self {
        Self {
            sql_bytes_max: 100_000,
            value_bytes_max: 1_000_000,
            rows_max: 10_000,
            bytes_max: 16 << 20,
            temp_bytes_max: 512 << 20,
            statement_timeout: Duration::from_secs(5),
            transaction_timeout: Duration::from_secs(10),
        }
    }
}

/// One statement with its positional parameters: `?1`, `?2` … on SQLite, `$1`, `$2` … on Postgres.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// Exactly one SQL statement.
    pub sql: String,
    /// Bound in order.
    pub params: Vec<Value>,
}

/// The connections of one database, opened for one expected identity. Cheap to clone; all clones are one pool.
#[derive(Debug, Clone)]
pub enum Pool {
    /// Connections to one file.
    Sqlite(sqlite::SqlitePool),
    /// Connections to one database of a server, shared with the server's other databases.
    Postgres(postgres::PostgresPool),
}

impl Pool {
    /// A transaction that has not begun: BEGIN and the identity check travel with its first statement.
    #[must_use]
    pub fn session(&self, access: Access, limits: Limits) -> Session {
        match self {
            Self::Sqlite(pool) => Session::Sqlite(pool.session(access, limits)),
            Self::Postgres(pool) => Session::Postgres(pool.session(access, limits)),
        }
    }

    /// The same pool, whose answers count in `share`. Without this they are not counted.
    #[must_use]
    pub fn counting(self, share: AnswerShare) -> Self {
        match self {
            Self::Sqlite(pool) => Self::Sqlite(pool.counting(share)),
            Self::Postgres(pool) => Self::Postgres(pool.counting(share)),
        }
    }

    /// Where its answers count.
    #[must_use]
    pub fn answers(&self) -> &AnswerShare {
        match self {
            Self::Sqlite(pool) => pool.answers(),
            Self::Postgres(pool) => pool.answers(),
        }
    }

    /// Refuses new sessions at once and closes each connection as it comes back; returns when none is open.
    pub async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }

    /// Closes the connections that nobody uses now. A file that was removed keeps its room on the disk until then.
    pub fn close_idle(&self) {
        match self {
            Self::Sqlite(pool) => pool.close_idle(),
            // A server closes what is connected to a database before it drops it.
            Self::Postgres(_) => {}
        }
    }

    /// How many connections are open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        match self {
            Self::Sqlite(pool) => pool.connections(),
            Self::Postgres(pool) => pool.connections(),
        }
    }
}

/// One transaction. Dropped while open, it rolls back by itself and nobody waits for that.
#[derive(Debug)]
pub enum Session {
    /// On one SQLite connection.
    Sqlite(sqlite::SqliteSession),
    /// On one connection to a server.
    Postgres(postgres::PostgresSession),
}

impl Session {
    /// Runs the statements in order in one hop; on the first error the transaction is rolled back and over.
    /// The same when the returned future is dropped before it is ready. A session is for one transaction.
    ///
    /// # Errors
    /// The statement's error; [`crate::ErrorKind::Fenced`], [`crate::ErrorKind::WrongTenant`] or
    /// [`crate::ErrorKind::Missing`] when the database is not the expected one; [`crate::ErrorKind::Busy`] or
    /// [`crate::ErrorKind::ConnectionsMax`] when waiting took the whole `statement_timeout`;
    /// [`crate::ErrorKind::DeadlineExceeded`] after a timeout; [`crate::ErrorKind::Closed`] when the transaction, the
    /// pool or the engine is over.
    pub async fn run(&mut self, statements: Vec<Statement>, after: After) -> Result<Vec<Rows>> {
        match self {
            Self::Sqlite(session) => session.run(statements, after).await,
            Self::Postgres(session) => session.run(statements, after).await,
        }
    }

    /// Commits what [`After::Keep`] left open. Fine when nothing was run, or everything is committed already.
    ///
    /// # Errors
    /// When the commit fails, and the transaction is then rolled back; when it was rolled back before, by an error
    /// ([`crate::ErrorKind::Closed`]) or at its deadline ([`crate::ErrorKind::DeadlineExceeded`]).
    pub async fn commit(&mut self) -> Result<()> {
        match self {
            Self::Sqlite(session) => session.commit().await,
            Self::Postgres(session) => session.commit().await,
        }
    }

    /// Rolls back what [`After::Keep`] left open.
    ///
    /// # Errors
    /// When the connection is lost; the database rolls back by itself then.
    pub async fn rollback(&mut self) -> Result<()> {
        match self {
            Self::Sqlite(session) => session.rollback().await,
            Self::Postgres(session) => session.rollback().await,
        }
    }
}
