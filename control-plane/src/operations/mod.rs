//! What can be done to tenants: one file per operation, one line in the list of [`Params`].
//!
//! An operation is a pure plan (which tenants, which need nothing, what is refused) and an idempotent step: look, act,
//! say what came of it. `runner/` calls both; nothing here writes to the catalog, retries or sleeps.

pub mod fleet;
pub mod planning;
pub mod step;

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

mod build;
mod fence;
mod image;
mod kept;
pub(crate) mod ledgers;
mod newest;
mod pauses;
mod pin;
mod put_back;
mod stamp;
mod swap;
mod thaw;
mod trust;

pub(crate) use kept::drop_kept;
pub(crate) use trust::manifest as backup_manifest;

use async_trait::async_trait;
use catalog::backups::BackupRecord;
use catalog::events::NewEvent;
use catalog::operations::OperationRecord;
use catalog::retained::RetainedRecord;
use catalog::tenants::Flip;
use catalog::{BackupId, OperationId, ReadTx, ReleaseId, ServerId, TenantId, TenantRecord, TenantState, WriteTx};
use serde::{Deserialize, Serialize};

pub use fleet::Fleet;
pub use planning::{Left, Plan, Prepared, Seen};
pub use step::Step;

use crate::error::{Error, Result};

/// Every kind of operation: one line each, here and nowhere else.
macro_rules! operations {
    ($($(#[$about:meta])* $variant:ident($module:ident),)*) => {
        /// What an operation was asked to do: one variant per kind. Stored as JSON in the operation's row, without what
        /// its tenants' rows already say.
        #[derive(Debug, Clone, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        pub enum Params {
            $($(#[$about])* $variant($module::Params),)*
        }

        /// The names of all kinds, as the catalog stores them.
        pub const KINDS: &[&str] = &[$(kind(stringify!($module))),*];

        impl Params {
            /// What runs it.
            #[must_use]
            pub fn operation(&self) -> &dyn Operation {
                match self { $(Self::$variant(params) => params,)* }
            }

            /// The same, for the decisions of a submission.
            pub(crate) fn operation_mut(&mut self) -> &mut dyn Operation {
                match self { $(Self::$variant(params) => params,)* }
            }
        }
    };
}

operations! {
    /// Makes new tenants.
    Create(create),
    /// Makes a new tenant of a database that no fleet knows.
    Adopt(adopt),
    /// Brings tenants to a release.
    Migrate(migrate),
    /// Puts a picture of each tenant into the backup store.
    Backup(backup),
    /// Brings a tenant back to a backup, in place or as a new tenant.
    Restore(restore),
    /// Returns a tenant to the database that its last restore replaced.
    RestoreUndo(restore_undo),
    /// Proves that backups can be restored.
    Verify(verify),
    /// Takes tenants out of service for a reason.
    Suspend(suspend),
    /// Lets suspended tenants answer again.
    Resume(resume),
    /// Blocks tenants' writes, or allows them again.
    ReadOnly(read_only),
    /// Takes tenants to another server.
    Move(r#move),
    /// Makes a new tenant with another one's data.
    Clone(clone),
    /// Leaves only a verified backup of tenants.
    Archive(archive),
    /// Gives archived tenants their databases back.
    Unarchive(unarchive),
    /// Takes tenants out of service; their databases go later.
    Delete(delete),
    /// Brings deleted tenants back.
    Undelete(undelete),
    /// Drops the databases of deleted tenants.
    Purge(purge),
    /// Lets catalog and databases agree again.
    Settle(settle),
}

/// A module's name without what makes it one that is no keyword.
const fn kind(module: &'static str) -> &'static str {
    match module.as_bytes() {
        [b'r', b'#', ..] => module.split_at(2).1,
        _ => module,
    }
}

impl Params {
    /// Reads what an operation's row stores.
    ///
    /// # Errors
    /// `internal`: a later program wrote it.
    pub fn parse(record: &OperationRecord) -> Result<Self> {
        serde_json::from_str(&record.params).map_err(|error| {
            Error::internal(format!("{} is of a kind this program does not know", record.id)).with_source(error)
        })
    }
}

/// One kind of fleet work.
#[async_trait]
pub trait Operation: Send + Sync {
    /// Its name in the catalog, the API and the metrics.
    fn kind(&self) -> &'static str;

    /// Whether a selection picks its tenants, and in which states they may be.
    fn targets(&self) -> Targets;

    /// Whether it does something when it is asked for all tenants of a fleet that has none.
    fn works_without_tenants(&self) -> bool {
        false
    }

    /// Whether a claim reserves a new placement for the step.
    fn placements(&self) -> Placements {
        Placements::Kept
    }

    /// Checks what was asked before the catalog is touched; may use the engines, which a transaction may not wait for.
    async fn prepare(&self, _fleet: &Fleet, _scope: Scope) -> Result<Prepared> {
        Ok(Prepared::default())
    }

    /// Writes what the operation refers to, at the begin of the submission's transaction; not in a dry run.
    async fn store(&mut self, _tx: &mut WriteTx, _actor: &str) -> Result<()> {
        Ok(())
    }

    /// Reads what the plan needs and settles what was left open ("the newest backup"), inside the submission's
    /// transaction, so that a rerun does the same thing.
    async fn look(&mut self, _tx: &mut ReadTx, _seen: &mut Seen) -> Result<()> {
        Ok(())
    }

    /// PURE: who gets a step, who needs nothing, what is refused.
    fn plan(&self, seen: &Seen) -> Result<Plan>;

    /// Why a tenant, as it is when its step begins, does not belong to the selection any more. Only asked when a rule
    /// selected the tenants.
    fn has_left(&self, tenant: &TenantRecord) -> Option<Left> {
        match self.targets() {
            Targets::Selected(states) | Targets::One(states) => Left::by_state(tenant, states),
            Targets::Own => None,
        }
    }

    /// One phase of one tenant's step. Repeatable: it may have run before, in part or in whole, here or elsewhere.
    async fn step(&self, fleet: &Fleet, step: &Step) -> Outcome;

    /// A server besides the tenant's own on which a step may make a database.
    async fn other_server(&self, _fleet: &Fleet, _step: &Step) -> Option<ServerId> {
        None
    }

    /// Puts back what a step has touched that failed for good; returns what the catalog is to be told with the failure.
    async fn put_back(&self, fleet: &Fleet, step: &Step) -> Vec<Effect> {
        let made = put_back::Made { placements: self.placements(), elsewhere: self.other_server(fleet, step).await };
        put_back::after_failure(fleet, step, made).await
    }

    /// Called instead of a phase whose processes died too often: leads the tenant back to where it serves, or fails the
    /// step. It does not repeat what the phase does. What it leaves undone, a repair of the tenant does.
    async fn give_up(&self, _fleet: &Fleet, _step: &Step, error: Error) -> Outcome {
        Outcome { verdict: Verdict::Failed(error), effects: Vec::new() }
    }

    /// What belongs to the operation as a whole, when every step has ended. Repeatable.
    async fn close(&self, _fleet: &Fleet, _record: &OperationRecord) -> Result<()> {
        Ok(())
    }
}

/// Which tenants an operation works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Targets {
    /// Those selected, which must be in one of these states. Without a selection it is refused.
    Selected(&'static [TenantState]),
    /// Exactly one, in one of these states.
    One(&'static [TenantState]),
    /// It names its own; a selection is ignored.
    Own,
}

/// Whether the steps of an operation fill placements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placements {
    /// They work on databases that are there.
    Kept,
    /// Each claim counts the tenant's placement number up, before anything is made: no path is used twice.
    Fresh,
}

/// How much of the fleet a submission is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Explicitly every tenant.
    All,
    /// Some.
    Some,
}

/// What one phase of a step came to.
#[derive(Debug)]
pub struct Outcome {
    /// Where the step goes from here.
    pub verdict: Verdict,
    /// What the recorder writes in the same transaction, if this step's lease is still live.
    pub effects: Vec<Effect>,
}

impl Outcome {
    /// The step is over.
    #[must_use]
    pub fn done(facts: serde_json::Value) -> Self {
        Self { verdict: Verdict::Done(facts), effects: Vec::new() }
    }

    /// The step goes on with this phase.
    #[must_use]
    pub fn next(phase: &'static str, facts: serde_json::Value) -> Self {
        Self { verdict: Verdict::Next { phase, facts }, effects: Vec::new() }
    }

    /// The same, with one more effect.
    #[must_use]
    pub fn with(mut self, effect: Effect) -> Self {
        self.effects.push(effect);
        self
    }
}

impl From<Result<Outcome>> for Outcome {
    fn from(result: Result<Self>) -> Self {
        result.unwrap_or_else(|error| Self { verdict: Verdict::Failed(error), effects: Vec::new() })
    }
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
    /// Not run, because the tenant has left the selection.
    Skipped(Left),
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
        /// The release whose files the ledger holds; `None`: it is not known.
        ledger: Option<ReleaseId>,
    },
    /// A release succeeded somewhere: new tenants start from it, unless that was decided since.
    Promote {
        /// By which operation.
        op: OperationId,
        /// Current when it was submitted.
        from: Option<ReleaseId>,
        /// What becomes current.
        release: ReleaseId,
        /// For the audit log.
        event: NewEvent,
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
    /// A tenant was migrated by name, and migrations of many tenants may take it again.
    Unpin(TenantId),
    /// How large a tenant's database is.
    Size {
        /// Whose.
        tenant: TenantId,
        /// Its length.
        size_bytes: i64,
    },
    /// For the audit log.
    Event(NewEvent),
}
