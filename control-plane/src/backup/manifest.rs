//! The manifest of a backup: what it holds, whose it is, and how to prove that it is whole. JSON, readable without this
//! program. It carries no tenant's name and no data.

use std::collections::BTreeMap;

use catalog::{BackupId, FleetId, Generation, OperationId, TenantId};
use serde::{Deserialize, Serialize};
use tenant_engine::ClassSum;
use tenant_engine::placement::EngineKind;

use super::key::{Key, Part};
use crate::error::{Error, Result};

/// What this program writes and the newest it reads.
pub const FORMAT: u32 = 1;
/// A manifest is about 1 KiB; more is not a manifest.
pub const BYTES_MAX: u64 = 64 << 10;

/// What is known of one backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format; unknown fields of a known format are ignored.
    pub format: u32,
    /// For ever.
    pub backup: BackupId,
    /// Whose database it is; compared with the identity inside.
    pub tenant: TenantId,
    /// Which fleet's.
    pub fleet: FleetId,
    /// Which operation took it.
    pub op: OperationId,
    /// manual, scheduled, pre_restore, pre_delete.
    pub reason: String,
    /// When the snapshot began, milliseconds since 1970.
    pub taken_at_ms: i64,
    /// What it was taken from.
    pub engine: EngineKind,
    /// For instance `sqlite 3.51.3`.
    pub engine_version: String,
    /// The ledger's newest version inside.
    pub schema_version: Option<i64>,
    /// The identity's generation inside; told, never trusted.
    pub generation: Generation,
    /// Rows that violated a foreign key when it was taken: a restore tolerates as many, not more.
    pub foreign_key_violations: u64,
    /// The objects of each class, which a restore must have again; empty for backups that do not say it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub classes: BTreeMap<String, ClassSum>,
    /// What the database has and the backup does not; for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// Equal for equal content.
    pub content_hash: String,
    /// The database before compression.
    pub image: Image,
    /// The stored object.
    pub object: Object,
}

/// The raw database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its length.
    pub size_bytes: u64,
    /// Hex.
    pub blake3: String,
    /// Hex.
    pub sha256: String,
}

/// What lies in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Below the store's root.
    pub key: String,
    /// Its length.
    pub size_bytes: u64,
    /// Hex.
    pub sha256: String,
    /// `zstd`.
    pub compression: String,
}

/// The picture of the catalog that goes with an operation's backups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogManifest {
    /// As [`Manifest::format`].
    pub format: u32,
    /// Which fleet's catalog.
    pub fleet: FleetId,
    /// The operation at whose end it was taken.
    pub op: OperationId,
    /// Milliseconds since 1970.
    pub taken_at_ms: i64,
    /// The raw database.
    pub image: Image,
    /// What lies in the store.
    pub object: Object,
}

impl Manifest {
    /// Where this manifest lies.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::of_backup(self.tenant, self.taken_at_ms, self.backup)
    }

    /// Reads a manifest and refuses one that contradicts itself or the key it was found under.
    ///
    /// # Errors
    /// `backup_damaged`; `backup_newer` when a later program wrote it.
    pub fn parse(bytes: &[u8], found_under: &Key) -> Result<Self> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let unreadable = |error| damaged("its manifest cannot be read").with_source(error);
        let Format { format } = serde_json::from_slice(bytes).map_err(unreadable)?;
        if format > FORMAT {
            return Err(Error::new(
                409,
                "backup_newer",
                format!("the manifest has format {format}; this program reads up to {FORMAT}"),
            )
            .try_next("use the version of fleetctl that took the backup, or a later one"));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(unreadable)?;
        let object = manifest.key().part(Part::Database).to_string();
        if manifest.key() != *found_under || manifest.object.key != object {
            return Err(damaged("its manifest lies under another backup's key"));
        }
        if manifest.object.compression != "zstd" {
            return Err(damaged("its manifest names an unknown compression"));
        }
        Ok(manifest)
    }
}

/// The error of a backup that is not what its manifest says.
pub(crate) fn damaged(what: &str) -> Error {
    Error::new(409, "backup_damaged", format!("the backup is damaged: {what}"))
        .try_next("fleetctl backup list <tenant>, and restore an earlier one with --to <backup id>")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        let (tenant, backup, at) = (TenantId::generate(), BackupId::generate(), 1_764_000_000_000);
        let key = Key::of_backup(tenant, at, backup).part(Part::Database).to_string();
        Manifest {
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
            left_out: Vec::new(),
            content_hash: "00".to_owned(),
            image: Image { size_bytes: 1, blake3: "00".to_owned(), sha256: "00".to_owned() },
            object: Object { key, size_bytes: 1, sha256: "00".to_owned(), compression: "zstd".to_owned() },
        }
    }

    fn bytes(manifest: &Manifest) -> Vec<u8> {
        serde_json::to_vec(manifest).unwrap()
    }

    #[test]
    fn a_manifest_reads_back_and_a_later_field_is_ignored() {
        let manifest = sample();
        assert_eq!(Manifest::parse(&bytes(&manifest), &manifest.key()).unwrap(), manifest);
        let mut json = serde_json::to_value(&manifest).unwrap();
        json["later"] = true.into();
        assert!(Manifest::parse(json.to_string().as_bytes(), &manifest.key()).is_ok());
    }

    #[test]
    fn one_that_contradicts_its_place_or_format_is_refused() {
        let manifest = sample();
        let elsewhere = sample().key();
        assert_eq!(Manifest::parse(&bytes(&manifest), &elsewhere).unwrap_err().code, "backup_damaged");
        let stolen = Manifest { object: sample().object, ..manifest.clone() };
        assert_eq!(Manifest::parse(&bytes(&stolen), &manifest.key()).unwrap_err().code, "backup_damaged");
        let later = Manifest { format: FORMAT + 1, ..manifest.clone() };
        assert_eq!(Manifest::parse(&bytes(&later), &manifest.key()).unwrap_err().code, "backup_newer");
        assert_eq!(Manifest::parse(b"{", &manifest.key()).unwrap_err().code, "backup_damaged");
    }
}
