//! Shared by backup, restore, verify and delete: stores a database, fetches it again, and proves that the copy is
//! complete.

use std::collections::BTreeMap;
use std::sync::Arc;

use catalog::BackupId;
use catalog::backups::BackupRecord;
use tenant_engine::{
    ClassSum, DatabaseServer, Engine, EngineKind, ErrorKind as DatabaseError, ExpectedIdentity, Generation, Identity,
    IdentityState, Placement, RestoreOutcome, RowSums, SnapshotImage, class_difference,
};
use tokio::sync::OwnedSemaphorePermit;

use super::backup_trust;
use crate::backup::key::BackupObjectKind;
use crate::backup::{BackupManifest, BackupObjectKey, manifest};
use crate::error::{Error, ErrorKind, Result};
use crate::operation::{ClaimedStep, StepContext};

/// A generation that no tenant's database ever has: tenants begin at 1.
const NOBODYS: Generation = Generation(0);
/// The bits of an operation's id that fit into the number in a database's name.
const NUMBER_MASK: u64 = 0x00ff_ffff;
/// Claims of one step that such a name can tell apart. A step is given up long before.
const CLAIMS_MAX: i64 = 100;

/// Takes a snapshot of the tenant's current database and stores it, manifest last. A crash before the manifest leaves
/// an object that nothing refers to. A crash after it leaves a backup that the catalog does not list yet.
pub(crate) async fn store_backup(
    context: &StepContext,
    step: &ClaimedStep,
    expected: &ExpectedIdentity,
    reason: &str,
) -> Result<BackupRecord> {
    let (engine, at) = context.current_database(&step.tenant).await?;
    let _one_of_few = context.images.acquire().await.map_err(|error| Error::internal("closing").with_source(error))?;
    let (backup, taken_at) = (BackupId::generate(), context.catalog.now());
    let snapshot = engine.take_snapshot(&at, expected).await?;
    let key = BackupObjectKey::of_backup(step.tenant.id, taken_at, backup);
    let stored = context.store.put_image(&key, &snapshot.image).await?;
    context.fault_point("backup: stored").await;
    let info = snapshot.info;
    let manifest = BackupManifest {
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
    let manifest = manifest.into_signed(context.catalog.sealer());
    let sha256 = context.store.put_manifest(&key, &manifest).await?;
    context.fault_point("backup: listed").await;
    let store = Some(backup_trust::store_name(context));
    Ok(BackupRecord { store, ..backup_record(step, &manifest, sha256) })
}

fn backup_record(step: &ClaimedStep, manifest: &BackupManifest, sha256: String) -> BackupRecord {
    let length = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    BackupRecord {
        id: manifest.backup,
        tenant_id: step.tenant.id,
        op_id: Some(step.op.id),
        object_key: manifest.manifest_key().with_part(BackupObjectKind::Manifest).to_string(),
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
        store: None,
    }
}

/// Fills a new placement from a backup. The engine checks pages, foreign keys and the identity inside. This function
/// accepts violations that the source already had, and compares the rows with those of the source.
pub(crate) async fn fill_placement(
    engine: &Arc<dyn Engine>,
    at: &Placement,
    (manifest, image): (&BackupManifest, SnapshotImage),
    identity: &Identity,
) -> Result<RestoreOutcome> {
    if manifest.engine != engine.kind() {
        let detail = format!("the backup is from {}, but the tenant's server runs {}", manifest.engine, engine.kind());
        return Err(
            Error::new(ErrorKind::WrongEngineBackup, detail).try_next("restore it on a server of its own engine")
        );
    }
    let restored = engine.restore_database(at, image, manifest.tenant, identity).await.map_err(explain_image_error)?;
    if restored.foreign_key_violations > manifest.foreign_key_violations {
        engine.drop_database(at, None).await?;
        return Err(manifest::backup_damaged(&format!(
            "{} rows violate a foreign key, but only {} did when the backup was taken",
            restored.foreign_key_violations, manifest.foreign_key_violations
        )));
    }
    with_same_rows((engine, at), identity, manifest.rows.as_ref(), restored).await
}

/// Accepts a copy whose rows are those that its snapshot records, and drops any other. A snapshot that holds the
/// database's pages records no rows.
pub(crate) async fn with_same_rows(
    (engine, at): (&Arc<dyn Engine>, &Placement),
    identity: &Identity,
    rows: Option<&RowSums>,
    mut restored: RestoreOutcome,
) -> Result<RestoreOutcome> {
    let Some(rows) = rows else { return Ok(restored) };
    let Identity { tenant, fleet, generation, state, .. } = *identity;
    let expected = ExpectedIdentity { tenant, fleet, generation, states: vec![state] };
    match compare_rows(engine, at, &expected, rows).await {
        Ok(generated) => restored.left_out.extend(generated),
        Err(error) => {
            engine.drop_database(at, Some(&expected)).await?;
            return Err(error);
        }
    }
    Ok(restored)
}

/// Refuses a copy with other rows. Each server computes generated columns itself, so other values in them are only
/// reported.
async fn compare_rows(
    engine: &Arc<dyn Engine>,
    at: &Placement,
    expected: &ExpectedIdentity,
    rows: &RowSums,
) -> Result<Option<String>> {
    let copy = engine.compute_fingerprint(at, expected).await?.row_sums();
    require_same(rows.first_difference(&copy))?;
    let told = |difference| format!("values of generated columns, which the server computes again: {difference}");
    Ok(rows.generated_difference(&copy).map(told))
}

/// The error of a copy with this difference. Without a difference there is no error.
fn require_same(difference: Option<String>) -> Result<()> {
    let Some(difference) = difference else { return Ok(()) };
    let detail = format!("the restored database differs from the backup: {difference}");
    Err(Error::new(ErrorKind::CopyDiffers, detail).try_next("fleetctl explain copy_differs"))
}

/// Proves a backup by restoring it into scratch space, which is removed afterwards. Returns what the backup or its
/// restore leaves out, for people.
pub(crate) async fn prove_backup(
    context: &StepContext,
    step: &ClaimedStep,
    backup: &BackupRecord,
) -> Result<Vec<String>> {
    let one_of_few = Arc::clone(&context.images).acquire_owned().await;
    let one_of_few = one_of_few.map_err(|error| Error::internal("closing").with_source(error))?;
    let (manifest, image) = backup_trust::fetch_backup(context, backup, backup.tenant_id).await?;
    let restored = match backup.engine {
        EngineKind::Sqlite => prove_in_folder(context, (&manifest, image)).await?,
        EngineKind::Postgres => prove_on_server(context, step, (&manifest, image), one_of_few).await?,
    };
    require_same(object_difference(&manifest.classes, &restored))?;
    Ok(with_left_out((manifest.left_out, &BTreeMap::new()), restored).left_out)
}

/// Lists what a restored copy lacks: what its snapshot left out, what the restore left out, and then objects that
/// differ. A database that is needed is not refused for these. Its rows were compared before.
pub(crate) fn with_left_out(
    (of_picture, classes): (Vec<String>, &BTreeMap<String, ClassSum>),
    restored: RestoreOutcome,
) -> RestoreOutcome {
    let differs = object_difference(classes, &restored);
    let left_out = of_picture.into_iter().chain(restored.left_out).chain(differs).collect();
    RestoreOutcome { left_out, ..restored }
}

/// Classes of objects that a restore may leave out and report.
pub(crate) const TOLD: [&str; 4] = ["publication", "event trigger", "comment", "foreign server"];

/// The first class in which the copy has other objects than the source. If `expected` is empty, nothing can be
/// compared.
fn object_difference(expected: &BTreeMap<String, ClassSum>, restored: &RestoreOutcome) -> Option<String> {
    if expected.is_empty() {
        return None;
    }
    let counted = |classes: &BTreeMap<String, ClassSum>| {
        let told = |class: &str| !restored.left_out.is_empty() && TOLD.contains(&class);
        classes.iter().filter(|(class, _)| !told(class)).map(|(class, sum)| (class.clone(), sum.clone())).collect()
    };
    class_difference(&counted(expected), &counted(&restored.classes))
}

/// Whether a new backup must be proved at once, because it is the tenant's first at its version. Only a restore shows
/// whether a server can restore the schema. A page image contains its schema and needs no such proof.
pub(crate) async fn is_unproved(context: &StepContext, backup: &BackupRecord) -> Result<bool> {
    if backup.engine == EngineKind::Sqlite {
        return Ok(false);
    }
    let mut tx = context.catalog.read().await?;
    Ok(!catalog::backups::is_proved(&mut tx, backup.tenant_id, backup.schema_version).await?)
}

async fn prove_in_folder(context: &StepContext, picture: (&BackupManifest, SnapshotImage)) -> Result<RestoreOutcome> {
    let folder = tempfile::Builder::new().prefix("verify-").tempdir_in(&context.scratch);
    let folder = folder.map_err(Error::scratch_unwritable)?;
    let at = DatabaseServer::new_sqlite(folder.path()).fresh_placement(picture.0.tenant, Generation::FIRST, 1);
    let identity = scratch_identity(context, picture.0);
    fill_placement(context.engine_of_kind(EngineKind::Sqlite)?, &at, picture, &identity).await
}

/// Proves a backup on the tenant's own server, beside its databases, under a generation that no tenant has. The scratch
/// database is dropped even if the worker loses its step meanwhile: nobody else would drop it.
async fn prove_on_server(
    context: &StepContext,
    step: &ClaimedStep,
    (manifest, image): (&BackupManifest, SnapshotImage),
    one_of_few: OwnedSemaphorePermit,
) -> Result<RestoreOutcome> {
    drop_scratch(context, step).await?;
    let server = context.load_server(step.tenant.server_id).await?;
    let (engine, at) =
        (Arc::clone(context.engine_of_kind(EngineKind::Postgres)?), scratch_placement(&server, step, step.claim));
    let identity = Identity { generation: NOBODYS, ..scratch_identity(context, manifest) };
    let manifest = manifest.clone();
    let proof = async move {
        let restored = fill_placement(&engine, &at, (&manifest, image), &identity).await;
        let dropped = engine.drop_database(&at, None).await;
        drop(one_of_few);
        let restored = restored?;
        dropped?;
        Ok(restored)
    };
    context.proofs.run_to_end(proof).await
}

/// The placement of one claim's scratch database. Each claim has its own, so that a late worker of an earlier claim
/// does not drop it.
fn scratch_placement(server: &DatabaseServer, step: &ClaimedStep, claim: i64) -> Placement {
    let of_operation = i64::try_from(step.op.id.uuid().as_u64_pair().1 & NUMBER_MASK).unwrap_or_default();
    server.fresh_placement(step.tenant.id, NOBODYS, of_operation * CLAIMS_MAX + claim % CLAIMS_MAX)
}

/// Drops the scratch databases that claims of this step left on the tenant's server. Other servers have none.
pub(crate) async fn drop_scratch(context: &StepContext, step: &ClaimedStep) -> Result<()> {
    let server = context.load_server(step.tenant.server_id).await?;
    if server.engine_kind() != EngineKind::Postgres {
        return Ok(());
    }
    let engine = context.engine_of_kind(EngineKind::Postgres)?;
    for claim in 1..=step.claim.min(CLAIMS_MAX - 1) {
        engine.drop_database(&scratch_placement(&server, step, claim), None).await?;
    }
    Ok(())
}

fn scratch_identity(context: &StepContext, manifest: &BackupManifest) -> Identity {
    Identity {
        tenant: manifest.tenant,
        fleet: context.fleet_id(),
        generation: Generation::FIRST,
        state: IdentityState::Building,
        op: None,
        stamped_at: context.catalog.now(),
    }
}

/// Translates an engine's error about an image for the user who restores a backup.
fn explain_image_error(error: tenant_engine::Error) -> Error {
    match error.kind() {
        DatabaseError::WrongTenant => {
            backup_trust::wrong_tenant("the database inside is another tenant's").with_source(error)
        }
        DatabaseError::Corrupt => manifest::backup_damaged(&error.to_string()).with_source(error),
        _ => error.into(),
    }
}
