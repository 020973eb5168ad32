//! migrate: brings tenants to a release. Each version runs in one transaction together with its ledger row.
//!
//! The version recorded in the catalog decides in bulk which tenants get a step. The database's own ledger decides
//! which migrations are applied. So a run with nothing to do opens no database, and a repeated step finds its work
//! done.

use std::sync::Arc;

use async_trait::async_trait;
use catalog::backups::BackupRecord;
use catalog::operations::OperationRecord;
use catalog::{BlockWrites, ReadTx, ReleaseId, TenantRecord, TenantState, WriteTx};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::migration::MigrationFile;
use tenant_engine::{DatabaseServer, EngineKind, IdentityState, MigrationSets};

use super::promotion::{become_current, becomes_current, cannot_build, promotion_effect};
use super::schema_pin;
use crate::error::{Error, ErrorKind, Result};
use crate::operation::plan::NewTenantRelease;
use crate::operation::{
    CatalogEffect, ClaimedStep, ExclusionReason, FleetOperation, OpenedOperation, OperationTargets, PhaseOutcome,
    PlanInput, PreparedSubmission, StepContext, StepPlan, StepVerdict, SubmissionScope, ledger_name, ledgers,
};
use crate::plan::ledgers::{AppliedLedger, applied_prefix};
use crate::plan::refused_texts::RefusedTexts;
use crate::replacement::fence;
use crate::tasks;

/// States in which a tenant has a database. A suspended tenant is migrated too, so that it has the fleet's version.
const STATES: &[TenantState] = &[TenantState::Active, TenantState::Suspended];

/// The parameters of a migration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MigrateParams {
    /// The release to migrate to.
    pub release: ReleaseSource,
    /// The version to stop after. `None`: the head.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target: Option<i64>,
    /// Which tenants get a step.
    #[serde(default)]
    pub look: StepCoverage,
    /// Whether pinned tenants take part. Set at submission when tenants were named one by one.
    #[serde(default)]
    pub include_pinned: bool,
    /// Makes the release current after its first success, so that new tenants start from it. Filled at submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promotes: Option<ReleasePromotion>,
    /// Builds the template of new tenants before the first step. The result decides whether the release is promoted.
    /// Filled at submission, and emptied when the template is built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_build: Option<ReleasePromotion>,
}

/// The promotion of a release to the current one.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct ReleasePromotion {
    /// The release that was current at submission. If that has changed, somebody chose another, and nothing is
    /// promoted.
    pub from: Option<ReleaseId>,
}

/// A release, by its id or by its files.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseSource {
    /// A release that the catalog holds.
    Id(ReleaseId),
    /// Files that are stored at submission. The operation's row then names the release's id.
    Files(Vec<MigrationFile>),
}

/// Which tenants get a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepCoverage {
    /// Only tenants that the catalog records at another version.
    #[default]
    Hint,
    /// All tenants. Each database's own ledger is read.
    Every,
}

impl MigrateParams {
    /// Migrates to the head of a release, and trusts the catalog's record of each tenant's version.
    #[must_use]
    pub fn to_head(release: ReleaseSource) -> Self {
        Self { release, target: None, look: StepCoverage::Hint, include_pinned: false, promotes: None, to_build: None }
    }

    fn release_id(&self) -> Option<ReleaseId> {
        match self.release {
            ReleaseSource::Id(id) => Some(id),
            ReleaseSource::Files(_) => None,
        }
    }
}

#[async_trait]
impl FleetOperation for MigrateParams {
    /// True: without tenants the release still becomes current for new ones.
    fn works_without_tenants(&self) -> bool {
        true
    }

    fn target_tenants(&self) -> OperationTargets {
        OperationTargets::Selected(STATES)
    }

    async fn prepare_submission(&self, context: &StepContext, scope: SubmissionScope) -> Result<PreparedSubmission> {
        let sets = match &self.release {
            ReleaseSource::Id(id) => context.release_sets(*id).await?,
            ReleaseSource::Files(files) => Arc::new(MigrationSets::from_files(files)?),
        };
        let versions = sets.version_set();
        if let Some(target) = self.target
            && versions.get(target).is_none()
        {
            return Err(Error::new(ErrorKind::Invalid, format!("the release holds no version {target}"))
                .try_next("name one of its versions as the target, or none for its head"));
        }
        let reaches_head = self.target.is_none_or(|target| versions.head_version() == Some(target));
        let current = match scope {
            SubmissionScope::All if reaches_head => NewTenantRelease::ToBuild,
            _ => NewTenantRelease::Unchanged,
        };
        let refused = refused_texts(&sets).await;
        let engines = context.one_of_each_engine().await?.iter().map(DatabaseServer::engine_kind).collect();
        Ok(PreparedSubmission { current, sets: Some(sets), refused, engines, ..PreparedSubmission::default() })
    }

    async fn prepare_dry_run(&self, context: &StepContext, prepared: PreparedSubmission) -> Result<PreparedSubmission> {
        match (&prepared.current, &prepared.sets) {
            (NewTenantRelease::ToBuild, Some(sets)) => {
                Ok(PreparedSubmission { current: becomes_current(context, sets).await?, ..prepared })
            }
            _ => Ok(prepared),
        }
    }

    fn describe_opening(&self) -> Option<&'static str> {
        self.to_build.map(|_| "building the template of new tenants")
    }

    async fn run_opening(&self, context: &StepContext, _record: &OperationRecord) -> Result<OpenedOperation> {
        let release = self.release_id().ok_or_else(|| Error::internal("an opening needs the id of its release"))?;
        let current = becomes_current(context, &*context.release_sets(release).await?).await?;
        let promotion = self.to_build.filter(|_| !matches!(current, NewTenantRelease::CannotBuild(_)));
        let nothing_done = match &current {
            NewTenantRelease::CannotBuild(why) => Some(cannot_build(why)),
            _ => None,
        };
        let refused = match current {
            NewTenantRelease::CannotBuild(why) | NewTenantRelease::BecomesExcept(why) => Some(why),
            _ => None,
        };
        Ok(OpenedOperation {
            nothing_done,
            data: json!({"release": release, "builds": promotion.is_some(), "refused": refused}),
            operation: Box::new(Self { to_build: None, promotes: promotion, ..self.clone() }),
            promotes: promotion.map(|promotion| (promotion.from, release)),
        })
    }

    async fn store_references(&mut self, tx: &mut WriteTx, actor: &str) -> Result<()> {
        if let ReleaseSource::Files(files) = &self.release {
            let sets = MigrationSets::from_files(files)?;
            ledger_name::require_same(tx, &sets).await?;
            let stored = catalog::releases::ensure_release(tx, &sets, files, actor).await?;
            self.release = ReleaseSource::Id(stored.id);
        }
        Ok(())
    }

    async fn load_for_page(&mut self, tx: &mut ReadTx, seen: &mut PlanInput) -> Result<()> {
        self.include_pinned |= !seen.by_rule();
        self.look_for_way_back(tx, seen).await?;
        if let ReleaseSource::Files(files) = &self.release {
            // Only in a dry run, where the release is not stored: it gets an id that no tenant has.
            let sets = MigrationSets::from_files(files)?;
            ledger_name::require_same(tx, &sets).await?;
            let known = catalog::releases::by_digest(tx, sets.release_digest()).await?;
            self.release = ReleaseSource::Id(known.map_or_else(ReleaseId::generate, |known| known.id));
        }
        let becomes = matches!(seen.prepared.current, NewTenantRelease::Becomes | NewTenantRelease::BecomesExcept(_));
        self.promotes = becomes.then_some(ReleasePromotion { from: seen.current_release });
        // The current release already has a template.
        let is_to_build =
            seen.prepared.current == NewTenantRelease::ToBuild && seen.current_release != self.release_id();
        self.to_build = is_to_build.then_some(ReleasePromotion { from: seen.current_release });
        seen.applied.add_tenants(tx, &seen.tenants, &seen.prepared.read).await?;
        self.look_for_texts(tx, seen).await
    }

    fn plan_page(&self, seen: &PlanInput, plan: &mut StepPlan) -> Result<()> {
        let release = self.release_id().ok_or_else(|| Error::internal("a plan needs the id of its release"))?;
        plan.release = Some(release);
        for tenant in &seen.tenants {
            let left = self.exclusion_reason(tenant).filter(|_| seen.by_rule());
            match (self.tenant_standing(tenant, release), left) {
                (MigrationStanding::There, _) => plan.add_skipped(&tenant.name, || "is there already".to_owned()),
                (_, Some(left)) => plan.leave_out(tenant, left),
                (MigrationStanding::Passed, None) => plan.leave_out(tenant, passed_target(tenant, self.target)),
                (MigrationStanding::Behind, None) => {
                    plan.add_step(tenant.id, &tenant.name, || describe_action(tenant, self.target))
                }
            }
        }
        Ok(())
    }

    fn conclude_plan(&self, seen: &PlanInput, plan: &mut StepPlan) -> Result<()> {
        self.refuse_way_back(seen)?;
        check_ledgers(plan, seen)?;
        self.refuse_texts(seen)?;
        let release = self.release_id().ok_or_else(|| Error::internal("a plan needs the id of its release"))?;
        match &seen.prepared.current {
            NewTenantRelease::Unchanged => {}
            // If no step runs, and the only selected tenants were left out, nothing shows that the release works.
            NewTenantRelease::ToBuild => {
                let nothing_left_out = plan.skipped > 0 || plan.left_out.is_empty();
                plan.opens = self.to_build.is_some() && (!plan.steps.is_empty() || nothing_left_out);
            }
            NewTenantRelease::Becomes => become_current(plan, seen, release),
            NewTenantRelease::BecomesExcept(why) => {
                become_current(plan, seen, release);
                plan.notes.push(format!("no new tenant can start from it on a server of: {why}"));
            }
            NewTenantRelease::CannotBuild(why) => plan.notes.push(format!(
                "new tenants will not start from this release: it cannot be applied to an empty database: {why}"
            )),
        }
        Ok(())
    }

    fn exclusion_reason(&self, tenant: &TenantRecord) -> Option<ExclusionReason> {
        let blocked = tenant.block_writes == Some(BlockWrites::Operator);
        let left = ExclusionReason::by_state(tenant, STATES);
        let left = left.or_else(|| {
            blocked.then(|| ExclusionReason::because_tenant_is(ErrorKind::TenantReadOnly, tenant, "read-only"))
        });
        left.or_else(|| schema_pin::left_out(tenant).filter(|_| !self.include_pinned))
    }

    fn changes_versions(&self) -> bool {
        true
    }

    async fn run_phase(&self, context: &StepContext, step: &ClaimedStep) -> PhaseOutcome {
        self.migrate_tenant(context, step).await.into()
    }

    async fn give_up(&self, context: &StepContext, step: &ClaimedStep, error: Error) -> PhaseOutcome {
        self.stopped_outcome(context, step, error).await
    }
}

/// Where a tenant stands relative to the target, as the catalog records it.
enum MigrationStanding {
    /// The tenant is past the target, and no migration goes back.
    Passed,
    There,
    Behind,
}

impl MigrateParams {
    fn tenant_standing(&self, tenant: &TenantRecord, release: ReleaseId) -> MigrationStanding {
        match self.target {
            Some(target) if tenant.schema_version > Some(target) => return MigrationStanding::Passed,
            Some(target) if tenant.schema_version == Some(target) && self.look == StepCoverage::Hint => {
                return MigrationStanding::There;
            }
            _ => {}
        }
        // A step that finds a pinned tenant at the head unpins it.
        let lifts = tenant.pin.is_some() && self.include_pinned;
        let is_there = tenant.release_id == Some(release) && !lifts;
        if is_there && self.look == StepCoverage::Hint { MigrationStanding::There } else { MigrationStanding::Behind }
    }

    /// Records the first tenant that has passed the target, and whether another tenant can reach it.
    async fn look_for_way_back(&self, tx: &mut ReadTx, seen: &mut PlanInput) -> Result<()> {
        let Some(target) = self.target else { return Ok(()) };
        let is_pinned = |tenant: &&TenantRecord| tenant.pin.is_some() && !self.include_pinned;
        let takes_part = || seen.tenants.iter().filter(|tenant| !is_pinned(tenant));
        seen.way_back.is_reachable |= takes_part().any(|tenant| tenant.schema_version < Some(target));
        if seen.way_back.first_passed.is_none()
            && let Some(first) = takes_part().find(|tenant| tenant.schema_version > Some(target))
        {
            let backup = catalog::backups::newest_at_version(tx, first.id, target).await?;
            seen.way_back.first_passed = Some((first.clone(), backup));
        }
        Ok(())
    }

    /// Migrations only go forward. Refuses a target that a named tenant has passed, or that no tenant can reach. If a
    /// rule selected the tenants and others can reach the target, those that have passed it stay unchanged.
    fn refuse_way_back(&self, seen: &PlanInput) -> Result<()> {
        match (self.target, &seen.way_back.first_passed) {
            (Some(_), Some(_)) if seen.by_rule() && seen.way_back.is_reachable => Ok(()),
            (Some(target), Some((first, backup))) => Err(target_unreachable(first, target, backup.as_ref())),
            _ => Ok(()),
        }
    }

    /// Reads the ledgers of the tenants that get a step, if a file of the release is refused.
    async fn look_for_texts(&self, tx: &mut ReadTx, seen: &mut PlanInput) -> Result<()> {
        if seen.prepared.refused.is_empty() {
            return Ok(());
        }
        let has_passed = |tenant: &TenantRecord| self.target.is_some_and(|target| tenant.schema_version > Some(target));
        let takes_part = |tenant: &TenantRecord| self.exclusion_reason(tenant).is_none() || !seen.by_rule();
        let is_going = |tenant: &&TenantRecord| takes_part(tenant) && !has_passed(tenant);
        let going: Vec<TenantRecord> = seen.tenants.iter().filter(is_going).cloned().collect();
        seen.going.add_tenants(tx, &going, &seen.prepared.read).await
    }

    /// Refuses files that no database can run, before the first tenant is touched. Tenants that have already applied
    /// them are not stopped.
    fn refuse_texts(&self, seen: &PlanInput) -> Result<()> {
        let (refused, applied) = (&seen.prepared.refused, &seen.applied);
        let has_tenants = applied.ledgers.ledger_groups().next().is_some() || applied.unreadable > 0;
        let error = match seen.prepared.current {
            // Some ledgers must be read first. This check runs again when they are known.
            _ if !applied.unread.is_empty() => None,
            // Without tenants, the release is only for new ones.
            NewTenantRelease::ToBuild
            | NewTenantRelease::Becomes
            | NewTenantRelease::BecomesExcept(_)
            | NewTenantRelease::CannotBuild(_)
                if !has_tenants =>
            {
                refused.refuse_all(&seen.prepared.engines, &applied.ledgers)
            }
            _ => refused.refuse_pending(&seen.going.ledgers, self.target),
        };
        error.map_or(Ok(()), Err)
    }

    /// Refuses a pin that is newer than this operation, because the caller did not know of it. A retry must not undo a
    /// restore.
    async fn require_unpinned(&self, context: &StepContext, step: &ClaimedStep) -> Result<()> {
        let Some((pin, left)) = step.tenant.pin.zip(schema_pin::left_out(&step.tenant)) else { return Ok(()) };
        let mut tx = context.catalog.read().await?;
        if self.include_pinned && !catalog::operations::is_later(&mut tx, pin.op, step.op.id).await? {
            return Ok(());
        }
        let name = &step.tenant.name;
        Err(Error::new(left.kind, left.why).try_next(format!("fleetctl migrate run <directory> {name}")))
    }

    async fn migrate_tenant(&self, context: &StepContext, step: &ClaimedStep) -> Result<PhaseOutcome> {
        fence::require_unblocked(step)?;
        require_writable(step)?;
        self.require_unpinned(context, step).await?;
        let release = self.release_id().ok_or_else(|| Error::internal("a step needs the id of its release"))?;
        let sets = context.release_sets(release).await?;
        let (engine, at) = context.current_database(&step.tenant).await?;
        let set = sets.for_engine(at.engine_kind())?;
        let expected = step.expected_identity(context.fleet_id(), &[IdentityState::Active]);
        context.fault_point("migrate: claimed").await;
        let migrated = match engine.migrate_database(&at, &expected, set, self.target).await {
            Ok(migrated) => migrated,
            Err(error) => return Ok(self.stopped_outcome(context, step, error.into()).await),
        };
        context.fault_point("migrate: applied").await;
        if let Some(target) = self.target.filter(|target| migrated.to_version > Some(*target)) {
            let reached = TenantRecord { schema_version: migrated.to_version, ..step.tenant.clone() };
            return Err(target_unreachable(&reached, target, None));
        }
        let complete = self.target.is_none_or(|target| set.head_version() == Some(target));
        let at_head = complete && migrated.to_version == set.head_version();
        // A database that was past the target may lack versions between the two.
        let known = complete || migrated.to_version <= self.target;
        let reached = CatalogEffect::Schema {
            tenant: step.tenant.id,
            version: migrated.to_version,
            release: at_head.then_some(release),
            ledger: known.then_some(release),
        };
        let facts = json!({
            "from_version": migrated.from_version, "to_version": migrated.to_version, "applied": migrated.applied,
        });
        let mut outcome = PhaseOutcome::step_done(facts.clone()).with_effect(reached);
        if step.tenant.pin.is_some() && (at_head || migrated.to_version > step.tenant.schema_version) {
            outcome = outcome.with_effect(CatalogEffect::Unpin(step.tenant.id));
        }
        outcome.effects.extend(self.promotes.filter(|_| at_head).map(|to| promotion_effect(step, to, release)));
        if migrated.applied.is_empty() {
            return Ok(outcome);
        }
        let mut outcome = outcome.with_effect(CatalogEffect::Event(step.tenant_event("tenant.migrated", facts)));
        outcome.effects.extend(context.size_effect(&step.tenant, migrated.size_bytes).await);
        Ok(outcome)
    }
}

impl MigrateParams {
    /// The outcome of a failed step, with the version that the database had reached by then.
    async fn stopped_outcome(&self, context: &StepContext, step: &ClaimedStep, error: Error) -> PhaseOutcome {
        PhaseOutcome {
            verdict: StepVerdict::Failed(error),
            effects: self.reached_effects(context, step).await.unwrap_or_default(),
        }
    }

    /// The part of the database's ledger that the catalog does not know yet. `None` if the ledger cannot be read, or
    /// the catalog is up to date.
    async fn reached_effects(&self, context: &StepContext, step: &ClaimedStep) -> Option<Vec<CatalogEffect>> {
        let release = self.release_id()?;
        let ledger = ledgers::read_one(context, &step.tenant).await?;
        let version = ledger.last().map(|(version, _)| *version);
        let (_, at) = context.current_database(&step.tenant).await.ok()?;
        let sets = context.release_sets(release).await.ok()?;
        let is_of_release = ledger == applied_prefix(sets.for_engine(at.engine_kind()).ok()?, version);
        if recorded_ledger(context, &step.tenant, at.engine_kind()).await? == ledger {
            return None;
        }
        let ledger = is_of_release.then_some(release);
        let mut effects = vec![CatalogEffect::Schema { tenant: step.tenant.id, version, release: None, ledger }];
        if version != step.tenant.schema_version {
            let facts = json!({"from_version": step.tenant.schema_version, "to_version": version, "complete": false});
            effects.push(CatalogEffect::Event(step.tenant_event("tenant.migrated", facts)));
        }
        Some(effects)
    }
}

/// The ledger that the catalog records for a tenant: empty without a recorded release, `None` if the release cannot be
/// read.
async fn recorded_ledger(context: &StepContext, tenant: &TenantRecord, engine: EngineKind) -> Option<AppliedLedger> {
    let Some(release) = tenant.ledger_release_id else { return Some(AppliedLedger::new()) };
    let sets = context.release_sets(release).await.ok()?;
    Some(applied_prefix(sets.for_engine(engine).ok()?, tenant.schema_version))
}

/// Refuses to migrate a read-only tenant. A migration writes, so the operator must first allow writes.
fn require_writable(step: &ClaimedStep) -> Result<()> {
    if step.tenant.block_writes.is_none() {
        return Ok(());
    }
    let name = &step.tenant.name;
    Err(Error::new(ErrorKind::TenantReadOnly, format!("{name} is read-only"))
        .try_next(format!("fleetctl tenant read-only {name} --off")))
}

/// The files that the engines refuse by their text alone. Takes seconds for a large release, so it runs on a blocking
/// thread.
pub(crate) async fn refused_texts(sets: &Arc<MigrationSets>) -> RefusedTexts {
    let sets = Arc::clone(sets);
    tasks::run_blocking(move || RefusedTexts::of_sets(&sets)).await
}

/// Refuses files that do not continue what the selected tenants have applied, before any tenant is touched.
fn check_ledgers(plan: &mut StepPlan, seen: &PlanInput) -> Result<()> {
    let Some(sets) = &seen.prepared.sets else { return Ok(()) };
    if let Some(refused) = seen.applied.ledgers.refuse_misfits(sets) {
        return Err(refused);
    }
    for version in seen.applied.ledgers.late_versions(sets) {
        plan.notes.push(format!("version {version} is older than what some tenants have applied: they apply it late"));
    }
    if seen.applied.unreadable > 0 {
        let count = seen.applied.unreadable;
        plan.notes.push(format!("it is not known what {count} tenants have applied; their steps check it"));
    }
    Ok(())
}

/// The error of a target that a tenant has passed. It names the way back, a restore.
fn target_unreachable(tenant: &TenantRecord, target: i64, back: Option<&BackupRecord>) -> Error {
    let name = &tenant.name;
    let at = schema_pin::version_text(tenant.schema_version);
    let detail = format!("{name} is at {at}, and migrations never go back to version {target}");
    let error = Error::new(ErrorKind::SchemaUnreachable, detail);
    match back {
        Some(backup) => error.try_next(format!(
            "fleetctl restore run {name} --to {}      # newest backup at version {target}; later writes are not in it",
            backup.id
        )),
        None => error.try_next(format!("fleetctl backup list {name}      # a restore keeps its backup's schema")),
    }
}

fn passed_target(tenant: &TenantRecord, target: Option<i64>) -> ExclusionReason {
    let (at, target) = (schema_pin::version_text(tenant.schema_version), schema_pin::version_text(target));
    let what = format!("at {at}, and migrations never go back to {target}");
    ExclusionReason::because_tenant_is(ErrorKind::SchemaUnreachable, tenant, &what)
}

fn describe_action(tenant: &TenantRecord, target: Option<i64>) -> String {
    let from = tenant.schema_version.map_or_else(|| "no version".to_owned(), |version| format!("version {version}"));
    match target {
        Some(target) => format!("goes from {from} to version {target}"),
        None => format!("goes from {from} to the head"),
    }
}
