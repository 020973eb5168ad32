//! Object keys: made of ids and times only, so that no name of a customer and no foreign text becomes a path.

use std::fmt;
use std::str::FromStr;

use catalog::{BackupId, FleetId, OperationId, TenantId};
use uuid::Uuid;

use crate::error::{Error, Result};

/// What a key names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// The manifest: written last, and only its existence makes a backup.
    Manifest,
    /// The compressed database.
    Database,
}

/// Whose objects lie in one folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Folder {
    Tenant(Uuid),
    Catalog(Uuid),
}

/// The place of one object: `v1/tenants/<tenant>/<taken_at>-<backup>.manifest.json` or `….db.zst`, and
/// `v1/catalog/<fleet>/<taken_at>-<operation>.…` for pictures of the catalog. Keys of one folder sort by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    folder: Folder,
    taken_at: i64,
    id: Uuid,
    part: Part,
}

impl Key {
    /// The manifest of a tenant's backup taken at this time (milliseconds since 1970).
    #[must_use]
    pub fn of_backup(tenant: TenantId, taken_at: i64, backup: BackupId) -> Self {
        Self { folder: Folder::Tenant(tenant.uuid()), taken_at, id: backup.uuid(), part: Part::Manifest }
    }

    /// The manifest of a picture of the catalog, taken at the end of an operation.
    #[must_use]
    pub fn of_catalog(fleet: FleetId, taken_at: i64, op: OperationId) -> Self {
        Self { folder: Folder::Catalog(fleet.uuid()), taken_at, id: op.uuid(), part: Part::Manifest }
    }

    /// The same backup's other part.
    #[must_use]
    pub fn part(self, part: Part) -> Self {
        Self { part, ..self }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.folder {
            Folder::Tenant(tenant) => write!(f, "v1/tenants/{tenant}/")?,
            Folder::Catalog(fleet) => write!(f, "v1/catalog/{fleet}/")?,
        }
        let extension = match self.part {
            Part::Manifest => "manifest.json",
            Part::Database => "db.zst",
        };
        write!(f, "{:015}-{}.{extension}", self.taken_at, self.id.simple())
    }
}

impl FromStr for Key {
    type Err = Error;

    /// Accepts exactly what [`Key`] prints: a key read from a catalog or a manifest can lead nowhere else.
    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::new(500, "backup_damaged", "an object key is not of the form this program writes");
        let rest = text.strip_prefix("v1/").ok_or_else(invalid)?;
        let (folder, rest) = rest.split_once('/').ok_or_else(invalid)?;
        let (owner, file) = rest.split_once('/').ok_or_else(invalid)?;
        let owner = Uuid::try_parse(owner).map_err(|_| invalid())?;
        let folder = match folder {
            "tenants" => Folder::Tenant(owner),
            "catalog" => Folder::Catalog(owner),
            _ => return Err(invalid()),
        };
        let (stem, extension) = file.split_once('.').ok_or_else(invalid)?;
        let part = match extension {
            "manifest.json" => Part::Manifest,
            "db.zst" => Part::Database,
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
            let key = Key::of_backup(
                TenantId::from_uuid(Uuid::from_u128(tenant)), at, BackupId::from_uuid(Uuid::from_u128(backup)));
            prop_assert_eq!(key.to_string().parse::<Key>().unwrap(), key);
            let object = key.part(Part::Database);
            prop_assert_eq!(object.to_string().parse::<Key>().unwrap(), object);
        }

        #[test]
        fn later_keys_sort_later(a in 0..4_000_000_000_000_i64, b in 0..4_000_000_000_000_i64) {
            let (tenant, backup) = (TenantId::generate(), BackupId::generate());
            let (first, second) = (Key::of_backup(tenant, a, backup), Key::of_backup(tenant, b, backup));
            prop_assert_eq!(first.to_string().cmp(&second.to_string()), a.cmp(&b));
        }

        #[test]
        fn nothing_else_is_a_key(text in ".{0,120}") {
            if let Ok(key) = text.parse::<Key>() {
                prop_assert_eq!(key.to_string(), text);
            }
        }
    }

    #[test]
    fn a_path_that_climbs_is_no_key() {
        for text in ["v1/tenants/../x.db.zst", "v1/tenants/a/b/c.db.zst", "/etc/passwd", "", "v1/tenants//"] {
            assert!(text.parse::<Key>().is_err(), "{text}");
        }
    }
}
