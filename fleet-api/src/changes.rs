//! Changes: their common options, and the plan of a dry run.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Options of a change that needs no other input.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
#[schema(as = Wish)]
pub struct ChangeOptions {
    /// True: only describe the change and do nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The answer to a dry run.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Planned)]
pub struct PlannedChange {
    /// Always true: nothing was changed.
    pub dry_run: bool,
    /// Description of the change.
    pub plan: ChangePlan,
}

/// Description of a change that was not made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Plan)]
pub struct ChangePlan {
    /// Kind of the operation; for a change without an operation, the kind of its event.
    pub kind: String,
    /// Number of tenants that the change would work on.
    pub tenants: u64,
    /// Number of tenants that need no work.
    pub skipped: u64,
    /// Number of selected tenants that are left out, each for a stated reason.
    pub left_out: u64,
    /// The first tenants of the plan, with the action for each.
    pub sample: Vec<PlanLine>,
    /// Facts to consider before the change is made.
    pub notes: Vec<String>,
}

/// The planned action for one tenant.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PlanLine {
    /// Name of the tenant.
    pub tenant: String,
    /// Description of the action.
    pub action: String,
}

/// Leaves `false` out of a request, as an older client does.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(crate) fn is_false(value: &bool) -> bool {
    !value
}
