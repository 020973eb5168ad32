//! The input of an operation's plan, and the plan itself.
//!
//! A plan grows page by page. Of a tenant whose page is done, only the id of its step stays in memory. So memory does
//! not grow with the records of the fleet.

use std::collections::HashMap;
use std::sync::Arc;

use catalog::backups::BackupRecord;
use catalog::operations::{LeftOut, WhenLeft};
use catalog::retained::RetainedRecord;
use catalog::tenants::NewTenant;
use catalog::{OperationId, ReleaseId, ServerId, ServerRecord, TenantId, TenantName, TenantRecord, TenantState};
use tenant_engine::{EngineKind, MigrationSets};

use super::ledgers::{KnownLedgers, ReadLedgers};
use crate::error::ErrorKind;
use crate::plan::refused_texts::RefusedTexts;
use crate::plan::{PlanSample, PlanView, SAMPLE_MAX};

/// Findings from before the transaction of a submission.
#[derive(Debug, Default)]
pub struct PreparedSubmission {
    /// New tenants with their ids and normalised names, in the requested order. Filled by create and by `--as`.
    pub named: Vec<(TenantId, TenantName)>,
    /// Whether the release becomes the one that new tenants start from. Filled by migrate.
    pub current: NewTenantRelease,
    /// Ledgers read from databases whose applied migrations the catalog does not know. Filled for migrate.
    pub(crate) read: ReadLedgers,
    /// The requested migration sets, one per engine. Filled by migrate.
    pub sets: Option<Arc<MigrationSets>>,
    /// The migration texts that the engines refuse, and the engines of the fleet. Filled by migrate.
    pub(crate) refused: RefusedTexts,
    pub(crate) engines: Vec<EngineKind>,
}

/// Whether a release becomes the one that new tenants start from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NewTenantRelease {
    /// The run is limited to some tenants, or stops before the head.
    #[default]
    Unchanged,
    /// Every tenant is migrated to it. Building a template will show whether new tenants can start from it.
    ToBuild,
    /// Every tenant is migrated to it, and new tenants will start from it.
    Becomes,
    /// New tenants will start from it, except on one engine, whose empty databases cannot be migrated to it. Holds the
    /// reason.
    BecomesExcept(String),
    /// New tenants cannot start from it, because no empty database can be migrated to it. Holds the reason.
    CannotBuild(String),
}

/// All records that a plan may use, read in one transaction.
#[derive(Debug)]
pub struct PlanInput {
    /// The id that the operation will have.
    pub op: OperationId,
    /// The time of the submission, milliseconds since 1970.
    pub now: i64,
    /// The user who submits the operation.
    pub actor: String,
    /// What happens to a tenant that leaves the selection. A tenant that was named is never left out.
    pub when_left: WhenLeft,
    /// The server that the selection names, if any.
    pub server: Option<ServerId>,
    /// Findings from before the transaction.
    pub prepared: PreparedSubmission,
    /// One page of the selected tenants. Pages are in the order of tenant ids.
    pub tenants: Vec<TenantRecord>,
    /// The release that new tenants start from.
    pub current_release: Option<ReleaseId>,
    /// The newest version of the current release. Filled by restore.
    pub head_version: Option<i64>,
    /// Servers, each with the number of its tenants. Filled by operations that place tenants.
    pub servers: Vec<(ServerRecord, i64)>,
    /// Names that are in use. Filled by operations that create tenants.
    pub taken: HashMap<TenantName, TenantId>,
    /// Backups by tenant. Filled by operations that read backups.
    pub backups: HashMap<TenantId, Vec<BackupRecord>>,
    /// Retained databases of the selected tenants. Filled by `restore undo`.
    pub retained: Vec<RetainedRecord>,
    /// Ledgers of the selected tenants, up to the current page. Filled by migrate.
    pub(crate) applied: KnownLedgers,
    /// Ledgers of the tenants that get a step, if a text of the release is refused. Filled by migrate.
    pub(crate) going: KnownLedgers,
    /// Whether any tenant has passed the target of a migration, up to the current page. Filled by migrate.
    pub(crate) way_back: WayBack,
    /// Free places on the servers, up to the current page. Filled by move.
    pub(crate) free_places: Option<FreePlaces>,
}

/// Tenants that have passed the target of a migration, as far as the pages have shown.
#[derive(Debug, Default)]
pub(crate) struct WayBack {
    /// The first tenant that has passed the target, with its newest backup at the target.
    pub(crate) first_passed: Option<(TenantRecord, Option<BackupRecord>)>,
    /// Whether another tenant can still reach the target.
    pub(crate) is_reachable: bool,
}

/// How many more tenants the servers accept. Counted down while a plan spreads tenants.
#[derive(Debug)]
pub(crate) struct FreePlaces {
    /// Free places per server. Only servers with a maximum are listed.
    pub(crate) by_server: HashMap<ServerId, i64>,
    /// Tenants for which no server had a place.
    pub(crate) lacking: u64,
}

impl FreePlaces {
    /// Computes the free places from servers with their tenant counts.
    pub(crate) fn of_servers(servers: &[(ServerRecord, i64)]) -> Self {
        let free = |(server, tenants): &(ServerRecord, i64)| {
            server.tenants_max.map(|max| (server.id, max.saturating_sub(*tenants)))
        };
        Self { by_server: servers.iter().filter_map(free).collect(), lacking: 0 }
    }
}

impl PlanInput {
    /// Whether a rule selected the tenants. Then a tenant that cannot take part is left out, and the run still
    /// succeeds.
    #[must_use]
    pub fn by_rule(&self) -> bool {
        self.when_left != WhenLeft::Fail
    }
}

/// The reason why a selected tenant takes no part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExclusionReason {
    /// The kind, whose code is for programs.
    pub kind: ErrorKind,
    /// The explanation, for people.
    pub why: String,
}

impl ExclusionReason {
    /// The reason that `tenant` is `what`, and the operation does not work on such tenants.
    #[must_use]
    pub fn because_tenant_is(kind: ErrorKind, tenant: &TenantRecord, what: &str) -> Self {
        Self { kind, why: format!("{} is {what}", tenant.name) }
    }

    /// The reason to exclude a tenant that is in none of these states. `None` if its state is among them.
    #[must_use]
    pub fn by_state(tenant: &TenantRecord, states: &[TenantState]) -> Option<Self> {
        let state = serde_json::to_value(tenant.state).unwrap_or_default();
        let what = format!("{} now", state.as_str().unwrap_or("in another state"));
        (!states.contains(&tenant.state)).then(|| Self::because_tenant_is(ErrorKind::TenantLeft, tenant, &what))
    }
}

/// The plan of an operation: which tenants get a step.
#[derive(Debug, Default)]
pub struct StepPlan {
    /// Tenants that get a step, one each.
    pub steps: Vec<TenantId>,
    /// Tenants that need nothing.
    pub skipped: i64,
    /// Selected tenants that get no step, each with the reason.
    pub left_out: Vec<LeftOut>,
    /// Tenants that the operation creates, with their names. They are also in `steps`.
    pub new: Vec<NewTenant>,
    /// The release whose migration sets the steps need.
    pub release: Option<ReleaseId>,
    /// The release that becomes the one for new tenants, if any.
    pub current: Option<ReleaseId>,
    /// Whether the operation has an opening. If so, it does not end before that, even without steps.
    pub opens: bool,
    /// The first few tenants, each with its planned action.
    pub sample: Vec<PlanSample>,
    /// Warnings for the person who confirms the plan.
    pub notes: Vec<String>,
    /// Tenants among the steps that `undelete` could still bring back. Counted by purge.
    pub undeletable: u64,
}

impl StepPlan {
    /// Adds a step for this tenant, described by `action`.
    pub fn add_step(&mut self, tenant: TenantId, name: &str, action: impl FnOnce() -> String) {
        self.steps.push(tenant);
        self.add_sample(name, action);
    }

    /// Counts a tenant that needs nothing, because of `why`.
    pub fn add_skipped(&mut self, name: &str, why: impl FnOnce() -> String) {
        self.skipped += 1;
        self.add_sample(name, why);
    }

    /// Leaves a tenant out with its reason. Unlike a skipped tenant, it does not have the state that the operation is
    /// to reach.
    pub fn leave_out(&mut self, tenant: &TenantRecord, left: ExclusionReason) {
        self.add_sample(&tenant.name, || format!("is left out: {}", left.why));
        self.left_out.push(LeftOut { tenant: tenant.id, code: left.kind.code().to_owned(), why: left.why });
    }

    fn add_sample(&mut self, name: &str, action: impl FnOnce() -> String) {
        if self.sample.len() < SAMPLE_MAX {
            self.sample.push(PlanSample { tenant: name.to_owned(), action: action() });
        }
    }

    /// The view of the plan that a dry run shows.
    #[must_use]
    pub fn plan_view(&self, kind: &'static str) -> PlanView {
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
