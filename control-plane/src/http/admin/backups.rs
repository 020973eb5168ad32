//! `/v1/backups`: the backups of tenants.

use std::collections::HashMap;

use axum::extract::State;
use axum::response::Response;
use catalog::backups::{self, BackupRecord};
use catalog::{BackupId, ReadTx, TenantId, tenants};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{self, PlannedChange};
use super::lookup;
use super::operations::OperationView;
use super::selection::SelectionRequest;
use crate::http::ApiState;
use crate::http::admission::AdmittedCaller;
use crate::http::bounded_number::{PageLimit, StepConcurrency, TenantCount};
use crate::http::error::{Problem, ProblemBody, Result};
use crate::http::extract::{JsonBody, PathParams, QueryParams};
use crate::http::pages::{PageOf, PageWindow};
use crate::operations::{OperationParams, backup, verify};
use crate::runner::submit::Submission;
use crate::time_text;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list_backups, run_backup))
        .routes(routes!(get_backup))
        .routes(routes!(verify_some))
}

/// A backup of one tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Backup)]
pub(crate) struct BackupView {
    /// Id of the backup: `bkp_…`.
    id: String,
    /// Current name of the tenant.
    tenant: String,
    /// Id of the tenant: `tnt_…`.
    tenant_id: String,
    /// Time of the snapshot, RFC 3339. The backup has the tenant's data as of this time.
    taken_at: String,
    /// Size of the snapshot in bytes: the pages of a SQLite database, or the dump of a PostgreSQL database.
    size_bytes: i64,
    /// Size of the backup in the backup store, in bytes.
    stored_bytes: i64,
    /// Version of the newest migration in the backup; null if it has none.
    schema_version: Option<i64>,
    /// Engine of the database: sqlite or postgres.
    engine: String,
    /// Reason of the backup: manual, scheduled, pre_restore or pre_delete.
    reason: String,
    /// Hash of the content. Backups with equal content have equal hashes.
    content_hash: String,
    /// Time of the last successful verification, RFC 3339; null if there was none.
    verified_at: Option<String>,
    /// Error that the last verification found; null if it found none.
    verify_error: Option<String>,
    /// Backup store that holds the backup: `s3://bucket/prefix` and its endpoint, `file:///directory`, or `file:folder`
    /// inside the data directory. Null for a backup of an older program version.
    store: Option<String>,
    /// Key of the manifest in the backup store.
    object_key: String,
    /// The manifest as it is in the backup store. Only in answers about one backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<serde_json::Value>,
}

impl BackupView {
    /// The API's view of a record.
    pub(crate) fn new(record: BackupRecord, tenant: &str) -> Self {
        Self {
            id: record.id.to_string(),
            tenant: tenant.to_owned(),
            tenant_id: record.tenant_id.to_string(),
            taken_at: time_text::format_time(record.taken_at),
            size_bytes: record.size_bytes,
            stored_bytes: record.stored_bytes,
            schema_version: record.schema_version,
            engine: record.engine.to_string(),
            reason: record.reason,
            content_hash: record.content_hash,
            verified_at: time_text::format_optional(record.verified_at),
            verify_error: record.verify_error,
            store: record.store,
            object_key: record.object_key,
            manifest: None,
        }
    }
}

/// The names of the tenants of these backups.
async fn names_of(tx: &mut ReadTx, rows: &[BackupRecord]) -> Result<HashMap<TenantId, String>> {
    let mut ids: Vec<_> = rows.iter().map(|row| row.tenant_id).collect();
    ids.sort_unstable();
    ids.dedup();
    Ok(tenants::get_many(tx, &ids).await?.into_iter().map(|tenant| (tenant.id, tenant.name)).collect())
}

/// Filters of a list of backups.
#[derive(Debug, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct BackupFilters {
    /// Only the items of the tenant with this name or id.
    tenant: Option<String>,
    /// Maximum number of items per page: 1 to 1000. Default: 100.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<PageLimit>,
    /// The `next_cursor` of the previous page. Absent: the first page.
    cursor: Option<String>,
}

/// List the backups, newest first.
#[utoipa::path(get, path = "/v1/backups", tag = "backups", params(BackupFilters),
    responses((status = 200, description = "One page of the list", body = PageOf<BackupView>), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn list_backups(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    QueryParams(filters): QueryParams<BackupFilters>,
) -> Result<JsonBody<PageOf<BackupView>>> {
    let window =
        PageWindow::open_window(&api, &caller, "backups", &filters, (filters.limit, filters.cursor.as_deref()))?;
    let mut tx = api.app.catalog.read().await?;
    let tenant = match &filters.tenant {
        Some(name) => Some(lookup::find_tenant(&mut tx, name).await?.id),
        None => None,
    };
    let rows = backups::list_backups(&mut tx, tenant, window.after_key()?, window.rows_to_read()).await?;
    let names = names_of(&mut tx, &rows).await?;
    let name = |id: &TenantId| names.get(id).map_or("", String::as_str);
    Ok(JsonBody(window.into_page(
        rows,
        |row| row.id.to_string(),
        |row| {
            let tenant = name(&row.tenant_id);
            BackupView::new(row, tenant)
        },
    )))
}

/// Get one backup with its manifest.
#[utoipa::path(get, path = "/v1/backups/{backup}", tag = "backups", params(("backup" = String, Path, description = "Id of the backup: bkp_…")),
    responses((status = 200, description = "The backup with its manifest", body = BackupView), (status = 404, description = "No backup has this id", body = ProblemBody)))]
async fn get_backup(
    State(api): State<ApiState>,
    _caller: AdmittedCaller,
    PathParams(id): PathParams<String>,
) -> Result<JsonBody<BackupView>> {
    let mut tx = api.app.catalog.read().await?;
    let record = find_backup(&mut tx, lookup::parse_id(&id)?).await?;
    let names = names_of(&mut tx, std::slice::from_ref(&record)).await?;
    drop(tx);
    let tenant = names.get(&record.tenant_id).cloned().unwrap_or_default();
    let manifest = api.app.backup_manifest(&record).await?;
    let mut backup = BackupView::new(record, &tenant);
    backup.manifest = Some(manifest);
    Ok(JsonBody(backup))
}

/// The backup with this id.
pub(crate) async fn find_backup(tx: &mut ReadTx, id: BackupId) -> Result<BackupRecord> {
    let found = backups::get(tx, id).await?;
    found.ok_or_else(|| Problem::not_found(format!("there is no backup {id}")).try_next("fleetctl backup list"))
}

/// A request to back up tenants.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BackupRun {
    /// Tenants to back up.
    selection: SelectionRequest,
    /// True: only describe the change and do nothing.
    #[serde(default)]
    dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    reason: Option<String>,
    /// Maximum number of steps that run at the same time: 1 to 128. Default: 128.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 128)]
    concurrency: Option<StepConcurrency>,
    /// Expected number of tenants. The request is refused if the plan has another number.
    #[schema(value_type = Option<u64>, minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    expect_count: Option<TenantCount>,
}

/// Back up tenants.
#[utoipa::path(post, path = "/v1/backups", tag = "backups", request_body = BackupRun,
    responses((status = 202, description = "The operation has started", body = OperationView), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn run_backup(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    JsonBody(run): JsonBody<BackupRun>,
) -> Result<Response> {
    let submission = Submission {
        operation: OperationParams::Backup(backup::BackupParams::default()).into(),
        targets: run.selection.into(),
        reason: run.reason,
        concurrency: run.concurrency.map(StepConcurrency::to_u32),
        expect_count: run.expect_count.map(TenantCount::get),
    };
    change::submit_or_plan(&api, &caller, submission, run.dry_run).await
}

/// A request to verify backups: the newest backup of each selected tenant, or the listed backups.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BackupVerify {
    /// Tenants whose newest backups are verified.
    #[serde(default)]
    selection: SelectionRequest,
    /// Ids of the backups to verify, instead of a selection. At most 1,000.
    #[serde(default)]
    backups: Vec<String>,
    /// True: only describe the change and do nothing.
    #[serde(default)]
    dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    reason: Option<String>,
    /// Maximum number of steps that run at the same time: 1 to 128. Default: 128.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 128)]
    concurrency: Option<StepConcurrency>,
    /// Expected number of tenants. The request is refused if the plan has another number.
    #[schema(value_type = Option<u64>, minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    expect_count: Option<TenantCount>,
}

/// Verify that backups can be restored.
#[utoipa::path(post, path = "/v1/backups/verify", tag = "backups", request_body = BackupVerify,
    responses((status = 202, description = "The operation has started", body = OperationView), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn verify_some(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    JsonBody(wanted): JsonBody<BackupVerify>,
) -> Result<Response> {
    if wanted.backups.len() > verify::BACKUPS_MAX {
        return Err(Problem::invalid(format!("backups: expected at most {}", verify::BACKUPS_MAX)));
    }
    let targets: crate::plan::TenantSelection = wanted.selection.into();
    if wanted.backups.is_empty() == targets.is_empty() {
        return Err(Problem::invalid("expected either a selection or backups"));
    }
    let backups = wanted.backups.iter().map(|id| lookup::parse_id(id)).collect::<Result<_>>()?;
    let submission = Submission {
        operation: OperationParams::Verify(verify::VerifyParams { backups }).into(),
        targets,
        reason: wanted.reason,
        concurrency: wanted.concurrency.map(StepConcurrency::to_u32),
        expect_count: wanted.expect_count.map(TenantCount::get),
    };
    change::submit_or_plan(&api, &caller, submission, wanted.dry_run).await
}
