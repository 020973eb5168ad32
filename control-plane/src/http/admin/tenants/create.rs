//! Creates one tenant, or many.

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use catalog::operations::OperationRecord;
use catalog::servers;
use fleet_api::bounded_number::{StepConcurrency, TenantCount};
use fleet_api::changes::PlannedChange;
use fleet_api::operations::OperationView;
use fleet_api::problem::ProblemBody;
use fleet_api::tenants::{ExistingNameChoice, NewTenantRequest, NewTenants, TenantCreated};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::Error;
use crate::http::ApiState;
use crate::http::admin::change::planned_change;
use crate::http::admin::change::{self, check_reason};
use crate::http::admin::lookup;
use crate::http::admin::migrations::pins;
use crate::http::admin::operations::operation_view;
use crate::http::admin::tenants::tenant_view;
use crate::http::admission::AdmittedCaller;
use crate::http::error::Result;
use crate::http::extract::JsonBody;
use crate::http::limits::BULK_BYTES_MAX;
use crate::operations::{OperationParams, create};
use crate::plan::TenantSelection;
use crate::runner::submit::{Submission, SubmitMode, SubmitOutcome};

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(create_many))
        .layer(DefaultBodyLimit::max(BULK_BYTES_MAX))
        .routes(routes!(create_one))
}

/// Create a tenant.
#[utoipa::path(post, path = "/v1/tenants", tag = "tenants", request_body = NewTenantRequest,
    responses((status = 202, description = "The operation that creates the tenant has started; Location is its path", body = TenantCreated), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange),
        (status = 409, description = "The name belongs to another tenant", body = ProblemBody), (status = 422, description = "The name is not valid", body = ProblemBody)))]
async fn create_one(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    JsonBody(new): JsonBody<NewTenantRequest>,
) -> Result<Response> {
    check_reason(new.reason.as_deref())?;
    catalog::TenantName::parse_slug(&new.name)?;
    let tenants = vec![create::TenantSpec { name: new.name, labels: new.labels }];
    let if_exists = create::ExistingNamePolicy::Error;
    let params = create::CreateParams { tenants, server: new.server, if_exists, plan: new.plan };
    let mut submission = Submission::new(OperationParams::Create(params), TenantSelection::default());
    submission.reason = new.reason;
    let mode = if new.dry_run { SubmitMode::Plan } else { SubmitMode::Run };
    match api.app.runner.submit_operation(&caller.who, submission, mode).await? {
        SubmitOutcome::Started(record) => created_response(&api, record).await,
        SubmitOutcome::Planned(view) => Ok(JsonBody(planned_change(view.into())).into_response()),
    }
}

/// The answer to a creation: the operation's only tenant, and the operation.
pub(crate) async fn created_response(api: &ApiState, record: OperationRecord) -> Result<Response> {
    let mut tx = api.app.catalog.read().await?;
    let steps = catalog::steps::list_steps(&mut tx, record.id, &[], None, 1).await?;
    let (step, _) = steps.first().ok_or_else(|| Error::internal("a creation without a tenant"))?;
    let tenant = lookup::find_tenant(&mut tx, &step.tenant_id.to_string()).await?;
    let server = servers::get(&mut tx, tenant.server_id).await?;
    let place = [(header::LOCATION, format!("/v1/operations/{}", record.id))];
    let operation = operation_view(&mut tx, record).await?;
    let tenant = tenant_view(tenant, server.as_ref(), pins::head_version(&mut tx).await?);
    let created = TenantCreated { tenant, operation };
    Ok((StatusCode::ACCEPTED, place, JsonBody(created)).into_response())
}

/// Create many tenants in one operation.
///
/// One invalid name refuses the whole request; the answer names it.
#[utoipa::path(post, path = "/v1/tenants/batch", tag = "tenants", request_body = NewTenants,
    responses((status = 202, description = "The operation that creates the tenants has started", body = OperationView), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange),
        (status = 422, description = "Some names are not valid; `errors` lists them", body = ProblemBody)))]
async fn create_many(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    JsonBody(new): JsonBody<NewTenants>,
) -> Result<Response> {
    let tenants = new.tenants.into_iter().map(|t| create::TenantSpec { name: t.name, labels: t.labels }).collect();
    let if_exists = match new.if_exists {
        ExistingNameChoice::Error => create::ExistingNamePolicy::Error,
        ExistingNameChoice::Skip => create::ExistingNamePolicy::Skip,
    };
    let params = create::CreateParams { tenants, server: new.server, if_exists, plan: new.plan };
    let submission = Submission {
        operation: OperationParams::Create(params).into(),
        targets: TenantSelection::default(),
        reason: new.reason,
        concurrency: new.concurrency.map(StepConcurrency::to_u32),
        expect_count: new.expect_count.map(TenantCount::get),
    };
    change::submit_or_plan(&api, &caller, submission, new.dry_run).await
}
