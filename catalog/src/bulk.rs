//! Statements about many rows. Their rows are cut into a few sizes, so that each statement is prepared once per
//! connection.

use std::collections::HashSet;
use std::hash::Hash;

use sqlx::query::Query;
use sqlx::{Any, AssertSqlSafe, any::AnyArguments};

/// A statement with its arguments.
pub(crate) type SqlQuery<'q> = Query<'q, Any, AnyArguments>;

/// Rows per statement. A few distinct sizes keep the number of prepared statements low. At most 64: SQLite searches
/// numbered parameters linearly, so one statement of 3,000 costs more than eight of 400.
const SIZES: [usize; 4] = [64, 16, 4, 1];

/// Maximum page length of any query: a size that callers can easily hold in memory.
const PAGE_MAX: u32 = 10_000;

/// The SQL type of an integer column of [`values_clause`].
pub(crate) const INT: &str = "bigint";
/// The SQL type of a text column of [`values_clause`].
pub(crate) const TEXT: &str = "text";

/// Cuts a list into pieces of a few distinct lengths.
pub(crate) fn sized_chunks<T>(mut items: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = SIZES.into_iter().find(|size| *size <= items.len())?;
        let (chunk, rest) = items.split_at(size);
        items = rest;
        Some(chunk)
    })
}

/// Splits the items into rounds with distinct keys, in each key's order, because one statement changes a row only once.
pub(crate) fn distinct_rounds<T, K: Eq + Hash>(items: &[T], key: impl Fn(&T) -> K) -> Vec<Vec<&T>> {
    let mut rounds = Vec::new();
    let mut waiting: Vec<&T> = items.iter().collect();
    while !waiting.is_empty() {
        let mut seen = HashSet::new();
        let (round, rest): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|item| seen.insert(key(item)));
        rounds.push(round);
        waiting = rest;
    }
    rounds
}

/// Builds `values (cast($1 as text),cast($2 as bigint)),($3,$4),…`. The casts of the first row give the columns their
/// types.
pub(crate) fn values_clause(rows: usize, types: &[&str]) -> String {
    let mut text = String::from("values ");
    for row in 0..rows {
        text.push_str(if row == 0 { "(" } else { ",(" });
        for (column, kind) in types.iter().enumerate() {
            let comma = if column == 0 { "" } else { "," };
            let number = row * types.len() + column + 1;
            text.push_str(&match row {
                0 => format!("{comma}cast(${number} as {kind})"),
                _ => format!("{comma}${number}"),
            });
        }
        text.push(')');
    }
    text
}

/// Builds `$3,$4,$5`: `count` placeholders, beginning with number `first`.
pub(crate) fn placeholder_list(first: usize, count: usize) -> String {
    (first..first + count).map(|number| format!("${number}")).collect::<Vec<_>>().join(",")
}

/// A statement whose text was built here, only from constants and placeholders.
pub(crate) fn dynamic_query<'q>(text: String) -> SqlQuery<'q> {
    sqlx::query(AssertSqlSafe(text))
}

/// A page's length in the databases' type, at most the maximum.
pub(crate) fn capped_limit(asked: u32) -> i64 {
    i64::from(asked.min(PAGE_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_everything_in_order() {
        for length in [0, 1, 3, 5, 31, 300, 1000] {
            let items: Vec<usize> = (0..length).collect();
            let cut: Vec<&[usize]> = sized_chunks(&items).collect();
            assert!(cut.iter().all(|chunk| SIZES.contains(&chunk.len())));
            assert_eq!(cut.concat(), items);
        }
    }

    #[test]
    fn rounds_never_repeat_a_key_and_keep_its_order() {
        let items = [("a", 1), ("b", 1), ("a", 2), ("a", 3), ("b", 2)];
        let cut = distinct_rounds(&items, |item| item.0);
        assert_eq!(cut, [vec![&("a", 1), &("b", 1)], vec![&("a", 2), &("b", 2)], vec![&("a", 3)]]);
    }

    #[test]
    fn values_number_their_places() {
        assert_eq!(values_clause(2, &[TEXT, INT]), "values (cast($1 as text),cast($2 as bigint)),($3,$4)");
        assert_eq!(placeholder_list(3, 2), "$3,$4");
    }
}
