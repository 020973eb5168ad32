//! Migration sets: a directory in sqlx's layout, read unchanged, and the pure question what is pending.
//!
//! The control plane reads a directory once, stores its [`File`]s in the catalog and makes the same [`MigrationSet`]
//! from them in any process; the engines run what [`pending`] names. Nothing here opens a database.
//! The rules for names, checksums and `-- no-transaction` are those of sqlx 0.9, so its command line and ours can take
//! turns on one database; where sqlx is silent about a directory that cannot be meant (two files of one version), this
//! refuses it. What `sqlx.toml` says is followed, or refused.

mod misfits;
mod sets;
mod settings;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use misfits::{Misfit, MisfitKind, misfits};
pub use sets::MigrationSets;

use self::settings::Settings;
use crate::error::{Error, ErrorKind, Result};

/// Seeds of countries, postal codes and the like have some megabytes. A request that brings a set holds 32 MiB.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Directory entries looked at: decades of migrations.
const FILES_MAX: usize = 10_000;
/// A set is kept in memory and in one catalog row.
const SET_BYTES_MAX: usize = 64 << 20;
/// What a file starts with to be run outside a transaction.
const NO_TRANSACTION: &str = "-- no-transaction";

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

/// A checked, ordered set of migrations. Clones share the texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationSet {
    migrations: Arc<[Migration]>,
    digest: String,
}

impl MigrationSet {
    /// Reads a directory as sqlx does: what does not match `<number>_<name>.sql` is ignored. Also returns the files
    /// that make up the set, by name, for whoever stores them.
    ///
    /// # Errors
    /// [`ErrorKind::MigrationInvalid`] naming the file.
    pub fn read(directory: &Path) -> Result<(Self, Vec<File>)> {
        let mut names = list(directory)?;
        names.sort();
        let files = names.iter().map(|name| read_file(directory, name)).collect::<Result<Vec<_>>>()?;
        Ok((Self::from_files(&files)?, files))
    }

    /// The set made of these files.
    ///
    /// # Errors
    /// [`ErrorKind::MigrationInvalid`] naming the file.
    pub fn from_files(files: &[File]) -> Result<Self> {
        let total: usize = files.iter().map(|file| file.sql.len()).sum();
        if files.len() > FILES_MAX || total > SET_BYTES_MAX {
            return Err(invalid(format!("a set holds at most {FILES_MAX} files and {SET_BYTES_MAX} bytes")));
        }
        let settings = files.iter().find(|file| file.name == settings::NAME);
        let settings = settings.map(|file| Settings::parse(&file.sql)).transpose()?.unwrap_or_default();
        let (mut ups, mut downs) = (BTreeMap::new(), BTreeMap::new());
        for file in files {
            let Some(name) = Name::parse(&file.name)? else { continue };
            check_text(file)?;
            let side = if name.reverts { &mut downs } else { &mut ups };
            if let Some((_, other)) = side.insert(name.version, (name.description, file)) {
                return Err(invalid(format!(
                    "'{}' and '{}' both are version {}; give one of them another number",
                    other.name, file.name, name.version
                )));
            }
        }
        let down = |version| downs.get(&version).map(|(_, file)| file.sql.clone());
        let up = |(version, (description, file)): (i64, (String, &File))| {
            let checksum = settings.checksum(&file.sql);
            Migration { checksum, ..migration(version, description, file, down(version)) }
        };
        Ok(Self::new(ups.into_iter().map(up).collect()))
    }

    /// The set with nothing in it: a tenant before the first release.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(Vec::new())
    }

    fn new(migrations: Vec<Migration>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for migration in &migrations {
            hasher.update(&migration.version.to_be_bytes());
            hasher.update(&migration.checksum);
        }
        Self { migrations: migrations.into(), digest: hasher.finalize().to_hex().to_string() }
    }

    /// The digests of the sets that this one goes on from: without its last version, its last two, and so on.
    pub(crate) fn earlier_digests(&self) -> Vec<String> {
        let mut hasher = blake3::Hasher::new();
        let mut digests: Vec<String> = self
            .migrations
            .iter()
            .map(|migration| {
                let before = hasher.finalize().to_hex().to_string();
                hasher.update(&migration.version.to_be_bytes());
                hasher.update(&migration.checksum);
                before
            })
            .collect();
        digests.reverse();
        digests
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

    /// The migration with this number, if the set holds it.
    #[must_use]
    pub fn get(&self, version: i64) -> Option<&Migration> {
        let index = self.migrations.binary_search_by_key(&version, |m| m.version).ok()?;
        self.migrations.get(index)
    }
}

/// What has to be applied to a database with this ledger, in order. A version below the head that was never applied
/// (merged late) is pending too, as for sqlx.
///
/// # Errors
/// [`ErrorKind::MigrationDirty`] first, then for the lowest version that does not fit [`ErrorKind::MigrationChanged`],
/// [`ErrorKind::MigrationMissing`] or [`ErrorKind::MigrationAhead`], naming the version.
pub fn pending<'a>(set: &'a MigrationSet, applied: &[Applied]) -> Result<Vec<&'a Migration>> {
    let mut ledger: BTreeMap<i64, &Applied> = BTreeMap::new();
    ledger.extend(applied.iter().map(|row| (row.version, row)));
    if let Some(dirty) = ledger.values().find(|row| !row.success) {
        return Err(dirty_version(dirty.version));
    }
    ledger.values().try_for_each(|row| check_applied(set, row))?;
    Ok(set.migrations.iter().filter(|m| !ledger.contains_key(&m.version)).collect())
}

/// [`pending`], stopping after `target`.
///
/// # Errors
/// As [`pending`]; [`ErrorKind::MigrationInvalid`] when the set does not hold the target.
pub fn pending_to<'a>(set: &'a MigrationSet, applied: &[Applied], target: Option<i64>) -> Result<Vec<&'a Migration>> {
    let mut todo = pending(set, applied)?;
    if let Some(target) = target {
        if set.get(target).is_none() {
            return Err(invalid(format!("the set holds no version {target} to stop after")));
        }
        todo.retain(|m| m.version <= target);
    }
    Ok(todo)
}

fn check_applied(set: &MigrationSet, row: &Applied) -> Result<()> {
    let version = row.version;
    match set.get(version) {
        Some(migration) if migration.checksum == row.checksum => Ok(()),
        Some(_) => Err(Error::new(
            ErrorKind::MigrationChanged,
            format!(
                "the file of version {version} was changed after this database applied it (its checksum differs); \
                 put the old text back and write the change as a new version"
            ),
        )),
        None if set.head().is_none_or(|head| version > head) => Err(Error::new(
            ErrorKind::MigrationAhead,
            format!("the database is at version {version}, newer than the set's {}", head_text(set)),
        )),
        None => Err(Error::new(
            ErrorKind::MigrationMissing,
            format!("the database applied version {version}, but the set holds no file for it; put the file back"),
        )),
    }
}

fn head_text(set: &MigrationSet) -> String {
    set.head().map_or_else(|| "none (the set is empty)".to_owned(), |head| head.to_string())
}

fn dirty_version(version: i64) -> Error {
    Error::new(
        ErrorKind::MigrationDirty,
        format!(
            "version {version} runs outside a transaction and did not finish; look at what it left, finish or undo it \
             by hand, then set success to 1 in its row of _sqlx_migrations, or delete the row to have it run again"
        ),
    )
}

/// What a file name says.
#[derive(Debug, PartialEq, Eq)]
struct Name {
    version: i64,
    description: String,
    reverts: bool,
}

impl Name {
    /// `None` for a name that is no migration; an error for one that wants to be.
    fn parse(name: &str) -> Result<Option<Self>> {
        let Some((number, rest)) = name.split_once('_') else { return Ok(None) };
        if !rest.ends_with(".sql") {
            return Ok(None);
        }
        let version = number
            .parse()
            .map_err(|_| invalid(format!("'{}' must start with a number, as in '0001_tasks.sql'", shorten(name))))?;
        let (suffix, reverts) = match rest {
            _ if rest.ends_with(".up.sql") => (".up.sql", false),
            _ if rest.ends_with(".down.sql") => (".down.sql", true),
            _ => (".sql", false),
        };
        Ok(Some(Self { version, description: rest.trim_end_matches(suffix).replace('_', " "), reverts }))
    }
}

fn migration(version: i64, description: String, file: &File, down: Option<String>) -> Migration {
    let transactional = !file.sql.starts_with(NO_TRANSACTION);
    Migration { version, description, sql: file.sql.clone(), checksum: Vec::new(), transactional, down }
}

/// The names that are migrations, and that of sqlx's settings.
fn list(directory: &Path) -> Result<Vec<String>> {
    let unreadable = |error| invalid(format!("cannot read the directory '{}'", directory.display())).with_source(error);
    let mut names = Vec::new();
    for (seen, entry) in std::fs::read_dir(directory).map_err(unreadable)?.enumerate() {
        if seen >= FILES_MAX {
            return Err(invalid(format!("'{}' holds more than {FILES_MAX} entries", directory.display())));
        }
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // Follows links, as sqlx does: a set may be composed of them.
        let is_file = || std::fs::metadata(entry.path()).map(|m| m.is_file()).unwrap_or(true);
        let is_wanted = name == settings::NAME || (name.contains('_') && name.ends_with(".sql"));
        if is_wanted && is_file() {
            names.push(name.into_owned());
        }
    }
    Ok(names)
}

fn read_file(directory: &Path, name: &str) -> Result<File> {
    let bytes = read_bounded(&directory.join(name))?;
    let sql = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        invalid(format!("'{}' is not UTF-8 (byte {at})", shorten(name)))
    })?;
    Ok(File { name: name.to_owned(), sql })
}

fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    let unreadable = |error| invalid(format!("cannot read '{}'", path.display())).with_source(error);
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(invalid(format!("'{}' is larger than {} MiB", path.display(), FILE_BYTES_MAX >> 20)));
    }
    Ok(bytes)
}

fn check_text(file: &File) -> Result<()> {
    let name = shorten(&file.name);
    if file.sql.len() as u64 > FILE_BYTES_MAX {
        return Err(invalid(format!("'{name}' is larger than {} MiB", FILE_BYTES_MAX >> 20)));
    }
    if file.sql.contains('\0') {
        return Err(invalid(format!("'{name}' holds a NUL byte")));
    }
    Ok(())
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::MigrationInvalid, message)
}

/// Names come from outside; an error message stays one line.
fn shorten(name: &str) -> String {
    name.chars().take(120).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests;
