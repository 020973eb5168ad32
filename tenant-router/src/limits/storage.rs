//! The size of a tenant's database on a PostgreSQL server, which has no limit of its own. SQLite counts its pages itself.
//!
//! A write measures the size when the last measurement is too old. So a tenant may exceed its limit by what it writes
//! meanwhile. Once it is too large, only deletions pass.

use std::time::{Duration, Instant};

use tenant_engine::SqlStatement;
use tokio::sync::Mutex;

/// A measured size counts for this time. Measuring asks the file system about each table.
const AGE_MAX: Duration = Duration::from_secs(30);
/// The same for a database that has used nine tenths of its limit.
const AGE_MAX_NEAR: Duration = Duration::from_secs(2);

/// The last measured size of one database.
#[derive(Debug, Default)]
pub(crate) struct KnownSize {
    /// Locked while one request measures.
    last: Mutex<Option<(Instant, u64)>>,
}

impl KnownSize {
    /// True when the database is as large as `limit`. `measure` runs when the size is not known. A size that cannot be
    /// measured does not hinder a write.
    pub(crate) async fn has_reached(&self, limit: u64, measure: impl Future<Output = Option<u64>>) -> bool {
        // Another request measures now: this one does not wait for it.
        let Ok(mut last) = self.last.try_lock() else { return false };
        let known = last.filter(|(at, size)| at.elapsed() < age_max(*size, limit));
        let size = match known {
            Some((_, size)) => Some(size),
            None => measure.await,
        };
        if known.is_none() {
            *last = size.map(|size| (Instant::now(), size));
        }
        size.is_some_and(|size| size >= limit)
    }
}

/// PURE: how long a measured size counts.
fn age_max(size: u64, limit: u64) -> Duration {
    if size >= limit / 10 * 9 { AGE_MAX_NEAR } else { AGE_MAX }
}

/// PURE: true when these statements can only remove rows.
pub(crate) fn only_deletes(statements: &[SqlStatement]) -> bool {
    let is_delete = |statement: &SqlStatement| {
        let word = statement.sql.split_whitespace().next().unwrap_or_default();
        word.eq_ignore_ascii_case("delete")
    };
    !statements.is_empty() && statements.iter().all(is_delete)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_statement_that_begins_with_delete_frees_space() {
        let only = |texts: &[&str]| {
            let statement = |sql: &&str| SqlStatement { sql: (*sql).to_owned(), params: Vec::new() };
            only_deletes(&texts.iter().map(statement).collect::<Vec<_>>())
        };
        assert!(only(&["delete from a"]) && only(&[" DELETE\nfrom a", "delete from b"]));
        for texts in [&["insert into a values (1)"][..], &["delete from a", "insert into a values (1)"], &[]] {
            assert!(!only(texts), "{texts:?}");
        }
        assert!(!only(&["with x as (insert into a values (1)) delete from a"]));
    }

    #[test]
    fn a_nearly_full_database_is_measured_more_often() {
        assert_eq!((age_max(89, 100), age_max(90, 100)), (AGE_MAX, AGE_MAX_NEAR));
    }
}
