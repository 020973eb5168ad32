//! Operations and their steps.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::bounded_number::{PageLimit, WaitSeconds};

/// Page of a list of events. A stream ignores it.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct OperationEventQuery {
    /// Maximum number of items of a JSON page: 1 to 1000. Default: 100.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    pub limit: Option<PageLimit>,
    /// The `next_cursor` of the previous JSON page. Absent: the first page.
    pub cursor: Option<String>,
}

/// An operation: a piece of work on the fleet.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Operation)]
pub struct OperationView {
    /// Id of the operation: `op_…`.
    pub id: String,
    /// Kind of the operation: create, migrate, backup, restore, restore_undo, verify, delete …
    pub kind: String,
    /// State of the operation: pending, running, paused, succeeded, partial, failed or cancelled.
    pub state: String,
    /// Work of the whole operation before its first tenant, for instance building the template of new tenants. Null at
    /// other times.
    pub phase: Option<String>,
    /// Number of tenants by state of their work.
    pub progress: TenantProgress,
    /// Time of creation, RFC 3339.
    pub created_at: String,
    /// Time at which the operation started, RFC 3339; null before that.
    pub started_at: Option<String>,
    /// Time at which the operation ended, RFC 3339; null before that.
    pub finished_at: Option<String>,
    /// Actor that requested the operation.
    pub requested_by: String,
    /// Reason that was given with the request; null if none was given.
    pub reason: Option<String>,
    /// Error of the operation itself, not of a step; null if there is none.
    pub error: Option<FailureDetail>,
    /// Parameters of the operation; the fields depend on its kind. The result for each tenant is in its step.
    pub params: serde_json::Value,
}

/// Numbers of tenants by state of their work. `total` is their sum, without `left`, which is part of `skipped`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Progress)]
pub struct TenantProgress {
    /// Number of all tenants of the operation.
    pub total: i64,
    /// Number of tenants whose work succeeded.
    pub done: i64,
    /// Number of tenants whose work failed.
    pub failed: i64,
    /// Number of tenants that needed no work, were cancelled, or had left the selection.
    pub skipped: i64,
    /// Number of the skipped tenants that had left the selection or were left out. Their steps contain the reasons.
    pub left: i64,
    /// Number of tenants that are being worked on.
    pub running: i64,
    /// Number of tenants that wait for their turn.
    pub pending: i64,
}

/// The cause of a failure.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Fault)]
pub struct FailureDetail {
    /// Stable error code, for programs.
    pub code: String,
    /// Description of the error, for people.
    pub detail: String,
}

/// Filters of a list of operations.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct OperationFilters {
    /// Only operations in these states, separated by commas.
    pub state: Option<String>,
    /// Only operations of this kind.
    pub kind: Option<String>,
    /// Only operations with a step on the tenant with this name or id.
    pub tenant: Option<String>,
    /// Maximum number of items per page: 1 to 1000. Default: 100.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    pub limit: Option<PageLimit>,
    /// The `next_cursor` of the previous page. Absent: the first page.
    pub cursor: Option<String>,
}

/// Waiting time of the request.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WaitQuery {
    /// Maximum time to wait for the end of the operation, in seconds: 0 to 60. Default: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<u64>, minimum = 0, maximum = 60)]
    pub wait_seconds: Option<WaitSeconds>,
}

/// A step: the work of an operation on one tenant.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Step)]
pub struct StepView {
    /// Current name of the tenant.
    pub tenant: String,
    /// Id of the tenant: `tnt_…`.
    pub tenant_id: String,
    /// State of the step: pending, running, succeeded, failed, cancelled or skipped.
    pub state: String,
    /// The next phase of the step.
    pub phase: String,
    /// Number of attempts so far.
    pub attempt: i64,
    /// Earliest time of the next attempt, RFC 3339; null if the step need not wait.
    pub not_before_at: Option<String>,
    /// Error of the last attempt; null if there is none.
    pub error: Option<FailureDetail>,
    /// Reason why the tenant was skipped; null if it was not.
    pub skipped: Option<FailureDetail>,
    /// Facts that the operation has recorded about this tenant; the fields depend on its kind.
    pub facts: serde_json::Value,
    /// Time at which the step started, RFC 3339; null before that.
    pub started_at: Option<String>,
    /// Time at which the step ended, RFC 3339; null before that.
    pub finished_at: Option<String>,
}

/// Filters of a list of steps.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StepFilters {
    /// Only steps in these states, separated by commas.
    pub state: Option<String>,
    /// Maximum number of items per page: 1 to 1000. Default: 100.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    pub limit: Option<PageLimit>,
    /// The `next_cursor` of the previous page. Absent: the first page.
    pub cursor: Option<String>,
}
