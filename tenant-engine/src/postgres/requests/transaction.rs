//! One call of a session on one connection: begin, run, end, and what to do when something fails.
//!
//! A single read, and a single write that answers no rows, is sent alone: one round trip, and the server makes a
//! transaction of it. Everything else is BEGIN … COMMIT, and COMMIT is sent when all answers were read and accepted: an
//! answer that is refused (too many rows, too large, unreadable) must not belong to a change that lasts.
//! Called by `session.rs`.

use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection};

use super::connection::Timeouts;
use super::fault::{Cause, Fault, Lost};
use super::lease::{Lease, Phase};
use super::pool::PoolInner;
use super::sandbox::Verb;
use super::statement::{self, Prepared};
use super::tally::Reason;
use crate::answers::AnswerShare;
use crate::error::{Error, ErrorKind, Result};
use crate::pool::{Access, After, Limits, Statement};
use crate::value::Rows;

const BEGIN_READ: &str = "begin isolation level repeatable read read only";
const BEGIN_WRITE: &str = "begin";

/// The server ends a statement by itself at its timeout, and the connection stays good. It is given this much longer to
/// say so before the connection is closed.
const GRACE: Duration = Duration::from_millis(250);

/// How long a rollback may take before the connection is closed instead, which rolls back as well.
const ROLLBACK_MAX: Duration = Duration::from_millis(500);

/// How often a call may be made again. Once is enough for a connection that broke while it was idle; a fence may also end
/// the session that was just coming in, and then nobody comes in any more.
const REPEATS_MAX: u32 = 3;

/// How long the database may take to say once more whose it is.
const PROOF_MAX: Duration = Duration::from_millis(500);

/// What one call is told.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) access: Access,
    pub(super) limits: Limits,
    pub(super) answers: AnswerShare,
    pub(super) after: After,
    pub(super) deadline: Instant,
}

/// A statement that the sandbox allowed.
pub(super) type Allowed = (Statement, Verb);

/// Checks a connection out and makes the first call of a session on it. When the connection turns out to have been ended
/// before anything could last, or to hold a statement from before a migration, the call is made again.
pub(super) async fn first(pool: &PoolInner, call: &Call, statements: &[Allowed]) -> Result<(Vec<Rows>, Option<Lease>)> {
    pool.target().timeouts.set(Timeouts::of(&call.limits));
    let mut lease = pool.check_out(call.access, call.deadline).await?;
    let mut repeats = 0;
    loop {
        let fault = match in_time(&mut lease, call, statements, Step::Begin).await {
            Ok(rows) => return Ok((rows, (call.after == After::Keep).then_some(lease))),
            Err(fault) => explained(&mut lease, pool, call, fault).await,
        };
        let may = repeats < if fault.was_ended() { REPEATS_MAX } else { 1 };
        repeats += 1;
        match (may, repeat(&fault, call)) {
            (true, Repeat::Here) => refresh(&mut lease).await?,
            (true, Repeat::Elsewhere) => {
                lease.close(Reason::Broken);
                pool.forget_idle(call.access);
                lease = pool.check_out(call.access, call.deadline).await?;
            }
            _ => return Err(settle(lease, call, fault).await),
        }
    }
}

/// Goes on with the transaction that is open on the lease; gives the lease back when it stays open.
pub(super) async fn go_on(
    pool: &PoolInner,
    mut lease: Lease,
    call: &Call,
    statements: &[Allowed],
) -> Result<(Vec<Rows>, Option<Lease>)> {
    let fault = match in_time(&mut lease, call, statements, Step::Proceed).await {
        Ok(rows) => return Ok((rows, (call.after == After::Keep).then_some(lease))),
        Err(fault) => explained(&mut lease, pool, call, fault).await,
    };
    Err(settle(lease, call, undone_by_somebody(fault)).await)
}

/// A transaction whose session was ended before its commit was sent is undone for certain: it may be begun again.
fn undone_by_somebody(fault: Fault) -> Fault {
    if fault.cause != Cause::Lost(Lost::Undone) || !fault.was_ended() {
        return fault;
    }
    let message = "somebody ended the session of the transaction, which is undone: a fence, as a rule";
    Fault { error: Error::new(ErrorKind::Fenced, message).with_source(fault.error), ..fault }
}

/// A fence takes the right to write from the login before it ends its sessions: who is denied looks whether that is why.
/// Nothing has run then, or it is undone.
async fn explained(lease: &mut Lease, pool: &PoolInner, call: &Call, fault: Fault) -> Fault {
    if call.access != Access::Write || !fault.is_denied() {
        return fault;
    }
    if matches!(lease.phase(), Phase::Statement | Phase::Transaction) && !end_transaction(lease).await {
        return Fault { error: ended_there(), cause: Cause::Lost(Lost::NothingRan) };
    }
    let proven = lease.conn(Phase::Setting).prove_writable(pool.target());
    match tokio::time::timeout(PROOF_MAX, proven).await {
        Ok(Ok(())) => {
            lease.mark(Phase::Clean);
            fault
        }
        Ok(Err(answer)) => fault.because(answer),
        Err(_) => Fault { error: ended_there(), cause: Cause::Late },
    }
}

fn ended_there() -> Error {
    Error::new(ErrorKind::Fenced, "the database denied a write, and its session ended before it could say why")
}

/// # Errors
/// When the connection is lost.
pub(super) async fn roll_back(mut lease: Lease) -> Result<()> {
    if end_transaction(&mut lease).await {
        return Ok(());
    }
    lease.close(Reason::Broken);
    Err(Error::new(ErrorKind::ServerUnreachable, "the connection was lost; the server rolls the transaction back"))
}

async fn begin(lease: &mut Lease, call: &Call, statements: &[Allowed]) -> Result<Vec<Rows>, Fault> {
    let timeouts = Timeouts::of(&call.limits);
    lease.conn(Phase::Setting).set_timeouts(timeouts).await.map_err(Fault::before_anything)?;
    if let ([(statement, verb)], After::Commit) = (statements, call.after) {
        let prepared = statement::prepare(lease.conn(Phase::Setting).sqlx(), statement).await?;
        if may_go_alone(call, &prepared) {
            let connection = lease.conn(Phase::Alone).sqlx();
            let rows = statement::run(connection, call, prepared, *verb).await?;
            lease.mark(Phase::Clean);
            return Ok(vec![rows]);
        }
    }
    let begin = if call.access == Access::Read { BEGIN_READ } else { BEGIN_WRITE };
    simple(lease.conn(Phase::Transaction).sqlx(), begin).await.map_err(Fault::before_anything)?;
    proceed(lease, call, statements).await
}

/// A write commits by itself only when nothing can be refused afterwards, and when the server gives up before we do: what
/// we stop waiting for may still be done. A call that waited long for its connection has less time than the server was
/// told.
fn may_go_alone(call: &Call, prepared: &Prepared) -> bool {
    let server_gives_up_first = Instant::now() + call.limits.statement_timeout <= call.deadline + GRACE / 2;
    call.access == Access::Read || (!prepared.answers_rows() && server_gives_up_first)
}

async fn proceed(lease: &mut Lease, call: &Call, statements: &[Allowed]) -> Result<Vec<Rows>, Fault> {
    let mut answers = Vec::with_capacity(statements.len());
    for (statement, verb) in statements {
        let connection = lease.conn(Phase::Statement).sqlx();
        answers.push(in_transaction(connection, call, statement, *verb).await.map_err(undone)?);
        lease.mark(Phase::Transaction);
    }
    if call.after == After::Commit {
        let connection = lease.conn(Phase::Committing).sqlx();
        simple(connection, "commit").await.map_err(Fault::after_completion)?;
        lease.mark(Phase::Clean);
    }
    Ok(answers)
}

async fn in_transaction(
    connection: &mut PgConnection,
    call: &Call,
    statement: &Statement,
    verb: Verb,
) -> Result<Rows, Fault> {
    let prepared = statement::prepare(connection, statement).await?;
    statement::run(connection, call, prepared, verb).await
}

async fn simple(connection: &mut PgConnection, sql: &'static str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(sql).execute(connection).await.map(drop)
}

/// Inside a transaction whatever ran is undone when the connection ends before the commit.
fn undone(fault: Fault) -> Fault {
    match fault.cause {
        Cause::Lost(_) => Fault { cause: Cause::Lost(Lost::Undone), ..fault },
        _ => fault,
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Begin,
    Proceed,
}

/// Does the step until the deadline, and not for ever after.
async fn in_time(lease: &mut Lease, call: &Call, statements: &[Allowed], step: Step) -> Result<Vec<Rows>, Fault> {
    let until = call.deadline + GRACE;
    let work = async {
        match step {
            Step::Begin => begin(lease, call, statements).await,
            Step::Proceed => proceed(lease, call, statements).await,
        }
    };
    match tokio::time::timeout_at(until.into(), work).await {
        Ok(answer) => answer,
        Err(_) => Err(late(call, lease.phase())),
    }
}

fn late(call: &Call, phase: Phase) -> Fault {
    let unknown = match phase {
        Phase::Committing => true,
        Phase::Alone => call.access == Access::Write,
        Phase::Clean | Phase::Setting | Phase::Statement | Phase::Transaction => false,
    };
    let error = if unknown {
        let message = "the server did not answer in time: the change may or may not have been made";
        Error::new(ErrorKind::ConnectionLost, message)
    } else {
        deadline()
    };
    Fault { error, cause: Cause::Late }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeat {
    No,
    Here,
    Elsewhere,
}

fn repeat(fault: &Fault, call: &Call) -> Repeat {
    match fault.cause {
        Cause::Stale => Repeat::Here,
        Cause::Lost(Lost::NothingRan) => Repeat::Elsewhere,
        // What breaks otherwise may break by what was asked.
        Cause::Lost(Lost::Undone) if fault.was_ended() => Repeat::Elsewhere,
        Cause::Lost(_) if call.access == Access::Read => Repeat::Elsewhere,
        _ => Repeat::No,
    }
}

/// Forgets prepared statements, and the transaction they failed in.
async fn refresh(lease: &mut Lease) -> Result<()> {
    let alone = !matches!(lease.phase(), Phase::Statement | Phase::Transaction);
    let ended = alone || end_transaction(lease).await;
    let cleared = lease.conn(Phase::Setting).sqlx().clear_cached_statements();
    if ended && tokio::time::timeout(ROLLBACK_MAX, cleared).await.is_ok_and(|cleared| cleared.is_ok()) {
        lease.mark(Phase::Clean);
        return Ok(());
    }
    Err(Error::new(ErrorKind::ServerUnreachable, NOTHING_DONE))
}

/// What is told of a connection that broke before anything could last.
const NOTHING_DONE: &str = "the connection to the server broke; nothing was changed";

/// Whether something was done is only doubtful when a change, or its commit, was sent and not answered.
fn told(call: &Call, fault: Fault) -> Error {
    let certain = match fault.cause {
        Cause::Lost(Lost::NothingRan | Lost::Undone) => true,
        Cause::Lost(Lost::Unanswered | Lost::Unconfirmed) => call.access == Access::Read,
        _ => false,
    };
    match certain && fault.error.kind() == ErrorKind::ConnectionLost {
        true => Error::new(ErrorKind::ServerUnreachable, NOTHING_DONE).with_source(fault.error),
        false => fault.error,
    }
}

/// Leaves the connection as the fault demands, and returns what the caller is told.
async fn settle(mut lease: Lease, call: &Call, fault: Fault) -> Error {
    match (fault.cause, lease.phase()) {
        (Cause::Lost(_), _) => lease.close(Reason::Broken),
        (Cause::Fenced, _) => lease.close(Reason::Fenced),
        (Cause::Late, _) => lease.close(Reason::TimedOut),
        (Cause::Unread, _) => lease.close(Reason::Overlong),
        (Cause::Refused | Cause::Server | Cause::Stale, Phase::Statement | Phase::Transaction) => {
            if !end_transaction(&mut lease).await {
                lease.close(Reason::Broken);
            }
        }
        (Cause::Refused | Cause::Server | Cause::Stale, _) => lease.mark(Phase::Clean),
    }
    told(call, fault)
}

/// True when no transaction is open any more.
async fn end_transaction(lease: &mut Lease) -> bool {
    let rollback = simple(lease.conn(Phase::Transaction).sqlx(), "rollback");
    let ended = tokio::time::timeout(ROLLBACK_MAX, rollback).await.is_ok_and(|ended| ended.is_ok());
    if ended {
        lease.mark(Phase::Clean);
    }
    ended
}

/// The error of a call that came, or came to its end, too late.
pub(super) fn deadline() -> Error {
    Error::new(ErrorKind::DeadlineExceeded, "the time allowed for this is over")
}
