//! Rows that violate a foreign key: counted, and compared across a migration that ran with foreign keys off.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;

use super::error::from_sqlite;
use crate::error::Result;

/// Counting stops here: the number serves to compare and to warn, not to list.
const COUNT_MAX: i64 = 1_000_000;

/// How many violations there are, by (child table, parent table).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Violations {
    counts: BTreeMap<(String, String), u64>,
    tables: BTreeSet<String>,
}

/// Counts the violations in the open transaction; reads every child table that has a foreign key.
///
/// # Errors
/// SQLite's.
pub(super) fn violations(db: &Connection) -> Result<Violations> {
    let sql = "select \"table\", parent, count(*) from pragma_foreign_key_check group by 1, 2";
    let counts = collect(db, sql, |row| {
        Ok(((row.get(0)?, row.get(1)?), u64::try_from(row.get::<_, i64>(2)?).unwrap_or_default()))
    })?;
    let tables = collect(db, "select lower(name) from main.sqlite_schema where type = 'table'", |row| row.get(0))?;
    Ok(Violations { counts: counts.into_iter().collect(), tables: tables.into_iter().collect() })
}

/// How many violations there are, at most a million.
///
/// # Errors
/// SQLite's.
pub(super) fn count(db: &Connection) -> Result<u64> {
    let sql = "select count(*) from (select 1 from pragma_foreign_key_check limit ?1)";
    let found: i64 = db.query_row(sql, [COUNT_MAX], |row| row.get(0)).map_err(from_sqlite)?;
    Ok(u64::try_from(found).unwrap_or_default())
}

impl Violations {
    /// Says which pair of tables has violations that were not there before. Those of a table that was renamed or
    /// dropped meanwhile may have moved to another name, so they are set off against the growth elsewhere.
    pub(super) fn grown_since(&self, before: &Self) -> Option<String> {
        let growth = |(pair, now): (&(String, String), &u64)| {
            let grown = now.saturating_sub(before.counts.get(pair).copied().unwrap_or(0));
            (grown > 0).then(|| (pair.clone(), grown))
        };
        let grown: Vec<_> = self.counts.iter().filter_map(growth).collect();
        let gone = |(child, parent): &(String, String)| {
            [child, parent].into_iter().any(|name| {
                let name = name.to_ascii_lowercase();
                before.tables.contains(&name) && !self.tables.contains(&name)
            })
        };
        let moved: u64 = before.counts.iter().filter(|(pair, _)| gone(pair)).map(|(_, count)| count).sum();
        let total: u64 = grown.iter().map(|(_, count)| count).sum();
        let ((child, parent), count) = grown.into_iter().next()?;
        (total > moved).then(|| format!("{count} rows of '{child}' refer to rows missing from '{parent}'"))
    }
}

fn collect<T>(
    db: &Connection,
    sql: &str,
    read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    let mut statement = db.prepare(sql).map_err(from_sqlite)?;
    let rows = statement.query_map([], read).map_err(from_sqlite)?;
    rows.collect::<rusqlite::Result<_>>().map_err(from_sqlite)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(counts: &[(&str, &str, u64)], tables: &[&str]) -> Violations {
        let counts = counts.iter().map(|(c, p, n)| (((*c).to_owned(), (*p).to_owned()), *n)).collect();
        Violations { counts, tables: tables.iter().map(|t| (*t).to_owned()).collect() }
    }

    #[test]
    fn only_new_violations_count() {
        let before = of(&[("c", "p", 2)], &["c", "p"]);
        assert_eq!(before.grown_since(&before), None);
        assert_eq!(of(&[("c", "p", 1)], &["c", "p"]).grown_since(&before), None);
        assert!(of(&[("c", "p", 3)], &["c", "p"]).grown_since(&before).unwrap().starts_with("1 rows of 'c'"));
        assert!(of(&[("c", "p", 1), ("d", "p", 1)], &["c", "d", "p"]).grown_since(&before).is_some());
    }

    #[test]
    fn old_violations_may_move_with_a_renamed_table() {
        let before = of(&[("c", "p", 2)], &["c", "p"]);
        assert_eq!(of(&[("kids", "p", 2)], &["kids", "p"]).grown_since(&before), None);
        assert_eq!(of(&[("c", "parents", 2)], &["c", "parents"]).grown_since(&before), None);
        assert!(of(&[("kids", "p", 3)], &["kids", "p"]).grown_since(&before).is_some());
    }
}
