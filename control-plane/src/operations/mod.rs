//! What can be done to tenants: one file per operation, one line here.
//!
//! An operation is a pure plan (which tenants, which need nothing, what is refused) and an idempotent step: look, act,
//! say what came of it. The runner calls both; nothing here writes to the catalog, retries or sleeps.

pub mod backup;
pub mod create;
pub mod delete;
pub mod migrate;
pub mod restore;
pub mod restore_undo;
pub mod verify;

use catalog::backups::BackupRecord;
use catalog::events::NewEvent;
use catalog::retained::RetainedRecord;
use catalog::tenants::Flip;
use catalog::{BackupId, ReleaseId, ServerId, TenantId};

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// What an operation was asked to do: one variant per kind. Stored as JSON in the operation's row, without what its
/// tenants' rows already say.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Params {
    /// Makes new tenants.
    Create(create::Params),
    /// Brings tenants to a release.
    Migrate(migrate::Params),
    /// Puts a picture of each tenant into the backup store.
    Backup(backup::Params),
    /// Brings a tenant back to a backup, in place or as a new tenant.
    Restore(restore::Params),
    /// Returns a tenant to the database that its last restore replaced.
    RestoreUndo(restore_undo::Params),
    /// Proves that backups can be restored.
    Verify(verify::Params),
    /// Takes tenants out of service; their databases go later.
    Delete(delete::Params),
}

/// What one phase of a step came to.
#[derive(Debug)]
pub struct Outcome {
    /// Where the step goes from here.
    pub verdict: Verdict,
    /// What the recorder writes in the same transaction, if this step's lease is still live.
    pub effects: Vec<Effect>,
}

/// Where a step goes from here.
#[derive(Debug)]
pub enum Verdict {
    /// To this phase.
    Next {
        /// Its name.
        phase: &'static str,
        /// What it needs to know.
        facts: serde_json::Value,
    },
    /// Done; what the operation reports of this tenant.
    Done(serde_json::Value),
    /// Failed: tried again when the error is transient and attempts are left, else given up.
    Failed(Error),
}

/// A change of the catalog that belongs to a step's outcome.
#[derive(Debug)]
pub enum Effect {
    /// A compare-and-set of the tenant.
    Flip(Flip),
    /// What a migration reached.
    Schema {
        /// Whose.
        tenant: TenantId,
        /// The ledger's newest version.
        version: Option<i64>,
        /// The release it is at the head of.
        release: Option<ReleaseId>,
    },
    /// A backup exists.
    Backup(Box<BackupRecord>),
    /// A backup was verified.
    Verified {
        /// Which.
        backup: BackupId,
        /// What was wrong with it.
        error: Option<String>,
    },
    /// A database is kept for a while.
    Retain(RetainedRecord),
    /// A kept database is current again, or gone.
    Unretain {
        /// Where it is.
        server: ServerId,
        /// Where it is.
        placement: String,
    },
    /// For the audit log.
    Event(NewEvent),
}
