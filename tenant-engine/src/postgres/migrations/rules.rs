//! PURE: which statements a migration may have, and which of them may be run again after a process died.

use std::borrow::Cow;

use super::script::{ScriptStatement, byte_order_mark, split_statements};
use crate::migration::Migration;
use crate::own_tables::own_table_names;
use crate::text_rules::MigrationRefusal;

/// A statement that a migration may not hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RefusedStatement {
    pub(super) line: usize,
    pub(super) why: Cow<'static, str>,
}

const CONTROL: &str = "a transaction cannot be prepared here: every version is one transaction of its own";
const ROLLBACK: &str = "ROLLBACK would undo the whole file: leave it out, or use SAVEPOINT and ROLLBACK TO";
const ROLE: &str = "a migration runs as fleet_owner and cannot change its role";
const STDIN: &str = "COPY … FROM STDIN needs psql; write INSERT, or load the data another way";
const COPY_OUT: &str = "COPY … TO STDOUT has no receiver here; leave it out of the migration";
const PSQL: &str = "a line that begins with a backslash is a command of psql, not SQL: leave it out";
const OWN_TABLE: &str =
    "a table that holds jobs or received webhooks belongs to the engine; a migration may not change it";
const IDENTITY: &str = "'_fleet_identity' belongs to the engine; a migration may not change it";
const OPEN_END: &str = "the file ends inside a transaction that it began";
const OUTSIDE: &str =
    "this statement cannot run inside a transaction: write '-- no-transaction' as the first line of the file";

/// Checks a whole file before any of it runs; fails with the first refused statement.
pub(super) fn check_migration(migration: &Migration) -> Result<(), RefusedStatement> {
    all_refused(migration).into_iter().next().map_or(Ok(()), Err)
}

/// Every statement of this file that is refused in every database.
pub(crate) fn migration_refusals(migration: &Migration) -> Vec<MigrationRefusal> {
    all_refused(migration)
        .into_iter()
        .map(|refused| MigrationRefusal { line: refused.line, why: refused.why.into_owned() })
        .collect()
}

fn all_refused(migration: &Migration) -> Vec<RefusedStatement> {
    let statements = split_statements(&migration.sql);
    let refused = |statement: &ScriptStatement<'_>| {
        let why =
            refused_name(statement, migration).or_else(|| Some(forbidden_reason(statement, migration)?.into()))?;
        Some(RefusedStatement { line: statement.line, why })
    };
    let mut found: Vec<RefusedStatement> = statements.iter().filter_map(refused).collect();
    found.extend(ends_outside(&statements).filter(|_| !migration.transactional));
    found.sort_by_key(|refused| refused.line);
    found
}

/// The ledger's name, if the statement would change that table.
fn refused_name(statement: &ScriptStatement<'_>, migration: &Migration) -> Option<Cow<'static, str>> {
    let words: Vec<&str> = statement.words.iter().map(String::as_str).collect();
    let name = migration.ledger.as_str();
    // A name without quotes is converted to lower case.
    let folds = name.chars().all(|c| !c.is_ascii_uppercase());
    let bare = if folds { name.to_ascii_uppercase() } else { String::new() };
    let changes = changes_table(&words, [&bare, &format!("\"{name}\"")]);
    changes.then(|| format!("'{name}' belongs to the engine; a migration may not change it").into())
}

fn forbidden_reason(statement: &ScriptStatement<'_>, migration: &Migration) -> Option<&'static str> {
    let transactional = migration.transactional;
    let words: Vec<&str> = statement.words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["SET", "ROLE", ..] | ["SET", "LOCAL" | "SESSION", "ROLE", ..] | ["RESET", "ROLE", ..] => Some(ROLE),
        ["SET", "SESSION", "AUTHORIZATION", ..] | ["RESET", "SESSION", ..] => Some(ROLE),
        ["SET", "LOCAL", "SESSION", "AUTHORIZATION", ..] | ["DISCARD", "ALL", ..] => Some(ROLE),
        ["COPY", .., "FROM", "STDIN"] => Some(STDIN),
        ["COPY", rest @ ..] if rest.windows(2).any(|pair| pair == ["FROM", "STDIN"]) => Some(STDIN),
        ["COPY", rest @ ..] if rest.windows(2).any(|pair| pair == ["TO", "STDOUT"]) => Some(COPY_OUT),
        _ if statement.text.starts_with('\\') => Some(PSQL),
        _ if changes_table(&words, ["_FLEET_IDENTITY", "\"_fleet_identity\""]) => Some(IDENTITY),
        _ if own_table_names().any(|name| changes_table(&words, [&name.to_uppercase(), &format!("\"{name}\"")])) => {
            Some(OWN_TABLE)
        }
        _ if transactional && runs_outside(&words) => Some(OUTSIDE),
        ["PREPARE", "TRANSACTION", ..] | ["COMMIT" | "ROLLBACK", "PREPARED", ..] => Some(CONTROL),
        ["ROLLBACK" | "ABORT", ..] if transactional && transaction_step(statement) == TransactionStep::Ends => {
            Some(ROLLBACK)
        }
        _ => None,
    }
}

/// True for statements that the server runs only outside a transaction.
fn runs_outside(words: &[&str]) -> bool {
    match words {
        ["VACUUM", ..] | ["ALTER", "SYSTEM", ..] | ["CLUSTER"] | ["CLUSTER", "VERBOSE"] => true,
        ["CREATE" | "DROP", "DATABASE" | "TABLESPACE", ..] | ["REINDEX", "DATABASE" | "SYSTEM" | "SCHEMA", ..] => true,
        ["CREATE" | "DROP", "INDEX", "CONCURRENTLY", ..] | ["CREATE", "UNIQUE", "INDEX", "CONCURRENTLY", ..] => true,
        ["REINDEX", rest @ ..] => rest.contains(&"CONCURRENTLY"),
        ["ALTER", "TABLE", .., "CONCURRENTLY"] => words.windows(2).any(|pair| pair == ["DETACH", "PARTITION"]),
        _ => false,
    }
}

/// True when the statement changes one of these tables. Reading them is allowed, as on SQLite.
fn changes_table(words: &[&str], names: [&str; 2]) -> bool {
    let beside = ["PUBLIC", "\"public\"", "ONLY", "IF", "EXISTS"];
    let words: Vec<&str> = words.iter().copied().filter(|word| !beside.contains(word)).collect();
    words.windows(2).enumerate().any(|(at, pair)| {
        let is_ours = names.contains(&pair[1]);
        let changes = match pair[0] {
            "INTO" | "UPDATE" | "TRUNCATE" => true,
            "TABLE" => !matches!(words[0], "GRANT" | "REVOKE" | "LOCK"),
            "TO" => at > 0 && words[at - 1] == "RENAME",
            "FROM" => at > 0 && words[at - 1] == "DELETE",
            "ON" => matches!(words[0], "CREATE" | "DROP" | "ALTER" | "COMMENT") && is_on_table(&words),
            _ => false,
        };
        is_ours && changes
    })
}

/// Whether the statement is about an object of a table: then ON names the table, and is not the condition of a join.
fn is_on_table(words: &[&str]) -> bool {
    words
        .iter()
        .take(5)
        .any(|word| matches!(*word, "INDEX" | "TRIGGER" | "RULE" | "POLICY" | "CONSTRAINT" | "STATISTICS"))
}

/// A comment that only the owner of the database, of the schema public or of an extension may write. Dumps contain such
/// comments, and nothing reads them.
fn is_comment_elsewhere(statement: &ScriptStatement<'_>) -> bool {
    let words: Vec<&str> = statement.words.iter().map(String::as_str).collect();
    matches!(
        words.as_slice(),
        ["COMMENT", "ON", "DATABASE" | "EXTENSION", ..] | ["COMMENT", "ON", "SCHEMA", "PUBLIC" | "\"public\"", ..]
    )
}

/// The effect of a statement on its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TransactionStep {
    Begins,
    Ends,
    Neither,
}

fn transaction_step(statement: &ScriptStatement<'_>) -> TransactionStep {
    let words: Vec<&str> = statement.words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["BEGIN", ..] | ["START", "TRANSACTION", ..] => TransactionStep::Begins,
        ["ROLLBACK", "TO", ..] | ["ROLLBACK", "WORK" | "TRANSACTION", "TO", ..] => TransactionStep::Neither,
        ["COMMIT" | "END" | "ROLLBACK" | "ABORT", ..] => TransactionStep::Ends,
        _ => TransactionStep::Neither,
    }
}

/// The text without the parts that have no effect here: its BEGIN and COMMIT, comments on other owners' objects, and a
/// byte-order mark. A version is one transaction and commits with its ledger row. Every other character keeps its
/// place, so that the server's positions are those of the file.
pub(super) fn effective_text(sql: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(sql);
    let mark = byte_order_mark(sql);
    if mark > 0 {
        text.to_mut().replace_range(..mark, &" ".repeat(mark));
    }
    let has_no_effect = |statement: &&ScriptStatement<'_>| {
        transaction_step(statement) != TransactionStep::Neither || is_comment_elsewhere(statement)
    };
    for statement in split_statements(sql).iter().filter(has_no_effect) {
        let start = statement.text.as_ptr().addr() - sql.as_ptr().addr();
        let blank = |c: char| if c == '\n' { "\n".to_owned() } else { " ".repeat(c.len_utf8()) };
        let blanks: String = statement.text.chars().map(blank).collect();
        text.to_mut().replace_range(start..start + blanks.len(), &blanks);
    }
    text
}

fn ends_outside(found: &[ScriptStatement<'_>]) -> Option<RefusedStatement> {
    let last = found.iter().rev().find(|statement| transaction_step(statement) != TransactionStep::Neither)?;
    (transaction_step(last) == TransactionStep::Begins)
        .then_some(RefusedStatement { line: last.line, why: OPEN_END.into() })
}

/// The effect of running a statement a second time, outside a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RerunEffect {
    /// It has an equal effect, or reports that the work is done.
    Harmless,
    /// It builds an index of this name on this table; an interrupted build leaves the index behind, invalid.
    Index {
        /// The name as written, including quotes.
        name: String,
        table: String,
    },
    /// The effect is unknown, so a person must decide.
    Unknown,
}

/// The effect of running this statement again.
pub(super) fn rerun_effect(statement: &ScriptStatement<'_>) -> RerunEffect {
    let words: Vec<&str> = statement.words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["CREATE", "INDEX", rest @ ..] | ["CREATE", "UNIQUE", "INDEX", rest @ ..] => index_rerun(statement, rest),
        ["DROP", "INDEX", "CONCURRENTLY", ..]
        | ["VACUUM" | "ANALYZE" | "ANALYSE" | "REINDEX" | "CLUSTER" | "CHECKPOINT" | "SET" | "RESET" | "REFRESH", ..] => {
            RerunEffect::Harmless
        }
        ["ALTER", "TYPE", .., "VALUE"] => RerunEffect::Harmless,
        ["ALTER", "TYPE", rest @ ..] if rest.windows(2).any(|pair| pair == ["ADD", "VALUE"]) => RerunEffect::Harmless,
        _ => RerunEffect::Unknown,
    }
}

/// Recognizes only a concurrent build with a name. Any other build happened completely or not at all, and leftovers
/// without a known name cannot be found.
fn index_rerun(statement: &ScriptStatement<'_>, rest: &[&str]) -> RerunEffect {
    let rest = match rest {
        ["CONCURRENTLY", "IF", "NOT", "EXISTS", rest @ ..] | ["CONCURRENTLY", rest @ ..] => rest,
        _ => return RerunEffect::Unknown,
    };
    match rest {
        ["ON", ..] => RerunEffect::Unknown,
        [name, "ON", ..] => match index_table(statement.text) {
            Some(table) => RerunEffect::Index { name: (*name).to_owned(), table },
            None => RerunEffect::Unknown,
        },
        _ => RerunEffect::Unknown,
    }
}

/// The text between the first `on [only]` and the text after the table's name.
fn index_table(text: &str) -> Option<String> {
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
    use crate::migration::{MigrationFile, MigrationSet};

    fn refused(sql: &str) -> Option<RefusedStatement> {
        let set =
            MigrationSet::from_files(&[MigrationFile { name: "1_x.sql".to_owned(), sql: sql.to_owned() }]).unwrap();
        check_migration(&set.all_migrations()[0]).err()
    }

    const LEDGER: &str = "'_sqlx_migrations' belongs to the engine; a migration may not change it";

    fn why(sql: &str) -> Option<String> {
        refused(sql).map(|refused| refused.why.into_owned())
    }

    #[test]
    fn the_ledger_is_the_one_that_the_set_names() {
        let named = |name: &str, sql: &str| {
            let file = |name: &str, sql: String| MigrationFile { name: name.to_owned(), sql };
            let settings = format!("migrate.table-name = '{name}'");
            let set =
                MigrationSet::from_files(&[file("1_x.sql", sql.to_owned()), file("sqlx.toml", settings)]).unwrap();
            check_migration(&set.all_migrations()[0]).err().map(|refused| refused.why.into_owned())
        };
        for bad in ["delete from ops", "drop table public.\"ops\"", "insert into Ops values (1)"] {
            assert!(named("ops", bad).unwrap().contains("'ops' belongs"), "{bad}");
        }
        assert!(named("\"Ops\"", "truncate \"Ops\"").is_some());
        for good in ["delete from ops", "delete from \"ops\"", "delete from _sqlx_migrations"] {
            assert_eq!(named("\"Ops\"", good), None, "{good}");
        }
    }

    #[test]
    fn transaction_control_is_refused_with_its_line() {
        for bad in ["rollback work", "abort", "rollback and chain"] {
            assert_eq!(
                refused(&format!("select 1;\n{bad};")),
                Some(RefusedStatement { line: 2, why: ROLLBACK.into() }),
                "{bad}"
            );
        }
        for bad in ["prepare transaction 'x'", "commit prepared 'x'", "rollback prepared 'x'"] {
            assert_eq!(
                refused(&format!("select 1;\n{bad};")),
                Some(RefusedStatement { line: 2, why: CONTROL.into() }),
                "{bad}"
            );
        }
        for role in ["set role x", "reset role", "set session authorization x", "set local role none", "discard all"] {
            assert_eq!(why(role).as_deref(), Some(ROLE), "{role}");
        }
        assert_eq!(why("copy t(a, b) from stdin").as_deref(), Some(STDIN));
        for (bad, expected) in [
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
            ("alter table t rename to _sqlx_migrations", LEDGER),
            ("alter table public._fleet_identity add column x int", IDENTITY),
            ("delete from _fleet_identity", IDENTITY),
            ("alter table public._fleet_jobs add column x int", OWN_TABLE),
            ("create index on \"_fleet_received\" (account)", OWN_TABLE),
            ("drop table if exists _fleet_jobs", OWN_TABLE),
            ("vacuum t", OUTSIDE),
            ("create unique index concurrently i on t(a)", OUTSIDE),
            ("drop index concurrently i", OUTSIDE),
            ("reindex table concurrently t", OUTSIDE),
            ("reindex schema public", OUTSIDE),
            ("alter table t detach partition p concurrently", OUTSIDE),
            ("create database x", OUTSIDE),
            ("alter system set work_mem = 1", OUTSIDE),
        ] {
            assert_eq!(why(bad).as_deref(), Some(expected), "{bad}");
        }
        for good in [
            "create table kept as select * from _sqlx_migrations",
            "create view v as select 1 from a join _sqlx_migrations on _sqlx_migrations.version = a.v",
            "create view v as select 1 from a join _fleet_identity on _fleet_identity.one = a.v",
            "lock table _sqlx_migrations in share mode",
            "alter type m add value 'x';commit;begin;insert into settings(k) values ('x')",
            "delete from t where v in (select version from _sqlx_migrations)",
            "savepoint a; rollback to a",
            "begin; select 1; end; start transaction; commit and chain; commit",
            "do $$ begin null; end $$",
            "select 'commit'; -- commit",
            "prepare x as select 1",
            "refresh materialized view concurrently v; cluster t; analyze t; reindex table t",
            "alter type m add value 'x'; commit; begin; insert into t values ('y')",
            "create type m as enum ('a'); alter type m add value 'x'; commit; insert into t values ('x')",
            "alter type m add value 'x'; commit",
            "select * from _fleet_identity",
        ] {
            assert_eq!(refused(good), None, "{good}");
        }
        assert_eq!(refused("-- no-transaction\nbegin; select 1; commit;"), None);
        assert_eq!(why("-- no-transaction\nbegin; select 1;").as_deref(), Some(OPEN_END));
    }

    #[test]
    fn begin_and_commit_are_left_out_and_the_rest_keeps_its_place() {
        for sql in ["select 'begin; commit'", "do $$ begin null; end $$", "savepoint a; release a"] {
            assert!(matches!(effective_text(sql), Cow::Borrowed(same) if same == sql), "{sql}");
        }
        for sql in
            ["comment on database x is 'a'", "comment on schema public is 'b'", "comment on extension \"x-y\" is ''"]
        {
            assert_eq!(effective_text(sql).trim(), "", "{sql}");
        }
        assert!(!effective_text("comment on schema own is 'b'; comment on table t is 'x'").contains("    "));
        let sql = "BEGIN;\nselect '\u{e4}';\nCOMMIT /* \u{e4}\n */ WORK;\nselect 2;end";
        let kept = effective_text(sql);
        assert_eq!(kept.len(), sql.len());
        assert_eq!(kept.split_whitespace().collect::<Vec<_>>(), [";", "select", "'\u{e4}';", ";", "select", "2;"]);
        assert_eq!(kept.find("select 2"), sql.find("select 2"));
    }

    #[test]
    fn what_may_be_run_again_is_known() {
        let of = |sql: &str| rerun_effect(&split_statements(sql)[0]);
        let index = |name: &str, table: &str| RerunEffect::Index { name: name.to_owned(), table: table.to_owned() };
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
            assert_eq!(of(harmless), RerunEffect::Harmless, "{harmless}");
        }
        for unknown in [
            "create index i on t(a)",
            "create index concurrently on t(a)",
            "insert into t values(1)",
            "alter type m rename to n",
            "begin",
        ] {
            assert_eq!(of(unknown), RerunEffect::Unknown, "{unknown}");
        }
    }
}
