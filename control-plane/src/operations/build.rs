//! A new database for a tenant, filled from a picture and brought forward, not served yet; and the stamp that lets it
//! serve.

use std::sync::Arc;

use catalog::tenants::Flip;
use catalog::{BackupId, Generation, Pin, ReleaseId, ServerId, TenantId};
use serde::{Deserialize, Serialize};
use tenant_engine::migration::pending;
use tenant_engine::{
    Access, After, Depth, Engine, ErrorKind, Expected, IdentityState, Limits, Placement, Restored, Statement,
};

use super::{Fleet, Step, image, restore, stamp, trust};
use crate::error::{Error, Result};

/// A new database, ready to be swapped in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Built {
    pub(super) placement: String,
    /// On another server than the tenant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) server: Option<ServerId>,
    /// Stamped into it.
    pub(super) generation: Generation,
    pub(super) schema_version: Option<i64>,
    pub(super) release: Option<ReleaseId>,
    pub(super) size_bytes: u64,
    /// Whether the tenant stays at its version; see `pin.rs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pin: Option<Pin>,
    /// What its source has and it lacks; for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) left_out: Vec<String>,
}

/// Which schema a new database gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// The one it has. The release is the one whose head that may be.
    Stay(Option<ReleaseId>),
    /// The head of this release; without one, the schema it has. One that is newer than the release, as after a rollback
    /// of the application, stays as it is.
    Head(Option<ReleaseId>),
    /// This version of a release.
    Version(ReleaseId, i64),
}

impl Built {
    /// What an operation tells of it, besides its own facts.
    pub(super) fn told(&self, mut facts: serde_json::Value) -> serde_json::Value {
        if !self.left_out.is_empty() {
            facts["left_out"] = serde_json::json!(self.left_out);
        }
        facts
    }

    /// Names this database in the catalog.
    pub(super) fn flip(&self, step: &Step) -> Flip {
        Flip {
            placement: Some(Some(self.placement.clone())),
            server_id: self.server,
            schema_version: Some(self.schema_version),
            release_id: Some(self.release),
            pin: Some(self.pin),
            size_bytes: i64::try_from(self.size_bytes).ok(),
            ..Flip::of(step.tenant.id, step.tenant.generation)
        }
    }
}

/// Where a backup comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    pub(super) backup: BackupId,
    /// Whose it is.
    pub(super) tenant: TenantId,
}

/// The database that an earlier attempt at a new tenant made, all of it, and did not tell of. A catalog that was set back
/// finds again what has served since.
pub(super) async fn finished(fleet: &Fleet, step: &Step, rests: IdentityState, goal: Goal) -> Result<Option<Built>> {
    let generation = step.tenant.generation.next();
    let Some(at) = fleet.drop_leftovers(step, generation).await? else { return Ok(None) };
    let engine = fleet.engine(at.engine())?;
    let found = engine.inspect(&at, None, Depth::Ledger).await?;
    if found.identity.generation != generation || found.identity.state != rests {
        return Err(serves_already(step));
    }
    let expected = step.expected_at(fleet.id(), generation, &[rests]);
    // One without migrations was left so: it was adopted.
    let goal = if found.schema_version().is_some() { goal } else { Goal::Head(None) };
    let (schema_version, release) = forward(fleet, engine, &at, &expected, goal, found.schema_version()).await?;
    probe(engine, &at, &expected).await?;
    let (placement, size_bytes) = (at.reference().to_owned(), engine.size(&at).await?);
    Ok(Some(Built {
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

/// The database of a tenant that has none yet, ready to be announced: what an earlier attempt finished, or what `fill`
/// makes now.
pub(super) async fn ready(
    fleet: &Fleet,
    step: &Step,
    rests: IdentityState,
    goal: Goal,
    fill: impl Future<Output = Result<Built>> + Send,
) -> Result<Built> {
    if let Some(built) = finished(fleet, step, rests, goal).await? {
        return Ok(built);
    }
    let built = fill.await?;
    activate(fleet, step, &built, rests).await?;
    Ok(built)
}

/// The error of a step that finds what only a catalog could have that is later than this one.
pub(super) fn serves_already(step: &Step) -> Error {
    let detail = format!("a database that an earlier attempt made for {} serves by now", step.tenant.name);
    Error::new(409, "fenced", detail).try_next("fleetctl scrub      # the catalog is older than the databases")
}

/// The database of a backup in a new placement, verified and at the schema of `goal`; leaves nothing when that fails.
pub(super) async fn from_backup(
    fleet: &Fleet,
    step: &Step,
    source: Source,
    generation: Generation,
    goal: Goal,
) -> Result<Built> {
    if fleet.drop_leftovers(step, generation).await?.is_some() {
        return Err(serves_already(step));
    }
    fleet.point("build: claimed").await;
    let _one_of_few = fleet.images.acquire().await.map_err(|error| Error::internal("closing").with_source(error))?;
    let backup = catalog::backups::get(&mut fleet.catalog.read().await?, source.backup).await?;
    let backup = backup.ok_or_else(|| restore::not_found(&source.backup.to_string()))?;
    let (manifest, picture) = trust::fetch(fleet, &backup, source.tenant).await?;
    let (engine, at) = fleet.fresh(step, generation).await?;
    let identity = step.identity(fleet.id(), generation, IdentityState::Building);
    let restored = image::fill(engine, &at, (&manifest, picture), &identity).await?;
    let restored = image::with_left_out((manifest.left_out, &manifest.classes), restored);
    forwarded(fleet, step, (engine, &at), restored, generation, goal).await
}

/// Migrates what was filled; drops it when that fails.
pub(super) async fn forwarded(
    fleet: &Fleet,
    step: &Step,
    (engine, at): (&Arc<dyn Engine>, &Placement),
    restored: Restored,
    generation: Generation,
    goal: Goal,
) -> Result<Built> {
    step.note_filled(at.reference());
    fleet.point("build: filled").await;
    let expected = step.expected_at(fleet.id(), generation, &[IdentityState::Building]);
    let forward = forward(fleet, engine, at, &expected, goal, restored.schema_version).await;
    let (schema_version, release) = match forward {
        Ok(reached) => reached,
        Err(error) => {
            engine.drop_database(at, Some(&expected)).await?;
            return Err(error);
        }
    };
    fleet.point("build: migrated").await;
    // Migrations change it.
    let (placement, size_bytes) = (at.reference().to_owned(), engine.size(at).await?);
    Ok(Built {
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

/// Stamps the new database with the generation that the catalog will have, and opens it as a request would.
pub(super) async fn activate(fleet: &Fleet, step: &Step, built: &Built, to: IdentityState) -> Result<()> {
    let server = built.server.unwrap_or(step.tenant.server_id);
    let (engine, at) = fleet.at(server, &built.placement).await?;
    fleet.point("build: activates").await;
    let building = step.expected_at(fleet.id(), built.generation, &[IdentityState::Building]);
    stamp::stamp(engine, &at, &building, &step.identity(fleet.id(), built.generation, to)).await?;
    fleet.point("build: stamped").await;
    probe(engine, &at, &step.expected_at(fleet.id(), built.generation, &[to])).await
}

/// Removes a new database that is not needed after all. Only as this step made it: one that has come to serve since, by
/// another worker's hand, says so itself.
pub(super) async fn discard(fleet: &Fleet, step: &Step, built: &Built) -> Result<()> {
    let server = built.server.unwrap_or(step.tenant.server_id);
    let (engine, at) = fleet.at(server, &built.placement).await?;
    let expected = step.expected_at(fleet.id(), built.generation, &[IdentityState::Building]);
    Ok(engine.drop_database(&at, Some(&expected)).await?)
}

/// Opens a database with the verb, the expectation and the session that the router will use, and reads from it.
pub(super) async fn probe(engine: &Arc<dyn Engine>, at: &Placement, expected: &Expected) -> Result<()> {
    let pool = engine.connect(at, expected).await?;
    let statement = Statement { sql: "select 1".to_owned(), params: Vec::new() };
    let read = pool.session(Access::Read, Limits::default()).run(vec![statement], After::Commit).await;
    pool.close().await;
    read?;
    Ok(())
}

/// Brings a database that is not served yet to a schema. Returns its version, and the release when it is at its head.
pub(super) async fn forward(
    fleet: &Fleet,
    engine: &Arc<dyn Engine>,
    at: &Placement,
    expected: &Expected,
    goal: Goal,
    found: Option<i64>,
) -> Result<(Option<i64>, Option<ReleaseId>)> {
    let (id, target) = match goal {
        Goal::Stay(likely) => return as_it_is(fleet, engine, at, expected, likely).await,
        Goal::Head(None) => return Ok((found, None)),
        Goal::Head(Some(id)) => (id, None),
        Goal::Version(id, version) => (id, Some(version)),
    };
    let sets = fleet.release(id).await?;
    let set = sets.of(at.engine())?;
    match engine.migrate(at, expected, set, target).await {
        Ok(migrated) => Ok((migrated.to_version, (migrated.to_version == set.head()).then_some(id))),
        Err(error) if error.kind() == ErrorKind::MigrationAhead && target.is_none() => Ok((found, None)),
        Err(error) => Err(error.into()),
    }
}

/// What a database is at that keeps its schema: its own ledger says it.
async fn as_it_is(
    fleet: &Fleet,
    engine: &Arc<dyn Engine>,
    at: &Placement,
    expected: &Expected,
    likely: Option<ReleaseId>,
) -> Result<(Option<i64>, Option<ReleaseId>)> {
    let found = engine.inspect(at, Some(expected), Depth::Ledger).await?;
    let current = catalog::fleet::current_release(&mut fleet.catalog.read().await?).await?;
    for id in [likely, current].into_iter().flatten() {
        let sets = fleet.release(id).await?;
        let lacks_nothing = |set| pending(set, &found.applied).is_ok_and(|todo| todo.is_empty());
        if sets.of(at.engine()).is_ok_and(lacks_nothing) {
            return Ok((found.schema_version(), Some(id)));
        }
    }
    Ok((found.schema_version(), None))
}
