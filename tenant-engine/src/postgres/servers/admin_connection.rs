//! The connection that an engine operation works with. Every wait on it is bounded.
//!
//! The server itself limits long statements and waits for locks. When the server is silent for a while, this module
//! asks it over another connection whether it is alive. Everything uses the simple protocol: several statements in one
//! round trip, nothing prepared, values as text. Dropping the connection closes it. The server then rolls back and
//! notices within seconds, even in the middle of a statement.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Either, PgConnection};

use super::server::PostgresServer;
use super::settings::with_session_settings;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::error::{AdminConnectionError, from_connect, from_ours};

/// Longest wait for a new connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// After this time without an answer, the server is asked whether it is alive.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Longest wait for an orderly end of the connection.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// The client waits this much longer than the server's own limit, so that it receives the server's error.
const GRACE: Duration = Duration::from_secs(30);

/// How long statements may wait and run.
#[derive(Debug, Clone, Copy)]
pub(in crate::postgres) struct WaitLimits {
    /// Longest wait for a lock that another session holds.
    pub(in crate::postgres) lock: Duration,
    /// Longest time of one statement.
    pub(in crate::postgres) statement: Duration,
}

/// An open connection of this process for engine operations.
pub(in crate::postgres) struct AdminConnection {
    connection: PgConnection,
    server: Arc<PostgresServer>,
    patience: WaitLimits,
}

/// A script that stopped with an error.
#[derive(Debug)]
pub(in crate::postgres) struct StoppedScript {
    /// Number of statements that ran before the failing one.
    pub(in crate::postgres) done: usize,
    pub(in crate::postgres) why: AdminConnectionError,
}

impl AdminConnection {
    /// Connects as the maintenance role. Unqualified names never refer to tenants' objects in this session.
    pub(in crate::postgres) async fn as_maintenance(
        server: &Arc<PostgresServer>,
        patience: WaitLimits,
        database: &str,
    ) -> Result<Self> {
        let options =
            with_session_settings(server.maintenance_options(database)).options([("search_path", "pg_catalog")]);
        Self::connect_with(server, patience, options).await.map_err(from_ours_connect)
    }

    /// Connects as the login that migrates this database. The session starts in the role that owns every tenant's
    /// objects.
    pub(super) async fn as_migrator(
        server: &Arc<PostgresServer>,
        patience: WaitLimits,
        database: &str,
    ) -> Result<Self, ConnectError> {
        // Set at connect time, because these values override the settings of the role.
        let options =
            with_session_settings(server.migration_options(database)).options([("role", super::prepare::OWNER)]);
        Self::connect_with(server, patience, options).await
    }

    async fn connect_with(
        server: &Arc<PostgresServer>,
        patience: WaitLimits,
        options: PgConnectOptions,
    ) -> Result<Self, ConnectError> {
        let options = bounded_options(options, patience);
        match tokio::time::timeout(CONNECT_MAX, options.connect()).await {
            Ok(Ok(connection)) => Ok(Self { connection, server: Arc::clone(server), patience }),
            Ok(Err(error)) => Err(ConnectError::Refused(error)),
            Err(_) => Err(ConnectError::Silent(server_silent(server))),
        }
    }

    /// Fails when the connection no longer works.
    pub(super) async fn check_connection(&mut self) -> Result<()> {
        tokio::time::timeout(CLOSE_MAX, self.connection.ping())
            .await
            .map_err(|_| server_silent(&self.server))?
            .map_err(from_ours)
    }

    /// The server's version as a number, such as 150018.
    pub(in crate::postgres) fn server_version(&self) -> u32 {
        self.connection.server_version_num().unwrap_or_default()
    }

    /// Runs statements of this program.
    ///
    /// # Errors
    /// As for the maintenance role: a missing right is [`ErrorKind::ServerPrivilege`].
    pub(in crate::postgres) async fn run_sql(&mut self, sql: impl Into<String>) -> Result<()> {
        self.fetch_answers(sql).await.map(drop)
    }

    /// Runs statements of this program and returns the rows of each.
    ///
    /// # Errors
    /// As [`AdminConnection::run_sql`].
    pub(in crate::postgres) async fn fetch_answers(&mut self, sql: impl Into<String>) -> Result<Vec<Vec<PgRow>>> {
        self.try_answers(sql.into()).await.map_err(AdminConnectionError::into_ours)
    }

    /// As [`AdminConnection::fetch_answers`], for a caller that distinguishes the errors.
    pub(in crate::postgres) async fn try_answers(
        &mut self,
        sql: String,
    ) -> Result<Vec<Vec<PgRow>>, AdminConnectionError> {
        self.try_answers_within(sql, self.patience.statement).await
    }

    /// As [`AdminConnection::try_answers`], for statements whose time grows with the database. The session then has no
    /// limit of its own.
    pub(in crate::postgres) async fn try_answers_within(
        &mut self,
        sql: String,
        whole: Duration,
    ) -> Result<Vec<Vec<PgRow>>, AdminConnectionError> {
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
        while_alive(&self.server, whole, work)
            .await
            .map_err(AdminConnectionError::Silent)?
            .map_err(AdminConnectionError::Sql)
    }

    /// Runs a script from outside and ignores the rows it returns. `whole` bounds the time of the whole script.
    pub(in crate::postgres) async fn run_script(&mut self, sql: &str, whole: Duration) -> Result<(), StoppedScript> {
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
            Ok(ran) => ran.map_err(AdminConnectionError::Sql),
            Err(error) => Err(AdminConnectionError::Silent(error)),
        };
        outcome.map_err(|why| StoppedScript { done, why })
    }

    /// The driver's connection, for reading the identity.
    pub(in crate::postgres) fn driver_connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Ends the connection in order, so that the server does not log a lost client.
    pub(in crate::postgres) async fn close(self) {
        let _ = tokio::time::timeout(CLOSE_MAX, self.connection.close()).await;
    }
}

/// Why an attempt to connect failed.
#[derive(Debug)]
pub(super) enum ConnectError {
    Refused(sqlx::Error),
    Silent(Error),
}

/// The error of a failed attempt to connect as the maintenance role.
pub(super) fn from_ours_connect(error: ConnectError) -> Error {
    match error {
        ConnectError::Refused(error) if crate::postgres::error::sqlstate_code(&error).as_deref() == Some("42501") => {
            from_ours(error)
        }
        ConnectError::Refused(error) => from_connect(error),
        ConnectError::Silent(error) => error,
    }
}

/// Waits for work on a server while the server is alive, and at most `whole`.
///
/// # Errors
/// [`ErrorKind::ConnectionLost`]: the work may or may not have been done.
pub(in crate::postgres) async fn while_alive<T>(
    server: &Arc<PostgresServer>,
    whole: Duration,
    work: impl Future<Output = T>,
) -> Result<T> {
    let mut work = std::pin::pin!(work);
    let watch = async {
        loop {
            tokio::time::sleep(SILENCE_MAX).await;
            if let Err(error) = check_alive(server).await {
                return error;
            }
        }
    };
    tokio::select! {
        biased;
        done = &mut work => Ok(done),
        error = watch => Err(error),
        () = tokio::time::sleep(whole) => Err(connection_lost("the server did not end a statement that ran too long")),
    }
}

/// A server that refuses the connection for any reason is alive.
async fn check_alive(server: &Arc<PostgresServer>) -> Result<()> {
    let options = server.maintenance_options(&server.server_dsn().database_name()).disable_statement_logging();
    match tokio::time::timeout(CONNECT_MAX, options.connect()).await {
        Ok(Ok(connection)) => {
            let _ = tokio::time::timeout(CLOSE_MAX, connection.close()).await;
            Ok(())
        }
        Ok(Err(error)) => match from_connect(error) {
            error if error.kind() == ErrorKind::ServerUnreachable => Err(connection_lost(error.message())),
            _ => Ok(()),
        },
        Err(_) => Err(connection_lost(&format!("{} stopped answering", server.host_and_port()))),
    }
}

fn connection_lost(why: &str) -> Error {
    Error::new(ErrorKind::ConnectionLost, format!("the connection was closed: {why}"))
}

fn server_silent(server: &PostgresServer) -> Error {
    let seconds = CONNECT_MAX.as_secs();
    let message = format!("{} does not answer (waited {seconds} s): is it stopped or cut off?", server.host_and_port());
    Error::new(ErrorKind::ServerUnreachable, message)
}

/// The settings of every connection of this module. Statements are never logged, because some contain a password
/// verifier.
fn bounded_options(options: PgConnectOptions, patience: WaitLimits) -> PgConnectOptions {
    let milliseconds = |duration: Duration| format!("{}ms", duration.as_millis());
    options.disable_statement_logging().statement_cache_capacity(0).options([
        ("lock_timeout", milliseconds(patience.lock).as_str()),
        ("statement_timeout", milliseconds(patience.statement).as_str()),
        // The server soon notices a dead client and releases its locks, even in the middle of a statement.
        ("client_connection_check_interval", "2s"),
        ("idle_in_transaction_session_timeout", "60s"),
        ("idle_session_timeout", "60s"),
        ("tcp_keepalives_idle", "10"),
        ("tcp_keepalives_interval", "5"),
        ("tcp_keepalives_count", "3"),
        // Warnings are meant for people at a terminal.
        ("client_min_messages", "error"),
    ])
}
