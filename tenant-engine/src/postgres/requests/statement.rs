//! Runs one statement of a tenant on an open connection: prepares it, binds parameters, collects the answer, and stops
//! at the limits.
//!
//! Called by `transaction.rs`, after `sandbox.rs` allowed the text. It uses only the extended protocol, which accepts
//! exactly one statement. A prepared statement stays on its connection, so its next use takes one round trip. An answer
//! that is refused while it is read comes from a statement that has run; `transaction.rs` makes sure that it is undone.

use futures_util::{Stream, TryStreamExt as _};
use sqlx::postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{
    Arguments as _, AssertSqlSafe, Column as _, Either, Executor as _, PgConnection, Row as _, SqlSafeStr as _,
    Statement as _, TypeInfo as _, ValueRef as _,
};

use super::sandbox::StatementEffect;
use super::statement_fault::{FaultCause, StatementFault};
use super::transaction::PostgresSessionCall;
use super::value::{WireForm, WireParameter, value_noun};
use crate::answers::AnswerHold;
use crate::error::{Error, ErrorKind};
use crate::statement::{SessionLimits, SqlStatement};
use crate::value::{Rows, SqlValue};

/// Buffers that grew above this size for a large answer are released after it.
const BUFFER_KEPT_BYTES: usize = 64 << 10;

/// Maximum bytes on the wire for a value that is not text or bytes. A longer value counts by its length.
const WIDEST_BYTES: usize = 64;

/// Remaining rows of a too long answer that are read and discarded: costs about as much as a new connection.
const DRAINED_MAX: u32 = 1_000;

type AnswerPart = Either<PgQueryResult, PgRow>;

/// A prepared statement with its parameters: everything that can be refused before it runs was checked.
pub(super) struct PreparedStatement {
    statement: PgStatement,
    forms: Vec<WireForm>,
    arguments: PgArguments,
}

impl PreparedStatement {
    /// True when it returns rows. These can be too many, too large or unreadable after the statement ran.
    pub(super) fn answers_rows(&self) -> bool {
        !self.forms.is_empty()
    }

    pub(super) fn into_parts(self) -> (PgStatement, Vec<WireForm>, PgArguments) {
        (self.statement, self.forms, self.arguments)
    }
}

/// Prepares one statement and binds its parameters; nothing runs.
pub(super) async fn prepare_statement(
    connection: &mut PgConnection,
    statement: &SqlStatement,
) -> Result<PreparedStatement, StatementFault> {
    let sql = AssertSqlSafe(statement.sql.as_str()).into_sql_str();
    let prepared = connection.prepare(sql).await.map_err(not_prepared)?;
    let forms = column_forms(&prepared)?;
    let arguments = bind_params(&prepared, &statement.params)?;
    Ok(PreparedStatement { statement: prepared, forms, arguments })
}

/// The driver looks up the types of a statement and does not know all kinds. The server then keeps a statement whose
/// name only the driver knew. The connection is closed, so that such statements do not accumulate.
fn not_prepared(error: sqlx::Error) -> StatementFault {
    let is_of_type = match &error {
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::TypeNotFound { .. } => true,
        sqlx::Error::Protocol(text) => text.starts_with("unable to resolve type") || text.starts_with("type category"),
        _ => false,
    };
    if !is_of_type {
        return StatementFault::before_anything(error);
    }
    let message = "a column or a parameter is of a type without a neutral form, a multirange or one made of it: cast a \
                   column to text; write a parameter as $1::text and cast that";
    StatementFault {
        error: Error::new(ErrorKind::UnsupportedType, message).with_source(error),
        cause: FaultCause::Unread,
    }
}

/// Runs one statement to its end and returns its whole answer.
pub(super) async fn run_statement(
    connection: &mut PgConnection,
    call: &PostgresSessionCall,
    prepared: PreparedStatement,
    verb: StatementEffect,
) -> Result<Rows, StatementFault> {
    let (prepared, forms, arguments) = prepared.into_parts();
    let mut answer = CollectedAnswer::new(&prepared, forms, call.limits, call.answers.new_hold());
    collect_answer(connection, prepared, arguments, &mut answer).await?;
    if answer.bytes > BUFFER_KEPT_BYTES {
        sqlx::Connection::shrink_buffers(connection);
    }
    let rows_affected = match verb {
        StatementEffect::Changes => answer.affected,
        StatementEffect::Reads => 0,
    };
    Ok(Rows { columns: answer.columns, rows: answer.rows, rows_affected, hold: answer.hold })
}

async fn collect_answer(
    connection: &mut PgConnection,
    prepared: PgStatement,
    arguments: PgArguments,
    answer: &mut CollectedAnswer,
) -> Result<(), StatementFault> {
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
                if let Err(fault) = answer.push_row(&row) {
                    return Err(drain_answer(parts, fault).await);
                }
            }
            Err(error) if completed => return Err(StatementFault::after_completion(error)),
            Err(error) => return Err(StatementFault::before_completion(error)),
        }
    }
}

/// Reads the rest of a too long answer, if little is left, so that the connection can be used again.
async fn drain_answer(
    mut parts: impl Stream<Item = sqlx::Result<AnswerPart>> + Unpin,
    fault: StatementFault,
) -> StatementFault {
    let mut left = DRAINED_MAX;
    while let Ok(part) = parts.try_next().await {
        left = match part {
            None => return StatementFault { cause: FaultCause::Server, ..fault },
            Some(_) if left == 0 => return fault,
            Some(_) => left - 1,
        };
    }
    fault
}

/// How each column is read.
fn column_forms(prepared: &PgStatement) -> Result<Vec<WireForm>, StatementFault> {
    let form = |column: &sqlx::postgres::PgColumn| {
        WireForm::for_type(column.type_info()).ok_or_else(|| {
            let (name, of) = (column.name(), type_name(column.type_info()));
            statement_refused(ErrorKind::UnsupportedType, format!("column '{name}' is of type {of}: cast it to text"))
        })
    };
    prepared.columns().iter().map(form).collect()
}

fn bind_params(prepared: &PgStatement, params: &[SqlValue]) -> Result<PgArguments, StatementFault> {
    let wanted = match prepared.parameters() {
        Some(Either::Left(types)) => types,
        _ => &[],
    };
    if wanted.len() != params.len() {
        let message = format!("the statement has {} parameters, {} values were given", wanted.len(), params.len());
        return Err(statement_refused(ErrorKind::ParameterMismatch, message));
    }
    let mut arguments = PgArguments::default();
    for (index, (value, info)) in params.iter().zip(wanted).enumerate() {
        let number = index + 1;
        let form = WireForm::for_type(info).ok_or_else(|| {
            let message =
                format!("parameter ${number} is of type {}: write ${number}::text and cast that", type_name(info));
            statement_refused(ErrorKind::UnsupportedType, message)
        })?;
        arguments.add(WireParameter { value, form, info }).map_err(|_| {
            let message = format!(
                "parameter ${number} is of type {}, and {} does not fit it",
                type_name(info),
                value_noun(value)
            );
            statement_refused(ErrorKind::ParameterMismatch, message)
        })?;
    }
    Ok(arguments)
}

fn type_name(info: &PgTypeInfo) -> String {
    info.name().to_ascii_lowercase()
}

fn statement_refused(kind: ErrorKind, message: String) -> StatementFault {
    StatementFault { error: Error::new(kind, message), cause: FaultCause::Refused }
}

/// The part of the answer that was read so far.
pub(super) struct CollectedAnswer {
    columns: Vec<String>,
    forms: Vec<WireForm>,
    limits: SessionLimits,
    rows: Vec<Vec<SqlValue>>,
    bytes: usize,
    affected: u64,
    hold: AnswerHold,
}

impl CollectedAnswer {
    pub(super) fn new(statement: &PgStatement, forms: Vec<WireForm>, limits: SessionLimits, hold: AnswerHold) -> Self {
        let columns = statement.columns().iter().map(|column| column.name().to_owned()).collect();
        Self { columns, forms, limits, rows: Vec::new(), bytes: 0, affected: 0, hold }
    }

    /// The memory of the rows so far.
    pub(super) fn hold(&self) -> &AnswerHold {
        &self.hold
    }

    /// Takes the rows so far; the next ones are counted by `hold`.
    pub(super) fn take_rows(&mut self, hold: AnswerHold) -> Rows {
        self.bytes = 0;
        let (rows, hold) = (std::mem::take(&mut self.rows), std::mem::replace(&mut self.hold, hold));
        Rows { columns: self.columns.clone(), rows, rows_affected: 0, hold }
    }

    pub(super) fn push_row(&mut self, row: &PgRow) -> Result<(), StatementFault> {
        if self.rows.len() >= self.limits.rows_max {
            let message = format!("the answer has more than {} rows; ask for fewer", self.limits.rows_max);
            return Err(answer_unread(ErrorKind::RowsMax, message));
        }
        self.hold.count_row().map_err(answers_full)?;
        let cells = (0..self.forms.len()).map(|column| self.read_cell(row, column)).collect::<Result<_, _>>()?;
        self.rows.push(cells);
        Ok(())
    }

    fn read_cell(&mut self, row: &PgRow, column: usize) -> Result<SqlValue, StatementFault> {
        let raw = row.try_get_raw(column).map_err(|_| value_damaged())?;
        let value = match raw.as_bytes() {
            Err(_) if raw.is_null() => SqlValue::Null,
            Err(_) => return Err(value_damaged()),
            // Checked before any bytes are copied.
            Ok(bytes) if self.bytes.saturating_add(bytes.len()) > self.limits.bytes_max.max(WIDEST_BYTES) => {
                return Err(self.too_large());
            }
            Ok(bytes) => self.forms[column].read_value(bytes).ok_or_else(value_damaged)?,
        };
        self.hold.count_cell(value.heap_bytes()).map_err(answers_full)?;
        self.bytes += value.size_bytes();
        if self.bytes > self.limits.bytes_max { Err(self.too_large()) } else { Ok(value) }
    }

    fn too_large(&self) -> StatementFault {
        let message = format!("the answer has more than {} bytes; ask for less", self.limits.bytes_max);
        answer_unread(ErrorKind::BytesMax, message)
    }
}

fn answers_full(error: Error) -> StatementFault {
    StatementFault { error, cause: FaultCause::Unread }
}

fn answer_unread(kind: ErrorKind, message: String) -> StatementFault {
    StatementFault { error: Error::new(kind, message), cause: FaultCause::Unread }
}

fn value_damaged() -> StatementFault {
    answer_unread(ErrorKind::Internal, "the server sent a value that is not of the type it announced".to_owned())
}
