//! `/v1/servers`: the servers that hold databases.

mod connection;
mod directory;
mod drain;
mod relocation;

use axum::extract::State;
use axum::response::Response;
use catalog::{ServerRecord, ServerState, events, servers};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tenant_engine::{FunctionRights, ServerSurvey};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{CatalogChange, ChangeOptions, check_reason, finish_change};
use super::lookup;
use super::operations::FailureDetail;
use crate::error::{Error, ErrorKind};
use crate::health::servers::survey_server;
use crate::http::ApiState;
use crate::http::admission::AdmittedCaller;
use crate::http::bounded_number::PageLimit;
use crate::http::error::{Problem, ProblemBody, Result};
use crate::http::extract::{JsonBody, PathParams, QueryParams};
use crate::http::pages::{PageOf, PageWindow};

/// Servers surveyed at once for a list.
const SURVEYS_MAX: usize = 8;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list_servers))
        .routes(routes!(get_server, remove_server))
        .routes(routes!(cordon_server))
        .routes(routes!(uncordon_server))
        .routes(routes!(get_preparation))
        .merge(connection::routes())
        .merge(drain::routes())
}

/// A server, with its state and its present load.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Server)]
pub(crate) struct ServerView {
    /// Id of the server: `srv_…`.
    id: String,
    /// Name of the server, given by operators.
    name: String,
    /// Engine of the server: sqlite or postgres.
    engine: String,
    /// Place of the databases: the directory, or the address of the PostgreSQL server.
    base: String,
    /// State of the server: active, cordoned, draining or removed.
    #[schema(value_type = String)]
    state: ServerState,
    /// Number of databases on the server.
    tenants: i64,
    /// Maximum number of databases. At this number the server takes no new ones. Null: no maximum.
    tenants_max: Option<i64>,
    /// True if the server answers and its role has all required rights.
    healthy: bool,
    /// Reason why the server does not answer, or the rights that its role lacks. Null if the server is healthy.
    problem: Option<FailureDetail>,
    /// Version that the server reports; null if the server does not answer.
    version: Option<String>,
    /// Rights to run the functions of PostgreSQL that reveal other tenants: granted (to everybody), revoked_in_new,
    /// outdated or revoked. Null for a directory.
    function_rights: Option<String>,
    /// Number of open sessions of all users; null for a directory.
    connections_used: Option<u64>,
    /// Number of sessions that the server allows to roles like that of the fleet; null for a directory.
    connections_max: Option<u64>,
    /// Number of these sessions that all processes of the fleet together may hold for requests; null for a directory.
    connections_budget: Option<u64>,
    /// Size of all databases in bytes; null if the server cannot tell it quickly.
    databases_bytes: Option<u64>,
    /// Free space of the server's disk in bytes; null if it is not known.
    disk_free_bytes: Option<u64>,
    /// Size of the server's disk in bytes; null if it is not known.
    disk_total_bytes: Option<u64>,
}

impl ServerView {
    /// The API's view of a record, with the server's present survey.
    pub(crate) fn new(record: ServerRecord, tenants: i64, survey: Result<ServerSurvey, Error>) -> Self {
        let (survey, problem) = match survey {
            Ok(survey) => {
                let lacks = (!survey.lacks.is_empty()).then(|| survey.lacks.join("; "));
                (
                    survey,
                    lacks.and_then(|lacks| {
                        FailureDetail::new(Some(ErrorKind::ServerPrivilegeMissing.code().to_owned()), Some(lacks))
                    }),
                )
            }
            Err(error) => {
                (ServerSurvey::default(), FailureDetail::new(Some(error.code().to_owned()), Some(error.detail)))
            }
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

    /// The API's view of a record. Surveys the server.
    pub(crate) async fn with_survey(api: &ApiState, record: ServerRecord, tenants: i64) -> Self {
        let survey = survey_server(&api.app, &record).await;
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

/// The views of servers. A few are surveyed at once.
pub(crate) async fn survey_servers(api: &ApiState, rows: Vec<(ServerRecord, i64)>) -> Vec<ServerView> {
    let asked = rows.into_iter().map(|(server, tenants)| ServerView::with_survey(api, server, tenants));
    futures_util::stream::iter(asked).buffered(SURVEYS_MAX).collect().await
}

/// Page of a list of servers.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ServerListQuery {
    /// Maximum number of items per page: 1 to 1000. Default: 100.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<PageLimit>,
    /// The `next_cursor` of the previous page. Absent: the first page.
    cursor: Option<String>,
}

/// List the servers, ordered by name.
#[utoipa::path(get, path = "/v1/servers", tag = "servers", params(ServerListQuery),
    responses((status = 200, description = "One page of the list", body = PageOf<ServerView>), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn list_servers(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    QueryParams(part): QueryParams<ServerListQuery>,
) -> Result<JsonBody<PageOf<ServerView>>> {
    let window = PageWindow::open_window(&api, &caller, "servers", &(), (part.limit, part.cursor.as_deref()))?;
    let after: Option<String> = window.after_key()?;
    let mut rows = servers::list_servers(&mut api.app.catalog.read().await?).await?;
    rows.retain(|(server, _)| after.as_ref().is_none_or(|after| server.name > *after));
    let page = window.into_page(rows, |(server, _)| server.name.clone(), |row| row);
    let items = survey_servers(&api, page.items).await;
    Ok(JsonBody(PageOf { items, next_cursor: page.next_cursor }))
}

/// Get one server.
#[utoipa::path(get, path = "/v1/servers/{server}", tag = "servers", params(("server" = String, Path, description = "Name or id of the server")),
    responses((status = 200, description = "The server", body = ServerView), (status = 404, description = "No server has this name or id", body = ProblemBody)))]
async fn get_server(
    State(api): State<ApiState>,
    _caller: AdmittedCaller,
    PathParams(name): PathParams<String>,
) -> Result<JsonBody<ServerView>> {
    let mut tx = api.app.catalog.read().await?;
    let id = lookup::find_server(&mut tx, &name).await?.id;
    let found = servers::list_servers(&mut tx).await?.into_iter().find(|(server, _)| server.id == id);
    drop(tx);
    let (server, tenants) = found.ok_or_else(|| Problem::not_found("this server no longer exists"))?;
    Ok(JsonBody(ServerView::with_survey(&api, server, tenants).await))
}

/// The script that an administrator runs once on a server.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Preparation)]
struct ServerPreparation {
    /// Script for psql; null if there is nothing to run.
    script: Option<String>,
}

/// Get the script that prepares a PostgreSQL server.
///
/// A superuser runs it. Afterwards other roles may not run functions that reveal other tenants.
#[utoipa::path(get, path = "/v1/servers/{server}/preparation", tag = "servers", params(("server" = String, Path, description = "Name or id of the server")),
    responses((status = 200, description = "The script", body = ServerPreparation), (status = 404, description = "No server has this name or id", body = ProblemBody)))]
async fn get_preparation(
    State(api): State<ApiState>,
    _caller: AdmittedCaller,
    PathParams(name): PathParams<String>,
) -> Result<JsonBody<ServerPreparation>> {
    let record = lookup::find_server(&mut api.app.catalog.read().await?, &name).await?;
    let server = api.app.context.load_server(record.id).await?;
    let script =
        api.app.context.engine_of_kind(record.engine)?.preparation_script(&server).await.map_err(Error::from)?;
    Ok(JsonBody(ServerPreparation { script }))
}

/// Cordon a server: place no new tenants on it.
#[utoipa::path(post, path = "/v1/servers/{server}/cordon", tag = "servers", request_body = ChangeOptions, params(("server" = String, Path, description = "Name or id of the server")),
    responses((status = 200, description = "The server after the change", body = ServerView), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn cordon_server(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(name): PathParams<String>,
    JsonBody(wish): JsonBody<ChangeOptions>,
) -> Result<Response> {
    change_state(&api, &caller, &name, ServerState::Cordoned, wish).await
}

/// Uncordon a server: place new tenants on it again.
#[utoipa::path(post, path = "/v1/servers/{server}/uncordon", tag = "servers", request_body = ChangeOptions, params(("server" = String, Path, description = "Name or id of the server")),
    responses((status = 200, description = "The server after the change", body = ServerView), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn uncordon_server(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(name): PathParams<String>,
    JsonBody(wish): JsonBody<ChangeOptions>,
) -> Result<Response> {
    change_state(&api, &caller, &name, ServerState::Active, wish).await
}

/// Remove a server without tenants from the catalog.
#[utoipa::path(delete, path = "/v1/servers/{server}", tag = "servers", params(("server" = String, Path, description = "Name or id of the server"), ChangeOptions),
    responses((status = 200, description = "The server as it was before the removal", body = ServerView), (status = 409, description = "The server has tenants", body = ProblemBody)))]
async fn remove_server(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(name): PathParams<String>,
    QueryParams(wish): QueryParams<ChangeOptions>,
) -> Result<Response> {
    change_state(&api, &caller, &name, ServerState::Removed, wish).await
}

async fn change_state(
    api: &ApiState,
    caller: &AdmittedCaller,
    name: &str,
    to: ServerState,
    wish: ChangeOptions,
) -> Result<Response> {
    check_reason(wish.reason.as_deref())?;
    // Before the transaction, which must wait for nothing but the catalog.
    let found = lookup::find_server(&mut api.app.catalog.read().await?, name).await?;
    let survey = survey_server(&api.app, &found).await;
    let mut tx = api.app.catalog.write().await?;
    let mut server = lookup::find_server(&mut tx, name).await?;
    let tenants =
        servers::list_servers(&mut tx).await?.into_iter().find(|(s, _)| s.id == server.id).map_or(0, |(_, n)| n);
    servers::set_state(&mut tx, server.id, to).await?;
    let data = serde_json::json!({ "server": server.name, "state": to });
    let kind = "server.state_changed";
    events::append_events(&mut tx, &[caller.caller_event(kind, None, data, wish.reason.as_deref())]).await?;
    server.state = to;
    let change = CatalogChange { kind, tenant: None, action: format!("'{}' would change its state", server.name) };
    finish_change(tx, caller, wish.dry_run, change, JsonBody(ServerView::new(server, tenants, survey))).await
}
