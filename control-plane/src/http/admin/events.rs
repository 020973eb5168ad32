//! `/v1/events`: the audit log.

use axum::extract::State;
use catalog::OperationId;
use catalog::events::{self, EventRecord};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::lookup;
use crate::http::admission::Caller;
use crate::http::error::{ProblemBody, Result};
use crate::http::extract::{Json, Query};
use crate::http::number::{Count, Limit};
use crate::http::pages::{PageOf, Window};
use crate::http::{Api, time};

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Something that was changed, or looked at by an operator.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Event {
    /// The order of things.
    pub(crate) seq: i64,
    /// RFC 3339.
    at: String,
    /// noun.verb
    pub(crate) kind: String,
    /// Who.
    actor: String,
    /// About which tenant.
    tenant_id: Option<String>,
    /// In which operation.
    operation_id: Option<String>,
    /// In which request.
    request_id: Option<String>,
    /// What else there is to know.
    data: serde_json::Value,
}

impl Event {
    /// The wire form of a record.
    pub(crate) fn new(record: EventRecord) -> Self {
        let event = record.event;
        Self {
            seq: record.seq,
            at: time::text(record.at),
            kind: event.kind,
            actor: event.actor,
            tenant_id: event.tenant_id.map(|id| id.to_string()),
            operation_id: event.op_id.map(|id| id.to_string()),
            request_id: event.request_id,
            data: event.data,
        }
    }
}

/// Which events.
#[derive(Debug, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filters {
    /// Only about this tenant (name or id).
    tenant: Option<String>,
    /// Only of this operation (op_…).
    op: Option<String>,
    /// Only those with a greater `seq`.
    #[param(value_type = Option<i64>, minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    after: Option<Count>,
    /// 1 to 1000; 100 unless given.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<Limit>,
    /// From the page before.
    cursor: Option<String>,
}

/// The events, oldest first.
#[utoipa::path(get, path = "/v1/events", tag = "events", params(Filters),
    responses((status = 200, description = "A page", body = PageOf<Event>), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn list(State(api): State<Api>, caller: Caller, Query(filters): Query<Filters>) -> Result<Json<PageOf<Event>>> {
    let window = Window::open(&api, &caller, "events", &filters, (filters.limit, filters.cursor.as_deref()))?;
    let op: Option<OperationId> = filters.op.as_deref().map(lookup::id).transpose()?;
    let mut tx = api.app.catalog.read().await?;
    if let Some(op) = op {
        // An operation that does not exist has no events, which must not look like an answer.
        super::operations::find(&mut tx, op).await?;
    }
    let tenant = match &filters.tenant {
        Some(name) => Some(lookup::tenant(&mut tx, name).await?.id),
        None => None,
    };
    let after = window.after()?.or(filters.after.map(Count::signed)).unwrap_or(0);
    let rows = events::page(&mut tx, tenant, op, after, window.rows()).await?;
    Ok(Json(window.page(rows, |row| row.seq.to_string(), Event::new)))
}
