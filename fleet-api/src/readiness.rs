//! The answer of /readyz.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The readiness of the process.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Readiness)]
pub struct ReadinessReport {
    /// True if every check succeeded.
    pub ready: bool,
    /// Results of the checks, one per condition.
    pub checks: Vec<ReadyCheck>,
}

/// One condition of readiness.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ReadyCheck {
    /// Name of the check.
    pub name: String,
    /// True if the condition is met.
    pub ok: bool,
    /// Reason of a failure, or a warning; empty if all is well.
    pub detail: String,
}
