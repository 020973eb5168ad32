//! Builds a new database for a tenant: fills it from a snapshot and migrates it. It does not serve until a stamp
//! activates it.

use std::sync::Arc;

use catalog::replacements::NewDatabase;
use catalog::tenants::TenantUpdate;
use catalog::{BackupId, Generation, ReleaseId, SchemaPin, ServerId, TenantId};
use serde::{Deserialize, Serialize};
use tenant_engine::migration::pending_migrations;
use tenant_engine::{
    AccessMode, AfterStatements, Engine, ErrorKind as DatabaseError, ExpectedIdentity, IdentityState, InspectionDepth,
    Placement, RestoreOutcome, SessionLimits, SqlStatement,
};

use super::{backup_trust, image, leftovers, stamp, state};
use crate::error::{Error, ErrorKind, Result};
use crate::operation::{ClaimedStep, StepContext};

/// A new database, ready to be swapped in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BuiltDatabase {
    pub(crate) placement: String,
    /// The database's server, if it is not the tenant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<ServerId>,
    /// The generation in the database's identity.
    pub(crate) generation: Generation,
    pub(crate) schema_version: Option<i64>,
    pub(crate) release: Option<ReleaseId>,
    pub(crate) size_bytes: u64,
    /// Whether the tenant stays at its version; see `schema_pin.rs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pin: Option<SchemaPin>,
    /// What the source has and the new database lacks, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) left_out: Vec<String>,
}

/// The schema that a new database gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SchemaGoal {
    /// The schema that it has. The release is the one whose head that may be.
    Stay(Option<ReleaseId>),
    /// The head of this release, or without a release the schema that it has. A schema newer than the release stays as
    /// it is. That happens after a rollback of the application.
    Head(Option<ReleaseId>),
    /// This version of a release.
    Version(ReleaseId, i64),
}

impl BuiltDatabase {
    /// Adds to an operation's facts what the new database lacks.
    pub(crate) fn add_left_out(&self, mut facts: serde_json::Value) -> serde_json::Value {
        if !self.left_out.is_empty() {
            facts["left_out"] = serde_json::json!(self.left_out);
        }
        facts
    }

    /// The tenant update that names this database in the catalog.
    pub(crate) fn tenant_update(&self, step: &ClaimedStep) -> TenantUpdate {
        TenantUpdate {
            placement: Some(Some(self.placement.clone())),
            server_id: self.server,
            schema_version: Some(self.schema_version),
            release_id: Some(self.release),
            pin: Some(self.pin),
            size_bytes: i64::try_from(self.size_bytes).ok(),
            ..TenantUpdate::for_generation(step.tenant.id, step.tenant.generation)
        }
    }
}

/// A backup and its owner.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BackupSource {
    pub(crate) backup: BackupId,
    /// The tenant whose data the backup holds.
    pub(crate) tenant: TenantId,
}

/// The complete database that an earlier attempt at a new tenant made and did not report. After the catalog was
/// restored from an older copy, this finds a database that has served since.
pub(crate) async fn finished_earlier(
    context: &StepContext,
    step: &ClaimedStep,
    served_state: IdentityState,
    goal: SchemaGoal,
) -> Result<Option<BuiltDatabase>> {
    let generation = step.tenant.generation.next();
    let Some(at) = leftovers::drop_earlier_attempts(context, step.tenant.server_id, step, generation).await? else {
        return Ok(None);
    };
    let engine = context.engine_of_kind(at.engine_kind())?;
    let found = engine.inspect_database(&at, None, InspectionDepth::Ledger).await?;
    if found.identity.generation != generation || found.identity.state != served_state {
        return Err(serves_already(step));
    }
    let expected = step.expected_at(context.fleet_id(), generation, &[served_state]);
    // A database without migrations is left so: it was adopted.
    let goal = if found.schema_version().is_some() { goal } else { SchemaGoal::Head(None) };
    let (schema_version, release) =
        forward_schema(context, engine, &at, &expected, goal, found.schema_version()).await?;
    probe_database(engine, &at, &expected).await?;
    let (placement, size_bytes) = (at.catalog_reference().to_owned(), engine.database_size(&at).await?);
    Ok(Some(BuiltDatabase {
        placement,
        server: None,
        generation,
        schema_version,
        release,
        size_bytes,
        pin: None,
        left_out: Vec::new(),
    }))
}

/// The database of a tenant that has none yet, ready to be announced. Either an earlier attempt finished it, or `fill`
/// makes it now.
pub(crate) async fn build_new_tenant(
    context: &StepContext,
    step: &ClaimedStep,
    served_state: IdentityState,
    goal: SchemaGoal,
    fill: impl Future<Output = Result<BuiltDatabase>> + Send,
) -> Result<BuiltDatabase> {
    if let Some(built) = finished_earlier(context, step, served_state, goal).await? {
        return Ok(built);
    }
    let built = fill.await?;
    activate_database(context, step, &state::new_database(&built, step), served_state).await?;
    Ok(built)
}

/// The error of a step that finds a database which only a newer catalog can have activated.
pub(crate) fn serves_already(step: &ClaimedStep) -> Error {
    let detail = format!("a database that an earlier attempt made for {} already serves", step.tenant.name);
    Error::new(ErrorKind::DatabaseFenced, detail)
        .try_next("fleetctl scrub      # the catalog is older than the databases")
}

/// Restores a backup into a new placement, verifies it, and migrates it to the schema of `goal`. Leaves nothing behind
/// on failure.
pub(crate) async fn from_backup(
    context: &StepContext,
    step: &ClaimedStep,
    source: BackupSource,
    generation: Generation,
    goal: SchemaGoal,
) -> Result<BuiltDatabase> {
    if leftovers::drop_earlier_attempts(context, step.tenant.server_id, step, generation).await?.is_some() {
        return Err(serves_already(step));
    }
    context.fault_point("build: claimed").await;
    let _one_of_few = context.images.acquire().await.map_err(|error| Error::internal("closing").with_source(error))?;
    let backup = catalog::backups::get(&mut context.catalog.read().await?, source.backup).await?;
    let backup = backup.ok_or_else(|| unlisted_backup(source.backup))?;
    let (manifest, picture) = backup_trust::fetch_backup(context, &backup, source.tenant).await?;
    let (engine, at) = context.fresh_placement(step, generation).await?;
    let identity = step.identity_to_stamp(context.fleet_id(), generation, IdentityState::Building);
    let restored = image::fill_placement(engine, &at, (&manifest, picture), &identity).await?;
    let restored = image::with_left_out((manifest.left_out, &manifest.classes), restored);
    forward_filled(context, step, (engine, &at), restored, generation, goal).await
}

/// Migrates a filled database, and drops it when that fails.
pub(crate) async fn forward_filled(
    context: &StepContext,
    step: &ClaimedStep,
    (engine, at): (&Arc<dyn Engine>, &Placement),
    restored: RestoreOutcome,
    generation: Generation,
    goal: SchemaGoal,
) -> Result<BuiltDatabase> {
    step.note_filled(at.catalog_reference());
    context.fault_point("build: filled").await;
    let expected = step.expected_at(context.fleet_id(), generation, &[IdentityState::Building]);
    let forward = forward_schema(context, engine, at, &expected, goal, restored.schema_version).await;
    let (schema_version, release) = match forward {
        Ok(reached) => reached,
        Err(error) => {
            engine.drop_database(at, Some(&expected)).await?;
            return Err(error);
        }
    };
    context.fault_point("build: migrated").await;
    // Measured now, because migrations change the size.
    let (placement, size_bytes) = (at.catalog_reference().to_owned(), engine.database_size(at).await?);
    Ok(BuiltDatabase {
        placement,
        server: None,
        generation,
        schema_version,
        release,
        size_bytes,
        pin: None,
        left_out: restored.left_out,
    })
}

/// Stamps the new database with the generation that the catalog will have, then opens it as a request would.
pub(crate) async fn activate_database(
    context: &StepContext,
    step: &ClaimedStep,
    new: &NewDatabase,
    to: IdentityState,
) -> Result<()> {
    let (engine, at) = context.resolve_placement(new.server_id, &new.placement).await?;
    context.fault_point("build: activates").await;
    let building = step.expected_at(context.fleet_id(), new.generation, &[IdentityState::Building]);
    stamp::stamp_database(engine, &at, &building, &step.identity_to_stamp(context.fleet_id(), new.generation, to))
        .await?;
    context.fault_point("build: stamped").await;
    probe_database(engine, &at, &step.expected_at(context.fleet_id(), new.generation, &[to])).await
}

/// Drops a new database that is not needed after all. It is dropped only if its identity is still the one that this
/// step made. If another worker has let it serve since, its identity shows that.
pub(crate) async fn drop_unserved(context: &StepContext, step: &ClaimedStep, new: &NewDatabase) -> Result<()> {
    let (engine, at) = context.resolve_placement(new.server_id, &new.placement).await?;
    let expected = step.expected_at(context.fleet_id(), new.generation, &[IdentityState::Building]);
    Ok(engine.drop_database(&at, Some(&expected)).await?)
}

/// Opens a database as the router will, with the same call, expected identity and session, and reads from it.
pub(crate) async fn probe_database(
    engine: &Arc<dyn Engine>,
    at: &Placement,
    expected: &ExpectedIdentity,
) -> Result<()> {
    let pool = engine.open_pool(at, expected).await?;
    let statement = SqlStatement { sql: "select 1".to_owned(), params: Vec::new() };
    let read = pool
        .new_session(AccessMode::Read, SessionLimits::default())
        .run_statements(vec![statement], AfterStatements::Commit)
        .await;
    pool.close().await;
    read?;
    Ok(())
}

/// Migrates a database that does not serve yet to a schema. Returns its version, and the release if it is at that
/// release's head.
pub(crate) async fn forward_schema(
    context: &StepContext,
    engine: &Arc<dyn Engine>,
    at: &Placement,
    expected: &ExpectedIdentity,
    goal: SchemaGoal,
    found: Option<i64>,
) -> Result<(Option<i64>, Option<ReleaseId>)> {
    let (id, target) = match goal {
        SchemaGoal::Stay(likely) => return keep_schema(context, engine, at, expected, likely).await,
        SchemaGoal::Head(None) => return Ok((found, None)),
        SchemaGoal::Head(Some(id)) => (id, None),
        SchemaGoal::Version(id, version) => (id, Some(version)),
    };
    let sets = context.release_sets(id).await?;
    let set = sets.for_engine(at.engine_kind())?;
    match engine.migrate_database(at, expected, set, target).await {
        Ok(migrated) => Ok((migrated.to_version, (migrated.to_version == set.head_version()).then_some(id))),
        Err(error) if error.kind() == DatabaseError::MigrationAhead && target.is_none() => Ok((found, None)),
        Err(error) => Err(error.into()),
    }
}

/// The version of a database that keeps its schema, read from its own ledger, and the release whose head it is at.
async fn keep_schema(
    context: &StepContext,
    engine: &Arc<dyn Engine>,
    at: &Placement,
    expected: &ExpectedIdentity,
    likely: Option<ReleaseId>,
) -> Result<(Option<i64>, Option<ReleaseId>)> {
    let found = engine.inspect_database(at, Some(expected), InspectionDepth::Ledger).await?;
    let current = catalog::fleet::current_release(&mut context.catalog.read().await?).await?;
    for id in [likely, current].into_iter().flatten() {
        let sets = context.release_sets(id).await?;
        let lacks_nothing = |set| pending_migrations(set, &found.applied).is_ok_and(|todo| todo.is_empty());
        if sets.for_engine(at.engine_kind()).is_ok_and(lacks_nothing) {
            return Ok((found.schema_version(), Some(id)));
        }
    }
    Ok((found.schema_version(), None))
}

/// The error of a tenant without a backup that matches the request.
pub(crate) fn backup_not_found(tenant: &str) -> Error {
    Error::new(ErrorKind::BackupNotFound, format!("{tenant} has no matching backup"))
        .try_next(format!("fleetctl backup list {tenant}"))
}

/// The error of a backup that the catalog does not list.
pub(crate) fn unlisted_backup(id: BackupId) -> Error {
    Error::new(ErrorKind::BackupNotFound, format!("the catalog does not list the backup {id}"))
        .try_next("fleetctl backup list")
}
