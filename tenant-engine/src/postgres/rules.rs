//! PURE: what a migration's statements may be, and which of them may be run again after a process died.

use super::script::{Statement, statements};
use crate::migration::Migration;

/// A statement that a migration may not hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) line: usize,
    pub(super) why: &'static str,
}

const CONTROL: &str = "transaction control is not allowed here: every version is one transaction of its own \
                       ('-- no-transaction' as the first line of the file switches that off)";
const ROLE: &str = "a migration runs as fleet_owner and cannot change its role";
const STDIN: &str = "COPY … FROM STDIN needs psql; write INSERT, or load the data another way";
const OPEN_END: &str = "the file ends inside a transaction that it began";

/// Looks at a whole file before any of it runs.
pub(super) fn check(migration: &Migration) -> Result<(), Refused> {
    let found = statements(&migration.sql);
    let refused = found.iter().find_map(|statement| {
        let why = forbidden(statement, migration.transactional)?;
        Some(Refused { line: statement.line, why })
    });
    match (refused, migration.transactional) {
        (Some(refused), _) => Err(refused),
        (None, true) => Ok(()),
        (None, false) => ends_outside(&found),
    }
}

fn forbidden(statement: &Statement<'_>, transactional: bool) -> Option<&'static str> {
    let words: Vec<&str> = statement.words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["SET", "ROLE", ..] | ["SET", "LOCAL" | "SESSION", "ROLE", ..] | ["RESET", "ROLE", ..] => Some(ROLE),
        ["SET", "SESSION", "AUTHORIZATION", ..] | ["RESET", "SESSION", ..] => Some(ROLE),
        ["SET", "LOCAL", "SESSION", "AUTHORIZATION", ..] | ["DISCARD", "ALL", ..] => Some(ROLE),
        ["COPY", .., "FROM", "STDIN"] => Some(STDIN),
        ["COPY", rest @ ..] if rest.windows(2).any(|pair| pair == ["FROM", "STDIN"]) => Some(STDIN),
        ["PREPARE", "TRANSACTION", ..] => Some(CONTROL),
        _ if transactional && step(statement) != Step::Neither => Some(CONTROL),
        _ => None,
    }
}

/// What a statement does to the transaction it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Begins,
    Ends,
    Neither,
}

fn step(statement: &Statement<'_>) -> Step {
    let words: Vec<&str> = statement.words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["BEGIN", ..] | ["START", "TRANSACTION", ..] => Step::Begins,
        ["ROLLBACK", "TO", ..] | ["ROLLBACK", "WORK" | "TRANSACTION", "TO", ..] => Step::Neither,
        ["COMMIT" | "END" | "ROLLBACK" | "ABORT", ..] => Step::Ends,
        _ => Step::Neither,
    }
}

fn ends_outside(found: &[Statement<'_>]) -> Result<(), Refused> {
    let last = found.iter().rev().find(|statement| step(statement) != Step::Neither);
    match last {
        Some(statement) if step(statement) == Step::Begins => Err(Refused { line: statement.line, why: OPEN_END }),
        _ => Ok(()),
    }
}

/// How a statement outside a transaction behaves when it is run a second time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Again {
    /// It does the same, or says that it is done.
    Harmless,
    /// It builds an index of this name on this table; one that was cut off leaves it behind, invalid.
    Index {
        /// As written, quotes included.
        name: String,
        table: String,
    },
    /// Nobody can know without a human.
    Unknown,
}

/// Which it is.
pub(super) fn again(statement: &Statement<'_>) -> Again {
    let words: Vec<&str> = statement.words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["CREATE", "INDEX", rest @ ..] | ["CREATE", "UNIQUE", "INDEX", rest @ ..] => index(statement, rest),
        ["DROP", "INDEX", "CONCURRENTLY", ..]
        | ["VACUUM" | "ANALYZE" | "ANALYSE" | "REINDEX" | "CLUSTER" | "CHECKPOINT" | "SET" | "RESET" | "REFRESH", ..] => {
            Again::Harmless
        }
        ["ALTER", "TYPE", .., "VALUE"] => Again::Harmless,
        ["ALTER", "TYPE", rest @ ..] if rest.windows(2).any(|pair| pair == ["ADD", "VALUE"]) => Again::Harmless,
        _ => Again::Unknown,
    }
}

/// Only a concurrent build with a name: another one either happened or did not, and its leftovers cannot be found.
fn index(statement: &Statement<'_>, rest: &[&str]) -> Again {
    let rest = match rest {
        ["CONCURRENTLY", "IF", "NOT", "EXISTS", rest @ ..] | ["CONCURRENTLY", rest @ ..] => rest,
        _ => return Again::Unknown,
    };
    match rest {
        ["ON", ..] => Again::Unknown,
        [name, "ON", ..] => match table(statement.text) {
            Some(table) => Again::Index { name: (*name).to_owned(), table },
            None => Again::Unknown,
        },
        _ => Again::Unknown,
    }
}

/// The text between the first `on [only]` and what follows the table's name.
fn table(text: &str) -> Option<String> {
    let mut words = text.split_inclusive(char::is_whitespace);
    words.by_ref().find(|word| word.trim().eq_ignore_ascii_case("on"))?;
    let rest: String = words.collect();
    let rest = rest.trim_start();
    let rest = match rest.get(..5) {
        Some(only) if only.to_ascii_lowercase().starts_with("only") && only.ends_with(char::is_whitespace) => {
            &rest[5..]
        }
        _ => rest,
    };
    let mut quoted = false;
    let end = rest.find(|c: char| {
        quoted ^= c == '"';
        !quoted && (c == '(' || c.is_whitespace())
    });
    end.map(|end| rest[..end].to_owned()).filter(|table| !table.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::{File, MigrationSet};

    fn refused(sql: &str) -> Option<Refused> {
        let set = MigrationSet::from_files(&[File { name: "1_x.sql".to_owned(), sql: sql.to_owned() }]).unwrap();
        check(&set.migrations()[0]).err()
    }

    #[test]
    fn transaction_control_is_refused_with_its_line() {
        for bad in ["commit", "BEGIN", "end", "rollback work", "abort", "start transaction", "prepare transaction 'x'"]
        {
            assert_eq!(refused(&format!("select 1;\n{bad};")), Some(Refused { line: 2, why: CONTROL }), "{bad}");
        }
        for role in ["set role x", "reset role", "set session authorization x", "set local role none", "discard all"] {
            assert_eq!(refused(role).map(|refused| refused.why), Some(ROLE), "{role}");
        }
        assert_eq!(refused("copy t(a, b) from stdin").map(|refused| refused.why), Some(STDIN));
        for good in [
            "savepoint a; rollback to a",
            "do $$ begin null; end $$",
            "select 'commit'; -- commit",
            "prepare x as select 1",
        ] {
            assert_eq!(refused(good), None, "{good}");
        }
        assert_eq!(refused("-- no-transaction\nbegin; select 1; commit;"), None);
        assert_eq!(refused("-- no-transaction\nbegin; select 1;").map(|refused| refused.why), Some(OPEN_END));
    }

    #[test]
    fn what_may_be_run_again_is_known() {
        let of = |sql: &str| again(&statements(sql)[0]);
        let index = |name: &str, table: &str| Again::Index { name: name.to_owned(), table: table.to_owned() };
        assert_eq!(of("create index concurrently i on t(a)"), index("I", "t"));
        assert_eq!(
            of("CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS \"I\"\n ON ONLY s.\"T x\" using btree (a)"),
            index("\"I\"", "s.\"T x\"")
        );
        for harmless in [
            "drop index concurrently i",
            "vacuum t",
            "alter type m add value if not exists 'x'",
            "reindex table concurrently t",
        ] {
            assert_eq!(of(harmless), Again::Harmless, "{harmless}");
        }
        for unknown in [
            "create index i on t(a)",
            "create index concurrently on t(a)",
            "insert into t values(1)",
            "alter type m rename to n",
            "begin",
        ] {
            assert_eq!(of(unknown), Again::Unknown, "{unknown}");
        }
    }
}
