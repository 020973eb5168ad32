//! PURE: guesses from its first word whether a statement may be tried in a read-only transaction.
//!
//! The guess only saves a hop. The database itself refuses to write in a read-only transaction, and then the statement
//! is run again in a writing one. A wrong guess is slower, never wrong.

/// What the first word of a statement suggests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatementKind {
    /// The statement may only read.
    MayRead,
    /// The statement writes, or is not a statement.
    Writes,
}

/// Guesses the kind of a statement.
pub(crate) fn statement_kind(sql: &str) -> StatementKind {
    let rest = skip_comments(sql);
    let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let reads = ["select", "with", "values", "explain", "pragma"];
    if reads.iter().any(|word| word.eq_ignore_ascii_case(&rest[..end])) {
        StatementKind::MayRead
    } else {
        StatementKind::Writes
    }
}

/// The text after white space and comments.
fn skip_comments(mut sql: &str) -> &str {
    loop {
        sql = sql.trim_start();
        if let Some(comment) = sql.strip_prefix("--") {
            sql = comment.split_once('\n').map_or("", |(_, rest)| rest);
        } else if let Some(comment) = sql.strip_prefix("/*") {
            sql = comment.split_once("*/").map_or("", |(_, rest)| rest);
        } else {
            return sql;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_is_told_by_the_first_word() {
        for sql in [
            "select 1",
            "  SELECT 1",
            "with x as (select 1) select * from x",
            "values (1)",
            "-- a\n/* b */select 1",
            "pragma table_info(t)",
            "explain select 1",
            "select(1)",
        ] {
            assert_eq!(statement_kind(sql), StatementKind::MayRead, "{sql}");
        }
        for sql in [
            "insert into t values (1)",
            "update t set a=1",
            "delete from t",
            "",
            "-- select",
            "/* select",
            "selection",
            "\u{0}select 1",
            "replace into t values (1)",
        ] {
            assert_eq!(statement_kind(sql), StatementKind::Writes, "{sql}");
        }
    }
}
