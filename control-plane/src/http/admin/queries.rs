//! `/v1/queries`: runs one read-only statement on many tenants, and streams their answers.

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use catalog::{TenantRecord, events};
use fleet_api::bounded_number::{AtOnce, ROWS_MAX, RowsMax};
use fleet_api::operations::FailureDetail;
use fleet_api::problem::ProblemBody;
use fleet_api::queries::FleetQuery;
use futures_util::{StreamExt, stream};
use serde::Serialize;
use serde_json::json;
use tenant_engine::{Rows, SqlValue};
use tenant_router::{OperatorAccess, Params, Router};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::check_reason;
use crate::http::ApiState;
use crate::http::admission::AdmittedCaller;
use crate::http::data::document::AnswerDocument;
use crate::http::data::value::parse_parameters;
use crate::http::error::{Problem, Result};
use crate::http::extract::JsonBody;

/// Default number of tenants that are queried at once. It is low, because tenants' own requests take precedence.
const CONCURRENCY: u32 = 8;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(run_fleet_query))
}

/// The statement, ready to run on each tenant.
#[derive(Debug, Clone)]
struct FleetStatement {
    sql: String,
    params: Vec<SqlValue>,
    rows_max: usize,
}

/// The counts of a finished query.
#[derive(Debug, Default, Serialize)]
struct QuerySummary {
    tenants: u64,
    failed: u64,
    rows: u64,
}

/// Query every selected tenant that serves.
///
/// The answer has one JSON object per line: `{"tenant","columns","rows"}` or `{"tenant","error"}`. The last line is
/// `{"summary":{"tenants","failed","rows"}}`.
#[utoipa::path(post, path = "/v1/queries", tag = "queries", request_body = FleetQuery,
    responses((status = 200, description = "One line per tenant, then a summary", content_type = "application/x-ndjson", body = String),
        (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn run_fleet_query(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    JsonBody(ask): JsonBody<FleetQuery>,
) -> Result<Response> {
    check_reason(ask.reason.as_deref())?;
    if ask.sql.trim().is_empty() {
        return Err(Problem::invalid("sql: expected one statement"));
    }
    let concurrency = ask.concurrency.map_or(CONCURRENCY, AtOnce::to_u32) as usize;
    let rows_max = ask.rows_max.map_or(ROWS_MAX, RowsMax::to_u32) as usize;
    let params = parse_parameters(ask.params).map_err(Problem::invalid)?;
    let tenants = api.app.runner.select_tenants(&ask.selection.into()).await?;
    audit_query(&api, &caller, &ask.sql, tenants.len(), ask.reason.as_deref()).await?;
    let access = OperatorAccess::new(caller.who.actor, ask.reason.unwrap_or_else(|| "query".to_owned()));
    let question = FleetStatement { sql: ask.sql, params, rows_max };
    let body = answer_lines(api.app.router.clone(), access, question, tenants, concurrency);
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// Records in the audit log who reads tenants' data with which statement, before anything is read. Parameters are never
/// recorded.
async fn audit_query(
    api: &ApiState,
    caller: &AdmittedCaller,
    sql: &str,
    tenants: usize,
    reason: Option<&str>,
) -> Result<()> {
    let mut tx = api.app.catalog.write().await?;
    let event = caller.caller_event("query.run", None, json!({ "sql": sql, "tenants": tenants }), reason);
    events::append_events(&mut tx, &[event]).await?;
    Ok(tx.commit().await?)
}

/// The lines as a body. A tenant's answer is dropped as soon as it is sent.
fn answer_lines(
    router: Router,
    access: OperatorAccess,
    question: FleetStatement,
    tenants: Vec<TenantRecord>,
    concurrency: usize,
) -> Body {
    let answers = stream::iter(tenants)
        .map(move |tenant| {
            let (router, access, question) = (router.clone(), access.clone(), question.clone());
            async move { answer_for_tenant(&router, &access, question, tenant).await }
        })
        .buffered(concurrency);
    // The summary follows the last tenant. It counts the tenants that were answered.
    let counted = answers
        .map(Some)
        .chain(stream::iter([None]))
        .scan(QuerySummary::default(), |summary, answer| std::future::ready(Some(summary.answer_document(answer))));
    Body::from_stream(counted.flat_map(|line| stream::iter(line.map(Ok::<_, std::convert::Infallible>))))
}

/// One tenant's name, and its rows or its error.
type TenantAnswer = (String, Result<Rows, FailureDetail>);

async fn answer_for_tenant(
    router: &Router,
    access: &OperatorAccess,
    question: FleetStatement,
    tenant: TenantRecord,
) -> TenantAnswer {
    let answer = query_tenant(router, access, question, &tenant).await;
    (tenant.name, answer)
}

async fn query_tenant(
    router: &Router,
    access: &OperatorAccess,
    question: FleetStatement,
    tenant: &TenantRecord,
) -> Result<Rows, FailureDetail> {
    let fault = |error: tenant_router::Error| FailureDetail {
        code: error.code().to_owned(),
        detail: error.detail().to_owned(),
    };
    let open = router.open_for_operator(access, tenant.id).await.map_err(fault)?;
    let rows = open.query(&question.sql, Params::from(question.params)).await.map_err(fault)?;
    if rows.rows.len() > question.rows_max {
        let detail = format!("more than {} rows; ask for fewer, or raise rows_max", question.rows_max);
        return Err(FailureDetail { code: tenant_engine::ErrorKind::RowsMax.code().to_owned(), detail });
    }
    Ok(rows)
}

impl QuerySummary {
    fn answer_document(&mut self, answer: Option<TenantAnswer>) -> AnswerDocument {
        let small = |json| AnswerDocument::plain_text(json_line(&json));
        let Some((tenant, answer)) = answer else { return small(json!({ "summary": self })) };
        self.tenants += 1;
        match answer {
            Ok(rows) => {
                self.rows += rows.rows.len() as u64;
                AnswerDocument::tenant_line(&tenant, rows)
            }
            Err(error) => {
                self.failed += 1;
                small(json!({ "tenant": tenant, "error": error }))
            }
        }
    }
}

fn json_line(json: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec(json).expect("an answer is plain JSON");
    text.push(b'\n');
    text
}
