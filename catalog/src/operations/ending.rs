//! Ends operations by the states of their steps, and handles tenants that take no part.
//!
//! Tenants may leave during a run. A run over a selection skips them and still succeeds. A run that skips every tenant
//! did nothing, and fails.

use crate::bulk::{TEXT, dynamic_query, values_clause};
use crate::db::WriteTx;
use crate::error::Result;
use crate::ids::{OperationId, TenantId};
use crate::operations::{OperationRecord, OperationState};
use crate::text_enum::TextEnum;

/// The error code of an operation that skipped every tenant.
const NOTHING_DONE: &str = "nothing_done";

/// What happens to the step of a tenant that left the selection after the operation was planned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhenLeft {
    /// The step fails, because the tenant was named.
    #[default]
    Fail,
    /// The step is skipped, because a rule selected the tenants. An operation that skips all tenants fails.
    Skip,
    /// The step is skipped. An operation that skips all tenants succeeds.
    Ignore,
}

/// A selected tenant that gets no step, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The tenant without a step.
    pub tenant: TenantId,
    /// The stable code of the reason.
    pub code: String,
    /// The reason in words.
    pub why: String,
}

/// Numbers of steps by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OperationProgress {
    /// Steps that wait, including for a retry.
    pub pending: i64,
    /// Steps that a worker has claimed.
    pub running: i64,
    /// Steps that are complete.
    pub succeeded: i64,
    /// Steps that failed permanently.
    pub failed: i64,
    /// Steps that will never run.
    pub cancelled: i64,
    /// Steps that were not run, because the tenant left the selection.
    pub skipped: i64,
}

impl TextEnum for WhenLeft {
    const NOUN: &'static str = "rule for tenants that left";
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Fail, "fail"), (Self::Skip, "skip"), (Self::Ignore, "ignore")];
}

impl OperationProgress {
    /// The final state of an operation without open steps. The state of `record` shows an operator's earlier decision.
    pub(super) fn end_state(self, record: &OperationRecord) -> OperationState {
        let done = self.succeeded + record.steps_skipped > 0;
        match self {
            _ if record.state == OperationState::Cancelled || self.cancelled > 0 => OperationState::Cancelled,
            Self { failed: 0, .. } if self.did_nothing(record) => OperationState::Failed,
            Self { failed: 0, .. } => OperationState::Succeeded,
            _ if done => OperationState::Partial,
            _ => OperationState::Failed,
        }
    }

    /// True when all tenants were skipped and this is not allowed: success requires that something was done.
    fn did_nothing(self, record: &OperationRecord) -> bool {
        let found_done = self.succeeded + self.failed + record.steps_skipped > 0;
        self.skipped > 0 && !found_done && record.when_left != WhenLeft::Ignore
    }

    /// The error of an operation that ends in this way without an error of its own.
    pub(super) fn end_error(self, record: &OperationRecord) -> Option<(&'static str, String)> {
        let all = self.skipped;
        self.did_nothing(record)
            .then(|| (NOTHING_DONE, format!("all {all} selected tenants were skipped; see the steps")))
    }
}

/// Ends an operation without steps to run: the existing ones are skipped.
pub(super) fn end_at_once(operation: &mut OperationRecord) {
    let progress = OperationProgress { skipped: operation.steps_total, ..OperationProgress::default() };
    operation.state = progress.end_state(operation);
    let error = progress.end_error(operation);
    operation.error_code = error.as_ref().map(|(code, _)| (*code).to_owned());
    operation.error = error.map(|(_, text)| text);
}

pub(super) async fn insert_skipped_steps(tx: &mut WriteTx, id: OperationId, left_out: &[LeftOut]) -> Result<()> {
    let (now, count) = (tx.now(), left_out.len() * 3);
    let sql = format!(
        "with v(tenant_id, code, why) as ({}) insert into steps (op_id, tenant_id, state, phase, facts, attempt, \
         not_before, lease_epoch, error_code, error, finished_at) select cast(${} as text), tenant_id, 'skipped', '', \
         '{{}}', 0, 0, 0, code, why, cast(${} as bigint) from v",
        values_clause(left_out.len(), &[TEXT, TEXT, TEXT]),
        count + 1,
        count + 2
    );
    let bound = left_out.iter().fold(dynamic_query(sql), |sql, left| {
        sql.bind(left.tenant.to_string()).bind(left.code.clone()).bind(left.why.clone())
    });
    tx.execute_sql(bound.bind(id.to_string()).bind(now)).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(state: OperationState, steps_skipped: i64, when_left: WhenLeft) -> OperationRecord {
        OperationRecord {
            id: OperationId::generate(),
            kind: String::new(),
            state,
            params: String::new(),
            release_id: None,
            steps_total: 0,
            steps_skipped,
            concurrency: 1,
            when_left,
            requested_by: String::new(),
            reason: None,
            created_at: 0,
            started_at: None,
            finished_at: None,
            error_code: None,
            error: None,
        }
    }

    #[test]
    fn the_end_is_counted() {
        use OperationState::{Cancelled, Failed, Partial, Running, Succeeded};
        let of = |succeeded, failed, cancelled| OperationProgress {
            succeeded,
            failed,
            cancelled,
            ..OperationProgress::default()
        };
        for (progress, was, skipped, end) in [
            (of(3, 0, 0), Running, 0, Succeeded),
            (of(0, 0, 0), Running, 4, Succeeded),
            (of(2, 1, 0), Running, 0, Partial),
            (of(0, 1, 0), Running, 1, Partial),
            (of(0, 3, 0), Running, 0, Failed),
            (of(2, 1, 1), Running, 0, Cancelled),
            (of(3, 0, 0), Cancelled, 0, Cancelled),
        ] {
            assert_eq!(progress.end_state(&record(was, skipped, WhenLeft::Fail)), end, "{progress:?}");
        }
    }

    #[test]
    fn skipped_tenants_are_no_failure_and_alone_no_success() {
        use OperationState::{Failed, Partial, Running, Succeeded};
        let of =
            |succeeded, failed| OperationProgress { succeeded, failed, skipped: 3, ..OperationProgress::default() };
        for (progress, needed_nothing, rule, end) in [
            (of(97, 0), 0, WhenLeft::Skip, Succeeded),
            (of(0, 0), 2, WhenLeft::Skip, Succeeded),
            (of(96, 1), 0, WhenLeft::Skip, Partial),
            (of(0, 1), 0, WhenLeft::Skip, Failed),
            (of(0, 0), 0, WhenLeft::Skip, Failed),
            (of(0, 0), 0, WhenLeft::Ignore, Succeeded),
        ] {
            let record = record(Running, needed_nothing, rule);
            assert_eq!(progress.end_state(&record), end, "{progress:?}");
            let explained = progress.end_error(&record).is_some();
            assert_eq!(explained, end == Failed && progress.failed == 0, "{progress:?}");
        }
    }
}
