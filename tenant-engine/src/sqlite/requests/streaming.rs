//! Streams the rows of one reading statement. Each stream has a thread of its own: a thread that waits for a slow reader
//! must not be missing among the workers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::commit_decision::CommitDecision;
use super::lease::SqliteLease;
use super::pool::{SqlitePoolInner, pool_closed};
use super::transaction::{HopOutcome, SqliteSessionCall, begin_and_proceed};
use super::workers::{STACK_BYTES, catch_panic};
use crate::answers::AnswerShare;
use crate::error::{Error, ErrorKind, Result};
use crate::row_stream::{RowSender, RowStream, StopsStatement};
use crate::statement::{AccessMode, AfterStatements, SessionLimits, SqlStatement};
use crate::value::Rows;

/// Streams of one process at once. Each has a thread.
pub(in crate::sqlite) const STREAMS_MAX: usize = 16;
/// Streams of one tenant at once: half of its readers, so that its other requests are served.
pub(super) const TENANT_STREAMS_MAX: usize = 2;

/// Pause of a stream that found the database locked by another process.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Places that a stream holds until its thread ends.
type StreamPlaces = [OwnedSemaphorePermit; 2];

/// Begins a stream, and returns when its first rows have arrived.
pub(super) async fn stream_rows(
    pool: &Arc<SqlitePoolInner>,
    limits: SessionLimits,
    answers: &AnswerShare,
    statement: SqlStatement,
) -> Result<RowStream> {
    let (deadline, until) = (Instant::now() + limits.statement_timeout, Instant::now() + limits.transaction_timeout);
    let places =
        [take_place(pool.streams(), deadline).await?, take_place(&pool.engine_inner().streams, deadline).await?];
    let lease = pool.check_out(AccessMode::Read, deadline).await?;
    let (sender, parts) = RowSender::new(answers.clone(), until);
    let fate = CommitDecision::new(&pool.engine_inner().stuck);
    let call = SqliteSessionCall {
        access: AccessMode::Read,
        limits,
        answers: answers.clone(),
        after: AfterStatements::Commit,
        deadline: until,
        fate: Arc::clone(&fate),
    };
    start_thread(StreamThread { lease, call, statement, sender, runtime: Handle::current(), _places: places })?;
    RowStream::open(parts, Box::new(StopSqliteStream(fate))).await
}

async fn take_place(places: &Arc<Semaphore>, deadline: Instant) -> Result<OwnedSemaphorePermit> {
    match tokio::time::timeout_at(deadline.into(), Arc::clone(places).acquire_owned()).await {
        Ok(Ok(place)) => Ok(place),
        Ok(Err(_)) => Err(pool_closed()),
        Err(_) => Err(Error::new(ErrorKind::Busy, "too many other streams are being read")),
    }
}

/// Interrupts the statement, if it still runs.
#[derive(Debug)]
struct StopSqliteStream(Arc<CommitDecision>);

impl StopsStatement for StopSqliteStream {}

impl Drop for StopSqliteStream {
    fn drop(&mut self) {
        self.0.stop_running();
    }
}

/// Everything that the thread of a stream needs.
struct StreamThread {
    lease: SqliteLease,
    call: SqliteSessionCall,
    statement: SqlStatement,
    sender: RowSender,
    runtime: Handle,
    _places: StreamPlaces,
}

fn start_thread(stream: StreamThread) -> Result<()> {
    let thread = std::thread::Builder::new().name("sqlite-stream".to_owned()).stack_size(STACK_BYTES);
    let started = thread.spawn(move || stream.run());
    started.map(drop).map_err(|e| Error::new(ErrorKind::Io, "cannot start the thread of a stream").with_source(e))
}

impl StreamThread {
    fn run(self) {
        let Self { lease, call, statement, sender, runtime, _places } = self;
        let ended = catch_panic(|| read_rows(lease, &call, &statement, &sender, &runtime));
        runtime.block_on(sender.send_end(ended));
    }
}

/// Reads and sends all rows but those of the last chunk, which is returned.
fn read_rows(
    mut lease: SqliteLease,
    call: &SqliteSessionCall,
    statement: &SqlStatement,
    sender: &RowSender,
    runtime: &Handle,
) -> Result<Rows> {
    loop {
        let send = |rows| runtime.block_on(sender.send_rows(rows));
        let hop = begin_and_proceed(lease, call.clone(), |tx| tx.stream_query(statement, sender, send))?;
        lease = match hop {
            HopOutcome::Done(rows) => return Ok(rows),
            HopOutcome::Busy(_, _, error) if Instant::now() + LOCK_PAUSE >= call.deadline => return Err(error),
            HopOutcome::Busy(same_lease, ..) => same_lease,
            HopOutcome::Kept(..) => return Err(Error::new(ErrorKind::Internal, "a stream keeps no transaction")),
        };
        std::thread::sleep(LOCK_PAUSE);
    }
}
