//! Background jobs of tenants. Their contents are the tenants' data, and are not shown.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::bounded_number::PageLimit;
use crate::changes::is_false;

/// The job queue of a tenant.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = JobQueue)]
pub struct JobQueueView {
    /// Current name of the tenant.
    pub tenant: String,
    /// Id of the tenant: `tnt_…`.
    pub tenant_id: String,
    /// State of the tenant. The jobs of a tenant that is not active wait.
    pub tenant_state: String,
    /// Time at which its next job is due, RFC 3339. Null: no job waits.
    pub due_at: Option<String>,
    /// Process that runs its jobs now. Null: none.
    pub runner: Option<String>,
    /// Why older jobs are dead letters, for instance after a restore. Null: they are not.
    pub dead_reason: Option<String>,
}

/// A job.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Job)]
pub struct JobView {
    /// Id of the job.
    pub id: String,
    /// Kind of the job, as the application names it.
    pub kind: String,
    /// State of the job: waiting, running, dead.
    pub state: String,
    /// Principal that enqueued it.
    pub enqueued_by: String,
    /// Pattern of a repeated job. Null: the job runs once.
    pub schedule: Option<String>,
    /// Time at which it is due, RFC 3339.
    pub due_at: String,
    /// Attempts that have begun.
    pub attempts: i64,
    /// Attempts before it becomes a dead letter.
    pub attempts_max: i64,
    /// Why the last attempt failed, or why the job is a dead letter. Null: nothing failed.
    pub reason: Option<String>,
    /// Time at which it was enqueued, RFC 3339.
    pub created_at: String,
}

/// Page of a list of queues or jobs.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JobListQuery {
    /// Maximum number of items per page: 1 to 1000. Default: 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    pub limit: Option<PageLimit>,
    /// The `next_cursor` of the previous page. Absent: the first page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A change of jobs: of one job, or of all dead letters of the tenant.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = JobChange)]
pub struct JobChange {
    /// Id of the job. Give this or `all_dead`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// True: all dead letters of the tenant.
    #[serde(default, skip_serializing_if = "is_false")]
    pub all_dead: bool,
    /// True: only describe the change and do nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The result of a change of jobs.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ChangedJobs {
    /// Name of the tenant.
    pub tenant: String,
    /// Number of jobs that were changed.
    pub jobs: u64,
}
