//! `/v1/plans`: named sets of limits that tenants share.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use catalog::plans::{self, PlanRecord};
use catalog::{ReadTx, TenantName, WriteTx, events};
use fleet_api::bounded_number::{BoundedNumber, RowsMax};
use fleet_api::changes::{ChangeOptions, PlannedChange};
use fleet_api::pages::PageOf;
use fleet_api::plans::{LimitPlan, NewPlanRequest, PlanLimits, PlanListQuery, PlanPatch};
use fleet_api::problem::ProblemBody;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{CatalogChange, check_reason, finish_change};
use super::lookup;
use crate::http::ApiState;
use crate::http::admission::AdmittedCaller;
use crate::http::error::{Problem, Result};
use crate::http::extract::{JsonBody, PathParams, QueryParams};
use crate::http::pages::PageWindow;
use crate::time_text::format_time;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(list_plans, add_plan)).routes(routes!(get_plan, patch_plan, remove_plan))
}

fn plan_view(plan: PlanRecord) -> LimitPlan {
    LimitPlan {
        name: plan.name,
        limits: shown_limits(&plan.limits),
        tenants: plan.tenants,
        created_at: format_time(plan.created_at),
        updated_at: format_time(plan.updated_at),
    }
}

/// PURE: the limits as the API shows them. A stored number that this version does not allow is not shown.
fn shown_limits(limits: &plans::PlanLimits) -> PlanLimits {
    PlanLimits {
        requests_per_second: limits.requests_per_second.and_then(BoundedNumber::new),
        burst: limits.burst.and_then(BoundedNumber::new),
        concurrency: limits.concurrency.and_then(BoundedNumber::new),
        statement_ms: limits.statement_ms.and_then(BoundedNumber::new),
        rows_max: limits.rows_max.and_then(BoundedNumber::new),
        answer_bytes_max: limits.answer_bytes_max.and_then(BoundedNumber::new),
        storage_bytes_max: limits.storage_bytes_max.and_then(BoundedNumber::new),
        connections_max: limits.connections_max.and_then(BoundedNumber::new),
    }
}

/// PURE: the limits as the catalog keeps them.
fn stored_limits(limits: &PlanLimits) -> plans::PlanLimits {
    plans::PlanLimits {
        requests_per_second: limits.requests_per_second.map(BoundedNumber::get),
        burst: limits.burst.map(BoundedNumber::get),
        concurrency: limits.concurrency.map(BoundedNumber::get),
        statement_ms: limits.statement_ms.map(BoundedNumber::get),
        rows_max: limits.rows_max.map(RowsMax::get),
        answer_bytes_max: limits.answer_bytes_max.map(BoundedNumber::get),
        storage_bytes_max: limits.storage_bytes_max.map(BoundedNumber::get),
        connections_max: limits.connections_max.map(BoundedNumber::get),
    }
}

/// List the plans, ordered by name.
#[utoipa::path(get, path = "/v1/plans", tag = "plans", params(PlanListQuery),
    responses((status = 200, description = "One page of the list", body = PageOf<LimitPlan>), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn list_plans(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    QueryParams(part): QueryParams<PlanListQuery>,
) -> Result<JsonBody<PageOf<LimitPlan>>> {
    let window = PageWindow::open_window(&api, &caller, "plans", &part, (part.limit, part.cursor.as_deref()))?;
    let after: Option<String> = window.after_key()?;
    let mut tx = api.app.catalog.read().await?;
    let rows = plans::list_plans(&mut tx, after.as_deref(), window.rows_to_read()).await?;
    Ok(JsonBody(window.into_page(rows, |row| row.name.clone(), plan_view)))
}

/// Add a plan. It limits nobody until a tenant has it.
#[utoipa::path(post, path = "/v1/plans", tag = "plans", request_body = NewPlanRequest,
    responses((status = 201, description = "The plan", body = LimitPlan), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn add_plan(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    JsonBody(new): JsonBody<NewPlanRequest>,
) -> Result<Response> {
    check_reason(new.reason.as_deref())?;
    let name = TenantName::parse_slug(&new.name)?;
    let mut tx = api.app.catalog.write().await?;
    let plan = plans::add_plan(&mut tx, &name, &stored_limits(&new.limits)).await?;
    let change = ("plan.added", "would be added");
    append_change(&mut tx, &caller, &plan, change.0, new.reason.as_deref()).await?;
    let planned = planned(change, &plan.name);
    finish_change(tx, &caller, new.dry_run, planned, (StatusCode::CREATED, JsonBody(plan_view(plan)))).await
}

/// Get one plan.
#[utoipa::path(get, path = "/v1/plans/{plan}", tag = "plans", params(("plan" = String, Path, description = "Name of the plan")),
    responses((status = 200, description = "The plan", body = LimitPlan), (status = 404, description = "No plan has this name", body = ProblemBody)))]
async fn get_plan(
    State(api): State<ApiState>,
    _caller: AdmittedCaller,
    PathParams(name): PathParams<String>,
) -> Result<JsonBody<LimitPlan>> {
    let mut tx = api.app.catalog.read().await?;
    Ok(JsonBody(plan_view(find_plan(&mut tx, &name).await?)))
}

/// Change the limits of a plan. All processes use them within about a second.
#[utoipa::path(patch, path = "/v1/plans/{plan}", tag = "plans", request_body = PlanPatch, params(("plan" = String, Path, description = "Name of the plan")),
    responses((status = 200, description = "The plan after the change, or the plan of the dry run", body = LimitPlan), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn patch_plan(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(name): PathParams<String>,
    JsonBody(patch): JsonBody<PlanPatch>,
) -> Result<Response> {
    check_reason(patch.reason.as_deref())?;
    if patch.limits.is_empty() {
        return Err(Problem::invalid("no change was requested: expected at least one limit"));
    }
    let mut tx = api.app.catalog.write().await?;
    let before = find_plan(&mut tx, &name).await?;
    let limits = patch.limits.applied_to(shown_limits(&before.limits));
    let plan = plans::set_limits(&mut tx, &before.name, &stored_limits(&limits)).await?;
    let change = ("plan.changed", "would get these limits");
    append_change(&mut tx, &caller, &plan, change.0, patch.reason.as_deref()).await?;
    let planned = planned(change, &plan.name);
    finish_change(tx, &caller, patch.dry_run, planned, JsonBody(plan_view(plan))).await
}

/// Remove a plan that no tenant has.
#[utoipa::path(delete, path = "/v1/plans/{plan}", tag = "plans", params(("plan" = String, Path, description = "Name of the plan"), ChangeOptions),
    responses((status = 204, description = "The plan was removed"), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange), (status = 409, description = "Tenants have the plan", body = ProblemBody), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn remove_plan(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(name): PathParams<String>,
    QueryParams(wish): QueryParams<ChangeOptions>,
) -> Result<Response> {
    check_reason(wish.reason.as_deref())?;
    let mut tx = api.app.catalog.write().await?;
    let plan = find_plan(&mut tx, &name).await?;
    plans::remove_plan(&mut tx, &plan.name).await?;
    let change = ("plan.removed", "would be removed");
    append_change(&mut tx, &caller, &plan, change.0, wish.reason.as_deref()).await?;
    finish_change(tx, &caller, wish.dry_run, planned(change, &plan.name), StatusCode::NO_CONTENT).await
}

fn planned((kind, would): (&'static str, &str), name: &str) -> CatalogChange {
    CatalogChange { kind, tenant: None, action: format!("{name} {would}") }
}

async fn append_change(
    tx: &mut WriteTx,
    caller: &AdmittedCaller,
    plan: &PlanRecord,
    kind: &'static str,
    reason: Option<&str>,
) -> Result<()> {
    let data = serde_json::json!({ "plan": plan.name, "limits": plan.limits });
    Ok(events::append_events(tx, &[caller.caller_event(kind, None, data, reason)]).await?)
}

/// The plan with this name, or 404.
pub(crate) async fn find_plan(tx: &mut ReadTx, name: &str) -> Result<PlanRecord> {
    plans::get(tx, name).await?.ok_or_else(|| {
        Problem::not_found(format!("there is no plan '{}'", lookup::display_safe(name))).try_next("fleetctl plan list")
    })
}
