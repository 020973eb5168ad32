//! What backup, restore, verify and delete share: a database into the store, out of it, and the proof that it is whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use catalog::BackupId;
use catalog::backups::BackupRecord;
use tenant_engine::{
    ClassSum, Engine, EngineKind, ErrorKind, Expected, Generation, Identity, IdentityState, Image, Placement, Restored,
    RowSums, Server, class_difference,
};
use tokio::sync::OwnedSemaphorePermit;

use super::{Fleet, Step, trust};
use crate::backup::key::Part;
use crate::backup::{Key, Manifest, manifest};
use crate::error::{Error, Result};

/// Tenants begin at 1: a database of this generation is never anybody's.
const NOBODYS: Generation = Generation(0);
/// What of an operation's id fits the number in a database's name.
const NUMBER_MASK: u64 = 0x00ff_ffff;
/// Claims of one step that are told apart in such a name; a step is given up long before.
const CLAIMS_MAX: i64 = 100;

/// Takes a picture of the tenant's current database and stores it, manifest last. A crash before the manifest leaves an
/// object that nobody refers to; after it, a backup that the catalog does not list yet.
pub(super) async fn take(fleet: &Fleet, step: &Step, expected: &Expected, reason: &str) -> Result<BackupRecord> {
    let (engine, at) = fleet.current(&step.tenant).await?;
    let _one_of_few = fleet.images.acquire().await.map_err(|error| Error::internal("closing").with_source(error))?;
    let (backup, taken_at) = (BackupId::generate(), fleet.catalog.now());
    let snapshot = engine.snapshot(&at, expected).await?;
    let key = Key::of_backup(step.tenant.id, taken_at, backup);
    let stored = fleet.store.put_image(&key, &snapshot.image).await?;
    fleet.point("backup: stored").await;
    let info = snapshot.info;
    let manifest = Manifest {
        format: manifest::FORMAT,
        backup,
        tenant: info.identity.tenant,
        fleet: info.identity.fleet,
        op: step.op.id,
        reason: reason.to_owned(),
        taken_at_ms: taken_at,
        engine: engine.kind(),
        engine_version: info.engine_version,
        schema_version: info.schema_version,
        generation: info.identity.generation,
        foreign_key_violations: info.foreign_key_violations,
        classes: info.classes,
        rows: info.rows,
        left_out: info.left_out,
        content_hash: info.content_hash,
        image: stored.image,
        object: stored.object,
        authentication: None,
    };
    let manifest = manifest.signed(fleet.catalog.sealer());
    let sha256 = fleet.store.put_manifest(&key, &manifest).await?;
    fleet.point("backup: listed").await;
    Ok(record(step, &manifest, sha256))
}

fn record(step: &Step, manifest: &Manifest, sha256: String) -> BackupRecord {
    let length = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    BackupRecord {
        id: manifest.backup,
        tenant_id: step.tenant.id,
        op_id: Some(step.op.id),
        object_key: manifest.key().part(Part::Manifest).to_string(),
        engine: manifest.engine,
        content_hash: manifest.content_hash.clone(),
        size_bytes: length(manifest.image.size_bytes),
        stored_bytes: length(manifest.object.size_bytes),
        schema_version: manifest.schema_version,
        reason: manifest.reason.clone(),
        taken_at: manifest.taken_at_ms,
        manifest_sha256: Some(sha256),
        verified_at: None,
        verify_error: None,
    }
}

/// Fills a new placement from a backup. The engine checks pages, foreign keys and the identity inside. This accepts the
/// violations that the source had already, and compares the rows with those of the source.
pub(super) async fn fill(
    engine: &Arc<dyn Engine>,
    at: &Placement,
    (manifest, image): (&Manifest, Image),
    identity: &Identity,
) -> Result<Restored> {
    if manifest.engine != engine.kind() {
        let detail = format!("the backup is of {}, the tenant's server runs {}", manifest.engine, engine.kind());
        return Err(Error::new(409, "wrong_engine_backup", detail).try_next("restore it on a server of its own engine"));
    }
    let restored = engine.restore(at, image, manifest.tenant, identity).await.map_err(told)?;
    if restored.foreign_key_violations > manifest.foreign_key_violations {
        engine.drop_database(at, None).await?;
        return Err(manifest::damaged(&format!(
            "{} rows violate a foreign key, when it was taken {} did",
            restored.foreign_key_violations, manifest.foreign_key_violations
        )));
    }
    with_same_rows((engine, at), identity, manifest.rows.as_ref(), restored).await
}

/// A copy whose rows are those that its picture tells; any other is dropped. A picture that holds the pages themselves
/// tells none.
pub(super) async fn with_same_rows(
    (engine, at): (&Arc<dyn Engine>, &Placement),
    identity: &Identity,
    rows: Option<&RowSums>,
    mut restored: Restored,
) -> Result<Restored> {
    let Some(rows) = rows else { return Ok(restored) };
    let Identity { tenant, fleet, generation, state, .. } = *identity;
    let expected = Expected { tenant, fleet, generation, states: vec![state] };
    match compared(engine, at, &expected, rows).await {
        Ok(generated) => restored.left_out.extend(generated),
        Err(error) => {
            engine.drop_database(at, Some(&expected)).await?;
            return Err(error);
        }
    }
    Ok(restored)
}

/// Refuses other rows. Generated columns are computed by each server itself: other values are told.
async fn compared(
    engine: &Arc<dyn Engine>,
    at: &Placement,
    expected: &Expected,
    rows: &RowSums,
) -> Result<Option<String>> {
    let copy = engine.fingerprint(at, expected).await?.row_sums();
    differs(rows.difference(&copy))?;
    let told = |difference| format!("values of generated columns, which are computed anew: {difference}");
    Ok(rows.generated_difference(&copy).map(told))
}

/// The error of a copy with this difference.
fn differs(difference: Option<String>) -> Result<()> {
    let Some(difference) = difference else { return Ok(()) };
    let detail = format!("what is restored is not what was backed up: {difference}");
    Err(Error::new(500, "copy_differs", detail).try_next("fleetctl explain copy_differs"))
}

/// Proves a backup by restoring it into scratch space, which is gone afterwards. Returns what the backup or its restore
/// leaves out; for people.
pub(super) async fn prove(fleet: &Fleet, step: &Step, backup: &BackupRecord) -> Result<Vec<String>> {
    let one_of_few = Arc::clone(&fleet.images).acquire_owned().await;
    let one_of_few = one_of_few.map_err(|error| Error::internal("closing").with_source(error))?;
    let (manifest, image) = trust::fetch(fleet, backup, backup.tenant_id).await?;
    let restored = match backup.engine {
        EngineKind::Sqlite => prove_in_folder(fleet, (&manifest, image)).await?,
        EngineKind::Postgres => prove_on_server(fleet, step, (&manifest, image), one_of_few).await?,
    };
    differs(object_difference(&manifest.classes, &restored))?;
    Ok(with_left_out((manifest.left_out, &BTreeMap::new()), restored).left_out)
}

/// A copy that says what it lacks: first what its picture lacks, then what the restore left out, then objects that
/// differ. A database that is needed is not refused for these; its rows are compared before.
pub(super) fn with_left_out(
    (of_picture, classes): (Vec<String>, &BTreeMap<String, ClassSum>),
    restored: Restored,
) -> Restored {
    let differs = object_difference(classes, &restored);
    let left_out = of_picture.into_iter().chain(restored.left_out).chain(differs).collect();
    Restored { left_out, ..restored }
}

/// Classes of which a restore may leave objects out, and says which.
pub(super) const TOLD: [&str; 4] = ["publication", "event trigger", "comment", "foreign server"];

/// The first class of which the copy has not the same objects. Nothing is known where `expected` is empty.
fn object_difference(expected: &BTreeMap<String, ClassSum>, restored: &Restored) -> Option<String> {
    if expected.is_empty() {
        return None;
    }
    let counted = |classes: &BTreeMap<String, ClassSum>| {
        let told = |class: &str| !restored.left_out.is_empty() && TOLD.contains(&class);
        classes.iter().filter(|(class, _)| !told(class)).map(|(class, sum)| (class.clone(), sum.clone())).collect()
    };
    class_difference(&counted(expected), &counted(&restored.classes))
}

/// Whether a new backup is to be proved at once: it is the first one of this tenant at its version, and whether a server
/// can restore a schema shows only when it does. A page image holds its schema, and needs no such proof.
pub(super) async fn is_unproved(fleet: &Fleet, backup: &BackupRecord) -> Result<bool> {
    if backup.engine == EngineKind::Sqlite {
        return Ok(false);
    }
    let mut tx = fleet.catalog.read().await?;
    Ok(!catalog::backups::is_proved(&mut tx, backup.tenant_id, backup.schema_version).await?)
}

async fn prove_in_folder(fleet: &Fleet, picture: (&Manifest, Image)) -> Result<Restored> {
    let folder = tempfile::Builder::new().prefix("verify-").tempdir_in(&fleet.scratch);
    let folder = folder.map_err(|error| {
        Error::new(500, "io", "the scratch directory cannot be written").with_source(error).transient()
    })?;
    let at = Server::sqlite(folder.path()).fresh(picture.0.tenant, Generation::FIRST, 1);
    let identity = scratch_identity(fleet, picture.0);
    fill(fleet.engine(EngineKind::Sqlite)?, &at, picture, &identity).await
}

/// On the tenant's own server, beside its databases, under a generation that no tenant ever has. A worker that loses its
/// step meanwhile leaves no scratch database behind: nobody else would drop it.
async fn prove_on_server(
    fleet: &Fleet,
    step: &Step,
    (manifest, image): (&Manifest, Image),
    one_of_few: OwnedSemaphorePermit,
) -> Result<Restored> {
    drop_scratch(fleet, step).await?;
    let server = fleet.server(step.tenant.server_id).await?;
    let (engine, at) = (Arc::clone(fleet.engine(EngineKind::Postgres)?), scratch(&server, step, step.claim));
    let identity = Identity { generation: NOBODYS, ..scratch_identity(fleet, manifest) };
    let manifest = manifest.clone();
    let proof = async move {
        let restored = fill(&engine, &at, (&manifest, image), &identity).await;
        let dropped = engine.drop_database(&at, None).await;
        drop(one_of_few);
        let restored = restored?;
        dropped?;
        Ok(restored)
    };
    fleet.proofs.run(proof).await
}

/// The scratch database of one claim alone: a late worker of an earlier one must not drop it.
fn scratch(server: &Server, step: &Step, claim: i64) -> Placement {
    let of_operation = i64::try_from(step.op.id.uuid().as_u64_pair().1 & NUMBER_MASK).unwrap_or_default();
    server.fresh(step.tenant.id, NOBODYS, of_operation * CLAIMS_MAX + claim % CLAIMS_MAX)
}

/// Drops the scratch databases that claims of this step left on a server; there is nothing elsewhere.
pub(super) async fn drop_scratch(fleet: &Fleet, step: &Step) -> Result<()> {
    let server = fleet.server(step.tenant.server_id).await?;
    if server.engine() != EngineKind::Postgres {
        return Ok(());
    }
    let engine = fleet.engine(EngineKind::Postgres)?;
    for claim in 1..=step.claim.min(CLAIMS_MAX - 1) {
        engine.drop_database(&scratch(&server, step, claim), None).await?;
    }
    Ok(())
}

fn scratch_identity(fleet: &Fleet, manifest: &Manifest) -> Identity {
    Identity {
        tenant: manifest.tenant,
        fleet: fleet.id(),
        generation: Generation::FIRST,
        state: IdentityState::Building,
        op: None,
        stamped_at: fleet.catalog.now(),
    }
}

/// What an engine says about an image, in the words of whoever restores a backup.
fn told(error: tenant_engine::Error) -> Error {
    match error.kind() {
        ErrorKind::WrongTenant => trust::wrong_tenant("the database inside is another tenant's").with_source(error),
        ErrorKind::Corrupt => manifest::damaged(&error.to_string()).with_source(error),
        _ => error.into(),
    }
}
