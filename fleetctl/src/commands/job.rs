//! `fleetctl job`: the background jobs of tenants, and their dead letters.

use clap::{Args, Subcommand};
use fleet_api::jobs::{ChangedJobs, JobChange, JobQueueView, JobView};
use fleet_api::pointer;
use fleet_client::{ApiRequest, path_segment};

use super::{change_and_print, print_pages};
use crate::args::ChangeArgs;
use crate::context::CommandContext;
use crate::error::{CommandExit, Result};
use crate::table::{TableColumn, TableView};

const QUEUE: TableView = TableView {
    name: pointer!(JobQueueView: tenant),
    columns: &[
        TableColumn::of_text("TENANT", pointer!(JobQueueView: tenant)),
        TableColumn::of_text("STATE", pointer!(JobQueueView: tenant_state)),
        TableColumn::of_time("NEXT DUE", pointer!(JobQueueView: due_at)),
        TableColumn::of_text("DEAD LETTERS", pointer!(JobQueueView: dead_reason)).may_cut(),
        TableColumn::of_text("RUNNER", pointer!(JobQueueView: runner)).only_wide(),
        TableColumn::of_text("TENANT ID", pointer!(JobQueueView: tenant_id)).only_wide(),
    ],
};

const JOB: TableView = TableView {
    name: pointer!(JobView: id),
    columns: &[
        TableColumn::of_text("JOB", pointer!(JobView: id)),
        TableColumn::of_text("KIND", pointer!(JobView: kind)).may_cut(),
        TableColumn::of_text("STATE", pointer!(JobView: state)),
        TableColumn::of_time("DUE", pointer!(JobView: due_at)),
        TableColumn::of_text("ATTEMPTS", pointer!(JobView: attempts)),
        TableColumn::of_text("SCHEDULE", pointer!(JobView: schedule)),
        TableColumn::of_text("REASON", pointer!(JobView: reason)).may_cut(),
        TableColumn::of_text("ENQUEUED BY", pointer!(JobView: enqueued_by)).only_wide(),
        TableColumn::of_time("ENQUEUED", pointer!(JobView: created_at)).only_wide(),
    ],
};

const CHANGED: TableView = TableView {
    name: pointer!(ChangedJobs: tenant),
    columns: &[
        TableColumn::of_text("TENANT", pointer!(ChangedJobs: tenant)),
        TableColumn::of_text("JOBS", pointer!(ChangedJobs: jobs)),
    ],
};

/// Commands of background jobs.
#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// List the tenants that have jobs, or the jobs of one tenant
    #[command(after_help = "Examples:
  fleetctl job list
  fleetctl job list acme")]
    List {
        /// The tenant's name or id; without it, one line for each tenant with jobs
        tenant: Option<String>,
    },
    /// Run dead letters again
    #[command(after_help = "Example:
  fleetctl job retry acme --all-dead --reason 'the mail server is back'")]
    Retry(JobChangeArgs),
    /// Drop one job, or all dead letters
    Drop(JobChangeArgs),
}

/// Flags of a change of jobs.
#[derive(Debug, Args)]
pub(crate) struct JobChangeArgs {
    /// The tenant's name or id
    tenant: String,
    /// The job's id, as `job list TENANT` shows it
    #[arg(required_unless_present = "all_dead", conflicts_with = "all_dead")]
    job: Option<String>,
    /// All dead letters of the tenant
    #[arg(long)]
    all_dead: bool,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Runs `fleetctl job …`.
pub(crate) async fn run_job_command(verb: JobCommand, context: &mut CommandContext) -> Result<CommandExit> {
    match verb {
        JobCommand::List { tenant: None } => print_pages(context, ApiRequest::get("/v1/jobs"), &QUEUE).await,
        JobCommand::List { tenant: Some(tenant) } => {
            print_pages(context, ApiRequest::get(format!("/v1/tenants/{}/jobs", path_segment(&tenant)?)), &JOB).await
        }
        JobCommand::Retry(args) => change_jobs(args, "retry", context).await,
        JobCommand::Drop(args) => change_jobs(args, "drop", context).await,
    }
}

async fn change_jobs(args: JobChangeArgs, verb: &str, context: &mut CommandContext) -> Result<CommandExit> {
    let path = format!("/v1/tenants/{}/jobs/{verb}", path_segment(&args.tenant)?);
    let wanted = JobChange { job: args.job, all_dead: args.all_dead, ..JobChange::default() };
    change_and_print(context, ApiRequest::post(path, &wanted), &args.change, &CHANGED).await
}
