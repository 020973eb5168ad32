//! `/query` and `/batch`, below `/t/{tenant}` or with the tenant named by host or header.

use axum::Router;
use axum::routing::post;
use serde::Deserialize;
use tenant_engine::Statement;

use super::document::Document;
use super::opened::Opened;
use super::value::{Sent, parameters};
use crate::http::Api;
use crate::http::error::{Problem, Result};
use crate::http::extract::Json;

/// Statements of one transaction: it holds the tenant's only writer.
const STATEMENTS_MAX: usize = 100;
/// What SQLite binds at most unless built otherwise.
const PARAMETERS_MAX: usize = 32_766;

/// The routes.
pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/query", post(query))
        .route("/t/{tenant}/query", post(query))
        .route("/batch", post(batch))
        .route("/t/{tenant}/batch", post(batch))
}

/// One statement.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    sql: String,
    #[serde(default)]
    params: Vec<Sent>,
}

/// Several, in one transaction.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    statements: Vec<Asked>,
}

impl Asked {
    /// Binds the parameters; a refusal names the parameter by its number, never its value.
    fn statement(self) -> Result<Statement> {
        if self.params.len() > PARAMETERS_MAX {
            return Err(Problem::invalid(format!("params: expected at most {PARAMETERS_MAX}")));
        }
        let params = parameters(self.params).map_err(Problem::invalid)?;
        Ok(Statement { sql: self.sql, params })
    }
}

async fn query(tenant: Opened, Json(asked): Json<Asked>) -> Result<Document> {
    let mut results = tenant.run(vec![asked.statement()?]).await?;
    Ok(Document::answer(results.pop().unwrap_or_default()))
}

async fn batch(tenant: Opened, Json(batch): Json<Batch>) -> Result<Document> {
    if batch.statements.is_empty() || batch.statements.len() > STATEMENTS_MAX {
        return Err(Problem::invalid(format!("statements: expected 1 to {STATEMENTS_MAX}")));
    }
    let statements = batch.statements.into_iter().map(Asked::statement).collect::<Result<Vec<_>>>()?;
    Ok(Document::results(tenant.run(statements).await?))
}
