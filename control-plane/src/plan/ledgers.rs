//! PURE: decides whether a migration set continues what tenants have applied. A changed, missing or renumbered old file
//! would give tenants different schemas under one version.
//!
//! Tenants are grouped by what they have applied. A fleet of many thousands has a handful of groups.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tenant_engine::EngineKind;
use tenant_engine::migration::{
    LedgerMismatch, LedgerMismatchKind, Migration, MigrationSet, MigrationSets, ledger_mismatches,
};

use crate::error::Error;

/// Tenants of one group named in an error: enough to recognise the group.
const NAMED_MAX: usize = 3;
/// Maximum number of versions in one error.
const TOLD_MAX: usize = 5;

/// Applied versions and their checksums, in order.
pub type AppliedLedger = Vec<(i64, Vec<u8>)>;

/// Tenants on one engine that have applied the same migrations.
#[derive(Debug, Clone)]
pub struct LedgerGroup {
    /// The engine of their databases.
    pub engine: EngineKind,
    /// The migrations that they have applied.
    pub ledger: Arc<AppliedLedger>,
    /// The number of tenants.
    pub tenants: u64,
    /// The names of the first few tenants.
    pub names: Vec<String>,
}

/// The checksums that tenants have of one version, each with the number of tenants and the first names.
type ChecksumTally<'a> = BTreeMap<&'a [u8], (u64, Vec<&'a str>)>;

/// How the ledger of a group relates to a migration set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedgerStanding {
    /// The tenants lack versions of the set.
    Behind,
    /// The tenants have applied exactly the set.
    There,
    /// The tenants have applied the set and newer versions.
    Ahead,
    /// The tenants have applied other texts, or versions that the set lacks.
    Differs,
}

/// The ledgers of some tenants, in groups.
#[derive(Debug, Clone, Default)]
pub struct FleetLedgers {
    groups: BTreeMap<(EngineKind, Arc<AppliedLedger>), LedgerGroup>,
}

/// The part of a set that a tenant at `version` has applied.
#[must_use]
pub fn applied_prefix(set: &MigrationSet, version: Option<i64>) -> AppliedLedger {
    let applied = set.all_migrations().iter().filter(|m| version.is_some_and(|version| m.version <= version));
    applied.map(|m| (m.version, m.checksum.clone())).collect()
}

impl FleetLedgers {
    /// Adds a tenant to its group.
    pub fn add_tenant(&mut self, engine: EngineKind, ledger: &Arc<AppliedLedger>, name: &str) {
        let group = self.groups.entry((engine, Arc::clone(ledger))).or_insert_with(|| LedgerGroup {
            engine,
            ledger: Arc::clone(ledger),
            tenants: 0,
            names: Vec::new(),
        });
        group.tenants += 1;
        if group.names.len() < NAMED_MAX {
            group.names.push(name.to_owned());
        }
    }

    /// The groups, ordered by engine and ledger.
    pub fn ledger_groups(&self) -> impl Iterator<Item = &LedgerGroup> {
        self.groups.values()
    }

    fn tenant_count(&self) -> u64 {
        self.ledger_groups().map(|group| group.tenants).sum()
    }

    /// The error of a set that does not continue what these tenants have applied. `None` if it does.
    #[must_use]
    pub fn refuse_misfits(&self, sets: &MigrationSets) -> Option<Error> {
        let mut found: BTreeMap<LedgerMismatch, (u64, Vec<&str>)> = BTreeMap::new();
        let mut concerned = 0;
        for group in self.ledger_groups() {
            let Ok(set) = sets.for_engine(group.engine) else { continue };
            let wrong = ledger_mismatches(set, ledger_rows(&group.ledger));
            concerned += if wrong.is_empty() { 0 } else { group.tenants };
            for misfit in wrong {
                let (tenants, names) = found.entry(misfit).or_default();
                *tenants += group.tenants;
                names.extend(group.names.iter().map(String::as_str));
            }
        }
        let worst = found.keys().next()?.kind;
        let mut told: Vec<String> =
            found.iter().take(TOLD_MAX).map(|(misfit, who)| describe_misfit(*misfit, who)).collect();
        if found.len() > TOLD_MAX {
            told.push(format!("and {} more versions", found.len() - TOLD_MAX));
        }
        let (all, told) = (self.tenant_count(), told.join("; "));
        let detail = format!("the files do not continue what {concerned} of {all} tenants have applied: {told}");
        Some(misfit_error(worst, detail))
    }

    /// Versions of which tenants on one engine have applied different texts, with the tenants of each text. File names
    /// come from `sets`.
    #[must_use]
    pub fn split_versions(&self, sets: &MigrationSets) -> Vec<String> {
        let mut texts: BTreeMap<(EngineKind, i64), ChecksumTally<'_>> = BTreeMap::new();
        for group in self.ledger_groups() {
            for (version, checksum) in ledger_rows(&group.ledger) {
                let (tenants, names) = texts.entry((group.engine, version)).or_default().entry(checksum).or_default();
                *tenants += group.tenants;
                names.extend(group.names.iter().map(String::as_str));
            }
        }
        let split = |((engine, version), texts): ((EngineKind, i64), ChecksumTally<'_>)| {
            let file = sets.for_engine(engine).ok().and_then(|set| set.get(version)).map(file_name);
            let file = file.unwrap_or_else(|| "not in the current release".to_owned());
            let who = texts.values().map(|(tenants, names)| describe_tenants(*tenants, names)).collect::<Vec<_>>();
            let who = who.join(" have another text than ");
            (texts.len() > 1).then(|| format!("version {version} ({file}) on {engine}: {who}"))
        };
        texts.into_iter().filter_map(split).collect()
    }

    /// Versions that some tenants lack although they have applied newer ones, because they were merged late.
    #[must_use]
    pub fn late_versions(&self, sets: &MigrationSets) -> BTreeSet<i64> {
        let mut late = BTreeSet::new();
        for group in self.ledger_groups() {
            let (Ok(set), Some((newest, _))) = (sets.for_engine(group.engine), group.ledger.last()) else { continue };
            let has = |version: i64| group.ledger.iter().any(|(applied, _)| *applied == version);
            late.extend(set.all_migrations().iter().map(|m| m.version).filter(|v| v < newest && !has(*v)));
        }
        late
    }
}

impl LedgerGroup {
    /// How the ledger of this group relates to the set of its engine.
    #[must_use]
    pub fn group_standing(&self, sets: &MigrationSets) -> LedgerStanding {
        let Ok(set) = sets.for_engine(self.engine) else {
            return if self.ledger.is_empty() { LedgerStanding::There } else { LedgerStanding::Differs };
        };
        let wrong = ledger_mismatches(set, ledger_rows(&self.ledger));
        match wrong.iter().map(|misfit| misfit.kind).min() {
            Some(LedgerMismatchKind::Changed | LedgerMismatchKind::Missing) => LedgerStanding::Differs,
            Some(LedgerMismatchKind::Ahead) => LedgerStanding::Ahead,
            None if self.ledger.len() < set.all_migrations().len() => LedgerStanding::Behind,
            None => LedgerStanding::There,
        }
    }

    /// The newest version that they have applied.
    #[must_use]
    pub fn newest_version(&self) -> Option<i64> {
        self.ledger.last().map(|(version, _)| *version)
    }
}

fn ledger_rows(ledger: &AppliedLedger) -> impl Iterator<Item = (i64, &[u8])> {
    ledger.iter().map(|(version, checksum)| (*version, checksum.as_slice()))
}

/// The file name as sqlx writes it, without leading zeros.
fn file_name(migration: &Migration) -> String {
    format!("{}_{}.sql", migration.version, migration.description.replace(' ', "_"))
}

/// The tenants in words: `4 tenants (acme, globex, initech, …)`
fn describe_tenants(tenants: u64, names: &[&str]) -> String {
    let noun = if tenants == 1 { "tenant" } else { "tenants" };
    let shown = names.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    let more = if tenants > NAMED_MAX as u64 { ", …" } else { "" };
    format!("{tenants} {noun} ({shown}{more})")
}

fn describe_misfit(misfit: LedgerMismatch, (tenants, names): &(u64, Vec<&str>)) -> String {
    let version = misfit.version;
    let what = match misfit.kind {
        LedgerMismatchKind::Changed => format!("the file of version {version} was changed"),
        LedgerMismatchKind::Missing => format!("the file of version {version} is missing"),
        LedgerMismatchKind::Ahead => format!("version {version} is newer than the files"),
    };
    let noun = if *tenants == 1 { "tenant" } else { "tenants" };
    let shown = names.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    let more = if *tenants > NAMED_MAX as u64 { ", …" } else { "" };
    format!("{what} ({tenants} {noun}: {shown}{more})")
}

fn misfit_error(worst: LedgerMismatchKind, detail: String) -> Error {
    use tenant_engine::ErrorKind as DatabaseError;
    let (kind, next) = match worst {
        LedgerMismatchKind::Changed => (
            DatabaseError::MigrationChanged,
            "put the old text of the file back, and write the change as a new version",
        ),
        LedgerMismatchKind::Missing => {
            (DatabaseError::MigrationMissing, "put the missing file back, under its old number")
        }
        LedgerMismatchKind::Ahead => {
            (DatabaseError::MigrationAhead, "run the newer files, or select the tenants that are not newer")
        }
    };
    Error::new(kind, detail).try_next(next).try_next("fleetctl migrate status")
}

#[cfg(test)]
mod tests {
    use tenant_engine::migration::MigrationFile;

    use super::*;

    fn sets(files: &[(&str, &str)]) -> MigrationSets {
        let file = |(name, sql): &(&str, &str)| MigrationFile { name: (*name).to_owned(), sql: (*sql).to_owned() };
        MigrationSets::from_files(&files.iter().map(file).collect::<Vec<_>>()).unwrap()
    }

    const OLD: &[(&str, &str)] = &[("sqlite/1_a.sql", "a"), ("postgres/1_a.sql", "pa")];

    fn fleet() -> FleetLedgers {
        let (old, mut fleet) = (sets(OLD), FleetLedgers::default());
        for (engine, names) in [(EngineKind::Sqlite, ["acme", "globex"]), (EngineKind::Postgres, ["hooli", "umbrella"])]
        {
            let ledger = Arc::new(applied_prefix(old.for_engine(engine).unwrap(), Some(1)));
            names.iter().for_each(|name| fleet.add_tenant(engine, &ledger, name));
        }
        fleet
    }

    #[test]
    fn a_file_that_one_engine_has_of_its_own_concerns_the_tenants_there() {
        let edited = sets(&[("sqlite/1_a.sql", "a"), ("postgres/1_a.sql", "other")]);
        let refused = fleet().refuse_misfits(&edited).unwrap();
        assert_eq!(refused.code(), "migration_changed");
        assert!(refused.detail.contains("2 of 4 tenants"), "{}", refused.detail);
        assert!(refused.detail.contains("hooli, umbrella") && !refused.detail.contains("acme"), "{}", refused.detail);
        assert!(fleet().refuse_misfits(&sets(OLD)).is_none());
    }

    #[test]
    fn texts_differ_between_engines_and_split_only_within_one() {
        let mut fleet = fleet();
        assert!(fleet.split_versions(&sets(OLD)).is_empty());
        let other =
            Arc::new(applied_prefix(sets(&[("1_a.sql", "edited")]).for_engine(EngineKind::Sqlite).unwrap(), Some(1)));
        fleet.add_tenant(EngineKind::Sqlite, &other, "initech");
        let splits = fleet.split_versions(&sets(OLD));
        let (one, two) = ("1 tenant (initech)", "2 tenants (acme, globex)");
        let told = |a, b| format!("version 1 (1_a.sql) on sqlite: {a} have another text than {b}");
        assert!(splits == [told(one, two)] || splits == [told(two, one)], "{splits:?}");
    }

    #[test]
    fn tenants_stand_behind_there_ahead_or_differ() {
        let (fleet, old) = (fleet(), sets(OLD));
        let group = fleet.ledger_groups().next().unwrap();
        let stands = |files: &[(&str, &str)]| group.group_standing(&sets(files));
        assert_eq!(group.group_standing(&old), LedgerStanding::There);
        assert_eq!(stands(&[("1_a.sql", "a"), ("2_b.sql", "b")]), LedgerStanding::Behind);
        assert_eq!(stands(&[("0_z.sql", "z")]), LedgerStanding::Ahead);
        assert_eq!(stands(&[("1_a.sql", "A")]), LedgerStanding::Differs);
        assert_eq!(fleet.late_versions(&sets(&[("0_z.sql", "z"), ("1_a.sql", "a")])), BTreeSet::from([0]));
    }
}
