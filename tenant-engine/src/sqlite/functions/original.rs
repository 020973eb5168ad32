//! The original of a replaced function: asked on a connection of the thread's own, where nothing is replaced.
//!
//! What the replacements leave to it costs some microseconds and a copy of the arguments.

use std::cell::RefCell;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Error, Result, ToSql};

use super::Output;

thread_local! {
    static PLAIN: RefCell<Option<Connection>> = const { RefCell::new(None) };
}

/// An argument as it is.
struct Argument<'a>(ValueRef<'a>);

impl ToSql for Argument<'_> {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(self.0))
    }
}

/// The value of an expression over `arguments`, as SQLite itself computes it.
///
/// # Errors
/// The function's, with its own words.
pub(super) fn evaluate(expression: &str, arguments: &[ValueRef<'_>]) -> Result<Output> {
    PLAIN.with_borrow_mut(|plain| {
        let db = match plain.take() {
            Some(db) => db,
            None => Connection::open_in_memory()?,
        };
        let result = on(&db, expression, arguments);
        *plain = Some(db);
        result
    })
}

fn on(db: &Connection, expression: &str, arguments: &[ValueRef<'_>]) -> Result<Output> {
    let mut statement = db.prepare_cached(&format!("select {expression}"))?;
    for (index, argument) in arguments.iter().enumerate() {
        statement.raw_bind_parameter(index + 1, Argument(*argument))?;
    }
    let value = {
        let mut rows = statement.raw_query();
        match rows.next() {
            Ok(Some(row)) => row.get_ref(0).map(Output::from),
            Ok(None) => Ok(Output::Null),
            Err(error) => Err(error),
        }
    };
    // The statement is kept, its arguments are not.
    statement.clear_bindings();
    value.map_err(plainly)
}

/// Only the code and the message pass from one connection to the other.
fn plainly(error: Error) -> Error {
    match error {
        Error::SqlInputError { error, msg, .. } => Error::SqliteFailure(error, Some(msg)),
        other => other,
    }
}
