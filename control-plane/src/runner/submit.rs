//! The way in: plan purely, then write operation, steps and event in one transaction.

use std::collections::HashMap;

use catalog::events::NewEvent;
use catalog::operations::{NewOperation, OperationRecord, WhenLeft};
use catalog::tenants::NewTenant;
use catalog::{OperationId, ReadTx, TenantRecord, WriteTx};
use serde_json::json;

use super::{Runner, STEPS_MAX, select};
use crate::error::{Error, Result};
use crate::operations::ledgers::{self, Known};
use crate::operations::{Params, Plan, Prepared, Scope, Seen, Targets};
use crate::plan::{PlanView, Selection};

/// Who asks, for the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// A token's or a user's name.
    pub actor: String,
    /// Of the request it came with.
    pub request_id: Option<String>,
    /// The request's Idempotency-Key, taken already: a submission answers it in the transaction that writes the
    /// operation, so that a crash cannot come between.
    pub once: Option<String>,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Submission {
    /// What to do.
    pub params: Params,
    /// To whom; ignored by create, and by verify when it names backups.
    pub targets: Selection,
    /// Given by a human.
    pub reason: Option<String>,
    /// Steps at once; `None`: what the runner allows.
    pub concurrency: Option<u32>,
    /// Refused with `count_mismatch` when the plan has another number of tenants.
    pub expect_count: Option<u64>,
}

impl Submission {
    /// With nothing but what and to whom.
    #[must_use]
    pub fn new(params: Params, targets: Selection) -> Self {
        Self { params, targets, reason: None, concurrency: None, expect_count: None }
    }
}

/// Whether to do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Only say what would be done: a dry run.
    Plan,
    /// Write it down and begin.
    Run,
}

/// What came of a submission.
#[derive(Debug, Clone)]
pub enum Submitted {
    /// Nothing was written.
    Planned(PlanView),
    /// The runner has been woken; in an embedded process the operation is now this process's to run.
    Started(OperationRecord),
}

impl Runner {
    /// Plans, and in [`Mode::Run`] writes operation, steps and event (and, for create, tenants and names) in one
    /// transaction and wakes the runner.
    ///
    /// # Errors
    /// `invalid`, `selection_empty`, `not_found`, `already_exists`, `protected`, `count_mismatch`, `backup_not_found`,
    /// and those of the catalog; nothing was written then.
    pub async fn submit(&self, caller: &Caller, submission: Submission, mode: Mode) -> Result<Submitted> {
        check_concurrency(submission.concurrency)?;
        let scope = if submission.targets.is_everyone() { Scope::All } else { Scope::Some };
        let prepared = submission.params.operation().prepare(&self.fleet, scope).await?;
        let (planning, submission, seen, plan) = self.planned(caller, &submission, prepared, mode).await?;
        check_count(&plan, submission.expect_count)?;
        let Planning::Real(mut tx) = planning else {
            return Ok(Submitted::Planned(plan.view(submission.params.operation().kind())));
        };
        let record = write(&mut tx, caller, &submission, &seen, plan).await?;
        tx.commit().await?;
        self.run_only(record.id);
        Ok(Submitted::Started(record))
    }
}

/// The transaction that a plan is made in.
enum Planning {
    /// Reads only, so that no writer of the catalog waits for a question.
    Dry(ReadTx),
    /// Goes on to write the operation.
    Real(WriteTx),
}

impl Planning {
    fn reader(&mut self) -> &mut ReadTx {
        match self {
            Self::Dry(tx) => tx,
            Self::Real(tx) => tx,
        }
    }
}

impl Runner {
    /// Plans in one transaction; a dry run takes the same path in one that only reads. Databases that the plan has to look
    /// into first are read without a transaction; then it is planned again.
    async fn planned(
        &self,
        caller: &Caller,
        asked: &Submission,
        mut prepared: Prepared,
        mode: Mode,
    ) -> Result<(Planning, Submission, Seen, Plan)> {
        loop {
            let mut submission = asked.clone();
            let mut planning = self.begin_planning(caller, &mut submission, mode).await?;
            let (seen, plan) = plan(planning.reader(), caller, &mut submission, prepared).await?;
            if plan.unread.is_empty() {
                return Ok((planning, submission, seen, plan));
            }
            drop(planning);
            prepared = seen.prepared;
            prepared.read.extend(ledgers::read(&self.fleet, &plan.unread).await);
        }
    }

    async fn begin_planning(&self, caller: &Caller, submission: &mut Submission, mode: Mode) -> Result<Planning> {
        if mode == Mode::Plan {
            return Ok(Planning::Dry(self.fleet.catalog.read().await?));
        }
        let mut tx = self.fleet.catalog.write().await?;
        submission.params.operation_mut().store(&mut tx, &caller.actor).await?;
        Ok(Planning::Real(tx))
    }
}

async fn plan(
    tx: &mut ReadTx,
    caller: &Caller,
    submission: &mut Submission,
    prepared: Prepared,
) -> Result<(Seen, Plan)> {
    let targets = &mut submission.targets;
    let when_left = when_left(targets);
    targets.allow_empty |= targets.is_everyone() && submission.params.operation().works_without_tenants();
    let server = select::server(tx, targets).await?;
    let tenants = match submission.params.operation().targets() {
        Targets::Own => Vec::new(),
        Targets::Selected(states) => select::tenants(tx, &submission.targets, states).await?,
        Targets::One(states) => only_one(select::tenants(tx, &submission.targets, states).await?)?,
    };
    let mut seen = Seen {
        op: OperationId::generate(),
        now: tx.now(),
        actor: caller.actor.clone(),
        when_left,
        server,
        prepared,
        tenants,
        current_release: catalog::fleet::current_release(tx).await?,
        head_version: None,
        servers: Vec::new(),
        taken: HashMap::new(),
        backups: HashMap::new(),
        retained: Vec::new(),
        applied: Known::default(),
    };
    submission.params.operation_mut().look(tx, &mut seen).await?;
    let plan = submission.params.operation().plan(&seen)?;
    // The catalog refuses them as well, but not in a dry run, which writes nothing.
    plan.new.iter().try_for_each(|tenant| catalog::tenants::check_labels(&tenant.labels))?;
    Ok((seen, plan))
}

/// A tenant that somebody named and that is gone is an error. One that a rule selected is not.
fn when_left(targets: &Selection) -> WhenLeft {
    match targets {
        _ if targets.automatic => WhenLeft::Ignore,
        _ if !targets.names.is_empty() => WhenLeft::Fail,
        _ if targets.allow_empty => WhenLeft::Ignore,
        _ => WhenLeft::Skip,
    }
}

fn only_one(tenants: Vec<TenantRecord>) -> Result<Vec<TenantRecord>> {
    match tenants.len() {
        1 => Ok(tenants),
        many => Err(Error::new(422, "invalid", format!("exactly one tenant is needed, {many} were selected"))),
    }
}

/// A number that cannot be meant is refused: brought into the range, it would be another one than was asked for.
fn check_concurrency(asked: Option<u32>) -> Result<()> {
    match asked {
        Some(asked) if !(1..=STEPS_MAX).contains(&asked) => {
            Err(Error::new(422, "invalid", format!("concurrency: expected 1 to {STEPS_MAX}, got {asked}")))
        }
        _ => Ok(()),
    }
}

fn check_count(plan: &Plan, expected: Option<u64>) -> Result<()> {
    let found = plan.steps.len() as u64;
    match expected {
        Some(expected) if expected != found => {
            let detail = format!("{expected} tenants were expected, the plan has {found}");
            Err(Error::new(409, "count_mismatch", detail).try_next("look at the plan with --dry-run"))
        }
        _ => Ok(()),
    }
}

async fn write(
    tx: &mut WriteTx,
    caller: &Caller,
    submission: &Submission,
    seen: &Seen,
    plan: Plan,
) -> Result<OperationRecord> {
    if !plan.new.is_empty() {
        catalog::tenants::insert_many(tx, &plan.new).await?;
    }
    if let Some(release) = plan.current {
        catalog::fleet::set_current_release(tx, release).await?;
    }
    let kind = submission.params.operation().kind();
    let params = serde_json::to_string(&submission.params)
        .map_err(|error| Error::internal("an operation cannot be stored").with_source(error))?;
    let concurrency = submission.concurrency.unwrap_or(STEPS_MAX);
    let new = NewOperation {
        id: seen.op,
        kind: kind.to_owned(),
        params,
        release_id: plan.release,
        tenants: plan.steps,
        skipped: plan.skipped,
        left_out: plan.left_out,
        when_left: seen.when_left,
        concurrency: i64::from(concurrency),
        requested_by: caller.actor.clone(),
        reason: submission.reason.clone(),
    };
    let record = catalog::operations::insert(tx, &new).await?;
    let mut events = vec![submitted_event(caller, &record, new.left_out.len())];
    events.extend(plan.new.iter().map(|tenant| created_event(caller, seen.op, tenant)));
    catalog::events::append(tx, &events).await?;
    if let Some(key) = &caller.once {
        let answer = json!({"operation": record.id}).to_string();
        catalog::idempotency::finish(tx, &caller.actor, key, 202, &answer).await?;
    }
    Ok(record)
}

fn submitted_event(caller: &Caller, record: &OperationRecord, left_out: usize) -> NewEvent {
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

fn created_event(caller: &Caller, op: OperationId, tenant: &NewTenant) -> NewEvent {
    NewEvent {
        kind: "tenant.created".to_owned(),
        actor: caller.actor.clone(),
        tenant_id: Some(tenant.id),
        op_id: Some(op),
        request_id: caller.request_id.clone(),
        data: json!({"name": tenant.name.as_str()}),
    }
}
