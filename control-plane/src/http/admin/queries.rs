//! `/v1/queries`: one read-only statement on many tenants, their answers as they come.

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use catalog::{TenantRecord, events};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::{Rows, Value};
use tenant_router::{OperatorAccess, Params, Router};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::check_reason;
use super::operations::Fault;
use super::selection::Selection;
use crate::http::Api;
use crate::http::admission::Caller;
use crate::http::data::document::Document;
use crate::http::data::value::{Sent, parameters};
use crate::http::error::{Problem, ProblemBody, Result};
use crate::http::extract::Json;
use crate::http::number::Within;

/// Tenants asked at once unless the request says otherwise: their requests come first.
const CONCURRENCY: u32 = 8;
/// Each open database costs memory and a few descriptors.
type AtOnce = Within<1, 64>;
/// Rows of one tenant: what the engine allows a session anyway.
const ROWS_MAX: u32 = 10_000;
type RowsMax = Within<1, { ROWS_MAX as u64 }>;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(run))
}

/// What to ask whom.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct FleetQuery {
    /// One statement that only reads.
    sql: String,
    /// Its parameters: null, booleans, numbers, strings, `{"$int":…}`, `{"$blob":…}`.
    #[serde(default)]
    #[schema(value_type = Vec<serde_json::Value>)]
    params: Vec<Sent>,
    /// Which tenants.
    selection: Selection,
    /// More rows of one tenant are that tenant's error; 1 to 10,000.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 10_000)]
    rows_max: Option<RowsMax>,
    /// Tenants at once; 1 to 64.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 64)]
    concurrency: Option<AtOnce>,
    /// Why, for the audit log.
    reason: Option<String>,
}

/// The statement, ready to be run on one tenant after the other.
#[derive(Debug, Clone)]
struct Question {
    sql: String,
    params: Vec<Value>,
    rows_max: usize,
}

/// How it went, counted.
#[derive(Debug, Default, Serialize)]
struct Summary {
    tenants: u64,
    failed: u64,
    rows: u64,
}

/// Asks every selected tenant that serves. One JSON object per line: `{"tenant","columns","rows"}` or
/// `{"tenant","error"}`, and at the end `{"summary":{"tenants","failed","rows"}}`.
#[utoipa::path(post, path = "/v1/queries", tag = "queries", request_body = FleetQuery,
    responses((status = 200, description = "One line per tenant, then a summary", content_type = "application/x-ndjson", body = String),
        (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn run(State(api): State<Api>, caller: Caller, Json(ask): Json<FleetQuery>) -> Result<Response> {
    check_reason(ask.reason.as_deref())?;
    if ask.sql.trim().is_empty() {
        return Err(Problem::invalid("sql: expected one statement"));
    }
    let concurrency = ask.concurrency.map_or(CONCURRENCY, AtOnce::narrow) as usize;
    let rows_max = ask.rows_max.map_or(ROWS_MAX, RowsMax::narrow) as usize;
    let params = parameters(ask.params).map_err(Problem::invalid)?;
    let tenants = api.app.select(&ask.selection.into()).await?;
    audit(&api, &caller, &ask.sql, tenants.len(), ask.reason.as_deref()).await?;
    let access = OperatorAccess::new(caller.who.actor, ask.reason.unwrap_or_else(|| "query".to_owned()));
    let question = Question { sql: ask.sql, params, rows_max };
    let body = lines(api.app.router.clone(), access, question, tenants, concurrency);
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// Remembers who looked into tenants' data with what, before anything is read; never the parameters.
async fn audit(api: &Api, caller: &Caller, sql: &str, tenants: usize, reason: Option<&str>) -> Result<()> {
    let mut tx = api.app.catalog.write().await?;
    let event = caller.event("query.run", None, json!({ "sql": sql, "tenants": tenants }), reason);
    events::append(&mut tx, &[event]).await?;
    Ok(tx.commit().await?)
}

/// The lines as a body; a tenant's answer is dropped as soon as it is sent.
fn lines(
    router: Router,
    access: OperatorAccess,
    question: Question,
    tenants: Vec<TenantRecord>,
    concurrency: usize,
) -> Body {
    let answers = stream::iter(tenants)
        .map(move |tenant| {
            let (router, access, question) = (router.clone(), access.clone(), question.clone());
            async move { one(&router, &access, question, tenant).await }
        })
        .buffered(concurrency);
    // The summary follows the last tenant, with what was counted on the way.
    let counted = answers
        .map(Some)
        .chain(stream::iter([None]))
        .scan(Summary::default(), |summary, answer| std::future::ready(Some(summary.line(answer))));
    Body::from_stream(counted.flat_map(|line| stream::iter(line.map(Ok::<_, std::convert::Infallible>))))
}

/// One tenant's line and its rows, or its error.
type Answered = (String, Result<Rows, Fault>);

async fn one(router: &Router, access: &OperatorAccess, question: Question, tenant: TenantRecord) -> Answered {
    let answer = ask(router, access, question, &tenant).await;
    (tenant.name, answer)
}

async fn ask(
    router: &Router,
    access: &OperatorAccess,
    question: Question,
    tenant: &TenantRecord,
) -> Result<Rows, Fault> {
    let fault =
        |error: tenant_router::Error| Fault { code: error.code().to_owned(), detail: error.detail().to_owned() };
    let open = router.open_for_operator(access, tenant.id).await.map_err(fault)?;
    let rows = open.query(&question.sql, Params(question.params)).await.map_err(fault)?;
    if rows.rows.len() > question.rows_max {
        let detail = format!("more than {} rows; ask for fewer, or raise rows_max", question.rows_max);
        return Err(Fault { code: "rows_max".to_owned(), detail });
    }
    Ok(rows)
}

impl Summary {
    fn line(&mut self, answer: Option<Answered>) -> Document {
        let small = |json| Document::text(line(&json));
        let Some((tenant, answer)) = answer else { return small(json!({ "summary": self })) };
        self.tenants += 1;
        match answer {
            Ok(rows) => {
                self.rows += rows.rows.len() as u64;
                Document::line(&tenant, rows)
            }
            Err(error) => {
                self.failed += 1;
                small(json!({ "tenant": tenant, "error": error }))
            }
        }
    }
}

fn line(json: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec(json).expect("an answer is plain JSON");
    text.push(b'\n');
    text
}
