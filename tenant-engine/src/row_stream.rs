//! [`RowStream`]: the rows of one reading statement that arrive while the database still reads them.
//!
//! An engine reads the rows in its own thread or task and sends them in small chunks. When the reader of the stream is
//! slow, the engine waits for it, until the time limit of the transaction. So a stream holds little memory, whatever
//! the length of the answer.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::sync::mpsc;

use crate::answers::{AnswerHold, AnswerShare};
use crate::error::{Error, ErrorKind, Result};
use crate::value::{Rows, SqlValue};

/// Bytes of one chunk in memory. The budget of answers does not count answers of this size, so a stream that has begun
/// is not refused for lack of memory, unless a single row is larger.
const CHUNK_BYTES: usize = 8 << 10;

/// Chunks that wait for the reader.
const CHUNKS_WAITING: usize = 2;

/// The rows of one statement. Dropping the stream stops the statement.
#[derive(Debug)]
pub struct RowStream {
    parts: StreamParts,
    columns: Vec<String>,
    rows: VecDeque<Vec<SqlValue>>,
    /// The memory of the current chunk.
    hold: AnswerHold,
    ended: bool,
    /// Stops the statement when it is dropped.
    _stop: Box<dyn StopsStatement>,
}

/// Stops the statement of a stream when it is dropped.
pub(crate) trait StopsStatement: std::fmt::Debug + Send + Sync {}

/// The chunks of an answer, and afterwards the error that ended it early.
#[derive(Debug)]
pub(crate) struct StreamParts {
    chunks: mpsc::Receiver<StreamPart>,
    failure: Arc<Mutex<Option<Error>>>,
}

/// One chunk of the answer.
#[derive(Debug)]
pub(crate) struct StreamPart {
    rows: Rows,
    is_last: bool,
}

impl RowStream {
    /// Waits for the first rows, so that a refused statement is an error here.
    pub(crate) async fn open(parts: StreamParts, stop: Box<dyn StopsStatement>) -> Result<Self> {
        let (columns, rows, hold) = (Vec::new(), VecDeque::new(), AnswerHold::default());
        let mut stream = Self { parts, columns, rows, hold, ended: false, _stop: stop };
        let first = stream.parts.chunks.recv().await;
        stream.take_part(first)?;
        Ok(stream)
    }

    /// Column names, in order.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The next row, or `None` after the last one. A caller may drop the future and call again; no row is lost.
    ///
    /// # Errors
    /// As [`crate::DatabaseSession::run_statements`], except the limits on the length of an answer. After an error there
    /// are no more rows. Rows that were returned before the error are not the whole answer.
    pub async fn next_row(&mut self) -> Result<Option<Vec<SqlValue>>> {
        poll_fn(|context| self.poll_next_row(context)).await
    }

    /// As [`RowStream::next_row`], without waiting.
    ///
    /// # Errors
    /// As [`RowStream::next_row`].
    pub fn poll_next_row(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Vec<SqlValue>>>> {
        while self.rows.is_empty() && !self.ended {
            let part = ready!(self.parts.chunks.poll_recv(context));
            self.take_part(part)?;
        }
        Poll::Ready(Ok(self.rows.pop_front()))
    }

    fn take_part(&mut self, part: Option<StreamPart>) -> Result<()> {
        let part = part.ok_or_else(|| self.parts.take_failure());
        let StreamPart { rows: Rows { columns, rows, hold, .. }, is_last } = part.inspect_err(|_| self.ended = true)?;
        (self.columns, self.rows, self.hold, self.ended) = (columns, rows.into(), hold, is_last);
        Ok(())
    }
}

impl StreamParts {
    fn take_failure(&self) -> Error {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_else(|| {
            Error::new(ErrorKind::Closed, "the stream ended before its last row, because the engine is shutting down")
        })
    }
}

/// The engine's end of a stream.
#[derive(Debug)]
pub(crate) struct RowSender {
    chunks: mpsc::Sender<StreamPart>,
    failure: Arc<Mutex<Option<Error>>>,
    answers: AnswerShare,
    until: Instant,
}

impl RowSender {
    /// A sender that gives up at `until`.
    pub(crate) fn new(answers: AnswerShare, until: Instant) -> (Self, StreamParts) {
        let (chunks, receiver) = mpsc::channel(CHUNKS_WAITING);
        let failure = Arc::<Mutex<Option<Error>>>::default();
        let parts = StreamParts { chunks: receiver, failure: Arc::clone(&failure) };
        (Self { chunks, failure, answers, until }, parts)
    }

    /// The memory of a new chunk.
    pub(crate) fn new_hold(&self) -> AnswerHold {
        self.answers.new_hold()
    }

    /// True when a chunk with this memory must be sent before the next row is read.
    pub(crate) fn is_full(hold: &AnswerHold) -> bool {
        hold.used_bytes() >= CHUNK_BYTES
    }

    /// Sends a chunk with more chunks to come; waits until the reader has room.
    ///
    /// # Errors
    /// [`ErrorKind::DeadlineExceeded`] when the reader is too slow; [`ErrorKind::Closed`] when there is none.
    pub(crate) async fn send_rows(&self, rows: Rows) -> Result<()> {
        self.send_part(StreamPart { rows, is_last: false }).await
    }

    /// Sends the last chunk, or leaves the error for the reader. An error needs no room: the reader finds it after the
    /// chunks that were sent before.
    pub(crate) async fn send_end(self, ended: Result<Rows>) {
        let sent = match ended {
            Ok(rows) => self.send_part(StreamPart { rows, is_last: true }).await,
            Err(error) => Err(error),
        };
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = sent.err();
    }

    async fn send_part(&self, part: StreamPart) -> Result<()> {
        match tokio::time::timeout_at(self.until.into(), self.chunks.send(part)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Error::new(ErrorKind::Closed, "the reader of the stream is gone")),
            Err(_) => Err(reader_too_slow()),
        }
    }
}

fn reader_too_slow() -> Error {
    let message = "the rows of the stream were not read within the time limit of a transaction";
    Error::new(ErrorKind::DeadlineExceeded, message)
}
