//! The open connections of one tenant's database, and the sessions that use them. The router caches pools. A pool is an
//! enum with one variant per engine, so the request path has no dynamic dispatch.

use crate::answers::AnswerShare;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres;
use crate::row_reader::RowReader;
use crate::row_stream::RowStream;
use crate::sqlite;
use crate::statement::{AccessMode, AfterStatements, SessionLimits, SqlStatement};
use crate::value::Rows;

/// The connections of one database, opened for one expected identity. Clones are cheap and share the connections.
#[derive(Debug, Clone)]
pub enum Pool {
    /// Connections to one file.
    Sqlite(sqlite::SqlitePool),
    /// Connections to one database of a server, shared with the server's other databases.
    Postgres(postgres::PostgresPool),
}

impl Pool {
    /// A transaction that has not begun. BEGIN and the identity check are sent with its first statement.
    #[must_use]
    pub fn new_session(&self, access: AccessMode, limits: SessionLimits) -> DatabaseSession {
        match self {
            Self::Sqlite(pool) => DatabaseSession::Sqlite(pool.new_session(access, limits)),
            Self::Postgres(pool) => DatabaseSession::Postgres(pool.new_session(access, limits)),
        }
    }

    /// Runs one reading statement in its own transaction, and gives each of its rows to `reader`.
    ///
    /// # Errors
    /// As [`DatabaseSession::run_statements`].
    pub async fn read_rows<R: RowReader>(
        &self,
        statement: SqlStatement,
        limits: SessionLimits,
        mut reader: R,
    ) -> Result<R> {
        match self {
            Self::Sqlite(pool) => pool.read_rows(statement, limits, reader).await,
            Self::Postgres(pool) => {
                let mut session = pool.new_session(AccessMode::Read, limits);
                let mut answers = session.run_statements(vec![statement], AfterStatements::Commit).await?;
                let Rows { columns, rows, .. } = answers.pop().unwrap_or_default();
                rows.into_iter().for_each(|row| reader.read_row(&columns, &mut row.into_iter()));
                Ok(reader)
            }
        }
    }

    /// Runs one reading statement in its own transaction, and returns its rows while the database still reads them. The
    /// answer may have any length. It must be read within the `transaction_timeout`.
    ///
    /// # Errors
    /// As [`DatabaseSession::run_statements`]. A later error is one of the stream.
    pub async fn stream_rows(&self, statement: SqlStatement, limits: SessionLimits) -> Result<RowStream> {
        match self {
            Self::Sqlite(pool) => pool.stream_rows(statement, limits).await,
            Self::Postgres(pool) => pool.stream_rows(statement, limits).await,
        }
    }

    /// A transaction that an application uses through `sqlx` itself.
    ///
    /// # Errors
    /// [`ErrorKind::OtherEngine`] for SQLite; otherwise as [`DatabaseSession::run_statements`].
    #[cfg(feature = "postgres")]
    pub async fn lend_sqlx(&self, access: AccessMode, limits: SessionLimits) -> Result<postgres::PostgresLentTx> {
        match self {
            Self::Sqlite(_) => Err(Error::new(ErrorKind::OtherEngine, "the tenant's database is SQLite: use rusqlite")),
            Self::Postgres(pool) => pool.lend_transaction(access, limits).await,
        }
    }

    /// Runs code that uses `rusqlite` in a transaction, which is committed if `work` succeeds. `work` runs on a worker
    /// thread.
    ///
    /// # Errors
    /// [`ErrorKind::OtherEngine`] for PostgreSQL; those of `work`; otherwise as [`DatabaseSession::run_statements`].
    #[cfg(feature = "sqlite")]
    pub async fn with_rusqlite<T: Send + 'static>(
        &self,
        access: AccessMode,
        limits: SessionLimits,
        work: impl FnOnce(&sqlite::RusqliteTx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        match self {
            Self::Sqlite(pool) => pool.with_transaction(access, limits, |tx| tx.with_rusqlite(work)).await,
            Self::Postgres(_) => {
                Err(Error::new(ErrorKind::OtherEngine, "the tenant's database is PostgreSQL: use sqlx"))
            }
        }
    }

    /// This pool, with its answers counted in `share`. Without a share, answers are not counted.
    #[must_use]
    pub fn with_answer_share(self, share: AnswerShare) -> Self {
        match self {
            Self::Sqlite(pool) => Self::Sqlite(pool.with_answer_share(share)),
            Self::Postgres(pool) => Self::Postgres(pool.with_answer_share(share)),
        }
    }

    /// The share in which the pool's answers are counted.
    #[must_use]
    pub fn answer_share(&self) -> &AnswerShare {
        match self {
            Self::Sqlite(pool) => pool.answer_share(),
            Self::Postgres(pool) => pool.answer_share(),
        }
    }

    /// Refuses new sessions at once and closes each connection when it is returned. Finishes when no connection is
    /// open.
    pub async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }

    /// Closes the connections that are not in use. A removed file keeps its disk space until its connections are
    /// closed.
    pub fn close_idle(&self) {
        match self {
            Self::Sqlite(pool) => pool.close_idle(),
            // The server closes the connections to a database before it drops the database.
            Self::Postgres(_) => {}
        }
    }

    /// Number of connections that are open now.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        match self {
            Self::Sqlite(pool) => pool.connection_count(),
            Self::Postgres(pool) => pool.connection_count(),
        }
    }
}

/// One transaction. A session that is dropped while its transaction is open rolls back, and the caller does not wait
/// for that.
#[derive(Debug)]
pub enum DatabaseSession {
    /// On one SQLite connection.
    Sqlite(sqlite::SqliteSession),
    /// On one connection to a server.
    Postgres(postgres::PostgresSession),
}

impl DatabaseSession {
    /// Runs the statements in order, in one round trip. The first error rolls back and ends the transaction; dropping
    /// the returned future before it is ready does the same. A session is for one transaction.
    ///
    /// # Errors
    /// The statement's error; [`crate::ErrorKind::Fenced`], [`crate::ErrorKind::WrongTenant`] or
    /// [`crate::ErrorKind::Missing`] when the database is not the expected one; [`crate::ErrorKind::Busy`] or
    /// [`crate::ErrorKind::ConnectionsMax`] when waiting took the whole `statement_timeout`;
    /// [`crate::ErrorKind::DeadlineExceeded`] after a timeout; [`crate::ErrorKind::Closed`] when the transaction, the
    /// pool or the engine is closed.
    pub async fn run_statements(&mut self, statements: Vec<SqlStatement>, after: AfterStatements) -> Result<Vec<Rows>> {
        match self {
            Self::Sqlite(session) => session.run_statements(statements, after).await,
            Self::Postgres(session) => session.run_statements(statements, after).await,
        }
    }

    /// As [`DatabaseSession::run_statements`], for statements on the fleet's own tables (`own_tables.rs`), which no SQL of a
    /// tenant may name. Their texts are constants of the caller and never come from a request. A writing session makes
    /// missing tables first. A reading session without them has no rows.
    ///
    /// # Errors
    /// As [`DatabaseSession::run_statements`].
    pub async fn run_own_statements(
        &mut self,
        statements: Vec<SqlStatement>,
        after: AfterStatements,
    ) -> Result<Vec<Rows>> {
        match self {
            Self::Sqlite(session) => session.run_own_statements(statements, after).await,
            Self::Postgres(session) => session.run_own_statements(statements, after).await,
        }
    }

    /// Commits a transaction that [`AfterStatements::Keep`] left open. Succeeds when no statement ran, or when
    /// everything is already committed.
    ///
    /// # Errors
    /// When the commit fails; the transaction is then rolled back. Also when the transaction was already rolled back,
    /// by an error ([`crate::ErrorKind::Closed`]) or at its deadline ([`crate::ErrorKind::DeadlineExceeded`]).
    pub async fn commit(&mut self) -> Result<()> {
        match self {
            Self::Sqlite(session) => session.commit().await,
            Self::Postgres(session) => session.commit().await,
        }
    }

    /// Rolls back a transaction that [`AfterStatements::Keep`] left open.
    ///
    /// # Errors
    /// When the connection is lost; the database then rolls back by itself.
    pub async fn rollback(&mut self) -> Result<()> {
        match self {
            Self::Sqlite(session) => session.rollback().await,
            Self::Postgres(session) => session.rollback().await,
        }
    }
}
