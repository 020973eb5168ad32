//! `/query` and `/batch`, below `/t/{tenant}` or with the tenant named by host or header.

use axum::Router;
use axum::routing::post;
use serde::Deserialize;
use serde_json::value::RawValue;
use tenant_engine::SqlStatement;

use super::document::AnswerDocument;
use super::opened_tenant::OpenedTenant;
use super::value::parse_parameters;
use crate::http::ApiState;
use crate::http::error::{Problem, Result};
use crate::http::extract::JsonBody;

/// Maximum number of statements per transaction, because it holds the tenant's only writer.
const STATEMENTS_MAX: usize = 100;
/// SQLite's default maximum of bound parameters.
const PARAMETERS_MAX: usize = 32_766;

/// The routes of this module.
pub(crate) fn routes() -> Router<ApiState> {
    Router::new()
        .route("/query", post(run_query))
        .route("/t/{tenant}/query", post(run_query))
        .route("/batch", post(run_batch))
        .route("/t/{tenant}/batch", post(run_batch))
}

/// One statement.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StatementRequest {
    sql: String,
    #[serde(default)]
    params: Vec<Box<RawValue>>,
}

/// Several statements, in one transaction.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchRequest {
    statements: Vec<StatementRequest>,
}

impl StatementRequest {
    /// Binds the parameters. A refusal names the parameter by its number, never its value.
    fn into_statement(self) -> Result<SqlStatement> {
        if self.params.len() > PARAMETERS_MAX {
            return Err(Problem::invalid(format!("params: expected at most {PARAMETERS_MAX}")));
        }
        let params = parse_parameters(self.params).map_err(Problem::invalid)?;
        Ok(SqlStatement { sql: self.sql, params })
    }
}

async fn run_query(tenant: OpenedTenant, JsonBody(asked): JsonBody<StatementRequest>) -> Result<AnswerDocument> {
    let mut results = tenant.run_statements(vec![asked.into_statement()?]).await?;
    Ok(AnswerDocument::answer_of(results.pop().unwrap_or_default()))
}

async fn run_batch(tenant: OpenedTenant, JsonBody(batch): JsonBody<BatchRequest>) -> Result<AnswerDocument> {
    if batch.statements.is_empty() || batch.statements.len() > STATEMENTS_MAX {
        return Err(Problem::invalid(format!("statements: expected 1 to {STATEMENTS_MAX}")));
    }
    let statements = batch.statements.into_iter().map(StatementRequest::into_statement).collect::<Result<Vec<_>>>()?;
    Ok(AnswerDocument::results_of(tenant.run_statements(statements).await?))
}
