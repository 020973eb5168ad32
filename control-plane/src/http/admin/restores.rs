//! `/v1/restores`: restores a backup, in place or as a new tenant, and undoes a restore.

use axum::extract::State;
use axum::response::Response;
use catalog::backups::{self, BackupRecord};
use catalog::{ReadTx, TenantId, TenantRecord, servers};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::backups::{BackupView, find_backup};
use super::change::{self, PlannedChange};
use super::lookup;
use super::migrations::pins;
use super::operations::OperationView;
use super::tenants::TenantView;
use crate::error::ErrorKind;
use crate::http::admission::AdmittedCaller;
use crate::http::error::{Problem, ProblemBody, Result};
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

/// A request to restore a tenant.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RestoreRun {
    /// Name (slug, alias or host) or id of the tenant.
    tenant: String,
    /// Backup to restore: `latest` (the last backup), an RFC 3339 time (the last backup taken at or before it), or
    /// `bkp_…`.
    to: String,
    /// Name of a new tenant that gets the data. Absent: the tenant is restored in place.
    #[serde(rename = "as")]
    as_name: Option<String>,
    /// Schema of the tenant after the restore. Default: that of the backup.
    #[serde(default)]
    schema: RestoreSchema,
    /// True: only describe the change and do nothing.
    #[serde(default)]
    dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    reason: Option<String>,
}

/// The schema of a restored tenant.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum RestoreSchema {
    /// The schema of the backup. A tenant that is then behind is pinned to that version until a migration names it.
    #[default]
    Backup,
    /// The tenant's current schema: the restored data is migrated to it.
    Current,
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

/// A request to undo the last restore of a tenant.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RestoreUndo {
    /// Name (slug, alias or host) or id of the tenant.
    tenant: String,
    /// True: only describe the change and do nothing.
    #[serde(default)]
    dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    reason: Option<String>,
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

/// A restore to describe.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RestoreAsk {
    /// Name (slug, alias or host) or id of the tenant.
    tenant: String,
    /// Backup to restore; the same values as in a restore.
    to: String,
    /// Schema after the restore; the same values as in a restore.
    #[serde(default)]
    schema: RestoreSchema,
}

/// The effect of a restore in place.
#[derive(Debug, Serialize, ToSchema)]
struct RestorePreview {
    /// Backup that would be restored.
    backup: BackupView,
    /// The tenant as it is now.
    current: TenantView,
    /// Version of the tenant's newest migration after the restore; null if it would have none.
    schema_version: Option<i64>,
    /// True if the tenant would be pinned: migrations of many tenants leave it out until one names it.
    pinned: bool,
    /// Description of the restore.
    will: String,
    /// Time until which a restore made now could be undone, RFC 3339.
    undo_until_at: String,
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
        backup: BackupView::new(backup, &tenant.name),
        current: TenantView::new(tenant, server.as_ref(), pins::head_version(&mut tx).await?),
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
        Problem::new(ErrorKind::BackupNotFound, "this tenant has no such backup")
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
