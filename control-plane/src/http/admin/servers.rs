//! `/v1/servers`: the places databases live.

use std::path::Path as FilePath;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use catalog::{ServerRecord, ServerState, events, servers};
use serde::{Deserialize, Serialize};
use tenant_engine::EngineKind;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{Change, Planned, Wish, check_reason, settle};
use super::lookup;
use crate::http::Api;
use crate::http::admission::Caller;
use crate::http::error::{Problem, ProblemBody, Result};
use crate::http::extract::{Json, Path, Query};
use crate::http::pages::{PageOf, Window};

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list, add))
        .routes(routes!(get, remove))
        .routes(routes!(cordon))
        .routes(routes!(uncordon))
}

/// A server.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Server {
    /// `srv_…`
    id: String,
    /// What operators call it.
    name: String,
    /// What it runs.
    engine: String,
    /// Where its databases are.
    base: String,
    /// active, cordoned, draining or removed.
    #[schema(value_type = String)]
    state: ServerState,
    /// Databases on it.
    tenants: i64,
    /// No new ones beyond this.
    tenants_max: Option<i64>,
    /// Null when its disk cannot be asked.
    disk_free_bytes: Option<u64>,
    /// Null when its disk cannot be asked.
    disk_total_bytes: Option<u64>,
}

impl Server {
    /// The wire form of a record; asks the disk.
    pub(crate) fn new(record: ServerRecord, tenants: i64) -> Self {
        let disk = rustix::fs::statvfs(FilePath::new(&record.base)).ok();
        Self {
            id: record.id.to_string(),
            name: record.name,
            engine: record.engine.to_string(),
            base: record.base,
            state: record.state,
            tenants,
            tenants_max: record.tenants_max,
            disk_free_bytes: disk.as_ref().map(|d| d.f_bavail * d.f_frsize),
            disk_total_bytes: disk.as_ref().map(|d| d.f_blocks * d.f_frsize),
        }
    }
}

/// Which part of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Part {
    /// 1 to 1000; 100 unless given.
    limit: Option<u32>,
    /// From the page before.
    cursor: Option<String>,
}

/// The servers, by name.
#[utoipa::path(get, path = "/v1/servers", tag = "servers", params(Part),
    responses((status = 200, description = "A page", body = PageOf<Server>), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn list(State(api): State<Api>, caller: Caller, Query(part): Query<Part>) -> Result<Json<PageOf<Server>>> {
    let window = Window::open(&api, &caller, "servers", &(), (part.limit, part.cursor.as_deref()))?;
    let after: Option<String> = window.after()?;
    let mut tx = api.app.catalog.read().await?;
    let mut rows = servers::list(&mut tx).await?;
    rows.retain(|(server, _)| after.as_ref().is_none_or(|after| server.name > *after));
    Ok(Json(window.page(rows, |(server, _)| server.name.clone(), |(server, tenants)| Server::new(server, tenants))))
}

/// A place to add.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewServer {
    /// 1 to 63 of a-z, 0-9 and '-'.
    name: String,
    /// sqlite
    #[schema(value_type = String)]
    engine: EngineKind,
    /// An absolute directory that exists.
    base: String,
    /// No new databases beyond this.
    tenants_max: Option<i64>,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// Why, for the audit log.
    reason: Option<String>,
}

/// Adds a server.
#[utoipa::path(post, path = "/v1/servers", tag = "servers", request_body = NewServer,
    responses((status = 201, description = "The server", body = Server), (status = 200, description = "A dry run", body = Planned), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn add(State(api): State<Api>, caller: Caller, Json(new): Json<NewServer>) -> Result<Response> {
    check_reason(new.reason.as_deref())?;
    let name = catalog::Name::slug(&new.name)?;
    check_base(&new.base)?;
    if new.tenants_max.is_some_and(|max| max < 1) {
        return Err(Problem::invalid("tenants_max: expected at least 1"));
    }
    let mut tx = api.app.catalog.write().await?;
    let known = servers::list(&mut tx).await?;
    if let Some((other, _)) = known.iter().find(|(server, _)| overlap(&server.base, &new.base)) {
        let detail = format!("base: overlaps that of the server '{}'", other.name);
        return Err(Problem::new(StatusCode::CONFLICT, "already_exists", detail));
    }
    let record = servers::insert(&mut tx, name.as_str(), new.engine, &new.base, new.tenants_max).await?;
    let data = serde_json::json!({ "server": record.name, "base": record.base });
    events::append(&mut tx, &[caller.event("server.added", None, data, new.reason.as_deref())]).await?;
    let change = Change { kind: "server.added", tenant: None, action: format!("'{}' would be added", record.name) };
    settle(tx, new.dry_run, change, (StatusCode::CREATED, Json(Server::new(record, 0)))).await
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

/// One server.
#[utoipa::path(get, path = "/v1/servers/{server}", tag = "servers", params(("server" = String, Path, description = "Name or id")),
    responses((status = 200, description = "The server", body = Server), (status = 404, description = "No such server", body = ProblemBody)))]
async fn get(State(api): State<Api>, _caller: Caller, Path(name): Path<String>) -> Result<Json<Server>> {
    let mut tx = api.app.catalog.read().await?;
    let id = lookup::server(&mut tx, &name).await?.id;
    let found = servers::list(&mut tx).await?.into_iter().find(|(server, _)| server.id == id);
    let (server, tenants) = found.ok_or_else(|| Problem::not_found("there is no such server any more"))?;
    Ok(Json(Server::new(server, tenants)))
}

/// Takes no new tenants.
#[utoipa::path(post, path = "/v1/servers/{server}/cordon", tag = "servers", request_body = Wish, params(("server" = String, Path, description = "Name or id")),
    responses((status = 200, description = "As it is now", body = Server), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn cordon(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    Json(wish): Json<Wish>,
) -> Result<Response> {
    change(&api, &caller, &name, ServerState::Cordoned, wish).await
}

/// Takes new tenants again.
#[utoipa::path(post, path = "/v1/servers/{server}/uncordon", tag = "servers", request_body = Wish, params(("server" = String, Path, description = "Name or id")),
    responses((status = 200, description = "As it is now", body = Server), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn uncordon(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    Json(wish): Json<Wish>,
) -> Result<Response> {
    change(&api, &caller, &name, ServerState::Active, wish).await
}

/// Forgets a server that holds no tenant.
#[utoipa::path(delete, path = "/v1/servers/{server}", tag = "servers", params(("server" = String, Path, description = "Name or id"), Wish),
    responses((status = 200, description = "As it was", body = Server), (status = 409, description = "It holds tenants", body = ProblemBody)))]
async fn remove(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    Query(wish): Query<Wish>,
) -> Result<Response> {
    change(&api, &caller, &name, ServerState::Removed, wish).await
}

async fn change(api: &Api, caller: &Caller, name: &str, to: ServerState, wish: Wish) -> Result<Response> {
    check_reason(wish.reason.as_deref())?;
    let mut tx = api.app.catalog.write().await?;
    let mut server = lookup::server(&mut tx, name).await?;
    let tenants = servers::list(&mut tx).await?.into_iter().find(|(s, _)| s.id == server.id).map_or(0, |(_, n)| n);
    servers::set_state(&mut tx, server.id, to).await?;
    let data = serde_json::json!({ "server": server.name, "state": to });
    let kind = "server.state_changed";
    events::append(&mut tx, &[caller.event(kind, None, data, wish.reason.as_deref())]).await?;
    server.state = to;
    let change = Change { kind, tenant: None, action: format!("'{}' would change its state", server.name) };
    settle(tx, wish.dry_run, change, Json(Server::new(server, tenants))).await
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
