//! The sets of one release. A fleet has one line of versions; what a version says may differ between engines.
//!
//! A directory with files at its top is one set for every engine. A directory with the folders `sqlite/` and
//! `postgres/` holds one set each, of the same versions; an engine whose folder is missing has none.

use std::collections::{BTreeMap, BTreeSet};

use super::{File, MigrationSet, invalid, settings, shorten};
use crate::error::{Error, ErrorKind, Result};
use crate::placement::EngineKind;

/// Missing versions that an error lists for one folder.
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
    pub fn from_files(files: &[File]) -> Result<Self> {
        if files.iter().all(|file| !file.name.contains('/')) {
            return Ok(Self::same(MigrationSet::from_files(files)?));
        }
        let mut folders: BTreeMap<EngineKind, Vec<File>> = BTreeMap::new();
        for file in files.iter().filter(|file| file.name != settings::NAME) {
            let (engine, name) = in_folder(file)?;
            folders.entry(engine).or_default().push(File { name: name.to_owned(), sql: file.sql.clone() });
        }
        if let Some(settings) = files.iter().find(|file| file.name == settings::NAME) {
            share(settings, &mut folders);
        }
        let named = |(engine, files): (EngineKind, Vec<File>)| Ok((engine, MigrationSet::from_files(&files)?));
        let sets = folders.into_iter().map(named).collect::<Result<BTreeMap<_, _>>>()?;
        same_versions(&sets)?;
        Ok(Self { digest: digest(&sets), written_for: written_for(&sets), sets })
    }

    /// The release with nothing in it: a tenant before the first one.
    #[must_use]
    pub fn empty() -> Self {
        Self::same(MigrationSet::empty())
    }

    fn same(set: MigrationSet) -> Self {
        let digest = set.digest().to_owned();
        let sets = EngineKind::ALL.into_iter().map(|engine| (engine, set.clone())).collect();
        Self { sets, digest, written_for: "any" }
    }

    /// The set of this engine.
    ///
    /// # Errors
    /// [`ErrorKind::MigrationInvalid`] when the release has none for it.
    pub fn of(&self, engine: EngineKind) -> Result<&MigrationSet> {
        self.sets.get(&engine).ok_or_else(|| {
            let message = format!("the release has no migrations for {engine}: it lacks the folder '{engine}/'");
            Error::new(ErrorKind::MigrationInvalid, message)
        })
    }

    /// The engines it has migrations for, with their sets.
    pub fn iter(&self) -> impl Iterator<Item = (EngineKind, &MigrationSet)> {
        self.sets.iter().map(|(engine, set)| (*engine, set))
    }

    /// Its versions and their names, in order: the same for every engine.
    #[must_use]
    pub fn versions(&self) -> &MigrationSet {
        self.sets.values().next().expect("there is a set for at least one engine")
    }

    /// Names the release: equal digest, equal release.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// `any`, `sqlite`, `postgres` or `sqlite+postgres`.
    #[must_use]
    pub fn written_for(&self) -> &'static str {
        self.written_for
    }
}

/// The settings at the top hold for the folders that have none.
fn share(settings: &File, folders: &mut BTreeMap<EngineKind, Vec<File>>) {
    for files in folders.values_mut() {
        if files.iter().all(|file| file.name != settings::NAME) {
            files.push(settings.clone());
        }
    }
}

fn in_folder(file: &File) -> Result<(EngineKind, &str)> {
    let wrong = || {
        invalid(format!(
            "'{}' does not fit the others: put all files into the folders sqlite/ and postgres/, or none",
            shorten(&file.name)
        ))
    };
    let (folder, name) = file.name.split_once('/').ok_or_else(wrong)?;
    match folder.parse() {
        Ok(engine) if !name.contains('/') => Ok((engine, name)),
        _ => Err(wrong()),
    }
}

/// One line of versions: a tenant's number means the same wherever it lives.
fn same_versions(sets: &BTreeMap<EngineKind, MigrationSet>) -> Result<()> {
    let lacking = |(engine, set): (&EngineKind, &MigrationSet)| {
        let others = sets.values().flat_map(|other| other.migrations().iter().map(|m| m.version));
        let missing: BTreeSet<i64> = others.filter(|version| set.get(*version).is_none()).collect();
        (!missing.is_empty()).then(|| format!("{engine}/ lacks {}", listed(&missing)))
    };
    let lacking: Vec<String> = sets.iter().filter_map(lacking).collect();
    match lacking.is_empty() {
        true => Ok(()),
        false => Err(invalid(format!(
            "{}; for a version that an engine does not need, add a file with that number and only a comment",
            lacking.join("; ")
        ))),
    }
}

fn listed(versions: &BTreeSet<i64>) -> String {
    let shown: Vec<String> = versions.iter().take(VERSIONS_SHOWN).map(|version| format!("version {version}")).collect();
    let more = versions.len().saturating_sub(VERSIONS_SHOWN);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

fn digest(sets: &BTreeMap<EngineKind, MigrationSet>) -> String {
    let mut hasher = blake3::Hasher::new();
    for (engine, set) in sets {
        hasher.update(engine.as_str().as_bytes());
        hasher.update(set.digest().as_bytes());
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
        let file = |(name, sql): &(&str, &str)| File { name: (*name).to_owned(), sql: (*sql).to_owned() };
        MigrationSets::from_files(&files.iter().map(file).collect::<Vec<_>>())
    }

    #[test]
    fn files_at_the_top_are_for_every_engine() {
        let flat = sets(&[("1_a.sql", "x")]).unwrap();
        assert_eq!(flat.of(EngineKind::Sqlite).unwrap(), flat.of(EngineKind::Postgres).unwrap());
        assert_eq!((flat.digest(), flat.written_for()), (flat.versions().digest(), "any"));
    }

    #[test]
    fn folders_are_one_line_of_versions() {
        let both = sets(&[("sqlite/1_a.sql", "x"), ("postgres/1_a.sql", "y")]).unwrap();
        assert_eq!(both.of(EngineKind::Postgres).unwrap().migrations()[0].sql, "y");
        assert_eq!(both.written_for(), "sqlite+postgres");
        let swapped = sets(&[("sqlite/1_a.sql", "y"), ("postgres/1_a.sql", "x")]).unwrap();
        assert_ne!(both.digest(), swapped.digest());
        let only = sets(&[("postgres/1_a.sql", "y")]).unwrap();
        assert_eq!(only.of(EngineKind::Sqlite).unwrap_err().kind(), ErrorKind::MigrationInvalid);
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
    fn settings_at_the_top_hold_for_folders_without_their_own() {
        let ignoring = ("sqlx.toml", "[migrate]\nignored-chars = ['\\r']");
        let ignoring = (ignoring.0, ignoring.1.replace('\'', "\""));
        let both = sets(&[(ignoring.0, &ignoring.1), ("sqlite/1_a.sql", "x\r"), ("postgres/1_a.sql", "x\r")]).unwrap();
        let plain = sets(&[("1_a.sql", "x")]).unwrap();
        for engine in EngineKind::ALL {
            let checksum = |sets: &MigrationSets| sets.of(engine).unwrap().migrations()[0].checksum.clone();
            assert_eq!(checksum(&both), checksum(&plain));
        }
    }
}
