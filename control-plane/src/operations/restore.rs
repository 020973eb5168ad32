//! restore: fills a new placement from a backup, verifies it, and swaps it in; or makes a new tenant of it.
//!
//! In place there are four phases. *build* fills and verifies the new placement while the tenant serves; if the backup
//! is bad, nothing changes. *freeze* stops writers of the current database; reads continue. *swap* stamps the new
//! database and updates the catalog. The replaced database is retained for `restore undo`. *thaw* rolls back
//! (`replacement/roll_back.rs`). As a new tenant there is only the first phase.
//!
//! After a crash in *build*, the next worker drops the unfinished database and builds another one. After a crash in
//! *freeze* or *swap* it makes the same stamps again. When the attempts are used up, `give_up` rolls back, or leaves the
//! tenant fenced for a repair.
//!
//! The schema stays the backup's, unless the tenant's own is requested: migrations since the backup may be the mistake
//! that the restore is to take back. If that leaves the tenant behind, it is pinned (`schema_pin.rs`).

use async_trait::async_trait;
use catalog::backups::BackupRecord;
use catalog::replacements::{FencedDatabase, ReplacementKind, ReplacementRecord};
use catalog::tenants::TenantUpdate;
use catalog::{BackupId, ReadTx, ReleaseId, TenantId, TenantName, TenantRecord, TenantState};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::IdentityState;

use super::schema_pin::{PreviousSchema, version_text};
use crate::error::{Error, ErrorKind, Result};
use crate::operation::{
    CatalogEffect, ClaimedStep, FleetOperation, OperationTargets, PhaseOutcome, PlacementUse, PlanInput,
    PreparedSubmission, StepContext, StepPlan, SubmissionScope,
};
use crate::replacement::build::{self, BuiltDatabase, SchemaGoal};
use crate::replacement::swap::{self, SwapFacts, SwapTimes};
use crate::replacement::{act, fence, roll_back, state};

/// The parameters of a restore. The selection names exactly one tenant: the owner of the backup.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RestoreParams {
    /// The point in time to restore.
    pub to: RestorePoint,
    /// The name of the new tenant. `None`: the restore is in place.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub as_name: Option<String>,
    /// The schema that the tenant gets.
    #[serde(default)]
    pub schema: RestoredSchema,
    /// The backup that `to` meant at submission. Filled at submission.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resolved: Option<ResolvedRestore>,
}

/// The schema of a restored tenant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoredSchema {
    /// The backup's schema. A tenant that is then behind is pinned there until it is migrated by name.
    #[default]
    Backup,
    /// The schema that the tenant has now: the restored database is migrated to it. For a new tenant, that of the
    /// current release.
    Current,
}

/// The point in time to restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestorePoint {
    /// The last backup, in the order in which backups were taken.
    Latest,
    /// The last backup whose recorded time is at or before this time, milliseconds since 1970.
    At(i64),
    /// Exactly this backup.
    Backup(BackupId),
}

/// The backup that a restore uses. Chosen at submission, so that a rerun restores the same backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedRestore {
    /// The chosen backup.
    pub backup: BackupId,
    /// The owner of the backup. As a new tenant, this is not the tenant that is created.
    pub source: TenantId,
    /// Whether an older backup has a later recorded time; see [`clocks_disagree`].
    #[serde(default)]
    pub is_disputed: bool,
}

const FREEZE: &str = "freeze";
const SWAP: &str = "swap";

/// States for a restore in place: the tenant has a database. For a restore as a new tenant, a deleted tenant's backups
/// can be used too.
const IN_PLACE: &[TenantState] = &[TenantState::Active, TenantState::Suspended];
const AS_NEW: &[TenantState] =
    &[TenantState::Active, TenantState::Suspended, TenantState::Archived, TenantState::Deleted];

#[async_trait]
impl FleetOperation for RestoreParams {
    fn target_tenants(&self) -> OperationTargets {
        OperationTargets::One(if self.as_name.is_none() { IN_PLACE } else { AS_NEW })
    }

    fn placement_use(&self) -> PlacementUse {
        PlacementUse::Fresh
    }

    async fn prepare_submission(&self, _context: &StepContext, _scope: SubmissionScope) -> Result<PreparedSubmission> {
        let named = match &self.as_name {
            Some(name) => vec![(TenantId::generate(), TenantName::parse_slug(name)?)],
            None => Vec::new(),
        };
        Ok(PreparedSubmission { named, ..PreparedSubmission::default() })
    }

    async fn load_for_page(&mut self, tx: &mut ReadTx, seen: &mut PlanInput) -> Result<()> {
        let Some(source) = seen.tenants.first() else { return Ok(()) };
        let backup = find_backup(tx, source.id, &source.name, self.to).await?;
        let is_disputed = clocks_disagree(tx, &backup, self.to).await?;
        self.resolved = Some(ResolvedRestore { backup: backup.id, source: source.id, is_disputed });
        seen.backups.insert(source.id, vec![backup]);
        seen.head_version = head_version(tx, seen.current_release).await?;
        let names: Vec<TenantName> = seen.prepared.named.iter().map(|(_, name)| name.clone()).collect();
        seen.taken = catalog::names::taken_names(tx, &names).await?.into_iter().collect();
        Ok(())
    }

    fn plan_page(&self, seen: &PlanInput, plan: &mut StepPlan) -> Result<()> {
        let source = seen.tenants.first().ok_or_else(|| Error::internal("a restore is about one tenant"))?;
        let backup = seen.backups.get(&source.id).and_then(|found| found.first());
        let backup = backup.ok_or_else(|| build::backup_not_found(&source.name))?;
        let taken = jiff::Timestamp::from_millisecond(backup.taken_at).map(|at| at.to_string()).unwrap_or_default();
        let what = format!("backup {} of {taken}", backup.id);
        if self.resolved.is_some_and(|resolved| resolved.is_disputed) {
            plan.notes.push(DISPUTED.to_owned());
        }
        let Some((id, name)) = seen.prepared.named.first() else {
            plan.notes.push(schema_outlook(self.schema, source, backup)?.describe_outlook(&source.name));
            plan.add_step(source.id, &source.name, || format!("goes back to {what}"));
            plan.notes.push("later writes are in the replaced database, which restore undo brings back".to_owned());
            return Ok(());
        };
        if seen.taken.contains_key(name) {
            let detail = format!("a tenant named '{}' exists, or existed once", name.as_str());
            return Err(Error::new(ErrorKind::AlreadyExists, detail));
        }
        let (name, server_id) = (name.clone(), source.server_id);
        plan.release = seen.current_release;
        plan.add_step(*id, name.as_str(), || format!("is created from {what} of {}", source.name));
        let (labels, limits) = (source.labels.clone(), source.plan.as_ref().map(|plan| plan.name.clone()));
        plan.new.push(catalog::tenants::NewTenant { id: *id, name, server_id, labels, plan: limits });
        let before = PreviousSchema { version: seen.head_version, pin: None };
        plan.notes.push(outlook_from(self.schema, before, backup.schema_version)?.describe_outlook("the new tenant"));
        plan.notes.push("the new tenant has no members and no tokens".to_owned());
        Ok(())
    }

    async fn run_phase(&self, context: &StepContext, step: &ClaimedStep) -> PhaseOutcome {
        match (step.phase.as_str(), &self.as_name) {
            ("", Some(_)) => self.restore_as_new(context, step).await,
            ("", None) => self.build_in_place(context, step).await,
            (FREEZE, None) => freeze_for_restore(context, step).await,
            (SWAP, None) => swap::swap_databases(context, step, restored_event).await,
            (roll_back::ROLL_BACK, None) => roll_back::roll_back(context, step).await,
            _ => Err(step.unknown_phase()),
        }
        .into()
    }

    async fn give_up(&self, context: &StepContext, step: &ClaimedStep, error: Error) -> PhaseOutcome {
        roll_back::roll_back_phase(context, step, error).await
    }
}

impl RestoreParams {
    /// Restores as a new tenant. Nobody is served yet, so one phase does all the work.
    async fn restore_as_new(&self, context: &StepContext, step: &ClaimedStep) -> Result<PhaseOutcome> {
        if step.tenant.state != TenantState::Provisioning {
            return Err(step.not_in_creation());
        }
        let generation = step.tenant.generation.next();
        let release = step.op.release_id;
        let goal = match self.schema {
            RestoredSchema::Backup => SchemaGoal::Stay(release),
            RestoredSchema::Current => SchemaGoal::Head(release),
        };
        let fill = build::from_backup(context, step, self.backup_source()?, generation, goal);
        let mut built = build::build_new_tenant(context, step, IdentityState::Active, goal, fill).await?;
        let head = head_version(&mut context.catalog.read().await?, release).await?;
        built.pin = PreviousSchema { version: head, pin: None }.pin_at(built.schema_version, step);
        let (backup, version) = (self.resolved.map(|r| r.backup), built.schema_version);
        let facts =
            built.add_left_out(json!({"backup": backup, "schema_version": version, "pinned": built.pin.is_some()}));
        let flip = TenantUpdate { state: Some(TenantState::Active), ..built.tenant_update(step) };
        Ok(PhaseOutcome::step_done(facts.clone())
            .with_effect(CatalogEffect::UpdateTenant(flip))
            .with_effect(CatalogEffect::Event(step.tenant_event("tenant.activated", facts))))
    }

    /// Builds the new database in place, while the tenant serves.
    async fn build_in_place(&self, context: &StepContext, step: &ClaimedStep) -> Result<PhaseOutcome> {
        fence::require_unawaited(context, step).await?;
        step.require_state(IN_PLACE)?;
        let generation = state::after_swap(step.tenant.generation);
        let before = PreviousSchema::from_database(context, &step.tenant).await?;
        let goal = self.schema_goal(context, step, before).await?;
        let mut built = build::from_backup(context, step, self.backup_source()?, generation, goal).await?;
        if self.schema == RestoredSchema::Current && built.schema_version != before.version {
            build::drop_unserved(context, step, &state::new_database(&built, step)).await?;
            return Err(schema_unreachable(built.schema_version, before.version));
        }
        built.pin = before.pin_at(built.schema_version, step);
        Ok(PhaseOutcome::next_phase(FREEZE, json!(built)))
    }

    /// The schema that the new database is migrated to. The tenant's own version is reached with its own release, or
    /// without one with the current release.
    async fn schema_goal(
        &self,
        context: &StepContext,
        step: &ClaimedStep,
        before: PreviousSchema,
    ) -> Result<SchemaGoal> {
        let own = step.tenant.release_id;
        if self.schema == RestoredSchema::Backup || before.version.is_none() {
            return Ok(SchemaGoal::Stay(own));
        }
        let current = catalog::fleet::current_release(&mut context.catalog.read().await?).await?;
        for id in [own, current].into_iter().flatten() {
            let sets = context.release_sets(id).await?;
            if let Some(version) = before.version.filter(|version| sets.version_set().get(*version).is_some()) {
                return Ok(SchemaGoal::Version(id, version));
            }
        }
        Ok(SchemaGoal::Stay(own))
    }

    fn backup_source(&self) -> Result<build::BackupSource> {
        let resolved = self.resolved.ok_or_else(|| Error::internal("a restore without a backup"))?;
        Ok(build::BackupSource { backup: resolved.backup, tenant: resolved.source })
    }
}

async fn freeze_for_restore(context: &StepContext, step: &ClaimedStep) -> Result<PhaseOutcome> {
    let built: BuiltDatabase = step.parse_facts()?;
    if !IN_PLACE.contains(&step.tenant.state) {
        build::drop_unserved(context, step, &state::new_database(&built, step)).await?;
        step.require_state(IN_PLACE)?;
    }
    if built.generation != state::after_swap(step.tenant.generation) {
        // The tenant was changed between two attempts, so the built database is out of date.
        build::drop_unserved(context, step, &state::new_database(&built, step)).await?;
        return Ok(PhaseOutcome::next_phase("", json!({})));
    }
    context.fault_point("restore: freezes").await;
    let new = state::new_database(&built, step);
    let open = act::fence_current(context, step, ReplacementKind::Restore, Some(new)).await?;
    context.fault_point("restore: frozen").await;
    Ok(state::fenced_outcome(step, SWAP, json!(SwapFacts { left_out: built.left_out }), open))
}

fn restored_event(_: &ClaimedStep, open: &ReplacementRecord, times: SwapTimes) -> (&'static str, serde_json::Value) {
    let new = open.new.as_ref();
    let facts = json!({
        "schema_version": new.and_then(|new| new.schema_version),
        "pinned": new.is_some_and(|new| new.pin.is_some()),
        "frozen_ms": times.frozen_ms,
        "replaced": open.found,
        "undo_until": (open.found == FencedDatabase::Frozen).then_some(times.keep_until),
    });
    ("tenant.restored", facts)
}

/// The newest version of a release.
async fn head_version(tx: &mut ReadTx, release: Option<ReleaseId>) -> Result<Option<i64>> {
    let Some(id) = release else { return Ok(None) };
    Ok(catalog::releases::get(tx, id).await?.and_then(|release| release.head_version))
}

/// The effect of a restore on a tenant's schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemaOutlook {
    /// The backup's version.
    pub backup: Option<i64>,
    /// The tenant's version before the restore.
    pub before: Option<i64>,
    /// The tenant's version after the restore.
    pub after: Option<i64>,
    /// Whether the tenant is pinned at that version.
    pub is_pinned: bool,
}

impl SchemaOutlook {
    /// Describes the effect in words, for the plan.
    #[must_use]
    pub fn describe_outlook(self, name: &str) -> String {
        let [backup, before, after] = [self.backup, self.before, self.after].map(version_text);
        let pinned = match self.is_pinned {
            true => format!(
                "{name} is pinned there: migrations of many tenants leave it out until `fleetctl migrate run` names it"
            ),
            false => format!("{name} is not pinned"),
        };
        if self.after != self.backup {
            return format!(
                "schema: the backup has {backup}; it is migrated to {after}, which {name} has now; {pinned}"
            );
        }
        match self.before == self.backup {
            true => format!("schema: stays at {after}; {pinned}"),
            false => format!("schema: goes from {before} to {after}, the backup's; {pinned}"),
        }
    }
}

/// PURE: the effect of a restore in place on the schema.
///
/// # Errors
/// `schema_unreachable`: the tenant's version is requested, and the backup is newer.
pub fn schema_outlook(schema: RestoredSchema, tenant: &TenantRecord, backup: &BackupRecord) -> Result<SchemaOutlook> {
    outlook_from(schema, PreviousSchema::from_catalog(tenant), backup.schema_version)
}

fn outlook_from(schema: RestoredSchema, before: PreviousSchema, backup: Option<i64>) -> Result<SchemaOutlook> {
    if schema == RestoredSchema::Current && backup > before.version {
        return Err(schema_unreachable(backup, before.version));
    }
    let after = if schema == RestoredSchema::Current { before.version } else { backup };
    let is_pinned = before.is_back_at(after);
    Ok(SchemaOutlook { backup, before: before.version, after, is_pinned })
}

/// The error of a backup that is newer than the requested version: migrations only go forward.
fn schema_unreachable(from: Option<i64>, to: Option<i64>) -> Error {
    let detail = format!("a backup at {} cannot be migrated to {}", version_text(from), version_text(to));
    Error::new(ErrorKind::SchemaUnreachable, detail).try_next("omit --schema to keep the backup's schema")
}

/// The warning of a restore to a time that is ambiguous because a clock was wrong.
pub const DISPUTED: &str = "an older backup of this tenant has a later time, so a clock was wrong: to be certain, name the backup: --to <backup id>";

/// Whether the requested time is ambiguous: a backup that was taken before `found` has a later recorded time. The order
/// of backups never comes from a clock. But a time that a person asks for can only be looked up by clock.
///
/// # Errors
/// Those of the catalog.
pub async fn clocks_disagree(tx: &mut ReadTx, found: &BackupRecord, to: RestorePoint) -> Result<bool> {
    match to {
        RestorePoint::At(at) => Ok(catalog::backups::is_disputed(tx, found, at).await?),
        RestorePoint::Latest | RestorePoint::Backup(_) => Ok(false),
    }
}

/// The tenant's backup that `to` means.
///
/// # Errors
/// `backup_not_found` if there is none; `wrong_tenant_backup` if the named backup belongs to another tenant.
pub async fn find_backup(tx: &mut ReadTx, tenant: TenantId, name: &str, to: RestorePoint) -> Result<BackupRecord> {
    let found = match to {
        RestorePoint::Latest => catalog::backups::newest_backup(tx, tenant, None).await?,
        RestorePoint::At(at) => catalog::backups::newest_backup(tx, tenant, Some(at)).await?,
        RestorePoint::Backup(id) => catalog::backups::get(tx, id).await?,
    };
    let found = found.ok_or_else(|| build::backup_not_found(name))?;
    if found.tenant_id != tenant {
        return Err(Error::new(ErrorKind::WrongTenantBackup, format!("{} is not a backup of {name}", found.id))
            .try_next(format!("fleetctl backup list {name}")));
    }
    Ok(found)
}
