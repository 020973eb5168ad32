//! Calls the original of a replaced function, on a connection of the thread's own without replacements.
//!
//! Each such call costs some microseconds and a copy of the arguments.

use std::cell::RefCell;

use rusqlite::limits::Limit;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Error, Result, ToSql};

use super::FunctionOutput;

thread_local! {
    static PLAIN: RefCell<Option<Connection>> = const { RefCell::new(None) };
}

/// An argument, passed unchanged.
struct RawArgument<'a>(ValueRef<'a>);

impl ToSql for RawArgument<'_> {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(self.0))
    }
}

/// The value of an expression over `arguments`, as SQLite itself computes it.
///
/// # Errors
/// The function's error, with its own message.
pub(super) fn evaluate_original(expression: &str, arguments: &[ValueRef<'_>]) -> Result<FunctionOutput> {
    with_plain(|db| evaluate_on(db, expression, arguments))
}

/// Like [`evaluate_original`], but no value may have more than `bytes_max` bytes while SQLite computes it.
///
/// # Errors
/// The function's error, with its own message.
pub(super) fn evaluate_within(
    expression: &str,
    arguments: &[ValueRef<'_>],
    bytes_max: usize,
) -> Result<FunctionOutput> {
    with_plain(|db| {
        let before = db.limit(Limit::SQLITE_LIMIT_LENGTH)?;
        db.set_limit(Limit::SQLITE_LIMIT_LENGTH, i32::try_from(bytes_max).unwrap_or(i32::MAX))?;
        let result = evaluate_on(db, expression, arguments);
        db.set_limit(Limit::SQLITE_LIMIT_LENGTH, before)?;
        result
    })
}

fn with_plain(evaluate: impl FnOnce(&Connection) -> Result<FunctionOutput>) -> Result<FunctionOutput> {
    PLAIN.with_borrow_mut(|plain| {
        let db = match plain.take() {
            Some(db) => db,
            None => Connection::open_in_memory()?,
        };
        let result = evaluate(&db);
        *plain = Some(db);
        result
    })
}

fn evaluate_on(db: &Connection, expression: &str, arguments: &[ValueRef<'_>]) -> Result<FunctionOutput> {
    let mut statement = db.prepare_cached(&format!("select {expression}"))?;
    for (index, argument) in arguments.iter().enumerate() {
        statement.raw_bind_parameter(index + 1, RawArgument(*argument))?;
    }
    let value = {
        let mut rows = statement.raw_query();
        match rows.next() {
            Ok(Some(row)) => row.get_ref(0).map(FunctionOutput::from),
            Ok(None) => Ok(FunctionOutput::Null),
            Err(error) => Err(error),
        }
    };
    // The statement is kept for reuse, its arguments are not.
    statement.clear_bindings();
    value.map_err(plain_error)
}

/// Only the code and the message are passed from one connection to the other.
fn plain_error(error: Error) -> Error {
    match error {
        Error::SqlInputError { error, msg, .. } => Error::SqliteFailure(error, Some(msg)),
        other => other,
    }
}
