//! `/v1/lifecycle`: what changes the state or the place of tenants that exist.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{self, Planned};
use super::lookup;
use super::operations::Operation;
use super::selection::Selection;
use crate::http::Api;
use crate::http::admission::Caller;
use crate::http::error::{ProblemBody, Result};
use crate::http::extract::Json;
use crate::http::number::{Concurrency, Count};
use crate::operations::{
    Params, archive, clone, r#move, purge, read_only, resume, settle, suspend, unarchive, undelete,
};
use crate::plan;
use crate::runner::submit::Submission;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(suspend))
        .routes(routes!(resume))
        .routes(routes!(archive))
        .routes(routes!(unarchive))
        .routes(routes!(undelete))
        .routes(routes!(purge))
        .routes(routes!(settle))
        .routes(routes!(set_read_only))
        .routes(routes!(move_tenants))
        .routes(routes!(clone_tenant))
}

/// Which tenants, and how.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LifecycleChange {
    /// Which tenants.
    selection: Selection,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// Why, for the audit log and for whoever looks at the tenant.
    reason: Option<String>,
    /// Steps at once: 1 to 128.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 128)]
    concurrency: Option<Concurrency>,
    /// Refused when the plan has another number of tenants.
    #[schema(value_type = Option<u64>, minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    expect_count: Option<Count>,
}

impl LifecycleChange {
    async fn submit(self, api: &Api, caller: &Caller, params: Params) -> Result<Response> {
        let submission = Submission {
            params,
            targets: self.selection.into(),
            reason: self.reason,
            concurrency: self.concurrency.map(Concurrency::narrow),
            expect_count: self.expect_count.map(Count::get),
        };
        change::submit(api, caller, submission, self.dry_run).await
    }
}

/// Takes tenants out of service; the reason is shown to operators.
#[utoipa::path(post, path = "/v1/lifecycle/suspend", tag = "lifecycle", request_body = LifecycleChange,
    responses((status = 202, description = "It has begun", body = Operation), (status = 200, description = "A dry run", body = Planned), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn suspend(State(api): State<Api>, caller: Caller, Json(run): Json<LifecycleChange>) -> Result<Response> {
    run.submit(&api, &caller, Params::Suspend(suspend::Params::default())).await
}

/// Lets suspended tenants answer again.
#[utoipa::path(post, path = "/v1/lifecycle/resume", tag = "lifecycle", request_body = LifecycleChange,
    responses((status = 202, description = "It has begun", body = Operation), (status = 200, description = "A dry run", body = Planned), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn resume(State(api): State<Api>, caller: Caller, Json(run): Json<LifecycleChange>) -> Result<Response> {
    run.submit(&api, &caller, Params::Resume(resume::Params::default())).await
}

/// Backs tenants up, proves the backups, and drops their databases.
#[utoipa::path(post, path = "/v1/lifecycle/archive", tag = "lifecycle", request_body = LifecycleChange,
    responses((status = 202, description = "It has begun", body = Operation), (status = 200, description = "A dry run", body = Planned), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn archive(State(api): State<Api>, caller: Caller, Json(run): Json<LifecycleChange>) -> Result<Response> {
    run.submit(&api, &caller, Params::Archive(archive::Params::default())).await
}

/// Gives archived tenants their databases back.
#[utoipa::path(post, path = "/v1/lifecycle/unarchive", tag = "lifecycle", request_body = LifecycleChange,
    responses((status = 202, description = "It has begun", body = Operation), (status = 200, description = "A dry run", body = Planned), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn unarchive(State(api): State<Api>, caller: Caller, Json(run): Json<LifecycleChange>) -> Result<Response> {
    run.submit(&api, &caller, Params::Unarchive(unarchive::Params::default())).await
}

/// Brings deleted tenants back.
#[utoipa::path(post, path = "/v1/lifecycle/undelete", tag = "lifecycle", request_body = LifecycleChange,
    responses((status = 202, description = "It has begun", body = Operation), (status = 200, description = "A dry run", body = Planned), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn undelete(State(api): State<Api>, caller: Caller, Json(run): Json<LifecycleChange>) -> Result<Response> {
    run.submit(&api, &caller, Params::Undelete(undelete::Params::default())).await
}

/// Drops the databases of deleted tenants, for good.
#[utoipa::path(post, path = "/v1/lifecycle/purge", tag = "lifecycle", request_body = LifecycleChange,
    responses((status = 202, description = "It has begun", body = Operation), (status = 200, description = "A dry run", body = Planned), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn purge(State(api): State<Api>, caller: Caller, Json(run): Json<LifecycleChange>) -> Result<Response> {
    run.submit(&api, &caller, Params::Purge(purge::Params::default())).await
}

/// Whom to let serve again, and from which database.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LifecycleSettle {
    /// Which tenants.
    selection: Selection,
    /// Also from a database that was retired, when the one that replaced it cannot be had: what was written since then
    /// is not in it.
    #[serde(default)]
    back: bool,
    /// From whichever of the tenant's databases served last, on any server, by what they say themselves: for a catalog that
    /// was restored from an older copy.
    #[serde(default)]
    newest: bool,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// Why, for the audit log.
    reason: Option<String>,
    /// Steps at once: 1 to 128.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 128)]
    concurrency: Option<Concurrency>,
    /// Refused when the plan has another number of tenants.
    #[schema(value_type = Option<u64>, minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    expect_count: Option<Count>,
}

/// Lets tenants serve again that a failed operation left fenced.
#[utoipa::path(post, path = "/v1/lifecycle/settle", tag = "lifecycle", request_body = LifecycleSettle,
    responses((status = 202, description = "It has begun", body = Operation), (status = 200, description = "A dry run", body = Planned), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn settle(State(api): State<Api>, caller: Caller, Json(run): Json<LifecycleSettle>) -> Result<Response> {
    let submission = Submission {
        params: Params::Settle(settle::Params { back: run.back, newest: run.newest }),
        targets: run.selection.into(),
        reason: run.reason,
        concurrency: run.concurrency.map(Concurrency::narrow),
        expect_count: run.expect_count.map(Count::get),
    };
    change::submit(&api, &caller, submission, run.dry_run).await
}

/// Whose writes to block or to allow.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LifecycleReadOnly {
    /// Which tenants.
    selection: Selection,
    /// True: only reads from now on; false: writes again.
    on: bool,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// Why, for the audit log and for whoever looks at the tenant.
    reason: Option<String>,
    /// Steps at once: 1 to 128.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 128)]
    concurrency: Option<Concurrency>,
    /// Refused when the plan has another number of tenants.
    #[schema(value_type = Option<u64>, minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    expect_count: Option<Count>,
}

/// Blocks tenants' writes, or allows them again.
#[utoipa::path(post, path = "/v1/lifecycle/read-only", tag = "lifecycle", request_body = LifecycleReadOnly,
    responses((status = 202, description = "It has begun", body = Operation), (status = 200, description = "A dry run", body = Planned), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn set_read_only(State(api): State<Api>, caller: Caller, Json(run): Json<LifecycleReadOnly>) -> Result<Response> {
    let mut submission = Submission::new(Params::ReadOnly(read_only::Params { on: run.on }), run.selection.into());
    submission.reason = run.reason;
    submission.concurrency = run.concurrency.map(Concurrency::narrow);
    submission.expect_count = run.expect_count.map(Count::get);
    change::submit(&api, &caller, submission, run.dry_run).await
}

/// Whom to move, and where to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LifecycleMove {
    /// Which tenants.
    selection: Selection,
    /// The name of a server of the same engine; any that takes tenants unless given.
    to: Option<String>,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// Why, for the audit log.
    reason: Option<String>,
    /// Steps at once: 1 to 128.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 128)]
    concurrency: Option<Concurrency>,
    /// Refused when the plan has another number of tenants.
    #[schema(value_type = Option<u64>, minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    expect_count: Option<Count>,
}

/// Moves tenants to another server; reads go on meanwhile, writes wait for a moment.
#[utoipa::path(post, path = "/v1/lifecycle/move", tag = "lifecycle", request_body = LifecycleMove,
    responses((status = 202, description = "It has begun", body = Operation), (status = 200, description = "A dry run", body = Planned), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn move_tenants(State(api): State<Api>, caller: Caller, Json(run): Json<LifecycleMove>) -> Result<Response> {
    let submission = Submission {
        params: Params::Move(r#move::Params { to: run.to, ..Default::default() }),
        targets: run.selection.into(),
        reason: run.reason,
        concurrency: run.concurrency.map(Concurrency::narrow),
        expect_count: run.expect_count.map(Count::get),
    };
    change::submit(&api, &caller, submission, run.dry_run).await
}

/// Whom to clone, and as whom.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LifecycleClone {
    /// Name or id.
    tenant: String,
    /// The new tenant's name.
    #[serde(rename = "as")]
    as_name: String,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// Why, for the audit log.
    reason: Option<String>,
}

/// Makes a new tenant with the data another one has now.
#[utoipa::path(post, path = "/v1/lifecycle/clone", tag = "lifecycle", request_body = LifecycleClone,
    responses((status = 202, description = "It has begun", body = Operation), (status = 200, description = "A dry run", body = Planned),
        (status = 409, description = "The name is taken", body = ProblemBody), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn clone_tenant(State(api): State<Api>, caller: Caller, Json(run): Json<LifecycleClone>) -> Result<Response> {
    let tenant = lookup::tenant(&mut api.app.catalog.read().await?, &run.tenant).await?;
    let params = Params::Clone(clone::Params { name: run.as_name, source: None });
    let mut submission = Submission::new(params, plan::Selection::one(tenant.id.to_string()));
    submission.reason = run.reason;
    change::submit(&api, &caller, submission, run.dry_run).await
}
