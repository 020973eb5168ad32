//! The way in: plan purely, then write operation, steps and event in one transaction.

use catalog::operations::OperationRecord;

use crate::operations::Params;
use crate::plan::{PlanView, Selection};

/// Who asks, for the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// A token's or a user's name.
    pub actor: String,
    /// Of the request it came with.
    pub request_id: Option<String>,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Submission {
    /// What to do.
    pub params: Params,
    /// To whom; ignored by create, and by verify when it names backups.
    pub targets: Selection,
    /// Given by a human.
    pub reason: Option<String>,
    /// Steps at once; `None`: what the runner allows.
    pub concurrency: Option<u32>,
    /// Refused with `count_mismatch` when the plan has another number of tenants.
    pub expect_count: Option<u64>,
}

impl Submission {
    /// With nothing but what and to whom.
    #[must_use]
    pub fn new(params: Params, targets: Selection) -> Self {
        Self { params, targets, reason: None, concurrency: None, expect_count: None }
    }
}

/// Whether to do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Only say what would be done: a dry run.
    Plan,
    /// Write it down and begin.
    Run,
}

/// What came of a submission.
#[derive(Debug, Clone)]
pub enum Submitted {
    /// Nothing was written.
    Planned(PlanView),
    /// The runner has been woken; in an embedded process the operation is now this process's to run.
    Started(OperationRecord),
}
