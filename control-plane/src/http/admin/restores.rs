//! `/v1/restores`: restores a backup, in place or as a new tenant, and undoes a restore.

use axum::extract::State;
use axum::response::Response;
use catalog::backups::{self, BackupRecord};
use catalog::{ReadTx, TenantId, TenantRecord, servers};
use fleet_api::changes::PlannedChange;
use fleet_api::operations::OperationView;
use fleet_api::problem::ProblemBody;
use fleet_api::restores::{RestoreAsk, RestorePreview, RestoreRun, RestoreSchema, RestoreUndo};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::backups::find_backup;
use super::change;
use super::lookup;
use super::migrations::pins;
use crate::error::ErrorKind;
use crate::http::admin::backups::backup_view;
use crate::http::admin::tenants::tenant_view;
use crate::http::admission::AdmittedCaller;
use crate::http::error::{Problem, Result};
use crate::http::extract::JsonBody;
use crate::http::{ApiState, time};
use crate::operations::restore::RestorePoint;
use crate::operations::{OperationParams, restore, restore_undo};
use crate::plan::TenantSelection;
use crate::runner::submit::Submission;
use crate::time_text;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(run_restore)).routes(routes!(undo_restore)).routes(routes!(preview_restore))
}

impl From<RestoreSchema> for restore::RestoredSchema {
    fn from(schema: RestoreSchema) -> Self {
        match schema {
            RestoreSchema::Backup => Self::Backup,
            RestoreSchema::Current => Self::Current,
        }
    }
}

/// Restore a tenant from a backup.
#[utoipa::path(post, path = "/v1/restores", tag = "restores", request_body = RestoreRun,
    responses((status = 202, description = "The operation has started", body = OperationView), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange),
        (status = 404, description = "No tenant has this name or id, or it has no backup at that time", body = ProblemBody)))]
async fn run_restore(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    JsonBody(run): JsonBody<RestoreRun>,
) -> Result<Response> {
    let tenant = lookup::find_tenant(&mut api.app.catalog.read().await?, &run.tenant).await?;
    let params = restore::RestoreParams {
        to: parse_point(&run.to)?,
        as_name: run.as_name,
        schema: run.schema.into(),
        resolved: None,
    };
    let mut submission =
        Submission::new(OperationParams::Restore(params), TenantSelection::one_tenant(tenant.id.to_string()));
    submission.reason = run.reason;
    change::submit_or_plan(&api, &caller, submission, run.dry_run).await
}

/// Parses the value of `to`.
fn parse_point(to: &str) -> Result<RestorePoint> {
    if to == "latest" {
        return Ok(RestorePoint::Latest);
    }
    match to.parse() {
        Ok(backup) => Ok(RestorePoint::Backup(backup)),
        Err(_) => time::parse_time("to", to).map(RestorePoint::At),
    }
}

/// Undo the last restore of a tenant: return to the database that it replaced.
#[utoipa::path(post, path = "/v1/restores/undo", tag = "restores", request_body = RestoreUndo,
    responses((status = 202, description = "The operation has started", body = OperationView), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn undo_restore(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    JsonBody(undo): JsonBody<RestoreUndo>,
) -> Result<Response> {
    let tenant = lookup::find_tenant(&mut api.app.catalog.read().await?, &undo.tenant).await?;
    let params = OperationParams::RestoreUndo(restore_undo::RestoreUndoParams::default());
    let mut submission = Submission::new(params, TenantSelection::one_tenant(tenant.id.to_string()));
    submission.reason = undo.reason;
    change::submit_or_plan(&api, &caller, submission, undo.dry_run).await
}

/// Show what a restore in place would do.
#[utoipa::path(post, path = "/v1/restores/preview", tag = "restores", request_body = RestoreAsk,
    responses((status = 200, description = "Effect of the restore; nothing was changed", body = RestorePreview), (status = 404, description = "No tenant has this name or id, or it has no backup at that time", body = ProblemBody)))]
async fn preview_restore(
    State(api): State<ApiState>,
    _caller: AdmittedCaller,
    JsonBody(ask): JsonBody<RestoreAsk>,
) -> Result<JsonBody<RestorePreview>> {
    let mut tx = api.app.catalog.read().await?;
    let tenant = lookup::find_tenant(&mut tx, &ask.tenant).await?;
    let backup = backup_at(&mut tx, tenant.id, parse_point(&ask.to)?).await?;
    let server = servers::get(&mut tx, tenant.server_id).await?;
    let undo_until_at = time_text::format_time(tx.now() + api.app.config.undo_ms);
    let outlook = restore::schema_outlook(ask.schema.into(), &tenant, &backup)?;
    let mut will =
        format!("{}; {}", describe_restore(&tenant, &backup, tx.now()), outlook.describe_outlook(&tenant.name));
    if restore::clocks_disagree(&mut tx, &backup, parse_point(&ask.to)?).await? {
        will = format!("{will}; {}", restore::DISPUTED);
    }
    Ok(JsonBody(RestorePreview {
        will,
        backup: backup_view(backup, &tenant.name),
        current: tenant_view(tenant, server.as_ref(), pins::head_version(&mut tx).await?),
        schema_version: outlook.after,
        pinned: outlook.is_pinned,
        undo_until_at,
    }))
}

/// A tenant's backup that `to` means.
async fn backup_at(tx: &mut ReadTx, tenant: TenantId, to: RestorePoint) -> Result<BackupRecord> {
    let found = match to {
        RestorePoint::Latest => backups::newest_backup(tx, tenant, None).await?,
        RestorePoint::At(at) => backups::newest_backup(tx, tenant, Some(at)).await?,
        RestorePoint::Backup(id) => Some(find_backup(tx, id).await?).filter(|backup| backup.tenant_id == tenant),
    };
    found.ok_or_else(|| {
        Problem::new(ErrorKind::BackupNotFound, "this tenant has no backup that matches `to`")
            .try_next("fleetctl backup list <tenant>")
    })
}

fn describe_restore(tenant: &TenantRecord, backup: &BackupRecord, now: i64) -> String {
    let minutes = (now - backup.taken_at).max(0) / 60_000;
    let taken_at = time_text::format_time(backup.taken_at);
    let name = &tenant.name;
    format!(
        "{name} goes back to {taken_at}: the writes of the {minutes} minutes since then stay in the replaced database, which an undo brings back"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_latest_a_time_or_a_backup() {
        assert_eq!(parse_point("latest").unwrap(), RestorePoint::Latest);
        assert_eq!(parse_point("1970-01-01T00:00:01Z").unwrap(), RestorePoint::At(1_000));
        let id = catalog::BackupId::generate();
        assert_eq!(parse_point(&id.to_string()).unwrap(), RestorePoint::Backup(id));
        for bad in ["", "Latest", "yesterday", "bkp_1", "2026-11-23"] {
            assert_eq!(parse_point(bad).unwrap_err().http_status().as_u16(), 422, "{bad:?}");
        }
    }
}
