//! `/v1/backups`: the backups of tenants.

use std::collections::HashMap;

use axum::extract::State;
use axum::response::Response;
use catalog::backups::{self, BackupRecord};
use catalog::{BackupId, ReadTx, TenantId, tenants};
use fleet_api::backups::{BackupFilters, BackupRun, BackupVerify, BackupView};
use fleet_api::bounded_number::{StepConcurrency, TenantCount};
use fleet_api::changes::PlannedChange;
use fleet_api::operations::OperationView;
use fleet_api::pages::PageOf;
use fleet_api::problem::ProblemBody;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change;
use super::lookup;
use crate::http::ApiState;
use crate::http::admission::AdmittedCaller;
use crate::http::error::{Problem, Result};
use crate::http::extract::{JsonBody, PathParams, QueryParams};
use crate::http::pages::PageWindow;
use crate::operations::{OperationParams, backup, verify};
use crate::runner::submit::Submission;
use crate::time_text;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list_backups, run_backup))
        .routes(routes!(get_backup))
        .routes(routes!(verify_some))
}

/// The API's view of a record.
pub(crate) fn backup_view(record: BackupRecord, tenant: &str) -> BackupView {
    BackupView {
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

/// The names of the tenants of these backups.
async fn names_of(tx: &mut ReadTx, rows: &[BackupRecord]) -> Result<HashMap<TenantId, String>> {
    let mut ids: Vec<_> = rows.iter().map(|row| row.tenant_id).collect();
    ids.sort_unstable();
    ids.dedup();
    Ok(tenants::get_many(tx, &ids).await?.into_iter().map(|tenant| (tenant.id, tenant.name)).collect())
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
            backup_view(row, tenant)
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
    let mut backup = backup_view(record, &tenant);
    backup.manifest = Some(manifest);
    Ok(JsonBody(backup))
}

/// The backup with this id.
pub(crate) async fn find_backup(tx: &mut ReadTx, id: BackupId) -> Result<BackupRecord> {
    let found = backups::get(tx, id).await?;
    found.ok_or_else(|| Problem::not_found(format!("there is no backup {id}")).try_next("fleetctl backup list"))
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
