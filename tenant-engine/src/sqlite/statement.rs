//! Runs one statement of a tenant on an open connection: checks it, binds, steps, and stops at the caps.
//!
//! Called on worker threads by `transaction.rs`, inside an open transaction.

use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Batch, CachedStatement, Row, ToSql};

use super::complexity::Measure;
use super::connection::Conn;
use super::error::from_sqlite;
use super::full;
use super::identity::INTERNAL;
use super::sandbox::{SQL_LENGTH_MAX, VALUE_BYTES_MAX, value_bytes_max};
use crate::answers::AnswerHold;
use crate::error::{Error, ErrorKind, Result};
use crate::pool::{Access, Limits};
use crate::value::{Rows, Value};

/// Runs one statement to its end and returns all it answers.
///
/// # Errors
/// Every kind under "the caller's SQL" of [`ErrorKind`], and those of the database.
pub(super) fn execute(
    conn: &Conn,
    access: Access,
    limits: &Limits,
    hold: AnswerHold,
    sql: &str,
    params: &[Value],
) -> Result<Rows> {
    let sql = sql.trim();
    let values = check_text(sql, limits)?;
    let _size = ValueSize::bound(conn, value_bytes_max(limits, values))?;
    let tenant = conn.guard().tenant_sql(limits.temp_bytes_max);
    let ran = run(conn, access, limits, hold, sql, params).map_err(|error| match conn.guard().take_refusal() {
        Some(reason) => Error::new(ErrorKind::SqlForbidden, reason).with_source(error),
        None if error.kind() == ErrorKind::DeadlineExceeded => match conn.guard().stopped() {
            Some(why) => why.with_source(error),
            None => error,
        },
        None => error,
    });
    drop(tenant);
    ran.map_err(|error| full::explained(conn.db(), error))
}

fn run(
    conn: &Conn,
    access: Access,
    limits: &Limits,
    mut hold: AnswerHold,
    sql: &str,
    params: &[Value],
) -> Result<Rows> {
    check_single(conn, sql)?;
    let mut statement = conn.db().prepare_cached(sql).map_err(from_sqlite)?;
    let changes = check_prepared(&statement, access)?;
    bind(&mut statement, params)?;
    let rows = collect(&mut statement, limits, &mut hold)?;
    let columns = statement.column_names().into_iter().map(str::to_owned).collect();
    let rows_affected = match changes {
        Changes::Rows => conn.db().changes(),
        Changes::Nothing => 0,
    };
    Ok(Rows { columns, rows, rows_affected, hold })
}

/// What can be refused without SQLite. Returns how many values of its own the statement may hold at once, at most.
fn check_text(sql: &str, limits: &Limits) -> Result<usize> {
    let length_max = limits.sql_bytes_max.min(SQL_LENGTH_MAX);
    if sql.len() > length_max {
        let message = format!("the SQL is {} bytes long, at most {length_max} are allowed", sql.len());
        return Err(Error::new(ErrorKind::SqlTooComplex, message));
    }
    let mut values = 0;
    if !Measure::is_simple(sql) {
        let measure = Measure::of(sql);
        measure.check().map_err(|why| Error::new(ErrorKind::SqlTooComplex, why))?;
        values = measure.values;
    }
    if sql.contains('\0') {
        // SQLite would stop reading there and run the first half.
        return Err(Error::new(ErrorKind::SqlInvalid, "the SQL contains a NUL character"));
    }
    if sql.starts_with(INTERNAL) {
        return Err(Error::new(ErrorKind::SqlForbidden, format!("SQL must not begin with {INTERNAL}")));
    }
    Ok(values)
}

/// Another limit on the length of values, while one statement runs.
struct ValueSize<'a>(&'a Conn);

impl<'a> ValueSize<'a> {
    /// `None` when the usual limit is the right one, and nothing has to be done.
    fn bound(conn: &'a Conn, bytes_max: usize) -> Result<Option<Self>> {
        if bytes_max == VALUE_BYTES_MAX {
            return Ok(None);
        }
        conn.bound_values(bytes_max).map_err(from_sqlite)?;
        Ok(Some(Self(conn)))
    }
}

impl Drop for ValueSize<'_> {
    fn drop(&mut self) {
        let _ = self.0.bound_values(VALUE_BYTES_MAX);
    }
}

/// Refuses a second statement. Only a text with a semicolon before its end can hold one, and then it is taken apart
/// one statement at a time here: preparing it whole would recurse once per statement.
fn check_single(conn: &Conn, sql: &str) -> Result<()> {
    if !sql.trim_end_matches([';', ' ', '\t', '\r', '\n']).contains(';') {
        return Ok(());
    }
    let mut batch = Batch::new(conn.db(), sql);
    let _first = batch.next().map_err(from_sqlite)?;
    if matches!(batch.next(), Ok(None)) {
        return Ok(());
    }
    // Whatever is wrong with the second one, there must not be one.
    conn.guard().take_refusal();
    Err(from_sqlite(rusqlite::Error::MultipleStatement))
}

/// Whether `changes()` says something about this statement.
#[derive(Clone, Copy)]
enum Changes {
    Rows,
    Nothing,
}

fn check_prepared(statement: &CachedStatement<'_>, access: Access) -> Result<Changes> {
    if statement.is_explain() != 0 {
        return Ok(Changes::Nothing);
    }
    if !statement.readonly() {
        return match access {
            Access::Write => Ok(Changes::Rows),
            Access::Read => Err(Error::new(
                ErrorKind::ReadOnlyTransaction,
                "the statement writes, and this transaction may only read",
            )),
        };
    }
    if statement.column_count() == 0 && statement.expanded_sql().is_none() {
        return Err(Error::new(ErrorKind::SqlInvalid, "the text holds no SQL statement"));
    }
    Ok(Changes::Nothing)
}

fn bind(statement: &mut CachedStatement<'_>, params: &[Value]) -> Result<()> {
    let wanted = statement.parameter_count();
    if wanted != params.len() {
        return Err(from_sqlite(rusqlite::Error::InvalidParameterCount(params.len(), wanted)));
    }
    for (index, param) in params.iter().enumerate() {
        if matches!(param, Value::Real(real) if real.is_nan()) {
            let message = format!("parameter ?{} is NaN, which SQLite stores as NULL: send null", index + 1);
            return Err(Error::new(ErrorKind::ParameterMismatch, message));
        }
        statement.raw_bind_parameter(index + 1, Borrowed(param)).map_err(from_sqlite)?;
    }
    Ok(())
}

struct Borrowed<'a>(&'a Value);

impl ToSql for Borrowed<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Integer(value) => ValueRef::Integer(*value),
            Value::Boolean(value) => ValueRef::Integer(i64::from(*value)),
            Value::Real(value) => ValueRef::Real(*value),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

fn collect(statement: &mut CachedStatement<'_>, limits: &Limits, hold: &mut AnswerHold) -> Result<Vec<Vec<Value>>> {
    let mut rows = statement.raw_query();
    let mut collected = Vec::new();
    let mut bytes = 0_usize;
    while let Some(row) = rows.next().map_err(from_sqlite)? {
        if collected.len() >= limits.rows_max {
            let message = format!("the answer has more than {} rows; ask for fewer", limits.rows_max);
            return Err(Error::new(ErrorKind::RowsMax, message));
        }
        hold.row()?;
        collected.push(cells(row, &mut bytes, limits.bytes_max, hold)?);
    }
    Ok(collected)
}

fn cells(row: &Row<'_>, bytes: &mut usize, bytes_max: usize, hold: &mut AnswerHold) -> Result<Vec<Value>> {
    // Asked per row: a changed schema makes SQLite prepare `select *` again at the first step.
    let columns = row.as_ref().column_count();
    let mut cells = Vec::with_capacity(columns);
    for column in 0..columns {
        let cell = row.get_ref(column).map_err(from_sqlite)?;
        *bytes += size_bytes(cell);
        if *bytes > bytes_max {
            let message = format!("the answer has more than {bytes_max} bytes; ask for less");
            return Err(Error::new(ErrorKind::BytesMax, message));
        }
        hold.cell(heap_bytes(cell))?;
        cells.push(owned(cell));
    }
    Ok(cells)
}

fn heap_bytes(cell: ValueRef<'_>) -> usize {
    match cell {
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => 0,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
    }
}

/// As [`Value::size_bytes`], before anything is copied.
fn size_bytes(cell: ValueRef<'_>) -> usize {
    match cell {
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => 8,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
    }
}

fn owned(cell: ValueRef<'_>) -> Value {
    match cell {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value) => Value::Integer(value),
        ValueRef::Real(value) => Value::Real(value),
        // SQLite does not check what it stores as text. Bytes lose nothing, and the row stays readable.
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(_) => Value::Blob(bytes.to_vec()),
        },
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}
