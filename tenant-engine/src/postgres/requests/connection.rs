//! One open connection of a tenant's login: how it is opened, checked, set up and closed.
//!
//! Opened by `opener.rs`, which asks whose database it is before anybody gets it; between uses a plain value in the
//! budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, Row as _};
use tokio::sync::Notify;

use super::error::{code, from_connect, from_sqlx, is_ended, never_stood};
use super::identity;
use super::reassert;
use super::server::PostgresServer;
use super::settings::with_session_settings;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{Expected, Identity, IdentityState};
use crate::pool::{Access, Limits};

/// Prepared statements kept per connection: the working set of one application. Each costs the server's process some
/// 10 KB.
const STATEMENTS_CACHED: usize = 64;

/// A connection is closed when it is this old: the server's process only grows. Spread over half an hour more, so that
/// those opened together do not end together.
const LIFETIME: Duration = Duration::from_secs(1_800);

/// How long closing may take before the socket is simply dropped.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// How often the server looks, while it runs a statement, whether we are still there: what was given up does not go on.
const CLIENT_CHECK: &str = "1s";
/// The first version that can look.
const CLIENT_CHECK_SINCE: u32 = 140_000;

/// The server rolls a transaction back by itself when we are silent for this much longer than we promised to be.
const IDLE_TRANSACTION_GRACE: Duration = Duration::from_secs(5);

/// What a pool connects to.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) server: Arc<PostgresServer>,
    pub(super) database: String,
    pub(super) expected: Expected,
    /// Of the last session, for the next connection: sessions of one pool rarely differ.
    pub(super) timeouts: LastTimeouts,
    /// Notified when the pool is closed and its last connection gone.
    pub(super) gone: Notify,
}

/// What the server is told about how long it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timeouts {
    statement_ms: u32,
    idle_transaction_ms: u32,
}

impl Timeouts {
    pub(super) fn of(limits: &Limits) -> Self {
        // Zero would mean "for ever".
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
    pub(super) fn new(timeouts: Timeouts) -> Self {
        let last = Self(AtomicU64::new(0));
        last.set(timeouts);
        last
    }

    pub(super) fn set(&self, timeouts: Timeouts) {
        let both = u64::from(timeouts.statement_ms) << 32 | u64::from(timeouts.idle_transaction_ms);
        self.0.store(both, Ordering::Relaxed);
    }

    fn get(&self) -> Timeouts {
        let both = self.0.load(Ordering::Relaxed);
        Timeouts { statement_ms: (both >> 32) as u32, idle_transaction_ms: both as u32 }
    }
}

/// An open connection to the expected database.
#[derive(Debug)]
pub(super) struct Conn {
    sqlx: PgConnection,
    timeouts: Timeouts,
    born: Instant,
    lifetime: Duration,
}

impl Conn {
    /// Logs in and proves whose database it is. `version` is the server's. Ended before it could prove that, by a fence
    /// perhaps, it comes again and finds out why.
    ///
    /// # Errors
    /// Those of [`from_login`]; [`ErrorKind::Missing`], [`ErrorKind::Fenced`] and [`ErrorKind::WrongTenant`] when the
    /// database is not the expected one.
    pub(super) async fn open(target: &Target, login: Access, version: u32) -> Result<Self> {
        match Self::come_in(target, login, version).await {
            Err(error) if error.kind() == ErrorKind::ConnectionLost => {
                Self::come_in(target, login, version).await.map_err(never_stood)
            }
            // A login of that name is gone, or has another password because SQL that ran as it set one.
            Err(error) if is_password_refused(&error) => match reassert::now(&target.server, &target.database).await {
                Ok(()) => Self::come_in(target, login, version).await.map_err(never_stood),
                Err(_) => Err(error),
            },
            opened => opened,
        }
    }

    async fn come_in(target: &Target, login: Access, version: u32) -> Result<Self> {
        let timeouts = target.timeouts.get();
        let options = options(target, login, timeouts, version);
        let mut sqlx = PgConnection::connect_with(&options).await.map_err(from_login)?;
        prove(&mut sqlx, target, login).await?;
        Ok(Self { sqlx, timeouts, born: Instant::now(), lifetime: lifetime() })
    }

    /// Proves once more whose database it is, and that its writing login may write.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`], [`ErrorKind::Fenced`] and [`ErrorKind::WrongTenant`]; those of a broken connection.
    pub(super) async fn prove_writable(&mut self, target: &Target) -> Result<()> {
        prove(&mut self.sqlx, target, Access::Write).await?;
        let row = sqlx::raw_sql(MAY_WRITE).fetch_one(&mut self.sqlx).await.map_err(from_sqlx)?;
        match row.try_get_unchecked::<String, _>(0).is_ok_and(|may| may == "true") {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Fenced, "the login of this database may not write at the moment")),
        }
    }

    pub(super) fn sqlx(&mut self) -> &mut PgConnection {
        &mut self.sqlx
    }

    /// When it was opened.
    pub(super) fn born(&self) -> Instant {
        self.born
    }

    pub(super) fn is_old(&self, now: Instant) -> bool {
        self.born + self.lifetime <= now
    }

    /// Tells the server how long it may take, unless it knows already.
    pub(super) async fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<(), sqlx::Error> {
        if self.timeouts == timeouts {
            return Ok(());
        }
        let Timeouts { statement_ms, idle_transaction_ms } = timeouts;
        let sql = format!(
            "set statement_timeout = {statement_ms}; set idle_in_transaction_session_timeout = {idle_transaction_ms}"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut self.sqlx).await?;
        self.timeouts = timeouts;
        Ok(())
    }

    /// Says goodbye; returns when the socket is closed, within a second.
    pub(super) async fn close(self) {
        // Whatever happens, dropping it closes the socket.
        let _ = tokio::time::timeout(CLOSE_MAX, self.sqlx.close()).await;
    }
}

/// A fence takes this from a login first.
const MAY_WRITE: &str = "select pg_has_role(current_user, 'fleet_write', 'usage')::text";

async fn prove(sqlx: &mut PgConnection, target: &Target, login: Access) -> Result<()> {
    let found = identity::check(sqlx, &target.expected).await?;
    check_access(&found, login)
}

/// The memory that one session of a tenant may take from its server. A statement takes `work_mem` for each sort, twice
/// that for each hash table, and again for each parallel worker; what needs more goes to temporary files. Given at each
/// connect, because the server or a role may be set to values that suit one large database instead of many small ones.
/// The size of the temporary files is the server's own `temp_file_limit`: only a superuser may set it.
const REQUEST_MEMORY: [(&str, &str); 4] = [
    ("work_mem", "16MB"),
    ("hash_mem_multiplier", "2"),
    ("max_parallel_workers_per_gather", "2"),
    // Tenants make no temporary tables.
    ("temp_buffers", "1MB"),
];

fn options(target: &Target, login: Access, timeouts: Timeouts, version: u32) -> PgConnectOptions {
    let read_only = if login == Access::Read { "on" } else { "off" };
    let check =
        (version >= CLIENT_CHECK_SINCE).then_some(("client_connection_check_interval", CLIENT_CHECK.to_owned()));
    let settings = [
        ("statement_timeout", timeouts.statement_ms.to_string()),
        ("idle_in_transaction_session_timeout", timeouts.idle_transaction_ms.to_string()),
        // Not the wall (the login's privileges are), but a better message.
        ("default_transaction_read_only", read_only.to_owned()),
        // `alter role all set role` would otherwise decide it.
        ("role", "none".to_owned()),
    ];
    // Among them is what `sandbox.rs` relies on: it reads strings as the server does.
    let options = with_session_settings(target.server.login(&target.database, login));
    let options = options.options(REQUEST_MEMORY).options(settings.into_iter().chain(check));
    let options = options.statement_cache_capacity(STATEMENTS_CACHED);
    // Tenants' SQL is nobody's business.
    options.disable_statement_logging()
}

fn lifetime() -> Duration {
    let mut chance = [0_u8; 2];
    aws_lc_rs::rand::fill(&mut chance).expect("the system has random numbers");
    LIFETIME + LIFETIME * u32::from(u16::from_le_bytes(chance)) / u32::from(u16::MAX)
}

/// What the identity's state allows, as on every engine.
fn check_access(found: &Identity, login: Access) -> Result<()> {
    match (login, found.state) {
        (_, IdentityState::Active) | (Access::Read, IdentityState::Frozen) => Ok(()),
        (Access::Read, state) => Err(Error::new(ErrorKind::Fenced, format!("the database is {state}: not served"))),
        (Access::Write, state) => Err(Error::new(ErrorKind::Fenced, format!("the database is {state}: no writes"))),
    }
}

/// The error of a tenant's login. Its password is derived, so it is never merely wrong: what the server refuses was
/// dropped or fenced, and the caller should look again where the tenant lives.
fn from_login(error: sqlx::Error) -> Error {
    if is_ended(&error) {
        return from_sqlx(error);
    }
    let code = code(&error).unwrap_or_default();
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
    sources.find_map(|source| code(source.downcast_ref::<sqlx::Error>()?)).as_deref() == Some("28P01")
}

/// An idle connection that may have been cut off without our noticing is asked whether it still is one.
pub(super) async fn ping(conn: &mut Conn) -> Result<()> {
    conn.sqlx.ping().await.map_err(from_sqlx)
}
