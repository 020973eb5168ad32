//! The digest of an organisation: how many tasks are open and overdue. A background job makes it each night, or at once when
//! somebody asks for it.

use axum::http::StatusCode;
use axum::{Json, Router, routing};
use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};
use tenant_router::{
    Error, FleetLoop, Job, JobError, JobOptions, JobRun, JobRunner, JobSchedule, Read, Tenant, Write, WriteTx, params,
};

use crate::Application;
use crate::error::Result;
use crate::live::{PageChange, announce_change};

/// Three o'clock each night, in UTC.
const NIGHTLY: &str = "0 3 * * *";

/// Counts the tasks of one organisation. Which one, the queue says.
#[derive(Debug, Serialize, Deserialize)]
struct MakeDigest;

impl Job for MakeDigest {
    const KIND: &'static str = "make-digest";
}

/// The latest digest.
#[derive(Debug, Serialize, Deserialize)]
struct Digest {
    open: i64,
    overdue: i64,
    made_at: Timestamp,
}

pub(crate) fn routes() -> Router<Application> {
    Router::new().route("/digest", routing::get(show_digest).post(request_digest))
}

/// Starts the runner of this process.
///
/// # Errors
/// None while a handler is added.
pub fn start_jobs(application: &Application) -> Result<JobRunner, Error> {
    application.router.job_runner().handle(make_digest).start()
}

/// Gives every organisation a digest each night. An organisation that signs up later gets it at sign-up. A deployed application
/// runs this once, in a program of its operator, and not at each start.
///
/// # Errors
/// Those of the catalog. A fleet without organisations is not an error.
pub async fn schedule_digests(application: &Application) -> Result<(), Error> {
    let all = FleetLoop::over_all("tasks", "every organisation gets the nightly digest");
    let report = application.router.for_each(all, async |tenant: Tenant<Write>| {
        let mut tx = tenant.write();
        schedule_digest(&mut tx).await?;
        tx.commit().await
    });
    match report.await {
        Ok(report) if report.failed > 0 => {
            tracing::warn!(failures = ?report.failures, "some digests are not scheduled")
        }
        Err(error) if error.code() != "loop_invalid" => return Err(error),
        _ => {}
    }
    Ok(())
}

/// Repeating this changes nothing.
pub(crate) async fn schedule_digest(tx: &mut WriteTx<'_, Write>) -> Result<(), Error> {
    tx.schedule("nightly-digest", &JobSchedule::parse(NIGHTLY)?, &MakeDigest).await.map(drop)
}

async fn show_digest(tenant: Tenant<Read>) -> Result<Json<Option<Digest>>> {
    let sql = "select open, overdue, made_at from digest";
    Ok(Json(tenant.query_as(sql, ()).fetch_optional().await?))
}

/// Several requests at the same time make one digest.
async fn request_digest(tenant: Tenant<Write>) -> Result<StatusCode> {
    tenant.enqueue(&MakeDigest, JobOptions::default().unique("digest")).await?;
    Ok(StatusCode::ACCEPTED)
}

async fn make_digest(run: JobRun<MakeDigest>) -> Result<(), JobError> {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let mut tx = run.tenant().write();
    let sql = "insert into digest (id, open, overdue, made_at) \
               select 1, count(*), count(*) filter (where due_on < $1), $2 from tasks where not done \
               on conflict (id) do update set open = excluded.open, overdue = excluded.overdue, made_at = excluded.made_at";
    tx.execute(sql, params![today, Timestamp::now()]).await?;
    // The digest and the end of the run become durable together.
    run.finish(&mut tx).await?;
    tx.commit().await?;
    announce_change(run.tenant(), PageChange::Digest).await;
    Ok(())
}
