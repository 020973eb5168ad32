//! A connection that a verb works with. Every wait on it ends: the server ends long statements and waits for locks by
//! itself, and when it says nothing for a while it is asked over another connection whether it still lives.
//!
//! Everything goes by the simple protocol: several statements in one round trip, nothing prepared, values as text.
//! Dropped, it is closed, and the server rolls back and notices within seconds, even in the middle of a statement.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Either, PgConnection};

use super::error::{from_connect, from_ours};
use super::server::PostgresServer;
use super::settings::with_session_settings;
use crate::error::{Error, ErrorKind, Result};

/// A connection that is not there by then will not come.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// After so long without an answer the server is asked whether it lives.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// A goodbye that is not heard by then is not worth waiting for.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// What the client waits longer than the server's own limit: for the answer that says so.
const GRACE: Duration = Duration::from_secs(30);

/// How long statements may wait and run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For a lock that somebody else holds.
    pub(super) lock: Duration,
    /// For one statement.
    pub(super) statement: Duration,
}

/// A connection of ours.
pub(super) struct Work {
    connection: PgConnection,
    server: Arc<PostgresServer>,
    patience: Patience,
}

/// A script that stopped.
#[derive(Debug)]
pub(super) struct Stopped {
    /// Statements that ran before.
    pub(super) done: usize,
    pub(super) why: Why,
}

/// Why it stopped.
#[derive(Debug)]
pub(super) enum Why {
    /// The server refused a statement, or the connection broke.
    Sql(sqlx::Error),
    /// The server does not answer.
    Silent(Error),
}

impl Work {
    /// As the maintenance role. Names of tenants' objects mean nothing to it unless they are qualified.
    pub(super) async fn maintenance(server: &Arc<PostgresServer>, patience: Patience, database: &str) -> Result<Self> {
        let options = with_session_settings(server.maintenance(database)).options([("search_path", "pg_catalog")]);
        Self::connect(server, patience, options).await.map_err(from_ours_connect)
    }

    /// As the login that migrates this database, from the start in the role that owns every tenant's objects.
    pub(super) async fn migration(
        server: &Arc<PostgresServer>,
        patience: Patience,
        database: &str,
    ) -> Result<Self, ConnectError> {
        // Said here, because what a role says of itself yields to it.
        let options = with_session_settings(server.migration(database)).options([("role", super::prepare::OWNER)]);
        Self::connect(server, patience, options).await
    }

    async fn connect(
        server: &Arc<PostgresServer>,
        patience: Patience,
        options: PgConnectOptions,
    ) -> Result<Self, ConnectError> {
        let options = bounded_options(options, patience);
        match tokio::time::timeout(CONNECT_MAX, options.connect()).await {
            Ok(Ok(connection)) => Ok(Self { connection, server: Arc::clone(server), patience }),
            Ok(Err(error)) => Err(ConnectError::Refused(error)),
            Err(_) => Err(ConnectError::Silent(silent(server))),
        }
    }

    /// Whether it still works.
    pub(super) async fn ping(&mut self) -> Result<()> {
        tokio::time::timeout(CLOSE_MAX, self.connection.ping())
            .await
            .map_err(|_| silent(&self.server))?
            .map_err(from_ours)
    }

    /// The server's version as it counts: 150018.
    pub(super) fn version(&self) -> u32 {
        self.connection.server_version_num().unwrap_or_default()
    }

    /// Runs our own statements.
    ///
    /// # Errors
    /// As for the maintenance role: a right that is missing is [`ErrorKind::ServerPrivilege`].
    pub(super) async fn run(&mut self, sql: impl Into<String>) -> Result<()> {
        self.answers(sql).await.map(drop)
    }

    /// Runs our own statements and returns the rows of each.
    ///
    /// # Errors
    /// As [`Work::run`].
    pub(super) async fn answers(&mut self, sql: impl Into<String>) -> Result<Vec<Vec<PgRow>>> {
        self.try_answers(sql.into()).await.map_err(Why::into_ours)
    }

    /// The same, for a caller who tells the errors apart.
    pub(super) async fn try_answers(&mut self, sql: String) -> Result<Vec<Vec<PgRow>>, Why> {
        self.try_answers_within(sql, self.patience.statement).await
    }

    /// The same for statements that take as long as a database is large. The session has no limit of its own then.
    pub(super) async fn try_answers_within(&mut self, sql: String, whole: Duration) -> Result<Vec<Vec<PgRow>>, Why> {
        let whole = whole + GRACE;
        let connection = &mut self.connection;
        let work = async {
            let (mut answers, mut rows) = (Vec::new(), Vec::new());
            let mut stream = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_many(connection);
            while let Some(step) = stream.try_next().await? {
                match step {
                    Either::Left(_) => answers.push(std::mem::take(&mut rows)),
                    Either::Right(row) => rows.push(row),
                }
            }
            Ok(answers)
        };
        while_alive(&self.server, whole, work).await.map_err(Why::Silent)?.map_err(Why::Sql)
    }

    /// Runs somebody's script; rows it returns are passed over. `whole` bounds all of it.
    pub(super) async fn script(&mut self, sql: &str, whole: Duration) -> Result<(), Stopped> {
        let connection = &mut self.connection;
        let mut done = 0;
        let work = async {
            let mut stream = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_many(connection);
            while let Some(step) = stream.try_next().await? {
                done += usize::from(step.is_left());
            }
            Ok(())
        };
        let outcome = match while_alive(&self.server, whole + GRACE, work).await {
            Ok(ran) => ran.map_err(Why::Sql),
            Err(error) => Err(Why::Silent(error)),
        };
        outcome.map_err(|why| Stopped { done, why })
    }

    /// For the identity's own reader.
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Says goodbye, so that the server does not log a lost client.
    pub(super) async fn close(self) {
        let _ = tokio::time::timeout(CLOSE_MAX, self.connection.close()).await;
    }
}

impl Why {
    /// For statements of the maintenance role.
    pub(super) fn into_ours(self) -> Error {
        match self {
            Self::Sql(error) => from_ours(error),
            Self::Silent(error) => error,
        }
    }

    /// The SQLSTATE, when the server gave one.
    pub(super) fn code(&self) -> String {
        match self {
            Self::Sql(error) => super::error::code(error).unwrap_or_default(),
            Self::Silent(_) => String::new(),
        }
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum ConnectError {
    Refused(sqlx::Error),
    Silent(Error),
}

/// The error of the maintenance role's attempt to connect.
pub(super) fn from_ours_connect(error: ConnectError) -> Error {
    match error {
        ConnectError::Refused(error) if super::error::code(&error).as_deref() == Some("42501") => from_ours(error),
        ConnectError::Refused(error) => from_connect(error),
        ConnectError::Silent(error) => error,
    }
}

/// Waits for work on a server as long as the server lives, and at most `whole`.
///
/// # Errors
/// [`ErrorKind::ConnectionLost`]: what it was doing may be done or not.
pub(super) async fn while_alive<T>(
    server: &Arc<PostgresServer>,
    whole: Duration,
    work: impl Future<Output = T>,
) -> Result<T> {
    let mut work = std::pin::pin!(work);
    let watch = async {
        loop {
            tokio::time::sleep(SILENCE_MAX).await;
            if let Err(error) = alive(server).await {
                return error;
            }
        }
    };
    tokio::select! {
        biased;
        done = &mut work => Ok(done),
        error = watch => Err(error),
        () = tokio::time::sleep(whole) => Err(lost("the server did not end a statement that ran too long")),
    }
}

/// A server that refuses us for any reason lives.
async fn alive(server: &Arc<PostgresServer>) -> Result<()> {
    let options = server.maintenance(&server.dsn().database()).disable_statement_logging();
    match tokio::time::timeout(CONNECT_MAX, options.connect()).await {
        Ok(Ok(connection)) => {
            let _ = tokio::time::timeout(CLOSE_MAX, connection.close()).await;
            Ok(())
        }
        Ok(Err(error)) => match from_connect(error) {
            error if error.kind() == ErrorKind::ServerUnreachable => Err(lost(error.message())),
            _ => Ok(()),
        },
        Err(_) => Err(lost(&format!("{} stopped answering", server.address()))),
    }
}

fn lost(why: &str) -> Error {
    Error::new(ErrorKind::ConnectionLost, format!("the connection was given up: {why}"))
}

fn silent(server: &PostgresServer) -> Error {
    let seconds = CONNECT_MAX.as_secs();
    let message = format!("{} does not answer (waited {seconds} s): is it stopped or cut off?", server.address());
    Error::new(ErrorKind::ServerUnreachable, message)
}

/// What every connection of ours asks the server for. Statements are never logged: some hold a verifier.
fn bounded_options(options: PgConnectOptions, patience: Patience) -> PgConnectOptions {
    let milliseconds = |duration: Duration| format!("{}ms", duration.as_millis());
    options.disable_statement_logging().statement_cache_capacity(0).options([
        ("lock_timeout", milliseconds(patience.lock).as_str()),
        ("statement_timeout", milliseconds(patience.statement).as_str()),
        // A client that died lets go of its locks soon, whatever it was doing.
        ("client_connection_check_interval", "2s"),
        ("idle_in_transaction_session_timeout", "60s"),
        ("idle_session_timeout", "60s"),
        ("tcp_keepalives_idle", "10"),
        ("tcp_keepalives_interval", "5"),
        ("tcp_keepalives_count", "3"),
        // Warnings are for people at a terminal.
        ("client_min_messages", "error"),
    ])
}
