//! The outcome of a step's phase: the step's next state, and the changes of the catalog that the recorder writes with it.

use catalog::backups::BackupRecord;
use catalog::events::NewEvent;
use catalog::replacements::ReplacementRecord;
use catalog::retained::RetainedRecord;
use catalog::tenants::TenantUpdate;
use catalog::{BackupId, Generation, OperationId, ReleaseId, ServerId, TenantId};

use super::plan::ExclusionReason;
use crate::error::{Error, Result};

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
        /// JSON that the phase reads with [`super::ClaimedStep::parse_facts`].
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
    UpdateTenant(TenantUpdate),
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
    /// Makes the tenant's waiting jobs dead letters: those enqueued below this generation.
    BuryJobs {
        /// The tenant whose jobs are in the database that the operation brings back or ends.
        tenant: TenantId,
        /// The first generation whose jobs run.
        below: Generation,
        /// The reason, as `job list` shows it.
        reason: &'static str,
    },
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
