//! PURE: whether a migration set goes on from what tenants have applied. A changed, missing or renumbered old file would
//! divide the fleet into tenants with different schemas of one version.
//!
//! Tenants are grouped by what they have applied: a fleet of many thousands has a handful of groups.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tenant_engine::EngineKind;
use tenant_engine::migration::{Migration, MigrationSet, MigrationSets, Misfit, MisfitKind, misfits};

use crate::error::Error;

/// Tenants of one group named in an error: enough to recognise it.
const NAMED_MAX: usize = 3;
/// Versions told in one error.
const TOLD_MAX: usize = 5;

/// Versions and checksums, in order.
pub type Ledger = Vec<(i64, Vec<u8>)>;

/// Tenants on one engine that have applied the same.
#[derive(Debug, Clone)]
pub struct Group {
    /// What their databases run on.
    pub engine: EngineKind,
    /// What they have applied.
    pub ledger: Arc<Ledger>,
    /// How many they are.
    pub tenants: u64,
    /// The first few names.
    pub names: Vec<String>,
}

/// The checksums that tenants have of one version, with how many they are and the first names.
type Texts<'a> = BTreeMap<&'a [u8], (u64, Vec<&'a str>)>;

/// Where tenants stand against a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// They lack versions.
    Behind,
    /// They have applied exactly this.
    There,
    /// They have applied this and newer versions.
    Ahead,
    /// They have applied other texts, or versions that the set lacks.
    Differs,
}

/// What some tenants have applied.
#[derive(Debug, Clone, Default)]
pub struct Ledgers {
    groups: BTreeMap<(EngineKind, Arc<Ledger>), Group>,
}

/// The part of a set that a tenant at `version` has applied.
#[must_use]
pub fn prefix(set: &MigrationSet, version: Option<i64>) -> Ledger {
    let applied = set.migrations().iter().filter(|m| version.is_some_and(|version| m.version <= version));
    applied.map(|m| (m.version, m.checksum.clone())).collect()
}

impl Ledgers {
    /// One more tenant.
    pub fn add(&mut self, engine: EngineKind, ledger: &Arc<Ledger>, name: &str) {
        let group = self.groups.entry((engine, Arc::clone(ledger))).or_insert_with(|| Group {
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

    /// The groups.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }

    fn tenants(&self) -> u64 {
        self.groups().map(|group| group.tenants).sum()
    }

    /// Refuses a set that does not go on from what these tenants have applied; nothing when it does.
    #[must_use]
    pub fn refusal(&self, sets: &MigrationSets) -> Option<Error> {
        let mut found: BTreeMap<Misfit, (u64, Vec<&str>)> = BTreeMap::new();
        let mut concerned = 0;
        for group in self.groups() {
            let Ok(set) = sets.of(group.engine) else { continue };
            let wrong = misfits(set, rows(&group.ledger));
            concerned += if wrong.is_empty() { 0 } else { group.tenants };
            for misfit in wrong {
                let (tenants, names) = found.entry(misfit).or_default();
                *tenants += group.tenants;
                names.extend(group.names.iter().map(String::as_str));
            }
        }
        let worst = found.keys().next()?.kind;
        let mut told: Vec<String> = found.iter().take(TOLD_MAX).map(|(misfit, who)| tell(*misfit, who)).collect();
        if found.len() > TOLD_MAX {
            told.push(format!("and {} more versions", found.len() - TOLD_MAX));
        }
        let (all, told) = (self.tenants(), told.join("; "));
        let detail = format!("the files do not go on from what {concerned} of {all} tenants have applied: {told}");
        Some(refused(worst, detail))
    }

    /// Versions of which tenants on one engine have applied different texts, with the tenants of each. `sets` names the
    /// files.
    #[must_use]
    pub fn splits(&self, sets: &MigrationSets) -> Vec<String> {
        let mut texts: BTreeMap<(EngineKind, i64), Texts<'_>> = BTreeMap::new();
        for group in self.groups() {
            for (version, checksum) in rows(&group.ledger) {
                let (tenants, names) = texts.entry((group.engine, version)).or_default().entry(checksum).or_default();
                *tenants += group.tenants;
                names.extend(group.names.iter().map(String::as_str));
            }
        }
        let split = |((engine, version), texts): ((EngineKind, i64), Texts<'_>)| {
            let file = sets.of(engine).ok().and_then(|set| set.get(version)).map(file_name);
            let file = file.unwrap_or_else(|| "not in the current release".to_owned());
            let who = texts.values().map(|(tenants, names)| told(*tenants, names)).collect::<Vec<_>>();
            let who = who.join(" have another text than ");
            (texts.len() > 1).then(|| format!("version {version} ({file}) on {engine}: {who}"))
        };
        texts.into_iter().filter_map(split).collect()
    }

    /// A version that some tenants lack although they have applied newer ones: it was merged late.
    #[must_use]
    pub fn late(&self, sets: &MigrationSets) -> BTreeSet<i64> {
        let mut late = BTreeSet::new();
        for group in self.groups() {
            let (Ok(set), Some((newest, _))) = (sets.of(group.engine), group.ledger.last()) else { continue };
            let has = |version: i64| group.ledger.iter().any(|(applied, _)| *applied == version);
            late.extend(set.migrations().iter().map(|m| m.version).filter(|v| v < newest && !has(*v)));
        }
        late
    }
}

impl Group {
    /// Where these tenants stand against the set of their engine.
    #[must_use]
    pub fn standing(&self, sets: &MigrationSets) -> Standing {
        let Ok(set) = sets.of(self.engine) else {
            return if self.ledger.is_empty() { Standing::There } else { Standing::Differs };
        };
        let wrong = misfits(set, rows(&self.ledger));
        match wrong.iter().map(|misfit| misfit.kind).min() {
            Some(MisfitKind::Changed | MisfitKind::Missing) => Standing::Differs,
            Some(MisfitKind::Ahead) => Standing::Ahead,
            None if self.ledger.len() < set.migrations().len() => Standing::Behind,
            None => Standing::There,
        }
    }

    /// The newest version that they have applied.
    #[must_use]
    pub fn version(&self) -> Option<i64> {
        self.ledger.last().map(|(version, _)| *version)
    }
}

fn rows(ledger: &Ledger) -> impl Iterator<Item = (i64, &[u8])> {
    ledger.iter().map(|(version, checksum)| (*version, checksum.as_slice()))
}

/// As sqlx names it, but for leading zeros.
fn file_name(migration: &Migration) -> String {
    format!("{}_{}.sql", migration.version, migration.description.replace(' ', "_"))
}

/// `4 tenants (acme, globex, initech, …)`
fn told(tenants: u64, names: &[&str]) -> String {
    let noun = if tenants == 1 { "tenant" } else { "tenants" };
    let shown = names.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    let more = if tenants > NAMED_MAX as u64 { ", …" } else { "" };
    format!("{tenants} {noun} ({shown}{more})")
}

fn tell(misfit: Misfit, (tenants, names): &(u64, Vec<&str>)) -> String {
    let version = misfit.version;
    let what = match misfit.kind {
        MisfitKind::Changed => format!("the file of version {version} was changed"),
        MisfitKind::Missing => format!("the file of version {version} is missing"),
        MisfitKind::Ahead => format!("version {version} is newer than the files"),
    };
    let noun = if *tenants == 1 { "tenant" } else { "tenants" };
    let shown = names.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    let more = if *tenants > NAMED_MAX as u64 { ", …" } else { "" };
    format!("{what} ({tenants} {noun}: {shown}{more})")
}

fn refused(worst: MisfitKind, detail: String) -> Error {
    let (code, next) = match worst {
        MisfitKind::Changed => {
            ("migration_changed", "put the old text of the file back, and write the change as a new version")
        }
        MisfitKind::Missing => ("migration_missing", "put the missing file back, under its old number"),
        MisfitKind::Ahead => ("migration_ahead", "run the newer files, or select the tenants that are not newer"),
    };
    Error::new(409, code, detail).try_next(next).try_next("fleetctl migrate status")
}

#[cfg(test)]
mod tests {
    use tenant_engine::migration::File;

    use super::*;

    fn sets(files: &[(&str, &str)]) -> MigrationSets {
        let file = |(name, sql): &(&str, &str)| File { name: (*name).to_owned(), sql: (*sql).to_owned() };
        MigrationSets::from_files(&files.iter().map(file).collect::<Vec<_>>()).unwrap()
    }

    const OLD: &[(&str, &str)] = &[("sqlite/1_a.sql", "a"), ("postgres/1_a.sql", "pa")];

    fn fleet() -> Ledgers {
        let (old, mut fleet) = (sets(OLD), Ledgers::default());
        for (engine, names) in [(EngineKind::Sqlite, ["acme", "globex"]), (EngineKind::Postgres, ["hooli", "umbrella"])]
        {
            let ledger = Arc::new(prefix(old.of(engine).unwrap(), Some(1)));
            names.iter().for_each(|name| fleet.add(engine, &ledger, name));
        }
        fleet
    }

    #[test]
    fn a_file_that_one_engine_has_of_its_own_concerns_the_tenants_there() {
        let edited = sets(&[("sqlite/1_a.sql", "a"), ("postgres/1_a.sql", "other")]);
        let refused = fleet().refusal(&edited).unwrap();
        assert_eq!(refused.code, "migration_changed");
        assert!(refused.detail.contains("2 of 4 tenants"), "{}", refused.detail);
        assert!(refused.detail.contains("hooli, umbrella") && !refused.detail.contains("acme"), "{}", refused.detail);
        assert!(fleet().refusal(&sets(OLD)).is_none());
    }

    #[test]
    fn texts_differ_between_engines_and_split_only_within_one() {
        let mut fleet = fleet();
        assert!(fleet.splits(&sets(OLD)).is_empty());
        let other = Arc::new(prefix(sets(&[("1_a.sql", "edited")]).of(EngineKind::Sqlite).unwrap(), Some(1)));
        fleet.add(EngineKind::Sqlite, &other, "initech");
        let splits = fleet.splits(&sets(OLD));
        let (one, two) = ("1 tenant (initech)", "2 tenants (acme, globex)");
        let told = |a, b| format!("version 1 (1_a.sql) on sqlite: {a} have another text than {b}");
        assert!(splits == [told(one, two)] || splits == [told(two, one)], "{splits:?}");
    }

    #[test]
    fn tenants_stand_behind_there_ahead_or_differ() {
        let (fleet, old) = (fleet(), sets(OLD));
        let group = fleet.groups().next().unwrap();
        let stands = |files: &[(&str, &str)]| group.standing(&sets(files));
        assert_eq!(group.standing(&old), Standing::There);
        assert_eq!(stands(&[("1_a.sql", "a"), ("2_b.sql", "b")]), Standing::Behind);
        assert_eq!(stands(&[("0_z.sql", "z")]), Standing::Ahead);
        assert_eq!(stands(&[("1_a.sql", "A")]), Standing::Differs);
        assert_eq!(fleet.late(&sets(&[("0_z.sql", "z"), ("1_a.sql", "a")])), BTreeSet::from([0]));
    }
}
