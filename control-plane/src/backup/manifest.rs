//! The manifest of a backup: its content, its owner, and the data that proves it complete. It is JSON and readable
//! without this program. It contains no tenant's name and no data.
//!
//! From format 2 on it is signed with the fleet's key. The signature covers two things. One is the manifest without its
//! field `authentication`, as JSON in the order of the fields here and without white space. The other is the key of its
//! object. A format's fields are fixed. An unknown field would not be covered by the signature, so it is refused.

use std::collections::BTreeMap;

use catalog::seal::SecretSealer;
use catalog::{BackupId, FleetId, Generation, OperationId, TenantId};
use serde::{Deserialize, Serialize};
use tenant_engine::placement::EngineKind;
use tenant_engine::{ClassSum, RowSums};

use super::key::{BackupObjectKey, BackupObjectKind};
use crate::error::{Error, ErrorKind, Result};

/// The format that this program writes, and the newest that it reads.
pub const FORMAT: u32 = 2;
/// Manifests up to this format have no signature.
const UNSIGNED_MAX: u32 = 1;
/// The maximum size of a manifest. One is about 1 KiB, plus some hundred bytes for each table of a PostgreSQL database.
/// A name of control characters takes ten times as much.
pub const BYTES_MAX: u64 = 8 << 20;

/// The description of one backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupManifest {
    /// The version of the manifest's format.
    pub format: u32,
    /// The backup's id. It never changes.
    pub backup: BackupId,
    /// The tenant whose database it is. Compared with the identity inside.
    pub tenant: TenantId,
    /// The fleet that the tenant belongs to.
    pub fleet: FleetId,
    /// The operation that took the backup.
    pub op: OperationId,
    /// The reason for the backup: manual, scheduled, pre_restore, pre_delete.
    pub reason: String,
    /// When the snapshot began, milliseconds since 1970.
    pub taken_at_ms: i64,
    /// The engine of the database.
    pub engine: EngineKind,
    /// The engine's version, for instance `sqlite 3.51.3`.
    pub engine_version: String,
    /// The newest version in the ledger inside.
    pub schema_version: Option<i64>,
    /// The generation in the identity inside. Informative only, never trusted.
    pub generation: Generation,
    /// Rows that violated a foreign key at the snapshot. A restore tolerates as many, and no more.
    pub foreign_key_violations: u64,
    /// The objects of each class. A restore must reproduce them. Empty for backups that do not record them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub classes: BTreeMap<String, ClassSum>,
    /// The rows of each table. A restore must reproduce them. `None` for backups that do not record them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowSums>,
    /// Objects that the database has and the backup lacks, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// A hash that is equal for equal content.
    pub content_hash: String,
    /// The database before compression.
    pub image: DatabaseImage,
    /// The stored object.
    pub object: StoredObject,
    /// The signature of all fields above. `None` up to format 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<String>,
}

/// The database before compression.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseImage {
    /// Its length in bytes.
    pub size_bytes: u64,
    /// BLAKE3 of its bytes, hex.
    pub blake3: String,
    /// SHA-256 of its bytes, hex.
    pub sha256: String,
}

/// The object in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredObject {
    /// Its key, below the store's root.
    pub key: String,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// SHA-256 of its bytes, hex.
    pub sha256: String,
    /// The compression, always `zstd`.
    pub compression: String,
}

/// The manifest of the catalog snapshot that an operation of backups ends with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogManifest {
    /// As [`BackupManifest::format`].
    pub format: u32,
    /// The fleet of the catalog.
    pub fleet: FleetId,
    /// The operation at whose end the snapshot was taken.
    pub op: OperationId,
    /// When the snapshot was taken, milliseconds since 1970.
    pub taken_at_ms: i64,
    /// The catalog before compression.
    pub image: DatabaseImage,
    /// The object in the store.
    pub object: StoredObject,
    /// As [`BackupManifest::authentication`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<String>,
}

impl CatalogManifest {
    /// Signs the manifest.
    #[must_use]
    pub fn into_signed(self, sealer: &SecretSealer) -> Self {
        let key = BackupObjectKey::of_catalog(self.fleet, self.taken_at_ms, self.op).to_string();
        let bare = Self { authentication: None, ..self };
        let signature = sealer.sign_bytes(("catalog", "manifest", &key), &canonical_bytes(&bare));
        Self { authentication: Some(signature), ..bare }
    }
}

impl BackupManifest {
    /// The key of this manifest's object.
    #[must_use]
    pub fn manifest_key(&self) -> BackupObjectKey {
        BackupObjectKey::of_backup(self.tenant, self.taken_at_ms, self.backup)
    }

    /// Signs the manifest.
    #[must_use]
    pub fn into_signed(self, sealer: &SecretSealer) -> Self {
        let bare = Self { authentication: None, ..self };
        let signature =
            sealer.sign_bytes(("backups", "manifest", &bare.manifest_key().to_string()), &canonical_bytes(&bare));
        Self { authentication: Some(signature), ..bare }
    }

    /// Whether the signature proves the manifest. False for a format without a signature.
    ///
    /// # Errors
    /// `WrongKey`; `Corrupt` when the signature is missing or does not match.
    pub fn verify_signature(&self, sealer: &SecretSealer) -> catalog::Result<bool> {
        if self.format <= UNSIGNED_MAX && self.authentication.is_none() {
            return Ok(false);
        }
        let bare = Self { authentication: None, ..self.clone() };
        let signature = self.authentication.as_deref().unwrap_or_default();
        sealer.verify_signature(
            ("backups", "manifest", &self.manifest_key().to_string()),
            &canonical_bytes(&bare),
            signature,
        )?;
        Ok(true)
    }

    /// Parses a manifest. Refuses one that contradicts itself, or the key that it was found under.
    ///
    /// # Errors
    /// `backup_damaged`; `backup_newer` when a newer program wrote it.
    pub fn parse_manifest(bytes: &[u8], found_under: &BackupObjectKey) -> Result<Self> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let unreadable = |error| backup_damaged("its manifest cannot be read").with_source(error);
        let Format { format } = serde_json::from_slice(bytes).map_err(unreadable)?;
        if format > FORMAT {
            return Err(Error::new(
                ErrorKind::BackupNewer,
                format!("the manifest has format {format}; this program reads up to {FORMAT}"),
            )
            .try_next("use the version of fleetctl that took the backup, or a later one"));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(unreadable)?;
        let object = manifest.manifest_key().with_part(BackupObjectKind::Database).to_string();
        if manifest.manifest_key() != *found_under || manifest.object.key != object {
            return Err(backup_damaged("its manifest is stored under another backup's key"));
        }
        if manifest.object.compression != "zstd" {
            return Err(backup_damaged("its manifest names an unknown compression"));
        }
        Ok(manifest)
    }
}

/// The bytes that a signature covers.
fn canonical_bytes(manifest: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(manifest).expect("a manifest is text and numbers")
}

/// The error of a backup that differs from its manifest.
pub(crate) fn backup_damaged(what: &str) -> Error {
    Error::new(ErrorKind::BackupDamaged, format!("the backup is damaged: {what}"))
        .try_next("fleetctl backup list <tenant>, and restore an earlier one with --to <backup id>")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> BackupManifest {
        let (tenant, backup, at) = (TenantId::generate(), BackupId::generate(), 1_764_000_000_000);
        let key = BackupObjectKey::of_backup(tenant, at, backup).with_part(BackupObjectKind::Database).to_string();
        BackupManifest {
            format: FORMAT,
            backup,
            tenant,
            fleet: FleetId::generate(),
            op: OperationId::generate(),
            reason: "manual".to_owned(),
            taken_at_ms: at,
            engine: EngineKind::Sqlite,
            engine_version: "sqlite 3.51.3".to_owned(),
            schema_version: Some(1),
            generation: Generation(2),
            foreign_key_violations: 0,
            classes: BTreeMap::new(),
            rows: None,
            left_out: Vec::new(),
            content_hash: "00".to_owned(),
            image: DatabaseImage { size_bytes: 1, blake3: "00".to_owned(), sha256: "00".to_owned() },
            object: StoredObject { key, size_bytes: 1, sha256: "00".to_owned(), compression: "zstd".to_owned() },
            authentication: None,
        }
    }

    fn bytes(manifest: &BackupManifest) -> Vec<u8> {
        serde_json::to_vec(manifest).unwrap()
    }

    #[test]
    fn a_manifest_reads_back_and_nothing_else_is_one() {
        let manifest = sample();
        let text = String::from_utf8(bytes(&manifest)).unwrap();
        assert_eq!(BackupManifest::parse_manifest(text.as_bytes(), &manifest.manifest_key()).unwrap(), manifest);
        for (from, to) in [
            ("{\"format\":", "{\"later\":true,\"format\":"),
            ("{\"format\":", "{\"format\":2,\"format\":"),
            ("\"reason\":", "\"reason\":\"manual\",\"reason\":"),
            ("\"image\":{", "\"image\":{\"later\":1,"),
            ("\"compression\":", "\"size_bytes\":1,\"compression\":"),
            ("}}", "}} trailing"),
            ("}}", "}"),
            ("\"size_bytes\":1", "\"size_bytes\":-1"),
            ("\"size_bytes\":1", "\"size_bytes\":1.5"),
            ("\"size_bytes\":1", "\"size_bytes\":99999999999999999999"),
            ("\"format\":2", "\"format\":\"2\""),
        ] {
            let other = text.replacen(from, to, 1);
            assert_ne!(other, text, "{from}");
            assert_eq!(
                BackupManifest::parse_manifest(other.as_bytes(), &manifest.manifest_key()).unwrap_err().code(),
                "backup_damaged",
                "{to}"
            );
        }
        for other in ["", "null", "[]", "{}", "\"\"", &"[".repeat(60_000), &"{\"a\":".repeat(9_000)] {
            assert_eq!(
                BackupManifest::parse_manifest(other.as_bytes(), &manifest.manifest_key()).unwrap_err().code(),
                "backup_damaged"
            );
        }
    }

    #[test]
    fn a_signature_covers_every_field() {
        use catalog::seal::FleetKey;
        let sealer = SecretSealer::new(&FleetKey::generate());
        let manifest = sample().into_signed(&sealer);
        assert!(manifest.verify_signature(&sealer).unwrap());
        let read = BackupManifest::parse_manifest(&bytes(&manifest), &manifest.manifest_key()).unwrap();
        assert!(read.verify_signature(&sealer).unwrap());
        let json = serde_json::to_value(&manifest).unwrap();
        let fields: Vec<String> = json.as_object().unwrap().keys().cloned().collect();
        for field in fields {
            let mut changed = json.clone();
            changed[&field] = match &json[&field] {
                serde_json::Value::Number(number) => (number.as_i64().unwrap() + 1).into(),
                serde_json::Value::Object(_) => {
                    let mut inner = json[&field].clone();
                    inner["size_bytes"] = 77.into();
                    inner
                }
                serde_json::Value::String(text) if text.len() > 20 => {
                    let last = if text.ends_with('0') { "1" } else { "0" };
                    format!("{}{last}", &text[..text.len() - 1]).into()
                }
                _ => "postgres".into(),
            };
            let Ok(changed) = serde_json::from_value::<BackupManifest>(changed) else { panic!("{field}") };
            assert!(changed.verify_signature(&sealer).is_err(), "{field}");
        }
        let tables = BTreeMap::from([("t".to_owned(), tenant_engine::TableSum { rows: 1, sum: "7".to_owned() })]);
        let rows = Some(RowSums { version: 15, tables, generated: BTreeMap::new() });
        assert!(
            BackupManifest { rows: rows.clone(), ..manifest.clone() }.verify_signature(&sealer).is_err(),
            "rows added"
        );
        let with_rows = BackupManifest { rows, ..manifest.clone() }.into_signed(&sealer);
        let read = BackupManifest::parse_manifest(&bytes(&with_rows), &with_rows.manifest_key()).unwrap();
        assert!(read.verify_signature(&sealer).unwrap() && read == with_rows);
        assert!(BackupManifest { rows: None, ..with_rows }.verify_signature(&sealer).is_err(), "rows stripped");
        assert!(
            BackupManifest { authentication: None, ..manifest.clone() }.verify_signature(&sealer).is_err(),
            "stripped"
        );
        assert!(!BackupManifest { format: 1, authentication: None, ..manifest }.verify_signature(&sealer).unwrap());
    }

    #[test]
    fn one_that_contradicts_its_place_or_format_is_refused() {
        let manifest = sample();
        let elsewhere = sample().manifest_key();
        assert_eq!(BackupManifest::parse_manifest(&bytes(&manifest), &elsewhere).unwrap_err().code(), "backup_damaged");
        let stolen = BackupManifest { object: sample().object, ..manifest.clone() };
        assert_eq!(
            BackupManifest::parse_manifest(&bytes(&stolen), &manifest.manifest_key()).unwrap_err().code(),
            "backup_damaged"
        );
        let later = BackupManifest { format: FORMAT + 1, ..manifest.clone() };
        assert_eq!(
            BackupManifest::parse_manifest(&bytes(&later), &manifest.manifest_key()).unwrap_err().code(),
            "backup_newer"
        );
        assert_eq!(
            BackupManifest::parse_manifest(b"{", &manifest.manifest_key()).unwrap_err().code(),
            "backup_damaged"
        );
    }
}
