//! migrate: brings tenants to a release, each version in one transaction with its ledger row.
//!
//! The catalog's hint decides who gets a step, in bulk; the database's own ledger decides what is applied. So a run
//! with nothing to do opens nothing, and a step that is repeated finds its work done.

use std::sync::Arc;

use async_trait::async_trait;
use catalog::backups::BackupRecord;
use catalog::events::NewEvent;
use catalog::{BlockWrites, ReadTx, ReleaseId, TenantRecord, TenantState, WriteTx};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::migration::File;
use tenant_engine::{EngineKind, ErrorKind, IdentityState, MigrationSets, Server};

use super::planning::Current;
use super::{
    Effect, Fleet, Left, Operation, Outcome, Plan, Prepared, Scope, Seen, Step, Targets, Verdict, fence, ledgers, pin,
};
use crate::error::{Error, Result};
use crate::plan::ledgers::{Ledger, prefix};

/// States in which a tenant has a database: a suspended one is kept at the fleet's version.
const STATES: &[TenantState] = &[TenantState::Active, TenantState::Suspended];

/// Where to go.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Params {
    /// The migration set.
    pub release: Release,
    /// Stop after this version; `None`: the head.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target: Option<i64>,
    /// Which tenants are looked into.
    #[serde(default)]
    pub look: Look,
    /// Pinned tenants take part. Set at submission when tenants were named one by one.
    #[serde(default)]
    pub include_pinned: bool,
    /// New tenants start from the release after its first success. Filled at submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promotes: Option<Promotion>,
}

/// A release that is to become the current one.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Promotion {
    /// The current release at submission: another one by now was chosen by somebody else.
    pub from: Option<ReleaseId>,
}

/// A migration set by its id or by its files.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Release {
    /// One that the catalog holds.
    Id(ReleaseId),
    /// Stored at submission; the operation's row names its id then.
    Files(Vec<File>),
}

/// Which tenants get a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Look {
    /// Those whose catalog row says that they are elsewhere.
    #[default]
    Hint,
    /// All of them: each database's own ledger is read.
    Every,
}

impl Params {
    /// To the head of a release, trusting the hint.
    #[must_use]
    pub fn to(release: Release) -> Self {
        Self { release, target: None, look: Look::Hint, include_pinned: false, promotes: None }
    }

    fn release_id(&self) -> Option<ReleaseId> {
        match self.release {
            Release::Id(id) => Some(id),
            Release::Files(_) => None,
        }
    }
}

#[async_trait]
impl Operation for Params {
    fn kind(&self) -> &'static str {
        "migrate"
    }

    /// The release becomes the current one, and new tenants get it.
    fn works_without_tenants(&self) -> bool {
        true
    }

    fn targets(&self) -> Targets {
        Targets::Selected(STATES)
    }

    async fn prepare(&self, fleet: &Fleet, scope: Scope) -> Result<Prepared> {
        let sets = match &self.release {
            Release::Id(id) => fleet.release(*id).await?,
            Release::Files(files) => Arc::new(MigrationSets::from_files(files)?),
        };
        let versions = sets.versions();
        if let Some(target) = self.target
            && versions.get(target).is_none()
        {
            return Err(Error::new(422, "invalid", format!("the release holds no version {target}"))
                .try_next("name one of its versions as the target, or none for its head"));
        }
        let reaches_head = self.target.is_none_or(|target| versions.head() == Some(target));
        let current = match scope {
            Scope::All if reaches_head => becomes_current(fleet, &sets).await?,
            _ => Current::Unchanged,
        };
        Ok(Prepared { current, sets: Some(sets), ..Prepared::default() })
    }

    async fn store(&mut self, tx: &mut WriteTx, actor: &str) -> Result<()> {
        if let Release::Files(files) = &self.release {
            let sets = MigrationSets::from_files(files)?;
            let stored = catalog::releases::ensure(tx, &sets, files, actor).await?;
            self.release = Release::Id(stored.id);
        }
        Ok(())
    }

    async fn look(&mut self, tx: &mut ReadTx, seen: &mut Seen) -> Result<()> {
        self.include_pinned |= !seen.by_rule();
        self.refuse_way_back(tx, seen).await?;
        if let Release::Files(files) = &self.release {
            // In a dry run: a release that is not stored gets an id that no tenant has.
            let sets = MigrationSets::from_files(files)?;
            let known = catalog::releases::by_digest(tx, sets.digest()).await?;
            self.release = Release::Id(known.map_or_else(ReleaseId::generate, |known| known.id));
        }
        let becomes = matches!(seen.prepared.current, Current::Becomes | Current::BecomesExcept(_));
        self.promotes = becomes.then_some(Promotion { from: seen.current_release });
        seen.applied = ledgers::known(tx, &seen.tenants, &seen.prepared.read).await?;
        Ok(())
    }

    fn plan(&self, seen: &Seen) -> Result<Plan> {
        let release = self.release_id().ok_or_else(|| Error::internal("a plan needs the id of its release"))?;
        let mut plan = Plan { release: Some(release), unread: seen.applied.unread.clone(), ..Plan::default() };
        check_ledgers(&mut plan, seen)?;
        for tenant in &seen.tenants {
            let left = self.has_left(tenant).filter(|_| seen.by_rule());
            match (self.standing(tenant, release), left) {
                (Standing::There, _) => plan.skip(&tenant.name, || "is there already".to_owned()),
                (_, Some(left)) => plan.leave_out(tenant, left),
                (Standing::Passed, None) => plan.leave_out(tenant, passed(tenant, self.target)),
                (Standing::Behind, None) => plan.step(tenant.id, &tenant.name, || action(tenant, self.target)),
            }
        }
        match &seen.prepared.current {
            Current::Unchanged => {}
            Current::Becomes => become_current(&mut plan, seen, release),
            Current::BecomesExcept(why) => {
                become_current(&mut plan, seen, release);
                plan.notes.push(format!("no new tenant can start from it on a server of: {why}"));
            }
            Current::CannotBuild(why) => plan.notes.push(format!(
                "new tenants will not start from this release: it cannot be applied to an empty database: {why}"
            )),
        }
        Ok(plan)
    }

    fn has_left(&self, tenant: &TenantRecord) -> Option<Left> {
        let blocked = tenant.block_writes == Some(BlockWrites::Operator);
        let left = Left::by_state(tenant, STATES);
        let left = left.or_else(|| blocked.then(|| Left::is("tenant_read_only", tenant, "read-only")));
        left.or_else(|| pin::left_out(tenant).filter(|_| !self.include_pinned))
    }

    async fn step(&self, fleet: &Fleet, step: &Step) -> Outcome {
        self.migrate(fleet, step).await.into()
    }

    async fn give_up(&self, fleet: &Fleet, step: &Step, error: Error) -> Outcome {
        self.stopped(fleet, step, error).await
    }
}

/// Where a tenant is on the way of a migration, by the catalog's word.
enum Standing {
    /// It is beyond the target, and no migration leads back.
    Passed,
    There,
    Behind,
}

impl Params {
    fn standing(&self, tenant: &TenantRecord, release: ReleaseId) -> Standing {
        match self.target {
            Some(target) if tenant.schema_version > Some(target) => return Standing::Passed,
            Some(target) if tenant.schema_version == Some(target) && self.look == Look::Hint => return Standing::There,
            _ => {}
        }
        // A step that finds a pinned tenant at the head lifts its pin.
        let lifts = tenant.pin.is_some() && self.include_pinned;
        let is_there = tenant.release_id == Some(release) && !lifts;
        if is_there && self.look == Look::Hint { Standing::There } else { Standing::Behind }
    }

    /// Migrations only go forwards. A target that a named tenant has passed is refused, and so is one that no tenant can
    /// reach; where others can, a rule's tenants that have passed it are left as they are.
    async fn refuse_way_back(&self, tx: &mut ReadTx, seen: &Seen) -> Result<()> {
        let Some(target) = self.target else { return Ok(()) };
        let is_pinned = |tenant: &&TenantRecord| tenant.pin.is_some() && !self.include_pinned;
        let takes_part = || seen.tenants.iter().filter(|tenant| !is_pinned(tenant));
        let Some(first) = takes_part().find(|tenant| tenant.schema_version > Some(target)) else { return Ok(()) };
        if seen.by_rule() && takes_part().any(|tenant| tenant.schema_version < Some(target)) {
            return Ok(());
        }
        let back = catalog::backups::newest_at_version(tx, first.id, target).await?;
        Err(unreachable(first, target, back.as_ref()))
    }

    /// A pin that is newer than this operation was unknown to the caller: a retry must not undo a restore.
    async fn require_unpinned(&self, fleet: &Fleet, step: &Step) -> Result<()> {
        let Some((pin, left)) = step.tenant.pin.zip(pin::left_out(&step.tenant)) else { return Ok(()) };
        let mut tx = fleet.catalog.read().await?;
        if self.include_pinned && !catalog::operations::is_later(&mut tx, pin.op, step.op.id).await? {
            return Ok(());
        }
        let name = &step.tenant.name;
        Err(Error::new(409, left.code, left.why).try_next(format!("fleetctl migrate run <directory> {name}")))
    }

    async fn migrate(&self, fleet: &Fleet, step: &Step) -> Result<Outcome> {
        fence::require_unblocked(step)?;
        require_writable(step)?;
        self.require_unpinned(fleet, step).await?;
        let release = self.release_id().ok_or_else(|| Error::internal("a step needs the id of its release"))?;
        let sets = fleet.release(release).await?;
        let (engine, at) = fleet.current(&step.tenant).await?;
        let set = sets.of(at.engine())?;
        let expected = step.expected(fleet.id(), &[IdentityState::Active]);
        fleet.point("migrate: claimed").await;
        let migrated = match engine.migrate(&at, &expected, set, self.target).await {
            Ok(migrated) => migrated,
            Err(error) => return Ok(self.stopped(fleet, step, error.into()).await),
        };
        fleet.point("migrate: applied").await;
        if let Some(target) = self.target.filter(|target| migrated.to_version > Some(*target)) {
            let reached = TenantRecord { schema_version: migrated.to_version, ..step.tenant.clone() };
            return Err(unreachable(&reached, target, None));
        }
        let complete = self.target.is_none_or(|target| set.head() == Some(target));
        let at_head = complete && migrated.to_version == set.head();
        // A database that was beyond the target may lack versions between the two.
        let known = complete || migrated.to_version <= self.target;
        let reached = Effect::Schema {
            tenant: step.tenant.id,
            version: migrated.to_version,
            release: at_head.then_some(release),
            ledger: known.then_some(release),
        };
        let facts = json!({
            "from_version": migrated.from_version, "to_version": migrated.to_version, "applied": migrated.applied,
        });
        let mut outcome = Outcome::done(facts.clone()).with(reached);
        if step.tenant.pin.is_some() && (at_head || migrated.to_version > step.tenant.schema_version) {
            outcome = outcome.with(Effect::Unpin(step.tenant.id));
        }
        outcome.effects.extend(self.promotes.filter(|_| at_head).map(|to| promote(step, to, release)));
        if migrated.applied.is_empty() {
            return Ok(outcome);
        }
        let mut outcome = outcome.with(Effect::Event(step.event("tenant.migrated", facts)));
        outcome.effects.extend(fleet.measured(&step.tenant).await);
        Ok(outcome)
    }
}

impl Params {
    /// A step that failed, with the version that the database reached before it did.
    async fn stopped(&self, fleet: &Fleet, step: &Step, error: Error) -> Outcome {
        Outcome { verdict: Verdict::Failed(error), effects: self.reached(fleet, step).await.unwrap_or_default() }
    }

    /// What the catalog does not know yet of the database's own ledger; `None` where it cannot be read.
    async fn reached(&self, fleet: &Fleet, step: &Step) -> Option<Vec<Effect>> {
        let release = self.release_id()?;
        let ledger = ledgers::read_one(fleet, &step.tenant).await?;
        let version = ledger.last().map(|(version, _)| *version);
        let (_, at) = fleet.current(&step.tenant).await.ok()?;
        let sets = fleet.release(release).await.ok()?;
        let is_of_release = ledger == prefix(sets.of(at.engine()).ok()?, version);
        if recorded(fleet, &step.tenant, at.engine()).await? == ledger {
            return None;
        }
        let ledger = is_of_release.then_some(release);
        let mut effects = vec![Effect::Schema { tenant: step.tenant.id, version, release: None, ledger }];
        if version != step.tenant.schema_version {
            let facts = json!({"from_version": step.tenant.schema_version, "to_version": version, "complete": false});
            effects.push(Effect::Event(step.event("tenant.migrated", facts)));
        }
        Some(effects)
    }
}

/// What the catalog says that a tenant has applied; nothing when it does not know.
async fn recorded(fleet: &Fleet, tenant: &TenantRecord, engine: EngineKind) -> Option<Ledger> {
    let Some(release) = tenant.ledger_release_id else { return Some(Ledger::new()) };
    let sets = fleet.release(release).await.ok()?;
    Some(prefix(sets.of(engine).ok()?, tenant.schema_version))
}

/// The release has succeeded.
fn promote(step: &Step, to: Promotion, release: ReleaseId) -> Effect {
    let data = json!({"release": release, "before": to.from});
    let event = NewEvent { tenant_id: None, ..step.event("release.activated", data) };
    Effect::Promote { op: step.op.id, from: to.from, release, event }
}

/// A migration writes: an operator who made a tenant read-only has to say that it may.
fn require_writable(step: &Step) -> Result<()> {
    if step.tenant.block_writes.is_none() {
        return Ok(());
    }
    let name = &step.tenant.name;
    Err(Error::new(409, "tenant_read_only", format!("{name} is read-only"))
        .try_next(format!("fleetctl tenant read-only {name} --off")))
}

/// The template is what new tenants are copied from: a release that builds none anywhere must not become current.
async fn becomes_current(fleet: &Fleet, sets: &MigrationSets) -> Result<Current> {
    let (mut builds, mut refusals) = (false, Vec::new());
    for server in fleet.one_of_each_engine().await? {
        match builds_on(fleet, &server, sets).await? {
            None => builds = true,
            Some(why) => refusals.push(format!("{}: {why}", server.engine())),
        }
    }
    Ok(match (builds, refusals.is_empty()) {
        (true, true) => Current::Becomes,
        (true, false) => Current::BecomesExcept(refusals.join("; ")),
        (false, _) => Current::CannotBuild(refusals.join("; ")),
    })
}

/// Why no empty database of this server can be brought there, if so.
async fn builds_on(fleet: &Fleet, server: &Server, sets: &MigrationSets) -> Result<Option<String>> {
    let engine = fleet.engine(server.engine())?;
    let built = match sets.of(server.engine()) {
        Ok(set) => engine.template(server, set).await.map(drop),
        Err(lacking) => Err(lacking),
    };
    match built {
        Ok(()) => Ok(None),
        Err(error) => match error.kind() {
            ErrorKind::MigrationFailed | ErrorKind::MigrationInvalid => Ok(Some(error.to_string())),
            _ => Err(error.into()),
        },
    }
}

/// New tenants must not start from a release that fails everywhere: with steps to run it becomes current with the first
/// that succeeds. Without any it is where the fleet is already, or there is nobody whom it could fail.
fn become_current(plan: &mut Plan, seen: &Seen, release: ReleaseId) {
    if seen.current_release == Some(release) {
        return;
    }
    if plan.steps.is_empty() && (plan.skipped > 0 || plan.left_out.is_empty()) {
        plan.current = Some(release);
        plan.notes.push("new tenants start from this release from now on".to_owned());
    } else {
        plan.notes.push("new tenants start from this release as soon as one tenant has reached it".to_owned());
    }
}

/// Refuses files that do not go on from what the selected tenants have applied, before any of them is touched.
fn check_ledgers(plan: &mut Plan, seen: &Seen) -> Result<()> {
    let Some(sets) = &seen.prepared.sets else { return Ok(()) };
    if let Some(refused) = seen.applied.ledgers.refusal(sets) {
        return Err(refused);
    }
    for version in seen.applied.ledgers.late(sets) {
        plan.notes.push(format!("version {version} is older than what some tenants have applied: they apply it late"));
    }
    if seen.applied.unreadable > 0 {
        let count = seen.applied.unreadable;
        plan.notes.push(format!("what {count} tenants have applied is not known; their steps look at it"));
    }
    Ok(())
}

/// The error of a target that a tenant has passed, with the way back.
fn unreachable(tenant: &TenantRecord, target: i64, back: Option<&BackupRecord>) -> Error {
    let name = &tenant.name;
    let at = pin::version_text(tenant.schema_version);
    let detail = format!("{name} is at {at}, and a migration never goes back to version {target}");
    let error = Error::new(409, "schema_unreachable", detail);
    match back {
        Some(backup) => error.try_next(format!(
            "fleetctl restore run {name} --to {}      # its newest backup at version {target}, without what was written since",
            backup.id
        )),
        None => error.try_next(format!("fleetctl backup list {name}      # a restore keeps its backup's schema")),
    }
}

fn passed(tenant: &TenantRecord, target: Option<i64>) -> Left {
    let (at, target) = (pin::version_text(tenant.schema_version), pin::version_text(target));
    Left::is("schema_unreachable", tenant, &format!("at {at}, and a migration never goes back to {target}"))
}

fn action(tenant: &TenantRecord, target: Option<i64>) -> String {
    let from = tenant.schema_version.map_or_else(|| "no version".to_owned(), |version| format!("version {version}"));
    match target {
        Some(target) => format!("goes from {from} to version {target}"),
        None => format!("goes from {from} to the head"),
    }
}
