//! `/query` and `/batch`. The caller mounts them at the root, and below the path of a tenant.

use fleet_api::statements::{
    BatchAnswer, PARAMETERS_MAX, STATEMENTS_MAX, StatementAnswer, StatementBatch, StatementRequest,
};
use tenant_engine::SqlStatement;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::document::AnswerDocument;
use super::opened_tenant::OpenedTenant;
use super::value::parse_parameters;
use crate::http::ApiState;
use crate::http::error::{Problem, Result};
use crate::http::extract::JsonBody;

/// The routes of this module.
pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(run_query)).routes(routes!(run_batch))
}

/// Run one SQL statement on the tenant's database.
///
/// A statement that only reads runs in a read-only transaction, and another one in a writing transaction. Writing needs
/// the role writer. An answer has at most 10,000 rows and 16 MiB.
#[utoipa::path(post, path = "/query", tag = "statements", request_body = StatementRequest,
    responses((status = 200, description = "The rows of the statement", body = StatementAnswer)))]
async fn run_query(tenant: OpenedTenant, JsonBody(asked): JsonBody<StatementRequest>) -> Result<AnswerDocument> {
    let mut results = tenant.run_statements(vec![bind_statement(asked)?]).await?;
    Ok(AnswerDocument::answer_of(results.pop().unwrap_or_default()))
}

/// Run several SQL statements in one transaction.
///
/// If one statement fails, none has an effect.
#[utoipa::path(post, path = "/batch", tag = "statements", request_body = StatementBatch,
    responses((status = 200, description = "The rows of each statement", body = BatchAnswer)))]
async fn run_batch(tenant: OpenedTenant, JsonBody(batch): JsonBody<StatementBatch>) -> Result<AnswerDocument> {
    if batch.statements.is_empty() || batch.statements.len() > STATEMENTS_MAX {
        return Err(Problem::invalid(format!("statements: expected 1 to {STATEMENTS_MAX}")));
    }
    let statements = batch.statements.into_iter().map(bind_statement).collect::<Result<Vec<_>>>()?;
    Ok(AnswerDocument::results_of(tenant.run_statements(statements).await?))
}

/// Binds the parameters. A refusal names the parameter by its number, never its value.
fn bind_statement(asked: StatementRequest) -> Result<SqlStatement> {
    if asked.params.len() > PARAMETERS_MAX {
        return Err(Problem::invalid(format!("params: expected at most {PARAMETERS_MAX}")));
    }
    let params = parse_parameters(asked.params).map_err(Problem::invalid)?;
    Ok(SqlStatement { sql: asked.sql, params })
}
