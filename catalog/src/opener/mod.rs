//! The only place that knows which database a catalog lives in: how to connect, how a write transaction takes the one
//! write lock, how another process's commit is noticed, how a picture is taken. One arm per database.

mod dump;
mod postgres;
mod room;
mod sqlite;

pub(crate) use postgres::answered;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlx::postgres::PgListener;
use sqlx::{AnyConnection, Connection as _};
use tenant_engine::disk::{DiskReserve, require_room};

use crate::db::Location;
use crate::dsn::Dsn;
use crate::error::{Error, ErrorKind, Result};
use crate::fault;
use crate::file;
use crate::lane::Underneath;
use crate::row;
use room::Room;

/// What differs between databases; one arm each.
#[derive(Debug, Clone)]
pub(crate) enum Opener {
    Sqlite { path: PathBuf, url: String, room: Arc<Room> },
    Postgres { dsn: Dsn },
}

impl Opener {
    /// The opener of a location whose directory exists.
    pub(crate) fn new(location: &Location) -> Result<Self> {
        match location {
            Location::File(path) => {
                let path = file::resolve(path)?;
                let url = file::url(&path)?;
                let room = Arc::new(Room::of(&path));
                Ok(Self::Sqlite { path, url, room })
            }
            Location::Postgres(dsn) => Ok(Self::Postgres { dsn: dsn.clone() }),
        }
    }

    /// Makes the empty place where a catalog can be; leaves one that is there alone. A database is made by who owns its
    /// server.
    pub(crate) fn prepare(&self) -> Result<()> {
        match self {
            Self::Sqlite { path, .. } => file::create_if_missing(path),
            Self::Postgres { .. } => Ok(()),
        }
    }

    /// Fails with `NotInitialised` where there is no file. A database without tables is noticed when it is opened.
    pub(crate) fn exists(&self) -> Result<()> {
        match self {
            Self::Sqlite { path, .. } => file::must_exist(path),
            Self::Postgres { .. } => Ok(()),
        }
    }

    /// The directory of a file.
    pub(crate) fn directory(&self) -> Option<&Path> {
        match self {
            Self::Sqlite { path, .. } => path.parent(),
            Self::Postgres { .. } => None,
        }
    }

    /// How connections behave.
    pub(crate) fn underneath(&self) -> Underneath {
        match self {
            Self::Sqlite { .. } => Underneath::File,
            Self::Postgres { .. } => Underneath::Socket,
        }
    }

    /// Begins a transaction that holds the one write lock of the catalog.
    pub(crate) fn begin_write(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "begin immediate",
            Self::Postgres { .. } => postgres::BEGIN_WRITE,
        }
    }

    /// As [`Opener::begin_write`], for changes of the schema: they may take their time.
    pub(crate) fn begin_schema(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "begin immediate",
            Self::Postgres { .. } => postgres::BEGIN_SCHEMA,
        }
    }

    /// Begins a transaction in which every statement sees the same state.
    pub(crate) fn begin_read(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "begin deferred",
            Self::Postgres { .. } => "begin isolation level repeatable read, read only",
        }
    }

    /// Commits; where the database can, tells other processes that the change feed went on.
    pub(crate) fn commit(&self, feed: Feed) -> &'static str {
        match (self, feed) {
            (Self::Postgres { .. }, Feed::Appended) => postgres::COMMIT_AND_NOTIFY,
            _ => "commit",
        }
    }

    /// A new connection with its settings.
    pub(crate) async fn connect(&self) -> Result<AnyConnection> {
        sqlx::any::install_default_drivers();
        match self {
            Self::Sqlite { url, room, .. } => {
                // Even a reader makes files beside the catalog.
                room.reserve().make_room();
                sqlite::connect(url).await
            }
            Self::Postgres { dsn } => postgres::connect(dsn).await,
        }
    }

    /// The same for a server that is known to be away: it is asked once.
    pub(crate) async fn connect_once(&self) -> Result<AnyConnection> {
        match self {
            Self::Sqlite { .. } => self.connect().await,
            Self::Postgres { dsn } => postgres::connect_once(dsn).await,
        }
    }

    /// Before each write: keeps room for it, and the log short. A server sees to that itself.
    ///
    /// # Errors
    /// `Unavailable` when a reader keeps the log from being reset and it reached its limit.
    pub(crate) async fn prepare_write(&self, connection: &mut AnyConnection) -> Result<()> {
        match self {
            Self::Sqlite { room, .. } => room.prepare(connection).await,
            Self::Postgres { .. } => Ok(()),
        }
    }

    /// The reserve beside a file.
    pub(crate) fn reserve(&self) -> Option<&DiskReserve> {
        match self {
            Self::Sqlite { room, .. } => Some(room.reserve()),
            Self::Postgres { .. } => None,
        }
    }

    /// The error of a statement. On a full disk the reserve goes, so that the next attempt finds room.
    pub(crate) fn failed(&self, error: sqlx::Error) -> Error {
        if let Self::Sqlite { room, .. } = self
            && fault::is_full(&error)
        {
            room.reserve().give_up();
        }
        fault::of(error)
    }

    /// What a database needs once, before its first transaction.
    pub(crate) async fn settle(&self, connection: &mut AnyConnection) -> Result<()> {
        match self {
            Self::Sqlite { .. } => sqlite::write_ahead_log(connection).await,
            Self::Postgres { .. } => postgres::check_server(connection).await,
        }
    }

    /// After tables were made or changed: text must order by its bytes, as ids, pages and cursors expect. SQLite does.
    pub(crate) async fn order_bytewise(&self, connection: &mut AnyConnection) -> Result<()> {
        match self {
            Self::Sqlite { .. } => Ok(()),
            Self::Postgres { .. } => postgres::order_bytewise(connection).await,
        }
    }

    /// The database's own clock, milliseconds since 1970; `None` where there is none but ours.
    pub(crate) async fn clock(&self, connection: &mut AnyConnection) -> Result<Option<i64>> {
        match self {
            Self::Sqlite { .. } => Ok(None),
            Self::Postgres { .. } => postgres::clock(connection).await.map(Some),
        }
    }

    /// How many columns of text would order in another way.
    pub(crate) async fn columns_out_of_order(&self, connection: &mut AnyConnection) -> Result<i64> {
        match self {
            Self::Sqlite { .. } => Ok(0),
            Self::Postgres { .. } => postgres::columns_out_of_order(connection).await,
        }
    }

    /// The tables that are there, in the order in which they were made where the database knows it.
    pub(crate) async fn tables(&self, connection: &mut AnyConnection) -> Result<Vec<String>> {
        let sql = match self {
            Self::Sqlite { .. } => sqlite::TABLES,
            Self::Postgres { .. } => postgres::TABLES,
        };
        let rows = sqlx::query(sql).fetch_all(connection).await.map_err(fault::of)?;
        rows.iter().map(|row| row::text(row, "name")).collect()
    }

    /// The columns of a table with their types, by name.
    pub(crate) async fn columns(&self, connection: &mut AnyConnection, table: &str) -> Result<Vec<(String, String)>> {
        let sql = match self {
            Self::Sqlite { .. } => sqlite::COLUMNS,
            Self::Postgres { .. } => postgres::COLUMNS,
        };
        let rows = sqlx::query(sql).bind(table.to_owned()).fetch_all(connection).await.map_err(fault::of)?;
        rows.iter().map(|row| Ok((row::text(row, "name")?, row::text(row, "kind")?))).collect()
    }

    /// A number that changes whenever any other connection commits; comparable on one connection only. `None`: this
    /// database has none, look at the feed itself.
    pub(crate) async fn commits_seen(&self, connection: &mut AnyConnection) -> Result<Option<i64>> {
        match self {
            Self::Sqlite { .. } => sqlite::data_version(connection).await.map(Some),
            Self::Postgres { .. } => Ok(None),
        }
    }

    /// Hears at once of commits by other processes. `None`: this database does not tell.
    pub(crate) async fn listen(&self) -> Result<Option<PgListener>> {
        match self {
            Self::Sqlite { .. } => Ok(None),
            Self::Postgres { dsn } => postgres::listen(dsn).await.map(Some),
        }
    }

    /// Copies the catalog into a file that is there and empty.
    pub(crate) async fn snapshot(&self, target: &Path) -> Result<()> {
        let text = target.to_str().ok_or_else(|| Error::new(ErrorKind::Invalid, "the path is not UTF-8"))?;
        let mut connection = self.connect().await?;
        let done = match self {
            Self::Sqlite { path, .. } => match require_room(target, file::length(path)) {
                Ok(()) => sqlite::vacuum_into(&mut connection, text).await,
                Err(error) => Err(Error::new(ErrorKind::Unavailable, error.message().to_owned())),
            },
            Self::Postgres { dsn } => dump::run(dsn, &mut connection, target).await,
        };
        connection.close().await.map_err(fault::of)?;
        done
    }

    /// The error of a write lock that did not become free.
    pub(crate) async fn locked(&self, error: sqlx::Error) -> Error {
        let who = match self {
            Self::Sqlite { .. } => "find out which one".to_owned(),
            Self::Postgres { .. } => postgres::holder(self).await,
        };
        let message = format!(
            "another process has held the catalog's write lock for {} s ({who}), then try again",
            crate::db::LOCK_WAIT_MAX.as_secs()
        );
        Error::new(ErrorKind::Unavailable, message).with_source(error)
    }
}

/// Whether a transaction appended to the change feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feed {
    Unchanged,
    Appended,
}
