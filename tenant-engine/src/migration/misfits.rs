//! Whether a set goes on from what a database has applied: every version that does not fit, not only the first.

use super::MigrationSet;

/// What is wrong with an applied version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MisfitKind {
    /// The set holds another text for it.
    Changed,
    /// The set holds no file for it, but newer ones.
    Missing,
    /// It is newer than the set.
    Ahead,
}

/// An applied version that does not fit a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Misfit {
    /// What is wrong.
    pub kind: MisfitKind,
    /// Which version.
    pub version: i64,
}

/// The applied versions (with their checksums) that do not fit, in their order. The description of a version may
/// differ: it is a comment, as for sqlx.
pub fn misfits<'a>(set: &MigrationSet, applied: impl IntoIterator<Item = (i64, &'a [u8])>) -> Vec<Misfit> {
    let misfit = |(version, checksum): (i64, &[u8])| {
        let kind = match set.get(version) {
            Some(migration) if migration.checksum == checksum => return None,
            Some(_) => MisfitKind::Changed,
            None if set.head().is_none_or(|head| version > head) => MisfitKind::Ahead,
            None => MisfitKind::Missing,
        };
        Some(Misfit { kind, version })
    };
    applied.into_iter().filter_map(misfit).collect()
}

#[cfg(test)]
mod tests {
    use super::super::File;
    use super::*;

    fn set(files: &[(&str, &str)]) -> MigrationSet {
        let file = |(name, sql): &(&str, &str)| File { name: (*name).to_owned(), sql: (*sql).to_owned() };
        MigrationSet::from_files(&files.iter().map(file).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn every_version_that_does_not_fit_is_found() {
        let applied = set(&[("1_a.sql", "a"), ("2_b.sql", "b"), ("4_d.sql", "d")]);
        let ledger = || applied.migrations().iter().map(|m| (m.version, m.checksum.as_slice()));
        let found = |files: &[(&str, &str)]| -> Vec<(MisfitKind, i64)> {
            misfits(&set(files), ledger()).into_iter().map(|misfit| (misfit.kind, misfit.version)).collect()
        };
        use MisfitKind::{Ahead, Changed, Missing};
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
