//! Which manifest of a backup is believed.
//!
//! The backup store is not trusted: anyone who can write to it may relabel another tenant's backup, put an older database
//! under a newer manifest, or announce any size. So a manifest is held against the catalog's row before anything it
//! names is fetched, and then it must be proved:
//! - by the hash of the manifest that the catalog's row holds, or
//! - by the signature in it, which only a holder of the fleet's key can make, or
//! - for a backup that an older program took, by the hash of the content that the row holds. The content is fetched for
//!   that, within the sizes of the row, and is handed to no engine before.

use std::fs::File;

use catalog::backups::BackupRecord;
use catalog::seal::Sealer;
use catalog::{ErrorKind, FleetId, TenantId};
use tenant_engine::Image;

use super::Fleet;
use crate::backup::key::Part;
use crate::backup::{Key, Manifest, manifest};
use crate::error::{Error, Result};
use crate::tasks;

/// What proves a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// The manifest is the one that this fleet wrote, and its hashes prove the database.
    Manifest,
    /// The content must have the hash that the catalog's row holds.
    Content,
}

/// The manifest of a backup that the catalog lists.
///
/// # Errors
/// `backup_damaged`, `backup_newer`, `wrong_tenant_backup`, `backup_not_authentic`, `backup_store_unavailable`.
pub(crate) async fn manifest(fleet: &Fleet, backup: &BackupRecord) -> Result<Manifest> {
    Ok(believed(fleet, backup).await?.0)
}

/// A backup of `source`: its manifest and its database, both proved.
///
/// # Errors
/// Those of [`manifest`].
pub(super) async fn fetch(fleet: &Fleet, backup: &BackupRecord, source: TenantId) -> Result<(Manifest, Image)> {
    let (manifest, proof) = believed(fleet, backup).await?;
    if manifest.tenant != source {
        return Err(wrong_tenant(&format!("its manifest says that it is {}'s", manifest.tenant)));
    }
    let mut image = fleet.store.image(&manifest).await?;
    if proof == Proof::Content {
        image = require_content(image, backup).await?;
    }
    Ok((manifest, image))
}

async fn believed(fleet: &Fleet, backup: &BackupRecord) -> Result<(Manifest, Proof)> {
    let key: Key = backup.object_key.parse()?;
    let (manifest, sha256) = fleet.store.manifest(&key).await?;
    require_same(&manifest, backup, fleet.id())?;
    let proof = proof(&manifest, &sha256, backup, fleet.catalog.sealer())?;
    Ok((manifest, proof))
}

/// PURE: the manifest says what the catalog's row says.
fn require_same(manifest: &Manifest, backup: &BackupRecord, fleet: FleetId) -> Result<()> {
    if manifest.tenant != backup.tenant_id {
        return Err(wrong_tenant(&format!("its manifest says that it is {}'s", manifest.tenant)));
    }
    if manifest.fleet != fleet {
        return Err(wrong_tenant("its manifest says that it is another fleet's"));
    }
    let length = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let same = [
        ("id", manifest.backup == backup.id),
        ("place", manifest.key().part(Part::Manifest).to_string() == backup.object_key),
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
        Some((what, _)) => Err(manifest::damaged(&format!("its manifest and the catalog do not name the same {what}"))),
    }
}

/// PURE: what proves the manifest.
fn proof(manifest: &Manifest, sha256: &str, backup: &BackupRecord, sealer: &Sealer) -> Result<Proof> {
    if let Some(known) = &backup.manifest_sha256 {
        // Also after a change of the fleet's key, and for a format without signature.
        return if known == sha256 { Ok(Proof::Manifest) } else { Err(not_authentic("it was changed since")) };
    }
    match manifest.verify(sealer) {
        Ok(true) => Ok(Proof::Manifest),
        Ok(false) => Ok(Proof::Content),
        Err(error) if error.kind() == ErrorKind::WrongKey => {
            Err(not_authentic("another key than the fleet's signed it").with_source(error))
        }
        Err(error) => Err(not_authentic("its signature is not of the fleet's key").with_source(error)),
    }
}

/// Of a backup that an older program took: the content is the one that the catalog knows.
async fn require_content(image: Image, backup: &BackupRecord) -> Result<Image> {
    let (engine, expected) = (backup.engine, backup.content_hash.clone());
    let unreadable = |error| Error::new(500, "io", "a fetched backup could not be read").with_source(error).transient();
    let hashed = tasks::blocking(move || {
        let found = match &image {
            Image::Memory(bytes) => tenant_engine::snapshot::content_hash(engine, &bytes[..]),
            Image::File(path) => File::open(path).and_then(|file| tenant_engine::snapshot::content_hash(engine, file)),
        };
        found.map(|found| (found, image))
    });
    let (found, image) = hashed.await.map_err(unreadable)?;
    if found == expected {
        Ok(image)
    } else {
        Err(manifest::damaged("its content is not the one that the catalog knows"))
    }
}

/// The error of a backup that holds another tenant's data, or says so.
pub(super) fn wrong_tenant(why: &str) -> Error {
    Error::new(409, "wrong_tenant_backup", format!("the backup is not this tenant's: {why}"))
        .try_next("fleetctl backup list <tenant>")
}

fn not_authentic(why: &str) -> Error {
    let detail = format!("nothing proves that this fleet wrote the manifest of the backup: {why}");
    Error::new(409, "backup_not_authentic", detail)
        .try_next("fleetctl backup list <tenant>, and take another one; find out who can write to the backup store")
}

#[cfg(test)]
mod tests {
    use catalog::seal::FleetKey;
    use catalog::{BackupId, OperationId};
    use tenant_engine::EngineKind;

    use super::*;
    use crate::backup::manifest::tests::sample;

    fn row(manifest: &Manifest) -> BackupRecord {
        BackupRecord {
            id: manifest.backup,
            tenant_id: manifest.tenant,
            op_id: Some(manifest.op),
            object_key: manifest.key().to_string(),
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
        }
    }

    #[test]
    fn a_manifest_that_differs_from_the_row_in_anything_is_refused() {
        let manifest = sample();
        let row = row(&manifest);
        let fleet = manifest.fleet;
        require_same(&manifest, &row, fleet).unwrap();
        type Change = (&'static str, fn(&mut Manifest));
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
            assert_eq!(require_same(&other, &row, fleet).unwrap_err().code, code, "{other:?}");
        }
    }

    #[test]
    fn a_manifest_is_proved_by_the_row_or_by_the_key_and_else_by_its_content() {
        let (sealer, other) = (Sealer::new(&FleetKey::generate()), Sealer::new(&FleetKey::generate()));
        let plain = sample();
        let signed = plain.clone().signed(&sealer);
        let known = BackupRecord { manifest_sha256: Some("aa".to_owned()), ..row(&plain) };
        let unknown = row(&plain);
        assert_eq!(proof(&signed, "aa", &known, &sealer).unwrap(), Proof::Manifest);
        assert_eq!(proof(&signed, "aa", &known, &other).unwrap(), Proof::Manifest, "after a change of the key");
        assert_eq!(proof(&signed, "bb", &known, &sealer).unwrap_err().code, "backup_not_authentic");
        assert_eq!(proof(&signed, "bb", &unknown, &sealer).unwrap(), Proof::Manifest);
        assert_eq!(proof(&signed, "bb", &unknown, &other).unwrap_err().code, "backup_not_authentic");
        let mut forged = signed.clone();
        forged.generation = forged.generation.next();
        assert_eq!(proof(&forged, "bb", &unknown, &sealer).unwrap_err().code, "backup_not_authentic");
        let older = Manifest { format: 1, ..plain };
        assert_eq!(proof(&older, "bb", &unknown, &sealer).unwrap(), Proof::Content);
        assert_eq!(proof(&older, "bb", &known, &sealer).unwrap_err().code, "backup_not_authentic", "a downgrade");
    }
}
