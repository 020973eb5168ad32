//! `/v1/servers`: adds a server, and changes the connection of a PostgreSQL server. Both check the server before
//! anything is written.

use std::path::Path as FilePath;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use catalog::servers::{self, NewServer};
use catalog::{ServerRecord, WriteTx, events};
use fleet_api::bounded_number::TenantCapacity;
use fleet_api::changes::PlannedChange;
use fleet_api::problem::ProblemBody;
use fleet_api::servers::{ConnectionChange, ServerToAdd, ServerView};
use secrecy::SecretString;
use tenant_engine::postgres::PostgresServer;
use tenant_engine::{DatabaseServer as EngineServer, EngineKind, FleetClaims, ServerSurvey};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{directory, relocation};
use crate::error::{Error, ErrorKind};
use crate::http::ApiState;
use crate::http::admin::change::{CatalogChange, check_reason, finish_change};
use crate::http::admin::lookup;
use crate::http::admin::servers::server_view;
use crate::http::admin::words::parse_choice;
use crate::http::admission::AdmittedCaller;
use crate::http::error::{Problem, Result};
use crate::http::extract::{JsonBody, PathParams};

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(add_server)).routes(routes!(set_connection))
}

/// Add a server.
#[utoipa::path(post, path = "/v1/servers", tag = "servers", request_body = ServerToAdd,
    responses((status = 201, description = "The server that was added", body = ServerView), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn add_server(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    JsonBody(new): JsonBody<ServerToAdd>,
) -> Result<Response> {
    check_reason(new.reason.as_deref())?;
    let engine = parse_choice("engine", &new.engine)?;
    let name = catalog::TenantName::parse_slug(&new.name)?;
    let place = require_unused(&api, parse_place(engine, &new)?).await?;
    let survey = survey_usable(&api, &place).await?;
    let base = stored_base(&place);
    let mut tx = api.app.catalog.write().await?;
    refuse_overlap(&mut tx, &base, engine).await?;
    let secret = connection_secret(&place);
    let (tenants_max, system_id) = (new.tenants_max.map(TenantCapacity::to_i64), survey.system_id.as_deref());
    let server =
        NewServer { name: name.as_str(), engine, base: &base, tenants_max, secret: secret.as_ref(), system_id };
    let record = servers::insert_server(&mut tx, server).await?;
    let change =
        CatalogChange { kind: "server.added", tenant: None, action: format!("'{}' would be added", record.name) };
    append_event(&mut tx, &caller, &change, &record, new.reason.as_deref()).await?;
    if let (EngineServer::Sqlite { root }, false) = (&place, new.dry_run) {
        // Before the commit: a marked directory without a server is harmless, a server without a marker is not.
        mark_base(&api, &mut tx, root, &record).await?;
    }
    finish_change(tx, &caller, new.dry_run, change, (StatusCode::CREATED, JsonBody(server_view(record, 0, Ok(survey)))))
        .await
}

/// Change the connection of a server: a new password, another address of the same server, or another path of its
/// directory.
#[utoipa::path(post, path = "/v1/servers/{server}/entry", tag = "servers", request_body = ConnectionChange, params(("server" = String, Path, description = "Name or id of the server")),
    responses((status = 200, description = "The server after the change", body = ServerView), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn set_connection(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(name): PathParams<String>,
    JsonBody(entry): JsonBody<ConnectionChange>,
) -> Result<Response> {
    check_reason(entry.reason.as_deref())?;
    let known = lookup::find_server(&mut api.app.catalog.read().await?, &name).await?;
    match (api.app.context.load_server(known.id).await?, &entry.dsn, &entry.base) {
        (EngineServer::Postgres(before), Some(dsn), None) => {
            let after = Arc::new(before.with_dsn(dsn.as_secret()).map_err(Error::from)?);
            change_connection(&api, &caller, known, after, &entry).await
        }
        (EngineServer::Sqlite { .. }, None, Some(base)) => change_directory(&api, &caller, known, base, &entry).await,
        (EngineServer::Postgres(_), ..) => {
            Err(Problem::invalid("dsn: a PostgreSQL server needs dsn and takes no base"))
        }
        (EngineServer::Sqlite { .. }, ..) => Err(Problem::invalid("base: a directory needs base and takes no dsn")),
    }
}

/// Changes the path of a directory that was moved.
async fn change_directory(
    api: &ApiState,
    caller: &AdmittedCaller,
    known: ServerRecord,
    base: &str,
    entry: &ConnectionChange,
) -> Result<Response> {
    check_base(base)?;
    let others = servers::list_servers(&mut api.app.catalog.read().await?).await?;
    let is_met = |other: &ServerRecord| {
        let (one, two) = (FilePath::new(base), FilePath::new(&other.base));
        other.id != known.id && other.engine == EngineKind::Sqlite && directory::directories_overlap(one, two)
    };
    if let Some((other, _)) = others.iter().find(|(other, _)| is_met(other)) {
        return Err(overlap_problem(other));
    }
    let (fleet, network) = (api.app.catalog.fleet_id().to_string(), api.app.config.network_file_system);
    let own = FilePath::new(base).canonicalize().is_ok_and(|path| path == api.app.config.data_dir.join("tenants"));
    let reserved = if own { Vec::new() } else { reserved_directories(api) };
    let path = relocation::check_new_base(&known, FilePath::new(base), &fleet, &reserved, network)?;
    let survey = survey_usable(api, &EngineServer::new_sqlite(&path)).await?;
    let record = ServerRecord { base: path.to_string_lossy().into_owned(), ..known };
    let mut tx = api.app.catalog.write().await?;
    servers::set_base(&mut tx, record.id, &record.base).await?;
    let action = format!("'{}' would be found at {}", record.name, record.base);
    let change = CatalogChange { kind: "server.entry_changed", tenant: None, action };
    append_event(&mut tx, caller, &change, &record, entry.reason.as_deref()).await?;
    if !entry.dry_run {
        mark_base(api, &mut tx, &path, &record).await?;
    }
    finish_server_change((api, caller), tx, change, record, (entry.dry_run, survey)).await
}

/// Changes the address or the password of a PostgreSQL server.
async fn change_connection(
    api: &ApiState,
    caller: &AdmittedCaller,
    known: ServerRecord,
    after: Arc<PostgresServer>,
    entry: &ConnectionChange,
) -> Result<Response> {
    let place = EngineServer::Postgres(Arc::clone(&after));
    let survey = survey_usable(api, &place).await?;
    if survey.system_id != known.system_id {
        let detail = format!("that is another server than '{}': its databases are not there", known.name);
        return Err(Problem::new(ErrorKind::ServerDiffers, detail).try_next("fleetctl server add"));
    }
    let mut tx = api.app.catalog.write().await?;
    servers::set_secret(&mut tx, known.id, after.host_and_port(), &after.secret_text()).await?;
    let action = format!("'{}' would be reached at {}", known.name, after.host_and_port());
    let change = CatalogChange { kind: "server.entry_changed", tenant: None, action };
    let record = ServerRecord { base: after.host_and_port().to_owned(), ..known };
    append_event(&mut tx, caller, &change, &record, entry.reason.as_deref()).await?;
    finish_server_change((api, caller), tx, change, record, (entry.dry_run, survey)).await
}

async fn finish_server_change(
    (api, caller): (&ApiState, &AdmittedCaller),
    mut tx: WriteTx,
    change: CatalogChange,
    record: ServerRecord,
    (dry_run, survey): (bool, ServerSurvey),
) -> Result<Response> {
    let tenants =
        servers::list_servers(&mut tx).await?.into_iter().find(|(s, _)| s.id == record.id).map_or(0, |(_, n)| n);
    let id = record.id;
    let answer = finish_change(tx, caller, dry_run, change, JsonBody(server_view(record, tenants, Ok(survey)))).await;
    api.app.context.forget_server(id);
    answer
}

async fn mark_base(api: &ApiState, tx: &mut WriteTx, base: &FilePath, record: &ServerRecord) -> Result<()> {
    let claims = match servers::is_inside(tx, record) {
        true => FleetClaims::default(),
        false => catalog::fleet::fleet_claims(tx).await?,
    };
    directory::mark_directory(base, api.app.catalog.fleet_id().to_string(), record.id.to_string(), &claims)
}

async fn append_event(
    tx: &mut WriteTx,
    caller: &AdmittedCaller,
    change: &CatalogChange,
    record: &ServerRecord,
    reason: Option<&str>,
) -> Result<()> {
    let data = serde_json::json!({ "server": record.name, "engine": record.engine, "base": record.base });
    Ok(events::append_events(tx, &[caller.caller_event(change.kind, None, data, reason)]).await?)
}

/// The requested server, checked as far as possible without asking it.
fn parse_place(engine: EngineKind, new: &ServerToAdd) -> Result<EngineServer> {
    match (engine, &new.base, &new.dsn) {
        (EngineKind::Sqlite, Some(base), None) => {
            check_base(base)?;
            Ok(EngineServer::new_sqlite(base))
        }
        (EngineKind::Postgres, None, Some(dsn)) => {
            Ok(EngineServer::Postgres(Arc::new(PostgresServer::new(dsn.as_secret()).map_err(Error::from)?)))
        }
        (EngineKind::Sqlite, ..) => Err(Problem::invalid("base: a directory needs base and takes no dsn")),
        (EngineKind::Postgres, ..) => Err(Problem::invalid("dsn: a PostgreSQL server needs dsn and takes no base")),
    }
}

/// The directory's own path, if nobody else uses it.
async fn require_unused(api: &ApiState, place: EngineServer) -> Result<EngineServer> {
    let EngineServer::Sqlite { root } = place else { return Ok(place) };
    let known = servers::list_servers(&mut api.app.catalog.read().await?).await?;
    for (other, _) in known.iter().filter(|(other, _)| other.engine == EngineKind::Sqlite) {
        if directory::directories_overlap(&root, FilePath::new(&other.base)) {
            return Err(overlap_problem(other));
        }
    }
    let network = api.app.config.network_file_system;
    let root = directory::check_directory(
        &root,
        &api.app.catalog.fleet_id().to_string(),
        &reserved_directories(api),
        network,
    )?;
    Ok(EngineServer::new_sqlite(root))
}

/// The control plane's own directories. Other directories in the data directory may be used.
fn reserved_directories(api: &ApiState) -> Vec<std::path::PathBuf> {
    let config = &api.app.config;
    let names = ["backups", "scratch", "tenants", "socket", "catalog.reserve", "catalog.db"];
    let mut own: Vec<_> = names.iter().map(|name| config.data_dir.join(name)).collect();
    own.extend(config.backup_url.as_deref().and_then(|url| url.strip_prefix("file://")).map(Into::into));
    own
}

/// Surveys the server. Refuses one that does not answer or whose role lacks a right, and names it.
async fn survey_usable(api: &ApiState, place: &EngineServer) -> Result<ServerSurvey> {
    let survey =
        api.app.context.engine_of_kind(place.engine_kind())?.survey_server(place).await.map_err(Error::from)?;
    if survey.lacks.is_empty() {
        return Ok(survey);
    }
    let detail = format!("the server cannot be used, because its role lacks {}", survey.lacks.join("; "));
    Err(Problem::new(ErrorKind::ServerPrivilegeMissing, detail))
}

fn stored_base(place: &EngineServer) -> String {
    match place {
        EngineServer::Sqlite { root } => root.to_string_lossy().into_owned(),
        EngineServer::Postgres(server) => server.host_and_port().to_owned(),
    }
}

fn connection_secret(place: &EngineServer) -> Option<SecretString> {
    match place {
        EngineServer::Sqlite { .. } => None,
        EngineServer::Postgres(server) => Some(server.secret_text()),
    }
}

async fn refuse_overlap(tx: &mut WriteTx, base: &str, engine: EngineKind) -> Result<()> {
    let known = servers::list_servers(tx).await?;
    let is_met = |server: &ServerRecord| server.engine == engine && paths_overlap(&server.base, base);
    known.iter().find(|(server, _)| is_met(server)).map_or(Ok(()), |(other, _)| Err(overlap_problem(other)))
}

fn overlap_problem(other: &ServerRecord) -> Problem {
    let detail = format!("base: overlaps that of the server '{}'", other.name);
    Problem::new(ErrorKind::AlreadyExists, detail)
}

/// Refuses a directory that cannot hold databases.
fn check_base(base: &str) -> Result<()> {
    let path = FilePath::new(base);
    let plain = path.components().all(|part| !matches!(part, std::path::Component::ParentDir));
    if !path.is_absolute() || !plain || base.contains('\0') {
        return Err(Problem::invalid("base: expected an absolute path without '..'"));
    }
    if !path.is_dir() {
        return Err(Problem::invalid("base: there is no such directory on this machine").try_next("create it first"));
    }
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
        .map_err(|_| Problem::invalid("base: this process may not write there"))
}

/// Whether one path is inside the other, which would mix two servers' files.
fn paths_overlap(one: &str, other: &str) -> bool {
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
        assert!(paths_overlap("/a/b", "/a"));
        assert!(paths_overlap("/a", "/a/b"));
        assert!(!paths_overlap("/a/b", "/a/bc"));
    }
}
