//! PURE: what a migration's statements may be, and which of them may be run again after a process died.

use std::borrow::Cow;

use super::script::{Statement, byte_order_mark, statements};
use crate::migration::Migration;

/// A statement that a migration may not hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) line: usize,
    pub(super) why: &'static str,
}

const CONTROL: &str = "a transaction cannot be prepared here: every version is one transaction of its own";
const ROLLBACK: &str = "ROLLBACK would undo the whole file: leave it out, or use SAVEPOINT and ROLLBACK TO";
const ROLE: &str = "a migration runs as fleet_owner and cannot change its role";
const STDIN: &str = "COPY … FROM STDIN needs psql; write INSERT, or load the data another way";
const COPY_OUT: &str = "COPY … TO STDOUT sends rows to nobody here; leave it out of the migration";
const LEDGER: &str = "'_sqlx_migrations' belongs to the engine; a migration may not change it";
const PSQL: &str = "a line that begins with a backslash is a command of psql, not SQL: leave it out";
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
        ["COPY", rest @ ..] if rest.windows(2).any(|pair| pair == ["TO", "STDOUT"]) => Some(COPY_OUT),
        _ if statement.text.starts_with('\\') => Some(PSQL),
        _ if changes_ledger(&words) => Some(LEDGER),
        ["PREPARE", "TRANSACTION", ..] | ["COMMIT" | "ROLLBACK", "PREPARED", ..] => Some(CONTROL),
        ["ROLLBACK" | "ABORT", ..] if transactional && step(statement) == Step::Ends => Some(ROLLBACK),
        _ => None,
    }
}

/// Reading it is allowed, as on SQLite.
fn changes_ledger(words: &[&str]) -> bool {
    let beside = ["PUBLIC", "\"public\"", "ONLY", "IF", "EXISTS"];
    let words: Vec<&str> = words.iter().copied().filter(|word| !beside.contains(word)).collect();
    words.windows(2).enumerate().any(|(at, pair)| {
        let is_ledger = matches!(pair[1], "_SQLX_MIGRATIONS" | "\"_sqlx_migrations\"");
        let changes = match pair[0] {
            "INTO" | "UPDATE" | "TABLE" | "TRUNCATE" => true,
            "FROM" => at > 0 && words[at - 1] == "DELETE",
            "ON" => matches!(words[0], "CREATE" | "DROP" | "ALTER" | "COMMENT"),
            _ => false,
        };
        is_ledger && changes
    })
}

/// A comment that only the owner of the database, of the schema public or of an extension may write: dumps hold them,
/// and nothing reads them.
fn is_comment_elsewhere(statement: &Statement<'_>) -> bool {
    let words: Vec<&str> = statement.words.iter().map(String::as_str).collect();
    matches!(
        words.as_slice(),
        ["COMMENT", "ON", "DATABASE" | "EXTENSION", ..] | ["COMMENT", "ON", "SCHEMA", "PUBLIC" | "\"public\"", ..]
    )
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

/// The text without what has no effect here: its BEGIN and COMMIT, comments on objects of others, and a byte-order mark.
/// A version is one transaction, and commits with its ledger row. Every other
/// character keeps its place, so that the server's positions are those of the file.
pub(super) fn effective(sql: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(sql);
    let mark = byte_order_mark(sql);
    if mark > 0 {
        text.to_mut().replace_range(..mark, &" ".repeat(mark));
    }
    let has_no_effect =
        |statement: &&Statement<'_>| step(statement) != Step::Neither || is_comment_elsewhere(statement);
    for statement in statements(sql).iter().filter(has_no_effect) {
        let start = statement.text.as_ptr().addr() - sql.as_ptr().addr();
        let blank = |c: char| if c == '\n' { "\n".to_owned() } else { " ".repeat(c.len_utf8()) };
        let blanks: String = statement.text.chars().map(blank).collect();
        text.to_mut().replace_range(start..start + blanks.len(), &blanks);
    }
    text
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
        for bad in ["rollback work", "abort", "rollback and chain"] {
            assert_eq!(refused(&format!("select 1;\n{bad};")), Some(Refused { line: 2, why: ROLLBACK }), "{bad}");
        }
        for bad in ["prepare transaction 'x'", "commit prepared 'x'", "rollback prepared 'x'"] {
            assert_eq!(refused(&format!("select 1;\n{bad};")), Some(Refused { line: 2, why: CONTROL }), "{bad}");
        }
        for role in ["set role x", "reset role", "set session authorization x", "set local role none", "discard all"] {
            assert_eq!(refused(role).map(|refused| refused.why), Some(ROLE), "{role}");
        }
        assert_eq!(refused("copy t(a, b) from stdin").map(|refused| refused.why), Some(STDIN));
        for (bad, why) in [
            ("copy (select 1) to stdout", COPY_OUT),
            ("copy t to stdout with csv", COPY_OUT),
            ("\\restrict abc\nselect 1", PSQL),
            ("\\connect other\n", PSQL),
            ("delete from only public._sqlx_migrations", LEDGER),
            ("update \"_sqlx_migrations\" set success = true", LEDGER),
            ("insert into public._sqlx_migrations values (1)", LEDGER),
            ("with x as (select 1) delete from _sqlx_migrations", LEDGER),
            ("drop table if exists _sqlx_migrations", LEDGER),
            ("alter table _sqlx_migrations add column x int", LEDGER),
            ("truncate table _sqlx_migrations", LEDGER),
            ("create index i on _sqlx_migrations(success)", LEDGER),
        ] {
            assert_eq!(refused(bad).map(|refused| refused.why), Some(why), "{bad}");
        }
        for good in [
            "create table kept as select * from _sqlx_migrations",
            "delete from t where v in (select version from _sqlx_migrations)",
            "savepoint a; rollback to a",
            "begin; select 1; end; start transaction; commit and chain; commit",
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
    fn begin_and_commit_are_left_out_and_the_rest_keeps_its_place() {
        for sql in ["select 'begin; commit'", "do $$ begin null; end $$", "savepoint a; release a"] {
            assert!(matches!(effective(sql), Cow::Borrowed(same) if same == sql), "{sql}");
        }
        for sql in
            ["comment on database x is 'a'", "comment on schema public is 'b'", "comment on extension \"x-y\" is ''"]
        {
            assert_eq!(effective(sql).trim(), "", "{sql}");
        }
        assert!(!effective("comment on schema own is 'b'; comment on table t is 'x'").contains("    "));
        let sql = "BEGIN;\nselect '\u{e4}';\nCOMMIT /* \u{e4}\n */ WORK;\nselect 2;end";
        let kept = effective(sql);
        assert_eq!(kept.len(), sql.len());
        assert_eq!(kept.split_whitespace().collect::<Vec<_>>(), [";", "select", "'\u{e4}';", ";", "select", "2;"]);
        assert_eq!(kept.find("select 2"), sql.find("select 2"));
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
