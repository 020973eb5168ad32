//! The kinds of fleet work: one file per operation, and one line in the list of [`OperationParams`].
//!
//! An operation is a pure plan and an idempotent step. The plan says which tenants get a step, which need nothing, and
//! what is refused. The step looks first, then acts, and returns its outcome. `runner/` calls both. Nothing here writes
//! to the catalog, retries or sleeps.

pub mod planning;
pub mod step;
pub mod step_context;

pub mod adopt;
pub mod archive;
pub mod backup;
mod catalog_copy;
pub mod clone;
pub mod create;
pub mod delete;
pub mod migrate;
pub mod r#move;
pub mod purge;
pub mod read_only;
pub mod restore;
pub mod restore_undo;
pub mod resume;
pub mod settle;
pub mod suspend;
pub mod unarchive;
pub mod undelete;
pub mod verify;

mod backup_trust;
mod build;
mod fault_injection;
mod fence;
mod image;
pub mod ledger_name;
pub(crate) mod ledgers;
mod promotion;
mod replacement;
mod schema_pin;
mod stamp;
mod write_pauses;

pub(crate) use backup_trust::trusted_manifest as backup_manifest;
pub(crate) use replacement::leftovers::drop_unfinished;
pub(crate) use replacement::retained::drop_retained;

use async_trait::async_trait;
use catalog::backups::BackupRecord;
use catalog::events::NewEvent;
use catalog::operations::OperationRecord;
use catalog::replacements::ReplacementRecord;
use catalog::retained::RetainedRecord;
use catalog::tenants::TenantUpdate;
use catalog::{BackupId, OperationId, ReadTx, ReleaseId, ServerId, TenantId, TenantRecord, TenantState, WriteTx};
use serde::{Deserialize, Serialize};

pub use planning::{ExclusionReason, PlanInput, PreparedSubmission, StepPlan};
pub use step::ClaimedStep;
pub use step_context::StepContext;

use crate::error::{Error, Result};

/// Lists every kind of operation, one line each. No other list of kinds exists.
macro_rules! operations {
    ($($(#[$about:meta])* $variant:ident($module:ident, $params:ident),)*) => {
        /// The parameters of an operation, one variant per kind. Stored as JSON in the operation's row. Data that the
        /// rows of its tenants hold is not repeated there.
        #[derive(Debug, Clone, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        pub enum OperationParams {
            $($(#[$about])* $variant($module::$params),)*
        }

        /// The names of all kinds, as the catalog stores them.
        pub const KINDS: &[&str] = &[$(kind_of_module(stringify!($module))),*];

        impl OperationParams {
            /// The implementation of this kind.
            #[must_use]
            pub fn as_operation(&self) -> &dyn FleetOperation {
                match self { $(Self::$variant(params) => params,)* }
            }

            /// The implementation of this kind, mutable: a submission stores its decisions in the parameters.
            pub(crate) fn as_operation_mut(&mut self) -> &mut dyn FleetOperation {
                match self { $(Self::$variant(params) => params,)* }
            }
        }
    };
}

operations! {
    /// Creates tenants.
    Create(create, CreateParams),
    /// Creates a tenant as a copy of a database that belongs to no fleet.
    Adopt(adopt, AdoptParams),
    /// Migrates tenants to a release.
    Migrate(migrate, MigrateParams),
    /// Writes a snapshot of each tenant to the backup store.
    Backup(backup, BackupParams),
    /// Restores a tenant from a backup, in place or as a new tenant.
    Restore(restore, RestoreParams),
    /// Returns a tenant to the database that its last restore replaced.
    RestoreUndo(restore_undo, RestoreUndoParams),
    /// Proves that backups can be restored.
    Verify(verify, VerifyParams),
    /// Takes tenants out of service, with a reason.
    Suspend(suspend, SuspendParams),
    /// Resumes suspended tenants.
    Resume(resume, ResumeParams),
    /// Blocks tenants' writes, or allows them again.
    ReadOnly(read_only, ReadOnlyParams),
    /// Moves tenants to another server.
    Move(r#move, MoveParams),
    /// Creates a tenant with the data of another tenant.
    Clone(clone, CloneParams),
    /// Backs up tenants, verifies the backups, and then drops the databases.
    Archive(archive, ArchiveParams),
    /// Restores the databases of archived tenants.
    Unarchive(unarchive, UnarchiveParams),
    /// Takes tenants out of service. Their databases are dropped later.
    Delete(delete, DeleteParams),
    /// Restores deleted tenants to service.
    Undelete(undelete, UndeleteParams),
    /// Drops the databases of deleted tenants.
    Purge(purge, PurgeParams),
    /// Brings the catalog's record of a tenant and its database together after a failed operation (`tenant repair`).
    Settle(settle, SettleParams),
}

/// A module's name without the raw-identifier prefix `r#`.
const fn kind_of_module(module: &'static str) -> &'static str {
    match module.as_bytes() {
        [b'r', b'#', ..] => module.split_at(2).1,
        _ => module,
    }
}

impl OperationParams {
    /// Parses the parameters that an operation's row stores.
    ///
    /// # Errors
    /// `internal`: a newer program wrote the row, with a kind that this program does not know.
    pub fn parse_record(record: &OperationRecord) -> Result<Self> {
        serde_json::from_str(&record.params).map_err(|error| {
            Error::internal(format!("{} has a kind that this program does not know", record.id)).with_source(error)
        })
    }
}

/// One kind of fleet work.
#[async_trait]
pub trait FleetOperation: Send + Sync {
    /// The name of the kind in the catalog, the API and the metrics.
    fn kind_name(&self) -> &'static str;

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
    async fn prepare_submission(&self, _fleet: &StepContext, _scope: SubmissionScope) -> Result<PreparedSubmission> {
        Ok(PreparedSubmission::default())
    }

    /// Finds out for a dry run what a real run finds out in its opening.
    async fn prepare_dry_run(&self, _fleet: &StepContext, prepared: PreparedSubmission) -> Result<PreparedSubmission> {
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
    async fn run_opening(&self, _fleet: &StepContext, record: &OperationRecord) -> Result<OpenedOperation> {
        Err(Error::internal(format!("{} has no opening", record.kind)))
    }

    /// Runs one phase of one tenant's step. It must be repeatable: this process or another may already have run it,
    /// partly or completely.
    async fn run_phase(&self, fleet: &StepContext, step: &ClaimedStep) -> PhaseOutcome;

    /// The server, other than the tenant's own, on which a step may create a database.
    async fn other_server(&self, _fleet: &StepContext, _step: &ClaimedStep) -> Option<ServerId> {
        None
    }

    /// Undoes what a step did that has failed permanently. Returns the changes that the catalog records together with
    /// the failure.
    async fn put_back(&self, fleet: &StepContext, step: &ClaimedStep) -> Vec<CatalogEffect> {
        let made = replacement::failed_step::PossibleLeftovers {
            placements: self.placement_use(),
            elsewhere: self.other_server(fleet, step).await,
        };
        replacement::failed_step::after_failure(fleet, step, made).await
    }

    /// Called instead of a phase in which processes died too often. It brings the tenant back to where it can serve, or
    /// fails the step. It never repeats the phase. `tenant repair` finishes what it leaves undone.
    async fn give_up(&self, _fleet: &StepContext, _step: &ClaimedStep, error: Error) -> PhaseOutcome {
        PhaseOutcome { verdict: StepVerdict::Failed(error), effects: Vec::new() }
    }

    /// Runs the work of the whole operation after every step has ended. It must be repeatable.
    async fn run_closing(&self, _fleet: &StepContext, _record: &OperationRecord) -> Result<()> {
        Ok(())
    }
}

/// The result of an operation's opening.
#[derive(Debug)]
pub struct OpenedOperation {
    /// The operation's parameters from now on. They record that the opening is done.
    pub params: OperationParams,
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

/// The result of one phase of a step.
#[derive(Debug)]
pub struct PhaseOutcome {
    /// The next state of the step.
    pub verdict: StepVerdict,
    /// Changes that the recorder writes in the same transaction, if this step's lease is still valid.
    pub effects: Vec<CatalogEffect>,
}

impl PhaseOutcome {
    /// Ends the step as done. `facts` is what the operation reports of the tenant.
    #[must_use]
    pub fn step_done(facts: serde_json::Value) -> Self {
        Self { verdict: StepVerdict::Done(facts), effects: Vec::new() }
    }

    /// Continues the step with this phase.
    #[must_use]
    pub fn next_phase(phase: &'static str, facts: serde_json::Value) -> Self {
        Self { verdict: StepVerdict::Next { phase, facts }, effects: Vec::new() }
    }

    /// Adds one effect to this outcome.
    #[must_use]
    pub fn with_effect(mut self, effect: CatalogEffect) -> Self {
        self.effects.push(effect);
        self
    }
}

impl From<Result<PhaseOutcome>> for PhaseOutcome {
    fn from(result: Result<Self>) -> Self {
        result.unwrap_or_else(|error| Self { verdict: StepVerdict::Failed(error), effects: Vec::new() })
    }
}

/// The next state of a step.
#[derive(Debug)]
pub enum StepVerdict {
    /// The step continues with another phase.
    Next {
        /// The name of the phase.
        phase: &'static str,
        /// JSON that the phase reads with [`ClaimedStep::parse_facts`].
        facts: serde_json::Value,
    },
    /// The step is done. Holds what the operation reports of this tenant.
    Done(serde_json::Value),
    /// The step did not run, because the tenant has left the selection.
    Skipped(ExclusionReason),
    /// The phase failed. It is tried again if the error is transient and attempts remain. Otherwise the step fails.
    Failed(Error),
}

/// A change of the catalog that is written together with a step's outcome.
#[derive(Debug)]
pub enum CatalogEffect {
    /// Updates the tenant's row, if its generation is still the expected one.
    Flip(TenantUpdate),
    /// Records the schema that a migration reached.
    Schema {
        /// The migrated tenant.
        tenant: TenantId,
        /// The newest version in the tenant's ledger.
        version: Option<i64>,
        /// The release whose head the database is at.
        release: Option<ReleaseId>,
        /// The release whose files the ledger holds. `None` if that is not known.
        ledger: Option<ReleaseId>,
    },
    /// Makes a release current, because a tenant was migrated to it: new tenants start from it. Nothing changes if
    /// another release was chosen meanwhile.
    Promote {
        /// The operation that promotes the release.
        op: OperationId,
        /// The release that was current at submission.
        from: Option<ReleaseId>,
        /// The release that becomes current.
        release: ReleaseId,
        /// The event for the audit log.
        event: NewEvent,
    },
    /// Records a new backup.
    Backup(Box<BackupRecord>),
    /// Records the result of verifying a backup.
    Verified {
        /// The verified backup.
        backup: BackupId,
        /// The failure that the verification found. `None` if the backup is good.
        error: Option<String>,
    },
    /// Records a database that is retained for a while.
    Retain(RetainedRecord),
    /// Removes the record of a retained database, because it serves again or was dropped.
    Unretain {
        /// The server that holds the database.
        server: ServerId,
        /// The database's placement on that server.
        placement: String,
    },
    /// Records a replacement of a tenant's database, or how far it is now.
    PutReplacement(Box<ReplacementRecord>),
    /// Ends the record of a tenant's replacement, together with the block of its writes.
    EndReplacement(TenantId),
    /// Unpins a tenant that was migrated by name. Migrations of many tenants include it again.
    Unpin(TenantId),
    /// Records the size of a tenant's database.
    Size {
        /// The tenant whose database was measured.
        tenant: TenantId,
        /// The size in bytes.
        size_bytes: i64,
    },
    /// Adds an event to the audit log.
    Event(NewEvent),
}
