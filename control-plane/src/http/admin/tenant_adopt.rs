//! `/v1/tenants/adopt`: a database that exists already becomes a tenant.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{Planned, check_reason};
use super::tenant_work::{TenantCreated, created};
use crate::http::Api;
use crate::http::admission::Caller;
use crate::http::error::{ProblemBody, Result};
use crate::http::extract::Json;
use crate::operations::{Params, adopt};
use crate::plan::Selection;
use crate::runner::submit::{Mode, Submission, Submitted};

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(adopt_one))
}

/// A database to adopt.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Adoption {
    /// The new tenant's slug: 1 to 63 of a-z, 0-9 and '-'.
    name: String,
    /// `postgres://user:password@host:port/database` of a role that may read everything in it.
    #[schema(value_type = String)]
    dsn: SecretString,
    /// Free words about it.
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// On which server the copy lives; the Postgres server with the fewest tenants unless given.
    server: Option<String>,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// Why, for the audit log.
    reason: Option<String>,
}

/// Makes a tenant of a copy of a Postgres database that no fleet knows.
#[utoipa::path(post, path = "/v1/tenants/adopt", tag = "tenants", request_body = Adoption,
    responses((status = 202, description = "It is being copied; Location names the operation", body = TenantCreated), (status = 200, description = "A dry run", body = Planned),
        (status = 409, description = "The name is taken", body = ProblemBody), (status = 422, description = "The name or the connection string is not valid", body = ProblemBody)))]
async fn adopt_one(State(api): State<Api>, caller: Caller, Json(new): Json<Adoption>) -> Result<Response> {
    check_reason(new.reason.as_deref())?;
    let source = adopt::Params::seal(&api.app.fleet, &new.dsn);
    let params = adopt::Params { name: new.name, labels: new.labels, server: new.server, source };
    let mut submission = Submission::new(Params::Adopt(params), Selection::default());
    submission.reason = new.reason;
    let mode = if new.dry_run { Mode::Plan } else { Mode::Run };
    match api.app.submit(&caller.who, submission, mode).await? {
        Submitted::Started(record) => created(&api, record).await,
        Submitted::Planned(view) => Ok(Json(Planned::new(view.into())).into_response()),
    }
}
