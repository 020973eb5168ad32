//! Decides which manifest of a backup is trusted.
//!
//! The backup store is not trusted. Anyone who can write to it may relabel another tenant's backup, put an older
//! database under a newer manifest, or announce any size. So a manifest is compared with the catalog's row before
//! anything that it names is fetched. Then it must be proved in one of these ways:
//! - by the hash of the manifest that the catalog's row holds, or
//! - by its signature, which only a holder of the fleet's key can make, or
//! - for a backup that an older program took, by the hash of the content that the row holds. For that the content is
//!   fetched, within the sizes of the row, and no engine gets it before it is proved.

use std::fs::File;
use std::path::Path;

use catalog::backups::BackupRecord;
use catalog::seal::SecretSealer;
use catalog::{ErrorKind as CatalogError, FleetId, TenantId};
use tenant_engine::SnapshotImage;

use crate::backup::key::BackupObjectKind;
use crate::backup::{BackupManifest, BackupObjectKey, manifest};
use crate::error::{Error, ErrorKind, Result};
use crate::operation::StepContext;
use crate::tasks;

/// The proof of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BackupProof {
    /// This fleet wrote the manifest, and the manifest's hashes prove the database.
    Manifest,
    /// The content must have the hash that the catalog's row holds.
    Content,
}

/// The manifest of a backup that the catalog lists.
///
/// # Errors
/// `backup_damaged`, `backup_newer`, `wrong_tenant_backup`, `backup_not_authentic`, `backup_store_unavailable`.
pub(crate) async fn trusted_manifest(context: &StepContext, backup: &BackupRecord) -> Result<BackupManifest> {
    Ok(prove_manifest(context, backup).await?.0)
}

/// Fetches a backup of `source`: its manifest and its database, both proved.
///
/// # Errors
/// Those of [`trusted_manifest`].
pub(crate) async fn fetch_backup(
    context: &StepContext,
    backup: &BackupRecord,
    source: TenantId,
) -> Result<(BackupManifest, SnapshotImage)> {
    let (manifest, proof) = prove_manifest(context, backup).await?;
    if manifest.tenant != source {
        return Err(wrong_tenant(&format!("its manifest names {} as its owner", manifest.tenant)));
    }
    let mut image = context.store.read_image(&manifest).await?;
    if proof == BackupProof::Content {
        image = require_content(image, backup).await?;
    }
    Ok((manifest, image))
}

async fn prove_manifest(context: &StepContext, backup: &BackupRecord) -> Result<(BackupManifest, BackupProof)> {
    let key: BackupObjectKey = backup.object_key.parse()?;
    let (manifest, sha256) = match context.store.read_manifest(&key).await {
        Ok(found) => found,
        Err(error) => return Err(explain_missing(context, backup, &key, error).await),
    };
    require_same(&manifest, backup, context.fleet_id())?;
    let proof = manifest_proof(&manifest, &sha256, backup, context.catalog.sealer())?;
    Ok((manifest, proof))
}

/// The name of this process's store as backups record it. A folder inside the data directory is recorded relative to
/// it, so that the directory can move.
pub(crate) fn store_name(context: &StepContext) -> String {
    let name = context.store.display_name();
    let inside = || {
        let home = context.scratch.parent().filter(|_| context.config.catalog_url.is_none())?;
        Some(Path::new(name.strip_prefix("file://")?).strip_prefix(home).ok()?.to_str()?.to_owned())
    };
    inside().map_or_else(|| name.to_owned(), |folder| format!("file:{folder}"))
}

/// Explains a backup that is missing here: the catalog may name another store that holds it. A backup that is found
/// here counts as a copy and needs no explanation.
async fn explain_missing(context: &StepContext, backup: &BackupRecord, key: &BackupObjectKey, error: Error) -> Error {
    let here = store_name(context);
    let home = context.scratch.parent();
    let is_other = |store: &&str| resolve_store(store, home) != resolve_store(&here, home);
    let Some(store) = backup.store.as_deref().filter(is_other) else { return error };
    match context.store.contains_object(key).await {
        Ok(true) => error,
        _ => stored_elsewhere(backup, store, &here).with_source(error),
    }
}

/// PURE: the name of a store with the whole path, if it is a folder of the data directory. A catalog that was moved to
/// PostgreSQL still names the folder relatively.
fn resolve_store(store: &str, home: Option<&Path>) -> String {
    let folder = store.strip_prefix("file:").filter(|_| is_inside(store));
    let whole = folder.zip(home).map(|(folder, home)| format!("file://{}", home.join(folder).display()));
    whole.unwrap_or_else(|| store.to_owned())
}

/// The error of a backup in another store. The remedy is in the detail, because the detail is what a failed step shows.
fn stored_elsewhere(backup: &BackupRecord, store: &str, here: &str) -> Error {
    let (lies, looks, how) = (describe_store(store), describe_store(here), how_to_use(store));
    let detail = format!("the backup {} is in the store {lies}, but this process uses {looks}: {how}", backup.id);
    Error::new(ErrorKind::BackupElsewhere, detail).try_next(how)
}

/// PURE: the setting that makes a process use the store.
fn how_to_use(store: &str) -> String {
    if is_inside(store) {
        return "unset FLEET_BACKUP_URL (and backup_url in fleet.toml)".to_owned();
    }
    match store.split_once(" at ") {
        None => format!("set FLEET_BACKUP_URL={store} (or backup_url in fleet.toml)"),
        Some((url, endpoint)) => format!(
            "set FLEET_BACKUP_URL={url} (or backup_url in fleet.toml), and endpoint = \"{endpoint}\" under [backup_options]"
        ),
    }
}

/// Whether a recorded store is a folder inside the data directory.
fn is_inside(store: &str) -> bool {
    store.strip_prefix("file:").is_some_and(|folder| !folder.starts_with('/'))
}

/// The name of a store, for people.
fn describe_store(store: &str) -> String {
    match store.strip_prefix("file:") {
        Some(folder) if is_inside(store) => format!("{folder}/ of the data directory"),
        _ => store.to_owned(),
    }
}

/// PURE: requires that the manifest agrees with the catalog's row.
fn require_same(manifest: &BackupManifest, backup: &BackupRecord, fleet: FleetId) -> Result<()> {
    if manifest.tenant != backup.tenant_id {
        return Err(wrong_tenant(&format!("its manifest names {} as its owner", manifest.tenant)));
    }
    if manifest.fleet != fleet {
        return Err(wrong_tenant("its manifest names another fleet as its owner"));
    }
    let length = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let same = [
        ("id", manifest.backup == backup.id),
        ("place", manifest.manifest_key().with_part(BackupObjectKind::Manifest).to_string() == backup.object_key),
        ("operation", backup.op_id.is_none_or(|op| op == manifest.op)),
        ("engine", manifest.engine == backup.engine),
        ("schema version", manifest.schema_version == backup.schema_version),
        ("time", manifest.taken_at_ms == backup.taken_at),
        ("reason", manifest.reason == backup.reason),
        ("size", length(manifest.image.size_bytes) == backup.size_bytes),
        ("stored size", length(manifest.object.size_bytes) == backup.stored_bytes),
        ("content", manifest.content_hash == backup.content_hash),
    ];
    match same.iter().find(|(_, same)| !same) {
        None => Ok(()),
        Some((what, _)) => Err(manifest::backup_damaged(&format!("its manifest and the catalog differ in the {what}"))),
    }
}

/// PURE: decides what proves the manifest.
fn manifest_proof(
    manifest: &BackupManifest,
    sha256: &str,
    backup: &BackupRecord,
    sealer: &SecretSealer,
) -> Result<BackupProof> {
    if let Some(known) = &backup.manifest_sha256 {
        // The hash also proves manifests from before a change of the fleet's key, and formats without a signature.
        return if known == sha256 { Ok(BackupProof::Manifest) } else { Err(not_authentic("it was changed later")) };
    }
    match manifest.verify_signature(sealer) {
        Ok(true) => Ok(BackupProof::Manifest),
        Ok(false) => Ok(BackupProof::Content),
        Err(error) if error.kind() == CatalogError::WrongKey => {
            Err(not_authentic("it was signed with another key than the fleet's").with_source(error))
        }
        Err(error) => Err(not_authentic("its signature does not match the fleet's key").with_source(error)),
    }
}

/// Checks the content of a backup that an older program took: its hash must be the one that the catalog holds.
async fn require_content(image: SnapshotImage, backup: &BackupRecord) -> Result<SnapshotImage> {
    let (engine, expected) = (backup.engine, backup.content_hash.clone());
    let unreadable =
        |error| Error::new(ErrorKind::TemporaryFileUnusable, "a fetched backup could not be read").with_source(error);
    let hashed = tasks::run_blocking(move || {
        let found = match &image {
            SnapshotImage::Memory(bytes) => tenant_engine::snapshot::content_hash(engine, &bytes[..]),
            SnapshotImage::File(path) => {
                File::open(path).and_then(|file| tenant_engine::snapshot::content_hash(engine, file))
            }
        };
        found.map(|found| (found, image))
    });
    let (found, image) = hashed.await.map_err(unreadable)?;
    if found == expected {
        Ok(image)
    } else {
        Err(manifest::backup_damaged("its content is not the one that the catalog knows"))
    }
}

/// The error of a backup that holds another tenant's data, or says so.
pub(crate) fn wrong_tenant(why: &str) -> Error {
    Error::new(ErrorKind::WrongTenantBackup, format!("the backup is not this tenant's: {why}"))
        .try_next("fleetctl backup list <tenant>")
}

fn not_authentic(why: &str) -> Error {
    let detail = format!("it is not proved that this fleet wrote the backup's manifest: {why}");
    Error::new(ErrorKind::BackupNotAuthentic, detail)
        .try_next("fleetctl backup list <tenant>, and use another one; find out who can write to the backup store")
}

#[cfg(test)]
mod tests {
    use catalog::seal::FleetKey;
    use catalog::{BackupId, OperationId};
    use tenant_engine::EngineKind;

    use super::*;
    use crate::backup::manifest::tests::sample;

    fn row(manifest: &BackupManifest) -> BackupRecord {
        BackupRecord {
            id: manifest.backup,
            tenant_id: manifest.tenant,
            op_id: Some(manifest.op),
            object_key: manifest.manifest_key().to_string(),
            engine: manifest.engine,
            content_hash: manifest.content_hash.clone(),
            size_bytes: 1,
            stored_bytes: 1,
            schema_version: manifest.schema_version,
            reason: manifest.reason.clone(),
            taken_at: manifest.taken_at_ms,
            manifest_sha256: None,
            verified_at: None,
            verify_error: None,
            store: None,
        }
    }

    #[test]
    fn another_store_is_named_with_what_to_set() {
        let set = "set FLEET_BACKUP_URL=";
        assert_eq!(how_to_use("file:backups"), "unset FLEET_BACKUP_URL (and backup_url in fleet.toml)");
        assert!(how_to_use("file:///mnt/b").starts_with(&format!("{set}file:///mnt/b (")));
        let bucket = how_to_use("s3://fleet/eu at http://[::1]:9000");
        assert!(bucket.starts_with(&format!("{set}s3://fleet/eu (")), "{bucket}");
        assert!(bucket.contains("endpoint = \"http://[::1]:9000\""), "{bucket}");
        assert_eq!(describe_store("file:backups"), "backups/ of the data directory");
    }

    #[test]
    fn a_folder_of_the_data_directory_is_the_same_by_its_whole_path() {
        let home = Some(Path::new("/srv/fleet"));
        let whole = resolve_store("file:///srv/fleet/backups", home);
        assert_eq!(resolve_store("file:backups", home), whole);
        assert_ne!(resolve_store("file:other", home), whole);
        assert_ne!(resolve_store("file:///mnt/backups", home), whole);
        assert_eq!(resolve_store("s3://fleet/eu", home), "s3://fleet/eu");
    }

    #[test]
    fn a_manifest_that_differs_from_the_row_in_anything_is_refused() {
        let manifest = sample();
        let row = row(&manifest);
        let fleet = manifest.fleet;
        require_same(&manifest, &row, fleet).unwrap();
        type Change = (&'static str, fn(&mut BackupManifest));
        let changes: [Change; 11] = [
            ("wrong_tenant_backup", |m| m.tenant = TenantId::generate()),
            ("wrong_tenant_backup", |m| m.fleet = FleetId::generate()),
            ("backup_damaged", |m| m.backup = BackupId::generate()),
            ("backup_damaged", |m| m.op = OperationId::generate()),
            ("backup_damaged", |m| m.engine = EngineKind::Postgres),
            ("backup_damaged", |m| m.schema_version = None),
            ("backup_damaged", |m| m.taken_at_ms += 1),
            ("backup_damaged", |m| m.reason.push('x')),
            ("backup_damaged", |m| m.image.size_bytes = 3 << 30),
            ("backup_damaged", |m| m.object.size_bytes = 3 << 30),
            ("backup_damaged", |m| m.content_hash = "11".to_owned()),
        ];
        for (code, change) in changes {
            let mut other = manifest.clone();
            change(&mut other);
            assert_eq!(require_same(&other, &row, fleet).unwrap_err().code(), code, "{other:?}");
        }
    }

    #[test]
    fn a_manifest_is_proved_by_the_row_or_by_the_key_and_else_by_its_content() {
        let (sealer, other) = (SecretSealer::new(&FleetKey::generate()), SecretSealer::new(&FleetKey::generate()));
        let plain = sample();
        let signed = plain.clone().into_signed(&sealer);
        let known = BackupRecord { manifest_sha256: Some("aa".to_owned()), ..row(&plain) };
        let unknown = row(&plain);
        assert_eq!(manifest_proof(&signed, "aa", &known, &sealer).unwrap(), BackupProof::Manifest);
        assert_eq!(
            manifest_proof(&signed, "aa", &known, &other).unwrap(),
            BackupProof::Manifest,
            "after a change of the key"
        );
        assert_eq!(manifest_proof(&signed, "bb", &known, &sealer).unwrap_err().code(), "backup_not_authentic");
        assert_eq!(manifest_proof(&signed, "bb", &unknown, &sealer).unwrap(), BackupProof::Manifest);
        assert_eq!(manifest_proof(&signed, "bb", &unknown, &other).unwrap_err().code(), "backup_not_authentic");
        let mut forged = signed.clone();
        forged.generation = forged.generation.next();
        assert_eq!(manifest_proof(&forged, "bb", &unknown, &sealer).unwrap_err().code(), "backup_not_authentic");
        let older = BackupManifest { format: 1, ..plain };
        assert_eq!(manifest_proof(&older, "bb", &unknown, &sealer).unwrap(), BackupProof::Content);
        assert_eq!(
            manifest_proof(&older, "bb", &known, &sealer).unwrap_err().code(),
            "backup_not_authentic",
            "a downgrade"
        );
    }
}
