//! `/v1/restores`: back to a backup, in place or as a new tenant, and back again.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use catalog::backups::{self, BackupRecord};
use catalog::{ReadTx, TenantId, TenantRecord, servers};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::backups::{Backup, find};
use super::change::{self, Planned};
use super::lookup;
use super::operations::Operation;
use super::pins;
use super::tenants::Tenant;
use crate::http::admission::Caller;
use crate::http::error::{Problem, ProblemBody, Result};
use crate::http::extract::Json;
use crate::http::{Api, time};
use crate::operations::restore::To;
use crate::operations::{Params, restore, restore_undo};
use crate::plan::Selection;
use crate::runner::submit::Submission;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(run)).routes(routes!(undo)).routes(routes!(preview))
}

/// What to restore.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RestoreRun {
    /// Name or id.
    tenant: String,
    /// `latest` (the last backup), an RFC 3339 time (the last of the backups taken at or before it), or `bkp_…`.
    to: String,
    /// A new tenant of this name, instead of in place.
    #[serde(rename = "as")]
    as_name: Option<String>,
    /// Which schema the tenant gets; the backup's unless given.
    #[serde(default)]
    schema: RestoreSchema,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// Why, for the audit log.
    reason: Option<String>,
}

/// Which schema a restored tenant has.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum RestoreSchema {
    /// The backup's. A tenant that is behind with it is pinned there until a migration names it.
    #[default]
    Backup,
    /// The one the tenant has now: what is in the backup is migrated to it.
    Current,
}

impl From<RestoreSchema> for restore::Schema {
    fn from(schema: RestoreSchema) -> Self {
        match schema {
            RestoreSchema::Backup => Self::Backup,
            RestoreSchema::Current => Self::Current,
        }
    }
}

/// Restores a tenant.
#[utoipa::path(post, path = "/v1/restores", tag = "restores", request_body = RestoreRun,
    responses((status = 202, description = "It has begun", body = Operation), (status = 200, description = "A dry run", body = Planned),
        (status = 404, description = "No such tenant, or no backup at that time", body = ProblemBody)))]
async fn run(State(api): State<Api>, caller: Caller, Json(run): Json<RestoreRun>) -> Result<Response> {
    let tenant = lookup::tenant(&mut api.app.catalog.read().await?, &run.tenant).await?;
    let params =
        restore::Params { to: point(&run.to)?, as_name: run.as_name, schema: run.schema.into(), resolved: None };
    let mut submission = Submission::new(Params::Restore(params), Selection::one(tenant.id.to_string()));
    submission.reason = run.reason;
    change::submit(&api, &caller, submission, run.dry_run).await
}

/// What `to` means.
fn point(to: &str) -> Result<To> {
    if to == "latest" {
        return Ok(To::Latest);
    }
    match to.parse() {
        Ok(backup) => Ok(To::Backup(backup)),
        Err(_) => time::parse("to", to).map(To::At),
    }
}

/// Whose last restore to take back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RestoreUndo {
    /// Name or id.
    tenant: String,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// Why, for the audit log.
    reason: Option<String>,
}

/// Returns a tenant to the database that its last restore replaced.
#[utoipa::path(post, path = "/v1/restores/undo", tag = "restores", request_body = RestoreUndo,
    responses((status = 202, description = "It has begun", body = Operation), (status = 200, description = "A dry run", body = Planned), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn undo(State(api): State<Api>, caller: Caller, Json(undo): Json<RestoreUndo>) -> Result<Response> {
    let tenant = lookup::tenant(&mut api.app.catalog.read().await?, &undo.tenant).await?;
    let params = Params::RestoreUndo(restore_undo::Params::default());
    let mut submission = Submission::new(params, Selection::one(tenant.id.to_string()));
    submission.reason = undo.reason;
    change::submit(&api, &caller, submission, undo.dry_run).await
}

/// What would be restored.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RestoreAsk {
    /// Name or id.
    tenant: String,
    /// As in a restore.
    to: String,
    /// As in a restore.
    #[serde(default)]
    schema: RestoreSchema,
}

/// What a restore would do.
#[derive(Debug, Serialize, ToSchema)]
struct RestorePreview {
    /// The backup it would take.
    backup: Backup,
    /// The tenant as it is.
    current: Tenant,
    /// The newest migration that it would have afterwards; null: none.
    schema_version: Option<i64>,
    /// Whether it would be pinned there: left out by migrations of many tenants until one names it.
    pinned: bool,
    /// In words.
    will: String,
    /// RFC 3339: how long it could be undone, if it were done now.
    undo_until_at: String,
}

/// Shows what a restore in place would do.
#[utoipa::path(post, path = "/v1/restores/preview", tag = "restores", request_body = RestoreAsk,
    responses((status = 200, description = "What it would do", body = RestorePreview), (status = 404, description = "No such tenant, or no backup at that time", body = ProblemBody)))]
async fn preview(State(api): State<Api>, _caller: Caller, Json(ask): Json<RestoreAsk>) -> Result<Json<RestorePreview>> {
    let mut tx = api.app.catalog.read().await?;
    let tenant = lookup::tenant(&mut tx, &ask.tenant).await?;
    let backup = backup_at(&mut tx, tenant.id, point(&ask.to)?).await?;
    let server = servers::get(&mut tx, tenant.server_id).await?;
    let undo_until_at = time::text(tx.now() + api.app.config.undo_ms);
    let outlook = restore::outlook(ask.schema.into(), &tenant, &backup)?;
    let mut will = format!("{}; {}", will(&tenant, &backup, tx.now()), outlook.told(&tenant.name));
    if restore::clocks_disagree(&mut tx, &backup, point(&ask.to)?).await? {
        will = format!("{will}; {}", restore::DISPUTED);
    }
    Ok(Json(RestorePreview {
        will,
        backup: Backup::new(backup, &tenant.name),
        current: Tenant::new(tenant, server.as_ref(), pins::head_version(&mut tx).await?),
        schema_version: outlook.after,
        pinned: outlook.is_pinned,
        undo_until_at,
    }))
}

/// The backup that `to` means for a tenant.
async fn backup_at(tx: &mut ReadTx, tenant: TenantId, to: To) -> Result<BackupRecord> {
    let found = match to {
        To::Latest => backups::newest(tx, tenant, None).await?,
        To::At(at) => backups::newest(tx, tenant, Some(at)).await?,
        To::Backup(id) => Some(find(tx, id).await?).filter(|backup| backup.tenant_id == tenant),
    };
    found.ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "backup_not_found", "this tenant has no such backup")
            .try_next("fleetctl backup list <tenant>")
    })
}

fn will(tenant: &TenantRecord, backup: &BackupRecord, now: i64) -> String {
    let minutes = (now - backup.taken_at).max(0) / 60_000;
    let taken_at = time::text(backup.taken_at);
    let name = &tenant.name;
    format!(
        "{name} goes back to {taken_at}: what was written in the {minutes} minutes since is put aside, and comes back with an undo"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_latest_a_time_or_a_backup() {
        assert_eq!(point("latest").unwrap(), To::Latest);
        assert_eq!(point("1970-01-01T00:00:01Z").unwrap(), To::At(1_000));
        let id = catalog::BackupId::generate();
        assert_eq!(point(&id.to_string()).unwrap(), To::Backup(id));
        for bad in ["", "Latest", "yesterday", "bkp_1", "2026-11-23"] {
            assert_eq!(point(bad).unwrap_err().error().status, 422, "{bad:?}");
        }
    }
}
