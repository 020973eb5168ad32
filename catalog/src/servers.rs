//! The records of servers.
//!
//! A directory inside the directory of the catalog's file is stored relative to it, so that the data directory can be
//! moved. Every record has the absolute path.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::any::AnyRow;
use tenant_engine::claim::{self, FleetClaims};
use tenant_engine::placement::EngineKind;
use tenant_engine::postgres::PostgresServer;
use tenant_engine::server::DatabaseServer;

use crate::changes;
use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::fleet;
use crate::ids::ServerId;
use crate::other_catalog::{self, OtherCatalog};
use crate::row;
use crate::server::{ServerRecord, ServerState};
use crate::text_enum::TextEnum as _;

/// Names are used in tables and metrics labels.
const NAME_MAX: usize = 63;

/// The properties of a new server.
#[derive(Debug, Clone, Copy)]
pub struct NewServer<'a> {
    /// The server's name for operators: 1 to 63 of `[a-z0-9-]`.
    pub name: &'a str,
    /// The engine that serves its databases.
    pub engine: EngineKind,
    /// Absolute root directory (SQLite), or host:port without credentials (Postgres).
    pub base: &'a str,
    /// Maximum number of tenants; `None`: no limit.
    pub tenants_max: Option<i64>,
    /// The connection string of the maintenance role. It is sealed before it is stored; [`server_secret`] reads it.
    pub secret: Option<&'a SecretString>,
    /// Postgres: the cluster's system identifier.
    pub system_id: Option<&'a str>,
}

impl<'a> NewServer<'a> {
    /// A root directory for SQLite files, without a limit of tenants.
    #[must_use]
    pub fn in_directory(name: &'a str, base: &'a str) -> Self {
        Self { name, engine: EngineKind::Sqlite, base, tenants_max: None, secret: None, system_id: None }
    }
}

/// Adds a server.
///
/// # Errors
/// `AlreadyExists` when the name is taken, or when the same cluster (by `system_id`) is in use under another name;
/// `Invalid` when the name is not 1 to 63 of `[a-z0-9-]` or `tenants_max` is negative.
pub async fn insert_server(tx: &mut WriteTx, new: NewServer<'_>) -> Result<ServerRecord> {
    check_new_server(new.name, new.tenants_max)?;
    if by_name(tx, new.name).await?.is_some() {
        return Err(Error::new(ErrorKind::AlreadyExists, format!("the server '{}' already exists", new.name)));
    }
    refuse_same_cluster(tx, new.system_id).await?;
    let server = ServerRecord {
        id: ServerId::generate(),
        name: new.name.to_owned(),
        engine: new.engine,
        base: new.base.to_owned(),
        state: ServerState::Active,
        tenants_max: new.tenants_max,
        system_id: new.system_id.map(str::to_owned),
        created_at: tx.now(),
    };
    let id = server.id.to_string();
    let sealed = new.secret.map(|plain| tx.sealer().seal_value(secret_context(&id), plain.expose_secret().as_bytes()));
    let sql = "insert into servers (id, name, engine, base, secret, state, tenants_max, system_id, created_at) \
               values ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let sql = sqlx::query(sql).bind(id).bind(server.name.clone()).bind(server.engine.to_string());
    let sql = sql
        .bind(relative_base(tx, server.engine, &server.base))
        .bind(sealed)
        .bind(server.state.stored_text())
        .bind(server.tenants_max);
    tx.execute_sql(sql.bind(server.system_id.clone()).bind(server.created_at)).await?;
    Ok(server)
}

/// Two names for one cluster would count its connections twice, and two tenants could get the same database.
async fn refuse_same_cluster(tx: &mut ReadTx, system_id: Option<&str>) -> Result<()> {
    let Some(system_id) = system_id else { return Ok(()) };
    let sql = "select name from servers where system_id = $1 and state <> 'removed' limit 1";
    let Some(row) = tx.fetch_row(sqlx::query(sql).bind(system_id.to_owned())).await? else { return Ok(()) };
    let message = format!("it is the same cluster as the server '{}'", row::text_column(&row, "name")?);
    Err(Error::new(ErrorKind::AlreadyExists, message))
}

/// The secret with which a server was added; `None` when it has none or does not exist.
///
/// # Errors
/// `WrongKey` when it was sealed with another key, `Corrupt` when it was changed.
pub async fn server_secret(tx: &mut ReadTx, id: ServerId) -> Result<Option<SecretString>> {
    let id = id.to_string();
    let row = tx.fetch_row(sqlx::query("select secret from servers where id = $1").bind(id.clone())).await?;
    let Some(sealed) = row.map_or(Ok(None), |row| row::nullable_text(&row, "secret"))? else { return Ok(None) };
    let opened = tx.sealer().open_sealed(secret_context(&id), &sealed)?;
    let text = std::str::from_utf8(opened.expose_secret());
    let text = text.map_err(|_| Error::new(ErrorKind::Corrupt, "the sealed secret of a server is not text"))?;
    Ok(Some(SecretString::from(text.to_owned())))
}

/// Binds the secret to its row: it cannot be decrypted for another one.
fn secret_context(id: &str) -> (&'static str, &'static str, &str) {
    ("servers", "secret", id)
}

/// The server with this id; `None` when there is none.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn get(tx: &mut ReadTx, id: ServerId) -> Result<Option<ServerRecord>> {
    let row = tx.fetch_row(sqlx::query("select * from servers where id = $1").bind(id.to_string())).await?;
    row.as_ref().map(|row| server_from_row(tx, row)).transpose()
}

/// The server with this name; `None` when there is none.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn by_name(tx: &mut ReadTx, name: &str) -> Result<Option<ServerRecord>> {
    let row = tx.fetch_row(sqlx::query("select * from servers where name = $1").bind(name.to_owned())).await?;
    row.as_ref().map(|row| server_from_row(tx, row)).transpose()
}

/// The server in the form that its engine needs to connect.
///
/// # Errors
/// `NotFound`; `WrongKey` or `Corrupt` when its secret cannot be read; `Claimed` when a copy of the data directory uses
/// the directory. For a Postgres server the engine makes this check.
pub async fn reach_server(tx: &mut ReadTx, server: &ServerRecord) -> Result<DatabaseServer> {
    let claims = fleet::fleet_claims(tx).await?;
    if !is_inside(tx, server) {
        refuse_copy(tx).await?;
    }
    match reach_unclaimed(tx, server).await? {
        DatabaseServer::Postgres(found) => {
            Ok(DatabaseServer::Postgres(Arc::new(PostgresServer::clone(&found).with_claims(claims))))
        }
        directory @ DatabaseServer::Sqlite { .. } => require_ours(tx, server, &claims).map(|()| directory),
    }
}

/// As [`reach_server`], but also for a server that a copy of the data directory may use.
///
/// # Errors
/// As [`reach_server`], except `Claimed`.
pub async fn reach_unclaimed(tx: &mut ReadTx, server: &ServerRecord) -> Result<DatabaseServer> {
    if server.engine == EngineKind::Sqlite {
        return Ok(DatabaseServer::new_sqlite(&server.base));
    }
    let secret = server_secret(tx, server.id).await?;
    let damaged = || Error::new(ErrorKind::Corrupt, format!("the server '{}' has no connection string", server.name));
    let found = PostgresServer::from_secret(&secret.ok_or_else(damaged)?);
    found.map(|found| DatabaseServer::Postgres(Arc::new(found))).map_err(|error| {
        let message =
            format!("the connection string of the server '{}' cannot be read: {}", server.name, error.message());
        Error::new(ErrorKind::Corrupt, message).with_source(error)
    })
}

/// A copy beside its original would use the same external servers. The control plane refuses the copy at its start. An
/// application that embeds the router has only this check.
async fn refuse_copy(tx: &mut ReadTx) -> Result<()> {
    let (Some(here), Some(recorded)) = (tx.catalog_directory(), fleet::data_dir(tx).await?) else { return Ok(()) };
    if !OtherCatalog::look_at(Path::new(&recorded), &here).may_be_there() {
        return Ok(());
    }
    let message = format!("this catalog is a copy of the one in {recorded}, which is still there");
    Err(Error::new(ErrorKind::Claimed, message))
}

/// A directory inside the data directory is copied with it, and has no claim. A directory outside may be in another
/// data directory, or may have the claim of a copy.
fn require_ours(tx: &ReadTx, server: &ServerRecord, claims: &FleetClaims) -> Result<()> {
    if is_inside(tx, server) {
        return Ok(());
    }
    refuse_other_home(tx, server)?;
    let claim = claims.compare_with_server(claim::of_directory(Path::new(&server.base)).as_deref());
    let refused = claim::refuse_others(claim, format_args!("'{}' ({})", server.name, server.base));
    refused.map_err(|error| Error::new(ErrorKind::Claimed, error.message().to_owned()).with_source(error))
}

/// Refuses a directory inside another data directory: an earlier version stored its absolute path, and this catalog is
/// a copy.
///
/// # Errors
/// `Claimed` when the directory is in another data directory.
pub fn refuse_other_home(tx: &ReadTx, server: &ServerRecord) -> Result<()> {
    let is_directory = server.engine == EngineKind::Sqlite;
    match tx.catalog_directory().filter(|_| is_directory) {
        Some(here) if other_catalog::belongs_to_other(Path::new(&server.base), &here) => {
            let message = format!("the directory of the server '{}' is inside another data directory", server.name);
            Err(Error::new(ErrorKind::Claimed, format!("{message}: {}", server.base)))
        }
        _ => Ok(()),
    }
}

/// True when its databases are inside the data directory, and so are moved and copied with it. A linked directory is
/// not inside.
#[must_use]
pub fn is_inside(tx: &ReadTx, server: &ServerRecord) -> bool {
    let base = Path::new(&server.base);
    let real = base.canonicalize().unwrap_or_else(|_| base.to_path_buf());
    let inside = |directory: PathBuf| real.starts_with(directory);
    server.engine == EngineKind::Sqlite && tx.catalog_directory().is_some_and(inside)
}

/// Replaces the connection data of a server; its databases stay unchanged.
///
/// # Errors
/// `NotFound` when the server does not exist.
pub async fn set_secret(tx: &mut WriteTx, id: ServerId, base: &str, secret: &SecretString) -> Result<()> {
    let text = id.to_string();
    let sealed = tx.sealer().seal_value(secret_context(&text), secret.expose_secret().as_bytes());
    let sql = sqlx::query("update servers set base = $2, secret = $3 where id = $1");
    match tx.execute_sql(sql.bind(text).bind(base.to_owned()).bind(sealed)).await? {
        0 => Err(Error::new(ErrorKind::NotFound, format!("there is no server {id}"))),
        _ => changes::append_servers(tx).await,
    }
}

/// All servers that are not removed, by name, with the number of tenant databases on each. A fleet has few servers.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn list_servers(tx: &mut ReadTx) -> Result<Vec<(ServerRecord, i64)>> {
    let sql = "select s.*, (select count(*) from tenants t where t.server_id = s.id and t.placement is not null) \
               as databases from servers s where s.state <> 'removed' order by s.name";
    let rows = tx.fetch_rows(sqlx::query(sql)).await?;
    rows.iter().map(|row| Ok((server_from_row(tx, row)?, row::int_column(row, "databases")?))).collect()
}

/// True when a server of this engine has a tenant, or a tenant that may return.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn have_tenants(tx: &mut ReadTx, engine: EngineKind) -> Result<bool> {
    let sql = "select t.id from tenants t join servers s on s.id = t.server_id \
               where s.engine = $1 and t.state <> 'purged' limit 1";
    Ok(tx.fetch_row(sqlx::query(sql).bind(engine.as_str())).await?.is_some())
}

/// Names and directories of the servers that are directories. Counts nothing, so that a probe may call it often.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn server_directories(tx: &mut ReadTx) -> Result<Vec<(String, PathBuf)>> {
    let sql = "select name, base from servers where state <> 'removed' and engine = 'sqlite' order by name";
    let rows = tx.fetch_rows(sqlx::query(sql)).await?;
    let base = |row: &AnyRow| Ok(absolute_base(tx, EngineKind::Sqlite, row::text_column(row, "base")?).into());
    rows.iter().map(|row| Ok((row::text_column(row, "name")?, base(row)?))).collect()
}

/// The directories of servers that are not removed, as stored: relative inside the data directory.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn stored_bases(tx: &mut ReadTx) -> Result<Vec<(ServerId, String)>> {
    let sql = "select id, base from servers where state <> 'removed' and engine = 'sqlite' order by created_at, id";
    let rows = tx.fetch_rows(sqlx::query(sql)).await?;
    rows.iter().map(|row| Ok((row::parsed_column(row, "id")?, row::text_column(row, "base")?))).collect()
}

/// Changes the directory of a server; its databases must already be there.
///
/// # Errors
/// `NotFound` when the server does not exist.
pub async fn set_base(tx: &mut WriteTx, id: ServerId, base: &str) -> Result<()> {
    let base = relative_base(tx, EngineKind::Sqlite, base);
    let sql = sqlx::query("update servers set base = $2 where id = $1 and engine = 'sqlite'");
    match tx.execute_sql(sql.bind(id.to_string()).bind(base)).await? {
        0 => Err(Error::new(ErrorKind::NotFound, format!("there is no directory {id}"))),
        _ => changes::append_servers(tx).await,
    }
}

/// The base in its stored form.
fn relative_base(tx: &ReadTx, engine: EngineKind, base: &str) -> String {
    let inside = |directory: PathBuf| Path::new(base).strip_prefix(directory).ok()?.to_str().map(str::to_owned);
    let relative = tx.catalog_directory().filter(|_| engine == EngineKind::Sqlite).and_then(inside);
    relative.filter(|relative| !relative.is_empty()).unwrap_or_else(|| base.to_owned())
}

/// The base as an absolute path.
fn absolute_base(tx: &ReadTx, engine: EngineKind, stored: String) -> String {
    match tx.catalog_directory() {
        Some(directory) if engine == EngineKind::Sqlite => directory.join(stored).to_string_lossy().into_owned(),
        _ => stored,
    }
}

/// Changes the state of a server.
///
/// # Errors
/// `NotFound`; `Conflict` when the server to remove has tenants or retained databases.
pub async fn set_state(tx: &mut WriteTx, id: ServerId, state: ServerState) -> Result<()> {
    if state == ServerState::Removed && holds_anything(tx, id).await? {
        let message = "the server has tenants or retained databases: move or delete them first";
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    let sql = sqlx::query("update servers set state = $2 where id = $1");
    match tx.execute_sql(sql.bind(id.to_string()).bind(state.stored_text())).await? {
        0 => Err(Error::new(ErrorKind::NotFound, format!("there is no server {id}"))),
        _ => Ok(()),
    }
}

/// Also counts tenants without a database, because their database is being created or may return.
async fn holds_anything(tx: &mut ReadTx, id: ServerId) -> Result<bool> {
    let sql = "select 1 as found from tenants where server_id = $1 and (placement is not null or state in ('provisioning', 'archived')) \
               union all select 1 as found from retained where server_id = $1 limit 1";
    Ok(tx.fetch_row(sqlx::query(sql).bind(id.to_string())).await?.is_some())
}

fn check_new_server(name: &str, tenants_max: Option<i64>) -> Result<()> {
    let fits = (1..=NAME_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !fits {
        let message = format!("a server's name is 1 to {NAME_MAX} of a-z, 0-9 and '-'");
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    if tenants_max.is_some_and(|max| max < 0) {
        return Err(Error::new(ErrorKind::Invalid, "the maximum number of tenants cannot be negative"));
    }
    Ok(())
}

fn server_from_row(tx: &ReadTx, row: &AnyRow) -> Result<ServerRecord> {
    let engine = row::parsed_column(row, "engine")?;
    Ok(ServerRecord {
        id: row::parsed_column(row, "id")?,
        name: row::text_column(row, "name")?,
        engine,
        base: absolute_base(tx, engine, row::text_column(row, "base")?),
        state: row::enum_column(row, "state")?,
        tenants_max: row::nullable_int(row, "tenants_max")?,
        system_id: row::nullable_text(row, "system_id")?,
        created_at: row::int_column(row, "created_at")?,
    })
}
