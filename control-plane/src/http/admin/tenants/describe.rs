//! `/v1/tenants/{tenant}/description`: everything that an operator asks about one tenant, in one answer.
//!
//! All of it comes from the catalog, in one read transaction. No server and no database is asked.

use axum::extract::State;
use catalog::backups::BackupRecord;
use catalog::name::NameKind;
use catalog::retained::RetainedRecord;
use catalog::steps::{self, StepState, TenantStep};
use catalog::{
    BlockWrites, ReadTx, ServerRecord, TenantRecord, TenantState, backups, events, members, names, releases, retained,
    servers,
};
use serde::Serialize;
use tenant_engine::placement::EngineKind;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{TenantView, servers_by_id};
use crate::http::ApiState;
use crate::http::admin::events::{ActorNames, EventView};
use crate::http::admin::lookup;
use crate::http::admin::migrations::pins::head_version;
use crate::http::admin::operations::FailureDetail;
use crate::http::admission::AdmittedCaller;
use crate::http::error::{ProblemBody, Result};
use crate::http::extract::{JsonBody, PathParams};
use crate::time_text;

/// Maximum number of open operations in one answer. A tenant has one running and few waiting operations.
const OPEN_MAX: u32 = 20;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(describe_tenant))
}

/// A tenant, with details about its database, backups and operations.
#[derive(Debug, Serialize, ToSchema)]
struct TenantDescription {
    /// Fields of the tenant.
    #[serde(flatten)]
    tenant: TenantView,
    /// Event of the change that led to the present status. Null if the audit log does not have it any more.
    status_since: Option<EventView>,
    /// Former names that still lead to the tenant.
    aliases: Vec<String>,
    /// Custom domains of the tenant.
    hosts: Vec<String>,
    /// Number of members.
    members: i64,
    /// State of the server; only an active server takes new tenants.
    server_state: Option<String>,
    /// Place of the database: the file, or host, port and database name, without secrets. Null if the tenant has no
    /// database.
    database: Option<String>,
    /// Release whose newest version the tenant has reached. Null if the tenant is behind or ahead of every known
    /// release.
    release: Option<String>,
    /// Newest version of the current release; null before the first release.
    head_version: Option<i64>,
    /// The newest backup; null if there is none.
    last_backup: Option<LastBackup>,
    /// The last operation that succeeded on the tenant; null if there is none.
    last_success: Option<TenantOperation>,
    /// The last operation that failed on the tenant; null if there is none.
    last_failure: Option<TenantOperation>,
    /// Operations with unfinished work on the tenant, at most 20.
    open_operations: Vec<TenantOperation>,
    /// Id of the operation that blocks the tenant's writes now; null if there is none.
    fenced_by: Option<String>,
    /// Replaced databases that are kept for a while, the last replaced first.
    kept_databases: Vec<KeptDatabase>,
}

/// The newest backup of a tenant.
#[derive(Debug, Serialize, ToSchema)]
struct LastBackup {
    /// Id of the backup: `bkp_…`.
    id: String,
    /// Time at which the snapshot began, RFC 3339.
    taken_at: String,
    /// Size of the database in bytes.
    size_bytes: i64,
    /// Size of the object in the backup store, in bytes.
    stored_bytes: i64,
    /// Version of the newest migration in the backup; null if it has none.
    schema_version: Option<i64>,
    /// Time at which the backup was read back and checked, RFC 3339; null if it never was.
    verified_at: Option<String>,
    /// Error that the check found; null if it found none.
    verify_error: Option<String>,
}

/// An operation's work on one tenant.
#[derive(Debug, Serialize, ToSchema)]
struct TenantOperation {
    /// Id of the operation: `op_…`.
    id: String,
    /// Kind of the operation: create, migrate, backup …
    kind: String,
    /// State of the work on this tenant: pending, running, succeeded, failed or cancelled.
    #[schema(value_type = String)]
    state: StepState,
    /// Next phase of the work.
    phase: String,
    /// Actor that requested the operation.
    requested_by: String,
    /// Time of the request, RFC 3339.
    created_at: String,
    /// Time at which the work on this tenant ended, RFC 3339; null before that.
    finished_at: Option<String>,
    /// Error of the last attempt; null if there is none.
    error: Option<FailureDetail>,
}

/// A replaced database that is kept until a date.
#[derive(Debug, Serialize, ToSchema)]
struct KeptDatabase {
    /// Reason of the replacement: restore or move; damaged for a database that was not as the catalog expected.
    reason: String,
    /// Place of the database: the file, or host, port and database name.
    database: String,
    /// Id of the operation that replaced the database.
    operation_id: String,
    /// Version of the database's newest migration; null if it has none.
    schema_version: Option<i64>,
    /// Time of the replacement, RFC 3339.
    replaced_at: String,
    /// Time after which the database is removed, RFC 3339.
    keep_until_at: String,
}

/// Get a tenant, with details about its database, backups and operations.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/description", tag = "tenants",
    params(("tenant" = String, Path, description = "Name or id of the tenant")),
    responses((status = 200, description = "The tenant with its details", body = TenantDescription), (status = 404, description = "No tenant has this name or id", body = ProblemBody)))]
async fn describe_tenant(
    State(api): State<ApiState>,
    _caller: AdmittedCaller,
    PathParams(name): PathParams<String>,
) -> Result<JsonBody<TenantDescription>> {
    let mut tx = api.app.catalog.read().await?;
    let record = lookup::find_tenant(&mut tx, &name).await?;
    Ok(JsonBody(load_description(&mut tx, record).await?))
}

async fn load_description(tx: &mut ReadTx, record: TenantRecord) -> Result<TenantDescription> {
    let id = record.id;
    let head_version = head_version(tx).await?;
    let server = servers::get(tx, record.server_id).await?;
    let (names, aliases, hosts) = all_names(tx, &record).await?;
    let release = match record.release_id {
        Some(id) => releases::get(tx, id).await?.map(|release| release.id.to_string()),
        None => None,
    };
    Ok(TenantDescription {
        status_since: status_since(tx, &record).await?,
        aliases,
        hosts,
        members: members::count_members(tx, id).await?,
        server_state: server.as_ref().map(|server| server.state.as_str().to_owned()),
        database: record
            .placement
            .as_deref()
            .zip(server.as_ref())
            .map(|(place, server)| database_address(server, place)),
        release,
        head_version,
        last_backup: backups::newest_backup(tx, id, None).await?.map(LastBackup::new),
        last_success: steps::last_success(tx, id).await?.map(TenantOperation::new),
        last_failure: steps::last_failure(tx, id).await?.map(TenantOperation::new),
        open_operations: steps::open_of_tenant(tx, id, OPEN_MAX).await?.into_iter().map(TenantOperation::new).collect(),
        fenced_by: fenced_by(&record),
        kept_databases: kept_databases(tx, &record).await?,
        tenant: TenantView::new(record, server.as_ref(), head_version).with_names(names),
    })
}

/// All names, and the aliases and hosts among them.
async fn all_names(tx: &mut ReadTx, record: &TenantRecord) -> Result<(Vec<String>, Vec<String>, Vec<String>)> {
    let all = names::of_tenant(tx, record.id).await?;
    let of = |wanted: Option<NameKind>| {
        let fits = |(_, kind): &&(catalog::TenantName, NameKind)| wanted.is_none_or(|wanted| *kind == wanted);
        all.iter().filter(fits).map(|(name, _)| name.as_str().to_owned()).collect::<Vec<_>>()
    };
    Ok((of(None), of(Some(NameKind::Alias)), of(Some(NameKind::Host))))
}

/// The event of the change that led to the present status.
async fn status_since(tx: &mut ReadTx, record: &TenantRecord) -> Result<Option<EventView>> {
    let Some(found) = events::latest_event(tx, record.id, kinds_of_status(record)).await? else { return Ok(None) };
    let actors = ActorNames::of_records(tx, std::slice::from_ref(&found)).await?;
    Ok(Some(EventView::with_names(found, Some(record.name.clone()), &actors)))
}

/// The kinds of events that lead to a tenant's status.
fn kinds_of_status(record: &TenantRecord) -> &'static [&'static str] {
    match record.state {
        TenantState::Active if record.is_read_only() => &["tenant.read_only"],
        TenantState::Active => &[
            "tenant.activated",
            "tenant.adopted",
            "tenant.resumed",
            "tenant.writable",
            "tenant.unarchived",
            "tenant.undeleted",
        ],
        TenantState::Provisioning => &["tenant.created"],
        TenantState::Suspended => &["tenant.suspended"],
        TenantState::Archived => &["tenant.archived"],
        TenantState::Deleted => &["tenant.deleted"],
        TenantState::Purged => &["tenant.purged"],
    }
}

fn fenced_by(record: &TenantRecord) -> Option<String> {
    let is_fenced = record.block_writes == Some(BlockWrites::Operation);
    is_fenced.then(|| record.op_id.map_or_else(|| "an operation that has ended".to_owned(), |id| id.to_string()))
}

/// The location of a database, for people. The base of a server never contains credentials.
fn database_address(server: &ServerRecord, placement: &str) -> String {
    let base = server.base.trim_end_matches('/');
    match server.engine {
        EngineKind::Sqlite | EngineKind::Postgres => format!("{base}/{placement}"),
    }
}

async fn kept_databases(tx: &mut ReadTx, record: &TenantRecord) -> Result<Vec<KeptDatabase>> {
    let servers = servers_by_id(tx).await?;
    let kept = retained::of_tenant(tx, record.id).await?;
    let one = |kept: RetainedRecord| KeptDatabase {
        database: servers
            .get(&kept.server_id)
            .map_or_else(|| kept.placement.clone(), |s| database_address(s, &kept.placement)),
        reason: kept.reason.as_str().to_owned(),
        operation_id: kept.op_id.to_string(),
        schema_version: kept.schema_version,
        replaced_at: time_text::format_time(kept.created_at),
        keep_until_at: time_text::format_time(kept.keep_until),
    };
    Ok(kept.into_iter().map(one).collect())
}

impl LastBackup {
    fn new(record: BackupRecord) -> Self {
        Self {
            id: record.id.to_string(),
            taken_at: time_text::format_time(record.taken_at),
            size_bytes: record.size_bytes,
            stored_bytes: record.stored_bytes,
            schema_version: record.schema_version,
            verified_at: time_text::format_optional(record.verified_at),
            verify_error: record.verify_error,
        }
    }
}

impl TenantOperation {
    fn new(step: TenantStep) -> Self {
        Self {
            id: step.op_id.to_string(),
            kind: step.kind,
            state: step.state,
            phase: step.phase,
            requested_by: step.requested_by,
            created_at: time_text::format_time(step.created_at),
            finished_at: time_text::format_optional(step.finished_at),
            error: FailureDetail::new(step.code, step.message),
        }
    }
}
