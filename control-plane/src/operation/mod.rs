//! What an operation is: the contract between the runner and the kinds of fleet work.
//!
//! An operation is a pure plan and an idempotent step. The plan says which tenants get a step, which need nothing, and
//! what is refused. The step looks first, then acts, and returns its outcome. `runner/` calls both, and knows no kind.
//! `operations/` holds the kinds, one file each. A step never writes to the catalog, retries or sleeps.

pub mod context;
pub mod ledger_name;
pub(crate) mod ledgers;
pub mod outcome;
pub mod plan;
pub mod step;

mod fault_injection;
mod write_pauses;

use std::fmt::Debug;

use async_trait::async_trait;
use catalog::operations::OperationRecord;
use catalog::{ReadTx, ReleaseId, ServerId, TenantRecord, TenantState, WriteTx};

pub use context::StepContext;
pub use outcome::{CatalogEffect, PhaseOutcome, StepVerdict};
pub use plan::{ExclusionReason, PlanInput, PreparedSubmission, StepPlan};
pub use step::ClaimedStep;

use crate::error::{Error, Result};

/// Makes operations from the rows that store them. `operations::registry()` knows every kind of this program.
#[derive(Debug, Clone, Copy)]
pub struct OperationRegistry {
    /// Parses the kind and the parameters of an operation's row. Fails with `internal` if a newer program wrote the row,
    /// with a kind that this program does not know.
    pub parse_record: fn(&OperationRecord) -> Result<Box<dyn FleetOperation>>,
}

/// The form in which the catalog stores an operation. The list of kinds implements it for each of them.
pub trait StoredOperation {
    /// The name of the kind in the catalog, the API and the metrics.
    fn kind_name(&self) -> &'static str;

    /// The kind with its parameters, as [`OperationRegistry::parse_record`] reads them.
    ///
    /// # Errors
    /// `internal`: the parameters have no JSON form.
    fn to_json(&self) -> Result<String>;

    /// A copy. A submission changes its copy while it plans, and plans again from the original.
    fn clone_boxed(&self) -> Box<dyn FleetOperation>;
}

/// One kind of fleet work.
#[async_trait]
pub trait FleetOperation: StoredOperation + Debug + Send + Sync {
    /// Whether a selection picks its tenants, and in which states they may be.
    fn target_tenants(&self) -> OperationTargets;

    /// Whether the operation does something when it is submitted for all tenants of an empty fleet.
    fn works_without_tenants(&self) -> bool {
        false
    }

    /// Whether each claim of a step reserves a new placement.
    fn placement_use(&self) -> PlacementUse {
        PlacementUse::Kept
    }

    /// Checks the parameters before the submission's transaction begins. Only here may a submission use the engines,
    /// because no transaction may wait for them.
    async fn prepare_submission(&self, _context: &StepContext, _scope: SubmissionScope) -> Result<PreparedSubmission> {
        Ok(PreparedSubmission::default())
    }

    /// Finds out for a dry run what a real run finds out in its opening.
    async fn prepare_dry_run(
        &self,
        _context: &StepContext,
        prepared: PreparedSubmission,
    ) -> Result<PreparedSubmission> {
        Ok(prepared)
    }

    /// Writes the records that the operation refers to, at the start of the submission's transaction. Not called in a
    /// dry run.
    async fn store_references(&mut self, _tx: &mut WriteTx, _actor: &str) -> Result<()> {
        Ok(())
    }

    /// Reads the records that the plan of one page of tenants needs, inside the submission's transaction. Open choices
    /// such as "the newest backup" are resolved here, so that a rerun makes the same choice.
    async fn load_for_page(&mut self, _tx: &mut ReadTx, _seen: &mut PlanInput) -> Result<()> {
        Ok(())
    }

    /// PURE: decides for one page of tenants which get a step, which need nothing, and what is refused.
    fn plan_page(&self, seen: &PlanInput, plan: &mut StepPlan) -> Result<()>;

    /// PURE: makes the decisions that need all pages. `seen` still holds the last page.
    fn conclude_plan(&self, _seen: &PlanInput, _plan: &mut StepPlan) -> Result<()> {
        Ok(())
    }

    /// The reason why a tenant no longer belongs to the selection, judged when its step begins. Only called when a rule
    /// selected the tenants.
    fn exclusion_reason(&self, tenant: &TenantRecord) -> Option<ExclusionReason> {
        match self.target_tenants() {
            OperationTargets::Selected(states) | OperationTargets::One(states) => {
                ExclusionReason::by_state(tenant, states)
            }
            OperationTargets::Own => None,
        }
    }

    /// A short description of the work before the first step. `None` if there is none, or if it is done.
    fn describe_opening(&self) -> Option<&'static str> {
        None
    }

    /// Runs the work before the first step. It must be repeatable, and may take long: the operation is recorded before
    /// it starts, and may be cancelled meanwhile.
    async fn run_opening(&self, _context: &StepContext, record: &OperationRecord) -> Result<OpenedOperation> {
        Err(Error::internal(format!("{} has no opening", record.kind)))
    }

    /// Runs one phase of one tenant's step. It must be repeatable: this process or another may already have run it,
    /// partly or completely.
    async fn run_phase(&self, context: &StepContext, step: &ClaimedStep) -> PhaseOutcome;

    /// The server, other than the tenant's own, on which a step may create a database.
    async fn other_server(&self, _context: &StepContext, _step: &ClaimedStep) -> Option<ServerId> {
        None
    }

    /// Called instead of a phase in which processes died too often. It brings the tenant back to where it can serve, or
    /// fails the step. It never repeats the phase. `tenant repair` finishes what it leaves undone.
    async fn give_up(&self, _context: &StepContext, _step: &ClaimedStep, error: Error) -> PhaseOutcome {
        PhaseOutcome { verdict: StepVerdict::Failed(error), effects: Vec::new() }
    }

    /// Whether tenants may have reached a version that no step reported, because a process died. Then their ledgers are
    /// read when the operation is cancelled.
    fn changes_versions(&self) -> bool {
        false
    }

    /// Runs the work of the whole operation after every step has ended. It must be repeatable.
    async fn run_closing(&self, _context: &StepContext, _record: &OperationRecord) -> Result<()> {
        Ok(())
    }
}

/// The result of an operation's opening.
#[derive(Debug)]
pub struct OpenedOperation {
    /// The operation from now on. Its parameters record that the opening is done.
    pub operation: Box<dyn FleetOperation>,
    /// The second release becomes current at once if the first is current and the operation has no steps.
    pub promotes: Option<(Option<ReleaseId>, ReleaseId)>,
    /// The error of an operation that has no tenants and did nothing. The operation fails with it.
    pub nothing_done: Option<Error>,
    /// The data of the event in the audit log.
    pub data: serde_json::Value,
}

/// Which tenants an operation works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationTargets {
    /// The selected tenants, which must be in one of these states. A submission without a selection is refused.
    Selected(&'static [TenantState]),
    /// Exactly one selected tenant, in one of these states.
    One(&'static [TenantState]),
    /// Tenants that the operation names itself. A selection is ignored.
    Own,
}

/// Whether the steps of an operation fill placements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlacementUse {
    /// The steps work on existing databases.
    Kept,
    /// Each claim increases the tenant's placement number before anything is created. So no path is used twice.
    Fresh,
}

/// Whether a submission concerns the whole fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubmissionScope {
    /// Every tenant, requested explicitly.
    All,
    /// A part of the tenants.
    Some,
}
