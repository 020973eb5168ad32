//! Compares a set with the applied versions of a database, and reports every version that does not match.

use super::MigrationSet;

/// Why an applied version does not match the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LedgerMismatchKind {
    /// The set holds a different text for the version.
    Changed,
    /// The set holds no file for the version, but holds newer versions.
    Missing,
    /// The version is newer than the set.
    Ahead,
}

/// An applied version that does not match a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LedgerMismatch {
    /// Why it does not match.
    pub kind: LedgerMismatchKind,
    /// The number of the version.
    pub version: i64,
}

/// The applied versions (with their checksums) that do not match the set, in order. The description of a version may
/// differ, because it is only a comment, as in sqlx.
pub fn ledger_mismatches<'a>(
    set: &MigrationSet,
    applied: impl IntoIterator<Item = (i64, &'a [u8])>,
) -> Vec<LedgerMismatch> {
    let misfit = |(version, checksum): (i64, &[u8])| {
        let kind = match set.get(version) {
            Some(migration) if migration.checksum == checksum => return None,
            Some(_) => LedgerMismatchKind::Changed,
            None if set.head_version().is_none_or(|head| version > head) => LedgerMismatchKind::Ahead,
            None => LedgerMismatchKind::Missing,
        };
        Some(LedgerMismatch { kind, version })
    };
    applied.into_iter().filter_map(misfit).collect()
}

#[cfg(test)]
mod tests {
    use super::super::MigrationFile;
    use super::*;

    fn set(files: &[(&str, &str)]) -> MigrationSet {
        let file = |(name, sql): &(&str, &str)| MigrationFile { name: (*name).to_owned(), sql: (*sql).to_owned() };
        MigrationSet::from_files(&files.iter().map(file).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn every_version_that_does_not_fit_is_found() {
        let applied = set(&[("1_a.sql", "a"), ("2_b.sql", "b"), ("4_d.sql", "d")]);
        let ledger = || applied.all_migrations().iter().map(|m| (m.version, m.checksum.as_slice()));
        let found = |files: &[(&str, &str)]| -> Vec<(LedgerMismatchKind, i64)> {
            ledger_mismatches(&set(files), ledger()).into_iter().map(|misfit| (misfit.kind, misfit.version)).collect()
        };
        use LedgerMismatchKind::{Ahead, Changed, Missing};
        let d = ("4_d.sql", "d");
        assert_eq!(found(&[("1_a.sql", "a"), ("2_b.sql", "b"), d]), []);
        assert_eq!(found(&[("1_a.sql", "a\r\n"), ("2_b.sql", "b "), d]), [(Changed, 1), (Changed, 2)]);
        assert_eq!(found(&[("1_a.sql", "a"), ("3_b.sql", "b"), d]), [(Missing, 2)], "another number");
        assert_eq!(found(&[("1_other.sql", "a"), ("2_b.sql", "b"), d]), [], "another description");
        assert_eq!(found(&[("1_a.sql", "a")]), [(Ahead, 2), (Ahead, 4)]);
        assert_eq!(found(&[("1_a.sql", "a"), ("2_b.sql", "b"), ("3_c.sql", "c"), d]), [], "merged late");
        assert_eq!(found(&[]), [(Ahead, 1), (Ahead, 2), (Ahead, 4)]);
    }
}
