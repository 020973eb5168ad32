//! `/v1/jobs` and `/v1/tenants/{tenant}/jobs`: which tenants have background jobs, and what an operator may do with them.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use catalog::job_queues::{self, ListedQueue};
use catalog::{TenantRecord, TenantState, events};
use fleet_api::jobs::{ChangedJobs, JobChange, JobListQuery, JobQueueView, JobView};
use fleet_api::pages::PageOf;
use fleet_api::problem::ProblemBody;
use serde_json::json;
use tenant_router::OperatorAccess;
use tenant_router::jobs::{JobRecord, JobSelection, JobState};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{CatalogChange, check_reason, finish_change};
use super::lookup;
use crate::error::ErrorKind;
use crate::http::ApiState;
use crate::http::admin::words::word_of;
use crate::http::admission::AdmittedCaller;
use crate::http::error::{Problem, Result};
use crate::http::extract::{JsonBody, PathParams, QueryParams};
use crate::http::pages::PageWindow;
use crate::time_text::format_time;

/// Maximum length of an id of a job: longer than any that is created.
const JOB_ID_BYTES_MAX: usize = 100;
/// Jobs that a dry run reads at once.
const PAGE: u32 = 1_000;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list_queues))
        .routes(routes!(list_jobs))
        .routes(routes!(retry_jobs))
        .routes(routes!(drop_jobs))
}

fn queue_view(listed: ListedQueue) -> JobQueueView {
    JobQueueView {
        tenant: listed.tenant,
        tenant_id: listed.queue.tenant_id.to_string(),
        tenant_state: word_of(&listed.state),
        due_at: listed.queue.due_at.map(format_time),
        runner: listed.queue.runner,
        dead_reason: listed.queue.dead_reason,
    }
}

fn job_view(job: JobRecord) -> JobView {
    let state = match job.state {
        JobState::Waiting => "waiting",
        JobState::Running => "running",
        JobState::Dead => "dead",
    };
    JobView {
        id: job.id,
        kind: job.kind,
        state: state.to_owned(),
        enqueued_by: job.enqueued_by,
        schedule: job.schedule,
        due_at: format_time(job.due_at),
        attempts: job.attempts,
        attempts_max: job.attempts_max,
        reason: job.reason,
        created_at: format_time(job.created_at),
    }
}

/// List the tenants that have or had background jobs, and when their next job is due.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs", params(JobListQuery),
    responses((status = 200, description = "One page of the list", body = PageOf<JobQueueView>), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn list_queues(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    QueryParams(part): QueryParams<JobListQuery>,
) -> Result<JsonBody<PageOf<JobQueueView>>> {
    let window = PageWindow::open_window(&api, &caller, "job queues", &(), (part.limit, part.cursor.as_deref()))?;
    let mut tx = api.app.catalog.read().await?;
    let rows = job_queues::list_queues(&mut tx, window.after_key()?, window.rows_to_read()).await?;
    Ok(JsonBody(window.into_page(rows, |row| row.queue.tenant_id.to_string(), queue_view)))
}

/// List the background jobs of a tenant in the order in which they were enqueued. The tenant must serve at least reads.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/jobs", tag = "jobs", params(("tenant" = String, Path, description = "Name or id of the tenant"), JobListQuery),
    responses((status = 200, description = "One page of the list", body = PageOf<JobView>), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn list_jobs(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(name): PathParams<String>,
    QueryParams(part): QueryParams<JobListQuery>,
) -> Result<JsonBody<PageOf<JobView>>> {
    let tenant = lookup::find_tenant(&mut api.app.catalog.read().await?, &name).await?;
    let window = PageWindow::open_window(&api, &caller, "jobs", &tenant.id, (part.limit, part.cursor.as_deref()))?;
    let after: Option<String> = window.after_key()?;
    refuse_deleted(&tenant)?;
    let access = OperatorAccess::new(caller.who.actor.clone(), "list of jobs");
    let page = window.rows_to_read();
    let rows = api.app.router.list_jobs(&access, tenant.id, after.as_deref(), page).await?;
    Ok(JsonBody(window.into_page(rows, |row| row.id.clone(), job_view)))
}

/// Run dead letters again.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/jobs/retry", tag = "jobs", request_body = JobChange, params(("tenant" = String, Path, description = "Name or id of the tenant")),
    responses((status = 200, description = "The number of jobs, or the plan of the dry run", body = ChangedJobs), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn retry_jobs(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(name): PathParams<String>,
    JsonBody(wanted): JsonBody<JobChange>,
) -> Result<Response> {
    change_jobs(&api, &caller, &name, wanted, JobVerb::Retry).await
}

/// Drop one job, or all dead letters. A dropped job never runs.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/jobs/drop", tag = "jobs", request_body = JobChange, params(("tenant" = String, Path, description = "Name or id of the tenant")),
    responses((status = 200, description = "The number of jobs, or the plan of the dry run", body = ChangedJobs), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn drop_jobs(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(name): PathParams<String>,
    JsonBody(wanted): JsonBody<JobChange>,
) -> Result<Response> {
    change_jobs(&api, &caller, &name, wanted, JobVerb::Drop).await
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum JobVerb {
    Retry,
    Drop,
}

impl JobVerb {
    fn event_kind(self) -> &'static str {
        match self {
            Self::Retry => "job.retried",
            Self::Drop => "job.dropped",
        }
    }

    /// Whether the verb concerns this job.
    fn concerns(self, jobs: &JobSelection, job: &JobRecord) -> bool {
        let is_dead = job.state == JobState::Dead;
        match jobs {
            JobSelection::AllDead => is_dead,
            JobSelection::One(id) => job.id == *id && (is_dead || self == Self::Drop),
        }
    }
}

/// Records the change, makes it, and refuses one that changed nothing.
async fn change_jobs(
    api: &ApiState,
    caller: &AdmittedCaller,
    name: &str,
    wanted: JobChange,
    verb: JobVerb,
) -> Result<Response> {
    check_reason(wanted.reason.as_deref())?;
    let jobs = parse_selection(&wanted)?;
    let tenant = lookup::find_tenant(&mut api.app.catalog.read().await?, name).await?;
    refuse_deleted(&tenant)?;
    let access = OperatorAccess::new(caller.who.actor.clone(), verb.event_kind());
    let concerned = count_jobs(api, &access, &tenant, &jobs, verb).await?;
    if concerned == 0 {
        return Err(Problem::new(ErrorKind::NotFound, nothing_found(&tenant, &jobs, verb)));
    }
    let count = match (wanted.dry_run, verb) {
        (true, _) => concerned,
        (false, verb) => {
            record_change(api, caller, &tenant, &wanted, verb).await?;
            match verb {
                JobVerb::Retry => api.app.router.retry_jobs(&access, tenant.id, &jobs).await?,
                JobVerb::Drop => api.app.router.drop_jobs(&access, tenant.id, &jobs).await?,
            }
        }
    };
    let verb_text = if verb == JobVerb::Retry { "would run again" } else { "would be dropped" };
    let noun = if concerned == 1 { "job" } else { "jobs" };
    let change = CatalogChange {
        kind: verb.event_kind(),
        tenant: Some(tenant.name.clone()),
        action: format!("{concerned} {noun} {verb_text}"),
    };
    let done = (StatusCode::OK, JsonBody(ChangedJobs { tenant: tenant.name, jobs: count }));
    finish_change(api.app.catalog.write().await?, caller, wanted.dry_run, change, done).await
}

/// The database of a deleted tenant is not opened, not even for its operator.
fn refuse_deleted(tenant: &TenantRecord) -> Result<()> {
    match tenant.state {
        TenantState::Deleted | TenantState::Purged => {
            let detail = format!(
                "{} is deleted, and its jobs are dead letters; after an undelete they can run again",
                tenant.name
            );
            Err(Problem::new(ErrorKind::Conflict, detail))
        }
        _ => Ok(()),
    }
}

fn parse_selection(wanted: &JobChange) -> Result<JobSelection> {
    match (&wanted.job, wanted.all_dead) {
        (None, true) => Ok(JobSelection::AllDead),
        (Some(id), false) if (1..=JOB_ID_BYTES_MAX).contains(&id.len()) && !id.contains('\0') => {
            Ok(JobSelection::One(id.clone()))
        }
        (Some(_), false) => Err(Problem::invalid("job: expected the id of a job, as `job list TENANT` shows it")),
        _ => Err(Problem::invalid("expected either `job` or `all_dead`")),
    }
}

fn nothing_found(tenant: &TenantRecord, jobs: &JobSelection, verb: JobVerb) -> String {
    let what = match (jobs, verb) {
        (JobSelection::AllDead, _) => "no dead letters".to_owned(),
        (JobSelection::One(id), JobVerb::Retry) => format!("no dead letter '{}'", lookup::display_safe(id)),
        (JobSelection::One(id), JobVerb::Drop) => format!("no job '{}'", lookup::display_safe(id)),
    };
    format!("{} has {what}", tenant.name)
}

async fn count_jobs(
    api: &ApiState,
    access: &OperatorAccess,
    tenant: &TenantRecord,
    jobs: &JobSelection,
    verb: JobVerb,
) -> Result<u64> {
    let (mut count, mut after) = (0, None);
    loop {
        let page = api.app.router.list_jobs(access, tenant.id, after.as_deref(), PAGE).await?;
        count += page.iter().filter(|job| verb.concerns(jobs, job)).count() as u64;
        match page.last() {
            Some(last) if page.len() == PAGE as usize => after = Some(last.id.clone()),
            _ => return Ok(count),
        }
    }
}

/// Records the change in the audit log, before anything is changed.
async fn record_change(
    api: &ApiState,
    caller: &AdmittedCaller,
    tenant: &TenantRecord,
    wanted: &JobChange,
    verb: JobVerb,
) -> Result<()> {
    let data = match &wanted.job {
        Some(job) => json!({ "job": job }),
        None => json!({ "all_dead": true }),
    };
    let mut tx = api.app.catalog.write().await?;
    let event = caller.caller_event(verb.event_kind(), Some(tenant.id), data, wanted.reason.as_deref());
    events::append_events(&mut tx, &[event]).await?;
    Ok(tx.commit().await?)
}
