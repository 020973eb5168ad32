//! Shared by all changing routes: dry runs, reasons, and the answers to changes and submissions.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use catalog::WriteTx;
use catalog::operations::OperationRecord;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::operations::OperationView;
use crate::http::ApiState;
use crate::http::admission::AdmittedCaller;
use crate::http::error::{Problem, Result};
use crate::http::extract::JsonBody;
use crate::http::idempotency;
use crate::plan::{PlanSample, PlanView};
use crate::runner::submit::{Submission, SubmitMode, SubmitOutcome};

/// Maximum length of a reason: a sentence, because it is stored with every event.
const REASON_BYTES_MAX: usize = 1_000;

/// Options of a change that needs no other input.
#[derive(Debug, Default, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
#[schema(as = Wish)]
pub(crate) struct ChangeOptions {
    /// True: only describe the change and do nothing.
    #[serde(default)]
    pub(crate) dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    pub(crate) reason: Option<String>,
}

/// The answer to a dry run.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Planned)]
pub(crate) struct PlannedChange {
    /// Always true: nothing was changed.
    dry_run: bool,
    /// Description of the change.
    plan: ChangePlan,
}

/// Description of a change that was not made.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Plan)]
pub(crate) struct ChangePlan {
    /// Kind of the operation; for a change without an operation, the kind of its event.
    kind: &'static str,
    /// Number of tenants that the change would work on.
    tenants: u64,
    /// Number of tenants that need no work.
    skipped: u64,
    /// Number of selected tenants that are left out, each for a stated reason.
    left_out: u64,
    /// The first tenants of the plan, with the action for each.
    sample: Vec<PlanLine>,
    /// Facts to consider before the change is made.
    notes: Vec<String>,
}

/// The planned action for one tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlanLine {
    /// Name of the tenant.
    tenant: String,
    /// Description of the action.
    action: String,
}

impl From<PlanView> for ChangePlan {
    fn from(view: PlanView) -> Self {
        let line = |PlanSample { tenant, action }: PlanSample| PlanLine { tenant, action };
        Self {
            kind: view.kind,
            tenants: view.tenants,
            skipped: view.skipped,
            left_out: view.left_out,
            sample: view.sample.into_iter().map(line).collect(),
            notes: view.notes,
        }
    }
}

impl PlannedChange {
    /// The answer to a dry run.
    pub(crate) fn new(plan: ChangePlan) -> Self {
        Self { dry_run: true, plan }
    }
}

impl ChangePlan {
    /// A plan for this many tenants, without their names.
    pub(crate) fn about_tenants(kind: &'static str, tenants: u64, note: String) -> Self {
        Self { kind, tenants, skipped: 0, left_out: 0, sample: Vec::new(), notes: vec![note] }
    }
}

/// A change that is not an operation: one transaction of the catalog.
pub(crate) struct CatalogChange {
    /// The kind of its event.
    pub(crate) kind: &'static str,
    /// The name of the tenant, if the change concerns one.
    pub(crate) tenant: Option<String>,
    /// The description for a dry run.
    pub(crate) action: String,
}

/// Ends the transaction that contains the change. A real run commits it, together with the answer for its
/// Idempotency-Key. A dry run drops it.
pub(crate) async fn finish_change(
    tx: WriteTx,
    caller: &AdmittedCaller,
    dry_run: bool,
    change: CatalogChange,
    done: impl IntoResponse,
) -> Result<Response> {
    if !dry_run {
        return idempotency::commit(tx, caller, done.into_response()).await;
    }
    let (sample, notes) = match change.tenant {
        Some(tenant) => (vec![PlanLine { tenant, action: change.action }], Vec::new()),
        None => (Vec::new(), vec![change.action]),
    };
    let plan = ChangePlan { kind: change.kind, tenants: sample.len() as u64, skipped: 0, left_out: 0, sample, notes };
    Ok(JsonBody(PlannedChange::new(plan)).into_response())
}

/// Plans or starts an operation. Answers 200 with the plan, or 202 with the operation and its location.
pub(crate) async fn submit_or_plan(
    api: &ApiState,
    caller: &AdmittedCaller,
    submission: Submission,
    dry_run: bool,
) -> Result<Response> {
    check_reason(submission.reason.as_deref())?;
    let mode = if dry_run { SubmitMode::Plan } else { SubmitMode::Run };
    match api.app.submit_operation(&caller.who, submission, mode).await? {
        SubmitOutcome::Planned(view) => Ok(JsonBody(PlannedChange::new(view.into())).into_response()),
        SubmitOutcome::Started(record) => accepted_response(api, record).await,
    }
}

/// Answers 202 with the operation and its location.
pub(crate) async fn accepted_response(api: &ApiState, record: OperationRecord) -> Result<Response> {
    let place = [(header::LOCATION, format!("/v1/operations/{}", record.id))];
    let operation = OperationView::with_progress(&mut api.app.catalog.read().await?, record).await?;
    Ok((StatusCode::ACCEPTED, place, JsonBody(operation)).into_response())
}

/// Refuses a reason that is too long or has several lines, because lists and logs show it.
pub(crate) fn check_reason(reason: Option<&str>) -> Result<()> {
    let fits = |reason: &str| reason.len() <= REASON_BYTES_MAX && !reason.chars().any(char::is_control);
    match reason {
        Some(reason) if !fits(reason) => {
            Err(Problem::invalid(format!("reason: expected at most {REASON_BYTES_MAX} bytes on one line")))
        }
        _ => Ok(()),
    }
}
