//! One call of a session on one connection: begin, run, end, and the handling of failures.
//!
//! A single read, or a single write that returns no rows, is sent alone. This takes one round trip, and the server
//! makes it a transaction. All other calls are BEGIN … COMMIT. COMMIT is sent after all answers were read and accepted.
//! A refused answer (too many rows, too large, unreadable) must not belong to a committed change. Called by
//! `session.rs`.

use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection};

use super::connection::SessionTimeouts;
use super::counters::CloseReason;
use super::lease::{ConnectionPhase, PostgresLease};
use super::pool::PostgresPoolInner;
use super::sandbox::StatementEffect;
use super::statement::{self, PreparedStatement};
use super::statement_fault::{ConnectionLoss, FaultCause, StatementFault};
use crate::answers::AnswerShare;
use crate::error::{Error, ErrorKind, Result};
use crate::statement::{AccessMode, AfterStatements, SessionLimits, SqlStatement};
use crate::value::Rows;

const BEGIN_READ: &str = "begin isolation level repeatable read read only";
const BEGIN_WRITE: &str = "begin";

/// The server ends a statement by itself at its timeout, and the connection stays usable. The server gets this much
/// longer to report that before the connection is closed.
const GRACE: Duration = Duration::from_millis(250);

/// Longest time of a rollback before the connection is closed instead, which also rolls back.
pub(super) const ROLLBACK_MAX: Duration = Duration::from_millis(500);

/// Maximum repetitions of a call. One is enough for a connection that broke while it was idle. A fence may also end the
/// session that was just connecting, and then no session can connect any more.
const REPEATS_MAX: u32 = 3;

/// Longest time for the database to report its identity again.
const PROOF_MAX: Duration = Duration::from_millis(500);

/// The arguments of one call.
#[derive(Debug)]
pub(super) struct PostgresSessionCall {
    pub(super) access: AccessMode,
    pub(super) limits: SessionLimits,
    pub(super) answers: AnswerShare,
    pub(super) after: AfterStatements,
    pub(super) deadline: Instant,
}

/// A statement that the sandbox allowed.
pub(super) type AllowedStatement = (SqlStatement, StatementEffect);

/// Takes a connection and makes the first call of a session on it. The call is repeated if the connection was ended
/// before any change could last, or holds a statement from before a migration.
pub(super) async fn first_call(
    pool: &PostgresPoolInner,
    call: &PostgresSessionCall,
    statements: &[AllowedStatement],
) -> Result<(Vec<Rows>, Option<PostgresLease>)> {
    pool.connect_target().timeouts.set(SessionTimeouts::from_limits(&call.limits));
    let mut lease = pool.check_out(call.access, call.deadline).await?;
    let mut repeats = 0;
    loop {
        let fault = match in_time(&mut lease, call, statements, CallStep::Begin).await {
            Ok(rows) => return Ok((rows, (call.after == AfterStatements::Keep).then_some(lease))),
            Err(fault) => explain_denial(&mut lease, pool, call, fault).await,
        };
        let may = repeats < if fault.was_ended() { REPEATS_MAX } else { 1 };
        repeats += 1;
        match (may, repeat_decision(&fault, call)) {
            (true, RepeatDecision::Here) => refresh_connection(&mut lease).await?,
            (true, RepeatDecision::Elsewhere) => {
                lease.close(CloseReason::Broken);
                pool.forget_idle(call.access);
                lease = pool.check_out(call.access, call.deadline).await?;
            }
            _ => return Err(release_after_fault(lease, call, fault).await),
        }
    }
}

/// Continues the open transaction of the lease; returns the lease when the transaction stays open.
pub(super) async fn go_on(
    pool: &PostgresPoolInner,
    mut lease: PostgresLease,
    call: &PostgresSessionCall,
    statements: &[AllowedStatement],
) -> Result<(Vec<Rows>, Option<PostgresLease>)> {
    let fault = match in_time(&mut lease, call, statements, CallStep::Proceed).await {
        Ok(rows) => return Ok((rows, (call.after == AfterStatements::Keep).then_some(lease))),
        Err(fault) => explain_denial(&mut lease, pool, call, fault).await,
    };
    let fault = explain_loss(pool, call, fault).await;
    Err(release_after_fault(lease, call, fault).await)
}

/// A transaction whose session was ended before its commit was sent is certainly undone, so it may be started again. The
/// server's reason is lost when this side was sending at that moment. A new connection then tells whether it was a fence.
async fn explain_loss(pool: &PostgresPoolInner, call: &PostgresSessionCall, fault: StatementFault) -> StatementFault {
    let is_undone = fault.cause == FaultCause::Lost(ConnectionLoss::Undone);
    if !is_undone || !(fault.was_ended() || is_fenced_now(pool, call).await) {
        return fault;
    }
    let message = "the session was ended, usually by a fence; the transaction was undone";
    StatementFault { error: Error::new(ErrorKind::Fenced, message).with_source(fault.error), ..fault }
}

async fn is_fenced_now(pool: &PostgresPoolInner, call: &PostgresSessionCall) -> bool {
    // An idle connection may be as old as the lost one.
    pool.forget_idle(call.access);
    let refused = pool.check_out(call.access, Instant::now() + PROOF_MAX).await.err();
    refused.is_some_and(|error| error.kind() == ErrorKind::Fenced)
}

/// A fence revokes the login's right to write before it ends its sessions. So after a denied statement this checks
/// whether a fence is the reason. In that case nothing has run, or it was undone.
async fn explain_denial(
    lease: &mut PostgresLease,
    pool: &PostgresPoolInner,
    call: &PostgresSessionCall,
    fault: StatementFault,
) -> StatementFault {
    if call.access != AccessMode::Write || !fault.is_denied() {
        return fault;
    }
    if matches!(lease.current_phase(), ConnectionPhase::Statement | ConnectionPhase::Transaction)
        && !end_transaction(lease).await
    {
        return StatementFault { error: ended_there(), cause: FaultCause::Lost(ConnectionLoss::NothingRan) };
    }
    let proven = lease.use_connection(ConnectionPhase::Setting).prove_writable(pool.connect_target());
    match tokio::time::timeout(PROOF_MAX, proven).await {
        Ok(Ok(())) => {
            lease.mark_phase(ConnectionPhase::Clean);
            fault
        }
        Ok(Err(answer)) => fault.explained_by(answer),
        Err(_) => StatementFault { error: ended_there(), cause: FaultCause::Late },
    }
}

fn ended_there() -> Error {
    Error::new(ErrorKind::Fenced, "the database denied a write, and its session ended before the reason was known")
}

/// # Errors
/// When the connection is lost.
pub(super) async fn roll_back(mut lease: PostgresLease) -> Result<()> {
    if end_transaction(&mut lease).await {
        return Ok(());
    }
    lease.close(CloseReason::Broken);
    Err(Error::new(ErrorKind::ServerUnreachable, "the connection was lost; the server rolls the transaction back"))
}

async fn begin_and_run(
    lease: &mut PostgresLease,
    call: &PostgresSessionCall,
    statements: &[AllowedStatement],
) -> Result<Vec<Rows>, StatementFault> {
    let timeouts = SessionTimeouts::from_limits(&call.limits);
    lease
        .use_connection(ConnectionPhase::Setting)
        .set_timeouts(timeouts)
        .await
        .map_err(StatementFault::before_anything)?;
    if let ([(statement, verb)], AfterStatements::Commit) = (statements, call.after) {
        let prepared =
            statement::prepare_statement(lease.use_connection(ConnectionPhase::Setting).driver_connection(), statement)
                .await?;
        if may_go_alone(call, &prepared) {
            let connection = lease.use_connection(ConnectionPhase::Alone).driver_connection();
            let rows = statement::run_statement(connection, call, prepared, *verb).await?;
            lease.mark_phase(ConnectionPhase::Clean);
            return Ok(vec![rows]);
        }
    }
    let begin = if call.access == AccessMode::Read { BEGIN_READ } else { BEGIN_WRITE };
    run_simple(lease.use_connection(ConnectionPhase::Transaction).driver_connection(), begin)
        .await
        .map_err(StatementFault::before_anything)?;
    proceed_in_transaction(lease, call, statements).await
}

/// Whether a write may be sent without a transaction. It may only if nothing can be refused afterwards, and if the
/// server's timeout ends before this call's: a statement that the call stops waiting for may still be done. A call that
/// waited long for its connection has less time left than the server was told.
fn may_go_alone(call: &PostgresSessionCall, prepared: &PreparedStatement) -> bool {
    let server_gives_up_first = Instant::now() + call.limits.statement_timeout <= call.deadline + GRACE / 2;
    call.access == AccessMode::Read || (!prepared.answers_rows() && server_gives_up_first)
}

async fn proceed_in_transaction(
    lease: &mut PostgresLease,
    call: &PostgresSessionCall,
    statements: &[AllowedStatement],
) -> Result<Vec<Rows>, StatementFault> {
    let mut answers = Vec::with_capacity(statements.len());
    for (statement, verb) in statements {
        let connection = lease.use_connection(ConnectionPhase::Statement).driver_connection();
        answers.push(in_transaction(connection, call, statement, *verb).await.map_err(mark_undone)?);
        lease.mark_phase(ConnectionPhase::Transaction);
    }
    if call.after == AfterStatements::Commit {
        let connection = lease.use_connection(ConnectionPhase::Committing).driver_connection();
        run_simple(connection, "commit").await.map_err(StatementFault::after_completion)?;
        lease.mark_phase(ConnectionPhase::Clean);
    }
    Ok(answers)
}

async fn in_transaction(
    connection: &mut PgConnection,
    call: &PostgresSessionCall,
    statement: &SqlStatement,
    verb: StatementEffect,
) -> Result<Rows, StatementFault> {
    let prepared = statement::prepare_statement(connection, statement).await?;
    statement::run_statement(connection, call, prepared, verb).await
}

async fn run_simple(connection: &mut PgConnection, sql: &'static str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(sql).execute(connection).await.map(drop)
}

/// Inside a transaction, all work is undone when the connection ends before the commit.
fn mark_undone(fault: StatementFault) -> StatementFault {
    match fault.cause {
        FaultCause::Lost(_) => StatementFault { cause: FaultCause::Lost(ConnectionLoss::Undone), ..fault },
        _ => fault,
    }
}

#[derive(Debug, Clone, Copy)]
enum CallStep {
    Begin,
    Proceed,
}

/// Runs the step, until the deadline at the latest.
async fn in_time(
    lease: &mut PostgresLease,
    call: &PostgresSessionCall,
    statements: &[AllowedStatement],
    step: CallStep,
) -> Result<Vec<Rows>, StatementFault> {
    let until = call.deadline + GRACE;
    let work = async {
        match step {
            CallStep::Begin => begin_and_run(lease, call, statements).await,
            CallStep::Proceed => proceed_in_transaction(lease, call, statements).await,
        }
    };
    match tokio::time::timeout_at(until.into(), work).await {
        Ok(answer) => answer,
        Err(_) => Err(late_fault(call, lease.current_phase())),
    }
}

fn late_fault(call: &PostgresSessionCall, phase: ConnectionPhase) -> StatementFault {
    let unknown = match phase {
        ConnectionPhase::Committing => true,
        ConnectionPhase::Alone => call.access == AccessMode::Write,
        ConnectionPhase::Clean
        | ConnectionPhase::Setting
        | ConnectionPhase::Statement
        | ConnectionPhase::Transaction
        | ConnectionPhase::Lent => false,
    };
    let error = if unknown {
        let message = "the server did not answer in time: the change may or may not have been made";
        Error::new(ErrorKind::ConnectionLost, message)
    } else {
        deadline_exceeded()
    };
    StatementFault { error, cause: FaultCause::Late }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RepeatDecision {
    No,
    Here,
    Elsewhere,
}

fn repeat_decision(fault: &StatementFault, call: &PostgresSessionCall) -> RepeatDecision {
    match fault.cause {
        FaultCause::Stale => RepeatDecision::Here,
        FaultCause::Lost(ConnectionLoss::NothingRan) => RepeatDecision::Elsewhere,
        // A connection that broke otherwise may have been broken by the statement itself.
        FaultCause::Lost(ConnectionLoss::Undone) if fault.was_ended() => RepeatDecision::Elsewhere,
        FaultCause::Lost(_) if call.access == AccessMode::Read => RepeatDecision::Elsewhere,
        _ => RepeatDecision::No,
    }
}

/// Discards prepared statements, and the transaction in which they failed.
async fn refresh_connection(lease: &mut PostgresLease) -> Result<()> {
    let alone = !matches!(lease.current_phase(), ConnectionPhase::Statement | ConnectionPhase::Transaction);
    let ended = alone || end_transaction(lease).await;
    let cleared = lease.use_connection(ConnectionPhase::Setting).driver_connection().clear_cached_statements();
    if ended && tokio::time::timeout(ROLLBACK_MAX, cleared).await.is_ok_and(|cleared| cleared.is_ok()) {
        lease.mark_phase(ConnectionPhase::Clean);
        return Ok(());
    }
    Err(Error::new(ErrorKind::ServerUnreachable, NOTHING_DONE))
}

/// The message for a connection that broke before any change could last.
const NOTHING_DONE: &str = "the connection to the server broke; nothing was changed";

/// The error for the caller. The result is uncertain only when a change, or its commit, was sent and not answered.
fn caller_error(call: &PostgresSessionCall, fault: StatementFault) -> Error {
    let certain = match fault.cause {
        FaultCause::Lost(ConnectionLoss::NothingRan | ConnectionLoss::Undone) => true,
        FaultCause::Lost(ConnectionLoss::Unanswered | ConnectionLoss::Unconfirmed) => call.access == AccessMode::Read,
        _ => false,
    };
    match certain && fault.error.kind() == ErrorKind::ConnectionLost {
        true => Error::new(ErrorKind::ServerUnreachable, NOTHING_DONE).with_source(fault.error),
        false => fault.error,
    }
}

/// Releases or closes the connection as the fault requires, and returns the error for the caller.
async fn release_after_fault(mut lease: PostgresLease, call: &PostgresSessionCall, fault: StatementFault) -> Error {
    match (fault.cause, lease.current_phase()) {
        (FaultCause::Lost(_), _) => lease.close(CloseReason::Broken),
        (FaultCause::Fenced, _) => lease.close(CloseReason::Fenced),
        (FaultCause::Late, _) => lease.close(CloseReason::TimedOut),
        (FaultCause::Unread, _) => lease.close(CloseReason::Overlong),
        (
            FaultCause::Refused | FaultCause::Server | FaultCause::Stale,
            ConnectionPhase::Statement | ConnectionPhase::Transaction,
        ) => {
            if !end_transaction(&mut lease).await {
                lease.close(CloseReason::Broken);
            }
        }
        (FaultCause::Refused | FaultCause::Server | FaultCause::Stale, _) => lease.mark_phase(ConnectionPhase::Clean),
    }
    caller_error(call, fault)
}

/// True when no transaction is open any more.
async fn end_transaction(lease: &mut PostgresLease) -> bool {
    let rollback = run_simple(lease.use_connection(ConnectionPhase::Transaction).driver_connection(), "rollback");
    let ended = tokio::time::timeout(ROLLBACK_MAX, rollback).await.is_ok_and(|ended| ended.is_ok());
    if ended {
        lease.mark_phase(ConnectionPhase::Clean);
    }
    ended
}

/// The error of a call that started or ended after its deadline.
pub(super) fn deadline_exceeded() -> Error {
    Error::new(ErrorKind::DeadlineExceeded, "the time limit of this call has passed")
}
