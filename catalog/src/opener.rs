//! The only place that knows which database a catalog lives in: how to connect, how a write transaction takes the one
//! write lock, and how to notice that another process wrote.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyRow};
use sqlx::{AnyConnection, ConnectOptions as _, Row as _};

use crate::db::Location;
use crate::error::{Error, ErrorKind, Result};
use crate::fault;
use crate::file;
use crate::row;

/// Per connection. FULL: an acknowledged write survives power loss. 2 s: the lock of another process is waited for in
/// slices, so that a caller who gave up does not hold the connection's thread for long. 64 MiB: what is left of the log
/// after the rare huge transaction.
const SQLITE_SETTINGS: &str = "pragma busy_timeout=2000; pragma synchronous=full; pragma foreign_keys=on; \
    pragma cache_size=-16000; pragma temp_store=memory; pragma journal_size_limit=67108864; pragma trusted_schema=off";

/// How often switching a new file to WAL is tried: it answers "busy" at once while another process does the same.
const WAL_ATTEMPTS: u32 = 200;

/// What differs between databases; one arm each.
#[derive(Debug, Clone)]
pub(crate) enum Opener {
    Sqlite { path: PathBuf, url: String },
}

impl Opener {
    /// The opener of a location whose directory exists.
    pub(crate) fn new(location: &Location) -> Result<Self> {
        match location {
            Location::File(path) => {
                let path = file::resolve(path)?;
                let url = file::url(&path)?;
                Ok(Self::Sqlite { path, url })
            }
        }
    }

    /// Makes the empty place where a catalog can be; leaves one that is there alone.
    pub(crate) fn prepare(&self) -> Result<()> {
        match self {
            Self::Sqlite { path, .. } => file::create_if_missing(path),
        }
    }

    /// Fails with `NotInitialised` where there is nothing.
    pub(crate) fn exists(&self) -> Result<()> {
        match self {
            Self::Sqlite { path, .. } => file::must_exist(path),
        }
    }

    /// Begins a transaction that holds the one write lock of the catalog. (Postgres: `begin`, then
    /// `select pg_advisory_xact_lock(…)`.)
    pub(crate) fn begin_write(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "begin immediate",
        }
    }

    /// Begins a transaction in which every statement sees the same state. (Postgres: repeatable read, read only.)
    pub(crate) fn begin_read(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "begin deferred",
        }
    }

    /// A new connection with its settings.
    pub(crate) async fn connect(&self) -> Result<AnyConnection> {
        sqlx::any::install_default_drivers();
        match self {
            Self::Sqlite { url, .. } => {
                let options: AnyConnectOptions = url.parse().map_err(fault::of)?;
                let mut connection = options.disable_statement_logging().connect().await.map_err(fault::of)?;
                sqlx::raw_sql(SQLITE_SETTINGS).execute(&mut connection).await.map_err(fault::of)?;
                Ok(connection)
            }
        }
    }

    /// What a database needs once, before its first transaction.
    pub(crate) async fn settle(&self, connection: &mut AnyConnection) -> Result<()> {
        match self {
            Self::Sqlite { .. } => write_ahead_log(connection).await,
        }
    }

    /// The tables that are there.
    pub(crate) async fn tables(&self, connection: &mut AnyConnection) -> Result<Vec<String>> {
        let sql = match self {
            Self::Sqlite { .. } => "select name from sqlite_schema where type = 'table'",
        };
        let rows = sqlx::query(sql).fetch_all(connection).await.map_err(fault::of)?;
        rows.iter().map(|row| row::text(row, "name")).collect()
    }

    /// A number that changes whenever any other connection commits; comparable on one connection only.
    pub(crate) async fn commits_seen(&self, connection: &mut AnyConnection) -> Result<i64> {
        match self {
            Self::Sqlite { .. } => {
                let row: AnyRow = sqlx::query("pragma data_version").fetch_one(connection).await.map_err(fault::of)?;
                row.try_get(0).map_err(fault::of)
            }
        }
    }

    /// Copies the catalog into a new file of its own.
    pub(crate) async fn snapshot(&self, target: &Path) -> Result<()> {
        match self {
            Self::Sqlite { .. } => {
                let text = target.to_str().ok_or_else(|| Error::new(ErrorKind::Invalid, "the path is not UTF-8"))?;
                let mut connection = self.connect().await?;
                let done = sqlx::query("vacuum into $1").bind(text).execute(&mut connection).await;
                sqlx::Connection::close(connection).await.map_err(fault::of)?;
                done.map(|_| ()).map_err(fault::of)
            }
        }
    }
}

/// Readers never wait for the writer. Stays with the file once set.
async fn write_ahead_log(connection: &mut AnyConnection) -> Result<()> {
    for _ in 1..WAL_ATTEMPTS {
        match sqlx::query("pragma journal_mode=wal").fetch_one(&mut *connection).await {
            Err(error) if fault::is_busy(&error) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => return Err(fault::of(error)),
            Ok(row) => {
                let mode: String = row.try_get(0).map_err(fault::of)?;
                if mode == "wal" {
                    return Ok(());
                }
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("the catalog's directory does not allow a write-ahead log (journal mode is {mode})"),
                ));
            }
        }
    }
    Err(Error::new(ErrorKind::Unavailable, "the catalog is locked by another process; try again"))
}
