//! What is done to tenants as operations: create one, create many, delete.

use std::collections::BTreeMap;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use catalog::operations::OperationRecord;
use catalog::servers;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{self, Planned, check_reason};
use super::lookup;
use super::operations::Operation;
use super::tenants::Tenant;
use crate::error::Error;
use crate::http::Api;
use crate::http::admission::Caller;
use crate::http::error::{ProblemBody, Result};
use crate::http::extract::{Json, Path, Query};
use crate::http::number::{Concurrency, Count};
use crate::http::routes::BULK_BYTES_MAX;
use crate::operations::{Params, create, delete};
use crate::plan::Selection;
use crate::runner::submit::{Mode, Submission, Submitted};

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(create_many))
        .layer(DefaultBodyLimit::max(BULK_BYTES_MAX))
        .routes(routes!(create_one))
        .routes(routes!(delete_one))
}

/// A tenant to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewTenant {
    /// Its slug: 1 to 63 of a-z, 0-9 and '-'.
    name: String,
    /// Free words about it.
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// On which server; the one with the fewest tenants unless given.
    server: Option<String>,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// Why, for the audit log.
    reason: Option<String>,
}

/// A tenant that is being made, and the operation that makes it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TenantCreated {
    /// Provisioning until the operation has ended.
    tenant: Tenant,
    /// What makes it.
    operation: Operation,
}

/// Makes a tenant.
#[utoipa::path(post, path = "/v1/tenants", tag = "tenants", request_body = NewTenant,
    responses((status = 202, description = "It is being made; Location names the operation", body = TenantCreated), (status = 200, description = "A dry run", body = Planned),
        (status = 409, description = "The name is taken", body = ProblemBody), (status = 422, description = "The name is not valid", body = ProblemBody)))]
async fn create_one(State(api): State<Api>, caller: Caller, Json(new): Json<NewTenant>) -> Result<Response> {
    check_reason(new.reason.as_deref())?;
    catalog::Name::slug(&new.name)?;
    let tenants = vec![create::NewTenant { name: new.name, labels: new.labels }];
    let params = create::Params { tenants, server: new.server, if_exists: create::IfExists::Error };
    let mut submission = Submission::new(Params::Create(params), Selection::default());
    submission.reason = new.reason;
    let mode = if new.dry_run { Mode::Plan } else { Mode::Run };
    match api.app.submit(&caller.who, submission, mode).await? {
        Submitted::Started(record) => created(&api, record).await,
        Submitted::Planned(view) => Ok(Json(Planned::new(view.into())).into_response()),
    }
}

/// The answer to a creation: the operation's only tenant, and the operation.
pub(super) async fn created(api: &Api, record: OperationRecord) -> Result<Response> {
    let mut tx = api.app.catalog.read().await?;
    let steps = catalog::steps::page(&mut tx, record.id, &[], None, 1).await?;
    let (step, _) = steps.first().ok_or_else(|| Error::internal("a creation without a tenant"))?;
    let tenant = lookup::tenant(&mut tx, &step.tenant_id.to_string()).await?;
    let server = servers::get(&mut tx, tenant.server_id).await?;
    let place = [(header::LOCATION, format!("/v1/operations/{}", record.id))];
    let operation = Operation::read(&mut tx, record).await?;
    let tenant = Tenant::new(tenant, server.as_ref(), super::pins::head_version(&mut tx).await?);
    let created = TenantCreated { tenant, operation };
    Ok((StatusCode::ACCEPTED, place, Json(created)).into_response())
}

/// Tenants to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewTenants {
    /// At most 50,000.
    tenants: Vec<NewTenantOfMany>,
    /// On which server; the one with the fewest tenants unless given.
    server: Option<String>,
    /// What a taken name means.
    #[serde(default)]
    if_exists: IfExists,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// Why, for the audit log.
    reason: Option<String>,
    /// Steps at once: 1 to 128.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 128)]
    concurrency: Option<Concurrency>,
    /// Refused when so many are not to be made.
    #[schema(value_type = Option<u64>, minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    expect_count: Option<Count>,
}

/// A tenant to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewTenantOfMany {
    /// Its slug.
    name: String,
    /// Free words about it.
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// What a name that is taken already means.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum IfExists {
    /// The whole request is refused.
    #[default]
    Error,
    /// That tenant is left as it is.
    Skip,
}

/// Makes many tenants in one operation; one bad name refuses all of them and is named.
#[utoipa::path(post, path = "/v1/tenants/batch", tag = "tenants", request_body = NewTenants,
    responses((status = 202, description = "They are being made", body = Operation), (status = 200, description = "A dry run", body = Planned),
        (status = 422, description = "Some are not valid; `errors` names them", body = ProblemBody)))]
async fn create_many(State(api): State<Api>, caller: Caller, Json(new): Json<NewTenants>) -> Result<Response> {
    let tenants = new.tenants.into_iter().map(|t| create::NewTenant { name: t.name, labels: t.labels }).collect();
    let if_exists = match new.if_exists {
        IfExists::Error => create::IfExists::Error,
        IfExists::Skip => create::IfExists::Skip,
    };
    let params = create::Params { tenants, server: new.server, if_exists };
    let submission = Submission {
        params: Params::Create(params),
        targets: Selection::default(),
        reason: new.reason,
        concurrency: new.concurrency.map(Concurrency::narrow),
        expect_count: new.expect_count.map(Count::get),
    };
    change::submit(&api, &caller, submission, new.dry_run).await
}

/// How a tenant is deleted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DeleteWish {
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// Why, for the audit log.
    reason: Option<String>,
    /// Take no final backup, for instance because a full disk has no room for it.
    #[serde(default)]
    no_backup: bool,
}

/// Takes a tenant out of service, after a last verified backup.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}", tag = "tenants", params(("tenant" = String, Path, description = "Name or id"), DeleteWish),
    responses((status = 202, description = "It is being deleted", body = Operation), (status = 200, description = "A dry run", body = Planned),
        (status = 404, description = "No such tenant", body = ProblemBody), (status = 409, description = "It is protected", body = ProblemBody)))]
async fn delete_one(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    Query(wish): Query<DeleteWish>,
) -> Result<Response> {
    let tenant = lookup::tenant(&mut api.app.catalog.read().await?, &name).await?;
    let targets = Selection::one(tenant.id.to_string());
    let params = Params::Delete(delete::Params { without_backup: wish.no_backup });
    let mut submission = Submission::new(params, targets);
    submission.reason = wish.reason;
    change::submit(&api, &caller, submission, wish.dry_run).await
}
