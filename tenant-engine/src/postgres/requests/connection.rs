//! One open connection of a tenant's login: how it is opened, checked, set up and closed.
//!
//! `opener.rs` opens it; the identity of the database is checked before any request gets the connection. Between uses
//! the budget holds it as a plain value.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{ConnectOptions as _, Connection as _, Either, PgConnection, Row as _};
use tokio::sync::Notify;

use crate::error::{Error, ErrorKind, Result};
use crate::identity::{ExpectedIdentity, Identity, IdentityState};
use crate::postgres::error::{from_connect, from_sqlx, is_ended, never_stood, sqlstate_code};
use crate::postgres::identity;
use crate::postgres::servers::reassert;
use crate::postgres::servers::server::PostgresServer;
use crate::postgres::servers::settings::with_session_settings;
use crate::statement::{AccessMode, SessionLimits};

/// Prepared statements kept per connection: the working set of one application. Each costs the server's process some 10
/// KB.
const STATEMENTS_CACHED: usize = 64;

/// A connection is closed at this age, because the memory of the server's process only grows. The age is spread over
/// half an hour more, so that connections that were opened together do not end together.
const LIFETIME: Duration = Duration::from_secs(1_800);

/// Longest time of closing before the socket is simply dropped.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// How often the server checks, while it runs a statement, whether the client is still connected: abandoned statements
/// must not continue.
const CLIENT_CHECK: &str = "1s";
/// The first server version with that check.
const CLIENT_CHECK_SINCE: u32 = 140_000;

/// The server rolls a transaction back by itself when the client is silent for this much longer than the announced
/// timeout.
const IDLE_TRANSACTION_GRACE: Duration = Duration::from_secs(5);

/// The database that a pool connects to.
#[derive(Debug)]
pub(super) struct ConnectTarget {
    pub(super) server: Arc<PostgresServer>,
    pub(super) database: String,
    pub(super) expected: ExpectedIdentity,
    /// Timeouts of the last session, for the next connection: sessions of one pool rarely differ.
    pub(super) timeouts: LastTimeouts,
    /// Notified when the pool is closed and its last connection is gone.
    pub(super) gone: Notify,
}

/// The timeouts that the server is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionTimeouts {
    statement_ms: u32,
    idle_transaction_ms: u32,
}

impl SessionTimeouts {
    pub(super) fn from_limits(limits: &SessionLimits) -> Self {
        // Zero would mean no limit.
        let ms = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(i32::MAX as u32).clamp(1, i32::MAX as u32);
        Self {
            statement_ms: ms(limits.statement_timeout),
            idle_transaction_ms: ms(limits.transaction_timeout.saturating_add(IDLE_TRANSACTION_GRACE)),
        }
    }
}

#[derive(Debug)]
pub(super) struct LastTimeouts(AtomicU64);

impl LastTimeouts {
    pub(super) fn new(timeouts: SessionTimeouts) -> Self {
        let last = Self(AtomicU64::new(0));
        last.set(timeouts);
        last
    }

    pub(super) fn set(&self, timeouts: SessionTimeouts) {
        let both = u64::from(timeouts.statement_ms) << 32 | u64::from(timeouts.idle_transaction_ms);
        self.0.store(both, Ordering::Relaxed);
    }

    fn get(&self) -> SessionTimeouts {
        let both = self.0.load(Ordering::Relaxed);
        SessionTimeouts { statement_ms: (both >> 32) as u32, idle_transaction_ms: both as u32 }
    }
}

/// An open connection to the expected database.
#[derive(Debug)]
pub(super) struct PostgresTenantConnection {
    sqlx: PgConnection,
    timeouts: SessionTimeouts,
    /// The timeouts in the login itself, which a reset restores.
    timeouts_at_login: SessionTimeouts,
    born: Instant,
    lifetime: Duration,
}

impl PostgresTenantConnection {
    /// Logs in and checks the identity of the database. `version` is the server's version. If the session ends before
    /// the check, perhaps because of a fence, it connects again to find out why.
    ///
    /// # Errors
    /// Those of [`from_login`]; [`ErrorKind::Missing`], [`ErrorKind::Fenced`] and [`ErrorKind::WrongTenant`] when the
    /// database is not the expected one.
    pub(super) async fn open(target: &ConnectTarget, login: AccessMode, version: u32) -> Result<Self> {
        match Self::come_in(target, login, version).await {
            Err(error) if error.kind() == ErrorKind::ConnectionLost => {
                Self::come_in(target, login, version).await.map_err(never_stood)
            }
            // The login was dropped, or SQL that ran as the login set another password.
            Err(error) if is_password_refused(&error) => {
                match reassert::reassert_now(&target.server, &target.database).await {
                    Ok(()) => Self::come_in(target, login, version).await.map_err(never_stood),
                    Err(_) => Err(error),
                }
            }
            opened => opened,
        }
    }

    async fn come_in(target: &ConnectTarget, login: AccessMode, version: u32) -> Result<Self> {
        let timeouts = target.timeouts.get();
        let options = connect_options(target, login, timeouts, version);
        let mut sqlx = PgConnection::connect_with(&options).await.map_err(from_login)?;
        prove_identity(&mut sqlx, target, login).await?;
        let timeouts_at_login = timeouts;
        Ok(Self { sqlx, timeouts, timeouts_at_login, born: Instant::now(), lifetime: random_lifetime() })
    }

    /// Checks the identity of the database again, and that its writing login may write.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`], [`ErrorKind::Fenced`] and [`ErrorKind::WrongTenant`]; the errors of a broken connection.
    pub(super) async fn prove_writable(&mut self, target: &ConnectTarget) -> Result<()> {
        prove_identity(&mut self.sqlx, target, AccessMode::Write).await?;
        let row = sqlx::raw_sql(MAY_WRITE).fetch_one(&mut self.sqlx).await.map_err(from_sqlx)?;
        match row.try_get_unchecked::<String, _>(0).is_ok_and(|may| may == "true") {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Fenced, "the login of this database may not write at the moment")),
        }
    }

    pub(super) fn driver_connection(&mut self) -> &mut PgConnection {
        &mut self.sqlx
    }

    /// The connection as a shared reference.
    pub(super) fn driver_connection_ref(&self) -> &PgConnection {
        &self.sqlx
    }

    /// Rolls back, and gives the session the state of a new one. Prepared statements of the driver stay.
    ///
    /// # Errors
    /// The server's; the connection must then be closed.
    pub(super) async fn reset_session(&mut self) -> Result<(), sqlx::Error> {
        let prepared = sqlx::raw_sql(ROLL_BACK_AND_RESET).fetch_all(&mut self.sqlx).await?;
        self.finish_reset(&prepared).await
    }

    /// Commits, and gives the session the state of a new one, in one message.
    ///
    /// # Errors
    /// The server's, when nothing was committed, or when the answer to the commit did not arrive.
    pub(super) async fn commit_and_reset(&mut self) -> Result<SessionState, sqlx::Error> {
        let (mut completed, mut prepared) = (0, Vec::new());
        let mut parts = sqlx::raw_sql(COMMIT_AND_RESET).fetch_many(&mut self.sqlx);
        loop {
            match parts.try_next().await {
                Ok(None) => break,
                Ok(Some(Either::Left(_))) => completed += 1,
                Ok(Some(Either::Right(row))) if completed >= COMMIT_STATEMENTS => prepared.push(row),
                Ok(Some(Either::Right(_))) => {}
                Err(error) if completed < COMMIT_STATEMENTS => return Err(error),
                Err(_) => return Ok(SessionState::Unknown),
            }
        }
        drop(parts);
        let is_clean = self.finish_reset(&prepared).await.is_ok();
        Ok(if is_clean { SessionState::Clean } else { SessionState::Unknown })
    }

    /// The last part of a reset: removes the statements that SQL has prepared.
    async fn finish_reset(&mut self, prepared: &[PgRow]) -> Result<(), sqlx::Error> {
        self.timeouts = self.timeouts_at_login;
        let names = prepared.iter().filter_map(|row| row.try_get_unchecked::<Option<String>, _>("name").ok().flatten());
        let deallocate: String = names.map(|name| format!("deallocate \"{}\";", name.replace('"', "\"\""))).collect();
        if !deallocate.is_empty() {
            sqlx::raw_sql(sqlx::AssertSqlSafe(deallocate)).execute(&mut self.sqlx).await?;
        }
        Ok(())
    }

    /// The time when it was opened.
    pub(super) fn opened_at(&self) -> Instant {
        self.born
    }

    pub(super) fn is_old(&self, now: Instant) -> bool {
        self.born + self.lifetime <= now
    }

    /// Sends the timeouts to the server, unless they are already set.
    pub(super) async fn set_timeouts(&mut self, timeouts: SessionTimeouts) -> Result<(), sqlx::Error> {
        if self.timeouts == timeouts {
            return Ok(());
        }
        let SessionTimeouts { statement_ms, idle_transaction_ms } = timeouts;
        let sql = format!(
            "set statement_timeout = {statement_ms}; set idle_in_transaction_session_timeout = {idle_transaction_ms}"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut self.sqlx).await?;
        self.timeouts = timeouts;
        Ok(())
    }

    /// Ends the connection in order; returns when the socket is closed, within a second.
    pub(super) async fn close(self) {
        // In every case, dropping the connection closes the socket.
        let _ = tokio::time::timeout(CLOSE_MAX, self.sqlx.close()).await;
    }
}

// Ends everything that SQL of an application can leave in its session, once its transaction is over: another role,
// settings, cursors, notifications, advisory locks, temporary tables and the state of sequences. Returns the statements
// that were prepared by SQL. `DISCARD ALL` would also drop the driver's prepared statements, which the driver still
// counts on.
macro_rules! reset_sql {
    () => {
        "; reset session authorization; reset role; reset all; close all; unlisten *; discard temp; \
         discard sequences; select pg_catalog.pg_advisory_unlock_all(); \
         select name from pg_catalog.pg_prepared_statement() where from_sql"
    };
}
const ROLL_BACK_AND_RESET: &str = concat!("rollback", reset_sql!());

/// Commits, unless the marked transaction is over. Then the division by zero ends the message before the commit.
const COMMIT_AND_RESET: &str = concat!(
    "select 1 / (pg_catalog.current_setting('fleet.lent', true) is not distinct from 'yes')::int; commit",
    reset_sql!()
);
/// Number of the statements of [`COMMIT_AND_RESET`] up to the commit.
const COMMIT_STATEMENTS: u32 = 2;

/// What is known of a session after its reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionState {
    /// As new.
    Clean,
    /// The connection must be closed.
    Unknown,
}

/// A fence revokes this right of a login first.
const MAY_WRITE: &str = "select pg_has_role(current_user, 'fleet_write', 'usage')::text";

async fn prove_identity(sqlx: &mut PgConnection, target: &ConnectTarget, login: AccessMode) -> Result<()> {
    let found = identity::check_identity(sqlx, &target.expected).await?;
    check_access(&found, login)
}

/// The memory that one session of a tenant may take from its server. A statement takes `work_mem` for each sort, twice
/// that for each hash table, and again for each parallel worker. Larger sorts and hash tables use temporary files. The
/// settings are sent at each connect: the server or a role may have values for one large database instead of many small
/// ones. The size of the temporary files is limited by the server's own `temp_file_limit`: only a superuser may set it.
const REQUEST_MEMORY: [(&str, &str); 4] = [
    ("work_mem", "16MB"),
    ("hash_mem_multiplier", "2"),
    ("max_parallel_workers_per_gather", "2"),
    // Tenants make no temporary tables.
    ("temp_buffers", "1MB"),
];

fn connect_options(
    target: &ConnectTarget,
    login: AccessMode,
    timeouts: SessionTimeouts,
    version: u32,
) -> PgConnectOptions {
    let read_only = if login == AccessMode::Read { "on" } else { "off" };
    let check =
        (version >= CLIENT_CHECK_SINCE).then_some(("client_connection_check_interval", CLIENT_CHECK.to_owned()));
    let settings = [
        ("statement_timeout", timeouts.statement_ms.to_string()),
        ("idle_in_transaction_session_timeout", timeouts.idle_transaction_ms.to_string()),
        // Gives a better message; the actual protection is the login's privileges.
        ("default_transaction_read_only", read_only.to_owned()),
        // Otherwise `alter role all set role` would decide the role.
        ("role", "none".to_owned()),
    ];
    // `sandbox.rs` relies on one of these settings: it reads strings as the server does.
    let options = with_session_settings(target.server.login_options(&target.database, login));
    let options = options.options(REQUEST_MEMORY).options(settings.into_iter().chain(check));
    let options = options.statement_cache_capacity(STATEMENTS_CACHED);
    // Tenants' SQL is private and must not appear in the log.
    options.disable_statement_logging()
}

fn random_lifetime() -> Duration {
    let mut chance = [0_u8; 2];
    getrandom::fill(&mut chance).expect("the system has random numbers");
    LIFETIME + LIFETIME * u32::from(u16::from_le_bytes(chance)) / u32::from(u16::MAX)
}

/// Checks that the identity's state allows this access, as on every engine.
fn check_access(found: &Identity, login: AccessMode) -> Result<()> {
    match (login, found.state) {
        (_, IdentityState::Active) | (AccessMode::Read, IdentityState::Frozen) => Ok(()),
        (AccessMode::Read, state) => Err(Error::new(ErrorKind::Fenced, format!("the database is {state}: not served"))),
        (AccessMode::Write, state) => Err(Error::new(ErrorKind::Fenced, format!("the database is {state}: no writes"))),
    }
}

/// The error of a tenant's login. Its password is derived, so it is never merely wrong: a refused login was dropped or
/// fenced. The caller should look up the tenant's placement again.
fn from_login(error: sqlx::Error) -> Error {
    if is_ended(&error) {
        return from_sqlx(error);
    }
    let code = sqlstate_code(&error).unwrap_or_default();
    let error = from_connect(error);
    let login = matches!(code.as_str(), "28P01" | "28000") && error.kind() == ErrorKind::ServerAuthFailed;
    if login && !error.message().contains("pg_hba.conf") {
        let message = format!("the server refuses the login of this database: {}", error.message());
        return Error::new(ErrorKind::Missing, message).with_source(error);
    }
    if code == "42501" || code == "55000" {
        let message = format!("the database takes no connections of this login: {}", error.message());
        return Error::new(ErrorKind::Fenced, message).with_source(error);
    }
    error
}

fn is_password_refused(error: &Error) -> bool {
    let first: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    let mut sources = std::iter::successors(first, |error| error.source());
    sources.find_map(|source| sqlstate_code(source.downcast_ref::<sqlx::Error>()?)).as_deref() == Some("28P01")
}

/// Checks an idle connection, which may have been cut off without a notice.
pub(super) async fn ping_idle(conn: &mut PostgresTenantConnection) -> Result<()> {
    conn.sqlx.ping().await.map_err(from_sqlx)
}
