//! Deletes a tenant.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::ApiState;
use crate::http::admin::change::{self, PlannedChange};
use crate::http::admin::lookup;
use crate::http::admin::operations::OperationView;
use crate::http::admission::AdmittedCaller;
use crate::http::error::{ProblemBody, Result};
use crate::http::extract::{PathParams, QueryParams};
use crate::operations::{OperationParams, delete};
use crate::plan::TenantSelection;
use crate::runner::submit::Submission;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(delete_one))
}

/// Options of a deletion.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DeleteWish {
    /// True: only describe the change and do nothing.
    #[serde(default)]
    dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    reason: Option<String>,
    /// True: take no final backup, for instance because a full disk has no room for it.
    #[serde(default)]
    no_backup: bool,
}

/// Delete a tenant: take a last backup, verify it, and take the tenant out of service.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}", tag = "tenants", params(("tenant" = String, Path, description = "Name or id of the tenant"), DeleteWish),
    responses((status = 202, description = "The operation that deletes the tenant has started", body = OperationView), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange),
        (status = 404, description = "No tenant has this name or id", body = ProblemBody), (status = 409, description = "The tenant is protected", body = ProblemBody)))]
async fn delete_one(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(name): PathParams<String>,
    QueryParams(wish): QueryParams<DeleteWish>,
) -> Result<Response> {
    let tenant = lookup::find_tenant(&mut api.app.catalog.read().await?, &name).await?;
    let targets = TenantSelection::one_tenant(tenant.id.to_string());
    let params = OperationParams::Delete(delete::DeleteParams { without_backup: wish.no_backup });
    let mut submission = Submission::new(params, targets);
    submission.reason = wish.reason;
    change::submit_or_plan(&api, &caller, submission, wish.dry_run).await
}
