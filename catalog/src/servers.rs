//! The rows of servers.

use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::any::AnyRow;
use tenant_engine::placement::EngineKind;
use tenant_engine::postgres::PostgresServer;
use tenant_engine::server::Server;

use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::ServerId;
use crate::row;
use crate::server::{ServerRecord, ServerState};
use crate::word::Word as _;

/// Names are for humans, tables and metrics labels.
const NAME_MAX: usize = 63;

/// Adds a server.
///
/// # Errors
/// `AlreadyExists`; `Invalid` when the name is not 1 to 63 of `[a-z0-9-]` or `tenants_max` is negative.
pub async fn insert(
    tx: &mut WriteTx,
    name: &str,
    engine: EngineKind,
    base: &str,
    tenants_max: Option<i64>,
) -> Result<ServerRecord> {
    check(name, tenants_max)?;
    if by_name(tx, name).await?.is_some() {
        return Err(Error::new(ErrorKind::AlreadyExists, format!("there is a server '{name}' already")));
    }
    let server = ServerRecord {
        id: ServerId::generate(),
        name: name.to_owned(),
        engine,
        base: base.to_owned(),
        state: ServerState::Active,
        tenants_max,
        created_at: tx.now(),
    };
    let sql = "insert into servers (id, name, engine, base, state, tenants_max, created_at) \
               values ($1, $2, $3, $4, $5, $6, $7)";
    let sql = sqlx::query(sql).bind(server.id.to_string()).bind(name.to_owned()).bind(engine.to_string());
    tx.run(sql.bind(base.to_owned()).bind(server.state.word()).bind(tenants_max).bind(server.created_at)).await?;
    Ok(server)
}

/// One server by its id.
///
/// # Errors
/// `Unavailable`.
pub async fn get(tx: &mut ReadTx, id: ServerId) -> Result<Option<ServerRecord>> {
    let row = tx.one(sqlx::query("select * from servers where id = $1").bind(id.to_string())).await?;
    row.as_ref().map(record).transpose()
}

/// One server by its name.
///
/// # Errors
/// `Unavailable`.
pub async fn by_name(tx: &mut ReadTx, name: &str) -> Result<Option<ServerRecord>> {
    let row = tx.one(sqlx::query("select * from servers where name = $1").bind(name.to_owned())).await?;
    row.as_ref().map(record).transpose()
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

/// What is needed to enter a server, unsealed; `None` for a directory.
///
/// # Errors
/// `WrongKey` when it cannot be unsealed.
pub async fn secret(tx: &mut ReadTx, id: ServerId) -> Result<Option<SecretString>> {
    let row = tx.one(sqlx::query("select secret from servers where id = $1").bind(id.to_string())).await?;
    let Some(sealed) = row.map_or(Ok(None), |row| row::text_or_null(&row, "secret"))? else { return Ok(None) };
    let secret = tx.sealer().open(("servers", "secret", &id.to_string()), &sealed)?;
    let text = String::from_utf8(secret.expose_secret().to_vec());
    text.map(|text| Some(text.into())).map_err(|_| Error::new(ErrorKind::Corrupt, "a server's secret is no text"))
}

/// All servers that are not removed, with the number of tenant databases on each, by name. A fleet has few.
///
/// # Errors
/// `Unavailable`.
pub async fn list(tx: &mut ReadTx) -> Result<Vec<(ServerRecord, i64)>> {
    let sql = "select s.*, (select count(*) from tenants t where t.server_id = s.id and t.placement is not null) \
               as databases from servers s where s.state <> 'removed' order by s.name";
    let rows = tx.all(sqlx::query(sql)).await?;
    rows.iter().map(|row| Ok((record(row)?, row::int(row, "databases")?))).collect()
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
    let sql = "select 1 as found from tenants where server_id = $1 and (placement is not null or state = 'provisioning') \
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

fn record(row: &AnyRow) -> Result<ServerRecord> {
    Ok(ServerRecord {
        id: row::parsed(row, "id")?,
        name: row::text(row, "name")?,
        engine: row::parsed(row, "engine")?,
        base: row::text(row, "base")?,
        state: row::word(row, "state")?,
        tenants_max: row::int_or_null(row, "tenants_max")?,
        created_at: row::int(row, "created_at")?,
    })
}
