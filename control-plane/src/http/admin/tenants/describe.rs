//! `/v1/tenants/{tenant}/description`: everything that an operator asks about one tenant, in one answer.
//!
//! All of it comes from the catalog, in one read transaction. No server and no database is asked.

use axum::extract::State;
use catalog::backups::BackupRecord;
use catalog::name::NameKind;
use catalog::retained::RetainedRecord;
use catalog::steps::{self, TenantStep};
use catalog::{
    BlockWrites, ReadTx, ServerRecord, TenantRecord, TenantState, backups, events, members, names, releases, retained,
    servers,
};
use fleet_api::events::EventView;
use fleet_api::problem::ProblemBody;
use fleet_api::tenants::{KeptDatabase, LastBackup, TenantDescription, TenantOperation};
use tenant_engine::placement::EngineKind;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::servers_by_id;
use crate::event_views::{ActorNames, event_view};
use crate::http::ApiState;
use crate::http::admin::lookup;
use crate::http::admin::migrations::pins::head_version;
use crate::http::admin::operations::failure_detail;
use crate::http::admin::tenants::tenant_view;
use crate::http::admin::tenants::with_names;
use crate::http::admin::words::word_of;
use crate::http::admission::AdmittedCaller;
use crate::http::error::Result;
use crate::http::extract::{JsonBody, PathParams};
use crate::time_text;

/// Maximum number of open operations in one answer. A tenant has one running and few waiting operations.
const OPEN_MAX: u32 = 20;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(describe_tenant))
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
        last_backup: backups::newest_backup(tx, id, None).await?.map(last_backup),
        last_success: steps::last_success(tx, id).await?.map(tenant_operation),
        last_failure: steps::last_failure(tx, id).await?.map(tenant_operation),
        open_operations: steps::open_of_tenant(tx, id, OPEN_MAX).await?.into_iter().map(tenant_operation).collect(),
        fenced_by: fenced_by(&record),
        kept_databases: kept_databases(tx, &record).await?,
        tenant: with_names(tenant_view(record, server.as_ref(), head_version), names),
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
    Ok(Some(event_view(found, Some(record.name.clone()), &actors)))
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

fn last_backup(record: BackupRecord) -> LastBackup {
    LastBackup {
        id: record.id.to_string(),
        taken_at: time_text::format_time(record.taken_at),
        size_bytes: record.size_bytes,
        stored_bytes: record.stored_bytes,
        schema_version: record.schema_version,
        verified_at: time_text::format_optional(record.verified_at),
        verify_error: record.verify_error,
    }
}

fn tenant_operation(step: TenantStep) -> TenantOperation {
    TenantOperation {
        id: step.op_id.to_string(),
        kind: step.kind,
        state: word_of(&step.state),
        phase: step.phase,
        requested_by: step.requested_by,
        created_at: time_text::format_time(step.created_at),
        finished_at: time_text::format_optional(step.finished_at),
        error: failure_detail(step.code, step.message),
    }
}
