//! Object keys. They consist only of ids and times, so that no customer's name and no foreign text becomes a path.

use std::fmt;
use std::str::FromStr;

use catalog::{BackupId, FleetId, OperationId, TenantId};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};

/// The type of object that a key names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackupObjectKind {
    /// The manifest. It is written last, and a backup exists only if its manifest does.
    Manifest,
    /// The compressed database.
    Database,
}

/// The owner of the objects in one folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum BackupFolder {
    Tenant(Uuid),
    Catalog(Uuid),
}

/// The location of one object: `v1/tenants/<tenant>/<taken_at>-<backup>.manifest.json` or `….db.zst`, and
/// `v1/catalog/<fleet>/<taken_at>-<operation>.…` for snapshots of the catalog. Keys of one folder sort by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BackupObjectKey {
    folder: BackupFolder,
    taken_at: i64,
    id: Uuid,
    part: BackupObjectKind,
}

impl BackupObjectKey {
    /// The manifest of a tenant's backup taken at this time (milliseconds since 1970).
    #[must_use]
    pub fn of_backup(tenant: TenantId, taken_at: i64, backup: BackupId) -> Self {
        Self {
            folder: BackupFolder::Tenant(tenant.uuid()),
            taken_at,
            id: backup.uuid(),
            part: BackupObjectKind::Manifest,
        }
    }

    /// The manifest of a catalog snapshot that was taken at the end of an operation.
    #[must_use]
    pub fn of_catalog(fleet: FleetId, taken_at: i64, op: OperationId) -> Self {
        Self { folder: BackupFolder::Catalog(fleet.uuid()), taken_at, id: op.uuid(), part: BackupObjectKind::Manifest }
    }

    /// The key of another object of the same backup.
    #[must_use]
    pub fn with_part(self, part: BackupObjectKind) -> Self {
        Self { part, ..self }
    }
}

impl fmt::Display for BackupObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.folder {
            BackupFolder::Tenant(tenant) => write!(f, "v1/tenants/{tenant}/")?,
            BackupFolder::Catalog(fleet) => write!(f, "v1/catalog/{fleet}/")?,
        }
        let extension = match self.part {
            BackupObjectKind::Manifest => "manifest.json",
            BackupObjectKind::Database => "db.zst",
        };
        write!(f, "{:015}-{}.{extension}", self.taken_at, self.id.simple())
    }
}

impl FromStr for BackupObjectKey {
    type Err = Error;

    /// Accepts exactly the form that [`BackupObjectKey`] prints. So a key from a catalog or a manifest cannot name any
    /// other place.
    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::new(ErrorKind::BackupKeyInvalid, "an object key is not in the form of this program");
        let rest = text.strip_prefix("v1/").ok_or_else(invalid)?;
        let (folder, rest) = rest.split_once('/').ok_or_else(invalid)?;
        let (owner, file) = rest.split_once('/').ok_or_else(invalid)?;
        let owner = Uuid::try_parse(owner).map_err(|_| invalid())?;
        let folder = match folder {
            "tenants" => BackupFolder::Tenant(owner),
            "catalog" => BackupFolder::Catalog(owner),
            _ => return Err(invalid()),
        };
        let (stem, extension) = file.split_once('.').ok_or_else(invalid)?;
        let part = match extension {
            "manifest.json" => BackupObjectKind::Manifest,
            "db.zst" => BackupObjectKind::Database,
            _ => return Err(invalid()),
        };
        let (taken_at, id) = stem.split_once('-').ok_or_else(invalid)?;
        let taken_at = taken_at.parse().map_err(|_| invalid())?;
        let id = Uuid::try_parse(id).map_err(|_| invalid())?;
        let key = Self { folder, taken_at, id, part };
        if key.to_string() == text { Ok(key) } else { Err(invalid()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_reads_back_as_itself(tenant: u128, backup: u128, at in 0..4_000_000_000_000_i64) {
            let key = BackupObjectKey::of_backup(
                TenantId::from_uuid(Uuid::from_u128(tenant)), at, BackupId::from_uuid(Uuid::from_u128(backup)));
            prop_assert_eq!(key.to_string().parse::<BackupObjectKey>().unwrap(), key);
            let object = key.with_part(BackupObjectKind::Database);
            prop_assert_eq!(object.to_string().parse::<BackupObjectKey>().unwrap(), object);
        }

        #[test]
        fn later_keys_sort_later(a in 0..4_000_000_000_000_i64, b in 0..4_000_000_000_000_i64) {
            let (tenant, backup) = (TenantId::generate(), BackupId::generate());
            let (first, second) = (BackupObjectKey::of_backup(tenant, a, backup), BackupObjectKey::of_backup(tenant, b, backup));
            prop_assert_eq!(first.to_string().cmp(&second.to_string()), a.cmp(&b));
        }

        #[test]
        fn nothing_else_is_a_key(text in ".{0,120}") {
            if let Ok(key) = text.parse::<BackupObjectKey>() {
                prop_assert_eq!(key.to_string(), text);
            }
        }
    }

    #[test]
    fn a_path_that_climbs_is_no_key() {
        for text in ["v1/tenants/../x.db.zst", "v1/tenants/a/b/c.db.zst", "/etc/passwd", "", "v1/tenants//"] {
            assert!(text.parse::<BackupObjectKey>().is_err(), "{text}");
        }
    }
}
