//! Accepts a submission: plans without side effects, then writes operation, steps and event in one transaction.

use std::collections::HashMap;

use catalog::events::NewEvent;
use catalog::idempotency::ClaimedIdempotencyKey;
use catalog::operations::{NewOperation, OperationRecord, WhenLeft};
use catalog::tenants::NewTenant;
use catalog::{ErrorKind as CatalogError, OperationId, ReadTx, WriteTx};
use serde_json::json;

use super::select::{self, SelectionPages};
use super::{Runner, STEPS_MAX};
use crate::error::{Error, ErrorKind, Result};
use crate::operation::ledgers::{self, KnownLedgers};
use crate::operation::plan::WayBack;
use crate::operation::{FleetOperation, OperationTargets, PlanInput, PreparedSubmission, StepPlan, SubmissionScope};
use crate::plan::{PlanView, TenantSelection};

/// The user who makes a request, for the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditCaller {
    /// The name of the token or user.
    pub actor: String,
    /// The id of the request.
    pub request_id: Option<String>,
    /// The request's Idempotency-Key, already claimed. Its answer is stored in the transaction that makes the change,
    /// so that a crash cannot separate the two.
    pub once: Option<ClaimedIdempotencyKey>,
}

impl AuditCaller {
    /// Stores the answer of the request in the transaction that makes its change.
    ///
    /// # Errors
    /// `idempotency_in_progress` when another process has taken the key over, because this process slept past its
    /// lease.
    pub(crate) async fn remember(&self, tx: &mut WriteTx, status: u16, answer: &str) -> Result<()> {
        let Some(taken) = &self.once else { return Ok(()) };
        catalog::idempotency::finish_request(tx, &self.actor, taken, status, answer).await.map_err(|error| match error
            .kind()
        {
            CatalogError::NotFound => {
                let detail = "another process has taken over this Idempotency-Key, so nothing was done here";
                Error::new(ErrorKind::IdempotencyInProgress, detail).try_next("repeat it in a moment")
            }
            _ => error.into(),
        })
    }

    /// Stores the operation as the answer. A repeated request reads the operation again.
    ///
    /// # Errors
    /// As [`Self::remember`].
    pub(crate) async fn remember_operation(&self, tx: &mut WriteTx, status: u16, operation: OperationId) -> Result<()> {
        self.remember(tx, status, &json!({"operation": operation}).to_string()).await
    }
}

/// A request to run an operation.
#[derive(Debug)]
pub struct Submission {
    /// The operation with its parameters.
    pub operation: Box<dyn FleetOperation>,
    /// The tenants to work on. Ignored by create, and by verify when it names backups.
    pub targets: TenantSelection,
    /// The reason that the requester gave.
    pub reason: Option<String>,
    /// Steps at once. `None`: as many as the runner allows.
    pub concurrency: Option<u32>,
    /// The expected number of tenants. Refused with `count_mismatch` when the plan has another number.
    pub expect_count: Option<u64>,
}

impl Submission {
    /// A submission with default options.
    #[must_use]
    pub fn new(operation: impl Into<Box<dyn FleetOperation>>, targets: TenantSelection) -> Self {
        Self { operation: operation.into(), targets, reason: None, concurrency: None, expect_count: None }
    }
}

impl Clone for Submission {
    fn clone(&self) -> Self {
        Self {
            operation: self.operation.clone_boxed(),
            targets: self.targets.clone(),
            reason: self.reason.clone(),
            ..*self
        }
    }
}

/// Whether the operation is run, or only planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubmitMode {
    /// Only show the plan: a dry run.
    Plan,
    /// Record the operation and start it.
    Run,
}

/// The result of a submission.
#[derive(Debug, Clone)]
pub enum SubmitOutcome {
    /// The plan of a dry run. Nothing was written.
    Planned(PlanView),
    /// The recorded operation. The runner has been woken; in an embedded process this process runs the operation.
    Started(OperationRecord),
}

impl Runner {
    /// Plans, and with [`SubmitMode::Run`] writes operation, steps and event in one transaction and wakes the runner.
    /// For create, the same transaction writes tenants and names. An embedded process runs what it submits.
    ///
    /// # Errors
    /// `shutting_down` after the process was told to stop; `invalid`, `selection_empty`, `not_found`, `already_exists`, `protected`, `count_mismatch`, `backup_not_found`,
    /// and those of the catalog. On an error nothing was written.
    pub async fn submit_operation(
        &self,
        caller: &AuditCaller,
        submission: Submission,
        mode: SubmitMode,
    ) -> Result<SubmitOutcome> {
        if self.tasks.stopping_token().is_cancelled() {
            return Err(Error::new(ErrorKind::ShuttingDown, "this process is shutting down"));
        }
        check_concurrency(submission.concurrency)?;
        let scope = if submission.targets.is_everyone() { SubmissionScope::All } else { SubmissionScope::Some };
        let prepared = submission.operation.prepare_submission(&self.context, scope).await?;
        let prepared = match mode {
            SubmitMode::Plan => submission.operation.prepare_dry_run(&self.context, prepared).await?,
            SubmitMode::Run => prepared,
        };
        let (planning, submission, seen, plan) = self.plan_submission(caller, &submission, prepared, mode).await?;
        check_count(&plan, submission.expect_count)?;
        let PlanTransaction::Real(mut tx) = planning else {
            return Ok(SubmitOutcome::Planned(plan.plan_view(submission.operation.kind_name())));
        };
        let record = write_operation(&mut tx, caller, &submission, &seen, plan).await?;
        tx.commit().await?;
        self.run_only(record.id);
        Ok(SubmitOutcome::Started(record))
    }
}

/// The transaction in which a plan is made.
enum PlanTransaction {
    /// Only reads, so that no writer of the catalog waits for a dry run.
    Dry(ReadTx),
    /// Also writes the operation.
    Real(WriteTx),
}

impl PlanTransaction {
    fn as_reader(&mut self) -> &mut ReadTx {
        match self {
            Self::Dry(tx) => tx,
            Self::Real(tx) => tx,
        }
    }
}

impl Runner {
    /// Plans in one transaction; a dry run does the same in a read transaction. Databases that the plan has to read
    /// first are read outside the transaction, and then the plan is made again.
    async fn plan_submission(
        &self,
        caller: &AuditCaller,
        asked: &Submission,
        mut prepared: PreparedSubmission,
        mode: SubmitMode,
    ) -> Result<(PlanTransaction, Submission, PlanInput, StepPlan)> {
        loop {
            let mut submission = asked.clone();
            let mut planning = self.begin_planning(caller, &mut submission, mode).await?;
            let (seen, plan) = plan_in_transaction(planning.as_reader(), caller, &mut submission, prepared).await?;
            if seen.applied.unread.is_empty() {
                return Ok((planning, submission, seen, plan));
            }
            drop(planning);
            prepared = seen.prepared;
            prepared.read.extend(ledgers::read_ledgers(&self.context, &seen.applied.unread).await);
        }
    }

    async fn begin_planning(
        &self,
        caller: &AuditCaller,
        submission: &mut Submission,
        mode: SubmitMode,
    ) -> Result<PlanTransaction> {
        if mode == SubmitMode::Plan {
            return Ok(PlanTransaction::Dry(self.context.catalog.read().await?));
        }
        let mut tx = self.context.catalog.write().await?;
        submission.operation.store_references(&mut tx, &caller.actor).await?;
        Ok(PlanTransaction::Real(tx))
    }
}

async fn plan_in_transaction(
    tx: &mut ReadTx,
    caller: &AuditCaller,
    submission: &mut Submission,
    prepared: PreparedSubmission,
) -> Result<(PlanInput, StepPlan)> {
    let targets = &mut submission.targets;
    let when_left = exclusion_rule(targets);
    targets.allow_empty |= targets.is_everyone() && submission.operation.works_without_tenants();
    let server = select::selected_server(tx, targets).await?;
    let mut pages = match submission.operation.target_tenants() {
        OperationTargets::Own => None,
        OperationTargets::Selected(states) => Some(SelectionPages::open_pages(tx, &submission.targets, states).await?),
        OperationTargets::One(states) => {
            let pages = SelectionPages::open_pages(tx, &submission.targets, states).await?;
            Some(require_one_tenant(tx, pages).await?)
        }
    };
    let mut seen = PlanInput {
        op: OperationId::generate(),
        now: tx.now(),
        actor: caller.actor.clone(),
        when_left,
        server,
        prepared,
        tenants: Vec::new(),
        current_release: catalog::fleet::current_release(tx).await?,
        head_version: None,
        servers: Vec::new(),
        taken: HashMap::new(),
        backups: HashMap::new(),
        retained: Vec::new(),
        applied: KnownLedgers::default(),
        going: KnownLedgers::default(),
        way_back: WayBack::default(),
        free_places: None,
    };
    let mut plan = StepPlan::default();
    loop {
        if let Some(pages) = &mut pages {
            let Some(page) = pages.next_page(tx).await? else { break };
            seen.tenants = page;
        }
        submission.operation.load_for_page(tx, &mut seen).await?;
        submission.operation.plan_page(&seen, &mut plan)?;
        if pages.is_none() {
            break;
        }
    }
    submission.operation.conclude_plan(&seen, &mut plan)?;
    // The catalog checks labels too, but a dry run does not write to it.
    plan.new.iter().try_for_each(|tenant| catalog::tenants::check_labels(&tenant.labels))?;
    Ok((seen, plan))
}

/// What happens to a tenant that has left the selection: an error if it was named, none if a rule selected it.
fn exclusion_rule(targets: &TenantSelection) -> WhenLeft {
    match targets {
        _ if targets.automatic => WhenLeft::Ignore,
        _ if !targets.names.is_empty() => WhenLeft::Fail,
        _ if targets.allow_empty => WhenLeft::Ignore,
        _ => WhenLeft::Skip,
    }
}

async fn require_one_tenant(tx: &mut ReadTx, pages: SelectionPages) -> Result<SelectionPages> {
    match pages.count_tenants(tx).await? {
        1 => Ok(pages),
        many => Err(Error::new(ErrorKind::Invalid, format!("exactly one tenant is needed, {many} were selected"))),
    }
}

/// Refuses a concurrency out of range. Limiting it silently would give another number than was requested.
fn check_concurrency(asked: Option<u32>) -> Result<()> {
    match asked {
        Some(asked) if !(1..=STEPS_MAX).contains(&asked) => {
            Err(Error::new(ErrorKind::Invalid, format!("concurrency: expected 1 to {STEPS_MAX}, got {asked}")))
        }
        _ => Ok(()),
    }
}

fn check_count(plan: &StepPlan, expected: Option<u64>) -> Result<()> {
    let found = plan.steps.len() as u64;
    match expected {
        Some(expected) if expected != found => {
            let detail = format!("{expected} tenants were expected, but the plan has {found}");
            Err(Error::new(ErrorKind::CountMismatch, detail).try_next("look at the plan with --dry-run"))
        }
        _ => Ok(()),
    }
}

async fn write_operation(
    tx: &mut WriteTx,
    caller: &AuditCaller,
    submission: &Submission,
    seen: &PlanInput,
    plan: StepPlan,
) -> Result<OperationRecord> {
    if !plan.new.is_empty() {
        catalog::tenants::insert_many(tx, &plan.new).await?;
    }
    if let Some(release) = plan.current {
        catalog::fleet::set_current_release(tx, release).await?;
    }
    let kind = submission.operation.kind_name();
    let concurrency = submission.concurrency.unwrap_or(STEPS_MAX);
    let new = NewOperation {
        id: seen.op,
        kind: kind.to_owned(),
        params: submission.operation.to_json()?,
        release_id: plan.release,
        tenants: plan.steps,
        skipped: plan.skipped,
        left_out: plan.left_out,
        when_left: seen.when_left,
        concurrency: i64::from(concurrency),
        requested_by: caller.actor.clone(),
        reason: submission.reason.clone(),
    };
    let record = match plan.opens {
        true => catalog::operations::insert_opening(tx, &new).await?,
        false => catalog::operations::insert_operation(tx, &new).await?,
    };
    let mut events = vec![submitted_event(caller, &record, new.left_out.len())];
    events.extend(plan.new.iter().map(|tenant| created_event(caller, seen.op, tenant)));
    catalog::events::append_events(tx, &events).await?;
    caller.remember_operation(tx, 202, record.id).await?;
    Ok(record)
}

fn submitted_event(caller: &AuditCaller, record: &OperationRecord, left_out: usize) -> NewEvent {
    NewEvent {
        kind: "operation.submitted".to_owned(),
        actor: caller.actor.clone(),
        tenant_id: None,
        op_id: Some(record.id),
        request_id: caller.request_id.clone(),
        data: json!({
            "kind": record.kind, "steps": record.steps_total, "skipped": record.steps_skipped,
            "left_out": left_out, "reason": record.reason,
        }),
    }
}

fn created_event(caller: &AuditCaller, op: OperationId, tenant: &NewTenant) -> NewEvent {
    NewEvent {
        kind: "tenant.created".to_owned(),
        actor: caller.actor.clone(),
        tenant_id: Some(tenant.id),
        op_id: Some(op),
        request_id: caller.request_id.clone(),
        data: json!({"name": tenant.name.as_str()}),
    }
}
