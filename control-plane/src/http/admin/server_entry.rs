//! `/v1/servers`: adding a place, and changing how a Postgres server is entered. Both look at the server before anything
//! is written.

use std::path::Path as FilePath;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use catalog::servers::{self, NewServer};
use catalog::{ServerRecord, WriteTx, events};
use secrecy::SecretString;
use serde::Deserialize;
use tenant_engine::postgres::PostgresServer;
use tenant_engine::{EngineKind, Server as EngineServer, Survey};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{Change, Planned, check_reason, settle};
use super::servers::{PRIVILEGE_MISSING, Server};
use super::{lookup, server_base, server_move};
use crate::error::Error;
use crate::http::Api;
use crate::http::admission::Caller;
use crate::http::error::{Problem, ProblemBody, Result};
use crate::http::extract::{Json, Path};
use crate::http::number::Within;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(add)).routes(routes!(enter))
}

/// More databases than one server holds well, many times over.
type Tenants = Within<1, 1_000_000>;

/// A place to add.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ServerToAdd {
    /// 1 to 63 of a-z, 0-9 and '-'.
    name: String,
    /// sqlite or postgres
    #[schema(value_type = String)]
    engine: EngineKind,
    /// sqlite: an absolute directory that exists.
    base: Option<String>,
    /// postgres: `postgres://user:password@host:port/database` of a role that may create databases and roles.
    #[schema(value_type = Option<String>)]
    dsn: Option<SecretString>,
    /// No new databases beyond this: 1 to 1,000,000.
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 1_000_000)]
    tenants_max: Option<Tenants>,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// Why, for the audit log.
    reason: Option<String>,
}

/// How to enter a server from now on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// postgres: `postgres://user:password@host:port/database`
    #[schema(value_type = Option<String>)]
    dsn: Option<SecretString>,
    /// sqlite: the absolute directory that its databases were moved to.
    base: Option<String>,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// Why, for the audit log.
    reason: Option<String>,
}

/// Adds a server.
#[utoipa::path(post, path = "/v1/servers", tag = "servers", request_body = ServerToAdd,
    responses((status = 201, description = "The server", body = Server), (status = 200, description = "A dry run", body = Planned), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn add(State(api): State<Api>, caller: Caller, Json(new): Json<ServerToAdd>) -> Result<Response> {
    check_reason(new.reason.as_deref())?;
    let name = catalog::Name::slug(&new.name)?;
    let place = taken(&api, place(&new)?).await?;
    let survey = look(&api, &place).await?;
    let base = base(&place);
    let mut tx = api.app.catalog.write().await?;
    refuse_overlap(&mut tx, &base, new.engine).await?;
    let secret = secret(&place);
    let (engine, tenants_max, system_id) =
        (new.engine, new.tenants_max.map(Tenants::signed), survey.system_id.as_deref());
    let server =
        NewServer { name: name.as_str(), engine, base: &base, tenants_max, secret: secret.as_ref(), system_id };
    let record = servers::insert(&mut tx, server).await?;
    let change = Change { kind: "server.added", tenant: None, action: format!("'{}' would be added", record.name) };
    append(&mut tx, &caller, &change, &record, new.reason.as_deref()).await?;
    if let (EngineServer::Sqlite { root }, false) = (&place, new.dry_run) {
        // Before the commit: a directory without a server is harmless, a server without its marker is not.
        server_base::mark(root, api.app.catalog.fleet_id().to_string(), record.id.to_string())?;
    }
    settle(tx, new.dry_run, change, (StatusCode::CREATED, Json(Server::new(record, 0, Ok(survey))))).await
}

/// Enters a server in another way: a new password, another address of the same server, another path of its directory.
#[utoipa::path(post, path = "/v1/servers/{server}/entry", tag = "servers", request_body = Entry, params(("server" = String, Path, description = "Name or id")),
    responses((status = 200, description = "As it is now", body = Server), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn enter(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    Json(entry): Json<Entry>,
) -> Result<Response> {
    check_reason(entry.reason.as_deref())?;
    let known = lookup::server(&mut api.app.catalog.read().await?, &name).await?;
    match (api.app.fleet.server(known.id).await?, &entry.dsn, &entry.base) {
        (EngineServer::Postgres(before), Some(dsn), None) => {
            let after = Arc::new(before.with_dsn(dsn).map_err(Error::from)?);
            reconnect(&api, &caller, known, after, &entry).await
        }
        (EngineServer::Sqlite { .. }, None, Some(base)) => repoint(&api, &caller, known, base, &entry).await,
        (EngineServer::Postgres(_), ..) => Err(Problem::invalid("dsn: expected for a Postgres server, and no base")),
        (EngineServer::Sqlite { .. }, ..) => Err(Problem::invalid("base: expected for a directory, and no dsn")),
    }
}

/// A directory that was moved.
async fn repoint(api: &Api, caller: &Caller, known: ServerRecord, base: &str, entry: &Entry) -> Result<Response> {
    check_base(base)?;
    let others = servers::list(&mut api.app.catalog.read().await?).await?;
    let is_met = |other: &ServerRecord| {
        let (one, two) = (FilePath::new(base), FilePath::new(&other.base));
        other.id != known.id && other.engine == EngineKind::Sqlite && server_base::overlaps(one, two)
    };
    if let Some((other, _)) = others.iter().find(|(other, _)| is_met(other)) {
        return Err(meets(other));
    }
    let (fleet, network) = (api.app.catalog.fleet_id().to_string(), api.app.config.network_file_system);
    let own = FilePath::new(base).canonicalize().is_ok_and(|path| path == api.app.config.data_dir.join("tenants"));
    let reserved = if own { Vec::new() } else { reserved(api) };
    let path = server_move::check(&known, FilePath::new(base), &fleet, &reserved, network)?;
    let survey = look(api, &EngineServer::sqlite(&path)).await?;
    let record = ServerRecord { base: path.to_string_lossy().into_owned(), ..known };
    let mut tx = api.app.catalog.write().await?;
    servers::set_base(&mut tx, record.id, &record.base).await?;
    let action = format!("'{}' would be found at {}", record.name, record.base);
    let change = Change { kind: "server.entry_changed", tenant: None, action };
    append(&mut tx, caller, &change, &record, entry.reason.as_deref()).await?;
    if !entry.dry_run {
        server_base::mark(&path, fleet, record.id.to_string())?;
    }
    finish(api, tx, change, record, (entry.dry_run, survey)).await
}

/// A Postgres server at another address, or with another password.
async fn reconnect(
    api: &Api,
    caller: &Caller,
    known: ServerRecord,
    after: Arc<PostgresServer>,
    entry: &Entry,
) -> Result<Response> {
    let place = EngineServer::Postgres(Arc::clone(&after));
    let survey = look(api, &place).await?;
    if survey.system_id != known.system_id {
        let detail = format!("that is another server than '{}': its databases are not there", known.name);
        return Err(Problem::new(StatusCode::CONFLICT, "server_invalid", detail).try_next("fleetctl server add"));
    }
    let mut tx = api.app.catalog.write().await?;
    servers::set_secret(&mut tx, known.id, after.address(), &after.secret()).await?;
    let action = format!("'{}' would be entered at {}", known.name, after.address());
    let change = Change { kind: "server.entry_changed", tenant: None, action };
    let record = ServerRecord { base: after.address().to_owned(), ..known };
    append(&mut tx, caller, &change, &record, entry.reason.as_deref()).await?;
    finish(api, tx, change, record, (entry.dry_run, survey)).await
}

async fn finish(
    api: &Api,
    mut tx: WriteTx,
    change: Change,
    record: ServerRecord,
    (dry_run, survey): (bool, Survey),
) -> Result<Response> {
    let tenants = servers::list(&mut tx).await?.into_iter().find(|(s, _)| s.id == record.id).map_or(0, |(_, n)| n);
    let id = record.id;
    let answer = settle(tx, dry_run, change, Json(Server::new(record, tenants, Ok(survey)))).await;
    api.app.fleet.forget_server(id);
    answer
}

async fn append(
    tx: &mut WriteTx,
    caller: &Caller,
    change: &Change,
    record: &ServerRecord,
    reason: Option<&str>,
) -> Result<()> {
    let data = serde_json::json!({ "server": record.name, "engine": record.engine, "base": record.base });
    Ok(events::append(tx, &[caller.event(change.kind, None, data, reason)]).await?)
}

/// The place that is meant, checked as far as that can be done without asking it.
fn place(new: &ServerToAdd) -> Result<EngineServer> {
    match (new.engine, &new.base, &new.dsn) {
        (EngineKind::Sqlite, Some(base), None) => {
            check_base(base)?;
            Ok(EngineServer::sqlite(base))
        }
        (EngineKind::Postgres, None, Some(dsn)) => {
            Ok(EngineServer::Postgres(Arc::new(PostgresServer::new(dsn).map_err(Error::from)?)))
        }
        (EngineKind::Sqlite, ..) => Err(Problem::invalid("base: expected for sqlite, and no dsn")),
        (EngineKind::Postgres, ..) => Err(Problem::invalid("dsn: expected for postgres, and no base")),
    }
}

/// A directory by its own path, if nobody else uses it.
async fn taken(api: &Api, place: EngineServer) -> Result<EngineServer> {
    let EngineServer::Sqlite { root } = place else { return Ok(place) };
    let known = servers::list(&mut api.app.catalog.read().await?).await?;
    for (other, _) in known.iter().filter(|(other, _)| other.engine == EngineKind::Sqlite) {
        if server_base::overlaps(&root, FilePath::new(&other.base)) {
            return Err(meets(other));
        }
    }
    let network = api.app.config.network_file_system;
    let root = server_base::check(&root, &api.app.catalog.fleet_id().to_string(), &reserved(api), network)?;
    Ok(EngineServer::sqlite(root))
}

/// Directories of the control plane itself. Others beside them in the data directory may be used.
fn reserved(api: &Api) -> Vec<std::path::PathBuf> {
    let config = &api.app.config;
    let mut own: Vec<_> = ["backups", "scratch", "tenants"].iter().map(|name| config.data_dir.join(name)).collect();
    own.push(config.data_dir.join("catalog.db"));
    own.extend(config.backup_url.as_deref().and_then(|url| url.strip_prefix("file://")).map(Into::into));
    own
}

/// Asks the place; one that does not answer or whose role lacks something is refused, saying what.
async fn look(api: &Api, place: &EngineServer) -> Result<Survey> {
    let survey = api.app.fleet.engine(place.engine())?.survey(place).await.map_err(Error::from)?;
    if survey.lacks.is_empty() {
        return Ok(survey);
    }
    let detail = format!("the server cannot be used, because its role lacks {}", survey.lacks.join("; "));
    Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, PRIVILEGE_MISSING, detail))
}

fn base(place: &EngineServer) -> String {
    match place {
        EngineServer::Sqlite { root } => root.to_string_lossy().into_owned(),
        EngineServer::Postgres(server) => server.address().to_owned(),
    }
}

fn secret(place: &EngineServer) -> Option<SecretString> {
    match place {
        EngineServer::Sqlite { .. } => None,
        EngineServer::Postgres(server) => Some(server.secret()),
    }
}

async fn refuse_overlap(tx: &mut WriteTx, base: &str, engine: EngineKind) -> Result<()> {
    let known = servers::list(tx).await?;
    let is_met = |server: &ServerRecord| server.engine == engine && overlap(&server.base, base);
    known.iter().find(|(server, _)| is_met(server)).map_or(Ok(()), |(other, _)| Err(meets(other)))
}

fn meets(other: &ServerRecord) -> Problem {
    let detail = format!("base: overlaps that of the server '{}'", other.name);
    Problem::new(StatusCode::CONFLICT, "already_exists", detail)
}

/// Refuses what could not hold a database, before it holds one.
fn check_base(base: &str) -> Result<()> {
    let path = FilePath::new(base);
    let plain = path.components().all(|part| !matches!(part, std::path::Component::ParentDir));
    if !path.is_absolute() || !plain || base.contains('\0') {
        return Err(Problem::invalid("base: expected an absolute path without '..'"));
    }
    if !path.is_dir() {
        return Err(Problem::invalid("base: there is no such directory on this machine").try_next("make it first"));
    }
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
        .map_err(|_| Problem::invalid("base: this process may not write there"))
}

/// One inside the other would mix two servers' files.
fn overlap(one: &str, other: &str) -> bool {
    FilePath::new(one).starts_with(other) || FilePath::new(other).starts_with(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_an_existing_absolute_directory() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check_base(dir.path().to_str().unwrap()).is_ok());
        for bad in ["", "data", "/no/such/place", "/tmp/../etc", "/\0"] {
            assert!(check_base(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn one_inside_the_other_overlaps() {
        assert!(overlap("/a/b", "/a"));
        assert!(overlap("/a", "/a/b"));
        assert!(!overlap("/a/b", "/a/bc"));
    }
}
