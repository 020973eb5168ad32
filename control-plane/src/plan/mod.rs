//! Decides, and does nothing else: no I/O, no clock, no randomness. Callers pass records and `now`.

pub mod ledgers;
pub mod refused_texts;
pub mod retry;
pub mod select;

pub use select::TenantSelection;

use serde::Serialize;

/// Maximum number of tenants in a plan's sample. It only shows what would happen.
pub const SAMPLE_MAX: usize = 20;

/// The plan of an operation, as a dry run shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlanView {
    /// The operation's kind.
    pub kind: &'static str,
    /// Tenants that get a step.
    pub tenants: u64,
    /// Tenants that need nothing.
    pub skipped: u64,
    /// Tenants that are left out, each with a reason.
    pub left_out: u64,
    /// The first tenants, at most [`SAMPLE_MAX`].
    pub sample: Vec<PlanSample>,
    /// Warnings for the person who confirms the plan.
    pub notes: Vec<String>,
}

/// One line of a plan's sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlanSample {
    /// The tenant's name.
    pub tenant: String,
    /// The planned action, or why there is none.
    pub action: String,
}
