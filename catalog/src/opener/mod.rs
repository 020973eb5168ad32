//! The only module that knows which database holds a catalog. It connects, takes the write lock, notices commits of
//! other processes and makes snapshots. One match arm per database.

mod dump;
mod file_space;
mod notifier;
mod postgres;
mod sqlite;

pub(crate) use notifier::CatalogNotifier;
pub(crate) use postgres::answer_within;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlx::{AnyConnection, Connection as _};
use tenant_engine::disk::{DiskReserve, require_room};

use crate::connection_slots::ConnectionTransport;
use crate::db::CatalogLocation;
use crate::dsn::CatalogDsn;
use crate::error::{Error, ErrorKind, Result};
use crate::error_mapping;
use crate::file;
use crate::row;
use file_space::CatalogFileSpace;

/// The differences between databases; one match arm each.
#[derive(Debug, Clone)]
pub(crate) enum CatalogOpener {
    Sqlite { path: PathBuf, url: String, room: Arc<CatalogFileSpace> },
    Postgres { dsn: CatalogDsn },
}

impl CatalogOpener {
    /// The opener of a location whose directory exists.
    pub(crate) fn new(location: &CatalogLocation) -> Result<Self> {
        match location {
            CatalogLocation::File(path) => {
                let path = file::resolve_path(path)?;
                let url = file::sqlite_url(&path)?;
                let room = Arc::new(CatalogFileSpace::for_catalog(&path));
                Ok(Self::Sqlite { path, url, room })
            }
            CatalogLocation::Postgres(dsn) if cfg!(feature = "postgres") => Ok(Self::Postgres { dsn: dsn.clone() }),
            CatalogLocation::Postgres(_) => {
                let message = "this program was built without the feature `postgres`, and the catalog is on PostgreSQL";
                Err(Error::new(ErrorKind::Refused, message))
            }
        }
    }

    /// Creates the empty file for a new catalog; leaves an existing one unchanged. A Postgres database is created by
    /// the owner of its server.
    pub(crate) fn prepare_location(&self) -> Result<()> {
        match self {
            Self::Sqlite { path, .. } => file::create_if_missing(path),
            Self::Postgres { .. } => Ok(()),
        }
    }

    /// Fails with `NotInitialised` if there is no file. A database without tables is noticed when it is opened.
    pub(crate) fn require_location(&self) -> Result<()> {
        match self {
            Self::Sqlite { path, .. } => file::must_exist(path),
            Self::Postgres { .. } => Ok(()),
        }
    }

    /// The directory of the catalog's file; `None` on Postgres.
    pub(crate) fn catalog_directory(&self) -> Option<&Path> {
        match self {
            Self::Sqlite { path, .. } => path.parent(),
            Self::Postgres { .. } => None,
        }
    }

    /// The behaviour of this database's connections.
    pub(crate) fn connection_transport(&self) -> ConnectionTransport {
        match self {
            Self::Sqlite { .. } => ConnectionTransport::File,
            Self::Postgres { .. } => ConnectionTransport::Socket,
        }
    }

    /// The statement that begins a transaction with the catalog's only write lock.
    pub(crate) fn begin_write(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "begin immediate",
            Self::Postgres { .. } => postgres::BEGIN_WRITE,
        }
    }

    /// As [`CatalogOpener::begin_write`], without a time limit for statements, for schema changes.
    pub(crate) fn begin_schema(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "begin immediate",
            Self::Postgres { .. } => postgres::BEGIN_SCHEMA,
        }
    }

    /// The statement that begins a transaction in which every statement sees the same state.
    pub(crate) fn begin_read(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "begin deferred",
            Self::Postgres { .. } => "begin isolation level repeatable read, read only",
        }
    }

    /// The statement that commits. Where the database supports it, notifies other processes of changes in the feed
    /// and of messages.
    pub(crate) fn commit_statement(&self, feed: FeedUpdate) -> &'static str {
        match (self, feed) {
            (Self::Postgres { .. }, FeedUpdate::Appended) => postgres::COMMIT_AND_NOTIFY,
            _ => "commit",
        }
    }

    /// A new connection with its settings.
    pub(crate) async fn connect(&self) -> Result<AnyConnection> {
        sqlx::any::install_default_drivers();
        match self {
            Self::Sqlite { url, room, .. } => {
                // Even a reader creates files beside the catalog.
                room.disk_reserve().make_room();
                sqlite::connect(url).await
            }
            Self::Postgres { dsn } => postgres::connect(dsn).await,
        }
    }

    /// As [`CatalogOpener::connect`], with only one attempt, for a server that is known to be unreachable.
    pub(crate) async fn connect_once(&self) -> Result<AnyConnection> {
        match self {
            Self::Sqlite { .. } => self.connect().await,
            Self::Postgres { dsn } => postgres::connect_once(dsn).await,
        }
    }

    /// Called before each write: keeps disk space for it, and the log short. A server does this itself.
    ///
    /// # Errors
    /// `Unavailable` when the log reached its limit and a reader prevents its reset.
    pub(crate) async fn prepare_write(&self, connection: &mut AnyConnection) -> Result<()> {
        match self {
            Self::Sqlite { room, .. } => room.prepare_write(connection).await,
            Self::Postgres { .. } => Ok(()),
        }
    }

    /// The reserve beside a file; `None` on Postgres.
    pub(crate) fn disk_reserve(&self) -> Option<&DiskReserve> {
        match self {
            Self::Sqlite { room, .. } => Some(room.disk_reserve()),
            Self::Postgres { .. } => None,
        }
    }

    /// The error of a statement. On a full disk it releases the reserve, so that the next attempt finds space.
    pub(crate) fn statement_error(&self, error: sqlx::Error) -> Error {
        if let Self::Sqlite { room, .. } = self
            && error_mapping::is_full(&error)
        {
            room.disk_reserve().give_up();
        }
        error_mapping::catalog_error(error)
    }

    /// Prepares a database once, before its first transaction.
    pub(crate) async fn prepare_connection(&self, connection: &mut AnyConnection) -> Result<()> {
        match self {
            Self::Sqlite { .. } => sqlite::write_ahead_log(connection).await,
            Self::Postgres { .. } => postgres::check_server(connection).await,
        }
    }

    /// Called after changes of tables: text columns must be ordered by bytes, as ids, pages and cursors expect. SQLite
    /// does this by default.
    pub(crate) async fn order_bytewise(&self, connection: &mut AnyConnection) -> Result<()> {
        match self {
            Self::Sqlite { .. } => Ok(()),
            Self::Postgres { .. } => postgres::order_bytewise(connection).await,
        }
    }

    /// The database's own clock, milliseconds since 1970; `None` when it uses this machine's.
    pub(crate) async fn server_clock(&self, connection: &mut AnyConnection) -> Result<Option<i64>> {
        match self {
            Self::Sqlite { .. } => Ok(None),
            Self::Postgres { .. } => postgres::server_clock(connection).await.map(Some),
        }
    }

    /// Number of text columns that are not ordered by bytes.
    pub(crate) async fn columns_out_of_order(&self, connection: &mut AnyConnection) -> Result<i64> {
        match self {
            Self::Sqlite { .. } => Ok(0),
            Self::Postgres { .. } => postgres::columns_out_of_order(connection).await,
        }
    }

    /// The existing tables, in the order of their creation if the database knows it.
    pub(crate) async fn table_names(&self, connection: &mut AnyConnection) -> Result<Vec<String>> {
        let sql = match self {
            Self::Sqlite { .. } => sqlite::TABLES,
            Self::Postgres { .. } => postgres::TABLES,
        };
        let rows = sqlx::query(sql).fetch_all(connection).await.map_err(error_mapping::catalog_error)?;
        rows.iter().map(|row| row::text_column(row, "name")).collect()
    }

    /// The columns of a table with their types, by name.
    pub(crate) async fn table_columns(
        &self,
        connection: &mut AnyConnection,
        table: &str,
    ) -> Result<Vec<(String, String)>> {
        let sql = match self {
            Self::Sqlite { .. } => sqlite::COLUMNS,
            Self::Postgres { .. } => postgres::COLUMNS,
        };
        let rows = sqlx::query(sql)
            .bind(table.to_owned())
            .fetch_all(connection)
            .await
            .map_err(error_mapping::catalog_error)?;
        rows.iter().map(|row| Ok((row::text_column(row, "name")?, row::text_column(row, "kind")?))).collect()
    }

    /// A number that changes with every commit of another connection, comparable only on one connection. `None` when
    /// the database has no such number and the feed must be read.
    pub(crate) async fn commits_seen(&self, connection: &mut AnyConnection) -> Result<Option<i64>> {
        match self {
            Self::Sqlite { .. } => sqlite::data_version(connection).await.map(Some),
            Self::Postgres { .. } => Ok(None),
        }
    }

    /// A listener for commits of other processes; `None` when the database has no notifications.
    pub(crate) async fn listen_for_changes(&self) -> Result<Option<CatalogNotifier>> {
        match self {
            Self::Sqlite { .. } => Ok(None),
            Self::Postgres { dsn } => CatalogNotifier::connect(dsn).await.map(Some),
        }
    }

    /// Copies the catalog to an existing empty file.
    pub(crate) async fn write_snapshot(&self, target: &Path) -> Result<()> {
        let text = target.to_str().ok_or_else(|| Error::new(ErrorKind::Invalid, "the path is not UTF-8"))?;
        let mut connection = self.connect().await?;
        let done = match self {
            Self::Sqlite { path, .. } => match require_room(target, file::file_length(path)) {
                Ok(()) => sqlite::vacuum_into(&mut connection, text).await,
                Err(error) => Err(Error::new(ErrorKind::DiskFull, error.message().to_owned())),
            },
            Self::Postgres { dsn } => dump::run_pg_dump(dsn, &mut connection, target).await,
        };
        connection.close().await.map_err(error_mapping::catalog_error)?;
        done
    }

    /// The error for a write lock that did not become free.
    pub(crate) async fn lock_wait_error(&self, error: sqlx::Error) -> Error {
        let who = match self {
            Self::Sqlite { .. } => "find that process".to_owned(),
            Self::Postgres { .. } => postgres::lock_holder(self).await,
        };
        let message = format!(
            "another process has held the catalog's write lock for {} s ({who}), then try again",
            crate::db::LOCK_WAIT_MAX.as_secs()
        );
        Error::new(ErrorKind::Unavailable, message).with_source(error)
    }
}

/// Whether a transaction appended to the change feed or to the messages of topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FeedUpdate {
    Unchanged,
    Appended,
}
