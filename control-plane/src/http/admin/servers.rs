//! `/v1/servers`: the places databases live.

use axum::extract::State;
use axum::response::Response;
use catalog::{ServerRecord, ServerState, events, servers};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tenant_engine::{FunctionRights, Survey};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{Change, Wish, check_reason, settle};
use super::lookup;
use super::operations::Fault;
use crate::error::Error;
use crate::http::Api;
use crate::http::admission::Caller;
use crate::http::error::{Problem, ProblemBody, Result};
use crate::http::extract::{Json, Path, Query};
use crate::http::number::Limit;
use crate::http::pages::{PageOf, Window};

/// Servers asked at once for a list.
const SURVEYS_MAX: usize = 8;
/// What a server's problem is called when its role may not do what it must.
pub(crate) const PRIVILEGE_MISSING: &str = "server_privilege_missing";

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get, remove))
        .routes(routes!(cordon))
        .routes(routes!(uncordon))
        .routes(routes!(preparation))
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
    /// Whether it answers now.
    healthy: bool,
    /// Why it does not, or what its role lacks.
    problem: Option<Fault>,
    /// What it runs, in its own words; null when it does not answer.
    version: Option<String>,
    /// Who may run the functions of PostgreSQL that tell of other tenants: granted (everybody), revoked_in_new, outdated or
    /// revoked. Null for a directory.
    function_rights: Option<String>,
    /// Sessions open on it, everybody's; null for a directory.
    connections_used: Option<u64>,
    /// Sessions it allows to roles like ours; null for a directory.
    connections_max: Option<u64>,
    /// Of these, what all processes of the fleet together may hold for requests; null for a directory.
    connections_budget: Option<u64>,
    /// Bytes of all its databases; null when they cannot be asked quickly.
    databases_bytes: Option<u64>,
    /// Null when its disk cannot be asked.
    disk_free_bytes: Option<u64>,
    /// Null when its disk cannot be asked.
    disk_total_bytes: Option<u64>,
}

impl Server {
    /// The wire form of a record, with what the server says about itself now.
    pub(crate) fn new(record: ServerRecord, tenants: i64, survey: Result<Survey, Error>) -> Self {
        let (survey, problem) = match survey {
            Ok(survey) => {
                let lacks = (!survey.lacks.is_empty()).then(|| survey.lacks.join("; "));
                (survey, lacks.and_then(|lacks| Fault::new(Some(PRIVILEGE_MISSING.to_owned()), Some(lacks))))
            }
            Err(error) => (Survey::default(), Fault::new(Some(error.code.to_string()), Some(error.detail))),
        };
        Self {
            id: record.id.to_string(),
            name: record.name,
            engine: record.engine.to_string(),
            base: record.base,
            state: record.state,
            tenants,
            tenants_max: record.tenants_max,
            healthy: problem.is_none(),
            problem,
            version: Some(survey.version).filter(|version| !version.is_empty()),
            function_rights: survey.function_rights.map(|rights| function_rights(rights).to_owned()),
            connections_used: survey.connections_used,
            connections_max: survey.connections_max,
            connections_budget: survey.connections_budget,
            databases_bytes: survey.databases_bytes,
            disk_free_bytes: survey.disk_free_bytes,
            disk_total_bytes: survey.disk_total_bytes,
        }
    }

    /// The same; asks the server.
    pub(crate) async fn surveyed(api: &Api, record: ServerRecord, tenants: i64) -> Self {
        let survey = survey(api, &record).await;
        Self::new(record, tenants, survey)
    }
}

fn function_rights(rights: FunctionRights) -> &'static str {
    match rights {
        FunctionRights::Granted => "granted",
        FunctionRights::RevokedInNew => "revoked_in_new",
        FunctionRights::Outdated => "outdated",
        FunctionRights::Revoked => "revoked",
    }
}

/// Servers with what each says about itself, a few asked at once.
pub(crate) async fn surveyed(api: &Api, rows: Vec<(ServerRecord, i64)>) -> Vec<Server> {
    let asked = rows.into_iter().map(|(server, tenants)| Server::surveyed(api, server, tenants));
    futures_util::stream::iter(asked).buffered(SURVEYS_MAX).collect().await
}

/// What a known server says about itself.
pub(crate) async fn survey(api: &Api, record: &ServerRecord) -> Result<Survey, Error> {
    let server = api.app.fleet.server(record.id).await?;
    Ok(api.app.fleet.engine(record.engine)?.survey(&server).await?)
}

/// Which part of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Part {
    /// 1 to 1000; 100 unless given.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<Limit>,
    /// From the page before.
    cursor: Option<String>,
}

/// The servers, by name.
#[utoipa::path(get, path = "/v1/servers", tag = "servers", params(Part),
    responses((status = 200, description = "A page", body = PageOf<Server>), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn list(State(api): State<Api>, caller: Caller, Query(part): Query<Part>) -> Result<Json<PageOf<Server>>> {
    let window = Window::open(&api, &caller, "servers", &(), (part.limit, part.cursor.as_deref()))?;
    let after: Option<String> = window.after()?;
    let mut rows = servers::list(&mut api.app.catalog.read().await?).await?;
    rows.retain(|(server, _)| after.as_ref().is_none_or(|after| server.name > *after));
    let page = window.page(rows, |(server, _)| server.name.clone(), |row| row);
    let items = surveyed(&api, page.items).await;
    Ok(Json(PageOf { items, next_cursor: page.next_cursor }))
}

/// One server.
#[utoipa::path(get, path = "/v1/servers/{server}", tag = "servers", params(("server" = String, Path, description = "Name or id")),
    responses((status = 200, description = "The server", body = Server), (status = 404, description = "No such server", body = ProblemBody)))]
async fn get(State(api): State<Api>, _caller: Caller, Path(name): Path<String>) -> Result<Json<Server>> {
    let mut tx = api.app.catalog.read().await?;
    let id = lookup::server(&mut tx, &name).await?.id;
    let found = servers::list(&mut tx).await?.into_iter().find(|(server, _)| server.id == id);
    drop(tx);
    let (server, tenants) = found.ok_or_else(|| Problem::not_found("there is no such server any more"))?;
    Ok(Json(Server::surveyed(&api, server, tenants).await))
}

/// What an administrator of a server runs once.
#[derive(Debug, Serialize, ToSchema)]
struct Preparation {
    /// For psql; null where nothing is to be run.
    script: Option<String>,
}

/// The script by which a superuser takes the right to run functions that tell of other tenants from everybody else.
#[utoipa::path(get, path = "/v1/servers/{server}/preparation", tag = "servers", params(("server" = String, Path, description = "Name or id")),
    responses((status = 200, description = "The script", body = Preparation), (status = 404, description = "No such server", body = ProblemBody)))]
async fn preparation(State(api): State<Api>, _caller: Caller, Path(name): Path<String>) -> Result<Json<Preparation>> {
    let record = lookup::server(&mut api.app.catalog.read().await?, &name).await?;
    let server = api.app.fleet.server(record.id).await?;
    let script = api.app.fleet.engine(record.engine)?.preparation(&server).await.map_err(Error::from)?;
    Ok(Json(Preparation { script }))
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
    // Before the transaction, which waits for nothing but the catalog.
    let found = lookup::server(&mut api.app.catalog.read().await?, name).await?;
    let survey = survey(api, &found).await;
    let mut tx = api.app.catalog.write().await?;
    let mut server = lookup::server(&mut tx, name).await?;
    let tenants = servers::list(&mut tx).await?.into_iter().find(|(s, _)| s.id == server.id).map_or(0, |(_, n)| n);
    servers::set_state(&mut tx, server.id, to).await?;
    let data = serde_json::json!({ "server": server.name, "state": to });
    let kind = "server.state_changed";
    events::append(&mut tx, &[caller.event(kind, None, data, wish.reason.as_deref())]).await?;
    server.state = to;
    let change = Change { kind, tenant: None, action: format!("'{}' would change its state", server.name) };
    settle(tx, wish.dry_run, change, Json(Server::new(server, tenants, survey))).await
}
