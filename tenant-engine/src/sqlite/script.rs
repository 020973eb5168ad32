//! Runs a text of many statements one by one, and says at which line it stopped.

use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::{Batch, Connection};

use super::complexity::check_script;
use super::references::{References, Turn};
use super::steps;
use crate::error::Error;

/// Where and why a script stopped.
#[derive(Debug)]
pub(super) struct Failure {
    /// The line its statement begins on, from 1; for a text that does not parse, the line of the offending token.
    pub(super) line: usize,
    /// How many statements ran before it.
    pub(super) done: usize,
    /// The reason.
    pub(super) error: Reason,
}

/// Why a statement of a script did not run.
#[derive(Debug)]
pub(super) enum Reason {
    /// SQLite's.
    Sqlite(rusqlite::Error),
    /// It nests so deep that SQLite may not see it; says what is too much.
    TooComplex(String),
    /// A migration may not hold it; says why.
    Refused(&'static str),
    /// What the engine did before it failed.
    Engine(Error),
    /// See [`Turn::StartOver`].
    StartOver,
}

impl Reason {
    fn is_foreign_key(&self) -> bool {
        let Self::Sqlite(rusqlite::Error::SqliteFailure(error, _)) = self else { return false };
        error.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_FOREIGNKEY
    }
}

/// Runs every statement to its end; rows they return are passed over. With `references`, foreign keys are as that says.
///
/// # Errors
/// The first statement's that fails; those before it have run. Of a script with a statement that is too complex,
/// nothing has run.
pub(super) fn run(db: &Connection, sql: &str, mut references: Option<&mut References<'_>>) -> Result<(), Failure> {
    // SQLite passes over a byte-order mark, too.
    let sql = sql.strip_prefix('\u{feff}').unwrap_or(sql);
    check_script(sql).map_err(|(offset, why)| Failure {
        line: line_at(sql, offset + before_first_token(&sql[offset..])),
        done: 0,
        error: Reason::TooComplex(why),
    })?;
    let mut script = Script { db, sql, offset: 0, done: 0 };
    while script.offset < sql.len() {
        match references.as_deref_mut() {
            Some(references) => script.step(references)?,
            None => script.run_next()?,
        }
    }
    Ok(())
}

/// How far a script has come.
struct Script<'a> {
    db: &'a Connection,
    sql: &'a str,
    offset: usize,
    done: usize,
}

impl<'a> Script<'a> {
    fn rest(&self) -> &'a str {
        &self.sql[self.offset..]
    }

    /// Where it stopped, at the statement that comes next.
    fn stopped(&self, error: Reason) -> Failure {
        Failure { line: line_at(self.sql, self.offset + before_first_token(self.rest())), done: self.done, error }
    }

    fn step(&mut self, references: &mut References<'_>) -> Result<(), Failure> {
        let ours = |script: &Self, error| script.stopped(Reason::Engine(error));
        let turn = references.before(self.rest()).map_err(|error| ours(self, error))?;
        match turn {
            Turn::Skip => {
                self.offset += steps::end(self.rest());
                self.done += 1;
                return Ok(());
            }
            Turn::StartOver => return Err(self.stopped(Reason::StartOver)),
            Turn::Refuse(why) => return Err(self.stopped(Reason::Refused(why))),
            Turn::Run => self.run_next()?,
            Turn::TryEnforced => {
                let text = self.rest();
                if let Err(failure) = self.run_next() {
                    if !failure.error.is_foreign_key() {
                        return Err(failure);
                    }
                    references.loosen(text).map_err(|error| ours(self, error))?;
                    self.run_next()?;
                }
            }
        }
        references.after().map_err(|error| ours(self, error))
    }

    /// Runs the statement that comes next; after an error it is still the next one.
    fn run_next(&mut self) -> Result<(), Failure> {
        let rest = self.rest();
        let statement = match self.prepare(rest) {
            Ok(Some(statement)) => statement,
            Ok(None) => {
                self.offset += steps::end(rest).max(1);
                return Ok(());
            }
            Err(error) => {
                let line = line_of_error(self.sql, self.offset, &error);
                return Err(Failure { line, done: self.done, error: Reason::Sqlite(error) });
            }
        };
        // Exactly the text SQLite parsed; found, not counted, because empty statements are skipped without a trace.
        let text = statement.expanded_sql().unwrap_or_default();
        let start = self.offset + rest.find(&text).unwrap_or(0);
        finish(statement).map_err(|error| {
            let line = line_at(self.sql, start + before_first_token(&text));
            Failure { line, done: self.done, error: Reason::Sqlite(error) }
        })?;
        self.offset = (start + text.len()).min(self.sql.len());
        self.done += 1;
        Ok(())
    }

    /// SQLite copies the text it is given, so it gets one statement. Where it ends another way, SQLite gets the rest.
    fn prepare(&self, rest: &str) -> rusqlite::Result<Option<rusqlite::Statement<'a>>> {
        match Batch::new(self.db, &rest[..steps::end(rest)]).next() {
            Err(_) => Batch::new(self.db, rest).next(),
            prepared => prepared,
        }
    }
}

fn finish(mut statement: rusqlite::Statement<'_>) -> rusqlite::Result<()> {
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

fn line_of_error(sql: &str, offset: usize, error: &rusqlite::Error) -> usize {
    match error {
        // The text is what was left to parse, and `offset` counts from its start.
        rusqlite::Error::SqlInputError { sql: rest, offset: token, .. } => {
            let token = usize::try_from(*token).unwrap_or_else(|_| before_first_token(rest));
            line_at(sql, sql.len().saturating_sub(rest.len()) + token)
        }
        _ => line_at(sql, offset + before_first_token(sql.get(offset..).unwrap_or_default())),
    }
}

fn line_at(sql: &str, offset: usize) -> usize {
    1 + sql.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// Length of the white space, comments and stray semicolons that stand before a statement.
fn before_first_token(text: &str) -> usize {
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
        let failure = run(&Connection::open_in_memory().unwrap(), sql, None).unwrap_err();
        (failure.line, failure.done)
    }

    #[test]
    fn the_line_is_that_of_the_failing_statement() {
        let script = "create table t(a unique);\n\n-- a comment; with ; semicolons\n;;\n/* and\nanother */\n\
                      insert into t values('\n');\ncreate trigger r after insert on t begin\n select 1; select 2;\nend;\n";
        assert!(run(&Connection::open_in_memory().unwrap(), script, None).is_ok());
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
        let failure = run(&db, &deep, None).unwrap_err();
        assert_eq!((failure.line, failure.done), (3, 0));
        assert!(matches!(failure.error, Reason::TooComplex(_)));
        assert!(!db.table_exists(None, "t").unwrap());
    }

    #[test]
    fn every_statement_runs_to_its_end() {
        let db = Connection::open_in_memory().unwrap();
        run(
            &db,
            "create table t(a); insert into t values(1),(2) returning a; select * from t; pragma user_version=7",
            None,
        )
        .unwrap();
        assert_eq!(db.query_row("select count(*) from t", [], |r| r.get::<_, i64>(0)).unwrap(), 2);
        run(&db, "", None).unwrap();
        run(&db, " -- only a comment", None).unwrap();
    }
}
