//! The rows of servers.
//!
//! A directory beside the catalog's file, or below it, is stored relative to it: the data directory can be moved. Every
//! record has it absolute.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::any::AnyRow;
use tenant_engine::placement::EngineKind;
use tenant_engine::postgres::PostgresServer;
use tenant_engine::server::Server;

use crate::changes;
use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::ServerId;
use crate::row;
use crate::server::{ServerRecord, ServerState};
use crate::word::Word as _;

/// Names are for humans, tables and metrics labels.
const NAME_MAX: usize = 63;

/// What a new server is.
#[derive(Debug, Clone, Copy)]
pub struct NewServer<'a> {
    /// What operators call it: 1 to 63 of `[a-z0-9-]`.
    pub name: &'a str,
    /// What it runs.
    pub engine: EngineKind,
    /// Absolute root directory (SQLite), or host:port without credentials (Postgres).
    pub base: &'a str,
    /// `None`: no limit.
    pub tenants_max: Option<i64>,
    /// The connection string of the maintenance role; sealed before it is stored, read with [`secret`].
    pub secret: Option<&'a SecretString>,
    /// Postgres: the cluster's own system identifier.
    pub system_id: Option<&'a str>,
}

impl<'a> NewServer<'a> {
    /// A root directory for SQLite files, without a limit.
    #[must_use]
    pub fn directory(name: &'a str, base: &'a str) -> Self {
        Self { name, engine: EngineKind::Sqlite, base, tenants_max: None, secret: None, system_id: None }
    }
}

/// Adds a server.
///
/// # Errors
/// `AlreadyExists` when the name is taken or the same cluster (by `system_id`) is in use under another name; `Invalid`
/// when the name is not 1 to 63 of `[a-z0-9-]` or `tenants_max` is negative.
pub async fn insert(tx: &mut WriteTx, new: NewServer<'_>) -> Result<ServerRecord> {
    check(new.name, new.tenants_max)?;
    if by_name(tx, new.name).await?.is_some() {
        return Err(Error::new(ErrorKind::AlreadyExists, format!("there is a server '{}' already", new.name)));
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
    let sealed = new.secret.map(|plain| tx.sealer().seal(context(&id), plain.expose_secret().as_bytes()));
    let sql = "insert into servers (id, name, engine, base, secret, state, tenants_max, system_id, created_at) \
               values ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let sql = sqlx::query(sql).bind(id).bind(server.name.clone()).bind(server.engine.to_string());
    let sql = sql
        .bind(stored(tx, server.engine, &server.base))
        .bind(sealed)
        .bind(server.state.word())
        .bind(server.tenants_max);
    tx.run(sql.bind(server.system_id.clone()).bind(server.created_at)).await?;
    Ok(server)
}

/// Two names for one cluster would count its connections twice and let two tenants meet in one database.
async fn refuse_same_cluster(tx: &mut ReadTx, system_id: Option<&str>) -> Result<()> {
    let Some(system_id) = system_id else { return Ok(()) };
    let sql = "select name from servers where system_id = $1 and state <> 'removed' limit 1";
    let Some(row) = tx.one(sqlx::query(sql).bind(system_id.to_owned())).await? else { return Ok(()) };
    let message = format!("it is the same cluster as the server '{}'", row::text(&row, "name")?);
    Err(Error::new(ErrorKind::AlreadyExists, message))
}

/// The secret a server was added with; `None`: it has none, or there is no such server.
///
/// # Errors
/// `WrongKey` when another key sealed it, `Corrupt` when it was changed.
pub async fn secret(tx: &mut ReadTx, id: ServerId) -> Result<Option<SecretString>> {
    let id = id.to_string();
    let row = tx.one(sqlx::query("select secret from servers where id = $1").bind(id.clone())).await?;
    let Some(sealed) = row.map_or(Ok(None), |row| row::text_or_null(&row, "secret"))? else { return Ok(None) };
    let opened = tx.sealer().open(context(&id), &sealed)?;
    let text = std::str::from_utf8(opened.expose_secret());
    let text = text.map_err(|_| Error::new(ErrorKind::Corrupt, "the sealed secret of a server is not text"))?;
    Ok(Some(SecretString::from(text.to_owned())))
}

/// Where the secret belongs: it opens nowhere else.
fn context(id: &str) -> (&'static str, &'static str, &str) {
    ("servers", "secret", id)
}

/// One server by its id.
///
/// # Errors
/// `Unavailable`.
pub async fn get(tx: &mut ReadTx, id: ServerId) -> Result<Option<ServerRecord>> {
    let row = tx.one(sqlx::query("select * from servers where id = $1").bind(id.to_string())).await?;
    row.as_ref().map(|row| record(tx, row)).transpose()
}

/// One server by its name.
///
/// # Errors
/// `Unavailable`.
pub async fn by_name(tx: &mut ReadTx, name: &str) -> Result<Option<ServerRecord>> {
    let row = tx.one(sqlx::query("select * from servers where name = $1").bind(name.to_owned())).await?;
    row.as_ref().map(|row| record(tx, row)).transpose()
}

/// The server as an engine reaches it.
///
/// # Errors
/// `NotFound`; `WrongKey` or `Corrupt` when its secret cannot be read.
pub async fn reach(tx: &mut ReadTx, server: &ServerRecord) -> Result<Server> {
    if server.engine == EngineKind::Sqlite {
        return Ok(Server::sqlite(&server.base));
    }
    let secret = secret(tx, server.id).await?;
    let damaged = || Error::new(ErrorKind::Corrupt, format!("the server '{}' has no connection string", server.name));
    let found = PostgresServer::from_secret(&secret.ok_or_else(damaged)?);
    found.map(|found| Server::Postgres(Arc::new(found))).map_err(|error| damaged().with_source(error))
}

/// Replaces how a server is entered; its databases stay where they are.
///
/// # Errors
/// `NotFound`.
pub async fn set_secret(tx: &mut WriteTx, id: ServerId, base: &str, secret: &SecretString) -> Result<()> {
    let text = id.to_string();
    let sealed = tx.sealer().seal(context(&text), secret.expose_secret().as_bytes());
    let sql = sqlx::query("update servers set base = $2, secret = $3 where id = $1");
    match tx.run(sql.bind(text).bind(base.to_owned()).bind(sealed)).await? {
        0 => Err(Error::new(ErrorKind::NotFound, format!("there is no server {id}"))),
        _ => changes::append_servers(tx).await,
    }
}

/// All servers that are not removed, with the number of tenant databases on each, by name. A fleet has few.
///
/// # Errors
/// `Unavailable`.
pub async fn list(tx: &mut ReadTx) -> Result<Vec<(ServerRecord, i64)>> {
    let sql = "select s.*, (select count(*) from tenants t where t.server_id = s.id and t.placement is not null) \
               as databases from servers s where s.state <> 'removed' order by s.name";
    let rows = tx.all(sqlx::query(sql)).await?;
    rows.iter().map(|row| Ok((record(tx, row)?, row::int(row, "databases")?))).collect()
}

/// Names and directories of the servers that are directories. Counts nothing, so that a probe may ask often.
///
/// # Errors
/// `Unavailable`.
pub async fn directories(tx: &mut ReadTx) -> Result<Vec<(String, PathBuf)>> {
    let sql = "select name, base from servers where state <> 'removed' and engine = 'sqlite' order by name";
    let rows = tx.all(sqlx::query(sql)).await?;
    let base = |row: &AnyRow| Ok(absolute(tx, EngineKind::Sqlite, row::text(row, "base")?).into());
    rows.iter().map(|row| Ok((row::text(row, "name")?, base(row)?))).collect()
}

/// The directories of servers that are not removed, as they are stored: relative inside the data directory.
///
/// # Errors
/// `Unavailable`.
pub async fn stored_bases(tx: &mut ReadTx) -> Result<Vec<(ServerId, String)>> {
    let sql = "select id, base from servers where state <> 'removed' and engine = 'sqlite' order by created_at, id";
    let rows = tx.all(sqlx::query(sql)).await?;
    rows.iter().map(|row| Ok((row::parsed(row, "id")?, row::text(row, "base")?))).collect()
}

/// Changes where the directory of a server is; its databases must be there already.
///
/// # Errors
/// `NotFound`.
pub async fn set_base(tx: &mut WriteTx, id: ServerId, base: &str) -> Result<()> {
    let base = stored(tx, EngineKind::Sqlite, base);
    let sql = sqlx::query("update servers set base = $2 where id = $1 and engine = 'sqlite'");
    match tx.run(sql.bind(id.to_string()).bind(base)).await? {
        0 => Err(Error::new(ErrorKind::NotFound, format!("there is no directory {id}"))),
        _ => changes::append_servers(tx).await,
    }
}

/// The base as it is stored.
fn stored(tx: &ReadTx, engine: EngineKind, base: &str) -> String {
    let inside = |directory: PathBuf| Path::new(base).strip_prefix(directory).ok()?.to_str().map(str::to_owned);
    let relative = tx.directory().filter(|_| engine == EngineKind::Sqlite).and_then(inside);
    relative.filter(|relative| !relative.is_empty()).unwrap_or_else(|| base.to_owned())
}

/// The base as everybody else knows it.
fn absolute(tx: &ReadTx, engine: EngineKind, stored: String) -> String {
    match tx.directory() {
        Some(directory) if engine == EngineKind::Sqlite => directory.join(stored).to_string_lossy().into_owned(),
        _ => stored,
    }
}

/// Changes the state.
///
/// # Errors
/// `NotFound`; `Conflict` when a server is to be removed that holds tenants or databases that are kept.
pub async fn set_state(tx: &mut WriteTx, id: ServerId, state: ServerState) -> Result<()> {
    if state == ServerState::Removed && holds_anything(tx, id).await? {
        let message = "the server holds tenants or databases that are kept: move or delete them first";
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    let sql = sqlx::query("update servers set state = $2 where id = $1");
    match tx.run(sql.bind(id.to_string()).bind(state.word())).await? {
        0 => Err(Error::new(ErrorKind::NotFound, format!("there is no server {id}"))),
        _ => Ok(()),
    }
}

/// A tenant without a database yet counts too: its database is on its way.
async fn holds_anything(tx: &mut ReadTx, id: ServerId) -> Result<bool> {
    let sql = "select 1 as found from tenants where server_id = $1 and (placement is not null or state in ('provisioning', 'archived')) \
               union all select 1 as found from retained where server_id = $1 limit 1";
    Ok(tx.one(sqlx::query(sql).bind(id.to_string())).await?.is_some())
}

fn check(name: &str, tenants_max: Option<i64>) -> Result<()> {
    let fits = (1..=NAME_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !fits {
        let message = format!("a server's name is 1 to {NAME_MAX} of a-z, 0-9 and '-'");
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    if tenants_max.is_some_and(|max| max < 0) {
        return Err(Error::new(ErrorKind::Invalid, "the most tenants of a server cannot be negative"));
    }
    Ok(())
}

fn record(tx: &ReadTx, row: &AnyRow) -> Result<ServerRecord> {
    let engine = row::parsed(row, "engine")?;
    Ok(ServerRecord {
        id: row::parsed(row, "id")?,
        name: row::text(row, "name")?,
        engine,
        base: absolute(tx, engine, row::text(row, "base")?),
        state: row::word(row, "state")?,
        tenants_max: row::int_or_null(row, "tenants_max")?,
        system_id: row::text_or_null(row, "system_id")?,
        created_at: row::int(row, "created_at")?,
    })
}
