//! Streams the rows of one reading statement, in a task that owns a lent transaction. When the task ends or is aborted,
//! the transaction is rolled back and its connection is reset.

use std::sync::Arc;
use std::time::Instant;

use futures_util::TryStreamExt as _;
use sqlx::{AssertSqlSafe, Connection as _, Either, Executor as _, PgConnection, Statement as _};
use tokio::task::JoinHandle;

use super::lent::PostgresLentTx;
use super::pool::PostgresPoolInner;
use super::sandbox;
use super::statement::{self, CollectedAnswer};
use super::statement_fault::{FaultCause, StatementFault};
use crate::answers::AnswerShare;
use crate::error::{Error, Result};
use crate::row_stream::{RowSender, RowStream, StopsStatement};
use crate::statement::{AccessMode, SessionLimits, SqlStatement};
use crate::value::Rows;

/// Begins a stream, and returns when its first rows have arrived.
pub(super) async fn stream_rows(
    pool: &Arc<PostgresPoolInner>,
    limits: SessionLimits,
    answers: &AnswerShare,
    statement: SqlStatement,
) -> Result<RowStream> {
    sandbox::check_statement(&statement.sql)?;
    let (sender, parts) = RowSender::new(answers.clone(), Instant::now() + limits.transaction_timeout);
    let lent = PostgresLentTx::begin(pool, AccessMode::Read, limits).await?;
    let reading = StreamTask { pool: Arc::clone(pool), limits, statement, sender };
    let task = pool.server_pool().runtime_handle().spawn(reading.run(lent));
    RowStream::open(parts, Box::new(AbortStream(task))).await
}

/// Aborts the task of a stream, which drops its transaction.
#[derive(Debug)]
struct AbortStream(JoinHandle<()>);

impl StopsStatement for AbortStream {}

impl Drop for AbortStream {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct StreamTask {
    pool: Arc<PostgresPoolInner>,
    limits: SessionLimits,
    statement: SqlStatement,
    sender: RowSender,
}

impl StreamTask {
    async fn run(self, mut lent: PostgresLentTx) {
        let mut read = self.read_answer(&mut lent).await;
        if matches!(&read, Err(StatementFault { cause: FaultCause::Stale, .. })) {
            // A statement from before a migration: no row was sent yet.
            read = match self.lend_without_statements(lent).await {
                Ok(again) => {
                    lent = again;
                    self.read_answer(&mut lent).await
                }
                Err(error) => {
                    self.sender.send_end(Err(error)).await;
                    return;
                }
            };
        }
        drop(lent);
        self.sender.send_end(read.map_err(|fault| fault.error)).await;
    }

    async fn lend_without_statements(&self, stale: PostgresLentTx) -> Result<PostgresLentTx> {
        stale.rollback().await?;
        let mut lent = PostgresLentTx::begin(&self.pool, AccessMode::Read, self.limits).await?;
        lent.clear_cached_statements().await.map_err(crate::postgres::error::from_sqlx)?;
        Ok(lent)
    }

    /// Reads the answer, and keeps the connection unless a part of the answer is left unread.
    async fn read_answer(&self, lent: &mut PostgresLentTx) -> Result<Rows, StatementFault> {
        let read = self.read_rows(lent.begin_reading()).await;
        let unread = |fault: &StatementFault| {
            !matches!(fault.cause, FaultCause::Refused | FaultCause::Server | FaultCause::Stale)
        };
        if !read.as_ref().is_err_and(unread) {
            lent.end_reading();
        }
        read
    }

    /// Reads and sends all rows but those of the last chunk, which is returned.
    async fn read_rows(&self, connection: &mut PgConnection) -> Result<Rows, StatementFault> {
        // The time of the statement includes the time of the reader.
        let time = format!("set local statement_timeout = {}", self.limits.transaction_timeout.as_millis().max(1));
        sqlx::raw_sql(AssertSqlSafe(time)).execute(&mut *connection).await.map_err(StatementFault::before_anything)?;
        let prepared = statement::prepare_statement(connection, &self.statement).await?;
        let (prepared, forms, arguments) = prepared.into_parts();
        let mut chunk = CollectedAnswer::new(&prepared, forms, self.chunk_limits(), self.sender.new_hold());
        let mut parts = connection.fetch_many(prepared.query_with(arguments));
        while let Some(part) = parts.try_next().await.map_err(StatementFault::before_completion)? {
            let Either::Right(row) = part else { continue };
            chunk.push_row(&row)?;
            if RowSender::is_full(chunk.hold()) {
                let rows = chunk.take_rows(self.sender.new_hold());
                self.sender.send_rows(rows).await.map_err(reader_gone)?;
            }
        }
        Ok(chunk.take_rows(self.sender.new_hold()))
    }

    /// Limits of one chunk: each row may be as large as a whole answer.
    fn chunk_limits(&self) -> SessionLimits {
        SessionLimits { rows_max: usize::MAX, ..self.limits }
    }
}

fn reader_gone(error: Error) -> StatementFault {
    StatementFault { error, cause: FaultCause::Unread }
}
