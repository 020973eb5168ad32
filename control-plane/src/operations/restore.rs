//! restore: fills a new placement from a backup, verifies it, and swaps it in; or makes a new tenant of it.
//!
//! In place, three phases: *build* fills and verifies the new placement while the tenant serves, and changes nothing if
//! the backup is bad; *freeze* stops writers of the current database, reads go on; *swap* stamps the new one and flips
//! the catalog to it. The replaced database is kept for `restore undo`. As a new tenant there is only the first phase.
//!
//! The schema stays the backup's, unless the tenant's own is asked for: what was migrated since may be what the restore is
//! to take back. Where that leaves the tenant behind, it is pinned (`pin.rs`).

use async_trait::async_trait;
use catalog::backups::BackupRecord;
use catalog::tenants::Flip;
use catalog::{BackupId, Name, ReadTx, ReleaseId, TenantId, TenantRecord, TenantState};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::IdentityState;

use super::build::{self, Built, Goal};
use super::fence::{self, Current};
use super::pin::{Before, version_text};
use super::swap::{self, Swap, Times, Why};
use super::{Effect, Fleet, Operation, Outcome, Placements, Plan, Prepared, Scope, Seen, Step, Targets, thaw};
use crate::error::{Error, Result};

/// From what, and as whom. The selection names exactly one tenant: the one whose backup it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Params {
    /// Which backup.
    pub to: To,
    /// A new tenant of this name instead of in place.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub as_name: Option<String>,
    /// Which schema the tenant gets.
    #[serde(default)]
    pub schema: Schema,
    /// What `to` meant at submission; filled there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resolved: Option<Resolved>,
}

/// Which schema a restored tenant has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schema {
    /// The backup's. A tenant that is behind with it is pinned there until somebody migrates it by name.
    #[default]
    Backup,
    /// The one the tenant has now: what is in the backup is migrated to it. Of a new tenant, the current release's.
    Current,
}

/// A point to go back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum To {
    /// The last backup, by the order in which they were taken.
    Latest,
    /// The last of the backups that say that they were taken at or before this time, milliseconds since 1970.
    At(i64),
    /// Exactly this one.
    Backup(BackupId),
}

/// Decided at submission, so that a rerun restores the same thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// Which backup.
    pub backup: BackupId,
    /// Whose it is; another tenant than the target when restoring as a new one.
    pub source: TenantId,
    /// An older backup says a later time: see [`clocks_disagree`].
    #[serde(default)]
    pub is_disputed: bool,
}

const FREEZE: &str = "freeze";
const SWAP: &str = "swap";

/// In place, a tenant must have a database; as a new one, also a deleted tenant's backups may be used.
const IN_PLACE: &[TenantState] = &[TenantState::Active, TenantState::Suspended];
const AS_NEW: &[TenantState] =
    &[TenantState::Active, TenantState::Suspended, TenantState::Archived, TenantState::Deleted];

#[async_trait]
impl Operation for Params {
    fn kind(&self) -> &'static str {
        "restore"
    }

    fn targets(&self) -> Targets {
        Targets::One(if self.as_name.is_none() { IN_PLACE } else { AS_NEW })
    }

    fn placements(&self) -> Placements {
        Placements::Fresh
    }

    async fn prepare(&self, _fleet: &Fleet, _scope: Scope) -> Result<Prepared> {
        let named = match &self.as_name {
            Some(name) => vec![(TenantId::generate(), Name::slug(name)?)],
            None => Vec::new(),
        };
        Ok(Prepared { named, ..Prepared::default() })
    }

    async fn look(&mut self, tx: &mut ReadTx, seen: &mut Seen) -> Result<()> {
        let Some(source) = seen.tenants.first() else { return Ok(()) };
        let backup = find(tx, source.id, &source.name, self.to).await?;
        let is_disputed = clocks_disagree(tx, &backup, self.to).await?;
        self.resolved = Some(Resolved { backup: backup.id, source: source.id, is_disputed });
        seen.backups.insert(source.id, vec![backup]);
        seen.head_version = head_version(tx, seen.current_release).await?;
        let names: Vec<Name> = seen.prepared.named.iter().map(|(_, name)| name.clone()).collect();
        seen.taken = catalog::names::taken(tx, &names).await?.into_iter().collect();
        Ok(())
    }

    fn plan(&self, seen: &Seen) -> Result<Plan> {
        let source = seen.tenants.first().ok_or_else(|| Error::internal("a restore is about one tenant"))?;
        let backup = seen.backups.get(&source.id).and_then(|found| found.first());
        let backup = backup.ok_or_else(|| not_found(&source.name))?;
        let taken = jiff::Timestamp::from_millisecond(backup.taken_at).map(|at| at.to_string()).unwrap_or_default();
        let what = format!("backup {} of {taken}", backup.id);
        let mut plan = Plan::default();
        if self.resolved.is_some_and(|resolved| resolved.is_disputed) {
            plan.notes.push(DISPUTED.to_owned());
        }
        let Some((id, name)) = seen.prepared.named.first() else {
            plan.notes.push(outlook(self.schema, source, backup)?.told(&source.name));
            plan.step(source.id, &source.name, || format!("goes back to {what}"));
            plan.notes.push("what was written since then is kept aside, and comes back with restore undo".to_owned());
            return Ok(plan);
        };
        if seen.taken.contains_key(name) {
            let detail = format!("a tenant named '{}' exists, or existed once", name.as_str());
            return Err(Error::new(409, "already_exists", detail));
        }
        let (name, server_id) = (name.clone(), source.server_id);
        plan.release = seen.current_release;
        plan.step(*id, name.as_str(), || format!("is made from {what} of {}", source.name));
        plan.new.push(catalog::tenants::NewTenant { id: *id, name, server_id, labels: source.labels.clone() });
        let before = Before { version: seen.head_version, pin: None };
        plan.notes.push(outlook_from(self.schema, before, backup.schema_version)?.told("the new tenant"));
        plan.notes.push("the new tenant has no members and no tokens".to_owned());
        Ok(plan)
    }

    async fn step(&self, fleet: &Fleet, step: &Step) -> Outcome {
        match (step.phase.as_str(), &self.as_name) {
            ("", Some(_)) => self.make(fleet, step).await,
            ("", None) => self.build(fleet, step).await,
            (FREEZE, None) => freeze(fleet, step).await,
            (SWAP, None) => swap::exchange(fleet, step, told).await,
            (thaw::THAW, None) => thaw::thaw(fleet, step).await,
            _ => Err(step.unknown_phase()),
        }
        .into()
    }

    async fn give_up(&self, fleet: &Fleet, step: &Step, error: Error) -> Outcome {
        thaw::give_up_phase(fleet, step, error).await
    }
}

impl Params {
    /// As a new tenant: nobody is served yet, so one phase does it all.
    async fn make(&self, fleet: &Fleet, step: &Step) -> Result<Outcome> {
        if step.tenant.state != TenantState::Provisioning {
            return Err(Error::new(409, "conflict", format!("{} is not being made any more", step.tenant.name)));
        }
        let generation = step.tenant.generation.next();
        let release = step.op.release_id;
        let goal = match self.schema {
            Schema::Backup => Goal::Stay(release),
            Schema::Current => Goal::Head(release),
        };
        let fill = build::from_backup(fleet, step, self.source()?, generation, goal);
        let mut built = build::ready(fleet, step, IdentityState::Active, goal, fill).await?;
        let head = head_version(&mut fleet.catalog.read().await?, release).await?;
        built.pin = Before { version: head, pin: None }.pin(built.schema_version, step);
        let (backup, version) = (self.resolved.map(|r| r.backup), built.schema_version);
        let facts = built.told(json!({"backup": backup, "schema_version": version, "pinned": built.pin.is_some()}));
        let flip = Flip { state: Some(TenantState::Active), ..built.flip(step) };
        Ok(Outcome::done(facts.clone())
            .with(Effect::Flip(flip))
            .with(Effect::Event(step.event("tenant.activated", facts))))
    }

    /// In place: while the tenant serves.
    async fn build(&self, fleet: &Fleet, step: &Step) -> Result<Outcome> {
        fence::require_unawaited(fleet, step).await?;
        step.require_state(IN_PLACE)?;
        let generation = swap::after_swap(step.tenant.generation);
        let before = Before::read(fleet, &step.tenant).await?;
        let goal = self.goal(fleet, step, before).await?;
        let mut built = build::from_backup(fleet, step, self.source()?, generation, goal).await?;
        if self.schema == Schema::Current && built.schema_version != before.version {
            build::discard(fleet, step, &built).await?;
            return Err(unreachable(built.schema_version, before.version));
        }
        built.pin = before.pin(built.schema_version, step);
        Ok(Outcome::next(FREEZE, json!(built)))
    }

    /// The tenant's own version is reached with its release, or else with the one that new tenants start from.
    async fn goal(&self, fleet: &Fleet, step: &Step, before: Before) -> Result<Goal> {
        let own = step.tenant.release_id;
        if self.schema == Schema::Backup || before.version.is_none() {
            return Ok(Goal::Stay(own));
        }
        let current = catalog::fleet::current_release(&mut fleet.catalog.read().await?).await?;
        for id in [own, current].into_iter().flatten() {
            let sets = fleet.release(id).await?;
            if let Some(version) = before.version.filter(|version| sets.versions().get(*version).is_some()) {
                return Ok(Goal::Version(id, version));
            }
        }
        Ok(Goal::Stay(own))
    }

    fn source(&self) -> Result<build::Source> {
        let resolved = self.resolved.ok_or_else(|| Error::internal("a restore without a backup"))?;
        Ok(build::Source { backup: resolved.backup, tenant: resolved.source })
    }
}

async fn freeze(fleet: &Fleet, step: &Step) -> Result<Outcome> {
    let built: Built = step.facts()?;
    if !IN_PLACE.contains(&step.tenant.state) {
        build::discard(fleet, step, &built).await?;
        step.require_state(IN_PLACE)?;
    }
    if built.generation != swap::after_swap(step.tenant.generation) {
        // Somebody changed the tenant between two attempts: what was built fits no more.
        build::discard(fleet, step, &built).await?;
        return Ok(Outcome::next("", json!({})));
    }
    fleet.point("restore: freezes").await;
    let fence = fence::freeze(fleet, step).await?;
    fleet.point("restore: frozen").await;
    Ok(Outcome::next(SWAP, json!(Swap { built, fence, why: Why::Restore })).with(Effect::Flip(fence::block(step))))
}

fn told(_: &Step, swap: &Swap, times: Times) -> (&'static str, serde_json::Value) {
    let facts = json!({
        "schema_version": swap.built.schema_version,
        "pinned": swap.built.pin.is_some(),
        "frozen_ms": times.frozen_ms,
        "replaced": swap.fence.current,
        "undo_until": (swap.fence.current == Current::Frozen).then_some(times.keep_until),
    });
    ("tenant.restored", swap.built.told(facts))
}

/// The newest version of a release.
async fn head_version(tx: &mut ReadTx, release: Option<ReleaseId>) -> Result<Option<i64>> {
    let Some(id) = release else { return Ok(None) };
    Ok(catalog::releases::get(tx, id).await?.and_then(|release| release.head_version))
}

/// What becomes of a tenant's schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlook {
    /// The backup's.
    pub backup: Option<i64>,
    /// The tenant's before.
    pub before: Option<i64>,
    /// The tenant's afterwards.
    pub after: Option<i64>,
    /// Whether the tenant stays there.
    pub is_pinned: bool,
}

impl Outlook {
    /// In words.
    #[must_use]
    pub fn told(self, name: &str) -> String {
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

/// PURE: what a restore in place does to the schema.
///
/// # Errors
/// `schema_unreachable`: the tenant's version is asked for, and the backup is newer.
pub fn outlook(schema: Schema, tenant: &TenantRecord, backup: &BackupRecord) -> Result<Outlook> {
    outlook_from(schema, Before::known(tenant), backup.schema_version)
}

fn outlook_from(schema: Schema, before: Before, backup: Option<i64>) -> Result<Outlook> {
    if schema == Schema::Current && backup > before.version {
        return Err(unreachable(backup, before.version));
    }
    let after = if schema == Schema::Current { before.version } else { backup };
    let is_pinned = before.is_back_at(after);
    Ok(Outlook { backup, before: before.version, after, is_pinned })
}

/// Migrations only go forwards.
fn unreachable(from: Option<i64>, to: Option<i64>) -> Error {
    let detail = format!("a backup at {} cannot be migrated to {}", version_text(from), version_text(to));
    Error::new(409, "schema_unreachable", detail).try_next("leave --schema out, and the backup's schema is kept")
}

/// What a restore to a time says where clocks disagree.
pub const DISPUTED: &str = "an older backup of this tenant says a later time, so a clock was wrong: to be certain, name the backup, --to <backup id>";

/// Whether the time asked for is ambiguous: a backup that was taken before the one found says a later time. The order of
/// backups never comes from a clock, but what a person means by a time can only be looked up by one.
///
/// # Errors
/// Those of the catalog.
pub async fn clocks_disagree(tx: &mut ReadTx, found: &BackupRecord, to: To) -> Result<bool> {
    match to {
        To::At(at) => Ok(catalog::backups::is_disputed(tx, found, at).await?),
        To::Latest | To::Backup(_) => Ok(false),
    }
}

/// The backup that `to` means for this tenant.
///
/// # Errors
/// `backup_not_found` when there is none; `wrong_tenant_backup` when the one named is another tenant's.
pub async fn find(tx: &mut ReadTx, tenant: TenantId, name: &str, to: To) -> Result<BackupRecord> {
    let found = match to {
        To::Latest => catalog::backups::newest(tx, tenant, None).await?,
        To::At(at) => catalog::backups::newest(tx, tenant, Some(at)).await?,
        To::Backup(id) => catalog::backups::get(tx, id).await?,
    };
    let found = found.ok_or_else(|| not_found(name))?;
    if found.tenant_id != tenant {
        return Err(Error::new(409, "wrong_tenant_backup", format!("{} is not a backup of {name}", found.id))
            .try_next(format!("fleetctl backup list {name}")));
    }
    Ok(found)
}

/// The error of a backup that is not there.
pub(super) fn not_found(whose: &str) -> Error {
    Error::new(404, "backup_not_found", format!("there is no such backup of {whose}"))
        .try_next("fleetctl backup list <tenant>")
}
