//! `/v1/servers`: the servers that hold databases.

mod connection;
mod directory;
mod drain;
mod relocation;

use axum::extract::State;
use axum::response::Response;
use catalog::{ServerRecord, ServerState, events, servers};
use fleet_api::changes::ChangeOptions;
use fleet_api::pages::PageOf;
use fleet_api::problem::ProblemBody;
use fleet_api::servers::{ServerListQuery, ServerPreparation, ServerView};
use futures_util::StreamExt as _;
use tenant_engine::{FunctionRights, ServerSurvey};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{CatalogChange, check_reason, finish_change};
use super::lookup;
use crate::error::{Error, ErrorKind};
use crate::health::servers::survey_server;
use crate::http::ApiState;
use crate::http::admin::operations::failure_detail;
use crate::http::admin::words::word_of;
use crate::http::admission::AdmittedCaller;
use crate::http::error::{Problem, Result};
use crate::http::extract::{JsonBody, PathParams, QueryParams};
use crate::http::pages::PageWindow;

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

/// The API's view of a record, with the server's present survey.
pub(crate) fn server_view(record: ServerRecord, tenants: i64, survey: Result<ServerSurvey, Error>) -> ServerView {
    let (survey, problem) = match survey {
        Ok(survey) => {
            let lacks = (!survey.lacks.is_empty()).then(|| survey.lacks.join("; "));
            (
                survey,
                lacks.and_then(|lacks| {
                    failure_detail(Some(ErrorKind::ServerPrivilegeMissing.code().to_owned()), Some(lacks))
                }),
            )
        }
        Err(error) => (ServerSurvey::default(), failure_detail(Some(error.code().to_owned()), Some(error.detail))),
    };
    ServerView {
        id: record.id.to_string(),
        name: record.name,
        engine: record.engine.to_string(),
        base: record.base,
        state: word_of(&record.state),
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
pub(crate) async fn surveyed_view(api: &ApiState, record: ServerRecord, tenants: i64) -> ServerView {
    let survey = survey_server(&api.app, &record).await;
    server_view(record, tenants, survey)
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
    let asked = rows.into_iter().map(|(server, tenants)| surveyed_view(api, server, tenants));
    futures_util::stream::iter(asked).buffered(SURVEYS_MAX).collect().await
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
    Ok(JsonBody(surveyed_view(&api, server, tenants).await))
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
    finish_change(tx, caller, wish.dry_run, change, JsonBody(server_view(server, tenants, survey))).await
}
