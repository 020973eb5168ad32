//! Migration sets: a directory in sqlx's layout, read unchanged, and the pure question what is pending.

use serde::{Deserialize, Serialize};
use std::path::Path;

use crate::error::Result;

/// One migration file (or one file of a reversible pair).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// The file's name as found, for instance `0001_tasks.up.sql`.
    pub name: String,
    /// The file's text, byte for byte.
    pub sql: String,
}

/// One version of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// The number before the first underscore.
    pub version: i64,
    /// The rest of the name, underscores as spaces.
    pub description: String,
    /// What is run.
    pub sql: String,
    /// SHA-384 of the file's bytes: what sqlx writes.
    pub checksum: Vec<u8>,
    /// False when the file's first bytes are `-- no-transaction`.
    pub transactional: bool,
    /// The text that reverts it, if the set holds one.
    pub down: Option<String>,
}

/// One row of a database's `_sqlx_migrations`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Which version.
    pub version: i64,
    /// SHA-384 of the file it was applied from.
    pub checksum: Vec<u8>,
    /// False when it was begun and did not finish.
    pub success: bool,
}

/// A checked, ordered set of migrations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationSet {
    migrations: Vec<Migration>,
    digest: String,
}

impl MigrationSet {
    /// Reads a directory as sqlx does: what does not match `<number>_<name>.sql` is ignored.
    ///
    /// # Errors
    /// [`crate::ErrorKind::MigrationInvalid`] naming the file.
    pub fn read(_directory: &Path) -> Result<(Self, Vec<File>)> {
        todo!()
    }

    /// The set made of these files.
    ///
    /// # Errors
    /// [`crate::ErrorKind::MigrationInvalid`] naming the file.
    pub fn from_files(_files: &[File]) -> Result<Self> {
        todo!()
    }

    /// The set with nothing in it: a tenant before the first release.
    #[must_use]
    pub fn empty() -> Self {
        todo!()
    }

    /// blake3 (hex) over versions and checksums: names the release.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Ordered by version.
    #[must_use]
    pub fn migrations(&self) -> &[Migration] {
        &self.migrations
    }

    /// The newest version, if any.
    #[must_use]
    pub fn head(&self) -> Option<i64> {
        self.migrations.last().map(|m| m.version)
    }
}

/// What has to be applied to a database with this ledger, in order.
///
/// # Errors
/// [`crate::ErrorKind::MigrationChanged`], [`crate::ErrorKind::MigrationMissing`],
/// [`crate::ErrorKind::MigrationAhead`] or [`crate::ErrorKind::MigrationDirty`], naming the version.
pub fn pending<'a>(_set: &'a MigrationSet, _applied: &[Applied]) -> Result<Vec<&'a Migration>> {
    todo!()
}
