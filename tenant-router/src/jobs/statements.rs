//! The SQL on a tenant's queue, for both engines, and the rows that it returns.
//!
//! Tenant and generation of a new job come from the identity row of the database itself. So a job always says in which
//! database it was enqueued, even if the caller's record of the tenant is old.

use tenant_engine::{Rows, SqlStatement, SqlValue};

use crate::error::{Error, ErrorKind, Result};

/// A job that waits for its time, or for its next attempt.
pub(super) const WAITING: &str = "waiting";
/// A job that a runner has claimed.
pub(super) const RUNNING: &str = "running";
/// A job that failed too often, or that its handler refused.
pub(super) const DEAD: &str = "dead";

pub(super) const INSERT: &str = "insert into _fleet_jobs (id, kind, payload, principal, tenant_id, generation, unique_key, cron, \
     state, due_at, run_at, attempts, attempts_max, created_at) \
     select cast($1 as text), cast($2 as text), cast($3 as text), cast($4 as text), tenant_id, generation, cast($5 as text), \
     null, 'waiting', cast($6 as bigint), cast($6 as bigint), 0, cast($7 as bigint), cast($8 as bigint) from _fleet_identity where one = 1 \
     on conflict (unique_key) do nothing returning id";

pub(super) const BY_KEY: &str = "select id, tenant_id, generation, cron from _fleet_jobs where unique_key = $1";

/// Takes the key from a job that is a dead letter since a restore.
pub(super) const FREE_KEY: &str = "update _fleet_jobs set unique_key = null where id = $1";

/// Makes a repeated job, or changes it. Its next time changes only with its schedule. A schedule that came with a clone begins
/// anew: a run that was due or had begun is one of the source.
pub(super) const SCHEDULE: &str = "insert into _fleet_jobs (id, kind, payload, principal, tenant_id, generation, unique_key, cron, \
     state, due_at, run_at, attempts, attempts_max, created_at) \
     select cast($1 as text), cast($2 as text), cast($3 as text), cast($4 as text), tenant_id, generation, cast($5 as text), \
     cast($9 as text), 'waiting', cast($6 as bigint), cast($6 as bigint), 0, cast($7 as bigint), cast($8 as bigint) from _fleet_identity where one = 1 \
     on conflict (unique_key) do update set kind = excluded.kind, payload = excluded.payload, principal = excluded.principal, \
     tenant_id = excluded.tenant_id, generation = excluded.generation, attempts_max = excluded.attempts_max, \
     due_at = case when _fleet_jobs.cron = excluded.cron and _fleet_jobs.tenant_id = excluded.tenant_id \
         then _fleet_jobs.due_at else excluded.due_at end, \
     run_at = case when _fleet_jobs.cron = excluded.cron and _fleet_jobs.tenant_id = excluded.tenant_id \
         then _fleet_jobs.run_at else excluded.run_at end, \
     state = case when _fleet_jobs.tenant_id = excluded.tenant_id then _fleet_jobs.state else 'waiting' end, \
     claim = case when _fleet_jobs.tenant_id = excluded.tenant_id then _fleet_jobs.claim end, \
     claimed_until = case when _fleet_jobs.tenant_id = excluded.tenant_id then _fleet_jobs.claimed_until end, \
     attempts = case when _fleet_jobs.tenant_id = excluded.tenant_id then _fleet_jobs.attempts else 0 end, \
     cron = excluded.cron \
     returning id";

pub(super) const UNSCHEDULE: &str =
    "delete from _fleet_jobs where unique_key = $1 and cron is not null and state <> 'running'";

/// Makes the run that has begun the last one.
pub(super) const END_AFTER_RUN: &str =
    "update _fleet_jobs set cron = null, unique_key = null where unique_key = $1 and cron is not null";

/// Ready to run at the time `$1`, unless it is a dead letter: it was enqueued by tenant `$2`, under the generation `$3` or a
/// later one. A repeated job of this tenant is exempt from the generation, because its time is set anew first. A claim that
/// ends after `$6` was written by a wrong clock.
const READY: &str = "(state = 'waiting' and due_at <= $1 or state = 'running' and (claimed_until <= $1 or claimed_until > $6)) \
     and tenant_id = $2 and (cron is not null or generation >= $3)";

/// Claims the job that is due longest. The condition is repeated, so that two runners never get one job. A database of a later
/// generation than `$7` was restored after the caller learned which jobs are dead letters.
pub(super) fn claim() -> String {
    format!(
        "update _fleet_jobs set state = 'running', claim = $4, claimed_until = $5, attempts = attempts + 1 \
         where id = (select id from _fleet_jobs where {READY} order by due_at, id limit 1) and {READY} \
         and (select generation from _fleet_identity where one = 1) <= $7 \
         returning id, kind, payload, principal, tenant_id, generation, cron, run_at, attempts, attempts_max"
    )
}

/// When the next job is due: `$1` is the tenant, `$2` the oldest generation whose jobs run.
pub(super) const NEXT_DUE: &str = "select min(case when state = 'running' then claimed_until else due_at end) as due \
     from _fleet_jobs where state in ('waiting', 'running') and tenant_id = $1 and (cron is not null or generation >= $2)";

pub(super) const RENEW: &str = "update _fleet_jobs set claimed_until = $3 where id = $1 and claim = $2";

/// Ends a job that is done.
pub(super) const DELETE_CLAIMED: &str = "delete from _fleet_jobs where id = $1 and claim = $2";

/// Gives a job back for another attempt of its run.
pub(super) const PUT_BACK: &str = "update _fleet_jobs set state = 'waiting', claim = null, claimed_until = null, \
     due_at = cast($3 as bigint), attempts = cast($4 as bigint), last_error = cast($5 as text) where id = $1 and claim = $2";

/// Ends a run of a repeated job, whose next run is at `$3` by the pattern `$4`. A pattern that was changed meanwhile has set the
/// time already.
pub(super) const NEXT_RUN: &str = "update _fleet_jobs set state = 'waiting', claim = null, claimed_until = null, attempts = 0, \
     due_at = case when cron = $4 then cast($3 as bigint) else due_at end, \
     run_at = case when cron = $4 then cast($3 as bigint) else due_at end, last_error = cast($5 as text), \
     generation = (select generation from _fleet_identity where one = 1) where id = $1 and claim = $2 and cron is not null";

/// Keeps a job as a dead letter. Its key is free again.
pub(super) const BURY: &str = "update _fleet_jobs set state = 'dead', claim = null, claimed_until = null, unique_key = null, \
     last_error = cast($3 as text) where id = $1 and claim = $2";

/// Keeps a failed run of a repeated job as a dead letter of its own.
pub(super) const BURY_COPY: &str = "insert into _fleet_jobs (id, kind, payload, principal, tenant_id, generation, unique_key, cron, \
     state, due_at, run_at, attempts, attempts_max, last_error, created_at) \
     select cast($3 as text), kind, payload, principal, tenant_id, generation, null, null, 'dead', due_at, run_at, attempts, attempts_max, \
     cast($4 as text), created_at from _fleet_jobs where id = $1 and claim = $2";

/// The first jobs after the id `$1`.
pub(super) const LIST: &str = "select id, kind, principal, tenant_id, generation, cron, state, due_at, attempts, attempts_max, \
     last_error, created_at from _fleet_jobs where id > $1 order by id limit cast($2 as bigint)";

/// A dead letter by its state, or because of the tenant `$1` or the oldest generation `$2` whose jobs run.
const IS_DEAD: &str =
    "(state = 'dead' or state in ('waiting', 'running') and (tenant_id <> $1 or cron is null and generation < $2))";

/// Makes dead letters run again at the time `$3`, as jobs of this database.
pub(super) fn revive_dead() -> String {
    format!(
        "update _fleet_jobs set state = 'waiting', due_at = $3, run_at = $3, attempts = 0, last_error = null, claim = null, \
         claimed_until = null, tenant_id = (select tenant_id from _fleet_identity where one = 1), \
         generation = (select generation from _fleet_identity where one = 1) where {IS_DEAD}"
    )
}

pub(super) fn drop_dead() -> String {
    format!("delete from _fleet_jobs where {IS_DEAD}")
}

pub(super) const DROP_ONE: &str = "delete from _fleet_jobs where id = $1";

/// A statement on the fleet's own tables.
pub(super) fn own_statement(sql: impl Into<String>, params: Vec<SqlValue>) -> SqlStatement {
    SqlStatement { sql: sql.into(), params }
}

/// A text or NULL.
pub(super) fn nullable_text(text: Option<&str>) -> SqlValue {
    text.map_or(SqlValue::Null, |text| SqlValue::Text(text.to_owned()))
}

/// Reads the columns of one row by their place.
pub(super) struct RowColumns<'a>(pub(super) &'a [SqlValue]);

impl RowColumns<'_> {
    pub(super) fn text(&self, column: usize) -> Result<String> {
        self.nullable_text(column)?.ok_or_else(unexpected_row)
    }

    pub(super) fn nullable_text(&self, column: usize) -> Result<Option<String>> {
        match self.0.get(column) {
            Some(SqlValue::Text(text)) => Ok(Some(text.clone())),
            Some(SqlValue::Null) => Ok(None),
            _ => Err(unexpected_row()),
        }
    }

    pub(super) fn int(&self, column: usize) -> Result<i64> {
        self.nullable_int(column)?.ok_or_else(unexpected_row)
    }

    pub(super) fn nullable_int(&self, column: usize) -> Result<Option<i64>> {
        match self.0.get(column) {
            Some(SqlValue::Integer(number)) => Ok(Some(*number)),
            Some(SqlValue::Null) => Ok(None),
            _ => Err(unexpected_row()),
        }
    }
}

/// The first row of an answer.
pub(super) fn first_row(rows: &Rows) -> Option<RowColumns<'_>> {
    rows.rows.first().map(|row| RowColumns(row))
}

pub(super) fn unexpected_row() -> Error {
    Error::new(ErrorKind::Misconfigured).with_source("a row of the tenant's job queue is not as this program writes it")
}
