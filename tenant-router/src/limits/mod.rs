//! The limits of a tenant's plan, where a request meets them.
//!
//! `router.rs` asks [`Admission`] after the caller is authorized and before a pool is touched. So foreign callers learn
//! nothing, use up nothing, and a refused request costs no database connection. `token_bucket` is pure. The limits of
//! one statement are combined with those of the process here, and enforced by the engines.

mod admission;
mod connection_gate;
mod process_count;
mod rate_state;
mod storage;
mod token_bucket;

use std::time::Duration;

use catalog::plans::TenantPlan;
use tenant_engine::SessionLimits;

pub(crate) use admission::{Admission, RequestPass};
pub(crate) use connection_gate::ConnectionHold;
pub(crate) use process_count::ProcessCount;
pub use rate_state::RateState;
pub(crate) use storage::only_deletes;

/// PURE: the limits of a tenant's sessions: of each limit the smaller one of process and plan.
pub(crate) fn session_limits(process: SessionLimits, plan: Option<&TenantPlan>) -> SessionLimits {
    let Some(TenantPlan { limits, .. }) = plan else { return process };
    let smaller =
        |own: usize, limit: Option<u64>| limit.map_or(own, |limit| own.min(usize::try_from(limit).unwrap_or(own)));
    let statement_timeout = limits
        .statement_ms
        .map_or(process.statement_timeout, |ms| process.statement_timeout.min(Duration::from_millis(ms)));
    SessionLimits {
        rows_max: smaller(process.rows_max, limits.rows_max),
        bytes_max: smaller(process.bytes_max, limits.answer_bytes_max),
        storage_bytes_max: limits.storage_bytes_max.or(process.storage_bytes_max),
        statement_timeout,
        ..process
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use catalog::plans::PlanLimits;

    #[test]
    fn the_smaller_limit_counts() {
        let process = SessionLimits::default();
        assert_eq!(session_limits(process, None), process);
        let plan = |limits| TenantPlan { name: "free".to_owned(), limits };
        assert_eq!(session_limits(process, Some(&plan(PlanLimits::default()))), process);
        let tight = PlanLimits {
            statement_ms: Some(100),
            rows_max: Some(5),
            answer_bytes_max: Some(2_000),
            ..PlanLimits::default()
        };
        let limited = session_limits(process, Some(&plan(tight)));
        assert_eq!((limited.rows_max, limited.bytes_max), (5, 2_000));
        assert_eq!(limited.statement_timeout, Duration::from_millis(100));
        assert_eq!(limited.transaction_timeout, process.transaction_timeout);
        let wide = PlanLimits {
            statement_ms: Some(3_600_000),
            rows_max: Some(u64::MAX),
            answer_bytes_max: Some(u64::MAX),
            ..PlanLimits::default()
        };
        assert_eq!(session_limits(process, Some(&plan(wide))), process);
    }
}
