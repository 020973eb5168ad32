//! What an operation's plan is made from, and what it says.

use std::collections::HashMap;
use std::sync::Arc;

use catalog::backups::BackupRecord;
use catalog::operations::{LeftOut, WhenLeft};
use catalog::retained::RetainedRecord;
use catalog::tenants::NewTenant;
use catalog::{Name, OperationId, ReleaseId, ServerId, ServerRecord, TenantId, TenantRecord, TenantState};
use tenant_engine::MigrationSets;

use super::ledgers::{Known, ReadLedgers};
use crate::plan::{PlanView, SAMPLE_MAX, Sample};

/// What was found out before the transaction of a submission.
#[derive(Debug, Default)]
pub struct Prepared {
    /// New tenants with their ids and normalised names, in the order asked for; filled by create and by `--as`.
    pub named: Vec<(TenantId, Name)>,
    /// Whether the release becomes what new tenants start from; filled by migrate.
    pub current: Current,
    /// Ledgers read from databases of which the catalog does not know what they have applied; filled for migrate.
    pub(crate) read: ReadLedgers,
    /// The migration set that is asked for; filled by migrate.
    pub sets: Option<Arc<MigrationSets>>,
}

/// Whether a release becomes what new tenants start from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Current {
    /// The run is about some tenants, or stops before the head.
    #[default]
    Unchanged,
    /// Every tenant goes there, so new ones do too.
    Becomes,
    /// The same, but no empty database of some engine can be brought there, for this reason.
    BecomesExcept(String),
    /// It would, but no empty database can be brought there, for this reason.
    CannotBuild(String),
}

/// Everything a plan may look at, read in one transaction.
#[derive(Debug)]
pub struct Seen {
    /// The operation to be.
    pub op: OperationId,
    /// Milliseconds since 1970.
    pub now: i64,
    /// Who asks.
    pub actor: String,
    /// What becomes of a tenant that leaves; a tenant that somebody named is never left out.
    pub when_left: WhenLeft,
    /// The server that the selection names.
    pub server: Option<ServerId>,
    /// Found out before.
    pub prepared: Prepared,
    /// The selected tenants, in the order of their ids.
    pub tenants: Vec<TenantRecord>,
    /// What new tenants start from.
    pub current_release: Option<ReleaseId>,
    /// The newest version of what new tenants start from; filled by restore.
    pub head_version: Option<i64>,
    /// Servers with the number of their tenants; filled by those who place new ones.
    pub servers: Vec<(ServerRecord, i64)>,
    /// Names that are taken; filled by those who make new ones.
    pub taken: HashMap<Name, TenantId>,
    /// Backups by their tenant; filled by those who read backups.
    pub backups: HashMap<TenantId, Vec<BackupRecord>>,
    /// Kept databases of the selected tenants; filled by undo.
    pub retained: Vec<RetainedRecord>,
    /// What the selected tenants have applied; filled by migrate.
    pub(crate) applied: Known,
}

impl Seen {
    /// Whether a rule selected the tenants: one that cannot take part is then left out, and the run still succeeds.
    #[must_use]
    pub fn by_rule(&self) -> bool {
        self.when_left != WhenLeft::Fail
    }
}

/// Why a tenant of a selection takes no part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The stable code, for programs.
    pub code: &'static str,
    /// In words, for people.
    pub why: String,
}

impl Left {
    /// What `tenant` is instead of what the operation works on.
    #[must_use]
    pub fn is(code: &'static str, tenant: &TenantRecord, what: &str) -> Self {
        Self { code, why: format!("{} is {what}", tenant.name) }
    }

    /// Whether the tenant is in another state than these.
    #[must_use]
    pub fn by_state(tenant: &TenantRecord, states: &[TenantState]) -> Option<Self> {
        let state = serde_json::to_value(tenant.state).unwrap_or_default();
        let what = format!("{} now", state.as_str().unwrap_or("in another state"));
        (!states.contains(&tenant.state)).then(|| Self::is("tenant_left", tenant, &what))
    }
}

/// Who gets a step.
#[derive(Debug, Default)]
pub struct Plan {
    /// One step each.
    pub steps: Vec<TenantId>,
    /// Tenants that need nothing.
    pub skipped: i64,
    /// Tenants that belong to the selection and get no step, each with the reason.
    pub left_out: Vec<LeftOut>,
    /// Their ledgers have to be read before anything is decided.
    pub unread: Vec<TenantRecord>,
    /// Tenants to be made, with their names; they are among `steps`.
    pub new: Vec<NewTenant>,
    /// The migration set that the steps need.
    pub release: Option<ReleaseId>,
    /// Becomes what new tenants start from.
    pub current: Option<ReleaseId>,
    /// The first few tenants, and what would be done to them.
    pub sample: Vec<Sample>,
    /// What a human should know before saying yes.
    pub notes: Vec<String>,
}

impl Plan {
    /// A step for this tenant, described by `action`.
    pub fn step(&mut self, tenant: TenantId, name: &str, action: impl FnOnce() -> String) {
        self.steps.push(tenant);
        self.sample(name, action);
    }

    /// Nothing for this tenant, because of `why`.
    pub fn skip(&mut self, name: &str, why: impl FnOnce() -> String) {
        self.skipped += 1;
        self.sample(name, why);
    }

    /// No step for this tenant, which does not have what the operation is to bring about: its steps say the reason.
    pub fn leave_out(&mut self, tenant: &TenantRecord, left: Left) {
        self.sample(&tenant.name, || format!("is left out: {}", left.why));
        self.left_out.push(LeftOut { tenant: tenant.id, code: left.code, why: left.why });
    }

    fn sample(&mut self, name: &str, action: impl FnOnce() -> String) {
        if self.sample.len() < SAMPLE_MAX {
            self.sample.push(Sample { tenant: name.to_owned(), action: action() });
        }
    }

    /// What a dry run shows.
    #[must_use]
    pub fn view(&self, kind: &'static str) -> PlanView {
        PlanView {
            kind,
            tenants: self.steps.len() as u64,
            skipped: u64::try_from(self.skipped).unwrap_or(0),
            left_out: self.left_out.len() as u64,
            sample: self.sample.clone(),
            notes: self.notes.clone(),
        }
    }
}
