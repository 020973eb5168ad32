//! `/audit`: a tenant's own audit log, for its managers.

use fleet_api::audit::{AuditEntryView, AuditLogPage, AuditLogQuery};
use tenant_router::AuditEntry;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::opened_tenant::OpenedTenant;
use crate::http::ApiState;
use crate::http::error::Result;
use crate::http::extract::{JsonBody, QueryParams};
use crate::time_text;

/// Events that one page reads.
const PAGE_MAX: u32 = 100;

/// The routes of this module.
pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(read_audit_log))
}

/// Read the tenant's audit log, newest first: operators who acted as a member, members, tokens, and changes of the tenant.
///
/// Needs the role manager.
#[utoipa::path(get, path = "/audit", tag = "audit", params(AuditLogQuery),
    responses((status = 200, description = "One page of the log", body = AuditLogPage)))]
async fn read_audit_log(
    tenant: OpenedTenant,
    QueryParams(wanted): QueryParams<AuditLogQuery>,
) -> Result<JsonBody<AuditLogPage>> {
    let page = tenant.audit_log(wanted.before, PAGE_MAX).await?;
    Ok(JsonBody(AuditLogPage { items: page.entries.into_iter().map(entry_view).collect(), next: page.next }))
}

fn entry_view(entry: AuditEntry) -> AuditEntryView {
    let AuditEntry { seq, at, kind, actor, on_behalf_of, reason } = entry;
    AuditEntryView { seq, at: time_text::format_time(at), kind, actor, on_behalf_of, reason }
}
