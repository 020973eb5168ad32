//! `/v1/backups`: what can be restored.

use std::collections::HashMap;

use axum::extract::State;
use axum::response::Response;
use catalog::backups::{self, BackupRecord};
use catalog::{BackupId, ReadTx, TenantId, tenants};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{self, Planned};
use super::lookup;
use super::operations::Operation;
use super::selection::Selection;
use crate::http::admission::Caller;
use crate::http::error::{Problem, ProblemBody, Result};
use crate::http::extract::{Json, Path, Query};
use crate::http::number::{Concurrency, Count, Limit};
use crate::http::pages::{PageOf, Window};
use crate::http::{Api, time};
use crate::operations::{Params, backup, verify};
use crate::runner::submit::Submission;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list, run)).routes(routes!(get)).routes(routes!(verify_some))
}

/// A backup.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Backup {
    /// `bkp_…`
    id: String,
    /// The tenant's name now.
    tenant: String,
    /// The tenant's id.
    tenant_id: String,
    /// RFC 3339: the moment it shows.
    taken_at: String,
    /// Of the snapshot: a SQLite database's pages, or a Postgres database's dump.
    size_bytes: i64,
    /// In the backup store.
    stored_bytes: i64,
    /// The newest migration in it.
    schema_version: Option<i64>,
    /// What it was taken from.
    engine: String,
    /// manual, scheduled, pre_restore or pre_delete.
    reason: String,
    /// Equal for equal content.
    content_hash: String,
    /// RFC 3339: when it was last proved restorable.
    verified_at: Option<String>,
    /// What that found wrong.
    verify_error: Option<String>,
    /// Of the manifest in the backup store.
    object_key: String,
    /// As it lies in the backup store; only in answers about one backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<serde_json::Value>,
}

impl Backup {
    /// The wire form of a record.
    pub(crate) fn new(record: BackupRecord, tenant: &str) -> Self {
        Self {
            id: record.id.to_string(),
            tenant: tenant.to_owned(),
            tenant_id: record.tenant_id.to_string(),
            taken_at: time::text(record.taken_at),
            size_bytes: record.size_bytes,
            stored_bytes: record.stored_bytes,
            schema_version: record.schema_version,
            engine: record.engine.to_string(),
            reason: record.reason,
            content_hash: record.content_hash,
            verified_at: time::maybe(record.verified_at),
            verify_error: record.verify_error,
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

/// Which backups.
#[derive(Debug, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filters {
    /// Only this tenant's (name or id).
    tenant: Option<String>,
    /// 1 to 1000; 100 unless given.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<Limit>,
    /// From the page before.
    cursor: Option<String>,
}

/// The backups, newest first.
#[utoipa::path(get, path = "/v1/backups", tag = "backups", params(Filters),
    responses((status = 200, description = "A page", body = PageOf<Backup>), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn list(State(api): State<Api>, caller: Caller, Query(filters): Query<Filters>) -> Result<Json<PageOf<Backup>>> {
    let window = Window::open(&api, &caller, "backups", &filters, (filters.limit, filters.cursor.as_deref()))?;
    let mut tx = api.app.catalog.read().await?;
    let tenant = match &filters.tenant {
        Some(name) => Some(lookup::tenant(&mut tx, name).await?.id),
        None => None,
    };
    let rows = backups::page(&mut tx, tenant, window.after()?, window.rows()).await?;
    let names = names_of(&mut tx, &rows).await?;
    let name = |id: &TenantId| names.get(id).map_or("", String::as_str);
    Ok(Json(window.page(
        rows,
        |row| row.id.to_string(),
        |row| {
            let tenant = name(&row.tenant_id);
            Backup::new(row, tenant)
        },
    )))
}

/// One backup with its manifest.
#[utoipa::path(get, path = "/v1/backups/{backup}", tag = "backups", params(("backup" = String, Path, description = "bkp_…")),
    responses((status = 200, description = "The backup", body = Backup), (status = 404, description = "No such backup", body = ProblemBody)))]
async fn get(State(api): State<Api>, _caller: Caller, Path(id): Path<String>) -> Result<Json<Backup>> {
    let mut tx = api.app.catalog.read().await?;
    let record = find(&mut tx, lookup::id(&id)?).await?;
    let names = names_of(&mut tx, std::slice::from_ref(&record)).await?;
    drop(tx);
    let tenant = names.get(&record.tenant_id).cloned().unwrap_or_default();
    let manifest = api.app.backup_manifest(&record).await?;
    let mut backup = Backup::new(record, &tenant);
    backup.manifest = Some(manifest);
    Ok(Json(backup))
}

/// The backup of this id.
pub(crate) async fn find(tx: &mut ReadTx, id: BackupId) -> Result<BackupRecord> {
    let found = backups::get(tx, id).await?;
    found.ok_or_else(|| Problem::not_found(format!("there is no backup {id}")).try_next("fleetctl backup list"))
}

/// Whom to back up.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BackupRun {
    /// Which tenants.
    selection: Selection,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// Why, for the audit log.
    reason: Option<String>,
    /// Steps at once: 1 to 128.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 128)]
    concurrency: Option<Concurrency>,
    /// Refused when the plan has another number of tenants.
    #[schema(value_type = Option<u64>, minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    expect_count: Option<Count>,
}

/// Backs tenants up.
#[utoipa::path(post, path = "/v1/backups", tag = "backups", request_body = BackupRun,
    responses((status = 202, description = "It has begun", body = Operation), (status = 200, description = "A dry run", body = Planned), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn run(State(api): State<Api>, caller: Caller, Json(run): Json<BackupRun>) -> Result<Response> {
    let submission = Submission {
        params: Params::Backup(backup::Params::default()),
        targets: run.selection.into(),
        reason: run.reason,
        concurrency: run.concurrency.map(Concurrency::narrow),
        expect_count: run.expect_count.map(Count::get),
    };
    change::submit(&api, &caller, submission, run.dry_run).await
}

/// What to verify: the newest backup of each selected tenant, or these backups.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BackupVerify {
    /// Which tenants.
    #[serde(default)]
    selection: Selection,
    /// These, instead of a selection; at most 1,000.
    #[serde(default)]
    backups: Vec<String>,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// Why, for the audit log.
    reason: Option<String>,
    /// Steps at once: 1 to 128.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 128)]
    concurrency: Option<Concurrency>,
    /// Refused when the plan has another number of tenants.
    #[schema(value_type = Option<u64>, minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    expect_count: Option<Count>,
}

/// Proves that backups can be restored.
#[utoipa::path(post, path = "/v1/backups/verify", tag = "backups", request_body = BackupVerify,
    responses((status = 202, description = "It has begun", body = Operation), (status = 200, description = "A dry run", body = Planned), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn verify_some(State(api): State<Api>, caller: Caller, Json(wanted): Json<BackupVerify>) -> Result<Response> {
    if wanted.backups.len() > verify::BACKUPS_MAX {
        return Err(Problem::invalid(format!("backups: expected at most {}", verify::BACKUPS_MAX)));
    }
    let targets: crate::plan::Selection = wanted.selection.into();
    if wanted.backups.is_empty() == targets.is_empty() {
        return Err(Problem::invalid("expected either a selection or backups"));
    }
    let backups = wanted.backups.iter().map(|id| lookup::id(id)).collect::<Result<_>>()?;
    let submission = Submission {
        params: Params::Verify(verify::Params { backups }),
        targets,
        reason: wanted.reason,
        concurrency: wanted.concurrency.map(Concurrency::narrow),
        expect_count: wanted.expect_count.map(Count::get),
    };
    change::submit(&api, &caller, submission, wanted.dry_run).await
}
