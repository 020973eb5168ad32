//! What every changing route shares: the wish for a dry run, a reason, and how a change or a submission is answered.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use catalog::operations::OperationRecord;
use catalog::{OperationId, WriteTx};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::operations::Operation;
use super::tenant_work;
use crate::error::Error;
use crate::http::Api;
use crate::http::admission::Caller;
use crate::http::error::{Problem, Result};
use crate::http::extract::Json;
use crate::plan::{PlanView, Sample};
use crate::runner::submit::{Mode, Submission, Submitted};

/// A sentence, not a document: it is stored with every event.
const REASON_BYTES_MAX: usize = 1_000;

/// How a change is asked for, where there is nothing else to say.
#[derive(Debug, Default, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wish {
    /// Only say what would be done.
    #[serde(default)]
    pub(crate) dry_run: bool,
    /// Why, for the audit log.
    pub(crate) reason: Option<String>,
}

/// What would be done.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Planned {
    /// Always true.
    dry_run: bool,
    /// What would be done.
    plan: Plan,
}

/// What would be done.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Plan {
    /// The operation's kind, or the event's for a change that is no operation.
    kind: &'static str,
    /// Tenants it would work on.
    tenants: u64,
    /// Tenants that need nothing.
    skipped: u64,
    /// Tenants that are left out, each with a reason.
    left_out: u64,
    /// The first few.
    sample: Vec<PlanLine>,
    /// What a human should know before saying yes.
    notes: Vec<String>,
}

/// What would be done to one tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlanLine {
    /// Its name.
    tenant: String,
    /// In words.
    action: String,
}

impl From<PlanView> for Plan {
    fn from(view: PlanView) -> Self {
        let line = |Sample { tenant, action }: Sample| PlanLine { tenant, action };
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

impl Planned {
    /// The answer to a dry run.
    pub(crate) fn new(plan: Plan) -> Self {
        Self { dry_run: true, plan }
    }
}

impl Plan {
    /// A plan about so many tenants, without naming them.
    pub(crate) fn about(kind: &'static str, tenants: u64, note: String) -> Self {
        Self { kind, tenants, skipped: 0, left_out: 0, sample: Vec::new(), notes: vec![note] }
    }
}

/// A change that is no operation: one transaction of the catalog.
pub(crate) struct Change {
    /// As its event says.
    pub(crate) kind: &'static str,
    /// The tenant's name, if it is about one.
    pub(crate) tenant: Option<String>,
    /// In words, for a dry run.
    pub(crate) action: String,
}

/// Ends the transaction in which everything was done: for good, or, in a dry run, by dropping it.
pub(crate) async fn settle(tx: WriteTx, dry_run: bool, change: Change, done: impl IntoResponse) -> Result<Response> {
    if !dry_run {
        tx.commit().await?;
        return Ok(done.into_response());
    }
    let (sample, notes) = match change.tenant {
        Some(tenant) => (vec![PlanLine { tenant, action: change.action }], Vec::new()),
        None => (Vec::new(), vec![change.action]),
    };
    let plan = Plan { kind: change.kind, tenants: sample.len() as u64, skipped: 0, left_out: 0, sample, notes };
    Ok(Json(Planned::new(plan)).into_response())
}

/// Plans or starts an operation: 200 with the plan, or 202 with the operation and its place.
pub(crate) async fn submit(api: &Api, caller: &Caller, submission: Submission, dry_run: bool) -> Result<Response> {
    check_reason(submission.reason.as_deref())?;
    let mode = if dry_run { Mode::Plan } else { Mode::Run };
    match api.app.submit(&caller.who, submission, mode).await? {
        Submitted::Planned(view) => Ok(Json(Planned::new(view.into())).into_response()),
        Submitted::Started(record) => accepted(api, record).await,
    }
}

async fn accepted(api: &Api, record: OperationRecord) -> Result<Response> {
    let place = [(header::LOCATION, format!("/v1/operations/{}", record.id))];
    let operation = Operation::read(&mut api.app.catalog.read().await?, record).await?;
    Ok((StatusCode::ACCEPTED, place, Json(operation)).into_response())
}

/// The answer of the route `path` that started this operation, made again.
pub(crate) async fn started(api: &Api, path: &str, operation: OperationId) -> Result<Response> {
    let found = catalog::operations::get(&mut api.app.catalog.read().await?, operation).await?;
    let record = found.ok_or_else(|| Error::internal("a remembered operation is not in the catalog"))?;
    match path {
        "/v1/tenants" | "/v1/tenants/adopt" => tenant_work::created(api, record).await,
        _ => accepted(api, record).await,
    }
}

/// A reason is shown in lists and logs, so it is short and one line.
pub(crate) fn check_reason(reason: Option<&str>) -> Result<()> {
    let fits = |reason: &str| reason.len() <= REASON_BYTES_MAX && !reason.chars().any(char::is_control);
    match reason {
        Some(reason) if !fits(reason) => {
            Err(Problem::invalid(format!("reason: expected at most {REASON_BYTES_MAX} bytes on one line")))
        }
        _ => Ok(()),
    }
}
