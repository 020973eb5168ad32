//! Shared by all changing routes: dry runs, reasons, and the answers to changes and submissions.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use catalog::WriteTx;
use catalog::operations::OperationRecord;
use fleet_api::changes::{ChangePlan, PlanLine, PlannedChange};

use crate::http::ApiState;
use crate::http::admin::operations::operation_view;
use crate::http::admission::AdmittedCaller;
use crate::http::error::{Problem, Result};
use crate::http::extract::JsonBody;
use crate::http::idempotency;
use crate::plan::{PlanSample, PlanView};
use crate::runner::submit::{Submission, SubmitMode, SubmitOutcome};

/// Maximum length of a reason: a sentence, because it is stored with every event.
const REASON_BYTES_MAX: usize = 1_000;

impl From<PlanView> for ChangePlan {
    fn from(view: PlanView) -> Self {
        let line = |PlanSample { tenant, action }: PlanSample| PlanLine { tenant, action };
        Self {
            kind: view.kind.to_owned(),
            tenants: view.tenants,
            skipped: view.skipped,
            left_out: view.left_out,
            sample: view.sample.into_iter().map(line).collect(),
            notes: view.notes,
        }
    }
}

/// The answer to a dry run.
pub(crate) fn planned_change(plan: ChangePlan) -> PlannedChange {
    PlannedChange { dry_run: true, plan }
}

/// A plan for this many tenants, without their names.
pub(crate) fn tenant_plan(kind: &'static str, tenants: u64, note: String) -> ChangePlan {
    ChangePlan { kind: kind.to_owned(), tenants, skipped: 0, left_out: 0, sample: Vec::new(), notes: vec![note] }
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
    let plan = ChangePlan {
        kind: change.kind.to_owned(),
        tenants: sample.len() as u64,
        skipped: 0,
        left_out: 0,
        sample,
        notes,
    };
    Ok(JsonBody(planned_change(plan)).into_response())
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
    match api.app.runner.submit_operation(&caller.who, submission, mode).await? {
        SubmitOutcome::Planned(view) => Ok(JsonBody(planned_change(view.into())).into_response()),
        SubmitOutcome::Started(record) => accepted_response(api, record).await,
    }
}

/// Answers 202 with the operation and its location.
pub(crate) async fn accepted_response(api: &ApiState, record: OperationRecord) -> Result<Response> {
    let place = [(header::LOCATION, format!("/v1/operations/{}", record.id))];
    let operation = operation_view(&mut api.app.catalog.read().await?, record).await?;
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
