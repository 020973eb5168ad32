//! Background jobs of one tenant, in a queue in the tenant's own database.
//!
//! A job is enqueued in the transaction that changes the tenant's data, so both happen or neither. It always carries the
//! tenant and the principal that enqueued it. A [`JobRunner`] finds due jobs by an index in the catalog (`marks.rs` writes it),
//! claims the queue of a tenant (`runner.rs`) and runs its jobs one after another (`queue_run.rs`). A handler receives that
//! tenant's [`Tenant<Write>`](crate::Tenant) and no other. `sweep.rs` repairs the index after a process died.

mod claims;
mod enqueue;
mod handlers;
mod job_options;
mod marks;
mod operator;
mod queue_run;
mod runner;
mod schedule;
mod statements;
mod sweep;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use handlers::{JobEnvelope, JobError, JobRun};
pub use job_options::JobOptions;
pub(crate) use marks::{CommitMark, JobMarks};
pub use operator::{JobRecord, JobSelection, JobState};
pub use runner::{JobRunner, JobRunnerBuilder};
pub use schedule::JobSchedule;

/// A kind of job. The value is what the handler needs to know, stored as JSON; keep it small, and refer to rows by their ids.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tenant_router::jobs::Job;
///
/// #[derive(Serialize, Deserialize)]
/// struct SendReminder {
///     task: i64,
/// }
///
/// impl Job for SendReminder {
///     const KIND: &'static str = "send-reminder";
/// }
/// ```
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The name of the kind, which never changes: jobs in the databases carry it. At most 100 bytes.
    const KIND: &'static str;
}
