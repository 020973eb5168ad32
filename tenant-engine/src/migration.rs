//! Migration sets: a directory in sqlx's layout, read unchanged, and the pure decision which versions are pending.
//!
//! The control plane reads a directory once and stores its [`MigrationFile`]s in the catalog. Any process makes the
//! same [`MigrationSet`] from them. The engines run the versions that [`pending_migrations`] returns. Nothing here
//! opens a database.
//!
//! The rules for names, checksums and `-- no-transaction` are those of sqlx 0.9. So sqlx's command line and this
//! program can take turns on one database. A directory that sqlx accepts but that must be a mistake (two files of one
//! version) is refused. The settings in `sqlx.toml` are followed or refused.

mod ledger_name;
mod mismatches;
mod sets;
mod settings;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use ledger_name::LedgerName;
pub use mismatches::{LedgerMismatch, LedgerMismatchKind, ledger_mismatches};
pub use sets::{MigrationSets, ignored_files, ledger_in};
pub use settings::NAME as SETTINGS_NAME;

use self::settings::SqlxSettings;
use crate::error::{Error, ErrorKind, Result};

/// Seed data such as countries or postal codes takes some megabytes. A request that uploads a set holds 32 MiB.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Maximum number of directory entries that are read: enough for decades of migrations.
const FILES_MAX: usize = 10_000;
/// A set is kept in memory and in one row of the catalog.
const SET_BYTES_MAX: usize = 64 << 20;
/// A file that starts with this text is run outside a transaction.
const NO_TRANSACTION: &str = "-- no-transaction";

/// One migration file (or one file of a reversible pair).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationFile {
    /// Name of the file, for instance `0001_tasks.up.sql`.
    pub name: String,
    /// Text of the file, byte for byte.
    pub sql: String,
}

/// One version of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// The number before the first underscore.
    pub version: i64,
    /// The rest of the name, underscores as spaces.
    pub description: String,
    /// Name of the file.
    pub file: String,
    /// The SQL text that is run.
    pub sql: String,
    /// SHA-384 of the file's bytes, as sqlx writes it.
    pub checksum: Vec<u8>,
    /// False when the file's first bytes are `-- no-transaction`.
    pub transactional: bool,
    /// The SQL text that reverts this version, if the set has one.
    pub down: Option<String>,
    /// The table that lists the applied versions of each database.
    pub ledger: LedgerName,
}

/// One row of a database's ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedMigration {
    /// The number of the version.
    pub version: i64,
    /// SHA-384 of the file that was applied.
    pub checksum: Vec<u8>,
    /// False when the migration began and did not finish.
    pub success: bool,
}

/// A checked, ordered set of migrations. Clones share the texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationSet {
    migrations: Arc<[Migration]>,
    ledger: LedgerName,
    digest: String,
}

impl MigrationSet {
    /// Reads a directory as sqlx does: files whose name does not match `<number>_<name>.sql` are ignored. Also returns
    /// the files of the set, by name, for the caller to store.
    ///
    /// # Errors
    /// [`ErrorKind::MigrationInvalid`] naming the file.
    pub fn read_directory(directory: &Path) -> Result<(Self, Vec<MigrationFile>)> {
        let mut names = list_directory(directory)?;
        names.sort();
        let files = names.iter().map(|name| read_file(directory, name)).collect::<Result<Vec<_>>>()?;
        Ok((Self::from_files(&files)?, files))
    }

    /// The set made of these files.
    ///
    /// # Errors
    /// [`ErrorKind::MigrationInvalid`] naming the file.
    pub fn from_files(files: &[MigrationFile]) -> Result<Self> {
        let total: usize = files.iter().map(|file| file.sql.len()).sum();
        if files.len() > FILES_MAX || total > SET_BYTES_MAX {
            return Err(migration_invalid(format!("a set holds at most {FILES_MAX} files and {SET_BYTES_MAX} bytes")));
        }
        let settings = files.iter().find(|file| file.name == settings::NAME);
        let settings = settings.map(|file| SqlxSettings::parse(&file.sql)).transpose()?.unwrap_or_default();
        let (mut ups, mut downs) = (BTreeMap::new(), BTreeMap::new());
        for file in files {
            let Some(name) = MigrationFileName::parse(&file.name)? else { continue };
            check_text(file)?;
            let side = if name.reverts { &mut downs } else { &mut ups };
            if let Some((_, other)) = side.insert(name.version, (name.description, file)) {
                return Err(migration_invalid(format!(
                    "'{}' and '{}' both are version {}; give one of them another number",
                    other.name, file.name, name.version
                )));
            }
        }
        let down = |version| downs.get(&version).map(|(_, file)| file.sql.clone());
        let up = |(version, (description, file)): (i64, (String, &MigrationFile))| {
            let checksum = settings.text_checksum(&file.sql);
            let ledger = settings.ledger.clone();
            Migration { checksum, ledger, ..new_migration(version, description, file, down(version)) }
        };
        Ok(Self::new(ups.into_iter().map(up).collect(), settings.ledger.clone()))
    }

    /// The empty set, for a tenant before the first release.
    #[must_use]
    pub fn empty_set() -> Self {
        Self::empty_in(LedgerName::default())
    }

    /// The empty set, for databases whose ledger has this name.
    #[must_use]
    pub fn empty_in(ledger: LedgerName) -> Self {
        Self::new(Vec::new(), ledger)
    }

    fn new(migrations: Vec<Migration>, ledger: LedgerName) -> Self {
        let mut hasher = begun(&ledger);
        for migration in &migrations {
            hasher.update(&migration.version.to_be_bytes());
            hasher.update(&migration.checksum);
        }
        Self { migrations: migrations.into(), ledger, digest: hasher.finalize().to_hex().to_string() }
    }

    /// Digests of the sets that this set may continue: this set without its last version, without its last two, and so
    /// on.
    pub(crate) fn earlier_digests(&self) -> Vec<String> {
        let mut hasher = begun(&self.ledger);
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

    /// blake3 (hex) over versions and checksums; it identifies the release.
    #[must_use]
    pub fn set_digest(&self) -> &str {
        &self.digest
    }

    /// The table that lists the applied versions in a database.
    #[must_use]
    pub fn ledger(&self) -> &LedgerName {
        &self.ledger
    }

    /// Refuses a database whose ledger has another name. Otherwise no version would count as applied, and each would
    /// run a second time.
    ///
    /// # Errors
    /// [`ErrorKind::MigrationInvalid`] with both names.
    pub fn require_ledger(&self, recorded: &LedgerName) -> Result<()> {
        if self.ledger == *recorded {
            return Ok(());
        }
        Err(migration_invalid(format!(
            "the database keeps its ledger in {recorded}, the migrations in {}: set table-name of [migrate] in {} to \
             {recorded}",
            self.ledger,
            settings::NAME
        )))
    }

    /// All migrations, ordered by version.
    #[must_use]
    pub fn all_migrations(&self) -> &[Migration] {
        &self.migrations
    }

    /// The newest version; `None` for the empty set.
    #[must_use]
    pub fn head_version(&self) -> Option<i64> {
        self.migrations.last().map(|m| m.version)
    }

    /// The migration with this number, if the set holds it.
    #[must_use]
    pub fn get(&self, version: i64) -> Option<&Migration> {
        let index = self.migrations.binary_search_by_key(&version, |m| m.version).ok()?;
        self.migrations.get(index)
    }
}

/// With sqlx's own ledger name the digest stays as it was before other names were possible.
fn begun(ledger: &LedgerName) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    if !ledger.is_usual() {
        hasher.update(b"ledger ").update(ledger.as_str().as_bytes()).update(b"\0");
    }
    hasher
}

/// The migrations that must be applied to a database with this ledger, in order. A version below the newest one that
/// was never applied (because it was merged late) is pending too, as in sqlx.
///
/// # Errors
/// [`ErrorKind::MigrationDirty`] first. Otherwise [`ErrorKind::MigrationChanged`], [`ErrorKind::MigrationMissing`] or
/// [`ErrorKind::MigrationAhead`] for the lowest version that does not match, naming the version.
pub fn pending_migrations<'a>(set: &'a MigrationSet, applied: &[AppliedMigration]) -> Result<Vec<&'a Migration>> {
    let mut ledger: BTreeMap<i64, &AppliedMigration> = BTreeMap::new();
    ledger.extend(applied.iter().map(|row| (row.version, row)));
    if let Some(dirty) = ledger.values().find(|row| !row.success) {
        return Err(dirty_version(dirty.version, &set.ledger));
    }
    ledger.values().try_for_each(|row| check_applied(set, row))?;
    Ok(set.migrations.iter().filter(|m| !ledger.contains_key(&m.version)).collect())
}

/// [`pending_migrations`], stopping after the version `target`.
///
/// # Errors
/// As [`pending_migrations`]; [`ErrorKind::MigrationInvalid`] when the set does not hold the target.
pub fn pending_to<'a>(
    set: &'a MigrationSet,
    applied: &[AppliedMigration],
    target: Option<i64>,
) -> Result<Vec<&'a Migration>> {
    let mut todo = pending_migrations(set, applied)?;
    if let Some(target) = target {
        if set.get(target).is_none() {
            return Err(migration_invalid(format!("the set holds no version {target} to stop after")));
        }
        todo.retain(|m| m.version <= target);
    }
    Ok(todo)
}

fn check_applied(set: &MigrationSet, row: &AppliedMigration) -> Result<()> {
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
        None if set.head_version().is_none_or(|head| version > head) => Err(Error::new(
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
    set.head_version().map_or_else(|| "none (the set is empty)".to_owned(), |head| head.to_string())
}

fn dirty_version(version: i64, ledger: &LedgerName) -> Error {
    Error::new(
        ErrorKind::MigrationDirty,
        format!(
            "version {version} runs outside a transaction and did not finish; look at what it left, finish or undo it \
             by hand, then set success to 1 in its row of {ledger}, or delete the row to have it run again"
        ),
    )
}

/// The parts of a migration file's name.
#[derive(Debug, PartialEq, Eq)]
struct MigrationFileName {
    version: i64,
    description: String,
    reverts: bool,
}

impl MigrationFileName {
    /// `None` for a name that is not a migration; an error for a name that looks like one but is invalid.
    fn parse(name: &str) -> Result<Option<Self>> {
        let Some((number, rest)) = name.split_once('_') else { return Ok(None) };
        if !rest.ends_with(".sql") {
            return Ok(None);
        }
        let version = number.parse().map_err(|_| {
            migration_invalid(format!("'{}' must start with a number, as in '0001_tasks.sql'", shorten_name(name)))
        })?;
        let (suffix, reverts) = match rest {
            _ if rest.ends_with(".up.sql") => (".up.sql", false),
            _ if rest.ends_with(".down.sql") => (".down.sql", true),
            _ => (".sql", false),
        };
        Ok(Some(Self { version, description: rest.trim_end_matches(suffix).replace('_', " "), reverts }))
    }
}

fn new_migration(version: i64, description: String, file: &MigrationFile, down: Option<String>) -> Migration {
    let transactional = !file.sql.starts_with(NO_TRANSACTION);
    let (name, sql) = (file.name.clone(), file.sql.clone());
    let (checksum, ledger) = (Vec::new(), LedgerName::default());
    Migration { version, description, file: name, sql, checksum, transactional, down, ledger }
}

/// The names of the migration files, and of the settings file of sqlx.
fn list_directory(directory: &Path) -> Result<Vec<String>> {
    let unreadable =
        |error| migration_invalid(format!("cannot read the directory '{}'", directory.display())).with_source(error);
    let mut names = Vec::new();
    for (seen, entry) in std::fs::read_dir(directory).map_err(unreadable)?.enumerate() {
        if seen >= FILES_MAX {
            return Err(migration_invalid(format!("'{}' holds more than {FILES_MAX} entries", directory.display())));
        }
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // Follows links, as sqlx does: a set may consist of links.
        let is_file = || std::fs::metadata(entry.path()).map(|m| m.is_file()).unwrap_or(true);
        let is_wanted = name == settings::NAME || (name.contains('_') && name.ends_with(".sql"));
        if is_wanted && is_file() {
            names.push(name.into_owned());
        }
    }
    Ok(names)
}

fn read_file(directory: &Path, name: &str) -> Result<MigrationFile> {
    let bytes = read_bounded(&directory.join(name))?;
    let sql = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        migration_invalid(format!("'{}' is not UTF-8 (byte {at})", shorten_name(name)))
    })?;
    Ok(MigrationFile { name: name.to_owned(), sql })
}

fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    let unreadable = |error| migration_invalid(format!("cannot read '{}'", path.display())).with_source(error);
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(migration_invalid(format!("'{}' is larger than {} MiB", path.display(), FILE_BYTES_MAX >> 20)));
    }
    Ok(bytes)
}

fn check_text(file: &MigrationFile) -> Result<()> {
    let name = shorten_name(&file.name);
    if file.sql.len() as u64 > FILE_BYTES_MAX {
        return Err(migration_invalid(format!("'{name}' is larger than {} MiB", FILE_BYTES_MAX >> 20)));
    }
    if file.sql.contains('\0') {
        return Err(migration_invalid(format!("'{name}' holds a NUL byte")));
    }
    Ok(())
}

fn migration_invalid(message: String) -> Error {
    Error::new(ErrorKind::MigrationInvalid, message)
}

/// Names come from outside; an error message must stay on one line.
fn shorten_name(name: &str) -> String {
    name.chars().take(120).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests;
