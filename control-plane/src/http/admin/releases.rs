//! `/v1/releases`: immutable migration sets.

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::Response;
use catalog::releases::{self, ReleaseRecord};
use catalog::{ReadTx, ReleaseId, events, fleet};
use serde::{Deserialize, Serialize};
use tenant_engine::migration::{File, MigrationSet, MigrationSets};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{Change, Planned, Wish, check_reason, settle};
use super::lookup;
use crate::error::Error;
use crate::http::admission::Caller;
use crate::http::error::{Problem, ProblemBody, Result};
use crate::http::extract::{Json, Path, Query};
use crate::http::number::Limit;
use crate::http::pages::{PageOf, Window};
use crate::http::routes::BULK_BYTES_MAX;
use crate::http::{Api, time};
use crate::operations::{Params, migrate};
use crate::plan::Selection;
use crate::runner::submit::{Mode, Submission};

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list, add))
        .layer(DefaultBodyLimit::max(BULK_BYTES_MAX))
        .routes(routes!(get))
        .routes(routes!(activate))
}

/// A release.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Release {
    /// `rel_…`
    id: String,
    /// Of versions and checksums.
    digest: String,
    /// Whose SQL it is: any, sqlite, postgres or sqlite+postgres.
    engine: String,
    /// The newest version.
    head_version: Option<i64>,
    /// Ordered.
    versions: Vec<ReleaseVersion>,
    /// Whether new tenants start from it.
    current: bool,
    /// RFC 3339.
    created_at: String,
    /// Who stored it.
    created_by: String,
    /// The files it is made of; only in answers about one release.
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<Vec<String>>,
}

/// One migration of a release.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReleaseVersion {
    /// The number before the first underscore.
    version: i64,
    /// The rest of the file's name.
    description: String,
    /// False: runs outside a transaction.
    transactional: bool,
}

/// A migration file.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReleaseFile {
    /// As in the directory: `0001_tasks.sql`, or `postgres/0001_tasks.sql` when each engine has its own.
    name: String,
    /// Its text, byte for byte.
    sql: String,
}

impl From<ReleaseFile> for File {
    fn from(file: ReleaseFile) -> Self {
        Self { name: file.name, sql: file.sql }
    }
}

impl Release {
    fn new(record: ReleaseRecord, files: &[File], current: Option<ReleaseId>) -> Self {
        let versions = MigrationSets::from_files(files).map(|sets| versions(sets.versions())).unwrap_or_default();
        Self {
            current: current == Some(record.id),
            id: record.id.to_string(),
            digest: record.digest,
            engine: record.engine,
            head_version: record.head_version,
            versions,
            created_at: time::text(record.created_at),
            created_by: record.created_by,
            files: None,
        }
    }

    /// The wire form of a record; reads its files.
    pub(crate) async fn read(tx: &mut ReadTx, record: ReleaseRecord) -> Result<Self> {
        let current = fleet::current_release(tx).await?;
        let files = releases::files(tx, record.id).await?;
        Ok(Self::new(record, &files, current))
    }
}

fn versions(set: &MigrationSet) -> Vec<ReleaseVersion> {
    let version = |m: &tenant_engine::migration::Migration| ReleaseVersion {
        version: m.version,
        description: m.description.clone(),
        transactional: m.transactional,
    };
    set.migrations().iter().map(version).collect()
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

/// The releases, newest first.
#[utoipa::path(get, path = "/v1/releases", tag = "releases", params(Part),
    responses((status = 200, description = "A page", body = PageOf<Release>), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn list(State(api): State<Api>, caller: Caller, Query(part): Query<Part>) -> Result<Json<PageOf<Release>>> {
    let window = Window::open(&api, &caller, "releases", &(), (part.limit, part.cursor.as_deref()))?;
    let mut tx = api.app.catalog.read().await?;
    let rows = releases::page(&mut tx, window.after()?, window.rows()).await?;
    let page = window.page(rows, |row| row.id.to_string(), |row| row);
    let mut items = Vec::with_capacity(page.items.len());
    for record in page.items {
        items.push(Release::read(&mut tx, record).await?);
    }
    Ok(Json(PageOf { items, next_cursor: page.next_cursor }))
}

/// A migration set.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewRelease {
    /// Every file of the directory that is a migration.
    files: Vec<ReleaseFile>,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// Why, for the audit log.
    reason: Option<String>,
}

/// Stores a release; the same set again is the same release.
#[utoipa::path(post, path = "/v1/releases", tag = "releases", request_body = NewRelease,
    responses((status = 201, description = "The release", body = Release), (status = 200, description = "A dry run", body = Planned), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn add(State(api): State<Api>, caller: Caller, Json(new): Json<NewRelease>) -> Result<Response> {
    check_reason(new.reason.as_deref())?;
    let files: Vec<File> = new.files.into_iter().map(File::from).collect();
    let mut tx = api.app.catalog.write().await?;
    let record = releases::ensure(&mut tx, &sets_of(&files)?, &files, &caller.who.actor).await?;
    let data = serde_json::json!({ "release": record.id, "head_version": record.head_version });
    events::append(&mut tx, &[caller.event("release.stored", None, data, new.reason.as_deref())]).await?;
    let release = Release::read(&mut tx, record).await?;
    let action = format!("a release with head {:?} would be stored", release.head_version);
    let change = Change { kind: "release.stored", tenant: None, action };
    settle(tx, new.dry_run, change, (StatusCode::CREATED, Json(release))).await
}

/// The sets these files make; no files are a mistake, not a release.
pub(crate) fn sets_of(files: &[File]) -> Result<MigrationSets> {
    let sets = MigrationSets::from_files(files).map_err(Error::from)?;
    if sets.versions().migrations().is_empty() {
        let detail = "files: none is a migration; names begin with a number, as 0001_tasks.sql";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "migration_invalid", detail));
    }
    Ok(sets)
}

/// One release with the names of its files.
#[utoipa::path(get, path = "/v1/releases/{release}", tag = "releases", params(("release" = String, Path, description = "rel_…")),
    responses((status = 200, description = "The release", body = Release), (status = 404, description = "No such release", body = ProblemBody)))]
async fn get(State(api): State<Api>, _caller: Caller, Path(id): Path<String>) -> Result<Json<Release>> {
    let mut tx = api.app.catalog.read().await?;
    let record = find(&mut tx, &id).await?;
    let files = releases::files(&mut tx, record.id).await?;
    let mut release = Release::new(record, &files, fleet::current_release(&mut tx).await?);
    release.files = Some(files.into_iter().map(|file| file.name).collect());
    Ok(Json(release))
}

/// Makes a release the one that new tenants start from.
#[utoipa::path(post, path = "/v1/releases/{release}/activate", tag = "releases", request_body = Wish, params(("release" = String, Path, description = "rel_…")),
    responses((status = 200, description = "As it is now", body = Release), (status = 404, description = "No such release", body = ProblemBody)))]
async fn activate(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    Json(wish): Json<Wish>,
) -> Result<Response> {
    check_reason(wish.reason.as_deref())?;
    let record = find(&mut api.app.catalog.read().await?, &id).await?;
    require_agreement(&api, &caller, record.id).await?;
    let mut tx = api.app.catalog.write().await?;
    fleet::set_current_release(&mut tx, record.id).await?;
    let data = serde_json::json!({ "release": record.id });
    events::append(&mut tx, &[caller.event("release.activated", None, data, wish.reason.as_deref())]).await?;
    let release = Release::read(&mut tx, record).await?;
    let action = format!("new tenants would start from {}", release.id);
    settle(tx, wish.dry_run, Change { kind: "release.activated", tenant: None, action }, Json(release)).await
}

/// Refuses a release whose files contradict what tenants have applied. Tenants may be newer: an operator may go back
/// to an older release for new tenants.
async fn require_agreement(api: &Api, caller: &Caller, release: ReleaseId) -> Result<()> {
    let params = Params::Migrate(migrate::Params::to(migrate::Release::Id(release)));
    match api.app.submit(&caller.who, Submission::new(params, Selection::all()), Mode::Plan).await {
        Err(error) if error.code != "migration_ahead" => Err(error.into()),
        _ => Ok(()),
    }
}

/// The release of this id.
pub(crate) async fn find(tx: &mut ReadTx, id: &str) -> Result<ReleaseRecord> {
    let parsed: ReleaseId = lookup::id(id)?;
    let found = releases::get(tx, parsed).await?;
    found.ok_or_else(|| Problem::not_found(format!("there is no release {parsed}")).try_next("fleetctl release list"))
}
