//! The migration sets of one release. A fleet has one sequence of versions, but the SQL of a version may differ between
//! engines.
//!
//! A directory with files at its top is one set for every engine. A directory with the folders `sqlite/` and
//! `postgres/` holds one set in each, with equal versions. An engine whose folder is missing has no set.

use std::collections::{BTreeMap, BTreeSet};

use super::settings::SqlxSettings;
use super::{LedgerName, MigrationFile, MigrationFileName, MigrationSet, migration_invalid, settings, shorten_name};
use crate::error::{Error, ErrorKind, Result};
use crate::placement::EngineKind;

/// Number of missing versions that an error lists for one folder.
const VERSIONS_SHOWN: usize = 100;

/// Checked sets, one per engine. Clones share the texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationSets {
    sets: BTreeMap<EngineKind, MigrationSet>,
    digest: String,
    written_for: &'static str,
}

impl MigrationSets {
    /// The sets made of these files, whose names may begin with `sqlite/` or `postgres/`.
    ///
    /// # Errors
    /// [`ErrorKind::MigrationInvalid`] naming the file or the version.
    pub fn from_files(files: &[MigrationFile]) -> Result<Self> {
        if files.iter().all(|file| !file.name.contains('/')) {
            return Ok(Self::same_for_all(MigrationSet::from_files(files)?));
        }
        let mut folders: BTreeMap<EngineKind, Vec<MigrationFile>> = BTreeMap::new();
        for file in files.iter().filter(|file| file.name != settings::NAME) {
            let (engine, name) = in_folder(file)?;
            folders.entry(engine).or_default().push(MigrationFile { name: name.to_owned(), sql: file.sql.clone() });
        }
        if let Some(settings) = files.iter().find(|file| file.name == settings::NAME) {
            share_settings(settings, &mut folders);
        }
        let named = |(engine, files): (EngineKind, Vec<MigrationFile>)| Ok((engine, MigrationSet::from_files(&files)?));
        let sets = folders.into_iter().map(named).collect::<Result<BTreeMap<_, _>>>()?;
        same_versions(&sets)?;
        Ok(Self { digest: combine_digests(&sets), written_for: written_for(&sets), sets })
    }

    /// The empty release, for a tenant before the first release.
    #[must_use]
    pub fn empty_release() -> Self {
        Self::same_for_all(MigrationSet::empty_set())
    }

    fn same_for_all(set: MigrationSet) -> Self {
        let digest = set.set_digest().to_owned();
        let sets = EngineKind::ALL.into_iter().map(|engine| (engine, set.clone())).collect();
        Self { sets, digest, written_for: "any" }
    }

    /// The set for this engine.
    ///
    /// # Errors
    /// [`ErrorKind::MigrationInvalid`] when the release has no set for this engine.
    pub fn for_engine(&self, engine: EngineKind) -> Result<&MigrationSet> {
        self.sets.get(&engine).ok_or_else(|| {
            let message = format!("the release has no migrations for {engine}: it lacks the folder '{engine}/'");
            Error::new(ErrorKind::MigrationInvalid, message)
        })
    }

    /// The engines that the release has migrations for, with their sets.
    pub fn iter(&self) -> impl Iterator<Item = (EngineKind, &MigrationSet)> {
        self.sets.iter().map(|(engine, set)| (*engine, set))
    }

    /// The versions and their names, in order; equal for every engine.
    #[must_use]
    pub fn version_set(&self) -> &MigrationSet {
        self.sets.values().next().expect("there is a set for at least one engine")
    }

    /// Identifies the release: releases with equal digests are equal.
    #[must_use]
    pub fn release_digest(&self) -> &str {
        &self.digest
    }

    /// `any`, `sqlite`, `postgres` or `sqlite+postgres`.
    #[must_use]
    pub fn written_for(&self) -> &'static str {
        self.written_for
    }
}

/// The ledger's name for this engine in a release of these files. Only the files named [`settings::NAME`] can set it.
///
/// # Errors
/// [`ErrorKind::MigrationInvalid`] naming the key.
pub fn ledger_in(files: &[MigrationFile], engine: EngineKind) -> Result<LedgerName> {
    let named = |name: &str| files.iter().find(|file| file.name == name);
    let settings = named(&format!("{engine}/{}", settings::NAME)).or_else(|| named(settings::NAME));
    settings.map_or_else(|| Ok(LedgerName::default()), |file| Ok(SqlxSettings::parse(&file.sql)?.ledger))
}

/// Names of the files that belong to no set.
#[must_use]
pub fn ignored_files(files: &[MigrationFile]) -> Vec<String> {
    let is_read = |file: &&MigrationFile| {
        let name = file.name.rsplit('/').next().unwrap_or_default();
        name == settings::NAME || matches!(MigrationFileName::parse(name), Ok(Some(_)))
    };
    files.iter().filter(|file| !is_read(file)).map(|file| file.name.clone()).collect()
}

/// The settings at the top apply to the folders that have none of their own.
fn share_settings(settings: &MigrationFile, folders: &mut BTreeMap<EngineKind, Vec<MigrationFile>>) {
    for files in folders.values_mut() {
        if files.iter().all(|file| file.name != settings::NAME) {
            files.push(settings.clone());
        }
    }
}

fn in_folder(file: &MigrationFile) -> Result<(EngineKind, &str)> {
    let wrong = || {
        migration_invalid(format!(
            "'{}' does not fit the others: put all files into the folders sqlite/ and postgres/, or none",
            shorten_name(&file.name)
        ))
    };
    let (folder, name) = file.name.split_once('/').ok_or_else(wrong)?;
    match folder.parse() {
        Ok(engine) if !name.contains('/') => Ok((engine, name)),
        _ => Err(wrong()),
    }
}

/// All engines share one sequence of versions: a tenant's version number means the same on every engine.
fn same_versions(sets: &BTreeMap<EngineKind, MigrationSet>) -> Result<()> {
    let lacking = |(engine, set): (&EngineKind, &MigrationSet)| {
        let others = sets.values().flat_map(|other| other.all_migrations().iter().map(|m| m.version));
        let missing: BTreeSet<i64> = others.filter(|version| set.get(*version).is_none()).collect();
        (!missing.is_empty()).then(|| format!("{engine}/ lacks {}", list_versions(&missing)))
    };
    let lacking: Vec<String> = sets.iter().filter_map(lacking).collect();
    match lacking.is_empty() {
        true => Ok(()),
        false => Err(migration_invalid(format!(
            "{}; for a version that an engine does not need, add a file with that number and only a comment",
            lacking.join("; ")
        ))),
    }
}

fn list_versions(versions: &BTreeSet<i64>) -> String {
    let shown: Vec<String> = versions.iter().take(VERSIONS_SHOWN).map(|version| format!("version {version}")).collect();
    let more = versions.len().saturating_sub(VERSIONS_SHOWN);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

fn combine_digests(sets: &BTreeMap<EngineKind, MigrationSet>) -> String {
    let mut hasher = blake3::Hasher::new();
    for (engine, set) in sets {
        hasher.update(engine.as_str().as_bytes());
        hasher.update(set.set_digest().as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

fn written_for(sets: &BTreeMap<EngineKind, MigrationSet>) -> &'static str {
    match (sets.contains_key(&EngineKind::Sqlite), sets.contains_key(&EngineKind::Postgres)) {
        (true, true) => "sqlite+postgres",
        (true, false) => "sqlite",
        _ => "postgres",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(files: &[(&str, &str)]) -> Result<MigrationSets> {
        let file = |(name, sql): &(&str, &str)| MigrationFile { name: (*name).to_owned(), sql: (*sql).to_owned() };
        MigrationSets::from_files(&files.iter().map(file).collect::<Vec<_>>())
    }

    #[test]
    fn files_at_the_top_are_for_every_engine() {
        let flat = sets(&[("1_a.sql", "x")]).unwrap();
        assert_eq!(flat.for_engine(EngineKind::Sqlite).unwrap(), flat.for_engine(EngineKind::Postgres).unwrap());
        assert_eq!((flat.release_digest(), flat.written_for()), (flat.version_set().set_digest(), "any"));
    }

    #[test]
    fn folders_are_one_line_of_versions() {
        let both = sets(&[("sqlite/1_a.sql", "x"), ("postgres/1_a.sql", "y")]).unwrap();
        assert_eq!(both.for_engine(EngineKind::Postgres).unwrap().all_migrations()[0].sql, "y");
        assert_eq!(both.written_for(), "sqlite+postgres");
        let swapped = sets(&[("sqlite/1_a.sql", "y"), ("postgres/1_a.sql", "x")]).unwrap();
        assert_ne!(both.release_digest(), swapped.release_digest());
        let only = sets(&[("postgres/1_a.sql", "y")]).unwrap();
        assert_eq!(only.for_engine(EngineKind::Sqlite).unwrap_err().kind(), ErrorKind::MigrationInvalid);
        assert_eq!(only.written_for(), "postgres");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (files, named) in [
            (&[("sqlite/1_a.sql", "x"), ("2_b.sql", "y")][..], "2_b.sql"),
            (&[("mysql/1_a.sql", "x")], "mysql"),
            (&[("sqlite/old/1_a.sql", "x")], "old"),
            (&[("sqlite/1_a.sql", "x"), ("postgres/2_b.sql", "y")], "version"),
        ] {
            let error = sets(files).unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
        }
        let files =
            [("sqlite/1_a.sql", "x"), ("sqlite/3_c.sql", "x"), ("postgres/2_b.sql", "y"), ("postgres/4_d.sql", "")];
        let error = sets(&files).unwrap_err();
        for part in ["sqlite/ lacks version 2, version 4", "postgres/ lacks version 1, version 3"] {
            assert!(error.message().contains(part), "{error}");
        }
    }

    #[test]
    fn the_ledger_is_part_of_a_set() {
        let ops = ("sqlx.toml", "migrate.table-name = 'ops'");
        let (plain, named) = (sets(&[("1_a.sql", "x")]).unwrap(), sets(&[("1_a.sql", "x"), ops]).unwrap());
        assert_ne!(plain.release_digest(), named.release_digest());
        let set = named.for_engine(EngineKind::Sqlite).unwrap();
        assert_eq!((set.ledger().as_str(), set.all_migrations()[0].ledger.as_str()), ("ops", "ops"));
        set.require_ledger(set.ledger()).unwrap();
        assert!(set.require_ledger(&LedgerName::default()).unwrap_err().message().contains("_sqlx_migrations"));
        let usual = sets(&[("1_a.sql", "x"), ("sqlx.toml", "migrate.table-name = 'public._sqlx_migrations'")]).unwrap();
        assert_eq!(usual.release_digest(), plain.release_digest());
        assert!(
            set.earlier_digests().iter().all(|digest| !plain
                .for_engine(EngineKind::Sqlite)
                .unwrap()
                .earlier_digests()
                .contains(digest))
        );
    }

    #[test]
    fn each_engine_may_have_a_ledger_of_its_own() {
        let file = |name: &str, ledger: &str| MigrationFile {
            name: name.to_owned(),
            sql: if ledger.is_empty() { "x".to_owned() } else { format!("migrate.table-name = '{ledger}'") },
        };
        let files = [
            file("sqlx.toml", "ops"),
            file("sqlite/sqlx.toml", "lite"),
            file("sqlite/1_a.sql", ""),
            file("postgres/1_a.sql", ""),
        ];
        let sets = MigrationSets::from_files(&files).unwrap();
        for (engine, name) in [(EngineKind::Sqlite, "lite"), (EngineKind::Postgres, "ops")] {
            assert_eq!(sets.for_engine(engine).unwrap().ledger().as_str(), name);
            assert_eq!(ledger_in(&files, engine).unwrap().as_str(), name);
        }
        assert!(ledger_in(&files[2..], EngineKind::Sqlite).unwrap().is_usual());
    }

    #[test]
    fn settings_at_the_top_hold_for_folders_without_their_own() {
        let ignoring = ("sqlx.toml", "[migrate]\nignored-chars = ['\\r']");
        let ignoring = (ignoring.0, ignoring.1.replace('\'', "\""));
        let both = sets(&[(ignoring.0, &ignoring.1), ("sqlite/1_a.sql", "x\r"), ("postgres/1_a.sql", "x\r")]).unwrap();
        let plain = sets(&[("1_a.sql", "x")]).unwrap();
        for engine in EngineKind::ALL {
            let checksum = |sets: &MigrationSets| sets.for_engine(engine).unwrap().all_migrations()[0].checksum.clone();
            assert_eq!(checksum(&both), checksum(&plain));
        }
    }
}
