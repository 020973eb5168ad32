//! Decides, and only decides: no I/O, no clock, no randomness. Whoever calls passes records and `now`.

pub mod ledgers;
pub mod retry;
pub mod select;

pub use select::Selection;

use serde::Serialize;

/// Tenants named in a plan's sample: enough to see what would happen, never a page.
pub const SAMPLE_MAX: usize = 20;

/// What an operation would do; what a dry run shows.
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
    /// The first few, at most [`SAMPLE_MAX`].
    pub sample: Vec<Sample>,
    /// What a human should know before saying yes.
    pub notes: Vec<String>,
}

/// One line of a plan's sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Its name.
    pub tenant: String,
    /// What would be done to it, or why nothing.
    pub action: String,
}
