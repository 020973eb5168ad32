//! `/v1/releases`: immutable migration sets.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::Response;
use catalog::releases::{self, ReleaseRecord};
use catalog::{ReadTx, ReleaseId, TenantState, events, fleet};
use fleet_api::changes::{ChangeOptions, PlannedChange};
use fleet_api::pages::PageOf;
use fleet_api::problem::ProblemBody;
use fleet_api::releases::{IgnoredFile, NewRelease, ReleaseFile, ReleaseListQuery, ReleaseVersion, ReleaseView};
use tenant_engine::migration::{MigrationFile, MigrationSet, MigrationSets, ignored_files};
use tenant_engine::{DatabaseServer, EngineKind};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{CatalogChange, check_reason, finish_change};
use super::lookup;
use crate::error::{Error, ErrorKind};
use crate::http::ApiState;
use crate::http::admission::AdmittedCaller;
use crate::http::error::{Problem, Result};
use crate::http::extract::{JsonBody, PathParams, QueryParams};
use crate::http::limits::BULK_BYTES_MAX;
use crate::http::pages::PageWindow;
use crate::operation::ledger_name;
use crate::operation::ledgers::{self, ReadLedgers};
use crate::operations::{OperationParams, migrate};
use crate::plan::TenantSelection;
use crate::runner::submit::{Submission, SubmitMode};
use crate::time_text;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list_releases, add_release))
        .layer(DefaultBodyLimit::max(BULK_BYTES_MAX))
        .routes(routes!(get_release))
        .routes(routes!(activate_release))
}

fn list_ignored(files: &[MigrationFile]) -> Vec<IgnoredFile> {
    let why = "a name is a number, an underscore and words, as 0001_tasks.sql";
    ignored_files(files).into_iter().map(|name| IgnoredFile { name, why: why.to_owned() }).collect()
}

/// The files as the engines read them.
pub(crate) fn migration_files(files: Vec<ReleaseFile>) -> Vec<MigrationFile> {
    files.into_iter().map(|ReleaseFile { name, sql }| MigrationFile { name, sql }).collect()
}

pub(crate) fn release_view(record: ReleaseRecord, files: &[MigrationFile], current: Option<ReleaseId>) -> ReleaseView {
    let versions =
        MigrationSets::from_files(files).map(|sets| release_versions(sets.version_set())).unwrap_or_default();
    ReleaseView {
        current: current == Some(record.id),
        id: record.id.to_string(),
        digest: record.digest,
        engine: record.engine,
        head_version: record.head_version,
        versions,
        created_at: time_text::format_time(record.created_at),
        created_by: record.created_by,
        files: None,
        ignored: Vec::new(),
        notes: Vec::new(),
    }
}

/// The API's view of a record, with its files.
pub(crate) async fn load_release_view(tx: &mut ReadTx, record: ReleaseRecord) -> Result<ReleaseView> {
    let current = fleet::current_release(tx).await?;
    let files = releases::release_files(tx, record.id).await?;
    Ok(release_view(record, &files, current))
}

fn release_versions(set: &MigrationSet) -> Vec<ReleaseVersion> {
    let version = |m: &tenant_engine::migration::Migration| ReleaseVersion {
        version: m.version,
        description: m.description.clone(),
        transactional: m.transactional,
    };
    set.all_migrations().iter().map(version).collect()
}

/// List the releases, newest first.
#[utoipa::path(get, path = "/v1/releases", tag = "releases", params(ReleaseListQuery),
    responses((status = 200, description = "One page of the list", body = PageOf<ReleaseView>), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn list_releases(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    QueryParams(part): QueryParams<ReleaseListQuery>,
) -> Result<JsonBody<PageOf<ReleaseView>>> {
    let window = PageWindow::open_window(&api, &caller, "releases", &(), (part.limit, part.cursor.as_deref()))?;
    let mut tx = api.app.catalog.read().await?;
    let rows = releases::list_releases(&mut tx, window.after_key()?, window.rows_to_read()).await?;
    let page = window.into_page(rows, |row| row.id.to_string(), |row| row);
    let mut items = Vec::with_capacity(page.items.len());
    for record in page.items {
        items.push(load_release_view(&mut tx, record).await?);
    }
    Ok(JsonBody(PageOf { items, next_cursor: page.next_cursor }))
}

/// Store a release.
///
/// The same set of migrations is stored only once: the answer is the same release.
#[utoipa::path(post, path = "/v1/releases", tag = "releases", request_body = NewRelease,
    responses((status = 201, description = "The release", body = ReleaseView), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn add_release(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    JsonBody(new): JsonBody<NewRelease>,
) -> Result<Response> {
    check_reason(new.reason.as_deref())?;
    let files = migration_files(new.files);
    let sets = Arc::new(sets_of(&files)?);
    let notes = admit_release(&api, &sets).await?;
    let mut tx = api.app.catalog.write().await?;
    ledger_name::require_same(&mut tx, &sets).await?;
    let record = releases::ensure_release(&mut tx, &sets, &files, &caller.who.actor).await?;
    let data = serde_json::json!({ "release": record.id, "head_version": record.head_version });
    events::append_events(&mut tx, &[caller.caller_event("release.stored", None, data, new.reason.as_deref())]).await?;
    let release = ReleaseView { ignored: list_ignored(&files), notes, ..load_release_view(&mut tx, record).await? };
    let action = format!("a release with head {:?} would be stored", release.head_version);
    let change = CatalogChange { kind: "release.stored", tenant: None, action };
    finish_change(tx, &caller, new.dry_run, change, (StatusCode::CREATED, JsonBody(release))).await
}

/// Refuses a release with a file that no database can run and no tenant has applied. Returns further notes.
async fn admit_release(api: &ApiState, sets: &Arc<MigrationSets>) -> Result<Vec<String>> {
    let refused = migrate::refused_texts(sets).await;
    if refused.is_empty() {
        return Ok(Vec::new());
    }
    let mut everyone = TenantSelection::all_tenants();
    // A fleet without tenants can have releases, too.
    everyone.allow_empty = true;
    let tenants = api.app.runner.select_in(&everyone, &[TenantState::Active, TenantState::Suspended]).await?;
    let none = ReadLedgers::new();
    let known = ledgers::group_ledgers(&mut api.app.catalog.read().await?, &tenants, &none).await?;
    let read = ledgers::read_ledgers(&api.app.context, &known.unread).await;
    let known = ledgers::group_ledgers(&mut api.app.catalog.read().await?, &tenants, &read).await?;
    let engines: Vec<EngineKind> =
        api.app.context.one_of_each_engine().await?.iter().map(DatabaseServer::engine_kind).collect();
    match refused.refuse_all(&engines, &known.ledgers) {
        Some(error) => Err(error.into()),
        None => Ok(refused.engine_notes(&engines, &known.ledgers)),
    }
}

/// The migration sets of these files. An empty list is a mistake and refused.
pub(crate) fn sets_of(files: &[MigrationFile]) -> Result<MigrationSets> {
    let sets = MigrationSets::from_files(files).map_err(Error::from)?;
    if sets.version_set().all_migrations().is_empty() {
        let detail = "files: none is a migration; names begin with a number, such as 0001_tasks.sql";
        return Err(Problem::new(ErrorKind::Engine(tenant_engine::ErrorKind::MigrationInvalid), detail));
    }
    Ok(sets)
}

/// Get one release with the names of its files.
#[utoipa::path(get, path = "/v1/releases/{release}", tag = "releases", params(("release" = String, Path, description = "Id of the release: rel_…")),
    responses((status = 200, description = "The release", body = ReleaseView), (status = 404, description = "No release has this id", body = ProblemBody)))]
async fn get_release(
    State(api): State<ApiState>,
    _caller: AdmittedCaller,
    PathParams(id): PathParams<String>,
) -> Result<JsonBody<ReleaseView>> {
    let mut tx = api.app.catalog.read().await?;
    let record = find_release(&mut tx, &id).await?;
    let files = releases::release_files(&mut tx, record.id).await?;
    let mut release = release_view(record, &files, fleet::current_release(&mut tx).await?);
    release.files = Some(files.into_iter().map(|file| file.name).collect());
    Ok(JsonBody(release))
}

/// Activate a release: new tenants start from it.
#[utoipa::path(post, path = "/v1/releases/{release}/activate", tag = "releases", request_body = ChangeOptions, params(("release" = String, Path, description = "Id of the release: rel_…")),
    responses((status = 200, description = "The release after the change", body = ReleaseView), (status = 404, description = "No release has this id", body = ProblemBody)))]
async fn activate_release(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(id): PathParams<String>,
    JsonBody(wish): JsonBody<ChangeOptions>,
) -> Result<Response> {
    check_reason(wish.reason.as_deref())?;
    let record = find_release(&mut api.app.catalog.read().await?, &id).await?;
    require_agreement(&api, &caller, record.id).await?;
    let mut tx = api.app.catalog.write().await?;
    fleet::set_current_release(&mut tx, record.id).await?;
    let data = serde_json::json!({ "release": record.id });
    events::append_events(&mut tx, &[caller.caller_event("release.activated", None, data, wish.reason.as_deref())])
        .await?;
    let release = load_release_view(&mut tx, record).await?;
    let action = format!("new tenants would start from {}", release.id);
    finish_change(
        tx,
        &caller,
        wish.dry_run,
        CatalogChange { kind: "release.activated", tenant: None, action },
        JsonBody(release),
    )
    .await
}

/// Refuses a release whose files contradict what tenants have applied. Tenants may be newer, because an operator may
/// return to an older release for new tenants.
async fn require_agreement(api: &ApiState, caller: &AdmittedCaller, release: ReleaseId) -> Result<()> {
    let params = OperationParams::Migrate(migrate::MigrateParams::to_head(migrate::ReleaseSource::Id(release)));
    match api
        .app
        .runner
        .submit_operation(&caller.who, Submission::new(params, TenantSelection::all_tenants()), SubmitMode::Plan)
        .await
    {
        Err(error) if error.kind != ErrorKind::Engine(tenant_engine::ErrorKind::MigrationAhead) => Err(error.into()),
        _ => Ok(()),
    }
}

/// The release with this id.
pub(crate) async fn find_release(tx: &mut ReadTx, id: &str) -> Result<ReleaseRecord> {
    let parsed: ReleaseId = lookup::parse_id(id)?;
    let found = releases::get(tx, parsed).await?;
    found.ok_or_else(|| Problem::not_found(format!("there is no release {parsed}")).try_next("fleetctl release list"))
}
