//! `/v1/tenants/adopt`: makes an existing database a tenant.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use fleet_api::changes::PlannedChange;
use fleet_api::problem::ProblemBody;
use fleet_api::tenants::{AdoptionRequest, TenantCreated};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::create::created_response;
use crate::http::ApiState;
use crate::http::admin::change::check_reason;
use crate::http::admin::change::planned_change;
use crate::http::admission::AdmittedCaller;
use crate::http::error::Result;
use crate::http::extract::JsonBody;
use crate::operations::{OperationParams, adopt};
use crate::plan::TenantSelection;
use crate::runner::submit::{Submission, SubmitMode, SubmitOutcome};

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(adopt_one))
}

/// Adopt a PostgreSQL database that no fleet knows: create a tenant with a copy of it.
#[utoipa::path(post, path = "/v1/tenants/adopt", tag = "tenants", request_body = AdoptionRequest,
    responses((status = 202, description = "The operation that copies the database has started; Location is its path", body = TenantCreated), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange),
        (status = 409, description = "The name belongs to another tenant", body = ProblemBody), (status = 422, description = "The name or the connection string is not valid", body = ProblemBody)))]
async fn adopt_one(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    JsonBody(new): JsonBody<AdoptionRequest>,
) -> Result<Response> {
    check_reason(new.reason.as_deref())?;
    let source = adopt::AdoptParams::seal_source(&api.app.context, new.dsn.as_secret());
    let params = adopt::AdoptParams { name: new.name, labels: new.labels, server: new.server, source };
    let mut submission = Submission::new(OperationParams::Adopt(params), TenantSelection::default());
    submission.reason = new.reason;
    let mode = if new.dry_run { SubmitMode::Plan } else { SubmitMode::Run };
    match api.app.runner.submit_operation(&caller.who, submission, mode).await? {
        SubmitOutcome::Started(record) => created_response(&api, record).await,
        SubmitOutcome::Planned(view) => Ok(JsonBody(planned_change(view.into())).into_response()),
    }
}
