//! `/v1/tenants/adopt`: makes an existing database a tenant.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::create::{TenantCreated, created_response};
use crate::http::ApiState;
use crate::http::admin::change::{PlannedChange, check_reason};
use crate::http::admission::AdmittedCaller;
use crate::http::error::{ProblemBody, Result};
use crate::http::extract::JsonBody;
use crate::operations::{OperationParams, adopt};
use crate::plan::TenantSelection;
use crate::runner::submit::{Submission, SubmitMode, SubmitOutcome};

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(adopt_one))
}

/// A PostgreSQL database to copy, and the tenant to create from it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Adoption)]
struct AdoptionRequest {
    /// Slug of the new tenant: 1 to 63 of a-z, 0-9 and '-'.
    name: String,
    /// Database to copy: `postgres://user:password@host:port/database` of a role that may read everything in it.
    #[schema(value_type = String)]
    dsn: SecretString,
    /// Labels of the tenant: keys and values, chosen freely.
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// Name of the server for the copy. Default: the PostgreSQL server with the fewest tenants.
    server: Option<String>,
    /// True: only describe the change and do nothing.
    #[serde(default)]
    dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    reason: Option<String>,
}

/// Adopt a PostgreSQL database that no fleet knows: create a tenant with a copy of it.
#[utoipa::path(post, path = "/v1/tenants/adopt", tag = "tenants", request_body = AdoptionRequest,
    responses((status = 202, description = "The operation that copies the database has started; Location is its path", body = TenantCreated), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange),
        (status = 409, description = "The name belongs to another tenant", body = ProblemBody), (status = 422, description = "The name or the connection string is not valid", body = ProblemBody)))]
async fn adopt_one(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    JsonBody(new): JsonBody<AdoptionRequest>,
) -> Result<Response> {
    check_reason(new.reason.as_deref())?;
    let source = adopt::AdoptParams::seal_source(&api.app.context, &new.dsn);
    let params = adopt::AdoptParams { name: new.name, labels: new.labels, server: new.server, source };
    let mut submission = Submission::new(OperationParams::Adopt(params), TenantSelection::default());
    submission.reason = new.reason;
    let mode = if new.dry_run { SubmitMode::Plan } else { SubmitMode::Run };
    match api.app.submit_operation(&caller.who, submission, mode).await? {
        SubmitOutcome::Started(record) => created_response(&api, record).await,
        SubmitOutcome::Planned(view) => Ok(JsonBody(PlannedChange::new(view.into())).into_response()),
    }
}
