//! Statements about many rows: cut into a few sizes, so that each is prepared once per connection.

use std::collections::HashSet;
use std::hash::Hash;

use sqlx::query::Query;
use sqlx::{Any, AssertSqlSafe, any::AnyArguments};

/// A statement with its arguments.
pub(crate) type Sql<'q> = Query<'q, Any, AnyArguments>;

/// Rows per statement. Few distinct sizes keep the prepared statements few. No more than 64: SQLite looks numbered
/// parameters up one after the other, so a statement of 3,000 costs more than the eight of 400 that do the same.
const SIZES: [usize; 4] = [64, 16, 4, 1];

/// The longest page any query returns: what a caller can hold without noticing.
const PAGE_MAX: u32 = 10_000;

/// The type of a column of [`values`].
pub(crate) const INT: &str = "bigint";
/// The type of a column of [`values`].
pub(crate) const TEXT: &str = "text";

/// Cuts into pieces whose lengths are among a few sizes.
pub(crate) fn chunks<T>(mut items: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = SIZES.into_iter().find(|size| *size <= items.len())?;
        let (chunk, rest) = items.split_at(size);
        items = rest;
        Some(chunk)
    })
}

/// Splits so that no round names a key twice, keeping each key's order: one statement changes a row once.
pub(crate) fn rounds<T, K: Eq + Hash>(items: &[T], key: impl Fn(&T) -> K) -> Vec<Vec<&T>> {
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

/// `values (cast($1 as text),cast($2 as bigint)),($3,$4),…`: the casts of the first row give the columns their types.
pub(crate) fn values(rows: usize, types: &[&str]) -> String {
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

/// `$3,$4,$5`: `count` places, the first of which is `first`.
pub(crate) fn places(first: usize, count: usize) -> String {
    (first..first + count).map(|number| format!("${number}")).collect::<Vec<_>>().join(",")
}

/// A statement whose text was put together here, of constants and places only.
pub(crate) fn built<'q>(text: String) -> Sql<'q> {
    sqlx::query(AssertSqlSafe(text))
}

/// A page's length as the databases take it.
pub(crate) fn limit(asked: u32) -> i64 {
    i64::from(asked.min(PAGE_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_everything_in_order() {
        for length in [0, 1, 3, 5, 31, 300, 1000] {
            let items: Vec<usize> = (0..length).collect();
            let cut: Vec<&[usize]> = chunks(&items).collect();
            assert!(cut.iter().all(|chunk| SIZES.contains(&chunk.len())));
            assert_eq!(cut.concat(), items);
        }
    }

    #[test]
    fn rounds_never_repeat_a_key_and_keep_its_order() {
        let items = [("a", 1), ("b", 1), ("a", 2), ("a", 3), ("b", 2)];
        let cut = rounds(&items, |item| item.0);
        assert_eq!(cut, [vec![&("a", 1), &("b", 1)], vec![&("a", 2), &("b", 2)], vec![&("a", 3)]]);
    }

    #[test]
    fn values_number_their_places() {
        assert_eq!(values(2, &[TEXT, INT]), "values (cast($1 as text),cast($2 as bigint)),($3,$4)");
        assert_eq!(places(3, 2), "$3,$4");
    }
}
