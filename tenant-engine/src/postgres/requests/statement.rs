//! Runs one statement of a tenant on an open connection: prepares, binds, collects, and stops at the caps.
//!
//! Called by `transaction.rs`, after `sandbox.rs` allowed the text. By the extended protocol only, which takes exactly
//! one statement. A prepared statement is kept on its connection: the next time it is one round trip. An answer that is
//! refused while it is read has been produced by a statement that ran: `transaction.rs` sees to it that it is undone.

use futures_util::{Stream, TryStreamExt as _};
use sqlx::postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{
    Arguments as _, AssertSqlSafe, Column as _, Either, Executor as _, PgConnection, Row as _, SqlSafeStr as _,
    Statement as _, TypeInfo as _, ValueRef as _,
};

use super::fault::{Cause, Fault};
use super::sandbox::Verb;
use super::transaction::Call;
use super::value::{Form, Parameter, noun};
use crate::answers::AnswerHold;
use crate::error::{Error, ErrorKind};
use crate::pool::{Limits, Statement};
use crate::value::{Rows, Value};

/// Buffers that grew for a large answer are given back after one.
const BUFFER_KEPT_BYTES: usize = 64 << 10;

/// No value that is not a text or bytes is sent in more: what is wider counts by its length.
const WIDEST_BYTES: usize = 64;

/// Rows of an answer that is too long anyway that are read and thrown away: about what a new connection costs.
const DRAINED_MAX: u32 = 1_000;

type Part = Either<PgQueryResult, PgRow>;

/// A statement that the server knows, with its parameters: everything that can be refused before it runs.
pub(super) struct Prepared {
    statement: PgStatement,
    forms: Vec<Form>,
    arguments: PgArguments,
}

impl Prepared {
    /// True when it answers rows, which can be too many, too large or unreadable after it ran.
    pub(super) fn answers_rows(&self) -> bool {
        !self.forms.is_empty()
    }
}

/// Prepares one statement and binds its parameters; nothing runs.
pub(super) async fn prepare(connection: &mut PgConnection, statement: &Statement) -> Result<Prepared, Fault> {
    let sql = AssertSqlSafe(statement.sql.as_str()).into_sql_str();
    let prepared = connection.prepare(sql).await.map_err(not_prepared)?;
    let forms = forms(&prepared)?;
    let arguments = bind(&prepared, &statement.params)?;
    Ok(Prepared { statement: prepared, forms, arguments })
}

/// The driver looks up the types of a statement and does not know all kinds. The server keeps such a statement, whose name
/// only the driver knew: the connection is closed, so that these do not pile up.
fn not_prepared(error: sqlx::Error) -> Fault {
    let is_of_type = match &error {
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::TypeNotFound { .. } => true,
        sqlx::Error::Protocol(text) => text.starts_with("unable to resolve type") || text.starts_with("type category"),
        _ => false,
    };
    if !is_of_type {
        return Fault::before_anything(error);
    }
    let message = "a column or a parameter is of a type without a neutral form, a multirange or one made of it: cast a \
                   column to text; write a parameter as $1::text and cast that";
    Fault { error: Error::new(ErrorKind::UnsupportedType, message).with_source(error), cause: Cause::Unread }
}

/// Runs one statement to its end and returns all it answers.
pub(super) async fn run(
    connection: &mut PgConnection,
    call: &Call,
    prepared: Prepared,
    verb: Verb,
) -> Result<Rows, Fault> {
    let Prepared { statement: prepared, forms, arguments } = prepared;
    let columns = prepared.columns().iter().map(|column| column.name().to_owned()).collect();
    let mut answer = Answer::new(columns, forms, call);
    collect(connection, prepared, arguments, &mut answer).await?;
    if answer.bytes > BUFFER_KEPT_BYTES {
        sqlx::Connection::shrink_buffers(connection);
    }
    let rows_affected = match verb {
        Verb::Changes => answer.affected,
        Verb::Reads => 0,
    };
    Ok(Rows { columns: answer.columns, rows: answer.rows, rows_affected, hold: answer.hold })
}

async fn collect(
    connection: &mut PgConnection,
    prepared: PgStatement,
    arguments: PgArguments,
    answer: &mut Answer<'_>,
) -> Result<(), Fault> {
    let mut parts = connection.fetch_many(prepared.query_with(arguments));
    let mut completed = false;
    loop {
        match parts.try_next().await {
            Ok(None) => return Ok(()),
            Ok(Some(Either::Left(done))) => {
                completed = true;
                answer.affected += done.rows_affected();
            }
            Ok(Some(Either::Right(row))) => {
                // The driver does not pause while data keeps coming.
                tokio::task::coop::consume_budget().await;
                if let Err(fault) = answer.push(&row) {
                    return Err(drain(parts, fault).await);
                }
            }
            Err(error) if completed => return Err(Fault::after_completion(error)),
            Err(error) => return Err(Fault::before_completion(error)),
        }
    }
}

/// Reads the rest of an answer that is too long, if little is left: the connection can be used again then.
async fn drain(mut parts: impl Stream<Item = sqlx::Result<Part>> + Unpin, fault: Fault) -> Fault {
    let mut left = DRAINED_MAX;
    while let Ok(part) = parts.try_next().await {
        left = match part {
            None => return Fault { cause: Cause::Server, ..fault },
            Some(_) if left == 0 => return fault,
            Some(_) => left - 1,
        };
    }
    fault
}

/// How each column is read.
fn forms(prepared: &PgStatement) -> Result<Vec<Form>, Fault> {
    let form = |column: &sqlx::postgres::PgColumn| {
        Form::of(column.type_info()).ok_or_else(|| {
            let (name, of) = (column.name(), type_name(column.type_info()));
            refused(ErrorKind::UnsupportedType, format!("column '{name}' is of type {of}: cast it to text"))
        })
    };
    prepared.columns().iter().map(form).collect()
}

fn bind(prepared: &PgStatement, params: &[Value]) -> Result<PgArguments, Fault> {
    let wanted = match prepared.parameters() {
        Some(Either::Left(types)) => types,
        _ => &[],
    };
    if wanted.len() != params.len() {
        let message = format!("the statement has {} parameters, {} values were given", wanted.len(), params.len());
        return Err(refused(ErrorKind::ParameterMismatch, message));
    }
    let mut arguments = PgArguments::default();
    for (index, (value, info)) in params.iter().zip(wanted).enumerate() {
        let number = index + 1;
        let form = Form::of(info).ok_or_else(|| {
            let message =
                format!("parameter ${number} is of type {}: write ${number}::text and cast that", type_name(info));
            refused(ErrorKind::UnsupportedType, message)
        })?;
        arguments.add(Parameter { value, form, info }).map_err(|_| {
            let message =
                format!("parameter ${number} is of type {}, and {} does not fit it", type_name(info), noun(value));
            refused(ErrorKind::ParameterMismatch, message)
        })?;
    }
    Ok(arguments)
}

fn type_name(info: &PgTypeInfo) -> String {
    info.name().to_ascii_lowercase()
}

fn refused(kind: ErrorKind, message: String) -> Fault {
    Fault { error: Error::new(kind, message), cause: Cause::Refused }
}

/// What was read so far.
struct Answer<'a> {
    columns: Vec<String>,
    forms: Vec<Form>,
    limits: &'a Limits,
    rows: Vec<Vec<Value>>,
    bytes: usize,
    affected: u64,
    hold: AnswerHold,
}

impl<'a> Answer<'a> {
    fn new(columns: Vec<String>, forms: Vec<Form>, call: &'a Call) -> Self {
        let (limits, hold) = (&call.limits, call.answers.hold());
        Self { columns, forms, limits, rows: Vec::new(), bytes: 0, affected: 0, hold }
    }

    fn push(&mut self, row: &PgRow) -> Result<(), Fault> {
        if self.rows.len() >= self.limits.rows_max {
            let message = format!("the answer has more than {} rows; ask for fewer", self.limits.rows_max);
            return Err(unread(ErrorKind::RowsMax, message));
        }
        self.hold.row().map_err(full)?;
        let cells = (0..self.forms.len()).map(|column| self.cell(row, column)).collect::<Result<_, _>>()?;
        self.rows.push(cells);
        Ok(())
    }

    fn cell(&mut self, row: &PgRow, column: usize) -> Result<Value, Fault> {
        let raw = row.try_get_raw(column).map_err(|_| damaged())?;
        let value = match raw.as_bytes() {
            Err(_) if raw.is_null() => Value::Null,
            Err(_) => return Err(damaged()),
            // Before anything is copied.
            Ok(bytes) if self.bytes.saturating_add(bytes.len()) > self.limits.bytes_max.max(WIDEST_BYTES) => {
                return Err(self.too_large());
            }
            Ok(bytes) => self.forms[column].read(bytes).ok_or_else(damaged)?,
        };
        self.hold.cell(value.heap_bytes()).map_err(full)?;
        self.bytes += value.size_bytes();
        if self.bytes > self.limits.bytes_max { Err(self.too_large()) } else { Ok(value) }
    }

    fn too_large(&self) -> Fault {
        let message = format!("the answer has more than {} bytes; ask for less", self.limits.bytes_max);
        unread(ErrorKind::BytesMax, message)
    }
}

fn full(error: Error) -> Fault {
    Fault { error, cause: Cause::Unread }
}

fn unread(kind: ErrorKind, message: String) -> Fault {
    Fault { error: Error::new(kind, message), cause: Cause::Unread }
}

fn damaged() -> Fault {
    unread(ErrorKind::Internal, "the server sent a value that is not of the type it announced".to_owned())
}
