//! The manifest of a backup: what it holds, whose it is, and how to prove that it is whole. JSON, readable without this
//! program. It carries no tenant's name and no data.
//!
//! From format 2 on it is signed with the fleet's key. The signature covers the manifest without its field
//! `authentication`, as JSON in the order of the fields here and without white space, and the key of its object. A
//! format's fields are fixed: an unknown one would be outside the signature, so it is refused.

use std::collections::BTreeMap;

use catalog::seal::Sealer;
use catalog::{BackupId, FleetId, Generation, OperationId, TenantId};
use serde::{Deserialize, Serialize};
use tenant_engine::placement::EngineKind;
use tenant_engine::{ClassSum, RowSums};

use super::key::{Key, Part};
use crate::error::{Error, Result};

/// What this program writes and the newest it reads.
pub const FORMAT: u32 = 2;
/// Manifests up to this format have no signature.
const UNSIGNED_MAX: u32 = 1;
/// A manifest is about 1 KiB, and some hundred bytes for each table of a Postgres database. A name of control characters
/// takes ten times as much; more is not a manifest.
pub const BYTES_MAX: u64 = 8 << 20;

/// What is known of one backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format.
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
    /// The rows of each table, which a restore must have again; none for backups that do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowSums>,
    /// What the database has and the backup does not; for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// Equal for equal content.
    pub content_hash: String,
    /// The database before compression.
    pub image: Image,
    /// The stored object.
    pub object: Object,
    /// The signature of all that is above; none up to format 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<String>,
}

/// The raw database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
#[serde(deny_unknown_fields)]
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
#[serde(deny_unknown_fields)]
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
    /// As [`Manifest::authentication`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<String>,
}

impl CatalogManifest {
    /// The same with its signature.
    #[must_use]
    pub fn signed(self, sealer: &Sealer) -> Self {
        let key = Key::of_catalog(self.fleet, self.taken_at_ms, self.op).to_string();
        let bare = Self { authentication: None, ..self };
        let signature = sealer.sign(("catalog", "manifest", &key), &canonical(&bare));
        Self { authentication: Some(signature), ..bare }
    }
}

impl Manifest {
    /// Where this manifest lies.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::of_backup(self.tenant, self.taken_at_ms, self.backup)
    }

    /// The same with its signature.
    #[must_use]
    pub fn signed(self, sealer: &Sealer) -> Self {
        let bare = Self { authentication: None, ..self };
        let signature = sealer.sign(("backups", "manifest", &bare.key().to_string()), &canonical(&bare));
        Self { authentication: Some(signature), ..bare }
    }

    /// Whether its signature proves it; false for a format without one.
    ///
    /// # Errors
    /// `WrongKey`; `Corrupt` when the signature is missing or does not fit.
    pub fn verify(&self, sealer: &Sealer) -> catalog::Result<bool> {
        if self.format <= UNSIGNED_MAX && self.authentication.is_none() {
            return Ok(false);
        }
        let bare = Self { authentication: None, ..self.clone() };
        let signature = self.authentication.as_deref().unwrap_or_default();
        sealer.verify(("backups", "manifest", &self.key().to_string()), &canonical(&bare), signature)?;
        Ok(true)
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

/// The bytes that a signature covers.
fn canonical(manifest: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(manifest).expect("a manifest is text and numbers")
}

/// The error of a backup that is not what its manifest says.
pub(crate) fn damaged(what: &str) -> Error {
    Error::new(409, "backup_damaged", format!("the backup is damaged: {what}"))
        .try_next("fleetctl backup list <tenant>, and restore an earlier one with --to <backup id>")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> Manifest {
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
            rows: None,
            left_out: Vec::new(),
            content_hash: "00".to_owned(),
            image: Image { size_bytes: 1, blake3: "00".to_owned(), sha256: "00".to_owned() },
            object: Object { key, size_bytes: 1, sha256: "00".to_owned(), compression: "zstd".to_owned() },
            authentication: None,
        }
    }

    fn bytes(manifest: &Manifest) -> Vec<u8> {
        serde_json::to_vec(manifest).unwrap()
    }

    #[test]
    fn a_manifest_reads_back_and_nothing_else_is_one() {
        let manifest = sample();
        let text = String::from_utf8(bytes(&manifest)).unwrap();
        assert_eq!(Manifest::parse(text.as_bytes(), &manifest.key()).unwrap(), manifest);
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
            assert_eq!(Manifest::parse(other.as_bytes(), &manifest.key()).unwrap_err().code, "backup_damaged", "{to}");
        }
        for other in ["", "null", "[]", "{}", "\"\"", &"[".repeat(60_000), &"{\"a\":".repeat(9_000)] {
            assert_eq!(Manifest::parse(other.as_bytes(), &manifest.key()).unwrap_err().code, "backup_damaged");
        }
    }

    #[test]
    fn a_signature_covers_every_field() {
        use catalog::seal::FleetKey;
        let sealer = Sealer::new(&FleetKey::generate());
        let manifest = sample().signed(&sealer);
        assert!(manifest.verify(&sealer).unwrap());
        let read = Manifest::parse(&bytes(&manifest), &manifest.key()).unwrap();
        assert!(read.verify(&sealer).unwrap());
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
            let Ok(changed) = serde_json::from_value::<Manifest>(changed) else { panic!("{field}") };
            assert!(changed.verify(&sealer).is_err(), "{field}");
        }
        let tables = BTreeMap::from([("t".to_owned(), tenant_engine::TableSum { rows: 1, sum: "7".to_owned() })]);
        let rows = Some(RowSums { version: 15, tables, generated: BTreeMap::new() });
        assert!(Manifest { rows: rows.clone(), ..manifest.clone() }.verify(&sealer).is_err(), "rows added");
        let with_rows = Manifest { rows, ..manifest.clone() }.signed(&sealer);
        let read = Manifest::parse(&bytes(&with_rows), &with_rows.key()).unwrap();
        assert!(read.verify(&sealer).unwrap() && read == with_rows);
        assert!(Manifest { rows: None, ..with_rows }.verify(&sealer).is_err(), "rows stripped");
        assert!(Manifest { authentication: None, ..manifest.clone() }.verify(&sealer).is_err(), "stripped");
        assert!(!Manifest { format: 1, authentication: None, ..manifest }.verify(&sealer).unwrap());
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
