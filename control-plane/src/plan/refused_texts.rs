//! PURE: files of a release that an engine refuses by their text alone, and the tenants that they stop.
//!
//! A file that every tenant has applied stops no tenant. A release may be older than a rule, and an adopted database
//! may have applied what a new one could not.

use std::collections::{BTreeMap, BTreeSet};

use tenant_engine::EngineKind;
use tenant_engine::migration::{Migration, MigrationSets};
use tenant_engine::text_rules::{MigrationRefusal, migration_refusals};

use super::ledgers::FleetLedgers;
use crate::error::{Error, ErrorKind, ITEMS_MAX, ItemError};

/// Maximum number of statements of one file in an error. A dump that is not a migration has thousands.
const TOLD_MAX: usize = 5;
/// Maximum number of files named in the first line of an error.
const NAMED_MAX: usize = 3;

/// The files of a release that the engines refuse.
#[derive(Debug, Clone, Default)]
pub struct RefusedTexts {
    files: BTreeMap<EngineKind, Vec<RefusedFile>>,
    /// Whether one text is for every engine.
    is_shared: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct RefusedFile {
    version: i64,
    name: String,
    why: String,
}

impl RefusedTexts {
    /// Checks every file of every engine.
    #[must_use]
    pub fn of_sets(sets: &MigrationSets) -> Self {
        let is_shared = sets.written_for() == "any";
        let files = sets.iter().map(|(engine, set)| {
            let folder = if is_shared { String::new() } else { format!("{engine}/") };
            let file = |migration: &Migration| refused_file(engine, &folder, migration);
            (engine, set.all_migrations().iter().filter_map(file).collect())
        });
        let files = files.filter(|(_, files): &(_, Vec<RefusedFile>)| !files.is_empty()).collect();
        Self { files, is_shared }
    }

    /// Whether no file is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The error when a refused file is pending for some of these tenants on the way to `target`. `None` if there is
    /// none.
    #[must_use]
    pub fn refuse_pending(&self, going: &FleetLedgers, target: Option<i64>) -> Option<Error> {
        let mut found = BTreeSet::new();
        for group in going.ledger_groups() {
            let is_applied = |version: i64| group.ledger.iter().any(|(applied, _)| *applied == version);
            let is_wanted = |version: i64| target.is_none_or(|target| version <= target);
            let files = self.files.get(&group.engine).into_iter().flatten();
            found.extend(files.filter(|file| is_wanted(file.version) && !is_applied(file.version)));
        }
        refused_files_error(&found)
    }

    /// The error when these engines cannot use the release at all, because they refuse a file that no tenant has
    /// applied. Files for every engine may have been written for one of them only, so one engine that accepts them is
    /// enough.
    #[must_use]
    pub fn refuse_all(&self, engines: &[EngineKind], applied: &FleetLedgers) -> Option<Error> {
        let mut found = BTreeSet::new();
        for engine in EngineKind::ALL {
            let new = self.new_on(engine, applied);
            if self.is_shared && engines.contains(&engine) && new.is_empty() {
                return None;
            }
            if !self.is_shared || engines.contains(&engine) {
                found.extend(new);
            }
        }
        refused_files_error(&found)
    }

    /// Notes about a release that only some engines accept.
    #[must_use]
    pub fn engine_notes(&self, engines: &[EngineKind], applied: &FleetLedgers) -> Vec<String> {
        let told = |engine: &EngineKind| {
            let first = self.new_on(*engine, applied).into_iter().next()?;
            Some(format!("tenants on {engine} cannot be migrated to it: {}: {}", first.name, first.why))
        };
        engines.iter().filter_map(told).collect()
    }

    fn new_on(&self, engine: EngineKind, applied: &FleetLedgers) -> Vec<&RefusedFile> {
        let has = |version: i64| {
            let mut groups = applied.ledger_groups().filter(|group| group.engine == engine);
            groups.any(|group| group.ledger.iter().any(|(applied, _)| *applied == version))
        };
        self.files.get(&engine).into_iter().flatten().filter(|file| !has(file.version)).collect()
    }
}

fn refused_file(engine: EngineKind, folder: &str, migration: &Migration) -> Option<RefusedFile> {
    let found = migration_refusals(engine, migration);
    let line = |refusal: &MigrationRefusal| format!("line {}: {}", refusal.line, refusal.why);
    let mut told: Vec<String> = found.iter().take(TOLD_MAX).map(line).collect();
    if found.len() > TOLD_MAX {
        told.push(format!("and {} more statements", found.len() - TOLD_MAX));
    }
    let name = format!("{folder}{}", migration.file);
    (!found.is_empty()).then(|| RefusedFile { version: migration.version, name, why: told.join("; ") })
}

fn refused_files_error(found: &BTreeSet<&RefusedFile>) -> Option<Error> {
    let first = found.first()?;
    let names: BTreeSet<&str> = found.iter().map(|file| file.name.as_str()).collect();
    let shown = names.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    let more = if names.len() > NAMED_MAX { ", …" } else { "" };
    let detail = match names.len() {
        1 => format!("{}, {}", first.name, first.why),
        many => format!("{many} files cannot run in any database: {shown}{more}"),
    };
    let item =
        |(index, file): (usize, &&RefusedFile)| ItemError { index, name: file.name.clone(), detail: file.why.clone() };
    let mut error = Error::new(ErrorKind::MigrationRefused, detail)
        .try_next("correct these files, unless a tenant has applied them; then run the command again");
    error.items = found.iter().enumerate().take(ITEMS_MAX).map(item).collect();
    Some(error)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tenant_engine::migration::MigrationFile;

    use super::super::ledgers::applied_prefix;
    use super::*;

    fn sets(files: &[(&str, &str)]) -> MigrationSets {
        let file = |(name, sql): &(&str, &str)| MigrationFile { name: (*name).to_owned(), sql: (*sql).to_owned() };
        MigrationSets::from_files(&files.iter().map(file).collect::<Vec<_>>()).unwrap()
    }

    fn at(sets: &MigrationSets, engine: EngineKind, version: Option<i64>) -> FleetLedgers {
        let mut ledgers = FleetLedgers::default();
        ledgers.add_tenant(engine, &Arc::new(applied_prefix(sets.for_engine(engine).unwrap(), version)), "acme");
        ledgers
    }

    const SHARED: &[(&str, &str)] =
        &[("1_a.sql", "select 1"), ("2_b.sql", "select 1;\nrollback"), ("3_c.sql", "vacuum into 'x'")];

    #[test]
    fn only_what_is_pending_stops_a_run() {
        let shared = sets(SHARED);
        let texts = RefusedTexts::of_sets(&shared);
        let stops = |version, target| texts.refuse_pending(&at(&shared, EngineKind::Sqlite, version), target);
        let error = stops(None, None).unwrap();
        assert_eq!((error.code(), error.items.len()), ("migration_refused", 2));
        assert_eq!((error.items[0].name.as_str(), error.items[1].name.as_str()), ("2_b.sql", "3_c.sql"));
        assert!(error.items[0].detail.starts_with("line 2: ROLLBACK"), "{:?}", error.items);
        assert_eq!(stops(Some(2), None).unwrap().items.len(), 1);
        assert!(stops(Some(3), None).is_none() && stops(Some(1), Some(1)).is_none());
        assert!(texts.refuse_pending(&FleetLedgers::default(), None).is_none());
    }

    #[test]
    fn files_for_every_engine_need_one_that_takes_them() {
        let none = FleetLedgers::default();
        let both = [EngineKind::Sqlite, EngineKind::Postgres];
        let copies = RefusedTexts::of_sets(&sets(&[("1_a.sql", "create table a(b int);\ncopy a from stdin;")]));
        assert!(copies.refuse_all(&[EngineKind::Postgres], &none).is_some());
        let parts = RefusedTexts::of_sets(&sets(&[("1_a.sql", "attach 'x' as y")]));
        assert!(parts.refuse_all(&[EngineKind::Sqlite], &none).is_some());
        assert!(parts.refuse_all(&both, &none).is_none());
        assert!(parts.engine_notes(&both, &none)[0].contains("sqlite"));
        let shared = sets(SHARED);
        let texts = RefusedTexts::of_sets(&shared);
        assert!(texts.refuse_all(&both, &none).is_some());
        assert!(texts.refuse_all(&both[..1], &at(&shared, EngineKind::Sqlite, Some(3))).is_none(), "a tenant has it");
    }

    #[test]
    fn a_folder_is_for_its_engine_whatever_the_fleet_has() {
        let folders = sets(&[("sqlite/1_a.sql", "select 1"), ("postgres/1_a.sql", "\\connect x\nset role y")]);
        let error =
            RefusedTexts::of_sets(&folders).refuse_all(&[EngineKind::Sqlite], &FleetLedgers::default()).unwrap();
        assert!(error.detail.contains("postgres/1_a.sql, line 1"), "{}", error.detail);
    }
}
