//! The checks of what keeps tenants apart.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The results of all checks of isolation.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct IsolationReport {
    /// One result per check.
    pub checks: Vec<IsolationCheck>,
}

/// The result of one check, with its evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IsolationCheck {
    /// Subject: files, databases, roles, tokens, listeners, backups, webhooks …
    pub area: String,
    /// Name of the check within its area.
    pub check: String,
    /// Result: pass, fail, not_looked if the check could not look, or not_applicable.
    pub verdict: IsolationVerdict,
    /// What was looked at, and what was found.
    pub evidence: String,
    /// Advice for the operator; empty if the result is pass.
    pub next_step: String,
}

/// The result of a check of isolation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum IsolationVerdict {
    /// The check looked, and everything is as it should be.
    Pass,
    /// Something weakens the isolation of tenants.
    Fail,
    /// The check could not look. This is not a pass.
    NotLooked,
    /// The fleet has nothing that the check is about.
    NotApplicable,
}
