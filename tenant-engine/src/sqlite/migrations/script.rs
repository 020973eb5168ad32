//! Runs a text of many statements one by one, and reports the line at which it stopped.

use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::{Batch, Connection};

use super::references::{MigrationForeignKeys, StatementTurn};
use super::steps;
use crate::error::Error;
use crate::sqlite::limits::complexity::check_script;

/// Where and why a script stopped.
#[derive(Debug)]
pub(super) struct ScriptFailure {
    /// The line on which its statement begins, counted from 1. For a text that does not parse, the line of the
    /// offending token.
    pub(super) line: usize,
    /// Number of statements that ran before it.
    pub(super) done: usize,
    /// The reason why it stopped.
    pub(super) error: ScriptStopReason,
}

/// Why a statement of a script did not run.
#[derive(Debug)]
pub(super) enum ScriptStopReason {
    /// SQLite reported an error.
    Sqlite(rusqlite::Error),
    /// The statement nests so deeply that SQLite must not read it; names the exceeded limit.
    TooComplex(String),
    /// A migration may not contain the statement; gives the reason.
    Refused(&'static str),
    /// Work of the engine failed.
    Engine(Error),
    /// See [`StatementTurn::StartOver`].
    StartOver,
}

impl ScriptStopReason {
    fn is_foreign_key(&self) -> bool {
        let Self::Sqlite(rusqlite::Error::SqliteFailure(error, _)) = self else { return false };
        error.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_FOREIGNKEY
    }
}

/// Runs every statement to its end and ignores the rows they return. With `references`, that value handles foreign
/// keys.
///
/// # Errors
/// The error of the first failing statement; those before it have run. If a statement of the script is too complex,
/// nothing has run.
pub(super) fn run_script(
    db: &Connection,
    sql: &str,
    mut references: Option<&mut MigrationForeignKeys<'_>>,
) -> Result<(), ScriptFailure> {
    // SQLite ignores a byte-order mark, too.
    let sql = sql.strip_prefix('\u{feff}').unwrap_or(sql);
    check_script(sql).map_err(|(offset, why)| ScriptFailure {
        line: line_at(sql, offset + before_first_token(&sql[offset..])),
        done: 0,
        error: ScriptStopReason::TooComplex(why),
    })?;
    let mut script = MigrationScript { db, sql, offset: 0, done: 0 };
    while script.offset < sql.len() {
        match references.as_deref_mut() {
            Some(references) => script.run_step(references)?,
            None => script.run_next()?,
        }
    }
    Ok(())
}

/// The progress of a script.
struct MigrationScript<'a> {
    db: &'a Connection,
    sql: &'a str,
    offset: usize,
    done: usize,
}

impl<'a> MigrationScript<'a> {
    fn remaining_text(&self) -> &'a str {
        &self.sql[self.offset..]
    }

    /// Stops at the next statement.
    fn stopped_with(&self, error: ScriptStopReason) -> ScriptFailure {
        ScriptFailure {
            line: line_at(self.sql, self.offset + before_first_token(self.remaining_text())),
            done: self.done,
            error,
        }
    }

    fn run_step(&mut self, references: &mut MigrationForeignKeys<'_>) -> Result<(), ScriptFailure> {
        let ours = |script: &Self, error| script.stopped_with(ScriptStopReason::Engine(error));
        let turn = references.before_statement(self.remaining_text()).map_err(|error| ours(self, error))?;
        match turn {
            StatementTurn::Skip => {
                self.offset += steps::statement_end(self.remaining_text());
                self.done += 1;
                return Ok(());
            }
            StatementTurn::StartOver => return Err(self.stopped_with(ScriptStopReason::StartOver)),
            StatementTurn::Refuse(why) => return Err(self.stopped_with(ScriptStopReason::Refused(why))),
            StatementTurn::Run => self.run_next()?,
            StatementTurn::TryEnforced => {
                let text = self.remaining_text();
                if let Err(failure) = self.run_next() {
                    if !failure.error.is_foreign_key() {
                        return Err(failure);
                    }
                    references.loosen_drop(text).map_err(|error| ours(self, error))?;
                    self.run_next()?;
                }
            }
        }
        references.after_statement().map_err(|error| ours(self, error))
    }

    /// Runs the next statement; after an error it is still the next one.
    fn run_next(&mut self) -> Result<(), ScriptFailure> {
        let rest = self.remaining_text();
        let statement = match self.prepare_next(rest) {
            Ok(Some(statement)) => statement,
            Ok(None) => {
                self.offset += steps::statement_end(rest).max(1);
                return Ok(());
            }
            Err(error) => {
                let line = line_of_error(self.sql, self.offset, &error);
                return Err(ScriptFailure { line, done: self.done, error: ScriptStopReason::Sqlite(error) });
            }
        };
        // Exactly the text that SQLite parsed. It is searched, not counted, because SQLite skips empty statements
        // silently.
        let text = statement.expanded_sql().unwrap_or_default();
        let start = self.offset + rest.find(&text).unwrap_or(0);
        drain_statement(statement).map_err(|error| {
            let line = line_at(self.sql, start + before_first_token(&text));
            ScriptFailure { line, done: self.done, error: ScriptStopReason::Sqlite(error) }
        })?;
        self.offset = (start + text.len()).min(self.sql.len());
        self.done += 1;
        Ok(())
    }

    /// SQLite copies the text it is given, so it gets one statement. If the statement ends elsewhere, SQLite gets the
    /// rest of the text.
    fn prepare_next(&self, rest: &str) -> rusqlite::Result<Option<rusqlite::Statement<'a>>> {
        match Batch::new(self.db, &rest[..steps::statement_end(rest)]).next() {
            Err(_) => Batch::new(self.db, rest).next(),
            prepared => prepared,
        }
    }
}

fn drain_statement(mut statement: rusqlite::Statement<'_>) -> rusqlite::Result<()> {
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

pub(super) fn line_of_error(sql: &str, offset: usize, error: &rusqlite::Error) -> usize {
    match error {
        // The text was the rest that remained to parse, and `offset` counts from its start.
        rusqlite::Error::SqlInputError { sql: rest, offset: token, .. } => {
            let token = usize::try_from(*token).unwrap_or_else(|_| before_first_token(rest));
            line_at(sql, sql.len().saturating_sub(rest.len()) + token)
        }
        _ => line_at(sql, offset + before_first_token(sql.get(offset..).unwrap_or_default())),
    }
}

pub(super) fn line_at(sql: &str, offset: usize) -> usize {
    1 + sql.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// Length of the white space, comments and stray semicolons that stand before a statement.
pub(super) fn before_first_token(text: &str) -> usize {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == ';');
        rest = if rest.starts_with("--") {
            rest.find('\n').map_or("", |end| &rest[end..])
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or("", |end| &rest[end + 2..])
        } else {
            return text.len() - rest.len();
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing_line(sql: &str) -> (usize, usize) {
        let failure = run_script(&Connection::open_in_memory().unwrap(), sql, None).unwrap_err();
        (failure.line, failure.done)
    }

    #[test]
    fn the_line_is_that_of_the_failing_statement() {
        let script = "create table t(a unique);\n\n-- a comment; with ; semicolons\n;;\n/* and\nanother */\n\
                      insert into t values('\n');\ncreate trigger r after insert on t begin\n select 1; select 2;\nend;\n";
        assert!(run_script(&Connection::open_in_memory().unwrap(), script, None).is_ok());
        let lines = script.lines().count();
        assert_eq!(failing_line(&format!("{script}\n-- x\ninsert into t\nvalues('\n');")), (lines + 3, 3));
        assert_eq!(failing_line(&format!("{script}select\n  nope\n  from t;")).1, 3);
        assert_eq!(failing_line(&format!("{script}select 1;\nselec 'a';\n")), (lines + 2, 4));
        assert_eq!(failing_line("select 1;\nselect 'open"), (2, 1));
        assert_eq!(failing_line("select 1;\n\nselect ?;"), (3, 1));
    }

    #[test]
    fn a_script_with_a_statement_that_nests_too_deep_does_not_begin() {
        let db = Connection::open_in_memory().unwrap();
        let deep = format!("create table t(a);\n\nselect {}1{}", "(".repeat(2_000), ")".repeat(2_000));
        let failure = run_script(&db, &deep, None).unwrap_err();
        assert_eq!((failure.line, failure.done), (3, 0));
        assert!(matches!(failure.error, ScriptStopReason::TooComplex(_)));
        assert!(!db.table_exists(None, "t").unwrap());
    }

    #[test]
    fn every_statement_runs_to_its_end() {
        let db = Connection::open_in_memory().unwrap();
        run_script(
            &db,
            "create table t(a); insert into t values(1),(2) returning a; select * from t; pragma user_version=7",
            None,
        )
        .unwrap();
        assert_eq!(db.query_row("select count(*) from t", [], |r| r.get::<_, i64>(0)).unwrap(), 2);
        run_script(&db, "", None).unwrap();
        run_script(&db, " -- only a comment", None).unwrap();
    }
}
