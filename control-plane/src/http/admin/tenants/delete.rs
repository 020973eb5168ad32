//! Deletes a tenant.

use axum::extract::State;
use axum::response::Response;
use fleet_api::changes::PlannedChange;
use fleet_api::operations::OperationView;
use fleet_api::problem::ProblemBody;
use fleet_api::tenants::DeleteWish;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::ApiState;
use crate::http::admin::change;
use crate::http::admin::lookup;
use crate::http::admission::AdmittedCaller;
use crate::http::error::Result;
use crate::http::extract::{PathParams, QueryParams};
use crate::operations::{OperationParams, delete};
use crate::plan::TenantSelection;
use crate::runner::submit::Submission;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(delete_one))
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
