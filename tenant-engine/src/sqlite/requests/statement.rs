//! Runs one statement of a tenant on an open connection: checks it, binds parameters, steps, and stops at the limits.
//!
//! Called on worker threads by `transaction.rs`, inside an open transaction.

use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Batch, CachedStatement, Row, Statement, ToSql};

use super::connection::SqliteTenantConnection;
use super::row_cells;
use super::sandbox::{SQL_LENGTH_MAX, VALUE_BYTES_MAX, value_bytes_max};
use crate::answers::AnswerHold;
use crate::error::{Error, ErrorKind, Result};
use crate::row_reader::RowReader;
use crate::row_stream::RowSender;
use crate::sqlite::error::from_sqlite;
use crate::sqlite::identity::INTERNAL;
use crate::sqlite::limits::complexity::StatementComplexity;
use crate::sqlite::storage::disk_full;
use crate::statement::{AccessMode, SessionLimits};
use crate::value::{Rows, SqlValue};

/// Runs one statement to its end and returns its whole answer.
///
/// # Errors
/// Every kind under "the caller's SQL" of [`ErrorKind`], and those of the database.
pub(super) fn execute_statement(
    conn: &SqliteTenantConnection,
    access: AccessMode,
    limits: &SessionLimits,
    hold: AnswerHold,
    sql: &str,
    params: &[SqlValue],
) -> Result<Rows> {
    run_as_tenant(conn, limits, sql, |sql| run_statement(conn, access, limits, hold, sql, params))
}

/// Runs one reading statement and gives each of its rows to `reader`.
///
/// # Errors
/// As [`execute_statement`].
pub(super) fn read_statement(
    conn: &SqliteTenantConnection,
    limits: &SessionLimits,
    hold: AnswerHold,
    (sql, params): (&str, &[SqlValue]),
    reader: &mut impl RowReader,
) -> Result<()> {
    run_as_tenant(conn, limits, sql, |sql| {
        let mut statement = prepare_checked(conn, AccessMode::Read, sql, params)?.0;
        row_cells::read_rows(statement.raw_query(), limits, hold, reader)
    })
}

/// Runs one reading statement and gives its rows to `send` in chunks, whose memory is counted by `new_hold`. Returns the
/// last chunk.
///
/// # Errors
/// As [`execute_statement`], except those about the length of an answer; those of `send`.
pub(super) fn stream_statement(
    conn: &SqliteTenantConnection,
    limits: &SessionLimits,
    sql: &str,
    params: &[SqlValue],
    new_hold: &dyn Fn() -> AnswerHold,
    send: &dyn Fn(Rows) -> Result<()>,
) -> Result<Rows> {
    run_as_tenant(conn, limits, sql, |sql| {
        let mut statement = prepare_checked(conn, AccessMode::Read, sql, params)?.0;
        send_rows(&mut statement, limits, new_hold, send)
    })
}

/// Calls `run` while the connection treats all SQL as the tenant's, and explains its error.
fn run_as_tenant<T>(
    conn: &SqliteTenantConnection,
    limits: &SessionLimits,
    sql: &str,
    run: impl FnOnce(&str) -> Result<T>,
) -> Result<T> {
    let sql = sql.trim();
    let values = check_text(sql, limits)?;
    let _size = ValueSize::lower_limit(conn, value_bytes_max(limits, values))?;
    let tenant = conn.sandbox_guard().tenant_sql(limits.temp_bytes_max);
    let ran = run(sql).map_err(|error| match conn.sandbox_guard().take_refusal() {
        Some(reason) => Error::new(ErrorKind::SqlForbidden, reason).with_source(error),
        None if error.kind() == ErrorKind::DeadlineExceeded => match conn.sandbox_guard().stop_reason() {
            Some(why) => why.with_source(error),
            None => error,
        },
        None => error,
    });
    drop(tenant);
    ran.map_err(|error| disk_full::explain_page_limit(conn.raw_connection(), error))
}

pub(super) fn run_statement(
    conn: &SqliteTenantConnection,
    access: AccessMode,
    limits: &SessionLimits,
    mut hold: AnswerHold,
    sql: &str,
    params: &[SqlValue],
) -> Result<Rows> {
    let (mut statement, changes) = prepare_checked(conn, access, sql, params)?;
    let rows = collect_rows(&mut statement, limits, &mut hold)?;
    let columns = column_names(&statement);
    let rows_affected = match changes {
        ChangeCount::Rows => conn.raw_connection().changes(),
        ChangeCount::Nothing => 0,
    };
    Ok(Rows { columns, rows, rows_affected, hold })
}

fn prepare_checked<'a>(
    conn: &'a SqliteTenantConnection,
    access: AccessMode,
    sql: &str,
    params: &[SqlValue],
) -> Result<(CachedStatement<'a>, ChangeCount)> {
    check_single(conn, sql)?;
    let mut statement = conn.raw_connection().prepare_cached(sql).map_err(from_sqlite)?;
    let changes = check_prepared(&statement, access)?;
    bind_params(&mut statement, params)?;
    Ok((statement, changes))
}

pub(super) fn column_names(statement: &Statement<'_>) -> Vec<String> {
    statement.column_names().into_iter().map(str::to_owned).collect()
}

/// Checks that need no SQLite. Returns the maximum number of intermediate values that the statement may hold at once.
pub(super) fn check_text(sql: &str, limits: &SessionLimits) -> Result<usize> {
    let length_max = limits.sql_bytes_max.min(SQL_LENGTH_MAX);
    if sql.len() > length_max {
        let message = format!("the SQL is {} bytes long, at most {length_max} are allowed", sql.len());
        return Err(Error::new(ErrorKind::SqlTooComplex, message));
    }
    let mut values = 0;
    if !StatementComplexity::is_simple(sql) {
        let measure = StatementComplexity::measure_sql(sql);
        measure.check_limits().map_err(|why| Error::new(ErrorKind::SqlTooComplex, why))?;
        values = measure.values;
    }
    if sql.contains('\0') {
        // SQLite would stop reading there and run the first part.
        return Err(Error::new(ErrorKind::SqlInvalid, "the SQL contains a NUL character"));
    }
    if sql.starts_with(INTERNAL) {
        return Err(Error::new(ErrorKind::SqlForbidden, format!("SQL must not begin with {INTERNAL}")));
    }
    Ok(values)
}

/// Sets another limit on the length of values, while one statement runs.
struct ValueSize<'a>(&'a SqliteTenantConnection);

impl<'a> ValueSize<'a> {
    /// `None` when the usual limit is right and nothing must be changed.
    fn lower_limit(conn: &'a SqliteTenantConnection, bytes_max: usize) -> Result<Option<Self>> {
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

/// Refuses a second statement. Only a text with a semicolon before its end can contain one, and then it is split one
/// statement at a time here: preparing it whole would recurse once per statement.
pub(super) fn check_single(conn: &SqliteTenantConnection, sql: &str) -> Result<()> {
    if !sql.trim_end_matches([';', ' ', '\t', '\r', '\n']).contains(';') {
        return Ok(());
    }
    let mut batch = Batch::new(conn.raw_connection(), sql);
    let _first = batch.next().map_err(from_sqlite)?;
    if matches!(batch.next(), Ok(None)) {
        return Ok(());
    }
    // A second statement is an error in itself, so a refusal of its content is discarded.
    conn.sandbox_guard().take_refusal();
    Err(from_sqlite(rusqlite::Error::MultipleStatement))
}

/// Whether `changes()` applies to this statement.
#[derive(Clone, Copy)]
pub(super) enum ChangeCount {
    Rows,
    Nothing,
}

pub(super) fn check_prepared(statement: &Statement<'_>, access: AccessMode) -> Result<ChangeCount> {
    if statement.is_explain() != 0 {
        return Ok(ChangeCount::Nothing);
    }
    if !statement.readonly() {
        return match access {
            AccessMode::Write => Ok(ChangeCount::Rows),
            AccessMode::Read => Err(Error::new(
                ErrorKind::ReadOnlyTransaction,
                "the statement writes, and this transaction may only read",
            )),
        };
    }
    if statement.column_count() == 0 && statement.expanded_sql().is_none() {
        return Err(Error::new(ErrorKind::SqlInvalid, "the text holds no SQL statement"));
    }
    Ok(ChangeCount::Nothing)
}

fn bind_params(statement: &mut CachedStatement<'_>, params: &[SqlValue]) -> Result<()> {
    let numbers = parameter_numbers(statement)?;
    let wanted = numbers.iter().copied().max().unwrap_or(0);
    if wanted != params.len() {
        return Err(from_sqlite(rusqlite::Error::InvalidParameterCount(params.len(), wanted)));
    }
    for (index, number) in numbers.into_iter().enumerate() {
        let param = &params[number - 1];
        if matches!(param, SqlValue::Real(real) if real.is_nan()) {
            let message = format!("parameter {number} is NaN, which SQLite stores as NULL: send null");
            return Err(Error::new(ErrorKind::ParameterMismatch, message));
        }
        statement.raw_bind_parameter(index + 1, BorrowedValue(param)).map_err(from_sqlite)?;
    }
    Ok(())
}

/// The number of the value for each parameter of the statement. To SQLite, `$2` is only a name, and its number is its
/// place in the text. Here it means the second value, as on PostgreSQL.
fn parameter_numbers(statement: &Statement<'_>) -> Result<Vec<usize>> {
    let dollar_number = |index: usize| statement.parameter_name(index)?.strip_prefix('$')?.parse::<usize>().ok();
    let count = statement.parameter_count();
    let dollars: Vec<_> = (1..=count).filter_map(dollar_number).collect();
    match dollars.len() {
        0 => Ok((1..=count).collect()),
        all if all == count && !dollars.contains(&0) => Ok(dollars),
        _ => {
            let message = "the statement has parameters of the form $1 and others: use only one form, from $1 or ?1";
            Err(Error::new(ErrorKind::ParameterMismatch, message))
        }
    }
}

struct BorrowedValue<'a>(&'a SqlValue);

impl ToSql for BorrowedValue<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            SqlValue::Null => ValueRef::Null,
            SqlValue::Integer(value) => ValueRef::Integer(*value),
            SqlValue::Boolean(value) => ValueRef::Integer(i64::from(*value)),
            SqlValue::Real(value) => ValueRef::Real(*value),
            SqlValue::Text(text) => ValueRef::Text(text.as_bytes()),
            SqlValue::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

fn collect_rows(
    statement: &mut CachedStatement<'_>,
    limits: &SessionLimits,
    hold: &mut AnswerHold,
) -> Result<Vec<Vec<SqlValue>>> {
    let mut rows = statement.raw_query();
    let mut collected = Vec::new();
    let mut bytes = 0_usize;
    while let Some(row) = rows.next().map_err(from_sqlite)? {
        if collected.len() >= limits.rows_max {
            return Err(rows_max_exceeded(limits.rows_max));
        }
        hold.count_row()?;
        collected.push(read_cells(row, &mut bytes, limits.bytes_max, hold)?);
    }
    Ok(collected)
}

/// As [`collect_rows`], but sends each full chunk.
fn send_rows(
    statement: &mut CachedStatement<'_>,
    limits: &SessionLimits,
    new_hold: &dyn Fn() -> AnswerHold,
    send: &dyn Fn(Rows) -> Result<()>,
) -> Result<Rows> {
    let new_chunk = || Rows { hold: new_hold(), ..Rows::default() };
    let mut rows = statement.raw_query();
    let mut chunk = new_chunk();
    while let Some(row) = rows.next().map_err(from_sqlite)? {
        if chunk.columns.is_empty() {
            chunk.columns = column_names(row.as_ref());
        }
        chunk.hold.count_row()?;
        // Each row may be as large as a whole answer.
        let cells = read_cells(row, &mut 0, limits.bytes_max, &mut chunk.hold)?;
        chunk.rows.push(cells);
        if RowSender::is_full(&chunk.hold) {
            send(std::mem::replace(&mut chunk, new_chunk()))?;
        }
    }
    drop(rows);
    chunk.columns = column_names(statement);
    Ok(chunk)
}

fn read_cells(row: &Row<'_>, bytes: &mut usize, bytes_max: usize, hold: &mut AnswerHold) -> Result<Vec<SqlValue>> {
    // Asked per row: after a schema change, SQLite prepares `select *` again at the first step.
    let columns = row.as_ref().column_count();
    let mut cells = Vec::with_capacity(columns);
    for column in 0..columns {
        let cell = row.get_ref(column).map_err(from_sqlite)?;
        *bytes += size_bytes(cell);
        if *bytes > bytes_max {
            return Err(bytes_max_exceeded(bytes_max));
        }
        hold.count_cell(heap_bytes(cell))?;
        cells.push(owned_value(cell));
    }
    Ok(cells)
}

pub(super) fn heap_bytes(cell: ValueRef<'_>) -> usize {
    match cell {
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => 0,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
    }
}

pub(super) fn rows_max_exceeded(rows_max: usize) -> Error {
    Error::new(ErrorKind::RowsMax, format!("the answer has more than {rows_max} rows; ask for fewer"))
}

pub(super) fn bytes_max_exceeded(bytes_max: usize) -> Error {
    Error::new(ErrorKind::BytesMax, format!("the answer has more than {bytes_max} bytes; ask for less"))
}

/// As [`SqlValue::size_bytes`], before anything is copied.
pub(super) fn size_bytes(cell: ValueRef<'_>) -> usize {
    match cell {
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => 8,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
    }
}

fn owned_value(cell: ValueRef<'_>) -> SqlValue {
    match cell {
        ValueRef::Null => SqlValue::Null,
        ValueRef::Integer(value) => SqlValue::Integer(value),
        ValueRef::Real(value) => SqlValue::Real(value),
        // SQLite does not check that a stored text is UTF-8. As bytes nothing is lost, and the row stays readable.
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => SqlValue::Text(text.to_owned()),
            Err(_) => SqlValue::Blob(bytes.to_vec()),
        },
        ValueRef::Blob(bytes) => SqlValue::Blob(bytes.to_vec()),
    }
}
