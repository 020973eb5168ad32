//! Finds the statements of a migration that are refused in every database, from the text alone. SQLite's parser checks
//! them on an empty database in memory. Errors that depend on a tenant's database are ignored.
//!
//! Rules that need names or transactions use the words of a statement. The other rules are those of [`MigrationGuard`],
//! which the parser asks, and the parser's own: a syntax error is an error in every database.

use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::{Batch, Connection};

use super::ledger;
use super::migration_guard::{MigrationGuard, RunMode, belongs_to_engine, is_ours};
use super::references::ROLLBACK;
use super::script::{before_first_token, line_at, line_of_error};
use super::steps::{self, MigrationStep, head_words};
use crate::migration::{LedgerName, Migration};
use crate::sqlite::limits::complexity::{check_script, plain_name};
use crate::sqlite::limits::tokens::{SqliteToken, SqliteTokens};
use crate::sqlite::storage::open::OpenDatabase;
use crate::text_rules::MigrationRefusal;

const VACUUM: &str = "VACUUM cannot run inside a transaction: write '-- no-transaction' as the first line of the file";
const OTHER_FILES: &str = "ATTACH, DETACH and VACUUM INTO would reach other files";
const EXTENSION: &str = "extensions cannot be loaded";
const PARAMETER: &str = "a migration has no parameters: write the value instead";
const OPEN_END: &str = "the file ends inside the transaction that begins here: add its COMMIT";
const NESTED: &str = "a transaction cannot begin inside another one: add the COMMIT before it";
const NOT_BEGUN: &str = "no transaction has begun here: leave this statement out, or add its BEGIN";

/// Every statement of this file that is refused in every database.
pub(crate) fn migration_refusals(migration: &Migration) -> Vec<MigrationRefusal> {
    let sql = migration.sql.strip_prefix('\u{feff}').unwrap_or(&migration.sql);
    // SQLite must not read such a text at all.
    if let Err((offset, why)) = check_script(sql) {
        return vec![MigrationRefusal { line: line_of(sql, offset), why }];
    }
    let transactions = if migration.transactional { Vec::new() } else { transaction_refusals(sql) };
    let Ok(parser) = MigrationParser::open(migration) else { return transactions };
    let mut lines = LineCounter { sql, at: 0, line: 1 };
    let mut found = Vec::new();
    for (offset, statement) in split_statements(sql) {
        let line = lines.line_at_offset(offset);
        if let Some(why) = by_words(statement, migration) {
            found.push(MigrationRefusal { line, why });
            continue;
        }
        match parser.parse_statement(sql, offset, line) {
            ParseResult::Fine => {}
            ParseResult::Refused(refusal) => found.push(refusal),
            // From here on only SQLite can tell where statements begin.
            ParseResult::EndsElsewhere => break,
        }
    }
    found.extend(transactions);
    found.sort_by_key(|refusal| refusal.line);
    found
}

/// The statements with their offsets.
fn split_statements(sql: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = sql.get(at..).filter(|rest| !rest.is_empty())?;
        let (start, end) = (at, steps::statement_end(rest).max(1));
        at += end;
        Some((start, rest.get(..end).unwrap_or(rest)))
    })
}

fn line_of(sql: &str, offset: usize) -> usize {
    line_at(sql, offset + before_first_token(sql.get(offset..).unwrap_or_default()))
}

/// Counts lines once, on the way from statement to statement.
struct LineCounter<'a> {
    sql: &'a str,
    at: usize,
    line: usize,
}

impl LineCounter<'_> {
    fn line_at_offset(&mut self, offset: usize) -> usize {
        let start = offset + before_first_token(self.sql.get(offset..).unwrap_or_default());
        self.line += line_at(self.sql.get(self.at..).unwrap_or_default(), start - self.at) - 1;
        self.at = start;
        self.line
    }
}

/// The refusal that the words of one statement show.
fn by_words(statement: &str, migration: &Migration) -> Option<String> {
    let transactional = migration.transactional;
    if transactional && steps::first_step(statement) == MigrationStep::Rollback {
        return Some(ROLLBACK.to_owned());
    }
    let words = head_words(statement);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["VACUUM", rest @ ..] if rest.contains(&"INTO") => return Some(OTHER_FILES.to_owned()),
        ["DETACH", ..] => return Some(OTHER_FILES.to_owned()),
        ["VACUUM", ..] if transactional => return Some(VACUUM.to_owned()),
        _ => {}
    }
    if let Some(table) = changed_of_ours(&words, &migration.ledger) {
        return Some(belongs_to_engine(&table));
    }
    by_tokens(statement, words.first() == Some(&"CREATE"))
}

/// A name of the engine's own that this statement makes, changes or removes. The body of a trigger does not run here.
fn changed_of_ours(words: &[&str], ledger: &LedgerName) -> Option<String> {
    const BESIDE: [&str; 13] = [
        "MAIN", "\"main\"", ".", "TEMP", "IF", "NOT", "EXISTS", "OR", "IGNORE", "REPLACE", "ABORT", "FAIL", "ROLLBACK",
    ];
    let is_trigger = words.first() == Some(&"CREATE") && words.iter().take(3).any(|word| *word == "TRIGGER");
    let body = words.iter().position(|word| is_trigger && *word == "BEGIN").unwrap_or(words.len());
    // Usually there is no table of this name. If there is one, the statement is refused when it runs.
    let may_be_missing = words.first() == Some(&"DROP") && words.contains(&"EXISTS");
    let words: Vec<&str> = words[..body].iter().copied().filter(|word| !BESIDE.contains(word)).collect();
    let makes_on = words.first() == Some(&"CREATE") && words.iter().take(3).any(|w| matches!(*w, "INDEX" | "TRIGGER"));
    let first_on = words.iter().position(|word| makes_on && *word == "ON");
    let found = words.windows(2).enumerate().find(|(at, pair)| {
        let changes = match pair[0] {
            "INTO" | "UPDATE" | "TABLE" | "VIEW" | "INDEX" | "TRIGGER" => true,
            "FROM" => *at > 0 && words[at - 1] == "DELETE",
            "TO" => *at > 0 && words[at - 1] == "RENAME",
            _ => first_on == Some(*at),
        };
        let name = plain_name(pair[1]);
        changes && is_ours(&name, ledger) && (!may_be_missing || is_table_of_ours(&name, ledger))
    });
    found.map(|(_, pair)| plain_name(pair[1]))
}

/// True for a table that every database has.
fn is_table_of_ours(name: &str, ledger: &LedgerName) -> bool {
    [ledger.as_str(), "_fleet_identity"].iter().any(|table| name.eq_ignore_ascii_case(table))
}

/// Refuses parameters, and the function that loads code. The body of a view or trigger is run later by other
/// statements.
fn by_tokens(statement: &str, creates: bool) -> Option<String> {
    let mut names_function = false;
    for token in SqliteTokens::from_text(statement) {
        match token {
            SqliteToken::Variable | SqliteToken::Sign(b'?') => return Some(PARAMETER.to_owned()),
            SqliteToken::Sign(b'(') if names_function && !creates => return Some(EXTENSION.to_owned()),
            _ => {
                names_function = matches!(token, SqliteToken::Word(word) if word.eq_ignore_ascii_case("load_extension"))
            }
        }
    }
    None
}

/// Checks BEGIN and COMMIT of a file that runs outside a transaction.
fn transaction_refusals(sql: &str) -> Vec<MigrationRefusal> {
    let (mut open, mut found) = (None, Vec::new());
    for (offset, statement) in split_statements(sql) {
        // A savepoint begins and ends transactions, too: then only SQLite can tell.
        if head_words(statement).first().is_some_and(|word| matches!(word.as_str(), "SAVEPOINT" | "RELEASE")) {
            return Vec::new();
        }
        let mut refuse =
            |offset, why: &str| found.push(MigrationRefusal { line: line_of(sql, offset), why: why.to_owned() });
        match (steps::first_step(statement), open) {
            (MigrationStep::Begin, Some(_)) => refuse(offset, NESTED),
            (MigrationStep::Begin, None) => open = Some(offset),
            (MigrationStep::Commit | MigrationStep::Rollback, None) => refuse(offset, NOT_BEGUN),
            (MigrationStep::Commit | MigrationStep::Rollback, Some(_)) => open = None,
            _ => {}
        }
    }
    found.extend(open.map(|offset| MigrationRefusal { line: line_of(sql, offset), why: OPEN_END.to_owned() }));
    found
}

/// The result of parsing a statement.
enum ParseResult {
    Fine,
    Refused(MigrationRefusal),
    /// The statement is longer than its words show.
    EndsElsewhere,
}

/// SQLite's parser over an empty database.
struct MigrationParser {
    database: OpenDatabase,
    ledger: LedgerName,
    run: RunMode,
}

impl MigrationParser {
    fn open(migration: &Migration) -> crate::error::Result<Self> {
        let database = OpenDatabase::in_memory()?;
        ledger::create_ledger(&database, &migration.ledger)?;
        let run = if migration.transactional { RunMode::Whole } else { RunMode::Bare };
        Ok(Self { database, ledger: migration.ledger.clone(), run })
    }

    /// Parses the statement at `offset`. Nothing is run.
    fn parse_statement(&self, sql: &str, offset: usize, line: usize) -> ParseResult {
        let rest = &sql[offset..];
        let runs_elsewhere = self.run == RunMode::Whole
            && matches!(steps::first_step(rest), MigrationStep::Begin | MigrationStep::Commit);
        let Ok(watch) = MigrationGuard::install_guard(&self.database, self.run, &self.ledger) else {
            return ParseResult::Fine;
        };
        if runs_elsewhere {
            return ParseResult::Fine;
        }
        let first = prepare_error(&self.database, &rest[..steps::statement_end(rest)]);
        if let Some(why) = watch.first_objection() {
            return ParseResult::Refused(MigrationRefusal { line, why });
        }
        if !first.as_ref().is_some_and(is_syntax) {
            return ParseResult::Fine;
        }
        // If the statement ends elsewhere, SQLite gets the rest of the text, as when the file is run.
        match prepare_error(&self.database, rest).filter(is_syntax) {
            Some(error) => ParseResult::Refused(MigrationRefusal {
                line: line_of_error(sql, offset, &error),
                why: words_of(&error),
            }),
            None => ParseResult::EndsElsewhere,
        }
    }
}

fn prepare_error(db: &Connection, text: &str) -> Option<rusqlite::Error> {
    Batch::new(db, text).next().err()
}

/// True only for errors of the grammar: any other error may not occur in a tenant's database.
fn is_syntax(error: &rusqlite::Error) -> bool {
    let words = words_of(error);
    words.ends_with("syntax error") || words == "incomplete input" || words.starts_with("unrecognized token")
}

fn words_of(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqlInputError { msg, .. } | rusqlite::Error::SqliteFailure(_, Some(msg)) => msg.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::{MigrationFile, MigrationSet};

    fn refused(sql: &str) -> Vec<(usize, String)> {
        let set =
            MigrationSet::from_files(&[MigrationFile { name: "1_x.sql".to_owned(), sql: sql.to_owned() }]).unwrap();
        migration_refusals(&set.all_migrations()[0]).into_iter().map(|refusal| (refusal.line, refusal.why)).collect()
    }

    #[test]
    fn each_rule_is_fired_by_a_text() {
        for (bad, why) in [
            ("rollback", "undo the whole file"),
            ("explain begin", "cannot be ended"),
            ("attach '/x' as y", "ATTACH"),
            ("detach x", "other files"),
            ("vacuum", "-- no-transaction"),
            ("vacuum main into 'x'", "VACUUM INTO"),
            ("delete from _sqlx_migrations", "belongs to the engine"),
            ("with a as (select 1) delete from main.\"_sqlx_migrations\"", "belongs to the engine"),
            ("insert or replace into _FLEET_identity select 1", "belongs to the engine"),
            ("replace into [_fleet_identity] values (1)", "belongs to the engine"),
            ("update or ignore _sqlx_migrations set success = 1", "belongs to the engine"),
            ("drop table if exists _sqlx_migrations", "belongs to the engine"),
            ("alter table _fleet_identity add column x", "belongs to the engine"),
            ("alter table missing rename to _fleet_x", "belongs to the engine"),
            ("create unique index i on _sqlx_migrations(success)", "belongs to the engine"),
            ("create trigger t after insert on _sqlx_migrations begin select 1; end", "belongs to the engine"),
            ("create temp table _fleet_x(a)", "belongs to the engine"),
            ("create view _fleet_x as select 1", "belongs to the engine"),
            ("create trigger _fleet_t after insert on missing begin select 1; end", "belongs to the engine"),
            ("pragma writable_schema = on", "set by the engine"),
            ("pragma journal_mode = delete", "set by the engine"),
            ("pragma main.locking_mode = exclusive", "set by the engine"),
            ("pragma wal_checkpoint", "set by the engine"),
            ("pragma no_such_pragma", "not known"),
            ("select load_extension('x')", "extensions cannot be loaded"),
            ("insert into missing select load_extension ('x') from other", "extensions cannot be loaded"),
            ("insert into missing values (?)", "no parameters"),
            ("update missing set a = :value", "no parameters"),
            ("selec 1", "syntax error"),
            ("create table a(b", "syntax error"),
            ("insert into missing values ('open", "unrecognized token"),
            ("create table a(b text,)", "syntax error"),
            (&format!("select {}1{}", "(".repeat(2_000), ")".repeat(2_000)), "nests"),
        ] {
            let found = refused(&format!("-- first\nselect 1;\n/* why */ {bad};\n"));
            assert!(matches!(found.as_slice(), [(3, said)] if said.contains(why)), "{bad}: {found:?}");
        }
        let found = refused("rollback;\nselect 1;\nattach '' as a;\nselec");
        assert_eq!(found.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 3, 4], "every one is told: {found:?}");
    }

    #[test]
    fn what_only_a_database_can_tell_is_not_refused() {
        for good in [
            "",
            "-- only a comment",
            "; ;",
            "insert into missing select * from other where x = (select max(version) from _sqlx_migrations)",
            "begin; create table a(b); commit; savepoint s; rollback to s; release s",
            "pragma foreign_keys = off; pragma journal_mode = wal; pragma user_version = 7",
            "drop table if exists _fleet_tmp; drop view if exists _fleet_old",
            "drop table missing; alter table missing rename column a to b; drop index missing",
            "create table load_extension(a); create view v as select load_extension('x')",
            "create trigger t after insert on missing begin update other set a = 1; select 1; end; select 1",
            "insert into missing values ('?', \"?\", 'delete from _sqlx_migrations') -- ?",
            "create virtual table missing using no_such_module(a b c)",
            "\u{feff}select 1",
            "create table a(b references c on update cascade on delete set null)",
        ] {
            assert_eq!(refused(good), [], "{good}");
            assert_eq!(refused(&format!("-- no-transaction\nselect 1;\n{}", good.trim_start_matches('\u{feff}'))), []);
        }
    }

    #[test]
    fn a_file_without_transaction_begins_and_ends_its_own() {
        let bare = |sql: &str| refused(&format!("-- no-transaction\n{sql}"));
        for good in [
            "vacuum;",
            "begin; select 1; rollback;",
            "savepoint a; begin;",
            "begin;\ncreate trigger t after insert on x begin select 1; end; commit;",
        ] {
            assert_eq!(bare(good), [], "{good}");
        }
        for (bad, line, why) in [
            ("select 1;\nbegin;\nselect 1;", 3, OPEN_END),
            ("begin;\nbegin;\ncommit;", 3, NESTED),
            ("commit;", 2, NOT_BEGUN),
            ("begin; commit;\nrollback;", 3, NOT_BEGUN),
            ("vacuum into 'x'", 2, OTHER_FILES),
        ] {
            assert_eq!(bare(bad), [(line, why.to_owned())], "{bad}");
        }
    }
}
